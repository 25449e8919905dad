#include <stdbool.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/log.h"
#include "mpi/coll.h"
#include "mpi/internal.h"
#include "mpi/progress.h"
#include "shoal/shoal_mpi.h"

struct sh_world {
  sh_axis axis; /* over the duplicate */
  bool finalise;
};

sh_status sh_world_open(MPI_Comm comm, sh_world **out) {
  int up = 0, level = 0;
  *out = NULL;
  MPI_Initialized(&up);
  if (!up) return sh_fail(SH_ERR_USAGE, "MPI is not initialised: call MPI_Init_thread first");
  SH_MPI(NULL, MPI_Query_thread, &level);
  if (level < MPI_THREAD_FUNNELED)
    return sh_fail(SH_ERR_USAGE, "MPI was initialised for one thread; at least MPI_THREAD_FUNNELED is needed");
  sh_world *w = sh_calloc(1, sizeof *w);
  w->axis = (sh_axis){.name = "world", .impl = sh_malloc(sizeof *w->axis.impl)};
  SH_MPI(NULL, MPI_Comm_dup, comm, &w->axis.impl->comm);
  w->axis.impl->job = w->axis.impl->comm;
  SH_MPI(&w->axis, MPI_Comm_set_errhandler, w->axis.impl->comm, MPI_ERRORS_RETURN);
  SH_MPI(&w->axis, MPI_Comm_rank, w->axis.impl->comm, &w->axis.index);
  SH_MPI(&w->axis, MPI_Comm_size, w->axis.impl->comm, &w->axis.size);
  *out = w;
  return SH_OK;
}

void sh_world_close(sh_world *w) {
  if (!w) return;
  sh_progress_stop();
  SH_MPI(&w->axis, MPI_Comm_free, &w->axis.impl->comm);
  free(w->axis.impl);
  free(w);
}

/* A launcher that started several tasks while this MPI sees one: its MPI plug-in does not fit, and every task would
 * train alone and overwrite the others' files. mpirun sets OMPI_COMM_WORLD_SIZE, MPICH's MPI_LOCALNRANKS, so `mpirun -n
 * 1` inside a larger allocation is told apart. */
static sh_status check_lone(int size, bool by_mpirun) {
  const char *tasks = getenv("SLURM_NTASKS"), *task = getenv("SLURM_PROCID");
  if (size > 1 || by_mpirun || !tasks || !task || atoi(tasks) < 2) return SH_OK;
  return sh_fail(
      SH_ERR_USAGE,
      "Slurm started %s tasks (this is task %s), but MPI sees 1 rank: start with `srun --mpi=pmix` or mpirun "
      "(`srun --mpi=list` names what Slurm has), or with `srun -n 1` for one rank",
      tasks, task);
}

sh_status sh_world_start(int *argc, char ***argv, bool threads, sh_world **out) {
  int up = 0, level = 0, size = 0;
  bool by_mpirun =
      getenv("OMPI_COMM_WORLD_SIZE") || getenv("MPI_LOCALNRANKS"); /* before MPI_Init, which may set it itself */
  *out = NULL;
  MPI_Initialized(&up);
  if (!up) SH_MPI(NULL, MPI_Init_thread, argc, argv, threads ? MPI_THREAD_MULTIPLE : MPI_THREAD_FUNNELED, &level);
  SH_MPI(NULL, MPI_Comm_size, MPI_COMM_WORLD, &size);
  sh_status status = check_lone(size, by_mpirun);
  if (status == SH_OK) status = sh_world_open(MPI_COMM_WORLD, out);
  if (status == SH_OK)
    (*out)->finalise = !up;
  else if (!up)
    MPI_Finalize();
  return status;
}

void sh_world_finish(sh_world *w) {
  if (!w) return;
  bool finalise = w->finalise;
  sh_world_close(w);
  if (finalise) MPI_Finalize();
}

int sh_world_rank(const sh_world *w) { return w->axis.index; }
int sh_world_size(const sh_world *w) { return w->axis.size; }
const void *sh_world_comm(const sh_world *w) { return &w->axis.impl->comm; }

sh_status sh_grid_open(sh_grid *g, const sh_world *w) {
  SH_TRY(sh_grid_create(g, sh_world_comm(w), 1));
  sh_log_setup(g->world.index, g->world.size);
  return SH_OK;
}

_Noreturn void sh_world_abort(const sh_world *w, sh_status code) {
  const char *message = sh_error_message();
  sh_abort(w ? &w->axis : NULL, code, *message ? message : sh_status_text(code));
}
