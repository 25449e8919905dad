#include "nn/softmax_tiles.h"

#include <string.h>

#include "nn/linear.h"

/* KEPT: tiles that a pass over all candidates may keep, 64 MiB. */
enum { TILE = SH_SOFTMAX_TILE, PANEL_BLOCKS = 16, PANEL_CHUNKS = 16, KEPT = 4096 };

/* A logit no softmax sees, far enough from overflow for any scale. */
static const float MASKED = -1e30f;

static int64_t tiles_of(int64_t n) { return (n + TILE - 1) / TILE; }
static int64_t tile_rows(int64_t n, int64_t tile) { return n - tile * TILE < TILE ? n - tile * TILE : TILE; }

/* A tile's candidates e as right-hand operands: e^T [D x count], e [count x ld]. */
static sh_right columns_of(const sh_softmax *s, int64_t chunk) {
  int64_t room = s->k->right_room(s->width, TILE);
  return (sh_right){.K = s->width, .N = tile_rows(s->n, chunk), .packed = s->columns + chunk * room};
}
static sh_right rows_of(const sh_softmax *s, int64_t chunk) {
  int64_t room = s->k->right_room(TILE, s->ld);
  return (sh_right){.K = tile_rows(s->n, chunk), .N = s->ld, .packed = s->rows ? s->rows + chunk * room : NULL};
}

void sh_softmax_pack(sh_softmax *s, sh_arena *arena) {
  const sh_kernels *k = s->k;
  int64_t chunks = tiles_of(s->n);
  bool rounds = strcmp(k->precision, "fp32") != 0;
  s->columns = SH_ARENA_NEW(arena, float, chunks * k->right_room(s->width, TILE));
  s->rows = rounds ? SH_ARENA_NEW(arena, float, chunks * k->right_room(TILE, s->ld)) : NULL;
  s->packed_shift = SH_ARENA_NEW(arena, float, chunks *TILE);
#pragma omp parallel for schedule(static)
  for (int64_t c = 0; c < chunks; c++) {
    const float *e = s->e + c * TILE * s->ld;
    sh_right columns = columns_of(s, c), rows = rows_of(s, c);
    k->right_pack(&columns, e, s->ld, true, 0, columns.N);
    if (s->rows) k->right_pack(&rows, e, s->ld, false, 0, rows.N);
    for (int64_t v = 0; v < TILE; v++)
      s->packed_shift[c * TILE + v] = s->shift && v < columns.N ? s->shift[c * TILE + v] : 0;
  }
}

/* x[rows x 64] = h . e of one tile; columns beyond the last candidate stay as they are. */
static void dots(const sh_softmax *s, int64_t rows, const float *h, int64_t chunk, float *x) {
  sh_right e = columns_of(s, chunk);
  s->k->multiply(rows, h, s->ld, &e, x, TILE, false);
}

/* dh[rows x ld] (+)= x[rows x count] e of one tile. */
static void weigh(const sh_softmax *s, int64_t rows, const float *x, int64_t chunk, float *dh) {
  sh_right e = rows_of(s, chunk);
  if (s->rows)
    s->k->multiply(rows, x, TILE, &e, dh, s->ld, chunk > 0);
  else
    s->k->gemm(rows, s->ld, e.K, x, TILE, s->e + chunk * TILE * s->ld, s->ld, dh, s->ld, chunk > 0);
}

/* Column of token t's match in a chunk, or -1. */
static int64_t column(const int32_t *match, int64_t t, int64_t chunk) {
  int64_t v = match[t] - chunk * TILE;
  return match[t] >= 0 && v >= 0 && v < TILE ? v : -1;
}

