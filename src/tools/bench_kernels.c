/* Each kernel over the tokens of one batch, with all threads, cut as the layers cut it. */
#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "data/time_runs.h"
#include "nn/hstu.h"
#include "nn/linear.h"
#include "nn/loss_pairs.h"
#include "tools/bench_internal.h"
#include "train/step.h"

enum { BUCKETS = SH_TIME_BUCKETS };

typedef struct env {
  const sh_kernels *k;
  sh_ctx c; /* of the batch */
  const sh_batch *b;
  int64_t T, D, W, R, V, N, dqk, dv, rest; /* W: a projection's width; R: references of a token; rest = dv + 2 dqk */
  int ld;                                  /* of rows */
  double pairs;
  float *x, *y, *dy, *rstd; /* [T x D], [T] */
  float *z, *dz, *w;        /* [T x W], [D x W] */
  uint16_t *half;           /* z as precision bf16 keeps it, else NULL */
  float *vqk, *dvqk;        /* [T x rest] */
  float *out, *dout;        /* [T x 3 dv] */
  float *pos, *ts, *grads;  /* [N], [BUCKETS], [threads x (N + BUCKETS)] */
  float *work;
  int64_t work_size;
  float *rows, *row_grad, *m, *v; /* [V x ld] */
  int64_t copy, wide;             /* floats and columns of a copy of a row */
  float *h, *e, *dh, *de, *coef;  /* copies [T x copy], [V x copy]; [T x wide], [V x wide]; [T x R] */
  int32_t *slot, *start;          /* [T x R]; [tiles x (V + 1)] */
  int64_t tile;                   /* sh_pairs_tile */
  sh_share *pair;                 /* [T x R] */
} env;

#define BLOCKS(e)                                                                                                      \
  _Pragma("omp parallel for schedule(static)") for (int64_t block = 0; block < sh_token_blocks((e)->T); block++)
#define T0       (block * SH_TOKEN_BLOCK)
#define NROWS(e) sh_block_rows((e)->T, block)

static void k_gemm(void *arg) {
  env *e = arg;
  sh_arena_mark mark = sh_arena_save(e->c.scratch);
  sh_right w = sh_right_of(&e->c, e->D, e->W, e->w, e->W, false);
  BLOCKS(e) e->k->multiply(NROWS(e), e->x + T0 * e->D, e->D, &w, e->z + T0 * e->W, e->W, false);
  sh_arena_release(e->c.scratch, mark);
}
static void k_weight_grad(void *arg) {
  env *e = arg;
  sh_linear_grad(&e->c, e->T, e->D, e->W, e->x, e->D, e->dz, e->W, e->w, e->W);
}
static void k_layernorm(void *arg) {
  env *e = arg;
  BLOCKS(e) e->k->layernorm(NROWS(e), e->D, 1e-6f, e->x + T0 * e->D, e->D, e->y + T0 * e->D, e->D, e->rstd + T0);
}
static void k_layernorm_back(void *arg) {
  env *e = arg;
  BLOCKS(e)
  e->k->layernorm_back(NROWS(e), e->D, e->x + T0 * e->D, e->D, e->rstd + T0, e->dy + T0 * e->D, e->D, e->y + T0 * e->D,
                       e->D, false);
}
static void k_rmsnorm(void *arg) {
  env *e = arg;
  BLOCKS(e) e->k->rmsnorm(NROWS(e), e->D, 1e-6f, e->x + T0 * e->D, e->D, e->y + T0 * e->D, e->D, e->rstd + T0);
}
static void k_silu(void *arg) {
  env *e = arg;
  BLOCKS(e)
  if (e->half)
    e->k->silu_half(NROWS(e) * e->W, e->z + T0 * e->W, e->half + T0 * e->W, e->dz + T0 * e->W);
  else
    e->k->silu(NROWS(e) * e->W, e->z + T0 * e->W, e->dz + T0 * e->W);
}
static void k_silu_back(void *arg) {
  env *e = arg;
  BLOCKS(e)
  if (e->half)
    e->k->silu_back_half(NROWS(e) * e->W, e->half + T0 * e->W, e->z + T0 * e->W, e->dz + T0 * e->W);
  else
    e->k->silu_back(NROWS(e) * e->W, e->z + T0 * e->W, e->z + T0 * e->W, e->dz + T0 * e->W);
}
static void k_dropout(void *arg) {
  env *e = arg;
  sh_drop d = {.seed = 1, .site = SH_SITE_TEST << 16, .threshold = sh_drop_threshold(0.2), .scale = 1.25f};
  BLOCKS(e)
  for (int64_t t = T0; t < T0 + NROWS(e); t++) sh_drop_row(&e->c, &d, t, 0, e->D, e->x + t * e->D, e->y + t * e->D);
}

