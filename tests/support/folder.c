#include "support/folder.h"

#include <ftw.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[256];

typedef struct place {
  struct place *next;
  char path[];
} place;
static place *places;

static bool ranks_up(void) {
  int up;
  MPI_Initialized(&up);
  return up;
}

bool folder_mine(void) {
  int rank = 0;
  if (ranks_up()) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank == 0;
}

void folder_wait(void) {
  if (ranks_up()) MPI_Barrier(MPI_COMM_WORLD);
}

int folder_make(void **state) {
  (void)state;
  const char *above = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%s/shoal-test.XXXXXX", above && *above ? above : "/tmp");
  if (folder_mine() && !mkdtemp(folder)) {
    perror(folder);
    *folder = 0;
  }
  if (ranks_up()) MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
  return *folder ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *at) {
  (void)s, (void)kind, (void)at;
  return remove(path);
}

int folder_remove(void **state) {
  (void)state;
  folder_wait();
  int bad = folder_mine() ? nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS) : 0;
  for (place *p = places, *next; p; p = next) {
    next = p->next;
    free(p);
  }
  places = NULL;
  return bad;
}

const char *folder_name(void) { return folder; }

const char *in_folder(const char *name) {
  size_t above = strlen(folder) + 1;
  for (const place *p = places; p; p = p->next)
    if (!strcmp(p->path + above, name)) return p->path;
  place *p = malloc(sizeof *p + above + strlen(name) + 1);
  if (!p) abort();
  sprintf(p->path, "%s/%s", folder, name);
  p->next = places;
  places = p;
  return p->path;
}
