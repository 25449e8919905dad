/* ranks: 1 2 3 4 8 */
/* parallel.zero and comm.wire: the same training, divided state, known traffic, checkpoints for every grid. */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "core/threads.h"
#include "support/folder.h"
#include "support/train_data.h"

enum { STEPS = 20 };
static const double loss_tolerance = 2e-5, param_tolerance = 1e-4; /* what another order of float sums may change */
static const double wire_tolerance = 5e-3;

static const char *data, *checkpoints, *latest;
static sh_grid grid, self;

static void test_begin(void **state) {
  assert_all(folder_make(state) == 0);
  data = train_data_write(&train_usual, "data.h5");
  checkpoints = in_folder("ckpt"), latest = in_folder("ckpt/latest.h5");
  MPI_Comm world = MPI_COMM_WORLD, alone = MPI_COMM_SELF;
  assert_all(sh_grid_create(&grid, &world, 1) == SH_OK && sh_grid_create(&self, &alone, 1) == SH_OK);
}

/* HSTU, sampled loss, and SASRec, shared one. */
static sh_config config(int model, bool zero, const char *wire, char what[TRAIN_WHAT]) {
  sh_config c = train_mixed(model, model, data, what);
  c.parallel.zero = zero;
  snprintf(c.comm.wire, sizeof c.comm.wire, "%s", wire);
  c.optim.clip = 0.5, c.optim.weight_decay = 0.01;
  return c;
}

/* AdamW works by element and sums have one order, so who holds the state changes no bit; nor do buckets or threads. */
static void test_same_bits(void **state) {
  (void)state;
  for (int m = 0; m < 2; m++) {
    char what[TRAIN_WHAT];
    sh_config c = config(m, false, "fp32", what);
    train_run off = {0}, on = {0}, cut = {0};
    assert_all(train_whole(&off, &c, &grid, STEPS));
    c.parallel.zero = 1;
    assert_all(train_whole(&on, &c, &grid, STEPS));
    assert_all(train_bits(&on, &off, what));
    c.comm.bucket = 1 << 20;
    sh_threads_setup(2);
    assert_all(train_whole(&cut, &c, &grid, 5));
    sh_threads_setup(0);
    for (int i = 0; i < cut.steps; i++) assert_all(cut.loss[i] == on.loss[i]);
    train_free(&off), train_free(&on), train_free(&cut);
  }
}

static void test_one_rank(void **state) {
  (void)state;
  for (int m = 0; m < 2; m++) {
    char what[TRAIN_WHAT];
    sh_config c = train_smooth(config(m, false, "fp32", what));
    train_run one = {0};
    assert_all(train_alone(&one, &c, &self, STEPS));
    for (int k = 0; k < 3; k++) { /* ZeRO, bf16, both */
      train_run all = {0};
      bool half = k > 0;
      c.parallel.zero = k != 1;
      snprintf(c.comm.wire, sizeof c.comm.wire, half ? "bf16" : "fp32");
      assert_all(train_whole(&all, &c, &grid, STEPS));
      assert_all(train_rounding(&all, &one, half ? wire_tolerance : loss_tolerance,
                                half ? wire_tolerance : param_tolerance, what));
      bool same = !memcmp(all.loss, one.loss, sizeof(double) * STEPS);
      assert_all(!half || same == (mpi_size() == 1)); /* it does something; not on one rank */
      train_free(&all);
    }
    train_free(&one);
  }
}

/* On tensor x data grids, where slices are of parts. */
static void test_tensor(void **state) {
  (void)state;
  if (mpi_size() % 2) skip();
  sh_grid g;
  MPI_Comm world = MPI_COMM_WORLD;
  assert_all(sh_grid_create(&g, &world, 2) == SH_OK);
  for (int m = 0; m < 2; m++) {
    char what[TRAIN_WHAT];
    sh_config c = config(m, false, m ? "bf16" : "fp32", what);
    c.parallel.tensor = 2;
    train_run off = {0}, on = {0};
    assert_all(train_whole(&off, &c, &g, STEPS));
    c.parallel.zero = 1;
    assert_all(train_whole(&on, &c, &g, STEPS));
    assert_all(m ? train_rounding(&on, &off, wire_tolerance, 0, what) : train_bits(&on, &off, what));
    train_free(&off), train_free(&on);
  }
  sh_grid_destroy(&g);
}

/* The optimiser's state is divided, and the run arena is smaller by what others hold. */
static void test_memory(void **state) {
  (void)state;
  char what[TRAIN_WHAT];
  int64_t used[2] = {0, 0};
  for (int zero = 0; zero < 2; zero++) {
    sh_trainer t;
    sh_config c = config(0, zero, "fp32", what);
    assert_all(sh_trainer_create(&t, &c, &grid) == SH_OK);
    const sh_params *p = &t.model.params;
    int64_t row = 0, share = zero ? p->block / mpi_size() : p->block, all = t.held.floats;
    for (int i = 0; i < p->n; i++) row = p->row[i].local[1] > row ? p->row[i].local[1] : row;
    assert_all(llabs(t.held.floats - share) <= row + 16 * p->n);
    sh_sum_i64(&grid.world, &all, 1);
    assert_all(!zero || llabs(all - p->block) <= 16 * p->n * mpi_size());
    sh_memory_shape s = {.tokens = 10, .sequences = 2, .longest = 5, .micro = 1, .items = 60, .threads = 1};
    s.ranks = mpi_size(), s.tensor = 1;
    int64_t moments = 2 * t.held.floats * (int64_t)sizeof(float);
    int64_t rest = 2 * p->block * (int64_t)sizeof(float) + sh_grad_sync_bytes(p, mpi_size(), &c.comm);
    assert_all(llabs(sh_memory_predict(&c, &t.model, &s, &t.scratch).dense - moments - rest) <=
               8 * (row + 16 * p->n + 1));
    used[zero] = (int64_t)t.run.used - moments;
    sh_trainer_destroy(&t);
  }
  assert_all(llabs(used[0] - used[1]) <= 4 * 64); /* alignment */
}

