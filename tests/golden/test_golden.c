/* Golden vectors: every group of every {hstu,sasrec,fuxi_alpha,fuxi_beta}*.h5 under tests/golden/vectors (ours, made by
 * make_vectors.py) and under $SHOAL_TEST_DATA/golden (computed by the authors' code), float64, against our float path
 * with every kernel table: layers, hidden states, logits, loss, gradients, three optimiser steps, evaluation.
 *
 * Errors are relative to the largest entry of each array: <= 2e-5 with the reference kernels, <= 1e-4 with all others.
 * Exceptions, from the properties of the mathematics, not of this code:
 *  - SASRec's key bias has true gradient 0: Adam divides rounding noise by itself, so its values after a step are
 * noise;
 *  - FuXi-beta's two scalars a and b of the time function: their gradients are sums that cancel, so their errors are
 *    relative to the sum of absolute terms, which the file does not hold; checked in two_scalars() below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/time_runs.h"
#include "golden/golden_model.h"
#include "nn/loss.h"
#include "nn/loss_rows.h"
#include "support/close.h"

typedef struct run {
  sh_golden_model g;
  sh_golden_batch in;
  sh_rows rows;
  sh_ctx ctx;
  sh_pass pass;
  sh_close_report report;
  double tolerance;
  int step;
} run;

static double *widened(sh_arena *a, int64_t n, const float *x) {
  double *out = SH_ARENA_NEW(a, double, n);
  for (int64_t i = 0; i < n; i++) out[i] = (double)x[i];
  return out;
}

/* Values of a slot, or NULL when the model has none of that name. */
static const float *slot_value(const run *r, int block, const char *name, int *width) {
  char full[SH_PARAM_NAME];
  snprintf(full, sizeof full, "block.%d.%s", block, name);
  const sh_model *m = &r->g.model;
  for (int s = 0; s < m->nslots; s++)
    if (!strcmp(m->slot[s].name, full)) {
      *width = m->slot[s].width;
      return r->pass.value[s];
    }
  return NULL;
}

/* Compare our [T x width] floats with layer{block}/name, which is jagged, or padded when it has three dimensions. */
static void check_layer(run *r, int block, const char *name, const double *got) {
  sh_arena *a = &r->g.step;
  if (!sh_golden_has(r->g.group, "f64/step%d/layer%d/%s", r->step, block, name)) {
    sh_close_fail(&r->report, "f64/step%d/layer%d/%s is missing", r->step, block, name);
    return;
  }
  sh_golden_array want = sh_golden_read(r->g.group, a, "f64/step%d/layer%d/%s", r->step, block, name);
  int64_t T = r->in.batch.T, n = want.ndim == 3 ? T * want.dim[2] : want.n;
  sh_close_check(&r->report, r->tolerance, "layer", n, got,
                 want.ndim == 3 ? sh_golden_jagged(&r->in, &want, a) : want.v, "step%d layer%d %s", r->step, block,
                 name);
}

/* Norm over the last dimension, in double, of a slot's floats. */
static double *normed(run *r, int64_t width, bool centre, double eps, const double *x) {
  int64_t T = r->in.batch.T;
  double *out = SH_ARENA_NEW(&r->g.step, double, T *width);
  for (int64_t t = 0; t < T; t++) {
    double mean = 0, sq = 0;
    for (int64_t k = 0; k < width && centre; k++) mean += x[t * width + k] / (double)width;
    for (int64_t k = 0; k < width; k++) sq += (x[t * width + k] - mean) * (x[t * width + k] - mean) / (double)width;
    for (int64_t k = 0; k < width; k++) out[t * width + k] = (x[t * width + k] - mean) / sqrt(sq + eps);
  }
  return out;
}

