/* How much of a step's communication hides behind its arithmetic:
 *
 *   hidden share = 1 - (T_step - T_step with transfers replaced by no-ops) / T_transfers alone
 *
 * No-ops as mpi/progress.h has them (dry): blocking collectives of a few numbers stay. Alone: the same operations on a
 * batch of the same size, each waited for at once, nothing computed meanwhile; for the dense gradients all buckets from
 * the first begin to the last end, for tables the seconds spent in the exchange of ids, rows and row gradients. */
#include <stdlib.h>
#include <string.h>

#include "core/timer.h"
#include "mpi/progress.h"
#include "tools/bench_internal.h"
#include "train/references.h"
#include "train/step.h"

enum { WHOLE, NO_SUMS, NO_TABLES, NO_TRANSFERS, VARIANTS, ROUNDS = 4, WARM_UP = 2 };
static const unsigned dry[VARIANTS] = {0, SH_DRY_SUMS, SH_DRY_TABLES, SH_DRY_SUMS | SH_DRY_TABLES};

typedef struct overlap {
  sh_bench_state *b;
  sh_stage stage;
  int64_t steps; /* of each variant */
  double *step[VARIANTS], *sums, *tables;
} overlap;

/* Nothing is loaded ahead when the kind of steps changes. The first step after that waits for its rows, and warms up.
 */
static sh_status some_steps(overlap *o, int variant, int64_t first, int64_t last) {
  sh_trainer *t = o->b->t;
  sh_step_report r;
  sh_trainer_rewind(t);
  sh_progress_dry(dry[variant]);
  sh_status status = SH_OK;
  for (int64_t i = first - 1; i < last && status == SH_OK; i++) {
    sh_barrier(&t->grid->world);
    double start = sh_now();
    status = sh_train_step(t, false, &r);
    double s = sh_now() - start;
    sh_max_f64(&t->grid->world, &s, 1);
    if (i >= first) o->step[variant][i] = s;
  }
  sh_trainer_rewind(t);
  sh_progress_dry(0);
  return status;
}

static double sums_alone(sh_trainer *t) {
  memset(t->model.params.grad, 0, sizeof(float) * (size_t)t->model.params.block);
  sh_barrier(&t->grid->world);
  double start = sh_now();
  sh_grad_sync_start(&t->sync);
  sh_grad_sync_ready(&t->sync, 0, t->model.params.n);
  sh_grad_sync_end(&t->sync);
  return sh_now() - start;
}

static double waited(const sh_trainer *t, double *since) {
  double seconds = sh_comm_seconds() - *since;
  sh_barrier(&t->grid->world);
  *since = sh_comm_seconds();
  return seconds;
}

static double tables_alone(sh_trainer *t, sh_stage *s) {
  sh_arena_reset(&t->step);
  sh_references_build(t, s);
  double since, seconds = 0;
  waited(t, &since);
  sh_fetch_send(&t->item, &s->fetch);
  sh_fetch_ids(&s->fetch);
  seconds += waited(t, &since);
  sh_table_fetch_end(&t->item, &s->fetch, &t->step);
  sh_table_fetch_rest(&t->item, &s->fetch);
  seconds += waited(t, &since);
  sh_table_grad(&t->item, &s->fetch);
  seconds += waited(t, &since);
  sh_step_update_rows(t, 0); /* gradients of zero are forgotten */
  return seconds;
}

static sh_status transfers_alone(overlap *o) {
  sh_trainer *t = o->b->t;
  sh_status status = SH_OK;
  sh_trainer_rewind(t);
  for (int64_t i = -1; i < o->steps && status == SH_OK; i++) {
    status = sh_step_read(t, &o->stage, 0, (i + 1) % sh_loader_steps(&t->loader, 0), i + 1);
    if (status != SH_OK) break;
    double x[2] = {sums_alone(t), tables_alone(t, &o->stage)};
    sh_max_f64(&t->grid->world, x, 2);
    if (i >= 0) o->sums[i] = x[0], o->tables[i] = x[1];
  }
  return status;
}

static void line(const sh_bench_state *b, const char *what, double step, double without, double alone) {
  if (!b->out) return;
  fprintf(b->out, "  %-38s %10.3f %10.3f ", what, 1e3 * alone, 1e3 * (step - without));
  fprintf(b->out, "%10.1f %%\n", alone > 0 ? 100 * (1 - (step - without) / alone) : 0);
}

static void report(overlap *o) {
  sh_bench_state *b = o->b;
  double t[VARIANTS], sums = sh_median(o->sums, o->steps), tables = sh_median(o->tables, o->steps);
  static const char *const name[VARIANTS] = {"whole step", "without sums of dense gradients",
                                             "without exchange of rows", "without transfers"};
  char title[64];
  snprintf(title, sizeof title, "overlap, progress %s", sh_progress_name());
  sh_bench_title(b, title);
  for (int v = 0; v < VARIANTS; v++)
    t[v] = sh_bench_add(b, "overlap", name[v], sh_median(o->step[v], o->steps), 0, 0, 0);
  sums = sh_bench_add(b, "overlap", "sums of dense gradients alone", sums, 0, 0, 0);
  tables = sh_bench_add(b, "overlap", "exchange of rows alone", tables, 0, 0, 0);
  if (b->out) fprintf(b->out, "\n%-40s %10s %10s %12s\n", "transfers", "alone, ms", "exposed", "hidden");
  line(b, "sums of dense gradients", t[WHOLE], t[NO_SUMS], sums);
  line(b, "exchange of rows", t[WHOLE], t[NO_TABLES], tables);
  line(b, "everything", t[WHOLE], t[NO_TRANSFERS], sums + tables);
}

sh_status sh_bench_overlap(sh_bench_state *b) {
  sh_trainer *t = b->t;
  overlap o = {.b = b, .steps = (b->steps + ROUNDS - 1) / ROUNDS * ROUNDS};
  sh_step_report r;
  sh_status status = SH_OK;
  size_t bytes = sizeof(double) * (size_t)o.steps;
  for (int v = 0; v < VARIANTS; v++) o.step[v] = sh_malloc(bytes);
  o.sums = sh_malloc(bytes), o.tables = sh_malloc(bytes);
  sh_bench_stage_init(t, &o.stage);
  for (int i = 0; i < WARM_UP && status == SH_OK; i++)
    status = sh_train_step(t, false, &r); /* both stages have plans */
  int64_t each = o.steps / ROUNDS;
  for (int64_t round = 0; round < ROUNDS; round++)
    for (int v = 0; v < VARIANTS && status == SH_OK; v++) status = some_steps(&o, v, round * each, (round + 1) * each);
  if (status == SH_OK) status = transfers_alone(&o);
  if (status == SH_OK) report(&o);
  sh_bench_stage_free(&o.stage);
  for (int v = 0; v < VARIANTS; v++) free(o.step[v]);
  free(o.sums), free(o.tables);
  return status;
}
