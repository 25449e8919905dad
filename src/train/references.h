/* train/references.h: which table rows a batch needs: its inputs, targets and negatives. */
#ifndef SH_TRAIN_REFERENCES_H
#define SH_TRAIN_REFERENCES_H

#include "train/trainer.h"

/* Open the stage's fetch and list what it brings; the caller sends it. Negatives are drawn from counters: the same on
 * every grid. Collective over the data axis for in-batch negatives. */
void sh_references_build(sh_trainer *t, sh_stage *stage);

/* log of how often `key` is expected among nshared shared negatives: what logQ correction takes off a logit. */
float sh_references_correction(const sh_trainer *t, int64_t nshared, int64_t key);

#endif
