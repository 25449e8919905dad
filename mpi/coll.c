#define SH_COLL_INSIDE
#include "mpi/coll.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "mpi/internal.h"

/* Room for counts as ints, kept from call to call. */
static int *numbers(int n) {
  static int *number, capacity;
  if (n > capacity) {
    number = sh_realloc(number, sizeof *number * (size_t)n);
    capacity = n;
  }
  return number;
}

/* Counts and displacements, in elements. */
static void layout(const sh_axis *axis, const int64_t *count, int *counts, int *places) {
  int64_t total = 0;
  for (int i = 0; i < axis->size; i++) {
    counts[i] = sh_mpi_int(axis, count[i], "elements for one rank");
    places[i] = sh_mpi_int(axis, total, "place of a rank's elements");
    total += count[i];
  }
}

static void all_reduce(const sh_axis *axis, const char *call, void *x, int64_t n, MPI_Datatype type, MPI_Op op) {
  if (axis->size == 1) return;
  int size;
  SH_MPI(axis, MPI_Type_size, type, &size);
  sh_check(axis, call, n, size);
  sh_mpi_op o = sh_mpi_begin(axis, call);
  for (int64_t i = 0; i < n; i += sh_mpi_piece)
    SH_MPI(axis, MPI_Allreduce, MPI_IN_PLACE, (char *)x + i * size, (int)sh_mpi_next(n - i), type, op,
           sh_axis_comm(axis));
  sh_mpi_end(&o, 2 * n * size * (axis->size - 1) / axis->size);
}

void sh_sum_f32(const sh_axis *axis, float *x, int64_t n) { all_reduce(axis, __func__, x, n, MPI_FLOAT, MPI_SUM); }
void sh_sum_f64(const sh_axis *axis, double *x, int64_t n) { all_reduce(axis, __func__, x, n, MPI_DOUBLE, MPI_SUM); }
void sh_sum_i64(const sh_axis *axis, int64_t *x, int64_t n) { all_reduce(axis, __func__, x, n, MPI_INT64_T, MPI_SUM); }
void sh_max_f32(const sh_axis *axis, float *x, int64_t n) { all_reduce(axis, __func__, x, n, MPI_FLOAT, MPI_MAX); }
void sh_max_f64(const sh_axis *axis, double *x, int64_t n) { all_reduce(axis, __func__, x, n, MPI_DOUBLE, MPI_MAX); }
void sh_max_i64(const sh_axis *axis, int64_t *x, int64_t n) { all_reduce(axis, __func__, x, n, MPI_INT64_T, MPI_MAX); }

void sh_bcast(const sh_axis *axis, void *data, size_t bytes, int root) {
  if (axis->size == 1) return;
  sh_check(axis, __func__, (int64_t)bytes, root);
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  for (int64_t i = 0, n = (int64_t)bytes; i < n; i += sh_mpi_piece)
    SH_MPI(axis, MPI_Bcast, (char *)data + i, (int)sh_mpi_next(n - i), MPI_BYTE, root, sh_axis_comm(axis));
  sh_mpi_end(&op, axis->index == root ? (int64_t)bytes : 0);
}

void sh_barrier(const sh_axis *axis) {
  if (axis->size == 1) return;
  sh_check(axis, __func__, 0, 0);
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  SH_MPI(axis, MPI_Barrier, sh_axis_comm(axis));
  sh_mpi_end(&op, 0);
}

/* Pieces too large for one call go round by broadcasts. `mine` may be this rank's place in `out`. */
static void gather_by_bcast(const sh_axis *axis, const void *mine, const int64_t *count, size_t unit, char *out) {
  for (int r = 0; r < axis->size; r++) {
    size_t bytes = (size_t)count[r] * unit;
    if (r == axis->index && bytes && out != mine) memcpy(out, mine, bytes);
    sh_bcast(axis, out, bytes, r);
    out += bytes;
  }
}

void sh_allgather(const sh_axis *axis, const void *mine, size_t bytes, void *out) {
  char *place = (char *)out + bytes * (size_t)axis->index;
  if (axis->size == 1) {
    if (bytes && mine != out) memcpy(out, mine, bytes);
    return;
  }
  sh_check(axis, __func__, 1, (int64_t)bytes);
  if ((int64_t)bytes * axis->size > sh_mpi_piece) {
    int64_t *count = sh_malloc(sizeof *count * (size_t)axis->size);
    for (int r = 0; r < axis->size; r++) count[r] = (int64_t)bytes;
    gather_by_bcast(axis, mine, count, 1, out);
    free(count);
    return;
  }
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  SH_MPI(axis, MPI_Allgather, mine == place ? MPI_IN_PLACE : mine, (int)bytes, MPI_BYTE, out, (int)bytes, MPI_BYTE,
         sh_axis_comm(axis));
  sh_mpi_end(&op, (int64_t)bytes * (axis->size - 1));
}

