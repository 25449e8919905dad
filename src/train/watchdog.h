/* train/watchdog.h: a thread that ends a rank which stands still (comm.watchdog).
 *
 * When nothing has moved for so long (core/phase.h: no phase begun, no round of an evaluation, no piece of a
 * checkpoint), it says on standard error where the rank stands: step, phase, collective with kind, axis and the line
 * that called it, each with its seconds. All ranks of a job that hangs wait for each other, so each does; a moment
 * later they leave with SH_ERR_STALLED, without MPI_Finalize, and the launcher ends what is left.
 */
#ifndef SH_TRAIN_WATCHDOG_H
#define SH_TRAIN_WATCHDOG_H

#include "mpi/grid.h"

/* One at a time; minutes = 0: none. Local. */
sh_status sh_watchdog_start(const sh_axis *world, double minutes);
void sh_watchdog_stop(void);

#endif
