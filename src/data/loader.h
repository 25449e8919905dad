/* data/loader.h: global batches, dealt to ranks and micro-batches by cost.
 *
 * The global batch of (epoch, step) is the next batch.users samples of the epoch's order, or as many as fit
 * batch.tokens: a function of the seed alone. Only the dealing knows how many bins (data ranks x micro-batches) there
 * are: longest processing time first over cost(L) = linear L + quadratic L^2.
 */
#ifndef SH_DATA_LOADER_H
#define SH_DATA_LOADER_H

#include "data/batch.h"
#include "data/samples.h"

typedef struct sh_loader {
  const sh_samples *samples;
  sh_order order;
  uint32_t seed;
  int64_t users, tokens; /* batch.users, batch.tokens */
  int rank, ranks, micro;
  double linear, quadratic; /* cost of a token, of a (token, token) pair */
  bool request_time;
  int64_t epoch;                  /* of `order` and `start`; -1 before the first */
  int64_t steps;                  /* of this epoch */
  int64_t left_epoch, left_steps; /* of the one before it */
  int64_t *start;                 /* batch.tokens: [steps+1] first position of each batch; else NULL */
  sh_sample *sample;              /* [largest batch] */
  int32_t *bin;
  int64_t *by_cost;
  int64_t capacity;
} sh_loader;

/* One rank's part of a global batch. */
typedef struct sh_global_batch {
  int nmicro;
  sh_batch *micro;       /* [nmicro]; a micro-batch may have no sequence */
  int64_t global_tokens; /* of all ranks */
  int64_t global_users;
  int64_t tokens;   /* of this rank */
  double imbalance; /* largest cost of a bin over the mean */
  int64_t epoch, step_in_epoch, step;
} sh_global_batch;

void sh_loader_create(sh_loader *l, const sh_samples *s, const sh_conf_batch *conf, uint32_t seed,
                      int64_t shuffle_block, bool request_time, int rank, int ranks);
void sh_loader_destroy(sh_loader *l);
void sh_loader_cost(sh_loader *l, double linear, double quadratic);

int64_t sh_loader_steps(sh_loader *l, int64_t epoch); /* global batches of an epoch */

/* Read this rank's part; arrays in `batch`. Not collective: a read error is this rank's. */
sh_status sh_loader_read(sh_loader *l, int64_t epoch, int64_t step_in_epoch, int64_t step, sh_arena *batch,
                         sh_global_batch *out);

/* A batch of queries as an evaluator reads them: history as input, next_time of the last token = time of the target
 * when request_time is on. target[] of each sequence's last token is the item to be ranked, or -1 without targets (then
 * the request is made at the time of the last event). */
sh_status sh_loader_queries(const sh_samples *s, bool request_time, bool with_target, const sh_sample *query, int64_t n,
                            sh_arena *arena, sh_batch *out);

#endif