/* Fold all candidates into max and sum of one token block. Tile c of logits is left at x + c * stride. */
static void block_scan(const sh_softmax *s, int64_t T, int64_t b, const float *h, const int32_t *match, float *max,
                       double *sum, float *logit, float *x, int64_t stride) {
  int64_t t0 = b * TILE, rows = tile_rows(T, b), chunks = tiles_of(s->n);
  for (int64_t c = 0; c < chunks; c++, x += stride) {
    const float *shift = s->packed_shift + c * TILE;
    sh_breathe();
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

void sh_softmax_scan(const sh_softmax *s, int64_t T, const float *h, const int32_t *match, float *max, double *sum,
                     float *logit) {
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < tiles_of(T); b++) {
    float x[TILE * TILE] __attribute__((aligned(64)));
    block_scan(s, T, b, h, match, max, sum, logit, x, 0);
  }
}

/* What both halves of the second pass read. */
typedef struct panel {
  int64_t T, block0, blocks, chunk0, chunks; /* tiles [block0, block0 + blocks) x [chunk0, chunk0 + chunks) */
  float *p;                                  /* [blocks][chunks][64 x 64] */
  bool kept;                                 /* p holds logits already */
} panel;

/* Probabilities of one token block over the panel's candidates, and its share of dh. */
static void block_back(const sh_softmax *s, const panel *n, int64_t b, const float *h, const int32_t *match,
                       const float *lse, float factor, float *dh) {
  int64_t block = n->block0 + b, t0 = block * TILE, rows = tile_rows(n->T, block);
  for (int64_t c = 0; c < n->chunks; c++) {
    int64_t chunk = n->chunk0 + c, count = tile_rows(s->n, chunk);
    float *x = n->p + (b * n->chunks + c) * TILE * TILE;
    sh_breathe();
    if (!n->kept) dots(s, rows, h + t0 * s->ld, chunk, x);
    s->k->softmax_tile(rows, count, s->scale, s->packed_shift + chunk * TILE, lse + t0, factor, x, TILE);
    for (int64_t i = 0; i < rows; i++) {
      int64_t v = column(match, t0 + i, chunk);
      if (v >= 0) x[i * TILE + v] = s->masked ? 0 : x[i * TILE + v] - factor;
    }
    weigh(s, rows, x, chunk, dh + t0 * s->ld);
  }
}

/* The panel's share of one candidate chunk's de, token block after token block. */
static void chunk_back(const sh_softmax *s, const panel *n, int64_t c, const float *h, float *de) {
  int64_t chunk = n->chunk0 + c, count = tile_rows(s->n, chunk);
  for (int64_t b = 0; b < n->blocks; b++) {
    int64_t t0 = (n->block0 + b) * TILE, rows = tile_rows(n->T, n->block0 + b);
    sh_breathe();
    s->k->multiply_tn(count, s->ld, rows, n->p + (b * n->chunks + c) * TILE * TILE, TILE, h + t0 * s->ld, s->ld,
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

/* Token blocks of a panel over all candidates. */
static int64_t kept_blocks(void) { return sh_max_threads() > PANEL_BLOCKS ? sh_max_threads() : PANEL_BLOCKS; }

bool sh_softmax_keeps(const sh_softmax *s) { return kept_blocks() * tiles_of(s->n) <= KEPT; }

/* The same kernels on the same tiles in the same order as a scan and the pass back: the same bits. */
void sh_softmax_once(const sh_softmax *s, int64_t T, const float *h, const int32_t *match, float *max, double *sum,
                     float *lse, float factor, float *dh, float *de, sh_arena *scratch) {
  int64_t blocks = tiles_of(T), chunks = tiles_of(s->n), high = kept_blocks(), tile = TILE * TILE;
  if (chunks == 0) memset(dh, 0, sizeof(float) * (size_t)(T * s->ld));
  sh_arena_mark mark = sh_arena_save(scratch);
  float *p = SH_ARENA_NEW(scratch, float, high *chunks *tile);
#pragma omp parallel
  for (int64_t b0 = 0; b0 < blocks; b0 += high) {
    panel n = {.T = T, .block0 = b0, .blocks = blocks - b0 < high ? blocks - b0 : high, .chunks = chunks};
    n.p = p, n.kept = true;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < n.blocks; b++) {
      int64_t t0 = (b0 + b) * TILE, end = t0 + tile_rows(T, b0 + b);
      block_scan(s, T, b0 + b, h, match, max, sum, NULL, p + b * chunks * tile, tile);
      for (int64_t t = t0; t < end; t++) lse[t] = (float)sh_softmax_lse(max[t], sum[t]);
      block_back(s, &n, b, h, match, lse, factor, dh);
    }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < chunks; c++) chunk_back(s, &n, c, h, de);
  }
  sh_arena_release(scratch, mark);
}
