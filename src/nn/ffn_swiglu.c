/* Third part of the FuXi block, the gated feed-forward network: g = drop(RMS(o)); x' = o + (silu(g W1) * (g W3)) W2.
 * Reads rows one by one, so its input has as many rows as its output, also in last-only inference. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"
#include "nn/fuxi.h"
#include "nn/linear.h"

enum { W1, W2, W3 };

/* Hidden columns of this part. */
static int64_t hidden(const sh_layer *l) {
  const sh_swiglu_conf *f = l->conf;
  return f->F / l->parts;
}

static void params(sh_layer *l, sh_params *p) {
  const sh_swiglu_conf *f = l->conf;
  static const char *const names[] = {"lin1_weight", "lin2_weight", "lin3_weight"};
  double limit = sqrt(6.0 / (double)(f->D + f->F));
  for (int i = W1; i <= W3; i++) {
    sh_param w = {.ndim = 2,
                  .dim = {i == W2 ? f->F : f->D, i == W2 ? f->D : f->F},
                  .split = i == W2 ? 0 : 1,
                  .nseg = 1,
                  .seg = {{0, f->F, 1}},
                  .tgrad = SH_TGRAD_SPLIT,
                  .grain = SH_GRAIN_MATRIX,
                  .init = {SH_INIT_UNIFORM, -limit, limit},
                  .decay = true,
                  .tie = -1};
    snprintf(w.name, sizeof w.name, "%s.%s", l->name, names[i]);
    l->param[i] = sh_params_add(p, &w);
  }
}

/* Tape: norm [T x D] and g = drop(norm) [T x D] if sh_keeps_norm, rstd [T], h1 = g W1 and h3 = g W3 [T x F]. */
typedef struct tape_view {
  float *norm, *g, *rstd, *h1, *h3;
} tape_view;
static tape_view view(const sh_layer *l, int64_t T, float *tape) {
  const sh_swiglu_conf *f = l->conf;
  tape_view v = {.rstd = tape};
  if (sh_keeps_norm(l)) v.norm = tape, v.g = v.norm + T * f->D, v.rstd = v.g + T * f->D;
  v.h1 = v.rstd + (T + 15) / 16 * 16;
  v.h3 = v.h1 + T * hidden(l);
  return v;
}
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  const sh_swiglu_conf *f = l->conf;
  return (sh_keeps_norm(l) ? 2 * T * f->D : 0) + (T + 15) / 16 * 16 + 2 * T * hidden(l);
}

static void take_rows(const sh_ctx *c, int64_t floats, tape_view *v) {
  v->norm = SH_ARENA_NEW(c->scratch, float, floats), v->g = SH_ARENA_NEW(c->scratch, float, floats);
}

/* norm and g of a block of rows. */
static void norm_rows(const sh_layer *l, const sh_ctx *c, const sh_args *a, const sh_drop *dropout, tape_view v,
                      int64_t r0, int64_t rows) {
  const sh_swiglu_conf *f = l->conf;
  int64_t D = f->D;
  c->k->rmsnorm(rows, D, f->eps, a->in[0] + r0 * D, D, v.norm + r0 * D, D, v.rstd + r0);
  for (int64_t r = r0; r < r0 + rows; r++) sh_drop_row(c, dropout, r, 0, D, v.norm + r * D, v.g + r * D);
}

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_swiglu_conf *f = l->conf;
  int64_t D = f->D, F = hidden(l), R = a->R;
  const float *w1 = sh_param_value(c->params, l->param[W1]), *w2 = sh_param_value(c->params, l->param[W2]);
  const float *w3 = sh_param_value(c->params, l->param[W3]);
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_FFN, f->dropout);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  tape_view v = view(l, R, a->tape ? a->tape : SH_ARENA_NEW(c->scratch, float, tape(l, R, 0)));
  if (!v.norm) take_rows(c, R * D, &v);
  float *blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *F *sh_max_threads());
  sh_right right1 = sh_right_of(c, D, F, w1, F, false), right3 = sh_right_of(c, D, F, w3, F, false);
  sh_right right2 = sh_right_of(c, F, D, w2, D, false);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(R); block++) {
    sh_breathe();
    int64_t r0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(R, block);
    float *h = blocks + SH_TOKEN_BLOCK * F * sh_thread(), *h1 = v.h1 + r0 * F, *h3 = v.h3 + r0 * F;
    float *g = v.g + r0 * D, *out = a->out[0] + r0 * D;
    norm_rows(l, c, a, &dropout, v, r0, rows);
    c->k->multiply(rows, g, D, &right1, h1, F, false);
    c->k->multiply(rows, g, D, &right3, h3, F, false);
    c->k->silu(rows * F, h1, h);
    for (int64_t k = 0; k < rows * F; k++) h[k] *= h3[k];
    if (l->part == 0)
      memcpy(out, a->in[0] + r0 * D, sizeof(float) * (size_t)(rows * D));
    else
      memset(out, 0, sizeof(float) * (size_t)(rows * D));
    c->k->multiply(rows, h, F, &right2, out, D, true);
  }
  sh_arena_release(c->scratch, mark);
}

