/* Every table of this CPU against `ref` (attentions have tests of their own), and the elementary functions measured. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/bf16.h"
#include "core/rng.h"
#include "kernels/fast/vec.h"
#include "kernels/kernels.h"
#include "support/close.h"

static const int sizes[] = {1, 2, 3, 15, 16, 17, 50, 63, 64, 65, 200, 211, 4096};
enum { SIZES = sizeof sizes / sizeof *sizes, LONGEST = 4096, PAD = 3 };
#define UNTOUCHED 1234.5f

static void fill(float *x, int64_t n, uint32_t salt, float low, float high) {
  for (int64_t i = 0; i < n; i++)
    x[i] = low + (high - low) * sh_uniform(sh_random4(2, SH_SITE(SH_SITE_TEST, 2), salt, i, 0, 0).v[0]);
}
static float *filled(int64_t n, uint32_t salt, float low, float high) {
  float *x = malloc(sizeof(float) * (size_t)n);
  fill(x, n, salt, low, high);
  return x;
}
static float *copy_of(const float *x, int64_t n) {
  float *y = malloc(sizeof(float) * (size_t)n);
  memcpy(y, x, sizeof(float) * (size_t)n);
  return y;
}

/* A check of one table; run for every one but ref. */
typedef void check(const sh_kernels *k);
static void every_table(check *f) {
  const char *names[8];
  int n = sh_kernels_available(names);
  assert_string_equal(names[0], "ref");
  assert_true(n >= 2);
  for (int i = 1; i < n; i++) f(sh_kernels_named(names[i]));
}

static void check_gemm(const sh_kernels *k) {
  double worst = 0;
  for (int m = 0; m < SIZES; m++)
    for (int n = 0; n < SIZES; n++)
      for (int p = 0; p < SIZES; p++) {
        int64_t M = sizes[m], N = sizes[n], K = sizes[p], ldc = N + PAD;
        if (M * N * K > 300000) continue;
        float *A = filled((M + PAD) * (K + PAD), 1, -1, 1), *B = filled(K * ldc, 2, -1, 1),
              *C = filled(M * ldc, 3, -1, 1);
        for (int variant = 0; variant < 4; variant++) {
          bool trans = variant & 1, add = variant & 2;
          int64_t lda = (trans ? M : K) + PAD;
          float *x = copy_of(C, M * ldc), *y = copy_of(C, M * ldc);
          (trans ? k->gemm_tn : k->gemm)(M, N, K, A, lda, B, ldc, x, ldc, add);
          (trans ? sh_kernels_ref.gemm_tn : sh_kernels_ref.gemm)(M, N, K, A, lda, B, ldc, y, ldc, add);
          double e = sh_close_rows(M, N, ldc, x, y, 0.5 * sqrt((double)K));
          worst = fmax(worst, e);
          if (e > 1e-6 + 5e-8 * sqrt((double)K)) /* sums of K terms in fp32 wander */
            fail_msg("%s: %s %lld x %lld x %lld: %.2e", k->name, trans ? "gemm_tn" : "gemm", (long long)M, (long long)N,
                     (long long)K, e);
          free(x), free(y);
        }
        free(A), free(B), free(C);
      }
  print_message("%s: gemm %.1e\n", k->name, worst);
}
static void gemm(void **state) {
  (void)state;
  every_table(check_gemm);
}

/* No inner dimension: C is zero, or stays. */
static void check_gemm_empty(const sh_kernels *k) {
  for (int trans = 0; trans < 2; trans++) {
    float a = 1, C[4] = {1, 2, 3, 4}, same[4] = {1, 2, 3, 4}, zero[4] = {0};
    (trans ? k->gemm_tn : k->gemm)(2, 2, 0, &a, 2, &a, 2, C, 2, true);
    assert_memory_equal(C, same, sizeof C);
    (trans ? k->gemm_tn : k->gemm)(2, 2, 0, &a, 2, &a, 2, C, 2, false);
    assert_memory_equal(C, zero, sizeof C);
  }
}
static void gemm_empty(void **state) {
  (void)state;
  every_table(check_gemm_empty);
}

