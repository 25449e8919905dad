/* Every layer of nn/layers.def, in every configuration of the table `cases`: gradients against finite differences, fast
 * kernels against the reference, any number of threads, adding to gradients, last rows only, and parts of the tensor
 * axis. A layer without a case fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "nn/embed_input.h"
#include "nn/fuxi.h"
#include "nn/hstu.h"
#include "nn/sasrec.h"
#include "support/gradcheck.h"
#include "support/layer_bench.h"
#include "support/whole.h"

enum {
  D = SH_BENCH_D,
  H = 6,
  N = 40,
  F = 18,
  ITEMS = SH_BENCH_ITEMS,
  ROW_LD = SH_BENCH_LD,
  T = SH_BENCH_T,
  B = SH_BENCH_B
};

typedef sh_layer_case layer_case;
typedef sh_layer_bench bench;
typedef sh_bench_array array;

/* Heads of two and three columns. The batch's longest sequence has 33 events. */
static const sh_embed_input_conf embed = {.D = D, .N = N, .dropout = 0.3, .pos_init = {SH_INIT_NORMAL, 0.3, 0}};
#define HSTU .D = D, .H = H, .dqk = 2, .dv = 3, .N = N, .eps = 1e-6f, .dropout = 0.3
static const sh_hstu_conf hstu = {HSTU, .time_bias = true}, hstu_no_time = {HSTU},
                          hstu_concat = {HSTU, .time_bias = true, .concat_ua = true};
#define FUXI .D = D, .H = H, .dqk = 2, .dv = 3, .N = N, .eps = 1e-6f, .dropout = 0.3
static const sh_fuxi_conf alpha = {FUXI, .channels = SH_FUXI_ALPHA, .time_bias = true},
                          alpha_no_time = {FUXI, .channels = SH_FUXI_ALPHA},
                          beta_pow = {FUXI, .channels = SH_FUXI_BETA, .time_bias = true},
                          beta_exp = {FUXI, .channels = SH_FUXI_BETA, .time_bias = true, .time_function = SH_FUXI_EXP};
static const sh_swiglu_conf swiglu = {.D = D, .F = F, .eps = 1e-6f, .dropout = 0.3};
#define SASREC .D = D, .H = H, .F = F, .N = N, .eps = 1e-6f, .attention_dropout = 0.3, .ffn_dropout = 0.2
static const sh_sasrec_conf sasrec = {SASREC}, sasrec_gelu = {SASREC, .gelu = true};

enum { U = H * 3, C3 = 3 * U, C2 = 2 * U };
/* clang-format off */
#define X         {.width = D}
#define Y         {.width = D}
#define OWN       {.width = D, .sliced = true}
#define PART(n)   {.width = n, .split = true}
#define INNER(n)  {.width = n, .split = true, .only = true}
#define STATS2    {.width = SH_HSTU_STATS, .kind = SH_SLOT_SUMS, .only = true}
#define STATS1    {.width = 1, .kind = SH_SLOT_SQUARES, .only = true}
#define DROP(type)  {offsetof(type, dropout)}
#define SASREC_DROP {offsetof(sh_sasrec_conf, attention_dropout), offsetof(sh_sasrec_conf, ffn_dropout)}
/* clang-format on */
static const layer_case cases[] = {
    {&sh_embed_input_ops, "", &embed, DROP(sh_embed_input_conf), {{0}}, {OWN}, 0, 0},
    {&sh_hstu_in_ops, "", &hstu, DROP(sh_hstu_conf), {X}, {PART(U), PART(U), STATS2}, 0, 0},
    {&sh_hstu_in_ops, "without time", &hstu_no_time, DROP(sh_hstu_conf), {X}, {PART(U), PART(U), STATS2}, 0, 0},
    {&sh_hstu_out_ops, "", &hstu, DROP(sh_hstu_conf), {X, INNER(U), INNER(U), STATS2}, {Y}, 0, 0},
    {&sh_hstu_out_ops, "concat_ua", &hstu_concat, DROP(sh_hstu_conf), {X, INNER(U), INNER(U), STATS2}, {Y}, 0, 0},
    {&sh_fuxi_in_ops, "alpha", &alpha, DROP(sh_fuxi_conf), {X}, {PART(C3), PART(C3), STATS1}, 0, 0},
    {&sh_fuxi_in_ops,
     "alpha without time",
     &alpha_no_time,
     DROP(sh_fuxi_conf),
     {X},
     {PART(C3), PART(C3), STATS1},
     0,
     0},
    {&sh_fuxi_in_ops, "beta, power", &beta_pow, DROP(sh_fuxi_conf), {X}, {PART(C2), PART(C2), STATS1}, 0, 0},
    {&sh_fuxi_in_ops, "beta, exponential", &beta_exp, DROP(sh_fuxi_conf), {X}, {PART(C2), PART(C2), STATS1}, 0, 0},
    {&sh_fuxi_out_ops, "alpha", &alpha, DROP(sh_fuxi_conf), {X, INNER(C3), INNER(C3), STATS1}, {Y}, 0, 0},
    {&sh_fuxi_out_ops, "beta", &beta_pow, DROP(sh_fuxi_conf), {X, INNER(C2), INNER(C2), STATS1}, {Y}, 0, 0},
    {&sh_ffn_swiglu_ops, "", &swiglu, DROP(sh_swiglu_conf), {X}, {Y}, 0, 0},
    {&sh_sasrec_attention_ops, "", &sasrec, SASREC_DROP, {X}, {Y}, 0, 0},
    {&sh_sasrec_ffn_ops, "gelu", &sasrec_gelu, SASREC_DROP, {X}, {Y}, 0, 0},
    {&sh_sasrec_ffn_ops, "relu", &sasrec, SASREC_DROP, {X}, {Y}, 5e-4, 2e-2},
};
enum { CASES = sizeof cases / sizeof *cases };

