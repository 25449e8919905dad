/* nn/linear.h: what layers share: token blocks, weight gradients, column sums, dropout of rows.
 *
 * All cut the work by the batch alone and combine in block order: the number of threads never changes a bit.
 */
#ifndef SH_NN_LINEAR_H
#define SH_NN_LINEAR_H

#include "core/breathe.h"
#include "nn/layer.h"

enum { SH_TOKEN_BLOCK = 64 };

/* Blocks of at most SH_TOKEN_BLOCK rows: the unit of `omp for` over tokens. */
static inline int64_t sh_token_blocks(int64_t rows) { return (rows + SH_TOKEN_BLOCK - 1) / SH_TOKEN_BLOCK; }
static inline int64_t sh_block_rows(int64_t rows, int64_t block) {
  int64_t left = rows - block * SH_TOKEN_BLOCK;
  return left < SH_TOKEN_BLOCK ? left : SH_TOKEN_BLOCK;
}

/* dW[K x N] += x[T x K]^T dy[T x N]. Parallel inside; call it outside parallel regions. */
void sh_linear_grad(const sh_ctx *c, int64_t T, int64_t K, int64_t N, const float *x, int64_t ldx, const float *dy,
                    int64_t lddy, float *dW, int64_t ldw);

/* The same with dy in pieces: `rows` writes dy [n x N] of tokens t .. t+n-1, once for each token, from several threads
 * at a time. A small dW takes each piece while it is in the cache. */
typedef void sh_rows_of(void *of, int64_t t, int64_t n, float *dy);
void sh_linear_grad_of(const sh_ctx *c, int64_t T, int64_t K, int64_t N, const float *x, int64_t ldx, sh_rows_of *rows,
                       void *of, float *dW, int64_t ldw);

/* Floats of scratch that sh_linear_grad takes; sh_linear_grad_of takes at most T x N beside them. */
int64_t sh_linear_grad_floats(int64_t T, int64_t K, int64_t N);

/* sum[N] += column sums of dy[T x N]. Parallel inside. */
void sh_column_sums(const sh_ctx *c, int64_t T, int64_t N, const float *dy, int64_t lddy, float *sum);

/* The right-hand operand B [K x N] of c->k->multiply, in the scratch arena: W, or W^T (W is then [N x K]). Parallel
 * inside: prepare it once a call, before the loop over token blocks. */
sh_right sh_right_of(const sh_ctx *c, int64_t K, int64_t N, const float *W, int64_t ldw, bool transposed);

/* x[n] copied from `row` of token t, or its last-only image: the token an output row belongs to. */
static inline int64_t sh_row_token(const sh_args *a, int64_t row) { return a->row_token ? a->row_token[row] : row; }

/* The dropout of a purpose in this layer; threshold 0 outside training. */
static inline sh_drop sh_layer_drop(const sh_layer *l, const sh_ctx *c, uint32_t purpose, double p) {
  if (!c->train || p <= 0) return (sh_drop){.scale = 1};
  return (sh_drop){.seed = c->seed,
                   .site = ((uint32_t)purpose << 16) | l->site,
                   .when = c->when,
                   .threshold = (uint32_t)(p * 4294967296.0),
                   .scale = (float)(1.0 / (1.0 - p))};
}

/* y[n] = dropout of token t's elements first .. first+n-1; a copy when nothing drops. x may be y. */
void sh_drop_row(const sh_ctx *c, const sh_drop *d, int64_t token, int64_t first, int64_t n, const float *x, float *y);

/* Whether a tape holds normalised rows, as wide as the model. On a split axis they would be the largest part of it, so
 * backward makes them again from the call's input. */
static inline bool sh_keeps_norm(const sh_layer *l) { return l->parts == 1; }

/* Tokens of the longest sequence. */
int64_t sh_longest(const sh_batch *b);

/* Floats of attention workspace for one thread and any sequence of the batch. */
int64_t sh_attention_room(const sh_batch *b, int64_t dqk, int64_t dv);

/* Pairs (i, j), j <= i, over all sequences: what attention costs. */
double sh_causal_pairs(const sh_batch *b);

/* The residual's share of din[0], rows t0 .. t0+rows-1 of width D: part 0 takes dout[0], other parts nothing. */
void sh_residual_back(const sh_layer *l, const sh_args *a, int64_t t0, int64_t rows, int64_t D);

int sh_max_threads(void);
int sh_thread(void);

#endif
