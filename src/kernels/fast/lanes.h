/* kernels/fast/lanes.h: one register of floats (16 with AVX-512, 8 with AVX2, else 4), loads and stores of its first n
 * elements, so that no loop ends in a slow scalar tail, and elementary functions. Static: see fast.h. */
#ifndef SH_KERNELS_LANES_H
#define SH_KERNELS_LANES_H

#include <stdint.h>

#include "core/bf16.h"

#if defined(__AVX512F__)
#include <immintrin.h>
enum { LANES = 16 };
#elif defined(__AVX2__)
#include <immintrin.h>
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t lanes_int __attribute__((vector_size(4 * LANES)));
typedef uint32_t lanes_word __attribute__((vector_size(4 * LANES)));
typedef float lanes_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define LANES_INLINE static inline __attribute__((always_inline))

LANES_INLINE lanes lanes_load(const float *p) { return *(const lanes_anywhere *)p; }
LANES_INLINE void lanes_store(float *p, lanes v) { *(lanes_anywhere *)p = v; }
LANES_INLINE lanes lanes_all(float x) { return x - (lanes){0}; }

/* Run the statements for the elements k .. k+m-1 of every vector of n elements: whole ones, then the rest. */
#define LANES_ROW(n, k, m, ...)                                                                                        \
  do {                                                                                                                 \
    int64_t k = 0;                                                                                                     \
    for (const int m = LANES; k + m <= (n); k += m) {                                                                  \
      __VA_ARGS__;                                                                                                     \
    }                                                                                                                  \
    if (k < (n)) {                                                                                                     \
      const int m = (int)((n)-k);                                                                                      \
      __VA_ARGS__;                                                                                                     \
    }                                                                                                                  \
  } while (0)
/* How many of `left` elements the next vector holds. */
LANES_INLINE int lanes_next(int64_t left) { return left < LANES ? (int)left : LANES; }
#define LANES_WHOLE(n) (__builtin_constant_p(n) && (n) == LANES)

/* lanes_load_n, lanes_store_n: the first n (0 .. LANES) elements, others zero or untouched; nothing beyond is accessed.
 * lanes_keep: the first n of v, others zero. lanes_reciprocal: to 1 ulp. */
