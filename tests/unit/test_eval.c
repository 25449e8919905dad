/* Evaluation: ranks and metrics against the authors' evaluator ($SHOAL_TEST_DATA/golden/eval_oracle.h5), and the whole
 * of sh_evaluate_split against ranks by definition on a tiny data set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/time_runs.h"
#include "golden/golden_file.h"
#include "support/folder.h"
#include "support/skipped.h"
#include "support/train_data.h"
#include "train/eval.h"

/* --- the authors' evaluator --- */

typedef struct oracle {
  hid_t file;
  sh_arena arena;
  const char *group;
  int64_t users, items, k, npast;
  bool filter;
  const double *score;
  const int64_t *id, *past, *target;
} oracle;

static void oracle_open(oracle *o, const char *group) {
  const char *folder = getenv("SHOAL_TEST_DATA");
  if (!folder || !*folder)
    SKIP_TEST(
        "ranks are not compared with the authors' evaluator. Set SHOAL_TEST_DATA to the folder that holds golden/.");
  char path[512];
  snprintf(path, sizeof path, "%s/golden/eval_oracle.h5", folder);
  *o = (oracle){.file = sh_golden_open(path), .group = group};
  sh_arena_init(&o->arena, "oracle");
  sh_golden_array score = sh_golden_read(o->file, &o->arena, "%s/scores", group);
  sh_golden_array past = sh_golden_ints(o->file, &o->arena, "%s/past_ids", group);
  o->users = score.dim[0], o->items = score.dim[1], o->npast = past.dim[1];
  o->score = score.v, o->past = past.ints;
  o->id = sh_golden_ints(o->file, &o->arena, "%s/item_ids", group).ints;
  o->target = sh_golden_ints(o->file, &o->arena, "%s/target_ids", group).ints;
  hid_t at = H5Gopen2(o->file, group, H5P_DEFAULT);
  o->k = (int64_t)sh_golden_number(at, "k");
  o->filter = sh_golden_number(at, "filter_seen") != 0;
  H5Gclose(at);
}

static void oracle_close(oracle *o) {
  sh_arena_free(&o->arena);
  H5Fclose(o->file);
}

static bool is_past(const oracle *o, int64_t user, int64_t id) {
  for (int64_t i = 0; i < o->npast; i++)
    if (o->past[user * o->npast + i] == id) return true;
  return false;
}

typedef struct scored {
  int64_t id;
  float score;
} scored;
static int by_id(const void *a, const void *b) {
  int64_t x = ((const scored *)a)->id, y = ((const scored *)b)->id;
  return x < y ? -1 : x > y;
}

/* As the evaluator does it: candidates by ascending id, filtered ones at -infinity, in two pieces. */
static int64_t oracle_rank(oracle *o, int64_t user) {
  scored *list = SH_ARENA_NEW(&o->arena, scored, o->items);
  for (int64_t i = 0; i < o->items; i++) list[i] = (scored){o->id[i], (float)o->score[user * o->items + i]};
  qsort(list, (size_t)o->items, sizeof *list, by_id);
  float *score = SH_ARENA_NEW(&o->arena, float, o->items), target = NAN;
  int64_t *id = SH_ARENA_NEW(&o->arena, int64_t, o->items), better = 0, half = o->items / 2;
  for (int64_t i = 0; i < o->items; i++) {
    bool filtered = o->filter && is_past(o, user, list[i].id);
    id[i] = list[i].id, score[i] = filtered ? -INFINITY : list[i].score;
    if (id[i] == o->target[user] && !filtered) target = score[i];
  }
  if (isnan(target)) return sh_rank(-1, o->k);
  better += sh_count_better(half, score, id, target, o->target[user]);
  better += sh_count_better(o->items - half, score + half, id + half, target, o->target[user]);
  return sh_rank(better, o->k);
}

