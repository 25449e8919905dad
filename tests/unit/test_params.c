/* The parameter table: offsets, ties, rectangles of a part, and initial values that do not depend on the grid. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/params.h"
#include "core/rng.h"

enum { D = 6, H = 4, DV = 3, DQK = 2, COLUMNS = 2 * H * DV + 2 * H * DQK };

/* HSTU's projection: u, v, q, k, each dealt by heads. */
static sh_param uvqk(void) {
  sh_param p = {.name = "block.0.uvqk", .ndim = 2, .dim = {D, COLUMNS}, .split = 1, .nseg = 4, .tie = -1};
  p.seg[0] = (sh_segment){0, H, DV};
  p.seg[1] = (sh_segment){H * DV, H, DV};
  p.seg[2] = (sh_segment){2 * H * DV, H, DQK};
  p.seg[3] = (sh_segment){2 * H * DV + H * DQK, H, DQK};
  p.init = (sh_init){SH_INIT_NORMAL, 0.02, 0};
  p.decay = true;
  return p;
}

static sh_param vector(const char *name, int64_t n, sh_init init) {
  sh_param p = {.ndim = 1, .dim = {n, 1}, .split = -1, .tie = -1, .tgrad = SH_TGRAD_SAME, .init = init};
  strcpy(p.name, name);
  return p;
}

static void build(sh_params *p, int part, int parts) {
  sh_param a = vector("block.0.bias", 7, (sh_init){SH_INIT_UNIFORM, -0.5, 0.5}), b = uvqk();
  sh_param c = vector("block.0.zero", 5, (sh_init){SH_INIT_ZERO, 0, 0});
  sh_params_create(p, part, parts);
  assert_int_equal(sh_params_add(p, &a), 0);
  assert_int_equal(sh_params_add(p, &b), 1);
  assert_int_equal(sh_params_add(p, &c), 2);
}

static void test_offsets(void **state) {
  (void)state;
  sh_params p;
  build(&p, 0, 1);
  sh_param tied = vector("head.bias", 7, (sh_init){SH_INIT_ZERO, 0, 0});
  tied.tie = 0;
  assert_int_equal(sh_params_add(&p, &tied), 3);
  assert_int_equal(sh_params_finish(&p), SH_OK);
  assert_int_equal(sh_params_find(&p, "block.0.zero"), 2);
  assert_int_equal(sh_params_find(&p, "nothing"), -1);
  for (int i = 0; i < p.n; i++) assert_int_equal(p.row[i].offset % 16, 0);
  assert_int_equal(p.row[3].offset, p.row[0].offset);
  assert_true(p.row[1].offset >= p.row[0].offset + 7 && p.row[2].offset >= p.row[1].offset + D * COLUMNS);
  assert_true(p.block >= p.row[2].offset + 5 && p.block % 16 == 0);
  assert_int_equal(sh_params_count(&p), 7 + D * COLUMNS + 5);
  for (int64_t i = 0; i < p.block; i++) assert_true(p.value[i] == 0 && p.grad[i] == 0);
  sh_params_destroy(&p);
}

/* Every element of the whole belongs to exactly one part, and its value there is the one of a single part. */
static void check_parts(int parts) {
  sh_params whole;
  build(&whole, 0, 1);
  assert_int_equal(sh_params_finish(&whole), SH_OK);
  sh_params_init(&whole, 42);
  int seen[D][COLUMNS] = {{0}};
  for (int part = 0; part < parts; part++) {
    sh_params p;
    sh_rect rect[SH_PARAM_SEGMENTS];
    build(&p, part, parts);
    assert_int_equal(sh_params_finish(&p), SH_OK);
    sh_params_init(&p, 42);
    assert_int_equal(p.row[1].local[1], COLUMNS / parts);
    int n = sh_param_rects(&p, 1, rect);
    assert_int_equal(n, 4);
    for (int q = 0; q < n; q++)
      for (int64_t i = 0; i < rect[q].count[0]; i++)
        for (int64_t j = 0; j < rect[q].count[1]; j++) {
          int64_t row = rect[q].start[0] + i, column = rect[q].start[1] + j;
          int64_t at = (rect[q].local_start[0] + i) * p.row[1].local[1] + rect[q].local_start[1] + j;
          seen[row][column]++;
          assert_true(sh_param_value(&p, 1)[at] == sh_param_value(&whole, 1)[row * COLUMNS + column]);
        }
    assert_memory_equal(sh_param_value(&p, 0), sh_param_value(&whole, 0), 7 * sizeof(float));
    sh_params_destroy(&p);
  }
  for (int i = 0; i < D; i++)
    for (int j = 0; j < COLUMNS; j++) assert_int_equal(seen[i][j], 1);
  sh_params_destroy(&whole);
}

static void test_parts_tile_the_whole(void **state) {
  (void)state;
  check_parts(1);
  check_parts(2);
  check_parts(4);
}

static void test_heads_must_deal(void **state) {
  (void)state;
  sh_params p;
  build(&p, 0, 3);
  assert_int_equal(sh_params_finish(&p), SH_ERR_USAGE);
  assert_non_null(strstr(sh_error_message(), "block.0.uvqk"));
  assert_non_null(strstr(sh_error_message(), "parallel.tensor = 3"));
  sh_params_destroy(&p);
}

/* Moments of each kind of draw; the truncated normal's share beyond 2 std is only what fell back to draw 0. */
static void test_init_kinds(void **state) {
  (void)state;
  enum { N = 40000 };
  const sh_init init[3] = {{SH_INIT_NORMAL, 2, 0}, {SH_INIT_TRUNC_NORMAL, 2, 0}, {SH_INIT_UNIFORM, -1, 3}};
  const double mean[3] = {0, 0, 1}, std[3] = {2, 2 * 0.8796, 4 / sqrt(12)};
  for (int k = 0; k < 3; k++) {
    double sum = 0, square = 0;
    int outside = 0;
    for (int i = 0; i < N; i++) {
      double v = (double)sh_init_value(&init[k], 1, SH_SITE(SH_SITE_TEST, 0), 5, i / 100, i % 100);
      sum += v;
      square += v * v;
      outside += fabs(v) > 4;
    }
    double m = sum / N, s = sqrt(square / N - m * m);
    assert_true(fabs(m - mean[k]) < 5 * std[k] / sqrt(N));
    assert_true(fabs(s / std[k] - 1) < 0.02);
    if (k == 1) assert_true(outside < 10); /* expected: N * 0.0455^4 = 0.2 */
  }
  assert_true(sh_init_value(&(sh_init){SH_INIT_ZERO, 0, 0}, 1, 2, 3, 4, 5) == 0);
  float low = sh_init_value(&init[0], 1, 2, 3, 4, 5);
  assert_true(low != sh_init_value(&init[0], 1, 2, 3, 4, 6) && low != sh_init_value(&init[0], 2, 2, 3, 4, 5));
  assert_true(low != sh_init_value(&init[0], 1, 2, 3, 5, 5) && low != sh_init_value(&init[0], 1, 2, 4, 4, 5));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_offsets),
      cmocka_unit_test(test_parts_tile_the_whole),
      cmocka_unit_test(test_heads_must_deal),
      cmocka_unit_test(test_init_kinds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
