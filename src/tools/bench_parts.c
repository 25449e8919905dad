/* A training step taken apart: every call of the model forward and backward, the exchange of rows, the loss, the
 * optimisers, one after another with a barrier between them. The step itself (train/step.c) overlaps some of it. */
#include <stdlib.h>
#include <string.h>

#include "core/timer.h"
#include "data/time_runs.h"
#include "dist/loss_full.h"
#include "nn/loss.h"
#include "optim/dense.h"
#include "tools/bench_internal.h"
#include "train/references.h"

typedef struct part {
  char name[64];
  sh_phase phase;
  double *sample; /* [repeats] */
  double flops, bytes;
} part;

typedef struct parts {
  sh_bench_state *b;
  sh_trainer *t;
  sh_stage stage;
  part *part;
  int n, at; /* parts known; place in this repetition */
  int64_t repeats, repeat, batch;
  double began;
} parts;

static void begin(parts *p) {
  sh_barrier(&p->t->grid->world);
  p->began = sh_now();
}

/* The part that began ends. The first repetition makes the list, the others follow it. */
static void end(parts *p, sh_phase phase, const char *name, double flops, double bytes) {
  double seconds = sh_now() - p->began;
  part *x = &p->part[p->at++];
  if (p->at > p->n) {
    p->n = p->at;
    *x = (part){.phase = phase, .sample = sh_calloc((size_t)p->repeats, sizeof(double))};
    snprintf(x->name, sizeof x->name, "%s", name);
  }
  x->flops = flops, x->bytes = bytes;
  if (p->repeat >= 0) x->sample[p->repeat] = seconds;
}

sh_status sh_bench_stage(sh_trainer *t, sh_stage *s, int64_t step) {
  *s = (sh_stage){0};
  sh_arena_init(&s->memory, "bench batch");
  sh_fetch_init(&s->fetch, &t->item);
  sh_status status = sh_loader_read(&t->loader, 0, step % sh_loader_steps(&t->loader, 0), step, &s->memory, &s->batch);
  SH_TRY(sh_agree(&t->grid->world, status));
  if (t->model.needs_time_runs && t->data.has_time)
    for (int m = 0; m < s->batch.nmicro; m++) sh_time_runs_build(&s->batch.micro[m], &s->memory);
  return SH_OK;
}
void sh_bench_stage_free(sh_stage *s) {
  sh_fetch_free(&s->fetch);
  sh_arena_free(&s->memory);
}

static double loss_flops(sh_trainer *t, const sh_stage *s, int64_t T) {
  double D = t->model.width, n = (double)T;
  if (!strcmp(t->conf.loss.name, "full")) return 8 * n * (double)t->data.ncandidates * D;
  double candidates = 1 + (double)(s->nshared ? s->nshared : t->conf.loss.negatives);
  return 3 * 2 * n * candidates * D;
}

double sh_bench_step_flops(sh_trainer *t, const sh_stage *s) {
  double sum = 0;
  for (int m = 0; m < s->batch.nmicro; m++) {
    double linear, attention;
    sh_model_flops(&t->model, &s->batch.micro[m], &linear, &attention);
    sum += 3 * linear + 3.5 * attention + loss_flops(t, s, s->batch.micro[m].T);
  }
  return sum;
}

static void load(parts *p) {
  sh_trainer *t = p->t;
  sh_stage *s = &p->stage;
  begin(p);
  sh_references_build(t, s);
  end(p, SH_PHASE_LOAD, "draw negatives, list rows", 0, 0);
  begin(p);
  sh_fetch_send(&t->item, &s->fetch);
  end(p, SH_PHASE_EXCHANGE, "fetch begin: distinct ids leave", 0, 0);
  begin(p);
  sh_table_fetch_end(&t->item, &s->fetch, &t->step);
  double bytes = sizeof(float) * (double)s->fetch.nslots * s->fetch.ld;
  end(p, SH_PHASE_EXCHANGE, "fetch end: rows arrive", 0, 3 * bytes);
}

/* Arrays a call reads and writes, each once. */
static double call_bytes(const sh_trainer *t, const sh_call *k, const sh_batch *b, bool back) {
  double floats = (double)k->layer.ops->tape(&k->layer, b->T, b->B), slots = 0, params = 0;
  for (int s = 0; s < k->nin; s++) slots += t->model.slot[k->in[s]].width;
  for (int s = 0; s < k->nout; s++) slots += t->model.slot[k->out[s]].width;
  if (k->nin == 0) slots += t->model.width; /* rows */
  for (int r = k->param_first; r < k->param_last; r++) params += (double)t->model.params.row[r].size;
  return sizeof(float) * (floats + (back ? 2 : 1) * ((double)b->T * slots + params));
}

static void call_flops(const sh_call *k, const sh_batch *b, double *forward, double *backward) {
  double linear, attention;
  k->layer.ops->flops(&k->layer, b, &linear, &attention);
  *forward = linear + attention;
  *backward = 2 * linear + 2.5 * attention;
}

