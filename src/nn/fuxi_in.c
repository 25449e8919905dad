/* First part of the FuXi block: norm, projection, maps applied to the values (nn/fuxi.h has the formulas). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/fuxi.h"
#include "nn/linear.h"

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

/* Tape: xn [T x D], rstd [T], z [T x width], vqk = silu(z) without u [T x rest]. */
typedef struct tape_view {
  float *xn, *rstd, *z, *vqk;
} tape_view;
static tape_view view(const sh_layer *l, int64_t T, float *tape) {
  const sh_fuxi_conf *f = l->conf;
  tape_view v = {.xn = tape};
  v.rstd = v.xn + T * f->D;
  v.z = v.rstd + (T + 15) / 16 * 16;
  v.vqk = v.z + T * shape_of(l).width;
  return v;
}
static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)B;
  const sh_fuxi_conf *f = l->conf;
  shape s = shape_of(l);
  return T * f->D + (T + 15) / 16 * 16 + T * (s.width + s.rest);
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

/* Norm and projection of a block of tokens. In last-only inference u and q are needed for output rows only. */
static void project_block(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, int64_t t, int64_t n) {
  const sh_fuxi_conf *f = l->conf;
  shape s = shape_of(l);
  int64_t D = f->D, W = s.width, k = s.u + s.v + s.q; /* first column of k */
  const float *w = sh_param_value(c->params, l->param[UVQK]);
  float *xn = v.xn + t * D, *z = v.z + t * W;
  c->k->rmsnorm(n, D, f->eps, a->in[0] + t * D, D, xn, D, v.rstd + t);
  if (!a->row_token) {
    c->k->gemm(n, W, D, xn, D, w, W, z, W, false);
    for (int64_t i = 0; i < n; i++) {
      c->k->silu(s.u, z + i * W, a->out[0] + (t + i) * s.u);
      c->k->silu(s.rest, z + i * W + s.u, v.vqk + (t + i) * s.rest);
    }
  } else {
    c->k->gemm(n, s.v, D, xn, D, w + s.u, W, z + s.u, W, false);
    if (s.q) c->k->gemm(n, s.q, D, xn, D, w + k, W, z + k, W, false);
    for (int64_t i = 0; i < n; i++) {
      c->k->silu(s.v, z + i * W + s.u, v.vqk + (t + i) * s.rest);
      c->k->silu(s.q, z + i * W + k, v.vqk + (t + i) * s.rest + s.v + s.q);
    }
  }
}

static void project(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, float *q_rows) {
  const sh_fuxi_conf *f = l->conf;
  shape s = shape_of(l);
  int64_t D = f->D, W = s.width;
  const float *w = sh_param_value(c->params, l->param[UVQK]);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(a->T); block++)
    project_block(l, c, a, v, block * SH_TOKEN_BLOCK, sh_block_rows(a->T, block));
  if (!a->row_token) return;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < a->R; r++) {
    const float *xn = v.xn + a->row_token[r] * D;
    float *u = a->out[0] + r * s.u, *q = q_rows + r * s.q;
    c->k->gemm(1, s.u, D, xn, D, w, W, u, s.u, false);
    c->k->silu(s.u, u, u);
    if (!s.q) continue;
    c->k->gemm(1, s.q, D, xn, D, w + s.u + s.v, W, q, s.q, false);
    c->k->silu(s.q, q, q);
  }
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
  sh_heads_io io = {.L = b->offsets[sequence + 1] - b->offsets[sequence],
                    .dv = f->dv,
                    .ldq = (int)s.rest,
                    .ldkv = (int)s.rest,
                    .ldout = (int)s.u,
                    .v = at + h * f->dv};
  if (s.q) io.dqk = f->dqk, io.q = at + s.v + h * f->dqk, io.k = at + s.v + s.q + h * f->dqk;
  return io;
}

static void attend(const sh_layer *l, const sh_ctx *c, const sh_args *a, tape_view v, const float *q_rows) {
  const sh_fuxi_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  int64_t work = work_floats(l, b);
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t i = 0; i < b->B; i++)
    for (int64_t h = 0; h < s.h; h++) {
      sh_heads_io io = head_of(l, b, v.vqk, i, h);
      if (io.L == 0) continue;
      io.out = a->out[1] + (a->row_token ? i : b->offsets[i]) * s.u + h * f->channels * f->dv;
      if (a->row_token) {
        io.query_first = io.L - 1;
        if (s.q) io.ldq = (int)s.q, io.q = q_rows + i * s.q + h * f->dqk;
      }
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
  tape_view v = view(l, a->T, keep);
  project(l, c, a, v, q_rows);
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
static void attend_back(const sh_layer *l, const sh_ctx *c, const float *dout, tape_view v, float *d) {
  const sh_fuxi_conf *f = l->conf;
  const sh_batch *b = c->batch;
  shape s = shape_of(l);
  int64_t work = work_floats(l, b), units = sh_groups(b) * s.h, partial = (f->N + BUCKETS + 15) / 16 * 16;
  float *works = SH_ARENA_NEW(c->scratch, float, work *sh_max_threads());
  float *partials = SH_ARENA_ZNEW(c->scratch, float, partial *units);
  map_grads *grads = SH_ARENA_ZNEW(c->scratch, map_grads, units);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t unit = 0; unit < units; unit++) {
    int64_t group = unit / s.h, h = unit % s.h;
    map_grads *g = grads + unit;
    g->pos = partials + unit * partial, g->ts = g->pos + f->N;
    for (int64_t i = sh_group_first(b, group); i < sh_group_first(b, group + 1); i++) {
      sh_heads_io io = head_of(l, b, v.vqk, i, h);
      if (io.L == 0) continue;
      float *to = d + b->offsets[i] * s.rest;
      io.dout = dout + b->offsets[i] * s.u + h * f->channels * f->dv;
      io.dv_ = to + h * f->dv;
      if (s.q) io.dq = to + s.v + h * f->dqk, io.dk = to + s.v + s.q + h * f->dqk;
      sh_fuxi_maps m = maps_of(l, c, i, g);
      c->k->fuxi_attention_back(&io, &m, (float)f->N, works + work * sh_thread());
    }
  }
  add_map_grads(l, c, grads, units);
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_fuxi_conf *f = l->conf;
  shape s = shape_of(l);
  int64_t D = f->D, W = s.width, T = a->T;
  tape_view v = view(l, T, a->tape);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *dz = SH_ARENA_NEW(c->scratch, float, T *W), *d = SH_ARENA_NEW(c->scratch, float, T *s.rest);
  float *dout = SH_ARENA_NEW(c->scratch, float, T *s.u);
  /* c fed the statistic too: d c = dout + 2 c dstats */
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++) {
    const float *o = a->out[1] + t * s.u, *g = a->dout[1] + t * s.u;
    float twice = 2.f * a->dout[2][t];
    for (int64_t k = 0; k < s.u; k++) dout[t * s.u + k] = g[k] + twice * o[k];
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
      c->k->silu_back(s.rest, v.z + i * W + s.u, d + i * s.rest, dz + i * W + s.u);
    }
    if (!a->din[0]) continue;
    c->k->gemm(n, D, W, dz + t * W, W, wt, D, dxn, D, false);
    c->k->rmsnorm_back(n, D, v.xn + t * D, D, v.rstd + t, dxn, D, a->din[0] + t * D, D, a->add[0]);
  }
  sh_linear_grad(c, T, D, W, v.xn, D, dz, W, sh_param_grad(c->params, l->param[UVQK]), W);
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
