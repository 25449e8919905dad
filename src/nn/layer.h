/* nn/layer.h: what a layer is.
 *
 * A layer knows only local memory. A model is an ordered list of calls: a layer, input slots, output slots. A slot is
 * an array [T x width] in the step arena. Forward walks the list; backward walks it in reverse, and the gradient of a
 * slot read k times is the sum in that fixed order.
 *
 * Determinism: work is cut into blocks fixed by the batch (tokens, sequences, output tiles); a block is computed by one
 * thread; sums over blocks are combined in block order. So the number of threads never changes a bit.
 *
 * A layer's file holds, from top to bottom: the formula and shapes, params, tape, forward, backward, the ops.
 * Registry: nn/layers.def. Every registered layer is gradient-checked by tests/unit/test_layers.c.
 */
#ifndef SH_NN_LAYER_H
#define SH_NN_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/params.h"
#include "data/batch.h"
#include "kernels/kernels.h"

enum { SH_CALL_SLOTS = 4 };

/* Rows of an embedding table as the batch sees them (from a fetch, see dist/table.h). */
typedef struct sh_rows {
  int ld;              /* floats between rows; a multiple of 16, padding zero */
  int64_t nslots;      /* distinct keys */
  const float *value;  /* [nslots x ld] */
  float *grad;         /* [nslots x ld], zeroed before the step */
  const int32_t *slot; /* [T] row of each token's item; on a tensor axis of own tokens, a slice of the batch's */
} sh_rows;

/* Sliced rows: part r of `parts` holds rows sh_deal_first(n, r, parts) .. sh_deal_first(n, r + 1, parts) - 1 of n. */
static inline int64_t sh_deal_first(int64_t n, int part, int parts) { return n * part / parts; }

/* Everything a call may read besides its slots. */
typedef struct sh_ctx {
  const sh_batch *batch;
  const sh_params *params; /* values; gradients are added to params->grad */
  const sh_rows *rows;
  sh_arena *scratch;   /* mark and release inside a call; one thread (the one outside parallel regions) */
  bool train;          /* dropout on */
  const sh_kernels *k; /* arithmetic: sh_kernels_best(), or sh_kernels_ref to check it */
  uint32_t seed;
  uint32_t when; /* global step: the time word of dropout counters */
} sh_ctx;

/* One call's arrays. last_only (inference): outputs have B rows, those of each sequence's last token. */
typedef struct sh_args {
  int64_t T;                        /* rows of inputs: tokens of the batch */
  int64_t R;                        /* rows of outputs: T, or B with last_only */
  const int32_t *row_token;         /* [R] token of each output row; NULL when R == T (identity) */
  const float *in[SH_CALL_SLOTS];   /* [T x width of slot] */
  float *out[SH_CALL_SLOTS];        /* [R x width of slot]; in backward: what forward wrote */
  const float *dout[SH_CALL_SLOTS]; /* backward: gradients of outputs */
  float *din[SH_CALL_SLOTS];        /* backward: gradients of inputs; NULL when nobody needs it */
  bool add[SH_CALL_SLOTS];          /* add to din[k] (true) or overwrite it (false) */
  float *tape;                      /* what forward keeps for backward; NULL when not training */
  bool again; /* forward runs once more for its tape alone: out holds what it wrote the first time and need not be made
               */
} sh_args;

typedef struct sh_layer sh_layer;
typedef struct sh_layer_ops {
  const char *name;
  size_t conf_bytes; /* size of the layer's configuration struct */
  /* Append the layer's rows (names get the prefix "<call name>."); set l->param[]. */
  void (*params)(sh_layer *l, sh_params *p);
  /* Floats of tape for a batch of T tokens in B sequences. */
  int64_t (*tape)(const sh_layer *l, int64_t T, int64_t B);
  /* In training the tape is always given. `out` never aliases `in`. */
  void (*forward)(const sh_layer *l, const sh_ctx *c, const sh_args *a);
  void (*backward)(const sh_layer *l, const sh_ctx *c, const sh_args *a);
  /* Multiply-adds x2 of forward for a batch (exact causal pairs); linear and attention parts (a step counts them 3x
   * and 3.5x). */
  void (*flops)(const sh_layer *l, const sh_batch *b, double *linear, double *attention);
  bool needs_time_runs;
  bool supports_last_only;
  /* Of layers that communicate (dist/tensor.h): they draw no random numbers, so they take no site; */
  bool communicates;
  bool remade;     /* the output is made again in front of backward rather than kept for it; */
  bool input_dies; /* nobody reads the input's values behind this call's forward. */
} sh_layer_ops;

enum { SH_LAYER_PARAMS = 12 };
struct sh_layer {
  const sh_layer_ops *ops;
  char name[SH_PARAM_NAME - 16]; /* "block.0" */
  uint32_t site;                 /* place in the model, the same on every grid: low half of SH_SITE */
  int part, parts;               /* this rank's place on the tensor axis */
  bool half;                     /* projections are kept for backward as bf16 (sh_model_precision) */
  int param[SH_LAYER_PARAMS];    /* rows of the parameter table */
  const void *conf;              /* owned by the builder */
};

#endif
