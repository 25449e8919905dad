/* Counter-based randomness: the published vectors, and the properties the trainer relies on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <math.h>

#include "core/rng.h"

/* Random123 1.14, kat_vectors: philox4x32, 10 rounds: counter, key, result. */
static const uint32_t known[3][10] = {
    {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
    {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
     0x6d5451fd},
    {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
     0x24126ea1},
};

static void test_published_vectors(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) {
    const uint32_t *v = known[i];
    sh_philox r = sh_philox4x32(v[0], v[1], v[2], v[3], v[4], v[5]);
    for (int k = 0; k < 4; k++) assert_int_equal(r.v[k], v[6 + k]);
  }
}

static int same(sh_philox a, sh_philox b) {
  return a.v[0] == b.v[0] && a.v[1] == b.v[1] && a.v[2] == b.v[2] && a.v[3] == b.v[3];
}

/* Each part of key and counter matters, the high half of a 64-bit sample id too. */
static void test_every_part_counts(void **state) {
  (void)state;
  sh_philox r = sh_random4(1, 2, 3, 4, 5, 6);
  assert_true(same(r, sh_random4(1, 2, 3, 4, 5, 6)));
  assert_false(same(r, sh_random4(9, 2, 3, 4, 5, 6)));
  assert_false(same(r, sh_random4(1, 9, 3, 4, 5, 6)));
  assert_false(same(r, sh_random4(1, 2, 9, 4, 5, 6)));
  assert_false(same(r, sh_random4(1, 2, 3, 9, 5, 6)));
  assert_false(same(r, sh_random4(1, 2, 3, 4, 9, 6)));
  assert_false(same(r, sh_random4(1, 2, 3, 4, 5, 9)));
  assert_false(same(r, sh_random4(1, 2, 3, 4 + ((int64_t)1 << 32), 5, 6)));
}

static void test_sites_are_distinct(void **state) {
  (void)state;
  assert_int_not_equal(SH_SITE(SH_SITE_DROP_INPUT, 1), SH_SITE(SH_SITE_DROP_LINEAR, 1));
  assert_int_not_equal(SH_SITE(SH_SITE_DROP_INPUT, 1), SH_SITE(SH_SITE_DROP_INPUT, 2));
  assert_int_equal(sh_name_hash(""), 2166136261u);
  assert_int_equal(sh_name_hash("a"), 0xe40c292cu); /* FNV-1a's own vector */
}

static void test_uniform_ends(void **state) {
  (void)state;
  assert_true(sh_uniform(0) == 0.0f);
  assert_true(sh_uniform(UINT32_MAX) < 1.0f);
  assert_int_equal(sh_below(UINT32_MAX, 7), 6);
  assert_int_equal(sh_below(0, 7), 0);
  assert_int_equal(sh_below(UINT32_MAX, 1), 0);
  assert_int_equal(sh_drop_threshold(0), 0);
  assert_int_equal(sh_drop_threshold(0.5), 0x80000000u);
}

/* The extremes of Box-Muller are finite: log never sees 0. */
static void test_normal_is_finite(void **state) {
  (void)state;
  const uint32_t ends[] = {0, 1, 0x80000000u, UINT32_MAX};
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      float z[2];
      sh_normal2(ends[i], ends[j], z);
      assert_true(isfinite(z[0]) && isfinite(z[1]) && fabsf(z[0]) < 7 && fabsf(z[1]) < 7);
    }
}

/* Moments and a dropout rate over many counters, within five standard errors. */
static void test_moments(void **state) {
  (void)state;
  enum { N = 100000 };
  double sum = 0, square = 0, uniform = 0, dropped = 0;
  uint32_t threshold = sh_drop_threshold(0.2);
  for (int i = 0; i < N; i++) {
    sh_philox r = sh_random4(42, SH_SITE(SH_SITE_TEST, 0), 7, i, 3, 0);
    float z[2];
    sh_normal2(r.v[0], r.v[1], z);
    sum += (double)z[0] + (double)z[1];
    square += (double)z[0] * (double)z[0] + (double)z[1] * (double)z[1];
    uniform += (double)sh_uniform(r.v[2]);
    dropped += r.v[3] < threshold;
  }
  assert_true(fabs(sum / (2 * N)) < 5 / sqrt(2.0 * N));
  assert_true(fabs(square / (2 * N) - 1) < 5 * sqrt(2.0 / (2 * N)));
  assert_true(fabs(uniform / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
  assert_true(fabs(dropped / N - 0.2) < 5 * sqrt(0.16 / N));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_published_vectors),  cmocka_unit_test(test_every_part_counts),
      cmocka_unit_test(test_sites_are_distinct), cmocka_unit_test(test_uniform_ends),
      cmocka_unit_test(test_normal_is_finite),   cmocka_unit_test(test_moments),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
