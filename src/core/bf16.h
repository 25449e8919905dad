/* core/bf16.h: fp32 to bf16 and back: the upper half of a float's bits, rounded to nearest, ties to even. Static and
 * branch-free, so that it vectorises anywhere. */
#ifndef SH_CORE_BF16_H
#define SH_CORE_BF16_H

#include <stdint.h>
#include <string.h>

/* The bits of x rounded to bf16, in the upper half of a word; the lower half is zero. A NaN stays one. */
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

/* The float of 16 bits: the lower half of a word. */
static inline __attribute__((always_inline)) float bf16_low(uint32_t word) {
  uint32_t bits = word << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

#endif
