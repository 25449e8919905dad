/* Softmax over one set of negatives for all tokens. Negatives repeat (in-batch ones very much): equal slots are one
 * candidate, whose shift is -log of the sum of exp(-correction) over its places in the set, and a token collides with
 * at most one. The tiles are nn/softmax_tiles.h; the positive, one a token, stands outside them. */
#include <math.h>
#include <string.h>

#include "core/csr.h"
#include "nn/linear.h"
#include "nn/loss.h"
#include "nn/loss_rows.h"
#include "nn/softmax_tiles.h"

/* The distinct negatives: of[slot] = candidate or -1; rows and shift of each. */
typedef struct candidates {
  int64_t n;
  int32_t *of, *slot;
  float *e, *shift;
} candidates;

static double log_weight(const sh_loss_args *a, const int32_t *place, int64_t count) {
  if (!a->correction) return log((double)count);
  float least = a->correction[place[0]];
  for (int64_t i = 1; i < count; i++) least = a->correction[place[i]] < least ? a->correction[place[i]] : least;
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += exp((double)least - (double)a->correction[place[i]]);
  return log(sum) - (double)least;
}

static candidates distinct(const sh_loss_args *a, const sh_ctx *c, const float *e) {
  int64_t U = a->rows->nslots, ld = a->rows->ld;
  sh_csr by_slot;
  sh_csr_build(&by_slot, a->R, a->negative, U, c->scratch);
  candidates d = {.of = SH_ARENA_NEW(c->scratch, int32_t, U), .slot = SH_ARENA_NEW(c->scratch, int32_t, a->R)};
  for (int32_t u = 0; u < U; u++) {
    d.of[u] = by_slot.start[u + 1] > by_slot.start[u] ? (int32_t)d.n : -1;
    if (d.of[u] >= 0) d.slot[d.n++] = u;
  }
  d.e = SH_ARENA_NEW(c->scratch, float, d.n *ld);
  d.shift = SH_ARENA_NEW(c->scratch, float, d.n);
#pragma omp parallel for schedule(static)
  for (int64_t v = 0; v < d.n; v++) {
    int64_t u = d.slot[v], first = by_slot.start[u];
    d.shift[v] = (float)-log_weight(a, by_slot.item + first, by_slot.start[u + 1] - first);
    for (int64_t k = 0; k < ld; k++) d.e[v * ld + k] = e[u * ld + k];
  }
  return d;
}

/* Gradients of rows: of each slot as a negative, then as a target, by token. */
static void rows_back(const sh_loss_args *a, const sh_ctx *c, const candidates *d, const float *h,
                      const float *e_length, const float *coef, const float *de_negative) {
  int64_t U = a->rows->nslots, ld = a->rows->ld;
  sh_csr by_target;
  sh_csr_build(&by_target, a->T, a->reference, U, c->scratch);
  float *de = SH_ARENA_NEW(c->scratch, float, U *ld);
#pragma omp parallel for schedule(dynamic, SH_TOKEN_BLOCK)
  for (int64_t u = 0; u < U; u++) {
    if (u % SH_TOKEN_BLOCK == 0) sh_breathe();
    if (d->of[u] >= 0)
      memcpy(de + u * ld, de_negative + d->of[u] * ld, sizeof *de * (size_t)ld);
    else
      memset(de + u * ld, 0, sizeof *de * (size_t)ld);
    for (int32_t q = by_target.start[u]; q < by_target.start[u + 1]; q++)
      c->k->axpy(ld, coef[by_target.item[q]], h + by_target.item[q] * ld, de + u * ld);
  }
  sh_normalise_rows_back(c->k, U, a->D, a->conf->l2_norm, (float)a->conf->l2_eps, a->rows->value, ld, e_length, de, ld,
                         a->rows->grad, ld, true);
}

