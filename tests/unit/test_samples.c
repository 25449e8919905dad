/* From a data set to batches: splits, the order of an epoch, dealing. In the data set of these tests an event's item is
 * its place in the file, so that a batch tells which events it was made of. */
#include "prepare_files.h"

#include <math.h>

#include "core/arena.h"
#include "data/loader.h"
#include "support/make_batch.h"

enum { USERS = 60, MAX_LEN = 6, MOST_EVENTS = 2000 };

static sh_dataset data, timeless;
static int64_t times[MOST_EVENTS];

/* Users of 1 .. 24 events; times rise within a user, and users overlap. */
static int make_data(void **state) {
  static int64_t offsets[USERS + 1];
  static int32_t items[MOST_EVENTS];
  if (folder_make(state)) return -1;
  for (int u = 0; u < USERS; u++) {
    offsets[u + 1] = offsets[u] + 1 + (u < 12 ? u : (int64_t)(sh_make_bits(5, u) % 24));
    int64_t now = (int64_t)(sh_make_bits(6, u) % 3000);
    for (int64_t e = offsets[u]; e < offsets[u + 1]; e++) {
      times[e] = now;
      now += (int64_t)(sh_make_bits(7, e) % 300);
    }
  }
  int64_t events = offsets[USERS];
  for (int64_t e = 0; e < events; e++) items[e] = (int32_t)e;
  sh_dataset_content c = {.name = "small",
                          .provenance = "a test",
                          .users = USERS,
                          .events = events,
                          .items = events,
                          .offsets = offsets,
                          .item = items,
                          .time = times};
  if (sh_dataset_write(&c, in_folder("a.h5")) != SH_OK) return -1;
  c.time = NULL;
  if (sh_dataset_write(&c, in_folder("b.h5")) != SH_OK) return -1;
  return sh_dataset_open(&data, in_folder("a.h5")) != SH_OK || sh_dataset_open(&timeless, in_folder("b.h5")) != SH_OK;
}

static int remove_data(void **state) {
  sh_dataset_close(&data);
  sh_dataset_close(&timeless);
  return folder_remove(state);
}

static sh_samples samples_of(const char *split, const char *window, int64_t min_history) {
  sh_config conf;
  sh_samples s;
  sh_config_defaults(&conf);
  strcpy(conf.data.split, split);
  strcpy(conf.data.window, window);
  conf.data.min_history = min_history;
  if (sh_samples_create(&s, &data, &conf.data, MAX_LEN) != SH_OK) fail_msg("%s", sh_error_message());
  return s;
}

static int64_t events_of(int64_t u) { return data.offsets[u + 1] - data.offsets[u]; }

/* ---- splits ---- */

/* The training samples of a train part of train[u] events are what the header says. */
static void check_training(const sh_samples *s, const int64_t *train, bool all, int64_t min_history) {
  static int targets[MOST_EVENTS];
  int64_t tokens = 0, skipped = 0;
  memset(targets, 0, sizeof targets);
  for (int64_t i = 0; i < s->n; i++) {
    sh_sample x = sh_samples_get(s, i);
    int64_t first = data.offsets[x.user], end = first + train[x.user];
    assert_true(x.length >= 1 && x.length <= MAX_LEN);
    assert_true(x.first >= first && x.first + x.length < end);
    if (!all) assert_true(x.first + x.length == end - 1 && (x.length == MAX_LEN || x.first == first));
    for (int64_t k = 1; k <= x.length; k++) targets[x.first + k]++;
    for (int64_t j = 0; j < i; j++) assert_true(sh_samples_get(s, j).id != x.id);
    tokens += x.length;
  }
  assert_int_equal(s->train_tokens, tokens);
  for (int64_t u = 0; u < USERS; u++) {
    bool used = train[u] >= 2 && train[u] - 1 >= min_history;
    skipped += !used;
    for (int64_t e = 0; e < events_of(u); e++) { /* every event but the first is a target once, or in the last window */
      bool target = used && e >= 1 && e < train[u] && (all || e >= train[u] - MAX_LEN);
      assert_int_equal(targets[data.offsets[u] + e], target);
    }
  }
  assert_int_equal(s->skipped_users, skipped);
}

