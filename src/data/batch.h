/* data/batch.h: one micro-batch on one rank: named features over jagged sequences, no padding.
 *
 * B sequences, T tokens; tokens of sequence b are offsets[b] .. offsets[b+1]-1, oldest first. The schema of the data
 * set names the features; those every sequence model reads have members of their own.
 */
#ifndef SH_DATA_BATCH_H
#define SH_DATA_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"

typedef enum sh_feature_kind { SH_FEATURE_JAGGED, SH_FEATURE_TOKEN, SH_FEATURE_DENSE } sh_feature_kind;
typedef struct sh_feature {
  char name[32];
  sh_feature_kind kind;
  int width;              /* dense: d; else 1 */
  const int32_t *offsets; /* jagged: [B+1]; else NULL */
  const int64_t *ints;    /* ids and times; or */
  const float *reals;     /* numbers: exactly one of the two is set */
} sh_feature;
enum { SH_BATCH_FEATURES = 64 };

/* Runs of equal time bucket (see data/time_runs.h). */
typedef struct sh_time_runs {
  const int32_t *start;  /* [T+1] runs of query token i are start[i] .. start[i+1]-1 */
  const int32_t *end;    /* [runs] one past the last key, counted from the sequence's first token */
  const uint8_t *bucket; /* [runs] */
} sh_time_runs;

typedef struct sh_batch {
  int64_t B, T;
  const int32_t *offsets;   /* [B+1] */
  const int64_t *sample;    /* [B] global sample id: the counter of every random number of the sequence */
  const int64_t *item;      /* [T] table row of each input event */
  const int64_t *target;    /* [T] table row of the event to be predicted at each position */
  const int64_t *time;      /* [T] time of each input event, or NULL when the data set has none */
  const int64_t *next_time; /* [T] time the time bias measures from: of the predicted event, or the own time when
                               request_time is off; NULL as above */
  const int32_t *position;  /* [T] place in the sequence */
  const int32_t *sequence;  /* [T] b */
  sh_time_runs runs;        /* set by sh_time_runs_build when a layer asks for it; start == NULL otherwise */
  int64_t epoch, step;      /* epoch from 0; global step from 0 */
  int nfeatures;
  sh_feature feature[SH_BATCH_FEATURES];
} sh_batch;

const sh_feature *sh_batch_feature(const sh_batch *b, const char *name); /* NULL when absent */

#endif
