/* golden/golden_model.h: one group of a golden file as a model of ours: sizes and hyper-parameters from the attributes,
 * parameters from params_init, batches from inputs{0,1,2}. Item embeddings are one dense table, row = item id.
 */
#ifndef SH_TESTS_GOLDEN_MODEL_H
#define SH_TESTS_GOLDEN_MODEL_H

#include "core/config.h"
#include "dist/build.h"
#include "golden/golden_file.h"

/* Everything the optimiser moves, four times: values, gradients, both moments. */
enum { SH_GOLDEN_VALUE, SH_GOLDEN_GRAD, SH_GOLDEN_M, SH_GOLDEN_V, SH_GOLDEN_STATES };

typedef struct sh_golden_model {
  hid_t group;
  char kind[32];
  sh_config conf;
  sh_model model;
  const sh_kernels *kernels;
  int D, H, N;
  int64_t items, ld;              /* rows of the table, floats of a row */
  float *table[SH_GOLDEN_STATES]; /* [items x ld] */
  float *dense[SH_GOLDEN_STATES]; /* the parameter table's blocks */
  sh_golden_names names;          /* upstream parameters */
  sh_arena run, step, scratch;
} sh_golden_model;

/* Fails the test when an attribute or a parameter is missing or left over. */
void sh_golden_model_open(sh_golden_model *g, hid_t group, const sh_kernels *kernels);
void sh_golden_model_close(sh_golden_model *g);

/* inputs{step}, jagged. */
typedef struct sh_golden_batch {
  sh_batch batch;
  int32_t *slot;      /* [T] table row of each token's item */
  int32_t *reference; /* [T x (1 + R)] of its target and its negatives */
  int64_t R, width;   /* negatives a token; N: columns of padded arrays */
} sh_golden_batch;
void sh_golden_batch_read(sh_golden_model *g, int step, sh_golden_batch *out);

/* A padded array [B x N x width] of the file without its padding: [T x width]. */
double *sh_golden_jagged(const sh_golden_batch *b, const sh_golden_array *padded, sh_arena *a);

/* Upstream parameter `name`, of n values, in its own layout, from one of the four states. */
double *sh_golden_state(sh_golden_model *g, const char *name, int state, sh_arena *a, int64_t *n);

/* One AdamW step, t = 1, 2, ..., of dense parameters and of all rows of the table, those of the batch as touched. */
void sh_golden_adamw(sh_golden_model *g, const sh_golden_batch *b, int t);

#endif
