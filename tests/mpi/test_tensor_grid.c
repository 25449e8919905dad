/* ranks: 2 3 4 6 8 */
/* Training does not depend on how ranks share layers: 20 steps on data x tensor grids against the same on one rank. */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "support/folder.h"
#include "support/train_data.h"
#include "train/eval.h"

enum { STEPS = 20 };
static const double loss_tolerance = 2e-5, param_tolerance = 1e-4; /* what another order of float sums may change */
static const double wire_tolerance = 5e-3;

static const char *data;
static sh_grid self;

static void test_begin(void **state) {
  assert_all(folder_make(state) == 0);
  data = train_data_write(&train_usual, "data.h5");
  MPI_Comm alone = MPI_COMM_SELF;
  assert_all(sh_grid_create(&self, &alone, 1) == SH_OK);
}

/* Twelve heads can be dealt to 2, 3, 4 and 6 ranks. */
static sh_config config(int model, int loss, char what[TRAIN_WHAT]) {
  sh_config c = train_smooth(train_mixed(model, loss, data, what));
  c.model.width = 24, c.model.heads = 12;
  c.model.ffn_multiple = 2;
  return c;
}

/* Losses and metrics of a run: what a user sees. */
typedef struct outcome {
  train_run run;
  sh_metrics metrics;
} outcome;

/* from: a checkpoint's folder to go on from, or NULL; to: one to end in, or NULL: then the run is kept and evaluated.
 */
static bool train_between(outcome *o, const sh_config *c, sh_grid *g, const char *from, int steps, const char *to) {
  sh_trainer t;
  char path[600];
  bool good = sh_trainer_create(&t, c, g) == SH_OK;
  sh_ckpt_content content = sh_trainer_content(&t);
  snprintf(path, sizeof path, "%s/latest.h5", from ? from : "");
  if (good && from) good = sh_ckpt_read(&content, path, false) == SH_OK;
  good = good && train_steps(&o->run, &t, steps);
  if (good) sh_trainer_rewind(&t);
  if (good && to) good = sh_ckpt_write(&content, to) == SH_OK;
  if (good && !to) {
    train_keep(&o->run, &t);
    good = sh_evaluate_split(&t, SH_QUERY_TEST, NULL, &o->metrics) == SH_OK;
  }
  if (!good) fprintf(mpi_verdict_out, "%s\n", sh_error_message());
  sh_trainer_destroy(&t);
  return good;
}

static bool train(outcome *o, const sh_config *c, sh_grid *g) { return train_between(o, c, g, NULL, STEPS, NULL); }

static bool alone(outcome *o, const sh_config *c) {
  bool good = train_share(&o->run, mpi_rank() == 0 && train(o, c, &self));
  MPI_Bcast(&o->metrics, sizeof o->metrics, MPI_BYTE, 0, MPI_COMM_WORLD);
  return good;
}

/* Half of the steps on a grid with `first` ranks in a tensor group, the other half, from a checkpoint, with `second`.
 */
static bool train_halves(outcome *o, const sh_config *c, int first, int second) {
  MPI_Comm world = MPI_COMM_WORLD;
  const char *between = in_folder("ckpt");
  for (int half = 0; half < 2; half++) {
    sh_grid grid;
    sh_config mine = *c;
    mine.parallel.tensor = half ? second : first;
    if (sh_grid_create(&grid, &world, half ? second : first) != SH_OK) return false;
    if (!train_between(o, &mine, &grid, half ? between : NULL, STEPS / 2, half ? NULL : between)) return false;
    sh_grid_destroy(&grid);
  }
  return true;
}

/* A checkpoint opens on every other grid, and the run goes on as if nothing had happened. */
static void test_other_grid(void **state) {
  (void)state;
  int n = mpi_size(), most = n % 4 == 0 ? 4 : n % 3 == 0 ? 3 : n % 2 == 0 ? 2 : 1;
  for (int m = 0; m < TRAIN_MODELS; m++) {
    char what[TRAIN_WHAT];
    sh_config c = config(m, (m + 1) % TRAIN_LOSSES, what);
    outcome one = {0}, halves[2] = {0};
    assert_all(alone(&one, &c));
    for (int back = 0; back < 2; back++) {
      assert_all(train_halves(&halves[back], &c, back ? most : 1, back ? 1 : most));
      assert_all(train_rounding(&halves[back].run, &one.run, loss_tolerance, param_tolerance, what));
      train_free(&halves[back].run);
    }
    train_free(&one.run);
  }
}

