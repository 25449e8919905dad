/* Checkpoints that are damaged, cut short, something else, without space, or whose writer died. One process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shoal/checkpoint.h"
#include "support/checkpoint_content.h"
#include "support/folder.h"
#include "support/skipped.h"

static sh_grid alone;
static FILE *nowhere;

static int setup(void **state) {
  sh_grid_single(&alone);
  nowhere = fopen("/dev/null", "w");
  return folder_make(state);
}

static int teardown(void **state) {
  fclose(nowhere);
  return folder_remove(state);
}

static sh_status write_one(const char *folder, int scale, int salt) {
  content c;
  SH_TRY(content_create(&c, &alone, scale, salt));
  sh_status status = sh_ckpt_write(&c.all, folder);
  content_destroy(&c);
  return status;
}

static void store(const char *path, const char *data, size_t size) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, size, f), size);
  fclose(f);
}

static sh_status verify(const char *path) { return sh_checkpoint_verify(path, nowhere); }

static void whole_file_is_whole(void **state) {
  (void)state;
  content c;
  assert_int_equal(write_one(folder_name(), 1, 0), SH_OK);
  assert_int_equal(verify(in_folder("latest.h5")), SH_OK);
  assert_int_equal(content_create(&c, &alone, 1, 5), SH_OK);
  assert_int_equal(sh_ckpt_read(&c.all, in_folder("latest.h5"), false), SH_OK);
  assert_int_equal(content_visit(&c, 0, false), 0);
  assert_int_equal(c.state.step, 100);
  assert_true(c.state.loss_sum == 0.1);
  content_destroy(&c);
}

static void inspect_says_what_is_in_it(void **state) {
  (void)state;
  char *text = NULL;
  size_t size = 0;
  assert_int_equal(write_one(folder_name(), 2, 0), SH_OK);
  FILE *out = open_memstream(&text, &size);
  assert_int_equal(sh_checkpoint_inspect(in_folder("latest.h5"), out), SH_OK);
  fclose(out);
  static const char *const words[] = {"step 100, epoch 3",
                                      "ndcg@10 0.1972",
                                      "item: 2007 rows x 10",
                                      "sum_sq x 1",
                                      "exp_avg exp_avg_sq",
                                      "2 layers",
                                      "latest.h5 -> step-000000000100.h5"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    if (!strstr(text, words[i])) fail_msg("\"%s\" is not in:\n%s", words[i], text);
  free(text);
}

/* Every flipped bit is found, or the content is provably what was written: then it hit bytes that mean nothing. */
static void flipped_bits(void **state) {
  (void)state;
  size_t size;
  int found = 0, harmless = 0, tries = 1500;
  assert_int_equal(write_one(folder_name(), 1, 0), SH_OK);
  char *data = content_bytes(in_folder("latest.h5"), &size);
  uint64_t random = 12345;
  content c;
  assert_int_equal(content_create(&c, &alone, 1, 0), SH_OK);
  for (int i = 0; i < tries; i++) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    /* the first tries go through the superblock, byte by byte */
    size_t at = i < 96 ? (size_t)i : (size_t)(random >> 16) % size;
    char bit = (char)(1 << (random >> 60) % 8);
    data[at] ^= bit;
    store(in_folder("flipped.h5"), data, size);
    data[at] ^= bit;
    sh_status status = verify(in_folder("flipped.h5"));
    if (status != SH_OK && status != SH_ERR_DATA) fail_msg("byte %zu: status %d", at, (int)status);
    if (status == SH_OK) {
      content_visit(&c, 9, true);
      assert_int_equal(sh_ckpt_read(&c.all, in_folder("flipped.h5"), false), SH_OK);
      if (content_visit(&c, 0, false) != 0) fail_msg("byte %zu: a flipped bit went unseen", at);
    }
    found += status == SH_ERR_DATA;
    harmless += status == SH_OK;
  }
  print_message("%d bits flipped in %zu bytes: %d found, %d in bytes without meaning\n", tries, size, found, harmless);
  assert_true(found > tries / 2);
  free(data);
  content_destroy(&c);
}

