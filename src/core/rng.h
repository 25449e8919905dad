/* core/rng.h: counter-based randomness, Philox-4x32-10 (Salmon et al., SC'11).
 *
 * Nothing has a state. A value is a function of key = (seed, site) and counter = (step or epoch, sample id, position,
 * element / 4), lane = element mod 4, where every part is global: never a place in a batch, a rank or a thread.
 * So a run on another grid draws the same numbers, and a backward pass draws its masks again.
 */
#ifndef SH_CORE_RNG_H
#define SH_CORE_RNG_H

#include <math.h>
#include <stdint.h>

typedef struct sh_philox {
  uint32_t v[4];
} sh_philox;

/* What a random number is for. A layer's site adds its place in the model: SH_SITE(purpose, call index). */
enum {
  SH_SITE_INIT = 1,     /* dense parameters; low bits = hash of the name */
  SH_SITE_TABLE_INIT,   /* embedding rows */
  SH_SITE_SHUFFLE,      /* order of sequences in an epoch */
  SH_SITE_NEGATIVES,    /* negative samples of the loss */
  SH_SITE_DROP_INPUT,   /* dropout of the input embedding */
  SH_SITE_DROP_LINEAR,  /* dropout in front of an output projection */
  SH_SITE_DROP_ATTN,    /* dropout of attention probabilities */
  SH_SITE_DROP_FFN,     /* dropout of the hidden FFN activation */
  SH_SITE_DROP_FFN_OUT, /* dropout behind the FFN */
  SH_SITE_SYNTH,        /* shoal synth */
  SH_SITE_PREPARE,      /* tie order, shoal prepare */
  SH_SITE_TEST
};
#define SH_SITE(purpose, index) (((uint32_t)(purpose) << 16) | (uint32_t)(index))

static inline sh_philox sh_philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return (sh_philox){{c0, c1, c2, c3}};
}

/* The four numbers of elements 4*quad .. 4*quad+3 at (when, sample, position). The 64-bit sample id is folded: its
 * high half enters the high bits of `quad`, which elements beyond 262,143 reach, too: such an element of a sample below
 * 2^32 draws what an early element of one beyond draws. Both need not be feared at once. */
static inline sh_philox sh_random4(uint32_t seed, uint32_t site, uint32_t when, int64_t sample, uint32_t position,
                                   uint32_t quad) {
  uint32_t high = (uint32_t)((uint64_t)sample >> 32);
  return sh_philox4x32(when, (uint32_t)sample, position, quad ^ (high << 16), seed, site);
}

/* [0, 1): a 24-bit uniform, exact in float. */
static inline float sh_uniform(uint32_t r) { return (float)(r >> 8) * 0x1p-24f; }

/* An integer in [0, n), n < 2^32, by multiplication: each with a chance of 1/n within 2^-32, which is 1 in 4,000 of it
 * for a million integers and a quarter of it for a billion. */
static inline uint32_t sh_below(uint32_t r, uint32_t n) { return (uint32_t)(((uint64_t)r * n) >> 32); }

/* Two independent standard normals (Box-Muller, double inside). */
static inline void sh_normal2(uint32_t a, uint32_t b, float out[2]) {
  double radius = sqrt(-2.0 * log(((double)a + 1.0) * 0x1p-32)), angle = 6.283185307179586476925 * (double)b * 0x1p-32;
  out[0] = (float)(radius * cos(angle));
  out[1] = (float)(radius * sin(angle));
}

/* Threshold t such that a 32-bit number is below it with probability p: element is dropped if r < t. */
static inline uint32_t sh_drop_threshold(double p) { return (uint32_t)(p * 4294967296.0); }

/* 32-bit hash of a name, for sites of named things (FNV-1a). */
static inline uint32_t sh_name_hash(const char *name) {
  uint32_t h = 2166136261u;
  for (; *name; name++) h = (h ^ (uint8_t)*name) * 16777619u;
  return h;
}

#endif
