/* train/eval.h: full ranking of each query's target over all candidates. */
#ifndef SH_TRAIN_EVAL_H
#define SH_TRAIN_EVAL_H

#include "train/metrics.h"
#include "train/trainer.h"

/* Sums over all users with a query of this kind, the same on every rank. Collective over the world. `stop` (or NULL) is
 * asked before each round: where it says yes on any rank, all return SH_STOPPED. */
sh_status sh_evaluate_split(sh_trainer *t, sh_query_kind kind, bool (*stop)(void), sh_metrics *out);

#endif
