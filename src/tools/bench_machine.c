/* What the machine can do: matrix products through both libraries, streaming memory, random rows. Every rank measures
 * at the same time, with the threads it trains with. */
#include <libxsmm.h>
#include <omp.h>
#include <stdlib.h>

#include "core/rng.h"
#include "core/threads.h"
#include "core/timer.h"
#include "tools/bench_internal.h"

/* BLIS: the Fortran interface, and its own thread count, which OMP_NUM_THREADS need not have told it. */
extern void sgemm_(const char *ta, const char *tb, const int *m, const int *n, const int *k, const float *alpha,
                   const float *a, const int *lda, const float *b, const int *ldb, const float *beta, float *c,
                   const int *ldc);
extern void bli_thread_set_num_threads(int64_t n);
extern int64_t bli_thread_get_num_threads(void);

enum { BIG = 2048, SMALL = 64, SMALL_TIMES = 2000, WIDTH = 64, GATHER_ROWS = 1 << 20, BLOCK = 128 };
static const int64_t STREAM = 1 << 24; /* floats of an array: beyond any cache */

/* The best of a few: a peak is not a median. */
static double best_time(void (*call)(void *), void *arg) {
  double best = 0, total = 0;
  call(arg);
  for (int n = 0; n < 20 && (n < 4 || total < 0.5); n++) {
    double start = sh_now();
    call(arg);
    double seconds = sh_now() - start;
    total += seconds;
    if (best == 0 || seconds < best) best = seconds;
  }
  return best;
}

static void fill(float *x, int64_t n) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) x[i] = (float)(i % 113) * 0x1p-7f;
}

static void big_gemm(void *arg) {
  float *a = arg, *b = a + BIG * BIG, *c = b + BIG * BIG;
  const int n = BIG;
  const float one = 1, zero = 0;
  sgemm_("N", "N", &n, &n, &n, &one, a, &n, b, &n, &zero, c, &n);
}

static void small_gemm(void *arg) {
  float *all = arg;
  const libxsmm_blasint n = SMALL;
  const float one = 1, zero = 0;
  const int flags = LIBXSMM_GEMM_FLAG_NONE;
  libxsmm_smmfunction f = libxsmm_smmdispatch(n, n, n, &n, &n, &n, &one, &zero, &flags, NULL);
  if (!f) return;
#pragma omp parallel
  {
    float *a = all + (int64_t)3 * SMALL * SMALL * omp_get_thread_num(), *b = a + SMALL * SMALL, *c = b + SMALL * SMALL;
    for (int i = 0; i < SMALL_TIMES; i++) f(a, b, c);
  }
}

static void triad(void *arg) {
  float *a = arg, *b = a + STREAM, *c = b + STREAM;
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < STREAM; i++) a[i] = b[i] + 3.f * c[i];
}

typedef struct gather_arg {
  const sh_kernels *k;
  const float *rows, *coef;
  const int32_t *slot;
  float *out;
} gather_arg;
static void gather(void *arg) {
  const gather_arg *g = arg;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < GATHER_ROWS; i += BLOCK)
    g->k->gather_sum(BLOCK, WIDTH, g->coef, g->rows, WIDTH, g->slot + i,
                     g->out + (int64_t)WIDTH * omp_get_thread_num());
}

static double measure_gemm(sh_bench_state *b) {
  size_t bytes = sizeof(float) * 3 * BIG * BIG;
  size_t small = sizeof(float) * 3 * SMALL * SMALL * (size_t)sh_threads();
  float *x = sh_pages_alloc(bytes > small ? bytes : small);
  int64_t before = bli_thread_get_num_threads();
  double flops[2] = {2.0 * BIG * BIG * BIG, 2.0 * SMALL * SMALL * SMALL * SMALL_TIMES * sh_threads()};
  fill(x, 3 * BIG * BIG);
  bli_thread_set_num_threads(sh_threads());
  double t = best_time(big_gemm, x);
  bli_thread_set_num_threads(before);
  t = sh_bench_add(b, "machine", "matrix product 2048^3, BLIS", t, 0, flops[0], 0);
  double sums[2] = {flops[0], flops[1]};
  sh_sum_f64(&b->t->grid->world, sums, 2);
  double big = sums[0] / t;
  fill(x, 3 * SMALL * SMALL * sh_threads());
  t = sh_bench_add(b, "machine", "matrix product 64^3, libxsmm", best_time(small_gemm, x), 0, flops[1], 0);
  sh_pages_free(x, bytes > small ? bytes : small);
  return big > sums[1] / t ? big : sums[1] / t;
}

static double measure_triad(sh_bench_state *b) {
  size_t bytes = sizeof(float) * 3 * (size_t)STREAM;
  float *x = sh_pages_alloc(bytes);
  fill(x, 3 * STREAM);
  double moved = (double)bytes,
         t = sh_bench_add(b, "machine", "triad a = b + s c, 3 x 64 MiB", best_time(triad, x), 0, 0, moved);
  sh_pages_free(x, bytes);
  sh_sum_f64(&b->t->grid->world, &moved, 1);
  return moved / t;
}

static void measure_gather(sh_bench_state *b) {
  size_t bytes = sizeof(float) * WIDTH * (size_t)GATHER_ROWS;
  float *rows = sh_pages_alloc(bytes), coef[BLOCK];
  float *out = sh_malloc(sizeof *out * WIDTH * (size_t)sh_threads());
  int32_t *slot = sh_malloc(sizeof *slot * (size_t)GATHER_ROWS);
  fill(rows, (int64_t)WIDTH * GATHER_ROWS);
  for (int i = 0; i < BLOCK; i++) coef[i] = 0x1p-7f;
  for (int64_t i = 0; i < GATHER_ROWS; i++)
    slot[i] = (int32_t)sh_below(sh_random4(0, SH_SITE(SH_SITE_TEST, 1), 0, i, 0, 0).v[0], GATHER_ROWS);
  gather_arg g = {.k = b->t->kernels, .rows = rows, .coef = coef, .slot = slot, .out = out};
  sh_bench_add(b, "machine", "random rows of 256 bytes out of 256 MiB", best_time(gather, &g), 0, 0, (double)bytes);
  free(slot);
  free(out);
  sh_pages_free(rows, bytes);
}

void sh_bench_machine(sh_bench_state *b) {
  sh_bench_title(b, "machine (best of several)");
  b->peak = b->triad = 0;
  double peak = measure_gemm(b), stream = measure_triad(b);
  b->peak = peak, b->triad = stream;
  measure_gather(b);
  if (b->out)
    fprintf(b->out, "  peak: %.1f GFLOP/s, the better of the two products; triad: %.1f GB/s\n", peak * 1e-9,
            stream * 1e-9);
}
