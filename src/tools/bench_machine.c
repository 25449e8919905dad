/* What the machine can do: matrix products through both libraries, streaming memory, random rows. Every rank measures
 * at the same time, with the threads it trains with. */
#include <omp.h>
#include <stdlib.h>

#include "core/rng.h"
#include "core/threads.h"
#include "core/timer.h"
#include "kernels/peak.h"
#include "tools/bench_internal.h"

/* BLIS: the Fortran interface, and its own thread count, which OMP_NUM_THREADS need not have told it. */
extern void sgemm_(const char *ta, const char *tb, const int *m, const int *n, const int *k, const float *alpha,
                   const float *a, const int *lda, const float *b, const int *ldb, const float *beta, float *c,
                   const int *ldc);
extern void bli_thread_set_num_threads(int64_t n);
extern int64_t bli_thread_get_num_threads(void);

enum { BIG = 2048, SMALL = 64, SMALL_TIMES = 2000, WIDTH = 64, GATHER_ROWS = 1 << 20, BLOCK = 128 };
static const int64_t STREAM = 1 << 24; /* floats of an array: beyond any cache */
#define TRIAD_BYTES (3.0 * sizeof(float) * (double)STREAM)

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

static double big_gemm_seconds(void) {
  size_t bytes = sizeof(float) * 3 * BIG * BIG;
  float *x = sh_pages_alloc(bytes);
  int64_t before = bli_thread_get_num_threads();
  fill(x, 3 * BIG * BIG);
  bli_thread_set_num_threads(sh_threads());
  double t = best_time(big_gemm, x);
  bli_thread_set_num_threads(before);
  sh_pages_free(x, bytes);
  return t;
}

static double triad_seconds(void) {
  size_t bytes = sizeof(float) * 3 * (size_t)STREAM;
  float *x = sh_pages_alloc(bytes);
  fill(x, 3 * STREAM);
  double t = best_time(triad, x);
  sh_pages_free(x, bytes);
  return t;
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

/* Of all ranks, each with what it has. */
typedef struct yardsticks {
  double fp32, bf16, triad; /* of this rank: FLOP/s, FLOP/s, seconds */
} yardsticks;

static yardsticks measure_yardsticks(sh_bench_state *b) {
  yardsticks y = {.fp32 = sh_peak_fp32(), .bf16 = sh_peak_bf16(), .triad = triad_seconds()};
  const sh_axis *world = &b->t->grid->world;
  double sums[2] = {y.fp32, y.bf16}, slowest = y.triad;
  sh_sum_f64(world, sums, 2);
  sh_max_f64(world, &slowest, 1);
  b->peak = sums[0], b->peak_bf16 = sums[1];
  b->triad = world->size * TRIAD_BYTES / slowest;
  return y;
}

void sh_bench_yardsticks(sh_bench_state *b) { measure_yardsticks(b); }

void sh_bench_machine(sh_bench_state *b) {
  double big = 2.0 * BIG * BIG * BIG, small = 2.0 * SMALL * SMALL * SMALL * SMALL_TIMES;
  sh_barrier(&b->t->grid->world);
  double product = big_gemm_seconds();
  yardsticks y = measure_yardsticks(b);
  double slowest = product;
  sh_max_f64(&b->t->grid->world, &slowest, 1);
  double through_blis = big * b->t->grid->world.size / slowest;
  if (through_blis > b->peak) b->peak = through_blis;
  sh_bench_title(b, "machine (best of several)");
  sh_bench_add(b, "machine", "matrix product 2048^3, BLIS", product, 0, big, 0);
  sh_bench_add(b, "machine", "2000 matrix products 64^3, libxsmm", small / y.fp32, 0, small, 0);
  if (y.bf16 > 0) sh_bench_add(b, "machine", "the same of bf16 operands", small / y.bf16, 0, small, 0);
  sh_bench_add(b, "machine", "triad a = b + s c, 3 x 64 MiB", y.triad, 0, 0, TRIAD_BYTES);
  measure_gather(b);
  if (!b->out) return;
  fprintf(b->out, "  peak: %.1f GFLOP/s, the better of the two products in fp32; triad: %.1f GB/s\n", b->peak * 1e-9,
          b->triad * 1e-9);
}
