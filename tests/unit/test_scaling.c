/* The cost model of `shoal plan`: seconds that follow from a known machine by hand, and what must hold on any. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dist/build.h"
#include "tools/scaling_model.h"
#include "train/memory.h"

static const sh_machine machine = {.cores = 2,
                                   .gemm_one = 1e11,
                                   .gemm_all = 1e11,
                                   .memory_one = 1e10,
                                   .memory_all = 1e10,
                                   .near = {1e-6, 1e-7, 1e9, 1e-9},
                                   .far = {1e-4, 1e-5, 1e8, 1e-9}};

/* 1 s a 1000 tokens in layers and loss, nothing fixed; 0.1 s for dense parameters, 0.2 s for the table. */
static sh_work some_work(void) {
  sh_work w = {.threads = 1, .items = 1e6, .longest = 10, .busy = 1, .turns = 1};
  for (int k = 0; k < 2; k++) {
    double tokens = k ? 1000 : 4000, t = tokens / 1000;
    w.sample[k] = (sh_work_sample){.tokens = tokens, .users = tokens / 10, .inputs = tokens / 2, .rows = tokens};
    w.sample[k].seconds[SH_WORK_FORWARD] = .25 * t, w.sample[k].seconds[SH_WORK_LOSS] = .25 * t;
    w.sample[k].seconds[SH_WORK_BACKWARD] = .5 * t;
    w.sample[k].seconds[SH_WORK_DENSE] = .1, w.sample[k].seconds[SH_WORK_TABLE] = .2;
  }
  return w;
}

static sh_scaling_case some_case(double nodes, double per_node) {
  return (sh_scaling_case){.nodes = nodes,
                           .per_node = per_node,
                           .threads = 1,
                           .tensor = 1,
                           .tokens = 4000,
                           .users = 400,
                           .block = 1e6,
                           .block_alone = 1e6,
                           .buckets = 4,
                           .last_bucket = 1e5,
                           .width = 64};
}

static void close_to(double x, double y) {
  if (fabs(x - y) > 1e-9 * fabs(y)) fail_msg("%.12g is not %.12g", x, y);
}

static void test_one_rank(void **state) {
  (void)state;
  sh_work w = some_work();
  sh_scaling_case c = some_case(1, 1);
  sh_prediction p = sh_scaling_predict(&machine, &w, &c);
  close_to(p.step, 4.3);
  close_to(p.compute, 4.3);
  close_to(p.efficiency, 1);
  close_to(p.tokens_per_second, 4000 / 4.3);
  assert_string_equal(p.limit, "compute");
  for (int k = 0; k < SH_KINDS; k++) close_to(p.kind[k].bytes + 1, 1);
}

/* Two nodes, none hidden: every second by hand. */
static void test_two_nodes(void **state) {
  (void)state;
  sh_work w = some_work();
  sh_scaling_case c = some_case(2, 1);
  sh_prediction p = sh_scaling_predict(&machine, &w, &c);
  close_to(p.compute, 2 + .1 + .1); /* half the tokens, dense parameters whole, half the table */
  double bytes = 8 * 1e6 / 2;       /* 8 N (P - 1) / P */
  close_to(p.kind[SH_KIND_DENSE].bytes, bytes);
  /* parts: 4 buckets x 2; messages likewise */
  close_to(p.kind[SH_KIND_DENSE].exposed, 8 * 1e-4 + 8 * 1e-5 + bytes / 1e8);
  double rows = 2000 * 4 * 64 / 2;
  close_to(p.kind[SH_KIND_ROWS].bytes, rows);
  close_to(p.kind[SH_KIND_ROW_GRADS].bytes, rows);
  close_to(p.kind[SH_KIND_ROWS].exposed, 2 * (1e-4 + 1e-5) + rows / 1e8);
  close_to(p.kind[SH_KIND_IDS].bytes, 8 * 2000 / 2);
  double sum = p.compute;
  for (int k = 0; k < SH_KINDS; k++) sum += p.kind[k].exposed;
  close_to(p.step, sum);
  c.half = true;
  close_to(sh_scaling_predict(&machine, &w, &c).kind[SH_KIND_DENSE].bytes, bytes / 2);
  c.zero = true;
  close_to(sh_scaling_predict(&machine, &w, &c).kind[SH_KIND_DENSE].bytes, bytes * 3 / 4);
}

/* What somebody moves meanwhile hides behind layers but for the core's part of it; nothing is lost. */
static void test_hidden(void **state) {
  (void)state;
  sh_work w = some_work();
  sh_scaling_case c = some_case(2, 1);
  sh_prediction none = sh_scaling_predict(&machine, &w, &c);
  c.overlap = true;
  sh_prediction p = sh_scaling_predict(&machine, &w, &c);
  assert_true(p.step < none.step);
  for (int k = 0; k < SH_KINDS; k++) close_to(1 + p.kind[k].exposed + p.kind[k].hidden, 1 + none.kind[k].exposed);
  double tail = .1; /* of the parameters, when backward is over */
  close_to(p.kind[SH_KIND_DENSE].hidden, (1 - tail) * 4e6 * (1 / 1e8 - 1e-9) + 6 * 1e-4 - .9 * 8e6 / 1e10);
}

