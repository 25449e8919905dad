/* The data set file: what is written is read again; files that are none, truncated or damaged are refused. */
#include "prepare_files.h"

#include "mpi/h5par.h"

enum { USERS = 3, EVENTS = 6, ITEMS = 4 };
static const int64_t offsets[] = {0, 2, 2, 6}, times[] = {5, 5, 1, 2, 3, 4}, candidates[] = {0, 2, 3};
static const int32_t items[] = {3, 0, 2, 2, 3, 3};
static const float actions[] = {1, 2, 3, 4, 5, 6.5f};
static const int64_t user_keys[] = {0, 1, 3, 6}, item_keys[] = {0, 1, 2, 3, 4};
static const char *const optimum_name[] = {"hr@10", "ndcg@10"};
static const double optimum[] = {0.5, 0.25};

static sh_dataset_content content(void) {
  return (sh_dataset_content){.name = "small",
                              .provenance = "a test",
                              .users = USERS,
                              .events = EVENTS,
                              .items = ITEMS,
                              .offsets = offsets,
                              .item = items,
                              .time = times,
                              .action = actions,
                              .ncandidates = 3,
                              .candidates = candidates,
                              .user_key_offsets = user_keys,
                              .user_key_bytes = "ubbccc",
                              .item_key_offsets = item_keys,
                              .item_key_bytes = "wxyz",
                              .noptimum = 2,
                              .optimum_name = optimum_name,
                              .optimum = optimum};
}

static void write_small(void) {
  sh_dataset_content c = content();
  if (sh_dataset_write(&c, in_folder("out.h5")) != SH_OK) fail_msg("%s", sh_error_message());
}

static void round_trip(void **state) {
  (void)state;
  sh_dataset d;
  write_small();
  assert_int_not_equal(access(in_folder("out.h5.partial"), F_OK), 0);
  if (sh_dataset_open(&d, in_folder("out.h5")) != SH_OK) fail_msg("%s", sh_error_message());
  assert_string_equal(d.name, "small");
  assert_int_equal(d.users, USERS);
  assert_int_equal(d.events, EVENTS);
  assert_int_equal(d.items, ITEMS);
  assert_memory_equal(d.offsets, offsets, sizeof offsets);
  assert_int_equal(d.ncandidates, 3);
  assert_memory_equal(d.candidates, candidates, sizeof candidates);
  int64_t got[EVENTS], t[EVENTS];
  float a[EVENTS];
  char key[8];
  double best;
  sh_dataset_willneed(&d, 0, EVENTS);
  assert_int_equal(sh_dataset_items(&d, 1, 5, got), SH_OK);
  for (int i = 0; i < 5; i++) assert_int_equal(got[i], items[i + 1]);
  assert_int_equal(sh_dataset_times(&d, 0, EVENTS, t), SH_OK);
  assert_memory_equal(t, times, sizeof times);
  assert_int_equal(sh_dataset_actions(&d, 0, EVENTS, a), SH_OK);
  assert_memory_equal(a, actions, sizeof actions);
  assert_int_equal(sh_dataset_user_key(&d, 2, key, sizeof key), SH_OK);
  assert_string_equal(key, "ccc");
  assert_int_equal(sh_dataset_user_key(&d, 2, key, 3), SH_OK);
  assert_string_equal(key, "cc");
  assert_int_equal(sh_dataset_item_key(&d, 3, key, sizeof key), SH_OK);
  assert_string_equal(key, "z");
  assert_int_equal(sh_dataset_optimum(&d, "ndcg@10", &best), SH_OK);
  assert_true(best == 0.25);
  assert_int_equal(sh_dataset_optimum(&d, "mrr", &best), SH_ERR_DATA);
  assert_int_not_equal(sh_dataset_items(&d, 3, 4, got), SH_OK);
  assert_int_not_equal(sh_dataset_items(&d, -1, 1, got), SH_OK);
  assert_int_equal(sh_dataset_items(&d, EVENTS, 0, got), SH_OK);
  sh_dataset_close(&d);
  assert_int_equal(sh_data_verify(in_folder("out.h5")), SH_OK);
}

static void least_content(void **state) {
  (void)state;
  sh_dataset d;
  sh_dataset_content c = {.users = USERS, .events = EVENTS, .items = ITEMS, .offsets = offsets, .item = items};
  assert_int_equal(sh_dataset_write(&c, in_folder("out.h5")), SH_OK);
  assert_int_equal(sh_dataset_open(&d, in_folder("out.h5")), SH_OK);
  assert_false(d.has_time);
  assert_false(d.has_action);
  assert_int_equal(d.ncandidates, ITEMS);
  char key[8];
  int64_t t;
  assert_int_equal(sh_dataset_item_key(&d, 3, key, sizeof key), SH_OK);
  assert_string_equal(key, "3");
  assert_int_equal(sh_dataset_times(&d, 0, 1, &t), SH_ERR_DATA);
  sh_dataset_close(&d);
}

static void refused(const char *name, const char *says) {
  sh_dataset d;
  assert_int_equal(sh_dataset_open(&d, in_folder(name)), SH_ERR_DATA);
  if (!strstr(sh_error_message(), says) || !strstr(sh_error_message(), name))
    fail_msg("'%s' does not say '%s'", sh_error_message(), says);
  assert_null(strchr(sh_error_message(), '\n'));
}

