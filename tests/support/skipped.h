/* support/skipped.h: tests that lack what they need. One says so and is skipped; a program ends with 77, which counts
 * as skipped, when some test was and none failed. */
#ifndef SH_TESTS_SKIPPED_H
#define SH_TESTS_SKIPPED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

static int tests_skipped;

/* Ends the test. `what` is not seen to, and why. */
#define SKIP_TEST(...)                                                                                                 \
  do {                                                                                                                 \
    fprintf(stderr, "\n*** SKIPPED: " __VA_ARGS__);                                                                    \
    fprintf(stderr, " ***\n\n");                                                                                       \
    tests_skipped++;                                                                                                   \
    skip();                                                                                                            \
  } while (0)

/* What main returns for CMocka's count of failures. */
static inline int with_skipped(int failures) { return failures == 0 && tests_skipped > 0 ? 77 : failures; }

#endif
