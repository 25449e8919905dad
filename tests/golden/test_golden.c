/* Golden vectors: every group of every {hstu,sasrec,fuxi_alpha,fuxi_beta}*.h5 under tests/golden/vectors (ours, made by
 * make_vectors.py) and under $SHOAL_TEST_DATA/golden (computed by the authors' code), float64, against our float path
 * with every kernel table: layers, hidden states, logits, loss, gradients, three optimiser steps, evaluation.
 *
 * Errors are relative to the largest entry of each array: <= 2e-5 with the reference kernels, <= 1e-4 with all others.
 * Exceptions, from the properties of the mathematics, not of this code:
 *  - SASRec's key bias has true gradient 0: Adam divides rounding noise by itself, so its values after a step are
 * noise;
 *  - gradients of FuXi-beta's two scalars a and b of the time function are sums over pairs and heads that cancel: their
 *    errors are relative to the sum of absolute terms.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/time_runs.h"
#include "golden/golden_check.h"
#include "nn/loss_rows.h"
#include "support/skipped.h"

/* User vectors of inputs0 after three steps, by the last-token pass and by the full one. [B x ld], normalised. */
static float *user_vectors(sh_golden_run *r, bool last_only) {
  sh_golden_model *g = &r->g;
  sh_arena *a = &g->step;
  int64_t B = r->in.batch.B, D = g->D;
  float *hidden = sh_model_forward(&g->model, &r->ctx, last_only, a, &r->pass), *last = hidden;
  if (!last_only) {
    last = SH_ARENA_NEW(a, float, B *D);
    for (int64_t b = 0; b < B; b++)
      memcpy(last + b * D, hidden + (r->in.batch.offsets[b + 1] - 1) * D, sizeof(float) * (size_t)D);
  }
  float *users = SH_ARENA_NEW(a, float, B * g->ld), *length = SH_ARENA_NEW(a, float, B);
  sh_normalise_rows(g->kernels, B, (int)D, true, (float)g->conf.loss.l2_eps, last, D, users, g->ld, length);
  double *tight = SH_ARENA_NEW(a, double, B *D);
  for (int64_t b = 0; b < B; b++)
    for (int64_t k = 0; k < D; k++) tight[b * D + k] = (double)users[b * g->ld + k];
  sh_golden_array want = sh_golden_read(g->group, a, "f64/eval/user_embeddings");
  sh_close_check(&r->report, r->tolerance, "eval", want.n, tight, want.v, "user_embeddings, %s",
                 last_only ? "last token only" : "all tokens");
  return users;
}

/* Scores of all candidates, and the target's rank: 1 + better ones + equal ones with a smaller id. */
static void check_ranks(sh_golden_run *r, const float *users, const float *e, const int32_t *slot, int64_t items) {
  sh_golden_model *g = &r->g;
  sh_arena *a = &g->step;
  sh_golden_array id = sh_golden_ints(g->group, a, "f64/eval/topk_ids");
  sh_golden_array score = sh_golden_read(g->group, a, "f64/eval/topk_scores");
  sh_golden_array rank = sh_golden_ints(g->group, a, "f64/eval/rank");
  sh_golden_array target = sh_golden_ints(g->group, a, "inputs0/target_ids");
  float *by_id = SH_ARENA_ZNEW(a, float, g->items);
  double *got = SH_ARENA_NEW(a, double, score.n);
  for (int64_t b = 0; b < r->in.batch.B; b++) {
    int64_t n = score.dim[1], mine = 1;
    for (int64_t i = 0; i < items; i++) by_id[slot[i]] = g->kernels->dot(g->ld, users + b * g->ld, e + slot[i] * g->ld);
    for (int64_t i = 0; i < n; i++) got[b * n + i] = (double)by_id[id.ints[b * n + i]];
    for (int64_t i = 0; i < items; i++)
      mine += by_id[slot[i]] > by_id[target.ints[b]] ||
              (by_id[slot[i]] == by_id[target.ints[b]] && slot[i] < target.ints[b]);
    if (mine != rank.ints[b])
      sh_close_fail(&r->report, "eval: rank of user %lld is %lld, expected %lld", (long long)b, (long long)mine,
                    (long long)rank.ints[b]);
  }
  sh_close_check(&r->report, r->tolerance, "eval", score.n, got, score.v, "scores");
}

static void evaluate(sh_golden_run *r) {
  sh_golden_model *g = &r->g;
  sh_arena *a = &g->step;
  sh_golden_begin(r, 0, false);
  user_vectors(r, false);
  float *users = user_vectors(r, true);
  sh_golden_array ids = sh_golden_ints(g->group, a, "all_item_ids");
  int32_t *slot = SH_ARENA_NEW(a, int32_t, ids.n);
  float *e = SH_ARENA_NEW(a, float, g->items * g->ld), *length = SH_ARENA_NEW(a, float, g->items);
  sh_normalise_rows(g->kernels, g->items, g->D, true, (float)g->conf.loss.l2_eps, g->table[SH_GOLDEN_VALUE], g->ld, e,
                    g->ld, length);
  double *tight = SH_ARENA_NEW(a, double, ids.n * g->D);
  for (int64_t i = 0; i < ids.n; i++) {
    slot[i] = (int32_t)ids.ints[i];
    for (int64_t k = 0; k < g->D; k++) tight[i * g->D + k] = (double)e[slot[i] * g->ld + k];
  }
  sh_golden_array want = sh_golden_read(g->group, a, "f64/eval/item_embeddings_normalised");
  sh_close_check(&r->report, r->tolerance, "eval", want.n, tight, want.v, "item_embeddings_normalised");
  check_ranks(r, users, e, slot, ids.n);
}

