/* train/metrics.h: ranks and what they sum to.
 *
 * rank = 1 + number of candidates scored strictly better + number scored equal with a smaller item id; candidates that
 * are filtered do not count; a target that is filtered, no candidate, or ranked beyond eval.top has rank eval.top + 1.
 */
#ifndef SH_TRAIN_METRICS_H
#define SH_TRAIN_METRICS_H

#include <stdint.h>

#include "core/config.h"

enum { SH_CUTS = 6 };
extern const int sh_cut[SH_CUTS]; /* 1 10 50 100 200 500 */

/* Sums over queries; divide by n. All doubles, so that one reduction adds them over ranks. */
typedef struct sh_metrics {
  double n, hr[SH_CUTS], ndcg[SH_CUTS], mrr;
} sh_metrics;

/* Candidates better than the target among scores[n], n < 2^31, of candidates id[n] (ascending): excluded ones hold
 * -infinity. The target itself may be among them and is not counted. */
int64_t sh_count_better(int64_t n, const float *score, const int64_t *id, float target_score, int64_t target_id);

/* The rank after the cut; better < 0 says the target is not rankable. */
int64_t sh_rank(int64_t better, int64_t top);

void sh_metrics_add(sh_metrics *m, int64_t rank, int64_t top);

/* How many of sh_cut lie within eval.top: beyond it HR@k and NDCG@k would be those of the top. */
int sh_cuts_within(int64_t top);

/* The mean by name ("hr@10" "ndcg@10" "mrr"); -1 when the name is unknown or n is 0. */
double sh_metrics_get(const sh_metrics *m, const char *name);

#endif
