/* The sampled loss over copies of rows named by slot (kernels/fast/copies.h). Columns are whole vectors, so that no
 * loop over them has a tail; sums of up to eight registers stay in them. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/fast/copies.h"
#include "kernels/fast/fast.h"
#include "kernels/fast/vec.h"

/* Rows asked for before they are needed; candidates scored together, which stay in L1 for the weighted sum after; most
 * sums at a time: eight registers. */
#define ALIGNED __attribute__((aligned(64))) /* what is stored whole and read again at once */
enum { AHEAD = 8, GROUP = 16, MOST = LANES / 2 };
/* `vectors` and `vector` count vectors of a copy: of 16 floats, COPY_COLUMNS columns. */

/* Narrow rows to L1; wide ones to L2, or they would drive each other out. */
static inline __attribute__((always_inline)) void prefetch(const float *row, const int vectors) {
  if (vectors > 4)
    for (int v = 0; v < vectors; v++) __builtin_prefetch(row + v * LANES16, 0, 2);
  else
    for (int v = 0; v < vectors; v++) __builtin_prefetch(row + v * LANES16, 0, 3);
}

/* Sums of `vectors` vectors of columns, and coef times a row added to them. */
static inline __attribute__((always_inline)) void load_sums(const int vectors, const float *x, sixteen *s) {
  for (int i = 0; i < vectors * COPY_PARTS; i++) s[i] = load(x + i * LANES16);
}
static inline __attribute__((always_inline)) void store_sums(const int vectors, const sixteen *s, float *x) {
  for (int i = 0; i < vectors * COPY_PARTS; i++) store(x + i * LANES16, s[i]);
}
static inline __attribute__((always_inline)) void add_row(const int vectors, float coef, const float *row, sixteen *s) {
  for (int v = 0; v < vectors; v++) {
    sixteen e = load(row + v * LANES16);
    for (int p = 0; p < COPY_PARTS; p++)
      s[v * COPY_PARTS + p] = plus_times(s[v * COPY_PARTS + p], coef, copy_part(e, p));
  }
}

/* Calls f(first vector, vectors) for all vectors in panels, their number known to the compiler: as many as have eight
 * registers of sums, half of them, and one. */
#define PANELS(all, f)                                                                                                 \
  for (int64_t vector = 0, rest = (all); rest > 0;) {                                                                  \
    enum { WIDE = MOST / COPY_PARTS, HALF = WIDE / 2 };                                                                \
    int panel = rest >= WIDE ? WIDE : rest >= HALF ? HALF : 1;                                                         \
    if (panel == WIDE)                                                                                                 \
      f(vector, WIDE);                                                                                                 \
    else if (panel == HALF)                                                                                            \
      f(vector, HALF);                                                                                                 \
    else                                                                                                               \
      f(vector, 1);                                                                                                    \
    vector += panel, rest -= panel;                                                                                    \
  }

/* ---- one pass over a token's candidates ---- */

/* Partial sums of h . rows[slot[i]] for i = 0, 4, 8, 12. */
static inline __attribute__((always_inline)) sixteen four_dots(const int vectors, const float *h, const float *rows,
                                                               int64_t ld, const int32_t *slot, const int32_t *next) {
  const float *e0 = rows + slot[0] * ld, *e1 = rows + slot[4] * ld;
  const float *e2 = rows + slot[8] * ld, *e3 = rows + slot[12] * ld;
  for (int i = 0; i < GROUP; i += 4) prefetch(rows + next[i] * ld, vectors);
  sixteen s0 = {{{0}}}, s1 = s0, s2 = s0, s3 = s0;
  for (int v = 0; v < vectors; v++) {
    sixteen g = load(h + v * LANES16);
    s0 = copy_dot(s0, g, load(e0 + v * LANES16)), s1 = copy_dot(s1, g, load(e1 + v * LANES16));
    s2 = copy_dot(s2, g, load(e2 + v * LANES16)), s3 = copy_dot(s3, g, load(e3 + v * LANES16));
  }
  return four_sums(s0, s1, s2, s3);
}

/* x[i] = h . rows[slot[i]], i < 16. */
static inline __attribute__((always_inline)) void group_dots(const int vectors, const float *h, const float *rows,
                                                             int64_t ld, const int32_t *slot, const int32_t *next,
                                                             float *x) {
  sixteen a = four_dots(vectors, h, rows, ld, slot, next), b = four_dots(vectors, h, rows, ld, slot + 1, next + 1);
  sixteen c = four_dots(vectors, h, rows, ld, slot + 2, next + 2);
  store(x, sixteen_sums(a, b, c, four_dots(vectors, h, rows, ld, slot + 3, next + 3)));
}

