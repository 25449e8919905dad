/* The synthetic process against a second, slow restatement from docs/FORMATS.md, and against its own samples. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/arena.h"
#include "data/dataset.h"
#include "data/synth.h"
#include "shoal/data.h"

typedef struct set {
  sh_synth_process p;
  int64_t *offsets, *time;
  int32_t *item;
  double optimum[SH_SYNTH_METRICS];
} set;

static void make(set *s, const sh_synth_options *o) {
  assert_int_equal(sh_synth_process_open(&s->p, o), SH_OK);
  s->offsets = sh_calloc((size_t)o->users + 1, sizeof *s->offsets);
  for (int64_t u = 0; u < o->users; u++) s->offsets[u + 1] = s->offsets[u] + sh_synth_length(&s->p, u);
  s->item = sh_malloc((size_t)s->offsets[o->users] * sizeof *s->item);
  s->time = sh_malloc((size_t)s->offsets[o->users] * sizeof *s->time);
  sh_synth_generate(&s->p, s->offsets, s->item, s->time, s->optimum);
}

static void drop(set *s) {
  sh_synth_process_close(&s->p);
  free(s->offsets);
  free(s->item);
  free(s->time);
}

static sh_synth_options tiny_options(int64_t users) {
  return (sh_synth_options){.users = users,
                            .items = 6,
                            .mean_length = 4,
                            .min_length = 4,
                            .max_length = 4,
                            .topic_size = 2,
                            .short_share = 0.4,
                            .noise = 0.35,
                            .topic_decay = 1,
                            .evergreen_decay = 0.8,
                            .seed = 5,
                            .threads = 2};
}

static sh_synth_options small_options(void) {
  sh_synth_options o;
  assert_int_equal(sh_synth_preset(&o, "toy"), SH_OK);
  o.topic_size = 4, o.items = 90, o.min_length = 2, o.mean_length = 30, o.max_length = 85; /* topics do run out */
  return o;
}

/* The distribution over ids of event n of a sequence, written from the documentation: no counters, no supports. */
static void restated(const sh_synth_process *p, const int32_t *item, const int64_t *time, int64_t n, int64_t t,
                     double *out) {
  int64_t V = p->o.items, C = p->topics, M = p->topic_size, topic = -1;
  bool *seen = sh_calloc((size_t)V, 1);
  double *left = sh_calloc((size_t)C, sizeof *left), evergreen = 0, open = 0;
  for (int64_t e = 0; e < n; e++) seen[item[e]] = true;
  for (int64_t v = 0; v < V; v++) {
    out[v] = 0;
    if (seen[v]) continue;
    int64_t i = p->index[v];
    if (i >= C * M)
      evergreen += pow((double)(i - C * M + 1), -p->o.evergreen_decay);
    else
      left[i / M] += pow((double)(i % M + 1), -p->o.topic_decay);
  }
  for (int64_t c = 0; c < C; c++) open += left[c] > 0;
  bool same = n > 0 && t - time[n - 1] < 3600, found = false;
  for (int64_t e = 0; e < n; e++) /* in order: the last one stands */
    if (p->index[item[e]] < C * M && t - time[e] >= 18 * 3600)
      topic = p->successor[p->index[item[e]] / M], found = true;
  for (int64_t e = 0; e < n && !found && same; e++)
    if (p->index[item[e]] < C * M) topic = p->index[item[e]] / M;
  double noise = same ? p->o.noise : 0;
  if (evergreen == 0) noise = 0;
  if (open == 0) noise = 1;
  for (int64_t v = 0; v < V; v++) {
    int64_t i = p->index[v];
    if (seen[v]) continue;
    if (i >= C * M)
      out[v] = noise * pow((double)(i - C * M + 1), -p->o.evergreen_decay) / evergreen;
    else if (topic < 0 || left[topic] == 0)
      out[v] = (1 - noise) / open * pow((double)(i % M + 1), -p->o.topic_decay) / left[i / M];
    else if (i / M == topic)
      out[v] = (1 - noise) * pow((double)(i % M + 1), -p->o.topic_decay) / left[topic];
  }
  free(seen);
  free(left);
}

