/* First half of the HSTU layer: norm, projection, attention (nn/hstu.h has the formulas). */
#include <stdio.h>
#include <string.h>

#include "nn/hstu.h"
#include "nn/linear.h"
#include "nn/pieces.h"
#include "nn/projection.h"

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

static sh_projection projection(const sh_layer *l) {
  const sh_hstu_conf *f = l->conf;
  shape s = shape_of(l);
  return (sh_projection){.D = f->D,
                         .u = s.u,
                         .v = s.v,
                         .q = s.q,
                         .eps = f->eps,
                         .slim = !sh_keeps_norm(l),
                         .half = l->half,
                         .weight = l->param[UVQK]};
}
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  sh_projection p = projection(l);
  return sh_projection_tape(&p, T);
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

static void attend(const sh_layer *l, const sh_ctx *c, const sh_args *a, sh_projected v, const float *q_rows) {
  const sh_hstu_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  int64_t rest = s.width - s.u, work = sh_attention_room(b, f->dqk, f->dv);
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  sh_pieces pieces = sh_pieces_of(c, s.h, a->row_token);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t p = 0; p < pieces.n; p++)
    for (int64_t h = 0; h < s.h; h++) {
      sh_breathe();
      int64_t i = pieces.piece[p].sequence, t = b->offsets[i], row = a->row_token ? i : t;
      const float *vqk = v.vqk + t * rest;
      sh_heads_io io = {.dqk = f->dqk,
                        .dv = f->dv,
                        .ldq = (int)(a->row_token ? s.q : rest),
                        .ldkv = (int)rest,
                        .ldout = (int)s.u,
                        .q = (a->row_token ? q_rows + i * s.q : vqk + s.v) + h * f->dqk,
                        .k = vqk + s.v + s.q + h * f->dqk,
                        .v = vqk + h * f->dv,
                        .out = a->out[1] + row * s.u + h * f->dv};
      sh_piece_io(&pieces.piece[p], &io);
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
  sh_projection p = projection(l);
  sh_projected v = sh_projection_view(&p, a->T, keep);
  sh_project(&p, c, a, v, q_rows);
  if (!a->again) attend(l, c, a, v, q_rows);
  statistics(c, a, shape_of(l).u);
  sh_arena_release(c->scratch, mark);
}

/* Gradients of v, q, k (activated) into d [T x (width - u)], of the bias tables into the parameter block. */
static void attend_back(const sh_layer *l, const sh_ctx *c, const float *dout, sh_projected v, float *d) {
  const sh_hstu_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  sh_pieces pieces = sh_pieces_of(c, s.h, false);
  int64_t rest = s.width - s.u, units = sh_piece_groups(&pieces) * s.h, work = sh_attention_room(b, f->dqk, f->dv);
  int64_t partial = (f->N + SH_TIME_BUCKETS + 15) / 16 * 16; /* pos_w beyond N-1 is never read */
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  float *partials = SH_ARENA_ZNEW(c->scratch, float, partial *units);
  float *surplus = SH_ARENA_NEW(c->scratch, float, pieces.surplus *rest); /* laid out as d */
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t unit = 0; unit < units; unit++) {
    int64_t g = unit / s.h, h = unit % s.h;
    float *dpos = partials + unit * partial, *dts = dpos + f->N;
    for (int64_t p = sh_piece_group(&pieces, g); p < sh_piece_group(&pieces, g + 1); p++) {
      sh_breathe();
      const sh_piece *piece = &pieces.piece[p];
      int64_t i = piece->sequence, t = b->offsets[i];
      const float *vqk = v.vqk + t * rest;
      float *dq = d + t * rest, *dkv = piece->surplus < 0 ? dq : surplus + piece->surplus * rest;
      sh_heads_io io = {.dqk = f->dqk,
                        .dv = f->dv,
                        .ldq = (int)rest,
                        .ldkv = (int)rest,
                        .ldout = (int)s.u,
                        .q = vqk + s.v + h * f->dqk,
                        .k = vqk + s.v + s.q + h * f->dqk,
                        .v = vqk + h * f->dv,
                        .dout = dout + t * s.u + h * f->dv,
                        .dq = dq + s.v + h * f->dqk,
                        .dk = dkv + s.v + s.q + h * f->dqk,
                        .dv_ = dkv + h * f->dv};
      sh_piece_io(piece, &io);
      sh_rel_bias bias = bias_of(l, c, i, dpos, dts);
      c->k->hstu_attention_back(&io, &bias, (float)f->N, works + work * sh_thread());
    }
  }
  sh_pieces_add(c, &pieces, surplus, rest, 0, s.v, d);
  sh_pieces_add(c, &pieces, surplus, rest, s.v + s.q, s.q, d);
  float *dpos = sh_param_grad(c->params, l->param[POS_W]);
  for (int64_t unit = 0; unit < units; unit++) {
    c->k->axpy(f->N, 1.f, partials + unit * partial, dpos);
    if (f->time_bias)
      c->k->axpy(SH_TIME_BUCKETS, 1.f, partials + unit * partial + f->N, sh_param_grad(c->params, l->param[TS_W]));
  }
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  shape s = shape_of(l);
  int64_t T = a->T;
  sh_projection p = projection(l);
  sh_projected v = sh_projection_view(&p, T, a->tape);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *d = SH_ARENA_NEW(c->scratch, float, T *(s.width - s.u)), *dout = SH_ARENA_NEW(c->scratch, float, T *s.u);
  /* o fed the statistics too: d o = dout + dstats_0 + 2 o dstats_1 */
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++) {
    const double *ds = sh_hstu_sums((float *)(uintptr_t)a->dout[2], t);
    c->k->add_affine(s.u, a->dout[1] + t * s.u, ds[0], 2 * ds[1], a->out[1] + t * s.u, dout + t * s.u);
  }
  attend_back(l, c, dout, v, d);
  sh_project_back(&p, c, a, v, d);
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
