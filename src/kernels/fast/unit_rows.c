/* Rows of length one and the way back (nn/loss_rows.h). */
#include <math.h>

#include "kernels/fast/fast.h"
#include "kernels/fast/sixteen.h"

/* Whole vectors of a row, then what is left. */
#define COLUMNS(width, whole, part)                                                                                    \
  int64_t k = 0;                                                                                                       \
  for (; k + LANES16 <= (width); k += LANES16) whole;                                                                  \
  int64_t rest = (width)-k;                                                                                            \
  if (rest > 0) part

void SH_FN(unit_rows)(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *y,
                      int64_t ldy, float *length) {
  for (int64_t i = 0; i < n; i++, x += ldx, y += ldy) {
    sixteen square = {0};
    { COLUMNS(width, square += load(x + k) * load(x + k), square += load_part(x + k, rest) * load_part(x + k, rest)); }
    length[i] = sqrtf(total(square));
    float scale = l2_norm ? 1.f / (length[i] > eps ? length[i] : eps) : 1.f;
    COLUMNS(width, store(y + k, load(x + k) * scale), store_part(y + k, load_part(x + k, rest) * scale, rest));
    for (k = width; k < ldy; k++) y[k] = 0;
  }
}

void SH_FN(unit_rows_back)(int64_t n, int64_t width, bool l2_norm, float eps, const float *y, int64_t ldy,
                           const float *length, const float *dy, int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < n; i++, y += ldy, dy += lddy, dx += lddx) {
    float scale = l2_norm ? 1.f / (length[i] > eps ? length[i] : eps) : 1.f, along = 0;
    if (l2_norm && length[i] > eps) {
      sixteen dot = {0};
      COLUMNS(width, dot += load(y + k) * load(dy + k), dot += load_part(y + k, rest) * load_part(dy + k, rest));
      along = total(dot);
    }
    sixteen zero = {0};
    COLUMNS(width, store(dx + k, (add ? load(dx + k) : zero) + scale * (load(dy + k) - along * load(y + k))),
            store_part(dx + k,
                       (add ? load_part(dx + k, rest) : zero) +
                           scale * (load_part(dy + k, rest) - along * load_part(y + k, rest)),
                       rest));
  }
}
