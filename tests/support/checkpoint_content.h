/* support/checkpoint_content.h: a small model state whose every number is a function of its global place. */
#ifndef SH_TESTS_CHECKPOINT_CONTENT_H
#define SH_TESTS_CHECKPOINT_CONTENT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/checkpoint.h"
#include "core/arena.h"
#include "support/whole.h"

typedef struct content {
  sh_config config;
  sh_run_state state;
  sh_params params;
  float *moment[2];
  sh_table table[2];
  sh_ckpt_content all;
} content;

__attribute__((unused)) static float content_value(int what, int64_t row, int64_t column) {
  return sinf((float)(what * 7919 + row * 131 + column)) + (float)what;
}

static void content_param(sh_params *p, const char *name, int64_t rows, int64_t columns, int split, int nseg,
                          int64_t unit) {
  sh_param row = {.ndim = columns > 1 ? 2 : 1, .dim = {rows, columns}, .split = split, .nseg = nseg, .tie = -1};
  snprintf(row.name, sizeof row.name, "%s", name);
  int64_t length = split < 0 ? 0 : row.dim[split] / nseg;
  for (int s = 0; s < nseg; s++) row.seg[s] = (sh_segment){.offset = s * length, .units = length / unit, .width = unit};
  sh_params_add(p, &row);
}

/* Sets (mark false) or checks every value; returns how many differ. `salt` makes two states differ. */
static int64_t content_visit(content *c, int salt, bool set) {
  int64_t bad = 0;
  for (int m = 0; m < 3; m++)
    for (int i = 0; i < c->params.n; i++) {
      const sh_param *r = &c->params.row[i];
      float *base = (m == 0 ? c->params.value : c->moment[m - 1]) + r->offset;
      int64_t *place = whole_places(&c->params, i);
      for (int64_t k = 0; k < r->size; k++) {
        float v = content_value(salt + 10 * m + 100 * i, place[k] / r->dim[1], place[k] % r->dim[1]);
        if (set) base[k] = v;
        bad += base[k] != v;
      }
      free(place);
    }
  for (int t = 0; t < c->all.ntables; t++) {
    sh_table *x = c->all.table[t];
    for (int k = -1; k < x->nstate; k++) {
      float *rows = k < 0 ? x->rows : x->state[k];
      int64_t width = k < 0 ? x->conf.width : x->state_width[k];
      for (int64_t i = 0; i < x->local_rows; i++)
        for (int64_t d = 0; d < width; d++) {
          float v = content_value(salt + 1000 * (t + 1) + k, sh_table_key(x, x->position_first + i), d);
          if (set) rows[i * width + d] = v;
          bad += rows[i * width + d] != v;
        }
    }
  }
  return bad;
}

/* `scale` multiplies the number of blocks and rows: 1 is some 100 KB. */
__attribute__((unused)) static sh_status content_create(content *c, const sh_grid *g, int scale, int salt) {
  *c = (content){0};
  sh_config_defaults(&c->config);
  c->config.model.layers = scale;
  sh_params_create(&c->params, g->tensor.index, g->tensor.size);
  for (int l = 0; l < scale; l++) {
    char name[SH_PARAM_NAME];
    snprintf(name, sizeof name, "block.%d.uvqk", l);
    content_param(&c->params, name, 24, 4 * 48, 1, 4, 6);
    snprintf(name, sizeof name, "block.%d.out", l);
    content_param(&c->params, name, 48, 24, 0, 1, 6);
    snprintf(name, sizeof name, "block.%d.bias", l);
    content_param(&c->params, name, 129, 1, -1, 0, 1);
  }
  SH_TRY(sh_params_finish(&c->params));
  sh_table_conf item = {.name = "item",
                        .rows = 1000L * scale + 7,
                        .width = 10,
                        .shards = 64,
                        .seed = 1,
                        .optim = SH_ROW_ADAM_DENSE,
                        .init = {SH_INIT_ZERO, 0, 0}};
  sh_table_conf tiny = {.name = "tiny",
                        .rows = 3,
                        .width = 5,
                        .shards = 64,
                        .seed = 1,
                        .optim = SH_ROW_ADAGRAD,
                        .init = {SH_INIT_ZERO, 0, 0}};
  SH_TRY(sh_table_create(&c->table[0], &item, &g->table));
  SH_TRY(sh_table_create(&c->table[1], &tiny, &g->table));
  size_t block = (size_t)c->params.block;
  for (int m = 0; m < 2; m++) c->moment[m] = sh_calloc(block + 1, sizeof(float));
  c->state = (sh_run_state){.step = 100 + salt,
                            .epoch = 3,
                            .step_in_epoch = 4,
                            .tokens = 12345,
                            .loss_sum = 0.1 + salt,
                            .best_metric = 0.1972,
                            .best_epoch = 2,
                            .evals_since_best = 1,
                            .seconds = 12.5};
  c->all = (sh_ckpt_content){.grid = g,
                             .config = &c->config,
                             .state = &c->state,
                             .params = &c->params,
                             .nmoments = 2,
                             .moment_name = {"exp_avg", "exp_avg_sq"},
                             .moment = {c->moment[0], c->moment[1]},
                             .ntables = 2,
                             .table = {&c->table[0], &c->table[1]}};
  content_visit(c, salt, true);
  return SH_OK;
}

__attribute__((unused)) static void content_destroy(content *c) {
  sh_table_destroy(&c->table[0]);
  sh_table_destroy(&c->table[1]);
  free(c->moment[0]);
  free(c->moment[1]);
  sh_params_destroy(&c->params);
}

/* Bytes of a file; free() them. NULL when it cannot be read. */
__attribute__((unused)) static char *content_bytes(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  *size = 0;
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  *size = (size_t)ftell(f);
  rewind(f);
  char *data = malloc(*size + 1);
  if (fread(data, 1, *size, f) != *size) *size = 0;
  fclose(f);
  return data;
}

#endif
