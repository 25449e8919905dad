#include "dist/loss_full.h"

#include <assert.h>
#include <float.h>
#include <math.h>

#include "mpi/coll.h"
#include "nn/linear.h"
#include "nn/loss_rows.h"
#include "nn/softmax_tiles.h"

/* What all tiles share. A tile holds tokens [tile * share, (tile + 1) * share) of every rank that has them. */
typedef struct plan {
  const sh_full_args *a;
  const sh_ctx *c;
  const sh_axis *axis;
  sh_softmax s;
  int64_t share, tiles, most; /* tokens of one rank and of all ranks in a tile, at most */
  int64_t *tokens, *count;    /* [axis size] all tokens of each rank; in floats, those of the tile */
  float *h, *dh;              /* [T x ld] of this rank */
  float *de;                  /* [ncandidates x ld] */
  /* Of the tile's tokens, rank after rank. */
  float *h_tile, *dh_tile, *max, *own_max, *logit;
  int64_t *target;
  int32_t *match;
  double *sums; /* [2 x most] sums of exponentials, then logits of targets */
} plan;

/* Index of this key's row among own candidates, or -1. */
static int32_t find_candidate(const sh_full_args *a, int64_t key) {
  int64_t row = sh_table_local(a->table, key), low = 0, high = a->ncandidates;
  if (row < 0) return -1;
  while (low < high) {
    int64_t mid = (low + high) / 2;
    if (a->candidate[mid] < row)
      low = mid + 1;
    else
      high = mid;
  }
  return low < a->ncandidates && a->candidate[low] == row ? (int32_t)low : -1;
}

static int64_t tokens_in_tile(const plan *p, int64_t tile, int64_t rank) {
  int64_t left = p->tokens[rank] - tile * p->share;
  return left < 0 ? 0 : left < p->share ? left : p->share;
}

static void make_plan(plan *p) {
  const sh_full_args *a = p->a;
  sh_arena *mem = p->c->scratch;
  int64_t P = p->axis->size, most = 0;
  p->tokens = SH_ARENA_NEW(mem, int64_t, P);
  p->count = SH_ARENA_NEW(mem, int64_t, P);
  sh_allgather(p->axis, &a->T, sizeof a->T, p->tokens);
  for (int64_t r = 0; r < P; r++) most = p->tokens[r] > most ? p->tokens[r] : most;
  p->share = a->conf->tile_tokens / P > 1 ? a->conf->tile_tokens / P : 1;
  p->tiles = (most + p->share - 1) / p->share;
  for (int64_t r = 0; r < P; r++) p->most += tokens_in_tile(p, 0, r);
  p->h_tile = SH_ARENA_NEW(mem, float, p->most * p->s.ld);
  p->dh_tile = SH_ARENA_NEW(mem, float, p->most * p->s.ld);
  p->max = SH_ARENA_NEW(mem, float, p->most);
  p->own_max = SH_ARENA_NEW(mem, float, p->most);
  p->logit = SH_ARENA_NEW(mem, float, p->most);
  p->target = SH_ARENA_NEW(mem, int64_t, p->most);
  p->match = SH_ARENA_NEW(mem, int32_t, p->most);
  p->sums = SH_ARENA_NEW(mem, double, 2 * p->most);
}

/* Everybody's hidden states and targets of a tile; returns how many. */
static int64_t gather(plan *p, int64_t tile) {
  const sh_full_args *a = p->a;
  int64_t n = 0, from = tile * p->share < a->T ? tile * p->share : a->T;
  for (int64_t r = 0; r < p->axis->size; r++) n += p->count[r] = tokens_in_tile(p, tile, r);
  sh_allgatherv(p->axis, a->target + from, p->count, sizeof *a->target, p->target);
  sh_allgatherv(p->axis, p->h + from * p->s.ld, p->count, sizeof(float) * (size_t)p->s.ld, p->h_tile);
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < n; t++) {
    p->match[t] = find_candidate(a, p->target[t]);
    p->max[t] = -FLT_MAX, p->logit[t] = 0, p->sums[t] = 0;
  }
  return n;
}

