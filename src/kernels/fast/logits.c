/* Tiles of logits (nn/softmax_tiles.h): whole tiles are 64 wide, so that a row is a few vectors without a tail. */
#include "kernels/fast/fast.h"
#include "kernels/fast/vec.h"

enum { WHOLE = 64 };

static inline __attribute__((always_inline)) void scan(int64_t rows, const int64_t n, float scale, const float *shift,
                                                       const float *x, int64_t ld, float *max, double *sum) {
  for (int64_t i = 0; i < rows; i++, x += ld) {
    float top = max[i], part = 0;
    SH_PRAGMA(omp simd reduction(max : top))
    for (int64_t v = 0; v < n; v++) {
      float s = x[v] * scale - shift[v];
      top = s > top ? s : top;
    }
    SH_SIMD_SUM(part)
    for (int64_t v = 0; v < n; v++) part += vec_exp(x[v] * scale - shift[v] - top);
    if (top > max[i]) sum[i] *= (double)vec_exp(max[i] - top);
    sum[i] += (double)part;
    max[i] = top;
  }
}

void SH_FN(softmax_scan)(int64_t rows, int64_t n, float scale, const float *shift, const float *x, int64_t ld,
                         float *max, double *sum) {
  if (n == WHOLE)
    scan(rows, WHOLE, scale, shift, x, ld, max, sum);
  else
    scan(rows, n, scale, shift, x, ld, max, sum);
}

static inline __attribute__((always_inline)) void tile(int64_t rows, const int64_t n, float scale, const float *shift,
                                                       const float *lse, float factor, float *x, int64_t ld) {
  for (int64_t i = 0; i < rows; i++, x += ld) {
    float top = lse[i];
    SH_SIMD
    for (int64_t v = 0; v < n; v++) x[v] = factor * vec_exp(x[v] * scale - shift[v] - top);
  }
}

void SH_FN(softmax_tile)(int64_t rows, int64_t n, float scale, const float *shift, const float *lse, float factor,
                         float *x, int64_t ld) {
  if (n == WHOLE)
    tile(rows, WHOLE, scale, shift, lse, factor, x, ld);
  else
    tile(rows, n, scale, shift, lse, factor, x, ld);
}