/* One head over every sequence. */
typedef void attention_of(env *e, const sh_heads_io *io, int64_t sequence, float *grads, float *work);
static void attend(env *e, bool back, int channels, bool queries, attention_of *f) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < e->b->B; i++) {
    int64_t t = e->b->offsets[i];
    const float *at = e->vqk + t * e->rest;
    float *to = e->dvqk + t * e->rest;
    sh_heads_io io = {.L = e->b->offsets[i + 1] - (int)t,
                      .dqk = queries ? (int)e->dqk : 0,
                      .dv = (int)e->dv,
                      .ldq = (int)e->rest,
                      .ldkv = (int)e->rest,
                      .ldout = channels * (int)e->dv,
                      .q = at + e->dv,
                      .k = at + e->dv + e->dqk,
                      .v = at,
                      .out = e->out + t * channels * e->dv};
    if (io.L == 0) continue;
    if (back) io.dout = e->dout + t * channels * e->dv;
    if (back) io.dv_ = to, io.dq = to + e->dv, io.dk = to + e->dv + e->dqk;
    f(e, &io, i, e->grads + (e->N + BUCKETS) * sh_thread(), e->work + e->work_size * sh_thread());
  }
}
static sh_rel_bias bias_of(const env *e, int64_t i, float *grads) {
  const sh_time_runs *r = &e->b->runs;
  sh_rel_bias b = {.pos = e->pos + e->N - 1, .dpos = grads + e->N - 1};
  if (!r->start) return b;
  b.ts = e->ts, b.dts = grads + e->N;
  b.run_start = r->start + e->b->offsets[i], b.run_end = r->end, b.run_bucket = r->bucket;
  return b;
}
static sh_fuxi_maps maps_of(const env *e, int64_t i, float *grads, int channels) {
  sh_fuxi_maps m = {
      .bias = bias_of(e, i, grads), .channels = channels, .channel_stride = (int)e->dv, .a = .1f, .b = .5f};
  if (channels == 2 && e->b->time)
    m.time = e->b->time + e->b->offsets[i], m.next_time = e->b->next_time + e->b->offsets[i];
  return m;
}
static void hstu_one(env *e, const sh_heads_io *io, int64_t i, float *grads, float *work) {
  sh_rel_bias b = bias_of(e, i, grads);
  if (io->dout)
    e->k->hstu_attention_back(io, &b, (float)e->N, work);
  else
    e->k->hstu_attention(io, &b, (float)e->N, work);
}
static void fuxi_one(env *e, const sh_heads_io *io, int64_t i, float *grads, float *work, int channels) {
  sh_fuxi_maps m = maps_of(e, i, grads, channels);
  double da = 0, db = 0;
  m.da = &da, m.db = &db;
  if (io->dout)
    e->k->fuxi_attention_back(io, &m, (float)e->N, work);
  else
    e->k->fuxi_attention(io, &m, (float)e->N, work);
}
static void fuxi_alpha_one(env *e, const sh_heads_io *io, int64_t i, float *grads, float *work) {
  fuxi_one(e, io, i, grads, work, 3);
}
static void fuxi_beta_one(env *e, const sh_heads_io *io, int64_t i, float *grads, float *work) {
  fuxi_one(e, io, i, grads, work, 2);
}
static void softmax_one(env *e, const sh_heads_io *io, int64_t i, float *grads, float *work) {
  (void)grads;
  sh_drop d = {.seed = 1, .site = SH_SITE_TEST << 16, .threshold = sh_drop_threshold(0.2), .scale = 1.25f};
  float scale = 1.f / sqrtf((float)e->dqk);
  if (io->dout)
    e->k->softmax_attention_back(io, scale, &d, e->b->sample[i], 0, work);
  else
    e->k->softmax_attention(io, scale, &d, e->b->sample[i], 0, work);
}
static void k_hstu(void *e) { attend(e, false, 1, true, hstu_one); }
static void k_hstu_back(void *e) { attend(e, true, 1, true, hstu_one); }
static void k_alpha(void *e) { attend(e, false, 3, true, fuxi_alpha_one); }
static void k_alpha_back(void *e) { attend(e, true, 3, true, fuxi_alpha_one); }
static void k_beta(void *e) { attend(e, false, 2, false, fuxi_beta_one); }
static void k_beta_back(void *e) { attend(e, true, 2, false, fuxi_beta_one); }
static void k_softmax(void *e) { attend(e, false, 1, true, softmax_one); }
static void k_softmax_back(void *e) { attend(e, true, 1, true, softmax_one); }

