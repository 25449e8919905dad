/* First half of the SASRec block: norm of the query, projections, softmax attention (nn/sasrec.h has the formulas). */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"
#include "nn/linear.h"
#include "nn/pieces.h"
#include "nn/sasrec.h"

enum { QKV_WEIGHT, QKV_BIAS, O_WEIGHT, O_BIAS };

static int64_t head_width(const sh_sasrec_conf *f) { return f->D / f->H; }
static int64_t local_heads(const sh_layer *l) { return ((const sh_sasrec_conf *)l->conf)->H / l->parts; }
static int64_t local_width(const sh_layer *l) { return local_heads(l) * head_width(l->conf); }

static void params(sh_layer *l, sh_params *p) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D, H = f->H, d = head_width(f);
  assert(D % H == 0);
  sh_param w = {.ndim = 2,
                .dim = {D, 3 * D},
                .split = 1,
                .nseg = 3,
                .seg = {{0, H, d}, {D, H, d}, {2 * D, H, d}},
                .tgrad = SH_TGRAD_SPLIT,
                .grain = SH_GRAIN_MATRIX,
                .init = {.kind = SH_INIT_NORMAL, .a = sqrt(2.0 / (4.0 * (double)D))},
                .decay = true,
                .tie = -1};
  snprintf(w.name, sizeof w.name, "%s.qkv_weight", l->name);
  l->param[QKV_WEIGHT] = sh_params_add(p, &w);
  sh_param b = w;
  b.ndim = 1, b.dim[0] = 3 * D, b.split = 0, b.grain = SH_GRAIN_ELEMENT, b.init = (sh_init){SH_INIT_ZERO, 0, 0};
  snprintf(b.name, sizeof b.name, "%s.qkv_bias", l->name);
  l->param[QKV_BIAS] = sh_params_add(p, &b);
  w.dim[1] = D, w.split = 0, w.nseg = 1, w.init.a = sqrt(2.0 / (2.0 * (double)D));
  snprintf(w.name, sizeof w.name, "%s.o_weight", l->name);
  l->param[O_WEIGHT] = sh_params_add(p, &w);
  b.dim[0] = D, b.split = -1, b.nseg = 0, b.tgrad = SH_TGRAD_SAME;
  snprintf(b.name, sizeof b.name, "%s.o_bias", l->name);
  l->param[O_BIAS] = sh_params_add(p, &b);
}

/* Tape, W = local width: Q [R x D] if sh_keeps_norm, rstd [R], q [R x W], [k|v] [T x 2W], attended values m [R x W]. */
typedef struct tape_view {
  float *Q, *rstd, *q, *kv, *m;
} tape_view;
static tape_view view(const sh_layer *l, int64_t T, int64_t R, float *tape) {
  const sh_sasrec_conf *f = l->conf;
  int64_t W = local_width(l);
  tape_view v = {.Q = sh_keeps_norm(l) ? tape : NULL};
  v.rstd = tape + (v.Q ? R * f->D : 0);
  v.q = v.rstd + (R + 15) / 16 * 16;
  v.kv = v.q + R * W;
  v.m = v.kv + T * 2 * W;
  return v;
}
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  const sh_sasrec_conf *f = l->conf;
  return (sh_keeps_norm(l) ? T * f->D : 0) + (T + 15) / 16 * 16 + 4 * T * local_width(l);
}

/* out[rows x N] = bias + x[rows x K] W. */
static void affine(const sh_ctx *c, int64_t rows, const float *x, const sh_right *W, const float *bias, float *out) {
  for (int64_t i = 0; i < rows; i++) memcpy(out + i * W->N, bias, sizeof(float) * (size_t)W->N);
  c->k->multiply(rows, x, W->K, W, out, W->N, true);
}

/* Q of a block of output rows. */
static void norm_rows(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, int64_t r0, int64_t rows) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D;
  if (!a->row_token)
    c->k->layernorm(rows, D, f->eps, a->in[0] + r0 * D, D, v.Q + r0 * D, D, v.rstd + r0);
  else
    for (int64_t r = r0; r < r0 + rows; r++)
      c->k->layernorm(1, D, f->eps, a->in[0] + a->row_token[r] * D, D, v.Q + r * D, D, v.rstd + r);
}

