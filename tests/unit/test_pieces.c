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

#include "dist/build.h"
#include "nn/pieces.h"
#include "support/make_batch.h"

enum { D = 8, LD = 16, ITEMS = 50, LONG = 2100, MANY = 40 };

static const char *const names[] = {
#define MODEL(name, function) name,
#include "model/models.def"
#undef MODEL
};
enum { MODELS = sizeof names / sizeof *names };

typedef struct outcome {
  float *hidden, *grad, *rows; /* [LONG x D], parameter block, [ITEMS x LD] */
  int64_t block, pieces;
} outcome;

static outcome run(const char *name, int64_t B) {
  sh_config conf;
  sh_config_defaults(&conf);
  snprintf(conf.model.name, sizeof conf.model.name, "%s", name);
  snprintf(conf.model.ffn_activation, sizeof conf.model.ffn_activation, "gelu");
  conf.model.width = D, conf.model.heads = 2, conf.model.layers = 2, conf.model.max_len = LONG;
  sh_model model;
  assert_int_equal(sh_model_create(&model, &conf.model, NULL, false), SH_OK);
  sh_params_init(&model.params, 3);
  sh_arena mem, scratch;
  sh_arena_init(&mem, "test");
  sh_arena_init(&scratch, "scratch");
  int32_t length[MANY];
  for (int i = 0; i < MANY; i++) length[i] = i == 0 ? LONG : 1;
  sh_batch batch;
  sh_make_batch(&batch, B, length, ITEMS, 11, &mem);
  float *value = SH_ARENA_ZNEW(&mem, float, ITEMS *LD);
  for (int i = 0; i < ITEMS; i++) sh_make_normal(value + i * LD, D, 0.5f, 300 + (uint32_t)i);
  int32_t *slot = SH_ARENA_NEW(&mem, int32_t, batch.T);
  for (int64_t t = 0; t < batch.T; t++) slot[t] = (int32_t)batch.item[t];
  sh_rows rows = {.ld = LD, .nslots = ITEMS, .value = value, .slot = slot};
  rows.grad = SH_ARENA_ZNEW(&mem, float, ITEMS *LD);
  sh_ctx c = {.batch = &batch,
              .params = &model.params,
              .rows = &rows,
              .scratch = &scratch,
              .train = true,
              .k = sh_kernels_best(),
              .seed = 9,
              .when = 3};
  outcome o = {.block = model.params.block, .pieces = sh_pieces_of(&c, conf.model.heads, false).n};
  sh_pass pass;
  float *hidden = sh_model_forward(&model, &c, false, &mem, &pass);
  float *dhidden = SH_ARENA_ZNEW(&mem, float, batch.T *D);
  sh_make_normal(dhidden, LONG * D, 1, 77);
  memset(model.params.grad, 0, sizeof(float) * (size_t)o.block);
  o.hidden = sh_malloc(sizeof(float) * LONG * D);
  memcpy(o.hidden, hidden, sizeof(float) * LONG * D);
  sh_model_backward(&model, &c, &pass, dhidden, NULL, NULL);
  o.grad = sh_malloc(sizeof(float) * (size_t)o.block);
  memcpy(o.grad, model.params.grad, sizeof(float) * (size_t)o.block);
  o.rows = sh_malloc(sizeof(float) * ITEMS * LD);
  memcpy(o.rows, rows.grad, sizeof(float) * ITEMS * LD);
  sh_model_destroy(&model);
  sh_arena_free(&mem);
  sh_arena_free(&scratch);
  return o;
}

static void outcome_free(outcome *o) { free(o->hidden), free(o->grad), free(o->rows); }

static double distance(int64_t n, const float *got, const float *want) {
  double top = 1e-30, far = 0;
  for (int64_t i = 0; i < n; i++) {
    double d = fabs((double)got[i] - (double)want[i]);
    if (!(d <= far)) far = d;
    top = fmax(top, fabs((double)want[i]));
  }
  return far / top;
}

static void pieces_make_the_whole(void **state) {
  (void)state;
  for (int m = 0; m < MODELS; m++) {
    outcome cut = run(names[m], 1), whole = run(names[m], MANY);
    assert_int_equal(whole.pieces, MANY);
    assert_int_equal(cut.pieces, LONG / 512);
    double far[3] = {distance(LONG * D, cut.hidden, whole.hidden), distance(cut.block, cut.grad, whole.grad),
                     distance(ITEMS * LD, cut.rows, whole.rows)};
    printf("  %-12s hidden %.1e parameters %.1e rows %.1e\n", names[m], far[0], far[1], far[2]);
    for (int k = 0; k < 3; k++) assert_true(far[k] <= 2e-5);
    outcome_free(&cut), outcome_free(&whole);
  }
}

static void threads_change_no_bit(void **state) {
  (void)state;
  int before = omp_get_max_threads();
  for (int m = 0; m < MODELS; m++) {
    omp_set_num_threads(1);
    outcome one = run(names[m], 1);
    omp_set_num_threads(3);
    outcome three = run(names[m], 1);
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
