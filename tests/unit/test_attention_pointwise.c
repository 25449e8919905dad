/* HSTU's and FuXi's attention: the reference against finite differences, and every instruction set against the
 * reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/arena.h"
#include "core/rng.h"
#include "kernels/kernels.h"
#include "support/close.h"
#include "support/make_batch.h"

enum { BUCKETS = 129, HSTU = 1, BETA = 2, ALPHA = 3 }; /* channels */

typedef struct problem {
  int L, first, dqk, dv, channels, function;
  bool timed;
  int ldq, ldkv, ldout, stride;
  float divisor, a, b;
  float *q, *k, *v, *pos, *ts, *dout;
  int64_t *time, *next_time;
  int32_t *run_start, *run_end;
  uint8_t *run_bucket;
} problem;

typedef struct result {
  float *out, *dq, *dk, *dv, *dpos, *dts;
  double da, db;
} result;

static int bucket(int64_t dt) {
  float x = (float)(dt < 1 ? 1 : dt);
  int b = (int)(logf(x) / 0.301f);
  return b > 128 ? 128 : b;
}

static void make_runs(problem *p) {
  int n = 0;
  p->run_start = sh_malloc(sizeof(int32_t) * (size_t)(p->L + 1));
  p->run_end = sh_malloc(sizeof(int32_t) * (size_t)p->L * BUCKETS);
  p->run_bucket = sh_malloc((size_t)p->L * BUCKETS);
  for (int i = 0; i < p->L; i++) {
    p->run_start[i] = n;
    for (int j = 0; j <= i; j++) {
      int b = bucket(p->next_time[i] - p->time[j]);
      if (j == 0 || b != p->run_bucket[n - 1]) p->run_bucket[n++] = (uint8_t)b;
      p->run_end[n - 1] = j + 1;
    }
  }
  p->run_start[p->L] = n;
}

/* `span`: typical seconds between events. */
static problem make(int L, int dqk, int dv, int channels, int function, uint32_t span) {
  problem p = {.L = L, .dqk = dqk, .dv = dv, .channels = channels, .function = function, .timed = true};
  p.ldq = dqk + 3, p.ldkv = (dqk > dv ? dqk : dv) + 5, p.stride = dv, p.ldout = channels * dv + 2;
  p.divisor = (float)(L + 11), p.a = 0.7f, p.b = function == 0 ? 0.6f : -4.f;
  p.q = sh_new_normal((int64_t)L * p.ldq, 1, 1), p.k = sh_new_normal((int64_t)L * p.ldkv, 1, 2),
  p.v = sh_new_normal((int64_t)L * p.ldkv, 1, 3);
  p.pos = sh_new_normal(2 * L - 1, 1, 4), p.ts = sh_new_normal(BUCKETS, 1, 5),
  p.dout = sh_new_normal((int64_t)L * p.ldout, 1, 6);
  p.time = sh_malloc(sizeof(int64_t) * (size_t)(L + 1));
  p.next_time = p.time + 1;
  p.time[0] = 978300760;
  for (int i = 0; i < L; i++) {
    uint32_t r = sh_random4(7, SH_SITE_TEST, 8, 0, 0, (uint32_t)i).v[0];
    p.time[i + 1] = p.time[i] + (r % 3 == 0 ? 0 : (int64_t)sh_below(r, span)); /* ties are common */
  }
  make_runs(&p);
  return p;
}

static void problem_free(problem *p) {
  free(p->q), free(p->k), free(p->v), free(p->pos), free(p->ts), free(p->dout), free(p->time);
  free(p->run_start), free(p->run_end), free(p->run_bucket);
}

static result result_make(const problem *p) {
  result r = {0};
  int64_t wide = (int64_t)p->L * p->ldkv;
  r.out = sh_new_normal((int64_t)p->L * p->ldout, 1, 20);
  r.dq = sh_new_normal((int64_t)p->L * p->ldq, 1, 21), r.dk = sh_new_normal(wide, 1, 22),
  r.dv = sh_new_normal(wide, 1, 23);
  r.dpos = sh_calloc((size_t)(2 * p->L), sizeof(float)), r.dts = sh_calloc(BUCKETS, sizeof(float));
  return r;
}

static void result_free(result *r) { free(r->out), free(r->dq), free(r->dk), free(r->dv), free(r->dpos), free(r->dts); }

