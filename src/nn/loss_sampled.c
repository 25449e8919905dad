/* Sampled softmax with negatives of each token's own, tile by tile of tokens. One sweep over a tile's tokens makes
 * logits, loss, hidden gradients and the coefficient of every (token, candidate) pair; a second, over rows, sums
 * coefficient * hidden state in pair order, so rows get their gradients without locks. Nothing of size T x R x D
 * exists. */
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

/* Tokens whose pairs are sorted and summed together: few enough that their hidden states stay in a core's cache, enough
 * that sorting by row costs less than the pairs. */
static int64_t tile_tokens(int64_t candidates, int64_t rows) {
  int64_t tile = 2048;
  while (tile * candidates < 4 * rows && tile < (1 << 20)) tile *= 2;
  return tile;
}

/* Logits, loss, coefficients and hidden gradients of tokens t0 .. t0+n-1; returns the sum of losses. */
static double score_tile(const sh_loss_args *a, const sh_ctx *c, int64_t t0, int64_t n, const float *h, const float *e,
                         float *coef, float *dh) {
  int64_t m = a->R + 1, ld = a->rows->ld, blocks = sh_token_blocks(n);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  double *part = SH_ARENA_NEW(c->scratch, double, blocks), loss = 0;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; block++) {
    double sum = 0;
    for (int64_t i = block * SH_TOKEN_BLOCK, end = i + sh_block_rows(n, block); i < end; i++) {
      const int32_t *slot = a->reference + (t0 + i) * m;
      sum += token_loss(c->k, ld, m, h + (t0 + i) * ld, e, ld, slot, a->conf->temperature, a->scale, coef + i * m);
      if (dh) c->k->gather_sum(m, ld, coef + i * m, e, ld, slot, dh + (t0 + i) * ld);
    }
    part[block] = sum;
  }
  for (int64_t block = 0; block < blocks; block++) loss += part[block];
  sh_arena_release(c->scratch, mark);
  return loss;
}

/* de[row] += sum of coefficient * hidden state over the tile's pairs, in pair order. */
static void sum_tile(const sh_loss_args *a, const sh_ctx *c, int64_t t0, int64_t n, const float *h, const float *coef,
                     float *de) {
  int64_t m = a->R + 1, ld = a->rows->ld;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  sh_csr by_row;
  sh_csr_build(&by_row, n * m, a->reference + t0 * m, a->rows->nslots, c->scratch);
#pragma omp parallel for schedule(dynamic, 64)
  for (int64_t r = 0; r < by_row.rows; r++) {
    int64_t first = by_row.start[r], count = by_row.start[r + 1] - first;
    if (count > 0) c->k->pair_sum(count, ld, coef, by_row.item + first, (int32_t)m, h + t0 * ld, ld, de + r * ld);
  }
  sh_arena_release(c->scratch, mark);
}

double sh_loss_sampled(const sh_loss_args *a, const sh_ctx *c) {
  const sh_rows *rows = a->rows;
  int64_t T = a->T, ld = rows->ld, U = rows->nslots, tile = tile_tokens(a->R + 1, U);
  bool norm = a->conf->l2_norm;
  float eps = (float)a->conf->l2_eps;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *h = SH_ARENA_NEW(c->scratch, float, T *ld), *h_length = SH_ARENA_NEW(c->scratch, float, T);
  float *e = SH_ARENA_NEW(c->scratch, float, U *ld), *e_length = SH_ARENA_NEW(c->scratch, float, U);
  float *coef = SH_ARENA_NEW(c->scratch, float, (T < tile ? T : tile) * (a->R + 1));
  float *dh = NULL, *de = NULL;
  if (a->dhidden) {
    dh = SH_ARENA_NEW(c->scratch, float, T *ld);
    de = SH_ARENA_ZNEW(c->scratch, float, U *ld);
  }
  sh_normalise_rows(T, a->D, norm, eps, a->hidden, a->D, h, ld, h_length);
  sh_normalise_rows(U, a->D, norm, eps, rows->value, ld, e, ld, e_length);
  double loss = 0;
  for (int64_t t = 0; t < T; t += tile) {
    int64_t n = T - t < tile ? T - t : tile;
    loss += score_tile(a, c, t, n, h, e, coef, dh);
    if (de) sum_tile(a, c, t, n, h, coef, de);
  }
  if (a->dhidden) {
    sh_normalise_rows_back(T, a->D, norm, eps, h, ld, h_length, dh, ld, a->dhidden, a->D, false);
    sh_normalise_rows_back(U, a->D, norm, eps, e, ld, e_length, de, ld, rows->grad, ld, true);
  }
  sh_arena_release(c->scratch, mark);
  return loss;
}
