#include "dist/build.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/trace.h"
#include "dist/models.h"
#include "dist/tensor.h"

enum { GROW = 64 }; /* calls and slots that a model is given room for at a time */

int sh_build_slot(sh_model *m, int width, const char *fmt, ...) {
  if (m->nslots % GROW == 0) m->slot = sh_realloc(m->slot, sizeof *m->slot * (size_t)(m->nslots + GROW));
  sh_slot *s = &m->slot[m->nslots];
  *s = (sh_slot){.width = width};
  va_list args;
  va_start(args, fmt);
  vsnprintf(s->name, sizeof s->name, fmt, args);
  va_end(args);
  return m->nslots++;
}

void sh_build_call(sh_model *m, const sh_layer_ops *ops, const char *name, const void *conf, int nin, const int *in,
                   int nout, const int *out) {
  assert(nin <= SH_CALL_SLOTS && nout <= SH_CALL_SLOTS);
  if (m->ncalls % GROW == 0) m->call = sh_realloc(m->call, sizeof *m->call * (size_t)(m->ncalls + GROW));
  sh_call *k = &m->call[m->ncalls];
  *k = (sh_call){.nin = nin, .nout = nout};
  k->layer = (sh_layer){.ops = ops, .site = (uint32_t)m->nsites, .part = m->params.part, .parts = m->params.parts};
  snprintf(k->layer.name, sizeof k->layer.name, "%s", name);
  void *copy = sh_malloc(ops->conf_bytes);
  k->layer.conf = memcpy(copy, conf, ops->conf_bytes);
  for (int s = 0; s < nin; s++) k->in[s] = in[s];
  for (int s = 0; s < nout; s++) k->out[s] = out[s];
  k->param_first = m->params.n;
  ops->params(&k->layer, &m->params);
  k->param_last = m->params.n;
  m->needs_time_runs |= ops->needs_time_runs;
  m->nsites += !ops->communicates;
  m->ncalls++;
}

/* A communication call behind `slot`. */
static int append(sh_model *m, const sh_layer_ops *ops, const char *name, int slot, bool sliced) {
  int width = m->slot[slot].width, out = sh_build_slot(m, width, "%s.%s", name, ops->name);
  m->slot[out].sliced = sliced;
  sh_tensor_conf conf = {.axis = m->tensor, .width = width};
  sh_build_call(m, ops, name, &conf, 1, &slot, 1, &out);
  return out;
}

int sh_build_input(sh_model *m, const sh_layer_ops *ops, const char *name, const void *conf) {
  int x = sh_build_slot(m, m->width, "%s", name);
  m->slot[x].sliced = m->params.parts > 1;
  sh_build_call(m, ops, name, conf, 0, NULL, 1, &x);
  return m->params.parts == 1 || m->sequence ? x : append(m, &sh_tensor_spread_ops, name, x, false);
}

int sh_build_enter(sh_model *m, const char *name, int slot) {
  if (m->params.parts == 1) return slot;
  return append(m, m->sequence ? &sh_tensor_gather_ops : &sh_tensor_copy_ops, name, slot, false);
}

int sh_build_leave(sh_model *m, const char *name, int slot) {
  if (m->params.parts == 1) return slot;
  return append(m, m->sequence ? &sh_tensor_scatter_ops : &sh_tensor_sum_ops, name, slot, m->sequence);
}

int sh_build_span(sh_model *m, const char *name, int slot, bool doubles) {
  if (m->params.parts == 1) return slot;
  int width = m->slot[slot].width, out = sh_build_slot(m, width, "%s.span", name);
  sh_tensor_conf conf = {.axis = m->tensor, .width = doubles ? width / 2 : width, .doubles = doubles};
  sh_build_call(m, &sh_tensor_span_ops, name, &conf, 1, &slot, 1, &out);
  return out;
}

void sh_build_output(sh_model *m, int slot) {
  m->output = m->params.parts == 1 || m->sequence ? slot : append(m, &sh_tensor_take_ops, "output", slot, true);
}

static sh_recompute recompute_of(const sh_conf_model *conf) {
  if (!strcmp(conf->recompute, "layer")) return SH_RECOMPUTE_LAYER;
  return strcmp(conf->recompute, "attention") ? SH_RECOMPUTE_NONE : SH_RECOMPUTE_ATTENTION;
}

