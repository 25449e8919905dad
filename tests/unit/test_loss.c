/* The losses against their formulas in double, finite differences, each other, and any number of threads. */
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

#include "dist/loss_full.h"
#include "dist/table_internal.h"
#include "nn/loss.h"
#include "support/gradcheck.h"
#include "support/make_batch.h"

enum { D = 13, LD = 16 };

typedef enum kind { SAMPLED, SHARED } kind;

/* One call of a loss with its arrays. `rows_at`, `hidden` may be moved by finite differences. */
typedef struct problem {
  kind kind;
  sh_conf_loss conf;
  sh_arena mem, scratch;
  sh_rows rows;
  float *rows_at, *hidden;
  int32_t *reference, *negative;
  float *correction, *positive_correction;
  sh_ctx c;
  sh_loss_args a;
} problem;

static void open_problem(problem *p, kind what, int64_t T, int64_t U, int64_t R, bool l2_norm, bool corrected) {
  sh_config conf;
  sh_config_defaults(&conf);
  *p = (problem){.kind = what, .conf = conf.loss};
  sh_arena_init(&p->mem, "test");
  sh_arena_init(&p->scratch, "scratch");
  p->conf.l2_norm = l2_norm;
  p->conf.l2_eps = 1.2; /* some rows are shorter */
  p->conf.temperature = 0.25;
  p->rows_at = SH_ARENA_ZNEW(&p->mem, float, U *LD);
  for (int64_t u = 0; u < U; u++) sh_make_normal(p->rows_at + u * LD, D, 0.2f + 0.4f * (float)(u % 3), (uint32_t)u);
  p->hidden = SH_ARENA_NEW(&p->mem, float, T *D);
  sh_make_normal(p->hidden, T * D, 0.6f, 70000);
  int64_t n = what == SAMPLED ? R + 1 : 1;
  p->reference = SH_ARENA_NEW(&p->mem, int32_t, T * n);
  p->negative = SH_ARENA_NEW(&p->mem, int32_t, R);
  for (int64_t i = 0; i < T * n; i++) p->reference[i] = (int32_t)(sh_make_bits(1, i) % (uint64_t)U);
  for (int64_t r = 0; r < R; r++) p->negative[r] = (int32_t)(sh_make_bits(2, r) % (uint64_t)U);
  p->correction = SH_ARENA_NEW(&p->mem, float, R);
  p->positive_correction = SH_ARENA_NEW(&p->mem, float, T);
  sh_make_normal(p->correction, R, 1, 70001); /* even of equal negatives: allowed, if odd */
  sh_make_normal(p->positive_correction, T, 1, 70002);
  p->rows = (sh_rows){.ld = LD, .nslots = U, .value = p->rows_at, .grad = SH_ARENA_ZNEW(&p->mem, float, U *LD)};
  p->c = (sh_ctx){.rows = &p->rows, .scratch = &p->scratch, .k = &sh_kernels_ref};
  p->a = (sh_loss_args){.conf = &p->conf,
                        .T = T,
                        .D = D,
                        .hidden = p->hidden,
                        .dhidden = SH_ARENA_NEW(&p->mem, float, T *D),
                        .rows = &p->rows,
                        .reference = p->reference,
                        .R = R,
                        .scale = 0.01};
  if (what == SHARED) p->a.negative = p->negative;
  if (corrected) p->a.correction = p->correction, p->a.positive_correction = p->positive_correction;
}

static void close_problem(problem *p) {
  sh_arena_free(&p->mem);
  sh_arena_free(&p->scratch);
}

static double loss_of(problem *p, const sh_loss_args *a) {
  return p->kind == SAMPLED ? sh_loss_sampled(a, &p->c) : sh_loss_shared(a, &p->c);
}

static double run(problem *p) {
  memset(p->rows.grad, 0, sizeof(float) * (size_t)(p->rows.nslots * LD));
  return loss_of(p, &p->a);
}

/* ---- the formula ---- */

static double unit(const problem *p, const float *x, double *n) { /* returns the divisor of the length */
  double square = 0;
  for (int d = 0; d < D; d++) square += (double)x[d] * (double)x[d];
  double divisor = p->conf.l2_norm ? fmax(sqrt(square), p->conf.l2_eps) : 1;
  for (int d = 0; d < D; d++) n[d] = (double)x[d] / divisor;
  return divisor;
}

