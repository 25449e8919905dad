/* The two-level shuffle of data/samples.h. */
#include <stdlib.h>

#include "core/arena.h"
#include "core/rng.h"
#include "core/search.h"
#include "data/samples.h"

enum { POOL = 8 };

void sh_order_create(sh_order *o, int64_t n, int64_t block) {
  int64_t nblocks = (n + block - 1) / block;
  *o = (sh_order){.n = n, .block = block, .nblocks = nblocks, .npools = (nblocks + POOL - 1) / POOL};
  o->block_at = sh_malloc(sizeof(int64_t) * (size_t)nblocks);
  o->pool_start = sh_malloc(sizeof(int64_t) * (size_t)(o->npools + 1));
}

void sh_order_destroy(sh_order *o) {
  free(o->block_at);
  free(o->pool_start);
  *o = (sh_order){0};
}

static int64_t block_size(const sh_order *o, int64_t b) {
  int64_t left = o->n - b * o->block;
  return left < o->block ? left : o->block;
}

void sh_order_epoch(sh_order *o, uint32_t seed, uint32_t epoch) {
  o->seed = seed, o->epoch = epoch;
  for (int64_t b = 0; b < o->nblocks; b++) o->block_at[b] = b;
  for (int64_t b = o->nblocks - 1; b > 0; b--) { /* Fisher-Yates */
    sh_philox r = sh_random4(seed, SH_SITE(SH_SITE_SHUFFLE, 0), epoch, b, 0, 0);
    int64_t other = sh_below(r.v[0], (uint32_t)(b + 1)), keep = o->block_at[b];
    o->block_at[b] = o->block_at[other];
    o->block_at[other] = keep;
  }
  o->pool_start[0] = 0;
  for (int64_t p = 0; p < o->npools; p++) {
    int64_t size = 0;
    for (int64_t k = p * POOL; k < o->nblocks && k < (p + 1) * POOL; k++) size += block_size(o, o->block_at[k]);
    o->pool_start[p + 1] = o->pool_start[p] + size;
  }
}

/* A permutation of 0 .. n-1: a four-round Feistel network over the next even power of two, walked until inside. */
static int64_t permute(const sh_order *o, int64_t pool, int64_t n, int64_t x) {
  int half = 1;
  while ((int64_t)1 << (2 * half) < n) half++;
  uint32_t mask = (uint32_t)(((int64_t)1 << half) - 1);
  do {
    uint32_t left = (uint32_t)(x >> half) & mask, right = (uint32_t)x & mask;
    for (uint32_t round = 0; round < 4; round++) {
      sh_philox r = sh_random4(o->seed, SH_SITE(SH_SITE_SHUFFLE, 1), o->epoch, pool, right, round);
      uint32_t next = left ^ (r.v[0] & mask);
      left = right;
      right = next;
    }
    x = ((int64_t)left << half) | right;
  } while (x >= n);
  return x;
}

int64_t sh_order_at(const sh_order *o, int64_t position) {
  int64_t lo = sh_lower_bound(o->pool_start + 1, o->npools - 1, position + 1);
  int64_t n = o->pool_start[lo + 1] - o->pool_start[lo];
  int64_t within = permute(o, lo, n, position - o->pool_start[lo]);
  for (int64_t k = lo * POOL;; k++) {
    int64_t size = block_size(o, o->block_at[k]);
    if (within < size) return o->block_at[k] * o->block + within;
    within -= size;
  }
}
