/* SASRec's softmax attention of one sequence and head (see kernels/kernels.h). The softmax runs over blocks of keys
 * with a running maximum and sum (Milakov and Gimelshein, arXiv:1805.02867); backward computes the scores again (Dao et
 * al., arXiv:2205.14135). */
#include <math.h>

#include "kernels/fast/tiles.h"

/* The softmax of a query so far: weights are e^(score - top) / sum. mean is backward's sum of weight * gradient. */
typedef struct soft_row {
  float top, sum, mean;
} soft_row;

/* Rows are read and written to the end of their last vector. */
static float row_scale(int n, float scale, float *s) {
  lanes top = lanes_all(s[0] * scale);
  for (int j = 0; j < n; j += LANES) {
    lanes x = lanes_load(s + j) * scale;
    lanes_store(s + j, x);
    if (j + LANES > n) x = lanes_keep(x - s[0], n - j) + s[0]; /* s[0] is scaled by now */
    top = lanes_max(top, x);
  }
  return lanes_top(top);
}

static float row_exp(int n, float top, float *s) {
  lanes sum = {0};
  for (int j = 0; j < n; j += LANES) {
    lanes e = lanes_keep(lanes_exp(lanes_load(s + j) - top), lanes_next(n - j));
    lanes_store(s + j, e);
    sum += e;
  }
  return lanes_sum(sum);
}

/* Take n > 0 more scores into the softmax: s becomes e^(s - top). Returns what earlier sums shrink by. */
static float row_take(soft_row *row, bool first, int n, float scale, float *s) {
  float top = row_scale(n, scale, s), shrink = 0;
  if (!first) {
    if (top < row->top) top = row->top;
    shrink = expf(row->top - top);
  }
  row->top = top;
  row->sum = (first ? 0 : row->sum * shrink) + row_exp(n, top, s);
  return shrink;
}

static void row_times(int n, float factor, float *x) {
  LANES_ROW(n, j, m, lanes_store_n(x + j, m, factor * lanes_load_n(x + j, m)));
}

void SH_FN(softmax_attention)(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample,
                              int64_t first_element, float *work) {
  int L = h->L, Lp = tile_pad(L) | 16 /* see TILE_LD */, dqk = h->dqk, dv = h->dv;
  float *kt = work, *v = kt + (int64_t)dqk * Lp, *s = v + (int64_t)Lp * dv, *qbuf = s + TILE_Q * TILE_K;
  float *obuf = qbuf + TILE_ROOM(TILE_Q, dqk);
  bool drop = d && d->threshold;
  tile_pack_transposed(L, tile_pad(L), dqk, h->k, h->ldkv, kt, Lp);
  tile_pack_rows(L, tile_pad(L), dv, h->v, h->ldkv, v);
  for (int i0 = h->query_first; i0 < L; i0 += TILE_Q) {
    int nq = L - i0 < TILE_Q ? L - i0 : TILE_Q, keys = i0 + nq, at = i0 - h->query_first;
    tile_rows q = tile_take(h->q + (int64_t)at * h->ldq, h->ldq, nq, TILE_Q, dqk, false, qbuf);
    float *out = h->out + (int64_t)at * h->ldout, *o = nq == TILE_Q ? out : obuf;
    int ldo = nq == TILE_Q ? h->ldout : dv;
    soft_row row[TILE_Q];
    for (int k0 = 0; k0 < keys; k0 += TILE_K) {
      int kp = tile_pad(keys - k0 < TILE_K ? keys - k0 : TILE_K);
      tile_scores(&q, kp, kt + k0, Lp, s, TILE_K);
      for (int r = 0; r < nq; r++) {
        int n = tile_seen(i0 + r, i0 + r, k0, kp);
        float *x = s + r * TILE_K;
        if (n > 0) {
          float shrink = row_take(&row[r], k0 == 0, n, scale, x);
          if (k0 > 0) row_times(dv, shrink, o + (int64_t)r * ldo);
          if (drop) SH_FN(dropout)(d, sample, i0 + r, first_element + k0, n, x, x);
        }
        tile_clear(n, kp, x);
      }
      tile_weigh(TILE_Q, kp, dv, s, TILE_K, tile_key(v, k0, dv), o, ldo, k0 > 0);
    }
    for (int r = 0; r < nq; r++) row_times(dv, 1.f / row[r].sum, o + (int64_t)r * ldo);
    if (nq < TILE_Q) tile_put(obuf, nq, dv, out, h->ldout);
  }
}

/* A tile of queries against a block of keys, in backward. */
typedef struct soft_tile {
  const sh_heads_io *h;
  const sh_drop *d; /* NULL: no dropout */
  int64_t sample, first_element;
  float scale;
  int Lp, i0, nq;
  tile_rows q, dout;
  const float *kt, *vt;
  float *s, *g, *keep; /* [TILE_Q x TILE_K]: q.k, later weights; dout.v dropped, later score gradients; factors */
  soft_row row[TILE_Q];
} soft_tile;

static void tile_products(const soft_tile *t, int k0, int kp) {
  tile_scores(&t->q, kp, t->kt + k0, t->Lp, t->s, TILE_K);
  tile_scores(&t->dout, kp, t->vt + k0, t->Lp, t->g, TILE_K);
  for (int r = 0; t->d && r < t->nq; r++) {
    int n = tile_seen(t->i0 + r, t->i0 + r, k0, kp);
    float *keep = t->keep + r * TILE_K, *g = t->g + r * TILE_K;
    for (int j = 0; j < n; j += LANES) lanes_store(keep + j, lanes_all(1));
    SH_FN(dropout)(t->d, t->sample, t->i0 + r, t->first_element + k0, n, keep, keep);
    for (int j = 0; j < n; j += LANES) lanes_store(g + j, lanes_load(g + j) * lanes_load(keep + j));
  }
}