static void check_metric(oracle *o, const int64_t *rank, const char *name) {
  if (!sh_golden_has(o->file, "%s/metric %s", o->group, name)) return;
  sh_golden_array want = sh_golden_read(o->file, &o->arena, "%s/metric %s", o->group, name);
  sh_metrics all = {0};
  double sum = 0;
  for (int64_t u = 0; u < o->users; u++) {
    sh_metrics one = {0};
    sh_metrics_add(&one, rank[u], o->k);
    sh_metrics_add(&all, rank[u], o->k);
    double got = sh_metrics_get(&one, name);
    if (fabs(got - want.v[u]) > 1e-6 * fabs(want.v[u])) /* theirs is float32 */
      fail_msg("%s: user %lld: %s is %.9g, expected %.9g", o->group, (long long)u, name, got, want.v[u]);
    sum += want.v[u];
  }
  assert_true(fabs(sh_metrics_get(&all, name) - sum / (double)o->users) < 1e-6);
}

static void check_exact(const char *group) {
  oracle o;
  oracle_open(&o, group);
  int64_t *rank = SH_ARENA_NEW(&o.arena, int64_t, o.users);
  const int64_t *want = sh_golden_ints(o.file, &o.arena, "%s/rank", group).ints;
  for (int64_t u = 0; u < o.users; u++) {
    rank[u] = oracle_rank(&o, u);
    if (rank[u] != want[u])
      fail_msg("%s: user %lld has rank %lld, expected %lld", group, (long long)u, (long long)rank[u],
               (long long)want[u]);
  }
  char name[16];
  for (int c = 0; c < SH_CUTS; c++) {
    snprintf(name, sizeof name, "hr@%d", sh_cut[c]);
    check_metric(&o, rank, name);
    snprintf(name, sizeof name, "ndcg@%d", sh_cut[c]);
    check_metric(&o, rank, name);
  }
  assert_true(sh_golden_has(o.file, "%s/metric mrr", group));
  check_metric(&o, rank, "mrr");
  oracle_close(&o);
}

static void test_oracle_exact(void **state) {
  (void)state;
  check_exact("small_no_ties");
  check_exact("filtered_k2500");
}

static void test_oracle_ties(void **state) {
  (void)state;
  oracle o;
  oracle_open(&o, "small_ties");
  const int64_t *least = sh_golden_ints(o.file, &o.arena, "small_ties/rank_optimistic").ints;
  const int64_t *most = sh_golden_ints(o.file, &o.arena, "small_ties/rank_pessimistic").ints;
  for (int64_t u = 0; u < o.users; u++) {
    int64_t rank = oracle_rank(&o, u);
    if (rank < least[u] || rank > most[u])
      fail_msg("user %lld has rank %lld, outside %lld .. %lld", (long long)u, (long long)rank, (long long)least[u],
               (long long)most[u]);
  }
  oracle_close(&o);
}

static void test_rank_by_hand(void **state) {
  (void)state;
  const float score[] = {3, 1, 3, -INFINITY, 3, 5};
  const int64_t id[] = {2, 4, 7, 8, 9, 10};
  assert_int_equal(sh_count_better(6, score, id, 3, 7), 2); /* 10 is better, 2 is equal and smaller */
  assert_int_equal(sh_count_better(6, score, id, 3, 2), 1);
  assert_int_equal(sh_count_better(6, score, id, 1, 4), 4);
  assert_int_equal(sh_count_better(0, score, id, 1, 4), 0);
  assert_int_equal(sh_rank(0, 10), 1);
  assert_int_equal(sh_rank(9, 10), 10);
  assert_int_equal(sh_rank(10, 10), 11);
  assert_int_equal(sh_rank(-1, 10), 11);
  sh_metrics m = {0};
  assert_true(sh_metrics_get(&m, "hr@10") == -1);
  sh_metrics_add(&m, 1, 10), sh_metrics_add(&m, 3, 10), sh_metrics_add(&m, 11, 10);
  assert_true(fabs(sh_metrics_get(&m, "hr@10") - 2. / 3) < 1e-15);
  assert_true(fabs(sh_metrics_get(&m, "hr@50") - 2. / 3) < 1e-15); /* beyond the cut is absent, not rank 11 */
  assert_true(fabs(sh_metrics_get(&m, "ndcg@10") - 1.5 / 3) < 1e-15);
  assert_true(fabs(sh_metrics_get(&m, "mrr") - (1 + 1. / 3 + 1. / 11) / 3) < 1e-15);
  assert_true(sh_metrics_get(&m, "hr@7") == -1);
}

/* --- sh_evaluate_split, by definition --- */

enum { USERS = 40, MAX_LEN = 12 };
static const char *data, *timeless;

