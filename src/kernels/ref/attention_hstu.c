/* HSTU attention, the formula: out_i = sum_{j<=i} silu(q_i.k_j + pos[j-i] + ts[bucket(i,j)]) / divisor * v_j. */
#include <string.h>

#include "kernels/ref/ref.h"

static int bucket_of(const sh_rel_bias *b, int i, int j) {
  int32_t r = b->run_start[i];
  while (b->run_end[r] <= j) r++;
  return b->run_bucket[r];
}

static double score(const sh_heads_io *h, const sh_rel_bias *b, int i, int j) {
  const float *q = h->q + (int64_t)(i - h->query_first) * h->ldq, *k = h->k + (int64_t)j * h->ldkv;
  double s = ref_dot(h->dqk, q, k) + (double)b->pos[j - i];
  return b->ts ? s + (double)b->ts[bucket_of(b, i, j)] : s;
}

void sh_ref_hstu_attention(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work) {
  (void)work;
  for (int i = h->query_first; i < h->L; i++)
    for (int c = 0; c < h->dv; c++) {
      double o = 0;
      for (int j = 0; j <= i; j++) {
        double s = score(h, b, i, j);
        o += s * ref_sigmoid(s) / (double)divisor * (double)h->v[(int64_t)j * h->ldkv + c];
      }
      h->out[(int64_t)(i - h->query_first) * h->ldout + c] = (float)o;
    }
}

void sh_ref_hstu_attention_back(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work) {
  int L = h->L, first = h->query_first;
  double *dts = (double *)(void *)work, *dpos = dts + 129; /* dpos[i - j] */
  memset(dts, 0, sizeof(double) * (size_t)(129 + L));
  for (int i = 0; i < L; i++) {
    if (i >= first) memset(h->dq + (int64_t)(i - first) * h->ldq, 0, sizeof(float) * (size_t)h->dqk);
    memset(h->dk + (int64_t)i * h->ldkv, 0, sizeof(float) * (size_t)h->dqk);
    memset(h->dv_ + (int64_t)i * h->ldkv, 0, sizeof(float) * (size_t)h->dv);
  }
  for (int i = first; i < L; i++)
    for (int j = 0; j <= i; j++) {
      const float *dout = h->dout + (int64_t)(i - first) * h->ldout, *v = h->v + (int64_t)j * h->ldkv;
      double s = score(h, b, i, j), a = s * ref_sigmoid(s) / (double)divisor;
      double ds = ref_dot(h->dv, dout, v) * ref_silu_slope(s) / (double)divisor;
      float *dq = h->dq + (int64_t)(i - first) * h->ldq, *dk = h->dk + (int64_t)j * h->ldkv;
      float *dv = h->dv_ + (int64_t)j * h->ldkv;
      for (int c = 0; c < h->dv; c++) dv[c] = (float)((double)dv[c] + a * (double)dout[c]);
      for (int c = 0; c < h->dqk; c++) {
        dq[c] = (float)((double)dq[c] + ds * (double)h->k[(int64_t)j * h->ldkv + c]);
        dk[c] = (float)((double)dk[c] + ds * (double)h->q[(int64_t)(i - first) * h->ldq + c]);
      }
      dpos[i - j] += ds;
      if (b->ts) dts[bucket_of(b, i, j)] += ds;
    }
  for (int k = 0; k < L; k++) b->dpos[-k] += (float)dpos[k];
  for (int k = 0; b->ts && k < 129; k++) b->dts[k] += (float)dts[k];
}