/* The attention output with its norm taken from the statistics slot as the layer takes it, and the gated product. */
static void check_gated(run *r, int block, const char *attention, const char *product, bool centre) {
  sh_arena *a = &r->g.step;
  int width = 0, wide = 0;
  const float *o = slot_value(r, block, attention, &width), *u = slot_value(r, block, "u", &wide);
  const float *stats = slot_value(r, block, "stats", &wide);
  int64_t T = r->in.batch.T;
  bool concat = r->g.conf.model.concat_ua;
  double *norm = SH_ARENA_NEW(a, double, T *width), *y = SH_ARENA_NEW(a, double, T *width *(concat ? 3 : 1)), *to = y;
  for (int64_t t = 0; t < T; t++) {
    double mean = centre ? (double)stats[t * wide] / width : 0;
    double rstd = 1 / sqrt((double)stats[t * wide + wide - 1] / width - mean * mean + 1e-6), *n = norm + t * width;
    for (int k = 0; k < width; k++) n[k] = ((double)o[t * width + k] - mean) * rstd;
    for (int k = 0; k < width && concat; k++) *to++ = (double)u[t * width + k];
    for (int k = 0; k < width && concat; k++) *to++ = n[k];
    for (int k = 0; k < width; k++) *to++ = (double)u[t * width + k] * n[k];
  }
  check_layer(r, block, "attn_output_jagged", widened(a, T * width, o));
  check_layer(r, block, "attn_output_normed_jagged", norm);
  check_layer(r, block, product, y);
}

static double *difference(run *r, int64_t n, const double *x, const double *y) {
  double *out = SH_ARENA_NEW(&r->g.step, double, n);
  for (int64_t i = 0; i < n; i++) out[i] = x[i] - y[i];
  return out;
}

/* All arrays of a block that our slots hold; what lies inside a layer is covered by what it makes of it. */
static void check_block(run *r, int block, const float *input) {
  int D = r->g.D, width;
  int64_t n = r->in.batch.T * D;
  sh_arena *a = &r->g.step;
  const float *out = slot_value(r, block, "out", &width);
  if (!strcmp(r->g.kind, "SASRec")) {
    double *h = widened(a, n, slot_value(r, block, "h", &width)), *x = widened(a, n, input);
    check_layer(r, block, "mha_output", difference(r, n, h, normed(r, D, true, 1e-8, x)));
    check_layer(r, block, "ffn_input", normed(r, D, true, 1e-8, h));
    check_layer(r, block, "output", widened(a, n, out));
  } else if (!strcmp(r->g.kind, "HSTU")) {
    check_gated(r, block, "o", "o_input_jagged", true);
    check_layer(r, block, "output_jagged", widened(a, n, out));
  } else {
    double *o = widened(a, n, slot_value(r, block, "o", &width));
    check_gated(r, block, "c", "lin0_input_jagged", false);
    check_layer(r, block, "lin0_output_jagged", difference(r, n, o, widened(a, n, input)));
    check_layer(r, block, "output_jagged", out ? widened(a, n, out) : o);
    if (out) check_layer(r, block, "ffn_input_jagged", normed(r, D, false, 1e-6, o));
  }
}

/* Time buckets of the runs against the file's, key by key. */
static void check_runs(run *r) {
  const sh_batch *b = &r->in.batch;
  if (!b->runs.start) return;
  sh_golden_array want = sh_golden_ints(r->g.group, &r->g.step, "f64/step%d/layer0/time_buckets", r->step);
  for (int64_t t = 0; t < b->T; t++) {
    int64_t row = (b->sequence[t] * r->in.width + b->position[t]) * r->in.width;
    int32_t at = b->runs.start[t];
    for (int32_t j = 0; j <= b->position[t]; j++) {
      while (at < b->runs.start[t + 1] && b->runs.end[at] <= j) at++;
      int bucket = at < b->runs.start[t + 1] ? b->runs.bucket[at] : -1;
      if (bucket != want.ints[row + j])
        sh_close_fail(&r->report, "step%d: time bucket of token %lld and key %d is %d, expected %lld", r->step,
                      (long long)t, j, bucket, (long long)want.ints[row + j]);
    }
  }
}

static void check_forward(run *r) {
  sh_arena *a = &r->g.step;
  const sh_model *m = &r->g.model;
  int D = r->g.D;
  int64_t n = r->in.batch.T * D;
  sh_golden_array want = sh_golden_read(r->g.group, a, "f64/step%d/input_embeddings_after_preproc", r->step);
  sh_close_check(&r->report, r->tolerance, "input", n, widened(a, n, r->pass.value[0]),
                 sh_golden_jagged(&r->in, &want, a), "step%d", r->step);
  const float *input = r->pass.value[0];
  for (int block = 0; block < r->g.conf.model.layers; block++) {
    int width;
    check_block(r, block, input);
    input = slot_value(r, block, "out", &width);
    if (!input) input = slot_value(r, block, "o", &width);
  }
  assert_ptr_equal(input, r->pass.value[m->output]);
}

