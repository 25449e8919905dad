/* Second part of the FuXi block: norm from the statistic, gate, projection, residual (nn/fuxi.h has the formulas). */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"
#include "nn/fuxi.h"
#include "nn/linear.h"

enum { WEIGHT, BIAS };

static int64_t all_columns(const sh_fuxi_conf *f) { return (int64_t)f->H * f->channels * f->dv; }
static int64_t columns(const sh_layer *l) { return all_columns(l->conf) / l->parts; }

static void params(sh_layer *l, sh_params *p) {
  const sh_fuxi_conf *f = l->conf;
  int64_t n = all_columns(f);
  double limit = sqrt(6.0 / (double)(f->D + n)), bound = 1.0 / sqrt((double)n);
  sh_param w = {.ndim = 2,
                .dim = {n, f->D},
                .split = 0,
                .nseg = 1,
                .seg = {{0, f->H, f->channels * f->dv}},
                .tgrad = SH_TGRAD_SPLIT,
                .grain = SH_GRAIN_MATRIX,
                .init = {SH_INIT_UNIFORM, -limit, limit},
                .decay = true,
                .tie = -1};
  snprintf(w.name, sizeof w.name, "%s.lin0_weight", l->name);
  l->param[WEIGHT] = sh_params_add(p, &w);
  sh_param b = {.ndim = 1,
                .dim = {f->D},
                .split = -1,
                .tgrad = SH_TGRAD_SAME,
                .grain = SH_GRAIN_ELEMENT,
                .init = {SH_INIT_UNIFORM, -bound, bound},
                .decay = true,
                .tie = -1};
  snprintf(b.name, sizeof b.name, "%s.lin0_bias", l->name);
  l->param[BIAS] = sh_params_add(p, &b);
}

/* Tape: what the projection reads, after dropout, [T x columns]. */
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  return T * columns(l);
}

/* 1 / RMS of row r over all columns, from the summed statistic. */
static float scale_of(const sh_layer *l, const sh_args *a, int64_t r) {
  const sh_fuxi_conf *f = l->conf;
  return (float)(1.0 / sqrt((double)a->in[3][r] / (double)all_columns(f) + (double)f->eps));
}

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_fuxi_conf *f = l->conf;
  int64_t D = f->D, n = columns(l);
  const float *w = sh_param_value(c->params, l->param[WEIGHT]), *bias = sh_param_value(c->params, l->param[BIAS]);
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_LINEAR, f->dropout);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *gated = a->tape ? a->tape : SH_ARENA_NEW(c->scratch, float, a->R *n);
  sh_right right = sh_right_of(c, n, D, w, D, false);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(a->R); block++) {
    sh_breathe();
    int64_t r0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(a->R, block);
    for (int64_t r = r0; r < r0 + rows; r++) {
      const float *u = a->in[1] + r * n, *o = a->in[2] + r * n, *x = a->in[0] + sh_row_token(a, r) * D;
      float *y = gated + r * n, *out = a->out[0] + r * D, scale = scale_of(l, a, r);
      c->k->gate(n, u, o, 0, scale, y);
      sh_drop_row(c, &dropout, sh_row_token(a, r), l->part * n, n, y, y);
      if (l->part == 0)
        for (int64_t k = 0; k < D; k++) out[k] = x[k] + bias[k];
      else
        memset(out, 0, sizeof(float) * (size_t)D);
    }
    c->k->multiply(rows, gated + r0 * n, n, &right, a->out[0] + r0 * D, D, true);
  }
  sh_arena_release(c->scratch, mark);
}

/* From dy (dropout undone) of one row: du, the part of dc beside the statistic, and the gradient of the statistic. */
static void gate_back(const sh_layer *l, const sh_ctx *c, const sh_args *a, int64_t t, int64_t n, const float *dy) {
  float scale = scale_of(l, a, t), sums[2];
  c->k->gate_back(n, dy, NULL, NULL, a->in[1] + t * n, a->in[2] + t * n, 0, scale, a->din[1] + t * n, a->din[2] + t * n,
                  sums);
  a->din[3][t] = (float)(-0.5 * (double)sums[1] * (double)scale * (double)scale / (double)all_columns(l->conf));
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_fuxi_conf *f = l->conf;
  int64_t D = f->D, n = columns(l), T = a->T;
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_LINEAR, f->dropout);
  assert(a->din[1] && a->din[2] && a->din[3] && !a->add[1] && !a->add[2] && !a->add[3]); /* read by this call alone */
  sh_arena_mark mark = sh_arena_save(c->scratch);
  sh_right wt = sh_right_of(c, D, n, sh_param_value(c->params, l->param[WEIGHT]), D, true);
  float *blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *n *sh_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(T); block++) {
    sh_breathe();
    int64_t t0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(T, block);
    float *dy = blocks + SH_TOKEN_BLOCK * n * sh_thread();
    c->k->multiply(rows, a->dout[0] + t0 * D, D, &wt, dy, n, false);
    for (int64_t t = t0; t < t0 + rows; t++) {
      float *row = dy + (t - t0) * n;
      sh_drop_row(c, &dropout, t, l->part * n, n, row, row);
      gate_back(l, c, a, t, n, row);
    }
    sh_residual_back(l, a, t0, rows, D);
  }
  sh_linear_grad(c, T, n, D, a->tape, n, a->dout[0], D, sh_param_grad(c->params, l->param[WEIGHT]), D);
  sh_column_sums(c, T, D, a->dout[0], D, sh_param_grad(c->params, l->param[BIAS]));
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_fuxi_conf *f = l->conf;
  *linear = 2.0 * (double)b->T * (double)columns(l) * f->D;
  *attention = 0;
}

const sh_layer_ops sh_fuxi_out_ops = {.name = "fuxi_out",
                                      .conf_bytes = sizeof(sh_fuxi_conf),
                                      .params = params,
                                      .tape = tape,
                                      .forward = forward,
                                      .backward = backward,
                                      .flops = flops,
                                      .supports_last_only = true};
