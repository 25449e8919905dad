/* The sampled loss over rows named by slot. Columns are whole vectors (width is a multiple of 16), so that no loop over
 * them has a tail; sums of up to eight vectors stay in registers. */
#include <float.h>
#include <math.h>

#include "kernels/fast/fast.h"
#include "kernels/fast/sixteen.h"
#include "kernels/fast/vec.h"

/* Rows asked for before they are needed; candidates scored together, which stay in L1 for the weighted sum after. */
#define ALIGNED __attribute__((aligned(64))) /* what is stored whole and read again at once */
enum { AHEAD = 8, GROUP = 16, MOST = 8 };

/* Narrow rows to L1; wide ones to L2, or they would drive each other out. */
static inline __attribute__((always_inline)) void prefetch(const float *row, const int vectors) {
  if (vectors > 4)
    for (int v = 0; v < vectors; v++) __builtin_prefetch(row + v * LANES16, 0, 2);
  else
    for (int v = 0; v < vectors; v++) __builtin_prefetch(row + v * LANES16, 0, 3);
}

/* out += sum over j of coef[j] rows[slot[j]], `vectors` <= 8 columns of vectors. */
static inline __attribute__((always_inline)) void add_rows(int64_t n, const int vectors, const float *coef,
                                                           const int32_t *slot, const float *rows, int64_t ld,
                                                           float *out) {
  sixteen s[MOST];
  for (int v = 0; v < vectors; v++) s[v] = load(out + v * LANES16);
  for (int64_t j = 0; j < n; j++) {
    const float *e = rows + slot[j] * ld;
    for (int v = 0; v < vectors; v++) s[v] += coef[j] * load(e + v * LANES16);
  }
  for (int v = 0; v < vectors; v++) store(out + v * LANES16, s[v]);
}

/* Calls f(first column, vectors) for all columns in panels of 8, 4 and 1 vectors, known to the compiler. */
#define COLUMN_PANELS(width, f)                                                                                        \
  for (int64_t column = 0, rest = (width) / LANES16; rest > 0;) {                                                      \
    int panel = rest >= 8 ? 8 : rest >= 4 ? 4 : 1;                                                                     \
    if (panel == 8)                                                                                                    \
      f(column, 8);                                                                                                    \
    else if (panel == 4)                                                                                               \
      f(column, 4);                                                                                                    \
    else                                                                                                               \
      f(column, 1);                                                                                                    \
    column += panel * LANES16, rest -= panel;                                                                          \
  }

void SH_FN(gather_sum)(int64_t n, int64_t width, const float *coef, const float *rows, int64_t ld, const int32_t *slot,
                       float *out) {
  memset(out, 0, sizeof *out * (size_t)width);
  for (int64_t j = 0; j < n; j += AHEAD) {
    int64_t now = n - j < AHEAD ? n - j : AHEAD, next = n - j - now < AHEAD ? n - j - now : AHEAD;
    for (int64_t i = 0; i < next; i++) prefetch(rows + slot[j + AHEAD + i] * ld, (int)(width / LANES16));
#define SUM(column, vectors) add_rows(now, vectors, coef + j, slot + j, rows + column, ld, out + column)
    COLUMN_PANELS(width, SUM)
#undef SUM
  }
}

/* ---- one pass over a token's candidates ---- */