/* dx += gradient through n = unit(x). */
static void unit_back(const problem *p, const double *n, double divisor, const double *dn, double *dx) {
  double along = 0;
  for (int d = 0; d < D; d++) along += n[d] * dn[d];
  bool clamped = !p->conf.l2_norm || divisor <= p->conf.l2_eps;
  for (int d = 0; d < D; d++) dx[d] += (dn[d] - (clamped ? 0 : along * n[d])) / divisor;
}

static double formula(const problem *p, double *dhidden, double *drows) {
  const sh_loss_args *a = &p->a;
  int64_t U = p->rows.nslots, R = a->R;
  double *e = sh_calloc((size_t)(U * D), sizeof *e), *divisor = sh_calloc((size_t)U, sizeof *divisor), loss = 0;
  double *de = sh_calloc((size_t)(U * D), sizeof *de), *s = sh_calloc((size_t)R + 1, sizeof *s);
  for (int64_t u = 0; u < U; u++) divisor[u] = unit(p, p->rows_at + u * LD, e + u * D);
  for (int64_t t = 0; t < a->T; t++) {
    double h[D], dh[D] = {0}, top = -INFINITY, sum = 0, length = unit(p, p->hidden + t * D, h);
    const int32_t *own = p->kind == SAMPLED ? p->reference + t * (R + 1) : p->reference + t;
    const int32_t *negative = p->kind == SAMPLED ? own + 1 : p->negative;
    for (int64_t r = 0; r <= R; r++) { /* 0: the positive */
      int32_t u = r ? negative[r - 1] : *own;
      s[r] = 0;
      for (int d = 0; d < D; d++) s[r] += h[d] * e[u * D + d];
      s[r] /= p->conf.temperature;
      if (r && a->correction) s[r] -= (double)a->correction[r - 1];
      if (!r && a->positive_correction) s[r] -= (double)a->positive_correction[t];
      if (r && u == *own) s[r] = -INFINITY;
      if (s[r] > top) top = s[r];
    }
    for (int64_t r = 0; r <= R; r++) sum += exp(s[r] - top);
    loss += top + log(sum) - s[0];
    for (int64_t r = 0; r <= R; r++) {
      int32_t u = r ? negative[r - 1] : *own;
      double g = a->scale / p->conf.temperature * (exp(s[r] - top) / sum - (r ? 0 : 1));
      for (int d = 0; d < D; d++) dh[d] += g * e[u * D + d], de[u * D + d] += g * h[d];
    }
    unit_back(p, h, length, dh, dhidden + t * D);
  }
  for (int64_t u = 0; u < U; u++) unit_back(p, e + u * D, divisor[u], de + u * D, drows + u * D);
  free(e), free(divisor), free(de), free(s);
  return loss;
}

static double error_of(int64_t n, int64_t width, const float *got, int64_t ld, const double *want) {
  double far = 0, top = 1e-30; /* exponentials end at e-38 */
  for (int64_t i = 0; i < n * width; i++) {
    double d = fabs((double)got[i / width * ld + i % width] - want[i]);
    if (!(d <= far)) far = d;
    if (fabs(want[i]) > top) top = fabs(want[i]);
  }
  return far == 0 ? 0 : far / top;
}

static void check_formula(problem *p, const sh_kernels *k) {
  int64_t T = p->a.T, U = p->rows.nslots;
  double *dhidden = sh_calloc((size_t)(T * D) + 1, sizeof *dhidden), *drows = sh_calloc((size_t)(U * D), sizeof *drows);
  p->c.k = k;
  double want = formula(p, dhidden, drows), got = run(p), tolerance = k == &sh_kernels_ref ? 2e-6 : 2e-5;
  if (strcmp(k->precision, "fp32")) tolerance = 2e-2; /* operands have 8 bits */
  double h = error_of(T, D, p->a.dhidden, D, dhidden), e = error_of(U, D, p->rows.grad, LD, drows);
  double near = tolerance == 2e-2 ? 1e-3 : 1e-6;
  if (!(fabs(got - want) <= near * want) || !(h <= tolerance) || !(e <= tolerance))
    fail_msg("%s %s T %d U %d R %d l2 %d: loss %.9g, formula %.9g; dhidden off by %.2g, rows by %.2g", k->name,
             p->kind == SAMPLED ? "sampled" : "shared", (int)T, (int)U, (int)p->a.R, p->conf.l2_norm, got, want, h, e);
  for (int64_t u = 0; u < U; u++)
    for (int d = D; d < LD; d++) assert_true(p->rows.grad[u * LD + d] == 0);
  sh_loss_args value = p->a;
  value.dhidden = NULL;
  assert_true(loss_of(p, &value) == got); /* the value alone is the same */
  free(dhidden), free(drows);
}

