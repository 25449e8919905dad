/* Second half of the HSTU layer: norm from statistics, gate, projection, residual (nn/hstu.h has the formulas). */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"
#include "nn/hstu.h"
#include "nn/linear.h"

enum { O_WEIGHT, O_BIAS };

static int64_t copies(const sh_hstu_conf *f) { return f->concat_ua ? 3 : 1; }
static int64_t heads_width(const sh_layer *l) {
  const sh_hstu_conf *f = l->conf;
  return (int64_t)f->H / l->parts * f->dv;
}

static void params(sh_layer *l, sh_params *p) {
  const sh_hstu_conf *f = l->conf;
  int64_t H = f->H, dv = f->dv, in = copies(f) * H * dv;
  sh_param w = {.ndim = 2,
                .dim = {in, f->D},
                .split = 0,
                .nseg = (int)copies(f),
                .tgrad = SH_TGRAD_SPLIT,
                .grain = SH_GRAIN_MATRIX,
                .decay = true,
                .tie = -1};
  for (int s = 0; s < w.nseg; s++) w.seg[s] = (sh_segment){s * H * dv, H, dv};
  double limit = sqrt(6.0 / (double)(f->D + in)), bound = 1.0 / sqrt((double)in);
  w.init = (sh_init){SH_INIT_UNIFORM, -limit, limit};
  snprintf(w.name, sizeof w.name, "%s.o_weight", l->name);
  l->param[O_WEIGHT] = sh_params_add(p, &w);
  sh_param b = {.ndim = 1,
                .dim = {f->D},
                .split = -1,
                .tgrad = SH_TGRAD_SAME,
                .grain = SH_GRAIN_ELEMENT,
                .init = {SH_INIT_UNIFORM, -bound, bound},
                .decay = true,
                .tie = -1};
  snprintf(b.name, sizeof b.name, "%s.o_bias", l->name);
  l->param[O_BIAS] = sh_params_add(p, &b);
}

/* Tape: y after dropout, [T x copies * width]. */
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  return T * copies(l->conf) * heads_width(l);
}

/* Mean and reciprocal deviation of row r over all H dv columns, from the summed statistics. */
static void moments(const sh_layer *l, const float *stats, int64_t r, float *mean, float *rstd) {
  const sh_hstu_conf *f = l->conf;
  const double *sums = sh_hstu_sums((float *)(uintptr_t)stats, r);
  double n = (double)f->H * f->dv, m = sums[0] / n, var = sums[1] / n - m * m;
  *mean = (float)m;
  *rstd = (float)(1.0 / sqrt((var > 0 ? var : 0) + (double)f->eps));
}

/* y [copies * n] of one row, before dropout. */
static void gate(const sh_layer *l, const sh_ctx *c, const sh_args *a, int64_t r, int64_t n, float *y) {
  const sh_hstu_conf *f = l->conf;
  const float *u = a->in[1] + r * n, *o = a->in[2] + r * n;
  float mean, rstd;
  moments(l, a->in[3], r, &mean, &rstd);
  if (f->concat_ua) {
    memcpy(y, u, sizeof(float) * (size_t)n);
    for (int64_t k = 0; k < n; k++) y[n + k] = (o[k] - mean) * rstd;
  }
  c->k->gate(n, u, o, mean, rstd, f->concat_ua ? y + 2 * n : y);
}

