/* shoal/scaling.h: what a training step will need and take on more ranks and nodes than there are: memory of a rank,
 * time by kind, tokens a second (docs/SCALING.md has the model).
 */
#ifndef SHOAL_SCALING_H
#define SHOAL_SCALING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sh_world;

/* Zero means: the default said here. */
typedef struct sh_scaling_options {
  const char *config; /* YAML file; NULL: the defaults */
  int nset;
  const char *const *set; /* "section.key=value", bench.* as in shoal/bench.h, and machine.key=value: another machine */
  const char *shapes;     /* file of shapes (shoal/bench.h): a table for each */
  const char *machine;    /* file that `measure` printed */
  const char *nodes;      /* "1,2,4" */
  int64_t per_node;       /* ranks of a node (1) */
  int64_t threads;        /* of a rank (those of the measurement) */
  bool weak;              /* the batch of the configuration is that of one data-parallel rank, not of all */
  bool best;              /* of several numbers of ranks that share layers, not parallel.tensor alone */
  bool measure;           /* print a machine file instead: what `machine` says, with what is measured here */
} sh_scaling_options;

/* Whether any shape asks for a communication thread, to be known before MPI is initialised (sh_world_start). */
bool sh_scaling_wants_threads(const sh_scaling_options *o);

/* Prints predictions on rank 0; nothing is trained. With `measure` it times, on one rank: this core, and steps of each
 * shape by one rank, of the whole batch and of a quarter, on data.path as the bench does (made histories, with a
 * warning, where it is not there); on several ranks, all at the same time: cores, steps beside
 * steps, and the link between the ranks, which stand on one node (near), or on a node each (far). Collective over the
 * world. */
sh_status sh_scaling(struct sh_world *world, const sh_scaling_options *o, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