static void check_norm(const sh_kernels *k, bool layer, int64_t n, float eps, double worst[2]) {
  enum { ROWS = 5 };
  const sh_kernels *ref = &sh_kernels_ref;
  int64_t ld = n + PAD, all = ROWS * ld;
  float *x = filled(all, 4, -1, 2), *dy = filled(all, 5, -1, 1), *dx = filled(all, 6, -1, 1);
  float *y = filled(all, 7, UNTOUCHED, UNTOUCHED), *yr = copy_of(y, all), *dr = copy_of(dx, all), r[ROWS], rr[ROWS];
  for (int64_t i = 0; i < n; i++) x[ld + i] = 0; /* a row of zeros */
  for (int64_t i = 0; i < n; i++) x[2 * ld + i] *= 1e-3f;
  (layer ? k->layernorm : k->rmsnorm)(ROWS, n, eps, x, ld, y, ld, r);
  (layer ? ref->layernorm : ref->rmsnorm)(ROWS, n, eps, x, ld, yr, ld, rr);
  double e = sh_close_rows(ROWS, n, ld, y, yr, 1e-3);
  /* A short centred row may be close to constant: its variance is a difference of nearly equal numbers. */
  double bound = layer && n < 4 ? 1e-4 : 4e-6;
  for (int i = 0; i < ROWS; i++) e = fmax(e, fabs((double)r[i] - (double)rr[i]) / (double)rr[i]);
  worst[0] = fmax(worst[0], n < 4 ? 0 : e);
  if (e > bound) fail_msg("%s: %s of %lld: %.2e", k->name, layer ? "layernorm" : "rmsnorm", (long long)n, e);
  for (int i = 0; i < ROWS; i++) r[i] = 0.5f + 0.1f * (float)i; /* backward by itself, from the same y and rstd */
  for (int add = 0; add < 2; add++) {
    (layer ? k->layernorm_back : k->rmsnorm_back)(ROWS, n, yr, ld, r, dy, ld, dx, ld, add);
    (layer ? ref->layernorm_back : ref->rmsnorm_back)(ROWS, n, yr, ld, r, dy, ld, dr, ld, add);
    e = sh_close_rows(ROWS, n, ld, dx, dr, 1);
    worst[1] = fmax(worst[1], e);
    if (e > 2e-6) fail_msg("%s: norm back of %lld: %.2e", k->name, (long long)n, e);
  }
  free(x), free(dy), free(dx), free(y), free(yr), free(dr);
}
static void check_norms(const sh_kernels *k) {
  static const float eps[] = {1e-6f, 1e-8f};
  double worst[2] = {0};
  for (int layer = 0; layer < 2; layer++)
    for (int s = 0; s < SIZES; s++)
      for (int e = 0; e < 2; e++) check_norm(k, layer, sizes[s], eps[e], worst);
  print_message("%s: norms %.1e, back %.1e\n", k->name, worst[0], worst[1]);
}
static void norms(void **state) {
  (void)state;
  every_table(check_norms);
}

