/* kernels/fast/tiles.h: what the fused attentions share. A tile is 16 queries by at most 256 keys: 16 KB, it stays in
 * L1, and tiles right of the diagonal are never formed. Keys are packed once per sequence and head, transposed (so that
 * scores come out with keys side by side) and zero padded to whole vectors; nothing of size L x L exists. */
#ifndef SH_KERNELS_TILES_H
#define SH_KERNELS_TILES_H

#include <string.h>

#include "kernels/fast/fast.h"
#include "kernels/gemm.h"

enum { TILE_Q = 16, TILE_K = 256 };

static inline int tile_pad(int n) { return (n + 15) / 16 * 16; }

/* to[Lp x d], tight, rows L.. zero. */
static inline void tile_pack_rows(int L, int Lp, int d, const float *x, int ld, float *to) {
  for (int i = 0; i < L; i++) memcpy(to + (int64_t)i * d, x + (int64_t)i * ld, sizeof(float) * (size_t)d);
  memset(to + (int64_t)L * d, 0, sizeof(float) * (size_t)(Lp - L) * (size_t)d);
}

/* to[d x Lp]: transposed, columns L.. zero. */
static inline void tile_pack_transposed(int L, int Lp, int d, const float *x, int ld, float *to) {
  sh_transpose(L, d, x, ld, to, Lp);
  for (int k = 0; k < d; k++) memset(to + (int64_t)k * Lp + L, 0, sizeof(float) * (size_t)(Lp - L));
}

/* A whole tile of 16 rows is used where it lies; the last, short one is copied and zero padded. */
typedef struct tile_rows {
  const float *at;
  int ld;
} tile_rows;
static inline tile_rows tile_take(const float *x, int ld, int n, int d, float *buffer) {
  if (n == TILE_Q) return (tile_rows){x, ld};
  tile_pack_rows(n, TILE_Q, d, x, ld, buffer);
  return (tile_rows){buffer, d};
}
static inline void tile_put(const float *buffer, int n, int d, float *x, int ld) {
  for (int r = 0; r < n; r++) memcpy(x + (int64_t)r * ld, buffer + (int64_t)r * d, sizeof(float) * (size_t)d);
}

/* Expand the runs of query i over keys k0 .. k0+n-1: out[j - k0] = ts[bucket(i, j)]. */
static inline void tile_expand_runs(const sh_rel_bias *b, int i, int k0, int n, float *out) {
  int from = 0;
  for (int32_t r = b->run_start[i]; r < b->run_start[i + 1]; r++) {
    int to = b->run_end[r], lo = from > k0 ? from : k0, hi = to < k0 + n ? to : k0 + n;
    float w = b->ts[b->run_bucket[r]];
    for (int j = lo; j < hi; j++) out[j - k0] = w;
    from = to;
    if (from >= k0 + n) break;
  }
}

/* The transpose: dts[bucket] += sum of g over the run. */
static inline void tile_sum_runs(const sh_rel_bias *b, int i, int k0, int n, const float *g) {
  int from = 0;
  for (int32_t r = b->run_start[i]; r < b->run_start[i + 1]; r++) {
    int to = b->run_end[r], lo = from > k0 ? from : k0, hi = to < k0 + n ? to : k0 + n;
    float s = 0;
    SH_SIMD_SUM(s)
    for (int j = lo; j < hi; j++) s += g[j - k0];
    if (hi > lo) b->dts[b->run_bucket[r]] += s;
    from = to;
    if (from >= k0 + n) break;
  }
}

#endif
