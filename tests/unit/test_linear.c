/* The products of linear layers, in fp32 and bf16, and the gates behind attention: every table of this CPU against
 * `ref`; with precision bf16 on operands rounded here, by another rule than the kernels'. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"
#include "kernels/bf16.h"
#include "kernels/gemm.h"
#include "support/close.h"

static const int sizes[] = {1, 2, 3, 16, 17, 50, 64, 65, 129, 211, 513, 1030};
enum { SIZES = sizeof sizes / sizeof *sizes, PAD = 3, TABLES = 3 };

static float *filled(int64_t n, uint32_t salt) {
  float *x = malloc(sizeof(float) * (size_t)(n + 1));
  for (int64_t i = 0; i < n; i++)
    x[i] = -1 + 2 * sh_uniform(sh_random4(2, SH_SITE(SH_SITE_TEST, 2), salt, i, 0, 0).v[0]);
  return x;
}

/* Nearest with 8 significant bits, ties to even, by arithmetic. */
static float nearest_bf16(float x) {
  if (!isfinite(x) || x == 0) return x;
  int e;
  frexpf(x, &e);
  double unit = ldexp(1, e > -125 ? e - 8 : -133); /* subnormal numbers are all a multiple of 2^-133 apart */
  double y = nearbyint((double)x / unit) * unit;
  return fabs(y) > 0x1.fep127 ? copysignf(INFINITY, x) : (float)y;
}
static float *rounded(const float *x, int64_t n) {
  float *y = malloc(sizeof(float) * (size_t)(n + 1));
  for (int64_t i = 0; i < n; i++) y[i] = nearest_bf16(x[i]);
  return y;
}

/* The three ways to multiply: fp32, bf16 emulated (both the same for every instruction set), what precision bf16 runs.
 */
static void tables(sh_kernels *room, const sh_kernels *all[TABLES]) {
  all[0] = sh_kernels_best();
  all[1] = sh_kernels_emulate_bf16(sh_kernels_best(), room);
  all[2] = sh_kernels_bf16();
}

static void rounding_to_bf16(void **state) {
  (void)state;
  for (uint64_t bits = 0; bits < 1ull << 32; bits += bits % 3 ? 40009 : 7) {
    float x = bf16_low((uint32_t)bits >> 16);
    uint32_t whole = (uint32_t)bits, word;
    memcpy(&x, &whole, sizeof x);
    word = bf16_word(x);
    float y = bf16_round(x), want = nearest_bf16(x);
    assert_int_equal(word & 0xffff, 0);
    if (isnan(x))
      assert_true(isnan(y));
    else
      assert_memory_equal(&y, &want, sizeof y);
  }
  assert_true(bf16_round(1.f + 0x1p-8f) == 1.f && bf16_round(1.f + 0x3p-8f) == 1.f + 0x1p-6f); /* ties to even */
  float nan;
  memcpy(&nan, &(uint32_t){0x7fffffff}, sizeof nan);
  assert_true(isnan(bf16_round(nan)) && isinf(bf16_round(3.4e38f)));
  assert_true(bf16_low(bf16_pair(1.5f, -2.f)) == 1.5f && bf16_high(bf16_pair(1.5f, -2.f)) == -2.f);
}

static sh_right pack(const sh_kernels *k, int64_t K, int64_t N, const float *W, int64_t ldw, bool transposed) {
  sh_right r = {.K = K, .N = N, .packed = NULL};
  size_t bytes = sizeof(float) * (size_t)k->right_room(K, N);
  r.packed = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  memset(r.packed, 0xff, bytes);                                         /* NaN where nothing is written */
  for (int64_t n = (N - 1) / SH_PANEL * SH_PANEL; n >= 0; n -= SH_PANEL) /* in any order */
    k->right_pack(&r, W, ldw, transposed, n, N - n < SH_PANEL ? N : n + SH_PANEL);
  return r;
}

typedef struct problem {
  int64_t M, N, K;
  bool transposed, add;
  float *A, *W, *C, *Ar, *Wr; /* W: B or its transpose; r: rounded */
} problem;