static void check_silu(const sh_kernels *k) {
  bool rounded = !strcmp(k->precision, "bf16");
  double worst = 0;
  for (int s = 0; s < SIZES; s++) {
    int64_t n = sizes[s];
    float *z = filled(n + 1, 8, -12, 12), *dy = filled(n + 1, 9, -1, 1), *y = filled(n + 2, 10, 7, 7);
    float *yr = copy_of(y, n + 2);
    if (n > 15) z[1] = 0, z[3] = -87, z[4] = -200, z[5] = 200, z[6] = -1e30f, z[7] = 88;
    for (int back = 0; back < 2; back++) { /* from odd addresses */
      if (back) {
        k->silu_back(n, z + 1, dy + 1, y + 1);
        sh_kernels_ref.silu_back(n, z + 1, dy + 1, yr + 1);
      } else {
        k->silu(n, z + 1, y + 1);
        sh_kernels_ref.silu(n, z + 1, yr + 1);
      }
      assert_true(y[0] == 7 && y[n + 1] == 7);
      for (int64_t i = 1; i <= n; i++) {
        /* e^-x is cut at x = -88.3, where it hides at 1e30: silu is then x 1e-38 instead of 0. */
        double e = fabs((double)y[i] - (double)yr[i]) / fmax(1, fabs((double)yr[i]));
        worst = fmax(worst, e);
        /* Its slope has z (1 - s): the error of s counts z times, until s is one. */
        if (e > (rounded ? back ? 1.5e-3 : 2e-4 : back ? 1.5e-6 : 5e-7))
          fail_msg("%s: silu%s(%g): %g, not %g", k->name, back ? "_back" : "", z[i], y[i], yr[i]);
      }
    }
    free(z), free(dy), free(y), free(yr);
  }
  print_message("%s, %s: silu %.1e\n", k->name, k->precision, worst);
}
/* z kept as bf16: the bits, and everything else as from it. */
static void check_silu_half(const sh_kernels *k) {
  for (int s = 0; s < SIZES; s++) {
    int64_t n = sizes[s];
    float *z = filled(n + 1, 8, -12, 12), *dy = filled(n + 1, 9, -1, 1), *y = filled(n + 2, 10, 7, 7);
    float *want = copy_of(y, n + 2), *rounded = copy_of(z, n + 1);
    uint16_t *half = malloc(sizeof *half * (size_t)(n + 2));
    if (n > 15) z[1] = 0, z[3] = -87, z[4] = -200, z[5] = 200, z[6] = -1e30f, z[7] = 88, z[8] = 1 + 0x1p-8f;
    half[0] = half[n + 1] = 7;
    k->silu_half(n, z + 1, half + 1, y + 1);
    k->silu(n, z + 1, want + 1);
    assert_memory_equal(y, want, sizeof *y * (size_t)(n + 2));
    assert_true(half[0] == 7 && half[n + 1] == 7);
    for (int64_t i = 1; i <= n; i++) {
      rounded[i] = bf16_round(z[i]);
      assert_true(bf16_low(half[i]) == rounded[i]);
    }
    k->silu_back_half(n, half + 1, dy + 1, y + 1);
    k->silu_back(n, rounded + 1, dy + 1, want + 1);
    assert_memory_equal(y, want, sizeof *y * (size_t)(n + 2));
    free(z), free(dy), free(y), free(want), free(rounded), free(half);
  }
  float nan = NAN, y;
  uint16_t half;
  k->silu_half(1, &nan, &half, &y);
  assert_true(isnan(y) && isnan(bf16_low(half)));
}

static void silu(void **state) {
  (void)state;
  every_table(check_silu);
  check_silu(sh_kernels_bf16());
  check_silu_half(&sh_kernels_ref);
  every_table(check_silu_half);
  check_silu_half(sh_kernels_bf16());
}

static const sh_drop masks[] = {
    {.seed = 42, .site = SH_SITE(SH_SITE_DROP_ATTN, 3), .when = 0, .threshold = 0, .scale = 1},
    {.seed = 42, .site = SH_SITE(SH_SITE_DROP_ATTN, 3), .when = 7, .threshold = 858993459u, .scale = 1.25f},
    {.seed = 0, .site = SH_SITE(SH_SITE_DROP_FFN, 1), .when = 4000000000u, .threshold = 2147483648u, .scale = 2}};