typedef struct size {
  int64_t T, U, R;
} size;

/* Around the tiles' edges; the last spans several panels. */
static const size sizes[] = {{1, 1, 1}, {0, 5, 4}, {5, 3, 40}, {64, 64, 64}, {65, 130, 200}, {100, 20, 3}};
static const size large = {1100, 1500, 3000};
static const size tiled = {1100, 200, 7};      /* of the sampled loss: three tiles */
static const size kept = {70, 20000, 20000};   /* 12.6 K distinct negatives: tiles of logits are kept by few threads */
static const size unkept = {70, 20000, 60000}; /* 19 K: by none */

static void formulas(void **state) {
  (void)state;
  const char *names[8];
  int tables = sh_kernels_available(names);
  problem p;
  sh_kernels room;
  for (int k = 0; k <= tables + 1; k++) /* the last: precision bf16, and emulated */
    for (int variant = 0; variant < 6; variant++) {
      kind what = variant < 2 ? SAMPLED : SHARED;
      for (size_t i = 0; i < sizeof sizes / sizeof *sizes + (what == SAMPLED); i++) {
        size s = i < sizeof sizes / sizeof *sizes ? sizes[i] : tiled;
        open_problem(&p, what, s.T, s.U, s.R, variant % 2, variant >= 4);
        check_formula(&p, k < tables    ? sh_kernels_named(names[k])
                          : k == tables ? sh_kernels_bf16()
                                        : sh_kernels_emulate_bf16(&sh_kernels_ref, &room));
        close_problem(&p);
      }
    }
  for (int many = 0; many < 2; many++) {
    const size *s = many ? &unkept : &large;
    open_problem(&p, SHARED, s->T, s->U, s->R, true, true);
    check_formula(&p, sh_kernels_best());
    close_problem(&p);
  }
}

/* Every negative is the target of every token: nothing is left to learn. */
static void all_masked(void **state) {
  (void)state;
  for (int what = SAMPLED; what <= SHARED; what++) {
    problem p;
    open_problem(&p, (kind)what, 70, 3, 5, true, false);
    for (int i = 0; i < 70 * (what == SAMPLED ? 6 : 1); i++) p.reference[i] = 1;
    for (int r = 0; r < 5; r++) p.negative[r] = 1;
    p.c.k = sh_kernels_best();
    assert_true(fabs(run(&p)) < 1e-12);
    for (int i = 0; i < 70 * D; i++) assert_true(fabsf(p.a.dhidden[i]) < 1e-30f);
    for (int i = 0; i < 3 * LD; i++) assert_true(fabsf(p.rows.grad[i]) < 1e-30f);
    close_problem(&p);
  }
}

/* Logits up to 800, beyond what a single float exponential holds. */
static void extreme_logits(void **state) {
  (void)state;
  problem p;
  for (int what = SAMPLED; what <= SHARED; what++) {
    open_problem(&p, (kind)what, 70, 90, 120, true, false);
    p.conf.temperature = 1.0 / 800;
    p.conf.l2_eps = 1e-6;
    p.c.k = sh_kernels_best();
    double *dh = sh_calloc(70 * D, sizeof *dh), *de = sh_calloc(90 * D, sizeof *de);
    double want = formula(&p, dh, de), got = run(&p);
    assert_true(fabs(got - want) <= 1e-5 * want);
    assert_true(error_of(70, D, p.a.dhidden, D, dh) < 1e-3);
    assert_true(error_of(90, D, p.rows.grad, LD, de) < 1e-3);
    free(dh), free(de);
    close_problem(&p);
  }
}

/* ---- finite differences ---- */

static double scaled_loss(void *arg) {
  problem *p = arg;
  sh_loss_args value = p->a;
  value.dhidden = NULL;
  return loss_of(p, &value) * p->a.scale;
}

