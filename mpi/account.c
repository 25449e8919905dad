#include "mpi/account.h"

#include <stdatomic.h>
#include <string.h>

#include "core/timer.h"
#include "core/trace.h"
#include "mpi/coll.h"
#include "mpi/internal.h"

static const char *const kind_name[SH_COMM_KINDS] = {"control", "gradients",     "parameters",  "ids",
                                                     "rows",    "row_gradients", "activations", "loss"};
static const char *const axis_name[SH_COMM_AXES] = {"world", "data", "tensor", "table"};
enum { TENSOR = 2 };

static sh_comm_account total;
static sh_comm_kind current = SH_COMM_CONTROL;
static double waited;                                    /* exposed seconds of everything */
static double hidden_until[SH_COMM_KINDS][SH_COMM_AXES]; /* on the clock that stands while the main thread waits */
struct sh_comm_site sh_comm_site = {"?", 0};

/* Where the main thread stands. `inside` is written last on entry and first on leaving: who reads it from another
 * thread sees an old or a new place; a mixture can come only from a rank that moves, which the watchdog leaves alone.
 */
static sh_mpi_op place;
static _Atomic bool inside;

const char *sh_comm_kind_name(int kind) { return kind_name[kind]; }
const char *sh_comm_axis_name(int axis) { return axis_name[axis]; }

sh_comm_kind sh_comm_as(sh_comm_kind kind) {
  sh_comm_kind outer = current;
  current = kind;
  return outer;
}

static int axis_of(const sh_axis *axis) {
  for (int i = 0; i < SH_COMM_AXES; i++)
    if (!strcmp(axis->name, axis_name[i])) return i;
  return 0;
}

static void stand(const sh_mpi_op *op, double since) {
  place = *op;
  place.begun = since;
  atomic_store_explicit(&inside, true, memory_order_release);
}

static void leave(void) { atomic_store_explicit(&inside, false, memory_order_release); }

sh_mpi_op sh_mpi_begin(const sh_axis *axis, const char *call) {
  int a = axis_of(axis);
  sh_comm_kind kind = current == SH_COMM_CONTROL && a == TENSOR ? SH_COMM_ACTIVATIONS : current;
  sh_mpi_op op = {.call = call, .axis = a, .kind = kind, .site = sh_comm_site, .begun = sh_now()};
  stand(&op, op.begun);
  return op;
}

static void count_exposed(const sh_mpi_op *op, double from, double to, const char *part) {
  total.of[op->kind][op->axis].exposed += to - from;
  waited += to - from;
  sh_trace_comm(SH_LANE_MAIN, from, to, kind_name[op->kind], part, axis_name[op->axis], op->bytes);
}

static void count_bytes(sh_mpi_op *op, int64_t bytes) {
  op->bytes = bytes;
  total.of[op->kind][op->axis].calls += 1;
  total.of[op->kind][op->axis].bytes += (double)bytes;
}

void sh_mpi_end(sh_mpi_op *op, int64_t bytes) {
  leave();
  count_bytes(op, bytes);
  count_exposed(op, op->begun, sh_now(), op->call);
}

void sh_mpi_posted(sh_mpi_op *op, int64_t bytes) {
  leave();
  count_bytes(op, bytes);
  op->posted = sh_now();
  count_exposed(op, op->begun, op->posted, "begin");
  op->posted_working = op->posted - waited;
}

double sh_mpi_wait(const sh_mpi_op *op) {
  double now = sh_now();
  stand(op, now);
  return now;
}

/* In flight from posted to `end`, while the main thread worked; what another operation of the kind covered already does
 * not count again. */
static void count_hidden(const sh_mpi_op *op, double since, double end) {
  double *until = &hidden_until[op->kind][op->axis], from = op->posted_working, to = since - waited;
  if (end < since && from + (end - op->posted) < to) to = from + (end - op->posted);
  if (from < *until) from = *until;
  if (to <= from) return;
  total.of[op->kind][op->axis].hidden += to - from;
  *until = to;
}

void sh_mpi_waited(const sh_mpi_op *op, double since, double completed) {
  leave();
  double now = sh_now();
  count_hidden(op, since, completed);
  count_exposed(op, since, now, "wait");
  double from = completed > op->posted ? op->posted : op->begun; /* a communication thread may be faster */
  sh_trace_comm(SH_LANE_COMM, from, completed, kind_name[op->kind], op->call, axis_name[op->axis], op->bytes);
}

/* Too short and too many for the trace. */
void sh_mpi_polled(const sh_mpi_op *op, double since) {
  double took = sh_now() - since;
  total.of[op->kind][op->axis].exposed += took;
  waited += took;
}

sh_comm_account sh_comm_total(void) { return total; }

void sh_comm_add(sh_comm_account *sum, const sh_comm_account *a, double by) {
  for (int k = 0; k < SH_COMM_KINDS; k++)
    for (int x = 0; x < SH_COMM_AXES; x++) {
      sum->of[k][x].calls += by * a->of[k][x].calls;
      sum->of[k][x].bytes += by * a->of[k][x].bytes;
      sum->of[k][x].exposed += by * a->of[k][x].exposed;
      sum->of[k][x].hidden += by * a->of[k][x].hidden;
    }
}

sh_comm_cost sh_comm_kind_cost(const sh_comm_account *a, int kind) {
  sh_comm_cost sum = {0};
  for (int k = 0; k < SH_COMM_KINDS; k++)
    for (int x = 0; x < SH_COMM_AXES && (kind < 0 || k == kind); x++) {
      sum.calls += a->of[k][x].calls;
      sum.bytes += a->of[k][x].bytes;
      sum.exposed += a->of[k][x].exposed;
      sum.hidden += a->of[k][x].hidden;
    }
  return sum;
}

double sh_comm_seconds(void) { return sh_comm_kind_cost(&total, -1).exposed; }
int64_t sh_comm_bytes(void) { return (int64_t)sh_comm_kind_cost(&total, -1).bytes; }

bool sh_comm_now(sh_comm_place *out) {
  if (!atomic_load_explicit(&inside, memory_order_acquire)) return false;
  *out = (sh_comm_place){.call = place.call,
                         .axis = axis_name[place.axis],
                         .kind = kind_name[place.kind],
                         .file = place.site.file,
                         .line = place.site.line,
                         .since = place.begun};
  return true;
}