static int descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* Every conditional, not only those of test events, and the optimum from dense distributions. */
static void check_restated(const sh_synth_options *o) {
  set s;
  make(&s, o);
  int64_t V = s.p.o.items, cold = 0;
  double *want = sh_malloc((size_t)V * sizeof *want), *late = sh_malloc((size_t)V * sizeof *late);
  double *have = sh_malloc((size_t)V * sizeof *have), sum[SH_SYNTH_METRICS] = {0};
  sh_synth_history h;
  sh_synth_history_open(&h, &s.p);
  for (int64_t u = 0; u < o->users; u++) {
    const int32_t *item = s.item + s.offsets[u];
    const int64_t *time = s.time + s.offsets[u];
    int64_t length = s.offsets[u + 1] - s.offsets[u];
    sh_synth_history_clear(&h);
    for (int64_t n = 0; n < length; n++) {
      restated(&s.p, item, time, n, time[n], want);
      sh_synth_conditional c = sh_synth_condition(&h, time[n]);
      double total = 0;
      for (int64_t v = 0; v < V; v++) {
        have[v] = sh_synth_probability(&h, &c, s.p.index[v]);
        total += have[v];
        assert_true(fabs(have[v] - want[v]) < 1e-13);
      }
      assert_true(fabs(total - 1) < 1e-12);
      assert_true(want[item[n]] > 0);
      cold += c.topic < 0;
      sh_synth_history_push(&h, s.p.index[item[n]], time[n]);
    }
    restated(&s.p, item, time, length - 1, time[length - 1], want);
    qsort(want, (size_t)V, sizeof *want, descending);
    for (int64_t r = 0; r < V; r++) {
      sum[SH_SYNTH_HR1] += r < 1 ? want[r] : 0, sum[SH_SYNTH_HR10] += r < 10 ? want[r] : 0;
      sum[SH_SYNTH_HR50] += r < 50 ? want[r] : 0, sum[SH_SYNTH_HR200] += r < 200 ? want[r] : 0;
      double gain = want[r] / log2((double)r + 2);
      sum[SH_SYNTH_NDCG10] += r < 10 ? gain : 0, sum[SH_SYNTH_NDCG50] += r < 50 ? gain : 0;
      sum[SH_SYNTH_NDCG200] += r < 200 ? gain : 0, sum[SH_SYNTH_MRR] += want[r] / (double)(r < 2500 ? r + 1 : 2501);
    }
    restated(&s.p, item, time, length - 1, time[length - 2] + 60, want);
    restated(&s.p, item, time, length - 1, time[length - 2] + 12 * 3600, late);
    for (int64_t v = 0; v < V; v++) want[v] = o->short_share * want[v] + (1 - o->short_share) * late[v];
    qsort(want, (size_t)V, sizeof *want, descending);
    for (int64_t r = 0; r < 10 && r < V; r++) sum[SH_SYNTH_HR10_NO_TIME] += want[r];
  }
  for (int m = 0; m < SH_SYNTH_METRICS; m++) {
    if (fabs(s.optimum[m] - sum[m] / (double)o->users) > 1e-11)
      fail_msg("%s: %.15g, restated %.15g", sh_synth_metric_name[m], s.optimum[m], sum[m] / (double)o->users);
  }
  assert_true(cold > 0);
  sh_synth_history_close(&h);
  free(want), free(late), free(have);
  drop(&s);
}

static void test_conditional_and_optimum(void **state) {
  (void)state;
  sh_synth_options o = tiny_options(500);
  check_restated(&o);
  o.min_length = 2, o.max_length = 6, o.mean_length = 4; /* down to the last item */
  check_restated(&o);
  o = small_options();
  check_restated(&o);
  o.items = 3300, o.users = 60, o.mean_length = 10, o.max_length = 10,
  o.topic_size = 20; /* more than 2500 are ranked */
  check_restated(&o);
}

