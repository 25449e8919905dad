/* kernels/fast/sixteen.h: 16 floats as one value: one, two or four registers of the instruction set (a vector type
 * wider than a register would live in memory). Static: see fast.h.
 */
#ifndef SH_KERNELS_SIXTEEN_H
#define SH_KERNELS_SIXTEEN_H

#include "kernels/fast/lanes.h"

enum { LANES16 = 16, SIXTEEN_PARTS = LANES16 / LANES };
typedef struct sixteen {
  lanes part[SIXTEEN_PARTS];
} sixteen;

/* For each part of the result `to`. */
#define SIXTEEN_EACH(to, ...)                                                                                          \
  sixteen to;                                                                                                          \
  for (int i = 0; i < SIXTEEN_PARTS; i++) to.part[i] = __VA_ARGS__;                                                    \
  return to

LANES_INLINE sixteen load(const float *p) { SIXTEEN_EACH(v, lanes_load(p + i * LANES)); }
LANES_INLINE void store(float *p, sixteen v) {
  for (int i = 0; i < SIXTEEN_PARTS; i++) lanes_store(p + i * LANES, v.part[i]);
}

/* The first n, all when n >= 16; the others are zero, or stay untouched. */
LANES_INLINE int sixteen_left(int64_t n, int part) {
  int64_t left = n - part * LANES;
  return left < 0 ? 0 : left < LANES ? (int)left : LANES;
}
LANES_INLINE sixteen load_part(const float *p, int64_t n) {
  SIXTEEN_EACH(v, lanes_load_n(p + i * LANES, sixteen_left(n, i)));
}
LANES_INLINE void store_part(float *p, sixteen v, int64_t n) {
  for (int i = 0; i < SIXTEEN_PARTS; i++) lanes_store_n(p + i * LANES, sixteen_left(n, i), v.part[i]);
}

/* x a, sum + x a, sum + a b. */
LANES_INLINE sixteen times(float x, sixteen a) { SIXTEEN_EACH(v, x * a.part[i]); }
LANES_INLINE sixteen plus_times(sixteen sum, float x, sixteen a) { SIXTEEN_EACH(v, sum.part[i] + x * a.part[i]); }
LANES_INLINE sixteen plus_product(sixteen sum, sixteen a, sixteen b) {
  SIXTEEN_EACH(v, sum.part[i] + a.part[i] * b.part[i]);
}

/* Sums of all 16, halves folded onto each other. Four values, then sixteen at once in two steps: four_sums makes
 * partial sums of a, b, c, d, four of each; sixteen_sums the sums: lane 4 q + i is that of the q-th argument of the
 * call that made the i-th argument here. */
#if defined __AVX512F__
LANES_INLINE float total(sixteen v) { return lanes_sum(v.part[0]); }
LANES_INLINE sixteen four_sums(sixteen a, sixteen b, sixteen c, sixteen d) {
  lanes a0 = a.part[0], b0 = b.part[0], c0 = c.part[0], d0 = d.part[0];
  lanes ab = __builtin_shufflevector(a0, b0, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
             __builtin_shufflevector(a0, b0, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  lanes cd = __builtin_shufflevector(c0, d0, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
             __builtin_shufflevector(c0, d0, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  return (sixteen){{__builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                    __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)}};
}
/* Of pairs within 128 bits: the even and odd places of a and b added, and halves of such. */
LANES_INLINE lanes add_near(lanes a, lanes b) {
  return (lanes)_mm512_unpacklo_ps((__m512)a, (__m512)b) + (lanes)_mm512_unpackhi_ps((__m512)a, (__m512)b);
}
LANES_INLINE lanes add_halves(lanes a, lanes b) {
  return (lanes)_mm512_shuffle_ps((__m512)a, (__m512)b, 0x44) + (lanes)_mm512_shuffle_ps((__m512)a, (__m512)b, 0xEE);
}
#elif defined __AVX2__
LANES_INLINE float total(sixteen v) { return lanes_sum(v.part[0] + v.part[1]); }
LANES_INLINE lanes two_sums(sixteen a, sixteen b) {
  lanes x = a.part[0] + a.part[1], y = b.part[0] + b.part[1];
  return __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
}
LANES_INLINE sixteen four_sums(sixteen a, sixteen b, sixteen c, sixteen d) {
  return (sixteen){{two_sums(a, b), two_sums(c, d)}};
}
LANES_INLINE lanes add_near(lanes a, lanes b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
         __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}
LANES_INLINE lanes add_halves(lanes a, lanes b) {
  return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
         __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
#else
LANES_INLINE lanes fold(sixteen v) { return (v.part[0] + v.part[2]) + (v.part[1] + v.part[3]); }
LANES_INLINE float total(sixteen v) { return lanes_sum(fold(v)); }
LANES_INLINE sixteen four_sums(sixteen a, sixteen b, sixteen c, sixteen d) {
  return (sixteen){{fold(a), fold(b), fold(c), fold(d)}};
}
LANES_INLINE lanes add_near(lanes a, lanes b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
LANES_INLINE lanes add_halves(lanes a, lanes b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
}
#endif
LANES_INLINE sixteen sixteen_sums(sixteen a, sixteen b, sixteen c, sixteen d) {
  SIXTEEN_EACH(v, add_halves(add_near(a.part[i], b.part[i]), add_near(c.part[i], d.part[i])));
}

#endif
