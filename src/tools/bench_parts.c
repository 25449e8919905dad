/* A training step taken apart: every call of the model forward and backward, the exchange of rows, the loss, the
 * optimisers, one after another with a barrier between them. The step itself (train/step.c) overlaps some of it. */
#include <stdlib.h>
#include <string.h>

#include "core/timer.h"
#include "optim/dense.h"
#include "tools/bench_internal.h"
#include "train/references.h"
#include "train/step.h"

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
  bool backward; /* under way */
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

void sh_bench_stage_init(sh_trainer *t, sh_stage *s) {
  *s = (sh_stage){0};
  sh_arena_init(&s->memory, "bench batch");
  sh_fetch_init(&s->fetch, &t->item);
}
void sh_bench_stage_free(sh_stage *s) {
  sh_fetch_free(&s->fetch);
  sh_arena_free(&s->memory);
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
  sh_table_fetch_rest(&t->item, &s->fetch);
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

/* A layer with a clock around it: while the parts are measured it stands in a call of the model, so that what is timed
 * is the walk that training takes (dist/build.c), whatever it calls and how often. */
typedef struct timed_layer {
  parts *p;
  const sh_call *call; /* holds the timed layer */
  sh_layer_ops ops;    /* of the timed layer: all but the clock is `inner`'s */
  sh_layer inner;
} timed_layer;

static void timed(const sh_layer *l, const sh_ctx *c, const sh_args *a, bool back) {
  const timed_layer *x = l->conf;
  const sh_layer *inner = &x->inner;
  parts *p = x->p;
  char name[160];
  double linear, attention;
  inner->ops->flops(inner, c->batch, &linear, &attention);
  bool again = !back && p->backward; /* what backward computes once more is no useful work */
  snprintf(name, sizeof name, "%s %s%s", inner->name, inner->ops->name, back ? " backward" : again ? " again" : "");
  begin(p);
  (back ? inner->ops->backward : inner->ops->forward)(inner, c, a);
  end(p, back || again ? SH_PHASE_BACKWARD : SH_PHASE_FORWARD, name,
      again  ? 0
      : back ? 2 * linear + 2.5 * attention
             : linear + attention,
      call_bytes(p->t, x->call, c->batch, back));
}
static void timed_forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) { timed(l, c, a, false); }
static void timed_backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) { timed(l, c, a, true); }
static int64_t timed_tape(const sh_layer *l, int64_t T, int64_t B) {
  const sh_layer *inner = &((const timed_layer *)l->conf)->inner;
  return inner->ops->tape(inner, T, B);
}
static void timed_flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  const sh_layer *inner = &((const timed_layer *)l->conf)->inner;
  inner->ops->flops(inner, b, linear, attention);
}

static timed_layer *put_clocks(parts *p) {
  sh_model *m = &p->t->model;
  timed_layer *all = sh_calloc((size_t)m->ncalls, sizeof *all);
  for (int i = 0; i < m->ncalls; i++) {
    sh_layer *l = &m->call[i].layer;
    timed_layer *x = &all[i];
    *x = (timed_layer){.p = p, .call = &m->call[i], .ops = *l->ops, .inner = *l};
    x->ops.forward = timed_forward, x->ops.backward = timed_backward;
    x->ops.tape = timed_tape, x->ops.flops = timed_flops;
    l->ops = &x->ops, l->conf = x;
  }
  return all;
}

static void take_clocks(sh_model *m, timed_layer *all) {
  for (int i = 0; i < m->ncalls; i++) m->call[i].layer = all[i].inner;
  free(all);
}

