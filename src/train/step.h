/* train/step.h: the pieces of one training step, in the order in which sh_train_step (train/trainer.h) calls them.
 * For those who time them one by one (tools/bench_parts.c); what stands between them has headers of its own:
 * train/references.h, dist/table.h, dist/build.h, dist/grad_sync.h. */
#ifndef SH_TRAIN_STEP_H
#define SH_TRAIN_STEP_H

#include "train/trainer.h"

/* This rank's part of the batch at (epoch, step_in_epoch), with time runs when the model asks for them, into the
 * stage's memory, emptied before. Collective over the world: a failure is agreed upon. */
sh_status sh_step_read(sh_trainer *t, sh_stage *s, int64_t epoch, int64_t step_in_epoch, int64_t step);

/* Micro-batch m of a stage whose rows have arrived; `c` points to `rows`. */
void sh_step_context(sh_trainer *t, const sh_stage *s, int m, sh_rows *rows, sh_ctx *c);

/* Loss of micro-batch m over hidden [own T x D]: the sum over own tokens; dhidden [own T x D] is that of the mean over
 * the global batch. Collective over the table axis for the full softmax. */
double sh_step_loss(sh_trainer *t, const sh_stage *s, int m, const sh_ctx *c, const float *hidden, float *dhidden);

/* Update t->state.step + 1 with summed gradients. The dense one returns its learning rate. */
double sh_step_update_dense(sh_trainer *t, double clip_scale);
void sh_step_update_rows(sh_trainer *t, double clip_scale);

/* FLOP that this rank's part counts: linear 3 x forward, attention 3.5 x over exact causal pairs, sampled losses
 * 3 x, full softmax 8 x tokens x width x own scored rows (docs/BENCHMARKS.md). Local. */
double sh_step_flops(const sh_trainer *t, const sh_stage *s);
double sh_step_loss_flops(const sh_trainer *t, const sh_stage *s, int m);

#endif
