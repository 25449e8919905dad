/* ranks: 1 2 3 4 6 */
/* Models whose layers are shared by all ranks: communication layers are each other's adjoints, gradients through whole
 * models match finite differences, and recomputing changes no bit. */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "dist/tensor.h"
#include "mpi/coll.h"
#include "support/gradcheck.h"
#include "support/model_bench.h"
#include "support/whole.h"

enum { D = 12, LD = 16, ITEMS = 23, T = SH_TEST_TOKENS, B = SH_TEST_LENGTHS };

static sh_grid grid; /* one tensor group of all ranks */

static void test_begin(void **state) {
  (void)state;
  MPI_Comm world = MPI_COMM_WORLD;
  assert_all(sh_grid_create(&grid, &world, mpi_size()) == SH_OK);
}

/* ---- adjoints ---- */

/* How rows of a slot lie: own slices, own columns or addends (EACH: the inner product sums over ranks), or the same
 * numbers on every rank, which count once. */
typedef enum place { SLICED, EACH, SAME } place;
typedef struct pair {
  const sh_layer_ops *ops;
  place in, out;
  bool doubles;
} pair;

static int64_t floats_of(place p, int width) {
  int64_t first = sh_deal_first(T, grid.tensor.index, grid.tensor.size);
  return (p == SLICED ? sh_deal_first(T, grid.tensor.index + 1, grid.tensor.size) - first : T) * width;
}

static double number(const float *x, int64_t i, bool doubles) {
  return doubles ? ((const double *)(const void *)x)[i] : (double)x[i];
}

static void fill(float *x, int64_t n, place p, uint32_t what, bool doubles) {
  float *narrow = sh_malloc(sizeof(float) * (size_t)(n + 1));
  sh_make_normal(narrow, n, 1, what + (p == SAME ? 0 : 1 + (uint32_t)grid.tensor.index));
  for (int64_t i = 0; i < n; i++)
    if (doubles)
      ((double *)(void *)x)[i] = (double)narrow[i];
    else
      x[i] = narrow[i];
  free(narrow);
}

static double inner(const float *x, const float *y, int64_t n, place p, bool doubles) {
  double sum = 0;
  for (int64_t i = 0; i < n && (p != SAME || grid.tensor.index == 0); i++)
    sum += number(x, i, doubles) * number(y, i, doubles);
  sh_sum_f64(&grid.tensor, &sum, 1);
  return sum;
}

static void test_adjoints(void **state) {
  (void)state;
  static const pair pairs[] = {
      {&sh_tensor_gather_ops, SLICED, EACH, false}, {&sh_tensor_scatter_ops, EACH, SLICED, false},
      {&sh_tensor_copy_ops, SAME, EACH, false},     {&sh_tensor_sum_ops, EACH, SAME, false},
      {&sh_tensor_spread_ops, SLICED, SAME, false}, {&sh_tensor_take_ops, SAME, SLICED, false},
      {&sh_tensor_span_ops, EACH, EACH, false},     {&sh_tensor_span_ops, EACH, EACH, true}};
  enum { W = 6, ROOM = 2 * T * W };
  for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
    const pair *p = &pairs[k];
    static _Alignas(16) float x[ROOM], y[ROOM], Fx[ROOM], Fty[ROOM];
    sh_arena scratch;
    sh_arena_init(&scratch, "scratch");
    sh_tensor_conf conf = {.axis = &grid.tensor, .width = W, .doubles = p->doubles};
    sh_layer l = {.ops = p->ops, .conf = &conf, .part = grid.tensor.index, .parts = grid.tensor.size};
    sh_ctx c = {.scratch = &scratch};
    int64_t nin = floats_of(p->in, W), nout = floats_of(p->out, W);
    fill(x, nin, p->in, 100, p->doubles);
    fill(y, nout, p->out, 200, p->doubles);
    sh_args a = {.T = T, .R = T, .in = {x}, .out = {Fx}, .dout = {y}, .din = {Fty}};
    p->ops->forward(&l, &c, &a);
    p->ops->backward(&l, &c, &a);
    double ahead = inner(Fx, y, nout, p->out, p->doubles), back = inner(x, Fty, nin, p->in, p->doubles);
    double size = sqrt(inner(x, x, nin, p->in, p->doubles) * inner(y, y, nout, p->out, p->doubles));
    if (!(fabs(ahead - back) <= 1e-6 * size))
      fprintf(mpi_verdict_out, "%s: <Fx, y> = %.9g, <x, Ft y> = %.9g\n", p->ops->name, ahead, back);
    assert_all(fabs(ahead - back) <= 1e-6 * size && fabs(ahead) > 0);
    sh_arena_free(&scratch);
  }
}

