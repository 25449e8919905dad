/* Row-wise and element-wise kernels: norms, activations, dropout, AdamW. */
#include <math.h>

#include "kernels/fast/fast.h"
#include "kernels/fast/lanes.h"

void SH_FN(layernorm)(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                      float *rstd) {
  for (int64_t i = 0; i < rows; i++, x += ldx, y += ldy) {
    lanes sum = {0}, sq = {0};
    LANES_ROW(n, k, m, sum += lanes_load_n(x + k, m));
    float mean = lanes_sum(sum) / (float)n;
    LANES_ROW(n, k, m, lanes d = lanes_keep(lanes_load_n(x + k, m) - mean, m); sq += d * d);
    float r = 1.f / sqrtf(lanes_sum(sq) / (float)n + eps);
    LANES_ROW(n, k, m, lanes_store_n(y + k, m, (lanes_load_n(x + k, m) - mean) * r));
    rstd[i] = r;
  }
}

void SH_FN(layernorm_back)(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                           int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < rows; i++, y += ldy, dy += lddy, dx += lddx) {
    lanes sum = {0}, dot = {0};
    LANES_ROW(n, k, m, lanes g = lanes_load_n(dy + k, m); sum += g, dot += g * lanes_load_n(y + k, m));
    float mean = lanes_sum(sum) / (float)n, along = lanes_sum(dot) / (float)n, r = rstd[i];
    LANES_ROW(n, k, m, lanes d = r * (lanes_load_n(dy + k, m) - mean - lanes_load_n(y + k, m) * along);
              lanes_store_n(dx + k, m, add ? lanes_load_n(dx + k, m) + d : d));
  }
}

void SH_FN(rmsnorm)(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                    float *rstd) {
  for (int64_t i = 0; i < rows; i++, x += ldx, y += ldy) {
    lanes sq = {0};
    LANES_ROW(n, k, m, lanes v = lanes_load_n(x + k, m); sq += v * v);
    float r = 1.f / sqrtf(lanes_sum(sq) / (float)n + eps);
    LANES_ROW(n, k, m, lanes_store_n(y + k, m, lanes_load_n(x + k, m) * r));
    rstd[i] = r;
  }
}

void SH_FN(rmsnorm_back)(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                         int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < rows; i++, y += ldy, dy += lddy, dx += lddx) {
    lanes dot = {0};
    LANES_ROW(n, k, m, dot += lanes_load_n(dy + k, m) * lanes_load_n(y + k, m));
    float along = lanes_sum(dot) / (float)n, r = rstd[i];
    LANES_ROW(n, k, m, lanes d = r * (lanes_load_n(dy + k, m) - lanes_load_n(y + k, m) * along);
              lanes_store_n(dx + k, m, add ? lanes_load_n(dx + k, m) + d : d));
  }
}

void SH_FN(silu)(int64_t n, const float *z, float *y) {
  LANES_ROW(n, k, m, lanes x = lanes_load_n(z + k, m); lanes_store_n(y + k, m, x * lanes_near_sigmoid(x)));
}

void SH_FN(silu_half)(int64_t n, const float *z, uint16_t *half, float *y) {
  LANES_ROW(n, k, m, lanes x = lanes_load_n(z + k, m); lanes_store_n(y + k, m, x * lanes_near_sigmoid(x));
            lanes_store_half(half + k, m, x));
}

LANES_INLINE lanes silu_slope(lanes x) {
  lanes s = lanes_near_sigmoid(x);
  return s + x * s * (1.f - s);
}
void SH_FN(silu_back)(int64_t n, const float *z, const float *dy, float *dz) {
  LANES_ROW(n, k, m, lanes x = lanes_load_n(z + k, m);
            lanes_store_n(dz + k, m, lanes_load_n(dy + k, m) * silu_slope(x)));
}
void SH_FN(silu_back_half)(int64_t n, const uint16_t *half, const float *dy, float *dz) {
  LANES_ROW(n, k, m, lanes x = lanes_load_half(half + k, m);
            lanes_store_n(dz + k, m, lanes_load_n(dy + k, m) * silu_slope(x)));
}

/* 0 where a word is below the threshold, else scale. */
LANES_INLINE lanes keep_or_drop(const uint32_t *word, uint32_t threshold, float scale) {
#if defined(__AVX512F__)
  __mmask16 keep = _mm512_cmpge_epu32_mask(_mm512_loadu_si512(word), _mm512_set1_epi32((int)threshold));
  return (lanes)_mm512_maskz_mov_ps(keep, _mm512_set1_ps(scale));
#else
  float keep[LANES];
  SH_SIMD
  for (int l = 0; l < LANES; l++) keep[l] = word[l] < threshold ? 0.f : scale;
  return lanes_load(keep);
#endif
}

void SH_FN(dropout)(const sh_drop *d, int64_t sample, int32_t position, int64_t first, int64_t n, const float *x,
                    float *y) {
  enum { QUADS = 64 };
  uint32_t word[4 * QUADS + LANES], threshold = d->threshold; /* locals: the loop must not read through d */
  float scale = d->scale;
  for (int64_t done = 0; done < n;) {
    int64_t element = first + done, lane = element & 3, quads = (n - done + lane + 3) / 4;
    if (quads > QUADS) quads = QUADS;
    int64_t count = 4 * quads - lane < n - done ? 4 * quads - lane : n - done;
    sh_draw at = {d->seed, d->site, d->when, (uint32_t)position, sample};
    SH_FN(random_words)
    (&at, (uint32_t)(element >> 2), (int)(quads + 15) / 16 * 16, word); /* as many as are drawn at a time */
    for (int64_t k = 0; k < count; k += LANES) {
      int m = lanes_next(count - k);
      lanes_store_n(y + done + k, m, lanes_load_n(x + done + k, m) * keep_or_drop(word + lane + k, threshold, scale));
    }
    done += count;
  }
}

/* Around the mean of the row, so that a variance taken from the two sums loses nothing to cancellation. */
void SH_FN(row_sums)(int64_t n, const float *x, double sums[2]) {
  lanes sum = {0}, rest = {0}, squares = {0};
  LANES_ROW(n, k, m, sum += lanes_load_n(x + k, m));
  float mean = lanes_sum(sum) / (float)n;
  LANES_ROW(n, k, m, lanes d = lanes_keep(lanes_load_n(x + k, m) - mean, m); rest += d, squares += d * d);
  double m = (double)mean, r = (double)lanes_sum(rest);
  sums[0] = (double)n * m + r;
  sums[1] = (double)lanes_sum(squares) + 2 * m * r + (double)n * m * m;
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
  lanes s = {0};
  LANES_ROW(n, k, m, s += lanes_load_n(a + k, m) * lanes_load_n(b + k, m));
  return lanes_sum(s);
}

void SH_FN(axpy)(int64_t n, float a, const float *x, float *y) {
  SH_SIMD
  for (int64_t k = 0; k < n; k++) y[k] += a * x[k];
}
