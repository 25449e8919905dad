#include "nn/loss_rows.h"

#include <math.h>

void sh_normalise_rows(int64_t n, int width, bool l2_norm, float eps, const float *x, int64_t ldx, float *y,
                       int64_t ldy, float *length) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) {
    double sq = 0;
    const float *from = x + i * ldx;
    float *to = y + i * ldy;
    for (int k = 0; k < width; k++) sq += (double)from[k] * (double)from[k];
    length[i] = (float)sqrt(sq);
    float scale = l2_norm ? 1.f / (length[i] > eps ? length[i] : eps) : 1.f;
    for (int k = 0; k < width; k++) to[k] = from[k] * scale;
    for (int64_t k = width; k < ldy; k++) to[k] = 0;
  }
}

void sh_normalise_rows_back(int64_t n, int width, bool l2_norm, float eps, const float *y, int64_t ldy,
                            const float *length, const float *dy, int64_t lddy, float *dx, int64_t lddx, bool add) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) {
    const float *yi = y + i * ldy, *g = dy + i * lddy;
    float *to = dx + i * lddx, scale = 1, along = 0;
    if (l2_norm) {
      scale = 1.f / (length[i] > eps ? length[i] : eps);
      if (length[i] > eps)
        for (int k = 0; k < width; k++) along += g[k] * yi[k];
    }
    for (int k = 0; k < width; k++) to[k] = (add ? to[k] : 0) + scale * (g[k] - along * yi[k]);
  }
}
