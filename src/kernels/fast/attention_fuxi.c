/* FuXi's attention of one sequence and head (see kernels/kernels.h). The maps of a tile lie below each other, 16 rows a
 * channel, so that one product with the values serves all channels. */
#include <math.h>

#include "kernels/fast/tiles.h"
#include "kernels/fast/vec.h"

enum { TILE = TILE_Q * TILE_K };

/* Key times from the sequence's first, as double: differences below 2^53 are exact, and rounding 1 + x to float is the
 * single rounding that converting the integer would be. */
static void pack_times(const sh_fuxi_maps *m, int L, double *at) {
  for (int j = 0; j < L; j++) at[j] = (double)(m->time[j] - m->time[0]);
}

static bool by_function(const sh_fuxi_maps *m) { return m->channels < 3 && m->time; }
static bool by_bucket(const sh_fuxi_maps *m) { return m->channels == 3 && m->bias.ts; }

static inline __attribute__((always_inline)) float since(double next, double at, float more) {
  double x = next - at;
  x = x > 0 ? x : 0;
  return (float)(x + (double)more);
}

/* The time map of query i over keys k0 .. k0+n-1. */
static void time_row(const sh_fuxi_maps *m, const double *at, int i, int k0, int n, float *t) {
  if (by_bucket(m)) {
    tile_expand_runs(&m->bias, i, k0, n, t);
  } else if (by_function(m)) {
    double next = (double)(m->next_time[i] - m->time[0]);
    float a = m->a, b = m->b, rate = expf(b);
    at += k0;
    if (m->time_function == 0) {
      SH_SIMD
      for (int j = 0; j < n; j++) t[j] = a * vec_exp(-b * vec_log(since(next, at[j], 1.f)));
    } else {
      SH_SIMD
      for (int j = 0; j < n; j++) t[j] = a * vec_exp(-rate * since(next, at[j], 0.f));
    }
  } else {
    memset(t, 0, sizeof(float) * (size_t)n);
  }
}

/* Also takes g, the map's gradient. The sums over all pairs cancel almost entirely: hence double. */
static void time_row_back(const sh_fuxi_maps *m, const double *at, int i, int k0, int n, float *t, const float *g) {
  if (!by_function(m)) {
    time_row(m, at, i, k0, n, t);
    if (by_bucket(m)) tile_sum_runs(&m->bias, i, k0, n, g);
    return;
  }
  double next = (double)(m->next_time[i] - m->time[0]), da = 0, db = 0;
  float a = m->a, b = m->b, rate = expf(b);
  at += k0;
  if (m->time_function == 0) {
    SH_PRAGMA(omp simd reduction(+ : da, db))
    for (int j = 0; j < n; j++) {
      float ln = vec_log(since(next, at[j], 1.f)), e = vec_exp(-b * ln);
      double ge = (double)g[j] * (double)e;
      t[j] = a * e;
      da += ge;
      db -= ge * (double)ln;
    }
  } else {
    SH_PRAGMA(omp simd reduction(+ : da, db))
    for (int j = 0; j < n; j++) {
      float x = rate * since(next, at[j], 0.f), e = vec_exp(-x);
      double ge = (double)g[j] * (double)e;
      t[j] = a * e;
      da += ge;
      db -= ge * (double)x;
    }
  }
  *m->da += da;
  *m->db += (double)a * db;
}

static void clear_row(int channels, int from, int to, float *maps) {
  for (int ch = 0; ch < channels; ch++)
    for (int j = from; j < to; j++) maps[ch * TILE + j] = 0;
}

/* Keys that query i sees of those from k0 on; rows past the last query see none. */
static inline int seen(int i, int last, int k0, int kp) {
  int n = i + 1 - k0 < kp ? i + 1 - k0 : kp;
  return i > last || n < 0 ? 0 : n;
}

void SH_FN(fuxi_attention)(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work) {
  int L = h->L, Lp = tile_pad(L), C = m->channels, dqk = C == 3 ? h->dqk : 0, dv = h->dv;
  double *at = (double *)(void *)work;
  float *kt = work + 2 * Lp, *v = kt + (int64_t)dqk * Lp, *maps = v + (int64_t)Lp * dv, *o = maps + C * TILE;
  float *qbuf = o + (int64_t)C * TILE_Q * dv, inv = 1.f / divisor;
  if (by_function(m)) pack_times(m, L, at);
  if (C == 3) tile_pack_transposed(L, Lp, dqk, h->k, h->ldkv, kt);
  tile_pack_rows(L, Lp, dv, h->v, h->ldkv, v);
  for (int i0 = h->query_first; i0 < L; i0 += TILE_Q) {
    int nq = L - i0 < TILE_Q ? L - i0 : TILE_Q, keys = i0 + nq, row = i0 - h->query_first;
    tile_rows q = {0};
    if (C == 3) q = tile_take(h->q + (int64_t)row * h->ldq, h->ldq, nq, dqk, qbuf);
    for (int k0 = 0; k0 < keys; k0 += TILE_K) {
      int kp = tile_pad(keys - k0 < TILE_K ? keys - k0 : TILE_K);
      if (C == 3) sh_gemm(TILE_Q, kp, dqk, q.at, q.ld, kt + k0, Lp, maps + 2 * TILE, TILE_K, false);
      for (int r = 0; r < TILE_Q; r++) {
        int i = i0 + r, n = seen(i, keys - 1, k0, kp);
        float *p = maps + r * TILE_K, *s = p + 2 * TILE;
        clear_row(C, n, kp, p);
        if (n == 0) continue;
        memcpy(p, m->bias.pos + (k0 - i), sizeof(float) * (size_t)n);
        time_row(m, at, i, k0, n, p + TILE);
        if (C < 3) continue;
        SH_SIMD
        for (int j = 0; j < n; j++) s[j] = s[j] * vec_sigmoid(s[j]) * inv;
      }
      sh_gemm(C * TILE_Q, dv, kp, maps, TILE_K, v + (int64_t)k0 * dv, dv, o, dv, k0 > 0);
    }
    for (int ch = 0; ch < C; ch++)
      tile_put(o + (int64_t)ch * TILE_Q * dv, nq, dv, h->out + (int64_t)row * h->ldout + ch * m->channel_stride,
               h->ldout);
  }
}

