/* First half of the HSTU layer: norm, projection, attention (nn/hstu.h has the formulas). */
#include <stdio.h>
#include <string.h>

#include "nn/hstu.h"
#include "nn/linear.h"

enum { UVQK, POS_W, TS_W };

/* Local widths: columns of u, v, q, k side by side in z. */
typedef struct shape {
  int64_t h, u, v, q, width; /* heads; first columns of v, q, k are u, u+v, u+v+q */
} shape;
static shape shape_of(const sh_layer *l) {
  const sh_hstu_conf *f = l->conf;
  int64_t h = f->H / l->parts;
  return (shape){.h = h, .u = h * f->dv, .v = h * f->dv, .q = h * f->dqk, .width = 2 * h * (f->dv + f->dqk)};
}

static void params(sh_layer *l, sh_params *p) {
  const sh_hstu_conf *f = l->conf;
  int64_t H = f->H, dv = f->dv, dqk = f->dqk;
  sh_init normal = {.kind = SH_INIT_NORMAL, .a = 0.02};
  sh_param row = {.ndim = 2,
                  .dim = {f->D, 2 * H * (dv + dqk)},
                  .split = 1,
                  .nseg = 4,
                  .seg = {{0, H, dv}, {H * dv, H, dv}, {2 * H * dv, H, dqk}, {H * (2 * dv + dqk), H, dqk}},
                  .tgrad = SH_TGRAD_SPLIT,
                  .grain = SH_GRAIN_MATRIX,
                  .init = normal,
                  .decay = true,
                  .tie = -1};
  snprintf(row.name, sizeof row.name, "%s.uvqk", l->name);
  l->param[UVQK] = sh_params_add(p, &row);
  sh_param bias = {.ndim = 1,
                   .dim = {2 * f->N - 1},
                   .split = -1,
                   .tgrad = SH_TGRAD_PARTIAL,
                   .grain = SH_GRAIN_ELEMENT,
                   .init = normal,
                   .decay = true,
                   .tie = -1};
  snprintf(bias.name, sizeof bias.name, "%s.pos_w", l->name);
  l->param[POS_W] = sh_params_add(p, &bias);
  if (!f->time_bias) return;
  bias.dim[0] = SH_TIME_BUCKETS;
  snprintf(bias.name, sizeof bias.name, "%s.ts_w", l->name);
  l->param[TS_W] = sh_params_add(p, &bias);
}

/* Tape: xn [T x D], rstd [T], z [T x width], vqk = silu(z) without u [T x (width - u)]. */
typedef struct tape_view {
  float *xn, *rstd, *z, *vqk;
} tape_view;
static tape_view view(const sh_layer *l, int64_t T, float *tape) {
  const sh_hstu_conf *f = l->conf;
  shape s = shape_of(l);
  tape_view v = {.xn = tape};
  v.rstd = v.xn + T * f->D;
  v.z = v.rstd + (T + 15) / 16 * 16;
  v.vqk = v.z + T * s.width;
  return v;
}
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  const sh_hstu_conf *f = l->conf;
  shape s = shape_of(l);
  return T * f->D + (T + 15) / 16 * 16 + T * s.width + T * (s.width - s.u);
}

static sh_rel_bias bias_of(const sh_layer *l, const sh_ctx *c, int64_t sequence, float *dpos, float *dts) {
  const sh_hstu_conf *f = l->conf;
  const sh_time_runs *r = &c->batch->runs;
  sh_rel_bias b = {.pos = sh_param_value(c->params, l->param[POS_W]) + f->N - 1};
  if (dpos) b.dpos = dpos + f->N - 1;
  if (f->time_bias) {
    b.ts = sh_param_value(c->params, l->param[TS_W]);
    b.run_start = r->start + c->batch->offsets[sequence];
    b.run_end = r->end;
    b.run_bucket = r->bucket;
    b.dts = dts;
  }
  return b;
}