sh_status sh_model_create(sh_model *m, const sh_conf_model *conf, const sh_axis *tensor, bool sequence) {
  *m = (sh_model){.width = (int)conf->width, .recompute = recompute_of(conf), .tensor = tensor, .sequence = sequence};
  sh_params_create(&m->params, tensor ? tensor->index : 0, tensor ? tensor->size : 1);
  sh_model_build build = sh_model_find(conf->name);
  if (!build) return sh_fail(SH_ERR_USAGE, "model.name: no model is called %s", conf->name);
  SH_TRY(build(m, conf));
  return sh_params_finish(&m->params);
}

void sh_model_destroy(sh_model *m) {
  for (int i = 0; i < m->ncalls; i++) free((void *)(uintptr_t)m->call[i].layer.conf);
  sh_params_destroy(&m->params);
  free(m->call);
  free(m->slot);
  *m = (sh_model){0};
}

void sh_model_precision(sh_model *m, const char *precision) {
  for (int i = 0; i < m->ncalls; i++) m->call[i].layer.half = strcmp(precision, "fp32") != 0;
}

bool sh_has_attention(const sh_layer *l) {
  static const int32_t offsets[2] = {0, 1};
  sh_batch one = {.B = 1, .T = 1, .offsets = offsets};
  double linear, attention;
  l->ops->flops(l, &one, &linear, &attention);
  return attention > 0;
}

/* The first call from which, backwards, everything may be computed for last tokens only: the trailing calls that
 * support it, up to and including the last one that mixes tokens. */
static int last_only_from(const sh_model *m) {
  int from = m->ncalls;
  for (int i = m->ncalls - 1; i > 0 && m->call[i].layer.ops->supports_last_only; i--) {
    from = i;
    if (sh_has_attention(&m->call[i].layer)) break;
  }
  return from;
}

int64_t sh_model_first(const sh_model *m, int64_t n) { return sh_deal_first(n, m->params.part, m->params.parts); }
int64_t sh_model_own(const sh_model *m, int64_t n) {
  return sh_deal_first(n, m->params.part + 1, m->params.parts) - sh_model_first(m, n);
}

static int64_t slot_rows(const sh_model *m, int slot, int64_t n) {
  return m->slot[slot].sliced ? sh_model_own(m, n) : n;
}

static sh_args call_args(const sh_model *m, const sh_pass *p, int i) {
  const sh_call *k = &m->call[i];
  sh_args a = {.T = p->T, .R = p->T, .tape = p->tape[i]};
  for (int s = 0; s < k->nin; s++) a.in[s] = p->value[k->in[s]];
  for (int s = 0; s < k->nout; s++) a.out[s] = p->value[k->out[s]];
  return a;
}

/* Slots computed for last tokens only have R rows. */
static void open_pass(const sh_model *m, const sh_ctx *c, bool last_only, int from, sh_arena *step, sh_pass *p) {
  const sh_batch *b = c->batch;
  *p = (sh_pass){.T = b->T, .R = last_only ? b->B : b->T};
  p->value = SH_ARENA_ZNEW(step, float *, m->nslots);
  p->grad = SH_ARENA_ZNEW(step, float *, m->nslots);
  p->tape = SH_ARENA_ZNEW(step, float *, m->ncalls);
  int64_t *rows = SH_ARENA_NEW(step, int64_t, m->nslots);
  for (int s = 0; s < m->nslots; s++) rows[s] = slot_rows(m, s, p->T);
  for (int i = from; i < m->ncalls; i++)
    for (int s = 0; s < m->call[i].nout; s++) rows[m->call[i].out[s]] = slot_rows(m, m->call[i].out[s], p->R);
  sh_plan_make(m, &(sh_plan_shape){.T = b->T, .B = b->B, .train = c->train, .rows = rows}, step, &p->plan);
  p->block = SH_ARENA_NEW(step, float, p->plan.floats);
  if (!last_only) return;
  int32_t *last = SH_ARENA_NEW(step, int32_t, b->B);
  for (int64_t i = 0; i < b->B; i++) last[i] = b->offsets[i + 1] - 1;
  p->row_token = last;
}

