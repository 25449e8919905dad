/* One training step. Read sh_train_step first: it is the whole story; its pieces are in step_parts.c. */
#include <math.h>
#include <string.h>

#include "core/phase.h"
#include "optim/dense.h"
#include "train/references.h"
#include "train/step.h"

/* Read this rank's part of the batch at (epoch, step_in_epoch) and send its ids on their way. */
static sh_status stage_begin(sh_trainer *t, sh_stage *s, int64_t epoch, int64_t step_in_epoch, int64_t step) {
  sh_phase(SH_PHASE_LOAD);
  SH_TRY(sh_step_read(t, s, epoch, step_in_epoch, step));
  sh_references_build(t, s);
  sh_phase(SH_PHASE_FETCH);
  sh_fetch_send(&t->item, &s->fetch);
  s->loaded = true;
  return SH_OK;
}

/* Where the batch after (epoch, step_in_epoch) stands. */
static void advance(sh_trainer *t, int64_t *epoch, int64_t *step_in_epoch) {
  if (++*step_in_epoch < sh_loader_steps(&t->loader, *epoch)) return;
  *step_in_epoch = 0;
  ++*epoch;
}

static sh_status stage_next(sh_trainer *t, const sh_stage *now, sh_stage *next) {
  int64_t epoch = now->batch.epoch, at = now->batch.step_in_epoch;
  advance(t, &epoch, &at);
  return stage_begin(t, next, epoch, at, now->batch.step + 1);
}

/* Ask for the whole step at once: rows, and the largest micro-batch's arrays. */
static void reserve_step(sh_trainer *t, const sh_stage *s) {
  enum { SMALL = 256 }; /* bytes of pointers and places, of a slot or call */
  int64_t rows = 2 * s->fetch.nslots * s->fetch.ld, pass = 0;
  for (int m = 0; m < s->batch.nmicro; m++) {
    const sh_batch *b = &s->batch.micro[m];
    int64_t floats = b->T + sh_model_pass_floats(&t->model, b->T, b->B, &t->scratch);
    if (floats > pass) pass = floats;
    sh_memory_note(t, b, s->fetch.nslots);
  }
  int64_t small = (t->model.nslots + t->model.ncalls + 16) * SMALL;
  sh_arena_reserve(&t->step, sizeof(float) * (size_t)(rows + pass) + (size_t)small);
}

/* Forward, loss, backward of every micro-batch; finished buckets begin their sum during the last. */
static double forward_backward(sh_trainer *t, sh_stage *s) {
  double loss = 0;
  memset(t->model.params.grad, 0, sizeof(float) * (size_t)t->model.params.block);
  sh_grad_sync_start(&t->sync);
  for (int m = 0; m < s->batch.nmicro; m++) {
    sh_rows rows;
    sh_ctx c;
    sh_step_context(t, s, m, &rows, &c);
    sh_arena_mark mark = sh_arena_save(&t->step);
    sh_pass pass;
    sh_phase(SH_PHASE_FORWARD);
    float *hidden = sh_model_forward(&t->model, &c, false, &t->step, &pass);
    float *dhidden = SH_ARENA_NEW(&t->step, float, sh_model_own(&t->model, c.batch->T) * t->model.width);
    bool last = m == s->batch.nmicro - 1;
    sh_phase(SH_PHASE_LOSS);
    sh_table_fetch_rest(&t->item, &s->fetch);
    loss += sh_step_loss(t, s, m, &c, hidden, dhidden);
    if (last) sh_table_grad_rest(&t->item, &s->fetch); /* only losses read these rows */
    sh_phase(SH_PHASE_BACKWARD);
    sh_model_backward(&t->model, &c, &pass, dhidden, last ? sh_grad_sync_ready : NULL, &t->sync);
    sh_arena_release(&t->step, mark);
  }
  sh_phase(SH_PHASE_SYNC);
  sh_table_grad_first(&t->item, &s->fetch);
  sh_grad_sync_end(&t->sync);
  return loss;
}

sh_status sh_train_step(sh_trainer *t, bool stop, sh_step_report *report) {
  sh_stage *now = &t->stage[t->now], *next = &t->stage[1 - t->now];
  sh_phase_step(t->state.step + 1);
  sh_arena_reset(&t->step);
  if (!now->loaded) SH_TRY(stage_begin(t, now, t->state.epoch, t->state.step_in_epoch, t->state.step));
  sh_phase(SH_PHASE_FETCH);
  reserve_step(t, now);
  sh_table_fetch_rows(&t->item, &now->fetch, &t->step); /* rows after the last update leave */
  sh_status status = stage_next(t, now, next);          /* ids of the next batch leave */
  sh_table_fetch_end(&t->item, &now->fetch, &t->step);
  now->loaded = false; /* also when the next batch failed */
  SH_TRY(status);
  double loss = forward_backward(t, now);
  double square = sh_table_grad(&t->item, &now->fetch) + sh_dense_grad_sq(&t->model.params, &t->sync.buckets.own);
  double sums[5] = {loss, square, (double)sh_table_touched(&t->item), stop ? 1 : 0, sh_step_flops(t, now)};
  sh_sum_f64(&t->grid->world, sums, 5);
  double norm = sqrt(sums[1]);
  *report = (sh_step_report){.loss = sums[0] / (double)now->batch.global_tokens,
                             .grad_norm = norm,
                             .tokens = now->batch.global_tokens,
                             .users = now->batch.global_users,
                             .rows_touched = (int64_t)sums[2],
                             .imbalance = now->batch.imbalance,
                             .stop_votes = (int64_t)sums[3],
                             .flops = sums[4]};
  if (!isfinite(report->loss) || !isfinite(norm))
    return sh_fail(SH_ERR_DIVERGED, "step %lld: loss %g, gradient norm %g", (long long)t->state.step + 1, report->loss,
                   norm);
  sh_phase(SH_PHASE_UPDATE);
  double clip_scale = sh_clip_scale(t->conf.optim.clip, norm);
  report->lr = sh_step_update_dense(t, clip_scale); /* updated parameters leave */
  sh_step_update_rows(t, clip_scale);
  sh_grad_sync_values_end(&t->sync);
  t->now = 1 - t->now;
  t->state.step++;
  t->state.tokens += report->tokens;
  advance(t, &t->state.epoch, &t->state.step_in_epoch);
  sh_phase_step_end();
  return SH_OK;
}

void sh_trainer_rewind(sh_trainer *t) {
  for (int i = 0; i < 2; i++) {
    if (t->stage[i].loaded) sh_table_fetch_end(&t->item, &t->stage[i].fetch, &t->step);
    sh_table_fetch_rest(&t->item, &t->stage[i].fetch);
    t->stage[i].loaded = false;
  }
}
