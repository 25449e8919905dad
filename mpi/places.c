#include "mpi/places.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/timer.h"
#include "mpi/coll.h"
#include "mpi/internal.h"

enum { EXCHANGES = 32 };

/* "0-3,8"; what does not fit ends in "...". */
static void core_list(char *out, size_t size) {
  cpu_set_t set;
  size_t n = 0;
  out[0] = 0;
  if (sched_getaffinity(0, sizeof set, &set)) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET((size_t)cpu, &set)) continue;
    int first = cpu;
    while (cpu + 1 < CPU_SETSIZE && CPU_ISSET((size_t)cpu + 1, &set)) cpu++;
    if (n + 16 > size) {
      snprintf(out + n, size - n, "...");
      return;
    }
    n += (size_t)snprintf(out + n, size - n, first == cpu ? "%s%d" : "%s%d-%d", n ? "," : "", first, cpu);
  }
}

void sh_places_gather(const sh_axis *axis, sh_place *out) {
  sh_place mine = {0};
  if (gethostname(mine.host, sizeof mine.host - 1)) snprintf(mine.host, sizeof mine.host, "unknown");
  mine.host[strcspn(mine.host, ".\"\\")] = 0; /* the short name, fit for JSON */
  core_list(mine.cores, sizeof mine.cores);
  sh_allgather(axis, &mine, sizeof mine, out);
}

int sh_places_astride(const sh_place *place, int ranks, int group, int *first) {
  int found = 0;
  for (int g = ranks / group - 1; g >= 0; g--) {
    const sh_place *of = &place[g * group];
    bool one = true;
    for (int i = 1; i < group; i++) one = one && !strcmp(of[i].host, of->host);
    if (!one) found++, *first = g;
  }
  return found;
}

/* Rank 0 answers each rank in turn with its clock. */
double sh_clock_offset(const sh_axis *axis) {
  if (axis->size == 1) return 0;
  MPI_Comm comm = sh_axis_comm(axis);
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  double offset = 0, fastest = 1e30;
  for (int r = 1; r < axis->size && axis->index == 0; r++)
    for (int i = 0; i < EXCHANGES; i++) {
      double now;
      SH_MPI(axis, MPI_Recv, &now, 1, MPI_DOUBLE, r, SH_TAG_CLOCK, comm, MPI_STATUS_IGNORE);
      now = sh_now();
      SH_MPI(axis, MPI_Send, &now, 1, MPI_DOUBLE, r, SH_TAG_CLOCK, comm);
    }
  for (int i = 0; i < EXCHANGES && axis->index > 0; i++) {
    double sent = sh_now(), theirs;
    SH_MPI(axis, MPI_Send, &sent, 1, MPI_DOUBLE, 0, SH_TAG_CLOCK, comm);
    SH_MPI(axis, MPI_Recv, &theirs, 1, MPI_DOUBLE, 0, SH_TAG_CLOCK, comm, MPI_STATUS_IGNORE);
    double back = sh_now();
    if (back - sent >= fastest) continue;
    fastest = back - sent;
    offset = theirs - (sent + back) / 2;
  }
  sh_mpi_end(&op, (int64_t)sizeof(double) * EXCHANGES * (axis->index > 0 ? 1 : axis->size - 1));
  return offset;
}

static void send_all(const sh_axis *axis, const char *data, int64_t n) {
  MPI_Comm comm = sh_axis_comm(axis);
  SH_MPI(axis, MPI_Send, &n, 1, MPI_INT64_T, 0, SH_TAG_SIZE, comm);
  for (int64_t i = 0; i < n; i += sh_mpi_piece)
    SH_MPI(axis, MPI_Send, data + i, (int)sh_mpi_next(n - i), MPI_BYTE, 0, SH_TAG_BYTES, comm);
}

void sh_collect(const sh_axis *axis, const void *mine, size_t bytes,
                void (*visit)(void *arg, int rank, const void *data, size_t bytes), void *arg) {
  sh_mpi_op op = sh_mpi_begin(axis, __func__);
  if (axis->index > 0) {
    send_all(axis, mine, (int64_t)bytes);
    sh_mpi_end(&op, (int64_t)(bytes + sizeof(int64_t)));
    return;
  }
  visit(arg, 0, mine, bytes);
  MPI_Comm comm = sh_axis_comm(axis);
  for (int r = 1; r < axis->size; r++) {
    int64_t n;
    SH_MPI(axis, MPI_Recv, &n, 1, MPI_INT64_T, r, SH_TAG_SIZE, comm, MPI_STATUS_IGNORE);
    char *data = sh_malloc((size_t)n + 1);
    for (int64_t i = 0; i < n; i += sh_mpi_piece)
      SH_MPI(axis, MPI_Recv, data + i, (int)sh_mpi_next(n - i), MPI_BYTE, r, SH_TAG_BYTES, comm, MPI_STATUS_IGNORE);
    visit(arg, r, data, (size_t)n);
    free(data);
  }
  sh_mpi_end(&op, 0);
}