/* ---- finite differences ---- */

static float *copy_of(const float *x, int64_t n) {
  float *y = sh_malloc(sizeof(float) * (size_t)(n + 1));
  return memcpy(y, x, sizeof(float) * (size_t)n);
}

static int check_differences(const layer_case *l, bool dropout) {
  bench b;
  sh_layer_bench_open(&b, l, dropout, &sh_kernels_ref, 0, 1);
  sh_gradcheck g = {.f = sh_layer_bench_projection,
                    .arg = &b,
                    .samples = 8,
                    .step = l->step > 0 ? l->step : 2e-2,
                    .tolerance = l->tolerance > 0 ? l->tolerance : 4e-4};
  sh_layer_bench_run(&b);
  float *dparams = copy_of(b.params.grad, b.params.block), *drows = copy_of(b.rows.grad, ITEMS * ROW_LD);
  for (int s = 0; s < b.nin; s++) {
    char name[16];
    snprintf(name, sizeof name, "in[%d]", s);
    if (!b.moved[s]) {
      sh_gradcheck_array(&g, name, b.in[s], T * b.win[s], b.a.din[s]);
    } else { /* doubles, moved as floats */
      float grad[2 * T];
      for (int i = 0; i < 2 * T; i++) grad[i] = (float)((const double *)(const void *)b.a.din[s])[i];
      sh_gradcheck_array(&g, name, b.moved[s], 2 * T, grad);
    }
  }
  for (int i = 0; i < b.params.n; i++)
    sh_gradcheck_array(&g, b.params.row[i].name, sh_param_value(&b.params, i), b.params.row[i].size,
                       dparams + b.params.row[i].offset);
  bool reads_rows = b.nin == 0;
  for (int i = 0; i < ITEMS && reads_rows; i += 5)
    sh_gradcheck_array(&g, "rows", b.row_value + i * ROW_LD, D, drows + i * ROW_LD);
  printf("  %-28s dropout %-3s worst %s\n", sh_layer_case_name(l), dropout ? "on" : "off", g.where);
  free(dparams), free(drows);
  sh_layer_bench_close(&b);
  return g.failed;
}

static void finite_differences(void **state) {
  (void)state;
  int failed = 0;
  for (int i = 0; i < CASES; i++)
    for (int dropout = 0; dropout < 2; dropout++) failed += check_differences(&cases[i], dropout);
  assert_int_equal(failed, 0);
}

static void every_layer_has_a_case(void **state) {
  (void)state;
  static const sh_layer_ops *const all[] = {
#define LAYER(symbol) &symbol,
#include "nn/layers.def"
#undef LAYER
  };
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
    bool found = false;
    for (int i = 0; i < CASES; i++) found |= cases[i].ops == all[k];
    if (!found) fail_msg("layer %s of nn/layers.def has no case in tests/unit/test_layers.c", all[k]->name);
  }
}

/* ---- one run against another ---- */