/* ---- whole models ---- */

typedef struct bench {
  sh_model_bench m;
  float *weight; /* [T x D] of the projection */
  int moved;     /* parameter whose whole array is `whole`, or -1 */
  float *whole;
} bench;

static void bench_open(bench *b, const char *name, const sh_kernels *k, bool sequence, const char *recompute) {
  sh_conf_model conf = sh_model_bench_conf(name, D, 12, SH_TEST_LONGEST);
  snprintf(conf.recompute, sizeof conf.recompute, "%s", recompute);
  *b = (bench){.moved = -1};
  sh_model_bench_open(&b->m, &conf, &grid.tensor, sequence, k, B, sh_test_length, ITEMS);
  b->weight = SH_ARENA_NEW(&b->m.mem, float, T *D);
  sh_make_normal(b->weight, T * D, 1, 400);
}

static int64_t whole_size(const bench *b, int i) {
  return b->m.model.params.row[i].dim[0] * b->m.model.params.row[i].dim[1];
}

/* Values large enough that every term matters, the same on any number of ranks. */
static void draw_params(bench *b) {
  sh_params_init(&b->m.model.params, 3);
  for (int i = 0; i < b->m.model.params.n; i++) {
    int64_t n = whole_size(b, i);
    if (n == 1) continue;
    float *whole = sh_malloc(sizeof(float) * (size_t)n);
    sh_make_normal(whole, n, 0.3f, 200 + (uint32_t)i);
    whole_take(&b->m.model.params, i, whole, sh_param_value(&b->m.model.params, i));
    free(whole);
  }
}

/* The whole gradient of parameter i: [dim]. free() it. */
static float *whole_grad(const bench *b, int i) {
  const sh_param *row = &b->m.model.params.row[i];
  int64_t n = whole_size(b, i);
  float *whole = sh_calloc((size_t)n, sizeof *whole);
  bool counts = row->tgrad != SH_TGRAD_SAME || grid.tensor.index == 0;
  if (counts) whole_add(&b->m.model.params, i, sh_param_grad(&b->m.model.params, i), whole);
  sh_sum_f32(&grid.tensor, whole, n);
  return whole;
}

static double projection_of(bench *b, bool gradients) {
  sh_pass pass;
  double sum = 0;
  int64_t first = sh_model_first(&b->m.model, T) * D, own = sh_model_own(&b->m.model, T) * D;
  sh_arena_reset(&b->m.step);
  const float *out = sh_model_forward(&b->m.model, &b->m.c, false, &b->m.step, &pass);
  for (int64_t i = 0; i < own; i++) sum += (double)out[i] * (double)b->weight[first + i];
  sh_sum_f64(&grid.tensor, &sum, 1);
  sh_bcast(&grid.tensor, &sum, sizeof sum, 0);
  if (gradients) {
    sh_model_bench_clear(&b->m);
    sh_model_backward(&b->m.model, &b->m.c, &pass, b->weight + first, NULL, NULL);
  }
  return sum;
}

/* Every rank moves the same element of the whole array. */
static double value(void *arg) {
  bench *b = arg;
  if (b->moved >= 0) whole_take(&b->m.model.params, b->moved, b->whole, sh_param_value(&b->m.model.params, b->moved));
  return projection_of(b, false);
}

