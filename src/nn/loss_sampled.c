/* Sampled softmax with negatives of each token's own, wave by wave of tokens. One sweep over a wave's tokens makes
 * loss, hidden gradients and the coefficient of every (token, candidate) pair; the pairs are sorted by row, tile by
 * tile; and a sweep over rows sums coefficient * hidden state in pair order, so rows get their gradients without locks.
 * Nothing of size T x R x D exists. */
#include <assert.h>

#include "nn/linear.h"
#include "nn/loss.h"
#include "nn/loss_pairs.h"
#include "nn/loss_rows.h"

/* Tokens a thread scores at a time, which divide a tile; pairs of a wave, 12 bytes each. */
enum { BLOCK = 16, WAVE_PAIRS = 1 << 24 };

typedef struct plan {
  const sh_loss_args *a;
  const sh_ctx *c;
  int64_t m, U;                  /* candidates of a token; rows */
  int64_t ld, wide;              /* floats of a copy (kernels.h); its columns, those of gradients */
  int64_t tile, wave;            /* tokens sorted together, by one thread; of a wave, a tile a thread */
  int64_t ldcoef;                /* m or more: whole cache lines */
  int32_t *start;                /* [tiles of a wave x (U + 1)] pairs of each row in each tile */
  sh_share *pair;                /* [wave x m] */
  float *e, *de;                 /* copies [U x ld]; [U x wide] */
  float *h, *length, *coef, *dh; /* of a wave: [wave x ld], [wave], [wave x ldcoef]; dh [threads x BLOCK x wide] */
  double *part;                  /* [blocks of the batch] losses */
} plan;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Tokens of a wave: a tile a thread, but no more tiles than there are, nor many more than WAVE_PAIRS pairs. */
static int64_t wave_tokens(int64_t tokens, int64_t candidates, int64_t tile, int64_t threads) {
  int64_t tiles = smaller(smaller(threads, (tokens + tile - 1) / tile), WAVE_PAIRS / (tile * candidates));
  return tile * (tiles > 1 ? tiles : 1);
}

static int64_t padded(int64_t candidates) { return (candidates + 15) / 16 * 16; } /* whole cache lines */

int64_t sh_loss_sampled_floats(int64_t tokens, int64_t R, int64_t rows, int64_t width, int64_t threads) {
  int64_t m = R + 1, tile = sh_pairs_tile(tokens, m, rows), wave = wave_tokens(tokens, m, tile, threads);
  int64_t n = smaller(tokens, wave), pair = sizeof(sh_share) / sizeof(float);
  return 2 * rows * (width + 1) + n * (width + 1 + padded(m) + pair * m) + wave / tile * (rows + 1) +
         threads * BLOCK * width;
}

/* Losses, coefficients and hidden gradients of n <= BLOCK tokens, the wave's tokens i .. i+n-1. */
static void score_block(const plan *p, int64_t t0, int64_t i, int64_t n) {
  sh_breathe();
  const sh_loss_args *a = p->a;
  const sh_kernels *k = p->c->k;
  bool norm = a->conf->l2_norm;
  int64_t t = t0 + i;
  float eps = (float)a->conf->l2_eps, temperature = (float)a->conf->temperature, *h = p->h + i * p->ld;
  float *dh = p->dh ? p->dh + sh_thread() * BLOCK * p->wide : NULL;
  k->unit_copies(n, a->D, norm, eps, a->hidden + t * a->D, a->D, h, p->ld, p->length + i);
  p->part[t / BLOCK] =
      k->sampled_softmax(n, p->m, p->wide, 1 / temperature, (float)(a->scale / a->conf->temperature), h, p->e, p->ld,
                         a->reference + t * p->m, p->coef + i * p->ldcoef, p->ldcoef, dh);
  if (dh)
    k->unit_rows_back(n, a->D, norm, eps, a->hidden + t * a->D, a->D, p->length + i, dh, p->wide, a->dhidden + t * a->D,
                      a->D, false);
}

