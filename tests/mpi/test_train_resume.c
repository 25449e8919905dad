/* ranks: 1 2 3 4 */
/* A run that is stopped and resumed is the run that was not: to the bit on as many ranks, to rounding on others. */
#include "support/mpi_verdict.h"

#include <string.h>

#include "support/folder.h"
#include "support/train_data.h"

enum { STEPS = 30, EPOCH = 4 };
static const double loss_tolerance = 2e-5, param_tolerance = 1e-4; /* what another order of float sums may change */

static const char *data, *checkpoints, *latest;
static sh_grid grid, self, fewer; /* all ranks; each alone; all but the last */
static MPI_Comm fewer_comm = MPI_COMM_NULL;

/* Model, loss: with these every optimiser of rows and every loss occurs. */
static const int cases[][2] = {{0, 0}, {1, 2}, {2, 3}, {3, 3}, {0, 1}};
enum { CASES = sizeof cases / sizeof cases[0] };

static void test_begin(void **state) {
  assert_all(folder_make(state) == 0);
  checkpoints = in_folder("ckpt"), latest = in_folder("ckpt/latest.h5");
  train_data d = {.users = 16 * EPOCH, .items = 60, .least = 3, .most = 20, .candidates = 50, .times = true, .seed = 1};
  data = train_data_write(&d, "data.h5");
  MPI_Comm world = MPI_COMM_WORLD, alone = MPI_COMM_SELF;
  MPI_Comm_split(world, mpi_rank() < mpi_size() - 1 ? 0 : MPI_UNDEFINED, mpi_rank(), &fewer_comm);
  assert_all(sh_grid_create(&grid, &world, 1) == SH_OK && sh_grid_create(&self, &alone, 1) == SH_OK);
  assert_all(fewer_comm == MPI_COMM_NULL || sh_grid_create(&fewer, &fewer_comm, 1) == SH_OK);
}

static bool write_checkpoint(sh_trainer *t) {
  sh_ckpt_content c = sh_trainer_content(t);
  bool good = sh_ckpt_write(&c, checkpoints) == SH_OK;
  if (!good) fprintf(stderr, "%s\n", sh_error_message());
  return good;
}

/* Train on `r` from where the newest checkpoint stands (from the seed when `fresh`) until `until` steps are done, then
 * write one; keeps everything. */
static bool leg(train_run *r, const sh_config *c, sh_grid *g, bool fresh, int until) {
  sh_trainer t;
  bool good = sh_trainer_create(&t, c, g) == SH_OK;
  if (good && !fresh) {
    sh_ckpt_content content = sh_trainer_content(&t);
    good = sh_ckpt_read(&content, latest, false) == SH_OK && t.state.step == r->steps;
    if (!good) fprintf(stderr, "step %lld: %s\n", (long long)t.state.step, sh_error_message());
  }
  good = good && train_steps(r, &t, until - r->steps);
  if (good) {
    sh_trainer_rewind(&t);
    train_keep(r, &t);
    good = write_checkpoint(&t);
  }
  sh_trainer_destroy(&t);
  return good;
}

/* Stopped at each of the stops (0 ends the list) and resumed by another trainer. */
static bool in_legs(train_run *r, const sh_config *c, const int *stops) {
  bool good = true;
  for (int i = 0; good && (i == 0 || stops[i - 1]); i++) good = leg(r, c, &grid, i == 0, stops[i] ? stops[i] : STEPS);
  return good;
}

static void test_same_ranks(void **state) {
  (void)state;
  static const int stops[][4] = {{1}, {7}, {2 * EPOCH}, {7, 19}, {EPOCH - 1, EPOCH, 29}};
  for (int k = 0; k < CASES; k++) {
    char what[TRAIN_WHAT];
    sh_config c = train_mixed(cases[k][0], cases[k][1], data, what);
    train_run whole = {0};
    assert_all(train_whole(&whole, &c, &grid, STEPS));
    for (size_t s = 0; s < sizeof stops / sizeof stops[0]; s++) {
      train_run r = {0};
      assert_all(in_legs(&r, &c, stops[s]));
      assert_all(train_bits(&r, &whole, what));
      train_free(&r);
    }
    train_free(&whole);
  }
}

/* A checkpoint written on the way, the next batch already asked for, changes nothing. */
static void test_writing_changes_nothing(void **state) {
  (void)state;
  char what[TRAIN_WHAT];
  sh_config c = train_mixed(0, 0, data, what);
  train_run whole = {0}, r = {0};
  sh_trainer t;
  assert_all(train_whole(&whole, &c, &grid, STEPS));
  assert_all(sh_trainer_create(&t, &c, &grid) == SH_OK);
  for (int i = 0; i < STEPS; i++) {
    bool good = train_steps(&r, &t, 1);
    assert_all(good && (i % 5 || write_checkpoint(&t)));
  }
  sh_trainer_rewind(&t);
  train_keep(&r, &t);
  sh_trainer_destroy(&t);
  assert_all(train_bits(&r, &whole, what));
  train_free(&whole);
  train_free(&r);
}

