/* Softmax attention: the reference against its definition and finite differences, every instruction set against it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"
#include "kernels/kernels.h"
#include "support/close.h"

enum { PAD = 3 }; /* columns of another head beside ours: they must stay as they are */
#define UNTOUCHED 1234.5f

static const sh_drop dropped = {
    .seed = 7, .site = SH_SITE(SH_SITE_TEST, 3), .when = 5, .threshold = 858993459u, .scale = 1.25f};
static const sh_drop nothing = {.threshold = 0};

typedef struct head_case {
  sh_heads_io io;
  float *block; /* all arrays */
  float *work;
  float scale;
  int64_t sample, first_element;
} head_case;

static void fill(float *x, int64_t n, uint32_t salt, float range) {
  for (int64_t i = 0; i < n; i++) {
    sh_philox r = sh_random4(1, SH_SITE(SH_SITE_TEST, 1), salt, i, 0, 0);
    x[i] = range * (2 * sh_uniform(r.v[0]) - 1);
  }
}

static head_case make(int L, int d, float range) {
  head_case c = {.scale = 1.f / sqrtf((float)d), .sample = (int64_t)1 << 33 | 17, .first_element = 211};
  int ldq = d + PAD, ldkv = 3 * d + PAD;
  int64_t nq = (int64_t)L * ldq, nkv = (int64_t)L * ldkv;
  c.block = malloc(sizeof(float) * (size_t)(4 * nq + 4 * nkv));
  c.work = malloc(sizeof(float) * (size_t)sh_attention_work(L, d, d));
  float *q = c.block, *dout = q + nq, *out = dout + nq, *dq = out + nq, *k = dq + nq, *v = k + nkv, *dk = v + nkv,
        *dv = dk + nkv;
  fill(q, nq, 1, range), fill(dout, nq, 2, 1), fill(k, nkv, 3, range), fill(v, nkv, 4, 1);
  for (int64_t i = 0; i < nq; i++) out[i] = dq[i] = UNTOUCHED;
  for (int64_t i = 0; i < nkv; i++) dk[i] = dv[i] = UNTOUCHED;
  c.io = (sh_heads_io){.L = L,
                       .dqk = d,
                       .dv = d,
                       .ldq = ldq,
                       .ldkv = ldkv,
                       .ldout = ldq,
                       .q = q,
                       .k = k,
                       .v = v,
                       .out = out,
                       .dout = dout,
                       .dq = dq,
                       .dk = dk,
                       .dv_ = dv};
  return c;
}

static void clear(head_case *c) {
  free(c->block);
  free(c->work);
}

static void run(const sh_kernels *k, head_case *c, const sh_drop *d) {
  k->softmax_attention(&c->io, c->scale, d, c->sample, c->first_element, c->work);
  k->softmax_attention_back(&c->io, c->scale, d, c->sample, c->first_element, c->work);
}

/* Largest difference over the largest entry; checks that nothing beside the head's columns was written. */
static double distance(int rows, int n, int ld, const float *x, const float *y) {
  for (int i = 0; i < rows; i++)
    for (int k = n; k < ld; k++) assert_true(x[(int64_t)i * ld + k] == UNTOUCHED);
  double error = sh_close_rows(rows, n, ld, x, y, 1e-30);
  assert_true(isfinite(error));
  return error;
}

static void compare(const sh_kernels *k, const head_case *ref, int L, int d, float range, const sh_drop *drop,
                    double worst[4]) {
  head_case c = make(L, d, range);
  run(k, &c, drop);
  double e[4] = {distance(L, d, c.io.ldout, c.io.out, ref->io.out), distance(L, d, c.io.ldq, c.io.dq, ref->io.dq),
                 distance(L, d, c.io.ldkv, c.io.dk, ref->io.dk), distance(L, d, c.io.ldkv, c.io.dv_, ref->io.dv_)};
  if (L == 1) e[1] = e[2] = 0; /* one key: both are zero but for rounding */
  for (int i = 0; i < 4; i++) {
    worst[i] = fmax(worst[i], e[i]);
    /* of few keys, gradients are differences of numbers rounded to 8 bits */
    double most = !strcmp(k->precision, "fp32") ? 1e-5 : L < 15 ? 1e-1 : 2e-2;
    if (e[i] > most) fail_msg("%s: L %d d %d dropout %d array %d: %.2e", k->name, L, d, drop == &dropped, i, e[i]);
  }
  clear(&c);
}

