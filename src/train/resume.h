/* train/resume.h: continuing a run from a checkpoint. */
#ifndef SH_TRAIN_RESUME_H
#define SH_TRAIN_RESUME_H

#include "train/trainer.h"

/* Restore everything from `from`, or (NULL) from train.out/ckpt/latest.h5 when the folder holds checkpoints; a folder
 * without any is a fresh start. What is trained must be the same: another model or optimiser state, and, inside an
 * epoch, other batches, are refused. Collective over the world. */
sh_status sh_resume(sh_trainer *t, const char *from);

/* SH_ERR_DATA naming the first key of section model that differs. */
sh_status sh_resume_same_model(const sh_config *now, const sh_config *stored, const char *path);

#endif