static void compare(const sh_config *c, int tensor, const char *what) {
  MPI_Comm world = MPI_COMM_WORLD;
  sh_grid grid;
  outcome one = {0}, all = {0};
  char name[TRAIN_WHAT + 128];
  bool rounded = !strcmp(c->comm.wire, "bf16");
  snprintf(name, sizeof name, "%s, data %d x tensor %d, %s rows, zero %d, wire %s, recompute %s", what,
           mpi_size() / tensor, tensor, c->parallel.sequence ? "sliced" : "whole", (int)c->parallel.zero, c->comm.wire,
           c->model.recompute);
  assert_all(sh_grid_create(&grid, &world, tensor) == SH_OK);
  sh_config single = *c;
  assert_all(alone(&one, &single));
  assert_all(train(&all, c, &grid));
  assert_all(train_rounding(&all.run, &one.run, rounded ? wire_tolerance : loss_tolerance,
                            rounded ? wire_tolerance : param_tolerance, name));
  assert_all(all.metrics.n == one.metrics.n);
  assert_all(fabs(all.metrics.mrr - one.metrics.mrr) <= 0.5); /* sums over 70 queries: a target may pass a near tie */
  train_free(&one.run);
  train_free(&all.run);
  sh_grid_destroy(&grid);
}

/* Switches that must not show, by the bits of `turn`. Rounding to bf16 moves some inputs of SASRec's ReLU to the other
 * side of its kink, where a gradient jumps by more than any rounding; GELU has none. */
static sh_config with_switches(sh_config c, int turn) {
  bool rounded = turn >> 2 & 1;
  c.parallel.sequence = turn & 1;
  c.parallel.zero = turn >> 1 & 1;
  snprintf(c.comm.wire, sizeof c.comm.wire, "%s", rounded ? "bf16" : "fp32");
  if (rounded && !strcmp(c.model.name, "sasrec"))
    snprintf(c.model.ffn_activation, sizeof c.model.ffn_activation, "gelu");
  snprintf(c.model.recompute, sizeof c.model.recompute, "%s", turn >> 3 & 1 ? "layer" : "none");
  return c;
}
enum { SWITCHES = 16 };

/* On every grid of this many ranks each model with another loss and other switches, such that over the rank counts all
 * of them meet. With SHOAL_TEST_FULL=1 all models with all switches, the losses by turns. */
static void test_grids(void **state) {
  (void)state;
  bool full = getenv("SHOAL_TEST_FULL");
  int turn = 3 * mpi_size(), runs = 0;
  for (int tensor = full ? 1 : 2; tensor <= mpi_size() && tensor <= 6; tensor++) {
    if (mpi_size() % tensor) continue;
    for (int m = 0; m < TRAIN_MODELS; m++)
      for (int k = 0; k < (full ? SWITCHES : 1); k++, turn += full ? 1 : 5, runs++) {
        char what[TRAIN_WHAT];
        sh_config c = with_switches(config(m, (m + turn) % TRAIN_LOSSES, what), full ? k : turn);
        c.parallel.tensor = tensor;
        compare(&c, tensor, what);
      }
    turn++;
  }
  if (mpi_rank() == 0) printf("  %d runs\n", runs);
}

/* The order of sums over the tensor axis is the MPI library's: it may not change between two runs. */
static void test_same_bits(void **state) {
  (void)state;
  int n = mpi_size(), most = n % 4 == 0 ? 4 : n % 6 == 0 ? 6 : n % 3 == 0 ? 3 : n;
  MPI_Comm world = MPI_COMM_WORLD;
  sh_grid grid;
  assert_all(sh_grid_create(&grid, &world, most) == SH_OK);
  for (int m = 0; m < TRAIN_MODELS; m++) {
    char what[TRAIN_WHAT];
    sh_config c = with_switches(config(m, (m + 2) % TRAIN_LOSSES, what), m);
    c.parallel.tensor = most;
    outcome first = {0}, again = {0};
    assert_all(train(&first, &c, &grid) && train(&again, &c, &grid));
    assert_all(train_bits(&again.run, &first.run, what));
    train_free(&first.run), train_free(&again.run);
  }
  sh_grid_destroy(&grid);
}

static void test_end(void **state) {
  sh_grid_destroy(&self);
  folder_remove(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_begin), cmocka_unit_test(test_grids),
                                     cmocka_unit_test(test_other_grid), cmocka_unit_test(test_same_bits),
                                     cmocka_unit_test(test_end)};
  return mpi_run_tests(tests);
}