static void no_data_set(void **state) {
  (void)state;
  refused("absent.h5", "No such file");
  put_text("text.h5", "user,item\n1,2\n");
  refused("text.h5", "not a Shoal data set: it is no HDF5 file");
  put_text("empty.h5", "");
  refused("empty.h5", "not a Shoal data set: it is empty");
  assert_int_equal(mkdir(in_folder("sub.h5"), 0777), 0);
  refused("sub.h5", "it is a folder");
  sh_grid g;
  sh_h5 *f;
  sh_grid_single(&g);
  assert_int_equal(sh_h5_create(&f, in_folder("other.h5"), &g.world), SH_OK);
  assert_int_equal(sh_h5_close(f, false), SH_OK);
  refused("other.h5", "not a Shoal data set: it has no attribute 'format'");
  assert_int_equal(sh_h5_create(&f, in_folder("other.h5"), &g.world), SH_OK);
  assert_int_equal(sh_h5_attr_write_text(f, "/", "format", "shoal-checkpoint"), SH_OK);
  assert_int_equal(sh_h5_close(f, false), SH_OK);
  refused("other.h5", "its format is 'shoal-checkpoint'");
  assert_int_equal(sh_h5_create(&f, in_folder("other.h5"), &g.world), SH_OK);
  assert_int_equal(sh_h5_attr_write_text(f, "/", "format", "shoal-dataset"), SH_OK);
  assert_int_equal(sh_h5_attr_write_i64(f, "/", "version", 999), SH_OK);
  assert_int_equal(sh_h5_close(f, false), SH_OK);
  refused("other.h5", "version 999");
  sh_grid_destroy(&g);
}

/* Offsets and candidates that contradict themselves, with checksums that fit. */
static void contradictions(void **state) {
  (void)state;
  static const int64_t descending[] = {0, 4, 2, 6}, outside[] = {0, 2, 4};
  sh_dataset_content c = content();
  c.offsets = descending;
  c.report = &(sh_data_report){0};
  assert_int_equal(sh_dataset_write(&c, in_folder("out.h5")), SH_OK);
  refused("out.h5", "/sequence/offsets descends at user 1");
  c = content();
  c.candidates = outside;
  assert_int_equal(sh_dataset_write(&c, in_folder("out.h5")), SH_OK);
  refused("out.h5", "/items/candidates");
}

static void truncated(void **state) {
  (void)state;
  write_small();
  struct stat st;
  assert_int_equal(stat(in_folder("out.h5"), &st), 0);
  for (int64_t size = 0; size < st.st_size; size += st.st_size / 40 + 1) {
    sh_dataset d;
    write_small();
    assert_int_equal(truncate(in_folder("out.h5"), size), 0);
    assert_int_equal(sh_dataset_open(&d, in_folder("out.h5")), SH_ERR_DATA);
    assert_non_null(strstr(sh_error_message(), "out.h5"));
  }
}

/* A flipped bit anywhere is found, or lies where nothing is stored; it never brings other content. */
static void flipped_bits(void **state) {
  (void)state;
  static unsigned char whole[1 << 20], now[1 << 20];
  write_small();
  FILE *f = fopen(in_folder("out.h5"), "rb");
  size_t n = fread(whole, 1, sizeof whole, f);
  fclose(f);
  assert_in_range(n, 100, sizeof whole - 1);
  int found = 0;
  for (size_t at = 0; at < n; at += 7) {
    memcpy(now, whole, n);
    now[at] = (unsigned char)(now[at] ^ (1u << (at % 8)));
    put_bytes("out.h5", now, n);
    if (sh_data_verify(in_folder("out.h5")) != SH_OK) {
      found++;
      continue;
    }
    const char *expected = "u: z@5*1 w@5*2\nbb:\nccc: y@1*3 y@2*4 z@3*5 z@4*6.5\n";
    assert_string_equal(set_text(), expected);
  }
  assert_in_range(found, 20, n);
}

static void flipped_event(void **state) {
  (void)state;
  static unsigned char whole[1 << 20];
  static const int64_t wide[] = {3, 0, 2, 2, 3, 3};
  write_small();
  FILE *f = fopen(in_folder("out.h5"), "rb");
  size_t n = fread(whole, 1, sizeof whole, f);
  fclose(f);
  unsigned char *at = memmem(whole, n, wide, sizeof wide);
  assert_non_null(at);
  at[8 * 4] = 9; /* item 3 of event 4 becomes 9 */
  put_bytes("out.h5", whole, n);
  sh_dataset d;
  int64_t got[EVENTS];
  assert_int_equal(sh_dataset_open(&d, in_folder("out.h5")), SH_OK);
  assert_int_equal(sh_dataset_items(&d, 0, 4, got), SH_OK);
  assert_int_equal(sh_dataset_items(&d, 2, 4, got), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "event 4 has item row 9, the set has 4 items"));
  sh_dataset_close(&d);
  assert_int_equal(sh_data_verify(in_folder("out.h5")), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "/features/item is damaged"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip),     cmocka_unit_test(least_content), cmocka_unit_test(no_data_set),
      cmocka_unit_test(contradictions), cmocka_unit_test(truncated),     cmocka_unit_test(flipped_bits),
      cmocka_unit_test(flipped_event),
  };
  return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