static void finite_differences(void **state) {
  (void)state;
  int failed = 0;
  for (int variant = 0; variant < 6; variant++) {
    problem p;
    open_problem(&p, variant < 2 ? SAMPLED : SHARED, 70, 90, variant < 2 ? 6 : 110, variant % 2, variant >= 4);
    run(&p);
    float *drows = sh_malloc(sizeof(float) * 90 * LD);
    memcpy(drows, p.rows.grad, sizeof(float) * 90 * LD);
    sh_gradcheck g = {.f = scaled_loss, .arg = &p, .samples = 12, .step = 2e-2, .tolerance = 1e-3};
    sh_gradcheck_array(&g, "hidden", p.hidden, 70 * D, p.a.dhidden);
    for (int u = 0; u < 90; u += 11) sh_gradcheck_array(&g, "row", p.rows_at + u * LD, D, drows + u * LD);
    printf("  %s l2_norm %d correction %d: worst %s\n", variant < 2 ? "sampled" : "shared", variant % 2, variant >= 4,
           g.where);
    failed += g.failed;
    free(drows);
    close_problem(&p);
  }
  assert_int_equal(failed, 0);
}

/* ---- threads ---- */

static void any_threads(kind what, const sh_kernels *k) {
  problem one, more;
  int64_t R = what == SAMPLED ? tiled.R : large.R, U = what == SAMPLED ? tiled.U : large.U;
  omp_set_num_threads(1);
  open_problem(&one, what, large.T, U, R, true, what == SHARED);
  one.c.k = k;
  double want = run(&one);
  for (int threads = 2; threads <= 20; threads += threads == 3 ? 17 : 1) { /* 20: panels have another size */
    omp_set_num_threads(threads);
    open_problem(&more, what, large.T, U, R, true, what == SHARED);
    more.c.k = k;
    double got = run(&more);
    assert_memory_equal(&got, &want, sizeof got);
    assert_memory_equal(more.a.dhidden, one.a.dhidden, sizeof(float) * (size_t)(large.T * D));
    assert_memory_equal(more.rows.grad, one.rows.grad, sizeof(float) * (size_t)(U * LD));
    close_problem(&more);
  }
  close_problem(&one);
}

static void any_number_of_threads(void **state) {
  (void)state;
  int before = omp_get_max_threads();
  for (int what = SAMPLED; what <= SHARED; what++)
    for (int bf16 = 0; bf16 < 2; bf16++) any_threads((kind)what, bf16 ? sh_kernels_bf16() : sh_kernels_best());
  omp_set_num_threads(before);
}

/* Logits kept and logits made twice are the same. */
static void kept_or_made_twice(void **state) {
  (void)state;
  int before = omp_get_max_threads();
  problem once, twice;
  omp_set_num_threads(1);
  open_problem(&once, SHARED, kept.T, kept.U, kept.R, true, true);
  once.c.k = sh_kernels_best();
  double want = run(&once);
  omp_set_num_threads(24);
  open_problem(&twice, SHARED, kept.T, kept.U, kept.R, true, true);
  twice.c.k = sh_kernels_best();
  double got = run(&twice);
  omp_set_num_threads(before);
  assert_true(once.scratch.peak > twice.scratch.peak + (20 << 20)); /* each went its way */
  assert_memory_equal(&got, &want, sizeof got);
  assert_memory_equal(twice.a.dhidden, once.a.dhidden, sizeof(float) * (size_t)(kept.T * D));
  assert_memory_equal(twice.rows.grad, once.rows.grad, sizeof(float) * (size_t)(kept.U * LD));
  close_problem(&once), close_problem(&twice);
}

/* ---- kernels of tiles ---- */

/* Tiles of any width up to a whole one, after others: the running sums of every table against the reference. */
static void tile_kernels(void **state) {
  (void)state;
  enum { ROWS = 3, TILE_LD = 80 };
  const char *names[8];
  int tables = sh_kernels_available(names);
  for (int k = 1; k < tables; k++)
    for (int64_t n = 1; n <= 64; n += n < 60 ? 7 : 1) {
      const sh_kernels *fast = sh_kernels_named(names[k]);
      float shift[64], max[2][ROWS] = {{-1e30f, 2, 50}, {-1e30f, 2, 50}}, x[2][ROWS * TILE_LD];
      double sum[2][ROWS] = {{0, 3, 1}, {0, 3, 1}};
      sh_make_normal(shift, n, 3, 1);
      for (int tile = 0; tile < 3; tile++) {
        sh_make_normal(x[0], ROWS * TILE_LD, 4, (uint32_t)(n * 3 + tile));
        x[0][TILE_LD] = -1e30f; /* masked */
        memcpy(x[1], x[0], sizeof x[0]);
        sh_kernels_ref.softmax_scan(ROWS, n, 5, shift, x[0], TILE_LD, max[0], sum[0]);
        fast->softmax_scan(ROWS, n, 5, shift, x[1], TILE_LD, max[1], sum[1]);
        sh_kernels_ref.softmax_tile(ROWS, n, 5, shift, max[0], 0.1f, x[0], TILE_LD);
        fast->softmax_tile(ROWS, n, 5, shift, max[0], 0.1f, x[1], TILE_LD);
        for (int i = 0; i < ROWS; i++) {
          assert_true(fabsf(max[1][i] - max[0][i]) <= 1e-6f * fabsf(max[0][i])); /* multiply and add may be fused */
          assert_true(fabs(sum[1][i] - sum[0][i]) <= 2e-5 * sum[0][i]);
          for (int64_t v = 0; v < TILE_LD; v++)
            assert_true(fabsf(x[1][i * TILE_LD + v] - x[0][i * TILE_LD + v]) <= (v < n ? 1e-6f : 0));
        }
      }
    }
}

