/* Copies of rows with precision bf16, as the sampled loss gathers them: what a copy holds, the kernels that read copies
 * against `ref` on rows rounded here, by another rule than the kernels', and the whole loss against fp32. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/arena.h"
#include "core/config.h"
#include "kernels/kernels.h"
#include "nn/loss.h"
#include "nn/loss_pairs.h"
#include "support/close.h"
#include "support/make_batch.h"

static const int widths[] = {1, 2, 16, 31, 50, 63, 64, 65, 256, 300}, counts[] = {1, 3, 127, 128, 129};
enum { WIDTHS = sizeof widths / sizeof *widths, COUNTS = sizeof counts / sizeof *counts, TABLES = 3 };

static sh_arena mem;
static const sh_kernels *all[TABLES]; /* what precision bf16 runs here, and what other CPUs do */

static int setup(void **state) {
  (void)state;
  static sh_kernels room[2];
  sh_arena_init(&mem, "test");
  all[0] = sh_kernels_bf16();
  all[1] = sh_kernels_emulate_bf16(sh_kernels_best(), &room[0]);
  all[2] = sh_kernels_emulate_bf16(&sh_kernels_ref, &room[1]);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  sh_arena_free(&mem);
  return 0;
}

/* Nearest with 8 significant bits, ties to even, by arithmetic; numbers here are not tiny. */
static float nearest(float x) {
  int e;
  frexpf(x, &e);
  double unit = ldexp(1, e - 8);
  return x == 0 ? x : (float)(nearbyint((double)x / unit) * unit);
}

static float *normal(int64_t n, float sd, uint32_t salt) {
  float *x = SH_ARENA_NEW(&mem, float, n);
  sh_make_normal(x, n, sd, salt);
  return x;
}

/* The columns of a copy, as pair_sums reads them. */
static void expand(const sh_kernels *k, int64_t columns, const float *copy, float *out) {
  const int32_t start[2] = {0, 1};
  const sh_share one = {.coef = 1, .token = 0};
  memset(out, 0, sizeof *out * (size_t)columns);
  k->pair_sums(1, columns, start, &one, copy, columns / k->copy_parts, out, columns);
}

/* Rows as they are are rounded to nearest; rows of length one too, from an fp32 value whose last bits may differ. */
static void what_a_copy_holds(void **state) {
  (void)state;
  for (int k = 0; k < TABLES; k++)
    for (int w = 0; w < WIDTHS; w++)
      for (int l2 = 0; l2 < 2; l2++) {
        enum { N = 3, PAD = 2 };
        int64_t D = widths[w], ldx = D + 1, columns = sh_copy_columns(all[k], D), ld = sh_copy_floats(all[k], D) + PAD;
        float *x = normal(N * ldx, 1, 5), *copy = SH_ARENA_NEW(&mem, float, N *ld), length[N];
        float *unit = SH_ARENA_NEW(&mem, float, N *columns), *got = SH_ARENA_NEW(&mem, float, columns);
        for (int64_t i = 0; i < N * ld; i++) copy[i] = 1234.5f;
        all[k]->unit_copies(N, D, l2, 1e-6f, x, ldx, copy, ld, length);
        sh_kernels_ref.unit_rows(N, D, l2, 1e-6f, x, ldx, unit, columns, (float[N]){0});
        for (int64_t i = 0; i < N; i++) {
          expand(all[k], columns, copy + i * ld, got);
          for (int64_t c = 0; c < columns; c++) {
            float want = nearest(unit[i * columns + c]);
            if (l2)
              assert_true(fabsf(got[c] - unit[i * columns + c]) <= 0x1.001p-8f * fabsf(unit[i * columns + c]));
            else
              assert_true(got[c] == want);
            if (c >= D) assert_true(got[c] == 0);
          }
          for (int64_t c = ld - PAD; c < ld; c++) assert_true(copy[i * ld + c] == 1234.5f);
        }
        sh_arena_reset(&mem);
      }
}

