/* FuXi's attention of one sequence and head (see kernels/kernels.h), a block of keys at a time as in attention_hstu.c.
 * The maps of a tile lie below each other, 16 rows a channel, so that one product with the values serves all channels.
 */
#include <math.h>

#include "kernels/fast/tiles.h"

enum { TILE = TILE_Q * TILE_LD }; /* a map: rows have room for what tile_expand_runs writes beyond them */

static bool by_function(const sh_fuxi_maps *m) { return m->channels < 3 && m->time; }
static bool by_bucket(const sh_fuxi_maps *m) { return m->channels == 3 && m->bias.ts; }

/* Key times from the sequence's first, as double: differences below 2^53 are exact, and rounding 1 + x to float is the
 * single rounding that converting the integer would be. */
static void pack_times(const sh_fuxi_maps *m, int k0, int nk, double *at) {
  int j = 0;
  for (; j < nk; j++) at[j] = (double)(m->time[k0 + j] - m->time[0]);
  for (; j < tile_pad(nk); j++) at[j] = 0;
}

static inline __attribute__((always_inline)) float since(double next, double at, float more) {
  double x = next - at;
  x = x > 0 ? x : 0;
  return (float)(x + (double)more);
}

/* The workspace: a block of keys, a tile's maps, and what backward needs besides. */
typedef struct fuxi_work {
  int C, dqk;                 /* dqk 0 without a semantic channel */
  double *at;                 /* [TILE_K] key times */
  float *kt, *v;              /* [dqk x TILE_LD], forward [TILE_K x dv], backward transposed [dv x TILE_LD] */
  float *maps, *o;            /* [C x TILE], forward [C TILE_Q x dv] out, backward dout */
  float *room, *qbuf, *dqbuf; /* of dout and of q as operands; [TILE_Q x dqk] */
  float *k, *dkt, *dvt, *g, *sums;
} fuxi_work;
static fuxi_work workspace(const sh_heads_io *h, const sh_fuxi_maps *m, float *work) {
  int64_t C = m->channels, dqk = C == 3 ? h->dqk : 0, dv = h->dv;
  fuxi_work w = {.C = (int)C, .dqk = (int)dqk, .at = (double *)(void *)work};
  w.kt = work + 2 * TILE_K, w.v = w.kt + dqk * TILE_LD, w.maps = w.v + dv * TILE_LD, w.o = w.maps + C * TILE;
  w.room = w.o + C * TILE_Q * dv, w.qbuf = w.room + TILE_ROOM(C * TILE_Q, dv),
  w.dqbuf = w.qbuf + TILE_ROOM(TILE_Q, dqk);
  w.k = w.dqbuf + TILE_Q * dqk;
  w.dkt = w.k + dqk * TILE_K, w.dvt = w.dkt + dqk * TILE_LD, w.g = w.dvt + dv * TILE_LD, w.sums = w.g + C * TILE;
  return w;
}

/* The time map of query i over n keys from k0, to the end of the last vector. */
static void time_row(const sh_fuxi_maps *m, const double *at, int i, int k0, int n, float *t) {
  if (by_bucket(m)) {
    tile_expand_runs(&m->bias, i, k0, n, t);
  } else if (by_function(m)) {
    double next = (double)(m->next_time[i] - m->time[0]);
    float a = m->a, b = m->b, rate = expf(b);
    int np = tile_pad(n);
    if (m->time_function == 0) {
      SH_SIMD
      for (int j = 0; j < np; j++) t[j] = a * vec_exp(-b * vec_log(since(next, at[j], 1.f)));
    } else {
      SH_SIMD
      for (int j = 0; j < np; j++) t[j] = a * vec_exp(-rate * since(next, at[j], 0.f));
    }
  } else {
    tile_clear(0, tile_pad(n), t);
  }
}

