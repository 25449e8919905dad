/* train/trainer.h: everything a run holds. Built by sh_trainer_create, stepped by train/step.c, driven by train/loop.c.
 */
#ifndef SH_TRAIN_TRAINER_H
#define SH_TRAIN_TRAINER_H

#include "ckpt/checkpoint.h"
#include "core/config.h"
#include "data/loader.h"
#include "dist/build.h"
#include "dist/grad_sync.h"
#include "dist/table.h"
#include "mpi/coll.h"
#include "train/memory.h"

/* One loaded global batch on this rank with its rows on the way. Two, swapped. */
typedef struct sh_stage {
  sh_arena memory; /* batch */
  sh_global_batch batch;
  sh_fetch fetch;
  /* fetch.slot: inputs of all micro-batches, then what the loss reads (train/references.h) */
  int64_t *first_input; /* [nmicro] into fetch.slot */
  int64_t *first_loss;  /* [nmicro] */
  int64_t nshared;      /* negatives shared by all tokens, first_shared .. */
  int64_t first_shared;
  float *correction; /* [nshared] log expected counts, or NULL */
  bool loaded;
} sh_stage;

typedef struct sh_trainer {
  sh_config conf;
  sh_grid *grid;
  sh_dataset data;
  sh_samples samples;
  sh_loader loader;
  sh_model model;
  sh_table item;
  sh_grad_sync sync;
  sh_slices held;              /* of the dense parameters, whose optimiser state this rank has (parallel.zero) */
  float *exp_avg, *exp_avg_sq; /* arrays over them */
  sh_stage stage[2];
  int now; /* stage of the current batch */
  sh_arena run, step, scratch;
  const sh_kernels *kernels;
  sh_run_state state;
  sh_memory_shape largest; /* of all micro-batches so far */
  bool branched;           /* continued from a checkpoint named by the user: an earlier run in train.out is set aside */
  int64_t total_steps;     /* of the run, for schedules and the ETA */
  int64_t *candidate_position; /* [candidates] in the table: what negatives are drawn from */
  int64_t nown_candidates, nown_scored;
  int32_t *own_candidate; /* own rows that are candidates, as local rows, ascending: what evaluation ranks */
  int32_t *own_scored;    /* and those with events: what the full softmax is over, so that every target is in it */
  int64_t *train_count;   /* [items] events of the train part, for the same losses */
  int64_t *popularity;    /* [candidates] running sum of counts + 1 for losses that need it, else NULL */
} sh_trainer;

/* What one step did; sums over all ranks. */
typedef struct sh_step_report {
  double loss; /* mean over the global batch's tokens */
  double grad_norm, lr;
  int64_t tokens, users, rows_touched;
  double imbalance;
  int64_t stop_votes; /* ranks that saw a stop signal */
  double flops;       /* as train/step.h counts */
} sh_step_report;

/* Collective over the world. The data set is opened, the model built and drawn from the seed; nothing is trained. */
sh_status sh_trainer_create(sh_trainer *t, const sh_config *conf, sh_grid *grid);
void sh_trainer_destroy(sh_trainer *t);

/* Everything a checkpoint holds. */
sh_ckpt_content sh_trainer_content(sh_trainer *t);

/* One update. Collective over the world; a failure is agreed upon. `stop` is this rank's vote. */
sh_status sh_train_step(sh_trainer *t, bool stop, sh_step_report *report);

/* Forget what is loaded ahead (after the position changed). Collective: rows on the way arrive first. */
void sh_trainer_rewind(sh_trainer *t);

#endif
