/* Arenas: alignment, marks, reset, and the promise of no request to the system after warm-up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"

static void test_alignment_and_zero(void **state) {
  (void)state;
  sh_arena a;
  sh_arena_init(&a, "test");
  for (size_t n = 0; n < 300; n += 7) {
    unsigned char *p = sh_arena_zalloc(&a, n);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
    memset(p, 0xff, n);
  }
  double *x = SH_ARENA_ZNEW(&a, double, 100);
  for (int i = 0; i < 100; i++) assert_true(x[i] == 0);
  sh_arena_free(&a);
  assert_int_equal(a.used, 0);
  assert_null(a.head);
}

/* Blocks handed out do not overlap, over several regions. */
static void test_blocks_are_apart(void **state) {
  (void)state;
  enum { N = 64 };
  sh_arena a;
  sh_arena_init(&a, "test");
  unsigned char *p[N];
  size_t size[N];
  for (int i = 0; i < N; i++) {
    size[i] = (size_t)1 << (i % 20);
    p[i] = sh_arena_alloc(&a, size[i]);
    memset(p[i], i, size[i]);
  }
  for (int i = 0; i < N; i++)
    for (size_t k = 0; k < size[i]; k++) assert_int_equal(p[i][k], i);
  sh_arena_free(&a);
}

/* Reserved: one region for all that follows, the old one given back; enough stays as it is. */
static void test_reserve(void **state) {
  (void)state;
  sh_arena a;
  sh_arena_init(&a, "test");
  sh_arena_alloc(&a, 1000);
  sh_arena_reset(&a);
  sh_arena_reserve(&a, 9 << 20);
  int64_t before = sh_alloc_count();
  char *first = sh_arena_alloc(&a, 1 << 20), *last = NULL;
  for (int i = 0; i < 8; i++) last = sh_arena_alloc(&a, 1 << 20);
  assert_int_equal(sh_alloc_count() - before, 1);
  assert_int_equal(last - first, 8 << 20);
  sh_arena_reserve(&a, 1 << 30); /* not empty: nothing happens */
  sh_arena_reset(&a);
  sh_arena_reserve(&a, 8 << 20);
  assert_ptr_equal(sh_arena_alloc(&a, 1), first);
  sh_arena_free(&a);
}

static void one_step(sh_arena *a) {
  sh_arena_reset(a);
  for (size_t i = 1; i < 200; i++) sh_arena_alloc(a, 997 * i);
}

static void test_no_requests_after_warm_up(void **state) {
  (void)state;
  sh_arena a;
  sh_arena_init(&a, "step");
  one_step(&a);
  one_step(&a);
  int64_t before = sh_alloc_count();
  size_t used = a.used;
  for (int i = 0; i < 5; i++) one_step(&a);
  assert_int_equal(sh_alloc_count(), before);
  assert_int_equal(a.used, used);
  assert_true(a.peak >= used);
  sh_arena_free(&a);
}

static void test_marks(void **state) {
  (void)state;
  sh_arena a;
  sh_arena_init(&a, "scratch");
  char *keep = sh_arena_alloc(&a, 100);
  memset(keep, 7, 100);
  sh_arena_mark outer = sh_arena_save(&a);
  char *first = sh_arena_alloc(&a, 1000);
  sh_arena_mark inner = sh_arena_save(&a);
  sh_arena_alloc(&a, (size_t)8 << 20); /* a region of its own */
  sh_arena_release(&a, inner);
  sh_arena_release(&a, outer);
  assert_int_equal(a.used, 128);
  assert_ptr_equal(sh_arena_alloc(&a, 1000), first);
  for (int i = 0; i < 100; i++) assert_int_equal(keep[i], 7);
  sh_arena_free(&a);
}

/* A scratch arena that is marked empty, used and released over and over settles to no requests. */
static void test_marks_settle(void **state) {
  (void)state;
  sh_arena a;
  sh_arena_init(&a, "scratch");
  int64_t before = 0;
  for (int round = 0; round < 8; round++) {
    if (round == 2) before = sh_alloc_count();
    sh_arena_mark mark = sh_arena_save(&a);
    for (size_t i = 1; i < 50; i++) sh_arena_alloc(&a, 5000 * i);
    sh_arena_release(&a, mark);
    assert_int_equal(a.used, 0);
  }
  assert_int_equal(sh_alloc_count(), before);
  sh_arena_free(&a);
}

static void test_counted_memory(void **state) {
  (void)state;
  int64_t before = sh_alloc_count();
  char *p = sh_malloc(0);
  p = sh_realloc(p, 100);
  char *s = sh_strdup("shoal");
  int *z = sh_calloc(10, sizeof *z);
  assert_string_equal(s, "shoal");
  for (int i = 0; i < 10; i++) assert_int_equal(z[i], 0);
  char *pages = sh_pages_alloc(5);
  assert_int_equal((uintptr_t)pages % ((size_t)2 << 20), 0);
  pages[4] = 1;
  assert_int_equal(sh_alloc_count() - before, 5);
  free(p);
  free(s);
  free(z);
  sh_pages_free(pages, 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_alignment_and_zero),
      cmocka_unit_test(test_blocks_are_apart),
      cmocka_unit_test(test_reserve),
      cmocka_unit_test(test_no_requests_after_warm_up),
      cmocka_unit_test(test_marks),
      cmocka_unit_test(test_marks_settle),
      cmocka_unit_test(test_counted_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