/* Four ranks on two cores take turns; on one node bytes stay inside. */
static void test_shared_cores(void **state) {
  (void)state;
  sh_work w = some_work();
  sh_scaling_case c = some_case(1, 4);
  w.busy = 1.5;
  sh_prediction p = sh_scaling_predict(&machine, &w, &c);
  close_to(p.compute, 2 * 1.5 * (1 + .1 + .05));
  close_to(p.kind[SH_KIND_DENSE].bytes, 8e6 * 3 / 4);
  assert_true(p.kind[SH_KIND_DENSE].exposed < .05); /* not over the slow link */
  w.turns = 1.1;
  close_to(sh_scaling_predict(&machine, &w, &c).compute, 1.1 * p.compute);
  c.per_node = 2;
  w.turns = 1;
  p = sh_scaling_predict(&machine, &w, &c);
  w.turns = 1.1; /* two ranks have a core each */
  close_to(sh_scaling_predict(&machine, &w, &c).step, p.step);
}

/* A node sends over its link what one rank would, however many ranks it has. */
static void test_two_levels(void **state) {
  (void)state;
  sh_work w = some_work();
  sh_scaling_case c = some_case(2, 2);
  sh_prediction p = sh_scaling_predict(&machine, &w, &c);
  close_to(p.kind[SH_KIND_DENSE].bytes, 8e6 / 2 + 8e6 / 2 / 2); /* inside; half of it to the other node */
  c.tensor = 2, c.tensor_floats = 100, c.tensor_calls = 10;
  p = sh_scaling_predict(&machine, &w, &c);
  close_to(p.kind[SH_KIND_TENSOR].bytes, 4 * 100 * 2000);
}

static void test_efficiency(void **state) {
  (void)state;
  sh_work w = some_work();
  w.sample[1].seconds[SH_WORK_LOSS] = .4; /* something fixed */
  w.sample[1].rows = 2000;                /* rows that tokens share */
  for (double nodes = 1; nodes <= 64; nodes *= 2)
    for (double ranks = 1; ranks <= 4; ranks *= 2)
      for (int weak = 0; weak < 2; weak++)
        for (int bits = 0; bits < 8; bits++) {
          sh_scaling_case c = some_case(nodes, ranks);
          c.overlap = bits & 1, c.zero = bits & 2, c.sweep = bits & 4;
          if (weak) c.tokens *= nodes * ranks;
          sh_prediction p = sh_scaling_predict(&machine, &w, &c);
          assert_true(p.efficiency <= 1 + 1e-12 && p.efficiency > 0);
          for (int k = 0; k < SH_KINDS; k++) assert_true(p.kind[k].exposed >= 0 && p.kind[k].hidden >= 0);
        }
}

static void test_share(void **state) {
  (void)state;
  sh_work w = some_work();
  close_to(sh_scaling_share(&w, 4000, 4), 1000);
  close_to(sh_scaling_share(&w, 4000, 1000), 10); /* a sequence is never cut */
}

/* With ZeRO-1 a rank of more nodes never needs more, the batch being the same. */
static void test_memory(void **state) {
  (void)state;
  sh_config conf;
  sh_config_defaults(&conf);
  conf.parallel.zero = 1;
  sh_model m;
  assert_int_equal(sh_model_create(&m, &conf.model, NULL, true), SH_OK);
  sh_arena scratch;
  sh_arena_init(&scratch, "test");
  int64_t before = INT64_MAX;
  for (int ranks = 1; ranks <= 64; ranks *= 2) {
    sh_memory_shape s = {.tokens = 12800 / ranks,
                         .sequences = 128 / ranks,
                         .longest = 100,
                         .micro = 1,
                         .items = 4000,
                         .ranks = ranks,
                         .tensor = 1,
                         .threads = 1};
    sh_memory need = sh_memory_predict(&conf, &m, &s, &scratch);
    int64_t total = sh_memory_total(&need) - (ranks > 1 ? need.merged / 3 : 0); /* rows come from others now */
    assert_true(total <= before);
    before = total;
  }
  sh_arena_free(&scratch);
  sh_model_destroy(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_rank),     cmocka_unit_test(test_two_nodes),  cmocka_unit_test(test_hidden),
      cmocka_unit_test(test_shared_cores), cmocka_unit_test(test_two_levels), cmocka_unit_test(test_efficiency),
      cmocka_unit_test(test_share),        cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