static void every_isa_agrees_with_ref(void **state) {
  (void)state;
  static const int lengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 200, 211, 300, 600, 4096}, widths[] = {4, 6, 25, 50, 64};
  const char *names[8];
  int n = sh_kernels_available(names);
  double worst[8][4] = {{0}};
  for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
      for (int drop = 0; drop < 2; drop++) {
        int L = lengths[l], d = widths[w];
        if (L >= 600 && d > (L > 600 ? 4 : 25)) continue; /* the reference is slow */
        const sh_drop *mask = drop ? &dropped : &nothing;
        head_case ref = make(L, d, 1.5f);
        run(&sh_kernels_ref, &ref, mask);
        for (int k = 1; k < n; k++) compare(sh_kernels_named(names[k]), &ref, L, d, 1.5f, mask, worst[k]);
        compare(sh_kernels_bf16(), &ref, L, d, 1.5f, mask, worst[0]);
        clear(&ref);
      }
  for (int k = 1; k < n; k++)
    print_message("%s against ref, of the largest entry: out %.1e dq %.1e dk %.1e dv %.1e\n", names[k], worst[k][0],
                  worst[k][1], worst[k][2], worst[k][3]);
}

/* Scores of some hundreds: no overflow, and the running maximum moves between blocks of keys. */
static void large_scores(void **state) {
  (void)state;
  const char *names[8];
  int n = sh_kernels_available(names), L = 530, d = 16;
  head_case ref = make(L, d, 14);
  for (int j = 0; j < L; j++) /* later keys larger for even d, so that late blocks take over */
    for (int k = 0; k < d; k++) ((float *)ref.io.k)[(int64_t)j * ref.io.ldkv + k] *= 0.2f + 0.8f * (float)j / (float)L;
  run(&sh_kernels_ref, &ref, &nothing);
  for (int k = 1; k < n; k++) {
    head_case c = make(L, d, 14);
    memcpy((float *)c.io.k, ref.io.k, sizeof(float) * (size_t)L * (size_t)c.io.ldkv);
    run(sh_kernels_named(names[k]), &c, &nothing);
    /* fp32 scores near 700 are known to 4e-5 absolute, which the exponential makes relative. */
    assert_true(distance(L, d, c.io.ldout, c.io.out, ref.io.out) < 5e-4);
    assert_true(distance(L, d, c.io.ldq, c.io.dq, ref.io.dq) < 5e-4);
    assert_true(distance(L, d, c.io.ldkv, c.io.dk, ref.io.dk) < 5e-4);
    assert_true(distance(L, d, c.io.ldkv, c.io.dv_, ref.io.dv_) < 5e-4);
    clear(&c);
  }
  clear(&ref);
}

/* The last queries alone give the last rows of the whole, masks included, in every table. */
static void query_first(void **state) {
  (void)state;
  static const int cases[][2] = {{1, 0}, {17, 16}, {200, 199}, {211, 190}, {300, 255}, {600, 599}, {600, 250}};
  const char *names[8];
  int n = sh_kernels_available(names), d = 8;
  for (int k = 0; k < n; k++)
    for (size_t t = 0; t < sizeof cases / sizeof *cases; t++) {
      int L = cases[t][0], first = cases[t][1];
      head_case whole = make(L, d, 1.5f), part = make(L, d, 1.5f);
      const sh_kernels *table = sh_kernels_named(names[k]);
      table->softmax_attention(&whole.io, whole.scale, &dropped, whole.sample, whole.first_element, whole.work);
      part.io.query_first = first;
      part.io.q += (int64_t)first * part.io.ldq;
      table->softmax_attention(&part.io, part.scale, &dropped, part.sample, part.first_element, part.work);
      const float *rows = whole.io.out + (int64_t)first * whole.io.ldout;
      assert_true(distance(L - first, d, part.io.ldout, part.io.out, rows) < 2e-6);
      clear(&whole), clear(&part);
    }
}

