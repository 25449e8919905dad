/* Every model of model/models.def as a whole, with dropout: gradients of the sampled loss by every parameter and by
 * item rows against finite differences, fast kernels against the reference, any number of threads, and last rows only.
 */
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
#include "nn/loss.h"
#include "support/gradcheck.h"
#include "support/make_batch.h"

enum { D = 12, LD = 16, ITEMS = 23, R = 5, T = SH_TEST_TOKENS, B = SH_TEST_LENGTHS };

static const char *const names[] = {
#define MODEL(name, function) name,
#include "model/models.def"
#undef MODEL
};
enum { MODELS = sizeof names / sizeof *names };

typedef struct bench {
  sh_model model;
  sh_arena mem, step, scratch;
  sh_batch batch;
  sh_rows rows;
  float *row_value;
  sh_conf_loss loss;
  int32_t *reference;
  sh_ctx c;
} bench;

static void bench_open(bench *b, const char *name, const sh_kernels *k) {
  sh_config conf;
  sh_config_defaults(&conf);
  *b = (bench){.loss = conf.loss};
  snprintf(conf.model.name, sizeof conf.model.name, "%s", name);
  snprintf(conf.model.ffn_activation, sizeof conf.model.ffn_activation, "gelu"); /* no kinks */
  conf.model.width = D, conf.model.heads = 2, conf.model.layers = 2, conf.model.max_len = SH_TEST_LONGEST;
  assert_int_equal(sh_model_create(&b->model, &conf.model, NULL, false), SH_OK);
  sh_params_init(&b->model.params, 3);
  sh_params *p = &b->model.params;
  for (int i = 0; i < p->n; i++) /* large enough that every term matters */
    if (p->row[i].size > 1) sh_make_normal(sh_param_value(p, i), p->row[i].size, 0.3f, 200 + (uint32_t)i);
  sh_arena_init(&b->mem, "test");
  sh_arena_init(&b->step, "step");
  sh_arena_init(&b->scratch, "scratch");
  sh_make_batch(&b->batch, B, sh_test_length, ITEMS, 11, &b->mem);
  b->row_value = SH_ARENA_ZNEW(&b->mem, float, ITEMS *LD);
  for (int i = 0; i < ITEMS; i++) sh_make_normal(b->row_value + i * LD, D, 0.5f, 300 + (uint32_t)i);
  int32_t *slot = SH_ARENA_NEW(&b->mem, int32_t, T);
  b->reference = SH_ARENA_NEW(&b->mem, int32_t, T * (R + 1));
  for (int t = 0; t < T; t++) {
    slot[t] = (int32_t)b->batch.item[t];
    for (int r = 0; r <= R; r++) b->reference[t * (R + 1) + r] = (int32_t)(sh_make_bits(8, t * (R + 1) + r) % ITEMS);
  }
  b->rows = (sh_rows){.ld = LD, .nslots = ITEMS, .value = b->row_value, .slot = slot};
  b->rows.grad = SH_ARENA_ZNEW(&b->mem, float, ITEMS *LD);
  b->loss.temperature = 0.25;
  b->c = (sh_ctx){.batch = &b->batch,
                  .params = &b->model.params,
                  .rows = &b->rows,
                  .scratch = &b->scratch,
                  .train = true,
                  .k = k,
                  .seed = 9,
                  .when = 3};
}

static void bench_close(bench *b) {
  sh_model_destroy(&b->model);
  sh_arena_free(&b->mem);
  sh_arena_free(&b->step);
  sh_arena_free(&b->scratch);
}

static double loss_of(bench *b, bool gradients) {
  sh_pass pass;
  sh_arena_reset(&b->step);
  float *hidden = sh_model_forward(&b->model, &b->c, false, &b->step, &pass);
  float *dhidden = gradients ? SH_ARENA_NEW(&b->step, float, T *D) : NULL;
  sh_loss_args a = {.conf = &b->loss,
                    .T = T,
                    .D = D,
                    .hidden = hidden,
                    .dhidden = dhidden,
                    .rows = &b->rows,
                    .reference = b->reference,
                    .R = R,
                    .scale = 1.0};
  if (gradients) {
    memset(b->model.params.grad, 0, sizeof(float) * (size_t)b->model.params.block);
    memset(b->rows.grad, 0, sizeof(float) * ITEMS * LD);
  }
  double loss = sh_loss_sampled(&a, &b->c);
  if (gradients) sh_model_backward(&b->model, &b->c, &pass, dhidden, NULL, NULL);
  return loss;
}

static double value(void *arg) { return loss_of(arg, false); }

/* The key bias of SASRec has gradient zero, beside those of query and value in one array: what is measured against the
 * array's largest entry holds for it. */
