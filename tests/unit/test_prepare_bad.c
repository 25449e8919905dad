/* Bad input of shoal prepare: one clear line, the right code, and what was on disk before still whole. */
#include "prepare_files.h"

typedef struct bad_case {
  const char *what;
  sh_prepare_options options;
  const char *text;
  sh_status status;
  const char *message[2]; /* both must stand in the message */
} bad_case;

#define CSV .options = {.format = "csv"}
#define SEQ .options = {.format = "sequences"}
#define ML  .options = {.format = "movielens"}
static const bad_case cases[] = {
    {"too few fields", ML, "1::2::3::4\n1::2::3\n", SH_ERR_DATA, {"in:2: ", "3 fields, expected 4"}},
    {"too many fields", CSV, "user,item\na,b\n\na,b,c\n", SH_ERR_DATA, {"in:4: ", "3 fields, expected 2"}},
    {"time no number", ML, "1::2::3::noon\n", SH_ERR_DATA, {"in:1: ", "time 'noon' is not a number"}},
    {"time nan", ML, "1::2::3::nan\n", SH_ERR_DATA, {"in:1: ", "time 'nan' is not a number"}},
    {"time empty", CSV, "user,item,time\na,b,\n", SH_ERR_DATA, {"in:2: ", "time '' is not a number"}},
    {"time too large", ML, "1::2::3::1e30\n", SH_ERR_DATA, {"in:1: ", "is not a number"}},
    {"negative time", ML, "1::2::3::4\n1::2::3::-4\n", SH_ERR_DATA, {"in:2: ", "time '-4' is negative"}},
    {"action no number", ML, "1::2::good::4\n", SH_ERR_DATA, {"in:1: ", "action 'good' is not a finite number"}},
    {"action infinite", ML, "1::2::inf::4\n", SH_ERR_DATA, {"in:1: ", "action 'inf'"}},
    {"empty key", CSV, "user,item\n,b\n", SH_ERR_DATA, {"in:2: ", "user key '' is empty"}},
    {"key no UTF-8",
     SEQ,
     "a b\nc d\xff"
     "e\n",
     SH_ERR_DATA,
     {"in:2: ", "item key 'd\\xFFe' is not UTF-8"}},
    {"key overlong UTF-8", SEQ, "a b\nc d\xc0\xaf\n", SH_ERR_DATA, {"in:2: ", "is not UTF-8"}},
    {"open quote", CSV, "user,item\n\"a,b\n", SH_ERR_DATA, {"in:2: ", "quote is not closed"}},
    {"text behind a quote", CSV, "user,item\n\"a\"x,b\n", SH_ERR_DATA, {"in:2: ", "behind its closing quote"}},
    {"three words", .options = {.format = "pairs"}, "a b\na b c\n", SH_ERR_DATA, {"in:2: ", "expected two words"}},
    {"missing column", CSV, "user,itm\na,b\n", SH_ERR_DATA, {"in:1: no column for item", "user, itm"}},
    {"wrong column",
     .options = {.format = "csv", .columns = "user=uid,item=iid,time=timestmp"},
     "uid,iid,timestamp\na,b,1\n",
     SH_ERR_DATA,
     {"in:1: no column 'timestmp' (for time)", "'timestamp'"}},
    {"wrong RecBole column",
     .options = {.format = "recbole", .columns = "user=user_id,item=item"},
     "user_id:token\titem_id:token\na\tb\n",
     SH_ERR_DATA,
     {"no column 'item' (for item)", "user_id, item_id"}},
    {"duplicate header", CSV, "user,item,item\na,b,c\n", SH_ERR_DATA, {"in:1: ", "'item' stands twice"}},
    {"wrong role",
     .options = {.format = "csv", .columns = "user=a,itm=b"},
     "a,b\n1,2\n",
     SH_ERR_USAGE,
     {"unknown role 'itm'", "nearest: item"}},
    {"role twice",
     .options = {.format = "csv", .columns = "user=a,user=b,item=c"},
     "a,b,c\n1,2,3\n",
     SH_ERR_USAGE,
     {"user=NAME once", ""}},
    {"role missing",
     .options = {.format = "csv", .columns = "user=a"},
     "a,b\n1,2\n",
     SH_ERR_USAGE,
     {"item=NAME are needed", ""}},
    {"column no number",
     .options = {.format = "tsv", .columns = "user=1,item=x", .no_header = true},
     "a\tb\n",
     SH_ERR_USAGE,
     {"item=x", "a number from 1"}},
    {"column past the line",
     .options = {.format = "tsv", .columns = "user=1,item=3", .no_header = true},
     "a\tb\n",
     SH_ERR_DATA,
     {"in:1: 2 fields", "expected 3 or more"}},
    {"empty file", CSV, "", SH_ERR_DATA, {"in: is empty", ""}},
    {"only a header", CSV, "user,item\n", SH_ERR_DATA, {"no events in 1 lines", ""}},
    {"users only", SEQ, "1\n2\n", SH_ERR_DATA, {"no events", ""}},
    {"unknown format",
     .options = {.format = "movielense"},
     "1\n",
     SH_ERR_USAGE,
     {"movielense", "nearest is movielens"}},
    {"columns elsewhere",
     .options = {.format = "pairs", .columns = "user=1,item=2"},
     "a b\n",
     SH_ERR_USAGE,
     {"--columns", "pairs"}},
    {"unknown unit",
     .options = {.format = "csv", .time_unit = "h"},
     "user,item\na,b\n",
     SH_ERR_USAGE,
     {"s, ms or us", ""}},
    {"ties without times",
     .options = {.format = "pairs", .shuffle_ties = true},
     "a b\n",
     SH_ERR_USAGE,
     {"no times", ""}},
    {"all filtered",
     .options = {.format = "pairs", .k_core = 5},
     "a b\n",
     SH_ERR_DATA,
     {"nothing is left of 1 events", "k-core 5"}},
    {"skip-bad used up",
     .options = {.format = "pairs", .skip_bad = 1},
     "a\na b\nc\n",
     SH_ERR_DATA,
     {"in:3: ", "--skip-bad 1 is used up"}},
};