/* A user's query of a kind predicts event `target` of the user; -1: there is none. */
static void check_query(const sh_samples *s, sh_query_kind kind, int64_t user, int64_t target) {
  sh_sample x;
  int64_t seen = -1;
  bool some = sh_samples_query(s, kind, user, &x, &seen);
  assert_int_equal(some, target >= 1);
  if (!some) return;
  assert_int_equal(x.first + x.length, data.offsets[user] + target);
  assert_int_equal(x.length, target < MAX_LEN ? target : MAX_LEN);
  assert_int_equal(seen, data.offsets[user]);
  assert_int_equal(x.user, user);
}

static void leave_out(void **state) {
  (void)state;
  for (int out = 1; out <= 2; out++)
    for (int all = 0; all < 2; all++)
      for (int64_t min_history = 1; min_history <= 5; min_history += 4) {
        sh_samples s = samples_of(out == 1 ? "leave-one-out" : "leave-two-out", all ? "all" : "last", min_history);
        int64_t train[USERS];
        for (int64_t u = 0; u < USERS; u++) {
          int64_t n = events_of(u);
          train[u] = n > out ? n - out : 0;
          check_query(&s, SH_QUERY_TEST, u, n - 1);
          check_query(&s, SH_QUERY_VALID, u, n - out);
        }
        check_training(&s, train, all, min_history);
        sh_samples_destroy(&s);
      }
}

static void temporal(void **state) {
  (void)state;
  sh_samples s = samples_of("temporal", "all", 1);
  int64_t train[USERS], before[2] = {0};
  assert_true(s.t1 < s.t2);
  for (int64_t e = 0; e < data.events; e++) before[0] += times[e] < s.t1, before[1] += times[e] < s.t2;
  assert_true(fabs((double)before[0] / (double)data.events - 0.8) < 0.01); /* ties and bins leave a little */
  assert_true(fabs((double)before[1] / (double)data.events - 0.9) < 0.01);
  for (int64_t u = 0; u < USERS; u++) {
    int64_t valid = -1, test = -1;
    train[u] = 0;
    for (int64_t e = 0; e < events_of(u); e++) {
      int64_t time = times[data.offsets[u] + e];
      if (time < s.t1) train[u] = e + 1;
      if (time >= s.t1 && time < s.t2 && valid < 0) valid = e;
      if (time >= s.t2 && test < 0) test = e;
    }
    check_query(&s, SH_QUERY_VALID, u, valid);
    check_query(&s, SH_QUERY_TEST, u, test);
  }
  check_training(&s, train, true, 1);
  sh_samples_destroy(&s);
}

static void refused(void **state) {
  (void)state;
  sh_config conf;
  sh_samples s;
  sh_config_defaults(&conf);
  conf.data.min_history = 1000;
  assert_int_equal(sh_samples_create(&s, &data, &conf.data, MAX_LEN), SH_ERR_DATA);
  sh_samples_destroy(&s);
  sh_config_defaults(&conf);
  strcpy(conf.data.split, "temporal");
  assert_int_equal(sh_samples_create(&s, &timeless, &conf.data, MAX_LEN), SH_ERR_USAGE);
  sh_samples_destroy(&s);
}

/* ---- order ---- */

static void order_is_a_permutation(void **state) {
  (void)state;
  static const int64_t counts[] = {1, 2, 3, 7, 8, 9, 63, 64, 65, 1000, 4097}, blocks[] = {1, 2, 3, 8, 64, 8192};
  static uint8_t seen[4097];
  static int64_t at[2][4097];
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    for (size_t k = 0; k < sizeof blocks / sizeof *blocks; k++) {
      int64_t n = counts[i], moved = 0;
      sh_order o;
      sh_order_create(&o, n, blocks[k]);
      for (uint32_t epoch = 0; epoch < 2; epoch++) {
        memset(seen, 0, sizeof seen);
        sh_order_epoch(&o, 3, epoch);
        for (int64_t p = 0; p < n; p++) {
          int64_t x = at[epoch][p] = sh_order_at(&o, p);
          assert_true(x >= 0 && x < n && !seen[x]);
          seen[x] = 1;
        }
      }
      for (int64_t p = 0; p < n; p++) moved += at[0][p] != at[1][p];
      if (n >= 63) assert_true(moved > n / 2);
      sh_order_epoch(&o, 3, 0); /* a function of seed and epoch alone */
      for (int64_t p = 0; p < n; p++) assert_int_equal(sh_order_at(&o, p), at[0][p]);
      sh_order_epoch(&o, 4, 0);
      moved = 0;
      for (int64_t p = 0; p < n; p++) moved += sh_order_at(&o, p) != at[0][p];
      if (n >= 63) assert_true(moved > n / 2);
      sh_order_destroy(&o);
    }
}

