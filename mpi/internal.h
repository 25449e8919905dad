/* mpi/internal.h: what the files of mpi/ share. Nobody else includes it, except tests. */
#ifndef SH_MPI_INTERNAL_H
#define SH_MPI_INTERNAL_H

#include <mpi.h>
#include <stdint.h>

#include "mpi/grid.h"

/* NULL in an axis that knows no MPI (sh_grid_single). */
struct sh_axis_impl {
  MPI_Comm comm; /* of this axis */
  MPI_Comm job;  /* of the whole grid: what an abort ends */
};

/* Every MPI call goes through here: SH_MPI(axis, MPI_Barrier, comm). A failure ends the job with rank and name. */
#define SH_MPI(axis, function, ...) sh_mpi_check((axis), function(__VA_ARGS__), #function)
void sh_mpi_check(const sh_axis *axis, int code, const char *call);

static inline MPI_Comm sh_axis_comm(const sh_axis *axis) { return axis->impl ? axis->impl->comm : MPI_COMM_SELF; }

/* The most elements one MPI call is given; more goes in pieces. A variable, so that tests can cut small arrays. */
extern int64_t sh_mpi_piece;

/* n as MPI's int; ends the job when it does not fit. */
int sh_mpi_int(const sh_axis *axis, int64_t n, const char *what);

#endif
