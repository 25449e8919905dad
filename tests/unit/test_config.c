/* Configuration: reading, every kind of bad input, overrides, conflicts, round trip, and the recipes in configs/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/config.h"
#include "support/folder.h"

static sh_config config;

static int setup(void **state) {
  (void)state;
  sh_config_defaults(&config);
  return 0;
}

static void assert_message(const char *expected) { assert_string_equal(sh_error_message(), expected); }
static void assert_says(const char *part) {
  if (!strstr(sh_error_message(), part)) fail_msg("message '%s' lacks '%s'", sh_error_message(), part);
}

static void bad_text(const char *text, const char *message) {
  sh_config before = config;
  assert_int_equal(sh_config_read_text(&config, text, "x.yaml"), SH_ERR_USAGE);
  assert_message(message);
  assert_memory_equal(&before, &config, sizeof config); /* all or nothing */
}

static void good_text(const char *text) {
  if (sh_config_read_text(&config, text, "x.yaml") != SH_OK) fail_msg("%s", sh_error_message());
}

static void test_defaults(void **state) {
  (void)state;
  assert_string_equal(config.model.name, "hstu");
  assert_int_equal(config.model.width, 50);
  assert_true(config.optim.beta2 == 0.98);
  assert_true(config.loss.l2_norm);
  assert_string_equal(config.data.path, "");
  assert_int_equal(sh_config_check(&config), SH_OK);
}

static void test_read(void **state) {
  (void)state;
  good_text("# recipe\n"
            "model:\n  layers: 8\n  name: 'fuxi-alpha' # quoted\n  time_bias: No\n"
            "optim:\n  lr: 1e-4\n  warmup: 1e3\n"
            "data:\n  path: \"a: b #c\"\n"
            "train:\n"
            "eval: {top: 10, filter: seen}\n");
  assert_int_equal(config.model.layers, 8);
  assert_string_equal(config.model.name, "fuxi-alpha");
  assert_false(config.model.time_bias);
  assert_true(config.optim.lr == 1e-4);
  assert_int_equal(config.optim.warmup, 1000);
  assert_string_equal(config.data.path, "a: b #c");
  assert_int_equal(config.eval.top, 10);
  assert_int_equal(config.model.width, 50); /* untouched */
  good_text("");
  good_text("# nothing\n");
  good_text("---\nmodel:\n  layers: 3\n");
  assert_int_equal(config.model.layers, 3);
}

static void test_unknown(void **state) {
  (void)state;
  bad_text("model:\n  layer: 2\n", "x.yaml:2: unknown key model.layer; nearest is model.layers");
  bad_text("modle:\n  layers: 2\n", "x.yaml:1: unknown section modle; nearest is model");
  bad_text("model:\n  lr: 2\n", "x.yaml:2: unknown key model.lr; nearest is optim.lr");
  bad_text("\nlayers: 2\n", "x.yaml:2: unknown section layers; layers is a key of section model");
  bad_text("batch:\n  zzzzzzzz: 2\n",
           "x.yaml:2: unknown key batch.zzzzzzzz; section batch has users, tokens, accumulate");
  assert_int_equal(sh_config_read_text(&config, "qqqqqqqq:\n", "x.yaml"), SH_ERR_USAGE);
  assert_says("x.yaml:1: unknown section qqqqqqqq; there are data, model, loss");
}

