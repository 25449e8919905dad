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

static inline int64_t sh_mpi_next(int64_t rest) { return rest < sh_mpi_piece ? rest : sh_mpi_piece; }

/* Accounts of sh_comm_seconds and sh_comm_bytes: a call that began at `since` has ended; bytes were sent. */
void sh_mpi_waited(double since);
void sh_mpi_sent(int64_t bytes);

/* An MPI request needs its counts as ints, alive until the end; blocking calls borrow one kept here. */
struct sh_request {
  const sh_axis *axis; /* of the open request; NULL when there is none */
  MPI_Request *request;
  int nrequests, request_capacity;
  int *number; /* send counts, send displacements, receive counts, receive displacements */
  int number_capacity;
  MPI_Datatype type; /* `unit` bytes */
  size_t unit;
};

int *sh_request_numbers(struct sh_request *r, int n); /* room for n counts */
MPI_Datatype sh_request_type(const sh_axis *axis, struct sh_request *r, size_t unit);

/* Counts and displacements, in elements, as ints; returns the sum. */
int64_t sh_mpi_layout(const sh_axis *axis, const int64_t *count, int *counts, int *places);

/* n as MPI's int; ends the job when it does not fit. */
int sh_mpi_int(const sh_axis *axis, int64_t n, const char *what);

#endif