/* As sh_model_forward and sh_model_backward walk, with a clock at every call. */
static sh_args arguments(const sh_model *m, const sh_pass *pass, int i) {
  const sh_call *k = &m->call[i];
  sh_args a = {.T = pass->T, .R = pass->T, .tape = pass->tape[i]};
  for (int s = 0; s < k->nin; s++) a.in[s] = pass->value[k->in[s]];
  for (int s = 0; s < k->nout; s++) a.out[s] = pass->value[k->out[s]];
  return a;
}

static void forward(parts *p, const sh_ctx *c, sh_pass *pass) {
  const sh_model *m = &p->t->model;
  sh_arena *step = &p->t->step;
  *pass = (sh_pass){.T = c->batch->T,
                    .value = SH_ARENA_ZNEW(step, float *, m->nslots),
                    .grad = SH_ARENA_ZNEW(step, float *, m->nslots),
                    .tape = SH_ARENA_ZNEW(step, float *, m->ncalls)};
  for (int i = 0; i < m->ncalls; i++) {
    const sh_call *k = &m->call[i];
    char name[160];
    double flops, unused;
    snprintf(name, sizeof name, "%s %s", k->layer.name, k->layer.ops->name);
    call_flops(k, c->batch, &flops, &unused);
    begin(p);
    for (int s = 0; s < k->nout; s++)
      pass->value[k->out[s]] = SH_ARENA_NEW(step, float, pass->T * m->slot[k->out[s]].width);
    pass->tape[i] = SH_ARENA_NEW(step, float, k->layer.ops->tape(&k->layer, pass->T, c->batch->B));
    sh_args a = arguments(m, pass, i);
    k->layer.ops->forward(&k->layer, c, &a);
    end(p, SH_PHASE_FORWARD, name, flops, call_bytes(p->t, k, c->batch, false));
  }
}

static void backward(parts *p, const sh_ctx *c, sh_pass *pass, const float *dhidden) {
  const sh_model *m = &p->t->model;
  for (int i = m->ncalls - 1; i >= 0; i--) {
    const sh_call *k = &m->call[i];
    char name[160];
    double unused, flops;
    snprintf(name, sizeof name, "%s %s backward", k->layer.name, k->layer.ops->name);
    call_flops(k, c->batch, &unused, &flops);
    begin(p);
    sh_args a = arguments(m, pass, i);
    for (int s = 0; s < k->nout; s++) a.dout[s] = k->out[s] == m->output ? dhidden : pass->grad[k->out[s]];
    for (int s = 0; s < k->nin; s++) {
      int slot = k->in[s];
      a.add[s] = pass->grad[slot] != NULL;
      if (!a.add[s]) pass->grad[slot] = SH_ARENA_NEW(&p->t->step, float, pass->T * m->slot[slot].width);
      a.din[s] = pass->grad[slot];
    }
    k->layer.ops->backward(&k->layer, c, &a);
    end(p, SH_PHASE_BACKWARD, name, flops, call_bytes(p->t, k, c->batch, true));
  }
}

