/* Runs of equal time bucket against the bucket of every pair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "data/time_runs.h"
#include "support/make_batch.h"

/* Every run is not empty, runs cover keys 0 .. i without a gap, and each key of a run has the run's bucket. Runs of
 * sorted times before the request are as long as they can be. */
static void check_runs(const sh_batch *b, bool sorted) {
  const sh_time_runs *r = &b->runs;
  assert_int_equal(r->start[0], 0);
  for (int64_t s = 0; s < b->B; s++)
    for (int32_t t = b->offsets[s]; t < b->offsets[s + 1]; t++) {
      int32_t i = t - b->offsets[s], j = 0;
      for (int32_t k = r->start[t]; k < r->start[t + 1]; k++) {
        assert_true(r->end[k] > j && r->end[k] <= i + 1);
        for (; j < r->end[k]; j++)
          assert_int_equal(r->bucket[k], sh_time_bucket(b->next_time[t] - b->time[b->offsets[s] + j]));
        if (sorted && k > r->start[t]) assert_true(r->bucket[k] < r->bucket[k - 1]);
      }
      assert_int_equal(j, i + 1);
    }
}

static sh_arena arena;
static int64_t time_of[SH_TEST_TOKENS], next_of[SH_TEST_TOKENS];

/* A batch whose times a test writes. */
static sh_batch writable(uint32_t seed) {
  sh_batch b;
  sh_make_batch(&b, SH_TEST_LENGTHS, sh_test_length, 9, seed, &arena);
  memcpy(time_of, b.time, sizeof time_of);
  memcpy(next_of, b.next_time, sizeof next_of);
  b.time = time_of, b.next_time = next_of;
  return b;
}

static void random_times(void **state) {
  (void)state;
  for (uint32_t seed = 0; seed < 40; seed++) {
    sh_batch b = writable(seed * 10);
    check_runs(&b, true);
    memcpy(next_of, time_of, sizeof next_of); /* without the time of the request */
    sh_time_runs_build(&b, &arena);
    check_runs(&b, true);
    sh_arena_reset(&arena);
  }
}

/* Each difference at, just below and just above every bound of a bucket. */
static void at_the_bounds(void **state) {
  (void)state;
  sh_batch b = writable(1);
  for (int bound = 0; bound < 128; bound++)
    for (int64_t off = -1; off <= 1; off++) {
      for (int t = 0; t < SH_TEST_TOKENS; t++) {
        time_of[t] = 100 + b.position[t];
        next_of[t] = time_of[t] + sh_time_bucket_bound[bound] + off;
      }
      sh_time_runs_build(&b, &arena);
      check_runs(&b, true);
    }
  sh_arena_reset(&arena);
}

static void equal_times(void **state) {
  (void)state;
  sh_batch b = writable(1);
  for (int t = 0; t < SH_TEST_TOKENS; t++) time_of[t] = next_of[t] = 7;
  sh_time_runs_build(&b, &arena);
  check_runs(&b, true);
  assert_int_equal(b.runs.start[SH_TEST_TOKENS], SH_TEST_TOKENS); /* one run each */
  sh_arena_reset(&arena);
}

/* Bad data: times that decrease, or lie behind the request. */
static void unsorted_times(void **state) {
  (void)state;
  for (uint32_t seed = 0; seed < 20; seed++) {
    sh_batch b = writable(1);
    for (int t = 0; t < SH_TEST_TOKENS; t++) {
      time_of[t] = (int64_t)(sh_make_bits(seed, t) >> (seed + sh_make_bits(seed + 50, t) % 10));
      next_of[t] = (int64_t)(sh_make_bits(seed + 100, t) >> seed);
      if (seed % 2) time_of[t] = -time_of[t];
    }
    sh_time_runs_build(&b, &arena);
    check_runs(&b, false);
    for (int t = 0; t < SH_TEST_TOKENS; t++) time_of[t] = -b.position[t] * 1000, next_of[t] = time_of[t] - 500;
    sh_time_runs_build(&b, &arena);
    check_runs(&b, false);
    sh_arena_reset(&arena);
  }
}

static void huge_gaps(void **state) {
  (void)state;
  sh_batch b = writable(1);
  for (int t = 0; t < SH_TEST_TOKENS; t++) {
    time_of[t] = ((int64_t)1 << 57) * (b.position[t] - 16);
    next_of[t] = time_of[t] + (b.position[t] % 3 ? (int64_t)1 << 57 : 0);
  }
  sh_time_runs_build(&b, &arena);
  check_runs(&b, true);
  sh_arena_reset(&arena);
}

static void empty_sequences(void **state) {
  (void)state;
  sh_batch b;
  sh_make_batch(&b, 5, (int32_t[]){0, 3, 0, 1, 0}, 9, 5, &arena);
  check_runs(&b, true);
  sh_make_batch(&b, 0, NULL, 9, 5, &arena);
  check_runs(&b, true);
  sh_arena_reset(&arena);
}

/* floor(log(max(|dt|, 1)) / 0.301), as published, wherever float's rounding does not decide. */
static void bucket_of_a_difference(void **state) {
  (void)state;
  assert_int_equal(sh_time_bucket(0), 0);
  assert_int_equal(sh_time_bucket(1), 0);
  for (int i = 0; i < 20000; i++) {
    int64_t dt = (int64_t)(((uint64_t)sh_make_bits(1, 2 * i) << 32 | sh_make_bits(1, 2 * i + 1)) >> (2 + i % 62));
    double bucket = log(fmax((double)dt, 1)) / 0.301, edge = fabs(bucket - round(bucket));
    if (edge < 1e-4) continue;
    assert_int_equal(sh_time_bucket(dt), bucket < 128 ? (int)bucket : 128);
    assert_int_equal(sh_time_bucket(-dt), sh_time_bucket(dt));
  }
  for (int k = 1; k < 128; k++) assert_true(sh_time_bucket_bound[k] >= sh_time_bucket_bound[k - 1]);
}

static void any_number_of_threads(void **state) {
  (void)state;
  int before = omp_get_max_threads();
  omp_set_num_threads(1);
  sh_batch one = writable(3), more = one;
  for (int threads = 2; threads <= 3; threads++) {
    omp_set_num_threads(threads);
    sh_time_runs_build(&more, &arena);
    int32_t runs = one.runs.start[one.T];
    assert_memory_equal(more.runs.start, one.runs.start, sizeof(int32_t) * (size_t)(one.T + 1));
    assert_memory_equal(more.runs.end, one.runs.end, sizeof(int32_t) * (size_t)runs);
    assert_memory_equal(more.runs.bucket, one.runs.bucket, (size_t)runs);
  }
  omp_set_num_threads(before);
  sh_arena_reset(&arena);
}

int main(void) {
  sh_arena_init(&arena, "test");
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_times),
      cmocka_unit_test(at_the_bounds),
      cmocka_unit_test(equal_times),
      cmocka_unit_test(unsorted_times),
      cmocka_unit_test(huge_gaps),
      cmocka_unit_test(empty_sequences),
      cmocka_unit_test(bucket_of_a_difference),
      cmocka_unit_test(any_number_of_threads),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  sh_arena_free(&arena);
  return failed;
}