/* The sampled loss's pieces. */
static void k_sampled(void *arg) {
  env *e = arg;
  BLOCKS(e)
  e->k->sampled_softmax(NROWS(e), e->R, e->wide, 1, 1, e->h + T0 * e->copy, e->e, e->copy, e->slot + T0 * e->R,
                        e->coef + T0 * e->R, e->R, e->dh + T0 * e->wide);
}
static void k_group(void *arg) {
  env *e = arg;
#pragma omp parallel for schedule(static)
  for (int64_t t0 = 0; t0 < e->T; t0 += e->tile)
    sh_pairs_by_row(e->T - t0 < e->tile ? e->T - t0 : e->tile, e->R, e->slot + t0 * e->R, e->coef + t0 * e->R, e->R,
                    e->V, e->start + t0 / e->tile * (e->V + 1), e->pair + t0 * e->R);
}
static void k_pairs(void *arg) {
  env *e = arg;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t r = 0; r < e->V; r += SH_TOKEN_BLOCK)
    for (int64_t t0 = 0; t0 < e->T; t0 += e->tile)
      e->k->pair_sums(e->V - r < SH_TOKEN_BLOCK ? e->V - r : SH_TOKEN_BLOCK, e->wide,
                      e->start + t0 / e->tile * (e->V + 1) + r, e->pair + t0 * e->R, e->h + t0 * e->copy, e->copy,
                      e->de + r * e->wide, e->wide);
}
static void k_adamw(void *arg) {
  env *e = arg;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < e->V; r++) {
    int64_t at = r * e->ld;
    e->k->adamw(e->ld, 1e-3f, .9f, .98f, 1e-8f, 0, .1, .02, 1, e->row_grad + at, e->rows + at, e->m + at, e->v + at);
  }
}

static float *array(env *e, int64_t n) {
  float *x = SH_ARENA_NEW(e->c.scratch, float, n);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) x[i] = (float)(i % 251 - 125) * 0x1p-10f;
  return x;
}

static void fill_env(env *e, const sh_trainer *t) {
  const sh_conf_model *m = &t->conf.model;
  int64_t T = e->T = e->b->T, threads = sh_max_threads(), longest = 0;
  e->k = t->kernels, e->D = t->model.width, e->V = t->data.items, e->N = m->max_len + m->extra_positions;
  e->dqk = m->dqk ? m->dqk : (m->width + m->heads - 1) / m->heads;
  e->dv = m->dv ? m->dv : (m->width + m->heads - 1) / m->heads;
  e->rest = e->dv + 2 * e->dqk, e->W = 2 * m->heads * (e->dqk + e->dv), e->R = t->conf.loss.negatives + 1;
  if (e->R > 1024) e->R = 1024; /* negatives shared by all tokens can be very many */
  e->ld = (int)((e->D + 15) / 16 * 16);
  for (int64_t i = 0; i < e->b->B; i++) {
    int64_t L = e->b->offsets[i + 1] - e->b->offsets[i];
    e->pairs += (double)(L * (L + 1) / 2);
    if (L > longest) longest = L;
  }
  e->x = array(e, T * e->D), e->y = array(e, T * e->D), e->dy = array(e, T * e->D), e->rstd = array(e, T);
  e->z = array(e, T * e->W), e->dz = array(e, T * e->W), e->w = array(e, e->D * e->W);
  if (strcmp(e->k->precision, "fp32") != 0) e->half = (uint16_t *)array(e, (T * e->W + 1) / 2);
  e->vqk = array(e, T * e->rest), e->dvqk = array(e, T * e->rest);
  e->out = array(e, 3 * T * e->dv), e->dout = array(e, 3 * T * e->dv);
  e->pos = array(e, e->N), e->ts = array(e, BUCKETS), e->grads = array(e, threads * (e->N + BUCKETS));
  e->work_size = (sh_attention_work(longest, e->dqk, e->dv) + 15) / 16 * 16;
  e->work = array(e, e->work_size * threads);
  e->rows = array(e, e->V * e->ld), e->row_grad = array(e, e->V * e->ld);
  e->m = array(e, e->V * e->ld), e->v = SH_ARENA_ZNEW(e->c.scratch, float, e->V * e->ld);
  e->copy = sh_copy_floats(e->k, e->D), e->wide = sh_copy_columns(e->k, e->D);
  e->h = array(e, T * e->copy), e->e = array(e, e->V * e->copy);
  e->dh = array(e, T * e->wide), e->de = array(e, e->V * e->wide), e->coef = array(e, T * e->R);
  e->slot = SH_ARENA_NEW(e->c.scratch, int32_t, T * e->R);
  for (int64_t i = 0; i < T * e->R; i++)
    e->slot[i] = (int32_t)sh_below(sh_random4(0, SH_SITE(SH_SITE_TEST, 2), 0, i, 0, 0).v[0], (uint32_t)e->V);
  e->tile = sh_pairs_tile(T, e->R, e->V);
  e->start = SH_ARENA_NEW(e->c.scratch, int32_t, (T + e->tile - 1) / e->tile * (e->V + 1));
  e->pair = SH_ARENA_NEW(e->c.scratch, sh_share, T * e->R);
  k_group(e);
}

