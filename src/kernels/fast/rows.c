/* Row-wise and element-wise kernels: norms, activations, dropout, AdamW. */
#include <math.h>

#include "kernels/fast/fast.h"
#include "kernels/fast/vec.h"

void SH_FN(layernorm)(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                      float *rstd) {
  for (int64_t i = 0; i < rows; i++, x += ldx, y += ldy) {
    float sum = 0, sq = 0;
    SH_SIMD_SUM(sum)
    for (int64_t k = 0; k < n; k++) sum += x[k];
    float mean = sum / (float)n;
    SH_SIMD_SUM(sq)
    for (int64_t k = 0; k < n; k++) sq += (x[k] - mean) * (x[k] - mean);
    float r = 1.f / sqrtf(sq / (float)n + eps);
    SH_SIMD
    for (int64_t k = 0; k < n; k++) y[k] = (x[k] - mean) * r;
    rstd[i] = r;
  }
}

void SH_FN(layernorm_back)(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                           int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < rows; i++, y += ldy, dy += lddy, dx += lddx) {
    float sum = 0, dot = 0;
    SH_PRAGMA(omp simd reduction(+ : sum, dot))
    for (int64_t k = 0; k < n; k++) sum += dy[k], dot += dy[k] * y[k];
    float mean = sum / (float)n, along = dot / (float)n, r = rstd[i], keep = add ? 1.f : 0.f;
    if (!add) {
      SH_SIMD
      for (int64_t k = 0; k < n; k++) dx[k] = r * (dy[k] - mean - y[k] * along);
    } else {
      SH_SIMD
      for (int64_t k = 0; k < n; k++) dx[k] = keep * dx[k] + r * (dy[k] - mean - y[k] * along);
    }
  }
}

void SH_FN(rmsnorm)(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                    float *rstd) {
  for (int64_t i = 0; i < rows; i++, x += ldx, y += ldy) {
    float sq = 0;
    SH_SIMD_SUM(sq)
    for (int64_t k = 0; k < n; k++) sq += x[k] * x[k];
    float r = 1.f / sqrtf(sq / (float)n + eps);
    SH_SIMD
    for (int64_t k = 0; k < n; k++) y[k] = x[k] * r;
    rstd[i] = r;
  }
}

void SH_FN(rmsnorm_back)(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                         int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < rows; i++, y += ldy, dy += lddy, dx += lddx) {
    float dot = 0;
    SH_SIMD_SUM(dot)
    for (int64_t k = 0; k < n; k++) dot += dy[k] * y[k];
    float along = dot / (float)n, r = rstd[i];
    if (!add) {
      SH_SIMD
      for (int64_t k = 0; k < n; k++) dx[k] = r * (dy[k] - y[k] * along);
    } else {
      SH_SIMD
      for (int64_t k = 0; k < n; k++) dx[k] += r * (dy[k] - y[k] * along);
    }
  }
}

void SH_FN(silu)(int64_t n, const float *z, float *y) {
  SH_SIMD
  for (int64_t k = 0; k < n; k++) y[k] = z[k] * vec_sigmoid(z[k]);
}

void SH_FN(silu_back)(int64_t n, const float *z, const float *dy, float *dz) {
  SH_SIMD
  for (int64_t k = 0; k < n; k++) {
    float s = vec_sigmoid(z[k]);
    dz[k] = dy[k] * s * (1.f + z[k] * (1.f - s));
  }
}

void SH_FN(dropout)(const sh_drop *d, int64_t sample, int32_t position, int64_t first, int64_t n, const float *x,
                    float *y) {
  enum { QUADS = 64 };
  uint32_t word[4 * QUADS], threshold = d->threshold; /* locals: the loop below must not read through d */
  float scale = d->scale;
  for (int64_t done = 0; done < n;) {
    int64_t element = first + done, lane = element & 3, quads = (n - done + lane + 3) / 4;
    if (quads > QUADS) quads = QUADS;
    int64_t count = 4 * quads - lane < n - done ? 4 * quads - lane : n - done;
    sh_draw at = {d->seed, d->site, d->when, (uint32_t)position, sample};
    SH_FN(random_words)(&at, (uint32_t)(element >> 2), (int)quads, word);
    SH_SIMD
    for (int64_t k = 0; k < count; k++) y[done + k] = x[done + k] * (word[lane + k] < threshold ? 0.f : scale);
    done += count;
  }
}

/* Around the mean of the row, so that a variance taken from the two sums loses nothing to cancellation. */
void SH_FN(row_sums)(int64_t n, const float *x, double sums[2]) {
  float sum = 0, rest = 0, squares = 0;
  SH_SIMD_SUM(sum)
  for (int64_t k = 0; k < n; k++) sum += x[k];
  float mean = sum / (float)n;
  SH_PRAGMA(omp simd reduction(+ : rest, squares))
  for (int64_t k = 0; k < n; k++) rest += x[k] - mean, squares += (x[k] - mean) * (x[k] - mean);
  double m = (double)mean, r = (double)rest;
  sums[0] = (double)n * m + r;
  sums[1] = (double)squares + 2 * m * r + (double)n * m * m;
}

/* The scalars are rounded once: 1 - 0.98f is off by 1e-6. */
void SH_FN(adamw)(int64_t n, double lr, double beta1, double beta2, double eps, double decay, double c1, double c2,
                  float scale, const float *grad, float *value, float *m, float *v) {
  float step = (float)(lr / c1), root = (float)(1.0 / sqrt(c2)), shrink = (float)(1 - lr * decay), e = (float)eps;
  float old1 = (float)beta1, new1 = (float)(1 - beta1), old2 = (float)beta2, new2 = (float)(1 - beta2);
  SH_SIMD
  for (int64_t k = 0; k < n; k++) {
    float g = grad[k] * scale;
    float mk = old1 * m[k] + new1 * g, vk = old2 * v[k] + new2 * g * g;
    m[k] = mk, v[k] = vk;
    value[k] = value[k] * shrink - step * mk / (sqrtf(vk) * root + e);
  }
}

float SH_FN(dot)(int64_t n, const float *a, const float *b) {
  float s = 0;
  SH_SIMD_SUM(s)
  for (int64_t k = 0; k < n; k++) s += a[k] * b[k];
  return s;
}

void SH_FN(axpy)(int64_t n, float a, const float *x, float *y) {
  SH_SIMD
  for (int64_t k = 0; k < n; k++) y[k] += a * x[k];
}