/* Final hidden states after normalisation, logits of positives and negatives, loss. */
static void check_output(run *r, const float *hidden, double loss) {
  sh_arena *a = &r->g.step;
  int64_t T = r->in.batch.T, D = r->g.D, ld = r->g.ld, R = r->in.R;
  float eps = (float)r->g.conf.loss.l2_eps;
  float *y = SH_ARENA_NEW(a, float, T *ld), *e = SH_ARENA_NEW(a, float, r->g.items *ld);
  float *length = SH_ARENA_NEW(a, float, T + r->g.items), *logit = SH_ARENA_NEW(a, float, R + 1);
  sh_normalise_rows(T, (int)D, true, eps, hidden, D, y, ld, length);
  sh_normalise_rows(r->g.items, (int)D, true, eps, r->rows.value, ld, e, ld, length);
  double *tight = SH_ARENA_NEW(a, double, T *D);
  double *positive = SH_ARENA_NEW(a, double, T), *negative = SH_ARENA_NEW(a, double, T *R);
  for (int64_t t = 0; t < T; t++) {
    for (int64_t k = 0; k < D; k++) tight[t * D + k] = (double)y[t * ld + k];
    r->g.kernels->gather_dots(R + 1, ld, y + t * ld, e, ld, r->in.reference + t * (R + 1), logit);
    positive[t] = (double)logit[0];
    for (int64_t j = 0; j < R; j++) negative[t * R + j] = (double)logit[j + 1];
  }
  sh_golden_array want = sh_golden_read(r->g.group, a, "f64/step%d/seq_embeddings", r->step);
  sh_close_check(&r->report, r->tolerance, "hidden", T * D, tight, sh_golden_jagged(&r->in, &want, a), "step%d",
                 r->step);
  want = sh_golden_read(r->g.group, a, "f64/step%d/pos_logits_before_temperature", r->step);
  sh_close_check(&r->report, r->tolerance, "logits", T, positive, want.v, "step%d positive", r->step);
  want = sh_golden_read(r->g.group, a, "f64/step%d/neg_logits_before_temperature", r->step);
  sh_close_check(&r->report, r->tolerance, "logits", T * R, negative, want.v, "step%d negative", r->step);
  want = sh_golden_read(r->g.group, a, "f64/step%d/loss", r->step);
  sh_close_check(&r->report, r->tolerance, "loss", 1, &loss, want.v, "step%d", r->step);
}

/* The file holds the gradient of y = x / |x|; ours is that of x: (dy - y (dy . y)) / |x|. */
static void check_hidden_gradient(run *r, const float *dhidden) {
  sh_arena *a = &r->g.step;
  int64_t T = r->in.batch.T, D = r->g.D;
  int last = (int)r->g.conf.model.layers - 1;
  bool sasrec = !strcmp(r->g.kind, "SASRec");
  sh_golden_array x =
      sh_golden_read(r->g.group, a, "f64/step%d/layer%d/%s", r->step, last, sasrec ? "output" : "output_jagged");
  sh_golden_array y = sh_golden_read(r->g.group, a, "f64/step%d/seq_embeddings", r->step);
  sh_golden_array dy = sh_golden_read(r->g.group, a, "f64/step%d/grad_seq_embeddings", r->step);
  double *xs = sasrec ? sh_golden_jagged(&r->in, &x, a) : x.v, *ys = sh_golden_jagged(&r->in, &y, a);
  double *want = sh_golden_jagged(&r->in, &dy, a);
  for (int64_t t = 0; t < T; t++) {
    double sq = 0, along = 0;
    for (int64_t k = t * D; k < (t + 1) * D; k++) sq += xs[k] * xs[k], along += ys[k] * want[k];
    double length = sqrt(sq) > 1e-6 ? sqrt(sq) : 1e-6;
    if (length > sqrt(sq)) along = 0; /* a clamped length does not move */
    for (int64_t k = t * D; k < (t + 1) * D; k++) want[k] = (want[k] - ys[k] * along) / length;
  }
  sh_close_check(&r->report, r->tolerance, "dhidden", T * D, widened(a, T * D, dhidden), want, "step%d", r->step);
}

static bool scalar_of_time(const char *name) {
  return strstr(name, "._pow_") != NULL || strstr(name, "._exp_") != NULL;
}

