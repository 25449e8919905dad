/* The layers of a SASRec block, with dropout: against finite differences, dealt to several parts (whose sums are taken
 * here), through every kernel table, with any number of threads, and for last tokens only. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>

#include "core/arena.h"
#include "core/rng.h"
#include "nn/sasrec.h"
#include "support/close.h"
#include "support/whole.h"

enum { D = 12, SEQUENCES = 6, T = 95 };
static const int32_t offsets[SEQUENCES + 1] = {0, 1, 18, 23, 23, 93, 95}; /* one is empty, one longer than a block */
static const int64_t sample[SEQUENCES] = {5, 9, 1, 4, (int64_t)1 << 34, 3};

typedef struct run {
  sh_layer layer;
  sh_params params;
  sh_batch batch;
  int32_t position[T], sequence[T];
  float x[T * D], dout[T * D], out[T * D], dx[T * D];
  float *tape;
  sh_arena scratch;
} run;

static float noise(uint32_t what, int64_t element) {
  return 2 * sh_uniform(sh_random4(3, SH_SITE(SH_SITE_TEST, 5), what, element, 0, 0).v[0]) - 1;
}

/* Every parameter large enough to matter, the same on any number of parts. */
static void draw(sh_params *p) {
  for (int i = 0; i < p->n; i++) {
    int64_t *place = whole_places(p, i);
    for (int64_t k = 0; k < p->row[i].size; k++) sh_param_value(p, i)[k] = 0.6f * noise(100 + (uint32_t)i, place[k]);
    free(place);
  }
}

static run *make(const sh_layer_ops *ops, const sh_sasrec_conf *conf, int part, int parts) {
  run *r = sh_calloc(1, sizeof *r);
  r->layer = (sh_layer){.ops = ops, .name = "block.0", .site = 3, .part = part, .parts = parts, .conf = conf};
  sh_params_create(&r->params, part, parts);
  ops->params(&r->layer, &r->params);
  assert_int_equal(sh_params_finish(&r->params), SH_OK);
  draw(&r->params);
  for (int s = 0; s < SEQUENCES; s++)
    for (int t = offsets[s]; t < offsets[s + 1]; t++) r->position[t] = t - offsets[s], r->sequence[t] = s;
  r->batch = (sh_batch){
      .B = SEQUENCES, .T = T, .offsets = offsets, .sample = sample, .position = r->position, .sequence = r->sequence};
  for (int i = 0; i < T * D; i++) r->x[i] = 1.5f * noise(1, i), r->dout[i] = noise(2, i), r->out[i] = NAN;
  r->tape = sh_malloc(sizeof(float) * (size_t)ops->tape(&r->layer, T, SEQUENCES));
  sh_arena_init(&r->scratch, "scratch");
  return r;
}

static void drop_run(run *r) {
  sh_params_destroy(&r->params);
  sh_arena_free(&r->scratch);
  free(r->tape);
  free(r);
}

static sh_ctx context(run *r, const sh_kernels *k) {
  return (sh_ctx){
      .batch = &r->batch, .params = &r->params, .scratch = &r->scratch, .train = true, .k = k, .seed = 8, .when = 2};
}

/* Returns <dout, out>. */
static double forward(run *r, const sh_kernels *k) {
  sh_ctx c = context(r, k);
  sh_args a = {.T = T, .R = T, .in = {r->x}, .out = {r->out}, .tape = r->tape};
  r->layer.ops->forward(&r->layer, &c, &a);
  double s = 0;
  for (int i = 0; i < T * D; i++) s += (double)r->out[i] * (double)r->dout[i];
  return s;
}

/* After forward. dx starts from `start` and is added to, or is overwritten. */
static void backward(run *r, const sh_kernels *k, bool add, float start) {
  sh_ctx c = context(r, k);
  sh_args a = {
      .T = T, .R = T, .in = {r->x}, .out = {r->out}, .dout = {r->dout}, .din = {r->dx}, .add = {add}, .tape = r->tape};
  for (int i = 0; i < T * D; i++) r->dx[i] = start;
  r->layer.ops->backward(&r->layer, &c, &a);
}

