/* The layers of a FuXi block, fuxi_in -> fuxi_out -> ffn_swiglu: against finite differences with dropout, dealt to two
 * parts (whose sums are taken here), with any number of threads, and for last tokens only. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>

#include "core/arena.h"
#include "data/time_runs.h"
#include "nn/fuxi.h"
#include "support/close.h"
#include "support/make_batch.h"
#include "support/whole.h"

enum { IN, OUT, FFN, CALLS, MOST_PARTS = 2, D = 6, SEQUENCES = 5 };
static const int32_t offsets[SEQUENCES + 1] = {0, 5, 5, 6, 15, 17}; /* one is empty */
enum { T = 17 };

typedef struct part {
  sh_params params;
  sh_layer layer[CALLS];
  float *u, *c, *stats, *tape[CALLS], *du, *dc, *dstats; /* local slots */
} part;

typedef struct block {
  int parts, width;
  sh_fuxi_conf conf;
  sh_swiglu_conf ffn;
  part part[MOST_PARTS];
  sh_batch batch;
  sh_arena step, scratch;
  const sh_kernels *k;
  bool train;
  float x[T * D], dx[T * D], o[T * D], dob[T * D], out[T * D], dout[T * D];
} block;

static void block_batch(block *b) {
  static const int64_t sample[SEQUENCES] = {7, 8, 9, 1000, 3};
  int64_t *time = SH_ARENA_NEW(&b->step, int64_t, T), *next = SH_ARENA_NEW(&b->step, int64_t, T);
  int32_t *position = SH_ARENA_NEW(&b->step, int32_t, T), *sequence = SH_ARENA_NEW(&b->step, int32_t, T);
  for (int s = 0; s < SEQUENCES; s++)
    for (int t = offsets[s]; t < offsets[s + 1]; t++) {
      position[t] = t - offsets[s], sequence[t] = s;
      time[t] = t * t / 3;
      next[t] = t + 1 < offsets[s + 1] ? (t + 1) * (t + 1) / 3 : time[t] + 9;
    }
  b->batch = (sh_batch){.B = SEQUENCES,
                        .T = T,
                        .offsets = offsets,
                        .sample = sample,
                        .time = time,
                        .next_time = next,
                        .position = position,
                        .sequence = sequence};
  sh_time_runs_build(&b->batch, &b->step);
}

/* Every parameter large enough to matter, the same on any number of parts. */
static void block_params(block *b, part *p, int index) {
  const sh_layer_ops *ops[CALLS] = {&sh_fuxi_in_ops, &sh_fuxi_out_ops, &sh_ffn_swiglu_ops};
  sh_params_create(&p->params, index, b->parts);
  for (int i = 0; i < CALLS; i++) {
    p->layer[i] =
        (sh_layer){.ops = ops[i], .name = "block.0", .site = (uint32_t)i + 1, .part = index, .parts = b->parts};
    p->layer[i].conf = i == FFN ? (const void *)&b->ffn : &b->conf;
    ops[i]->params(&p->layer[i], &p->params);
  }
  assert_int_equal(sh_params_finish(&p->params), SH_OK);
  sh_params_init(&p->params, 5);
  for (int r = 0; r < p->params.n; r++)
    for (int64_t e = 0; e < p->params.row[r].size && p->params.row[r].init.kind == SH_INIT_NORMAL; e++)
      sh_param_value(&p->params, r)[e] *= 25;
}

static void block_make(block *b, int parts, int channels, int function, bool timed) {
  *b = (block){.parts = parts, .k = &sh_kernels_ref, .train = true};
  b->conf = (sh_fuxi_conf){.channels = channels,
                           .D = D,
                           .H = 2,
                           .dqk = 4,
                           .dv = 3,
                           .N = 12,
                           .eps = 1e-6f,
                           .dropout = 0.3,
                           .time_bias = timed,
                           .time_function = function};
  b->ffn = (sh_swiglu_conf){.D = D, .F = 8, .eps = 1e-6f, .dropout = 0.3};
  b->width = channels * 2 * 3 / parts;
  sh_arena_init(&b->step, "step"), sh_arena_init(&b->scratch, "scratch");
  block_batch(b);
  float *x = sh_new_normal(T * D, 1, 40), *dout = sh_new_normal(T * D, 1, 41);
  memcpy(b->x, x, sizeof b->x), memcpy(b->dout, dout, sizeof b->dout);
  free(x), free(dout);
  for (int i = 0; i < parts; i++) {
    part *p = &b->part[i];
    block_params(b, p, i);
    float **wide[] = {&p->u, &p->c, &p->du, &p->dc};
    for (int w = 0; w < 4; w++) *wide[w] = SH_ARENA_NEW(&b->step, float, T * b->width);
    p->stats = SH_ARENA_NEW(&b->step, float, T), p->dstats = SH_ARENA_NEW(&b->step, float, T);
    for (int k = 0; k < CALLS; k++)
      p->tape[k] = SH_ARENA_NEW(&b->step, float, p->layer[k].ops->tape(&p->layer[k], T, SEQUENCES));
  }
}

