/* ranks: 1 2 3 4 8 */
#include "support/mpi_verdict.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "mpi/coll.h"
#include "mpi/h5par.h"
#include "shoal/checkpoint.h"
#include "support/checkpoint_content.h"
#include "support/folder.h"

/* Write state `salt` on a grid over `comm`. */
static sh_status write_on(MPI_Comm comm, int tensor, const char *folder, int scale, int salt) {
  sh_grid g;
  content c;
  SH_TRY(sh_grid_create(&g, &comm, tensor));
  SH_TRY(content_create(&c, &g, scale, salt));
  sh_status status = sh_ckpt_write(&c.all, folder);
  if (status == SH_OK) status = sh_ckpt_mark_best(&c.all, folder);
  if (status == SH_OK) status = sh_ckpt_prune(&c.all, folder, 1);
  content_destroy(&c);
  sh_grid_destroy(&g);
  return status;
}

/* Read on a grid over `comm`; *bad = values of this rank that are not those of state `salt`. */
static sh_status read_on(MPI_Comm comm, int tensor, const char *path, int scale, int salt, int64_t *bad) {
  sh_grid g;
  content c;
  SH_TRY(sh_grid_create(&g, &comm, tensor));
  SH_TRY(content_create(&c, &g, scale, salt + 333));
  sh_status status = sh_ckpt_read(&c.all, path, false);
  *bad = content_visit(&c, salt, false) + (c.state.step != 100 + salt) + (c.state.loss_sum != 0.1 + salt);
  content_destroy(&c);
  sh_grid_destroy(&g);
  return status;
}

typedef struct comparison {
  sh_h5 *other;
  int arrays, differ;
} comparison;

static sh_status compare(sh_h5 *f, const char *path, bool group, void *arg) {
  comparison *k = arg;
  if (group) return sh_h5_each(f, path, compare, arg);
  sh_h5_type type;
  int ndim;
  int64_t dim[2], dim2[2];
  SH_TRY(sh_h5_array_info(f, path, &type, &ndim, dim));
  SH_TRY(sh_h5_array_info(k->other, path, &type, &ndim, dim2));
  k->arrays++;
  if (strstr(path, "/build")) return SH_OK; /* says how many threads there were */
  size_t bytes = (size_t)(dim[0] * dim[1]) * sh_h5_type_size(type);
  char *a = calloc(bytes + 1, 1), *b = calloc(bytes + 1, 1);
  sh_status status = sh_h5_read(f, path, type, (int64_t[2]){0, 0}, dim, 0, a);
  if (status == SH_OK) status = sh_h5_read(k->other, path, type, (int64_t[2]){0, 0}, dim, 0, b);
  k->differ += dim[0] != dim2[0] || dim[1] != dim2[1] || memcmp(a, b, bytes) != 0;
  free(a);
  free(b);
  return status;
}

static bool same_content(const char *a, const char *b) {
  sh_grid alone;
  sh_h5 *f;
  comparison k = {0};
  sh_grid_single(&alone);
  if (sh_h5_open(&f, a, &alone.world) != SH_OK) return false;
  if (sh_h5_open(&k.other, b, &alone.world) != SH_OK) return false;
  sh_status status = sh_h5_each(f, "/", compare, &k);
  sh_h5_close(f, false);
  sh_h5_close(k.other, false);
  return status == SH_OK && k.arrays > 20 && k.differ == 0;
}

static bool whole(const char *path) {
  FILE *out = fopen("/dev/null", "w");
  sh_status status = sh_checkpoint_verify(path, out);
  fclose(out);
  return status == SH_OK;
}

/* The file's content is that of a single process, bit by bit, checksums included. */
static void content_does_not_depend_on_the_grid(void **state) {
  (void)state;
  for (int tensor = 1; tensor <= mpi_size(); tensor *= 2) {
    if (mpi_size() % tensor) continue;
    char many[64];
    snprintf(many, sizeof many, "tensor-%d", tensor);
    assert_all(write_on(MPI_COMM_WORLD, tensor, in_folder(many), 2, 1) == SH_OK);
    bool good = true;
    if (mpi_rank() == 0) {
      snprintf(many, sizeof many, "tensor-%d/latest.h5", tensor);
      good = write_on(MPI_COMM_SELF, 1, in_folder("one"), 2, 1) == SH_OK;
      good = good && same_content(in_folder("one/latest.h5"), in_folder(many)) && whole(in_folder(many));
    }
    assert_all(good);
  }
}

/* Written by all, read by halves, by every rank alone, and with another tensor split. */
static void read_on_another_grid(void **state) {
  (void)state;
  int64_t bad = 0;
  MPI_Comm half;
  assert_all(write_on(MPI_COMM_WORLD, 1, in_folder("ckpt"), 2, 1) == SH_OK);
  assert_all(read_on(MPI_COMM_WORLD, 1, in_folder("ckpt/latest.h5"), 2, 1, &bad) == SH_OK && bad == 0);
  MPI_Comm_split(MPI_COMM_WORLD, mpi_rank() % 2, 0, &half);
  assert_all(read_on(half, 1, in_folder("ckpt/latest.h5"), 2, 1, &bad) == SH_OK && bad == 0);
  MPI_Comm_free(&half);
  assert_all(read_on(MPI_COMM_SELF, 1, in_folder("ckpt/latest.h5"), 2, 1, &bad) == SH_OK && bad == 0);
  for (int tensor = 2; tensor <= mpi_size(); tensor *= 2)
    if (mpi_size() % tensor == 0)
      assert_all(read_on(MPI_COMM_WORLD, tensor, in_folder("ckpt/latest.h5"), 2, 1, &bad) == SH_OK && bad == 0);
  /* and written by one, read by all */
  sh_status status = mpi_rank() == 0 ? write_on(MPI_COMM_SELF, 1, in_folder("single"), 2, 4) : SH_OK;
  assert_all(status == SH_OK);
  assert_all(read_on(MPI_COMM_WORLD, 1, in_folder("single/latest.h5"), 2, 4, &bad) == SH_OK && bad == 0);
}

