/* support/close.h: how near arrays are to their references.
 *
 * The error of an array is max |got - want| / max |want|: relative to the largest entry of the reference. A value that
 * is not finite, or anything but zero where the whole reference is zero, is an infinite error.
 *
 *   sh_close_report r = {0};
 *   sh_close_check(&r, 2e-5, "grad", n, got, want, "step%d %s", step, name);   any number of times
 *   sh_close_print(&r, stdout, title);                                        worst error of each kind, then failures
 *   assert_int_equal(r.failed, 0);
 */
#ifndef SH_TESTS_CLOSE_H
#define SH_TESTS_CLOSE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct sh_close {
  double error; /* relative to the largest entry */
  int64_t at;   /* where */
  double got, want, scale;
} sh_close;

/* `scale` 0: the largest entry of want. */
sh_close sh_close_of(int64_t n, const double *got, const double *want, double scale);

enum { SH_CLOSE_KINDS = 32, SH_CLOSE_FAILURES = 20 };

/* The error of floats, in rows of n that lie ld apart; the largest entry counts as `floor` at least (a sum of terms
 * that cancel is no scale). What lies between rows must be the same to the bit, else the error is infinite. */
double sh_close_rows(int64_t rows, int64_t n, int64_t ld, const float *got, const float *want, double floor);
double sh_close_floats(int64_t n, const float *got, const float *want, double floor); /* one row */

typedef struct sh_close_report {
  int kinds;
  struct {
    char kind[32], where[128];
    sh_close worst;
    double tolerance;
  } kind[SH_CLOSE_KINDS];
  double scale;   /* for the next checks: errors relative to this; 0: to the largest entry */
  int64_t arrays; /* compared */
  int failed;     /* arrays beyond their tolerance; the first SH_CLOSE_FAILURES are kept as text */
  char failure[SH_CLOSE_FAILURES][256];
} sh_close_report;

/* Compare n doubles; `where` says which array. Returns whether they are close. */
bool sh_close_check(sh_close_report *r, double tolerance, const char *kind, int64_t n, const double *got,
                    const double *want, const char *where, ...) __attribute__((format(printf, 7, 8)));

/* A failure that is no array: a missing name, an unequal integer. */
void sh_close_fail(sh_close_report *r, const char *what, ...) __attribute__((format(printf, 2, 3)));

/* One line with the worst error of each kind, one line for each kept failure. */
void sh_close_print(const sh_close_report *r, FILE *out, const char *title);

#endif
