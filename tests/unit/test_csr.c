/* Grouping references: each row's list is ascending and complete, for every shape and number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>
#include <stdlib.h>

#include "core/csr.h"
#include "support/make_batch.h"

static sh_arena arena;

static void check(int64_t n, const int32_t *row, int64_t rows) {
  sh_csr c;
  sh_csr_build(&c, n, row, rows, &arena);
  assert_int_equal(c.n, n);
  assert_int_equal(c.rows, rows);
  assert_int_equal(c.start[0], 0);
  assert_int_equal(c.start[rows], n);
  for (int64_t r = 0; r < rows; r++) {
    assert_true(c.start[r] <= c.start[r + 1]);
    for (int32_t k = c.start[r]; k < c.start[r + 1]; k++) {
      assert_int_equal(row[c.item[k]], r);
      if (k > c.start[r]) assert_true(c.item[k - 1] < c.item[k]);
    }
  }
  sh_arena_reset(&arena);
}

/* skew 0: even; 1: all to the last row; 2: most to the first ones. */
static void fill(int32_t *row, int64_t n, int64_t rows, int skew) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = sh_make_bits((uint32_t)skew, i), n_rows = (uint32_t)rows;
    row[i] = (int32_t)(skew == 1 ? n_rows - 1 : skew == 2 ? (bits >> (bits % 32)) % n_rows : bits % n_rows);
  }
}

/* Around the sizes at which references are cut into chunks, and with more rows than references. */
static void shapes(void **state) {
  (void)state;
  static const int64_t counts[] = {0, 1, 7, 1000, 32768, 32769, 131072, 131073, 400000, 2200000};
  static const int64_t rows[] = {1, 2, 50, 4000, 300000};
  int32_t *row = sh_malloc(sizeof *row * 2200000);
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
      if (counts[i] > 1000000 && rows[k] != 4000) continue;
      fill(row, counts[i], rows[k], (int)(i + k) % 3);
      check(counts[i], row, rows[k]);
    }
  check(0, row, 0);
  free(row);
}

static void any_number_of_threads(void **state) {
  (void)state;
  enum { N = 300000, ROWS = 700 };
  int32_t *row = sh_malloc(sizeof *row * N);
  sh_csr one, more;
  int before = omp_get_max_threads();
  fill(row, N, ROWS, 2);
  omp_set_num_threads(1);
  sh_csr_build(&one, N, row, ROWS, &arena);
  for (int threads = 2; threads <= 5; threads++) {
    omp_set_num_threads(threads);
    sh_csr_build(&more, N, row, ROWS, &arena);
    assert_memory_equal(more.start, one.start, sizeof(int32_t) * (ROWS + 1));
    assert_memory_equal(more.item, one.item, sizeof(int32_t) * N);
  }
  omp_set_num_threads(before);
  sh_arena_reset(&arena);
  free(row);
}

int main(void) {
  sh_arena_init(&arena, "test");
  const struct CMUnitTest tests[] = {cmocka_unit_test(shapes), cmocka_unit_test(any_number_of_threads)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  sh_arena_free(&arena);
  return failed;
}
