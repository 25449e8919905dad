#include "nn/linear.h"

#include <omp.h>
#include <string.h>

int sh_max_threads(void) { return omp_in_parallel() ? 1 : omp_get_max_threads(); }
int sh_thread(void) { return omp_get_thread_num(); }

/* Tokens in one pass of a weight gradient and least in one partial sum, entries of dW that one unit of work sums (half
 * of an L2 cache), most units. */
enum { PASS = 256, ENTRIES = 128 * 1024, UNITS = 64 };

/* Units of work = (partial sum over a token range) x (columns of dW); a function of the batch alone. */
typedef struct cut {
  int64_t parts, groups, width; /* columns in a group */
} cut;
static cut cut_of(int64_t T, int64_t K, int64_t N) {
  cut w = {.parts = (T + PASS - 1) / PASS, .width = ENTRIES / K / SH_PANEL * SH_PANEL};
  if (w.width < SH_PANEL) w.width = SH_PANEL;
  w.groups = (N + w.width - 1) / w.width;
  if (w.parts * w.groups > UNITS) w.parts = w.groups < UNITS ? UNITS / w.groups : 1;
  return w;
}

int64_t sh_linear_grad_floats(int64_t T, int64_t K, int64_t N) { return cut_of(T, K, N).parts * K * N; }

static int64_t pass_tokens(int64_t t, int64_t end) { return end - t < PASS ? end - t : PASS; }

/* dW += partials [parts x K x N], in order. */
static void add_partials(const sh_ctx *c, int64_t parts, int64_t K, int64_t N, const float *partial, float *dW,
                         int64_t ldw) {
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < K; k++)
    for (int64_t p = 0; p < parts; p++) c->k->axpy(N, 1.f, partial + (p * K + k) * N, dW + k * ldw);
}

void sh_linear_grad(const sh_ctx *c, int64_t T, int64_t K, int64_t N, const float *x, int64_t ldx, const float *dy,
                    int64_t lddy, float *dW, int64_t ldw) {
  if (T == 0 || K == 0) return;
  cut w = cut_of(T, K, N);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *partial = SH_ARENA_NEW(c->scratch, float, sh_linear_grad_floats(T, K, N));
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t p = 0; p < w.parts; p++)
    for (int64_t group = 0; group < w.groups; group++) {
      int64_t n0 = group * w.width, n = N - n0 < w.width ? N - n0 : w.width;
      int64_t first = T * p / w.parts, end = T * (p + 1) / w.parts;
      for (int64_t t = first; t < end; t += PASS) {
        sh_breathe();
        c->k->multiply_tn(K, n, pass_tokens(t, end), x + t * ldx, ldx, dy + t * lddy + n0, lddy,
                          partial + p * K * N + n0, N, t > first);
      }
    }
  add_partials(c, w.parts, K, N, partial, dW, ldw);
  sh_arena_release(c->scratch, mark);
}

/* All of dy, then its product. */
static void grad_of_whole(const sh_ctx *c, int64_t T, int64_t K, int64_t N, const float *x, int64_t ldx,
                          sh_rows_of *rows, void *of, float *dW, int64_t ldw) {
  float *dy = SH_ARENA_NEW(c->scratch, float, T *N);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(T); block++) {
    sh_breathe();
    rows(of, block * SH_TOKEN_BLOCK, sh_block_rows(T, block), dy + block * SH_TOKEN_BLOCK * N);
  }
  sh_linear_grad(c, T, K, N, x, ldx, dy, N, dW, ldw);
}

/* As sh_linear_grad cuts it, every pass of dy by the thread that multiplies it. */
static void grad_of_pieces(const sh_ctx *c, int64_t T, int64_t K, int64_t N, const float *x, int64_t ldx,
                           sh_rows_of *rows, void *of, float *dW, int64_t ldw) {
  cut w = cut_of(T, K, N);
  float *partial = SH_ARENA_NEW(c->scratch, float, sh_linear_grad_floats(T, K, N));
  bool whole = T <= PASS * sh_max_threads(); /* all of dy takes no more room than a piece a thread */
  float *room = SH_ARENA_NEW(c->scratch, float, N *(whole ? T : PASS * sh_max_threads()));
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t p = 0; p < w.parts; p++) {
    int64_t first = T * p / w.parts, end = T * (p + 1) / w.parts;
    for (int64_t t = first; t < end; t += PASS) {
      int64_t n = pass_tokens(t, end);
      float *dy = room + N * (whole ? t : PASS * sh_thread());
      for (int64_t r = 0; r < n; r += SH_TOKEN_BLOCK) {
        sh_breathe();
        rows(of, t + r, n - r < SH_TOKEN_BLOCK ? n - r : SH_TOKEN_BLOCK, dy + r * N);
      }
      c->k->multiply_tn(K, N, n, x + t * ldx, ldx, dy, N, partial + p * K * N, N, t > first);
    }
  }
  add_partials(c, w.parts, K, N, partial, dW, ldw);
}

void sh_linear_grad_of(const sh_ctx *c, int64_t T, int64_t K, int64_t N, const float *x, int64_t ldx, sh_rows_of *rows,
                       void *of, float *dW, int64_t ldw) {
  sh_arena_mark mark = sh_arena_save(c->scratch);
  bool pieces = T > 0 && K > 0 && cut_of(T, K, N).groups == 1;
  (pieces ? grad_of_pieces : grad_of_whole)(c, T, K, N, x, ldx, rows, of, dW, ldw);
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

sh_right sh_right_of(const sh_ctx *c, int64_t K, int64_t N, const float *W, int64_t ldw, bool transposed) {
  sh_right r = {.K = K, .N = N, .packed = SH_ARENA_NEW(c->scratch, float, c->k->right_room(K, N))};
#pragma omp parallel for schedule(static)
  for (int64_t n = 0; n < N; n += SH_PANEL)
    c->k->right_pack(&r, W, ldw, transposed, n, N - n < SH_PANEL ? N : n + SH_PANEL);
  return r;
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
