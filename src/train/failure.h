/* train/failure.h: make a rank fail on purpose, to see that a job comes down with a message and leaves nobody waiting.
 *
 *   SHOAL_FAIL=phase:step:rank[:how]      load fetch forward loss backward sync update eval checkpoint
 *   how: error (the default), abort (a signal of its own), kill (as kill -9), hang (for the watchdog), stop (a request
 * to stop, as a batch system sends)
 *
 * `step` counts from 1; eval and checkpoint belong to the step before them. Where the phase can fail by itself (load,
 * eval, checkpoint), an error goes the way of a real one and is agreed upon; elsewhere it ends the job like a failed
 * call of MPI.
 */
#ifndef SH_TRAIN_FAILURE_H
#define SH_TRAIN_FAILURE_H

#include "mpi/grid.h"

/* Read SHOAL_FAIL; SH_ERR_USAGE when it cannot be understood. Local. */
sh_status sh_failure_setup(const sh_axis *world);

/* `status`, or the error asked for in this phase. Called where ranks agree on the outcome. */
sh_status sh_failure_here(sh_status status);

#endif
