#include "golden/golden_model.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* cmocka.h needs the above */
#include <cmocka.h>

#include "data/time_runs.h"
#include "optim/dense.h"
#include "optim/rows.h"

static const char item_table[] = "_embedding_module._item_emb.weight";

static const struct {
  const char *theirs, *ours;
  bool transposed;
} name_list[] = {
#define NAME(theirs, ours, transposed) {theirs, ours, transposed},
#include "golden/golden_names.def"
#undef NAME
};

static void configure(sh_golden_model *g) {
  sh_conf_model *m = &g->conf.model;
  sh_config_defaults(&g->conf);
  sh_golden_text(g->group, "kind", g->kind, sizeof g->kind);
  for (size_t i = 0; i <= strlen(g->kind); i++) m->name[i] = (char)tolower((unsigned char)g->kind[i]);
  g->D = (int)sh_golden_number(g->group, "D");
  g->H = (int)sh_golden_number(g->group, "num_heads");
  g->N = (int)sh_golden_number(g->group, "N");
  m->width = g->D;
  m->heads = g->H;
  m->layers = (int64_t)sh_golden_number(g->group, "num_blocks");
  m->dqk = (int64_t)sh_golden_number_or(g->group, "dqk", 0);
  m->dv = (int64_t)sh_golden_number_or(g->group, "dv", 0);
  m->extra_positions = (int64_t)sh_golden_number(g->group, "gr_output_length") + 1;
  m->max_len = g->N - m->extra_positions;
  /* a quarter of a column more: exactly this width whether a product is truncated or rounded */
  m->ffn_multiple = (sh_golden_number_or(g->group, "ffn_hidden_dim", 0) + 0.25) / g->D;
  m->ffn_single_stage = sh_golden_number_or(g->group, "ffn_single_stage", 0) != 0;
  m->concat_ua = sh_golden_number_or(g->group, "concat_ua", 0) != 0;
  sh_golden_text(g->group, "ffn_activation_fn", m->ffn_activation, sizeof m->ffn_activation);
  sh_golden_text(g->group, "func_type", m->time_function, sizeof m->time_function);
  m->dropout = m->linear_dropout = m->attention_dropout = 0;
  double betas[2];
  sh_golden_numbers(g->group, "betas", 2, betas);
  g->conf.optim.lr = sh_golden_number(g->group, "lr");
  g->conf.optim.beta1 = betas[0], g->conf.optim.beta2 = betas[1];
  g->conf.optim.eps = sh_golden_number(g->group, "adam_eps");
  g->conf.optim.weight_decay = sh_golden_number(g->group, "wd");
  g->conf.loss.temperature = sh_golden_number(g->group, "T");
}

/* Our row of the parameter table for an upstream name, or -1. */
static int row_of(const sh_golden_model *g, const char *name, bool *transposed) {
  for (size_t i = 0; i < sizeof name_list / sizeof *name_list; i++)
    for (int block = 0; block < g->conf.model.layers; block++) {
      char theirs[SH_GOLDEN_NAME], ours[SH_GOLDEN_NAME];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
      snprintf(theirs, sizeof theirs, name_list[i].theirs, block);
      snprintf(ours, sizeof ours, name_list[i].ours, block);
#pragma GCC diagnostic pop
      *transposed = name_list[i].transposed;
      if (!strcmp(theirs, name)) return sh_params_find(&g->model.params, ours);
    }
  return -1;
}

/* Place in our block of entry i of an upstream array. */
typedef struct place {
  float *base;
  int64_t rows, columns, row_step, column_step;
} place;

static place place_of(sh_golden_model *g, const char *name, int state) {
  if (!strcmp(name, item_table)) return (place){g->table[state], g->items, g->D, g->ld, 1};
  bool transposed = false;
  int i = row_of(g, name, &transposed);
  if (i < 0) fail_msg("%s: the model has no such parameter", name);
  const sh_param *r = &g->model.params.row[i];
  float *base = g->dense[state] + r->offset;
  if (transposed) return (place){base, r->dim[1], r->dim[0], 1, r->dim[1]};
  return (place){base, r->dim[0], r->dim[1], r->dim[1], 1};
}