static void fast_kernels(void **state) {
  (void)state;
  const char *names[8];
  int tables = sh_kernels_available(names), failed = 0;
  for (int i = 0; i < CASES; i++) {
    bench want, got;
    sh_layer_bench_open(&want, &cases[i], true, &sh_kernels_ref, 0, 1);
    sh_layer_bench_run(&want);
    for (int k = 1; k < tables; k++) {
      sh_layer_bench_open(&got, &cases[i], true, sh_kernels_named(names[k]), 0, 1);
      sh_layer_bench_run(&got);
      failed += sh_layer_bench_compare(names[k], &got, &want, 1e-4);
      sh_layer_bench_close(&got);
    }
    sh_layer_bench_close(&want);
  }
  assert_int_equal(failed, 0);
}

/* Operands have 8 significant bits: forward and gradients agree with fp32 to two per cent (a ReLU may switch). */
static void bf16(void **state) {
  (void)state;
  int failed = 0;
  for (int i = 0; i < CASES; i++) {
    bench want, got;
    sh_kernels room;
    const sh_kernels *tables[2] = {sh_kernels_bf16(), sh_kernels_emulate_bf16(sh_kernels_best(), &room)};
    sh_layer_bench_open(&want, &cases[i], true, &sh_kernels_ref, 0, 1);
    sh_layer_bench_run(&want);
    for (int k = 0; k < 2; k++) {
      sh_layer_bench_open(&got, &cases[i], true, tables[k], 0, 1);
      sh_layer_bench_run(&got);
      failed += sh_layer_bench_compare(tables[k]->precision, &got, &want, 2e-2);
      sh_layer_bench_close(&got);
    }
    sh_layer_bench_close(&want);
  }
  assert_int_equal(failed, 0);
}

static void any_number_of_threads(void **state) {
  (void)state;
  int before = omp_get_max_threads(), failed = 0;
  const sh_kernels *tables[3] = {sh_kernels_best(), &sh_kernels_ref, sh_kernels_bf16()};
  for (int i = 0; i < CASES; i++)
    for (int k = 0; k < 3; k++) {
      bench want, got;
      omp_set_num_threads(1);
      sh_layer_bench_open(&want, &cases[i], true, tables[k], 0, 1);
      sh_layer_bench_run(&want);
      for (int threads = 2; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        sh_layer_bench_open(&got, &cases[i], true, tables[k], 0, 1);
        sh_layer_bench_run(&got);
        array x[SH_BENCH_ARRAYS], y[SH_BENCH_ARRAYS];
        int n = sh_layer_bench_arrays(&got, x);
        sh_layer_bench_arrays(&want, y);
        for (int m = 0; m < n; m++) {
          if (!memcmp(x[m].at, y[m].at, sizeof(float) * (size_t)x[m].n)) continue;
          fprintf(stderr, "  %s: %s: %s differs with %d threads\n", tables[k]->name, sh_layer_case_name(&cases[i]),
                  x[m].name, threads);
          failed++;
        }
        sh_layer_bench_close(&got);
      }
      sh_layer_bench_close(&want);
    }
  omp_set_num_threads(before);
  assert_int_equal(failed, 0);
}

/* ---- adding to gradients ---- */

static int check_adding(const layer_case *l) {
  bench want, got;
  array x[SH_BENCH_ARRAYS], y[SH_BENCH_ARRAYS];
  int failed = 0;
  sh_layer_bench_open(&want, l, true, &sh_kernels_ref, 0, 1);
  sh_layer_bench_open(&got, l, true, &sh_kernels_ref, 0, 1);
  sh_layer_bench_run(&want);
  int n = sh_layer_bench_arrays(&got, x);
  sh_layer_bench_arrays(&want, y);
  got.layer.ops->forward(&got.layer, &got.c, &got.a);
  for (int s = 0; s < got.nin; s++) got.a.add[s] = !l->in[s].only;
  for (int i = got.nout; i < n; i++) sh_make_normal(x[i].at, x[i].n, 1, 500 + (uint32_t)i);
  got.layer.ops->backward(&got.layer, &got.c, &got.a);
  for (int i = got.nout; i < n; i++) {
    bool overwritten = i < got.nout + got.nin && l->in[i - got.nout].only;
    float *sum = copy_of(y[i].at, y[i].n), *start = sh_malloc(sizeof(float) * (size_t)(y[i].n + 1));
    sh_make_normal(start, y[i].n, 1, 500 + (uint32_t)i);
    for (int64_t k = 0; k < y[i].n && !overwritten; k++) sum[k] += start[k];
    failed += sh_layer_differs("add", l, &x[i], sum, 1e-6);
    free(sum), free(start);
  }
  sh_layer_bench_close(&got);
  sh_layer_bench_close(&want);
  return failed;
}