static void run_all(sh_bench_state *b, env *e) {
  double T = (double)e->T, D = (double)e->D, W = (double)e->W, R = (double)e->R, V = (double)e->V, ld = e->ld,
         copy = (double)e->copy;
  double f = sizeof(float), qk = (double)e->dqk, v = (double)e->dv, p2 = 2 * e->pairs, one = T * (2 * qk + 2 * v) * f;
  const struct {
    const char *name;
    void (*call)(void *);
    double flops, bytes;
  } all[] = {
      {"projection x W", k_gemm, 2 * T * D * W, f * (T * D + T * W + D * W)},
      {"weight gradient x' dy", k_weight_grad, 2 * T * D * W, f * (T * D + T * W + 2 * D * W)},
      {"layer norm", k_layernorm, 0, f * 2 * T * D},
      {"layer norm backward", k_layernorm_back, 0, f * 3 * T * D},
      {"RMS norm", k_rmsnorm, 0, f * 2 * T * D},
      {"silu", k_silu, 0, f * 2 * T * W},
      {"silu backward", k_silu_back, 0, f * 3 * T * W},
      {"dropout", k_dropout, 0, f * 2 * T * D},
      {"HSTU attention, a head", k_hstu, p2 * (qk + v), one},
      {"HSTU attention backward", k_hstu_back, 2.5 * p2 * (qk + v), 2 * one},
      {"FuXi-alpha attention, a head", k_alpha, p2 * (qk + 3 * v), one + 2 * T * v * f},
      {"FuXi-alpha attention backward", k_alpha_back, 2.5 * p2 * (qk + 3 * v), 2 * one + 4 * T * v * f},
      {"FuXi-beta attention, a head", k_beta, p2 * 2 * v, 3 * T * v * f},
      {"FuXi-beta attention backward", k_beta_back, 2.5 * p2 * 2 * v, 6 * T * v * f},
      {"softmax attention, a head", k_softmax, p2 * (qk + v), one},
      {"softmax attention backward", k_softmax_back, 2.5 * p2 * (qk + v), 2 * one},
      {"sampled loss: softmax and hidden gradients", k_sampled, 4 * T * R * D, f * T * R * copy},
      {"sampled loss: pairs by row", k_group, 0, f * 4 * T * R},
      {"sampled loss: gradients of rows", k_pairs, 2 * T * R * D, f * T * R * copy},
      {"AdamW of table rows", k_adamw, 0, f * 7 * V * ld},
  };
  bool beta = e->b->time != NULL;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    if (!beta && (all[i].call == k_beta || all[i].call == k_beta_back)) continue; /* a function of times */
    sh_barrier(&b->t->grid->world);
    sh_bench_add(b, "kernels", all[i].name, sh_bench_time(all[i].call, e), 0, all[i].flops, all[i].bytes);
  }
}

static void measure(sh_bench_state *b, sh_stage *stage) {
  sh_trainer *t = b->t;
  sh_batch *batch = &stage->batch.micro[0];
  if (t->data.has_time && !batch->runs.start) sh_time_runs_build(batch, &stage->memory);
  sh_arena memory;
  sh_arena_init(&memory, "bench");
  env e = {.b = batch, .c = {.batch = batch, .scratch = &memory, .k = t->kernels, .train = true}};
  fill_env(&e, t);
  char title[64];
  snprintf(title, sizeof title, "kernels, %lld tokens", (long long)batch->T);
  sh_bench_title(b, title);
  run_all(b, &e);
  sh_arena_free(&memory);
}

sh_status sh_bench_kernels(sh_bench_state *b) {
  sh_trainer *t = b->t;
  sh_stage stage;
  sh_bench_stage_init(t, &stage);
  sh_status status = sh_step_read(t, &stage, 0, 0, 0);
  if (status == SH_OK) measure(b, &stage);
  sh_bench_stage_free(&stage);
  return status;
}
