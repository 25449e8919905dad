/* train/loop.h: from a built trainer to the end of the run: steps, progress, evaluation, checkpoints, stopping. */
#ifndef SH_TRAIN_LOOP_H
#define SH_TRAIN_LOOP_H

#include "shoal/train.h"
#include "train/trainer.h"

/* Collective over the world. After sh_train_catch_stop (shoal/train.h) SIGTERM, SIGINT and SIGUSR1 ask for a stop: the
 * step in hand is finished, an evaluation left for the resumed run, a checkpoint written, and SH_STOPPED returned. */
sh_status sh_train_loop(sh_trainer *t, const sh_train_options *o);

#endif
