/* Rows of length one and the way back (nn/loss_rows.h). */
#include <math.h>

#include "kernels/fast/copies.h"
#include "kernels/fast/fast.h"

/* Whole vectors of a row, then what is left. */
#define COLUMNS(width, whole, part)                                                                                    \
  int64_t k = 0;                                                                                                       \
  for (; k + LANES16 <= (width); k += LANES16) whole;                                                                  \
  int64_t rest = (width)-k;                                                                                            \
  if (rest > 0) part

static inline float length_of(int64_t width, const float *x) {
  sixteen square = {{{0}}};
  COLUMNS(width, square = plus_product(square, load(x + k), load(x + k)),
          square = plus_product(square, load_part(x + k, rest), load_part(x + k, rest)));
  return sqrtf(total(square));
}

/* What a row, or its gradient, is multiplied by. */
static inline float scale_of(bool l2_norm, float eps, float length) {
  return l2_norm ? 1.f / (length > eps ? length : eps) : 1.f;
}

void SH_FN(unit_rows)(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *y,
                      int64_t ldy, float *length) {
  for (int64_t i = 0; i < n; i++, x += ldx, y += ldy) {
    length[i] = length_of(width, x);
    float scale = scale_of(l2_norm, eps, length[i]);
    COLUMNS(width, store(y + k, times(scale, load(x + k))),
            store_part(y + k, times(scale, load_part(x + k, rest)), rest));
    for (k = width; k < ldy; k++) y[k] = 0;
  }
}

void SH_FN(unit_copies)(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *copy,
                        int64_t ld, float *length) {
  for (int64_t i = 0; i < n; i++, x += ldx, copy += ld) {
    length[i] = length_of(width, x);
    float scale = scale_of(l2_norm, eps, length[i]), *to = copy;
    for (int64_t first = 0; first < width; first += COPY_COLUMNS, to += LANES16) {
      sixteen part[COPY_PARTS];
      for (int p = 0; p < COPY_PARTS; p++) {
        int64_t left = width - first - p * LANES16;
        part[p] = times(scale, load_part(x + (width - left), left > 0 ? left : 0));
      }
      store(to, copy_of(part));
    }
  }
}

void SH_FN(unit_rows_back)(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx,
                           const float *length, const float *dy, int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < n; i++, x += ldx, dy += lddy, dx += lddx) {
    float scale = scale_of(l2_norm, eps, length[i]), along = 0;
    if (l2_norm && length[i] > eps) {
      sixteen dot = {{{0}}};
      COLUMNS(width, dot = plus_product(dot, load(x + k), load(dy + k)),
              dot = plus_product(dot, load_part(x + k, rest), load_part(dy + k, rest)));
      along = total(dot) * scale * scale;
    }
    sixteen zero = {{{0}}};
    COLUMNS(width,
            store(dx + k, plus_times(add ? load(dx + k) : zero, scale, plus_times(load(dy + k), -along, load(x + k)))),
            store_part(dx + k,
                       plus_times(add ? load_part(dx + k, rest) : zero, scale,
                                  plus_times(load_part(dy + k, rest), -along, load_part(x + k, rest))),
                       rest));
  }
}
