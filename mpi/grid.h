/* mpi/grid.h: the process grid and its named axes.
 *
 * Nothing above mpi/ sees a communicator: a collective takes an axis. On an axis of size 1 it returns at once, so one
 * code path serves a laptop and a cluster.
 */
#ifndef SH_MPI_GRID_H
#define SH_MPI_GRID_H

#include "mpi/account.h"
#include "shoal/status.h"

typedef struct sh_axis {
  const char *name;          /* "world" "data" "tensor" "table" */
  int index, size;           /* this rank's place; size >= 1 */
  struct sh_axis_impl *impl; /* communicators; mpi/ only */
} sh_axis;

typedef struct sh_grid {
  sh_axis world, data, tensor, table; /* table is the world unless parallel.table says otherwise */
} sh_grid;

/* Axes over a caller's communicator (as an opaque pointer to MPI_Comm; see shoal_mpi.h). It is duplicated, ranks
 * ordered by node (rank 0 stays); MPI must be initialised. `tensor` must divide the size. Collective over the
 * communicator. */
sh_status sh_grid_create(sh_grid *g, const void *mpi_comm, int tensor);
void sh_grid_destroy(sh_grid *g);

#ifndef SH_COLL_INSIDE /* mpi/coll.h */
#define sh_grid_destroy(...) (sh_comm_at(__FILE__, __LINE__), sh_grid_destroy(__VA_ARGS__))
#endif

/* The communicator of a world (shoal_mpi.h) as sh_grid_create takes it; the world keeps it. */
struct sh_world;
const void *sh_world_comm(const struct sh_world *w);

/* The grid that a command begins with, all ranks beside each other; the log learns who prints. Collective. */
sh_status sh_grid_open(sh_grid *g, const struct sh_world *w);

/* A grid of one process that needs no MPI_Init: tools and unit tests. */
void sh_grid_single(sh_grid *g);

#endif