/* Words and integers below a bound are those of core/rng.h, and nothing is written behind them. */
static void check_random(const sh_kernels *k) {
  static const sh_draw at[] = {{1, 2, 3, 4, 5}, {0xffffffffu, 0x30001u, 77, 199, ((int64_t)3 << 32) + 9}};
  static const uint32_t bounds[] = {1, 2, 3883, 0xffffffffu};
  enum { QUADS = 70 };
  uint32_t got[4 * QUADS + 1], want[4 * QUADS];
  for (int a = 0; a < 2; a++)
    for (int n = 0; n <= QUADS; n += n < 20 ? 1 : 25)
      for (int b = -1; b < 4; b++) {
        uint32_t quad = (uint32_t)(7 * n), bound = b < 0 ? 0 : bounds[b];
        for (int i = 0; i < 4 * n; i++) {
          sh_philox r =
              sh_random4(at[a].seed, at[a].site, at[a].when, at[a].sample, at[a].position, quad + (uint32_t)i / 4);
          want[i] = b < 0 ? r.v[i % 4] : sh_below(r.v[i % 4], bound);
        }
        got[4 * n] = 99;
        if (b < 0)
          k->random_words(&at[a], quad, n, got);
        else
          k->random_below(&at[a], quad, n, bound, got);
        assert_memory_equal(got, want, sizeof *got * (size_t)(4 * n));
        assert_int_equal(got[4 * n], 99);
      }
}
static void random_numbers(void **state) {
  (void)state;
  check_random(&sh_kernels_ref);
  every_table(check_random);
}

static void check_dropout(const sh_kernels *k) {
  static const int64_t firsts[] = {0, 1, 2, 3, 7, 211, 65535}, samples[] = {0, 6040, ((int64_t)5 << 32) + 9};
  float *x = filled(LONGEST, 11, -1, 1), *y = malloc(sizeof(float) * LONGEST), *yr = malloc(sizeof(float) * LONGEST);
  for (size_t m = 0; m < sizeof masks / sizeof *masks; m++)
    for (int s = 0; s < SIZES; s++)
      for (size_t f = 0; f < sizeof firsts / sizeof *firsts; f++)
        for (size_t p = 0; p < sizeof samples / sizeof *samples; p++) {
          size_t bytes = sizeof(float) * (size_t)sizes[s];
          int32_t position = (int32_t)(f * 37 + p);
          k->dropout(&masks[m], samples[p], position, firsts[f], sizes[s], x, y);
          sh_kernels_ref.dropout(&masks[m], samples[p], position, firsts[f], sizes[s], x, yr);
          assert_memory_equal(y, yr, bytes);
          memcpy(y, x, bytes);
          k->dropout(&masks[m], samples[p], position, firsts[f], sizes[s], y, y); /* in place */
          assert_memory_equal(y, yr, bytes);
        }
  free(x), free(y), free(yr);
}
static void dropout(void **state) {
  (void)state;
  every_table(check_dropout);
}

/* Which elements drop depends on the element alone, not on where a row is cut; as many drop as should. */
static void dropout_is_a_function_of_the_element(void **state) {
  (void)state;
  float ones[LONGEST], whole[LONGEST], part[LONGEST];
  for (int i = 0; i < LONGEST; i++) ones[i] = 1;
  sh_kernels_best()->dropout(&masks[1], 3, 5, 0, LONGEST, ones, whole);
  for (int cut = 1; cut < 200; cut += 9) {
    sh_kernels_best()->dropout(&masks[1], 3, 5, 0, cut, ones, part);
    sh_kernels_best()->dropout(&masks[1], 3, 5, cut, LONGEST - cut, ones + cut, part + cut);
    assert_memory_equal(part, whole, sizeof whole);
  }
  int zeros = 0, differ = 0;
  for (int i = 0; i < LONGEST; i++) zeros += whole[i] == 0;
  assert_in_range(zeros, 819 - 90, 819 + 90); /* 3.5 standard deviations */
  sh_kernels_best()->dropout(&masks[1], 3, 6, 0, LONGEST, ones, part);
  for (int i = 0; i < LONGEST; i++) differ += part[i] != whole[i];
  assert_in_range(differ, 1100, 1520); /* 2 p (1 - p) n = 1311 */
}

