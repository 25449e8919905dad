/* kernels/bf16.h: the rounding that precision bf16 means, and operands in the order of its instructions. */
#ifndef SH_KERNELS_BF16_H
#define SH_KERNELS_BF16_H

#include "core/bf16.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

/* Two neighbours of an inner product as VNNI instructions read them: `first` in the lower half. */
static inline __attribute__((always_inline)) uint32_t bf16_pair(float first, float second) {
  return bf16_word(first) >> 16 | bf16_word(second);
}

/* The two halves of a pair, as floats: bf16_low is core/bf16.h's. */
static inline float bf16_high(uint32_t pair) { return bf16_low(pair >> 16); }

#if defined(__AVX512BF16__)
/* The first n (at most 32) elements of a row, 16 pairs of neighbours; x beyond them counts as zero. */
static inline __attribute__((always_inline)) __m512i bf16_round_32(int64_t n, const float *x) {
  if (n >= 32) return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
  uint32_t all = (1u << n) - 1;
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(all >> 16), x + 16),
                                      _mm512_maskz_loadu_ps((__mmask16)all, x));
}

/* Elements of two rows that the mask keeps, one over the other; `below` NULL: over zeros. */
static inline __attribute__((always_inline)) __m512i bf16_round_two(__mmask16 m, const float *above,
                                                                    const float *below) {
  __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, above)));
  if (!below) return a;
  __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, below)));
  return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}
#endif

/* to[pairs of n]: neighbours of one row; an odd last one is paired with zero. */
static inline void bf16_round_row(int64_t n, const float *x, uint32_t *to) {
  int64_t k = 0;
#if defined(__AVX512BF16__)
  for (; k + 32 <= n; k += 32) _mm512_storeu_si512(to + k / 2, bf16_round_32(32, x + k));
  if (k < n)
    _mm512_mask_storeu_epi32(to + k / 2, (__mmask16)((1u << (n - k + 1) / 2) - 1), bf16_round_32(n - k, x + k));
#else
  for (; k + 2 <= n; k += 2) to[k / 2] = bf16_pair(x[k], x[k + 1]);
  if (k < n) to[k / 2] = bf16_pair(x[k], 0);
#endif
}

/* to[n]: one row over the next; `below` NULL: over zeros. */
static inline void bf16_round_rows(int64_t n, const float *above, const float *below, uint32_t *to) {
  int64_t k = 0;
#if defined(__AVX512BF16__)
  for (; k + 16 <= n; k += 16) _mm512_storeu_si512(to + k, bf16_round_two(0xffff, above + k, below ? below + k : NULL));
  if (k < n) {
    __mmask16 m = (__mmask16)((1u << (n - k)) - 1);
    _mm512_mask_storeu_epi32(to + k, m, bf16_round_two(m, above + k, below ? below + k : NULL));
  }
#else
  for (; k < n; k++) to[k] = bf16_pair(above[k], below ? below[k] : 0);
#endif
}

#endif
