/* HSTU's pointwise attention of one sequence and head (see kernels/kernels.h). */
#include "kernels/fast/tiles.h"
#include "kernels/fast/vec.h"

/* Scores of one query row against n keys from k0, biased in place. */
static void add_bias(const sh_rel_bias *b, int i, int k0, int n, float *s, float *expanded) {
  const float *pos = b->pos + (k0 - i);
  if (b->ts) {
    tile_expand_runs(b, i, k0, n, expanded);
    SH_SIMD
    for (int j = 0; j < n; j++) s[j] += pos[j] + expanded[j];
  } else {
    SH_SIMD
    for (int j = 0; j < n; j++) s[j] += pos[j];
  }
}

void SH_FN(hstu_attention)(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work) {
  int L = h->L, Lp = tile_pad(L), dqk = h->dqk, dv = h->dv;
  float *kt = work, *v = kt + (int64_t)dqk * Lp, *s = v + (int64_t)Lp * dv, *expanded = s + TILE_Q * TILE_K;
  float *qbuf = expanded + TILE_K, *obuf = qbuf + (int64_t)TILE_Q * dqk, inv = 1.f / divisor;
  tile_pack_transposed(L, Lp, dqk, h->k, h->ldkv, kt);
  tile_pack_rows(L, Lp, dv, h->v, h->ldkv, v);
  for (int i0 = h->query_first; i0 < L; i0 += TILE_Q) {
    int nq = L - i0 < TILE_Q ? L - i0 : TILE_Q, keys = i0 + nq, row = i0 - h->query_first;
    tile_rows q = tile_take(h->q + (int64_t)row * h->ldq, h->ldq, nq, dqk, qbuf);
    float *out = h->out + (int64_t)row * h->ldout, *o = nq == TILE_Q ? out : obuf;
    int ldo = nq == TILE_Q ? h->ldout : dv;
    for (int k0 = 0; k0 < keys; k0 += TILE_K) {
      int kp = tile_pad(keys - k0 < TILE_K ? keys - k0 : TILE_K);
      sh_gemm(TILE_Q, kp, dqk, q.at, q.ld, kt + k0, Lp, s, TILE_K, false);
      for (int r = 0; r < nq; r++) {
        int i = i0 + r, n = i + 1 - k0 < kp ? i + 1 - k0 : kp;
        float *x = s + r * TILE_K;
        if (n < 0) n = 0;
        add_bias(b, i, k0, n, x, expanded);
        SH_SIMD
        for (int j = 0; j < n; j++) x[j] = x[j] * vec_sigmoid(x[j]) * inv;
        for (int j = n; j < kp; j++) x[j] = 0;
      }
      sh_gemm(TILE_Q, dv, kp, s, TILE_K, v + (int64_t)k0 * dv, dv, o, ldo, k0 > 0);
    }
    if (nq < TILE_Q) tile_put(obuf, nq, dv, out, h->ldout);
  }
}

/* One row: s holds q.k and g holds dout.v; on return s holds the attention weights and g the score gradients. */
static void back_row(const sh_rel_bias *b, int i, int k0, int n, int kp, float inv, float *s, float *g,
                     float *expanded) {
  for (int j = n; j < kp; j++) s[j] = 0, g[j] = 0;
  if (n == 0) return;
  add_bias(b, i, k0, n, s, expanded);
  SH_SIMD
  for (int j = 0; j < n; j++) {
    float x = s[j], sig = vec_sigmoid(x);
    s[j] = x * sig * inv;
    g[j] = g[j] * sig * (1.f + x * (1.f - sig)) * inv;
  }
  float *dpos = b->dpos + (k0 - i);
  SH_SIMD
  for (int j = 0; j < n; j++) dpos[j] += g[j];
  if (b->ts) tile_sum_runs(b, i, k0, n, g);
}

void SH_FN(hstu_attention_back)(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work) {
  int L = h->L, Lp = tile_pad(L), dqk = h->dqk, dv = h->dv;
  float *kt = work, *vt = kt + (int64_t)dqk * Lp, *k = vt + (int64_t)dv * Lp, *dk = k + (int64_t)Lp * dqk;
  float *dvp = dk + (int64_t)Lp * dqk, *s = dvp + (int64_t)Lp * dv, *g = s + TILE_Q * TILE_K;
  float *expanded = g + TILE_Q * TILE_K, *qbuf = expanded + TILE_K, *obuf = qbuf + (int64_t)TILE_Q * dqk;
  float *dqbuf = obuf + (int64_t)TILE_Q * dv, inv = 1.f / divisor;
  tile_pack_transposed(L, Lp, dqk, h->k, h->ldkv, kt);
  tile_pack_transposed(L, Lp, dv, h->v, h->ldkv, vt);
  tile_pack_rows(L, Lp, dqk, h->k, h->ldkv, k);
  memset(dk, 0, sizeof(float) * (size_t)Lp * (size_t)(dqk + dv)); /* dvp follows dk */
  for (int i0 = 0; i0 < L; i0 += TILE_Q) {
    int nq = L - i0 < TILE_Q ? L - i0 : TILE_Q, keys = i0 + nq;
    tile_rows q = tile_take(h->q + (int64_t)i0 * h->ldq, h->ldq, nq, dqk, qbuf);
    tile_rows dout = tile_take(h->dout + (int64_t)i0 * h->ldout, h->ldout, nq, dv, obuf);
    float *dq = nq == TILE_Q ? h->dq + (int64_t)i0 * h->ldq : dqbuf;
    int lddq = nq == TILE_Q ? h->ldq : dqk;
    for (int k0 = 0; k0 < keys; k0 += TILE_K) {
      int kp = tile_pad(keys - k0 < TILE_K ? keys - k0 : TILE_K);
      sh_gemm(TILE_Q, kp, dqk, q.at, q.ld, kt + k0, Lp, s, TILE_K, false);
      sh_gemm(TILE_Q, kp, dv, dout.at, dout.ld, vt + k0, Lp, g, TILE_K, false);
      for (int r = 0; r < TILE_Q; r++) {
        int i = i0 + r, n = i + 1 - k0 < kp ? i + 1 - k0 : kp;
        if (r >= nq || n < 0) n = 0;
        back_row(b, i, k0, n, kp, inv, s + r * TILE_K, g + r * TILE_K, expanded);
      }
      sh_gemm_tn(kp, dv, TILE_Q, s, TILE_K, dout.at, dout.ld, dvp + (int64_t)k0 * dv, dv, true);
      sh_gemm_tn(kp, dqk, TILE_Q, g, TILE_K, q.at, q.ld, dk + (int64_t)k0 * dqk, dqk, true);
      sh_gemm(TILE_Q, dqk, kp, g, TILE_K, k + (int64_t)k0 * dqk, dqk, dq, lddq, k0 > 0);
    }
    if (nq < TILE_Q) tile_put(dqbuf, nq, dqk, h->dq + (int64_t)i0 * h->ldq, h->ldq);
  }
  tile_put(dk, L, dqk, h->dk, h->ldkv);
  tile_put(dvp, L, dv, h->dv_, h->ldkv);
}
