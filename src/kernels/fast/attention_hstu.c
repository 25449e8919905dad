/* HSTU's pointwise attention of one sequence and head (see kernels/kernels.h), a block of keys at a time: its keys and
 * values, and in backward their gradients, stay in L2 while all queries that see them pass. */
#include "kernels/fast/tiles.h"

/* A vector of scores from column j on, s plus bias; there are m columns. pos: the position bias of the first column;
 * times: the expanded time bias, NULL for none. */
LANES_INLINE lanes biased(int64_t j, int m, const float *pos, const float *times, const float *s) {
  lanes x = lanes_load(s + j) + lanes_load_n(pos + j, m);
  return times ? x + lanes_load(times + j) : x;
}

/* The time bias of a tile's queries from i0, times [TILE_Q x TILE_LD]; NULL without one. A pass of its own: a row is
 * read when its short, overlapping stores have left the store buffer. */
LANES_INLINE const float *time_tile(const sh_rel_bias *b, int i0, int last, int k0, int kp, float *times) {
  if (!b->ts) return NULL;
  for (int r = 0; r < TILE_Q; r++) {
    int n = tile_seen(i0 + r, last, k0, kp);
    if (n > 0) tile_expand_runs(b, i0 + r, k0, n, times + r * TILE_LD);
  }
  return times;
}

/* s[n] = rows of k times q. */
static void row_dots(int n, int d, const float *q, const float *k, int ld, float *s) {
  for (int j = 0; j < n; j++) {
    lanes sum = {0};
    LANES_ROW(d, c, m, sum += lanes_load_n(q + c, m) * lanes_load_n(k + (int64_t)j * ld + c, m));
    s[j] = lanes_sum(sum);
  }
}

/* out[d] += sum of s[j] times row j of v, four registers of columns at a time. */
static void add_rows(int n, int d, const float *s, const float *v, int ld, float *out) {
  enum { WIDE = 4 };
  for (int c = 0; c < d; c += WIDE * LANES) {
    int m[WIDE];
    lanes sum[WIDE];
    for (int w = 0; w < WIDE; w++) {
      m[w] = d - c > w * LANES ? lanes_next(d - c - w * LANES) : 0;
      sum[w] = lanes_load_n(out + c + w * LANES, m[w]);
    }
    for (int j = 0; j < n; j++)
      for (int w = 0; w < WIDE; w++) sum[w] += s[j] * lanes_load_n(v + (int64_t)j * ld + c + w * LANES, m[w]);
    for (int w = 0; w < WIDE; w++) lanes_store_n(out + c + w * LANES, m[w], sum[w]);
  }
}

/* The last query alone, all that inference needs of the last block: a row of scores, so keys and values are read once,
 * where they lie; in fp32 in every table, as rounding them would cost more than the products. */
static void last_query(const sh_heads_io *h, const sh_rel_bias *b, float inv, float *work) {
  int L = h->L;
  float *s = work, *times = b->ts ? s + TILE_K : NULL;
  memset(h->out, 0, sizeof(float) * (size_t)h->dv);
  for (int k0 = 0; k0 < L; k0 += TILE_K) {
    int n = L - k0 < TILE_K ? L - k0 : TILE_K;
    row_dots(n, h->dqk, h->q, h->k + (int64_t)k0 * h->ldkv, h->ldkv, s);
    tile_clear(n, tile_pad(n), s);
    if (times) tile_expand_runs(b, L - 1, k0, n, times);
    LANES_ROW(n, j, m, silu_lanes(inv, biased(j, m, b->pos + (k0 - L + 1), times, s), s + j));
    add_rows(n, h->dv, s, h->v + (int64_t)k0 * h->ldkv, h->ldkv, h->out);
  }
}

/* The rows of nk keys from k0; with the first block those of as many queries, of which a piece may have fewer. */
static void prefetch_block(const sh_heads_io *h, int k0, int nk) {
  int queries = h->L - h->query_first < nk ? h->L - h->query_first : nk;
  tile_prefetch(nk, h->dqk, h->k + (int64_t)k0 * h->ldkv, h->ldkv);
  tile_prefetch(nk, h->dv, h->v + (int64_t)k0 * h->ldkv, h->ldkv);
  if (k0 > 0) return;
  tile_prefetch(queries, h->dqk, h->q, h->ldq);
  if (h->dout) tile_prefetch(queries, h->dv, h->dout, h->ldout);
}

