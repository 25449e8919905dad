/* shoal prepare on real files, where SHOAL_TEST_DATA names a folder with data/ml-1m and others; skipped elsewhere. */
#include "prepare_files.h"
#include "support/skipped.h"

typedef struct real_set {
  const char *format, *columns, *items;
  const char *inputs[3];
  int64_t users, items_n, candidates, events, time_min, time_max;
} real_set;

static const real_set sets[] = {
    {"movielens", NULL, "ml-1m/movies.dat", {"ml-1m/ratings.dat.gz"}, 6040, 3883, 3883, 1000209, 956703932, 1046454590},
    {"movielens", NULL, "ml-100k/u.item", {"ml-100k/u.data"}, 943, 1682, 1682, 100000, 874724710, 893286638},
    {"sequences", NULL, NULL, {"amazon-beauty/Beauty.txt.gz"}, 22363, 12101, 12101, 198502, 0, 0},
    {"tsv",
     "user=1,item=2,time=3",
     NULL,
     {"amazon-beauty/timestamps/train.txt.gz", "amazon-beauty/timestamps/valid.txt.gz",
      "amazon-beauty/timestamps/test.txt.gz"},
     22363,
     12101,
     12101,
     198502,
     1023840000,
     1406073600},
    {"sequences",
     NULL,
     NULL,
     {"gowalla/train.txt.gz", "gowalla/valid.txt.gz", "gowalla/test.txt.gz"},
     29858,
     40981,
     40981,
     1027370,
     0,
     0},
    {"sessions", NULL, NULL, {"diginetica/train_sessions.txt.gz"}, 186670, 43097, 43097, 906140, 0, 0},
};

static void published_counts(void **state) {
  (void)state;
  const char *root = getenv("SHOAL_TEST_DATA");
  if (!root) SKIP_TEST("no real data is prepared: SHOAL_TEST_DATA is not set");
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    const real_set *s = &sets[i];
    char file[4][512];
    const char *inputs[3];
    sh_prepare_options o = {
        .format = s->format, .inputs = inputs, .columns = s->columns, .no_header = s->columns != NULL};
    for (; o.ninputs < 3 && s->inputs[o.ninputs]; o.ninputs++) {
      snprintf(file[o.ninputs], sizeof file[0], "%s/data/%s", root, s->inputs[o.ninputs]);
      inputs[o.ninputs] = file[o.ninputs];
    }
    snprintf(file[3], sizeof file[3], "%s/data/%s", root, s->items ? s->items : "");
    if (s->items) o.items = file[3];
    o.output = in_folder("out.h5");
    if (access(inputs[0], R_OK) != 0) {
      fprintf(stderr, "SKIPPED: %s is not there\n", inputs[0]);
      continue;
    }
    sh_data_report r;
    if (sh_prepare(&o, &r, NULL) != SH_OK) fail_msg("%s", sh_error_message());
    assert_int_equal(r.users, s->users);
    assert_int_equal(r.items, s->items_n);
    assert_int_equal(r.candidates, s->candidates);
    assert_int_equal(r.events, s->events);
    assert_int_equal(r.time_min, s->time_min);
    assert_int_equal(r.time_max, s->time_max);
    assert_int_equal(sh_data_verify(in_folder("out.h5")), SH_OK);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(published_counts)};
  return with_skipped(cmocka_run_group_tests(tests, folder_make, folder_remove));
}
