/* shoal prepare: formats, keys, order, ties, filters, report. */
#include "prepare_files.h"

#include "core/rng.h"

static const sh_prepare_options csv = {.format = "csv"}, sequences = {.format = "sequences"};

static void movielens_with_items(void **state) {
  (void)state;
  sh_data_report r;
  put_text("movies.dat", "10::Am\xe9lie (2001)::Comedy|Romance\n2::B (1990)::Drama\n30::Never::X\n");
  put_text("ratings.dat", "7::10::5::300\n7::2::3.5::100\n1::10::4::50\n7::99::1::300\n");
  sh_prepare_options o = {.format = "movielens", .items = in_folder("movies.dat")};
  assert_int_equal(prepare_one(o, "ratings.dat", &r, NULL), SH_OK);
  assert_string_equal(set_text(), "1: 10@50*4\n7: 2@100*3.5 10@300*5 99@300*1\n");
  assert_int_equal(r.items, 4); /* 2 10 30 99 */
  assert_int_equal(r.candidates, 3);
  assert_int_equal(r.unseen_items, 1);
  assert_int_equal(r.unlisted_items, 1);
  sh_dataset d;
  assert_int_equal(sh_dataset_open(&d, in_folder("out.h5")), SH_OK);
  assert_int_equal(d.ncandidates, 3);
  for (int i = 0; i < 3; i++) assert_int_equal(d.candidates[i], i);
  static const int64_t count[] = {1, 2, 0, 1};
  for (int i = 0; i < 4; i++) assert_int_equal(d.item_count[i], count[i]);
  sh_dataset_close(&d);
}

static void movielens_tabs(void **state) {
  (void)state;
  prepare_text((sh_prepare_options){.format = "movielens"}, "196\t242\t3\t881250949\n186\t302\t3\t891717742\n");
  assert_string_equal(set_text(), "186: 302@891717742*3\n196: 242@881250949*3\n");
}

static void csv_text(void **state) {
  (void)state;
  prepare_text(csv, "\xEF\xBB\xBF\"user_id\",item_id,title,timestamp\r\n"
                    "\"a,1\",\"x\"\"y\",\"t, u\",5\r\n"
                    "b,z,,3\r\n"
                    "\r\n"
                    "\"a,1\",\xc3\xa9,t,4");
  assert_string_equal(set_text(), "a,1: \xc3\xa9@4 x\"y@5\nb: z@3\n");
}

static void csv_columns(void **state) {
  (void)state;
  sh_prepare_options o = {.format = "csv", .columns = "item=sku,user=who,action=stars"};
  prepare_text(o, "time,stars,who,sku\n9,1,u,b\n3,2,u,a\n");
  assert_string_equal(set_text(), "u: b*1 a*2\n"); /* no time named: the order of the file */
}

static void tsv_without_header(void **state) {
  (void)state;
  sh_prepare_options o = {.format = "tsv", .columns = "user=2,item=1,time=4", .no_header = true};
  prepare_text(o, "b\t5\t\"\t20\na\t5\t-\t10\n");
  assert_string_equal(set_text(), "5: a@10 b@20\n");
}

static void recbole(void **state) {
  (void)state;
  prepare_text((sh_prepare_options){.format = "recbole"},
               "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\ti\t4\t12.9\n1\tj\t3\t1.1e1\n");
  assert_string_equal(set_text(), "1: j@11*3 i@12*4\n");
}

static void sequence_lines(void **state) {
  (void)state;
  const char *inputs[] = {in_folder("train"), in_folder("test")}, *out = in_folder("new/folder/out.h5");
  put_text("train", "10 3 1 2\n9 5\n");
  put_gzip("test", "9 3\n10\t4 \n8\n");
  sh_prepare_options o = {.format = "sequences", .ninputs = 2, .inputs = inputs, .output = out};
  sh_data_report r;
  assert_int_equal(sh_prepare(&o, &r, NULL), SH_OK);
  assert_int_equal(rename(out, in_folder("out.h5")), 0);
  assert_string_equal(set_text(), "9: 5 3\n10: 3 1 2 4\n");
  assert_int_equal(r.lines_read, 5);
  assert_string_equal(r.ties, "none");
  assert_string_equal(r.name, "out");
}

static void session_and_pair_lines(void **state) {
  (void)state;
  prepare_text((sh_prepare_options){.format = "sessions"}, "5 7\n7 7 6\n");
  assert_string_equal(set_text(), "1: 5 7\n2: 7 7 6\n");
  prepare_text((sh_prepare_options){.format = "pairs"}, "b x\na y\nb\tw\n");
  assert_string_equal(set_text(), "b: x w\na: y\n"); /* keys are no integers: first appearance */
}