/* Without any formula: all tiny sequences, grouped by history and kinds of gaps; each group's ranking is counted on one
 * half of the users and judged on the other. Nothing can rank better, and the true order is found within noise. */
static void test_brute_force(void **state) {
  (void)state;
  enum { USERS = 400000, GROUPS = 6 * 6 * 6 * 8 };
  sh_synth_options o = tiny_options(USERS);
  set s;
  make(&s, &o);
  static double count[2][GROUPS][6];
  memset(count, 0, sizeof count);
  for (int64_t u = 0; u < USERS; u++) {
    const int32_t *item = s.item + 4 * u;
    const int64_t *time = s.time + 4 * u;
    int group = (item[0] * 6 + item[1]) * 6 + item[2];
    for (int e = 1; e < 4; e++) group = group * 2 + (time[e] - time[e - 1] < 3600);
    count[u % 2][group][item[3]]++;
  }
  double hr = 0, ndcg = 0, mrr = 0;
  for (int half = 0; half < 2; half++)
    for (int g = 0; g < GROUPS; g++)
      for (int v = 0; v < 6; v++) {
        int rank = 1;
        for (int w = 0; w < 6; w++) {
          double other = count[1 - half][g][w], own = count[1 - half][g][v];
          rank += other > own || (other == own && w < v);
        }
        hr += rank == 1 ? count[half][g][v] : 0;
        ndcg += count[half][g][v] / log2(rank + 1);
        mrr += count[half][g][v] / rank;
      }
  hr /= USERS, ndcg /= USERS, mrr /= USERS;
  print_message("hr@1 %.4f (optimum %.4f), ndcg@10 %.4f (%.4f), mrr %.4f (%.4f)\n", hr, s.optimum[SH_SYNTH_HR1], ndcg,
                s.optimum[SH_SYNTH_NDCG10], mrr, s.optimum[SH_SYNTH_MRR]);
  assert_true(fabs(hr - s.optimum[SH_SYNTH_HR1]) < 0.004);
  assert_true(fabs(ndcg - s.optimum[SH_SYNTH_NDCG10]) < 0.003);
  assert_true(fabs(mrr - s.optimum[SH_SYNTH_MRR]) < 0.003);
  assert_true(hr > 0.2 && hr < 0.9);
  assert_true(fabs(s.optimum[SH_SYNTH_HR10] - 1) < 1e-12);
  drop(&s);
}

/* Draws follow the conditional: -log P of the drawn events is their entropy within error, over all events. */
static void test_likelihood(void **state) {
  (void)state;
  sh_synth_options o = small_options();
  o.users = 2000;
  set s;
  make(&s, &o);
  int64_t V = s.p.o.items;
  double *p = sh_malloc((size_t)V * sizeof *p), excess = 0, variance = 0;
  for (int64_t u = 0; u < o.users; u++)
    for (int64_t e = s.offsets[u]; e < s.offsets[u + 1]; e++) {
      restated(&s.p, s.item + s.offsets[u], s.time + s.offsets[u], e - s.offsets[u], s.time[e], p);
      double mean = 0, square = 0;
      for (int64_t v = 0; v < V; v++)
        if (p[v] > 0) mean -= p[v] * log(p[v]), square += p[v] * log(p[v]) * log(p[v]);
      excess += -log(p[s.item[e]]) - mean, variance += square - mean * mean;
    }
  print_message("excess %.1f, standard deviation %.1f\n", excess, sqrt(variance));
  assert_true(fabs(excess) < 4.5 * sqrt(variance));
  free(p);
  drop(&s);
}