static int setup(void **state) {
  if (folder_make(state)) return -1;
  train_data d = {.users = USERS, .items = 45, .least = 1, .most = 25, .candidates = 22, .times = true, .seed = 5};
  data = train_data_write(&d, "data.h5");
  d.times = false, d.candidates = 0;
  timeless = train_data_write(&d, "timeless.h5");
  return 0;
}

typedef struct history {
  int64_t start, target; /* events of the file: the user's first one, the one to be ranked */
  int64_t item[64], time[64];
} history;

/* The user's query, told again from the description of the protocols. */
static bool query_of(sh_trainer *t, sh_query_kind kind, int64_t user, history *h) {
  const sh_dataset *d = &t->data;
  int64_t n = d->offsets[user + 1] - d->offsets[user], target = -1;
  h->start = d->offsets[user];
  assert_true(n < 64);
  assert_int_equal(sh_dataset_items(d, h->start, n, h->item), SH_OK);
  if (d->has_time) assert_int_equal(sh_dataset_times(d, h->start, n, h->time), SH_OK);
  const char *split = t->conf.data.split;
  if (!strcmp(split, "leave-one-out")) target = n - 1;
  if (!strcmp(split, "leave-two-out")) target = kind == SH_QUERY_TEST ? n - 1 : n - 2;
  if (!strcmp(split, "temporal")) {
    int64_t from = kind == SH_QUERY_TEST ? t->samples.t2 : t->samples.t1;
    int64_t to = kind == SH_QUERY_TEST ? INT64_MAX : t->samples.t2;
    for (int64_t i = n; i-- > 0;)
      if (h->time[i] >= from && h->time[i] < to) target = i;
  }
  h->target = h->start + target;
  return target >= 1;
}

/* The user's vector: a batch of this history alone, through the whole model, all tokens. */
static void vector_of(sh_trainer *t, const history *h, double *out) {
  int64_t last = h->target - h->start, first = last > MAX_LEN ? last - MAX_LEN : 0, L = last - first;
  int64_t next_time[MAX_LEN], sample = 0, D = t->model.width, V = t->data.items;
  int32_t offsets[2] = {0, (int32_t)L}, position[MAX_LEN], sequence[MAX_LEN] = {0}, slot[MAX_LEN];
  for (int64_t i = 0; i < L; i++) {
    position[i] = (int32_t)i;
    slot[i] = (int32_t)h->item[first + i];
    next_time[i] = h->time[first + i + (t->conf.model.request_time ? 1 : 0)];
  }
  sh_batch b = {.B = 1, .T = L, .offsets = offsets, .sample = &sample, .item = h->item + first, .position = position};
  b.sequence = sequence;
  if (t->data.has_time) b.time = h->time + first, b.next_time = next_time;
  sh_arena a;
  sh_arena_init(&a, "test");
  if (t->data.has_time && t->model.needs_time_runs) sh_time_runs_build(&b, &a);
  int ld = (int)(D + 15) / 16 * 16;
  float *rows = SH_ARENA_ZNEW(&a, float, V *ld);
  for (int64_t v = 0; v < V; v++)
    memcpy(rows + v * ld, t->item.rows + sh_table_local(&t->item, v) * D, sizeof(float) * (size_t)D);
  sh_rows r = {.ld = ld, .nslots = V, .value = rows, .slot = slot};
  sh_ctx c = {.batch = &b, .params = &t->model.params, .rows = &r, .scratch = &t->scratch, .k = t->kernels};
  sh_pass pass;
  const float *hidden = sh_model_forward(&t->model, &c, false, &a, &pass) + (L - 1) * D;
  for (int64_t k = 0; k < D; k++) out[k] = (double)hidden[k];
  sh_arena_free(&a);
}

/* *unit: what two scores may differ by from rounding, with room. */
static double score_of(sh_trainer *t, const double *user, int64_t item, double *unit) {
  const float *row = t->item.rows + sh_table_local(&t->item, item) * t->model.width;
  double dot = 0, uu = 0, ee = 0;
  for (int k = 0; k < t->model.width; k++) {
    dot += user[k] * (double)row[k], uu += user[k] * user[k], ee += (double)row[k] * (double)row[k];
  }
  *unit = 2e-6 * (t->conf.loss.l2_norm ? 1 : sqrt(uu * ee));
  return t->conf.loss.l2_norm ? dot / sqrt(uu * ee) : dot;
}