/* Over all ranks: max[n] becomes log-sum-exp, sums[n ..] the logits of targets. */
static void reduce(plan *p, int64_t n) {
  for (int64_t t = 0; t < n; t++) p->own_max[t] = p->max[t];
  sh_max_f32(p->axis, p->max, n);
  for (int64_t t = 0; t < n; t++) {
    p->sums[t] = p->sums[t] > 0 ? p->sums[t] * exp((double)p->own_max[t] - (double)p->max[t]) : 0;
    p->sums[n + t] = (double)p->logit[t];
  }
  sh_sum_f64(p->axis, p->sums, 2 * n);
}

static double tile_loss(plan *p, int64_t tile) {
  const sh_full_args *a = p->a;
  int64_t n = gather(p, tile), ld = p->s.ld, from = tile * p->share < a->T ? tile * p->share : a->T, before = 0;
  sh_softmax_scan(&p->s, n, p->h_tile, p->match, p->max, p->sums, p->logit);
  reduce(p, n);
  for (int r = 0; r < p->axis->index; r++) before += p->count[r];
  double loss = 0;
  for (int64_t t = 0; t < n; t++) {
    double lse = (double)p->max[t] + log(p->sums[t]);
    if (t >= before && t < before + p->count[p->axis->index]) loss += lse - p->sums[n + t];
    p->max[t] = (float)lse;
  }
  if (!p->dh) return loss;
  float factor = (float)(a->scale / a->conf->temperature);
  sh_softmax_back(&p->s, n, p->h_tile, p->match, p->max, factor, p->dh_tile, p->de, p->c->scratch);
  for (int r = 0; r < p->axis->size; r++) p->count[r] *= ld;
  sh_reduce_scatter_f32(p->axis, p->dh_tile, p->count, p->dh + from * ld);
  return loss;
}

/* Gradients of own candidate rows, in the table's tight width, to the table. */
static void rows_back(const plan *p, const float *own, const float *e_length) {
  const sh_full_args *a = p->a;
  float *drows = SH_ARENA_NEW(p->c->scratch, float, a->ncandidates * a->D);
  sh_normalise_rows_back(p->c->k, a->ncandidates, a->D, a->conf->l2_norm, (float)a->conf->l2_eps, own, a->D, e_length,
                         p->de, p->s.ld, drows, a->D, false);
  sh_table_add_local(a->table, a->ncandidates, a->candidate, drows, a->D);
}

double sh_loss_full(const sh_full_args *a, const sh_ctx *c) {
  assert(a->D == a->table->conf.width);
  int64_t ld = (a->D + 15) / 16 * 16, n = a->ncandidates;
  bool norm = a->conf->l2_norm;
  float eps = (float)a->conf->l2_eps;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *e = SH_ARENA_NEW(c->scratch, float, n *ld), *e_length = SH_ARENA_NEW(c->scratch, float, n);
  float *own = SH_ARENA_NEW(c->scratch, float, n * a->D), *h_length = SH_ARENA_NEW(c->scratch, float, a->T);
#pragma omp parallel for schedule(static)
  for (int64_t v = 0; v < n; v++)
    for (int64_t d = 0; d < a->D; d++) own[v * a->D + d] = a->table->rows[a->candidate[v] * (int64_t)a->D + d];
  sh_normalise_rows(c->k, n, a->D, norm, eps, own, a->D, e, ld, e_length);
  plan p = {.a = a, .c = c, .axis = a->table->axis};
  p.s = (sh_softmax){.k = c->k, .width = a->D, .ld = ld, .n = n, .e = e, .scale = (float)(1.0 / a->conf->temperature)};
  sh_softmax_pack(&p.s, c->scratch);
  p.h = SH_ARENA_NEW(c->scratch, float, a->T *ld);
  sh_normalise_rows(c->k, a->T, a->D, norm, eps, a->hidden, a->D, p.h, ld, h_length);
  if (a->dhidden) {
    p.dh = SH_ARENA_NEW(c->scratch, float, a->T *ld);
    p.de = SH_ARENA_ZNEW(c->scratch, float, n *ld);
  }
  sh_comm_kind outer = sh_comm_as(SH_COMM_LOSS);
  make_plan(&p);
  double loss = 0;
  for (int64_t tile = 0; tile < p.tiles; tile++) loss += tile_loss(&p, tile);
  sh_comm_as(outer);
  if (a->dhidden) {
    sh_normalise_rows_back(c->k, a->T, a->D, norm, eps, a->hidden, a->D, h_length, p.dh, ld, a->dhidden, a->D, false);
    rows_back(&p, own, e_length);
  }
  sh_arena_release(c->scratch, mark);
  return loss;
}
