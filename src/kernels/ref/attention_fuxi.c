/* FuXi attention, the formula: three maps over keys j <= i, each applied to the values as its own channel:
 *   position  pos[j-i]
 *   time      ts[bucket(i,j)] (FuXi-alpha), or a (1 + x)^-b or a exp(-e^b x), x = max(next_time_i - time_j, 0)
 * (FuXi-beta) semantic  silu(q_i.k_j) / divisor (FuXi-alpha) */
#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

static int bucket_of(const sh_rel_bias *b, int i, int j) {
  int32_t r = b->run_start[i];
  while (b->run_end[r] <= j) r++;
  return b->run_bucket[r];
}

static double elapsed(const sh_fuxi_maps *m, int i, int j) {
  double x = (double)(m->next_time[i] - m->time[j]);
  return x > 0 ? x : 0;
}

/* The time function without its factor a; the part of its derivative by b beside it. */
static double time_shape(const sh_fuxi_maps *m, double x) {
  return m->time_function == 0 ? pow(1.0 + x, -(double)m->b) : exp(-exp((double)m->b) * x);
}
static double time_slope(const sh_fuxi_maps *m, double x) {
  return m->time_function == 0 ? -log(1.0 + x) : -exp((double)m->b) * x;
}

static double time_weight(const sh_fuxi_maps *m, int i, int j) {
  if (m->channels == 3) return m->bias.ts ? (double)m->bias.ts[bucket_of(&m->bias, i, j)] : 0.0;
  return m->time ? (double)m->a * time_shape(m, elapsed(m, i, j)) : 0.0;
}

static double score(const sh_heads_io *h, int i, int j) {
  return ref_dot(h->dqk, h->q + (int64_t)(i - h->query_first) * h->ldq, h->k + (int64_t)j * h->ldkv);
}

/* weight[channel * L + j] of query i. */
static void weights(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, int i, double *weight) {
  for (int j = 0; j <= i; j++) {
    weight[j] = (double)m->bias.pos[j - i];
    weight[h->L + j] = time_weight(m, i, j);
    if (m->channels == 3) {
      double s = score(h, i, j);
      weight[2 * h->L + j] = s * ref_sigmoid(s) / (double)divisor;
    }
  }
}

void sh_ref_fuxi_attention(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work) {
  double *weight = (double *)(void *)work;
  for (int i = h->query_first; i < h->L; i++) {
    weights(h, m, divisor, i, weight);
    for (int ch = 0; ch < m->channels; ch++)
      for (int c = 0; c < h->dv; c++) {
        double o = 0;
        for (int j = 0; j <= i; j++) o += weight[ch * h->L + j] * (double)h->v[(int64_t)j * h->ldkv + c];
        h->out[(int64_t)(i - h->query_first) * h->ldout + ch * m->channel_stride + c] = (float)o;
      }
  }
}

static void time_back(const sh_fuxi_maps *m, int i, int j, double g, double *dts) {
  if (m->channels == 3) {
    if (m->bias.ts) dts[bucket_of(&m->bias, i, j)] += g;
  } else if (m->time) {
    double x = elapsed(m, i, j), e = time_shape(m, x);
    *m->da += g * e;
    *m->db += g * (double)m->a * e * time_slope(m, x);
  }
}

void sh_ref_fuxi_attention_back(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work) {
  int L = h->L, first = h->query_first, dqk = m->channels == 3 ? h->dqk : 0, dv = h->dv;
  double *dk = (double *)(void *)work, *dval = dk + (int64_t)L * dqk, *weight = dval + (int64_t)L * dv;
  double *dpos = weight + 3 * (int64_t)L, *dts = dpos + L; /* dpos[i - j] */
  memset(dpos, 0, sizeof(double) * (size_t)(L + 129));
  memset(dk, 0, sizeof(double) * (size_t)L * (size_t)(dqk + dv)); /* dval follows dk */
  for (int i = first; i < L; i++) {
    weights(h, m, divisor, i, weight);
    for (int j = 0; j <= i; j++) {
      const float *dout = h->dout + (int64_t)(i - first) * h->ldout, *v = h->v + (int64_t)j * h->ldkv;
      double g[3] = {0};
      for (int ch = 0; ch < m->channels; ch++) {
        g[ch] = ref_dot(dv, dout + ch * m->channel_stride, v);
        for (int c = 0; c < dv; c++)
          dval[(int64_t)j * dv + c] += weight[ch * L + j] * (double)dout[ch * m->channel_stride + c];
      }
      dpos[i - j] += g[0];
      time_back(m, i, j, g[1], dts);
      if (m->channels < 3) continue;
      double ds = g[2] * ref_silu_slope(score(h, i, j)) / (double)divisor;
      weight[2 * L + j] = ds; /* the weight is not needed any more */
      for (int c = 0; c < dqk; c++) dk[(int64_t)j * dqk + c] += ds * (double)h->q[(int64_t)(i - first) * h->ldq + c];
    }
    for (int c = 0; c < dqk; c++) {
      double s = 0;
      for (int j = 0; j <= i; j++) s += weight[2 * L + j] * (double)h->k[(int64_t)j * h->ldkv + c];
      h->dq[(int64_t)(i - first) * h->ldq + c] = (float)s;
    }
  }
  for (int k = 0; k < L; k++) m->bias.dpos[-k] += (float)dpos[k];
  for (int k = 0; m->channels == 3 && m->bias.ts && k < 129; k++) m->bias.dts[k] += (float)dts[k];
  for (int j = 0; j < L; j++) {
    for (int c = 0; c < dqk; c++) h->dk[(int64_t)j * h->ldkv + c] = (float)dk[(int64_t)j * dqk + c];
    for (int c = 0; c < dv; c++) h->dv_[(int64_t)j * h->ldkv + c] = (float)dval[(int64_t)j * dv + c];
  }
}
