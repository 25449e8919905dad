/* SASRec's attention, the formula: a_ij = softmax over j <= i of scale q_i.k_j; out_i = sum_j drop(a_ij) v_j.
 * With m_ij the dropout factor (0 or 1/(1-p)) and g_ij = m_ij dout_i.v_j:
 * dv_j = sum_i a_ij m_ij dout_i, ds_ij = scale a_ij (g_ij - sum_j' a_ij' g_ij'), dq_i = sum_j ds_ij k_j, dk_j likewise.
 */
#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "kernels/ref/ref.h"

static double score(const sh_heads_io *h, float scale, int i, int j) {
  const float *q = h->q + (int64_t)(i - h->query_first) * h->ldq, *k = h->k + (int64_t)j * h->ldkv;
  return (double)scale * ref_dot(h->dqk, q, k);
}

/* ln sum_j e^s_ij, so that a_ij = e^(s_ij - it). */
static double log_sum(const sh_heads_io *h, float scale, int i) {
  double top = -INFINITY, sum = 0;
  for (int j = 0; j <= i; j++) top = fmax(top, score(h, scale, i, j));
  for (int j = 0; j <= i; j++) sum += exp(score(h, scale, i, j) - top);
  return top + log(sum);
}

static double factor(const sh_drop *d, int64_t sample, int i, int64_t element) {
  if (!d || !d->threshold) return 1;
  sh_philox r = sh_random4(d->seed, d->site, d->when, sample, (uint32_t)i, (uint32_t)(element >> 2));
  return r.v[element & 3] < d->threshold ? 0.0 : (double)d->scale;
}

void sh_ref_softmax_attention(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample,
                              int64_t first_element, float *work) {
  (void)work;
  for (int i = h->query_first; i < h->L; i++) {
    double lse = log_sum(h, scale, i);
    for (int c = 0; c < h->dv; c++) {
      double o = 0;
      for (int j = 0; j <= i; j++)
        o += exp(score(h, scale, i, j) - lse) * factor(d, sample, i, first_element + j) *
             (double)h->v[(int64_t)j * h->ldkv + c];
      h->out[(int64_t)(i - h->query_first) * h->ldout + c] = (float)o;
    }
  }
}

void sh_ref_softmax_attention_back(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample,
                                   int64_t first_element, float *work) {
  (void)work;
  int first = h->query_first;
  for (int i = 0; i < h->L; i++) {
    if (i >= first) memset(h->dq + (int64_t)(i - first) * h->ldq, 0, sizeof(float) * (size_t)h->dqk);
    memset(h->dk + (int64_t)i * h->ldkv, 0, sizeof(float) * (size_t)h->dqk);
    memset(h->dv_ + (int64_t)i * h->ldkv, 0, sizeof(float) * (size_t)h->dv);
  }
  for (int i = first; i < h->L; i++) {
    const float *dout = h->dout + (int64_t)(i - first) * h->ldout, *q = h->q + (int64_t)(i - first) * h->ldq;
    double lse = log_sum(h, scale, i), mean = 0;
    for (int j = 0; j <= i; j++)
      mean += exp(score(h, scale, i, j) - lse) * factor(d, sample, i, first_element + j) *
              ref_dot(h->dv, dout, h->v + (int64_t)j * h->ldkv);
    for (int j = 0; j <= i; j++) {
      const float *k = h->k + (int64_t)j * h->ldkv, *v = h->v + (int64_t)j * h->ldkv;
      float *dq = h->dq + (int64_t)(i - first) * h->ldq, *dk = h->dk + (int64_t)j * h->ldkv;
      float *dv = h->dv_ + (int64_t)j * h->ldkv;
      double a = exp(score(h, scale, i, j) - lse), m = factor(d, sample, i, first_element + j);
      double ds = (double)scale * a * (m * ref_dot(h->dv, dout, v) - mean);
      for (int c = 0; c < h->dv; c++) dv[c] = (float)((double)dv[c] + a * m * (double)dout[c]);
      for (int c = 0; c < h->dqk; c++) {
        dq[c] = (float)((double)dq[c] + ds * (double)k[c]);
        dk[c] = (float)((double)dk[c] + ds * (double)q[c]);
      }
    }
  }
}