/* dh += sum of weight * row of 16 candidates. */
static inline __attribute__((always_inline)) void panel_sum(const int vectors, const float *weight, const float *rows,
                                                            int64_t ld, const int32_t *slot, float *dh) {
  sixteen s[MOST];
  load_sums(vectors, dh, s);
  for (int64_t j = 0; j < GROUP; j++) add_row(vectors, weight[j], rows + slot[j] * ld, s);
  store_sums(vectors, s, dh);
}
static inline __attribute__((always_inline)) void group_sum(const int vectors, const float *weight, const float *rows,
                                                            int64_t ld, const int32_t *slot, float *dh) {
#define SUM(first, panel)                                                                                              \
  panel_sum(panel, weight, rows + (first)*LANES16, ld, slot, dh + (first) * (int64_t)COPY_COLUMNS)
  PANELS((int64_t)vectors, SUM)
#undef SUM
}

/* The candidates of a token but the positive. Weights are exp(logit - top) with top the positive's logit: a second pass
 * is needed only where another one is so far above it that sums could overflow. */
typedef struct others {
  float high[GROUP] ALIGNED, sum[GROUP] ALIGNED; /* largest logits, sums of weights, by place in the group */
} others;
#define HEADROOM 60.f

/* x: dot products, which become weights; none for a candidate that is the positive. */
static inline __attribute__((always_inline)) void weigh(float *x, float scale, const int32_t *slot, int32_t positive,
                                                        float top, others *o) {
  SH_SIMD
  for (int i = 0; i < GROUP; i++) {
    float s = slot[i] == positive ? -FLT_MAX : x[i] * scale;
    float w = slot[i] == positive ? 0.f : vec_exp(s - top);
    o->high[i] = s > o->high[i] ? s : o->high[i];
    o->sum[i] += w;
    x[i] = w;
  }
}

/* The slots of a group; one that is not full is padded with the positive, which weighs nothing here. */
static inline __attribute__((always_inline)) const int32_t *group_at(int64_t n, int64_t j, const int32_t *slot,
                                                                     int32_t *padded) {
  if (n - j >= GROUP) return slot + j;
  for (int i = 0; i < GROUP; i++) padded[i] = i < n - j ? slot[j + i] : slot[0];
  return padded;
}

/* coef[1 .. n-1] and dh from weights; slot[left]: this token's and those of the tokens after it. A group's inner
 * products come before the weights of the one before are used: exponentials are a long chain, and what stands between
 * fills the wait. */
static inline __attribute__((always_inline)) others all_others(int64_t n, int64_t left, const int vectors, float scale,
                                                               float top, const float *h, const float *rows, int64_t ld,
                                                               const int32_t *slot, float *coef, float *dh) {
#define DOTS(j, at, x) group_dots(vectors, h, rows, ld, at, left - (j) >= 2 * GROUP ? slot + (j) + GROUP : at, x)
  others o;
  int32_t padded[GROUP] ALIGNED;
  float weight[2][GROUP] ALIGNED;
  for (int i = 0; i < GROUP; i++) o.high[i] = -FLT_MAX, o.sum[i] = 0;
  if (dh) memset(dh, 0, sizeof *dh * (size_t)vectors * COPY_COLUMNS);
  const int32_t *at = group_at(n, 1, slot, padded), *next = at;
  int now = 0;
  if (n > 1) DOTS(1, at, weight[now]);
  for (int64_t j = 1; j < n; j += GROUP, now = 1 - now, at = next) {
    weigh(weight[now], scale, at, slot[0], top, &o);
    if (j + GROUP < n) {
      next = group_at(n, j + GROUP, slot, padded);
      DOTS(j + GROUP, next, weight[1 - now]);
    }
    if (n - j >= GROUP)
      memcpy(coef + j, weight[now], sizeof weight[now]);
    else
      store_part(coef + j, load(weight[now]), n - j);
    if (dh) group_sum(vectors, weight[now], rows, ld, at, dh);
  }
#undef DOTS
  return o;
}