/* Norm and projections: q for output rows (last-only inference reads one row a sequence), k and v for every token. */
static void project(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v) {
  int64_t D = ((const sh_sasrec_conf *)l->conf)->D, W = local_width(l);
  const float *w = sh_param_value(c->params, l->param[QKV_WEIGHT]), *b = sh_param_value(c->params, l->param[QKV_BIAS]);
  sh_right wq = sh_right_of(c, D, W, w, 3 * W, false), wkv = sh_right_of(c, D, 2 * W, w + W, 3 * W, false);
#pragma omp parallel
  {
#pragma omp for schedule(static) nowait
    for (int64_t block = 0; block < sh_token_blocks(a->R); block++) {
      int64_t r0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(a->R, block);
      norm_rows(l, c, a, v, r0, rows);
      affine(c, rows, v.Q + r0 * D, &wq, b, v.q + r0 * W);
    }
#pragma omp for schedule(static)
    for (int64_t block = 0; block < sh_token_blocks(a->T); block++) {
      int64_t t0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(a->T, block);
      affine(c, rows, a->in[0] + t0 * D, &wkv, b + W, v.kv + t0 * 2 * W);
    }
  }
}

static int64_t work_of(const sh_layer *l, const sh_batch *b) {
  int64_t d = head_width(l->conf);
  return sh_attention_room(b, d, d);
}

/* What forward and backward read of one sequence and head. */
static sh_heads_io head_of(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, int64_t i, int64_t h) {
  int64_t d = head_width(l->conf), W = local_width(l), t = c->batch->offsets[i], row = a->row_token ? i : t;
  return (sh_heads_io){.dqk = (int)d,
                       .dv = (int)d,
                       .ldq = (int)W,
                       .ldkv = (int)(2 * W),
                       .ldout = (int)W,
                       .q = v.q + row * W + h * d,
                       .k = v.kv + t * 2 * W + h * d,
                       .v = v.kv + t * 2 * W + W + h * d,
                       .out = v.m + row * W + h * d};
}

static int64_t first_element(const sh_layer *l, int64_t h) {
  return (l->part * local_heads(l) + h) * ((const sh_sasrec_conf *)l->conf)->N;
}

static void attend(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v) {
  const sh_sasrec_conf *f = l->conf;
  const sh_batch *b = c->batch;
  int64_t work = work_of(l, b), heads = local_heads(l);
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  float scale = 1.f / sqrtf((float)head_width(f));
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_ATTN, f->attention_dropout);
  sh_pieces pieces = sh_pieces_of(c, heads, a->row_token);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t p = 0; p < pieces.n; p++)
    for (int64_t h = 0; h < heads; h++) {
      sh_breathe();
      int64_t i = pieces.piece[p].sequence;
      sh_heads_io io = head_of(l, c, a, v, i, h);
      sh_piece_io(&pieces.piece[p], &io);
      c->k->softmax_attention(&io, scale, &dropout, b->sample[i], first_element(l, h), works + work * sh_thread());
    }
}

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D, W = local_width(l);
  const float *w = sh_param_value(c->params, l->param[O_WEIGHT]), *bias = sh_param_value(c->params, l->param[O_BIAS]);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  tape_view v = view(l, a->T, a->R, a->tape ? a->tape : SH_ARENA_NEW(c->scratch, float, tape(l, a->T, 0)));
  if (!v.Q) v.Q = SH_ARENA_NEW(c->scratch, float, a->R *D);
  project(l, c, a, v);
  attend(l, c, a, v);
  sh_right right = sh_right_of(c, W, D, w, D, false);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(a->R); block++) {
    int64_t r0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(a->R, block);
    float *out = a->out[0] + r0 * D;
    const float *Q = v.Q + r0 * D;
    for (int64_t i = 0; i < rows && l->part == 0; i++)
      for (int64_t k = 0; k < D; k++) out[i * D + k] = Q[i * D + k] + bias[k];
    c->k->multiply(rows, v.m + r0 * W, W, &right, out, D, l->part == 0);
  }
  sh_arena_release(c->scratch, mark);
}