/* First and last place get every sample about equally often. */
static void order_is_even(void **state) {
  (void)state;
  enum { N = 20, EPOCHS = 4000 };
  int count[2][N] = {{0}};
  sh_order o;
  sh_order_create(&o, N, 3);
  for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
    sh_order_epoch(&o, 1, epoch);
    count[0][sh_order_at(&o, 0)]++;
    count[1][sh_order_at(&o, N - 1)]++;
  }
  /* The last place is not fully even when the last block is short (20 = 6 * 3 + 2); no sample may be shut out. */
  for (int i = 0; i < N; i++)
    for (int k = 0; k < 2; k++) assert_true(count[k][i] > EPOCHS / N / 2 && count[k][i] < EPOCHS / N * 2);
  sh_order_destroy(&o);
}

/* ---- dealing ---- */

static sh_loader loader_of(const sh_samples *s, int64_t users, int64_t tokens, int micro, bool request, int rank,
                           int ranks) {
  sh_loader l;
  sh_conf_batch conf = {.users = users, .tokens = tokens, .accumulate = micro};
  sh_loader_create(&l, s, &conf, 9, 8, request, rank, ranks);
  sh_loader_cost(&l, 1, 0.05);
  return l;
}

/* A batch holds whole samples of `s`, each marked in samples_seen[index of sample]. */
static void check_batch(const sh_samples *s, const sh_batch *b, bool request, int *samples_seen) {
  assert_int_equal(b->offsets[0], 0);
  assert_int_equal(b->offsets[b->B], b->T);
  for (int64_t q = 0; q < b->B; q++) {
    int64_t index = 0;
    while (index < s->n && sh_samples_get(s, index).id != b->sample[q]) index++;
    assert_true(index < s->n);
    sh_sample x = sh_samples_get(s, index);
    samples_seen[index]++;
    assert_int_equal(b->offsets[q + 1] - b->offsets[q], x.length);
    for (int32_t i = 0, t = b->offsets[q]; i < x.length; i++, t++) {
      assert_int_equal(b->item[t], x.first + i);
      assert_int_equal(b->target[t], x.first + i + 1);
      assert_int_equal(b->position[t], i);
      assert_int_equal(b->sequence[t], q);
      if (!s->data->has_time) continue;
      assert_int_equal(b->time[t], times[x.first + i]);
      assert_int_equal(b->next_time[t], times[x.first + i + request]);
    }
  }
  assert_true(s->data->has_time ? b->time != NULL : b->time == NULL && b->next_time == NULL);
}