static inline __attribute__((always_inline)) double one_token(int64_t n, int64_t left, const int vectors, float scale,
                                                              float factor, const float *h, const float *rows,
                                                              int64_t ld, const int32_t *slot, float *coef, float *dh) {
  const float *own = rows + slot[0] * ld;
  sixteen s = {{{0}}};
  for (int v = 0; v < vectors; v++) s = copy_dot(s, load(h + v * LANES16), load(own + v * LANES16));
  float logit = scale * total(s), top = logit, high;
  others o;
  for (;; top = high) {
    o = all_others(n, left, vectors, scale, top, h, rows, ld, slot, coef, dh);
    high = o.high[0];
    for (int i = 1; i < GROUP; i++) high = o.high[i] > high ? o.high[i] : high;
    if (!(high > top + HEADROOM)) break;
  }
  float positive = vec_exp(logit - top), sum = total(load(o.sum)), share = factor / (positive + sum);
  coef[0] = -share * sum;
  SH_SIMD
  for (int64_t j = 1; j < n; j++) coef[j] *= share;
  for (int v = 0; v < vectors && dh; v++)
    for (int p = 0; p < COPY_PARTS; p++) {
      float *to = dh + (v * COPY_PARTS + p) * LANES16;
      store(to, plus_times(times(share, load(to)), coef[0], copy_part(load(own + v * LANES16), p)));
    }
  return (double)top - (double)logit + log((double)positive + (double)sum);
}

static inline __attribute__((always_inline)) double all_tokens(int64_t tokens, int64_t n, const int vectors,
                                                               float scale, float factor, const float *h,
                                                               const float *rows, int64_t ld, const int32_t *slot,
                                                               float *coef, int64_t ldcoef, float *dh) {
  double loss = 0;
  for (int64_t t = 0; t < tokens; t++)
    loss += one_token(n, (tokens - t) * n, vectors, scale, factor, h + t * ld, rows, ld, slot + t * n,
                      coef + t * ldcoef, dh ? dh + t * vectors * COPY_COLUMNS : NULL);
  return loss;
}

double SH_FN(sampled_softmax)(int64_t tokens, int64_t n, int64_t width, float scale, float factor, const float *h,
                              const float *rows, int64_t ld, const int32_t *slot, float *coef, int64_t ldcoef,
                              float *dh) {
  switch (width / COPY_COLUMNS) {
#define WIDTH(vectors)                                                                                                 \
  case vectors:                                                                                                        \
    return all_tokens(tokens, n, vectors, scale, factor, h, rows, ld, slot, coef, ldcoef, dh)
    WIDTH(2);
    WIDTH(4);
    WIDTH(8);
    WIDTH(16);
#undef WIDTH
  default:
    return all_tokens(tokens, n, (int)(width / COPY_COLUMNS), scale, factor, h, rows, ld, slot, coef, ldcoef, dh);
  }
}

/* ---- gradients of rows ---- */

static inline __attribute__((always_inline)) void add_pairs(int64_t rows, const int vectors, const int32_t *start,
                                                            const sh_share *pair, const float *h, int64_t ld,
                                                            float *out, int64_t ldout) {
  const sh_share *last = pair + start[rows];
  for (int64_t r = 0; r < rows; r++, out += ldout) {
    const sh_share *p = pair + start[r], *end = pair + start[r + 1];
    if (p == end) continue;
    int ahead = last - end >= AHEAD ? AHEAD : 0;
    sixteen s[MOST];
    load_sums(vectors, out, s);
    for (; p < end; p++) {
      prefetch(h + p[ahead].token * ld, vectors);
      add_row(vectors, p->coef, h + p->token * ld, s);
    }
    store_sums(vectors, s, out);
  }
}

void SH_FN(pair_sums)(int64_t rows, int64_t width, const int32_t *start, const sh_share *pair, const float *h,
                      int64_t ld, float *out, int64_t ldout) {
#define SUM(first, vectors)                                                                                            \
  add_pairs(rows, vectors, start, pair, h + (first)*LANES16, ld, out + (first) * (int64_t)COPY_COLUMNS, ldout)
  PANELS(width / COPY_COLUMNS, SUM)
#undef SUM
}

/* ---- rows as they are ---- */

void SH_FN(gather_sum)(int64_t n, int64_t width, const float *coef, const float *rows, int64_t ld, const int32_t *slot,
                       float *out) {
  memset(out, 0, sizeof *out * (size_t)width);
  for (int64_t j = 0; j < n; j++) {
    const float *e = rows + slot[j] * ld;
    if (j + AHEAD < n) prefetch(rows + slot[j + AHEAD] * ld, (int)(width / LANES16));
    for (int64_t k = 0; k < width; k += LANES16) store(out + k, plus_times(load(out + k), coef[j], load(e + k)));
  }
}
