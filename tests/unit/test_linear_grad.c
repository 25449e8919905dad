/* Weight gradients: against sums in double precision; the same bits for every number of threads, and whether dy is
 * there or made in pieces. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "nn/linear.h"

typedef struct problem {
  int64_t T, K, N;
  float *x, *dy;
  int *asked; /* [T] */
} problem;

static float *filled(int64_t n, uint32_t salt) {
  float *x = malloc(sizeof(float) * (size_t)(n + 1));
  for (int64_t i = 0; i < n; i++)
    x[i] = -1 + 2 * sh_uniform(sh_random4(2, SH_SITE(SH_SITE_TEST, 9), salt, i, 0, 0).v[0]);
  return x;
}

static void rows(void *of, int64_t t, int64_t n, float *dy) {
  const problem *p = of;
  memcpy(dy, p->dy + t * p->N, sizeof(float) * (size_t)(n * p->N));
  for (int64_t i = t; i < t + n; i++) p->asked[i]++; /* a token has one owner */
}

static void check_sums(const problem *p, const float *dW) {
  for (int64_t k = 0; k < p->K; k += 7)
    for (int64_t n = 0; n < p->N; n += 5) {
      double sum = 1, size = 1;
      for (int64_t t = 0; t < p->T; t++) {
        double term = (double)p->x[t * p->K + k] * (double)p->dy[t * p->N + n];
        sum += term, size += fabs(term);
      }
      assert_true(fabs((double)dW[k * p->N + n] - sum) <= 1e-6 * size);
    }
}

static void check(int64_t T, int64_t K, int64_t N) {
  problem p = {T, K, N, filled(T * K, 1), filled(T * N, 2), calloc((size_t)T + 1, sizeof(int))};
  sh_arena scratch;
  sh_arena_init(&scratch, "scratch");
  sh_ctx c = {.scratch = &scratch, .k = sh_kernels_best()};
  size_t bytes = sizeof(float) * (size_t)(K * N);
  float *first = malloc(bytes), *dW = malloc(bytes);
  for (int threads = 1; threads <= 5; threads += 2)
    for (int made = 0; made < 2; made++) {
      omp_set_num_threads(threads);
      float *to = threads == 1 && !made ? first : dW;
      for (int64_t i = 0; i < K * N; i++) to[i] = 1;
      memset(p.asked, 0, sizeof(int) * (size_t)T);
      if (made)
        sh_linear_grad_of(&c, T, K, N, p.x, K, rows, &p, to, N);
      else
        sh_linear_grad(&c, T, K, N, p.x, K, p.dy, N, to, N);
      for (int64_t t = 0; t < T; t++) assert_int_equal(p.asked[t], made);
      assert_memory_equal(to, first, bytes);
    }
  check_sums(&p, first);
  sh_arena_free(&scratch);
  free(p.x), free(p.dy), free(p.asked), free(first), free(dW);
}

static void small_gradients(void **state) {
  (void)state;
  const int64_t tokens[] = {0, 1, 63, 65, 255, 257, 1000, 16641};
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) check(tokens[i], 11, 21);
  check(1300, 50, 200);
}

/* More columns than one unit of work sums. */
static void wide_gradients(void **state) {
  (void)state;
  check(700, 512, 300);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(small_gradients), cmocka_unit_test(wide_gradients)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
