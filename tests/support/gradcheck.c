#include "support/gradcheck.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "support/make_batch.h"

/* f with x moved by `by` along `direction` (NULL: element `at` alone). */
static double moved(sh_gradcheck *g, float *x, int64_t n, int64_t at, const float *direction, double by) {
  if (!direction) {
    float keep = x[at];
    x[at] = (float)((double)keep + by);
    double f = g->f(g->arg);
    x[at] = keep;
    return f;
  }
  float *keep = sh_malloc(sizeof(float) * (size_t)n);
  memcpy(keep, x, sizeof(float) * (size_t)n);
  for (int64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] + by * (double)direction[i]);
  double f = g->f(g->arg);
  memcpy(x, keep, sizeof(float) * (size_t)n);
  free(keep);
  return f;
}

static double difference(sh_gradcheck *g, float *x, int64_t n, int64_t at, const float *direction, double h) {
  double near = moved(g, x, n, at, direction, h) - moved(g, x, n, at, direction, -h);
  double far = moved(g, x, n, at, direction, 2 * h) - moved(g, x, n, at, direction, -2 * h);
  return (8 * near - far) / (12 * h);
}

static void record(sh_gradcheck *g, const char *name, int64_t at, double got, double want, double scale,
                   double *worst) {
  double error = got == want ? 0 : fabs(got - want) / scale;
  if (!(error <= 1e30)) error = 1e30; /* not a number, or a gradient that is zero everywhere and should not be */
  if (error > *worst) *worst = error;
  if (error <= g->worst) return;
  g->worst = error;
  snprintf(g->where, sizeof g->where, "%s[%lld]: gradient %.6g, finite difference %.6g, error %.2g", name,
           (long long)at, got, want, error);
}

bool sh_gradcheck_array(sh_gradcheck *g, const char *name, float *x, int64_t n, const float *grad) {
  double square = 0, length = 0, top = 0, worst = 0, along = 0;
  int64_t largest = 0;
  for (int64_t i = 0; i < n; i++) {
    square += (double)x[i] * (double)x[i];
    length += (double)grad[i] * (double)grad[i];
    if (fabs((double)grad[i]) > top) top = fabs((double)grad[i]), largest = i;
  }
  if (n == 0) return true;
  double before = g->worst, h = g->step * fmax(sqrt(square / (double)n), 1e-2);
  char where[sizeof g->where];
  memcpy(where, g->where, sizeof where);
  g->worst = 0;
  int64_t samples = n <= g->samples ? n : g->samples;
  for (int64_t k = 0; k < samples; k++) {
    uint32_t bits = sh_make_bits((uint32_t)n, k);
    int64_t at = samples == n ? k : k == 0 ? largest : (int64_t)(bits % (uint64_t)n);
    for (int tries = 0; k % 2 && grad[at] == 0 && tries < 20; tries++) /* half of them where something happens */
      at = (int64_t)(sh_make_bits((uint32_t)(n + 1 + tries), k) % (uint64_t)n);
    record(g, name, at, (double)grad[at], difference(g, x, n, at, NULL, h), top, &worst);
  }
  float *direction = sh_malloc(sizeof(float) * (size_t)n);
  for (int64_t i = 0; i < n; i++) {
    direction[i] = sh_make_bits(99, i) & 1 ? 1.f : -1.f;
    along += (double)grad[i] * (double)direction[i];
  }
  double all = difference(g, x, n, 0, direction, h / pow((double)n, 0.25));
  record(g, name, -1, along, all, sqrt(length), &worst);
  free(direction);
  bool passed = worst <= g->tolerance;
  if (!passed) {
    g->failed++;
    fprintf(stderr, "  %s\n", g->where);
  }
  if (before > g->worst) {
    g->worst = before;
    memcpy(g->where, where, sizeof where);
  }
  return passed;
}