/* One row. On entry g holds dout.v of every channel and p's semantic row q.k; on return p holds the maps and g's
 * semantic row the gradient of the scores. */
static void back_row(const sh_fuxi_maps *m, const double *at, int i, int k0, int n, int kp, float inv, float *p,
                     float *g) {
  clear_row(m->channels, n, kp, p);
  clear_row(m->channels, n, kp, g);
  if (n == 0) return;
  memcpy(p, m->bias.pos + (k0 - i), sizeof(float) * (size_t)n);
  float *dpos = m->bias.dpos + (k0 - i);
  SH_SIMD
  for (int j = 0; j < n; j++) dpos[j] += g[j];
  time_row_back(m, at, i, k0, n, p + TILE, g + TILE);
  if (m->channels < 3) return;
  float *s = p + 2 * TILE, *ds = g + 2 * TILE;
  SH_SIMD
  for (int j = 0; j < n; j++) {
    float x = s[j], sig = vec_sigmoid(x);
    s[j] = x * sig * inv;
    ds[j] = ds[j] * sig * (1.f + x * (1.f - sig)) * inv;
  }
}

void SH_FN(fuxi_attention_back)(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work) {
  int L = h->L, Lp = tile_pad(L), C = m->channels, dqk = C == 3 ? h->dqk : 0, dv = h->dv;
  double *at = (double *)(void *)work;
  float *kt = work + 2 * Lp, *vt = kt + (int64_t)dqk * Lp, *k = vt + (int64_t)dv * Lp, *dk = k + (int64_t)Lp * dqk;
  float *dvp = dk + (int64_t)Lp * dqk, *maps = dvp + (int64_t)Lp * dv, *g = maps + C * TILE, *dout = g + C * TILE;
  float *qbuf = dout + (int64_t)C * TILE_Q * dv, *dqbuf = qbuf + (int64_t)TILE_Q * dqk, inv = 1.f / divisor;
  if (by_function(m)) pack_times(m, L, at);
  if (C == 3) {
    tile_pack_transposed(L, Lp, dqk, h->k, h->ldkv, kt);
    tile_pack_rows(L, Lp, dqk, h->k, h->ldkv, k);
  }
  tile_pack_transposed(L, Lp, dv, h->v, h->ldkv, vt);
  memset(dk, 0, sizeof(float) * (size_t)Lp * (size_t)(dqk + dv)); /* dvp follows dk */
  for (int i0 = 0; i0 < L; i0 += TILE_Q) {
    int nq = L - i0 < TILE_Q ? L - i0 : TILE_Q, keys = i0 + nq;
    tile_rows q = {0};
    if (C == 3) q = tile_take(h->q + (int64_t)i0 * h->ldq, h->ldq, nq, dqk, qbuf);
    for (int ch = 0; ch < C; ch++)
      tile_pack_rows(nq, TILE_Q, dv, h->dout + (int64_t)i0 * h->ldout + ch * m->channel_stride, h->ldout,
                     dout + (int64_t)ch * TILE_Q * dv);
    float *dq = nq == TILE_Q && C == 3 ? h->dq + (int64_t)i0 * h->ldq : dqbuf;
    int lddq = nq == TILE_Q ? h->ldq : dqk;
    for (int k0 = 0; k0 < keys; k0 += TILE_K) {
      int kp = tile_pad(keys - k0 < TILE_K ? keys - k0 : TILE_K);
      float *s = maps + 2 * TILE, *ds = g + 2 * TILE;
      if (C == 3) sh_gemm(TILE_Q, kp, dqk, q.at, q.ld, kt + k0, Lp, s, TILE_K, false);
      sh_gemm(C * TILE_Q, kp, dv, dout, dv, vt + k0, Lp, g, TILE_K, false);
      for (int r = 0; r < TILE_Q; r++)
        back_row(m, at, i0 + r, k0, seen(i0 + r, keys - 1, k0, kp), kp, inv, maps + r * TILE_K, g + r * TILE_K);
      sh_gemm_tn(kp, dv, C * TILE_Q, maps, TILE_K, dout, dv, dvp + (int64_t)k0 * dv, dv, true);
      if (C < 3) continue;
      sh_gemm_tn(kp, dqk, TILE_Q, ds, TILE_K, q.at, q.ld, dk + (int64_t)k0 * dqk, dqk, true);
      sh_gemm(TILE_Q, dqk, kp, ds, TILE_K, k + (int64_t)k0 * dqk, dqk, dq, lddq, k0 > 0);
    }
    if (nq < TILE_Q && C == 3) tile_put(dqbuf, nq, dqk, h->dq + (int64_t)i0 * h->ldq, h->ldq);
  }
  if (C == 3) tile_put(dk, L, dqk, h->dk, h->ldkv);
  tile_put(dvp, L, dv, h->dv_, h->ldkv);
}