/* Every bit of every array's bytes matters: flip in each array, and be told which. */
static void flipped_array_is_named(void **state) {
  (void)state;
  static const char *const arrays[] = {
      "/params/block.0.uvqk", "/optim/exp_avg_sq/block.0.bias", "/tables/item/rows", "/tables/item/exp_avg",
      "/tables/tiny/sum_sq",  "/tables/item/offsets",           "/config",           "/build"};
  size_t size;
  assert_int_equal(write_one(folder_name(), 1, 0), SH_OK);
  char *data = content_bytes(in_folder("latest.h5"), &size);
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
    hid_t file = H5Fopen(in_folder("latest.h5"), H5F_ACC_RDONLY, H5P_DEFAULT),
          set = H5Dopen2(file, arrays[i], H5P_DEFAULT);
    size_t at = (size_t)H5Dget_offset(set) + (size_t)H5Dget_storage_size(set) - 1;
    H5Dclose(set);
    H5Fclose(file);
    data[at] ^= 64;
    store(in_folder("flipped.h5"), data, size);
    data[at] ^= 64;
    assert_int_equal(verify(in_folder("flipped.h5")), SH_ERR_DATA);
    assert_non_null(strstr(sh_error_message(), arrays[i]));
    assert_non_null(strstr(sh_error_message(), "block 0"));
  }
  free(data);
}

/* Changed with HDF5 itself, so that its own checksums agree. */
static void changed_attribute(void **state) {
  (void)state;
  assert_int_equal(write_one(folder_name(), 1, 0), SH_OK);
  hid_t file = H5Fopen(in_folder("latest.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
  hid_t run = H5Oopen(file, "/run", H5P_DEFAULT), attr = H5Aopen(run, "step", H5P_DEFAULT);
  int64_t step = 7;
  assert_true(H5Awrite(attr, H5T_NATIVE_INT64, &step) >= 0);
  H5Aclose(attr);
  H5Oclose(run);
  H5Fclose(file);
  assert_int_equal(verify(in_folder("latest.h5")), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "digest"));
}

static void cut_short(void **state) {
  (void)state;
  size_t size;
  assert_int_equal(write_one(folder_name(), 1, 0), SH_OK);
  char *data = content_bytes(in_folder("latest.h5"), &size);
  for (size_t i = 0; i < 300; i++) {
    size_t length = i < 100 ? i : i < 200 ? size - (i - 99) : size * (i - 199) / 101;
    store(in_folder("short.h5"), data, length);
    if (verify(in_folder("short.h5")) != SH_ERR_DATA) fail_msg("cut to %zu of %zu bytes and not seen", length, size);
    assert_int_equal(sh_checkpoint_inspect(in_folder("short.h5"), nowhere), SH_ERR_DATA);
  }
  free(data);
}

static void something_else(void **state) {
  (void)state;
  store(in_folder("text.h5"), "user,item,time\n1,2,3\n", 21);
  assert_int_equal(verify(in_folder("text.h5")), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "not an HDF5 file"));
  store(in_folder("empty.h5"), "", 0);
  assert_int_equal(verify(in_folder("empty.h5")), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "empty"));
  hid_t file = H5Fcreate(in_folder("other.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);
  assert_int_equal(verify(in_folder("other.h5")), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "not a Shoal checkpoint"));
  assert_int_equal(verify(in_folder("missing.h5")), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "No such file"));
  assert_int_equal(verify(folder_name()), SH_ERR_DATA);
}

static void another_model(void **state) {
  (void)state;
  content c;
  assert_int_equal(write_one(folder_name(), 2, 0), SH_OK);
  assert_int_equal(content_create(&c, &alone, 1, 5), SH_OK);
  assert_int_equal(sh_ckpt_read(&c.all, in_folder("latest.h5"), true), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "model.layers: 2, not 1"));
  assert_non_null(strstr(sh_error_message(), "2007x10 in the file, 1007x10 in this run"));
  content_destroy(&c);
  assert_int_equal(write_one(folder_name(), 1, 0), SH_OK);
  assert_int_equal(content_create(&c, &alone, 2, 5), SH_OK);
  assert_int_equal(sh_ckpt_read(&c.all, in_folder("latest.h5"), false), SH_ERR_DATA);
  assert_non_null(strstr(sh_error_message(), "block.1.uvqk (24x192) is not in the file"));
  content_destroy(&c);
}

