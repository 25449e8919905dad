#include "nn/linear.h"

#include <omp.h>
#include <string.h>

#include "kernels/gemm.h"

int sh_max_threads(void) { return omp_get_max_threads(); }
int sh_thread(void) { return omp_get_thread_num(); }

/* Tokens in one pass of a weight-gradient tile, and in one independent partial sum. */
enum { PASS = 256, PARTIAL = 8192, MAX_PARTIALS = 16 };

/* Work = (partial sum over a token range) x (column tile); partials are added in order. */
void sh_linear_grad(const sh_ctx *c, int64_t T, int64_t K, int64_t N, const float *x, int64_t ldx, const float *dy,
                    int64_t lddy, float *dW, int64_t ldw) {
  int64_t parts = (T + PARTIAL - 1) / PARTIAL, width = N <= 256 ? 32 : 64;
  if (parts > MAX_PARTIALS) parts = MAX_PARTIALS;
  if (parts < 1) parts = 1;
  int64_t tiles = (N + width - 1) / width;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *partial = SH_ARENA_NEW(c->scratch, float, parts *K *N);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t p = 0; p < parts; p++)
    for (int64_t tile = 0; tile < tiles; tile++) {
      int64_t n0 = tile * width, n = N - n0 < width ? N - n0 : width, end = T * (p + 1) / parts;
      float *to = partial + p * K * N + n0;
      if (T == 0)
        for (int64_t k = 0; k < K; k++) memset(to + k * N, 0, sizeof(float) * (size_t)n);
      for (int64_t t = T * p / parts, first = t; t < end; t += PASS) {
        int64_t rows = end - t < PASS ? end - t : PASS;
        c->k->gemm_tn(K, n, rows, x + t * ldx, ldx, dy + t * lddy + n0, lddy, to, N, t > first);
      }
    }
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < K; k++)
    for (int64_t p = 0; p < parts; p++) c->k->axpy(N, 1.f, partial + (p * K + k) * N, dW + k * ldw);
  sh_arena_release(c->scratch, mark);
}

void sh_column_sums(const sh_ctx *c, int64_t T, int64_t N, const float *dy, int64_t lddy, float *sum) {
  int64_t parts = (T + 1023) / 1024;
  if (parts > 64) parts = 64;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *partial = SH_ARENA_ZNEW(c->scratch, float, parts *N);
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < parts; p++)
    for (int64_t t = T * p / parts; t < T * (p + 1) / parts; t++) c->k->axpy(N, 1.f, dy + t * lddy, partial + p * N);
  for (int64_t p = 0; p < parts; p++) c->k->axpy(N, 1.f, partial + p * N, sum);
  sh_arena_release(c->scratch, mark);
}

float *sh_transposed(const sh_ctx *c, int64_t K, int64_t N, const float *W, int64_t ldw) {
  float *t = SH_ARENA_NEW(c->scratch, float, K *N);
#pragma omp parallel for schedule(static)
  for (int64_t n = 0; n < N; n += 64) sh_transpose(K, N - n < 64 ? N - n : 64, W + n, ldw, t + n * K, K);
  return t;
}

void sh_drop_row(const sh_ctx *c, const sh_drop *d, int64_t token, int64_t first, int64_t n, const float *x, float *y) {
  if (d->threshold == 0) {
    if (x != y) memcpy(y, x, sizeof(float) * (size_t)n);
    return;
  }
  const sh_batch *b = c->batch;
  c->k->dropout(d, b->sample[b->sequence[token]], b->position[token], first, n, x, y);
}

int64_t sh_longest(const sh_batch *b) {
  int64_t longest = 0;
  for (int64_t i = 0; i < b->B; i++)
    if (b->offsets[i + 1] - b->offsets[i] > longest) longest = b->offsets[i + 1] - b->offsets[i];
  return longest;
}

int64_t sh_attention_room(const sh_batch *b, int64_t dqk, int64_t dv) {
  return (sh_attention_work(sh_longest(b), dqk, dv) + 15) / 16 * 16;
}

double sh_causal_pairs(const sh_batch *b) {
  double pairs = 0;
  for (int64_t i = 0; i < b->B; i++) {
    double n = b->offsets[i + 1] - b->offsets[i];
    pairs += n * (n + 1) / 2;
  }
  return pairs;
}

void sh_residual_back(const sh_layer *l, const sh_args *a, int64_t t0, int64_t rows, int64_t D) {
  float *dx = a->din[0] ? a->din[0] + t0 * D : NULL;
  const float *dout = a->dout[0] + t0 * D;
  if (!dx || (l->part > 0 && a->add[0])) return;
  for (int64_t k = 0; k < rows * D; k++) dx[k] = (a->add[0] ? dx[k] : 0) + (l->part == 0 ? dout[k] : 0);
}