static void bad_input(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const bad_case *c = &cases[i];
    sh_data_report r;
    put_text("in", c->text);
    put_text("out.h5", "what was here before");
    sh_status status = prepare_one(c->options, "in", &r, NULL);
    const char *m = sh_error_message();
    if (status != c->status) fail_msg("%s: status %d, expected %d (%s)", c->what, (int)status, (int)c->status, m);
    for (int k = 0; k < 2; k++) {
      if (!strstr(m, c->message[k])) fail_msg("%s: '%s' does not say '%s'", c->what, m, c->message[k]);
    }
    if (strchr(m, '\n')) fail_msg("%s: '%s' is more than a line", c->what, m);
    char left[64] = "";
    FILE *f = fopen(in_folder("out.h5"), "rb");
    assert_non_null(fgets(left, sizeof left, f));
    fclose(f);
    assert_string_equal(left, "what was here before");
    assert_int_not_equal(access(in_folder("out.h5.partial"), F_OK), 0);
  }
}

static void zero_byte(void **state) {
  (void)state;
  sh_data_report r;
  put_bytes("in", "a b\nc d\0e\n", 10);
  assert_int_equal(prepare_one((sh_prepare_options){.format = "sequences"}, "in", &r, NULL), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "in:2: contains a zero byte"));
}