static void test_same_bits(void **state) {
  (void)state;
  sh_synth_options o;
  assert_int_equal(sh_synth_preset(&o, "toy"), SH_OK);
  o.users = 3000;
  set a, b;
  o.threads = 1, make(&a, &o);
  o.threads = 2, make(&b, &o);
  int64_t events = a.offsets[o.users];
  assert_memory_equal(a.offsets, b.offsets, (size_t)(o.users + 1) * sizeof *a.offsets);
  assert_memory_equal(a.item, b.item, (size_t)events * sizeof *a.item);
  assert_memory_equal(a.time, b.time, (size_t)events * sizeof *a.time);
  assert_memory_equal(a.optimum, b.optimum, sizeof a.optimum);
  drop(&b);
  o.users = 100, make(&b, &o); /* a user does not depend on how many there are */
  assert_memory_equal(a.item, b.item, (size_t)b.offsets[100] * sizeof *a.item);
  assert_memory_equal(a.time, b.time, (size_t)b.offsets[100] * sizeof *a.time);
  drop(&b);
  o.seed++, make(&b, &o);
  assert_memory_not_equal(a.item, b.item, 100 * sizeof *a.item);
  drop(&a);
  drop(&b);
}

/* What the default set promises, and that the ideal ranker really gets its expected HR@10 on the drawn events. */
static void test_default_set(void **state) {
  (void)state;
  sh_synth_options o;
  assert_int_equal(sh_synth_preset(&o, "default"), SH_OK);
  set s;
  make(&s, &o);
  double best = s.optimum[SH_SYNTH_HR10], popularity, markov, hits = 0;
  double *p = sh_malloc((size_t)o.items * sizeof *p);
  int64_t *last_user = sh_calloc((size_t)o.items, sizeof *last_user);
  for (int64_t u = 0; u < o.users; u++) {
    int64_t first = s.offsets[u], last = s.offsets[u + 1] - 1;
    assert_in_range(last + 1 - first, 10, 200);
    for (int64_t e = first; e <= last; e++) {
      assert_true(s.item[e] >= 0 && s.item[e] < o.items && last_user[s.item[e]] != u + 1);
      last_user[s.item[e]] = u + 1;
      assert_true(e == first || s.time[e] > s.time[e - 1]);
    }
    restated(&s.p, s.item + first, s.time + first, last - first, s.time[last], p);
    int rank = 1, target = s.item[last];
    for (int v = 0; v < o.items; v++) rank += p[v] > p[target] || (p[v] == p[target] && v < target);
    hits += rank <= 10;
  }
  sh_synth_baselines(o.users, o.items, s.offsets, s.item, &popularity, &markov);
  print_message("%lld events, best HR@10 %.4f, met %.4f; popularity %.3f, Markov %.3f, without time <= %.3f\n",
                (long long)s.offsets[o.users], best, hits / (double)o.users, popularity / best, markov / best,
                s.optimum[SH_SYNTH_HR10_NO_TIME] / best);
  assert_true(fabs((double)s.offsets[o.users] / (double)o.users - o.mean_length) < 1);
  assert_true(fabs(hits / (double)o.users - best) < 4 * sqrt(best * (1 - best) / (double)o.users));
  assert_true(best > 0.5 && best < 0.8);
  assert_true(popularity > 0 && popularity <= 0.35 * best);
  assert_true(markov > popularity && markov <= 0.65 * best);
  assert_true(s.optimum[SH_SYNTH_HR10_NO_TIME] <= 0.9 * best);
  free(p);
  free(last_user);
  drop(&s);
}

/* Counted by hand. */
static void test_baselines(void **state) {
  (void)state;
  enum { ITEMS = 40 };
  /* The only training transition out of 7 leads to 39, the least popular; user 1 ends 7 > 39, user 2 ends 7 > 0. */
  int64_t offsets[] = {0, 3, 6, 9, 22};
  int32_t item[] = {7, 39, 1, 5, 7, 39, 6, 7, 0, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 38};
  double popularity, markov;
  sh_synth_baselines(4, ITEMS, offsets, item, &popularity, &markov);
  /* Popularity: 7 (three), 5 and 6 (two), then 0 1 2 3 4 8 9 10 (11 12 39: one each, larger ids). User 0 (history 7 39,
   * target 1): hit. User 1 (5 7; 39): beyond ten. User 2 (6 7; 0): hit. User 3 (target 38, count 0): unseen by count
   * are 7 39, then 13 14 ... 20: miss. */
  assert_true(popularity == 0.5);
  assert_true(markov == 0.75);
}