/* Nobody needs the gradient of an input: those of parameters stay the same. */
static int check_leaving_out(const layer_case *l) {
  bench want, got;
  sh_layer_bench_open(&want, l, true, &sh_kernels_ref, 0, 1);
  sh_layer_bench_open(&got, l, true, &sh_kernels_ref, 0, 1);
  sh_layer_bench_run(&want);
  for (int s = 0; s < got.nin; s++)
    if (!l->in[s].only) got.a.din[s] = NULL;
  sh_layer_bench_run(&got);
  int same = !memcmp(got.params.grad, want.params.grad, sizeof(float) * (size_t)got.params.block);
  if (!same) fprintf(stderr, "  %s: gradients of parameters depend on din\n", sh_layer_case_name(l));
  sh_layer_bench_close(&got);
  sh_layer_bench_close(&want);
  return !same;
}

static void adding(void **state) {
  (void)state;
  int failed = 0;
  for (int i = 0; i < CASES; i++) failed += check_adding(&cases[i]) + check_leaving_out(&cases[i]);
  assert_int_equal(failed, 0);
}

/* ---- inference ---- */

/* Rows of the last tokens, [B x width]. */
static void last_rows(const bench *b, const float *x, int width, float *out) {
  for (int s = 0; s < B; s++)
    memcpy(out + s * width, x + (b->batch.offsets[s + 1] - 1) * (int64_t)width, sizeof(float) * (size_t)width);
}

/* Inference has no dropout; its last rows are those of all rows. `narrow`: the inputs have last rows only already. */
static int check_last_only(const layer_case *l, const sh_kernels *k, bool narrow, double tolerance) {
  bench want, got;
  _Alignas(16) float rows[B * (C3 + D)];
  int32_t last[B];
  int failed = 0;
  sh_layer_bench_open(&want, l, false, k, 0, 1);
  want.c.train = false, want.a.tape = NULL;
  want.layer.ops->forward(&want.layer, &want.c, &want.a);
  sh_layer_bench_open(&got, l, true, k, 0, 1);
  got.c.train = false, got.a.tape = NULL, got.a.R = B;
  for (int s = 0; s < B; s++) last[s] = got.batch.offsets[s + 1] - 1;
  if (narrow)
    got.a.T = B;
  else
    got.a.row_token = last;
  for (int s = narrow ? 0 : 1; s < got.nin; s++) last_rows(&want, want.in[s], want.win[s], got.in[s]);
  got.layer.ops->forward(&got.layer, &got.c, &got.a);
  for (int s = 0; s < got.nout; s++) {
    array out = {.at = got.a.out[s], .n = B * want.wout[s], .wide = sh_slot_wide(&l->out[s])};
    snprintf(out.name, sizeof out.name, "out[%d]", s);
    last_rows(&want, want.a.out[s], want.wout[s], rows);
    failed += sh_layer_differs(narrow ? "narrow rows" : "last rows", l, &out, rows, tolerance);
  }
  sh_layer_bench_close(&got);
  sh_layer_bench_close(&want);
  return failed;
}

static void last_only(void **state) {
  (void)state;
  int failed = 0;
  const sh_kernels *tables[3] = {sh_kernels_best(), &sh_kernels_ref, sh_kernels_bf16()};
  for (int i = 0; i < CASES; i++)
    for (int k = 0; k < 3 && cases[i].ops->supports_last_only; k++) {
      /* A block's first call sees all tokens and a list of rows, what follows sees those rows alone; its second half
       * reads x through the list and the rest as it is. Precision bf16 takes HSTU's last query in fp32, so it is only
       * near what all queries give. */
      bool first =
          sh_slot_count(cases[i].in) > 1 || sh_slot_count(cases[i].out) > 1 || strstr(cases[i].ops->name, "attention");
      failed += check_last_only(&cases[i], tables[k], !first, k < 2 ? 2e-6 : 2e-2);
    }
  assert_int_equal(failed, 0);
}

/* ---- parts of the tensor axis ---- */

static void cut(const float *x, int width, int from, int count, float *out) {
  for (int64_t t = 0; t < T; t++) memcpy(out + t * count, x + t * width + from, sizeof(float) * (size_t)count);
}