/* Dropout of one row's y, element = global column of [copies x H dv]. */
static void drop(const sh_layer *l, const sh_ctx *c, const sh_drop *d, int64_t token, int64_t n, float *y) {
  const sh_hstu_conf *f = l->conf;
  for (int64_t s = 0; s < copies(f); s++)
    sh_drop_row(c, d, token, s * f->H * f->dv + l->part * n, n, y + s * n, y + s * n);
}

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_hstu_conf *f = l->conf;
  int64_t D = f->D, n = heads_width(l), in = copies(f) * n;
  const float *w = sh_param_value(c->params, l->param[O_WEIGHT]), *bias = sh_param_value(c->params, l->param[O_BIAS]);
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_LINEAR, f->dropout);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *y_all = a->tape ? a->tape : SH_ARENA_NEW(c->scratch, float, a->R *in);
  sh_right right = sh_right_of(c, in, D, w, D, false);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(a->R); block++) {
    sh_breathe();
    int64_t r0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(a->R, block);
    for (int64_t r = r0; r < r0 + rows; r++) {
      gate(l, c, a, r, n, y_all + r * in);
      drop(l, c, &dropout, sh_row_token(a, r), n, y_all + r * in);
      const float *x = a->in[0] + sh_row_token(a, r) * D;
      float *out = a->out[0] + r * D;
      if (l->part == 0)
        for (int64_t k = 0; k < D; k++) out[k] = x[k] + bias[k];
      else
        memset(out, 0, sizeof(float) * (size_t)D);
    }
    c->k->multiply(rows, y_all + r0 * in, in, &right, a->out[0] + r0 * D, D, true);
  }
  sh_arena_release(c->scratch, mark);
}

/* From dy (dropout undone) of one row: du, do and the gradients of the two statistics. */
static void gate_back(const sh_layer *l, const sh_ctx *c, const sh_args *a, int64_t t, int64_t n, const float *dy) {
  const sh_hstu_conf *f = l->conf;
  bool all = f->concat_ua;
  double count = (double)f->H * f->dv, *ds = sh_hstu_sums(a->din[3], t);
  float mean, rstd, sums[2];
  moments(l, a->in[3], t, &mean, &rstd);
  c->k->gate_back(n, all ? dy + 2 * n : dy, all ? dy : NULL, all ? dy + n : NULL, a->in[1] + t * n, a->in[2] + t * n,
                  mean, rstd, a->din[1] + t * n, a->din[2] + t * n, sums);
  double dmean = -(double)rstd * (double)sums[0], dvar = -0.5 * (double)rstd * (double)rstd * (double)sums[1];
  ds[0] = (dmean - 2 * (double)mean * dvar) / count;
  ds[1] = dvar / count;
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_hstu_conf *f = l->conf;
  int64_t D = f->D, n = heads_width(l), in = copies(f) * n, T = a->T;
  sh_drop dropout = sh_layer_drop(l, c, SH_SITE_DROP_LINEAR, f->dropout);
  assert(a->din[1] && a->din[2] && a->din[3] && !a->add[1] && !a->add[2] && !a->add[3]); /* read by this call alone */
  sh_arena_mark mark = sh_arena_save(c->scratch);
  sh_right wt = sh_right_of(c, D, in, sh_param_value(c->params, l->param[O_WEIGHT]), D, true);
  float *blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *in *sh_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(T); block++) {
    sh_breathe();
    int64_t t0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(T, block);
    float *dy = blocks + SH_TOKEN_BLOCK * in * sh_thread();
    c->k->multiply(rows, a->dout[0] + t0 * D, D, &wt, dy, in, false);
    for (int64_t t = t0; t < t0 + rows; t++) {
      float *row = dy + (t - t0) * in;
      drop(l, c, &dropout, t, n, row);
      gate_back(l, c, a, t, n, row);
    }
    sh_residual_back(l, a, t0, rows, D);
  }
  sh_linear_grad(c, T, in, D, a->tape, in, a->dout[0], D, sh_param_grad(c->params, l->param[O_WEIGHT]), D);
  sh_column_sums(c, T, D, a->dout[0], D, sh_param_grad(c->params, l->param[O_BIAS]));
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_hstu_conf *f = l->conf;
  *linear = 2.0 * (double)b->T * (double)(copies(f) * heads_width(l)) * f->D;
  *attention = 0;
}

const sh_layer_ops sh_hstu_out_ops = {.name = "hstu_out",
                                      .conf_bytes = sizeof(sh_hstu_conf),
                                      .params = params,
                                      .tape = tape,
                                      .forward = forward,
                                      .backward = backward,
                                      .flops = flops,
                                      .supports_last_only = true};