/* Partial sums of h . rows[slot[i]] for i = 0, 4, 8, 12. */
static inline __attribute__((always_inline)) sixteen four_dots(const int vectors, const float *h, const float *rows,
                                                               int64_t ld, const int32_t *slot, const int32_t *next) {
  const float *e0 = rows + slot[0] * ld, *e1 = rows + slot[4] * ld;
  const float *e2 = rows + slot[8] * ld, *e3 = rows + slot[12] * ld;
  for (int i = 0; i < GROUP; i += 4) prefetch(rows + next[i] * ld, vectors);
  sixteen g = load(h), s0 = g * load(e0), s1 = g * load(e1), s2 = g * load(e2), s3 = g * load(e3);
  for (int v = 1; v < vectors; v++) {
    g = load(h + v * LANES16);
    s0 += g * load(e0 + v * LANES16), s1 += g * load(e1 + v * LANES16);
    s2 += g * load(e2 + v * LANES16), s3 += g * load(e3 + v * LANES16);
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
static inline __attribute__((always_inline)) void group_sum(const int vectors, const float *weight, const float *rows,
                                                            int64_t ld, const int32_t *slot, float *dh) {
#define SUM(column, panel) add_rows(GROUP, panel, weight, slot, rows + column, ld, dh + column)
  COLUMN_PANELS((int64_t)vectors * LANES16, SUM)
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

/* coef[1 .. n-1] and dh from weights; slot[left]: this token's and those of the tokens after it. */
static inline __attribute__((always_inline)) others all_others(int64_t n, int64_t left, const int vectors, float scale,
                                                               float top, const float *h, const float *rows, int64_t ld,
                                                               const int32_t *slot, float *coef, float *dh) {
  others o;
  int32_t padded[GROUP] ALIGNED;
  for (int i = 0; i < GROUP; i++) o.high[i] = -FLT_MAX, o.sum[i] = 0;
  if (dh) memset(dh, 0, sizeof *dh * (size_t)vectors * LANES16);
  float weight[2][GROUP] ALIGNED; /* a group's rows are summed while the next one's exponentials are on their way */
  const int32_t *before = NULL;
  int now = 0;
  for (int64_t j = 1; j < n; j += GROUP, now = 1 - now) {
    int64_t count = n - j < GROUP ? n - j : GROUP;
    const int32_t *at = slot + j, *next = left - j >= 2 * GROUP ? at + GROUP : at;
    if (count < GROUP) { /* with the positive: it weighs nothing here */
      for (int i = 0; i < GROUP; i++) padded[i] = i < count ? at[i] : slot[0];
      at = padded;
      if (left - j < 2 * GROUP) next = at;
    }
    group_dots(vectors, h, rows, ld, at, next, weight[now]);
    weigh(weight[now], scale, at, slot[0], top, &o);
    if (count == GROUP)
      memcpy(coef + j, weight[now], sizeof weight[now]);
    else
      store_part(coef + j, load(weight[now]), count);
    if (dh && before) group_sum(vectors, weight[1 - now], rows, ld, before, dh);
    before = at;
  }
  if (dh && before) group_sum(vectors, weight[1 - now], rows, ld, before, dh);
  return o;
}

static inline __attribute__((always_inline)) double one_token(int64_t n, int64_t left, const int vectors, float scale,
                                                              float factor, const float *h, const float *rows,
                                                              int64_t ld, const int32_t *slot, float *coef, float *dh) {
  const float *own = rows + slot[0] * ld;
  sixteen s = load(h) * load(own);
  for (int v = 1; v < vectors; v++) s += load(h + v * LANES16) * load(own + v * LANES16);
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
    store(dh + v * LANES16, load(dh + v * LANES16) * share + coef[0] * load(own + v * LANES16));
  return (double)top - (double)logit + log((double)positive + (double)sum);
}

static inline __attribute__((always_inline)) double all_tokens(int64_t tokens, int64_t n, const int vectors,
                                                               float scale, float factor, const float *h,
                                                               const float *rows, int64_t ld, const int32_t *slot,
                                                               float *coef, int64_t ldcoef, float *dh) {
  double loss = 0;
  for (int64_t t = 0; t < tokens; t++)
    loss += one_token(n, (tokens - t) * n, vectors, scale, factor, h + t * ld, rows, ld, slot + t * n,
                      coef + t * ldcoef, dh ? dh + t * ld : NULL);
  return loss;
}

double SH_FN(sampled_softmax)(int64_t tokens, int64_t n, int64_t width, float scale, float factor, const float *h,
                              const float *rows, int64_t ld, const int32_t *slot, float *coef, int64_t ldcoef,
                              float *dh) {
  switch (width / LANES16) {
  case 4:
    return all_tokens(tokens, n, 4, scale, factor, h, rows, ld, slot, coef, ldcoef, dh);
  case 8:
    return all_tokens(tokens, n, 8, scale, factor, h, rows, ld, slot, coef, ldcoef, dh);
  case 16:
    return all_tokens(tokens, n, 16, scale, factor, h, rows, ld, slot, coef, ldcoef, dh);
  default:
    return all_tokens(tokens, n, (int)(width / LANES16), scale, factor, h, rows, ld, slot, coef, ldcoef, dh);
  }
}

/* ---- gradients of rows ---- */

static inline __attribute__((always_inline)) void add_pairs(int64_t rows, const int vectors, const float *coef,
                                                            const sh_pairs *p, const float *h, int64_t ld, float *out,
                                                            int64_t ldout) {
  const int32_t *start = p->start, *pair = p->pair, last = start[rows];
  const int shift = p->shift;
  for (int64_t r = 0; r < rows; r++, out += ldout) {
    int32_t end = start[r + 1], ahead = end + AHEAD <= last ? AHEAD : 0;
    if (start[r] == end) continue;
    sixteen s[MOST];
    for (int v = 0; v < vectors; v++) s[v] = load(out + v * LANES16);
    for (const int32_t *at = pair + start[r]; at < pair + end; at++) {
      prefetch(h + (at[ahead] >> shift) * ld, vectors);
      const float *from = h + (*at >> shift) * ld;
      float a = coef[*at];
      for (int v = 0; v < vectors; v++) s[v] += a * load(from + v * LANES16);
    }
    for (int v = 0; v < vectors; v++) store(out + v * LANES16, s[v]);
  }
}

void SH_FN(pair_sums)(int64_t rows, int64_t width, const float *coef, const sh_pairs *p, const float *h, int64_t ld,
                      float *out, int64_t ldout) {
#define SUM(column, vectors) add_pairs(rows, vectors, coef, p, h + column, ld, out + column, ldout)
  COLUMN_PANELS(width, SUM)
#undef SUM
}