static void large_and_odd_keys(void **state) {
  (void)state;
  prepare_text((sh_prepare_options){.format = "pairs"},
               "9223372036854775807 4294967296\n-5 2147483648\n0 4294967296\n");
  assert_string_equal(set_text(), "-5: 2147483648\n0: 4294967296\n9223372036854775807: 4294967296\n");
  prepare_text((sh_prepare_options){.format = "pairs"}, "18446744073709551615 007\n2 7\n");
  assert_string_equal(set_text(), "18446744073709551615: 007\n2: 7\n");
}

static void time_units(void **state) {
  (void)state;
  prepare_text((sh_prepare_options){.format = "csv", .time_unit = "ms"}, "user,item,time\nu,a,1999\nu,b,0\n");
  assert_string_equal(set_text(), "u: b@0 a@1\n");
}

/* A log of `users` with `n` tied items each, lines in an order given by `turn`. */
static void tied_log(char *text, int users, int n, int turn) {
  char *at = text + sprintf(text, "user,item,time\n");
  for (int i = 0; i < users * n; i++) {
    int k = turn ? users * n - 1 - i : i;
    at += sprintf(at, "u%d,i%d,77\n", k / n, k % n);
  }
}

static void ties_in_file_order(void **state) {
  (void)state;
  prepare_text(csv, "user,item,time\nu,d,5\nu,a,9\nu,c,5\nu,b,5\n");
  assert_string_equal(set_text(), "u: d@5 c@5 b@5 a@9\n");
}

static void ties_shuffled(void **state) {
  (void)state;
  enum { USERS = 600 };
  static char text[1 << 16], first[1 << 16];
  int seen[6] = {0};
  tied_log(text, USERS, 3, 0);
  sh_prepare_options o = {.format = "csv", .shuffle_ties = true, .seed = 7};
  sh_data_report r = prepare_text(o, text);
  assert_string_equal(r.ties, "shuffle, seed 7");
  strcpy(first, set_text());
  for (const char *p = first; *p; p = strchr(p, '\n') + 1) {
    int a, b, c;
    assert_int_equal(sscanf(p, "%*[^:]: i%d@77 i%d@77 i%d@77", &a, &b, &c), 3);
    seen[a * 2 + (b > c)]++;
  }
  /* 600 draws of 6 orders: 100 +- 9.1 each */
  for (int i = 0; i < 6; i++) assert_in_range(seen[i], 60, 140);

  tied_log(text, USERS, 3, 1); /* the same events the other way round: users appear in another order, no tie moves */
  prepare_text(o, text);
  const char *again = set_text(), *line = first;
  for (; *line; line = strchr(line, '\n') + 1) {
    char one[128];
    snprintf(one, sizeof one, "%.*s\n", (int)strcspn(line, "\n"), line);
    assert_non_null(strstr(again, one));
  }
  o.seed = 8;
  strcpy(first, again);
  prepare_text(o, text);
  assert_string_not_equal(set_text(), first);
}

static void repeats_dropped(void **state) {
  (void)state;
  sh_data_report r =
      prepare_text((sh_prepare_options){.format = "sequences", .drop_repeats = true}, "1 5 5 6 6 6 5\n2 5\n");
  assert_string_equal(set_text(), "1: 5 6 5\n2: 5\n");
  assert_int_equal(r.removed_repeats, 3);
  assert_int_equal(r.duplicates, 1);
  assert_int_equal(r.one_event_users, 1);
}

static void core_and_length(void **state) {
  (void)state;
  const char *log = "1 a b c\n2 a b d\n3 a c e\n4 e\n";
  sh_prepare_options o = sequences;
  o.k_core = 2;
  o.one_pass = true;
  sh_data_report r = prepare_text(o, log);
  assert_string_equal(set_text(), "1: a b c\n2: a b\n3: a c e\n"); /* 4 leaves, and e keeps one event */
  assert_int_equal(r.removed_core, 2);
  o.one_pass = false;
  r = prepare_text(o, log);
  assert_string_equal(set_text(), "1: a b c\n2: a b\n3: a c\n");
  assert_int_equal(r.items, 3);
  assert_int_equal(r.users_read, 4);
  assert_int_equal(r.items_read, 5);
  o.min_length = 3;
  r = prepare_text(o, log);
  assert_string_equal(set_text(), "1: a b c\n");
  assert_int_equal(r.removed_short, 4);
}

/* Removing an item brings equal ones together. */
static void core_makes_repeats(void **state) {
  (void)state;
  sh_prepare_options o = {.format = "sequences", .k_core = 2, .drop_repeats = true};
  prepare_text(o, "1 a x a b\n2 a b\n");
  assert_string_equal(set_text(), "1: a b\n2: a b\n");
}