/* One epoch on every rank of a grid: the same global batches as `batch_of` (the step of each sample, -1 at first). */
static void check_epoch(const sh_samples *s, int64_t users, int64_t tokens, int ranks, int micro, int *batch_of) {
  sh_arena arena;
  sh_arena_init(&arena, "batch");
  static sh_loader l[8];
  int *seen = sh_calloc((size_t)s->n, sizeof *seen);
  for (int r = 0; r < ranks; r++) l[r] = loader_of(s, users, tokens, micro, true, r, ranks);
  int64_t steps = sh_loader_steps(&l[0], 2);
  for (int64_t step = 0; step < steps; step++) {
    sh_arena_reset(&arena);
    int64_t all_tokens = 0, all_users = 0;
    double top = 0, sum = 0, imbalance = 0;
    int *here = SH_ARENA_ZNEW(&arena, int, s->n);
    sh_global_batch g;
    for (int r = 0; r < ranks; r++) {
      assert_int_equal(sh_loader_steps(&l[r], 2), steps);
      assert_int_equal(sh_loader_read(&l[r], 2, step, 100 + step, &arena, &g), SH_OK);
      assert_int_equal(g.nmicro, micro);
      if (r > 0) assert_true(g.imbalance == imbalance);
      imbalance = g.imbalance;
      int64_t mine = 0;
      for (int m = 0; m < micro; m++) {
        double load = 0;
        check_batch(s, &g.micro[m], true, here);
        assert_int_equal(g.micro[m].epoch, 2);
        assert_int_equal(g.micro[m].step, 100 + step);
        for (int64_t q = 0; q < g.micro[m].B; q++) {
          double n = g.micro[m].offsets[q + 1] - g.micro[m].offsets[q];
          load += n + 0.05 * n * n;
        }
        mine += g.micro[m].T, all_users += g.micro[m].B;
        sum += load, top = fmax(top, load);
      }
      assert_int_equal(g.tokens, mine);
      all_tokens += mine;
    }
    assert_int_equal(g.global_tokens, all_tokens);
    assert_int_equal(g.global_users, all_users);
    assert_true(fabs(imbalance - top * ranks * micro / sum) < 1e-9);
    if (users >= 24 && tokens == 0 && step < steps - 1 && ranks * micro <= 4) assert_true(imbalance < 1.2);
    for (int64_t i = 0; i < s->n; i++) {
      seen[i] += here[i];
      if (here[i] && batch_of[i] < 0) batch_of[i] = (int)step;
      if (here[i]) assert_int_equal(batch_of[i], step);
    }
  }
  for (int64_t i = 0; i < s->n; i++) assert_int_equal(seen[i], 1);
  for (int r = 0; r < ranks; r++) sh_loader_destroy(&l[r]);
  free(seen);
  sh_arena_free(&arena);
}

static void every_sample_once_on_every_grid(void **state) {
  (void)state;
  static const struct { int64_t users, tokens; } batches[] = {{24, 0}, {1, 0}, {1000, 0}, {8, 50}, {8, 1}, {8, 100000}};
  sh_samples s = samples_of("leave-one-out", "all", 1);
  for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
    int *batch_of = sh_malloc(sizeof *batch_of * (size_t)s.n);
    for (int64_t k = 0; k < s.n; k++) batch_of[k] = -1;
    for (int ranks = 1; ranks <= 8; ranks++)
      for (int micro = 1; micro <= 3; micro++)
        check_epoch(&s, batches[i].users, batches[i].tokens, ranks, micro, batch_of);
    free(batch_of);
  }
  sh_samples_destroy(&s);
}

/* Batches by tokens hold as many samples as fit, and one at least. */
static void batches_by_tokens(void **state) {
  (void)state;
  sh_samples s = samples_of("leave-one-out", "last", 1);
  sh_arena arena;
  sh_arena_init(&arena, "batch");
  for (int64_t limit = 3; limit < 80; limit += 19) {
    sh_loader l = loader_of(&s, 1, limit, 1, true, 0, 1);
    int64_t position = 0, steps = sh_loader_steps(&l, 0);
    for (int64_t step = 0; step < steps; step++) {
      sh_global_batch g;
      assert_int_equal(sh_loader_read(&l, 0, step, step, &arena, &g), SH_OK);
      assert_true(g.global_users >= 1 && (g.global_tokens <= limit || g.global_users == 1));
      position += g.global_users;
      if (position < s.n)
        assert_true(g.global_tokens + sh_samples_get(&s, sh_order_at(&l.order, position)).length > limit);
    }
    assert_int_equal(position, s.n);
    sh_loader_destroy(&l);
    sh_arena_reset(&arena);
  }
  sh_arena_free(&arena);
  sh_samples_destroy(&s);
}

