/* ranks: 1 2 3 4 8 */
#include "support/mpi_verdict.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "mpi/coll.h"
#include "mpi/h5par.h"
#include "mpi/internal.h"
#include "support/folder.h"

static sh_grid grid;

static int setup(void **state) {
  MPI_Comm world = MPI_COMM_WORLD;
  return sh_grid_create(&grid, &world, 1) == SH_OK ? folder_make(state) : -1;
}

static int teardown(void **state) {
  sh_grid_destroy(&grid);
  return folder_remove(state);
}

static const int64_t R = 101, C = 12;
static float value(int64_t r, int64_t c) { return (float)(r * 1000 + c); }

/* Rows [first, last) of R that rank `index` of `size` holds; the last rank of several holds none. */
static void own_rows(int index, int size, int64_t *first, int64_t *last) {
  int parts = size > 1 ? size - 1 : 1;
  *first = index < parts ? R * index / parts : R;
  *last = index < parts ? R * (index + 1) / parts : R;
}

static sh_status fill(sh_h5 *f, const sh_axis *axis) {
  int64_t first, last, none[2] = {0, 0};
  SH_TRY(sh_h5_attr_write_text(f, "/", "format", "test"));
  SH_TRY(sh_h5_array_create(f, "/a/rows", SH_H5_F32, 2, (int64_t[2]){R, C}));
  SH_TRY(sh_h5_array_create(f, "/a/columns", SH_H5_F32, 2, (int64_t[2]){R, C}));
  SH_TRY(sh_h5_array_create(f, "/a/b/list", SH_H5_I64, 1, (int64_t[2]){R, 1}));
  SH_TRY(sh_h5_array_create(f, "/a/empty", SH_H5_U8, 1, (int64_t[2]){0, 1}));
  SH_TRY(sh_h5_array_create(f, "/big", SH_H5_F64, 2, (int64_t[2]){R * 100, C}));
  SH_TRY(sh_h5_attr_write_i64(f, "/a/rows", "i", -5));
  SH_TRY(sh_h5_attr_write_f64(f, "/a/rows", "x", 0.1));
  for (int k = 0; k < 20; k++) {
    char name[32];
    snprintf(name, sizeof name, "key%02d", k);
    SH_TRY(sh_h5_attr_write_text(f, "/run", name, k ? "some text" : ""));
  }
  SH_TRY(sh_h5_reserve(f));
  own_rows(axis->index, axis->size, &first, &last);
  /* rows out of a wider array in memory */
  float *wide = calloc((size_t)(R * (C + 3)), sizeof *wide);
  int64_t *list = calloc((size_t)R, sizeof *list);
  double *big = calloc((size_t)(R * 100 * C), sizeof *big);
  for (int64_t r = first; r < last; r++)
    for (int64_t c = 0; c < C; c++) wide[(r - first) * (C + 3) + c] = value(r, c);
  for (int64_t r = first; r < last; r++) list[r - first] = -r;
  for (int64_t i = 0; i < (last - first) * 100 * C; i++) big[i] = (double)(first * 100 * C + i);
  sh_status status =
      sh_h5_write(f, "/a/rows", SH_H5_F32, (int64_t[2]){first, 0}, (int64_t[2]){last - first, C}, C + 3, wide);
  /* columns: every rank a stripe, whole height */
  int64_t left = C * axis->index / axis->size, right = C * (axis->index + 1) / axis->size;
  for (int64_t r = 0; r < R; r++)
    for (int64_t c = left; c < right; c++) wide[r * (right - left) + c - left] = value(r, c);
  if (status == SH_OK)
    status = sh_h5_write(f, "/a/columns", SH_H5_F32, (int64_t[2]){0, left},
                         right > left ? (int64_t[2]){R, right - left} : none, 0, wide);
  if (status == SH_OK)
    status = sh_h5_write(f, "/a/b/list", SH_H5_I64, (int64_t[2]){first, 0}, (int64_t[2]){last - first, 1}, 0, list);
  if (status == SH_OK) status = sh_h5_write(f, "/a/empty", SH_H5_U8, none, none, 0, NULL);
  if (status == SH_OK)
    status =
        sh_h5_write(f, "/big", SH_H5_F64, (int64_t[2]){first * 100, 0}, (int64_t[2]){(last - first) * 100, C}, 0, big);
  free(wide);
  free(list);
  free(big);
  return status;
}

static sh_status make(const char *path, const sh_axis *axis) {
  sh_h5 *f;
  SH_TRY(sh_h5_create(&f, path, axis));
  sh_status status = fill(f, axis), closed = sh_h5_close(f, true);
  return status != SH_OK ? status : closed;
}

static bool same_files(const char *a, const char *b) {
  FILE *x = fopen(a, "rb"), *y = fopen(b, "rb");
  bool same = x && y;
  for (int c = 0; same && c != EOF;) same = (c = fgetc(x)) == fgetc(y);
  if (x) fclose(x);
  if (y) fclose(y);
  return same;
}

