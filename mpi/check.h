/* mpi/check.h: comm.check: before a collective runs, all ranks of its axis tell each other what they are about to call.
 *
 * The same collective over the same axis, with the same kind, counts and element size (root, for a broadcast), called
 * from the same line; for an all-to-all each rank sends what the other expects. If not, a message names both calls,
 * lines and ranks, and the job ends instead of hanging. Costs a message to every other rank of the axis per collective:
 * for finding errors, not for training.
 */
#ifndef SH_MPI_CHECK_H
#define SH_MPI_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/grid.h"

/* On or off, on all ranks at the same place of the program. */
void sh_comm_check(bool on);

/* For the files that implement collectives. a, b: what must be the same everywhere. send, recv [axis size]: counts to
 * and from each rank, or NULL. */
extern bool sh_checking;
void sh_check_call(const sh_axis *axis, const char *call, int64_t a, int64_t b, const int64_t *send,
                   const int64_t *recv);
static inline void sh_check(const sh_axis *axis, const char *call, int64_t a, int64_t b) {
  if (sh_checking) sh_check_call(axis, call, a, b, 0, 0);
}
/* One number for counts that every rank must know alike. */
int64_t sh_check_counts(const int64_t *count, int n);

#endif