static int count_files(const char *folder, const char *part) {
  int n = 0;
  DIR *d = opendir(folder);
  for (struct dirent *e = readdir(d); e; e = readdir(d)) n += strstr(e->d_name, part) != NULL;
  closedir(d);
  return n;
}

static void links_and_pruning(void **state) {
  (void)state;
  content c;
  char folder[512];
  snprintf(folder, sizeof folder, "%s", in_folder("a/b/ckpt"));
  assert_int_equal(content_create(&c, &alone, 1, 0), SH_OK);
  assert_int_equal(sh_ckpt_mark_best(&c.all, folder), SH_ERR_CKPT);
  for (int i = 1; i <= 5; i++) {
    c.state.step = i;
    content_visit(&c, i, true);
    assert_int_equal(sh_ckpt_write(&c.all, folder), SH_OK);
    if (i == 2 || i == 4) assert_int_equal(sh_ckpt_mark_best(&c.all, folder), SH_OK);
    if (i == 4) assert_int_equal(sh_ckpt_mark_best(&c.all, folder), SH_OK);
    store(in_folder("a/b/ckpt/step-000000000099.h5.partial"), "x", 1);
    assert_int_equal(sh_ckpt_prune(&c.all, folder, 2), SH_OK);
  }
  c.state.step = 5;
  assert_int_equal(sh_ckpt_write(&c.all, folder), SH_OK); /* the same step once more */
  assert_int_equal(count_files(folder, "step-"), 2);
  assert_int_equal(count_files(folder, ".partial"), 0);
  assert_int_equal(count_files(folder, ".new"), 0);
  assert_int_equal(sh_ckpt_read(&c.all, in_folder("a/b/ckpt/best.h5"), false), SH_OK);
  assert_int_equal(c.state.step, 4);
  assert_int_equal(content_visit(&c, 4, false), 0);
  assert_int_equal(sh_ckpt_read(&c.all, in_folder("a/b/ckpt/latest.h5"), false), SH_OK);
  assert_int_equal(c.state.step, 5);
  /* pruning to one keeps the best by its own name, and never the target of latest */
  assert_int_equal(sh_ckpt_prune(&c.all, folder, 1), SH_OK);
  assert_int_equal(verify(in_folder("a/b/ckpt/best.h5")), SH_OK);
  assert_int_equal(verify(in_folder("a/b/ckpt/latest.h5")), SH_OK);
  content_destroy(&c);
}

/* What was there stays, nothing half-written stays, the code is SH_ERR_CKPT. */
static void check_refused(const char *folder, const char *old) {
  size_t before_size, after_size;
  char *before = content_bytes(old, &before_size);
  assert_non_null(before);
  assert_int_equal(write_one(folder, 16, 50), SH_ERR_CKPT);
  print_message("  %s\n", sh_error_message());
  assert_int_equal(count_files(folder, ".partial"), 0);
  char *after = content_bytes(old, &after_size);
  assert_int_equal(before_size, after_size);
  assert_memory_equal(before, after, before_size);
  assert_int_equal(verify(old), SH_OK);
  free(before);
  free(after);
}

static void file_size_limit(void **state) {
  (void)state;
  struct rlimit full, small;
  assert_int_equal(write_one(folder_name(), 1, 0), SH_OK);
  getrlimit(RLIMIT_FSIZE, &full);
  static const int kilobytes[] = {0, 1, 20, 300, 500};
  for (int i = 0; i < 5; i++) {
    small = full;
    small.rlim_cur = (rlim_t)kilobytes[i] << 10;
    setrlimit(RLIMIT_FSIZE, &small);
    sh_status status = write_one(folder_name(), 6, 50);
    setrlimit(RLIMIT_FSIZE, &full);
    assert_int_equal(status, SH_ERR_CKPT);
    assert_int_equal(count_files(folder_name(), ".partial"), 0);
    assert_int_equal(verify(in_folder("latest.h5")), SH_OK);
  }
}