static bool among(const int64_t *list, int64_t n, int64_t x) {
  for (int64_t i = 0; i < n; i++)
    if (list[i] == x) return true;
  return false;
}

static bool same_row(sh_trainer *t, int64_t a, int64_t b) {
  size_t D = (size_t)t->model.width;
  const float *rows = t->item.rows;
  return !memcmp(rows + (size_t)sh_table_local(&t->item, a) * D, rows + (size_t)sh_table_local(&t->item, b) * D,
                 D * sizeof(float));
}

/* Rank by definition. Rows that are equal score equal; no others may come near enough for rounding to decide. */
static int64_t rank_of(sh_trainer *t, const history *h) {
  const sh_dataset *d = &t->data;
  int64_t last = h->target - h->start, first = last > MAX_LEN ? last - MAX_LEN : 0, target = h->item[last], better = 0;
  const char *filter = t->conf.eval.filter;
  if (!strcmp(filter, "none")) first = last;
  if (!strcmp(filter, "seen")) first = 0;
  const int64_t *hidden = h->item + first, nhidden = last - first;
  if (!among(d->candidates, d->ncandidates, target) || among(hidden, nhidden, target)) return t->conf.eval.top + 1;
  double user[64], own, unit;
  vector_of(t, h, user);
  own = score_of(t, user, target, &unit);
  for (int64_t i = 0; i < d->ncandidates; i++) {
    int64_t item = d->candidates[i];
    if (item == target || among(hidden, nhidden, item)) continue;
    double score = score_of(t, user, item, &unit);
    if (same_row(t, item, target)) {
      better += item < target;
      continue;
    }
    assert_true(fabs(score - own) > unit);
    better += score > own;
  }
  return better < t->conf.eval.top ? better + 1 : t->conf.eval.top + 1;
}

static sh_metrics by_definition(sh_trainer *t, sh_query_kind kind) {
  sh_metrics m = {0};
  for (int64_t u = 0; u < t->data.users; u++) {
    history h;
    if (!query_of(t, kind, u, &h)) continue;
    int64_t rank = rank_of(t, &h);
    m.n += 1, m.mrr += 1.0 / (double)rank;
    for (int c = 0; c < SH_CUTS; c++)
      if (rank <= sh_cut[c] && rank <= t->conf.eval.top) m.hr[c] += 1, m.ndcg[c] += 1 / log2((double)rank + 1);
  }
  return m;
}

static void assert_same(const sh_metrics *got, const sh_metrics *want, const sh_trainer *t) {
  const double *g = (const double *)got, *w = (const double *)want;
  for (size_t i = 0; i < sizeof *got / sizeof *g; i++)
    if (fabs(g[i] - w[i]) > 1e-9)
      fail_msg("%s, %s, filter %s, top %lld, %s kernels: sum %zu is %.12g, by definition %.12g", t->conf.model.name,
               t->conf.data.split, t->conf.eval.filter, (long long)t->conf.eval.top, t->kernels->name, i, g[i], w[i]);
}

/* A few steps, so that nothing is symmetric; then some rows are made equal. */
static void check(const sh_config *c, sh_query_kind kind, const char *kernels) {
  sh_grid grid;
  sh_trainer t;
  train_run r = {0};
  sh_metrics got, want;
  sh_grid_single(&grid);
  if (sh_trainer_create(&t, c, &grid) != SH_OK) fail_msg("%s", sh_error_message());
  if (kernels) t.kernels = sh_kernels_named(kernels);
  assert_true(train_steps(&r, &t, 5));
  sh_trainer_rewind(&t);
  size_t D = (size_t)t.model.width;
  for (int64_t v = 4; v + 6 < t.data.items; v += 6)
    memcpy(t.item.rows + (size_t)sh_table_local(&t.item, v + 6) * D,
           t.item.rows + (size_t)sh_table_local(&t.item, v % 12) * D, D * sizeof(float));
  assert_int_equal(sh_evaluate_split(&t, kind, NULL, &got), SH_OK);
  want = by_definition(&t, kind);
  assert_true(want.n > 5);
  assert_same(&got, &want, &t);
  train_free(&r);
  sh_trainer_destroy(&t);
  sh_grid_destroy(&grid);
}