/* dq [T x W] and [dk|dv] [T x 2W] from dm [T x W]. */
static void attend_back(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, const float *dm, float *dq,
                        float *dkv) {
  const sh_sasrec_conf *f = l->conf;
  const sh_batch *b = c->batch;
  int64_t work = work_of(l, b), heads = local_heads(l), d = head_width(f), W = local_width(l);
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  float scale = 1.f / sqrtf((float)d);
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_ATTN, f->attention_dropout);
  sh_pieces pieces = sh_pieces_of(c, heads, false);
  float *surplus = SH_ARENA_NEW(c->scratch, float, pieces.surplus * 2 * W); /* laid out as dkv */
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t p = 0; p < pieces.n; p++)
    for (int64_t h = 0; h < heads; h++) {
      sh_breathe();
      const sh_piece *piece = &pieces.piece[p];
      int64_t i = piece->sequence, t = b->offsets[i];
      sh_heads_io io = head_of(l, c, a, v, i, h);
      io.dout = dm + t * W + h * d;
      io.dq = dq + t * W + h * d;
      io.dk = (piece->surplus < 0 ? dkv + t * 2 * W : surplus + piece->surplus * 2 * W) + h * d;
      io.dv_ = io.dk + W;
      sh_piece_io(piece, &io);
      c->k->softmax_attention_back(&io, scale, &dropout, b->sample[i], first_element(l, h), works + work * sh_thread());
    }
  sh_pieces_add(c, &pieces, surplus, 2 * W, 0, 2 * W, dkv);
}

/* dx through the norm (dQ = dq Wq^T, and dh on part 0) and through keys and values. */
static void input_back(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, const float *dq,
                       const float *dkv) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D, W = local_width(l);
  const float *w = sh_param_value(c->params, l->param[QKV_WEIGHT]);
  sh_right wq = sh_right_of(c, W, D, w, 3 * W, true), wkv = sh_right_of(c, 2 * W, D, w + W, 3 * W, true);
  float *blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *D *sh_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(a->T); block++) {
    int64_t t0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(a->T, block);
    float *dQ = blocks + SH_TOKEN_BLOCK * D * sh_thread(), *dx = a->din[0] + t0 * D;
    if (l->part == 0) memcpy(dQ, a->dout[0] + t0 * D, sizeof(float) * (size_t)(rows * D));
    c->k->multiply(rows, dq + t0 * W, W, &wq, dQ, D, l->part == 0);
    c->k->layernorm_back(rows, D, v.Q + t0 * D, D, v.rstd + t0, dQ, D, dx, D, a->add[0]);
    c->k->multiply(rows, dkv + t0 * 2 * W, 2 * W, &wkv, dx, D, true);
  }
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D, W = local_width(l), T = a->T;
  tape_view v = view(l, T, T, a->tape);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *dm = SH_ARENA_NEW(c->scratch, float, T *W), *dq = SH_ARENA_NEW(c->scratch, float, T *W);
  float *dkv = SH_ARENA_NEW(c->scratch, float, T * 2 * W);
  bool again = !v.Q;
  if (again) v.Q = SH_ARENA_NEW(c->scratch, float, T *D);
  sh_right wt = sh_right_of(c, D, W, sh_param_value(c->params, l->param[O_WEIGHT]), D, true);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(T); block++) {
    int64_t t0 = block * SH_TOKEN_BLOCK;
    if (again) norm_rows(l, c, a, v, t0, sh_block_rows(T, block));
    c->k->multiply(sh_block_rows(T, block), a->dout[0] + t0 * D, D, &wt, dm + t0 * W, W, false);
  }
  attend_back(l, c, a, v, dm, dq, dkv);
  if (a->din[0]) input_back(l, c, a, v, dq, dkv);
  float *dw = sh_param_grad(c->params, l->param[QKV_WEIGHT]), *db = sh_param_grad(c->params, l->param[QKV_BIAS]);
  sh_linear_grad(c, T, D, W, v.Q, D, dq, W, dw, 3 * W);
  sh_linear_grad(c, T, D, 2 * W, a->in[0], D, dkv, 2 * W, dw + W, 3 * W);
  sh_column_sums(c, T, W, dq, W, db);
  sh_column_sums(c, T, 2 * W, dkv, 2 * W, db + W);
  sh_linear_grad(c, T, W, D, v.m, W, a->dout[0], D, sh_param_grad(c->params, l->param[O_WEIGHT]), D);
  sh_column_sums(c, T, D, a->dout[0], D, sh_param_grad(c->params, l->param[O_BIAS]));
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_sasrec_conf *f = l->conf;
  double pairs = sh_causal_pairs(b), W = (double)local_width(l);
  *linear = 2.0 * (double)b->T * f->D * 4 * W;
  *attention = 2.0 * pairs * 2 * W;
}

const sh_layer_ops sh_sasrec_attention_ops = {.name = "sasrec_attention",
                                              .conf_bytes = sizeof(sh_sasrec_conf),
                                              .params = params,
                                              .tape = tape,
                                              .forward = forward,
                                              .backward = backward,
                                              .flops = flops,
                                              .supports_last_only = true};