float *sh_model_forward(const sh_model *m, const sh_ctx *c, bool last_only, sh_arena *step, sh_pass *pass) {
  int from = last_only ? last_only_from(m) : m->ncalls;
  open_pass(m, c, last_only, from, step, pass);
  bool *rows_only = SH_ARENA_ZNEW(step, bool, m->nslots); /* slot has R rows */
  for (int i = 0; i < m->ncalls; i++) {
    const sh_call *k = &m->call[i];
    bool narrow = i >= from;
    for (int s = 0; s < k->nout; s++) {
      rows_only[k->out[s]] = narrow;
      pass->value[k->out[s]] = pass->block + pass->plan.value[k->out[s]];
    }
    if (c->train) pass->tape[i] = pass->block + pass->plan.tape[i];
    sh_args a = call_args(m, pass, i);
    if (narrow) a.R = pass->R;
    /* Inputs that still have all T rows are read through row_token; those already narrowed are not. */
    if (narrow && !rows_only[k->in[0]]) a.row_token = pass->row_token;
    if (narrow && rows_only[k->in[0]]) a.T = pass->R;
    double began = c->train ? sh_trace_begin() : 0; /* evaluation runs in threads */
    k->layer.ops->forward(&k->layer, c, &a);
    if (c->train) sh_trace_end(began, k->layer.name, "forward");
  }
  float *out = pass->value[m->output];
  if (!last_only || rows_only[m->output]) return out;
  assert(m->params.parts == 1); /* split layers all compute for last tokens only */
  float *rows = SH_ARENA_NEW(step, float, pass->R * m->width);
  for (int64_t r = 0; r < pass->R; r++)
    memcpy(rows + r * m->width, out + (int64_t)pass->row_token[r] * m->width, sizeof(float) * (size_t)m->width);
  return rows;
}

/* Forward of a dropped group once more, into the places of its second life. */
static void rerun(const sh_model *m, const sh_ctx *c, sh_pass *pass, int first, int last) {
  const sh_plan *q = &pass->plan;
  for (int i = first; i <= last; i++) {
    const sh_call *k = &m->call[i];
    bool kept = true; /* all outputs */
    for (int s = 0; s < k->nout; s++) {
      pass->value[k->out[s]] = pass->block + q->again[k->out[s]];
      kept &= !q->dropped[k->out[s]] && !q->passing[k->out[s]];
    }
    pass->tape[i] = pass->block + q->tape_again[i];
    sh_args a = call_args(m, pass, i);
    a.again = kept;
    double began = sh_trace_begin();
    k->layer.ops->forward(&k->layer, c, &a);
    sh_trace_end(began, k->layer.name, "forward again");
  }
}

/* A passing slot once more, from its kept input. */
static void remake(const sh_model *m, const sh_ctx *c, sh_pass *pass, int i) {
  const sh_call *k = &m->call[i];
  pass->value[k->out[0]] = pass->block + pass->plan.again[k->out[0]];
  sh_args a = call_args(m, pass, i);
  k->layer.ops->forward(&k->layer, c, &a);
}

void sh_model_backward(const sh_model *m, const sh_ctx *c, sh_pass *pass, const float *doutput, sh_ready ready,
                       void *arg) {
  for (int i = m->ncalls - 1; i >= 0; i--) {
    const sh_call *k = &m->call[i];
    if (pass->plan.remake[i] >= 0) remake(m, c, pass, pass->plan.remake[i]);
    if (pass->plan.rerun[i] >= 0) rerun(m, c, pass, pass->plan.rerun[i], i);
    sh_args a = call_args(m, pass, i);
    for (int s = 0; s < k->nout; s++) a.dout[s] = k->out[s] == m->output ? doutput : pass->grad[k->out[s]];
    for (int s = 0; s < k->nin; s++) {
      int slot = k->in[s];
      a.add[s] = pass->grad[slot] != NULL; /* a later reader was here first */
      a.din[s] = pass->grad[slot] = pass->block + pass->plan.grad[slot];
    }
    double began = sh_trace_begin();
    k->layer.ops->backward(&k->layer, c, &a);
    sh_trace_end(began, k->layer.name, "backward");
    if (ready && k->param_last > k->param_first) ready(arg, k->param_first, k->param_last);
  }
}

int64_t sh_model_pass_floats(const sh_model *m, int64_t T, int64_t B, sh_arena *scratch) {
  sh_plan plan;
  sh_arena_mark mark = sh_arena_save(scratch);
  int64_t *rows = SH_ARENA_NEW(scratch, int64_t, m->nslots);
  for (int s = 0; s < m->nslots; s++) rows[s] = slot_rows(m, s, T);
  sh_plan_make(m, &(sh_plan_shape){.T = T, .B = B, .train = true, .rows = rows}, scratch, &plan);
  sh_arena_release(scratch, mark);
  return plan.floats + sh_model_own(m, T) * m->width;
}

void sh_model_flops(const sh_model *m, const sh_batch *b, double *linear, double *attention) {
  *linear = *attention = 0;
  for (int i = 0; i < m->ncalls; i++) {
    double one = 0, two = 0;
    m->call[i].layer.ops->flops(&m->call[i].layer, b, &one, &two);
    *linear += one;
    *attention += two;
  }
}