/* The variants: layer, activation, dropout or none. */
static const sh_layer_ops *const layers[] = {&sh_sasrec_attention_ops, &sh_sasrec_ffn_ops, &sh_sasrec_ffn_ops};
enum { VARIANTS = 6 };
static const sh_layer_ops *variant(int v, sh_sasrec_conf *conf) {
  double p = v < 3 ? 0 : 0.3;
  *conf = (sh_sasrec_conf){
      .D = D, .H = 6, .F = 18, .N = 90, .eps = 1e-8f, .attention_dropout = p, .ffn_dropout = p, .gelu = v % 3 == 2};
  return layers[v % 3];
}

/* Every `stride`-th entry of x, central differences. A relu's kink within the step makes the slopes of the two sides
 * differ, and the central one miss by at most half of that; such entries must be few. */
static void differences(run *r, int64_t n, int64_t stride, float *x, const float *gradient) {
  double largest = 0, here = forward(r, &sh_kernels_ref);
  int64_t kinks = 0, checked = 0;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)gradient[i]));
  for (int64_t i = 0; i < n; i += stride, checked++) {
    float was = x[i], high = was + 2e-3f, low = was - 2e-3f;
    x[i] = high;
    double up = forward(r, &sh_kernels_ref);
    x[i] = low;
    double down = forward(r, &sh_kernels_ref);
    x[i] = was;
    double slope = (up - down) / ((double)high - (double)low);
    double bend = fabs((up - here) / ((double)high - (double)was) - (here - down) / ((double)was - (double)low));
    kinks += bend > 0.02 * largest;
    if (fabs(slope - (double)gradient[i]) > 1e-3 * largest + 0.5 * bend)
      fail_msg("%s: entry %lld: gradient %g, differences %g", r->layer.ops->name, (long long)i, (double)gradient[i],
               slope);
  }
  assert_true(kinks * 8 <= checked);
}

static void finite_differences(void **state) {
  (void)state;
  for (int v = 0; v < VARIANTS; v++) {
    sh_sasrec_conf conf;
    run *r = make(variant(v, &conf), &conf, 0, 1);
    forward(r, &sh_kernels_ref);
    backward(r, &sh_kernels_ref, false, NAN);
    differences(r, T * D, 13, r->x, r->dx);
    for (int i = 0; i < r->params.n; i++) {
      bool shifts = !strcmp(r->params.row[i].name, "block.0.qkv_bias");
      float *value = sh_param_value(&r->params, i), *gradient = sh_param_grad(&r->params, i);
      differences(r, r->params.row[i].size, 7, value, gradient);
      for (int k = D; shifts && k < 2 * D; k++) assert_true(fabsf(gradient[k]) < 1e-5f); /* the softmax sees no shift */
    }
    drop_run(r);
  }
}

static void compare_parts(const run *whole, const run *part) {
  for (int i = 0; i < part->params.n; i++) {
    const float *g = sh_param_grad(&part->params, i), *want = sh_param_grad(&whole->params, i);
    int64_t *place = whole_places(&part->params, i);
    for (int64_t k = 0; k < part->params.row[i].size; k++) {
      float y = want[place[k]];
      assert_true(fabsf(g[k] - y) <= 1e-5f + 1e-5f * fabsf(y));
    }
    free(place);
  }
}

/* Outputs and input gradients of the parts add up; each part's parameter gradients are its rectangles of the whole. */
static void dealt_to_parts(void **state) {
  (void)state;
  for (int v = 0; v < VARIANTS; v++)
    for (int parts = 2; parts <= 6; parts *= 3) {
      sh_sasrec_conf conf;
      const sh_layer_ops *ops = variant(v, &conf);
      run *whole = make(ops, &conf, 0, 1);
      forward(whole, &sh_kernels_ref);
      backward(whole, &sh_kernels_ref, false, NAN);
      static float out[T * D], dx[T * D];
      memset(out, 0, sizeof out), memset(dx, 0, sizeof dx);
      for (int part = 0; part < parts; part++) {
        run *r = make(ops, &conf, part, parts);
        forward(r, &sh_kernels_ref);
        backward(r, &sh_kernels_ref, false, NAN);
        for (int i = 0; i < T * D; i++) out[i] += r->out[i], dx[i] += r->dx[i];
        compare_parts(whole, r);
        drop_run(r);
      }
      assert_true(sh_close_floats(T * D, out, whole->out, 0) < 2e-6 && sh_close_floats(T * D, dx, whole->dx, 0) < 2e-6);
      drop_run(whole);
    }
}

