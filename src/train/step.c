/* One training step. Read sh_train_step first: it is the whole story. */
#include <math.h>
#include <string.h>

#include "data/time_runs.h"
#include "dist/loss_full.h"
#include "nn/loss.h"
#include "optim/dense.h"
#include "train/references.h"

/* Read this rank's part of the batch at (epoch, step_in_epoch) and send its ids on their way. */
static sh_status stage_begin(sh_trainer *t, sh_stage *s, int64_t epoch, int64_t step_in_epoch, int64_t step) {
  sh_arena_reset(&s->memory);
  sh_status status = sh_loader_read(&t->loader, epoch, step_in_epoch, step, &s->memory, &s->batch);
  SH_TRY(sh_agree(&t->grid->world, status));
  if (t->model.needs_time_runs && t->data.has_time)
    for (int m = 0; m < s->batch.nmicro; m++) sh_time_runs_build(&s->batch.micro[m], &s->memory);
  sh_references_build(t, s);
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

static double micro_loss(sh_trainer *t, sh_stage *s, int m, const sh_ctx *c, const float *hidden, float *dhidden) {
  const sh_batch *b = c->batch;
  double scale = 1.0 / (double)s->batch.global_tokens;
  if (!strcmp(t->conf.loss.name, "full")) {
    sh_full_args full = {.conf = &t->conf.loss,
                         .table = &t->item,
                         .ncandidates = t->nown_scored,
                         .candidate = t->own_scored,
                         .T = b->T,
                         .D = t->model.width,
                         .hidden = hidden,
                         .target = b->target,
                         .dhidden = dhidden,
                         .scale = scale};
    return sh_loss_full(&full, c);
  }
  sh_loss_args a = {.conf = &t->conf.loss,
                    .T = b->T,
                    .D = t->model.width,
                    .hidden = hidden,
                    .dhidden = dhidden,
                    .rows = c->rows,
                    .reference = s->fetch.slot + s->first_loss[m],
                    .R = t->conf.loss.negatives,
                    .scale = scale};
  if (s->nshared == 0) return sh_loss_sampled(&a, c);
  float *target = SH_ARENA_NEW(&t->step, float, b->T);
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < b->T; k++) target[k] = sh_references_correction(t, s->nshared, b->target[k]);
  a.negative = s->fetch.slot + s->first_shared, a.R = s->nshared;
  a.correction = s->correction, a.positive_correction = target;
  return sh_loss_shared(&a, c);
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
    sh_rows rows = {.ld = s->fetch.ld,
                    .nslots = s->fetch.nslots,
                    .value = s->fetch.rows,
                    .grad = s->fetch.drows,
                    .slot = s->fetch.slot + s->first_input[m]};
    sh_ctx c = {.batch = &s->batch.micro[m],
                .params = &t->model.params,
                .rows = &rows,
                .scratch = &t->scratch,
                .train = true,
                .k = t->kernels,
                .seed = (uint32_t)t->conf.train.seed,
                .when = (uint32_t)s->batch.step};
    sh_arena_mark mark = sh_arena_save(&t->step);
    sh_pass pass;
    float *hidden = sh_model_forward(&t->model, &c, false, &t->step, &pass);
    float *dhidden = SH_ARENA_NEW(&t->step, float, c.batch->T * t->model.width);
    loss += micro_loss(t, s, m, &c, hidden, dhidden);
    bool last = m == s->batch.nmicro - 1;
    sh_model_backward(&t->model, &c, &pass, dhidden, last ? sh_grad_sync_ready : NULL, &t->sync);
    sh_arena_release(&t->step, mark);
  }
  sh_grad_sync_end(&t->sync);
  return loss;
}

static void update(sh_trainer *t, double clip_scale, double *lr) {
  const sh_conf_optim *o = &t->conf.optim;
  int64_t step = t->state.step + 1;
  double factor = sh_schedule_factor(o, step, t->total_steps);
  double table_lr = factor * (t->conf.table.lr > 0 ? t->conf.table.lr : o->lr);
  *lr = factor * o->lr;
  sh_dense_adamw(t->kernels, &t->model.params, o, *lr, clip_scale, step, t->exp_avg, t->exp_avg_sq);
  sh_row_hyper rows = {.lr = table_lr,
                       .beta1 = o->beta1,
                       .beta2 = o->beta2,
                       .eps = o->eps,
                       .weight_decay = o->weight_decay,
                       .clip_scale = clip_scale,
                       .step = step};
  sh_table_update(&t->item, &rows);
}

sh_status sh_train_step(sh_trainer *t, bool stop, sh_step_report *report) {
  sh_stage *now = &t->stage[t->now], *next = &t->stage[1 - t->now];
  sh_arena_reset(&t->step);
  if (!now->loaded) SH_TRY(stage_begin(t, now, t->state.epoch, t->state.step_in_epoch, t->state.step));
  reserve_step(t, now);
  sh_table_fetch_end(&t->item, &now->fetch, &t->step); /* rows after the last update arrive */
  now->loaded = false;                                 /* also when what follows fails */
  SH_TRY(stage_next(t, now, next));                    /* ids of the next batch leave */
  double loss = forward_backward(t, now);
  double table_sq = sh_table_grad(&t->item, &now->fetch);
  double sums[4] = {loss, table_sq, (double)sh_table_touched(&t->item), stop ? 1 : 0};
  sh_sum_f64(&t->grid->world, sums, 4);
  double norm = sqrt(sh_dense_grad_sq(&t->model.params) + sums[1]);
  *report = (sh_step_report){.loss = sums[0] / (double)now->batch.global_tokens,
                             .grad_norm = norm,
                             .tokens = now->batch.global_tokens,
                             .users = now->batch.global_users,
                             .rows_touched = (int64_t)sums[2],
                             .imbalance = now->batch.imbalance,
                             .stop_votes = (int64_t)sums[3]};
  if (!isfinite(report->loss) || !isfinite(norm))
    return sh_fail(SH_ERR_DIVERGED, "step %lld: loss %g, gradient norm %g", (long long)t->state.step, report->loss,
                   norm);
  update(t, sh_clip_scale(t->conf.optim.clip, norm), &report->lr);
  t->now = 1 - t->now;
  t->state.step++;
  t->state.tokens += report->tokens;
  advance(t, &t->state.epoch, &t->state.step_in_epoch);
  return SH_OK;
}

void sh_trainer_rewind(sh_trainer *t) {
  for (int i = 0; i < 2; i++) {
    if (t->stage[i].loaded) sh_table_fetch_end(&t->item, &t->stage[i].fetch, &t->step);
    t->stage[i].loaded = false;
  }
}
