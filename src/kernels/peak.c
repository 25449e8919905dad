#include "kernels/peak.h"

#include <libxsmm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/arena.h"
#include "core/threads.h"
#include "core/timer.h"
#include "kernels/gemm.h"

enum { EDGE = 64, AREA = EDGE * EDGE, PRODUCTS = 64, SLICES = 64 }; /* a slice takes about 0.3 ms in fp32 */

/* All threads at once: a clock that sinks when all cores work is the one that counts. */
static double peak(void (*product)(float *abc, const void *arg), const void *arg) {
  int64_t n = sh_threads();
  float *x = sh_pages_alloc(sizeof(float) * 3 * AREA * (size_t)n);
  double sum = 0;
#pragma omp parallel for schedule(static, 1) reduction(+ : sum)
  for (int64_t t = 0; t < n; t++) {
    float *abc = x + 3 * AREA * t;
    double best = 1e30;
    memset(abc, 0, sizeof(float) * 3 * AREA); /* also as bf16; zeros take as long as anything else */
    for (int s = 0; s < SLICES; s++) {
      double start = sh_now();
      for (int i = 0; i < PRODUCTS; i++) product(abc, arg);
      double seconds = sh_now() - start;
      if (seconds < best) best = seconds;
    }
    sum += 2.0 * EDGE * AREA * PRODUCTS / best;
  }
  sh_pages_free(x, sizeof(float) * 3 * AREA * (size_t)n);
  return sum;
}

static void fp32_product(float *abc, const void *arg) {
  (void)arg;
  sh_gemm(EDGE, EDGE, EDGE, abc, EDGE, abc + AREA, EDGE, abc + 2 * AREA, EDGE, false);
}

double sh_peak_fp32(void) { return peak(fp32_product, NULL); }

static void bf16_product(float *abc, const void *arg) {
  libxsmm_bsmmfunction f = *(const libxsmm_bsmmfunction *)arg;
  f((const libxsmm_bfloat16 *)abc, (const libxsmm_bfloat16 *)(abc + AREA), abc + 2 * AREA);
}

double sh_peak_bf16(void) {
  if (!__builtin_cpu_supports("avx512bf16")) return 0;
  int flags = LIBXSMM_GEMM_FLAG_VNNI_A;
  const libxsmm_blasint n = EDGE;
  const float one = 1, zero = 0;
  libxsmm_bsmmfunction f = libxsmm_bsmmdispatch(n, n, n, &n, &n, &n, &one, &zero, &flags, NULL);
  return f ? peak(bf16_product, &f) : 0;
}

double sh_peak_of(const sh_kernels *k) {
  double bf16 = strcmp(k->precision, "bf16") ? 0 : sh_peak_bf16();
  return bf16 > 0 ? bf16 : sh_peak_fp32();
}
