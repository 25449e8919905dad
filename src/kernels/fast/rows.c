/* Row-wise and element-wise kernels: norms, activations, dropout, AdamW. */
#include <math.h>

#include "core/rng.h"
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

/* The four words of `n` consecutive quads, Philox rounds unrolled over the vector lanes. */
enum { QUADS = 64 };
static void random_quads(const sh_drop *d, int64_t sample, uint32_t position, uint32_t quad, int n,
                         uint32_t word[4][QUADS]) {
  uint32_t high = (uint32_t)((uint64_t)sample >> 32) << 16, low = (uint32_t)sample;
  SH_SIMD
  for (int q = 0; q < n; q++) {
    uint32_t c0 = d->when, c1 = low, c2 = position, c3 = (quad + (uint32_t)q) ^ high;
    uint32_t k0 = d->seed, k1 = d->site;
    for (int round = 0; round < 10; round++) {
      uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
      c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
      c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
      c1 = (uint32_t)p1, c3 = (uint32_t)p0;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    word[0][q] = c0, word[1][q] = c1, word[2][q] = c2, word[3][q] = c3;
  }
}

void SH_FN(dropout)(const sh_drop *d, int64_t sample, int32_t position, int64_t first, int64_t n, const float *x,
                    float *y) {
  uint32_t word[4][QUADS];
  float keep[4 * QUADS];
  for (int64_t done = 0; done < n;) {
    int64_t element = first + done, lane = element & 3;
    int64_t quads = (n - done + lane + 3) / 4;
    if (quads > QUADS) quads = QUADS;
    random_quads(d, sample, (uint32_t)position, (uint32_t)(element >> 2), (int)quads, word);
    for (int l = 0; l < 4; l++)
      SH_SIMD
      for (int64_t q = 0; q < quads; q++) keep[4 * q + l] = word[l][q] < d->threshold ? 0.f : d->scale;
    int64_t count = 4 * quads - lane < n - done ? 4 * quads - lane : n - done;
    SH_SIMD
    for (int64_t k = 0; k < count; k++) y[done + k] = x[done + k] * keep[lane + k];
    done += count;
  }
}

void SH_FN(adamw)(int64_t n, float lr, float beta1, float beta2, float eps, float decay, double c1, double c2,
                  float scale, const float *grad, float *value, float *m, float *v) {
  float step = (float)((double)lr / c1), root = (float)(1.0 / sqrt(c2)), shrink = 1.f - lr * decay;
  SH_SIMD
  for (int64_t k = 0; k < n; k++) {
    float g = grad[k] * scale;
    float mk = beta1 * m[k] + (1.f - beta1) * g, vk = beta2 * v[k] + (1.f - beta2) * g * g;
    m[k] = mk, v[k] = vk;
    value[k] = value[k] * shrink - step * mk / (sqrtf(vk) * root + eps);
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
