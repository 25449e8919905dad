/* kernels/fast/copies.h: copies of rows that the sampled loss gathers, a vector of 16 floats at a time. In fp32 a
 * vector is 16 columns; with bf16 instructions 32: word k holds column k in its lower half and column 16 + k in its
 * upper one, so that halves are whole registers of neighbours and an inner product takes pairs as they lie. Static: see
 * fast.h. */
#ifndef SH_KERNELS_COPIES_H
#define SH_KERNELS_COPIES_H

#include "kernels/fast/sixteen.h"

#if defined __AVX512BF16__
enum { COPY_PARTS = 2 };

/* Columns 0 .. 15 (part 0) or 16 .. 31 of a vector, as floats. */
static inline __attribute__((always_inline)) sixteen copy_part(sixteen v, const int part) {
  __m512i word = (__m512i)v.part[0];
  return (sixteen){
      {(lanes)(part == 0 ? _mm512_slli_epi32(word, 16) : _mm512_and_si512(word, _mm512_set1_epi32(-0x10000)))}};
}
static inline __attribute__((always_inline)) sixteen copy_of(const sixteen part[COPY_PARTS]) {
  __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)part[0].part[0]));
  __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)part[1].part[0]));
  return (sixteen){{(lanes)_mm512_or_si512(low, _mm512_slli_epi32(high, 16))}};
}
/* sum + a . b, in sixteen partial sums. */
static inline __attribute__((always_inline)) sixteen copy_dot(sixteen sum, sixteen a, sixteen b) {
  return (sixteen){{(lanes)_mm512_dpbf16_ps((__m512)sum.part[0], (__m512bh)a.part[0], (__m512bh)b.part[0])}};
}
#else
enum { COPY_PARTS = 1 };

static inline __attribute__((always_inline)) sixteen copy_part(sixteen v, const int part) {
  (void)part;
  return v;
}
static inline __attribute__((always_inline)) sixteen copy_of(const sixteen part[COPY_PARTS]) { return part[0]; }
static inline __attribute__((always_inline)) sixteen copy_dot(sixteen sum, sixteen a, sixteen b) {
  return plus_product(sum, a, b);
}
#endif

enum { COPY_COLUMNS = COPY_PARTS * LANES16 };

#endif