void SH_FN(hstu_attention)(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work) {
  int L = h->L, dqk = h->dqk, dv = h->dv;
  float *kt = work, *v = kt + (int64_t)dqk * TILE_LD, *s = v + (int64_t)TILE_K * dv, *times = s + TILE_Q * TILE_K;
  float *qbuf = times + TILE_Q * TILE_LD, *obuf = qbuf + TILE_ROOM(TILE_Q, dqk), inv = 1.f / divisor;
  if (h->query_first == L - 1) {
    last_query(h, b, inv, work);
    return;
  }
  for (int k0 = 0; k0 < L; k0 += TILE_K) {
    int nk = L - k0 < TILE_K ? L - k0 : TILE_K;
    prefetch_block(h, k0, nk);
    tile_pack_transposed(nk, tile_pad(nk), dqk, h->k + (int64_t)k0 * h->ldkv, h->ldkv, kt, TILE_LD);
    tile_pack_rows(nk, tile_pad(nk), dv, h->v + (int64_t)k0 * h->ldkv, h->ldkv, v);
    for (int i0 = k0 > h->query_first ? k0 : h->query_first; i0 < L; i0 += TILE_Q) {
      int nq = L - i0 < TILE_Q ? L - i0 : TILE_Q, row = i0 - h->query_first;
      int kp = tile_pad(tile_seen(i0 + nq - 1, L, k0, tile_pad(nk)));
      tile_rows q = tile_take(h->q + (int64_t)row * h->ldq, h->ldq, nq, TILE_Q, dqk, false, qbuf);
      float *out = h->out + (int64_t)row * h->ldout;
      const float *at = time_tile(b, i0, L - 1, k0, kp, times);
      tile_scores(&q, kp, kt, TILE_LD, s, TILE_K);
      for (int r = 0; r < nq; r++) {
        int n = tile_seen(i0 + r, L, k0, kp);
        float *x = s + r * TILE_K;
        const float *pos = b->pos + (k0 - i0 - r), *time = at ? at + r * TILE_LD : NULL;
        LANES_ROW(n, j, m, silu_lanes(inv, biased(j, m, pos, time, x), x + j));
        tile_clear(n, kp, x);
      }
      if (nq == TILE_Q) {
        tile_weigh(TILE_Q, kp, dv, s, TILE_K, v, out, h->ldout, k0 > 0);
        continue;
      }
      tile_weigh(TILE_Q, kp, dv, s, TILE_K, v, obuf, dv, false);
      for (int r = 0; r < nq; r++) {
        float *o = out + (int64_t)r * h->ldout;
        if (k0 == 0) memset(o, 0, sizeof(float) * (size_t)dv);
        tile_add(dv, obuf + (int64_t)r * dv, o);
      }
    }
  }
}

/* Backward's workspace: a block of keys, the transposes of their gradients, a tile. */
typedef struct hstu_back {
  float *kt, *vt, *k, *dkt, *dvt; /* [dqk x TILE_LD], [dv x TILE_LD], [TILE_K x dqk], as kt, as vt */
  float *s, *g, *times, *sums;    /* [TILE_Q x TILE_K] twice, [TILE_Q x TILE_LD], [TILE_RUNS x LANES] */
  float *qbuf, *obuf, *dqbuf;     /* short tiles */
} hstu_back;
static hstu_back workspace(const sh_heads_io *h, float *work) {
  int64_t dqk = h->dqk, dv = h->dv;
  hstu_back w = {.kt = work};
  w.vt = w.kt + dqk * TILE_LD, w.k = w.vt + dv * TILE_LD, w.dkt = w.k + dqk * TILE_K, w.dvt = w.dkt + dqk * TILE_LD;
  w.s = w.dvt + dv * TILE_LD, w.g = w.s + TILE_Q * TILE_K, w.times = w.g + TILE_Q * TILE_K;
  w.sums = w.times + TILE_Q * TILE_LD, w.qbuf = w.sums + TILE_RUNS * LANES, w.obuf = w.qbuf + TILE_ROOM(TILE_Q, dqk);
  w.dqbuf = w.obuf + TILE_ROOM(TILE_Q, dv);
  return w;
}

/* A tile of rows: s holds q.k and g holds dout.v; on return s holds the attention weights and g the score gradients,
 * which are in the gradients of the bias, too. */