static int32_t *start_of(const plan *p, int64_t i) { return p->start + i / p->tile * (p->U + 1); }

/* Gradients of rows u .. u+rows-1 from all tiles of the wave's n tokens. */
static void sum_rows(const plan *p, int64_t n, int64_t u, int64_t rows) {
  sh_breathe();
  for (int64_t i = 0; i < n; i += p->tile)
    p->c->k->pair_sums(rows, p->wide, start_of(p, i) + u, p->pair + i * p->m, p->h + i * p->ld, p->ld,
                       p->de + u * p->wide, p->wide);
}

/* The n tokens from t0. */
static void do_wave(const plan *p, int64_t t0, int64_t n) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i += BLOCK) score_block(p, t0, i, smaller(n - i, BLOCK));
  if (!p->de) return;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i += p->tile)
    sh_pairs_by_row(smaller(n - i, p->tile), p->m, p->a->reference + (t0 + i) * p->m, p->coef + i * p->ldcoef,
                    p->ldcoef, p->U, start_of(p, i), p->pair + i * p->m);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t u = 0; u < p->U; u += SH_TOKEN_BLOCK) sum_rows(p, n, u, smaller(p->U - u, SH_TOKEN_BLOCK));
}

static plan make_plan(const sh_loss_args *a, const sh_ctx *c) {
  plan p = {.a = a, .c = c, .m = a->R + 1, .U = a->rows->nslots};
  p.ld = sh_copy_floats(c->k, a->D), p.wide = sh_copy_columns(c->k, a->D);
  sh_arena *mem = c->scratch;
  p.tile = sh_pairs_tile(a->T, p.m, p.U);
  p.wave = wave_tokens(a->T, p.m, p.tile, a->dhidden ? sh_max_threads() : 1);
  assert(p.tile * p.m <= INT32_MAX);
  p.ldcoef = padded(p.m);
  int64_t n = smaller(a->T, p.wave);
  p.e = SH_ARENA_NEW(mem, float, p.U *p.ld);
  p.h = SH_ARENA_NEW(mem, float, n *p.ld);
  p.length = SH_ARENA_NEW(mem, float, n);
  p.coef = SH_ARENA_NEW(mem, float, n *p.ldcoef);
  p.part = SH_ARENA_NEW(mem, double, (a->T + BLOCK - 1) / BLOCK);
  if (!a->dhidden) return p;
  p.start = SH_ARENA_NEW(mem, int32_t, p.wave / p.tile * (p.U + 1));
  p.pair = SH_ARENA_NEW(mem, sh_share, n * p.m);
  p.dh = SH_ARENA_NEW(mem, float, sh_max_threads() * BLOCK * p.wide);
  p.de = SH_ARENA_ZNEW(mem, float, p.U *p.wide);
  return p;
}

double sh_loss_sampled(const sh_loss_args *a, const sh_ctx *c) {
  const sh_rows *rows = a->rows;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  plan p = make_plan(a, c);
  bool norm = a->conf->l2_norm;
  float eps = (float)a->conf->l2_eps, *length = SH_ARENA_NEW(c->scratch, float, p.U);
  sh_copy_rows(c->k, p.U, a->D, norm, eps, rows->value, rows->ld, p.e, length);
  for (int64_t t0 = 0; t0 < a->T; t0 += p.wave) do_wave(&p, t0, smaller(a->T - t0, p.wave));
  double loss = 0;
  for (int64_t block = 0; block < (a->T + BLOCK - 1) / BLOCK; block++) loss += p.part[block];
  if (p.de)
    sh_normalise_rows_back(c->k, p.U, a->D, norm, eps, rows->value, rows->ld, length, p.de, p.wide, rows->grad,
                           rows->ld, true);
  sh_arena_release(c->scratch, mark);
  return loss;
}