/* Also takes g, the map's gradient, zero beyond n. The sums over all pairs cancel almost entirely: hence double. */
static void time_row_back(const sh_fuxi_maps *m, const double *at, int i, int k0, int n, float *t, const float *g,
                          float *sums) {
  if (!by_function(m)) {
    time_row(m, at, i, k0, n, t);
    if (by_bucket(m)) tile_sum_runs(&m->bias, i, k0, n, g, sums);
    return;
  }
  double next = (double)(m->next_time[i] - m->time[0]), da = 0, db = 0;
  float a = m->a, b = m->b, rate = expf(b);
  int np = tile_pad(n);
  if (m->time_function == 0) {
    SH_PRAGMA(omp simd reduction(+ : da, db))
    for (int j = 0; j < np; j++) {
      float ln = vec_log(since(next, at[j], 1.f)), e = vec_exp(-b * ln);
      double ge = (double)g[j] * (double)e;
      t[j] = a * e;
      da += ge;
      db -= ge * (double)ln;
    }
  } else {
    SH_PRAGMA(omp simd reduction(+ : da, db))
    for (int j = 0; j < np; j++) {
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

static void position_row(const sh_fuxi_maps *m, int i, int k0, int n, float *p) {
  const float *pos = m->bias.pos + (k0 - i);
  for (int j = 0; j < n; j += LANES) lanes_store(p + j, lanes_load_n(pos + j, lanes_next(n - j)));
}

static void map_row(const sh_fuxi_maps *m, const fuxi_work *w, int i, int k0, int n, int kp, float inv, float *p) {
  if (n > 0) {
    position_row(m, i, k0, n, p);
    time_row(m, w->at, i, k0, n, p + TILE);
    for (int j = 0; w->C == 3 && j < n; j += LANES) silu_lanes(inv, lanes_load(p + 2 * TILE + j), p + 2 * TILE + j);
  }
  for (int ch = 0; ch < w->C; ch++) tile_clear(n, kp, p + ch * TILE);
}

void SH_FN(fuxi_attention)(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work) {
  fuxi_work w = workspace(h, m, work);
  int L = h->L, dqk = w.dqk, dv = h->dv;
  for (int k0 = 0; k0 < L; k0 += TILE_K) {
    int nk = L - k0 < TILE_K ? L - k0 : TILE_K;
    if (by_function(m)) pack_times(m, k0, nk, w.at);
    if (dqk) tile_pack_transposed(nk, tile_pad(nk), dqk, h->k + (int64_t)k0 * h->ldkv, h->ldkv, w.kt, TILE_LD);
    tile_pack_rows(nk, tile_pad(nk), dv, h->v + (int64_t)k0 * h->ldkv, h->ldkv, w.v);
    for (int i0 = k0 > h->query_first ? k0 : h->query_first; i0 < L; i0 += TILE_Q) {
      int nq = L - i0 < TILE_Q ? L - i0 : TILE_Q, row = i0 - h->query_first;
      int kp = tile_pad(tile_seen(i0 + nq - 1, L, k0, tile_pad(nk)));
      if (dqk) {
        tile_rows q = tile_take(h->q + (int64_t)row * h->ldq, h->ldq, nq, TILE_Q, dqk, false, w.qbuf);
        tile_scores(&q, kp, w.kt, TILE_LD, w.maps + 2 * TILE, TILE_LD);
      }
      for (int r = 0; r < TILE_Q; r++)
        map_row(m, &w, i0 + r, k0, tile_seen(i0 + r, L - 1, k0, kp), kp, 1.f / divisor, w.maps + r * TILE_LD);
      tile_weigh(w.C * TILE_Q, kp, dv, w.maps, TILE_LD, w.v, w.o, dv, false);
      for (int r = 0; r < nq; r++)
        for (int ch = 0; ch < w.C; ch++) {
          float *out = h->out + (int64_t)(row + r) * h->ldout + ch * m->channel_stride;
          const float *o = w.o + (int64_t)(ch * TILE_Q + r) * dv;
          if (k0 == 0)
            memcpy(out, o, sizeof(float) * (size_t)dv);
          else
            tile_add(dv, o, out);
        }
    }
  }
}

/* One row. On entry g holds dout.v of every channel and p's semantic row q.k; on return p holds the maps and g's
 * semantic row the gradient of the scores. */
static void back_row(const sh_fuxi_maps *m, const fuxi_work *w, int i, int k0, int n, int kp, float inv, float *p,
                     float *g) {
  for (int ch = 0; ch < w->C; ch++) tile_clear(n, kp, g + ch * TILE);
  if (n > 0) {
    position_row(m, i, k0, n, p);
    tile_add(n, g, m->bias.dpos + (k0 - i));
    time_row_back(m, w->at, i, k0, n, p + TILE, g + TILE, w->sums);
    for (int j = 0; w->C == 3 && j < n; j += LANES)
      silu_lanes_back(inv, lanes_load(p + 2 * TILE + j), p + 2 * TILE + j, g + 2 * TILE + j);
  }
  for (int ch = 0; ch < w->C; ch++) tile_clear(n, kp, p + ch * TILE);
}

/* to[TILE_Q x d]: n rows, then zeros. */
static void tile_stack(int n, int d, const float *x, int ld, float *to) {
  for (int r = 0; r < n; r++) memcpy(to + (int64_t)r * d, x + (int64_t)r * ld, sizeof(float) * (size_t)d);
  memset(to + (int64_t)n * d, 0, sizeof(float) * (size_t)(TILE_Q - n) * (size_t)d);
}

/* Queries i0 .. i0+nq-1 against the packed block of nk keys from k0. */
static void back_tile(const sh_heads_io *h, const sh_fuxi_maps *m, const fuxi_work *w, float inv, int i0, int k0,
                      int nk) {
  int L = h->L, dqk = w->dqk, dv = h->dv, C = w->C, nq = L - i0 < TILE_Q ? L - i0 : TILE_Q;
  int64_t row = i0 - h->query_first;
  int kp = tile_pad(tile_seen(i0 + nq - 1, L, k0, tile_pad(nk)));
  tile_rows q = {0};
  if (dqk) {
    q = tile_take(h->q + row * h->ldq, h->ldq, nq, TILE_Q, dqk, true, w->qbuf);
    tile_scores(&q, kp, w->kt, TILE_LD, w->maps + 2 * TILE, TILE_LD);
  }
  for (int ch = 0; ch < C; ch++)
    tile_stack(nq, dv, h->dout + row * h->ldout + ch * m->channel_stride, h->ldout, w->o + (int64_t)ch * TILE_Q * dv);
  tile_rows dout = tile_take(w->o, dv, C * TILE_Q, C * TILE_Q, dv, true, w->room);
  tile_scores(&dout, kp, w->v, TILE_LD, w->g, TILE_LD);
  for (int r = 0; r < TILE_Q; r++)
    back_row(m, w, i0 + r, k0, tile_seen(i0 + r, L - 1, k0, kp), kp, inv, w->maps + r * TILE_LD, w->g + r * TILE_LD);
  tile_spread(&dout, kp, w->maps, TILE_LD, w->dvt, TILE_LD);
  if (!dqk) return;
  tile_spread(&q, kp, w->g + 2 * TILE, TILE_LD, w->dkt, TILE_LD);
  tile_weigh(TILE_Q, kp, dqk, w->g + 2 * TILE, TILE_LD, w->k, w->dqbuf, dqk, false);
  for (int r = 0; r < nq; r++) {
    float *to = h->dq + (row + r) * h->ldq;
    if (k0 == 0)
      memcpy(to, w->dqbuf + (int64_t)r * dqk, sizeof(float) * (size_t)dqk);
    else
      tile_add(dqk, w->dqbuf + (int64_t)r * dqk, to);
  }
}

void SH_FN(fuxi_attention_back)(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work) {
  fuxi_work w = workspace(h, m, work);
  int L = h->L, dqk = w.dqk, dv = h->dv;
  if (by_bucket(m)) memset(w.sums, 0, sizeof(float) * TILE_RUNS * LANES);
  for (int k0 = 0; k0 < L; k0 += TILE_K) {
    int nk = L - k0 < TILE_K ? L - k0 : TILE_K, kp = tile_pad(nk);
    int64_t first = (int64_t)k0 * h->ldkv;
    if (by_function(m)) pack_times(m, k0, nk, w.at);
    if (dqk) {
      tile_pack_transposed(nk, kp, dqk, h->k + first, h->ldkv, w.kt, TILE_LD);
      tile_pack_rows(nk, kp, dqk, h->k + first, h->ldkv, w.k);
    }
    tile_pack_transposed(nk, kp, dv, h->v + first, h->ldkv, w.v, TILE_LD);
    memset(w.dkt, 0, sizeof(float) * (size_t)(dqk + dv) * TILE_LD); /* dvt follows dkt */
    for (int i0 = k0 > h->query_first ? k0 : h->query_first; i0 < L; i0 += TILE_Q)
      back_tile(h, m, &w, 1.f / divisor, i0, k0, nk);
    if (dqk) transpose(dqk, nk, w.dkt, TILE_LD, h->dk + first, h->ldkv);
    transpose(dv, nk, w.dvt, TILE_LD, h->dv_ + first, h->ldkv);
    if (by_bucket(m)) tile_add_sums(w.sums, m->bias.dts);
  }
}
