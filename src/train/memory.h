/* train/memory.h: what a run will need on one rank, said before it is taken, and what it took.
 *
 *   sh_memory_shape s = {.tokens = 25600, .sequences = 128, .longest = 200, .micro = 1,
 *                        .items = 3883, .ranks = 2, .tensor = 1, .threads = 1}; sh_memory need =
 * sh_memory_predict(&config, &model, &s, &scratch);
 *
 * Parameters, table and activations are exact; what calls and the loss use inside, and the rows a batch touches, are
 * estimates from above.
 */
#ifndef SH_TRAIN_MEMORY_H
#define SH_TRAIN_MEMORY_H

#include "core/config.h"
#include "dist/build.h"

/* A micro-batch of one rank and the run around it. */
typedef struct sh_memory_shape {
  int64_t tokens, sequences, longest; /* of the largest micro-batch */
  int64_t micro;                      /* micro-batches of a step */
  int64_t rows;                       /* distinct table rows of a step; 0: estimated */
  int64_t items;                      /* rows of the table, all ranks */
  int ranks, tensor, threads;         /* tensor: ranks that share the tokens of a micro-batch */
} sh_memory_shape;

/* Bytes on one rank. */
typedef struct sh_memory {
  int64_t dense;       /* parameters, gradients, their way to other ranks, and two moments */
  int64_t table;       /* own rows, their optimiser state, and lists over items */
  int64_t activations; /* slots, tapes and gradients of slots at their peak: most of the step arena */
  int64_t rows;        /* fetched rows and their gradients: the rest of it */
  int64_t merged;      /* row gradients at their owner */
  int64_t workspace;   /* the largest call or the loss: scratch arena */
  int64_t batch;       /* this batch and the next */
} sh_memory;
int64_t sh_memory_total(const sh_memory *m);

/* The model only has to be built. Nothing of the prediction is allocated; `scratch` is left as it was. */
sh_memory sh_memory_predict(const sh_config *c, const sh_model *m, const sh_memory_shape *s, sh_arena *scratch);

/* Lines of a run. The first before it, from the lengths of training sequences: for a batch larger than nearly all. The
 * second behind it: prediction for the largest batch there was beside the peaks of the arenas. Local; rank 0 prints. */
struct sh_trainer;
void sh_memory_announce(struct sh_trainer *t);
void sh_memory_conclude(const struct sh_trainer *t);

/* Keep what is largest of a micro-batch, for the second line. */
void sh_memory_note(struct sh_trainer *t, const sh_batch *b, int64_t rows);

#endif