static void stored_config(void **state) {
  (void)state;
  sh_grid g;
  sh_config config;
  MPI_Comm world = MPI_COMM_WORLD;
  assert_all(write_on(MPI_COMM_WORLD, 1, in_folder("ckpt"), 3, 1) == SH_OK);
  assert_all(sh_grid_create(&g, &world, 1) == SH_OK);
  assert_all(sh_ckpt_read_config(&g, in_folder("ckpt/latest.h5"), &config) == SH_OK);
  assert_all(config.model.layers == 3 && config.model.width == 50);
  assert_all(sh_ckpt_read_config(&g, in_folder("ckpt/none.h5"), &config) == SH_ERR_DATA);
  sh_grid_destroy(&g);
}

/* A flipped byte in an array, a cut file, another model: one clear error on every rank. */
static void damage_is_seen_by_all(void **state) {
  (void)state;
  static const char *const arrays[] = {"/params/block.1.uvqk", "/optim/exp_avg/block.0.bias", "/tables/item/rows",
                                       "/tables/item/offsets"};
  int64_t bad = 0;
  for (int i = 0; i < 4; i++) {
    assert_all(write_on(MPI_COMM_WORLD, 1, in_folder("ckpt"), 2, 1) == SH_OK);
    if (mpi_rank() == 0) {
      sh_grid alone;
      sh_h5 *f;
      int64_t at = 0;
      char byte = 77;
      sh_grid_single(&alone);
      if (sh_h5_open(&f, in_folder("ckpt/latest.h5"), &alone.world) != SH_OK) abort();
      if (sh_h5_offset(f, arrays[i], &at) != SH_OK) abort();
      sh_h5_close(f, false);
      int fd = open(in_folder("ckpt/latest.h5"), O_RDWR);
      if (pwrite(fd, &byte, 1, (off_t)at + 18) != 1) abort();
      close(fd);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    assert_all(read_on(MPI_COMM_WORLD, 1, in_folder("ckpt/latest.h5"), 2, 1, &bad) == SH_ERR_DATA);
    assert_all(strstr(sh_error_message(), arrays[i]) && strstr(sh_error_message(), "damaged"));
  }
  assert_all(read_on(MPI_COMM_WORLD, 1, in_folder("ckpt/latest.h5"), 1, 1, &bad) == SH_ERR_DATA);
  assert_all(strstr(sh_error_message(), "model.layers: 2, not 1"));
  if (mpi_rank() == 0 && truncate(in_folder("ckpt/latest.h5"), 70000) != 0) abort();
  MPI_Barrier(MPI_COMM_WORLD);
  assert_all(read_on(MPI_COMM_WORLD, 1, in_folder("ckpt/latest.h5"), 2, 1, &bad) == SH_ERR_DATA);
}

/* Each rank in turn may only write small files: SH_ERR_CKPT on all, what was there stays, nothing is left over. */
static void no_space(void **state) {
  (void)state;
  struct rlimit full, small;
  int64_t bad = 0;
  assert_all(write_on(MPI_COMM_WORLD, 1, in_folder("ckpt"), 2, 1) == SH_OK);
  getrlimit(RLIMIT_FSIZE, &full);
  for (int who = 0; who < mpi_size(); who++) {
    small = full;
    small.rlim_cur = 100 << 10;
    if (mpi_rank() == who) setrlimit(RLIMIT_FSIZE, &small);
    sh_status status = write_on(MPI_COMM_WORLD, 1, in_folder("ckpt"), 16, 7);
    setrlimit(RLIMIT_FSIZE, &full);
    assert_all(status == SH_ERR_CKPT);
    assert_all(access(in_folder("ckpt/step-000000000107.h5"), F_OK) != 0);
    assert_all(access(in_folder("ckpt/step-000000000107.h5.partial"), F_OK) != 0);
  }
  assert_all(read_on(MPI_COMM_WORLD, 1, in_folder("ckpt/latest.h5"), 2, 1, &bad) == SH_OK && bad == 0);
  if (mpi_rank() == 0) fclose(fopen(in_folder("file"), "w"));
  MPI_Barrier(MPI_COMM_WORLD);
  assert_all(write_on(MPI_COMM_WORLD, 1, in_folder("file"), 1, 1) == SH_ERR_CKPT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(content_does_not_depend_on_the_grid, folder_make, folder_remove),
      cmocka_unit_test_setup_teardown(read_on_another_grid, folder_make, folder_remove),
      cmocka_unit_test_setup_teardown(stored_config, folder_make, folder_remove),
      cmocka_unit_test_setup_teardown(damage_is_seen_by_all, folder_make, folder_remove),
      cmocka_unit_test_setup_teardown(no_space, folder_make, folder_remove),
  };
  return mpi_run_tests(tests);
}
