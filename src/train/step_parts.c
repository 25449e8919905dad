#include <string.h>

#include "data/time_runs.h"
#include "dist/loss_full.h"
#include "nn/loss.h"
#include "optim/dense.h"
#include "train/failure.h"
#include "train/references.h"
#include "train/step.h"

sh_status sh_step_read(sh_trainer *t, sh_stage *s, int64_t epoch, int64_t step_in_epoch, int64_t step) {
  sh_arena_reset(&s->memory);
  sh_status status = sh_loader_read(&t->loader, epoch, step_in_epoch, step, &s->memory, &s->batch);
  SH_TRY(sh_agree(&t->grid->world, sh_failure_here(status)));
  if (t->model.needs_time_runs && t->data.has_time)
    for (int m = 0; m < s->batch.nmicro; m++) sh_time_runs_build(&s->batch.micro[m], &s->memory);
  return SH_OK;
}

void sh_step_context(sh_trainer *t, const sh_stage *s, int m, sh_rows *rows, sh_ctx *c) {
  *rows = (sh_rows){.ld = s->fetch.ld,
                    .nslots = s->fetch.nslots,
                    .value = s->fetch.rows,
                    .grad = s->fetch.drows,
                    .slot = s->fetch.slot + s->first_input[m]};
  *c = (sh_ctx){.batch = &s->batch.micro[m],
                .params = &t->model.params,
                .rows = rows,
                .scratch = &t->scratch,
                .train = true,
                .k = t->kernels,
                .seed = (uint32_t)t->conf.train.seed,
                .when = (uint32_t)s->batch.step};
}

static bool full_softmax(const sh_trainer *t) { return !strcmp(t->conf.loss.name, "full"); }

double sh_step_loss(sh_trainer *t, const sh_stage *s, int m, const sh_ctx *c, const float *hidden, float *dhidden) {
  int64_t T = sh_model_own(&t->model, c->batch->T);
  const int64_t *targets = c->batch->target + sh_model_first(&t->model, c->batch->T);
  double scale = 1.0 / (double)s->batch.global_tokens;
  if (full_softmax(t)) {
    sh_full_args full = {.conf = &t->conf.loss,
                         .table = &t->item,
                         .ncandidates = t->nown_scored,
                         .candidate = t->own_scored,
                         .T = T,
                         .D = t->model.width,
                         .hidden = hidden,
                         .target = targets,
                         .dhidden = dhidden,
                         .scale = scale};
    return sh_loss_full(&full, c);
  }
  sh_loss_args a = {.conf = &t->conf.loss,
                    .T = T,
                    .D = t->model.width,
                    .hidden = hidden,
                    .dhidden = dhidden,
                    .rows = c->rows,
                    .reference = s->fetch.slot + s->first_loss[m],
                    .R = t->conf.loss.negatives,
                    .scale = scale};
  if (s->nshared == 0) return sh_loss_sampled(&a, c);
  float *target = SH_ARENA_NEW(&t->step, float, T);
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < T; k++) target[k] = sh_references_correction(t, s->nshared, targets[k]);
  a.negative = s->fetch.slot + s->first_shared, a.R = s->nshared;
  a.correction = s->correction, a.positive_correction = target;
  return sh_loss_shared(&a, c);
}

static double rate_factor(const sh_trainer *t) {
  return sh_schedule_factor(&t->conf.optim, t->state.step + 1, t->total_steps);
}

double sh_step_update_dense(sh_trainer *t, double clip_scale) {
  const sh_conf_optim *o = &t->conf.optim;
  double lr = rate_factor(t) * o->lr;
  sh_dense_adamw(t->kernels, &t->model.params, &t->held, o, lr, clip_scale, t->state.step + 1, t->exp_avg,
                 t->exp_avg_sq);
  sh_grad_sync_values_begin(&t->sync);
  return lr;
}

void sh_step_update_rows(sh_trainer *t, double clip_scale) {
  const sh_conf_optim *o = &t->conf.optim;
  sh_row_hyper rows = {.lr = rate_factor(t) * (t->conf.table.lr > 0 ? t->conf.table.lr : o->lr),
                       .beta1 = o->beta1,
                       .beta2 = o->beta2,
                       .eps = o->eps,
                       .weight_decay = o->weight_decay,
                       .clip_scale = clip_scale,
                       .step = t->state.step + 1};
  sh_table_update(&t->item, &rows);
}

double sh_step_loss_flops(const sh_trainer *t, const sh_stage *s, int m) {
  double D = t->model.width;
  if (full_softmax(t)) /* own rows meet everybody's tokens */
    return 8 * (double)s->batch.global_tokens * (double)t->nown_scored * D / (double)s->batch.nmicro;
  double candidates = 1 + (double)(s->nshared ? s->nshared : t->conf.loss.negatives);
  return 3 * 2 * (double)sh_model_own(&t->model, s->batch.micro[m].T) * candidates * D;
}

double sh_step_flops(const sh_trainer *t, const sh_stage *s) {
  double sum = 0;
  for (int m = 0; m < s->batch.nmicro; m++) {
    double linear, attention;
    sh_model_flops(&t->model, &s->batch.micro[m], &linear, &attention);
    sum += 3 * linear + 3.5 * attention + sh_step_loss_flops(t, s, m);
  }
  return sum;
}