/* ---- full softmax on one rank ---- */

typedef struct full {
  sh_grid grid;
  sh_table table;
  int32_t *candidate;
  int64_t *target;
  float *dhidden;
  sh_full_args a;
} full;

/* Rows of the problem's slots, under their numbers as keys; each is a candidate. */
static void open_full(full *f, const problem *p, int64_t tile_tokens) {
  int64_t U = p->rows.nslots, T = p->a.T;
  *f = (full){0};
  sh_grid_single(&f->grid);
  sh_table_conf conf = {.name = "item", .rows = U, .width = D, .shards = 64, .optim = SH_ROW_SGD};
  assert_int_equal(sh_table_create(&f->table, &conf, &f->grid.table), SH_OK);
  f->candidate = sh_malloc(sizeof(int32_t) * (size_t)U);
  f->target = sh_malloc(sizeof(int64_t) * (size_t)(T + 1));
  f->dhidden = sh_malloc(sizeof(float) * (size_t)(T * D + 1));
  for (int64_t i = 0; i < U; i++) {
    f->candidate[i] = (int32_t)i;
    memcpy(f->table.rows + i * D, p->rows_at + sh_table_key(&f->table, i) * LD, sizeof(float) * D);
  }
  for (int64_t t = 0; t < T; t++) f->target[t] = p->reference[t];
  f->a = (sh_full_args){.conf = &p->conf,
                        .table = &f->table,
                        .ncandidates = U,
                        .candidate = f->candidate,
                        .T = T,
                        .D = D,
                        .hidden = p->hidden,
                        .target = f->target,
                        .dhidden = f->dhidden,
                        .scale = p->a.scale};
  ((sh_conf_loss *)(uintptr_t)f->a.conf)->tile_tokens = tile_tokens;
}

static void close_full(full *f) {
  sh_table_destroy(&f->table);
  free(f->candidate), free(f->target), free(f->dhidden);
}

/* With every row among the negatives the shared loss is the full one. */
static void full_equals_shared_with_all(void **state) {
  (void)state;
  for (int l2 = 0; l2 < 2; l2++)
    for (int64_t tile = 64; tile <= 2048; tile += 1984) {
      problem p;
      full f;
      int64_t T = 300, U = 210;
      open_problem(&p, SHARED, T, U, U, l2, false);
      for (int r = 0; r < U; r++) p.negative[r] = (int32_t)((r * 11) % U);
      p.c.k = sh_kernels_best();
      double want = run(&p);
      open_full(&f, &p, tile);
      double got = sh_loss_full(&f.a, &p.c);
      assert_true(fabs(got - want) < 1e-6 * want);
      double *dh = sh_malloc(sizeof(double) * (size_t)(T * D)), *de = sh_malloc(sizeof(double) * (size_t)(U * D));
      const float *grad = f.table.impl->waiting;
      assert_int_equal(sh_table_touched(&f.table), U);
      for (int64_t i = 0; i < T * D; i++) dh[i] = (double)p.a.dhidden[i];
      for (int64_t i = 0; i < U * D; i++) de[i] = (double)p.rows.grad[sh_table_key(&f.table, i / D) * LD + i % D];
      assert_true(error_of(T, D, f.dhidden, D, dh) < 1e-5);
      assert_true(error_of(U, D, grad, D, de) < 1e-5);
      f.a.dhidden = NULL; /* the value alone leaves the table alone */
      sh_table_update(&f.table, &(sh_row_hyper){.lr = 0, .clip_scale = 1, .step = 1});
      assert_true(sh_loss_full(&f.a, &p.c) == got);
      assert_false(f.table.impl->pending);
      free(dh), free(de);
      close_full(&f);
      close_problem(&p);
    }
}

