#define SH_COLL_INSIDE
#include "mpi/grid.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "mpi/coll.h"
#include "mpi/internal.h"

int64_t sh_mpi_piece = (int64_t)1 << 30;
int sh_mpi_node = -1;

static bool mpi_is_up(void) {
  int up = 0, down = 0;
  if (MPI_Initialized(&up) != MPI_SUCCESS || !up) return false;
  return MPI_Finalized(&down) == MPI_SUCCESS && !down;
}

_Noreturn void sh_abort(const sh_axis *axis, sh_status code, const char *message) {
  bool up = mpi_is_up();
  MPI_Comm job = axis && axis->impl ? axis->impl->job : MPI_COMM_SELF;
  int rank = 0;
  if (up && axis && axis->impl) MPI_Comm_rank(job, &rank);
  fflush(stdout);
  fprintf(stderr, "shoal: rank %d: %s\n", rank, message);
  fflush(stderr);
  if (up) MPI_Abort(job, (int)code);
  _exit((int)code);
}

void sh_mpi_check(const sh_axis *axis, int code, const char *call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown error", line[MPI_MAX_ERROR_STRING + 128];
  int length = 0;
  MPI_Error_string(code, text, &length);
  snprintf(line, sizeof line, "%s failed on axis %s: %s", call, axis ? axis->name : "world", text);
  sh_abort(axis, SH_ERR_INTERNAL, line);
}

int sh_mpi_int(const sh_axis *axis, int64_t n, const char *what) {
  if (n < 0 || n > INT_MAX) {
    char line[160];
    snprintf(line, sizeof line, "%s is %lld, MPI takes 0 to %d", what, (long long)n, INT_MAX);
    sh_abort(axis, SH_ERR_INTERNAL, line);
  }
  return (int)n;
}

static int *ranks_in(MPI_Comm job, const sh_axis *a) {
  MPI_Group all, some;
  int *here = sh_malloc(2 * sizeof *here * (size_t)a->size), *there = here + a->size;
  for (int i = 0; i < a->size; i++) here[i] = i;
  SH_MPI(a, MPI_Comm_group, job, &all);
  SH_MPI(a, MPI_Comm_group, a->impl->comm, &some);
  SH_MPI(a, MPI_Group_translate_ranks, some, a->size, here, all, there);
  SH_MPI(a, MPI_Group_free, &all);
  SH_MPI(a, MPI_Group_free, &some);
  memmove(here, there, sizeof *here * (size_t)a->size);
  return here;
}

static sh_axis axis_make(const char *name, MPI_Comm comm, MPI_Comm job) {
  sh_axis a = {.name = name, .impl = sh_malloc(sizeof *a.impl)};
  *a.impl = (struct sh_axis_impl){.comm = comm, .job = job};
  SH_MPI(&a, MPI_Comm_set_errhandler, comm, MPI_ERRORS_RETURN);
  SH_MPI(&a, MPI_Comm_rank, comm, &a.index);
  SH_MPI(&a, MPI_Comm_size, comm, &a.size);
  a.impl->job_rank = ranks_in(job, &a);
  sh_axis_open(&a);
  return a;
}

/* A duplicate whose ranks stand node by node, nodes in the order of their lowest ranks: rank 0 stays rank 0, and where
 * the launcher filled nodes one after another nothing moves. A function of who shares nodes alone. */
static MPI_Comm by_node(MPI_Comm world, int size) {
  int rank, leader, *of = sh_malloc(sizeof *of * (size_t)size), place = 0;
  MPI_Comm node, ordered;
  SH_MPI(NULL, MPI_Comm_rank, world, &rank);
  leader = rank;
  if (sh_mpi_node < 0)
    SH_MPI(NULL, MPI_Comm_split_type, world, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node);
  else
    SH_MPI(NULL, MPI_Comm_split, world, sh_mpi_node, rank, &node);
  SH_MPI(NULL, MPI_Bcast, &leader, 1, MPI_INT, 0, node);
  SH_MPI(NULL, MPI_Comm_free, &node);
  SH_MPI(NULL, MPI_Allgather, &leader, 1, MPI_INT, of, 1, MPI_INT, world);
  for (int r = 0; r < size; r++) place += of[r] < leader || (of[r] == leader && r < rank);
  free(of);
  SH_MPI(NULL, MPI_Comm_split, world, 0, place, &ordered);
  return ordered;
}

sh_status sh_grid_create(sh_grid *g, const void *mpi_comm, int tensor) {
  if (!mpi_is_up()) return sh_fail(SH_ERR_INTERNAL, "a grid over a communicator needs MPI to be initialised");
  MPI_Comm world = *(const MPI_Comm *)mpi_comm, comm, data, across;
  int size = 0;
  SH_MPI(NULL, MPI_Comm_size, world, &size);
  if (tensor < 1 || size % tensor)
    return sh_fail(SH_ERR_USAGE, "parallel.tensor is %d, which does not divide the %d rank%s", tensor, size,
                   size == 1 ? "" : "s");
  comm = by_node(world, size);
  g->world = axis_make("world", comm, comm);
  g->table = g->world;
  g->table.name = "table";
  /* Neighbours share a tensor group: it talks the most, and stays on one node where it fits. */
  SH_MPI(&g->world, MPI_Comm_split, comm, g->world.index % tensor, g->world.index, &data);
  SH_MPI(&g->world, MPI_Comm_split, comm, g->world.index / tensor, g->world.index, &across);
  g->data = axis_make("data", data, comm);
  g->tensor = axis_make("tensor", across, comm);
  return SH_OK;
}

static void axis_free(sh_axis *a) {
  if (!a->impl) return;
  if (mpi_is_up()) {
    sh_axis_close(a);
    SH_MPI(a, MPI_Comm_free, &a->impl->comm);
  }
  free(a->impl->job_rank);
  free(a->impl);
  a->impl = NULL;
}

void sh_grid_destroy(sh_grid *g) {
  if (g->world.impl && mpi_is_up()) sh_check(&g->world, __func__, 0, 0);
  axis_free(&g->tensor);
  axis_free(&g->data);
  axis_free(&g->world);
  g->table.impl = NULL; /* was the world's */
}

void sh_grid_single(sh_grid *g) {
  *g = (sh_grid){
      .world = {"world", 0, 1, NULL},
      .data = {"data", 0, 1, NULL},
      .tensor = {"tensor", 0, 1, NULL},
      .table = {"table", 0, 1, NULL},
  };
}