static void open_part(bench *p, const bench *whole, int part, int parts) {
  sh_layer_bench_open(p, whole->l, true, whole->c.k, part, parts);
  for (int s = 0; s < p->nin; s++)
    cut(whole->in[s], whole->win[s], whole->l->in[s].split ? part * p->win[s] : 0, p->win[s], p->in[s]);
  for (int s = 0; s < p->nout; s++)
    cut(whole->dout[s], whole->wout[s], whole->l->out[s].split ? part * p->wout[s] : 0, p->wout[s], p->dout[s]);
  int64_t first = sh_deal_first(T, part, parts); /* own rows come first */
  for (int s = 0; s < p->nout; s++)
    if (whole->l->out[s].sliced) p->a.dout[s] = p->dout[s] + first * p->wout[s];
  p->rows.slot += first;
  for (int i = 0; i < p->params.n; i++)
    whole_take(&p->params, i, sh_param_value(&whole->params, i), sh_param_value(&p->params, i));
}

/* Put a part's columns of a slot into the whole one's, or add its share. */
static void join(const sh_slot_case *s, const float *x, int width, int part, int parts, float *all) {
  if (s->sliced) {
    int64_t first = sh_deal_first(T, part, parts), own = sh_deal_first(T, part + 1, parts) - first;
    for (int64_t i = 0; i < own * width; i++) all[first * width + i] += x[i];
    return;
  }
  if (sh_slot_wide(s)) {
    for (int64_t i = 0; i < T * width / 2; i++) ((double *)(void *)all)[i] += ((const double *)(const void *)x)[i];
    return;
  }
  for (int64_t t = 0; t < T; t++)
    for (int k = 0; k < width; k++) all[t * s->width + (s->split ? part * width : 0) + k] += x[t * width + k];
}

static int check_parts(const layer_case *l, int parts, const sh_kernels *k) {
  bench whole, sum, p;
  int failed = 0;
  sh_layer_bench_open(&whole, l, true, k, 0, 1);
  sh_layer_bench_run(&whole);
  sh_layer_bench_open(&sum, l, true, k, 0, 1);
  array x[SH_BENCH_ARRAYS];
  int n = sh_layer_bench_arrays(&sum, x);
  for (int i = 0; i < n; i++) memset(x[i].at, 0, sizeof(float) * (size_t)x[i].n);
  for (int part = 0; part < parts; part++) {
    open_part(&p, &whole, part, parts);
    sh_layer_bench_run(&p);
    for (int s = 0; s < p.nout; s++) join(&l->out[s], p.a.out[s], p.wout[s], part, parts, sum.a.out[s]);
    for (int s = 0; s < p.nin; s++) join(&l->in[s], p.a.din[s], p.win[s], part, parts, sum.a.din[s]);
    for (int i = 0; i < p.params.n; i++) {
      const sh_param *row = &p.params.row[i];
      array part_grad = {.at = sh_param_grad(&p.params, i), .n = row->size};
      memcpy(part_grad.name, row->name, sizeof row->name);
      bool same = row->tgrad == SH_TGRAD_SAME; /* every part has all of it */
      if (same) failed += sh_layer_differs("parts", l, &part_grad, sh_param_grad(&whole.params, i), 1e-6);
      if (!same || part == 0) whole_add(&p.params, i, part_grad.at, sh_param_grad(&sum.params, i));
    }
    sh_layer_bench_close(&p);
  }
  failed += sh_layer_bench_compare(parts == 2 ? "2 parts" : "3 parts", &sum, &whole, 5e-6);
  sh_layer_bench_close(&sum);
  sh_layer_bench_close(&whole);
  return failed;
}

/* Parts are of layers between the tensor axis' communication; the input layer is not dealt. */
static void parts_of_the_tensor_axis(void **state) {
  (void)state;
  int failed = 0;
  for (int i = 0; i < CASES; i++)
    for (int parts = 2; parts <= 3 && cases[i].in[0].width; parts++)
      failed += check_parts(&cases[i], parts, &sh_kernels_ref) + check_parts(&cases[i], parts, sh_kernels_best());
  assert_int_equal(failed, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_layer_has_a_case),
      cmocka_unit_test(finite_differences),
      cmocka_unit_test(fast_kernels),
      cmocka_unit_test(bf16),
      cmocka_unit_test(any_number_of_threads),
      cmocka_unit_test(adding),
      cmocka_unit_test(last_only),
      cmocka_unit_test(parts_of_the_tensor_axis),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
