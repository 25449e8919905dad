/* kernels/fast/sixteen.h: 16 floats as one value: one, two or four registers of the instruction set. Static: see
 * fast.h.
 */
#ifndef SH_KERNELS_SIXTEEN_H
#define SH_KERNELS_SIXTEEN_H

#include <stdint.h>
#include <string.h>

#if defined __AVX512F__
#include <immintrin.h>
#endif

enum { LANES16 = 16 };
typedef float sixteen __attribute__((vector_size(4 * LANES16), aligned(4)));
typedef float quarter __attribute__((vector_size(LANES16), aligned(4)));

static inline __attribute__((always_inline)) sixteen load(const float *p) {
  sixteen v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline __attribute__((always_inline)) void store(float *p, sixteen v) { memcpy(p, &v, sizeof v); }

/* The first n, all when n >= 16; the others are zero, or stay untouched. */
static inline __attribute__((always_inline)) sixteen load_part(const float *p, int64_t n) {
#if defined __AVX512F__
  return (sixteen)_mm512_maskz_loadu_ps((__mmask16)(n < LANES16 ? (1u << n) - 1 : 0xFFFFu), p);
#else
  float v[LANES16] = {0};
  for (int64_t i = 0; i < n && i < LANES16; i++) v[i] = p[i];
  return load(v);
#endif
}
static inline __attribute__((always_inline)) void store_part(float *p, sixteen v, int64_t n) {
#if defined __AVX512F__
  _mm512_mask_storeu_ps(p, (__mmask16)(n < LANES16 ? (1u << n) - 1 : 0xFFFFu), (__m512)v);
#else
  for (int64_t i = 0; i < n && i < LANES16; i++) p[i] = v[i];
#endif
}

/* Halves are folded onto each other, which stays in registers on every instruction set. */
static inline __attribute__((always_inline)) quarter fold(sixteen v) {
  typedef float half __attribute__((vector_size(2 * LANES16)));
  half h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
}
static inline __attribute__((always_inline)) float total(sixteen v) {
  quarter q = fold(v);
  return (q[0] + q[2]) + (q[1] + q[3]);
}

/* Sixteen sums at once, in two steps. Partial sums of a, b, c, d, four of each: */
static inline __attribute__((always_inline)) sixteen four_sums(sixteen a, sixteen b, sixteen c, sixteen d) {
#if defined __AVX512F__
  sixteen ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  sixteen cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               __builtin_shufflevector(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  return __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
#else
  quarter q[4] = {fold(a), fold(b), fold(c), fold(d)};
  sixteen v;
  memcpy(&v, q, sizeof v);
  return v;
#endif
}
/* ... and the sums: lane 4 q + i is that of the q-th argument of the call that made the i-th argument here. */
static inline __attribute__((always_inline)) sixteen sixteen_sums(sixteen a, sixteen b, sixteen c, sixteen d) {
#if defined __AVX512F__
  sixteen ab = (sixteen)_mm512_unpacklo_ps((__m512)a, (__m512)b) + (sixteen)_mm512_unpackhi_ps((__m512)a, (__m512)b);
  sixteen cd = (sixteen)_mm512_unpacklo_ps((__m512)c, (__m512)d) + (sixteen)_mm512_unpackhi_ps((__m512)c, (__m512)d);
  return (sixteen)_mm512_shuffle_ps((__m512)ab, (__m512)cd, 0x44) +
         (sixteen)_mm512_shuffle_ps((__m512)ab, (__m512)cd, 0xEE);
#else
  quarter p[4], q[4], r[4], s[4], sum[4];
  memcpy(p, &a, sizeof p), memcpy(q, &b, sizeof q), memcpy(r, &c, sizeof r), memcpy(s, &d, sizeof s);
  for (int i = 0; i < 4; i++) {
    quarter pq = __builtin_shufflevector(p[i], q[i], 0, 4, 1, 5) + __builtin_shufflevector(p[i], q[i], 2, 6, 3, 7);
    quarter rs = __builtin_shufflevector(r[i], s[i], 0, 4, 1, 5) + __builtin_shufflevector(r[i], s[i], 2, 6, 3, 7);
    sum[i] = __builtin_shufflevector(pq, rs, 0, 1, 4, 5) + __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
  }
  sixteen v;
  memcpy(&v, sum, sizeof v);
  return v;
#endif
}

#endif
