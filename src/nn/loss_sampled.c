/* Sampled softmax with negatives of each token's own, tile by tile of tokens. One sweep over a tile's tokens makes
 * loss, hidden gradients and the coefficient of every (token, candidate) pair; a second, over rows, sums coefficient *
 * hidden state in pair order, so rows get their gradients without locks. Nothing of size T x R x D exists. */
#include <assert.h>
#include <string.h>

#include "nn/linear.h"
#include "nn/loss.h"
#include "nn/loss_rows.h"

/* Tokens a thread scores at a time. */
enum { BLOCK = 16 };

/* The call, cut into tiles of `tile` tokens. */
typedef struct plan {
  const sh_loss_args *a;
  const sh_ctx *c;
  int64_t m, U;     /* candidates of a token; rows */
  int64_t ld, wide; /* floats of a copy (kernels.h); its columns, those of gradients */
  int64_t tile;
  int shift;                     /* a pair is token << shift | candidate */
  int64_t wave;                  /* tiles whose pairs are sorted at the same time, one by a thread */
  int32_t *start;                /* [wave x (U + 1)] pairs of each row in each tile */
  int32_t *pair;                 /* [wave x tile x m] */
  float *e, *de;                 /* copies [U x ld]; [U x wide] */
  float *h, *length, *coef, *dh; /* of a tile: [tile x ld], [tile], [tile << shift]; dh [threads x BLOCK x wide] */
  double *part;                  /* [blocks of the batch] losses */
} plan;

/* Tokens whose pairs are sorted and summed together: few enough that hidden states and coefficients stay in a core's
 * cache, enough that a pass over all rows costs less than the pairs. */
static int64_t tile_tokens(int64_t candidates, int64_t rows, int shift) {
  int64_t tile = 512;
  while (tile * candidates < 16 * rows && tile << shift < 1 << 28) tile *= 2;
  return tile;
}

/* Counting sort of a tile's n tokens: pairs of each row, in order. start[U + 1]. */
static void group_pairs(const plan *p, int64_t n, const int32_t *slot, int32_t *start, int32_t *pair) {
  memset(start, 0, sizeof *start * (size_t)(p->U + 1));
  for (int64_t i = 0; i < n * p->m; i++) start[slot[i]]++;
  int32_t end = 0;
  for (int64_t u = 0; u < p->U; u++) start[u] = end += start[u];
  start[p->U] = end;
  for (int64_t t = n - 1; t >= 0; t--) /* from behind, so that ends become starts */
    for (int64_t j = p->m - 1; j >= 0; j--) pair[--start[slot[t * p->m + j]]] = (int32_t)(t << p->shift | j);
}

static int64_t tokens_of(const plan *p, int64_t t0) { return p->a->T - t0 < p->tile ? p->a->T - t0 : p->tile; }
static int32_t *start_of(const plan *p, int64_t t0) { return p->start + t0 / p->tile % p->wave * (p->U + 1); }
static int32_t *pair_of(const plan *p, int64_t t0) { return p->pair + t0 / p->tile % p->wave * p->tile * p->m; }

/* The pairs of `wave` tiles from token t0: few, so that what is written at random stays in the writer's cache. */
static void group_wave(const plan *p, int64_t t0) {
  int64_t left = p->a->T - t0, end = left < p->wave * p->tile ? p->a->T : t0 + p->wave * p->tile;
#pragma omp parallel for schedule(static, 1)
  for (int64_t t = t0; t < end; t += p->tile)
    group_pairs(p, tokens_of(p, t), p->a->reference + t * p->m, start_of(p, t), pair_of(p, t));
}

/* Losses, coefficients and hidden gradients of n <= BLOCK tokens, the tile's tokens i .. i+n-1. */
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
                         a->reference + t * p->m, p->coef + (i << p->shift), (int64_t)1 << p->shift, dh);
  if (dh)
    k->unit_rows_back(n, a->D, norm, eps, a->hidden + t * a->D, a->D, p->length + i, dh, p->wide, a->dhidden + t * a->D,
                      a->D, false);
}

static void do_tile(const plan *p, int64_t t0) {
  int64_t n = tokens_of(p, t0);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i += BLOCK) score_block(p, t0, i, n - i < BLOCK ? n - i : BLOCK);
  if (!p->de) return;
  const int32_t *start = start_of(p, t0), *pair = pair_of(p, t0);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t u = 0; u < p->U; u += SH_TOKEN_BLOCK) {
    sh_breathe();
    sh_pairs pairs = {.start = start + u, .pair = pair, .shift = p->shift};
    p->c->k->pair_sums(p->U - u < SH_TOKEN_BLOCK ? p->U - u : SH_TOKEN_BLOCK, p->wide, p->coef, &pairs, p->h, p->ld,
                       p->de + u * p->wide, p->wide);
  }
}

static plan make_plan(const sh_loss_args *a, const sh_ctx *c) {
  plan p = {.a = a, .c = c, .m = a->R + 1, .U = a->rows->nslots};
  p.ld = sh_copy_floats(c->k, a->D), p.wide = sh_copy_columns(c->k, a->D);
  sh_arena *mem = c->scratch;
  while ((1 << p.shift) < p.m) p.shift++;
  p.tile = tile_tokens(p.m, p.U, p.shift);
  assert(p.tile << p.shift <= INT32_MAX);
  int64_t n = a->T < p.tile ? a->T : p.tile;
  p.e = SH_ARENA_NEW(mem, float, p.U *p.ld);
  p.h = SH_ARENA_NEW(mem, float, n *p.ld);
  p.length = SH_ARENA_NEW(mem, float, n);
  p.coef = SH_ARENA_NEW(mem, float, n << p.shift);
  p.part = SH_ARENA_NEW(mem, double, (a->T + BLOCK - 1) / BLOCK);
  if (!a->dhidden) return p;
  p.wave = sh_max_threads();
  p.start = SH_ARENA_NEW(mem, int32_t, p.wave * (p.U + 1));
  p.pair = SH_ARENA_NEW(mem, int32_t, p.wave * p.tile * p.m);
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
  for (int64_t t0 = 0; t0 < a->T; t0 += p.tile) {
    if (p.de && t0 / p.tile % p.wave == 0) group_wave(&p, t0);
    do_tile(&p, t0);
  }
  double loss = 0;
  for (int64_t block = 0; block < (a->T + BLOCK - 1) / BLOCK; block++) loss += p.part[block];
  if (p.de)
    sh_normalise_rows_back(c->k, p.U, a->D, norm, eps, rows->value, rows->ld, length, p.de, p.wide, rows->grad,
                           rows->ld, true);
  sh_arena_release(c->scratch, mark);
  return loss;
}
