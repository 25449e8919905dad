/* The gate behind attention, a row at a time. */
#include <stddef.h>

#include "kernels/fast/fast.h"

void SH_FN(gate)(int64_t n, const float *u, const float *o, float mean, float rstd, float *y) {
  SH_SIMD
  for (int64_t k = 0; k < n; k++) y[k] = u[k] * ((o[k] - mean) * rstd);
}

static inline __attribute__((always_inline)) void back(int64_t n, const float *product, const float *direct,
                                                       const float *more, const float *u, const float *o, float mean,
                                                       float rstd, float *du, float *dout, float sums[2]) {
  float sum = 0, along = 0;
  SH_PRAGMA(omp simd reduction(+ : sum, along))
  for (int64_t k = 0; k < n; k++) {
    float norm = (o[k] - mean) * rstd, dnorm = product[k] * u[k] + (more ? more[k] : 0);
    du[k] = product[k] * norm + (direct ? direct[k] : 0);
    dout[k] = dnorm * rstd;
    sum += dnorm, along += dnorm * norm;
  }
  sums[0] = sum, sums[1] = along;
}

void SH_FN(gate_back)(int64_t n, const float *product, const float *direct, const float *more, const float *u,
                      const float *o, float mean, float rstd, float *du, float *dout, float sums[2]) {
  if (direct || more)
    back(n, product, direct, more, u, o, mean, rstd, du, dout, sums);
  else
    back(n, product, NULL, NULL, u, o, mean, rstd, du, dout, sums);
}

void SH_FN(add_affine)(int64_t n, const float *x, double a, double b, const float *o, float *y) {
  SH_SIMD
  for (int64_t k = 0; k < n; k++) y[k] = x[k] + (float)(a + b * (double)o[k]);
}
