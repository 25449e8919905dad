/* kernels/fast/tiles.h: what the fused attentions share. A tile is 16 queries by at most 256 keys: 16 KB, it stays in
 * L1, and tiles right of the diagonal are never formed. The keys of a block are packed once for all its queries,
 * transposed (so that scores come out with keys side by side) and zero padded to whole vectors; nothing of size L x L
 * exists, and the workspace does not grow with L. */
#ifndef SH_KERNELS_TILES_H
#define SH_KERNELS_TILES_H

#include "kernels/fast/fast.h"
#include "kernels/fast/lanes.h"
#include "kernels/fast/tile_products.h"
#include "kernels/fast/vec.h"

/* Packed keys are TILE_LD floats apart: rows a power of two apart would share a few sets of the cache. */
enum { TILE_LD = TILE_K + 16, TILE_RUNS = 129 };

/* Rows are padded to whole vectors of any instruction set. */
LANES_INLINE int tile_pad(int n) { return (n + 15) / 16 * 16; }

static inline void tile_put(const float *buffer, int n, int d, float *x, int ld) {
  for (int r = 0; r < n; r++) memcpy(x + (int64_t)r * ld, buffer + (int64_t)r * d, sizeof(float) * (size_t)d);
}

/* Have n rows of d floats brought into L2. A head's slices of the rows of a sequence lie too far apart for the
 * prefetcher of the machine. */
static inline void tile_prefetch(int n, int d, const float *x, int ld) {
  for (int r = 0; r < n; r++)
    for (int k = 0; k < d + 15; k += 16) __builtin_prefetch(x + (int64_t)r * ld + (k < d ? k : d - 1), 0, 2);
}

/* Keys of the block k0 .. k0+kp-1 that query i sees; queries past `last` see none. */
LANES_INLINE int tile_seen(int i, int last, int k0, int kp) {
  int n = i + 1 - k0 < kp ? i + 1 - k0 : kp;
  return i > last || n < 0 ? 0 : n;
}

/* x[n .. kp-1] = 0; kp is a multiple of 16. */
LANES_INLINE void tile_clear(int n, int kp, float *x) {
  for (int j = n / LANES * LANES; j < kp; j += LANES)
    lanes_store(x + j, j < n ? lanes_keep(lanes_load(x + j), n - j) : (lanes){0});
}

/* y[0 .. n-1] += x[0 .. n-1], whatever n. */
LANES_INLINE void tile_add(int n, const float *x, float *y) {
  LANES_ROW(n, j, m, lanes_store_n(y + j, m, lanes_load_n(y + j, m) + lanes_load_n(x + j, m)));
}

/* First run of query i that reaches beyond key k0. */
LANES_INLINE int32_t tile_first_run(const sh_rel_bias *b, int i, int k0) {
  int32_t lo = b->run_start[i], hi = b->run_start[i + 1];
  while (k0 > 0 && lo < hi) {
    int32_t mid = (lo + hi) / 2;
    if (b->run_end[mid] <= k0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* Expand the runs of query i over keys k0 .. k0+n-1: out[j - k0] = ts[bucket(i, j)]. Up to a vector beyond n may be
 * overwritten: most runs are short, and a whole vector is then the fastest store. */
static inline void tile_expand_runs(const sh_rel_bias *b, int i, int k0, int n, float *out) {
  int from = 0;
  for (int32_t r = tile_first_run(b, i, k0), end = b->run_start[i + 1]; r < end && from < n; r++) {
    int to = b->run_end[r] - k0;
    lanes w = lanes_all(b->ts[b->run_bucket[r]]);
    if (to > n) to = n;
    lanes_store(out + from, w);
    while ((from += LANES) < to) lanes_store(out + from, w);
    from = to;
  }
}

/* The transpose: sums[bucket] += g over the run, lane by lane; tile_add_sums folds the lanes behind each block of keys,
 * so that no lane sums millions of pairs. */
static inline void tile_sum_runs(const sh_rel_bias *b, int i, int k0, int n, const float *g, float *sums) {
  int from = 0;
  for (int32_t r = tile_first_run(b, i, k0), end = b->run_start[i + 1]; r < end && from < n; r++) {
    int to = b->run_end[r] - k0;
    float *sum = sums + LANES * b->run_bucket[r];
    if (to > n) to = n;
    lanes s = lanes_load(sum);
    for (; from + LANES <= to; from += LANES) s += lanes_load(g + from);
    if (from < to) s += lanes_load_n(g + from, to - from);
    lanes_store(sum, s);
    from = to;
  }
}
static inline void tile_add_sums(float *sums, float *dts) {
  for (int k = 0; k < TILE_RUNS; k++) dts[k] += lanes_sum(lanes_load(sums + LANES * k));
  memset(sums, 0, sizeof(float) * TILE_RUNS * LANES);
}

/* A vector of weights s = silu(z) / divisor of scores z; silu_lanes_back also turns g, the gradient of s, into that of
 * z, and returns it. */
LANES_INLINE void silu_lanes(float inv, lanes z, float *s) { lanes_store(s, z * lanes_near_sigmoid(z) * inv); }
LANES_INLINE lanes silu_lanes_back(float inv, lanes z, float *s, float *g) {
  lanes sig = lanes_near_sigmoid(z), y = z * sig, dz = lanes_load(g) * (sig + y * (1.f - sig)) * inv;
  lanes_store(s, y * inv);
  lanes_store(g, dz);
  return dz;
}

#endif