static void test_wrong_type(void **state) {
  (void)state;
  bad_text("model:\n  layers: many\n", "x.yaml:2: model.layers: found 'many', expected a whole number from 0 to 512");
  bad_text("model:\n  layers: 2.5\n", "x.yaml:2: model.layers: found '2.5', expected a whole number from 0 to 512");
  bad_text("model:\n  layers: 0x10\n", "x.yaml:2: model.layers: found '0x10', expected a whole number from 0 to 512");
  bad_text("optim:\n  lr: fast\n", "x.yaml:2: optim.lr: found 'fast', expected a number from 0 to 1000");
  bad_text("optim:\n  lr: .nan\n", "x.yaml:2: optim.lr: found '.nan', expected a number from 0 to 1000");
  bad_text("optim:\n  lr: nan\n", "x.yaml:2: optim.lr: found 'nan', expected a number from 0 to 1000");
  bad_text("optim:\n  lr: 1e-3x\n", "x.yaml:2: optim.lr: found '1e-3x', expected a number from 0 to 1000");
  bad_text("loss:\n  l2_norm: 1\n", "x.yaml:2: loss.l2_norm: found '1', expected true or false");
  bad_text("model:\n  name: hsut\n",
           "x.yaml:2: model.name: found 'hsut', expected one of sasrec|hstu|fuxi-alpha|fuxi-beta; nearest is hstu");
  bad_text("model:\n  name: sasrec|hstu\n",
           "x.yaml:2: model.name: found 'sasrec|hstu', expected one of sasrec|hstu|fuxi-alpha|fuxi-beta");
  bad_text("model:\n  name: fuxi\n", "x.yaml:2: model.name: found 'fuxi', expected one of "
                                     "sasrec|hstu|fuxi-alpha|fuxi-beta");
  bad_text("model:\n  layers: [1, 2]\n", "x.yaml:2: model.layers: found a list, expected one value");
  bad_text("model:\n  layers:\n    - 1\n", "x.yaml:3: model.layers: found a list, expected one value");
  bad_text("model:\n  layers:\n  heads: 1\n", "x.yaml:2: model.layers has no value");
  bad_text("model: 3\n", "x.yaml:1: section model: found a single value, expected keys with values");
  bad_text("- model\n", "x.yaml:1: found no sections, expected e.g. 'model:' with indented keys below");
  char text[600] = "data:\n  path: ";
  memset(text + strlen(text), 'p', 300);
  bad_text(text, "x.yaml:2: data.path: text of 300 bytes, expected at most 255");
}

static void test_range(void **state) {
  (void)state;
  bad_text("model:\n\n\n  layers: 600\n", "x.yaml:4: model.layers: found '600', expected a whole number from 0 to 512");
  bad_text("model:\n  layers: -1\n", "x.yaml:2: model.layers: found '-1', expected a whole number from 0 to 512");
  bad_text("train:\n  seed: 99999999999999999999\n",
           "x.yaml:2: train.seed: found '99999999999999999999', expected a whole number from 0 to 4294967295");
  bad_text("model:\n  dropout: 1\n", "x.yaml:2: model.dropout: found '1', expected a number from 0 to 0.999");
  good_text("model:\n  layers: 512\n  dropout: 0.999\n");
}

static void test_duplicates(void **state) {
  (void)state;
  bad_text("model:\n  layers: 1\n  heads: 1\n  layers: 2\n", "x.yaml:4: model.layers is given twice, first on line 2");
  bad_text("model:\n  layers: 1\nloss:\n  negatives: 1\nmodel:\n  heads: 2\n",
           "x.yaml:5: model is given twice, first on line 1");
}

static void test_not_yaml(void **state) {
  (void)state;
  assert_int_equal(sh_config_read_text(&config, "model:\n  layers: 1\n bad\n", "x.yaml"), SH_ERR_USAGE);
  assert_says("x.yaml:");
  assert_says("not valid YAML");
  assert_int_equal(sh_config_read_text(&config, "model:\n\tlayers: 1\n", "x.yaml"), SH_ERR_USAGE);
  assert_says("x.yaml:2: not valid YAML");
  assert_int_equal(sh_config_read_text(&config, "\x89HDF\r\n\x1a\n", "x.h5"), SH_ERR_USAGE);
  assert_says("x.h5:1: not valid YAML");
  bad_text("model:\n  layers: 1\n---\nmodel:\n  layers: 2\n", "x.yaml:4: found a second YAML document, expected one");
}

static void test_overrides(void **state) {
  (void)state;
  assert_int_equal(sh_config_set(&config, "model.layers=5"), SH_OK);
  assert_int_equal(config.model.layers, 5);
  assert_int_equal(sh_config_set(&config, "data.path=a=b.c"), SH_OK);
  assert_string_equal(config.data.path, "a=b.c");
  assert_int_equal(sh_config_set(&config, "data.path="), SH_OK);
  assert_string_equal(config.data.path, "");
  assert_int_equal(sh_config_set(&config, "model.layer=5"), SH_ERR_USAGE);
  assert_message("command line: unknown key model.layer; nearest is model.layers");
  assert_int_equal(sh_config_set(&config, "model.layers"), SH_ERR_USAGE);
  assert_says("found 'model.layers', expected section.key=value");
  assert_int_equal(sh_config_set(&config, "layers=2"), SH_ERR_USAGE);
  assert_int_equal(sh_config_set(&config, ".=2"), SH_ERR_USAGE);
  assert_int_equal(sh_config_set(&config, "model.layers="), SH_ERR_USAGE);
  assert_says("model.layers: found ''");
  assert_int_equal(sh_config_set(&config, "optmi.lr=2"), SH_ERR_USAGE);
  assert_message("command line: unknown section optmi; nearest is optim");
}