static void check_adamw(const sh_kernels *k) {
  double worst = 0;
  for (int s = 0; s < SIZES; s++) {
    int64_t n = sizes[s];
    float *p[3], *r[3], *g = malloc(sizeof(float) * (size_t)n);
    for (int i = 0; i < 3; i++) {
      p[i] = filled(n, 12, i == 0 ? -1 : 0, i == 0 ? 1 : 0);
      r[i] = copy_of(p[i], n);
    }
    for (int t = 1; t <= 4; t++) {
      fill(g, n, 20 + (uint32_t)t, -0.1f, 0.1f);
      if (n > 2) g[2] = 0; /* a row without gradients */
      double c1 = 1 - pow(0.9, t), c2 = 1 - pow(0.98, t);
      k->adamw(n, 1e-2f, 0.9f, 0.98f, 1e-8f, 0.03f, c1, c2, 0.7f, g, p[0], p[1], p[2]);
      sh_kernels_ref.adamw(n, 1e-2f, 0.9f, 0.98f, 1e-8f, 0.03f, c1, c2, 0.7f, g, r[0], r[1], r[2]);
    }
    for (int i = 0; i < 3; i++) {
      static const double typical[] = {0.1, 0.01, 1e-4};
      double e = sh_close_rows(1, n, n, p[i], r[i], typical[i]);
      worst = fmax(worst, e);
      if (e > 1e-6) fail_msg("%s: adamw of %lld, array %d: %.2e", k->name, (long long)n, i, e);
      free(p[i]), free(r[i]);
    }
    free(g);
  }
  print_message("%s: adamw %.1e\n", k->name, worst);
}
static void adamw(void **state) {
  (void)state;
  every_table(check_adamw);
}

/* One step against torch.optim.AdamW's rule written out in double. */
static void ref_adamw_is_the_rule(void **state) {
  (void)state;
  float g = 0.25f, p = 0.5f, m = 0.125f, v = 0.0625f;
  sh_kernels_ref.adamw(1, 1e-3f, 0.9f, 0.98f, 1e-8f, 0.1f, 1 - pow(0.9, 3), 1 - pow(0.98, 3), 2, &g, &p, &m, &v);
  double gs = 0.5, mm = 0.9 * 0.125 + 0.1 * gs, vv = 0.98 * 0.0625 + 0.02 * gs * gs;
  double pp = 0.5 * (1 - 1e-3 * 0.1) - 1e-3 * (mm / (1 - pow(0.9, 3))) / (sqrt(vv / (1 - pow(0.98, 3))) + 1e-8);
  assert_true(fabs((double)m - mm) < 1e-8 && fabs((double)v - vv) < 1e-8 && fabs((double)p - pp) < 4e-8);
}

static void check_dot_axpy(const sh_kernels *k) {
  for (int s = 0; s < SIZES; s++) {
    int64_t n = sizes[s];
    float *a = filled(n + 1, 13, -1, 1), *b = filled(n + 1, 14, -1, 1), *y = filled(n + 2, 15, -1, 1);
    float *yr = copy_of(y, n + 2);
    double e = fabs((double)k->dot(n, a + 1, b + 1) - (double)sh_kernels_ref.dot(n, a + 1, b + 1));
    assert_true(e < 1e-6 * sqrt((double)n)); /* without vectors it is one long sum */
    k->axpy(n, 0.3f, a + 1, y + 1);
    sh_kernels_ref.axpy(n, 0.3f, a + 1, yr + 1);
    assert_true(y[0] == yr[0] && y[n + 1] == yr[n + 1]);
    assert_true(sh_close_rows(1, n + 2, n + 2, y, yr, 1) < 3e-7);
    free(a), free(b), free(y), free(yr);
  }
}
static void dot_axpy(void **state) {
  (void)state;
  every_table(check_dot_axpy);
}

