/* Second half of the SASRec block: norm and feed-forward network (nn/sasrec.h has the formulas). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"
#include "nn/linear.h"
#include "nn/sasrec.h"

enum { W1, B1, W2, B2 };

static int64_t local_hidden(const sh_layer *l) { return ((const sh_sasrec_conf *)l->conf)->F / l->parts; }

static void add_row(sh_layer *l, sh_params *p, int index, const char *what, sh_param row) {
  snprintf(row.name, sizeof row.name, "%s.%s", l->name, what);
  l->param[index] = sh_params_add(p, &row);
}

static void params(sh_layer *l, sh_params *p) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D, F = f->F;
  double in = 1.0 / sqrt((double)D), hidden = 1.0 / sqrt((double)F);
  sh_param w = {.ndim = 2,
                .dim = {D, F},
                .split = 1,
                .nseg = 1,
                .seg = {{0, F, 1}},
                .tgrad = SH_TGRAD_SPLIT,
                .grain = SH_GRAIN_MATRIX,
                .init = {.kind = SH_INIT_NORMAL, .a = sqrt(2.0 / (double)(D + F))},
                .decay = true,
                .tie = -1};
  sh_param b = w;
  b.ndim = 1, b.dim[0] = F, b.split = 0, b.grain = SH_GRAIN_ELEMENT, b.init = (sh_init){SH_INIT_UNIFORM, -in, in};
  add_row(l, p, W1, "w1", w);
  add_row(l, p, B1, "b1", b);
  w.dim[0] = F, w.dim[1] = D, w.split = 0;
  b.dim[0] = D, b.split = -1, b.tgrad = SH_TGRAD_SAME, b.init = (sh_init){SH_INIT_UNIFORM, -hidden, hidden};
  add_row(l, p, W2, "w2", w);
  add_row(l, p, B2, "b2", b);
}

/* Tape, F = local hidden width: z [R x D] if sh_keeps_norm, rstd [R], s = z W1 + b1 [R x F], hidden after dropout [R x
 * F]. */
typedef struct tape_view {
  float *z, *rstd, *s, *hidden;
} tape_view;
static tape_view view(const sh_layer *l, int64_t R, float *tape) {
  const sh_sasrec_conf *f = l->conf;
  tape_view v = {.z = sh_keeps_norm(l) ? tape : NULL};
  v.rstd = tape + (v.z ? R * f->D : 0);
  v.s = v.rstd + (R + 15) / 16 * 16;
  v.hidden = v.s + R * local_hidden(l);
  return v;
}
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  const sh_sasrec_conf *f = l->conf;
  return (sh_keeps_norm(l) ? T * f->D : 0) + (T + 15) / 16 * 16 + 2 * T * local_hidden(l);
}

static void activate(bool gelu, int64_t n, const float *s, float *y) {
  if (gelu)
    for (int64_t k = 0; k < n; k++) y[k] = 0.5f * s[k] * (1.f + erff(s[k] * 0.70710678f));
  else
    for (int64_t k = 0; k < n; k++) y[k] = s[k] > 0 ? s[k] : 0;
}

