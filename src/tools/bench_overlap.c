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

enum { WHOLE, NO_SUMS, NO_TRANSFERS, VARIANTS, EACH = 3, WARM_UP = 2 }; /* EACH: steps of a variant in a row */
static const unsigned dry[VARIANTS] = {0, SH_DRY_SUMS, SH_DRY_SUMS | SH_DRY_TABLES};

typedef struct overlap {
  sh_bench_state *b;
  sh_stage stage;
  int64_t steps;                                            /* of each variant */
  double *step[VARIANTS], *calls[VARIANTS], *sums, *tables; /* seconds; calls: of a step, inside communication */
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
    double start = sh_now(), before = sh_comm_seconds();
    status = sh_train_step(t, false, &r);
    double s[2] = {sh_now() - start, sh_comm_seconds() - before};
    sh_max_f64(&t->grid->world, s, 2);
    if (i >= first) o->step[variant][i] = s[0], o->calls[variant][i] = s[1];
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
  sh_grad_sync_values_begin(&t->sync);
  sh_grad_sync_values_end(&t->sync);
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

/* A share, or "-" of transfers so short that it would be one of the steps' noise. */
static void share(FILE *out, double exposed, double alone, double step) {
  enum { LEAST = 100 };
  if (alone * LEAST >= step)
    fprintf(out, " %9.1f %%", 100 * (1 - exposed / alone));
  else
    fprintf(out, " %11s", "-");
}

/* Exposed: what steps take longer; and, which other people's work disturbs less, what they spend more in communication
 * calls (not in it: the kernel's and a communication thread's work while layers compute). */
static void line(const sh_bench_state *b, const char *what, double step, double alone, double longer, double calls) {
  if (!b->out) return;
  fprintf(b->out, "  %-30s %9.1f %9.1f", what, 1e3 * alone, 1e3 * longer);
  share(b->out, longer, alone, step);
  fprintf(b->out, " %9.1f", 1e3 * calls);
  share(b->out, calls, alone, step);
  fputc('\n', b->out);
}

/* Mean of the fastest third: what other machines and processes add is never less than nothing. Sorts x. */
static double fastest(double *x, int64_t n) {
  double sum = 0;
  sh_median(x, n);
  for (int64_t i = 0; i < n / 3; i++) sum += x[i];
  return sum / (double)(n / 3);
}

static void report(overlap *o) {
  sh_bench_state *b = o->b;
  double t[VARIANTS], calls[VARIANTS], sums = fastest(o->sums, o->steps), tables = fastest(o->tables, o->steps);
  static const char *const name[VARIANTS] = {"whole step", "without sums of dense gradients", "without transfers"};
  char title[64];
  snprintf(title, sizeof title, "overlap, progress %s", sh_progress_name());
  sh_bench_title(b, title);
  for (int v = 0; v < VARIANTS; v++) {
    t[v] = sh_bench_add(b, "overlap", name[v], fastest(o->step[v], o->steps), 0, 0, 0);
    calls[v] = sh_bench_add(b, "overlap", "  of it in communication calls", fastest(o->calls[v], o->steps), t[v], 0, 0);
  }
  sums = sh_bench_add(b, "overlap", "sums of dense gradients alone", sums, 0, 0, 0);
  tables = sh_bench_add(b, "overlap", "exchange of rows alone", tables, 0, 0, 0);
  if (b->out)
    fprintf(b->out, "\n%-32s %9s %9s %11s %9s %11s\n", "transfers, ms", "alone", "exposed", "hidden", "in calls",
            "hidden");
  line(b, "sums of dense gradients", t[WHOLE], sums, t[WHOLE] - t[NO_SUMS], calls[WHOLE] - calls[NO_SUMS]);
  line(b, "exchange of rows", t[WHOLE], tables, t[NO_SUMS] - t[NO_TRANSFERS], calls[NO_SUMS] - calls[NO_TRANSFERS]);
  line(b, "everything", t[WHOLE], sums + tables, t[WHOLE] - t[NO_TRANSFERS], calls[WHOLE] - calls[NO_TRANSFERS]);
}

sh_status sh_bench_overlap(sh_bench_state *b) {
  sh_trainer *t = b->t;
  if (t->grid->world.size == 1)
    return sh_fail(SH_ERR_USAGE, "bench: --only overlap is of ranks: mpirun -n 2 shoal bench ... --only overlap");
  overlap o = {.b = b, .steps = (b->steps + EACH - 1) / EACH * EACH};
  sh_step_report r;
  sh_status status = SH_OK;
  size_t bytes = sizeof(double) * (size_t)o.steps;
  for (int v = 0; v < VARIANTS; v++) o.step[v] = sh_malloc(bytes), o.calls[v] = sh_malloc(bytes);
  o.sums = sh_malloc(bytes), o.tables = sh_malloc(bytes);
  sh_bench_stage_init(t, &o.stage);
  for (int i = 0; i < WARM_UP && status == SH_OK; i++)
    status = sh_train_step(t, false, &r);     /* both stages have plans */
  for (int64_t i = 0; i < o.steps; i += EACH) /* by turns: the machine's pace drifts */
    for (int v = 0; v < VARIANTS && status == SH_OK; v++) status = some_steps(&o, v, i, i + EACH);
  if (status == SH_OK) status = transfers_alone(&o);
  if (status == SH_OK) report(&o);
  sh_bench_stage_free(&o.stage);
  for (int v = 0; v < VARIANTS; v++) free(o.step[v]), free(o.calls[v]);
  free(o.sums), free(o.tables);
  return status;
}
