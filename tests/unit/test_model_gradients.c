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

#include "nn/loss.h"
#include "support/close.h"
#include "support/gradcheck.h"
#include "support/model_bench.h"

enum { D = 12, LD = 16, ITEMS = 23, R = 5, T = SH_TEST_TOKENS, B = SH_TEST_LENGTHS };

typedef struct bench {
  sh_model_bench m;
  sh_conf_loss loss;
  int32_t *reference;
} bench;

static void bench_open(bench *b, const char *name, const sh_kernels *k) {
  sh_config conf;
  sh_config_defaults(&conf);
  *b = (bench){.loss = conf.loss};
  conf.model = sh_model_bench_conf(name, D, 2, SH_TEST_LONGEST);
  sh_model_bench_open(&b->m, &conf.model, NULL, false, k, B, sh_test_length, ITEMS);
  sh_params *p = &b->m.model.params;
  sh_params_init(p, 3);
  for (int i = 0; i < p->n; i++) /* large enough that every term matters */
    if (p->row[i].size > 1) sh_make_normal(sh_param_value(p, i), p->row[i].size, 0.3f, 200 + (uint32_t)i);
  b->reference = SH_ARENA_NEW(&b->m.mem, int32_t, T * (R + 1));
  for (int t = 0; t < T; t++)
    for (int r = 0; r <= R; r++) b->reference[t * (R + 1) + r] = (int32_t)(sh_make_bits(8, t * (R + 1) + r) % ITEMS);
  b->loss.temperature = 0.25;
}

static double loss_of(bench *b, bool gradients) {
  sh_pass pass;
  sh_arena_reset(&b->m.step);
  float *hidden = sh_model_forward(&b->m.model, &b->m.c, false, &b->m.step, &pass);
  float *dhidden = gradients ? SH_ARENA_NEW(&b->m.step, float, T *D) : NULL;
  sh_loss_args a = {.conf = &b->loss,
                    .T = T,
                    .D = D,
                    .hidden = hidden,
                    .dhidden = dhidden,
                    .rows = &b->m.rows,
                    .reference = b->reference,
                    .R = R,
                    .scale = 1.0};
  if (gradients) sh_model_bench_clear(&b->m);
  double loss = sh_loss_sampled(&a, &b->m.c);
  if (gradients) sh_model_backward(&b->m.model, &b->m.c, &pass, dhidden, NULL, NULL);
  return loss;
}

static double value(void *arg) { return loss_of(arg, false); }

/* The key bias of SASRec has gradient zero, beside those of query and value in one array: what is measured against the
 * array's largest entry holds for it. */
static void finite_differences(void **state) {
  (void)state;
  int failed = 0;
  for (int m = 0; m < SH_BENCH_MODELS; m++) {
    bench b;
    bench_open(&b, sh_bench_model[m], &sh_kernels_ref);
    loss_of(&b, true);
    sh_params *p = &b.m.model.params;
    float *grad = sh_malloc(sizeof(float) * (size_t)(p->block + ITEMS * LD)), *drows = grad + p->block;
    memcpy(grad, p->grad, sizeof(float) * (size_t)p->block);
    memcpy(drows, b.m.rows.grad, sizeof(float) * ITEMS * LD);
    sh_gradcheck g = {.f = value, .arg = &b, .samples = 5, .step = 4e-3, .tolerance = 3e-3};
    for (int i = 0; i < p->n; i++)
      sh_gradcheck_array(&g, p->row[i].name, sh_param_value(p, i), p->row[i].size, grad + p->row[i].offset);
    for (int i = 0; i < ITEMS; i += 5) sh_gradcheck_array(&g, "row", b.m.row_value + i * LD, D, drows + i * LD);
    printf("  %-12s worst %s\n", sh_bench_model[m], g.where);
    failed += g.failed;
    free(grad);
    sh_model_bench_close(&b.m);
  }
  assert_int_equal(failed, 0);
}

static void fast_kernels(void **state) {
  (void)state;
  const char *isa[8];
  int tables = sh_kernels_available(isa), failed = 0;
  for (int m = 0; m < SH_BENCH_MODELS; m++)
    for (int k = 1; k < tables; k++) {
      bench want, got;
      bench_open(&want, sh_bench_model[m], &sh_kernels_ref);
      bench_open(&got, sh_bench_model[m], sh_kernels_named(isa[k]));
      double a = loss_of(&want, true), b = loss_of(&got, true);
      assert_true(fabs(a - b) < 1e-5 * a);
      for (int i = 0; i < got.m.model.params.n; i++) {
        const sh_param *row = &got.m.model.params.row[i];
        double far = sh_close_floats(row->size, sh_param_grad(&got.m.model.params, i),
                                     sh_param_grad(&want.m.model.params, i), 0);
        if (far <= 1e-4) continue;
        fprintf(stderr, "  %s %s: gradient of %s is off by %.2g\n", isa[k], sh_bench_model[m], row->name, far);
        failed++;
      }
      assert_true(sh_close_floats(ITEMS * LD, got.m.rows.grad, want.m.rows.grad, 0) <= 1e-4);
      sh_model_bench_close(&want.m);
      sh_model_bench_close(&got.m);
    }
  assert_int_equal(failed, 0);
}

static void any_number_of_threads(void **state) {
  (void)state;
  int before = omp_get_max_threads();
  for (int m = 0; m < SH_BENCH_MODELS; m++) {
    bench one, more;
    omp_set_num_threads(1);
    bench_open(&one, sh_bench_model[m], sh_kernels_best());
    double want = loss_of(&one, true);
    for (int threads = 2; threads <= 3; threads++) {
      omp_set_num_threads(threads);
      bench_open(&more, sh_bench_model[m], sh_kernels_best());
      double got = loss_of(&more, true);
      assert_memory_equal(&got, &want, sizeof got);
      assert_memory_equal(more.m.model.params.grad, one.m.model.params.grad,
                          sizeof(float) * (size_t)one.m.model.params.block);
      assert_memory_equal(more.m.rows.grad, one.m.rows.grad, sizeof(float) * ITEMS * LD);
      sh_model_bench_close(&more.m);
    }
    sh_model_bench_close(&one.m);
  }
  omp_set_num_threads(before);
}

static void last_only(void **state) {
  (void)state;
  for (int m = 0; m < SH_BENCH_MODELS; m++)
    for (int k = 0; k < 2; k++) {
      bench b;
      sh_pass pass;
      float want[B * D];
      bench_open(&b, sh_bench_model[m], k ? sh_kernels_best() : &sh_kernels_ref);
      b.m.c.train = false;
      const float *all = sh_model_forward(&b.m.model, &b.m.c, false, &b.m.step, &pass);
      for (int s = 0; s < B; s++)
        memcpy(want + s * D, all + (b.m.batch.offsets[s + 1] - 1) * (int64_t)D, sizeof(float) * D);
      const float *rows = sh_model_forward(&b.m.model, &b.m.c, true, &b.m.step, &pass);
      assert_int_equal(pass.R, B);
      if (sh_close_floats(B * D, rows, want, 0) > 5e-6)
        fail_msg("%s: last rows are off by %.2g", sh_bench_model[m], sh_close_floats(B * D, rows, want, 0));
      sh_model_bench_close(&b.m);
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
