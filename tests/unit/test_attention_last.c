/* HSTU's attention of the last query alone on every table against ref, whatever the lengths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "kernels/kernels.h"
#include "support/make_batch.h"

enum { LONGEST = 600, WIDE = 67, LD = 70, LDOUT = 72, BUCKETS = 129 };

static float q[LONGEST * LD], k[LONGEST * LD], v[LONGEST * LD], pos[LONGEST], ts[BUCKETS];
static float want[LDOUT], last[LDOUT];

/* `timed`: with the bias of time. */
static void check(const sh_kernels *table, int32_t L, int d, bool timed, sh_arena *arena) {
  sh_batch batch;
  sh_make_batch(&batch, 1, &L, 9, (uint32_t)L, arena);
  sh_rel_bias bias = {.pos = pos + LONGEST - 1};
  if (timed) bias.ts = ts, bias.run_start = batch.runs.start;
  bias.run_end = batch.runs.end, bias.run_bucket = batch.runs.bucket;
  sh_heads_io h = {.L = L, .dqk = d, .dv = d > 1 ? d - 1 : 1, .ldq = LD, .ldkv = LD, .ldout = LDOUT};
  h.query_first = L - 1, h.q = q + (int64_t)(L - 1) * LD, h.k = k, h.v = v;
  float *work = SH_ARENA_NEW(arena, float, sh_attention_work(L, h.dqk, h.dv));
  h.out = want;
  sh_kernels_ref.hstu_attention(&h, &bias, (float)LONGEST, work);
  for (int c = 0; c < LDOUT; c++) last[c] = 1234.5f;
  h.out = last;
  table->hstu_attention(&h, &bias, (float)LONGEST, work);
  double most = 0, off = 0;
  for (int c = 0; c < h.dv; c++) {
    most = fmax(most, fabs((double)want[c]));
    off = fmax(off, fabs((double)last[c] - (double)want[c]));
  }
  if (!(off <= 2e-6 * most)) fail_msg("%s, L %d, width %d: off by %g of %g", table->name, L, d, off, most);
  for (int c = h.dv; c < LDOUT; c++) assert_true(last[c] == 1234.5f);
}

static void last_query(void **state) {
  (void)state;
  static const int32_t lengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 200, 211, 256, 257, 600};
  static const int widths[] = {1, 4, 16, 17, 32, 50, 64, 65, WIDE};
  const char *names[8];
  int n = sh_kernels_available(names);
  sh_make_normal(q, LONGEST * LD, 1, 1), sh_make_normal(k, LONGEST * LD, 0.3f, 2);
  sh_make_normal(v, LONGEST * LD, 1, 3), sh_make_normal(pos, LONGEST, 1, 4), sh_make_normal(ts, BUCKETS, 1, 5);
  sh_arena arena;
  sh_arena_init(&arena, "test");
  for (int t = 0; t < n; t++)
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
      for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        check(sh_kernels_named(names[t]), lengths[l], widths[w], (l + w) % 3 > 0, &arena);
        sh_arena_reset(&arena);
      }
  sh_arena_free(&arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(last_query)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
