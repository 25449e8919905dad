/* kernels/fast/tile_products.h: how the attentions' tiles keep their operands and multiply them: as they are in fp32,
 * or, in a table of precision bf16 (SH_BF16), rounded to pairs of bf16 that take the room of one float. Sums are fp32.
 *
 * Keys x [n x d] are packed once for all queries that see them: `tile_pack_transposed` for products over columns (q.k,
 * dout.v), `tile_pack_rows` for products over keys (weights times values). A tile's query rows are taken by
 * `tile_take`. Rows are padded with zeros to np or m, multiples of 16, m at most TILE_ROWS; keys are at most TILE_K; d
 * is any. */
#ifndef SH_KERNELS_TILE_PRODUCTS_H
#define SH_KERNELS_TILE_PRODUCTS_H

#include <string.h>

#include "kernels/fast/transpose.h"
#include "kernels/gemm.h"
#ifdef SH_BF16
#include "kernels/bf16.h"
#include "kernels/gemm_bf16.h"
#endif

enum { TILE_Q = 16, TILE_K = 256, TILE_ROWS = 3 * TILE_Q };

/* Floats of room for m query rows. */
#define TILE_ROOM(m, d) ((m) * ((int64_t)(d) + 1))

#ifndef SH_BF16

typedef struct tile_rows {
  const float *at;
  int m, d, ld;
} tile_rows;

/* to[d x ldt]: x transposed, columns n .. np-1 zero. */
static inline void tile_pack_transposed(int n, int np, int d, const float *x, int ld, float *to, int ldt) {
  transpose(n, d, x, ld, to, ldt);
  if (n < np)
    for (int k = 0; k < d; k++) memset(to + (int64_t)k * ldt + n, 0, sizeof(float) * (size_t)(np - n));
}

/* to[np x d]: x, tight, rows n.. zero. tile_key: where key j begins. */
static inline void tile_pack_rows(int n, int np, int d, const float *x, int ld, float *to) {
  for (int i = 0; i < n; i++) memcpy(to + (int64_t)i * d, x + (int64_t)i * ld, sizeof(float) * (size_t)d);
  memset(to + (int64_t)n * d, 0, sizeof(float) * (size_t)(np - n) * (size_t)d);
}
static inline const float *tile_key(const float *rows, int j, int d) { return rows + (int64_t)j * d; }

/* m rows, the first n of them from x. Whole tiles are used where they lie, a short one is copied to `room`. `spread`:
 * for tile_spread, too. */
static inline tile_rows tile_take(const float *x, int ld, int n, int m, int d, bool spread, float *room) {
  (void)spread;
  if (n == m) return (tile_rows){x, m, d, ld};
  tile_pack_rows(n, m, d, x, ld, room);
  return (tile_rows){room, m, d, d};
}

/* s[m x keys] = q . (packed transposed keys). */
static inline void tile_scores(const tile_rows *q, int keys, const float *kt, int ldt, float *s, int lds) {
  sh_gemm(q->m, keys, q->d, q->at, q->ld, kt, ldt, s, lds, false);
}
/* out[m x d] (+)= s[m x keys] (packed rows); m is a multiple of 16. */
static inline void tile_weigh(int m, int keys, int d, const float *s, int lds, const float *rows, float *out, int ldo,
                              bool add) {
  sh_gemm(m, d, keys, s, lds, rows, d, out, ldo, add);
}
/* dt[d x keys] += q^T s: gradients of keys, transposed. */
static inline void tile_spread(const tile_rows *q, int keys, const float *s, int lds, float *dt, int ldt) {
  sh_gemm_tn(q->d, keys, q->m, q->at, q->ld, s, lds, dt, ldt, true);
}

#else

typedef struct tile_rows {
  const sh_pair *row, *column; /* [m x pairs of d], [d x m / 2]: pairs of columns, pairs of queries */
  int m, d;
} tile_rows;

