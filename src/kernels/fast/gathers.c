/* The sampled loss's gathers. Columns are whole vectors (width is a multiple of 16), so that no loop has a tail; rows
 * of one to eight vectors keep their sums in registers. */
#include <string.h>

#include "kernels/fast/fast.h"
#include "kernels/fast/vec.h"

enum { LANES = 16, AHEAD = 8 };
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

static inline lanes load(const float *p) {
  lanes v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float *p, lanes v) { memcpy(p, &v, sizeof v); }
/* Halves are folded onto each other, which stays in registers on every instruction set. */
static inline float total(lanes v) {
  typedef float half __attribute__((vector_size(2 * LANES)));
  typedef float quarter __attribute__((vector_size(LANES)));
  half h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  quarter q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
  return (q[0] + q[2]) + (q[1] + q[3]);
}

static inline __attribute__((always_inline)) void dots(int64_t n, const int vectors, const float *h, const float *rows,
                                                       int64_t ld, const int32_t *slot, float *out) {
  for (int64_t j = 0; j < n; j++) {
    if (j + AHEAD < n) {
      const float *next = rows + slot[j + AHEAD] * ld;
      for (int v = 0; v < vectors; v++) __builtin_prefetch(next + v * LANES);
    }
    const float *e = rows + slot[j] * ld;
    lanes s = load(h) * load(e);
    for (int v = 1; v < vectors; v++) s += load(h + v * LANES) * load(e + v * LANES);
    out[j] = total(s);
  }
}

void SH_FN(gather_dots)(int64_t n, int64_t width, const float *h, const float *rows, int64_t ld, const int32_t *slot,
                        float *out) {
  switch (width / LANES) {
  case 1:
    dots(n, 1, h, rows, ld, slot, out);
    return;
  case 2:
    dots(n, 2, h, rows, ld, slot, out);
    return;
  case 4:
    dots(n, 4, h, rows, ld, slot, out);
    return;
  case 8:
    dots(n, 8, h, rows, ld, slot, out);
    return;
  case 16:
    dots(n, 16, h, rows, ld, slot, out);
    return;
  default:
    dots(n, (int)(width / LANES), h, rows, ld, slot, out);
  }
}

/* `vectors` <= 8 columns of vectors at a time. */
static inline __attribute__((always_inline)) void sums(int64_t n, const int vectors, const float *coef,
                                                       const int32_t *coef_index, const int32_t *slot, int32_t stride,
                                                       const float *rows, int64_t ld, float *out) {
  lanes s[8];
  for (int v = 0; v < vectors; v++) s[v] = coef_index ? load(out + v * LANES) : (lanes){0};
  for (int64_t j = 0; j < n; j++) {
    if (j + AHEAD < n) {
      const float *next = rows + (int64_t)(stride ? slot[j + AHEAD] / stride : slot[j + AHEAD]) * ld;
      for (int v = 0; v < vectors; v++) __builtin_prefetch(next + v * LANES);
    }
    const float *e = rows + (int64_t)(stride ? slot[j] / stride : slot[j]) * ld;
    float a = coef_index ? coef[coef_index[j]] : coef[j];
    for (int v = 0; v < vectors; v++) s[v] += a * load(e + v * LANES);
  }
  for (int v = 0; v < vectors; v++) store(out + v * LANES, s[v]);
}

static void sums_wide(int64_t n, int64_t width, const float *coef, const int32_t *coef_index, const int32_t *slot,
                      int32_t stride, const float *rows, int64_t ld, float *out) {
  if (width == 64) {
    sums(n, 4, coef, coef_index, slot, stride, rows, ld, out);
    return;
  }
  for (int64_t k = 0; k < width;) {
    int vectors = (int)((width - k) / LANES);
    if (vectors >= 8) {
      sums(n, 8, coef, coef_index, slot, stride, rows + k, ld, out + k);
      k += 8 * LANES;
    } else if (vectors >= 4) {
      sums(n, 4, coef, coef_index, slot, stride, rows + k, ld, out + k);
      k += 4 * LANES;
    } else {
      sums(n, 1, coef, coef_index, slot, stride, rows + k, ld, out + k);
      k += LANES;
    }
  }
}

void SH_FN(gather_sum)(int64_t n, int64_t width, const float *coef, const float *rows, int64_t ld, const int32_t *slot,
                       float *out) {
  sums_wide(n, width, coef, NULL, slot, 0, rows, ld, out);
}

void SH_FN(pair_sum)(int64_t n, int64_t width, const float *coef, const int32_t *pair, int32_t stride, const float *h,
                     int64_t ld, float *out) {
  sums_wide(n, width, coef, pair, pair, stride, h, ld, out);
}

float SH_FN(softmax)(int64_t n, float *x, float *max) {
  float top = x[0], sum = 0;
  SH_PRAGMA(omp simd reduction(max : top))
  for (int64_t j = 0; j < n; j++) top = x[j] > top ? x[j] : top;
  SH_SIMD_SUM(sum)
  for (int64_t j = 0; j < n; j++) {
    x[j] = vec_exp(x[j] - top);
    sum += x[j];
  }
  float inv = 1.f / sum;
  SH_SIMD
  for (int64_t j = 0; j < n; j++) x[j] *= inv;
  *max = top;
  return sum;
}
