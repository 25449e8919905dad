/* Philox-4x32-10 over consecutive quads, eight (AVX-512) or four (AVX2) at a time in 64-bit lanes: the multiplications
 * take the low halves of the lanes, so the high halves may hold anything until the end. Bits equal core/rng.h. */
#include "core/rng.h"
#include "kernels/fast/fast.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 8 };
typedef __m512i lanes;
#define SET1(x)   _mm512_set1_epi64((long long)(x))
#define MUL(a, b) _mm512_mul_epu32(a, b)
#define HIGH(a)   _mm512_srli_epi64(a, 32)
#define LEFT(a)   _mm512_slli_epi64(a, 32)
#define XOR(a, b) _mm512_xor_si512(a, b)
#define ADD(a, b) _mm512_add_epi64(a, b)
static inline lanes iota(void) { return _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0); }
/* low words of a and of b side by side */
static inline lanes pair(lanes a, lanes b) { return _mm512_mask_blend_epi32(0xAAAA, a, LEFT(b)); }
static inline void put(lanes ab, lanes cd, uint32_t *out) {
  lanes even = _mm512_unpacklo_epi64(ab, cd), odd = _mm512_unpackhi_epi64(ab, cd);
  lanes first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(even, first, odd));
  _mm512_storeu_si512(out + 16, _mm512_permutex2var_epi64(even, second, odd));
}
#elif defined(__AVX2__)
enum { LANES = 4 };
typedef __m256i lanes;
#define SET1(x)   _mm256_set1_epi64x((long long)(x))
#define MUL(a, b) _mm256_mul_epu32(a, b)
#define HIGH(a)   _mm256_srli_epi64(a, 32)
#define LEFT(a)   _mm256_slli_epi64(a, 32)
#define XOR(a, b) _mm256_xor_si256(a, b)
#define ADD(a, b) _mm256_add_epi64(a, b)
static inline lanes iota(void) { return _mm256_set_epi64x(3, 2, 1, 0); }
static inline lanes pair(lanes a, lanes b) { return _mm256_blend_epi32(a, LEFT(b), 0xAA); }
static inline void put(lanes ab, lanes cd, uint32_t *out) {
  lanes even = _mm256_unpacklo_epi64(ab, cd), odd = _mm256_unpackhi_epi64(ab, cd);
  _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_storeu_si256((__m256i *)(out + 8), _mm256_permute2x128_si256(even, odd, 0x31));
}
#else
enum { LANES = 1 };
#endif

static void whole(const sh_draw *d, uint32_t quad, uint32_t *out) {
#if defined(__AVX2__) /* AVX-512 implies it */
  uint32_t high = (uint32_t)((uint64_t)d->sample >> 32) << 16, k0 = d->seed, k1 = d->site;
  lanes c0 = SET1(d->when), c1 = SET1((uint32_t)d->sample), c2 = SET1(d->position);
  lanes c3 = XOR(ADD(SET1(quad), iota()), SET1(high)), m0 = SET1(0xD2511F53u), m1 = SET1(0xCD9E8D57u);
  for (int round = 0; round < 10; round++) {
    lanes p0 = MUL(m0, c0), p1 = MUL(m1, c2);
    c0 = XOR(XOR(HIGH(p1), c1), SET1(k0));
    c2 = XOR(XOR(HIGH(p0), c3), SET1(k1));
    c1 = p1, c3 = p0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  put(pair(c0, c1), pair(c2, c3), out);
#else
  sh_philox r = sh_random4(d->seed, d->site, d->when, d->sample, d->position, quad);
  for (int k = 0; k < 4; k++) out[k] = r.v[k];
#endif
}

void SH_FN(random_words)(const sh_draw *d, uint32_t quad, int n, uint32_t *word) {
  int q = 0;
  for (; q + LANES <= n; q += LANES) whole(d, quad + (uint32_t)q, word + 4 * q);
  if (q == n) return;
  uint32_t last[4 * LANES];
  whole(d, quad + (uint32_t)q, last);
  for (int k = 0; k < 4 * (n - q); k++) word[4 * q + k] = last[k];
}
