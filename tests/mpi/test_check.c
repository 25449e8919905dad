/* ranks: 2 3 4 */
/* comm.check. Without an argument: right programs pass, and a training run with the check on has the bits of one
 * without. With the number of a wrong program: runs it; tests/cli/test_check.sh does and reads the message. */
#include "support/mpi_verdict.h"

#include <string.h>

#include "mpi/check.h"
#include "mpi/coll.h"
#include "mpi/exchange.h"
#include "support/folder.h"
#include "support/train_data.h"

static const char *data;

static void test_begin(void **state) {
  assert_all(folder_make(state) == 0);
  train_data d = {.users = 64, .items = 60, .least = 3, .most = 20, .times = true, .seed = 1};
  data = train_data_write(&d, "data.h5");
}

static void test_training(void **state) {
  (void)state;
  MPI_Comm comm = MPI_COMM_WORLD;
  for (int tensor = 1; tensor <= 2; tensor++) {
    if (mpi_size() % tensor) continue;
    for (int k = 0; k < TRAIN_LOSSES; k++) {
      sh_grid g;
      char what[TRAIN_WHAT];
      sh_config c = train_mixed(k % TRAIN_MODELS, k, data, what);
      train_run plain = {0}, checked = {0};
      assert_all(sh_grid_create(&g, &comm, tensor) == SH_OK);
      assert_all(train_whole(&plain, &c, &g, 4));
      sh_comm_check(true);
      assert_all(train_whole(&checked, &c, &g, 4));
      sh_grid_destroy(&g);
      sh_comm_check(false);
      assert_all(train_bits(&checked, &plain, what));
      train_free(&plain), train_free(&checked);
    }
  }
}

static void test_end(void **state) { folder_remove(state); }

/* The last rank does something else than the others; test_check.sh knows these lines by their words. */
static void wrong(int number) {
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  float x[64] = {0}, y[64];
  int64_t count[8] = {1, 1, 1, 1, 1, 1, 1, 1}, other[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  bool odd = mpi_rank() == mpi_size() - 1;
  if (sh_grid_create(&g, &comm, mpi_size()) != SH_OK) return;
  sh_request *r = sh_request_new(), *q = sh_request_new();
  sh_comm_check(true);
  sh_barrier(&g.world);
  switch (number) {
  case 0: /* another collective */
    if (odd) sh_barrier(&g.world);
    if (!odd) sh_sum_f32(&g.world, x, 64);
    break;
  case 1: /* another count */
    sh_sum_f32(&g.world, x, odd ? 63 : 64);
    break;
  case 2: /* another line */
    if (odd) sh_sum_f32(&g.world, x, 64);
    if (!odd) sh_sum_f32(&g.world, x, 64);
    break;
  case 3: /* another axis */
    sh_sum_f32(odd ? &g.tensor : &g.world, x, 64);
    break;
  case 4: /* one call too few: the end comes too early */
    if (!odd) sh_sum_f32(&g.world, x, 64);
    break;
  case 5: /* another root */
    sh_bcast(&g.world, x, sizeof x, odd ? 1 : 0);
    break;
  case 6: /* more for rank 0 than it expects */
    if (odd) count[0] = 2;
    sh_alltoallv_begin(&g.world, r, x, count, y, other, sizeof *x);
    sh_request_end(r);
    break;
  case 7: /* another kind */
    sh_comm_as(odd ? SH_COMM_LOSS : SH_COMM_ROWS);
    sh_sum_f32(&g.world, x, 64);
    break;
  case 8: /* operations begun in another order */
    for (int i = 0; i < 2; i++)
      if ((i == 0) == odd)
        sh_sum_f32_begin(&g.world, r, x, 64);
      else
        sh_reduce_scatter_f32_begin(&g.world, q, y, count, x);
    sh_request_end(r), sh_request_end(q);
    break;
  case 9: /* pieces of other lengths */
    if (odd) count[1] = 2;
    sh_allgatherv(&g.world, x, count, sizeof *x, y);
    break;
  default: /* nothing is wrong */
    sh_alltoallv_begin(&g.world, r, x, count, y, other, sizeof *x);
    sh_request_end(r);
    sh_sum_f32(&g.tensor, x, 64);
  }
  sh_request_free(r), sh_request_free(q);
  sh_grid_destroy(&g);
}

int main(int argc, char **argv) {
  if (argc > 1) {
    int level;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    wrong(atoi(argv[1]));
    MPI_Finalize();
    return 0;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_begin),
      cmocka_unit_test(test_training),
      cmocka_unit_test(test_end),
  };
  return mpi_run_tests(tests);
}
