/* Sampled softmax with negatives of each token's own. One sweep over tokens makes logits, loss, hidden gradients and the
 * coefficient of every (token, candidate) pair; a second sweep over rows sums coefficient * hidden state in reference
 * order, so rows get their gradients without locks. Nothing of size T x R x D exists. */
#include <math.h>

#include "core/csr.h"
#include "nn/linear.h"
#include "nn/loss.h"
#include "nn/loss_rows.h"

/* Coefficients d loss / d logit (times 1 / temperature and scale) of one token over its 1 + R candidates; returns its
 * loss. slot[0] is the positive. */
static double token_loss(const sh_kernels *k, int64_t width, int64_t n, const float *h, const float *rows, int64_t ld,
                         const int32_t *slot, double temperature, double scale, float *coef) {
  float inv = (float)(1.0 / temperature), top;
  k->gather_dots(n, width, h, rows, ld, slot, coef);
  for (int64_t j = 0; j < n; j++) coef[j] *= inv;
  for (int64_t j = 1; j < n; j++)
    if (slot[j] == slot[0]) coef[j] = -5e4f;
  float positive = coef[0], sum = k->softmax(n, coef, &top);
  double loss = (double)top + log((double)sum) - (double)positive;
  float factor = (float)(scale / temperature);
  for (int64_t j = 0; j < n; j++) coef[j] *= factor;
  coef[0] -= factor;
  return loss;
}

double sh_loss_sampled(const sh_loss_args *a, const sh_ctx *c) {
  const sh_rows *rows = a->rows;
  int64_t T = a->T, n = a->R + 1, ld = rows->ld, U = rows->nslots, blocks = sh_token_blocks(T);
  bool norm = a->conf->l2_norm;
  float eps = (float)a->conf->l2_eps;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *h = SH_ARENA_NEW(c->scratch, float, T * ld), *h_length = SH_ARENA_NEW(c->scratch, float, T);
  float *e = SH_ARENA_NEW(c->scratch, float, U * ld), *e_length = SH_ARENA_NEW(c->scratch, float, U);
  float *coef = SH_ARENA_NEW(c->scratch, float, T * n), *dh = SH_ARENA_NEW(c->scratch, float, T * ld);
  const int32_t *slot = a->reference;
  double *part = SH_ARENA_NEW(c->scratch, double, blocks);
  sh_normalise_rows(T, a->D, norm, eps, a->hidden, a->D, h, ld, h_length);
  sh_normalise_rows(U, a->D, norm, eps, rows->value, ld, e, ld, e_length);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; block++) {
    double sum = 0;
    for (int64_t t = block * SH_TOKEN_BLOCK, end = t + sh_block_rows(T, block); t < end; t++) {
      sum += token_loss(c->k, ld, n, h + t * ld, e, ld, slot + t * n, a->conf->temperature, a->scale, coef + t * n);
      if (a->dhidden) c->k->gather_sum(n, ld, coef + t * n, e, ld, slot + t * n, dh + t * ld);
    }
    part[block] = sum;
  }
  double loss = 0;
  for (int64_t block = 0; block < blocks; block++) loss += part[block];
  if (a->dhidden) {
    sh_normalise_rows_back(T, a->D, norm, eps, h, ld, h_length, dh, ld, a->dhidden, a->D, false);
    sh_csr by_row;
    sh_csr_build(&by_row, T * n, slot, U, c->scratch);
    float *de = SH_ARENA_NEW(c->scratch, float, U * ld);
#pragma omp parallel for schedule(dynamic, 64)
    for (int64_t r = 0; r < U; r++) {
      int64_t first = by_row.start[r], count = by_row.start[r + 1] - first;
      c->k->pair_sum(count, ld, coef, by_row.item + first, (int32_t)n, h, ld, de + r * ld);
    }
    sh_normalise_rows_back(U, a->D, norm, eps, e, ld, e_length, de, ld, rows->grad, ld, true);
  }
  sh_arena_release(c->scratch, mark);
  return loss;
}
