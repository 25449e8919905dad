/* shoal/shoal_mpi.h: the one public header with MPI types. */
#ifndef SHOAL_MPI_H
#define SHOAL_MPI_H

#include <mpi.h>
#include <stdbool.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Ranks that work together. libshoal never assumes MPI_COMM_WORLD: a program hands in the communicator. */
typedef struct sh_world sh_world;

/* Duplicates `comm`. MPI_Init_thread must have been called with at least MPI_THREAD_FUNNELED. Collective over comm. */
sh_status sh_world_open(MPI_Comm comm, sh_world **out);
void sh_world_close(sh_world *w);

/* For programs without MPI of their own: initialise MPI (unless it is), open MPI_COMM_WORLD; the matching close
 * finalises only what open initialised. Fails when a launcher started several tasks that do not see each other
 * (SLURM_NTASKS > 1 with a world of one rank). `threads`: ask MPI for MPI_THREAD_MULTIPLE, which comm.progress = thread
 * needs (sh_train_wants_threads). */
sh_status sh_world_start(int *argc, char ***argv, bool threads, sh_world **out);
void sh_world_finish(sh_world *w);

int sh_world_rank(const sh_world *w);
int sh_world_size(const sh_world *w);

/* Ends the whole job with the status as exit code and the last message on standard error. */
_Noreturn void sh_world_abort(const sh_world *w, sh_status code);

#ifdef __cplusplus
}
#endif
#endif