static void loss(parts *p, int m, const sh_ctx *c, const float *hidden, float *dhidden) {
  sh_trainer *t = p->t;
  sh_stage *s = &p->stage;
  const sh_batch *b = c->batch;
  double scale = 1.0 / (double)s->batch.global_tokens, flops = loss_flops(t, s, b->T);
  char name[64];
  snprintf(name, sizeof name, "%s loss, forward and backward", t->conf.loss.name);
  if (!strcmp(t->conf.loss.name, "full")) {
    sh_full_args full = {.conf = &t->conf.loss,
                         .table = &t->item,
                         .ncandidates = t->nown_candidates,
                         .candidate = t->own_candidate,
                         .T = b->T,
                         .D = t->model.width,
                         .hidden = hidden,
                         .target = b->target,
                         .dhidden = dhidden,
                         .scale = scale};
    begin(p);
    sh_loss_full(&full, c);
    end(p, SH_PHASE_LOSS, name, flops, 0);
    return;
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
  double rows = s->nshared ? (double)s->nshared : (double)b->T * (double)(1 + a.R);
  begin(p);
  if (s->nshared == 0) {
    sh_loss_sampled(&a, c);
  } else {
    float *target = SH_ARENA_NEW(&t->step, float, b->T);
    for (int64_t k = 0; k < b->T; k++) target[k] = sh_references_correction(t, s->nshared, b->target[k]);
    a.negative = s->fetch.slot + s->first_shared, a.R = s->nshared;
    a.correction = s->correction, a.positive_correction = target;
    sh_loss_shared(&a, c);
  }
  end(p, SH_PHASE_LOSS, name, flops, sizeof(float) * 3 * rows * c->rows->ld);
}

static void micro_batch(parts *p, int m) {
  sh_trainer *t = p->t;
  sh_stage *s = &p->stage;
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
  forward(p, &c, &pass);
  float *dhidden = SH_ARENA_NEW(&t->step, float, c.batch->T * t->model.width);
  loss(p, m, &c, pass.value[t->model.output], dhidden);
  backward(p, &c, &pass, dhidden);
  sh_arena_release(&t->step, mark);
}

static void update(parts *p, int64_t step) {
  sh_trainer *t = p->t;
  const sh_conf_optim *o = &t->conf.optim;
  double f = sizeof(float), dense = (double)sh_params_count(&t->model.params);
  begin(p);
  sh_grad_sync_start(&t->sync);
  sh_grad_sync_ready(&t->sync, 0, t->model.params.n);
  sh_grad_sync_end(&t->sync);
  end(p, SH_PHASE_SYNC, "sum of dense gradients over ranks", 0, 0);
  begin(p);
  sh_table_grad(&t->item, &p->stage.fetch);
  end(p, SH_PHASE_EXCHANGE, "gradients of rows to owners", 0,
      f * 2 * (double)p->stage.fetch.nslots * p->stage.fetch.ld);
  begin(p);
  double norm = sh_dense_grad_sq(&t->model.params);
  sh_sum_f64(&t->grid->world, &norm, 1);
  sh_dense_adamw(t->kernels, &t->model.params, o, o->lr, 1, step, t->exp_avg, t->exp_avg_sq);
  end(p, SH_PHASE_OPTIMISER, "norm and AdamW of dense parameters", 0, f * 8 * dense);
  sh_row_hyper rows = {.lr = t->conf.table.lr > 0 ? t->conf.table.lr : o->lr,
                       .beta1 = o->beta1,
                       .beta2 = o->beta2,
                       .eps = o->eps,
                       .weight_decay = o->weight_decay,
                       .clip_scale = 1,
                       .step = step};
  bool sweep = t->item.conf.optim == SH_ROW_ADAM_DENSE;
  double touched = (double)sh_table_touched(&t->item), visited = sweep ? (double)t->item.local_rows : touched;
  double width = t->model.width, arrays = 2;
  for (int i = 0; i < t->item.nstate; i++) arrays += 2.0 * t->item.state_width[i] / width;
  begin(p);
  sh_table_update(&t->item, &rows);
  end(p, SH_PHASE_OPTIMISER, "update of table rows", 0, f * width * (arrays * visited + touched));
}

/* The batch of the first sixteen whose size is nearest the epoch's mean: attention grows faster than tokens. */
static sh_status choose_batch(sh_trainer *t, int64_t *chosen) {
  int64_t steps = sh_loader_steps(&t->loader, 0), least = INT64_MAX;
  int64_t mean = t->samples.train_tokens / (steps > 0 ? steps : 1);
  for (int64_t i = 0; i < steps && i < 16; i++) {
    sh_stage s;
    sh_status status = sh_bench_stage(t, &s, i);
    int64_t away = status == SH_OK ? llabs(s.batch.global_tokens - mean) : 0;
    sh_bench_stage_free(&s);
    SH_TRY(status);
    if (away < least) least = away, *chosen = i;
  }
  return SH_OK;
}

static sh_status one_repetition(parts *p, int64_t step) {
  sh_trainer *t = p->t;
  p->at = 0;
  begin(p);
  sh_status status = sh_bench_stage(t, &p->stage, p->batch);
  end(p, SH_PHASE_LOAD, "read batch, time runs", 0, 0);
  if (status == SH_OK) {
    sh_arena_reset(&t->step);
    load(p);
    memset(t->model.params.grad, 0, sizeof(float) * (size_t)t->model.params.block);
    for (int m = 0; m < p->stage.batch.nmicro; m++) micro_batch(p, m);
    update(p, step + 1);
    p->b->parts_tokens = (double)p->stage.batch.global_tokens;
  }
  sh_bench_stage_free(&p->stage);
  return status;
}

static void report(parts *p) {
  sh_bench_state *b = p->b;
  double sum = 0, *median = sh_calloc((size_t)p->n, sizeof *median);
  for (int i = 0; i < p->n; i++) median[i] = sh_median(p->part[i].sample, p->repeats);
  sh_max_f64(&p->t->grid->world, median, p->n);
  for (int i = 0; i < p->n; i++) sum += median[i];
  char title[64];
  snprintf(title, sizeof title, "layers, %.0f tokens", b->parts_tokens);
  sh_bench_title(b, title);
  memset(b->phase, 0, sizeof b->phase);
  for (int i = 0; i < p->n; i++) {
    const part *x = &p->part[i];
    b->phase[x->phase] += sh_bench_add(b, "layers", x->name, median[i], sum, x->flops, x->bytes);
  }
  free(median);
}

sh_status sh_bench_parts(sh_bench_state *b) {
  sh_trainer *t = b->t;
  parts p = {.b = b, .t = t, .repeats = b->steps};
  int most = 16 + (int)t->conf.batch.accumulate * (2 * t->model.ncalls + 1);
  p.part = sh_calloc((size_t)most, sizeof *p.part);
  sh_status status = choose_batch(t, &p.batch);
  for (p.repeat = -2; p.repeat < p.repeats && status == SH_OK; p.repeat++) status = one_repetition(&p, p.repeat + 2);
  if (status == SH_OK) report(&p);
  for (int i = 0; i < p.n; i++) free(p.part[i].sample);
  free(p.part);
  return status;
}