static void block_free(block *b) {
  for (int i = 0; i < b->parts; i++) sh_params_destroy(&b->part[i].params);
  sh_arena_free(&b->step), sh_arena_free(&b->scratch);
}

static sh_ctx context(block *b, int i) {
  return (sh_ctx){.batch = &b->batch,
                  .params = &b->part[i].params,
                  .scratch = &b->scratch,
                  .train = b->train,
                  .k = b->k,
                  .seed = 3,
                  .when = 17};
}

/* x[n] of all parts becomes their sum. */
static void sum_parts(block *b, int64_t n, float *x[MOST_PARTS]) {
  for (int64_t k = 0; k < n && b->parts > 1; k++) x[0][k] = x[1][k] = x[0][k] + x[1][k];
}

/* With `row_token`, R rows of last tokens. */
static void block_forward(block *b, int64_t R, const int32_t *row_token) {
  float o[MOST_PARTS][T * D], out[MOST_PARTS][T * D];
  for (int i = 0; i < b->parts; i++) {
    part *p = &b->part[i];
    sh_ctx c = context(b, i);
    sh_args a = {.T = T,
                 .R = R,
                 .row_token = row_token,
                 .in = {b->x},
                 .out = {p->u, p->c, p->stats},
                 .tape = b->train ? p->tape[IN] : NULL};
    sh_fuxi_in_ops.forward(&p->layer[IN], &c, &a);
  }
  sum_parts(b, R, (float *[]){b->part[0].stats, b->part[1].stats});
  for (int i = 0; i < b->parts; i++) {
    part *p = &b->part[i];
    sh_ctx c = context(b, i);
    sh_args a = {.T = T,
                 .R = R,
                 .row_token = row_token,
                 .in = {b->x, p->u, p->c, p->stats},
                 .out = {o[i]},
                 .tape = b->train ? p->tape[OUT] : NULL};
    sh_fuxi_out_ops.forward(&p->layer[OUT], &c, &a);
  }
  sum_parts(b, R * D, (float *[]){o[0], o[1]});
  for (int i = 0; i < b->parts; i++) {
    sh_ctx c = context(b, i);
    sh_args a = {.T = R, .R = R, .in = {o[0]}, .out = {out[i]}, .tape = b->train ? b->part[i].tape[FFN] : NULL};
    sh_ffn_swiglu_ops.forward(&b->part[i].layer[FFN], &c, &a);
  }
  sum_parts(b, R * D, (float *[]){out[0], out[1]});
  memcpy(b->o, o[0], sizeof b->o), memcpy(b->out, out[0], sizeof b->out);
}

static void block_backward(block *b) {
  float dob[MOST_PARTS][T * D], dx[MOST_PARTS][T * D];
  for (int i = 0; i < b->parts; i++) {
    sh_ctx c = context(b, i);
    sh_args a = {.T = T,
                 .R = T,
                 .in = {b->o},
                 .out = {b->out},
                 .dout = {b->dout},
                 .din = {dob[i]},
                 .tape = b->part[i].tape[FFN]};
    memset(b->part[i].params.grad, 0, sizeof(float) * (size_t)b->part[i].params.block);
    sh_ffn_swiglu_ops.backward(&b->part[i].layer[FFN], &c, &a);
  }
  sum_parts(b, T * D, (float *[]){dob[0], dob[1]});
  for (int i = 0; i < b->parts; i++) {
    part *p = &b->part[i];
    sh_ctx c = context(b, i);
    sh_args a = {.T = T,
                 .R = T,
                 .in = {b->x, p->u, p->c, p->stats},
                 .out = {b->o},
                 .dout = {dob[0]},
                 .din = {dx[i], p->du, p->dc, p->dstats},
                 .tape = p->tape[OUT]};
    sh_fuxi_out_ops.backward(&p->layer[OUT], &c, &a);
  }
  sum_parts(b, T, (float *[]){b->part[0].dstats, b->part[1].dstats});
  for (int i = 0; i < b->parts; i++) {
    part *p = &b->part[i];
    sh_ctx c = context(b, i);
    sh_args a = {.T = T,
                 .R = T,
                 .in = {b->x},
                 .out = {p->u, p->c, p->stats},
                 .dout = {p->du, p->dc, p->dstats},
                 .din = {dx[i]},
                 .add = {true},
                 .tape = p->tape[IN]};
    sh_fuxi_in_ops.backward(&p->layer[IN], &c, &a);
  }
  sum_parts(b, T * D, (float *[]){dx[0], dx[1]});
  memcpy(b->dx, dx[0], sizeof b->dx);
}

