/* support/model_bench.h: a whole model with a batch, rows of its items and a context, filled with the same random
 * numbers each time; dropout is on.
 */
#ifndef SH_TESTS_MODEL_BENCH_H
#define SH_TESTS_MODEL_BENCH_H

#include "dist/build.h"
#include "support/make_batch.h"

/* Every model of model/models.def. */
enum {
  SH_BENCH_MODELS = 0
#define MODEL(name, function) +1
#include "model/models.def"
#undef MODEL
};
extern const char *const sh_bench_model[SH_BENCH_MODELS];

typedef struct sh_model_bench {
  sh_model model;
  sh_arena mem, step, scratch;
  sh_batch batch;
  sh_rows rows;     /* slots are items; of the own tokens */
  float *row_value; /* [items x ld] */
  sh_ctx c;
} sh_model_bench;

/* Two blocks without kinks. */
sh_conf_model sh_model_bench_conf(const char *name, int width, int heads, int max_len);

/* The model shared by `tensor` (NULL: one rank) on B sequences over `items` items. Parameters are the caller's. Aborts
 * when it cannot be. */
void sh_model_bench_open(sh_model_bench *b, const sh_conf_model *conf, const sh_axis *tensor, bool sequence,
                         const sh_kernels *k, int64_t B, const int32_t *length, int items);
void sh_model_bench_close(sh_model_bench *b);

/* Gradients of parameters and rows are zero. */
void sh_model_bench_clear(sh_model_bench *b);

#endif