/* Norm and projection. u and q are needed for output rows only (last-only inference reads one row a sequence). */
static void project(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, float *q_rows) {
  const sh_hstu_conf *f = l->conf;
  shape s = shape_of(l);
  int64_t D = f->D, W = s.width, rest = W - s.u;
  const float *w = sh_param_value(c->params, l->param[UVQK]);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t block = 0; block < sh_token_blocks(a->T); block++) {
      int64_t t = block * SH_TOKEN_BLOCK, n = sh_block_rows(a->T, block);
      float *xn = v.xn + t * D, *z = v.z + t * W;
      c->k->layernorm(n, D, f->eps, a->in[0] + t * D, D, xn, D, v.rstd + t);
      if (!a->row_token) {
        c->k->gemm(n, W, D, xn, D, w, W, z, W, false);
      } else { /* v and k for every token */
        c->k->gemm(n, s.v, D, xn, D, w + s.u, W, z + s.u, W, false);
        c->k->gemm(n, s.q, D, xn, D, w + s.u + s.v + s.q, W, z + s.u + s.v + s.q, W, false);
      }
      for (int64_t i = 0; i < n; i++) {
        if (!a->row_token) {
          c->k->silu(s.u, z + i * W, a->out[0] + (t + i) * s.u);
          c->k->silu(rest, z + i * W + s.u, v.vqk + (t + i) * rest);
        } else {
          c->k->silu(s.v, z + i * W + s.u, v.vqk + (t + i) * rest);
          c->k->silu(s.q, z + i * W + s.u + s.v + s.q, v.vqk + (t + i) * rest + s.v + s.q);
        }
      }
    }
    if (a->row_token) {
#pragma omp for schedule(static)
      for (int64_t r = 0; r < a->R; r++) {
        const float *xn = v.xn + a->row_token[r] * D;
        float *u = a->out[0] + r * s.u, *q = q_rows + r * s.q;
        c->k->gemm(1, s.u, D, xn, D, w, W, u, s.u, false);
        c->k->gemm(1, s.q, D, xn, D, w + s.u + s.v, W, q, s.q, false);
        c->k->silu(s.u, u, u);
        c->k->silu(s.q, q, q);
      }
    }
  }
}

static void attend(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, const float *q_rows) {
  const sh_hstu_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  int64_t rest = s.width - s.u, work = sh_attention_room(b, f->dqk, f->dv);
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t i = 0; i < b->B; i++)
    for (int64_t h = 0; h < s.h; h++) {
      int64_t t = b->offsets[i];
      int L = b->offsets[i + 1] - b->offsets[i];
      if (L == 0) continue;
      const float *vqk = v.vqk + t * rest;
      int64_t row = a->row_token ? i : t;
      sh_heads_io io = {.L = L,
                        .query_first = a->row_token ? L - 1 : 0,
                        .dqk = f->dqk,
                        .dv = f->dv,
                        .ldq = (int)(a->row_token ? s.q : rest),
                        .ldkv = (int)rest,
                        .ldout = (int)s.u,
                        .q = (a->row_token ? q_rows + i * s.q : vqk + s.v) + h * f->dqk,
                        .k = vqk + s.v + s.q + h * f->dqk,
                        .v = vqk + h * f->dv,
                        .out = a->out[1] + row * s.u + h * f->dv};
      sh_rel_bias bias = bias_of(l, c, i, NULL, NULL);
      c->k->hstu_attention(&io, &bias, (float)f->N, works + work * sh_thread());
    }
}

static void statistics(const sh_ctx *c, const sh_args *a, int64_t n) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < a->R; r++) c->k->row_sums(n, a->out[1] + r * n, sh_hstu_sums(a->out[2], r));
}

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *keep = a->tape ? a->tape : SH_ARENA_NEW(c->scratch, float, tape(l, a->T, 0));
  float *q_rows = a->row_token ? SH_ARENA_NEW(c->scratch, float, a->R *shape_of(l).q) : NULL;
  tape_view v = view(l, a->T, keep);
  project(l, c, a, v, q_rows);
  if (!a->again) attend(l, c, a, v, q_rows);
  statistics(c, a, shape_of(l).u);
  sh_arena_release(c->scratch, mark);
}