static void conflict(const char *a, const char *b, const char *part) {
  setup(NULL);
  assert_int_equal(sh_config_set(&config, a), SH_OK);
  if (b) assert_int_equal(sh_config_set(&config, b), SH_OK);
  assert_int_equal(sh_config_check(&config), SH_ERR_USAGE);
  assert_says(part);
}

static void test_conflicts(void **state) {
  (void)state;
  conflict("model.heads=3", NULL, "model.width = 50 is not a multiple of model.heads = 3");
  conflict("model.heads=3", "model.dqk=8", "set model.dqk and model.dv"); /* dv is still 0 */
  conflict("model.name=sasrec", "model.dv=8", "sasrec: model.dqk and model.dv are width / heads = 50");
  conflict("model.name=sasrec", "model.concat_ua=true", "model.concat_ua needs model.name = hstu, found sasrec");
  conflict("model.ffn_single_stage=true", NULL, "needs model.name = fuxi-alpha");
  conflict("model.time_function=exp", NULL, "needs model.name = fuxi-beta");
  conflict("model.ffn_activation=gelu", NULL, "needs model.name = sasrec");
  conflict("data.split=temporal", "data.valid_quantile=0.9", "data.valid_quantile = 0.9 is not below");
  conflict("data.split=temporal", "data.test_quantile=1", "leave no events");
  conflict("data.min_history=201", NULL, "above model.max_len = 200");
  conflict("batch.tokens=100", NULL, "batch.tokens = 100 does not hold one sequence of model.max_len = 200");
  conflict("batch.users=4", "batch.accumulate=8", "cannot be made of batch.users = 4");
  conflict("loss.sampler=popularity", NULL, "needs loss.name = shared, found sampled");
  conflict("optim.schedule=cosine", "optim.lr_end=1", "optim.lr_end = 1 is above optim.lr = 0.001");
  conflict("table.adagrad_initial=1", NULL, "needs table.optim = adagrad");
  conflict("table.shards=1000", NULL, "table.shards = 1000 is not a power of two; near ones are 512 and 1024");
  conflict("train.patience=3", "train.eval_every=0", "train.patience = 3 counts evaluations");
  conflict("eval.metric=hr@50", "eval.top=20", "eval.metric = hr@50 looks below eval.top = 20");
  conflict("parallel.tensor=2", NULL, "model.heads = 1 cannot be dealt to parallel.tensor = 2");
  conflict("parallel.table=512", NULL, "table.shards = 4096 is below 16 x parallel.table = 512");
  setup(NULL);
  good_text("model: {heads: 3, dqk: 8, dv: 8}\n");
  assert_int_equal(sh_config_check(&config), SH_OK);
}

static void test_round_trip(void **state) {
  (void)state;
  good_text("data:\n  path: \"we\\\"ird\\\\ p\\tath: #\\u00e9 'x'\"\noptim:\n  lr: 0.1234567890123456\n  beta2: 0.999\n"
            "train:\n  steps: 1000000000000\nmodel:\n  name: fuxi-beta\n  time_bias: false\n");
  char *text = sh_config_text(&config), difference[256];
  sh_config again;
  sh_config_defaults(&again);
  assert_true(sh_config_differs(&config, &again, NULL, difference, sizeof difference));
  assert_int_equal(sh_config_read_text(&again, text, "text"), SH_OK);
  assert_false(sh_config_differs(&config, &again, NULL, difference, sizeof difference));
  assert_string_equal(config.data.path, again.data.path);
  assert_true(again.optim.lr == 0.1234567890123456);
  free(text);
}