/* C = A B by `k`, or by ref on what `k` multiplies. */
static void product(const sh_kernels *k, const problem *p, bool round, float *C) {
  int64_t lda = p->K + PAD, ldw = (p->transposed ? p->K : p->N) + PAD;
  sh_right r = pack(k, p->K, p->N, round ? p->Wr : p->W, ldw, p->transposed);
  k->multiply(p->M, round ? p->Ar : p->A, lda, &r, C, p->N + PAD, p->add);
  free(r.packed);
}
static void product_tn(const sh_kernels *k, const problem *p, bool round, float *C) {
  k->multiply_tn(p->M, p->N, p->K, round ? p->Ar : p->A, p->M + PAD, round ? p->Wr : p->W, p->N + PAD, C, p->N + PAD,
                 p->add);
}

static void check_product(const problem *p, bool tn, const sh_kernels *const *all, double *worst) {
  int64_t size = p->M * (p->N + PAD);
  size_t bytes = sizeof(float) * (size_t)size;
  float *got = malloc(bytes), *want[2] = {malloc(bytes), malloc(bytes)};
  for (int round = 0; round < 2; round++) {
    memcpy(want[round], p->C, bytes);
    (tn ? product_tn : product)(&sh_kernels_ref, p, round, want[round]);
  }
  for (int i = 0; i < TABLES; i++) {
    memcpy(got, p->C, bytes);
    (tn ? product_tn : product)(all[i], p, false, got);
    double e = sh_close_rows(p->M, p->N, p->N + PAD, got, want[strcmp(all[i]->precision, "fp32") != 0],
                             sqrt((double)p->K) / 3);
    worst[i] = fmax(worst[i], e);
    if (e > 1e-5)
      fail_msg("%s, %s: %s %lld x %lld x %lld: %.2e", all[i]->name, all[i]->precision, tn ? "multiply_tn" : "multiply",
               (long long)p->M, (long long)p->N, (long long)p->K, e);
  }
  free(got), free(want[0]), free(want[1]);
}

static void products(void **state) {
  (void)state;
  sh_kernels room;
  const sh_kernels *all[TABLES];
  double worst[TABLES] = {0};
  tables(&room, all);
  for (int m = 0; m < SIZES; m++)
    for (int n = 0; n < SIZES; n++)
      for (int k = 0; k < SIZES; k++) {
        problem p = {.M = sizes[m], .N = sizes[n], .K = sizes[k], .add = (m + n + k) % 2};
        if (p.M * p.N * p.K > 200000) continue;
        int64_t size = (p.M + PAD) * (p.K + PAD), wide = (p.N + PAD) * (p.K + PAD);
        p.A = filled(size, 1), p.W = filled(wide, 2), p.C = filled(p.M * (p.N + PAD), 3);
        p.Ar = rounded(p.A, size), p.Wr = rounded(p.W, wide);
        check_product(&p, true, all, worst);
        for (int t = 0; t < 2; t++) p.transposed = t, check_product(&p, false, all, worst);
        free(p.A), free(p.W), free(p.C), free(p.Ar), free(p.Wr);
      }
  for (int i = 0; i < TABLES; i++) print_message("%s, %s: %.1e\n", all[i]->name, all[i]->precision, worst[i]);
}

/* No inner dimension: C is zero, or stays. */
static void empty_products(void **state) {
  (void)state;
  sh_kernels room;
  const sh_kernels *all[TABLES];
  tables(&room, all);
  for (int i = 0; i < TABLES; i++) {
    float a = 1, C[4] = {1, 2, 3, 4}, same[4] = {1, 2, 3, 4}, zero[4] = {0}, packed[256];
    sh_right r = {.K = 0, .N = 2, .packed = packed};
    all[i]->multiply(2, &a, 1, &r, C, 2, true);
    all[i]->multiply_tn(2, 2, 0, &a, 2, &a, 2, C, 2, true);
    assert_memory_equal(C, same, sizeof C);
    all[i]->multiply(2, &a, 1, &r, C, 2, false);
    assert_memory_equal(C, zero, sizeof C);
    memcpy(C, same, sizeof C);
    all[i]->multiply_tn(2, 2, 0, &a, 2, &a, 2, C, 2, false);
    assert_memory_equal(C, zero, sizeof C);
  }
}