/* Resuming the past: a trainer that already trained takes up the checkpoint's state whole. */
static void test_back_in_time(void **state) {
  (void)state;
  char what[TRAIN_WHAT];
  sh_config c = train_mixed(2, 3, data, what);
  train_run whole = {0}, r = {0};
  sh_trainer t;
  assert_all(train_whole(&whole, &c, &grid, STEPS));
  assert_all(leg(&r, &c, &grid, true, 10));
  assert_all(sh_trainer_create(&t, &c, &grid) == SH_OK);
  train_run detour = {0};
  assert_all(train_steps(&detour, &t, 13));
  sh_trainer_rewind(&t);
  sh_ckpt_content content = sh_trainer_content(&t);
  assert_all(sh_ckpt_read(&content, latest, false) == SH_OK);
  assert_all(train_steps(&r, &t, STEPS - 10));
  sh_trainer_rewind(&t);
  train_keep(&r, &t);
  sh_trainer_destroy(&t);
  assert_all(train_bits(&r, &whole, what));
  train_free(&whole);
  train_free(&detour);
  train_free(&r);
}

/* The part of a group of the ranks in a leg; the others wait. A rank outside has nothing to complain about. */
static bool leg_of(sh_grid *g, bool member, train_run *r, const sh_config *c, bool fresh, int until) {
  bool good = !member || leg(r, c, g, fresh, until);
  MPI_Barrier(MPI_COMM_WORLD);
  return good;
}

static void test_other_ranks(void **state) {
  (void)state;
  bool first = mpi_rank() == 0, member = fewer_comm != MPI_COMM_NULL;
  for (int k = 0; k < CASES; k++) {
    char what[TRAIN_WHAT];
    sh_config c = train_smooth(train_mixed(cases[k][0], cases[k][1], data, what));
    train_run whole = {0}, down = {0}, up = {0};
    assert_all(train_whole(&whole, &c, &grid, STEPS));
    /* all ranks, one rank less, one rank; and the other way */
    assert_all(leg_of(&grid, true, &down, &c, true, 7));
    if (mpi_size() > 2) assert_all(leg_of(&fewer, member, &down, &c, false, 2 * EPOCH + 1));
    assert_all(leg_of(&self, first, &down, &c, false, STEPS));
    assert_all(!first || train_rounding(&down, &whole, loss_tolerance, param_tolerance, what));
    assert_all(leg_of(&self, first, &up, &c, true, 6));
    MPI_Bcast(&up.steps, 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Bcast(up.loss, TRAIN_STEPS, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    assert_all(leg_of(&grid, true, &up, &c, false, STEPS));
    assert_all(train_rounding(&up, &whole, loss_tolerance, param_tolerance, what));
    train_free(&whole);
    train_free(&down);
    train_free(&up);
  }
}

/* A checkpoint of another model is refused, on all ranks, and says what differs. */
static void test_another_model(void **state) {
  (void)state;
  char what[TRAIN_WHAT];
  sh_config c = train_mixed(0, 0, data, what);
  train_run r = {0};
  assert_all(leg(&r, &c, &grid, true, 1));
  train_free(&r);
  for (int k = 0; k < 3; k++) {
    sh_config other = c;
    if (k == 0) other.model.layers = 3;
    if (k == 1) other.model.width = 24;
    if (k == 2) snprintf(other.table.optim, sizeof other.table.optim, "adagrad");
    sh_trainer t;
    assert_all(sh_trainer_create(&t, &other, &grid) == SH_OK);
    sh_ckpt_content content = sh_trainer_content(&t);
    assert_all(sh_ckpt_read(&content, latest, false) == SH_ERR_DATA);
    assert_all(strstr(sh_error_message(), latest) != NULL);
    if (k < 2) assert_all(strstr(sh_error_message(), k == 0 ? "model.layers" : "model.width") != NULL);
    assert_all(t.state.step == 0);
    sh_trainer_destroy(&t);
  }
}

static void test_end(void **state) {
  sh_grid_destroy(&grid);
  sh_grid_destroy(&self);
  if (fewer_comm != MPI_COMM_NULL) {
    sh_grid_destroy(&fewer);
    MPI_Comm_free(&fewer_comm);
  }
  folder_remove(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_begin),
      cmocka_unit_test(test_same_ranks),
      cmocka_unit_test(test_writing_changes_nothing),
      cmocka_unit_test(test_back_in_time),
      cmocka_unit_test(test_other_ranks),
      cmocka_unit_test(test_another_model),
      cmocka_unit_test(test_end),
  };
  return mpi_run_tests(tests);
}