/* grads, exp_avg, exp_avg_sq or params_after of every parameter. */
static void check_states(run *r, const char *what, int state) {
  sh_golden_model *g = &r->g;
  for (int i = 0; i < g->names.n; i++) {
    const char *name = g->names.name[i];
    int64_t n;
    double *got = sh_golden_state(g, name, state, &g->step, &n);
    sh_golden_array want = sh_golden_read(g->group, &g->step, "f64/step%d/%s/%s", r->step, what, name);
    assert_int_equal(n, want.n);
    if (state == SH_GOLDEN_VALUE && strstr(name, ".in_proj_bias"))
      memcpy(got + g->D, want.v + g->D, sizeof(double) * (size_t)g->D); /* the key bias */
    char kind[32];
    snprintf(kind, sizeof kind, "%s%s", what, scalar_of_time(name) ? "(a,b)" : "");
    sh_close_check(&r->report, r->tolerance, kind, n, got, want.v, "step%d %s", r->step, name);
  }
}

static void begin(run *r, int step, bool train) {
  sh_golden_model *g = &r->g;
  sh_arena_reset(&g->step);
  r->step = step;
  sh_golden_batch_read(g, step, &r->in);
  memset(g->dense[SH_GOLDEN_GRAD], 0, sizeof(float) * (size_t)g->model.params.block);
  memset(g->table[SH_GOLDEN_GRAD], 0, sizeof(float) * (size_t)(g->items * g->ld));
  r->rows = (sh_rows){.ld = (int)g->ld,
                      .nslots = g->items,
                      .value = g->table[SH_GOLDEN_VALUE],
                      .grad = g->table[SH_GOLDEN_GRAD],
                      .slot = r->in.slot};
  r->ctx = (sh_ctx){.batch = &r->in.batch,
                    .params = &g->model.params,
                    .rows = &r->rows,
                    .scratch = &g->scratch,
                    .train = train,
                    .k = g->kernels,
                    .when = (uint32_t)step};
}

static void train_step(run *r, int step) {
  sh_golden_model *g = &r->g;
  begin(r, step, true);
  int64_t T = r->in.batch.T;
  float *hidden = sh_model_forward(&g->model, &r->ctx, false, &g->step, &r->pass);
  float *dhidden = SH_ARENA_NEW(&g->step, float, T * g->D);
  sh_loss_args loss = {.conf = &g->conf.loss,
                       .T = T,
                       .D = g->D,
                       .hidden = hidden,
                       .dhidden = dhidden,
                       .rows = &r->rows,
                       .reference = r->in.reference,
                       .R = r->in.R,
                       .scale = 1.0 / (double)T};
  double value = sh_loss_sampled(&loss, &r->ctx) / (double)T;
  check_runs(r);
  check_forward(r);
  check_output(r, hidden, value);
  check_hidden_gradient(r, dhidden);
  sh_model_backward(&g->model, &r->ctx, &r->pass, dhidden, &g->step, NULL, NULL);
  check_states(r, "grads", SH_GOLDEN_GRAD);
  sh_golden_adamw(g, step + 1);
  check_states(r, "exp_avg", SH_GOLDEN_M);
  check_states(r, "exp_avg_sq", SH_GOLDEN_V);
  check_states(r, "params_after", SH_GOLDEN_VALUE);
}

/* User vectors of inputs0 after three steps, by the last-token pass and by the full one. [B x ld], normalised. */
static float *user_vectors(run *r, bool last_only) {
  sh_golden_model *g = &r->g;
  sh_arena *a = &g->step;
  int64_t B = r->in.batch.B, D = g->D;
  float *hidden = sh_model_forward(&g->model, &r->ctx, last_only, a, &r->pass), *last = hidden;
  if (!last_only) {
    last = SH_ARENA_NEW(a, float, B *D);
    for (int64_t b = 0; b < B; b++)
      memcpy(last + b * D, hidden + (r->in.batch.offsets[b + 1] - 1) * D, sizeof(float) * (size_t)D);
  }
  float *users = SH_ARENA_NEW(a, float, B * g->ld), *length = SH_ARENA_NEW(a, float, B);
  sh_normalise_rows(B, (int)D, true, (float)g->conf.loss.l2_eps, last, D, users, g->ld, length);
  double *tight = SH_ARENA_NEW(a, double, B *D);
  for (int64_t b = 0; b < B; b++)
    for (int64_t k = 0; k < D; k++) tight[b * D + k] = (double)users[b * g->ld + k];
  sh_golden_array want = sh_golden_read(g->group, a, "f64/eval/user_embeddings");
  sh_close_check(&r->report, r->tolerance, "eval", want.n, tight, want.v, "user_embeddings, %s",
                 last_only ? "last token only" : "all tokens");
  return users;
}