static void finite_differences(void **state) {
  (void)state;
  int failed = 0;
  for (int m = 0; m < MODELS; m++) {
    bench b;
    bench_open(&b, names[m], &sh_kernels_ref);
    loss_of(&b, true);
    sh_params *p = &b.model.params;
    float *grad = sh_malloc(sizeof(float) * (size_t)(p->block + ITEMS * LD)), *drows = grad + p->block;
    memcpy(grad, p->grad, sizeof(float) * (size_t)p->block);
    memcpy(drows, b.rows.grad, sizeof(float) * ITEMS * LD);
    sh_gradcheck g = {.f = value, .arg = &b, .samples = 5, .step = 4e-3, .tolerance = 3e-3};
    for (int i = 0; i < p->n; i++)
      sh_gradcheck_array(&g, p->row[i].name, sh_param_value(p, i), p->row[i].size, grad + p->row[i].offset);
    for (int i = 0; i < ITEMS; i += 5) sh_gradcheck_array(&g, "row", b.row_value + i * LD, D, drows + i * LD);
    printf("  %-12s worst %s\n", names[m], g.where);
    failed += g.failed;
    free(grad);
    bench_close(&b);
  }
  assert_int_equal(failed, 0);
}

static double distance(int64_t n, const float *got, const float *want) {
  double top = 0, far = 0;
  for (int64_t i = 0; i < n; i++) {
    double d = fabs((double)got[i] - (double)want[i]);
    if (!(d <= far)) far = d;
    top = fmax(top, fabs((double)want[i]));
  }
  return far == 0 ? 0 : far / top;
}

static void fast_kernels(void **state) {
  (void)state;
  const char *isa[8];
  int tables = sh_kernels_available(isa), failed = 0;
  for (int m = 0; m < MODELS; m++)
    for (int k = 1; k < tables; k++) {
      bench want, got;
      bench_open(&want, names[m], &sh_kernels_ref);
      bench_open(&got, names[m], sh_kernels_named(isa[k]));
      double a = loss_of(&want, true), b = loss_of(&got, true);
      assert_true(fabs(a - b) < 1e-5 * a);
      for (int i = 0; i < got.model.params.n; i++) {
        const sh_param *row = &got.model.params.row[i];
        double far = distance(row->size, sh_param_grad(&got.model.params, i), sh_param_grad(&want.model.params, i));
        if (far <= 1e-4) continue;
        fprintf(stderr, "  %s %s: gradient of %s is off by %.2g\n", isa[k], names[m], row->name, far);
        failed++;
      }
      assert_true(distance(ITEMS * LD, got.rows.grad, want.rows.grad) <= 1e-4);
      bench_close(&want);
      bench_close(&got);
    }
  assert_int_equal(failed, 0);
}

static void any_number_of_threads(void **state) {
  (void)state;
  int before = omp_get_max_threads();
  for (int m = 0; m < MODELS; m++) {
    bench one, more;
    omp_set_num_threads(1);
    bench_open(&one, names[m], sh_kernels_best());
    double want = loss_of(&one, true);
    for (int threads = 2; threads <= 3; threads++) {
      omp_set_num_threads(threads);
      bench_open(&more, names[m], sh_kernels_best());
      double got = loss_of(&more, true);
      assert_memory_equal(&got, &want, sizeof got);
      assert_memory_equal(more.model.params.grad, one.model.params.grad,
                          sizeof(float) * (size_t)one.model.params.block);
      assert_memory_equal(more.rows.grad, one.rows.grad, sizeof(float) * ITEMS * LD);
      bench_close(&more);
    }
    bench_close(&one);
  }
  omp_set_num_threads(before);
}

static void last_only(void **state) {
  (void)state;
  for (int m = 0; m < MODELS; m++)
    for (int k = 0; k < 2; k++) {
      bench b;
      sh_pass pass;
      float want[B * D];
      bench_open(&b, names[m], k ? sh_kernels_best() : &sh_kernels_ref);
      b.c.train = false;
      const float *all = sh_model_forward(&b.model, &b.c, false, &b.step, &pass);
      for (int s = 0; s < B; s++)
        memcpy(want + s * D, all + (b.batch.offsets[s + 1] - 1) * (int64_t)D, sizeof(float) * D);
      const float *rows = sh_model_forward(&b.model, &b.c, true, &b.step, &pass);
      assert_int_equal(pass.R, B);
      if (distance(B * D, rows, want) > 5e-6)
        fail_msg("%s: last rows are off by %.2g", names[m], distance(B * D, rows, want));
      bench_close(&b);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finite_differences),
      cmocka_unit_test(fast_kernels),
      cmocka_unit_test(any_number_of_threads),
      cmocka_unit_test(last_only),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
