/* First part of the FuXi block: norm, projection, maps applied to the values (nn/fuxi.h has the formulas). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/fuxi.h"
#include "nn/linear.h"
#include "nn/pieces.h"
#include "nn/projection.h"

enum { UVQK, POS_W, TS_W, TIME_A = TS_W, TIME_B, BUCKETS = 129 };

/* Local widths: columns of u, v, q, k side by side in z; q = 0 in FuXi-beta. */
typedef struct shape {
  int64_t h, u, v, q, width, rest; /* heads; rest = width - u */
} shape;
static shape shape_of(const sh_layer *l) {
  const sh_fuxi_conf *f = l->conf;
  shape s = {.h = f->H / l->parts};
  s.v = s.h * f->dv;
  s.u = f->channels * s.v;
  s.q = f->channels == SH_FUXI_ALPHA ? s.h * f->dqk : 0;
  s.rest = s.v + 2 * s.q;
  s.width = s.u + s.rest;
  return s;
}

static int add_bias_row(const sh_layer *l, sh_params *p, const char *name, int64_t n, sh_init init) {
  sh_param row = {.ndim = 1,
                  .dim = {n},
                  .split = -1,
                  .tgrad = SH_TGRAD_PARTIAL,
                  .grain = SH_GRAIN_ELEMENT,
                  .init = init,
                  .decay = true,
                  .tie = -1};
  snprintf(row.name, sizeof row.name, "%s.%s", l->name, name);
  return sh_params_add(p, &row);
}

static void params(sh_layer *l, sh_params *p) {
  const sh_fuxi_conf *f = l->conf;
  bool alpha = f->channels == SH_FUXI_ALPHA;
  int64_t H = f->H, dv = f->dv, C = f->channels, dqk = alpha ? f->dqk : 0, u = H * C * dv, v = H * dv, q = H * dqk;
  sh_init normal = {.kind = SH_INIT_NORMAL, .a = 0.02};
  sh_param row = {.ndim = 2,
                  .dim = {f->D, u + v + 2 * q},
                  .split = 1,
                  .nseg = alpha ? 4 : 2,
                  .seg = {{0, H, C * dv}, {u, H, dv}, {u + v, H, dqk}, {u + v + q, H, dqk}},
                  .tgrad = SH_TGRAD_SPLIT,
                  .grain = SH_GRAIN_MATRIX,
                  .init = normal,
                  .decay = true,
                  .tie = -1};
  snprintf(row.name, sizeof row.name, "%s.uvqk", l->name);
  l->param[UVQK] = sh_params_add(p, &row);
  l->param[POS_W] = add_bias_row(l, p, "pos_w", 2 * f->N - 1, normal);
  if (!f->time_bias) return;
  if (alpha) {
    l->param[TS_W] = add_bias_row(l, p, "ts_w", BUCKETS, normal);
  } else {
    bool power = f->time_function == SH_FUXI_POW;
    sh_init a = {SH_INIT_UNIFORM, -0.2, 0.2}, b = {SH_INIT_UNIFORM, power ? 0.4 : -2, power ? 0.8 : 0};
    l->param[TIME_A] = add_bias_row(l, p, power ? "pow_a" : "exp_a", 1, a);
    l->param[TIME_B] = add_bias_row(l, p, power ? "pow_b" : "exp_b", 1, b);
  }
}

static sh_projection projection(const sh_layer *l) {
  const sh_fuxi_conf *f = l->conf;
  shape s = shape_of(l);
  return (sh_projection){.D = f->D,
                         .u = s.u,
                         .v = s.v,
                         .q = s.q,
                         .eps = f->eps,
                         .rms = true,
                         .slim = !sh_keeps_norm(l),
                         .half = l->half,
                         .weight = l->param[UVQK]};
}
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  sh_projection p = projection(l);
  return sh_projection_tape(&p, T);
}

/* Gradients of what the maps are made of: one set a unit of work, so that units do not meet. */
typedef struct map_grads {
  float *pos, *ts; /* [N] (pos_w beyond N-1 is never read), [129] */
  double a, b;
} map_grads;