/* One case: a file and a group of it, with every kernel table. */
typedef struct golden_case {
  char title[160], path[512], group[SH_GOLDEN_NAME];
} golden_case;

static void test_case(void **state) {
  const golden_case *c = *state;
  const char *kernels[8];
  int failed = 0, n = sh_kernels_available(kernels);
  hid_t file = sh_golden_open(c->path), group = H5Gopen2(file, c->group, H5P_DEFAULT);
  static sh_golden_run r;
  for (int k = 0; k < n; k++) {
    r = (sh_golden_run){.tolerance = strcmp(kernels[k], "ref") ? 1e-4 : 2e-5};
    sh_golden_model_open(&r.g, group, sh_kernels_named(kernels[k]));
    for (int step = 0; step < 3; step++) sh_golden_train_step(&r, step);
    evaluate(&r);
    char title[192];
    snprintf(title, sizeof title, "  %-8s", kernels[k]);
    sh_close_print(&r.report, stdout, title);
    failed += r.report.failed;
    sh_golden_model_close(&r.g);
  }
  H5Gclose(group);
  H5Fclose(file);
  assert_int_equal(failed, 0);
}

/* Integer bounds of the time buckets: ours, and that a bound is the first time of its bucket. */
static void test_bucket_bounds(void **state) {
  (void)state;
  for (int b = 1; b <= 128; b++) {
    int64_t bound = sh_time_bucket_bound[b - 1];
    assert_true(sh_time_bucket(bound) >= b && sh_time_bucket(-bound) >= b && sh_time_bucket(bound - 1) < b);
  }
  assert_int_equal(sh_time_bucket(0), 0);
  assert_int_equal(sh_time_bucket(INT64_MAX), 128);
  assert_int_equal(sh_time_bucket(INT64_MIN), 128);
}

static void test_bucket_bounds_of_file(void **state) {
  const golden_case *c = *state;
  sh_arena a;
  sh_arena_init(&a, "bounds");
  hid_t file = sh_golden_open(c->path);
  sh_golden_array want = sh_golden_ints(file, &a, "bucket_lower_bound_f32");
  assert_int_equal(want.n, 128);
  for (int b = 0; b < 128; b++) assert_int_equal(sh_time_bucket_bound[b], want.ints[b]);
  H5Fclose(file);
  sh_arena_free(&a);
}

static void test_skipped(void **state) {
  (void)state;
  SKIP_TEST("the vectors of the authors' code are not checked. Set SHOAL_TEST_DATA to the folder that holds golden/.");
}

static void test_none_found(void **state) {
  const golden_case *c = *state;
  fail_msg("no {hstu,sasrec,fuxi_alpha,fuxi_beta}*.h5 in %s", c->path);
}

enum { CASES = 512 };
static struct CMUnitTest tests[CASES];
static size_t ntests;

static golden_case *add(CMUnitTestFunction function, const char *path, const char *group, const char *title) {
  if (ntests == CASES) abort();
  golden_case *c = sh_calloc(1, sizeof *c);
  snprintf(c->title, sizeof c->title, "%s", title);
  snprintf(c->path, sizeof c->path, "%s", path);
  snprintf(c->group, sizeof c->group, "%s", group);
  tests[ntests++] = (struct CMUnitTest){.name = c->title, .test_func = function, .initial_state = c};
  return c;
}

static int is_golden(const struct dirent *entry) {
  static const char *const prefix[] = {"hstu", "sasrec", "fuxi_alpha", "fuxi_beta"};
  size_t length = strlen(entry->d_name);
  if (length < 3 || strcmp(entry->d_name + length - 3, ".h5")) return 0;
  for (int i = 0; i < 4; i++)
    if (!strncmp(entry->d_name, prefix[i], strlen(prefix[i]))) return 1;
  return 0;
}

/* A test for each group of each file of a folder. */
static void add_folder(const char *folder) {
  struct dirent **entries;
  int n = scandir(folder, &entries, is_golden, alphasort);
  if (n <= 0) add(test_none_found, folder, "", folder);
  for (int i = 0; i < n; i++) {
    char path[512], title[160];
    snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
    sh_arena a;
    sh_arena_init(&a, "names");
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    sh_golden_names groups = {0};
    if (file >= 0) groups = sh_golden_list(file, &a, true, "/");
    if (groups.n == 0) add(test_none_found, path, "", path);
    snprintf(title, sizeof title, "%s: bucket bounds", entries[i]->d_name);
    if (file >= 0 && sh_golden_has(file, "bucket_lower_bound_f32")) add(test_bucket_bounds_of_file, path, "", title);
    for (int g = 0; g < groups.n; g++) {
      snprintf(title, sizeof title, "%s: %s", entries[i]->d_name, groups.name[g]);
      add(test_case, path, groups.name[g], title);
    }
    if (file >= 0) H5Fclose(file);
    sh_arena_free(&a);
    free(entries[i]);
  }
  if (n >= 0) free(entries);
}

int main(void) {
  const char *data = getenv("SHOAL_TEST_DATA");
  char folder[512];
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  add(test_bucket_bounds, "", "", "time bucket bounds");
  add_folder(SHOAL_SOURCE "/tests/golden/vectors");
  if (data && *data) {
    snprintf(folder, sizeof folder, "%s/golden", data);
    add_folder(folder);
  } else {
    add(test_skipped, "", "", "vectors of the authors' code");
  }
  return with_skipped(_cmocka_run_group_tests("golden", tests, ntests, NULL, NULL));
}