static int32_t *drawn(int64_t n, uint32_t lane, uint32_t below) {
  int32_t *x = malloc(sizeof(int32_t) * (size_t)n);
  for (int64_t i = 0; i < n; i++)
    x[i] = (int32_t)sh_below(sh_random4(3, SH_SITE(SH_SITE_TEST, 4), 0, i, 0, 0).v[lane], below);
  return x;
}

static const int widths[] = {16, 32, 48, 64, 80, 128, 144, 256, 272};
enum { WIDTHS = sizeof widths / sizeof *widths, ROWS = 300 };

/* Sums over rows named by slot, and over pairs grouped by row; repeated ones among them, rows without any. */
static void check_gathers(const sh_kernels *k) {
  enum { GROUPS = 5 };
  double worst = 0;
  for (size_t w = 0; w < WIDTHS; w++)
    for (int s = 0; s < SIZES; s++) {
      int64_t n = sizes[s], width = widths[w], ld = width + 16;
      float *rows = filled(ROWS * ld, 30, -1, 1), *coef = filled(n + 9, 31, -1, 1);
      float *x = filled(GROUPS * ld, 33, UNTOUCHED, UNTOUCHED), *y = copy_of(x, GROUPS * ld),
            *own = filled(n, 35, -1, 1);
      int32_t *slot = drawn(n, 0, ROWS), *token = drawn(n + 9, 1, ROWS);
      sh_share *pair = malloc(sizeof *pair * (size_t)(n + 9));
      for (int64_t i = 0; i < n + 9; i++) pair[i] = (sh_share){coef[i], token[i]};
      int32_t start[GROUPS + 1] = {9, 9, 9 + (int32_t)n / 3, 9 + (int32_t)n / 3, 9 + (int32_t)n, 9 + (int32_t)n};
      k->gather_sum(n, width, own, rows, ld, slot, x);
      sh_kernels_ref.gather_sum(n, width, own, rows, ld, slot, y);
      double e = sh_close_rows(1, width, ld, x, y, sqrt((double)n) / 3);
      fill(x, GROUPS * ld, 36, -1, 1), memcpy(y, x, sizeof(float) * (size_t)(GROUPS * ld));
      k->pair_sums(GROUPS, width, start, pair, rows, ld, x, ld);
      sh_kernels_ref.pair_sums(GROUPS, width, start, pair, rows, ld, y, ld);
      e = fmax(e, sh_close_rows(GROUPS, width, ld, x, y, sqrt((double)n) / 3));
      worst = fmax(worst, e);
      if (e > 1e-6 + 1e-7 * sqrt((double)n))
        fail_msg("%s: gathers of %lld rows, width %lld: %.2e", k->name, (long long)n, (long long)width, e);
      free(rows), free(coef), free(x), free(y), free(own), free(slot), free(token), free(pair);
    }
  print_message("%s: gathers %.1e\n", k->name, worst);
}
static void gathers(void **state) {
  (void)state;
  every_table(check_gathers);
}

/* Collisions with the positive among the candidates. With scale 40 logits differ by hundreds, more than exponentials of
 * floats hold, and the positive is seldom near the top. */