static sh_fuxi_maps maps_of(const sh_layer *l, const sh_ctx *c, int64_t sequence, map_grads *g) {
  const sh_fuxi_conf *f = l->conf;
  const sh_batch *b = c->batch;
  sh_fuxi_maps m = {.channels = f->channels, .channel_stride = f->dv, .time_function = f->time_function};
  m.bias.pos = sh_param_value(c->params, l->param[POS_W]) + f->N - 1;
  if (g) m.bias.dpos = g->pos + f->N - 1, m.bias.dts = g->ts, m.da = &g->a, m.db = &g->b;
  if (!f->time_bias) return m;
  if (f->channels == SH_FUXI_ALPHA) {
    m.bias.ts = sh_param_value(c->params, l->param[TS_W]);
    m.bias.run_start = b->runs.start + b->offsets[sequence];
    m.bias.run_end = b->runs.end;
    m.bias.run_bucket = b->runs.bucket;
  } else {
    m.a = *sh_param_value(c->params, l->param[TIME_A]);
    m.b = *sh_param_value(c->params, l->param[TIME_B]);
    m.time = b->time + b->offsets[sequence];
    m.next_time = b->next_time + b->offsets[sequence];
  }
  return m;
}

static int64_t work_floats(const sh_layer *l, const sh_batch *b) {
  const sh_fuxi_conf *f = l->conf;
  return sh_attention_room(b, shape_of(l).q ? f->dqk : 0, f->dv);
}

/* What both directions share of one sequence and head. */
static sh_heads_io head_of(const sh_layer *l, const sh_batch *b, const float *vqk, int64_t sequence, int64_t h) {
  const sh_fuxi_conf *f = l->conf;
  shape s = shape_of(l);
  const float *at = vqk + b->offsets[sequence] * s.rest;
  sh_heads_io io = {.dv = f->dv, .ldq = (int)s.rest, .ldkv = (int)s.rest, .ldout = (int)s.u, .v = at + h * f->dv};
  if (s.q) io.dqk = f->dqk, io.q = at + s.v + h * f->dqk, io.k = at + s.v + s.q + h * f->dqk;
  return io;
}

static void attend(const sh_layer *l, const sh_ctx *c, const sh_args *a, sh_projected v, const float *q_rows) {
  const sh_fuxi_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  int64_t work = work_floats(l, b);
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  sh_pieces pieces = sh_pieces_of(c, s.h, a->row_token);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t p = 0; p < pieces.n; p++)
    for (int64_t h = 0; h < s.h; h++) {
      sh_breathe();
      int64_t i = pieces.piece[p].sequence;
      sh_heads_io io = head_of(l, b, v.vqk, i, h);
      io.out = a->out[1] + (a->row_token ? i : b->offsets[i]) * s.u + h * f->channels * f->dv;
      if (a->row_token && s.q) io.ldq = (int)s.q, io.q = q_rows + i * s.q + h * f->dqk;
      sh_piece_io(&pieces.piece[p], &io);
      sh_fuxi_maps m = maps_of(l, c, i, NULL);
      c->k->fuxi_attention(&io, &m, (float)f->N, works + work * sh_thread());
    }
}

static void statistics(const sh_ctx *c, const sh_args *a, int64_t n) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < a->R; r++) {
    double sums[2];
    c->k->row_sums(n, a->out[1] + r * n, sums);
    a->out[2][r] = (float)sums[1];
  }
}

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  shape s = shape_of(l);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *keep = a->tape ? a->tape : SH_ARENA_NEW(c->scratch, float, tape(l, a->T, 0));
  float *q_rows = a->row_token ? SH_ARENA_NEW(c->scratch, float, a->R *s.q) : NULL;
  sh_projection p = projection(l);
  sh_projected v = sh_projection_view(&p, a->T, keep);
  sh_project(&p, c, a, v, q_rows);
  if (!a->again) attend(l, c, a, v, q_rows);
  statistics(c, a, s.u);
  sh_arena_release(c->scratch, mark);
}

