/* core/threads.h: how many OpenMP threads this process runs.
 *
 * The number never changes a result, only its time.
 */
#ifndef SH_CORE_THREADS_H
#define SH_CORE_THREADS_H

#include <stdint.h>

/* Set the number of threads: `wanted` (train.threads) if > 0; else OMP_NUM_THREADS; else the cores this process may
 * run on, shared with the other ranks of the node when it is not bound. Returns the number. */
int sh_threads_setup(int64_t wanted);

/* Threads of a parallel region started now. */
int sh_threads(void);

/* Cores (not hardware threads) in the affinity mask, within the CPU quota of the control group; at least 1. */
int sh_cores(void);

/* As sh_cores, of all that ranks of this job may use on this node, whatever this one is bound to. Widens the calling
 * thread's mask for a moment. */
int sh_node_cores(void);

/* Ranks the launcher started on this node as far as its environment tells (Open MPI, Slurm, MPICH); at least 1. */
int sh_node_ranks(void);

#endif