static void full_disk(void **state) {
  (void)state;
  char mount_point[512], latest[600];
  snprintf(mount_point, sizeof mount_point, "%s", in_folder("small-disk"));
  mkdir(mount_point, 0777);
  if (mount("tmpfs", mount_point, "tmpfs", 0, "size=3m") != 0)
    SKIP_TEST("no disk is filled: no tmpfs can be mounted here (%s)", strerror(errno));
  snprintf(latest, sizeof latest, "%s/latest.h5", mount_point);
  sh_status first = write_one(mount_point, 1, 0);
  if (first == SH_OK) check_refused(mount_point, latest);
  umount2(mount_point, MNT_DETACH);
  assert_int_equal(first, SH_OK);
}

static void no_permission_or_no_folder(void **state) {
  (void)state;
  store(in_folder("file"), "x", 1);
  assert_int_equal(write_one(in_folder("file"), 1, 0), SH_ERR_CKPT);
  assert_int_equal(write_one(in_folder("file/below"), 1, 0), SH_ERR_CKPT);
}

/* Runs in a process of its own: checkpoints of steps 100 + first, 101 + first, ... until it is killed. */
static int write_for_ever(const char *folder, int first) {
  sh_grid_single(&alone);
  for (int k = first;; k++) {
    content c;
    if (content_create(&c, &alone, 3, k) != SH_OK || sh_ckpt_write(&c.all, folder) != SH_OK) return 1;
    if (sh_ckpt_prune(&c.all, folder, 2) != SH_OK) return 1;
    content_destroy(&c);
  }
}

/* A writer is killed at many moments: latest.h5 always leads to a whole checkpoint. */
static void killed_writer(void **state) {
  (void)state;
  char folder[512], latest[600], first[16], name[64], path[600];
  snprintf(folder, sizeof folder, "%s", in_folder("killed"));
  snprintf(latest, sizeof latest, "%s/latest.h5", folder);
  int left_partial = 0, rounds = 20;
  for (int i = 0; i < rounds; i++) {
    snprintf(first, sizeof first, "%d", i * 1000);
    snprintf(name, sizeof name, "step-%012d.h5", 100 + i * 1000);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* a fresh process: threads do not survive fork */
      execl("/proc/self/exe", "test_ckpt_damage", "write", folder, first, (char *)NULL);
      _exit(127);
    }
    /* when its first one is there, wait a little more, so that death comes anywhere in a later one */
    for (int wait = 0; wait < 30000 && access(path, F_OK) != 0; wait++) usleep(1000);
    assert_int_equal(access(path, F_OK), 0);
    usleep((useconds_t)(100 + 7000 * i));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    left_partial += count_files(folder, ".partial");
    if (i > 0 && verify(latest) != SH_OK) fail_msg("round %d: %s", i, sh_error_message());
  }
  print_message("%d writers killed, %d of them in the middle of a file\n", rounds, left_partial);
  assert_int_equal(write_one(folder, 3, 0), SH_OK);
  assert_int_equal(count_files(folder, ".partial"), 0);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "write") == 0) return write_for_ever(argv[2], atoi(argv[3]));
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(whole_file_is_whole, setup, teardown),
      cmocka_unit_test_setup_teardown(inspect_says_what_is_in_it, setup, teardown),
      cmocka_unit_test_setup_teardown(flipped_bits, setup, teardown),
      cmocka_unit_test_setup_teardown(flipped_array_is_named, setup, teardown),
      cmocka_unit_test_setup_teardown(changed_attribute, setup, teardown),
      cmocka_unit_test_setup_teardown(cut_short, setup, teardown),
      cmocka_unit_test_setup_teardown(something_else, setup, teardown),
      cmocka_unit_test_setup_teardown(another_model, setup, teardown),
      cmocka_unit_test_setup_teardown(links_and_pruning, setup, teardown),
      cmocka_unit_test_setup_teardown(file_size_limit, setup, teardown),
      cmocka_unit_test_setup_teardown(full_disk, setup, teardown),
      cmocka_unit_test_setup_teardown(no_permission_or_no_folder, setup, teardown),
      cmocka_unit_test_setup_teardown(killed_writer, setup, teardown),
  };
  return with_skipped(cmocka_run_group_tests_name("checkpoint damage", tests, NULL, NULL));
}
