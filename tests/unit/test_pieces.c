/* Attention over a long sequence cut into pieces, against the same sequence whole: every model, forward and backward.
 * A batch of many sequences is not cut, so the long one stands alone in one batch and before many short ones, whose
 * gradients are zero, in the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/pieces.h"
#include "support/close.h"
#include "support/model_bench.h"

enum { D = 8, LD = 16, ITEMS = 50, LONG = 2100, MANY = 40 };

typedef struct outcome {
  float *hidden, *grad, *rows; /* [LONG x D], parameter block, [ITEMS x LD] */
  int64_t block, pieces;
} outcome;

static float *copy_of(const float *x, int64_t n) {
  return memcpy(sh_malloc(sizeof(float) * (size_t)(n + 1)), x, sizeof(float) * (size_t)n);
}

static outcome run(const char *name, int64_t B) {
  sh_conf_model conf = sh_model_bench_conf(name, D, 2, LONG);
  int32_t length[MANY];
  for (int i = 0; i < MANY; i++) length[i] = i == 0 ? LONG : 1;
  sh_model_bench b;
  sh_model_bench_open(&b, &conf, NULL, false, sh_kernels_best(), B, length, ITEMS);
  const sh_params *params = &b.model.params;
  sh_params_init(&b.model.params, 3);
  outcome o = {.block = params->block, .pieces = sh_pieces_of(&b.c, conf.heads, false).n};
  sh_pass pass;
  float *hidden = sh_model_forward(&b.model, &b.c, false, &b.step, &pass);
  float *dhidden = SH_ARENA_ZNEW(&b.step, float, b.batch.T *D);
  sh_make_normal(dhidden, LONG * D, 1, 77);
  o.hidden = copy_of(hidden, LONG * D);
  sh_model_bench_clear(&b);
  sh_model_backward(&b.model, &b.c, &pass, dhidden, NULL, NULL);
  o.grad = copy_of(params->grad, o.block);
  o.rows = copy_of(b.rows.grad, ITEMS * LD);
  sh_model_bench_close(&b);
  return o;
}

static void outcome_free(outcome *o) { free(o->hidden), free(o->grad), free(o->rows); }

static void pieces_make_the_whole(void **state) {
  (void)state;
  for (int m = 0; m < SH_BENCH_MODELS; m++) {
    outcome cut = run(sh_bench_model[m], 1), whole = run(sh_bench_model[m], MANY);
    assert_int_equal(whole.pieces, MANY);
    assert_int_equal(cut.pieces, LONG / 512);
    double far[3] = {sh_close_floats(LONG * D, cut.hidden, whole.hidden, 1e-30),
                     sh_close_floats(cut.block, cut.grad, whole.grad, 1e-30),
                     sh_close_floats(ITEMS * LD, cut.rows, whole.rows, 1e-30)};
    printf("  %-12s hidden %.1e parameters %.1e rows %.1e\n", sh_bench_model[m], far[0], far[1], far[2]);
    for (int k = 0; k < 3; k++) assert_true(far[k] <= 2e-5);
    outcome_free(&cut), outcome_free(&whole);
  }
}

static void threads_change_no_bit(void **state) {
  (void)state;
  int before = omp_get_max_threads();
  for (int m = 0; m < SH_BENCH_MODELS; m++) {
    omp_set_num_threads(1);
    outcome one = run(sh_bench_model[m], 1);
    omp_set_num_threads(3);
    outcome three = run(sh_bench_model[m], 1);
    assert_memory_equal(one.hidden, three.hidden, sizeof(float) * LONG * D);
    assert_memory_equal(one.grad, three.grad, sizeof(float) * (size_t)one.block);
    assert_memory_equal(one.rows, three.rows, sizeof(float) * ITEMS * LD);
    outcome_free(&one), outcome_free(&three);
  }
  omp_set_num_threads(before);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_make_the_whole), cmocka_unit_test(threads_change_no_bit)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
