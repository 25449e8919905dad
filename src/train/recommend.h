/* train/recommend.h: the top K candidates of every user, from the whole history, with original keys. */
#ifndef SH_TRAIN_RECOMMEND_H
#define SH_TRAIN_RECOMMEND_H

#include "train/trainer.h"

/* TSV lines `user rank item score` in user order, written by rank 0 to `path` (as path.partial, then renamed; NULL:
 * standard output). Items of eval.filter are left out. Equal scores: smaller item id first. Collective over the world.
 */
sh_status sh_recommend_all(sh_trainer *t, int64_t top, const char *path);

#endif
