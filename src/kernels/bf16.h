/* kernels/bf16.h: the rounding that precision bf16 means. Static and branch-free, so that it vectorises anywhere. */
#ifndef SH_KERNELS_BF16_H
#define SH_KERNELS_BF16_H

#include <stdint.h>
#include <string.h>

/* The bits of x rounded to bf16 (nearest, ties to even), in the upper half of a word; the lower half is zero. A NaN
 * stays one. */
static inline __attribute__((always_inline)) uint32_t bf16_word(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  return x != x ? (bits & 0xffff0000u) | 0x00400000u : rounded;
}

/* x rounded to bf16, as a float. */
static inline __attribute__((always_inline)) float bf16_round(float x) {
  uint32_t bits = bf16_word(x);
  float y;
  memcpy(&y, &bits, sizeof y);
  return y;
}

/* Two neighbours of an inner product as VNNI instructions read them: `first` in the lower half. */
static inline __attribute__((always_inline)) uint32_t bf16_pair(float first, float second) {
  return bf16_word(first) >> 16 | bf16_word(second);
}

/* The two halves of a pair, as floats. */
static inline float bf16_low(uint32_t pair) {
  uint32_t bits = pair << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
static inline float bf16_high(uint32_t pair) { return bf16_low(pair >> 16); }

#endif
