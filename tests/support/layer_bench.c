#include "support/layer_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/close.h"

enum { D = SH_BENCH_D, ITEMS = SH_BENCH_ITEMS, LD = SH_BENCH_LD, T = SH_BENCH_T, B = SH_BENCH_B };

const char *sh_layer_case_name(const sh_layer_case *l) {
  static char name[128];
  snprintf(name, sizeof name, "%s%s%s", l->ops->name, *l->what ? " " : "", l->what);
  return name;
}

int sh_slot_count(const sh_slot_case *s) {
  int n = 0;
  while (n < SH_CALL_SLOTS && s[n].width) n++;
  return n;
}

static double *doubles(float *x) { return (double *)(void *)x; }

/* Input slot k, statistics from slot k - 1. */
static void fill_input(sh_layer_bench *b, int k) {
  const sh_slot_case *s = &b->l->in[k];
  if (s->kind == SH_SLOT_NUMBERS) {
    sh_make_normal(b->in[k], (int64_t)T * s->width, 1, 100 + (uint32_t)k);
    return;
  }
  b->moved[k] = SH_ARENA_NEW(&b->mem, float, 2 * T);
  for (int64_t t = 0; t < T; t++) {
    double sum = 0, square = 0;
    for (int i = 0; i < b->win[k - 1]; i++) {
      double o = (double)b->in[k - 1][t * b->win[k - 1] + i];
      sum += o, square += o * o;
    }
    if (s->kind == SH_SLOT_SQUARES) {
      b->in[k][t] = (float)square;
    } else {
      b->moved[k][2 * t] = (float)sum, b->moved[k][2 * t + 1] = (float)square;
      for (int i = 0; i < 2; i++) doubles(b->in[k])[2 * t + i] = (double)b->moved[k][2 * t + i];
    }
  }
  if (!sh_slot_wide(s)) b->moved[k] = NULL;
}

/* Weights of the projection. Statistics are sums over columns: small weights keep them from drowning the rest. */
static void fill_weights(sh_layer_bench *b, int k) {
  const sh_slot_case *s = &b->l->out[k];
  int64_t n = (int64_t)T * b->wout[k];
  sh_make_normal(b->dout[k], n, s->kind == SH_SLOT_NUMBERS ? 1 : 0.1f, 400 + (uint32_t)k);
  if (!sh_slot_wide(s)) return;
  float *narrow = SH_ARENA_NEW(&b->mem, float, n / 2);
  sh_make_normal(narrow, n / 2, 0.1f, 400 + (uint32_t)k);
  for (int64_t i = 0; i < n / 2; i++) doubles(b->dout[k])[i] = (double)narrow[i];
}

/* Large enough that every term matters; parameters of one number keep their start. */
static void fill_params(sh_params *p) {
  sh_params_init(p, 3);
  for (int i = 0; i < p->n; i++)
    if (p->row[i].size > 1)
      sh_make_normal(sh_param_value(p, i), p->row[i].size, p->row[i].ndim == 2 ? 0.4f : 0.3f, 200 + (uint32_t)i);
}

static void make_slots(sh_layer_bench *b, int parts) {
  const sh_layer_case *l = b->l;
  for (int s = 0; s < b->nin; s++) {
    b->win[s] = l->in[s].split ? l->in[s].width / parts : l->in[s].width;
    b->a.in[s] = b->in[s] = SH_ARENA_ZNEW(&b->mem, float, T * b->win[s]);
    b->a.din[s] = SH_ARENA_ZNEW(&b->mem, float, T * b->win[s]);
    if (parts == 1) fill_input(b, s);
  }
  for (int s = 0; s < b->nout; s++) {
    b->wout[s] = l->out[s].split ? l->out[s].width / parts : l->out[s].width;
    b->a.out[s] = SH_ARENA_ZNEW(&b->mem, float, T * b->wout[s]);
    b->a.dout[s] = b->dout[s] = SH_ARENA_ZNEW(&b->mem, float, T * b->wout[s]);
    if (parts == 1) fill_weights(b, s);
  }
}