/* With v = identity, out shows the dropped weights: rows of the softmax times the mask of (sample, i, first + j). */
static void ref_is_the_definition(void **state) {
  (void)state;
  enum { L = 24 };
  head_case c = make(L, L, 1);
  float *v = (float *)c.io.v;
  for (int j = 0; j < L; j++)
    for (int k = 0; k < L; k++) v[(int64_t)j * c.io.ldkv + k] = j == k;
  sh_kernels_ref.softmax_attention(&c.io, c.scale, &dropped, c.sample, c.first_element, c.work);
  int zeros = 0;
  for (int i = 0; i < L; i++) {
    double weight[L], sum = 0;
    float mask[L];
    for (int j = 0; j <= i; j++) {
      double s = 0;
      for (int k = 0; k < L; k++) s += (double)c.io.q[i * c.io.ldq + k] * (double)c.io.k[j * c.io.ldkv + k];
      sum += weight[j] = exp((double)c.scale * s);
      mask[j] = 1;
    }
    sh_kernels_ref.dropout(&dropped, c.sample, i, c.first_element, i + 1, mask, mask);
    for (int j = 0; j < L; j++) {
      double want = j <= i ? weight[j] / sum * (double)mask[j] : 0;
      assert_true(fabs((double)c.io.out[i * c.io.ldout + j] - want) < 1e-6);
      zeros += j <= i && mask[j] == 0;
    }
  }
  assert_in_range(zeros, 30, 90); /* of 300, p = 0.2 */
  clear(&c);
}

static double objective(head_case *c, const sh_drop *d) {
  double s = 0;
  sh_kernels_ref.softmax_attention(&c->io, c->scale, d, c->sample, c->first_element, c->work);
  for (int i = 0; i < c->io.L; i++)
    for (int k = 0; k < c->io.dv; k++)
      s += (double)c->io.dout[(int64_t)i * c->io.ldout + k] * (double)c->io.out[(int64_t)i * c->io.ldout + k];
  return s;
}

static double differences(head_case *c, const sh_drop *d, float *x, int n, int ld, const float *gradient) {
  double worst = 0, largest = 0;
  for (int i = 0; i < c->io.L; i++)
    for (int k = 0; k < n; k++) {
      float *p = x + (int64_t)i * ld + k, was = *p;
      *p = was + 4e-3f;
      double up = objective(c, d), high = (double)*p;
      *p = was - 4e-3f;
      double slope = (up - objective(c, d)) / (high - (double)*p), g = (double)gradient[(int64_t)i * ld + k];
      *p = was;
      worst = fmax(worst, fabs(slope - g)), largest = fmax(largest, fabs(g));
    }
  return worst / largest;
}

static void ref_passes_finite_differences(void **state) {
  (void)state;
  for (int drop = 0; drop < 2; drop++) {
    const sh_drop *d = drop ? &dropped : &nothing;
    head_case c = make(13, 5, 1);
    run(&sh_kernels_ref, &c, d);
    assert_true(differences(&c, d, (float *)c.io.q, 5, c.io.ldq, c.io.dq) < 3e-4);
    assert_true(differences(&c, d, (float *)c.io.k, 5, c.io.ldkv, c.io.dk) < 3e-4);
    assert_true(differences(&c, d, (float *)c.io.v, 5, c.io.ldkv, c.io.dv_) < 3e-4);
    clear(&c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ref_is_the_definition), cmocka_unit_test(ref_passes_finite_differences),
      cmocka_unit_test(every_isa_agrees_with_ref), cmocka_unit_test(large_scores), cmocka_unit_test(query_first)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