static void check_gradients(const char *name, bool sequence) {
  bench b;
  bench_open(&b, name, &sh_kernels_ref, sequence, "none");
  draw_params(&b);
  projection_of(&b, true);
  float *drows = sh_malloc(sizeof(float) * ITEMS * LD);
  memcpy(drows, b.m.rows.grad, sizeof(float) * ITEMS * LD);
  sh_sum_f32(&grid.tensor, drows, ITEMS * LD);
  sh_gradcheck g = {.f = value, .arg = &b, .samples = 4, .step = 4e-3, .tolerance = 3e-3};
  for (int i = 0; i < b.m.model.params.n; i++) {
    int64_t n = whole_size(&b, i);
    float *grad = whole_grad(&b, i);
    b.moved = i, b.whole = sh_calloc((size_t)n, sizeof(float));
    const sh_param *row = &b.m.model.params.row[i];
    if (row->split >= 0 || grid.tensor.index == 0)
      whole_add(&b.m.model.params, i, sh_param_value(&b.m.model.params, i), b.whole);
    sh_sum_f32(&grid.tensor, b.whole, n);
    g.step = n > 1 ? 4e-3 : 4e-2; /* one number moves the output by little: further above its rounding */
    sh_gradcheck_array(&g, row->name, b.whole, n, grad);
    whole_take(&b.m.model.params, i, b.whole, sh_param_value(&b.m.model.params, i));
    free(b.whole), free(grad);
    b.moved = -1;
  }
  g.step = 4e-3;
  for (int i = 0; i < ITEMS; i += 7) sh_gradcheck_array(&g, "row", b.m.row_value + i * LD, D, drows + i * LD);
  if (mpi_rank() == 0) printf("  %-12s %s rows, worst %s\n", name, sequence ? "sliced" : "whole", g.where);
  assert_all(g.failed == 0);
  free(drows);
  sh_model_bench_close(&b.m);
}

static void test_gradients(void **state) {
  (void)state;
  for (int m = 0; m < SH_BENCH_MODELS; m++)
    for (int sequence = 0; sequence < 2; sequence++) check_gradients(sh_bench_model[m], sequence);
}

/* What is dropped and gathered again is what it was. */
static void test_recompute(void **state) {
  (void)state;
  for (int m = 0; m < SH_BENCH_MODELS; m++)
    for (int sequence = 0; sequence < 2; sequence++) {
      bench none, some;
      const sh_kernels *k = (m + sequence) % 2 ? sh_kernels_bf16() : sh_kernels_best();
      bench_open(&none, sh_bench_model[m], k, sequence, "none");
      draw_params(&none);
      double want = projection_of(&none, true);
      for (int r = 0; r < 2; r++) {
        bench_open(&some, sh_bench_model[m], k, sequence, r ? "layer" : "attention");
        draw_params(&some);
        assert_all(projection_of(&some, true) == want);
        size_t bytes = sizeof(float) * (size_t)none.m.model.params.block;
        assert_all(!memcmp(some.m.model.params.grad, none.m.model.params.grad, bytes));
        assert_all(!memcmp(some.m.rows.grad, none.m.rows.grad, sizeof(float) * ITEMS * LD));
        sh_model_bench_close(&some.m);
      }
      sh_model_bench_close(&none.m);
    }
}

/* What a rank holds shrinks with the number of ranks: split parameters, and with sliced rows the activations of a
 * pass but for what flows into and out of one layer. */
static void test_memory(void **state) {
  (void)state;
  sh_axis one = {.name = "tensor", .size = 1};
  for (int m = 0; m < SH_BENCH_MODELS; m++) {
    sh_config conf;
    sh_config_defaults(&conf);
    snprintf(conf.model.name, sizeof conf.model.name, "%s", sh_bench_model[m]);
    conf.model.width = 96, conf.model.heads = 12, conf.model.layers = 12, conf.model.max_len = 40;
    sh_model alone, shared;
    sh_arena scratch;
    sh_arena_init(&scratch, "scratch");
    assert_all(sh_model_create(&alone, &conf.model, &one, true) == SH_OK);
    assert_all(sh_model_create(&shared, &conf.model, &grid.tensor, true) == SH_OK);
    double n = mpi_size(), tokens = 4000, D_ = 96;
    double all = (double)sh_model_pass_floats(&alone, 4000, 100, &scratch);
    double mine = (double)sh_model_pass_floats(&shared, 4000, 100, &scratch);
    if (mpi_rank() == 0)
      printf("  %-12s parameters %.3f, activations %.3f of those of one rank\n", sh_bench_model[m],
             (double)shared.params.block / (double)alone.params.block, mine / all);
    assert_all((double)shared.params.block <= (double)alone.params.block * (1 / n + 0.05));
    assert_all(mine <= all / n + 4 * tokens * D_); /* whole rows into and out of one layer, and their gradients */
    sh_model_destroy(&alone);
    sh_model_destroy(&shared);
    sh_arena_free(&scratch);
  }
}

static void test_end(void **state) {
  (void)state;
  sh_grid_destroy(&grid);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_begin),     cmocka_unit_test(test_adjoints),
                                     cmocka_unit_test(test_gradients), cmocka_unit_test(test_recompute),
                                     cmocka_unit_test(test_memory),    cmocka_unit_test(test_end)};
  return mpi_run_tests(tests);
}