void sh_layer_bench_open(sh_layer_bench *b, const sh_layer_case *l, bool dropout, const sh_kernels *k, int part,
                         int parts) {
  *b = (sh_layer_bench){.l = l, .nin = sh_slot_count(l->in), .nout = sh_slot_count(l->out)};
  sh_arena_init(&b->mem, "test");
  sh_arena_init(&b->scratch, "scratch");
  memcpy(b->conf, l->conf, l->ops->conf_bytes);
  for (int i = 0; i < 2 && !dropout; i++)
    if (l->dropout[i]) memset(b->conf + l->dropout[i], 0, sizeof(double));
  b->layer = (sh_layer){.ops = l->ops, .name = "block.0", .site = 5, .part = part, .parts = parts, .conf = b->conf};
  b->layer.half = strcmp(k->precision, "fp32") != 0;
  sh_params_create(&b->params, part, parts);
  l->ops->params(&b->layer, &b->params);
  if (sh_params_finish(&b->params) != SH_OK) abort();
  sh_make_batch(&b->batch, B, sh_test_length, ITEMS, 11, &b->mem);
  int32_t *row = SH_ARENA_NEW(&b->mem, int32_t, T);
  for (int t = 0; t < T; t++) row[t] = (int32_t)b->batch.item[t];
  b->row_value = SH_ARENA_ZNEW(&b->mem, float, ITEMS *LD);
  for (int i = 0; i < ITEMS; i++) sh_make_normal(b->row_value + i * LD, D, 0.5f, 300 + (uint32_t)i);
  b->rows = (sh_rows){.ld = LD, .nslots = ITEMS, .value = b->row_value, .slot = row};
  b->rows.grad = SH_ARENA_ZNEW(&b->mem, float, ITEMS *LD);
  b->c = (sh_ctx){.batch = &b->batch, .params = &b->params, .rows = &b->rows, .scratch = &b->scratch, .k = k};
  b->c.train = true, b->c.seed = 9, b->c.when = 3;
  b->a = (sh_args){.T = T, .R = T, .tape = SH_ARENA_NEW(&b->mem, float, l->ops->tape(&b->layer, T, B))};
  make_slots(b, parts);
  if (parts == 1) fill_params(&b->params);
}

void sh_layer_bench_close(sh_layer_bench *b) {
  sh_params_destroy(&b->params);
  sh_arena_free(&b->mem);
  sh_arena_free(&b->scratch);
}

void sh_layer_bench_run(sh_layer_bench *b) {
  memset(b->params.grad, 0, sizeof(float) * (size_t)b->params.block);
  memset(b->rows.grad, 0, sizeof(float) * ITEMS * LD);
  b->layer.ops->forward(&b->layer, &b->c, &b->a);
  b->layer.ops->backward(&b->layer, &b->c, &b->a);
}

double sh_layer_bench_projection(void *bench) {
  sh_layer_bench *b = bench;
  double sum = 0;
  for (int s = 0; s < b->nin; s++)
    for (int64_t i = 0; i < 2 * T && b->moved[s]; i++) doubles(b->in[s])[i] = (double)b->moved[s][i];
  b->layer.ops->forward(&b->layer, &b->c, &b->a);
  for (int s = 0; s < b->nout; s++) {
    int64_t n = (int64_t)T * b->wout[s];
    if (sh_slot_wide(&b->l->out[s]))
      for (int64_t i = 0; i < n / 2; i++) sum += doubles(b->dout[s])[i] * doubles(b->a.out[s])[i];
    else
      for (int64_t i = 0; i < n; i++) sum += (double)b->dout[s][i] * (double)b->a.out[s][i];
  }
  return sum;
}

int sh_layer_bench_arrays(const sh_layer_bench *b, sh_bench_array out[SH_BENCH_ARRAYS]) {
  int n = 0;
  for (int s = 0; s < b->nout; s++, n++) {
    out[n] = (sh_bench_array){.at = b->a.out[s], .n = T * b->wout[s], .wide = sh_slot_wide(&b->l->out[s])};
    snprintf(out[n].name, sizeof out[n].name, "out[%d]", s);
  }
  for (int s = 0; s < b->nin; s++, n++) {
    out[n] = (sh_bench_array){.at = b->a.din[s], .n = T * b->win[s], .wide = sh_slot_wide(&b->l->in[s])};
    snprintf(out[n].name, sizeof out[n].name, "din[%d]", s);
  }
  for (int i = 0; i < b->params.n; i++, n++) {
    out[n] = (sh_bench_array){.at = sh_param_grad(&b->params, i), .n = b->params.row[i].size};
    snprintf(out[n].name, sizeof out[n].name, "d %s", b->params.row[i].name);
  }
  out[n] = (sh_bench_array){.name = "d rows", .at = b->rows.grad, .n = ITEMS * LD};
  return n + 1;
}

int sh_layer_differs(const char *test, const sh_layer_case *l, const sh_bench_array *got, const float *want,
                     double tolerance) {
  double error = got->wide ? sh_close_of(got->n / 2, (const void *)got->at, (const void *)want, 0).error
                           : sh_close_floats(got->n, got->at, want, 0);
  if (error <= tolerance) return 0;
  fprintf(stderr, "  %s: %s: %s: error %.3g, allowed %.3g\n", test, sh_layer_case_name(l), got->name, error, tolerance);
  return 1;
}

int sh_layer_bench_compare(const char *test, const sh_layer_bench *got, const sh_layer_bench *want, double tolerance) {
  sh_bench_array x[SH_BENCH_ARRAYS], y[SH_BENCH_ARRAYS];
  int n = sh_layer_bench_arrays(got, x), failed = 0;
  sh_layer_bench_arrays(want, y);
  for (int i = 0; i < n; i++) failed += sh_layer_differs(test, want->l, &x[i], y[i].at, tolerance);
  return failed;
}
