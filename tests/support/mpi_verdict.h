/* support/mpi_verdict.h: verdicts of a test on several ranks.
 *
 * CMocka's asserts jump out of the test: one failing rank would leave the others in a collective. assert_all reduces
 * the verdict first, so that the test fails on all ranks together; the rank that failed says where.
 */
#ifndef SH_TESTS_MPI_VERDICT_H
#define SH_TESTS_MPI_VERDICT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static FILE *mpi_verdict_out; /* every rank's; stdout and stderr are rank 0's only */

__attribute__((unused)) static int mpi_rank(void) {
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

__attribute__((unused)) static int mpi_size(void) {
  int size;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

__attribute__((unused)) static bool mpi_verdict(bool mine, const char *what, const char *file, int line) {
  int all = mine;
  if (!mine) {
    fprintf(mpi_verdict_out ? mpi_verdict_out : stderr, "rank %d: %s:%d: %s\n", mpi_rank(), file, line, what);
    fflush(mpi_verdict_out ? mpi_verdict_out : stderr);
  }
  MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  return all;
}

/* Collective over MPI_COMM_WORLD: holds when it holds on all ranks. */
#define assert_all(condition) assert_true(mpi_verdict((condition), #condition, __FILE__, __LINE__))

/* What an MPI test asks of MPI_Init_thread, unless it says something else before it includes this. */
#ifndef MPI_VERDICT_LEVEL
#define MPI_VERDICT_LEVEL MPI_THREAD_FUNNELED
#endif

/* The main of an MPI test: exit code 0 when no rank saw a failure. */
#define mpi_run_tests(tests) mpi_main_of((tests), sizeof(tests) / sizeof((tests)[0]), #tests)
__attribute__((unused)) static int mpi_main_of(const struct CMUnitTest *tests, size_t n, const char *name) {
  int level, failed;
  MPI_Init_thread(NULL, NULL, MPI_VERDICT_LEVEL, &level);
  mpi_verdict_out = fdopen(dup(STDERR_FILENO), "w");
  if (mpi_rank() && !(freopen("/dev/null", "w", stdout) && freopen("/dev/null", "w", stderr))) abort();
  failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return failed != 0;
}

#endif