/* The 3-core of random logs against its definition: the largest set in which everyone has 3. */
static void core_of_random_logs(void **state) {
  (void)state;
  enum { USERS = 20, ITEMS = 12, K = 3 };
  for (uint32_t seed = 0; seed < 20; seed++) {
    bool in[USERS][ITEMS] = {{0}};
    char text[8192], *at = text;
    for (int u = 0; u < USERS; u++) {
      at += sprintf(at, "%d", u);
      for (int i = 0; i < ITEMS; i++) {
        in[u][i] = sh_random4(seed, SH_SITE_TEST, 0, u, (uint32_t)i, 0).v[0] % 100 < 30;
        if (in[u][i]) at += sprintf(at, " %d", i);
      }
      at += sprintf(at, "\n");
    }
    for (bool again = true; again;) { /* take away one row or column at a time */
      again = false;
      for (int u = 0; u < USERS && !again; u++) {
        int n = 0;
        for (int i = 0; i < ITEMS; i++) n += in[u][i];
        again = n > 0 && n < K;
        for (int i = 0; again && i < ITEMS; i++) in[u][i] = false;
      }
      for (int i = 0; i < ITEMS && !again; i++) {
        int n = 0;
        for (int u = 0; u < USERS; u++) n += in[u][i];
        again = n > 0 && n < K;
        for (int u = 0; again && u < USERS; u++) in[u][i] = false;
      }
    }
    char expected[8192] = "", *to = expected;
    for (int u = 0; u < USERS; u++) {
      bool any = false;
      for (int i = 0; i < ITEMS; i++) {
        if (!in[u][i]) continue;
        to += sprintf(to, any ? " %d" : "%d: %d", any ? i : u, i);
        any = true;
      }
      if (any) to += sprintf(to, "\n");
    }
    sh_prepare_options o = sequences;
    o.k_core = K;
    sh_data_report r;
    put_text("in", text);
    sh_status status = prepare_one(o, "in", &r, NULL);
    assert_int_equal(status, *expected ? SH_OK : SH_ERR_DATA);
    if (*expected) assert_string_equal(set_text(), expected);
  }
}

static void report_numbers(void **state) {
  (void)state;
  sh_data_report r = prepare_text(csv, "user,item,time\n"
                                       "1,a,100\n1,b,100\n1,a,100\n1,a,200\n"
                                       "2,b,50\n"
                                       "3,a,10\n3,c,20\n3,d,20\n");
  assert_int_equal(r.users, 3);
  assert_int_equal(r.items, 4);
  assert_int_equal(r.candidates, 4);
  assert_int_equal(r.events, 8);
  assert_int_equal(r.time_min, 10);
  assert_int_equal(r.time_max, 200);
  assert_int_equal(r.length_min, 1);
  assert_int_equal(r.length_p50, 3);
  assert_int_equal(r.length_p95, 4);
  assert_int_equal(r.length_max, 4);
  assert_true(fabs(r.length_mean - 8.0 / 3) < 1e-12);
  assert_int_equal(r.one_event_users, 1);
  assert_int_equal(r.tied, 3);
  assert_true(fabs(r.tie_rate - 3.0 / 5) < 1e-12);
  assert_int_equal(r.duplicates, 2);
  assert_int_equal(r.repeats, 1);
  /* counts 1 1 2 4: mean absolute difference of all pairs / (2 mean) = 20 / 16 / 4 */
  assert_true(fabs(r.gini - 20.0 / 64) < 1e-12);
  sh_data_report stored;
  assert_int_equal(sh_data_report_read(in_folder("out.h5"), &stored), SH_OK);
  assert_memory_equal(&stored, &r, sizeof r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(movielens_with_items),
      cmocka_unit_test(movielens_tabs),
      cmocka_unit_test(csv_text),
      cmocka_unit_test(csv_columns),
      cmocka_unit_test(tsv_without_header),
      cmocka_unit_test(recbole),
      cmocka_unit_test(sequence_lines),
      cmocka_unit_test(session_and_pair_lines),
      cmocka_unit_test(large_and_odd_keys),
      cmocka_unit_test(time_units),
      cmocka_unit_test(ties_in_file_order),
      cmocka_unit_test(ties_shuffled),
      cmocka_unit_test(repeats_dropped),
      cmocka_unit_test(core_and_length),
      cmocka_unit_test(core_makes_repeats),
      cmocka_unit_test(core_of_random_logs),
      cmocka_unit_test(report_numbers),
  };
  return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