/* Gradient of the hidden rows dh -> of g W1 and g W3; h returns silu(h1) * h3. n elements. */
static void gate_back(const sh_kernels *k, int64_t n, const float *h1, const float *h3, float *dh, float *h, float *d1,
                      float *d3) {
  k->silu(n, h1, h);
  for (int64_t i = 0; i < n; i++) {
    d3[i] = dh[i] * h[i];
    dh[i] *= h3[i];
    h[i] *= h3[i];
  }
  k->silu_back(n, h1, dh, d1);
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_swiglu_conf *f = l->conf;
  int64_t D = f->D, F = hidden(l), T = a->T, per_thread = SH_TOKEN_BLOCK * (F + D);
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_FFN, f->dropout);
  tape_view v = view(l, T, a->tape);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  bool again = !v.norm;
  if (again) take_rows(c, T * D, &v);
  float *h = SH_ARENA_NEW(c->scratch, float, T *F), *d1 = SH_ARENA_NEW(c->scratch, float, T *F);
  float *d3 = SH_ARENA_NEW(c->scratch, float, T *F),
        *blocks = SH_ARENA_NEW(c->scratch, float, per_thread *sh_max_threads());
  sh_right w1t = sh_right_of(c, F, D, sh_param_value(c->params, l->param[W1]), F, true);
  sh_right w2t = sh_right_of(c, D, F, sh_param_value(c->params, l->param[W2]), D, true);
  sh_right w3t = sh_right_of(c, F, D, sh_param_value(c->params, l->param[W3]), F, true);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(T); block++) {
    sh_breathe();
    int64_t t0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(T, block), at = t0 * F;
    float *dh = blocks + per_thread * sh_thread(), *dg = dh + SH_TOKEN_BLOCK * F, *dx = a->din[0];
    if (again) norm_rows(l, c, a, &dropout, v, t0, rows);
    c->k->multiply(rows, a->dout[0] + t0 * D, D, &w2t, dh, F, false);
    gate_back(c->k, rows * F, v.h1 + at, v.h3 + at, dh, h + at, d1 + at, d3 + at);
    if (!dx) continue;
    c->k->multiply(rows, d1 + at, F, &w1t, dg, D, false);
    c->k->multiply(rows, d3 + at, F, &w3t, dg, D, true);
    for (int64_t r = 0; r < rows; r++) sh_drop_row(c, &dropout, t0 + r, 0, D, dg + r * D, dg + r * D);
    c->k->rmsnorm_back(rows, D, v.norm + t0 * D, D, v.rstd + t0, dg, D, dx + t0 * D, D, a->add[0]);
    if (l->part == 0)
      for (int64_t k = t0 * D; k < (t0 + rows) * D; k++) dx[k] += a->dout[0][k];
  }
  sh_linear_grad(c, T, F, D, h, F, a->dout[0], D, sh_param_grad(c->params, l->param[W2]), D);
  sh_linear_grad(c, T, D, F, v.g, D, d1, F, sh_param_grad(c->params, l->param[W1]), F);
  sh_linear_grad(c, T, D, F, v.g, D, d3, F, sh_param_grad(c->params, l->param[W3]), F);
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_swiglu_conf *f = l->conf;
  *linear = 6.0 * (double)b->T * f->D * (double)hidden(l);
  *attention = 0;
}

const sh_layer_ops sh_ffn_swiglu_ops = {.name = "ffn_swiglu",
                                        .conf_bytes = sizeof(sh_swiglu_conf),
                                        .params = params,
                                        .tape = tape,
                                        .forward = forward,
                                        .backward = backward,
                                        .flops = flops,
                                        .supports_last_only = true};