static void bad_lines_skipped(void **state) {
  (void)state;
  static const char log[] = "user,item,time\na,x,1\nb,y\na,\xff,2\nc,z,noon\na,y,3\n";
  sh_data_report r;
  char warning[512] = "";
  put_text("in", log);
  FILE *f = fmemopen(warning, sizeof warning, "w");
  assert_int_equal(prepare_one((sh_prepare_options){.format = "csv", .skip_bad = 3}, "in", &r, f), SH_OK);
  fclose(f);
  assert_int_equal(r.bad_lines, 3);
  assert_int_equal(r.users, 1);
  assert_string_equal(set_text(), "a: x@1 y@3\n");
  assert_non_null(strstr(warning, "3 malformed lines skipped"));
  assert_non_null(strstr(warning, "in:3: 2 fields, expected 3"));
  /* A sequence line with one bad key is skipped whole. */
  put_text("in", "1 5 6\n2 7 \xff 8\n2 9\n");
  assert_int_equal(prepare_one((sh_prepare_options){.format = "sequences", .skip_bad = 1}, "in", &r, NULL), SH_OK);
  assert_string_equal(set_text(), "1: 5 6\n2: 9\n");
}

static void truncated_gzip(void **state) {
  (void)state;
  static char text[1 << 18];
  sh_data_report r;
  char *at = text;
  for (int i = 0; i < 20000; i++) at += sprintf(at, "%d %d\n", i * 7919 % 10007, i * 104729 % 10009);
  const sh_prepare_options pairs = {.format = "pairs"};
  put_gzip("in.gz", text);
  assert_int_equal(prepare_one(pairs, "in.gz", &r, NULL), SH_OK);
  assert_int_equal(r.events, 20000);
  cut_file("in.gz", 4);
  assert_int_equal(prepare_one(pairs, "in.gz", &r, NULL), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "in.gz: truncated gzip"));
  cut_file("in.gz", 20000);
  assert_int_equal(prepare_one(pairs, "in.gz", &r, NULL), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "in.gz: truncated gzip"));
}

static void damaged_gzip(void **state) {
  (void)state;
  sh_data_report r;
  put_gzip("in.gz", "a b\nc d\n");
  FILE *f = fopen(in_folder("in.gz"), "r+b");
  fseek(f, -8, SEEK_END); /* the stored CRC */
  fputs("zzzz", f);
  fclose(f);
  assert_int_equal(prepare_one((sh_prepare_options){.format = "pairs"}, "in.gz", &r, NULL), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "in.gz: damaged gzip"));
}

static void files_that_are_none(void **state) {
  (void)state;
  sh_data_report r;
  const sh_prepare_options pairs = {.format = "pairs"};
  assert_int_equal(prepare_one(pairs, "absent", &r, NULL), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "absent: cannot be opened: No such file"));
  assert_int_equal(prepare_one(pairs, ".", &r, NULL), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "is a folder"));
}

static void files_that_differ(void **state) {
  (void)state;
  const char *inputs[] = {in_folder("a.csv"), in_folder("b.csv")};
  put_text("a.csv", "user,item,time\nu,x,1\n");
  put_text("b.csv", "user,item\nu,x\n");
  sh_prepare_options o = {.format = "csv", .ninputs = 2, .inputs = inputs, .output = in_folder("out.h5")};
  sh_data_report r;
  assert_int_equal(sh_prepare(&o, &r, NULL), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "b.csv: has no time column, but"));
}

static void output_that_cannot_be(void **state) {
  (void)state;
  const char *inputs[] = {in_folder("in")};
  put_text("in", "a b\n");
  sh_prepare_options o = {.format = "pairs", .ninputs = 1, .inputs = inputs, .output = in_folder("in/out.h5")};
  sh_data_report r;
  assert_int_equal(sh_prepare(&o, &r, NULL), SH_ERR_INTERNAL);
  assert_non_null(strstr(sh_error_message(), "in/out.h5"));
  o.output = folder_name();
  assert_int_equal(sh_prepare(&o, &r, NULL), SH_ERR_INTERNAL);
  assert_non_null(strstr(sh_error_message(), "is a folder"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bad_input),         cmocka_unit_test(zero_byte),
      cmocka_unit_test(bad_lines_skipped), cmocka_unit_test(truncated_gzip),
      cmocka_unit_test(damaged_gzip),      cmocka_unit_test(files_that_are_none),
      cmocka_unit_test(files_that_differ), cmocka_unit_test(output_that_cannot_be),
  };
  return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
