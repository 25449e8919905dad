/* Non-blocking collectives (mpi/coll.h). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/timer.h"
#include "mpi/coll.h"
#include "mpi/internal.h"

int *sh_request_numbers(sh_request *r, int n) {
  if (n > r->number_capacity) {
    r->number = sh_realloc(r->number, sizeof *r->number * (size_t)n);
    r->number_capacity = n;
  }
  return r->number;
}

MPI_Datatype sh_request_type(const sh_axis *axis, sh_request *r, size_t unit) {
  if (r->unit != unit) {
    if (r->unit) SH_MPI(axis, MPI_Type_free, &r->type);
    SH_MPI(axis, MPI_Type_contiguous, sh_mpi_int(axis, (int64_t)unit, "bytes of one element"), MPI_BYTE, &r->type);
    SH_MPI(axis, MPI_Type_commit, &r->type);
    r->unit = unit;
  }
  return r->type;
}

/* Counts and displacements, in elements, as ints; returns the sum. */
int64_t sh_mpi_layout(const sh_axis *axis, const int64_t *count, int *counts, int *places) {
  int64_t total = 0;
  for (int i = 0; i < axis->size; i++) {
    counts[i] = sh_mpi_int(axis, count[i], "elements for one rank");
    places[i] = sh_mpi_int(axis, total, "place of a rank's elements");
    total += count[i];
  }
  return total;
}

sh_request *sh_request_new(void) { return sh_calloc(1, sizeof(sh_request)); }

void sh_request_free(sh_request *r) {
  if (!r) return;
  sh_request_end(r);
  int down = 0;
  if (r->unit) MPI_Finalized(&down);
  if (r->unit && !down) MPI_Type_free(&r->type);
  free(r->number);
  free(r->request);
  free(r);
}

/* Room for n requests of a new operation. */
static MPI_Request *open_requests(sh_request *r, const sh_axis *axis, int n) {
  assert(!r->axis); /* one operation at a time */
  if (n > r->request_capacity) {
    r->request = sh_realloc(r->request, sizeof *r->request * (size_t)n);
    r->request_capacity = n;
  }
  r->axis = axis;
  r->nrequests = n;
  return r->request;
}

void sh_alltoallv_begin(const sh_axis *axis, sh_request *r, const void *send, const int64_t *send_count, void *recv,
                        const int64_t *recv_count, size_t unit) {
  assert(unit > 0);
  if (axis->size == 1) {
    assert(send_count[0] == recv_count[0]);
    if (send_count[0]) memcpy(recv, send, (size_t)send_count[0] * unit);
    return;
  }
  int P = axis->size, *n = sh_request_numbers(r, 4 * P);
  int64_t total = sh_mpi_layout(axis, send_count, n, n + P);
  sh_mpi_layout(axis, recv_count, n + 2 * P, n + 3 * P);
  MPI_Datatype type = sh_request_type(axis, r, unit);
  MPI_Request *request = open_requests(r, axis, 1);
  SH_MPI(axis, MPI_Ialltoallv, send, n, n + P, type, recv, n + 2 * P, n + 3 * P, type, sh_axis_comm(axis), request);
  sh_mpi_sent((total - send_count[axis->index]) * (int64_t)unit);
}

void sh_sum_f32_begin(const sh_axis *axis, sh_request *r, float *x, int64_t n) {
  if (axis->size == 1 || n == 0) return;
  int pieces = (int)((n + sh_mpi_piece - 1) / sh_mpi_piece);
  MPI_Request *request = open_requests(r, axis, pieces);
  for (int64_t i = 0; i < n; i += sh_mpi_piece)
    SH_MPI(axis, MPI_Iallreduce, MPI_IN_PLACE, x + i, (int)sh_mpi_next(n - i), MPI_FLOAT, MPI_SUM, sh_axis_comm(axis),
           request++);
  sh_mpi_sent(2 * n * (int64_t)sizeof *x * (axis->size - 1) / axis->size);
}

void sh_request_end(sh_request *r) {
  if (!r->axis) return;
  double start = sh_now();
  SH_MPI(r->axis, MPI_Waitall, r->nrequests, r->request, MPI_STATUSES_IGNORE);
  r->axis = NULL;
  sh_mpi_waited(start);
}