/* Bytes of one step, all ranks together. */
static int64_t traffic(bool zero, const char *wire, int accumulate) {
  char what[TRAIN_WHAT];
  sh_config c = config(0, zero, wire, what);
  c.batch.accumulate = accumulate;
  sh_trainer t;
  train_run r = {0};
  assert_all(sh_trainer_create(&t, &c, &grid) == SH_OK);
  int64_t sent = sh_comm_bytes();
  assert_all(train_steps(&r, &t, 1));
  sent = sh_comm_bytes() - sent;
  sh_sum_i64(&grid.world, &sent, 1);
  sh_trainer_rewind(&t);
  sh_trainer_destroy(&t);
  return sent;
}

/* docs/ARCHITECTURE.md, "Parallelism": what changes with wire and zero is the dense traffic, once a step however many
 * micro-batches there are. */
static void test_traffic(void **state) {
  (void)state;
  char what[TRAIN_WHAT];
  sh_config c = config(0, false, "fp32", what);
  sh_model m;
  assert_all(sh_model_create(&m, &c.model, NULL, false) == SH_OK);
  int64_t each = (mpi_size() - 1) * m.params.block;
  sh_model_destroy(&m);
  for (int accumulate = 1; accumulate <= 3; accumulate += 2) {
    int64_t base = traffic(false, "fp32", accumulate);
    assert_all(base - traffic(false, "bf16", accumulate) == each * (8 - 4));
    assert_all(base - traffic(true, "bf16", accumulate) == each * (8 - 6));
    assert_all(base == traffic(true, "fp32", accumulate));
  }
}

/* The second time round the same batches, in the same two stages, find all they need. */
static void test_allocations(void **state) {
  (void)state;
  char what[TRAIN_WHAT];
  sh_config c = config(1, true, "bf16", what);
  assert_all(train_again_allocations(&c, &grid, 8) == 0);
}

/* Read the newest checkpoint on a grid of the first `ranks` ranks, as it was trained with or without division. */
static bool read_on(int ranks, int tensor, sh_config c, const train_run *want) {
  MPI_Comm some;
  MPI_Comm_split(MPI_COMM_WORLD, mpi_rank() < ranks ? 0 : MPI_UNDEFINED, mpi_rank(), &some);
  bool good = true;
  if (some != MPI_COMM_NULL) {
    sh_grid g;
    sh_trainer t;
    c.parallel.tensor = tensor;
    good = sh_grid_create(&g, &some, tensor) == SH_OK && sh_trainer_create(&t, &c, &g) == SH_OK;
    sh_ckpt_content content = sh_trainer_content(&t);
    good = good && sh_ckpt_read(&content, latest, false) == SH_OK;
    if (good) {
      train_run r = {0};
      train_keep(&r, &t);
      memcpy(r.loss, want->loss, sizeof r.loss), memcpy(r.grad_norm, want->grad_norm, sizeof r.grad_norm);
      memcpy(r.rows_touched, want->rows_touched, sizeof r.rows_touched), r.steps = want->steps;
      good = t.state.step == want->steps && train_bits(&r, want, "read");
      train_free(&r);
    } else {
      fprintf(mpi_verdict_out, "%d ranks: %s\n", ranks, sh_error_message());
    }
    sh_trainer_destroy(&t);
    sh_grid_destroy(&g);
    MPI_Comm_free(&some);
  }
  return good;
}

static void test_checkpoints(void **state) {
  (void)state;
  for (int written = 0; written < 4; written++) { /* with ZeRO and without; with a tensor axis if there can be one */
    int tensor = written / 2 + 1;
    if (mpi_size() % tensor) continue;
    char what[TRAIN_WHAT];
    sh_config c = config(0, written % 2 == 0, "fp32", what);
    c.parallel.tensor = tensor;
    sh_grid g;
    sh_trainer t;
    train_run r = {0};
    MPI_Comm world = MPI_COMM_WORLD;
    assert_all(sh_grid_create(&g, &world, tensor) == SH_OK && sh_trainer_create(&t, &c, &g) == SH_OK);
    assert_all(train_steps(&r, &t, 3));
    sh_trainer_rewind(&t);
    train_keep(&r, &t);
    sh_ckpt_content content = sh_trainer_content(&t);
    assert_all(sh_ckpt_write(&content, checkpoints) == SH_OK);
    sh_trainer_destroy(&t);
    sh_grid_destroy(&g);
    for (int ranks = 1; ranks <= 4 && ranks <= mpi_size(); ranks++)
      for (int k = 0; k < 4; k++) {
        c.parallel.zero = k % 2;
        if (ranks % (k / 2 + 1) == 0) assert_all(read_on(ranks, k / 2 + 1, c, &r));
      }
    train_free(&r);
  }
}

static void test_end(void **state) {
  sh_grid_destroy(&grid);
  sh_grid_destroy(&self);
  folder_remove(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_begin),       cmocka_unit_test(test_same_bits),   cmocka_unit_test(test_one_rank),
      cmocka_unit_test(test_tensor),      cmocka_unit_test(test_memory),      cmocka_unit_test(test_traffic),
      cmocka_unit_test(test_allocations), cmocka_unit_test(test_checkpoints), cmocka_unit_test(test_end),
  };
  return mpi_run_tests(tests);
}
