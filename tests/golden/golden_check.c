#include "golden/golden_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs the above */
#include <cmocka.h>

#include "nn/fuxi.h"
#include "nn/loss.h"
#include "nn/loss_rows.h"

static double *widened(sh_arena *a, int64_t n, const float *x) {
  double *out = SH_ARENA_NEW(a, double, n);
  for (int64_t i = 0; i < n; i++) out[i] = (double)x[i];
  return out;
}

/* A block's slot by name, or -1. */
static int slot_index(const sh_golden_run *r, int block, const char *name) {
  char full[SH_PARAM_NAME];
  snprintf(full, sizeof full, "block.%d.%s", block, name);
  for (int s = 0; s < r->g.model.nslots; s++)
    if (!strcmp(r->g.model.slot[s].name, full)) return s;
  return -1;
}

/* What the last forward pass left in it; NULL when the model has no such slot. */
static const float *slot_value(const sh_golden_run *r, int block, const char *name) {
  int s = slot_index(r, block, name);
  return s < 0 ? NULL : r->pass.value[s];
}

/* Compare our [T x width] floats with layer{block}/name, which is jagged, or padded when it has three dimensions. */
static void check_layer(sh_golden_run *r, int block, const char *name, const double *got) {
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
static double *normed(sh_golden_run *r, int64_t width, bool centre, double eps, const double *x) {
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

/* The attention output, its norm, and the gated product. */
static void check_gated(sh_golden_run *r, int block, const char *attention, const char *product, bool centre) {
  sh_arena *a = &r->g.step;
  const float *o = slot_value(r, block, attention), *u = slot_value(r, block, "u");
  int width = r->g.model.slot[slot_index(r, block, attention)].width;
  int64_t T = r->in.batch.T;
  bool concat = r->g.conf.model.concat_ua;
  double *wide = widened(a, T * width, o), *norm = normed(r, width, centre, 1e-6, wide);
  double *y = SH_ARENA_NEW(a, double, T *width *(concat ? 3 : 1)), *to = y;
  for (int64_t t = 0; t < T; t++) {
    for (int k = 0; k < width && concat; k++) *to++ = (double)u[t * width + k];
    for (int k = 0; k < width && concat; k++) *to++ = norm[t * width + k];
    for (int k = 0; k < width; k++) *to++ = (double)u[t * width + k] * norm[t * width + k];
  }
  check_layer(r, block, "attn_output_jagged", wide);
  check_layer(r, block, "attn_output_normed_jagged", norm);
  check_layer(r, block, product, y);
}

static double *difference(sh_golden_run *r, int64_t n, const double *x, const double *y) {
  double *out = SH_ARENA_NEW(&r->g.step, double, n);
  for (int64_t i = 0; i < n; i++) out[i] = x[i] - y[i];
  return out;
}

/* All arrays of a block that our slots hold; what lies inside a layer is covered by what it makes of it. */
static void check_block(sh_golden_run *r, int block, const float *input) {
  int D = r->g.D;
  int64_t n = r->in.batch.T * D;
  sh_arena *a = &r->g.step;
  const float *out = slot_value(r, block, "out");
  if (!strcmp(r->g.kind, "SASRec")) {
    double *h = widened(a, n, slot_value(r, block, "h")), *x = widened(a, n, input);
    check_layer(r, block, "mha_output", difference(r, n, h, normed(r, D, true, 1e-8, x)));
    check_layer(r, block, "ffn_input", normed(r, D, true, 1e-8, h));
    check_layer(r, block, "output", widened(a, n, out));
  } else if (!strcmp(r->g.kind, "HSTU")) {
    check_gated(r, block, "o", "o_input_jagged", true);
    check_layer(r, block, "output_jagged", widened(a, n, out));
  } else {
    double *o = widened(a, n, slot_value(r, block, "o"));
    check_gated(r, block, "c", "lin0_input_jagged", false);
    check_layer(r, block, "lin0_output_jagged", difference(r, n, o, widened(a, n, input)));
    check_layer(r, block, "output_jagged", out ? widened(a, n, out) : o);
    if (out) check_layer(r, block, "ffn_input_jagged", normed(r, D, false, 1e-6, o));
  }
}

/* Time buckets of the runs against the file's, key by key. */
static void check_runs(sh_golden_run *r) {
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

static void check_forward(sh_golden_run *r) {
  sh_arena *a = &r->g.step;
  const sh_model *m = &r->g.model;
  int D = r->g.D;
  int64_t n = r->in.batch.T * D;
  sh_golden_array want = sh_golden_read(r->g.group, a, "f64/step%d/input_embeddings_after_preproc", r->step);
  sh_close_check(&r->report, r->tolerance, "input", n, widened(a, n, r->pass.value[0]),
                 sh_golden_jagged(&r->in, &want, a), "step%d", r->step);
  const float *input = r->pass.value[0];
  for (int block = 0; block < r->g.conf.model.layers; block++) {
    check_block(r, block, input);
    input = slot_value(r, block, "out");
    if (!input) input = slot_value(r, block, "o");
  }
  assert_ptr_equal(input, r->pass.value[m->output]);
}

/* Final hidden states after normalisation, logits of positives and negatives, loss. */
static void check_output(sh_golden_run *r, const float *hidden, double loss) {
  sh_arena *a = &r->g.step;
  int64_t T = r->in.batch.T, D = r->g.D, ld = r->g.ld, R = r->in.R;
  float eps = (float)r->g.conf.loss.l2_eps;
  float *y = SH_ARENA_NEW(a, float, T *ld), *e = SH_ARENA_NEW(a, float, r->g.items *ld);
  float *length = SH_ARENA_NEW(a, float, T + r->g.items), *logit = SH_ARENA_NEW(a, float, R + 1);
  sh_normalise_rows(r->g.kernels, T, (int)D, true, eps, hidden, D, y, ld, length);
  sh_normalise_rows(r->g.kernels, r->g.items, (int)D, true, eps, r->rows.value, ld, e, ld, length);
  double *tight = SH_ARENA_NEW(a, double, T *D);
  double *positive = SH_ARENA_NEW(a, double, T), *negative = SH_ARENA_NEW(a, double, T *R);
  for (int64_t t = 0; t < T; t++) {
    for (int64_t k = 0; k < D; k++) tight[t * D + k] = (double)y[t * ld + k];
    for (int64_t j = 0; j <= R; j++)
      logit[j] = r->g.kernels->dot(ld, y + t * ld, e + r->in.reference[t * (R + 1) + j] * ld);
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
static void check_hidden_gradient(sh_golden_run *r, const float *dhidden) {
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

/* FuXi-beta: sums over pairs and heads of the absolute terms of the gradients of a and b. Head h of a pair adds
 * (dc_i . v_j) df/da; dc is the gradient of the time channel, also through the norm's statistics. */
static void scalar_terms(sh_golden_run *r, int block, const float *input, double sum[2]) {
  const sh_golden_model *g = &r->g;
  const sh_batch *b = &r->in.batch;
  sh_arena *arena = &r->g.step;
  int64_t D = g->D, dv = g->conf.model.dv, width = g->H * dv, columns = 3 * width;
  char name[SH_GOLDEN_NAME];
  snprintf(name, sizeof name, "block.%d.uvqk", block);
  const float *w = sh_param_value(&g->model.params, sh_params_find(&g->model.params, name));
  const char *function = g->conf.model.time_function;
  double ab[2];
  for (int k = 0; k < 2; k++) {
    snprintf(name, sizeof name, "block.%d.%s_%c", block, function, 'a' + k);
    ab[k] = (double)*sh_param_value(&g->model.params, sh_params_find(&g->model.params, name));
  }
  int c = slot_index(r, block, "c"), stats = slot_index(r, block, "stats");
  assert_int_equal(g->model.slot[stats].width, 1);
  double *xn = normed(r, D, false, 1e-6, widened(arena, b->T * D, input));
  double *v = SH_ARENA_NEW(arena, double, b->T *width);
  for (int64_t t = 0; t < b->T; t++)
    for (int64_t n = 0; n < width; n++) {
      double z = 0;
      for (int64_t k = 0; k < D; k++) z += xn[t * D + k] * (double)w[k * columns + 2 * width + n];
      v[t * width + n] = z / (1 + exp(-z));
    }
  sum[0] = sum[1] = 0;
  for (int64_t i = 0; i < b->T; i++)
    for (int64_t j = b->offsets[b->sequence[i]]; j <= i; j++) {
      double x = b->next_time[i] > b->time[j] ? (double)(b->next_time[i] - b->time[j]) : 0, da, db;
      if (!strcmp(function, "exp"))
        da = exp(-exp(ab[1]) * x), db = ab[0] * exp(ab[1]) * x * da;
      else
        da = pow(1 + x, -ab[1]), db = ab[0] * log(1 + x) * da;
      for (int64_t h = 0; h < g->H; h++) {
        double dot = 0;
        for (int64_t k = 0; k < dv; k++) {
          int64_t at = i * 2 * width + (2 * h + 1) * dv + k; /* position, then time */
          double dc = (double)r->pass.grad[c][at] + 2 * (double)r->pass.value[c][at] * (double)r->pass.grad[stats][i];
          dot += dc * v[j * width + h * dv + k];
        }
        sum[0] += fabs(dot * da), sum[1] += fabs(dot * db);
      }
    }
}

/* The scalar a (0) or b (1) that `name` is, and its block; -1: none. */
static int scalar_of_time(const char *name, int *block) {
  const char *at = strstr(name, "_layers."), *end = strstr(name, "._pow_");
  if (!end) end = strstr(name, "._exp_");
  if (!at || !end) return -1;
  *block = atoi(at + strlen("_layers."));
  return end[strlen("._pow_")] - 'a';
}

/* A gradient's scale is the sum of absolute terms; those of the moments follow by recursion, with d(g^2) = 2 g dg. */
static void scalar_scales(sh_golden_run *r, int block) {
  sh_golden_model *g = &r->g;
  const sh_conf_optim *o = &g->conf.optim;
  double sum[2];
  scalar_terms(r, block, r->pass.value[block > 0 ? slot_index(r, block - 1, "out") : 0], sum);
  for (int k = 0; k < 2; k++) {
    char name[SH_GOLDEN_NAME];
    snprintf(name, sizeof name, "block.%d.%s_%c", block, g->conf.model.time_function, 'a' + k);
    double grad = fabs((double)*sh_param_grad(&g->model.params, sh_params_find(&g->model.params, name)));
    double *scale = r->scalar[block][k];
    scale[0] = sum[k];
    scale[1] = o->beta1 * scale[1] + (1 - o->beta1) * sum[k];
    scale[2] = o->beta2 * scale[2] + (1 - o->beta2) * 2 * grad * sum[k];
  }
}

/* Backward of a block's first call is done, and its slots and their gradients are still there. */
static void attention_ready(void *arg, int first, int last) {
  sh_golden_run *r = arg;
  sh_golden_model *g = &r->g;
  const char *name = g->model.params.row[first].name;
  int block;
  (void)last;
  if (!strstr(name, ".uvqk") || sscanf(name, "block.%d", &block) != 1) return;
  if (!r->scalar) r->scalar = sh_arena_zalloc(&g->run, sizeof *r->scalar * (size_t)g->conf.model.layers);
  scalar_scales(r, block);
}

/* grads, exp_avg, exp_avg_sq or params_after of every parameter. */
static void check_states(sh_golden_run *r, const char *what, int state) {
  static const int of_scale[SH_GOLDEN_STATES] = {[SH_GOLDEN_VALUE] = -1, [SH_GOLDEN_M] = 1, [SH_GOLDEN_V] = 2};
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
    int block, scalar = scalar_of_time(name, &block);
    snprintf(kind, sizeof kind, "%s%s", what, scalar >= 0 ? "(a,b)" : "");
    if (scalar >= 0 && of_scale[state] >= 0) r->report.scale = r->scalar[block][scalar][of_scale[state]];
    sh_close_check(&r->report, r->tolerance, kind, n, got, want.v, "step%d %s", r->step, name);
    r->report.scale = 0;
  }
}

void sh_golden_begin(sh_golden_run *r, int step, bool train) {
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

void sh_golden_train_step(sh_golden_run *r, int step) {
  sh_golden_model *g = &r->g;
  sh_golden_begin(r, step, true);
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
  bool scalars = !strcmp(g->kind, "FuXi-beta");
  sh_model_backward(&g->model, &r->ctx, &r->pass, dhidden, scalars ? attention_ready : NULL, r);
  check_states(r, "grads", SH_GOLDEN_GRAD);
  sh_golden_adamw(g, &r->in, step + 1);
  check_states(r, "exp_avg", SH_GOLDEN_M);
  check_states(r, "exp_avg_sq", SH_GOLDEN_V);
  check_states(r, "params_after", SH_GOLDEN_VALUE);
}