static void check_sampled_softmax(const sh_kernels *k) {
  enum { TOKENS = 3, MANY = 20 }; /* of few rows: many collisions */
  double worst = 0;
  for (size_t w = 0; w < WIDTHS; w++)
    for (int s = 0; s < SIZES; s++)
      for (int variant = 0; variant < 4; variant++) {
        int64_t n = sizes[s], width = widths[w], ld = width + 16, ldcoef = n + PAD;
        if (n * width > 70000) continue; /* the reference takes its time */
        float scale = (variant & 1 ? 40 : 3) / sqrtf((float)width);
        float *rows = filled(ROWS * ld, 30, -1, 1), *h = filled(TOKENS * ld, 31, -1, 1);
        float *coef = filled(TOKENS * ldcoef, 32, UNTOUCHED, UNTOUCHED), *coef_ref = copy_of(coef, TOKENS * ldcoef);
        float *dh = filled(TOKENS * width + PAD, 33, UNTOUCHED, UNTOUCHED), *dh_ref = copy_of(dh, TOKENS * width + PAD);
        int32_t *slot = drawn(TOKENS * n, 2, variant & 2 ? MANY : ROWS);
        double loss = k->sampled_softmax(TOKENS, n, width, scale, 0.5f, h, rows, ld, slot, coef, ldcoef, dh);
        double want =
            sh_kernels_ref.sampled_softmax(TOKENS, n, width, scale, 0.5f, h, rows, ld, slot, coef_ref, ldcoef, dh_ref);
        double e = fmax(sh_close_rows(TOKENS, n, ldcoef, coef, coef_ref, 1e-30),
                        sh_close_rows(1, TOKENS * width, TOKENS * width + PAD, dh, dh_ref, n > 1 ? 1e-2 : 1));
        worst = fmax(worst, e);
        /* A logit of some hundreds is good to 1e-5. */
        if (!(e <= (variant & 1 ? 5e-5 : 3e-6) + 1e-7 * sqrt((double)n)) ||
            !(fabs(loss - want) <= 2e-6 * fmax(want, 1)))
          fail_msg("%s: sampled softmax of %lld, width %lld, variant %d: %.2e; loss %.9g, not %.9g", k->name,
                   (long long)n, (long long)width, variant, e, loss, want);
        assert_true(k->sampled_softmax(TOKENS, n, width, scale, 0.5f, h, rows, ld, slot, coef, ldcoef, NULL) == loss);
        free(rows), free(h), free(coef), free(coef_ref), free(dh), free(dh_ref), free(slot);
      }
  print_message("%s: sampled softmax %.1e\n", k->name, worst);
}
static void sampled_softmax(void **state) {
  (void)state;
  every_table(check_sampled_softmax);
}

/* Rows of length one and back, in place of nothing they do not own: odd widths, rows shorter than eps, rows of zero. */
static void check_unit_rows(const sh_kernels *k) {
  enum { N = 5 };
  double worst = 0;
  for (int s = 0; s < SIZES; s++)
    for (int variant = 0; variant < 4; variant++) {
      bool l2 = variant & 1, add = variant & 2;
      int64_t n = sizes[s], ldx = n + PAD, ldy = (n + 15) / 16 * 16 + 16;
      float *x = filled(N * ldx, 40, -1, 1), *y = filled(N * ldy, 41, UNTOUCHED, UNTOUCHED), *yr = copy_of(y, N * ldy);
      float *dy = filled(N * ldy, 42, -1, 1), *dx = filled(N * ldx, 43, -1, 1), *dr = copy_of(dx, N * ldx);
      float length[N], length_ref[N], eps = 0.5f * sqrtf((float)n / 3);
      for (int64_t i = 0; i < n; i++) x[ldx + i] = 0, x[2 * ldx + i] *= 0.1f;
      k->unit_rows(N, n, l2, eps, x, ldx, y, ldy, length);
      sh_kernels_ref.unit_rows(N, n, l2, eps, x, ldx, yr, ldy, length_ref);
      double e = fmax(sh_close_rows(N, ldy, ldy, y, yr, 0), sh_close_rows(1, N, N, length, length_ref, 0));
      for (int64_t i = 0; i < N * ldy; i++) assert_true(i % ldy < n || y[i] == 0);
      k->unit_rows_back(N, n, l2, eps, x, ldx, length_ref, dy, ldy, dx, ldx, add);
      sh_kernels_ref.unit_rows_back(N, n, l2, eps, x, ldx, length_ref, dy, ldy, dr, ldx, add);
      e = fmax(e, sh_close_rows(N, n, ldx, dx, dr, 1));
      worst = fmax(worst, e);
      if (!(e <= 2e-6)) fail_msg("%s: unit rows of %lld, variant %d: %.2e", k->name, (long long)n, variant, e);
      free(x), free(y), free(yr), free(dy), free(dx), free(dr);
    }
  print_message("%s: unit rows %.1e\n", k->name, worst);
}
static void unit_rows(void **state) {
  (void)state;
  every_table(check_unit_rows);
}