static void back_rows(const hstu_back *w, const sh_rel_bias *b, int i0, int last, int k0, int kp, float inv) {
  const float *times = time_tile(b, i0, last, k0, kp, w->times);
  for (int r = 0; r < TILE_Q; r++) {
    int n = tile_seen(i0 + r, last, k0, kp);
    float *s = w->s + r * TILE_K, *g = w->g + r * TILE_K;
    const float *pos = b->pos + (k0 - i0 - r), *time = times ? times + r * TILE_LD : NULL;
    float *dpos = b->dpos + (k0 - i0 - r);
    LANES_ROW(n, j, m, lanes dz = silu_lanes_back(inv, biased(j, m, pos, time, s), s + j, g + j);
              lanes_store_n(dpos + j, m, lanes_load_n(dpos + j, m) + dz));
    tile_clear(n, kp, s);
    tile_clear(n, kp, g);
  }
  for (int r = 0; b->ts && r < TILE_Q; r++) {
    int n = tile_seen(i0 + r, last, k0, kp);
    if (n > 0) tile_sum_runs(b, i0 + r, k0, n, w->g + r * TILE_K, w->sums);
  }
}

/* Queries i0 .. i0+nq-1 against the packed block of nk keys from k0. */
static void back_tile(const sh_heads_io *h, const sh_rel_bias *b, const hstu_back *w, float inv, int i0, int k0,
                      int nk) {
  int L = h->L, dqk = h->dqk, dv = h->dv, nq = L - i0 < TILE_Q ? L - i0 : TILE_Q;
  int64_t row = i0 - h->query_first;
  int kp = tile_pad(tile_seen(i0 + nq - 1, L, k0, tile_pad(nk)));
  tile_rows q = tile_take(h->q + row * h->ldq, h->ldq, nq, TILE_Q, dqk, true, w->qbuf);
  tile_rows dout = tile_take(h->dout + row * h->ldout, h->ldout, nq, TILE_Q, dv, true, w->obuf);
  float *dq = h->dq + row * h->ldq;
  tile_scores(&q, kp, w->kt, TILE_LD, w->s, TILE_K);
  tile_scores(&dout, kp, w->vt, TILE_LD, w->g, TILE_K);
  back_rows(w, b, i0, L - 1, k0, kp, inv);
  tile_spread(&dout, kp, w->s, TILE_K, w->dvt, TILE_LD);
  tile_spread(&q, kp, w->g, TILE_K, w->dkt, TILE_LD);
  if (nq == TILE_Q) {
    tile_weigh(TILE_Q, kp, dqk, w->g, TILE_K, w->k, dq, h->ldq, k0 > 0);
    return;
  }
  tile_weigh(TILE_Q, kp, dqk, w->g, TILE_K, w->k, w->dqbuf, dqk, false);
  for (int r = 0; r < nq; r++) {
    float *to = dq + (int64_t)r * h->ldq;
    if (k0 == 0) memset(to, 0, sizeof(float) * (size_t)dqk);
    tile_add(dqk, w->dqbuf + (int64_t)r * dqk, to);
  }
}

void SH_FN(hstu_attention_back)(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work) {
  int L = h->L, dqk = h->dqk, dv = h->dv;
  hstu_back w = workspace(h, work);
  if (b->ts) memset(w.sums, 0, sizeof(float) * TILE_RUNS * LANES);
  for (int k0 = 0; k0 < L; k0 += TILE_K) {
    int nk = L - k0 < TILE_K ? L - k0 : TILE_K, kp = tile_pad(nk);
    int64_t first = (int64_t)k0 * h->ldkv;
    prefetch_block(h, k0, nk);
    tile_pack_transposed(nk, kp, dqk, h->k + first, h->ldkv, w.kt, TILE_LD);
    tile_pack_transposed(nk, kp, dv, h->v + first, h->ldkv, w.vt, TILE_LD);
    tile_pack_rows(nk, kp, dqk, h->k + first, h->ldkv, w.k);
    memset(w.dkt, 0, sizeof(float) * (size_t)(dqk + dv) * TILE_LD); /* dvt follows dkt */
    for (int i0 = k0 > h->query_first ? k0 : h->query_first; i0 < L; i0 += TILE_Q)
      back_tile(h, b, &w, 1.f / divisor, i0, k0, nk);
    transpose(dqk, nk, w.dkt, TILE_LD, h->dk + first, h->ldkv);
    transpose(dv, nk, w.dvt, TILE_LD, h->dv_ + first, h->ldkv);
    if (b->ts) tile_add_sums(w.sums, b->dts);
  }
}
