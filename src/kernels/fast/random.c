/* Philox-4x32-10 over consecutive quads, eight (AVX-512) or four (AVX2) in a register of 64-bit lanes: the
 * multiplications take the low halves of the lanes, so the high halves may hold anything until the end. Bits equal
 * core/rng.h. */
#include "core/rng.h"
#include "kernels/fast/fast.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 8 };
typedef __m512i lanes;
#define SET1(x)       _mm512_set1_epi64((long long)(x))
#define MUL(a, b)     _mm512_mul_epu32(a, b)
#define HIGH(a)       _mm512_srli_epi64(a, 32)
#define LEFT(a)       _mm512_slli_epi64(a, 32)
#define XOR(a, b)     _mm512_xor_si512(a, b)
#define ADD(a, b)     _mm512_add_epi64(a, b)
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
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
#define SET1(x)       _mm256_set1_epi64x((long long)(x))
#define MUL(a, b)     _mm256_mul_epu32(a, b)
#define HIGH(a)       _mm256_srli_epi64(a, 32)
#define LEFT(a)       _mm256_slli_epi64(a, 32)
#define XOR(a, b)     _mm256_xor_si256(a, b)
#define ADD(a, b)     _mm256_add_epi64(a, b)
#define XOR3(a, b, c) XOR(XOR(a, b), c)
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

#if defined(__AVX2__) /* AVX-512 implies it */
/* What all quads of a draw share: counter words and the first keys. */
typedef struct cipher {
  lanes c0, c1, c2, c3, k0, k1; /* c3: without the quad */
} cipher;

static inline cipher cipher_of(const sh_draw *d) {
  return (cipher){.c0 = SET1(d->when),
                  .c1 = SET1((uint32_t)d->sample),
                  .c2 = SET1(d->position),
                  .c3 = SET1((uint32_t)((uint64_t)d->sample >> 32) << 16),
                  .k0 = SET1(d->seed),
                  .k1 = SET1(d->site)};
}

typedef struct state {
  lanes c0, c1, c2, c3;
} state;
static inline state begin(const cipher *c, uint32_t quad) {
  return (state){c->c0, c->c1, c->c2, XOR(ADD(SET1(quad), iota()), c->c3)};
}
static inline state turn(state s, lanes k0, lanes k1) {
  lanes p0 = MUL(SET1(0xD2511F53u), s.c0), p1 = MUL(SET1(0xCD9E8D57u), s.c2);
  return (state){XOR3(HIGH(p1), s.c1, k0), p1, XOR3(HIGH(p0), s.c3, k1), p0};
}
/* With a bound, integers below it (core/rng.h, sh_below). */
static inline void end(state s, uint32_t bound, uint32_t *out) {
  if (bound > 0) {
    lanes n = SET1(bound);
    s.c0 = HIGH(MUL(s.c0, n)), s.c1 = HIGH(MUL(s.c1, n)), s.c2 = HIGH(MUL(s.c2, n)), s.c3 = HIGH(MUL(s.c3, n));
  }
  put(pair(s.c0, s.c1), pair(s.c2, s.c3), out);
}

/* `streams` x LANES quads, at most MOST: a round is a chain of ten cycles, so several run side by side. Keys are
 * counted on with every round: left alone, the compiler makes all twenty before the first, which costs a short draw a
 * third. */
enum { STREAMS = 2, MOST = 4 };
static inline __attribute__((always_inline)) void whole(const cipher *c, const int streams, uint32_t quad,
                                                        uint32_t bound, uint32_t *out) {
  state s[MOST];
  lanes k0 = c->k0, k1 = c->k1;
  for (int i = 0; i < streams; i++) s[i] = begin(c, quad + (uint32_t)(i * LANES));
  for (int r = 0; r < 10; r++) {
    for (int i = 0; i < streams; i++) s[i] = turn(s[i], k0, k1);
    k0 = ADD(k0, SET1(0x9E3779B9u)), k1 = ADD(k1, SET1(0xBB67AE85u));
    __asm__("" : "+x"(k0), "+x"(k1));
  }
  for (int i = 0; i < streams; i++) end(s[i], bound, out + 4 * LANES * i);
}
#else
enum { STREAMS = 1, MOST = 1 };
typedef sh_draw cipher;
static inline cipher cipher_of(const sh_draw *d) { return *d; }
static inline void whole(const cipher *c, int streams, uint32_t quad, uint32_t bound, uint32_t *out) {
  (void)streams;
  sh_philox r = sh_random4(c->seed, c->site, c->when, c->sample, c->position, quad);
  for (int k = 0; k < 4; k++) out[k] = bound > 0 ? sh_below(r.v[k], bound) : r.v[k];
}
#endif

static inline void draw(const sh_draw *d, uint32_t quad, int n, uint32_t bound, uint32_t *word) {
  enum { MANY = MOST * LANES, QUADS = STREAMS * LANES };
  cipher c = cipher_of(d);
  int q = 0;
  for (; q + MANY <= n; q += MANY) whole(&c, MOST, quad + (uint32_t)q, bound, word + 4 * q);
  for (; q + QUADS <= n; q += QUADS) whole(&c, STREAMS, quad + (uint32_t)q, bound, word + 4 * q);
  if (q == n) return;
  uint32_t last[4 * QUADS];
  whole(&c, STREAMS, quad + (uint32_t)q, bound, last);
  for (int k = 0; k < 4 * (n - q); k++) word[4 * q + k] = last[k];
}

void SH_FN(random_words)(const sh_draw *d, uint32_t quad, int n, uint32_t *word) { draw(d, quad, n, 0, word); }

void SH_FN(random_below)(const sh_draw *d, uint32_t quad, int n, uint32_t bound, uint32_t *word) {
  if (bound > 0) draw(d, quad, n, bound, word);
}