static void describe(const problem *p, result *r, sh_heads_io *h, sh_fuxi_maps *m) {
  *h = (sh_heads_io){.L = p->L, .query_first = p->first, .dqk = p->dqk, .dv = p->dv};
  h->ldq = p->ldq, h->ldkv = p->ldkv, h->ldout = p->ldout;
  h->q = p->q + (int64_t)p->first * p->ldq, h->k = p->k, h->v = p->v, h->out = r->out;
  h->dout = p->dout + (int64_t)p->first * p->ldout;
  h->dq = r->dq, h->dk = r->dk, h->dv_ = r->dv;
  *m = (sh_fuxi_maps){.channels = p->channels, .channel_stride = p->stride, .time_function = p->function};
  m->a = p->a, m->b = p->b, m->da = &r->da, m->db = &r->db;
  m->bias.pos = p->pos + p->L - 1, m->bias.dpos = r->dpos + p->L - 1;
  if (p->channels == BETA) {
    h->q = h->k = NULL, h->dq = h->dk = NULL, h->dqk = 0; /* must not be touched */
    if (p->timed) m->time = p->time, m->next_time = p->next_time;
  } else if (p->timed) {
    m->bias.ts = p->ts, m->bias.dts = r->dts;
    m->bias.run_start = p->run_start, m->bias.run_end = p->run_end, m->bias.run_bucket = p->run_bucket;
  }
}

static void run(const sh_kernels *k, const problem *p, result *r, bool backward) {
  sh_heads_io h;
  sh_fuxi_maps m;
  describe(p, r, &h, &m);
  int64_t n = sh_attention_work(p->L, h.dqk, p->dv);
  float *work = sh_new_normal(n, 1, 30);
  uint32_t guard = 0xDEADBEEF;
  memcpy(work + n, &guard, sizeof guard);
  if (p->channels == HSTU) {
    k->hstu_attention(&h, &m.bias, p->divisor, work);
    if (backward) k->hstu_attention_back(&h, &m.bias, p->divisor, work);
  } else {
    k->fuxi_attention(&h, &m, p->divisor, work);
    if (backward) k->fuxi_attention_back(&h, &m, p->divisor, work);
  }
  assert_memory_equal(work + n, &guard, sizeof guard);
  free(work);
}

/* <out, dout> of the reference. */
static double objective(const problem *p) {
  result r = result_make(p);
  run(&sh_kernels_ref, p, &r, false);
  double s = 0;
  for (int i = 0; i < p->L; i++)
    for (int c = 0; c < p->channels * p->dv; c++)
      s += (double)r.out[i * p->ldout + c] * (double)p->dout[i * p->ldout + c];
  result_free(&r);
  return s;
}

static void check_slope(const problem *p, float *x, double slope, const char *what) {
  const float keep = *x, h = 0.01f;
  *x = keep + h;
  double up = objective(p), above = (double)*x;
  *x = keep - h;
  double down = objective(p), width = above - (double)*x;
  *x = keep;
  double seen = (up - down) / width;
  if (fabs(seen - slope) > 2e-3 * (1 + fabs(slope)))
    fail_msg("%s: gradient %g, difference quotient %g", what, slope, seen);
}

static void finite_differences(int channels, int function, bool timed) {
  problem p = make(13, 4, 5, channels, function, 40);
  p.timed = timed;
  if (function == 1) p.b = -1.5f;
  result r = result_make(&p);
  run(&sh_kernels_ref, &p, &r, true);
  for (int i = 0; i < p.L; i++) {
    for (int c = 0; c < p.dv; c++) check_slope(&p, p.v + i * p.ldkv + c, (double)r.dv[i * p.ldkv + c], "v");
    check_slope(&p, p.pos + i, (double)r.dpos[i], "pos");
    for (int c = 0; c < p.dqk && channels != BETA; c++) {
      check_slope(&p, p.q + i * p.ldq + c, (double)r.dq[i * p.ldq + c], "q");
      check_slope(&p, p.k + i * p.ldkv + c, (double)r.dk[i * p.ldkv + c], "k");
    }
  }
  if (channels != BETA)
    for (int b = 0; b < BUCKETS; b++) check_slope(&p, p.ts + b, (double)r.dts[b], "ts");
  if (channels != HSTU) {
    check_slope(&p, &p.a, r.da, "a");
    check_slope(&p, &p.b, r.db, "b");
  }
  result_free(&r);
  problem_free(&p);
}

static void reference_gradients(void **state) {
  (void)state;
  finite_differences(HSTU, 0, true);
  finite_differences(HSTU, 0, false);
  finite_differences(ALPHA, 0, true);
  finite_differences(ALPHA, 0, false);
  finite_differences(BETA, 0, true);
  finite_differences(BETA, 1, true);
  finite_differences(BETA, 0, false);
}

/* Rows of width n, and what lies between them must be as it was. */
static double tolerance = 1e-5;
static void compare(const float *x, const float *ref, int rows, int n, int ld, const char *isa, const problem *p,
                    const char *what) {
  double error = sh_close_rows(rows, n, ld, x, ref, 1e-30);
  if (!(error <= tolerance))
    fail_msg("%s, L %d, dqk %d, dv %d, channels %d, function %d: %s off by %g of its largest entry", isa, p->L, p->dqk,
             p->dv, p->channels, p->function, what, error);
}

static void compare_scalar(double x, double ref, double scale, const char *isa, const problem *p, const char *what) {
  if (!(fabs(x - ref) <= 0.1 * tolerance * scale))
    fail_msg("%s, L %d, dv %d, function %d: %s %.9g, reference %.9g (terms sum to %g)", isa, p->L, p->dv, p->function,
             what, x, ref, scale);
}

