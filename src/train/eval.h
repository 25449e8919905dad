/* train/eval.h: full ranking of each query's target over all candidates. */
#ifndef SH_TRAIN_EVAL_H
#define SH_TRAIN_EVAL_H

#include "train/metrics.h"
#include "train/trainer.h"

/* Means over all users with a query of this kind. Collective over the world; every rank gets the sums over all. */
sh_status sh_evaluate_split(sh_trainer *t, sh_query_kind kind, sh_metrics *out);

#endif