static sh_config config_of(const char *model, const char *split, const char *filter) {
  sh_config c = train_config(model, data);
  c.model.max_len = MAX_LEN;
  c.eval.users = 7; /* several rounds, the last one short */
  snprintf(c.data.split, sizeof c.data.split, "%s", split);
  snprintf(c.eval.filter, sizeof c.eval.filter, "%s", filter);
  return c;
}

static const char *const models[] = {"hstu", "sasrec", "fuxi-alpha", "fuxi-beta"};
static const char *const filters[] = {"none", "window", "seen"};

static void test_protocols(void **state) {
  (void)state;
  for (int m = 0; m < 4; m++)
    for (int f = 0; f < 3; f++) {
      sh_config c = config_of(models[m], "leave-one-out", filters[f]);
      check(&c, SH_QUERY_TEST, NULL);
      c = config_of(models[m], "leave-two-out", filters[f]);
      check(&c, SH_QUERY_VALID, NULL);
      check(&c, SH_QUERY_TEST, NULL);
      c = config_of(models[m], "temporal", filters[f]);
      c.data.valid_quantile = 0.5, c.data.test_quantile = 0.7;
      check(&c, SH_QUERY_VALID, NULL);
      check(&c, SH_QUERY_TEST, NULL);
    }
}

static void test_cut_and_scores(void **state) {
  (void)state;
  sh_config c = config_of("hstu", "leave-one-out", "window");
  c.eval.top = 6;
  check(&c, SH_QUERY_TEST, NULL);
  c.eval.top = 2500;
  c.loss.l2_norm = false, c.loss.temperature = 1;
  check(&c, SH_QUERY_TEST, NULL);
  c.model.request_time = false;
  check(&c, SH_QUERY_TEST, NULL);
  snprintf(c.data.path, sizeof c.data.path, "%s", timeless);
  check(&c, SH_QUERY_TEST, NULL);
}

/* The target is among the candidates it is compared with: its score must be the same number both times, whatever the
 * kernels, the width and the number of queries scored together. */
static void test_kernels(void **state) {
  (void)state;
  const char *names[8];
  int n = sh_kernels_available(names);
  static const int64_t users[] = {1, 3, 33, 64}, widths[] = {4, 16, 50, 60};
  for (int k = 0; k < n; k++)
    for (int i = 0; i < 4; i++) {
      sh_config c = config_of("hstu", "leave-one-out", "none");
      c.eval.users = users[i], c.model.width = widths[i];
      check(&c, SH_QUERY_TEST, names[k]);
    }
}

/* t1 and t2 cut all events at the quantiles asked for, up to the width of a histogram bin. */
static void test_temporal_cuts(void **state) {
  (void)state;
  sh_config c = config_of("hstu", "temporal", "none");
  sh_grid grid;
  sh_trainer t;
  sh_grid_single(&grid);
  assert_int_equal(sh_trainer_create(&t, &c, &grid), SH_OK);
  int64_t n = t.data.events, before[2] = {0, 0};
  int64_t *time = sh_malloc(sizeof *time * (size_t)n);
  assert_int_equal(sh_dataset_times(&t.data, 0, n, time), SH_OK);
  for (int64_t i = 0; i < n; i++) before[0] += time[i] < t.samples.t1, before[1] += time[i] < t.samples.t2;
  assert_true(fabs((double)before[0] / (double)n - c.data.valid_quantile) < 0.02);
  assert_true(fabs((double)before[1] / (double)n - c.data.test_quantile) < 0.02);
  for (int64_t i = 0; i < t.samples.n; i++) { /* no training sequence reaches the first cut */
    sh_sample s = sh_samples_get(&t.samples, i);
    assert_true(time[s.first + s.length] < t.samples.t1);
  }
  free(time);
  sh_trainer_destroy(&t);
  sh_grid_destroy(&grid);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_oracle_exact),  cmocka_unit_test(test_oracle_ties),    cmocka_unit_test(test_rank_by_hand),
      cmocka_unit_test(test_protocols),     cmocka_unit_test(test_cut_and_scores), cmocka_unit_test(test_kernels),
      cmocka_unit_test(test_temporal_cuts),
  };
  return with_skipped(cmocka_run_group_tests(tests, setup, folder_remove));
}