/* A loader that starts in the middle reads what one reads that came there. */
static void from_the_middle(void **state) {
  (void)state;
  sh_samples s = samples_of("leave-one-out", "last", 1);
  sh_arena arena;
  sh_arena_init(&arena, "batch");
  for (int64_t tokens = 0; tokens <= 40; tokens += 40) {
    sh_loader walked = loader_of(&s, 7, tokens, 2, true, 1, 3), fresh = loader_of(&s, 7, tokens, 2, true, 1, 3);
    sh_global_batch a, b;
    for (int64_t epoch = 0; epoch < 3; epoch++)
      for (int64_t step = 0; step < sh_loader_steps(&walked, epoch) && (epoch < 2 || step < 4); step++)
        assert_int_equal(sh_loader_read(&walked, epoch, step, 0, &arena, &a), SH_OK);
    assert_int_equal(sh_loader_read(&fresh, 2, 3, 0, &arena, &b), SH_OK);
    assert_int_equal(a.tokens, b.tokens);
    for (int m = 0; m < 2; m++) {
      assert_int_equal(a.micro[m].B, b.micro[m].B);
      assert_memory_equal(a.micro[m].sample, b.micro[m].sample, sizeof(int64_t) * (size_t)a.micro[m].B);
      assert_memory_equal(a.micro[m].item, b.micro[m].item, sizeof(int64_t) * (size_t)a.micro[m].T);
    }
    sh_loader_destroy(&walked);
    sh_loader_destroy(&fresh);
  }
  sh_arena_free(&arena);
  sh_samples_destroy(&s);
}

/* The own time instead of the request's; a set without times. */
static void times_of_a_batch(void **state) {
  (void)state;
  sh_config conf;
  sh_config_defaults(&conf);
  for (int k = 0; k < 2; k++) {
    sh_samples s;
    sh_arena arena;
    sh_global_batch g;
    sh_arena_init(&arena, "batch");
    assert_int_equal(sh_samples_create(&s, k ? &timeless : &data, &conf.data, MAX_LEN), SH_OK);
    sh_loader l = loader_of(&s, 1000, 0, 1, false, 0, 1);
    int *seen = SH_ARENA_ZNEW(&arena, int, s.n);
    assert_int_equal(sh_loader_read(&l, 0, 0, 0, &arena, &g), SH_OK);
    check_batch(&s, &g.micro[0], false, seen);
    sh_loader_destroy(&l);
    sh_samples_destroy(&s);
    sh_arena_free(&arena);
  }
}

/* ---- queries ---- */

static void batches_of_queries(void **state) {
  (void)state;
  sh_samples s = samples_of("leave-two-out", "last", 1);
  sh_sample query[USERS];
  sh_arena arena;
  sh_arena_init(&arena, "batch");
  int64_t n = 0, seen;
  for (int64_t u = 0; u < USERS; u++) n += sh_samples_query(&s, SH_QUERY_VALID, u, &query[n], &seen);
  for (int request = 0; request < 2; request++)
    for (int with_target = 0; with_target < 2; with_target++) {
      sh_batch b;
      assert_int_equal(sh_loader_queries(&s, request, with_target, query, n, &arena, &b), SH_OK);
      assert_int_equal(b.B, n);
      for (int64_t q = 0; q < n; q++) {
        int32_t last = b.offsets[q + 1] - 1;
        int64_t event = query[q].first + query[q].length;
        assert_int_equal(b.offsets[q + 1] - b.offsets[q], query[q].length);
        for (int32_t t = b.offsets[q]; t <= last; t++) {
          int64_t at = query[q].first + t - b.offsets[q];
          assert_int_equal(b.item[t], at);
          assert_int_equal(b.time[t], times[at]);
          assert_int_equal(b.position[t], t - b.offsets[q]);
          if (t < last) assert_int_equal(b.next_time[t], times[at + request]);
        }
        assert_int_equal(b.target[last], with_target ? event : -1);
        assert_int_equal(b.next_time[last], times[request && with_target ? event : event - 1]);
      }
    }
  sh_arena_free(&arena);
  sh_samples_destroy(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(leave_out),         cmocka_unit_test(temporal),
      cmocka_unit_test(refused),           cmocka_unit_test(order_is_a_permutation),
      cmocka_unit_test(order_is_even),     cmocka_unit_test(every_sample_once_on_every_grid),
      cmocka_unit_test(batches_by_tokens), cmocka_unit_test(from_the_middle),
      cmocka_unit_test(times_of_a_batch),  cmocka_unit_test(batches_of_queries),
  };
  return cmocka_run_group_tests(tests, make_data, remove_data);
}
