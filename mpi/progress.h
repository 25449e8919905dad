/* mpi/progress.h: who advances operations under way (the *_begin of mpi/coll.h). MPI moves large messages only inside
 * its calls, so something must call it while arithmetic runs (comm.progress):
 *
 * - none: nobody; an operation starts at its begin and goes on inside sh_request_end.
 * - poll: the thread that begins operations, wherever it calls sh_breathe (core/breathe.h): between layers and between
 *   blocks of parallel loops.
 * - thread: a thread of its own. It looks, then sleeps a moment: it may share a core with arithmetic. Only while
 * somebody waits in sh_request_end does it not sleep, and without operations it does nothing at all. Needs
 * MPI_THREAD_MULTIPLE.
 *
 * The mode changes no bit of any result.
 */
#ifndef SH_MPI_PROGRESS_H
#define SH_MPI_PROGRESS_H

#include "mpi/grid.h"

typedef enum sh_progress { SH_PROGRESS_NONE, SH_PROGRESS_POLL, SH_PROGRESS_THREAD } sh_progress;

/* Use this mode ("none" "poll" "thread") in this process from now on; before it is called, none. Where MPI was
 * initialised without MPI_THREAD_MULTIPLE on any rank, thread becomes poll and rank 0 says so; with one rank there is
 * nothing to advance. No operation may be open. Collective over the axis; returns the mode used. */
sh_progress sh_progress_start(const sh_axis *world, const char *mode);
void sh_progress_stop(void); /* none again; before MPI is finalised */
const char *sh_progress_name(void);

/* The communication thread finishes what is open and stays idle until the next begin: for code that is not safe beside
 * other threads' MPI calls (parallel files). Every rank must have begun, or be about to begin, what is open here. */
void sh_progress_drain(void);

/* For measurements only: what a step costs without its transfers. Operations begun while a kind is dry send nothing and
 * are done at once. Sums keep this rank's part, an exchange of rows delivers local ones of the same number, and ids
 * keep the plan of their last real exchange (there must have been one), so arithmetic stays the same in kind and amount
 * and is wrong in value. The same on all ranks, with no operation open; an exchange keeps to what its ids began with.
 */
enum { SH_DRY_SUMS = 1, SH_DRY_TABLES = 2 };
void sh_progress_dry(unsigned kinds);

#endif