/* Softmax, hidden gradients and row gradients of every width and number of negatives against the same in double. */
static void kernels(void **state) {
  (void)state;
  enum { T = 3, U = 40, SHIFT = 8 };
  const sh_kernels *ref = &sh_kernels_ref;
  double worst = 0;
  for (int k = 0; k < TABLES; k++)
    for (int w = 0; w < WIDTHS; w++)
      for (int c = 0; c < COUNTS; c++) {
        int64_t D = widths[w], n = counts[c] + 1, wide = sh_copy_columns(all[k], D), ld = sh_copy_floats(all[k], D);
        float *x = normal(U * D, 1, 7), *y = normal(T * D, 1, 8), length[U], scale = 4 / sqrtf((float)D);
        float *e = SH_ARENA_NEW(&mem, float, U *ld), *h = SH_ARENA_NEW(&mem, float, T *ld);
        all[k]->unit_copies(U, D, false, 1, x, D, e, ld, length);
        all[k]->unit_copies(T, D, false, 1, y, D, h, ld, length);
        float *e_ref = SH_ARENA_ZNEW(&mem, float, U *wide), *h_ref = SH_ARENA_ZNEW(&mem, float, T *wide);
        for (int64_t i = 0; i < U * D; i++) e_ref[i / D * wide + i % D] = nearest(x[i]);
        for (int64_t i = 0; i < T * D; i++) h_ref[i / D * wide + i % D] = nearest(y[i]);
        int32_t *slot = SH_ARENA_NEW(&mem, int32_t, T * n), start[U + 1];
        for (int64_t i = 0; i < T * n; i++) slot[i] = (int32_t)(sh_make_bits(3, i) % U);
        float *coef = SH_ARENA_ZNEW(&mem, float, T << SHIFT), *coef_ref = SH_ARENA_ZNEW(&mem, float, T << SHIFT);
        float *dh = SH_ARENA_NEW(&mem, float, T *wide), *dh_ref = SH_ARENA_NEW(&mem, float, T *wide);
        double loss = all[k]->sampled_softmax(T, n, wide, scale, 0.5f, h, e, ld, slot, coef, 1 << SHIFT, dh);
        double want =
            ref->sampled_softmax(T, n, wide, scale, 0.5f, h_ref, e_ref, wide, slot, coef_ref, 1 << SHIFT, dh_ref);
        double off =
            fmax(sh_close_floats(T << SHIFT, coef, coef_ref, 1e-3), sh_close_floats(T * wide, dh, dh_ref, 1e-2));
        assert_true(all[k]->sampled_softmax(T, n, wide, scale, 0.5f, h, e, ld, slot, coef, 1 << SHIFT, NULL) == loss);

        sh_share *pair = SH_ARENA_NEW(&mem, sh_share, T * n);
        sh_pairs_by_row(T, n, slot, coef_ref, 1 << SHIFT, U, start, pair);
        float *de = normal(U * wide, 1, 9), *de_ref = normal(U * wide, 1, 9);
        all[k]->pair_sums(U, wide, start, pair, h, ld, de, wide);
        ref->pair_sums(U, wide, start, pair, h_ref, wide, de_ref, wide);
        off = fmax(off, sh_close_floats(U * wide, de, de_ref, 1));
        worst = fmax(worst, off);
        if (!(off <= 5e-6) || !(fabs(loss - want) <= 2e-6 * fmax(want, 1)))
          fail_msg("%s, %s: D %d, %d negatives: %.2e; loss %.9g, not %.9g", all[k]->name, all[k]->precision, (int)D,
                   counts[c], off, loss, want);
        sh_arena_reset(&mem);
      }
  print_message("copies: %.1e\n", worst);
}