static void test_file(void **state) {
  (void)state;
  char path[] = "/tmp/shoal-synth-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  sh_synth_options o;
  sh_synth_summary summary;
  assert_int_equal(sh_synth_preset(&o, "toy"), SH_OK);
  set s;
  make(&s, &o);
  if (sh_synth_make(&o, path, NULL, "test", &summary) != SH_OK) fail_msg("%s", sh_error_message());
  sh_dataset d;
  if (sh_dataset_open(&d, path) != SH_OK) fail_msg("%s", sh_error_message());
  assert_int_equal(d.users, o.users);
  assert_int_equal(d.items, o.items);
  assert_int_equal(d.ncandidates, o.items);
  assert_true(d.has_time && !d.has_action);
  assert_memory_equal(d.offsets, s.offsets, (size_t)(o.users + 1) * sizeof *d.offsets);
  int64_t item[5], time[5];
  int64_t at = s.offsets[17];
  assert_int_equal(sh_dataset_items(&d, at, 5, item), SH_OK);
  assert_int_equal(sh_dataset_times(&d, at, 5, time), SH_OK);
  for (int e = 0; e < 5; e++) {
    assert_int_equal(item[e], s.item[at + e]);
    assert_int_equal(time[e], s.time[at + e]);
  }
  for (int m = 0; m < SH_SYNTH_METRICS; m++) {
    double value;
    assert_int_equal(sh_dataset_optimum(&d, sh_synth_metric_name[m], &value), SH_OK);
    assert_true(value == s.optimum[m] && value == summary.optimum[m]);
  }
  char key[16];
  assert_int_equal(sh_dataset_user_key(&d, 299, key, sizeof key), SH_OK);
  assert_string_equal(key, "u299");
  assert_int_equal(sh_dataset_item_key(&d, 10, key, sizeof key), SH_OK);
  assert_string_equal(key, "i10");
  sh_dataset_close(&d);
  drop(&s);
  unlink(path);
}

static void test_bad_options(void **state) {
  (void)state;
  sh_synth_options o;
  sh_synth_process p;
  assert_int_equal(sh_synth_preset(&o, "huge"), SH_ERR_USAGE);
  assert_non_null(strstr(sh_error_message(), "toy, default or large"));
  struct {
    int64_t users, items, min, max, topic;
    double mean;
    const char *expect;
  } bad[] = {
      {0, 100, 5, 50, 0, 20, "users is 0"},          {9, 5, 5, 5, 0, 5, "items is 5"},
      {9, 100, 5, 101, 0, 20, "max-length is 101"},  {9, 100, 1, 50, 0, 20, "min-length is 1"},
      {9, 100, 5, 50, 41, 20, "at least 2 topics"},  {9, 100, 5, 50, 0, 4, "mean-length is 4"},
      {9, 100, 5, 50, 0, NAN, "mean-length is nan"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(sh_synth_preset(&o, "toy"), SH_OK);
    o.users = bad[i].users, o.items = bad[i].items, o.min_length = bad[i].min, o.max_length = bad[i].max;
    o.topic_size = bad[i].topic, o.mean_length = bad[i].mean;
    assert_int_equal(sh_synth_process_open(&p, &o), SH_ERR_USAGE);
    if (!strstr(sh_error_message(), bad[i].expect)) fail_msg("%s: %s", bad[i].expect, sh_error_message());
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_conditional_and_optimum),
      cmocka_unit_test(test_brute_force),
      cmocka_unit_test(test_likelihood),
      cmocka_unit_test(test_same_bits),
      cmocka_unit_test(test_default_set),
      cmocka_unit_test(test_baselines),
      cmocka_unit_test(test_file),
      cmocka_unit_test(test_bad_options),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
