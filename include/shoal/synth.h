/* shoal/synth.h: data sets from a planted process whose best possible metrics are known. Single process, no MPI.
 *
 * Users come back every half day and follow two threads of interest in turn: what the next event is about follows from
 * what the user did about a day before the time of the request (docs/FORMATS.md, "Synthetic data", has the process in
 * full). A model needs the order of events, and the request time, to find it. No item comes twice in a sequence, and
 * the true conditional probability of every event is known, so the expected metrics of the best possible ranker are
 * exact.
 */
#ifndef SHOAL_SYNTH_H
#define SHOAL_SYNTH_H

#include <stdint.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sh_synth_options {
  int64_t users, items;
  double mean_length; /* events of a user: min_length + an exponential, cut at max_length, with this mean */
  int64_t min_length; /* >= 2 */
  int64_t max_length; /* 0: 200 (the usual window), or the number of items when that is smaller */
  int64_t topic_size; /* items of a topic; 0: 20, fewer when there are less than 120 items */
  double short_share; /* probability that the next event comes within minutes, in the same session */
  double noise;       /* share of evergreens among the events within a session */
  double topic_decay; /* the r-th item of a topic weighs r^-topic_decay */
  double evergreen_decay;
  uint32_t seed;   /* user u's events depend on the seed, the process and u: not on `users` or threads */
  int64_t threads; /* 0: OMP_NUM_THREADS or the cores; never changes a bit of the result */
} sh_synth_options;

/* "toy" (300 users, 120 items), "default" (10,000 users, 1,000 items, 0.4 M events), "large" (10^8 events).
 * SH_ERR_USAGE for another name. */
sh_status sh_synth_preset(sh_synth_options *o, const char *name);

/* Metrics of the ranker that orders unseen items by their true conditional probability given the history and the
 * request time, in expectation over the test events (each user's last): stored in the file under these names. */
enum {
  SH_SYNTH_HR1,
  SH_SYNTH_HR10,
  SH_SYNTH_HR50,
  SH_SYNTH_HR200,
  SH_SYNTH_NDCG10,
  SH_SYNTH_NDCG50,
  SH_SYNTH_NDCG200,
  SH_SYNTH_MRR,          /* ranks beyond 2500 count as 2501, as in evaluation */
  SH_SYNTH_HR10_NO_TIME, /* HR@10 of the best ranker that does not see the request time: bounds every such model */
  SH_SYNTH_METRICS
};
extern const char *const sh_synth_metric_name[SH_SYNTH_METRICS]; /* "hr@10" ... "hr@10-no-request-time" */

typedef struct sh_synth_summary {
  int64_t events, topics, evergreens;
  double optimum[SH_SYNTH_METRICS];
  double popularity_hr10,
      markov_hr10; /* counted on the training events; < 0: the set is too large to count in passing */
} sh_synth_summary;

/* Generate and write the set. `name` (may be NULL: "synth") and `provenance` are stored. Memory: 12 bytes an event, 24
 * a user, and what writing needs. */
sh_status sh_synth_make(const sh_synth_options *o, const char *path, const char *name, const char *provenance,
                        sh_synth_summary *summary);

#ifdef __cplusplus
}
#endif
#endif