/* First sweep: the softmax of each row and the mean of its gradients; leaves e^(score - top so far) in s. */
static void tile_softmax(soft_tile *t, int k0, int kp) {
  for (int r = 0; r < t->nq; r++) {
    int n = tile_seen(t->i0 + r, t->i0 + r, k0, kp);
    float *s = t->s + r * TILE_K, *g = t->g + r * TILE_K;
    if (n == 0) continue;
    float shrink = row_take(&t->row[r], k0 == 0, n, t->scale, s);
    lanes mean = {0};
    for (int j = 0; j < n; j += LANES) mean += lanes_load(s + j) * lanes_load(g + j); /* s is zero past n */
    t->row[r].mean = (k0 == 0 ? 0 : t->row[r].mean * shrink) + lanes_sum(mean);
  }
}

/* Second sweep: s holds e^(score - top), on return dropped weights; g becomes the score gradients. */
static void tile_gradients(const soft_tile *t, int k0, int kp) {
  for (int r = 0; r < TILE_Q; r++) {
    int n = tile_seen(t->i0 + r, t->i0 + t->nq - 1, k0, kp);
    float *s = t->s + r * TILE_K, *g = t->g + r * TILE_K, *keep = t->keep + r * TILE_K;
    tile_clear(n, kp, s);
    tile_clear(n, kp, g);
    if (n == 0) continue;
    float inv = 1.f / t->row[r].sum, mean = t->row[r].mean * inv;
    for (int j = 0; j < n; j += LANES) {
      lanes a = lanes_load(s + j) * inv;
      lanes_store(s + j, t->d ? a * lanes_load(keep + j) : a);
      lanes_store(g + j, a * (lanes_load(g + j) - mean) * t->scale);
    }
  }
}

static void tile_scores_again(const soft_tile *t, int k0, int kp) {
  tile_products(t, k0, kp);
  for (int r = 0; r < t->nq; r++) {
    int n = tile_seen(t->i0 + r, t->i0 + r, k0, kp);
    if (n == 0) continue;
    row_scale(n, t->scale, t->s + r * TILE_K);
    row_exp(n, t->row[r].top, t->s + r * TILE_K);
  }
}

void SH_FN(softmax_attention_back)(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample,
                                   int64_t first_element, float *work) {
  int L = h->L, Lp = tile_pad(L) | 16 /* see TILE_LD */, dqk = h->dqk, dv = h->dv;
  float *kt = work, *vt = kt + (int64_t)dqk * Lp, *k = vt + (int64_t)dv * Lp, *dkt = k + (int64_t)Lp * dqk;
  float *dvt = dkt + (int64_t)Lp * dqk, *s = dvt + (int64_t)Lp * dv, *g = s + TILE_Q * TILE_K;
  float *keep = g + TILE_Q * TILE_K, *qbuf = keep + TILE_Q * TILE_K, *obuf = qbuf + TILE_ROOM(TILE_Q, dqk);
  float *dqbuf = obuf + TILE_ROOM(TILE_Q, dv);
  soft_tile t = {.h = h,
                 .d = d && d->threshold ? d : NULL,
                 .sample = sample,
                 .first_element = first_element,
                 .scale = scale,
                 .Lp = Lp,
                 .kt = kt,
                 .vt = vt,
                 .s = s,
                 .g = g,
                 .keep = keep};
  tile_pack_transposed(L, tile_pad(L), dqk, h->k, h->ldkv, kt, Lp);
  tile_pack_transposed(L, tile_pad(L), dv, h->v, h->ldkv, vt, Lp);
  tile_pack_rows(L, tile_pad(L), dqk, h->k, h->ldkv, k);
  memset(dkt, 0, sizeof(float) * (size_t)Lp * (size_t)(dqk + dv)); /* dvt follows dkt */
  for (t.i0 = h->query_first; t.i0 < L; t.i0 += TILE_Q) {
    int64_t at = t.i0 - h->query_first;
    t.nq = L - t.i0 < TILE_Q ? L - t.i0 : TILE_Q;
    int keys = t.i0 + t.nq;
    t.q = tile_take(h->q + at * h->ldq, h->ldq, t.nq, TILE_Q, dqk, true, qbuf);
    t.dout = tile_take(h->dout + at * h->ldout, h->ldout, t.nq, TILE_Q, dv, true, obuf);
    float *dq = t.nq == TILE_Q ? h->dq + at * h->ldq : dqbuf;
    int lddq = t.nq == TILE_Q ? h->ldq : dqk;
    for (int k0 = 0; k0 < keys; k0 += TILE_K) {
      int kp = tile_pad(keys - k0 < TILE_K ? keys - k0 : TILE_K);
      tile_products(&t, k0, kp);
      tile_softmax(&t, k0, kp);
    }
    for (int k0 = 0; k0 < keys; k0 += TILE_K) {
      int kp = tile_pad(keys - k0 < TILE_K ? keys - k0 : TILE_K);
      if (keys > TILE_K) tile_scores_again(&t, k0, kp); /* a single block is still there */
      tile_gradients(&t, k0, kp);
      tile_spread(&t.dout, kp, s, TILE_K, dvt + k0, Lp);
      tile_spread(&t.q, kp, g, TILE_K, dkt + k0, Lp);
      tile_weigh(TILE_Q, kp, dqk, g, TILE_K, tile_key(k, k0, dqk), dq, lddq, k0 > 0);
    }
    if (t.nq < TILE_Q) tile_put(dqbuf, t.nq, dqk, h->dq + at * h->ldq, h->ldq);
  }
  transpose(dqk, L, dkt, Lp, h->dk, h->ldkv);
  transpose(dv, L, dvt, Lp, h->dv_, h->ldkv);
}
