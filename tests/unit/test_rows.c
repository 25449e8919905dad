/* Row optimisers against their formulas in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "optim/rows.h"

enum { N = 700, MAX = 70 };

static float number(int what, int64_t i) {
  return sh_uniform(sh_random4(1, SH_SITE(SH_SITE_TEST, 3), (uint32_t)what, i, 0, 0).v[0]) - 0.4f;
}

/* Rows 3, 6, 9, ... have a gradient, except in step 2, in which none has. */
static void adam_in_double(double *p, double *m, double *v, const float *g, int64_t n, const sh_row_hyper *h) {
  double t = (double)h->step;
  for (int64_t i = 0; i < n; i++) {
    double gi = g ? (double)g[i] * h->clip_scale : 0;
    p[i] *= 1 - h->lr * h->weight_decay;
    m[i] = h->beta1 * m[i] + (1 - h->beta1) * gi;
    v[i] = h->beta2 * v[i] + (1 - h->beta2) * gi * gi;
    p[i] -= h->lr * (m[i] / (1 - pow(h->beta1, t))) / (sqrt(v[i] / (1 - pow(h->beta2, t))) + h->eps);
  }
}

static void other_in_double(double *p, double *s, const float *g, int64_t n, const sh_row_hyper *h, bool adagrad) {
  double scale = h->lr;
  if (adagrad) {
    for (int64_t i = 0; i < n; i++) *s += pow((double)g[i] * h->clip_scale, 2) / (double)n;
    scale /= sqrt(*s) + h->eps;
  }
  for (int64_t i = 0; i < n; i++) p[i] = p[i] * (1 - h->lr * h->weight_decay) - scale * (double)g[i] * h->clip_scale;
}

typedef struct rows {
  sh_row_view r;
  float value[N * MAX], state[2][N * MAX], grad[N * MAX];
  double p[N * MAX], s[2][N * MAX];
  int64_t touched[N];
} rows;

static void fill(rows *x, int width, int step) {
  x->r = (sh_row_view){.n = N,
                       .width = width,
                       .value = x->value,
                       .state = {x->state[0], x->state[1]},
                       .touched = x->touched,
                       .grad = x->grad,
                       .grad_ld = width + 3};
  for (int64_t k = 0; step != 2 && 3 * k + 3 < N; k++) {
    x->touched[x->r.ntouched++] = 3 * k + 3;
    for (int64_t d = 0; d < width; d++) x->grad[k * x->r.grad_ld + d] = number(step, k * width + d);
  }
  if (step > 1) return;
  for (int64_t i = 0; i < N * width; i++) x->p[i] = (double)(x->value[i] = number(0, i));
  for (int64_t i = 0; i < N; i++) x->s[0][i] = (double)(x->state[0][i] = 0);
}

static void check(sh_row_optim optim, int width, double decay) {
  rows *x = calloc(1, sizeof *x);
  for (int step = 1; step <= 6; step++) {
    sh_row_hyper h = {
        .lr = 0.02, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = decay, .clip_scale = 0.5, .step = step};
    fill(x, width, step);
    sh_row_optim_update(&x->r, optim, &h);
    for (int64_t row = 0, k = 0; row < N; row++) {
      bool touched = k < x->r.ntouched && x->touched[k] == row;
      const float *g = touched ? x->grad + k++ * x->r.grad_ld : NULL;
      double *p = x->p + row * width;
      if (optim == SH_ROW_ADAM_DENSE || (touched && optim == SH_ROW_ADAM_LAZY))
        adam_in_double(p, x->s[0] + row * width, x->s[1] + row * width, g, width, &h);
      else if (touched)
        other_in_double(p, x->s[0] + row, g, width, &h, optim == SH_ROW_ADAGRAD);
    }
    for (int64_t i = 0; i < N * width; i++) {
      assert_true(fabs((double)x->value[i] - x->p[i]) <= 4e-6);
      if (sh_row_optim_get(optim)->states == 0) continue;
      if (i < N || sh_row_optim_get(optim)->state_wide[0])
        assert_true(fabs((double)x->state[0][i] - x->s[0][i]) <= 1e-6 * (1 + fabs(x->s[0][i])));
      if (sh_row_optim_get(optim)->states > 1) assert_true(fabs((double)x->state[1][i] - x->s[1][i]) <= 1e-6);
    }
  }
  free(x);
}

static void test_formulas(void **state) {
  (void)state;
  static const int widths[] = {1, 5, 16, 50, 64};
  for (int optim = 0; optim < SH_ROW_OPTIMS; optim++)
    for (int w = 0; w < 5; w++) {
      check((sh_row_optim)optim, widths[w], 0);
      check((sh_row_optim)optim, widths[w], 0.3);
    }
}

static void test_threads(void **state) {
  (void)state;
  rows *x = calloc(2, sizeof *x);
  int before = omp_get_max_threads();
  for (int optim = 0; optim < SH_ROW_OPTIMS; optim++) {
    for (int k = 0; k < 2; k++) {
      omp_set_num_threads(k ? 3 : 1);
      memset(&x[k], 0, sizeof *x);
      for (int step = 1; step <= 4; step++) {
        fill(&x[k], MAX - 3, step);
        sh_row_optim_update(
            &x[k].r, (sh_row_optim)optim,
            &(sh_row_hyper){.lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .clip_scale = 1, .step = step});
      }
    }
    assert_memory_equal(x[0].value, x[1].value, sizeof x->value);
    assert_memory_equal(x[0].state, x[1].state, sizeof x->state);
  }
  omp_set_num_threads(before);
  free(x);
}

/* Moments of rows never touched again end at zero, not among denormals. */
static void test_moments_reach_zero(void **state) {
  (void)state;
  float p[3] = {1, 2, 3}, m[3] = {1e-2f, -1, 1e-37f}, v[3] = {1e-4f, 1, 1e-30f};
  sh_row_view r = {.n = 1, .width = 3, .value = p, .state = {m, v}};
  for (int step = 1; step <= 1500; step++)
    sh_row_optim_update(
        &r, SH_ROW_ADAM_DENSE,
        &(sh_row_hyper){.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.9, .eps = 1e-8, .clip_scale = 1, .step = step});
  for (int i = 0; i < 3; i++) assert_true(m[i] == 0 && v[i] == 0 && isfinite(p[i]));
}

static void test_registry(void **state) {
  (void)state;
  assert_int_equal(sh_row_optim_find("adam_dense"), SH_ROW_ADAM_DENSE);
  assert_int_equal(sh_row_optim_find("adam_lazy"), SH_ROW_ADAM_LAZY);
  assert_int_equal(sh_row_optim_find("adagrad"), SH_ROW_ADAGRAD);
  assert_int_equal(sh_row_optim_find("sgd"), SH_ROW_SGD);
  assert_int_equal(sh_row_optim_find("adam"), -1);
  const sh_row_optim_info *adam = sh_row_optim_get(SH_ROW_ADAM_DENSE), *adagrad = sh_row_optim_get(SH_ROW_ADAGRAD);
  assert_true(adam->states == 2 && adam->state_wide[0] && adam->state_wide[1]);
  assert_string_equal(adam->state_name[0], "exp_avg");
  assert_string_equal(adam->state_name[1], "exp_avg_sq");
  assert_true(adagrad->states == 1 && !adagrad->state_wide[0]);
  assert_string_equal(adagrad->state_name[0], "sum_sq");
  assert_int_equal(sh_row_optim_get(SH_ROW_SGD)->states, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_formulas),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_moments_reach_zero),
      cmocka_unit_test(test_registry),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