static const sh_kernels *table[8]; /* those to compare with the reference */
static int tables;

static void against_reference(const problem *p, double scale) {
  const char *names[8];
  int n = tables, C = p->channels;
  result ref = result_make(p);
  run(&sh_kernels_ref, p, &ref, true);
  for (int s = 0; s < n; s++) {
    result r = result_make(p);
    names[s] = table[s]->name;
    run(table[s], p, &r, true);
    compare(r.out, ref.out, p->L - p->first, C * p->dv, p->ldout, names[s], p, "out");
    compare(r.dv, ref.dv, p->L, p->dv, p->ldkv, names[s], p, "dv");
    compare(r.dpos, ref.dpos, 1, 2 * p->L, 2 * p->L, names[s], p, "dpos");
    compare(r.dq, ref.dq, p->L - p->first, C != BETA ? p->dqk : p->ldq, p->ldq, names[s], p, "dq");
    compare(r.dk, ref.dk, p->L, C != BETA ? p->dqk : p->ldkv, p->ldkv, names[s], p, "dk");
    compare(r.dts, ref.dts, 1, BUCKETS, BUCKETS, names[s], p, "dts");
    compare_scalar(r.da, ref.da, scale, names[s], p, "da");
    compare_scalar(r.db, ref.db, 20 * scale, names[s], p, "db");
    result_free(&r);
  }
  result_free(&ref);
}

static void every_set_matches(void **state) {
  (void)state;
  static const int lengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 200, 211, 300}, widths[] = {4, 6, 25, 50, 64};
  for (int l = 0; l < 11; l++)
    for (int w = 0; w < 5; w++)
      for (int kind = 0; kind < 4; kind++) {
        int L = lengths[l], dv = widths[w], dqk = widths[(w + l) % 5];
        problem p = make(L, dqk, dv, kind == 0 ? ALPHA : kind == 3 ? HSTU : BETA, kind == 2, kind == 2 ? 30 : 90000);
        double scale = (double)L * L * sqrt((double)dv);
        against_reference(&p, scale);
        p.first = L - 1; /* last-only inference; a piece of a long sequence */
        against_reference(&p, scale);
        p.first = L / 2;
        against_reference(&p, scale);
        problem_free(&p);
      }
}

static void long_sequences(void **state) {
  (void)state;
  for (int channels = HSTU; channels <= ALPHA; channels++) {
    enum { L = 4096 };
    problem p = make(L, 4, 4, channels, 0, 90000);
    against_reference(&p, (double)L * L);
    problem_free(&p);
  }
}

/* No time: a map of zeros. A growing function (b < 0), and times far apart. */
static void special_maps(void **state) {
  (void)state;
  for (int channels = HSTU; channels <= ALPHA; channels++) {
    problem p = make(37, 6, 6, channels, 0, 1000);
    p.timed = false;
    against_reference(&p, 1);
    problem_free(&p);
  }
  problem p = make(70, 6, 6, BETA, 0, 1000000000);
  p.b = -0.3f;
  against_reference(&p, 1e9);
  p.time[0] -= (int64_t)1 << 45;
  p.b = 0.5f;
  against_reference(&p, 1e4);
  problem_free(&p);
}

/* Operands are rounded to 8 bits. Gradients of a few keys are differences of such: a wide margin for short sequences;
 * scores are kept near 1, as errors grow with them. */
static void bf16_matches(void **state) {
  (void)state;
  int kept = tables;
  table[0] = sh_kernels_bf16(), tables = 1;
  static const int lengths[] = {1, 2, 17, 63, 64, 65, 200, 300}, widths[] = {5, 6, 25, 50, 64, 130};
  for (int l = 0; l < 8; l++)
    for (int channels = HSTU; channels <= ALPHA; channels++) {
      int L = lengths[l], dv = widths[l % 6], dqk = widths[(2 * l + channels) % 6];
      problem p = make(L, dqk, dv, channels, 0, 90000);
      for (int i = 0; i < L * p.ldq; i++) p.q[i] /= sqrtf((float)dqk);
      tolerance = L < 16 ? 1e-1 : 2e-2;
      double scale = 10 + (double)L * L * sqrt((double)dv);
      against_reference(&p, scale);
      p.first = L / 2;
      against_reference(&p, scale);
      problem_free(&p);
    }
  table[0] = sh_kernels_named("portable"), tables = kept, tolerance = 1e-5;
}

int main(void) {
  const char *names[8];
  tables = sh_kernels_available(names) - 1;
  for (int k = 0; k < tables; k++) table[k] = sh_kernels_named(names[k + 1]);
  const struct CMUnitTest tests[] = {cmocka_unit_test(bf16_matches), cmocka_unit_test(reference_gradients),
                                     cmocka_unit_test(every_set_matches), cmocka_unit_test(long_sequences),
                                     cmocka_unit_test(special_maps)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
