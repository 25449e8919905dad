/* kernels/fast/lanes.h: vectors of 16 floats on every instruction set (one, two or four registers), and loads and
 * stores of their first n elements, so that no loop ends in a slow scalar tail. Static: see fast.h. */
#ifndef SH_KERNELS_LANES_H
#define SH_KERNELS_LANES_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

#define LANES_INLINE static inline __attribute__((always_inline))

LANES_INLINE lanes lanes_load(const float *p) {
  lanes v;
  memcpy(&v, p, sizeof v);
  return v;
}
LANES_INLINE void lanes_store(float *p, lanes v) { memcpy(p, &v, sizeof v); }

#if defined(__AVX2__) && !defined(__AVX512F__)
/* -1 for the first n of eight lanes. */
LANES_INLINE __m256i lanes_half_mask(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

/* The first n (0 .. 16) elements, the others zero; reads nothing beyond. */
LANES_INLINE lanes lanes_load_n(const float *p, int n) {
  lanes v = {0};
#if defined(__AVX512F__)
  __m512 x = _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
  memcpy(&v, &x, sizeof v);
#elif defined(__AVX2__)
  __m256 x[2] = {_mm256_maskload_ps(p, lanes_half_mask(n)), _mm256_maskload_ps(p + 8, lanes_half_mask(n - 8))};
  memcpy(&v, x, sizeof v);
#else
  for (int k = 0; k < n; k++) v[k] = p[k];
#endif
  return v;
}
LANES_INLINE void lanes_store_n(float *p, int n, lanes v) {
#if defined(__AVX512F__)
  __m512 x;
  memcpy(&x, &v, sizeof x);
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
#elif defined(__AVX2__)
  __m256 x[2];
  memcpy(x, &v, sizeof x);
  _mm256_maskstore_ps(p, lanes_half_mask(n), x[0]);
  _mm256_maskstore_ps(p + 8, lanes_half_mask(n - 8), x[1]);
#else
  for (int k = 0; k < n; k++) p[k] = v[k];
#endif
}

/* Halves are folded onto each other, which stays in registers on every instruction set. */
LANES_INLINE float lanes_sum(lanes v) {
  typedef float half __attribute__((vector_size(2 * LANES)));
  typedef float quarter __attribute__((vector_size(LANES)));
  half h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  quarter q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
  return (q[0] + q[2]) + (q[1] + q[3]);
}

#endif