/* Every pair once, by row, then token, then candidate; rows without any. */
static void pairs_by_row(void **state) {
  (void)state;
  enum { T = 37, M = 5, LD = 7, ROWS = 50 };
  int32_t slot[T * M], start[ROWS + 1];
  float coef[T * LD];
  sh_share pair[T * M];
  for (int i = 0; i < T * M; i++) slot[i] = (int32_t)(sh_make_bits(11, i) % 40) + 3;
  for (int i = 0; i < T * LD; i++) coef[i] = (float)i;
  sh_pairs_by_row(T, M, slot, coef, LD, ROWS, start, pair);
  assert_int_equal(start[0], 0);
  assert_int_equal(start[ROWS], T * M);
  int32_t at = 0;
  for (int32_t row = 0; row < ROWS; row++) {
    assert_int_equal(start[row], at);
    for (int t = 0; t < T; t++)
      for (int j = 0; j < M; j++)
        if (slot[t * M + j] == row) {
          assert_int_equal(pair[at].token, t);
          assert_true(pair[at++].coef == coef[t * LD + j]);
        }
  }
}

/* The loss with gradients of both sides. */
static double whole(const sh_kernels *k, int64_t D, int64_t R, float *dhidden, float *drows) {
  enum { T = 70, U = 90 };
  sh_config conf;
  sh_arena scratch;
  sh_config_defaults(&conf);
  sh_arena_init(&scratch, "scratch");
  conf.loss.l2_norm = D > 1, conf.loss.temperature = 0.1; /* a gradient along all there is would be noise */
  int64_t ld = (D + 15) / 16 * 16;
  float *value = SH_ARENA_ZNEW(&mem, float, U *ld), *hidden = normal(T * D, 1, 1);
  for (int64_t u = 0; u < U; u++) sh_make_normal(value + u * ld, D, 0.05f, 100 + (uint32_t)u);
  int32_t *reference = SH_ARENA_NEW(&mem, int32_t, T * (R + 1));
  for (int64_t i = 0; i < T * (R + 1); i++) reference[i] = (int32_t)(sh_make_bits(1, i) % U);
  memset(drows, 0, sizeof *drows * (size_t)(U * ld));
  sh_rows rows = {.ld = (int)ld, .nslots = U, .value = value, .grad = drows};
  sh_ctx c = {.rows = &rows, .scratch = &scratch, .k = k};
  sh_loss_args a = {.conf = &conf.loss,
                    .T = T,
                    .D = (int)D,
                    .hidden = hidden,
                    .dhidden = dhidden,
                    .rows = &rows,
                    .reference = reference,
                    .R = R,
                    .scale = 1.0 / T};
  double loss = sh_loss_sampled(&a, &c) / T;
  sh_arena_free(&scratch);
  return loss;
}

static void losses(void **state) {
  (void)state;
  for (int w = 0; w < WIDTHS; w++)
    for (int c = 0; c < COUNTS; c++) {
      int64_t D = widths[w], R = counts[c], h = 70 * D, e = 90 * ((D + 15) / 16 * 16);
      float *dh[2], *de[2];
      for (int i = 0; i < 2; i++) dh[i] = SH_ARENA_NEW(&mem, float, h), de[i] = SH_ARENA_NEW(&mem, float, e);
      double want = whole(&sh_kernels_ref, D, R, dh[1], de[1]);
      for (int k = 0; k < TABLES; k++) {
        double loss = whole(all[k], D, R, dh[0], de[0]);
        double far = fmax(sh_close_floats(h, dh[0], dh[1], 1e-6), sh_close_floats(e, de[0], de[1], 1e-6));
        if (!(fabs(loss - want) <= 3e-3 * want) || !(far <= 2e-2))
          fail_msg("%s, %s: D %d, %d negatives: loss %.9g, in fp32 %.9g; gradients off by %.2g", all[k]->name,
                   all[k]->precision, (int)D, (int)R, loss, want, far);
      }
      sh_arena_reset(&mem);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_a_copy_holds), cmocka_unit_test(kernels),
                                     cmocka_unit_test(pairs_by_row), cmocka_unit_test(losses)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