/* Every table agrees with ref; one thread and three give the same bits; dx is added to when asked. */
static void tables_and_threads(void **state) {
  (void)state;
  const char *names[8];
  int n = sh_kernels_available(names), threads = omp_get_max_threads();
  for (int v = 0; v < VARIANTS; v++) {
    sh_sasrec_conf conf;
    const sh_layer_ops *ops = variant(v, &conf);
    run *ref = make(ops, &conf, 0, 1);
    forward(ref, &sh_kernels_ref);
    backward(ref, &sh_kernels_ref, false, NAN);
    for (int k = 1; k < n; k++) {
      run *one = make(ops, &conf, 0, 1), *three = make(ops, &conf, 0, 1);
      omp_set_num_threads(1);
      forward(one, sh_kernels_named(names[k]));
      backward(one, sh_kernels_named(names[k]), true, 1);
      omp_set_num_threads(3);
      forward(three, sh_kernels_named(names[k]));
      backward(three, sh_kernels_named(names[k]), true, 1);
      omp_set_num_threads(threads);
      assert_memory_equal(one->out, three->out, sizeof one->out);
      assert_memory_equal(one->dx, three->dx, sizeof one->dx);
      assert_memory_equal(one->params.grad, three->params.grad, sizeof(float) * (size_t)one->params.block);
      for (int i = 0; i < T * D; i++) one->dx[i] -= 1;
      assert_true(sh_close_floats(T * D, one->out, ref->out, 0) < 3e-6 &&
                  sh_close_floats(T * D, one->dx, ref->dx, 0) < 3e-6);
      assert_true(sh_close_floats(one->params.block, one->params.grad, ref->params.grad, 0) < 3e-6);
      drop_run(one), drop_run(three);
    }
    drop_run(ref);
  }
}

/* Inference without a tape: the last rows alone, from all tokens, and from rows narrowed by a call before. */
static void last_only(void **state) {
  (void)state;
  enum { LIVE = 5 };
  static const int32_t live[LIVE + 1] = {0, 1, 18, 23, 93, 95}, last[LIVE] = {0, 17, 22, 92, 94};
  for (int v = 0; v < 3; v++) {
    sh_sasrec_conf conf;
    run *r = make(variant(v, &conf), &conf, 0, 1);
    r->batch.B = LIVE, r->batch.offsets = live;
    sh_ctx c = context(r, sh_kernels_best());
    c.train = false;
    float rows[LIVE * D], want[LIVE * D], narrow[LIVE * D];
    sh_args whole = {.T = T, .R = T, .in = {r->x}, .out = {r->out}};
    r->layer.ops->forward(&r->layer, &c, &whole);
    sh_args few = {.T = T, .R = LIVE, .row_token = last, .in = {r->x}, .out = {rows}};
    r->layer.ops->forward(&r->layer, &c, &few);
    for (int i = 0; i < LIVE * D; i++)
      want[i] = r->out[last[i / D] * D + i % D], narrow[i] = r->x[last[i / D] * D + i % D];
    assert_true(sh_close_floats(LIVE * D, rows, want, 0) < 2e-6);
    if (r->layer.ops == &sh_sasrec_ffn_ops) {
      sh_args again = {.T = LIVE, .R = LIVE, .in = {narrow}, .out = {rows}};
      r->layer.ops->forward(&r->layer, &c, &again);
      assert_true(sh_close_floats(LIVE * D, rows, want, 0) < 2e-6);
    }
    drop_run(r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(finite_differences), cmocka_unit_test(dealt_to_parts),
                                     cmocka_unit_test(tables_and_threads), cmocka_unit_test(last_only)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
