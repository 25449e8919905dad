/* support/train_data.h: small data sets and small models for tests that train, and what two runs have in common.
 *
 *   folder_make(NULL);
 *   const char *data = train_data_write(&train_usual, "data.h5");
 *   sh_config c = train_config("hstu", data);
 *   train_run run = {0};
 *   train_steps(&run, &t, 20);                            losses are appended
 *   train_keep(&run, &t);                                 every parameter, moment and table row
 *   train_bits(&run, &other, "resumed")                   or train_rounding: prints what differs
 */
#ifndef SH_TESTS_TRAIN_DATA_H
#define SH_TESTS_TRAIN_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "train/trainer.h"

typedef struct train_data {
  int64_t users, items;
  int64_t least, most; /* events of a user */
  int64_t candidates;  /* every items/candidates-th item; 0: all */
  bool times, keys;    /* keys: "user-7", "item/3" instead of numbers */
  uint32_t seed;
} train_data;

/* 70 users of 1 to 20 events, with times, 60 items, 50 of them candidates. */
extern const train_data train_usual;

/* Users repeat a few favourites of theirs among random items, so that there is something to learn. Written by one for
 * all to the folder of support/folder.h; returns its full name. Aborts on failure. */
const char *train_data_write(const train_data *d, const char *name);

/* A model of width 16, two blocks, two heads, dropout on, max_len 12, batches of 16 sequences. */
sh_config train_config(const char *model, const char *data);

enum { TRAIN_MODELS = 4, TRAIN_LOSSES = 4, TRAIN_WHAT = 96 };

/* Model and loss by number, with an optimiser of the rows such that over all pairs of model and loss every pair of the
 * three occurs; clipping, weight decay and popularity sampling in some. what: a name for messages. */
sh_config train_mixed(int model, int loss, const char *data, char what[TRAIN_WHAT]);

/* With an epsilon of the size of the gradients: then AdamW's step is at most proportional to its moment, as in SGD, and
 * does not amplify rounding where a gradient is nearly zero. */
sh_config train_smooth(sh_config c);

enum { TRAIN_STEPS = 64, TRAIN_ARRAYS = 256 };

typedef struct train_array {
  char name[96];
  int64_t at, n; /* floats in train_run.value */
} train_array;

typedef struct train_run {
  int steps;
  double loss[TRAIN_STEPS], grad_norm[TRAIN_STEPS];
  int64_t rows_touched[TRAIN_STEPS];
  int arrays;
  train_array array[TRAIN_ARRAYS];
  int64_t n;
  float *value; /* [n] whole arrays, the same on every rank */
} train_run;

/* Collective over the trainer's world. A failure prints its message. */
bool train_steps(train_run *r, sh_trainer *t, int steps);
void train_keep(train_run *r, sh_trainer *t);
void train_free(train_run *r);

/* Create, train, keep and destroy; false when any of it failed. Collective over the grid. */
bool train_whole(train_run *r, const sh_config *c, sh_grid *g, int steps);

/* How often the system was asked for memory while a trainer took `steps` steps a second time, the same batches from the
 * beginning; -1 when a step failed. Collective over the grid. */
int64_t train_again_allocations(const sh_config *c, sh_grid *g, int steps);

/* The run of rank 0 on all ranks, or false everywhere when it is not `good` there. Collective over MPI_COMM_WORLD. */
bool train_share(train_run *r, bool good);

/* train_whole by rank 0 on `self`, a grid of one rank, shared: ranks share the cores of this machine. */
bool train_alone(train_run *r, const sh_config *c, sh_grid *self, int steps);

/* Equal to the last bit: losses, gradient norms, rows touched, arrays. */
bool train_bits(const train_run *a, const train_run *b, const char *what);

/* To rounding: every loss within `loss` relative; every parameter and row of the model (state of optimisers is not
 * looked at) within `param` of its array's largest entry; param = 0 leaves arrays out. */
bool train_rounding(const train_run *got, const train_run *want, double loss, double param, const char *what);

#endif