/* dy becomes dy act'(s). */
static void activate_back(bool gelu, int64_t n, const float *s, float *dy) {
  if (gelu)
    for (int64_t k = 0; k < n; k++)
      dy[k] *= 0.5f * (1.f + erff(s[k] * 0.70710678f)) + s[k] * 0.39894228f * expf(-0.5f * s[k] * s[k]);
  else
    for (int64_t k = 0; k < n; k++) dy[k] = s[k] > 0 ? dy[k] : 0;
}

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D, F = local_hidden(l);
  const float *w1 = sh_param_value(c->params, l->param[W1]), *b1 = sh_param_value(c->params, l->param[B1]);
  const float *w2 = sh_param_value(c->params, l->param[W2]), *b2 = sh_param_value(c->params, l->param[B2]);
  sh_drop drop_hidden = sh_layer_drop(l, c, SH_SITE_DROP_FFN, f->ffn_dropout);
  sh_drop drop_out = sh_layer_drop(l, c, SH_SITE_DROP_FFN_OUT, f->ffn_dropout);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  tape_view v = view(l, a->R, a->tape ? a->tape : SH_ARENA_NEW(c->scratch, float, tape(l, a->R, 0)));
  if (!v.z) v.z = SH_ARENA_NEW(c->scratch, float, a->R *D);
  sh_right right1 = sh_right_of(c, D, F, w1, F, false), right2 = sh_right_of(c, F, D, w2, D, false);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(a->R); block++) {
    sh_breathe();
    int64_t r0 = block * SH_TOKEN_BLOCK, end = r0 + sh_block_rows(a->R, block);
    for (int64_t r = r0; r < end; r++) {
      c->k->layernorm(1, D, f->eps, a->in[0] + sh_row_token(a, r) * D, D, v.z + r * D, D, v.rstd + r);
      memcpy(v.s + r * F, b1, sizeof(float) * (size_t)F);
      if (l->part == 0) memcpy(a->out[0] + r * D, b2, sizeof(float) * (size_t)D);
    }
    c->k->multiply(end - r0, v.z + r0 * D, D, &right1, v.s + r0 * F, F, true);
    activate(f->gelu, (end - r0) * F, v.s + r0 * F, v.hidden + r0 * F);
    for (int64_t r = r0; r < end; r++)
      sh_drop_row(c, &drop_hidden, sh_row_token(a, r), l->part * F, F, v.hidden + r * F, v.hidden + r * F);
    c->k->multiply(end - r0, v.hidden + r0 * F, F, &right2, a->out[0] + r0 * D, D, l->part == 0);
    for (int64_t r = r0; r < end; r++) { /* dropout is linear: the parts' sum has the mask of the whole */
      float *out = a->out[0] + r * D;
      sh_drop_row(c, &drop_out, sh_row_token(a, r), 0, D, out, out);
      if (l->part == 0) c->k->axpy(D, 1.f, v.z + r * D, out);
    }
  }
  sh_arena_release(c->scratch, mark);
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_sasrec_conf *f = l->conf;
  int64_t D = f->D, F = local_hidden(l), T = a->T;
  sh_drop drop_hidden = sh_layer_drop(l, c, SH_SITE_DROP_FFN, f->ffn_dropout);
  sh_drop drop_out = sh_layer_drop(l, c, SH_SITE_DROP_FFN_OUT, f->ffn_dropout);
  tape_view v = view(l, T, a->tape);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  bool again = !v.z;
  if (again) v.z = SH_ARENA_NEW(c->scratch, float, T *D);
  float *dy = SH_ARENA_NEW(c->scratch, float, T *D), *ds = SH_ARENA_NEW(c->scratch, float, T *F);
  sh_right w1t = sh_right_of(c, F, D, sh_param_value(c->params, l->param[W1]), F, true);
  sh_right w2t = sh_right_of(c, D, F, sh_param_value(c->params, l->param[W2]), D, true);
  float *blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *D *sh_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(T); block++) {
    sh_breathe();
    int64_t t0 = block * SH_TOKEN_BLOCK, rows = sh_block_rows(T, block);
    if (again) c->k->layernorm(rows, D, f->eps, a->in[0] + t0 * D, D, v.z + t0 * D, D, v.rstd + t0);
    for (int64_t t = t0; t < t0 + rows; t++) sh_drop_row(c, &drop_out, t, 0, D, a->dout[0] + t * D, dy + t * D);
    c->k->multiply(rows, dy + t0 * D, D, &w2t, ds + t0 * F, F, false);
    for (int64_t t = t0; t < t0 + rows; t++) sh_drop_row(c, &drop_hidden, t, l->part * F, F, ds + t * F, ds + t * F);
    activate_back(f->gelu, rows * F, v.s + t0 * F, ds + t0 * F);
    if (!a->din[0]) continue;
    float *dz = blocks + SH_TOKEN_BLOCK * D * sh_thread();
    if (l->part == 0) memcpy(dz, a->dout[0] + t0 * D, sizeof(float) * (size_t)(rows * D));
    c->k->multiply(rows, ds + t0 * F, F, &w1t, dz, D, l->part == 0);
    c->k->layernorm_back(rows, D, v.z + t0 * D, D, v.rstd + t0, dz, D, a->din[0] + t0 * D, D, a->add[0]);
  }
  sh_linear_grad(c, T, F, D, v.hidden, F, dy, D, sh_param_grad(c->params, l->param[W2]), D);
  sh_column_sums(c, T, D, dy, D, sh_param_grad(c->params, l->param[B2]));
  sh_linear_grad(c, T, D, F, v.z, D, ds, F, sh_param_grad(c->params, l->param[W1]), F);
  sh_column_sums(c, T, F, ds, F, sh_param_grad(c->params, l->param[B1]));
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_sasrec_conf *f = l->conf;
  *linear = 2.0 * (double)b->T * 2 * f->D * (double)local_hidden(l);
  *attention = 0;
}

const sh_layer_ops sh_sasrec_ffn_ops = {.name = "sasrec_ffn",
                                        .conf_bytes = sizeof(sh_sasrec_conf),
                                        .params = params,
                                        .tape = tape,
                                        .forward = forward,
                                        .backward = backward,
                                        .flops = flops,
                                        .supports_last_only = true};