static void test_differs(void **state) {
  (void)state;
  sh_config other = config;
  char text[256];
  other.model.layers = 8;
  other.train.seed = 1;
  assert_true(sh_config_differs(&config, &other, NULL, text, sizeof text));
  assert_string_equal(text, "model.layers: 2, not 8");
  assert_true(sh_config_differs(&config, &other, "loss train", text, sizeof text));
  assert_string_equal(text, "train.seed: 42, not 1");
  assert_false(sh_config_differs(&config, &other, "loss optim", text, sizeof text));
  assert_false(sh_config_differs(&config, &config, NULL, text, sizeof text));
}

static void write_file(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static void test_files_and_base(void **state) {
  assert_int_equal(folder_make(state), 0);
  const char *base = in_folder("base.yaml"), *top = in_folder("top.yaml"), *chain = in_folder("chain.yaml");
  write_file(base, "model:\n  layers: 8\n  heads: 2\n");
  write_file(top, "model:\n  heads: 1\nbase: base.yaml\n");
  write_file(chain, "base: top.yaml\n");
  assert_int_equal(sh_config_read(&config, top), SH_OK);
  assert_int_equal(config.model.layers, 8);
  assert_int_equal(config.model.heads, 1); /* the file's own keys win, wherever base stands */
  assert_int_equal(sh_config_read(&config, chain), SH_ERR_USAGE);
  assert_says("top.yaml:3: a base file cannot have a base of its own");
  write_file(base, "model:\n  layerz: 8\n");
  assert_int_equal(sh_config_read(&config, top), SH_ERR_USAGE);
  assert_says("base.yaml:2: unknown key model.layerz; nearest is model.layers");
  assert_says("top.yaml:3: base: ");
  unlink(base);
  assert_int_equal(sh_config_read(&config, top), SH_ERR_USAGE);
  assert_says("base.yaml: cannot be read: No such file or directory");
  assert_int_equal(sh_config_read(&config, folder_name()), SH_ERR_USAGE);
  assert_says("cannot be read: Is a directory");
  bad_text("base: a.yaml\n", "x.yaml:1: base: only a file can have a base");
  folder_remove(state);
}

static void test_nearest(void **state) {
  (void)state;
  const char *const names[] = {"train", "eval", "recommend"};
  assert_string_equal(sh_nearest("trian", names, 3), "train");
  assert_string_equal(sh_nearest("recomend", names, 3), "recommend");
  assert_string_equal(sh_nearest("evals", names, 3), "eval");
  assert_null(sh_nearest("inspect", names, 3));
  assert_null(sh_nearest("train", names, 0));
}

static void test_list(void **state) {
  (void)state;
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  sh_config_list(out);
  fclose(out);
  assert_non_null(strstr(text, "model: architecture\n"));
  assert_non_null(strstr(text, "  model.layers             integer  2              0..512           blocks\n"));
  assert_non_null(strstr(text, "sasrec|hstu|fuxi-alpha|fuxi-beta"));
  for (char *line = text; *line; line += strcspn(line, "\n") + 1) assert_true(strcspn(line, "\n") <= 140);
  free(text);
}

/* Every recipe of the repository reads and has no conflicts. */
static void test_recipes(void **state) {
  (void)state;
  glob_t found;
  assert_int_equal(glob(SHOAL_SOURCE "/configs/*/*.yaml", 0, NULL, &found), 0);
  assert_true(found.gl_pathc >= 11);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    setup(NULL);
    if (sh_config_read(&config, found.gl_pathv[i]) != SH_OK || sh_config_check(&config) != SH_OK)
      fail_msg("%s: %s", found.gl_pathv[i], sh_error_message());
    assert_string_not_equal(config.data.path, "");
  }
  globfree(&found);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_defaults, setup),  cmocka_unit_test_setup(test_read, setup),
      cmocka_unit_test_setup(test_unknown, setup),   cmocka_unit_test_setup(test_wrong_type, setup),
      cmocka_unit_test_setup(test_range, setup),     cmocka_unit_test_setup(test_duplicates, setup),
      cmocka_unit_test_setup(test_not_yaml, setup),  cmocka_unit_test_setup(test_overrides, setup),
      cmocka_unit_test_setup(test_conflicts, setup), cmocka_unit_test_setup(test_round_trip, setup),
      cmocka_unit_test_setup(test_differs, setup),   cmocka_unit_test_setup(test_files_and_base, setup),
      cmocka_unit_test_setup(test_nearest, setup),   cmocka_unit_test_setup(test_list, setup),
      cmocka_unit_test_setup(test_recipes, setup),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