/* The sum of losses, and log-sum-exp of each token. */
static double sum_losses(const sh_ctx *c, int64_t T, const float *positive, const float *top, const double *sum,
                         float *lse) {
  int64_t blocks = sh_token_blocks(T);
  double *part = SH_ARENA_ZNEW(c->scratch, double, blocks), loss = 0;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t t = block * SH_TOKEN_BLOCK, end = t + sh_block_rows(T, block); t < end; t++) {
      double exact = sh_softmax_lse(top[t], sum[t]);
      part[block] += exact - (double)positive[t];
      lse[t] = (float)exact;
    }
  for (int64_t block = 0; block < blocks; block++) loss += part[block];
  return loss;
}

/* Adds the targets to dh and de, the gradients through the negatives, and hands both on. positive[T] holds the logits
 * of targets and becomes their coefficients. */
static void backward(const sh_loss_args *a, const sh_ctx *c, const candidates *d, const float *h, const float *h_length,
                     const float *e, const float *e_length, const float *lse, float factor, float *positive, float *dh,
                     const float *de) {
  int64_t T = a->T, ld = a->rows->ld;
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++) {
    positive[t] = factor * (float)expm1((double)positive[t] - (double)lse[t]);
    c->k->axpy(ld, positive[t], e + a->reference[t] * ld, dh + t * ld);
  }
  sh_normalise_rows_back(c->k, T, a->D, a->conf->l2_norm, (float)a->conf->l2_eps, a->hidden, a->D, h_length, dh, ld,
                         a->dhidden, a->D, false);
  rows_back(a, c, d, h, e_length, positive, de);
}

double sh_loss_shared(const sh_loss_args *a, const sh_ctx *c) {
  const sh_rows *rows = a->rows;
  int64_t T = a->T, ld = rows->ld, U = rows->nslots;
  bool norm = a->conf->l2_norm;
  float eps = (float)a->conf->l2_eps, scale = (float)(1.0 / a->conf->temperature);
  float factor = (float)(a->scale / a->conf->temperature);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *h = SH_ARENA_NEW(c->scratch, float, T *ld), *h_length = SH_ARENA_NEW(c->scratch, float, T);
  float *e = SH_ARENA_NEW(c->scratch, float, U *ld), *e_length = SH_ARENA_NEW(c->scratch, float, U);
  sh_normalise_rows(c->k, T, a->D, norm, eps, a->hidden, a->D, h, ld, h_length);
  sh_normalise_rows(c->k, U, a->D, norm, eps, rows->value, ld, e, ld, e_length);
  candidates d = distinct(a, c, e);
  sh_softmax s = {
      .k = c->k, .width = a->D, .ld = ld, .n = d.n, .e = d.e, .shift = d.shift, .scale = scale, .masked = true};
  sh_softmax_pack(&s, c->scratch);
  int32_t *match = SH_ARENA_NEW(c->scratch, int32_t, T);
  float *positive = SH_ARENA_NEW(c->scratch, float, T), *top = SH_ARENA_NEW(c->scratch, float, T);
  float *lse = SH_ARENA_NEW(c->scratch, float, T), *dh = NULL, *de = NULL;
  double *sum = SH_ARENA_NEW(c->scratch, double, T);
  if (a->dhidden) {
    dh = SH_ARENA_NEW(c->scratch, float, T *ld);
    de = SH_ARENA_ZNEW(c->scratch, float, d.n *ld);
  }
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++) {
    positive[t] = scale * c->k->dot(ld, h + t * ld, e + a->reference[t] * ld);
    if (a->positive_correction) positive[t] -= a->positive_correction[t];
    match[t] = d.of[a->reference[t]];
    top[t] = positive[t], sum[t] = 1;
  }
  bool once = dh && sh_softmax_keeps(&s);
  if (once)
    sh_softmax_once(&s, T, h, match, top, sum, lse, factor, dh, de, c->scratch);
  else
    sh_softmax_scan(&s, T, h, match, top, sum, NULL);
  double loss = sum_losses(c, T, positive, top, sum, lse);
  if (dh && !once) sh_softmax_back(&s, T, h, match, lse, factor, dh, de, c->scratch);
  if (dh) backward(a, c, &d, h, h_length, e, e_length, lse, factor, positive, dh, de);
  sh_arena_release(c->scratch, mark);
  return loss;
}