/* Scores of all candidates, and the target's rank: 1 + better ones + equal ones with a smaller id. */
static void check_ranks(run *r, const float *users, const float *e, const int32_t *slot, int64_t items) {
  sh_golden_model *g = &r->g;
  sh_arena *a = &g->step;
  sh_golden_array id = sh_golden_ints(g->group, a, "f64/eval/topk_ids");
  sh_golden_array score = sh_golden_read(g->group, a, "f64/eval/topk_scores");
  sh_golden_array rank = sh_golden_ints(g->group, a, "f64/eval/rank");
  sh_golden_array target = sh_golden_ints(g->group, a, "inputs0/target_ids");
  float *out = SH_ARENA_NEW(a, float, items), *by_id = SH_ARENA_ZNEW(a, float, g->items);
  double *got = SH_ARENA_NEW(a, double, score.n);
  for (int64_t b = 0; b < r->in.batch.B; b++) {
    int64_t n = score.dim[1], mine = 1;
    g->kernels->gather_dots(items, g->ld, users + b * g->ld, e, g->ld, slot, out);
    for (int64_t i = 0; i < items; i++) by_id[slot[i]] = out[i];
    for (int64_t i = 0; i < n; i++) got[b * n + i] = (double)by_id[id.ints[b * n + i]];
    for (int64_t i = 0; i < items; i++)
      mine += by_id[slot[i]] > by_id[target.ints[b]] ||
              (by_id[slot[i]] == by_id[target.ints[b]] && slot[i] < target.ints[b]);
    if (mine != rank.ints[b])
      sh_close_fail(&r->report, "eval: rank of user %lld is %lld, expected %lld", (long long)b, (long long)mine,
                    (long long)rank.ints[b]);
  }
  sh_close_check(&r->report, r->tolerance, "eval", score.n, got, score.v, "scores");
}

static void evaluate(run *r) {
  sh_golden_model *g = &r->g;
  sh_arena *a = &g->step;
  begin(r, 0, false);
  user_vectors(r, false);
  float *users = user_vectors(r, true);
  sh_golden_array ids = sh_golden_ints(g->group, a, "all_item_ids");
  int32_t *slot = SH_ARENA_NEW(a, int32_t, ids.n);
  float *e = SH_ARENA_NEW(a, float, g->items * g->ld), *length = SH_ARENA_NEW(a, float, g->items);
  sh_normalise_rows(g->items, g->D, true, (float)g->conf.loss.l2_eps, g->table[SH_GOLDEN_VALUE], g->ld, e, g->ld,
                    length);
  double *tight = SH_ARENA_NEW(a, double, ids.n * g->D);
  for (int64_t i = 0; i < ids.n; i++) {
    slot[i] = (int32_t)ids.ints[i];
    for (int64_t k = 0; k < g->D; k++) tight[i * g->D + k] = (double)e[slot[i] * g->ld + k];
  }
  sh_golden_array want = sh_golden_read(g->group, a, "f64/eval/item_embeddings_normalised");
  sh_close_check(&r->report, r->tolerance, "eval", want.n, tight, want.v, "item_embeddings_normalised");
  check_ranks(r, users, e, slot, ids.n);
}

/* One case: a file and a group of it, with every kernel table. */
typedef struct golden_case {
  char title[160], path[512], group[SH_GOLDEN_NAME];
} golden_case;

static void test_case(void **state) {
  const golden_case *c = *state;
  const char *kernels[8];
  int failed = 0, n = sh_kernels_available(kernels);
  hid_t file = sh_golden_open(c->path), group = H5Gopen2(file, c->group, H5P_DEFAULT);
  static run r;
  for (int k = 0; k < n; k++) {
    r = (run){.tolerance = strcmp(kernels[k], "ref") ? 1e-4 : 2e-5};
    sh_golden_model_open(&r.g, group, sh_kernels_named(kernels[k]));
    for (int step = 0; step < 3; step++) train_step(&r, step);
    evaluate(&r);
    char title[192];
    snprintf(title, sizeof title, "  %-8s", kernels[k]);
    sh_close_print(&r.report, stdout, title);
    failed += r.report.failed;
    sh_golden_model_close(&r.g);
  }
  H5Gclose(group);
  H5Fclose(file);
  assert_int_equal(failed, 0);
}