static void same_bytes_on_any_number_of_ranks(void **state) {
  (void)state;
  sh_grid alone;
  sh_grid_single(&alone);
  assert_all(make(in_folder("many.h5"), &grid.world) == SH_OK);
  bool good = true;
  usleep(1100000); /* no time of day may be in it */
  if (mpi_rank() == 0)
    good = make(in_folder("one.h5"), &alone.world) == SH_OK && same_files(in_folder("one.h5"), in_folder("many.h5"));
  assert_all(good);
}

static int visited;
static char seen[4096];
static sh_status note(sh_h5 *f, const char *path, bool group, void *arg) {
  (void)arg;
  visited++;
  snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s%s ", path, group ? "/" : "");
  return group ? sh_h5_each(f, path, note, NULL) : SH_OK;
}
static sh_status note_attr(sh_h5 *f, const char *object, const char *name, void *arg) {
  (void)f, (void)object, (void)arg;
  visited++;
  snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s ", name);
  return SH_OK;
}

static void read_back(void **state) {
  (void)state;
  sh_h5 *f;
  assert_all(make(in_folder("many.h5"), &grid.world) == SH_OK);
  assert_all(sh_h5_open(&f, in_folder("many.h5"), &grid.world) == SH_OK);
  /* another cut than the writer's: columns of the rows array, into a strided place, and as double */
  int n = grid.world.size, me = grid.world.index;
  int64_t left = C * me / n, right = C * (me + 1) / n, w = right - left;
  float *x = calloc((size_t)(R * (w + 2)), sizeof *x);
  assert_all(sh_h5_read(f, "/a/rows", SH_H5_F32, (int64_t[2]){0, left}, (int64_t[2]){R, w}, w + 2, x) == SH_OK);
  bool good = true;
  for (int64_t r = 0; r < R; r++)
    for (int64_t c = 0; c < w + 2; c++) good = good && x[r * (w + 2) + c] == (c < w ? value(r, left + c) : 0);
  assert_all(good);
  double *y = calloc((size_t)(R * C), sizeof *y);
  assert_all(sh_h5_read(f, "/a/columns", SH_H5_F64, (int64_t[2]){0, 0}, (int64_t[2]){R, C}, 0, y) == SH_OK);
  for (int64_t i = 0; i < R * C; i++) good = good && y[i] == (double)value(i / C, i % C);
  assert_all(good);
  int32_t one = 0;
  assert_all(sh_h5_read(f, "/a/b/list", SH_H5_I32, (int64_t[2]){me + 3, 0}, (int64_t[2]){1, 1}, 0, &one) == SH_OK);
  assert_all(one == -(me + 3));
  double last = 0;
  assert_all(sh_h5_read(f, "/big", SH_H5_F64, (int64_t[2]){R * 100 - 1, C - 1}, (int64_t[2]){1, 1}, 0, &last) == SH_OK);
  assert_all(last == (double)(R * 100 * C - 1));
  free(x);
  free(y);
  assert_all(sh_h5_close(f, false) == SH_OK);
}

static void names_and_attributes(void **state) {
  (void)state;
  sh_h5 *f;
  sh_h5_type type;
  int ndim;
  int64_t dim[2], i = 0, offset = 0;
  double x = 0;
  char text[32], kind;
  assert_all(make(in_folder("many.h5"), &grid.world) == SH_OK);
  assert_all(sh_h5_open(&f, in_folder("many.h5"), &grid.world) == SH_OK);
  assert_all(sh_h5_array_info(f, "/a/rows", &type, &ndim, dim) == SH_OK);
  assert_all(type == SH_H5_F32 && ndim == 2 && dim[0] == R && dim[1] == C);
  assert_all(sh_h5_array_info(f, "/a/empty", &type, &ndim, dim) == SH_OK && dim[0] == 0 && type == SH_H5_U8);
  assert_all(sh_h5_exists(f, "/a/b/list") && !sh_h5_exists(f, "/a/c/list") && !sh_h5_exists(f, "/a/b/lis"));
  assert_all(sh_h5_exists(f, "/"));
  assert_all(sh_h5_attr_read_i64(f, "/a/rows", "i", &i) == SH_OK && i == -5);
  assert_all(sh_h5_attr_read_f64(f, "/a/rows", "x", &x) == SH_OK && x == 0.1);
  assert_all(sh_h5_attr_read_f64(f, "/a/rows", "i", &x) == SH_OK && x == -5);
  assert_all(sh_h5_attr_read_i64(f, "/a/rows", "x", &i) == SH_ERR_DATA);
  assert_all(sh_h5_attr_read_text(f, "/run", "key07", text, sizeof text) == SH_OK && !strcmp(text, "some text"));
  assert_all(sh_h5_attr_read_text(f, "/run", "key00", text, sizeof text) == SH_OK && !strcmp(text, ""));
  assert_all(sh_h5_attr_read_text(f, "/run", "nokey", text, sizeof text) == SH_ERR_DATA);
  assert_all(strstr(sh_error_message(), "nokey") && strstr(sh_error_message(), "many.h5"));
  assert_all(sh_h5_attr_kind(f, "/a/rows", "x", &kind) == SH_OK && kind == 'f');
  assert_all(sh_h5_attr_exists(f, "/a/rows", "i") && !sh_h5_attr_exists(f, "/a/rows", "j"));
  assert_all(!sh_h5_attr_exists(f, "/nothing", "j"));
  visited = 0, seen[0] = '\0';
  assert_all(sh_h5_each(f, "/", note, NULL) == SH_OK && visited == 8);
  assert_all(!strcmp(seen, "/a/ /a/b/ /a/b/list /a/columns /a/empty /a/rows /big /run/ "));
  visited = 0, seen[0] = '\0';
  assert_all(sh_h5_each_attr(f, "/run", note_attr, NULL) == SH_OK && visited == 20);
  assert_all(!strncmp(seen, "key00 key01 ", 12));
  assert_all(sh_h5_offset(f, "/big", &offset) == SH_OK && offset > 0 && offset % 4096 == 0);
  int fd = open(in_folder("many.h5"), O_RDONLY);
  double at[2];
  assert_all(pread(fd, at, sizeof at, (off_t)(offset + 8 * 100)) == sizeof at && at[0] == 100 && at[1] == 101);
  close(fd);
  assert_all(sh_h5_close(f, false) == SH_OK);
}