double *sh_golden_state(sh_golden_model *g, const char *name, int state, sh_arena *a, int64_t *n) {
  place p = place_of(g, name, state);
  *n = p.rows * p.columns;
  double *out = SH_ARENA_NEW(a, double, *n);
  for (int64_t r = 0; r < p.rows; r++)
    for (int64_t c = 0; c < p.columns; c++) out[r * p.columns + c] = (double)p.base[r * p.row_step + c * p.column_step];
  return out;
}

static void load_parameters(sh_golden_model *g) {
  int64_t loaded = 0;
  for (int i = 0; i < g->names.n; i++) {
    const char *name = g->names.name[i];
    sh_golden_array a = sh_golden_read(g->group, &g->step, "f64/params_init/%s", name);
    place p = place_of(g, name, SH_GOLDEN_VALUE);
    int64_t rows = a.ndim ? a.dim[0] : 1;
    if (rows != p.rows || a.n != p.rows * p.columns)
      fail_msg("%s: %lld x %lld values, the model has %lld x %lld", name, (long long)rows, (long long)(a.n / rows),
               (long long)p.rows, (long long)p.columns);
    for (int64_t r = 0; r < p.rows; r++)
      for (int64_t c = 0; c < p.columns; c++)
        p.base[r * p.row_step + c * p.column_step] = (float)a.v[r * p.columns + c];
    if (strcmp(name, item_table)) loaded += a.n;
  }
  if (loaded != sh_params_count(&g->model.params))
    fail_msg("the file has %lld dense parameters, the model %lld", (long long)loaded,
             (long long)sh_params_count(&g->model.params));
}

void sh_golden_model_open(sh_golden_model *g, hid_t group, const sh_kernels *kernels) {
  *g = (sh_golden_model){.group = group, .kernels = kernels};
  sh_arena_init(&g->run, "run"), sh_arena_init(&g->step, "step"), sh_arena_init(&g->scratch, "scratch");
  configure(g);
  if (sh_model_create(&g->model, &g->conf.model, NULL, false) != SH_OK) fail_msg("%s: %s", g->kind, sh_error_message());
  g->names = sh_golden_list(group, &g->run, false, "f64/params_init");
  g->items = sh_golden_read(group, &g->step, "f64/params_init/%s", item_table).dim[0];
  g->ld = (g->D + 15) / 16 * 16;
  for (int s = 0; s < SH_GOLDEN_STATES; s++) {
    g->table[s] = SH_ARENA_ZNEW(&g->run, float, g->items * g->ld);
    g->dense[s] = s >= SH_GOLDEN_M ? SH_ARENA_ZNEW(&g->run, float, g->model.params.block) : NULL;
  }
  g->dense[SH_GOLDEN_VALUE] = g->model.params.value;
  g->dense[SH_GOLDEN_GRAD] = g->model.params.grad;
  load_parameters(g);
}

void sh_golden_model_close(sh_golden_model *g) {
  sh_model_destroy(&g->model);
  sh_arena_free(&g->run), sh_arena_free(&g->step), sh_arena_free(&g->scratch);
}