#if defined(__AVX512F__)
LANES_INLINE __mmask16 lanes_mask(int n) { return (__mmask16)((1u << n) - 1); }
LANES_INLINE lanes lanes_load_n(const float *p, int n) {
  return LANES_WHOLE(n) ? lanes_load(p) : (lanes)_mm512_maskz_loadu_ps(lanes_mask(n), p);
}
LANES_INLINE void lanes_store_n(float *p, int n, lanes v) {
  if (LANES_WHOLE(n))
    lanes_store(p, v);
  else
    _mm512_mask_storeu_ps(p, lanes_mask(n), (__m512)v);
}
LANES_INLINE lanes lanes_keep(lanes v, int n) {
  return LANES_WHOLE(n) ? v : (lanes)_mm512_maskz_mov_ps(lanes_mask(n), (__m512)v);
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) { return (lanes)_mm512_min_ps((__m512)a, (__m512)b); }
LANES_INLINE lanes lanes_max(lanes a, lanes b) { return (lanes)_mm512_max_ps((__m512)a, (__m512)b); }
LANES_INLINE lanes lanes_reciprocal(lanes x) { /* an estimate of 14 bits and one step of Newton's iteration */
  lanes r = (lanes)_mm512_rcp14_ps((__m512)x);
  return r * (2.f - x * r);
}
#elif defined(__AVX2__)
LANES_INLINE __m256i lanes_mask(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LANES_INLINE lanes lanes_load_n(const float *p, int n) {
  return LANES_WHOLE(n) ? lanes_load(p) : (lanes)_mm256_maskload_ps(p, lanes_mask(n));
}
LANES_INLINE void lanes_store_n(float *p, int n, lanes v) {
  if (LANES_WHOLE(n))
    lanes_store(p, v);
  else
    _mm256_maskstore_ps(p, lanes_mask(n), (__m256)v);
}
LANES_INLINE lanes lanes_keep(lanes v, int n) {
  return LANES_WHOLE(n) ? v : (lanes)_mm256_and_ps((__m256)v, _mm256_castsi256_ps(lanes_mask(n)));
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) { return (lanes)_mm256_min_ps((__m256)a, (__m256)b); }
LANES_INLINE lanes lanes_max(lanes a, lanes b) { return (lanes)_mm256_max_ps((__m256)a, (__m256)b); }
LANES_INLINE lanes lanes_reciprocal(lanes x) { return 1.f / x; }
#else
LANES_INLINE lanes lanes_load_n(const float *p, int n) {
  lanes v = {0};
  if (n == LANES) return lanes_load(p);
  for (int k = 0; k < n; k++) v[k] = p[k];
  return v;
}
LANES_INLINE void lanes_store_n(float *p, int n, lanes v) {
  if (n == LANES) lanes_store(p, v);
  for (int k = 0; k < n && n < LANES; k++) p[k] = v[k];
}
LANES_INLINE lanes lanes_keep(lanes v, int n) {
  for (int k = n; k < LANES; k++) v[k] = 0;
  return v;
}
LANES_INLINE lanes lanes_min(lanes a, lanes b) {
  lanes_int less = a < b;
  return (lanes)(((lanes_int)a & less) | ((lanes_int)b & ~less));
}
LANES_INLINE lanes lanes_max(lanes a, lanes b) {
  lanes_int more = a > b;
  return (lanes)(((lanes_int)a & more) | ((lanes_int)b & ~more));
}
LANES_INLINE lanes lanes_reciprocal(lanes x) { return 1.f / x; }
#endif

/* The first n elements kept as bf16, rounded to nearest, and back. */
#if defined(__AVX512BF16__)
LANES_INLINE void lanes_store_half(uint16_t *p, int n, lanes v) {
  _mm256_mask_storeu_epi16(p, lanes_mask(n), (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
#else
LANES_INLINE void lanes_store_half(uint16_t *p, int n, lanes v) {
  for (int k = 0; k < LANES; k++)
    if (k < n) p[k] = (uint16_t)(bf16_word(v[k]) >> 16);
}
#endif
#if defined(__AVX512BW__) && defined(__AVX512VL__)
LANES_INLINE lanes lanes_load_half(const uint16_t *p, int n) {
  return (lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes_mask(n), p)), 16);
}
#else
LANES_INLINE lanes lanes_load_half(const uint16_t *p, int n) {
  lanes v = {0};
  for (int k = 0; k < LANES; k++)
    if (k < n) v[k] = bf16_low(p[k]);
  return v;
}
#endif

/* Sum and maximum over a vector: halves are folded onto each other. */
typedef float lanes_four __attribute__((vector_size(16)));
#if defined(__AVX512F__)
typedef float lanes_eight __attribute__((vector_size(32)));
LANES_INLINE float lanes_sum(lanes v) {
  lanes_eight h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                  __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  lanes_four q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
#elif defined(__AVX2__)
LANES_INLINE float lanes_sum(lanes v) {
  lanes_four q = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
#else
LANES_INLINE float lanes_sum(lanes v) { return (v[0] + v[2]) + (v[1] + v[3]); }
#endif
LANES_INLINE float lanes_top(lanes v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float top = v[0];
  for (int k = 1; k < LANES; k++) top = v[k] > top ? v[k] : top;
  return top;
#endif
}

/* e^x = 2^n e^r with n whole and |r| <= ln(2) / 2: adding 1.5 * 2^23 rounds to a whole number and leaves it in the last
 * bits of the sum, where a shift makes an exponent of it. */
#define LANES_WHOLE_BIAS 12582912.f
LANES_INLINE lanes lanes_scale(lanes p, lanes shifted) { /* p 2^n */
  return (lanes)((lanes_word)p + ((lanes_word)shifted << 23));
}
LANES_INLINE lanes lanes_clamp(lanes x, float low, float high) {
  return lanes_min(lanes_all(high), lanes_max(lanes_all(low), x));
}

/* exp(x), relative error <= 2e-7 (2 ulp); arguments are clamped to [-87.3, 88.3], NaN stays. */
LANES_INLINE lanes lanes_exp(lanes x) {
  x = lanes_clamp(x, -87.3f, 88.3f);
  lanes shifted = x * 1.44269504f + LANES_WHOLE_BIAS, n = shifted - LANES_WHOLE_BIAS;
  lanes r = x - n * 0.693359375f + n * 2.12194440e-4f;
  lanes p = r * 1.383679417e-3f + 8.374857068e-3f;
  p = p * r + 4.166822868e-2f;
  p = p * r + 1.666641968e-1f;
  p = p * r + 4.999999206e-1f;
  p = p * r + 1.000000036f;
  p = p * r + 1.f;
  return lanes_scale(p, shifted);
}

/* 1 / (1 + e^-x), absolute error <= 1.5e-7 (the power's 2e-7 count a quarter at most). */
LANES_INLINE lanes lanes_sigmoid(lanes x) {
  x = lanes_clamp(x, -87.3f, 87.3f);
  lanes shifted = x * -1.44269504f + LANES_WHOLE_BIAS, r = x * -1.44269504f - (shifted - LANES_WHOLE_BIAS);
  lanes p = r * 1.327641517e-3f + 9.675598406e-3f;
  p = p * r + 5.550713877e-2f;
  p = p * r + 2.402211867e-1f;
  p = p * r + 6.931469664e-1f;
  p = p * r + 1.f;
  return lanes_reciprocal(1.f + lanes_scale(p, shifted));
}

/* The same near enough for what is rounded to the table's precision: with bf16 (4e-3) to 1.5e-4 of itself, for half the
 * work. */
LANES_INLINE lanes lanes_near_sigmoid(lanes x) {
#ifdef SH_BF16
  x = lanes_clamp(x, -87.3f, 87.3f);
  lanes shifted = x * -1.44269504f + LANES_WHOLE_BIAS, r = x * -1.44269504f - (shifted - LANES_WHOLE_BIAS);
  lanes p = r * 5.517133743e-2f + 2.426134876e-1f;
  p = p * r + 6.932612125e-1f;
  p = p * r + 9.999279328e-1f;
  return (lanes)_mm512_rcp14_ps((__m512)(1.f + lanes_scale(p, shifted)));
#else
  return lanes_sigmoid(x);
#endif
}

#endif
