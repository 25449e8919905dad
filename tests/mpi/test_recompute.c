/* ranks: 1 2 */
/* model.recompute changes memory and nothing else: every model trains to the same bits in every mode, no mode allocates
 * after warm-up, and the arenas hold what was predicted. */
#include "support/mpi_verdict.h"

#include <string.h>

#include "support/folder.h"
#include "support/train_data.h"
#include "train/memory.h"

enum { STEPS = 3, MODES = 3 };
static const char *const modes[MODES] = {"none", "attention", "layer"};
static const char *data;
static sh_grid grid;

static void test_begin(void **state) {
  assert_all(folder_make(state) == 0);
  /* as long for everyone: every batch has the same size */
  train_data d = {.users = 64, .items = 60, .least = 40, .most = 40, .times = true, .seed = 3};
  data = train_data_write(&d, "data.h5");
  MPI_Comm world = MPI_COMM_WORLD;
  assert_all(sh_grid_create(&grid, &world, 1) == SH_OK);
}

/* Every model, each with another loss; dropout is on. Four blocks: three are made again. */
static sh_config config_of(int model, int mode, char what[TRAIN_WHAT]) {
  sh_config c = train_mixed(model, model, data, what);
  c.model.layers = 4, c.model.max_len = 33;
  snprintf(c.model.recompute, sizeof c.model.recompute, "%s", modes[mode]);
  if (model % 2 == 0) snprintf(c.train.precision, sizeof c.train.precision, "bf16");
  return c;
}

static void test_same_bits(void **state) {
  (void)state;
  for (int m = 0; m < TRAIN_MODELS; m++) {
    char what[TRAIN_WHAT];
    train_run want = {0};
    for (int r = 0; r < MODES; r++) {
      sh_config c = config_of(m, r, what);
      c.batch.accumulate = 1 + m % 2;
      train_run got = {0};
      assert_all(train_whole(r ? &got : &want, &c, &grid, STEPS));
      if (r > 0) assert_all(train_bits(&got, &want, modes[r]));
      train_free(&got);
    }
    train_free(&want);
  }
}

static bool within(double got, double want, double share) {
  return got > (1 - share) * want && got < (1 + share) * want;
}

/* The step arena holds activations and rows. */
static void test_predicted_and_measured(void **state) {
  (void)state;
  for (int m = 0; m < TRAIN_MODELS; m++) {
    double activations[MODES];
    for (int r = 0; r < MODES; r++) {
      char what[TRAIN_WHAT];
      sh_config c = config_of(m, r, what);
      sh_trainer t;
      train_run run = {0};
      assert_all(sh_trainer_create(&t, &c, &grid) == SH_OK);
      assert_all(train_steps(&run, &t, STEPS));
      sh_memory_shape s = t.largest;
      s.micro = 1, s.items = t.data.items, s.ranks = mpi_size(), s.tensor = 1, s.threads = 1;
      sh_memory p = sh_memory_predict(&c, &t.model, &s, &t.scratch);
      activations[r] = (double)p.activations;
      bool good = within((double)t.step.peak, (double)(p.activations + p.rows), 0.05);
      double work = (double)t.scratch.peak / (double)p.workspace; /* an estimate */
      good &= work > 0.25 && work < 2;
      if (!good)
        fprintf(mpi_verdict_out, "%s, %s: predicted %lld + %lld, measured %zu bytes; workspace %lld, %zu\n", what,
                modes[r], (long long)p.activations, (long long)p.rows, t.step.peak, (long long)p.workspace,
                t.scratch.peak);
      if (r == 0 && mpi_rank() == 0) fprintf(stderr, "  %s: workspace %.2f of the estimate\n", what, work);
      assert_all(good);
      sh_trainer_rewind(&t);
      sh_trainer_destroy(&t);
      train_free(&run);
    }
    assert_all(activations[2] < 0.85 * activations[1] && activations[1] < 0.85 * activations[0]);
  }
}

/* The second time round the same batches, and a third, find all memory they need. */
static void test_allocations(void **state) {
  (void)state;
  for (int m = 0; m < TRAIN_MODELS; m++)
    for (int r = 0; r < MODES; r++) {
      char what[TRAIN_WHAT];
      sh_config c = config_of(m, r, what);
      assert_all(train_again_allocations(&c, &grid, 5) == 0);
    }
}

static void test_end(void **state) {
  sh_grid_destroy(&grid);
  folder_remove(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_begin),
      cmocka_unit_test(test_same_bits),
      cmocka_unit_test(test_predicted_and_measured),
      cmocka_unit_test(test_allocations),
      cmocka_unit_test(test_end),
  };
  return mpi_run_tests(tests);
}