void sh_golden_batch_read(sh_golden_model *g, int step, sh_golden_batch *out) {
  sh_arena *a = &g->step;
  sh_golden_array len = sh_golden_ints(g->group, a, "inputs%d/past_lengths", step);
  sh_golden_array ids = sh_golden_ints(g->group, a, "inputs%d/past_ids_train", step);
  sh_golden_array ts = sh_golden_ints(g->group, a, "inputs%d/timestamps", step);
  sh_golden_array neg = sh_golden_ints(g->group, a, "inputs%d/neg_ids", step);
  int64_t B = len.n, N = ids.dim[1], T = neg.dim[0], R = neg.dim[1], t = 0;
  int32_t *offsets = SH_ARENA_NEW(a, int32_t, B + 1), *position = SH_ARENA_NEW(a, int32_t, T);
  int32_t *sequence = SH_ARENA_NEW(a, int32_t, T), *slot = SH_ARENA_NEW(a, int32_t, T);
  int32_t *reference = SH_ARENA_NEW(a, int32_t, T * (R + 1));
  int64_t *item = SH_ARENA_NEW(a, int64_t, T), *target = SH_ARENA_NEW(a, int64_t, T);
  int64_t *time = SH_ARENA_NEW(a, int64_t, T), *next = SH_ARENA_NEW(a, int64_t, T),
          *sample = SH_ARENA_NEW(a, int64_t, B);
  for (int64_t b = 0; b < B; b++) {
    offsets[b] = (int32_t)t, sample[b] = b;
    for (int64_t i = 0; i < len.ints[b]; i++, t++) {
      int64_t at = b * N + i;
      assert_true(t < T && i + 1 < N);
      item[t] = ids.ints[at], target[t] = ids.ints[at + 1];
      time[t] = ts.ints[at], next[t] = ts.ints[at + 1];
      slot[t] = (int32_t)item[t], position[t] = (int32_t)i, sequence[t] = (int32_t)b;
      reference[t * (R + 1)] = (int32_t)target[t];
      for (int64_t j = 0; j < R; j++) reference[t * (R + 1) + 1 + j] = (int32_t)neg.ints[t * R + j];
    }
  }
  assert_int_equal(t, T);
  offsets[B] = (int32_t)T;
  *out = (sh_golden_batch){.slot = slot, .reference = reference, .R = R, .width = N};
  out->batch = (sh_batch){.B = B,
                          .T = T,
                          .offsets = offsets,
                          .sample = sample,
                          .item = item,
                          .target = target,
                          .time = time,
                          .next_time = next,
                          .position = position,
                          .sequence = sequence,
                          .step = step};
  if (g->model.needs_time_runs) sh_time_runs_build(&out->batch, a);
}

double *sh_golden_jagged(const sh_golden_batch *b, const sh_golden_array *padded, sh_arena *a) {
  int64_t T = b->batch.T, width = padded->dim[2];
  double *out = SH_ARENA_NEW(a, double, T *width);
  for (int64_t t = 0; t < T; t++) {
    int64_t row = b->batch.sequence[t] * b->width + b->batch.position[t];
    memcpy(out + t * width, padded->v + row * width, sizeof(double) * (size_t)width);
  }
  return out;
}

void sh_golden_adamw(sh_golden_model *g, const sh_golden_batch *b, int t) {
  const sh_conf_optim *o = &g->conf.optim;
  sh_slices whole;
  sh_slices_whole(&whole, &g->model.params);
  sh_dense_adamw(g->kernels, &g->model.params, &whole, o, o->lr, 1, t, g->dense[SH_GOLDEN_M], g->dense[SH_GOLDEN_V]);
  sh_slices_destroy(&whole);
  bool *seen = SH_ARENA_ZNEW(&g->step, bool, g->items);
  int64_t *touched = SH_ARENA_NEW(&g->step, int64_t, g->items), n = 0;
  for (int64_t i = 0; i < b->batch.T; i++) seen[b->slot[i]] = true;
  for (int64_t i = 0; i < b->batch.T * (b->R + 1); i++) seen[b->reference[i]] = true;
  float *grad = SH_ARENA_NEW(&g->step, float, g->items * g->ld);
  for (int64_t i = 0; i < g->items; i++)
    if (seen[i]) {
      memcpy(grad + n * g->ld, g->table[SH_GOLDEN_GRAD] + i * g->ld, sizeof(float) * (size_t)g->ld);
      touched[n++] = i;
    }
  sh_row_view rows = {.n = g->items,
                      .width = (int)g->ld,
                      .value = g->table[SH_GOLDEN_VALUE],
                      .state = {g->table[SH_GOLDEN_M], g->table[SH_GOLDEN_V]},
                      .ntouched = n,
                      .touched = touched,
                      .grad = grad,
                      .grad_ld = g->ld};
  sh_row_hyper hyper = {o->lr, o->beta1, o->beta2, o->eps, o->weight_decay, 1, t};
  sh_row_optim_update(&rows, (sh_row_optim)sh_row_optim_find("adam_dense"), &hyper);
}