static void micro_batch(parts *p, int m) {
  sh_trainer *t = p->t;
  sh_stage *s = &p->stage;
  sh_rows rows;
  sh_ctx c;
  char name[64];
  sh_step_context(t, s, m, &rows, &c);
  sh_arena_mark mark = sh_arena_save(&t->step);
  sh_pass pass;
  p->backward = false;
  const float *hidden = sh_model_forward(&t->model, &c, false, &t->step, &pass);
  int64_t own = sh_model_own(&t->model, c.batch->T);
  float *dhidden = SH_ARENA_NEW(&t->step, float, own * t->model.width);
  double touched = s->nshared ? (double)s->nshared : (double)own * (double)(1 + t->conf.loss.negatives);
  if (!strcmp(t->conf.loss.name, "full")) touched = 0; /* tiles of the table, read as often as there are tiles */
  snprintf(name, sizeof name, "%s loss, forward and backward", t->conf.loss.name);
  begin(p);
  sh_step_loss(t, s, m, &c, hidden, dhidden);
  end(p, SH_PHASE_LOSS, name, sh_step_loss_flops(t, s, m), sizeof(float) * 3 * touched * rows.ld);
  p->backward = true;
  sh_model_backward(&t->model, &c, &pass, dhidden, NULL, NULL);
  sh_arena_release(&t->step, mark);
}

static void update(parts *p) {
  sh_trainer *t = p->t;
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
  double norm = sh_dense_grad_sq(&t->model.params, &t->sync.buckets.own);
  sh_sum_f64(&t->grid->world, &norm, 1);
  sh_step_update_dense(t, 1);
  sh_grad_sync_values_end(&t->sync);
  end(p, SH_PHASE_OPTIMISER, "norm and AdamW of dense parameters", 0, f * 8 * dense);
  bool sweep = t->item.conf.optim == SH_ROW_ADAM_DENSE;
  double touched = (double)sh_table_touched(&t->item), visited = sweep ? (double)t->item.local_rows : touched;
  double width = t->model.width, arrays = 2;
  for (int i = 0; i < t->item.nstate; i++) arrays += 2.0 * t->item.state_width[i] / width;
  begin(p);
  sh_step_update_rows(t, 1);
  end(p, SH_PHASE_OPTIMISER, "update of table rows", 0, f * width * (arrays * visited + touched));
}

/* The batch of the first sixteen whose size is nearest the epoch's mean: attention grows faster than tokens. */
static sh_status choose_batch(sh_trainer *t, sh_stage *s, int64_t *chosen) {
  int64_t steps = sh_loader_steps(&t->loader, 0), least = INT64_MAX;
  int64_t mean = t->samples.train_tokens / (steps > 0 ? steps : 1);
  for (int64_t i = 0; i < steps && i < 16; i++) {
    SH_TRY(sh_step_read(t, s, 0, i, i));
    int64_t away = llabs(s->batch.global_tokens - mean);
    if (away < least) least = away, *chosen = i;
  }
  return SH_OK;
}

static sh_status one_repetition(parts *p) {
  sh_trainer *t = p->t;
  p->at = 0;
  begin(p);
  sh_status status = sh_step_read(t, &p->stage, 0, p->batch, p->batch);
  end(p, SH_PHASE_LOAD, "read batch, time runs", 0, 0);
  if (status == SH_OK) {
    sh_arena_reset(&t->step);
    load(p);
    memset(t->model.params.grad, 0, sizeof(float) * (size_t)t->model.params.block);
    for (int m = 0; m < p->stage.batch.nmicro; m++) micro_batch(p, m);
    update(p);
    p->b->parts_tokens = (double)p->stage.batch.global_tokens;
  }
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
  int most = 16 + (int)t->conf.batch.accumulate * (3 * t->model.ncalls + 1);
  p.part = sh_calloc((size_t)most, sizeof *p.part);
  sh_bench_stage_init(t, &p.stage);
  sh_status status = choose_batch(t, &p.stage, &p.batch);
  timed_layer *clocks = put_clocks(&p);
  for (p.repeat = -2; p.repeat < p.repeats && status == SH_OK; p.repeat++) status = one_repetition(&p);
  take_clocks(&t->model, clocks);
  if (status == SH_OK) report(&p);
  for (int i = 0; i < p.n; i++) free(p.part[i].sample);
  free(p.part);
  sh_bench_stage_free(&p.stage);
  return status;
}