static void failures_agree(void **state) {
  (void)state;
  sh_h5 *f;
  float x[16];
  assert_all(sh_h5_open(&f, in_folder("missing.h5"), &grid.world) == SH_ERR_DATA);
  assert_all(sh_h5_create(&f, in_folder("no/such/folder.h5"), &grid.world) == SH_ERR_INTERNAL);
  if (mpi_rank() == 0) {
    FILE *text = fopen(in_folder("text.h5"), "w");
    fprintf(text, "not what it seems\n");
    fclose(text);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  assert_all(sh_h5_open(&f, in_folder("text.h5"), &grid.world) == SH_ERR_DATA);
  assert_all(strstr(sh_error_message(), "not an HDF5 file"));
  assert_all(make(in_folder("many.h5"), &grid.world) == SH_OK);
  assert_all(sh_h5_open(&f, in_folder("many.h5"), &grid.world) == SH_OK);
  /* only the last rank asks for too much; all are told */
  int64_t rows = mpi_rank() == mpi_size() - 1 ? R + 1 : 1;
  assert_all(sh_h5_read(f, "/a/rows", SH_H5_F32, (int64_t[2]){0, 0}, (int64_t[2]){rows, 1}, 0, x) == SH_ERR_DATA);
  assert_all(strstr(sh_error_message(), "the array has 101"));
  assert_all(sh_h5_read(f, "/a/none", SH_H5_F32, (int64_t[2]){0, 0}, (int64_t[2]){1, 1}, 0, x) == SH_ERR_DATA);
  assert_all(sh_h5_array_info(f, "/a", NULL, NULL, NULL) == SH_ERR_DATA);
  assert_all(sh_h5_close(f, false) == SH_OK);
  if (mpi_rank() == 0 && truncate(in_folder("many.h5"), 5000) != 0) abort();
  MPI_Barrier(MPI_COMM_WORLD);
  assert_all(sh_h5_open(&f, in_folder("many.h5"), &grid.world) == SH_ERR_DATA);
}

/* One rank after another may write only a little: an error on all, no hang, and the process ends in order. */
static void no_space_on_one_rank(void **state) {
  (void)state;
  struct rlimit full, small;
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &full);
  for (int who = 0; who < mpi_size(); who++)
    for (int kilobytes = 0; kilobytes < 200; kilobytes += 60) {
      small = full;
      small.rlim_cur = (rlim_t)kilobytes << 10;
      int64_t first, last;
      own_rows(who, mpi_size(), &first, &last);
      if (mpi_rank() == who) setrlimit(RLIMIT_FSIZE, &small);
      sh_status status = make(in_folder("full.h5"), &grid.world);
      setrlimit(RLIMIT_FSIZE, &full);
      /* a rank without a byte beyond its limit may succeed */
      bool little = who > 0 && (last - first == 0 || kilobytes > 0) && status == SH_OK;
      assert_all(little ? last == first : status == SH_ERR_INTERNAL);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(same_bytes_on_any_number_of_ranks, setup, teardown),
      cmocka_unit_test_setup_teardown(read_back, setup, teardown),
      cmocka_unit_test_setup_teardown(names_and_attributes, setup, teardown),
      cmocka_unit_test_setup_teardown(failures_agree, setup, teardown),
      cmocka_unit_test_setup_teardown(no_space_on_one_rank, setup, teardown),
  };
  return mpi_run_tests(tests);
}