/* vec.h as each instruction set compiles it (fused multiply-add changes its roundings). */
#define ELEMENTARY(isa, target)                                                                                        \
  target static void elementary_##isa(float x, float out[3]) {                                                         \
    out[0] = vec_exp(x), out[1] = vec_sigmoid(x), out[2] = vec_log(fabsf(x));                                          \
  }
ELEMENTARY(portable, )
ELEMENTARY(avx2, __attribute__((target("avx2,fma"))))
ELEMENTARY(avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))

static void measure(const char *name, void (*f)(float, float *)) {
  double exp_error = 0, sigmoid_error = 0, log_error = 0, log_near = 0;
  float out[3];
  for (int64_t bits = 0; bits < 0x7F800000; bits += 2503) { /* every magnitude, both signs */
    float x = vec_bits_float((int32_t)bits);
    for (int sign = 0; sign < 2; sign++, x = -x) {
      f(x, out);
      if (x > -87.3f && x < 88.3f) exp_error = fmax(exp_error, fabs((double)out[0] / exp((double)x) - 1));
      sigmoid_error = fmax(sigmoid_error, fabs((double)out[1] - 1 / (1 + exp(-(double)x))));
      if (sign || bits < 0x00800000) continue; /* subnormal and negative: outside its domain */
      double e = fabs((double)out[2] - log((double)x));
      if (x > 0.5f && x < 2)
        log_near = fmax(log_near, e);
      else
        log_error = fmax(log_error, e / fabs(log((double)x)));
    }
  }
  print_message("%s: exp %.2e, sigmoid %.2e, log %.2e relative, near 1 %.2e absolute\n", name, exp_error, sigmoid_error,
                log_error, log_near);
  assert_true(exp_error <= 2e-7 && sigmoid_error <= 1e-7 && log_error <= 2e-7 && log_near <= 1e-7);
  f(1000, out);
  assert_true(isfinite(out[0]) && out[1] == 1);
  f(-1000, out);
  assert_true(out[0] > 0 && out[0] < 2e-38f && out[1] < 2e-38f);
}

static void elementary_functions(void **state) {
  (void)state;
  measure("portable", elementary_portable);
  if (sh_kernels_named("avx2")) measure("avx2", elementary_avx2);
  if (sh_kernels_named("avx512")) measure("avx512", elementary_avx512);
}

static void tables_by_name(void **state) {
  (void)state;
  assert_null(sh_kernels_named("sse9"));
  assert_ptr_equal(sh_kernels_named("ref"), &sh_kernels_ref);
  const char *names[8];
  int n = sh_kernels_available(names);
  for (int i = 0; i < n; i++) assert_string_equal(sh_kernels_named(names[i])->name, names[i]);
  assert_string_equal(sh_kernels_isa(), sh_kernels_best()->name);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tables_by_name), cmocka_unit_test(elementary_functions),
      cmocka_unit_test(gemm),           cmocka_unit_test(gemm_empty),
      cmocka_unit_test(norms),          cmocka_unit_test(silu),
      cmocka_unit_test(dropout),        cmocka_unit_test(dropout_is_a_function_of_the_element),
      cmocka_unit_test(adamw),          cmocka_unit_test(ref_adamw_is_the_rule),
      cmocka_unit_test(dot_axpy),       cmocka_unit_test(gathers),
      cmocka_unit_test(unit_rows),      cmocka_unit_test(sampled_softmax),
      cmocka_unit_test(random_numbers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
