#include "support/model_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const sh_bench_model[SH_BENCH_MODELS] = {
#define MODEL(name, function) name,
#include "model/models.def"
#undef MODEL
};

sh_conf_model sh_model_bench_conf(const char *name, int width, int heads, int max_len) {
  sh_config conf;
  sh_config_defaults(&conf);
  snprintf(conf.model.name, sizeof conf.model.name, "%s", name);
  snprintf(conf.model.ffn_activation, sizeof conf.model.ffn_activation, "gelu");
  conf.model.width = width, conf.model.heads = heads, conf.model.layers = 2, conf.model.max_len = max_len;
  return conf.model;
}

void sh_model_bench_open(sh_model_bench *b, const sh_conf_model *conf, const sh_axis *tensor, bool sequence,
                         const sh_kernels *k, int64_t B, const int32_t *length, int items) {
  *b = (sh_model_bench){0};
  if (sh_model_create(&b->model, conf, tensor, sequence) != SH_OK) {
    fprintf(stderr, "%s\n", sh_error_message());
    abort();
  }
  sh_model_precision(&b->model, k->precision);
  sh_arena_init(&b->mem, "test");
  sh_arena_init(&b->step, "step");
  sh_arena_init(&b->scratch, "scratch");
  sh_make_batch(&b->batch, B, length, items, 11, &b->mem);
  int64_t D = conf->width, ld = (D + 15) / 16 * 16;
  b->row_value = SH_ARENA_ZNEW(&b->mem, float, items *ld);
  for (int i = 0; i < items; i++) sh_make_normal(b->row_value + i * ld, D, 0.5f, 300 + (uint32_t)i);
  int64_t first = sh_model_first(&b->model, b->batch.T), own = sh_model_own(&b->model, b->batch.T);
  int32_t *slot = SH_ARENA_NEW(&b->mem, int32_t, own);
  for (int64_t t = 0; t < own; t++) slot[t] = (int32_t)b->batch.item[first + t];
  b->rows = (sh_rows){.ld = (int)ld, .nslots = items, .value = b->row_value, .slot = slot};
  b->rows.grad = SH_ARENA_ZNEW(&b->mem, float, items *ld);
  b->c =
      (sh_ctx){.batch = &b->batch, .params = &b->model.params, .rows = &b->rows, .scratch = &b->scratch, .train = true};
  b->c.k = k, b->c.seed = 9, b->c.when = 3;
}

void sh_model_bench_close(sh_model_bench *b) {
  sh_model_destroy(&b->model);
  sh_arena_free(&b->mem);
  sh_arena_free(&b->step);
  sh_arena_free(&b->scratch);
}

void sh_model_bench_clear(sh_model_bench *b) {
  memset(b->model.params.grad, 0, sizeof(float) * (size_t)b->model.params.block);
  memset(b->rows.grad, 0, sizeof(float) * (size_t)(b->rows.nslots * b->rows.ld));
}