static void block_slope(block *b, float *x, float slope, const char *what) {
  const float keep = *x, step = 4e-3f;
  double value[2], at[2];
  for (int s = 0; s < 2; s++) {
    *x = keep + (s ? step : -step);
    at[s] = (double)*x, value[s] = 0;
    block_forward(b, T, NULL);
    for (int e = 0; e < T * D; e++) value[s] += (double)b->out[e] * (double)b->dout[e];
  }
  *x = keep;
  double seen = (value[1] - value[0]) / (at[1] - at[0]);
  if (!(fabs(seen - (double)slope) <= 3e-3 * (1 + fabs(seen))))
    fail_msg("channels %d, function %d, %s: gradient %g, difference quotient %g", b->conf.channels,
             b->conf.time_function, what, (double)slope, seen);
}

static void layer_gradients(void **state) {
  (void)state;
  for (int kind = 0; kind < 5; kind++) { /* alpha, without time, beta pow, exp, without time */
    block b;
    block_make(&b, 1, kind < 2 ? SH_FUXI_ALPHA : SH_FUXI_BETA, kind == 3, kind != 1 && kind != 4);
    block_forward(&b, T, NULL);
    block_backward(&b);
    for (int e = 0; e < T * D; e++) block_slope(&b, &b.x[e], b.dx[e], "x");
    sh_params *p = &b.part[0].params;
    for (int r = 0; r < p->n; r++)
      for (int64_t e = 0; e < p->row[r].size; e++)
        block_slope(&b, sh_param_value(p, r) + e, sh_param_grad(p, r)[e], p->row[r].name);
    block_free(&b);
  }
}

static void near(const float *x, const float *y, int64_t n, double tolerance, const char *what) {
  double error = sh_close_floats(n, x, y, 1e-30);
  if (!(error <= tolerance)) fail_msg("%s: off by %g of the largest entry", what, error);
}

/* The whole gradient of a parameter from its parts. */
static void whole_gradient(const block *b, int r, float *whole) {
  const sh_param *row = &b->part[0].params.row[r];
  memset(whole, 0, sizeof(float) * (size_t)(row->dim[0] * row->dim[1]));
  for (int i = 0; i < b->parts; i++) {
    const sh_params *p = &b->part[i].params;
    if (row->tgrad != SH_TGRAD_SAME || i == 0) whole_add(p, r, sh_param_grad(p, r), whole);
  }
}

static void layers_dealt_to_parts(void **state) {
  (void)state;
  static block one, two;
  for (int channels = SH_FUXI_BETA; channels <= SH_FUXI_ALPHA; channels++) {
    block_make(&one, 1, channels, 0, true), block_make(&two, 2, channels, 0, true);
    block_forward(&one, T, NULL), block_forward(&two, T, NULL);
    near(two.out, one.out, T * D, 1e-5, "output of two parts");
    block_backward(&one), block_backward(&two);
    near(two.dx, one.dx, T * D, 1e-5, "input gradient of two parts");
    for (int r = 0; r < one.part[0].params.n; r++) {
      float whole[512];
      assert_true(one.part[0].params.row[r].size <= 512);
      whole_gradient(&two, r, whole);
      near(whole, sh_param_grad(&one.part[0].params, r), one.part[0].params.row[r].size, 1e-5,
           one.part[0].params.row[r].name);
    }
    block_free(&one), block_free(&two);
  }
}

static void layers_same_bits_any_threads(void **state) {
  (void)state;
  static block one, many;
  int threads = omp_get_max_threads();
  for (int channels = SH_FUXI_BETA; channels <= SH_FUXI_ALPHA; channels++) {
    block_make(&one, 1, channels, 0, true), block_make(&many, 1, channels, 0, true);
    one.k = many.k = sh_kernels_best();
    omp_set_num_threads(1), block_forward(&one, T, NULL), block_backward(&one);
    omp_set_num_threads(3), block_forward(&many, T, NULL), block_backward(&many);
    assert_memory_equal(one.out, many.out, sizeof one.out);
    assert_memory_equal(one.dx, many.dx, sizeof one.dx);
    const sh_params *p = &one.part[0].params;
    assert_memory_equal(p->grad, many.part[0].params.grad, sizeof(float) * (size_t)p->block);
    block_free(&one), block_free(&many);
  }
  omp_set_num_threads(threads);
}

static void layers_last_only(void **state) {
  (void)state;
  static const int32_t last[] = {4, 5, 14, 16}, filled[] = {0, 5, 6, 15, 17};
  for (int channels = SH_FUXI_BETA; channels <= SH_FUXI_ALPHA; channels++) {
    block b;
    block_make(&b, 1, channels, 0, true);
    b.train = false; /* no dropout, no tape */
    b.k = sh_kernels_best();
    b.batch.B = 4, b.batch.offsets = filled; /* last-only sequences are not empty */
    block_forward(&b, T, NULL);
    float all[T * D];
    memcpy(all, b.out, sizeof all);
    block_forward(&b, 4, last);
    for (int r = 0; r < 4; r++) near(b.out + r * D, all + last[r] * D, D, 1e-5, "last token");
    block_free(&b);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(layer_gradients), cmocka_unit_test(layers_dealt_to_parts),
                                     cmocka_unit_test(layers_same_bits_any_threads),
                                     cmocka_unit_test(layers_last_only)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
