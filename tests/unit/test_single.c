/* A grid of one process without MPI: collectives return at once, tables work, an abort keeps its exit code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/arena.h"
#include "dist/table.h"
#include "mpi/coll.h"
#include "shoal/shoal_mpi.h"

static void test_collectives(void **state) {
  (void)state;
  sh_grid g;
  sh_grid_single(&g);
  const sh_axis *axes[] = {&g.world, &g.data, &g.tensor, &g.table};
  for (int k = 0; k < 4; k++) {
    const sh_axis *a = axes[k];
    float x[3] = {1, 2, 3}, out[3] = {0};
    int64_t three = 3, got = 0;
    assert_true(a->size == 1 && a->index == 0);
    sh_sum_f32(a, x, 3);
    sh_max_f32(a, x, 3);
    sh_bcast(a, x, sizeof x, 0);
    sh_barrier(a);
    sh_allgather(a, x, sizeof x, out);
    assert_memory_equal(x, out, sizeof x);
    sh_allgather(a, x, sizeof x, x);
    sh_allgatherv(a, x, &three, sizeof *x, memset(out, 0, sizeof out));
    assert_memory_equal(x, out, sizeof x);
    sh_reduce_scatter_f32(a, x, &three, memset(out, 0, sizeof out));
    assert_memory_equal(x, out, sizeof x);
    sh_alltoall_i64(a, &three, &got);
    assert_int_equal(got, 3);
    sh_request *r = sh_request_new();
    sh_alltoallv_begin(a, r, x, &three, memset(out, 0, sizeof out), &three, sizeof *x);
    sh_request_end(r);
    assert_memory_equal(x, out, sizeof x);
    sh_sum_f32_begin(a, r, x, 3);
    sh_request_end(r);
    sh_request_free(r);
    assert_true(x[0] == 1 && x[1] == 2 && x[2] == 3);
    sh_fail(SH_ERR_DATA, "as it was");
    assert_int_equal(sh_agree(a, SH_ERR_DATA), SH_ERR_DATA);
    assert_string_equal(sh_error_message(), "as it was");
    assert_int_equal(sh_agree(a, SH_OK), SH_OK);
  }
  assert_int_equal(sh_comm_bytes(), 0);
  sh_grid_destroy(&g);
}

static void test_table(void **state) {
  (void)state;
  sh_grid g;
  sh_grid_single(&g);
  sh_table t;
  sh_table_conf c = {.name = "item", .rows = 11, .width = 3, .init = {SH_INIT_UNIFORM, 0, 1}, .optim = SH_ROW_SGD};
  assert_int_equal(sh_table_create(&t, &c, &g.table), SH_OK);
  sh_arena arena;
  sh_arena_init(&arena, "test");
  sh_fetch f;
  sh_fetch_init(&f, &t);
  static const int64_t keys[] = {7, 2, 7, 10};
  sh_table_fetch_begin(&t, &f, keys, 4, &arena);
  sh_table_fetch_end(&t, &f, &arena);
  assert_true(f.nslots == 3 && f.ld == 16 && f.slot[0] == f.slot[2]);
  float before = f.rows[f.slot[0] * f.ld + 1];
  f.drows[f.slot[0] * f.ld + 1] = 2;
  assert_true(sh_table_grad(&t, &f) == 4);
  sh_table_update(&t, &(sh_row_hyper){.lr = 0.5, .clip_scale = 1, .step = 1});
  sh_table_fetch_begin(&t, &f, keys + 2, 1, &arena);
  sh_table_fetch_end(&t, &f, &arena);
  assert_true(f.nslots == 1 && f.rows[1] == before - 1);
  sh_fetch_free(&f);
  sh_arena_free(&arena);
  sh_table_destroy(&t);
}

/* Runs `child` in a process of its own and returns its exit code. */
static int exit_code_of(void (*child)(void)) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    if (!freopen("/dev/null", "w", stderr)) _exit(99);
    child();
    _exit(98);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void abort_as_data(void) {
  sh_grid g;
  sh_grid_single(&g);
  sh_abort(&g.world, SH_ERR_DATA, "the end");
}

static void abort_unopened(void) {
  sh_fail(SH_ERR_USAGE, "no key of this name");
  sh_world_abort(NULL, SH_ERR_USAGE);
}

/* What a task sees when srun's MPI plug-in does not fit. */
static void start_alone(void) {
  sh_world *w = NULL;
  unsetenv("OMPI_COMM_WORLD_SIZE");
  setenv("SLURM_NTASKS", "4", 1);
  setenv("SLURM_PROCID", "2", 1);
  sh_status status = sh_world_start(NULL, NULL, false, &w);
  bool clear = strstr(sh_error_message(), "4 tasks") && strstr(sh_error_message(), "MPI sees 1 rank");
  _exit(clear && !w ? (int)status : 97);
}

static void start_one(void) {
  sh_world *w = NULL;
  unsetenv("SLURM_PROCID");
  if (sh_world_start(NULL, NULL, false, &w) != SH_OK || sh_world_size(w) != 1 || sh_world_rank(w) != 0) _exit(97);
  sh_world_finish(w);
  int down = 0;
  MPI_Finalized(&down);
  _exit(down ? 0 : 96);
}

static void test_exit_codes(void **state) {
  (void)state;
  assert_int_equal(exit_code_of(abort_as_data), SH_ERR_DATA);
  assert_int_equal(exit_code_of(abort_unopened), SH_ERR_USAGE);
}

static void test_world(void **state) {
  (void)state;
  assert_int_equal(exit_code_of(start_alone), SH_ERR_USAGE);
  assert_int_equal(exit_code_of(start_one), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_collectives),
      cmocka_unit_test(test_table),
      cmocka_unit_test(test_exit_codes),
      cmocka_unit_test(test_world),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
