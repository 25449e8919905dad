/* data/samples.h: which piece of which user is a training sequence or an evaluation query, and in what order.
 *
 * A user's events s[0..n-1] are split by protocol (data.split):
 *   leave-one-out   train s[0..n-2]; test predicts s[n-1]                       (as published: test every epoch)
 *   leave-two-out   train s[0..n-3]; validation predicts s[n-2]; test s[n-1]
 *   temporal        train events before time t1; validation predicts the first event in [t1, t2), test the first at or
 *                   after t2; each sees everything before it
 * A training sequence of L inputs predicts at each position the next event, so it spans L+1 events of the train part:
 * the last max_len + 1 of it (window: last), or consecutive windows of it (window: all).
 * A query's history is the last max_len events before its target.
 *
 * The order of an epoch is a function of (seed, epoch) alone: blocks of consecutive samples are permuted, pools of
 * eight permuted blocks are shuffled inside. Nothing of size of the data set is built per epoch.
 */
#ifndef SH_DATA_SAMPLES_H
#define SH_DATA_SAMPLES_H

#include "core/config.h"
#include "data/dataset.h"

typedef struct sh_sample {
  int64_t user;
  int64_t first;  /* first event in the file */
  int32_t length; /* input events L; a training sample reads L + 1 events, its last being the last target */
  int64_t id;     /* counter of its random numbers: the same on every grid */
} sh_sample;

typedef enum sh_query_kind { SH_QUERY_VALID, SH_QUERY_TEST } sh_query_kind;

typedef struct sh_samples {
  const sh_dataset *data;
  sh_conf_data conf;
  int64_t max_len;
  int64_t n;                            /* training samples */
  int32_t *sample_user, *sample_window; /* [n] */
  int64_t train_tokens;                 /* sum of L over samples: of one epoch */
  int64_t skipped_users;                /* too short to train on */
  uint64_t digest;                      /* of all training samples: where they stand, and the events they stand in */
  int64_t t1, t2;                       /* temporal split */
  int32_t *train_end;                   /* temporal: [users] events before t1; else NULL */
  int32_t *query_at[2];                 /* temporal: [users] place of the target, or -1; else NULL */
} sh_samples;

sh_status sh_samples_create(sh_samples *s, const sh_dataset *d, const sh_conf_data *conf, int64_t max_len);
void sh_samples_destroy(sh_samples *s);

sh_sample sh_samples_get(const sh_samples *s, int64_t index); /* 0 .. n-1 */

/* Events of each item in the train parts; count[items] is added to. Streams through the file once. */
sh_status sh_samples_count(const sh_samples *s, int64_t *count);

/* A user's query: false when the user has none. `first`, `length` are the history; the target is event first+length.
 * seen_first: first event of the user (all of seen_first .. first+length-1 is "seen"). */
bool sh_samples_query(const sh_samples *s, sh_query_kind kind, int64_t user, sh_sample *out, int64_t *seen_first);

/* Order of one epoch. */
typedef struct sh_order {
  int64_t n, block;
  uint32_t seed, epoch;
  int64_t nblocks, npools;
  int64_t *block_at;   /* [nblocks] */
  int64_t *pool_start; /* [npools+1] */
} sh_order;
void sh_order_create(sh_order *o, int64_t n, int64_t block);
void sh_order_epoch(sh_order *o, uint32_t seed, uint32_t epoch);
int64_t sh_order_at(const sh_order *o, int64_t position); /* sample index; a permutation of 0 .. n-1 */
void sh_order_destroy(sh_order *o);

#endif