/* A NaN or infinity in an operand shows in the product: divergence is noticed. */
static void not_a_number(void **state) {
  (void)state;
  sh_kernels room;
  const sh_kernels *all[TABLES];
  tables(&room, all);
  for (int i = 0; i < TABLES; i++) {
    float A[2] = {NAN, INFINITY}, W = 1, C[2] = {0};
    sh_right r = pack(all[i], 1, 1, &W, 1, false);
    all[i]->multiply(2, A, 1, &r, C, 1, false);
    assert_true(isnan(C[0]) && isinf(C[1]));
    free(r.packed);
  }
}

static void transposes(void **state) {
  (void)state;
  for (int m = 0; m < SIZES; m++)
    for (int n = 0; n < SIZES; n++) {
      int64_t M = sizes[m], N = sizes[n];
      float *a = filled(M * (N + PAD), 4), *b = filled(N * (M + PAD), 5), *old = filled(N * (M + PAD), 5);
      sh_transpose(M, N, a, N + PAD, b, M + PAD);
      for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < M + PAD; j++)
          assert_true(b[i * (M + PAD) + j] == (j < M ? a[j * (N + PAD) + i] : old[i * (M + PAD) + j]));
      free(a), free(b), free(old);
    }
}

static void check_gate(const sh_kernels *k, int64_t n, bool more, double *worst) {
  enum { INPUTS = 5 };
  float *in[INPUTS], *x[3], *y[3], sums[2], want[2];
  for (int i = 0; i < INPUTS; i++) in[i] = filled(n, (uint32_t)(10 + i));
  for (int i = 0; i < 3; i++) x[i] = filled(n + PAD, 20), y[i] = filled(n + PAD, 20);
  const float *direct = more ? in[3] : NULL, *norm = more ? in[4] : NULL;
  k->gate_back(n, in[0], direct, norm, in[1], in[2], 0.25f, 1.7f, x[0], x[1], sums);
  sh_kernels_ref.gate_back(n, in[0], direct, norm, in[1], in[2], 0.25f, 1.7f, y[0], y[1], want);
  k->gate(n, in[1], in[2], 0.25f, 1.7f, x[2]);
  sh_kernels_ref.gate(n, in[1], in[2], 0.25f, 1.7f, y[2]);
  for (int i = 0; i < 3; i++) *worst = fmax(*worst, sh_close_rows(1, n, n + PAD, x[i], y[i], 1e-30));
  for (int i = 0; i < 2; i++) *worst = fmax(*worst, fabs((double)sums[i] - (double)want[i]) / sqrt((double)n));
  k->add_affine(n, in[0], 1e6, -1e6 + 0.5, in[1], x[0]); /* 1e6 (1 - o) + o / 2: as floats it would lose six digits */
  sh_kernels_ref.add_affine(n, in[0], 1e6, -1e6 + 0.5, in[1], y[0]);
  *worst = fmax(*worst, sh_close_rows(1, n, n + PAD, x[0], y[0], 1e-30));
  for (int i = 0; i < INPUTS; i++) free(in[i]);
  for (int i = 0; i < 3; i++) free(x[i]), free(y[i]);
}

static void gates(void **state) {
  (void)state;
  const char *names[8];
  int n = sh_kernels_available(names);
  for (int i = 1; i < n; i++) {
    double worst = 0;
    for (int s = 0; s < SIZES; s++)
      for (int more = 0; more < 2; more++) check_gate(sh_kernels_named(names[i]), sizes[s], more, &worst);
    print_message("%s: gates %.1e\n", names[i], worst);
    assert_true(worst < 1e-6);
  }
}

static void names(void **state) {
  (void)state;
  const sh_kernels *k = sh_kernels_bf16();
  sh_kernels room;
  assert_true(!strcmp(k->precision, "bf16") || !strcmp(k->precision, "bf16 emulated"));
  assert_string_equal(sh_kernels_best()->precision, "fp32");
  assert_string_equal(sh_kernels_ref.precision, "fp32");
  assert_string_equal(sh_kernels_emulate_bf16(&sh_kernels_ref, &room)->precision, "bf16 emulated");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(names),        cmocka_unit_test(rounding_to_bf16),
                                     cmocka_unit_test(products),     cmocka_unit_test(empty_products),
                                     cmocka_unit_test(not_a_number), cmocka_unit_test(transposes),
                                     cmocka_unit_test(gates)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
