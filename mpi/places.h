/* mpi/places.h: on which host and cores the ranks run, and how their clocks differ. */
#ifndef SH_MPI_PLACES_H
#define SH_MPI_PLACES_H

#include <stddef.h>

#include "mpi/grid.h"

typedef struct sh_place {
  char host[64];
  char cores[64]; /* what the rank may run on: "0-3,8"; "" when the system does not say */
} sh_place;

/* Every rank's, into out[axis size]. Collective over the axis. */
void sh_places_gather(const sh_axis *axis, sh_place *out);

/* Of groups of `group` consecutive ranks: how many have ranks on more than one host; *first is the first of them. */
int sh_places_astride(const sh_place *place, int ranks, int group, int *first);

/* Seconds to add to this rank's sh_now to get rank 0's: the midpoint of the fastest of several exchanges with rank 0,
 * right to half of its round trip. Collective over the axis. */
double sh_clock_offset(const sh_axis *axis);

/* Each rank's bytes in rank order to rank 0, which calls visit(arg, rank, data, bytes) for each; one rank's at a time
 * is in memory. Collective over the axis. */
void sh_collect(const sh_axis *axis, const void *mine, size_t bytes,
                void (*visit)(void *arg, int rank, const void *data, size_t bytes), void *arg);

#endif
