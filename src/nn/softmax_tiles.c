#include "nn/softmax_tiles.h"

#include <string.h>

#include "nn/linear.h"

enum { TILE = SH_SOFTMAX_TILE, PANEL_BLOCKS = 16, PANEL_CHUNKS = 16 };

/* A logit no softmax sees, far enough from overflow for any scale. */
static const float MASKED = -1e30f;

static int64_t tiles_of(int64_t n) { return (n + TILE - 1) / TILE; }
static int64_t tile_rows(int64_t n, int64_t tile) { return n - tile * TILE < TILE ? n - tile * TILE : TILE; }

void sh_softmax_pack(sh_softmax *s, sh_arena *arena) {
  int64_t chunks = tiles_of(s->n), D = s->width;
  s->packed = SH_ARENA_NEW(arena, float, chunks *D *TILE);
  s->packed_shift = SH_ARENA_NEW(arena, float, chunks *TILE);
#pragma omp parallel for schedule(static)
  for (int64_t c = 0; c < chunks; c++) {
    int64_t n = tile_rows(s->n, c);
    float *to = s->packed + c * D * TILE, *shift = s->packed_shift + c * TILE;
    const float *e = s->e + c * TILE * s->ld;
    for (int64_t d = 0; d < D; d++) {
      for (int64_t v = 0; v < n; v++) to[d * TILE + v] = e[v * s->ld + d];
      for (int64_t v = n; v < TILE; v++) to[d * TILE + v] = 0;
    }
    for (int64_t v = 0; v < n; v++) shift[v] = s->shift ? s->shift[c * TILE + v] : 0;
    for (int64_t v = n; v < TILE; v++) shift[v] = 0;
  }
}

/* x[rows x 64] = h . e of one tile. */
static void dots(const sh_softmax *s, int64_t rows, const float *h, int64_t chunk, float *x) {
  s->k->gemm(rows, TILE, s->width, h, s->ld, s->packed + chunk * s->width * TILE, TILE, x, TILE, false);
}

/* Column of token t's match in a chunk, or -1. */
static int64_t column(const int32_t *match, int64_t t, int64_t chunk) {
  int64_t v = match[t] - chunk * TILE;
  return match[t] >= 0 && v >= 0 && v < TILE ? v : -1;
}

void sh_softmax_scan(const sh_softmax *s, int64_t T, const float *h, const int32_t *match, float *max, double *sum,
                     float *logit) {
  int64_t blocks = tiles_of(T), chunks = tiles_of(s->n);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; b++) {
    float x[TILE * TILE] __attribute__((aligned(64)));
    int64_t t0 = b * TILE, rows = tile_rows(T, b);
    for (int64_t c = 0; c < chunks; c++) {
      const float *shift = s->packed_shift + c * TILE;
      dots(s, rows, h + t0 * s->ld, c, x);
      for (int64_t i = 0; i < rows; i++) {
        int64_t v = column(match, t0 + i, c);
        if (v < 0) continue;
        if (logit) logit[t0 + i] = x[i * TILE + v] * s->scale - shift[v];
        if (s->masked) x[i * TILE + v] = MASKED;
      }
      s->k->softmax_scan(rows, tile_rows(s->n, c), s->scale, shift, x, TILE, max + t0, sum + t0);
    }
  }
}

/* What both halves of the second pass read. */
typedef struct panel {
  int64_t T, block0, blocks, chunk0, chunks; /* tiles [block0, block0 + blocks) x [chunk0, chunk0 + chunks) */
  float *p;                                  /* [blocks][chunks][64 x 64] */
} panel;

/* Probabilities of one token block over the panel's candidates, and its share of dh. */
static void block_back(const sh_softmax *s, const panel *n, int64_t b, const float *h, const int32_t *match,
                       const float *lse, float factor, float *dh) {
  int64_t block = n->block0 + b, t0 = block * TILE, rows = tile_rows(n->T, block);
  for (int64_t c = 0; c < n->chunks; c++) {
    int64_t chunk = n->chunk0 + c, count = tile_rows(s->n, chunk);
    float *x = n->p + (b * n->chunks + c) * TILE * TILE;
    dots(s, rows, h + t0 * s->ld, chunk, x);
    s->k->softmax_tile(rows, count, s->scale, s->packed_shift + chunk * TILE, lse + t0, factor, x, TILE);
    for (int64_t i = 0; i < rows; i++) {
      int64_t v = column(match, t0 + i, chunk);
      if (v >= 0) x[i * TILE + v] = s->masked ? 0 : x[i * TILE + v] - factor;
    }
    s->k->gemm(rows, s->ld, count, x, TILE, s->e + chunk * TILE * s->ld, s->ld, dh + t0 * s->ld, s->ld, chunk > 0);
  }
}

/* The panel's share of one candidate chunk's de, token block after token block. */
static void chunk_back(const sh_softmax *s, const panel *n, int64_t c, const float *h, float *de) {
  int64_t chunk = n->chunk0 + c, count = tile_rows(s->n, chunk);
  for (int64_t b = 0; b < n->blocks; b++) {
    int64_t t0 = (n->block0 + b) * TILE, rows = tile_rows(n->T, n->block0 + b);
    s->k->gemm_tn(count, s->ld, rows, n->p + (b * n->chunks + c) * TILE * TILE, TILE, h + t0 * s->ld, s->ld,
                  de + chunk * TILE * s->ld, s->ld, true);
  }
}

void sh_softmax_back(const sh_softmax *s, int64_t T, const float *h, const int32_t *match, const float *lse,
                     float factor, float *dh, float *de, sh_arena *scratch) {
  int64_t blocks = tiles_of(T), chunks = tiles_of(s->n), threads = sh_max_threads();
  int64_t high = threads > PANEL_BLOCKS ? threads : PANEL_BLOCKS,
          wide = threads > PANEL_CHUNKS ? threads : PANEL_CHUNKS;
  if (chunks == 0) memset(dh, 0, sizeof(float) * (size_t)(T * s->ld));
  sh_arena_mark mark = sh_arena_save(scratch);
  float *p = SH_ARENA_NEW(scratch, float, high *wide *TILE *TILE);
#pragma omp parallel
  for (int64_t b0 = 0; b0 < blocks; b0 += high)
    for (int64_t c0 = 0; c0 < chunks; c0 += wide) {
      panel n = {.T = T,
                 .block0 = b0,
                 .blocks = blocks - b0 < high ? blocks - b0 : high,
                 .chunk0 = c0,
                 .chunks = chunks - c0 < wide ? chunks - c0 : wide,
                 .p = p};
#pragma omp for schedule(static)
      for (int64_t b = 0; b < n.blocks; b++) block_back(s, &n, b, h, match, lse, factor, dh);
#pragma omp for schedule(static)
      for (int64_t c = 0; c < n.chunks; c++) chunk_back(s, &n, c, h, de);
    }
  sh_arena_release(scratch, mark);
}