/* to[pairs of d x ldt]. */
static inline void tile_pack_transposed(int n, int np, int d, const float *x, int ld, float *to, int ldt) {
  for (int i = 0; i < np; i += 16)
    for (int k = 0; k < d; k += 32) {
      int width = d - k < 32 ? d - k : 32;
      __m512 r[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; j++)
        r[j] = i + j < n ? (__m512)bf16_round_32(width, x + (int64_t)(i + j) * ld + k) : _mm512_setzero_ps();
      transpose_store(r, 16, (width + 1) / 2, to + (int64_t)(k / 2) * ldt + i, ldt);
    }
}

/* to[np / 2 x d]. */
static inline void tile_pack_rows(int n, int np, int d, const float *x, int ld, float *to) {
  for (int i = 0; i < np; i += 2) {
    sh_pair *pairs = (sh_pair *)to + (int64_t)(i / 2) * d;
    if (i < n)
      bf16_round_rows(d, x + (int64_t)i * ld, i + 1 < n ? x + (int64_t)(i + 1) * ld : NULL, pairs);
    else
      memset(pairs, 0, sizeof(sh_pair) * (size_t)d);
  }
}
static inline const float *tile_key(const float *rows, int j, int d) { return rows + (int64_t)(j / 2) * d; }

/* to[d x m / 2]: pairs of queries. */
static inline void tile_take_columns(const float *x, int ld, int n, int m, int d, float *to) {
  for (int p = 0; p < m / 2; p += 16)
    for (int k = 0; k < d; k += 16) {
      int pairs = lanes_next(m / 2 - p), width = lanes_next(d - k);
      __m512 r[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; j++) {
        int i = 2 * (p + j);
        const float *above = x + (int64_t)i * ld + k;
        r[j] = j < pairs && i < n ? (__m512)bf16_round_two(lanes_mask(width), above, i + 1 < n ? above + ld : NULL)
                                  : _mm512_setzero_ps();
      }
      transpose_store(r, pairs, width, to + (int64_t)k * (m / 2) + p, m / 2);
    }
}

static inline tile_rows tile_take(const float *x, int ld, int n, int m, int d, bool spread, float *room) {
  int pairs = (d + 1) / 2;
  sh_pair *row = (sh_pair *)room, *column = row + m * pairs;
  for (int r = 0; r < m; r++)
    if (r < n)
      bf16_round_row(d, x + (int64_t)r * ld, row + r * pairs);
    else
      memset(row + r * pairs, 0, sizeof(sh_pair) * (size_t)pairs);
  if (spread) tile_take_columns(x, ld, n, m, d, (float *)column);
  return (tile_rows){row, column, m, d};
}

static inline void tile_scores(const tile_rows *q, int keys, const float *kt, int ldt, float *s, int lds) {
  int pairs = (q->d + 1) / 2;
  sh_gemm_bf16(q->m, keys, pairs, q->row, pairs, (const sh_pair *)kt, ldt, s, lds, false);
}
static inline void tile_weigh(int m, int keys, int d, const float *s, int lds, const float *rows, float *out, int ldo,
                              bool add) {
  sh_pair rounded[TILE_Q * TILE_K / 2] __attribute__((aligned(64)));
  for (int r = 0; r < m; r += TILE_Q) {
    for (int i = 0; i < TILE_Q; i++) bf16_round_row(keys, s + (int64_t)(r + i) * lds, rounded + i * (keys / 2));
    sh_gemm_bf16(TILE_Q, d, keys / 2, rounded, keys / 2, (const sh_pair *)rows, d, out + (int64_t)r * ldo, ldo, add);
  }
}
static inline void tile_spread(const tile_rows *q, int keys, const float *s, int lds, float *dt, int ldt) {
  sh_pair rounded[TILE_ROWS / 2 * TILE_K] __attribute__((aligned(64)));
  for (int r = 0; r < q->m; r += 2)
    bf16_round_rows(keys, s + (int64_t)r * lds, s + (int64_t)(r + 1) * lds, rounded + r / 2 * keys);
  sh_gemm_bf16(q->d, keys, q->m / 2, q->column, q->m / 2, rounded, keys, dt, ldt, true);
}

#endif
#endif