static void full_with_any_number_of_threads(void **state) {
  (void)state;
  problem p;
  full one, more;
  int before = omp_get_max_threads();
  int64_t T = large.T, U = large.U;
  open_problem(&p, SHARED, T, U, 1, true, false);
  p.c.k = sh_kernels_best();
  omp_set_num_threads(1);
  open_full(&one, &p, 2048);
  double want = sh_loss_full(&one.a, &p.c);
  for (int threads = 2; threads <= 20; threads += threads == 3 ? 17 : 1) { /* 20: panels have another size */
    omp_set_num_threads(threads);
    open_full(&more, &p, 2048);
    double got = sh_loss_full(&more.a, &p.c);
    assert_memory_equal(&got, &want, sizeof got);
    assert_memory_equal(more.dhidden, one.dhidden, sizeof(float) * (size_t)(T * D));
    assert_memory_equal(more.table.impl->grad[more.table.impl->now].data,
                        one.table.impl->grad[one.table.impl->now].data, sizeof(float) * (size_t)(U * D));
    close_full(&more);
  }
  omp_set_num_threads(before);
  close_full(&one);
  close_problem(&p);
}

/* Gradients that stay local and those a fetch brings are one gradient: its square, its rows, over micro-batches; and
 * after warm-up nothing is asked of the system. */
static void local_gradients_are_merged(void **state) {
  (void)state;
  problem p;
  full f;
  open_problem(&p, SHARED, 70, 210, 1, true, false);
  open_full(&f, &p, 64);
  f.a.ncandidates = 100; /* rows beyond are touched by the fetch alone; targets must be among them */
  for (int t = 0; t < 70; t++) f.target[t] = sh_table_key(&f.table, t % 100);
  sh_arena batch;
  sh_arena_init(&batch, "batch");
  sh_fetch fetch;
  sh_fetch_init(&fetch, &f.table);
  int64_t keys[3] = {sh_table_key(&f.table, 5), sh_table_key(&f.table, 150), sh_table_key(&f.table, 0)}, allocated = 0;
  for (int step = 0; step < 6; step++) {
    if (step == 3) allocated = sh_alloc_count();
    sh_arena_reset(&batch);
    sh_table_fetch_begin(&f.table, &fetch, keys, 3, &batch);
    sh_table_fetch_end(&f.table, &fetch, &batch);
    float *want = SH_ARENA_ZNEW(&batch, float, 210 * D);
    sh_loss_full(&f.a, &p.c);
    const float *once = f.table.impl->waiting;
    for (int i = 0; i < 100 * D; i++) want[i] = 2 * once[i];
    sh_loss_full(&f.a, &p.c); /* a second micro-batch */
    for (int64_t s = 0; s < fetch.nslots; s++)
      for (int d = 0; d < D; d++) {
        fetch.drows[s * fetch.ld + d] = (float)(s + d);
        want[sh_table_local(&f.table, fetch.slot_key[s]) * D + d] += (float)(s + d);
      }
    double square = 0, got = sh_table_grad(&f.table, &fetch);
    for (int i = 0; i < 210 * D; i++) square += (double)want[i] * (double)want[i];
    assert_true(fabs(got - square) < 1e-6 * square);
    assert_int_equal(sh_table_touched(&f.table), 101);
    const int64_t *touched = f.table.impl->touched[f.table.impl->now].data;
    const float *grad = f.table.impl->waiting;
    for (int i = 0; i < 101; i++) {
      assert_int_equal(touched[i], i < 100 ? i : 150);
      for (int d = 0; d < D; d++) assert_true(fabsf(grad[i * D + d] - want[touched[i] * D + d]) < 1e-5f);
    }
    sh_table_update(&f.table, &(sh_row_hyper){.lr = 0.01, .clip_scale = 1, .step = step + 1});
  }
  assert_int_equal(sh_alloc_count(), allocated);
  sh_fetch_free(&fetch);
  sh_arena_free(&batch);
  close_full(&f);
  close_problem(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(formulas),
      cmocka_unit_test(all_masked),
      cmocka_unit_test(extreme_logits),
      cmocka_unit_test(finite_differences),
      cmocka_unit_test(any_number_of_threads),
      cmocka_unit_test(kept_or_made_twice),
      cmocka_unit_test(tile_kernels),
      cmocka_unit_test(full_equals_shared_with_all),
      cmocka_unit_test(full_with_any_number_of_threads),
      cmocka_unit_test(local_gradients_are_merged),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
