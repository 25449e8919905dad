#include "dist/build.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dist/models.h"

int sh_build_slot(sh_model *m, int width, const char *fmt, ...) {
  assert(m->nslots < SH_MODEL_SLOTS);
  sh_slot *s = &m->slot[m->nslots];
  va_list args;
  va_start(args, fmt);
  vsnprintf(s->name, sizeof s->name, fmt, args);
  va_end(args);
  s->width = width;
  return m->nslots++;
}

void sh_build_call(sh_model *m, const sh_layer_ops *ops, const char *name, const void *conf, int nin, const int *in,
                   int nout, const int *out) {
  assert(m->ncalls < SH_MODEL_CALLS && nin <= SH_CALL_SLOTS && nout <= SH_CALL_SLOTS);
  sh_call *k = &m->call[m->ncalls];
  *k = (sh_call){.nin = nin, .nout = nout};
  k->layer = (sh_layer){.ops = ops, .site = (uint32_t)m->ncalls, .part = m->params.part, .parts = m->params.parts};
  snprintf(k->layer.name, sizeof k->layer.name, "%s", name);
  void *copy = sh_malloc(ops->conf_bytes);
  k->layer.conf = memcpy(copy, conf, ops->conf_bytes);
  for (int s = 0; s < nin; s++) k->in[s] = in[s];
  for (int s = 0; s < nout; s++) k->out[s] = out[s];
  k->param_first = m->params.n;
  ops->params(&k->layer, &m->params);
  k->param_last = m->params.n;
  m->needs_time_runs |= ops->needs_time_runs;
  m->ncalls++;
}

sh_status sh_model_create(sh_model *m, const sh_conf_model *conf, int part, int parts) {
  *m = (sh_model){.width = (int)conf->width};
  m->call = sh_calloc(SH_MODEL_CALLS, sizeof *m->call);
  m->slot = sh_calloc(SH_MODEL_SLOTS, sizeof *m->slot);
  sh_params_create(&m->params, part, parts);
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

/* The first call from which, backwards, everything may be computed for last tokens only: the trailing calls that
 * support it, up to and including the last one that mixes tokens. */
static int last_only_from(const sh_model *m) {
  int from = m->ncalls;
  for (int i = m->ncalls - 1; i > 0 && m->call[i].layer.ops->supports_last_only; i--) {
    from = i;
    double linear, attention;
    static const int32_t offsets[2] = {0, 1};
    sh_batch one = {.B = 1, .T = 1, .offsets = offsets};
    m->call[i].layer.ops->flops(&m->call[i].layer, &one, &linear, &attention);
    if (attention > 0) break;
  }
  return from;
}

static sh_args call_args(const sh_model *m, const sh_pass *p, int i) {
  const sh_call *k = &m->call[i];
  sh_args a = {.T = p->T, .R = p->T, .tape = p->tape[i]};
  for (int s = 0; s < k->nin; s++) a.in[s] = p->value[k->in[s]];
  for (int s = 0; s < k->nout; s++) a.out[s] = p->value[k->out[s]];
  return a;
}

float *sh_model_forward(const sh_model *m, const sh_ctx *c, bool last_only, sh_arena *step, sh_pass *pass) {
  const sh_batch *b = c->batch;
  *pass = (sh_pass){.T = b->T, .R = last_only ? b->B : b->T};
  pass->value = SH_ARENA_ZNEW(step, float *, m->nslots);
  pass->grad = SH_ARENA_ZNEW(step, float *, m->nslots);
  pass->tape = SH_ARENA_ZNEW(step, float *, m->ncalls);
  bool *rows_only = SH_ARENA_ZNEW(step, bool, m->nslots); /* slot has R rows */
  int from = last_only ? last_only_from(m) : m->ncalls;
  if (last_only) {
    int32_t *last = SH_ARENA_NEW(step, int32_t, b->B);
    for (int64_t i = 0; i < b->B; i++) last[i] = b->offsets[i + 1] - 1;
    pass->row_token = last;
  }
  for (int i = 0; i < m->ncalls; i++) {
    const sh_call *k = &m->call[i];
    bool narrow = i >= from;
    for (int s = 0; s < k->nout; s++) {
      rows_only[k->out[s]] = narrow;
      pass->value[k->out[s]] = SH_ARENA_NEW(step, float, (narrow ? pass->R : pass->T) * m->slot[k->out[s]].width);
    }
    if (c->train) pass->tape[i] = SH_ARENA_NEW(step, float, k->layer.ops->tape(&k->layer, b->T, b->B));
    sh_args a = call_args(m, pass, i);
    if (narrow) a.R = pass->R;
    /* Inputs that still have all T rows are read through row_token; those already narrowed are not. */
    if (narrow && !rows_only[k->in[0]]) a.row_token = pass->row_token;
    if (narrow && rows_only[k->in[0]]) a.T = pass->R;
    k->layer.ops->forward(&k->layer, c, &a);
  }
  float *out = pass->value[m->output];
  if (!last_only || rows_only[m->output]) return out;
  float *rows = SH_ARENA_NEW(step, float, pass->R * m->width);
  for (int64_t r = 0; r < pass->R; r++)
    memcpy(rows + r * m->width, out + (int64_t)pass->row_token[r] * m->width, sizeof(float) * (size_t)m->width);
  return rows;
}

void sh_model_backward(const sh_model *m, const sh_ctx *c, sh_pass *pass, const float *doutput, sh_arena *step,
                       sh_ready ready, void *arg) {
  for (int i = m->ncalls - 1; i >= 0; i--) {
    const sh_call *k = &m->call[i];
    sh_args a = call_args(m, pass, i);
    for (int s = 0; s < k->nout; s++) a.dout[s] = k->out[s] == m->output ? doutput : pass->grad[k->out[s]];
    for (int s = 0; s < k->nin; s++) {
      int slot = k->in[s];
      a.add[s] = pass->grad[slot] != NULL; /* a later reader was here first */
      if (!a.add[s]) pass->grad[slot] = SH_ARENA_NEW(step, float, pass->T * m->slot[slot].width);
      a.din[s] = pass->grad[slot];
    }
    k->layer.ops->backward(&k->layer, c, &a);
    if (ready && k->param_last > k->param_first) ready(arg, k->param_first, k->param_last);
  }
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
