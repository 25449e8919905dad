/* mpi/account.h: what communication costs this process: calls, bytes, exposed and hidden seconds, by kind and by axis.
 *
 *   exposed   the main thread was inside a collective or waited for one
 *   hidden    non-blocking ones were in flight while the main thread worked; those of one kind and axis that were at
 *             the same time count once
 *   bytes     sent by this rank, counted as a ring would send them (docs/ARCHITECTURE.md has the formulas)
 *
 * The caller says what it sends; a scope looks like this, and costs two stores:
 *   sh_comm_kind outer = sh_comm_as(SH_COMM_LOSS);
 *   sh_max_f32(axis, max, n);
 *   sh_comm_as(outer);
 * Without a scope what goes over the tensor axis counts as activations, all else as control. All of it belongs to the
 * main thread; sh_comm_now may be read by another one.
 */
#ifndef SH_MPI_ACCOUNT_H
#define SH_MPI_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sh_comm_kind {
  SH_COMM_CONTROL, /* agreements, reports, everything without a scope */
  SH_COMM_GRADIENTS,
  SH_COMM_PARAMETERS,
  SH_COMM_IDS,
  SH_COMM_ROWS,
  SH_COMM_ROW_GRADIENTS,
  SH_COMM_ACTIVATIONS,
  SH_COMM_LOSS,
  SH_COMM_KINDS
} sh_comm_kind;

enum { SH_COMM_AXES = 4 };                  /* world, data, tensor, table */
const char *sh_comm_kind_name(int kind);    /* "control" "gradients" ... "row_gradients" ... */
const char *sh_comm_axis_name(int axis);    /* "world" "data" "tensor" "table" */
sh_comm_kind sh_comm_as(sh_comm_kind kind); /* from now on; returns what it was */

typedef struct sh_comm_cost {
  double calls, bytes, exposed, hidden; /* seconds; all doubles, so that accounts are sums over ranks */
} sh_comm_cost;
typedef struct sh_comm_account {
  sh_comm_cost of[SH_COMM_KINDS][SH_COMM_AXES];
} sh_comm_account;

sh_comm_account sh_comm_total(void);                                         /* since the start */
void sh_comm_add(sh_comm_account *sum, const sh_comm_account *a, double by); /* sum += by * a */
sh_comm_cost sh_comm_kind_cost(const sh_comm_account *a, int kind);          /* over the axes; kind < 0: all kinds */

/* The collective in which the main thread is now; false: in none. For the watchdog's thread. */
typedef struct sh_comm_place {
  const char *call, *axis, *kind, *file;
  int line;
  double since; /* sh_now */
} sh_comm_place;
bool sh_comm_now(sh_comm_place *out);

/* Where the program calls the next collective: coll.h's macros set it. */
extern struct sh_comm_site {
  const char *file;
  int line;
} sh_comm_site;
static inline void sh_comm_at(const char *file, int line) { sh_comm_site.file = file, sh_comm_site.line = line; }

#endif