/* Integer bounds of the time buckets: ours, and that a bound is the first time of its bucket. */
static void test_bucket_bounds(void **state) {
  (void)state;
  for (int b = 1; b <= 128; b++) {
    int64_t bound = sh_time_bucket_bound[b - 1];
    assert_true(sh_time_bucket(bound) >= b && sh_time_bucket(-bound) >= b && sh_time_bucket(bound - 1) < b);
  }
  assert_int_equal(sh_time_bucket(0), 0);
  assert_int_equal(sh_time_bucket(INT64_MAX), 128);
  assert_int_equal(sh_time_bucket(INT64_MIN), 128);
}

static void test_bucket_bounds_of_file(void **state) {
  const golden_case *c = *state;
  sh_arena a;
  sh_arena_init(&a, "bounds");
  hid_t file = sh_golden_open(c->path);
  sh_golden_array want = sh_golden_ints(file, &a, "bucket_lower_bound_f32");
  assert_int_equal(want.n, 128);
  for (int b = 0; b < 128; b++) assert_int_equal(sh_time_bucket_bound[b], want.ints[b]);
  H5Fclose(file);
  sh_arena_free(&a);
}

static void test_skipped(void **state) {
  (void)state;
  fprintf(stderr,
          "\n*** SKIPPED: the vectors of the authors' code are not checked. Set SHOAL_TEST_DATA to the folder that "
          "holds golden/. ***\n\n");
  skip();
}

static void test_none_found(void **state) {
  const golden_case *c = *state;
  fail_msg("no {hstu,sasrec,fuxi_alpha,fuxi_beta}*.h5 in %s", c->path);
}

enum { CASES = 512 };
static struct CMUnitTest tests[CASES];
static size_t ntests;

static golden_case *add(CMUnitTestFunction function, const char *path, const char *group, const char *title) {
  if (ntests == CASES) abort();
  golden_case *c = sh_calloc(1, sizeof *c);
  snprintf(c->title, sizeof c->title, "%s", title);
  snprintf(c->path, sizeof c->path, "%s", path);
  snprintf(c->group, sizeof c->group, "%s", group);
  tests[ntests++] = (struct CMUnitTest){.name = c->title, .test_func = function, .initial_state = c};
  return c;
}

static int is_golden(const struct dirent *entry) {
  static const char *const prefix[] = {"hstu", "sasrec", "fuxi_alpha", "fuxi_beta"};
  size_t length = strlen(entry->d_name);
  if (length < 3 || strcmp(entry->d_name + length - 3, ".h5")) return 0;
  for (int i = 0; i < 4; i++)
    if (!strncmp(entry->d_name, prefix[i], strlen(prefix[i]))) return 1;
  return 0;
}

/* A test for each group of each file of a folder. */
static void add_folder(const char *folder) {
  struct dirent **entries;
  int n = scandir(folder, &entries, is_golden, alphasort);
  if (n <= 0) add(test_none_found, folder, "", folder);
  for (int i = 0; i < n; i++) {
    char path[512], title[160];
    snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
    sh_arena a;
    sh_arena_init(&a, "names");
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    sh_golden_names groups = {0};
    if (file >= 0) groups = sh_golden_list(file, &a, true, "/");
    if (groups.n == 0) add(test_none_found, path, "", path);
    snprintf(title, sizeof title, "%s: bucket bounds", entries[i]->d_name);
    if (file >= 0 && sh_golden_has(file, "bucket_lower_bound_f32")) add(test_bucket_bounds_of_file, path, "", title);
    for (int g = 0; g < groups.n; g++) {
      snprintf(title, sizeof title, "%s: %s", entries[i]->d_name, groups.name[g]);
      add(test_case, path, groups.name[g], title);
    }
    if (file >= 0) H5Fclose(file);
    sh_arena_free(&a);
    free(entries[i]);
  }
  if (n >= 0) free(entries);
}

int main(void) {
  const char *data = getenv("SHOAL_TEST_DATA");
  char folder[512];
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  add(test_bucket_bounds, "", "", "time bucket bounds");
  add_folder(SHOAL_SOURCE "/tests/golden/vectors");
  if (data && *data) {
    snprintf(folder, sizeof folder, "%s/golden", data);
    add_folder(folder);
  } else {
    add(test_skipped, "", "", "vectors of the authors' code");
  }
  return _cmocka_run_group_tests("golden", tests, ntests, NULL, NULL);
}