/* Gradients of v, q, k (activated) into d [T x (width - u)], of the bias tables into the parameter block. */
static void attend_back(const sh_layer *l, const sh_ctx *c, const float *dout, tape_view v, float *d) {
  const sh_hstu_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  int64_t rest = s.width - s.u, units = sh_groups(b) * s.h, work = sh_attention_room(b, f->dqk, f->dv);
  int64_t partial = (f->N + SH_TIME_BUCKETS + 15) / 16 * 16; /* pos_w beyond N-1 is never read */
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  float *partials = SH_ARENA_ZNEW(c->scratch, float, partial *units);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t unit = 0; unit < units; unit++) {
    int64_t g = unit / s.h, h = unit % s.h;
    float *dpos = partials + unit * partial, *dts = dpos + f->N;
    for (int64_t i = sh_group_first(b, g); i < sh_group_first(b, g + 1); i++) {
      int64_t t = b->offsets[i];
      int L = b->offsets[i + 1] - b->offsets[i];
      if (L == 0) continue;
      const float *vqk = v.vqk + t * rest;
      float *dvqk = d + t * rest;
      sh_heads_io io = {.L = L,
                        .dqk = f->dqk,
                        .dv = f->dv,
                        .ldq = (int)rest,
                        .ldkv = (int)rest,
                        .ldout = (int)s.u,
                        .q = vqk + s.v + h * f->dqk,
                        .k = vqk + s.v + s.q + h * f->dqk,
                        .v = vqk + h * f->dv,
                        .dout = dout + t * s.u + h * f->dv,
                        .dq = dvqk + s.v + h * f->dqk,
                        .dk = dvqk + s.v + s.q + h * f->dqk,
                        .dv_ = dvqk + h * f->dv};
      sh_rel_bias bias = bias_of(l, c, i, dpos, dts);
      c->k->hstu_attention_back(&io, &bias, (float)f->N, works + work * sh_thread());
    }
  }
  float *dpos = sh_param_grad(c->params, l->param[POS_W]);
  for (int64_t unit = 0; unit < units; unit++) {
    c->k->axpy(f->N, 1.f, partials + unit * partial, dpos);
    if (f->time_bias)
      c->k->axpy(SH_TIME_BUCKETS, 1.f, partials + unit * partial + f->N, sh_param_grad(c->params, l->param[TS_W]));
  }
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_hstu_conf *f = l->conf;
  shape s = shape_of(l);
  int64_t D = f->D, W = s.width, rest = W - s.u, T = a->T;
  tape_view v = view(l, T, a->tape);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *dz = SH_ARENA_NEW(c->scratch, float, T *W), *d = SH_ARENA_NEW(c->scratch, float, T *rest);
  float *dout = SH_ARENA_NEW(c->scratch, float, T *s.u);
  /* o fed the statistics too: d o = dout + dstats_0 + 2 o dstats_1 */
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++) {
    const float *o = a->out[1] + t * s.u, *g = a->dout[1] + t * s.u;
    const double *ds = sh_hstu_sums((float *)(uintptr_t)a->dout[2], t);
    for (int64_t k = 0; k < s.u; k++) dout[t * s.u + k] = g[k] + (float)(ds[0] + 2 * (double)o[k] * ds[1]);
  }
  attend_back(l, c, dout, v, d);
  float *wt = sh_transposed(c, D, W, sh_param_value(c->params, l->param[UVQK]), W);
  float *blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *D *sh_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(T); block++) {
    int64_t t = block * SH_TOKEN_BLOCK, n = sh_block_rows(T, block);
    float *dxn = blocks + SH_TOKEN_BLOCK * D * sh_thread();
    for (int64_t i = t; i < t + n; i++) {
      c->k->silu_back(s.u, v.z + i * W, a->dout[0] + i * s.u, dz + i * W);
      c->k->silu_back(rest, v.z + i * W + s.u, d + i * rest, dz + i * W + s.u);
    }
    if (!a->din[0]) continue;
    c->k->gemm(n, D, W, dz + t * W, W, wt, D, dxn, D, false);
    c->k->layernorm_back(n, D, v.xn + t * D, D, v.rstd + t, dxn, D, a->din[0] + t * D, D, a->add[0]);
  }
  sh_linear_grad(c, T, D, W, v.xn, D, dz, W, sh_param_grad(c->params, l->param[UVQK]), W);
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_hstu_conf *f = l->conf;
  shape s = shape_of(l);
  double pairs = sh_causal_pairs(b);
  *linear = 2.0 * (double)b->T * f->D * (double)s.width;
  *attention = 2.0 * pairs * (double)s.h * (f->dqk + f->dv);
}

const sh_layer_ops sh_hstu_in_ops = {.name = "hstu_in",
                                     .conf_bytes = sizeof(sh_hstu_conf),
                                     .params = params,
                                     .tape = tape,
                                     .forward = forward,
                                     .backward = backward,
                                     .flops = flops,
                                     .needs_time_runs = true,
                                     .supports_last_only = true};
