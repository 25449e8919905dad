#include "support/close.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

sh_close sh_close_of(int64_t n, const double *got, const double *want, double scale) {
  sh_close c = {.scale = scale};
  double furthest = -1;
  for (int64_t i = 0; i < n; i++) {
    double distance = fabs(got[i] - want[i]);
    if (!isfinite(distance)) distance = INFINITY;
    if (scale == 0 && fabs(want[i]) > c.scale) c.scale = fabs(want[i]);
    if (distance > furthest) furthest = distance, c.at = i, c.got = got[i], c.want = want[i];
  }
  if (furthest > 0) c.error = furthest / c.scale;
  return c;
}

double sh_close_rows(int64_t rows, int64_t n, int64_t ld, const float *got, const float *want, double floor) {
  double furthest = 0, largest = floor;
  for (int64_t i = 0; i < rows; i++, got += ld, want += ld) {
    for (int64_t k = 0; k < n; k++) {
      double distance = fabs((double)got[k] - (double)want[k]);
      if (!isfinite(distance)) return INFINITY;
      furthest = fmax(furthest, distance), largest = fmax(largest, fabs((double)want[k]));
    }
    if (memcmp(got + n, want + n, sizeof(float) * (size_t)(ld - n)) != 0) return INFINITY;
  }
  return furthest > 0 ? furthest / largest : 0;
}

double sh_close_floats(int64_t n, const float *got, const float *want, double floor) {
  return sh_close_rows(1, n, n, got, want, floor);
}

/* Where the next failure is written; the last place is overwritten when there are too many. */
static char *next_failure(sh_close_report *r) {
  int at = r->failed < SH_CLOSE_FAILURES ? r->failed : SH_CLOSE_FAILURES - 1;
  r->failed++;
  return r->failure[at];
}

void sh_close_fail(sh_close_report *r, const char *what, ...) {
  va_list args;
  va_start(args, what);
  vsnprintf(next_failure(r), sizeof r->failure[0], what, args);
  va_end(args);
}

static int kind_of(sh_close_report *r, const char *kind, double tolerance) {
  for (int i = 0; i < r->kinds; i++)
    if (!strcmp(r->kind[i].kind, kind)) return i;
  if (r->kinds == SH_CLOSE_KINDS) return SH_CLOSE_KINDS - 1;
  snprintf(r->kind[r->kinds].kind, sizeof r->kind[0].kind, "%s", kind);
  r->kind[r->kinds].tolerance = tolerance;
  r->kind[r->kinds].worst.error = -1;
  return r->kinds++;
}

bool sh_close_check(sh_close_report *r, double tolerance, const char *kind, int64_t n, const double *got,
                    const double *want, const char *where, ...) {
  sh_close c = sh_close_of(n, got, want, r->scale);
  char place[128];
  va_list args;
  va_start(args, where);
  vsnprintf(place, sizeof place, where, args);
  va_end(args);
  r->arrays++;
  int k = kind_of(r, kind, tolerance);
  if (c.error > r->kind[k].worst.error) {
    r->kind[k].worst = c;
    memcpy(r->kind[k].where, place, sizeof place);
  }
  if (c.error <= tolerance) return true;
  snprintf(next_failure(r), sizeof r->failure[0],
           "%s: %s: entry %lld of %lld is %.9g, expected %.9g; relative to %.6g: %.2e > %.0e", kind, place,
           (long long)c.at, (long long)n, c.got, c.want, c.scale, c.error, tolerance);
  return false;
}

void sh_close_print(const sh_close_report *r, FILE *out, const char *title) {
  fprintf(out, "%s: %lld arrays:", title, (long long)r->arrays);
  for (int i = 0; i < r->kinds; i++) fprintf(out, " %s %.1e", r->kind[i].kind, r->kind[i].worst.error);
  fprintf(out, "%s\n", r->failed ? "  FAILED" : "");
  int kept = r->failed < SH_CLOSE_FAILURES ? r->failed : SH_CLOSE_FAILURES;
  for (int i = 0; i < kept; i++) fprintf(out, "    %s\n", r->failure[i]);
  if (r->failed > kept) fprintf(out, "    and %d more\n", r->failed - kept);
}
