/* shoal/train.h: training, evaluation and recommendation runs. All are collective over the world. */
#ifndef SHOAL_TRAIN_H
#define SHOAL_TRAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sh_world;

typedef struct sh_train_options {
  const char *config; /* YAML file */
  int nset;
  const char *const *set;          /* "section.key=value" */
  bool resume;                     /* continue from train.out/ckpt/latest.h5 when there is one */
  const char *resume_from;         /* a checkpoint to continue from, or NULL */
  int64_t trace_first, trace_last; /* steps to trace, counted from 1; 0: none */
  const char *trace_file;          /* NULL: trace.json in train.out */
} sh_train_options;

/* Whether this run asks for a communication thread (comm.progress = thread), to be known before MPI is initialised:
 * sh_world_start. Every rank reads the file for this (docs/SCALING.md says why). Where the configuration cannot be read
 * it says no; sh_train will say why. */
bool sh_train_wants_threads(const sh_train_options *o);

/* SH_OK when finished; SH_STOPPED after SIGTERM, SIGINT or SIGUSR1 with a checkpoint written; SH_ERR_DIVERGED when the
 * loss is NaN, infinite or beyond train.loss_limit. */
sh_status sh_train(struct sh_world *world, const sh_train_options *o);

/* From now on SIGTERM, SIGINT (once) and SIGUSR1 ask sh_train for a stop instead of ending the process. Programs call
 * it first of all, so that a signal that comes while data is read is not lost. */
void sh_train_catch_stop(void);

typedef struct sh_eval_options {
  const char *checkpoint;
  int nset;
  const char *const *set; /* over the checkpoint's own configuration: data.path, eval.*, train.threads */
  const char *split;      /* "valid", "test", or NULL: test */
  const char *json;       /* file for the metrics as one JSON object, or NULL */
} sh_eval_options;
sh_status sh_eval(struct sh_world *world, const sh_eval_options *o);

typedef struct sh_recommend_options {
  const char *checkpoint;
  int nset;
  const char *const *set;
  int64_t top;     /* items of a user */
  const char *out; /* TSV: user, rank, item, score, with original keys; NULL: standard output */
} sh_recommend_options;
sh_status sh_recommend(struct sh_world *world, const sh_recommend_options *o);

/* Every configuration key with type, range, default and help. */
void sh_list_keys(FILE *out);

#ifdef __cplusplus
}
#endif
#endif