static int64_t sum(const int64_t *x, int n) {
  int64_t total = 0;
  for (int i = 0; i < n; i++) total += x[i];
  return total;
}

void sh_allgatherv(const sh_axis *axis, const void *mine, const int64_t *count, size_t unit, void *out) {
  if (axis->size == 1) {
    if (count[0] && mine != out) memcpy(out, mine, (size_t)count[0] * unit);
    return;
  }
  int64_t total = sum(count, axis->size);
  sh_check(axis, __func__, sh_check_counts(count, axis->size), (int64_t)unit);
  if (total > sh_mpi_piece) {
    gather_by_bcast(axis, mine, count, unit, out);
    return;
  }
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  int *counts = numbers(2 * axis->size), *places = counts + axis->size;
  layout(axis, count, counts, places);
  const void *place = (char *)out + (size_t)places[axis->index] * unit;
  MPI_Datatype type;
  SH_MPI(axis, MPI_Type_contiguous, sh_mpi_int(axis, (int64_t)unit, "bytes of one element"), MPI_BYTE, &type);
  SH_MPI(axis, MPI_Type_commit, &type);
  SH_MPI(axis, MPI_Allgatherv, mine == place ? MPI_IN_PLACE : mine, counts[axis->index], type, out, counts, places,
         type, sh_axis_comm(axis));
  SH_MPI(axis, MPI_Type_free, &type);
  sh_mpi_end(&op, count[axis->index] * (int64_t)unit * (axis->size - 1));
}

/* One reduction for every receiver, in pieces: for sums too long for one call. */
static void reduce_each(const sh_axis *axis, const float *x, const int64_t *count, float *out) {
  for (int r = 0; r < axis->size; x += count[r], r++)
    for (int64_t i = 0; i < count[r]; i += sh_mpi_piece)
      SH_MPI(axis, MPI_Reduce, x + i, r == axis->index ? out + i : NULL, (int)sh_mpi_next(count[r] - i), MPI_FLOAT,
             MPI_SUM, r, sh_axis_comm(axis));
}

void sh_reduce_scatter_f32(const sh_axis *axis, const float *x, const int64_t *count, float *out) {
  if (axis->size == 1) {
    if (count[0] && x != out) memcpy(out, x, (size_t)count[0] * sizeof *x);
    return;
  }
  sh_check(axis, __func__, sh_check_counts(count, axis->size), sizeof *x);
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  int64_t total = sum(count, axis->size);
  assert(out + count[axis->index] <= x || out >= x + total);
  if (total > sh_mpi_piece) {
    reduce_each(axis, x, count, out);
  } else {
    int *counts = numbers(2 * axis->size);
    layout(axis, count, counts, counts + axis->size);
    SH_MPI(axis, MPI_Reduce_scatter, x, out, counts, MPI_FLOAT, MPI_SUM, sh_axis_comm(axis));
  }
  sh_mpi_end(&op, (total - count[axis->index]) * (int64_t)sizeof *x);
}

void sh_alltoall_i64(const sh_axis *axis, const int64_t *send, int64_t *recv) {
  if (axis->size == 1) {
    recv[0] = send[0];
    return;
  }
  sh_check(axis, __func__, 1, sizeof *send);
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  SH_MPI(axis, MPI_Alltoall, send, 1, MPI_INT64_T, recv, 1, MPI_INT64_T, sh_axis_comm(axis));
  sh_mpi_end(&op, (axis->size - 1) * (int64_t)sizeof *send);
}

sh_status sh_agree(const sh_axis *axis, sh_status mine) {
  if (axis->size == 1) return mine;
  sh_check(axis, __func__, 0, 0);
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  int first = mine == SH_OK ? INT_MAX : axis->index;
  SH_MPI(axis, MPI_Allreduce, MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, sh_axis_comm(axis));
  sh_mpi_end(&op, 0);
  if (first == INT_MAX) return SH_OK;
  struct {
    int status;
    char text[2048];
  } failure = {.status = (int)mine};
  snprintf(failure.text, sizeof failure.text, "%s", sh_error_message());
  sh_bcast(axis, &failure, sizeof failure, first);
  int rank, end = 0; /* agreed upon before, further down: the rank stands there already */
  if (sscanf(failure.text, "rank %d:%n", &rank, &end) == 1 && end > 0)
    return sh_fail((sh_status)failure.status, "%s", failure.text);
  return sh_fail((sh_status)failure.status, "rank %d: %s", first, failure.text);
}