/* Units' gradients of the maps into the parameter block, in order. */
static void add_map_grads(const sh_layer *l, const sh_ctx *c, const map_grads *g, int64_t units) {
  const sh_fuxi_conf *f = l->conf;
  double a = 0, b = 0;
  for (int64_t unit = 0; unit < units; unit++) {
    c->k->axpy(f->N, 1.f, g[unit].pos, sh_param_grad(c->params, l->param[POS_W]));
    if (f->time_bias && f->channels == SH_FUXI_ALPHA)
      c->k->axpy(BUCKETS, 1.f, g[unit].ts, sh_param_grad(c->params, l->param[TS_W]));
    a += g[unit].a, b += g[unit].b;
  }
  if (!f->time_bias || f->channels == SH_FUXI_ALPHA) return;
  float *da = sh_param_grad(c->params, l->param[TIME_A]), *db = sh_param_grad(c->params, l->param[TIME_B]);
  *da = (float)((double)*da + a);
  *db = (float)((double)*db + b);
}

/* Gradients of v, q, k (activated) into d [T x rest], of the maps into the parameter block. */
static void attend_back(const sh_layer *l, const sh_ctx *c, const float *dout, sh_projected v, float *d) {
  const sh_fuxi_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  sh_pieces pieces = sh_pieces_of(c, s.h, false);
  int64_t work = work_floats(l, b), units = sh_piece_groups(&pieces) * s.h, partial = (f->N + BUCKETS + 15) / 16 * 16;
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  float *partials = SH_ARENA_ZNEW(c->scratch, float, partial *units);
  map_grads *grads = SH_ARENA_ZNEW(c->scratch, map_grads, units);
  float *surplus = SH_ARENA_NEW(c->scratch, float, pieces.surplus *s.rest); /* laid out as d */
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t unit = 0; unit < units; unit++) {
    int64_t group = unit / s.h, h = unit % s.h;
    map_grads *g = grads + unit;
    g->pos = partials + unit * partial, g->ts = g->pos + f->N;
    for (int64_t p = sh_piece_group(&pieces, group); p < sh_piece_group(&pieces, group + 1); p++) {
      sh_breathe();
      const sh_piece *piece = &pieces.piece[p];
      int64_t i = piece->sequence;
      sh_heads_io io = head_of(l, b, v.vqk, i, h);
      float *dq = d + b->offsets[i] * s.rest, *dkv = piece->surplus < 0 ? dq : surplus + piece->surplus * s.rest;
      io.dout = dout + b->offsets[i] * s.u + h * f->channels * f->dv;
      io.dv_ = dkv + h * f->dv;
      if (s.q) io.dq = dq + s.v + h * f->dqk, io.dk = dkv + s.v + s.q + h * f->dqk;
      sh_piece_io(piece, &io);
      sh_fuxi_maps m = maps_of(l, c, i, g);
      c->k->fuxi_attention_back(&io, &m, (float)f->N, works + work * sh_thread());
    }
  }
  sh_pieces_add(c, &pieces, surplus, s.rest, 0, s.v, d);
  sh_pieces_add(c, &pieces, surplus, s.rest, s.v + s.q, s.q, d);
  add_map_grads(l, c, grads, units);
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  shape s = shape_of(l);
  int64_t T = a->T;
  sh_projection p = projection(l);
  sh_projected v = sh_projection_view(&p, T, a->tape);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *d = SH_ARENA_NEW(c->scratch, float, T *s.rest), *dout = SH_ARENA_NEW(c->scratch, float, T *s.u);
  /* c fed the statistic too: d c = dout + 2 c dstats */
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++)
    c->k->add_affine(s.u, a->dout[1] + t * s.u, 0, 2 * (double)a->dout[2][t], a->out[1] + t * s.u, dout + t * s.u);
  attend_back(l, c, dout, v, d);
  sh_project_back(&p, c, a, v, d);
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_fuxi_conf *f = l->conf;
  shape s = shape_of(l);
  double pairs = sh_causal_pairs(b);
  *linear = 2.0 * (double)b->T * f->D * (double)s.width;
  *attention = 2.0 * pairs * (double)(s.q + s.u);
}

const sh_layer_ops sh_fuxi_in_ops = {.name = "fuxi_in",
                                     .conf_bytes = sizeof(sh_fuxi_conf),
                                     .params = params,
                                     .tape = tape,
                                     .forward = forward,
                                     .backward = backward,
                                     .flops = flops,
                                     .needs_time_runs = true,
                                     .supports_last_only = true};
