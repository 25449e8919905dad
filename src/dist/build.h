/* dist/build.h: from a model file's ordered calls to something that runs.
 *
 * A model file states calls and slots; the builder deals parameters to the tensor axis (`split`), and owns conf copies.
 * Forward walks the calls, backward walks them in reverse. No graph engine.
 */
#ifndef SH_DIST_BUILD_H
#define SH_DIST_BUILD_H

#include "core/config.h"
#include "dist/plan.h"
#include "mpi/grid.h"
#include "nn/layer.h"

typedef struct sh_call {
  sh_layer layer;
  int nin, nout, in[SH_CALL_SLOTS], out[SH_CALL_SLOTS];
  int param_first, param_last; /* rows of the parameter table it appended: [first, last) */
} sh_call;

typedef struct sh_slot {
  char name[SH_PARAM_NAME];
  int width;
  bool sliced; /* rows are dealt to the tensor axis (sh_deal_first); else each part has all */
} sh_slot;

typedef struct sh_model {
  sh_params params;
  const sh_axis *tensor; /* NULL: alone */
  bool sequence;         /* between split layers rows are sliced */
  int ncalls, nslots, nsites;
  sh_call *call;
  sh_slot *slot;
  int output; /* slot of the final hidden states [T x D] */
  int width;  /* D */
  bool needs_time_runs;
  sh_recompute recompute;
} sh_model;

/* For model files. A slot is local: `width` is what this part holds. */
int sh_build_slot(sh_model *m, int width, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Append a call; conf (ops->conf_bytes) is copied. Calls that share a prefix of parameter names share `name`. */
void sh_build_call(sh_model *m, const sh_layer_ops *ops, const char *name, const void *conf, int nin, const int *in,
                   int nout, const int *out);

/* Where a model meets the tensor axis (dist/tensor.h). Each returns the slot that goes on: on one part the slot it was
 * given, and nothing is appended. `name` is the block's: what is computed again is computed together.
 *   input: a call without input slots that makes sliced rows      enter: whole rows for split layers to read
 *   leave: the sum of what the parts of a split layer left        span: row statistics summed over parts
 *   output: ends the model; sets m->output */
int sh_build_input(sh_model *m, const sh_layer_ops *ops, const char *name, const void *conf);
int sh_build_enter(sh_model *m, const char *name, int slot);
int sh_build_leave(sh_model *m, const char *name, int slot);
int sh_build_span(sh_model *m, const char *name, int slot, bool doubles);
void sh_build_output(sh_model *m, int slot);

/* Registry model/models.def: name and build function. Parameters are allocated, zero; sh_params_init draws them.
 * `tensor`: the axis that shares the layers, NULL when alone; it outlives the model. Not collective. */
sh_status sh_model_create(sh_model *m, const sh_conf_model *conf, const sh_axis *tensor, bool sequence);
void sh_model_destroy(sh_model *m);

/* The precision of a kernel table, or of train.precision, that passes will have: bf16 keeps activations whose gradients
 * need no more as bf16, half the room and half the way to memory and back. Before the first pass. */
void sh_model_precision(sh_model *m, const char *precision);

/* Of n rows of the batch (tokens, or sequences with last_only) those whose input rows and output this part has: first
 * .. first + own - 1. */
int64_t sh_model_first(const sh_model *m, int64_t n);
int64_t sh_model_own(const sh_model *m, int64_t n);

/* Arrays of one pass, in the step arena. A pointer holds only while the plan says so: values and tapes until their
 * call's backward (with recompute, again just before it), gradients from their first reader's backward on. */
typedef struct sh_pass {
  int64_t T, R;
  const int32_t *row_token;
  sh_plan plan;
  float *block;          /* [plan.floats] */
  float **value, **grad; /* [nslots] */
  float **tape;          /* [ncalls] */
} sh_pass;

/* Returns this part's output rows [own T x D], or [own B x D] of each sequence's last token with last_only (inference;
 * the last block computes nothing else). Sequences must not be empty with last_only. Without c->train only the output
 * outlives the call. c->rows->slot is of own tokens. Forward and backward are collective over the tensor axis. */
float *sh_model_forward(const sh_model *m, const sh_ctx *c, bool last_only, sh_arena *step, sh_pass *pass);

/* doutput[own T x D] is the gradient of the output. Adds to params.grad and to the context's row gradients. `ready`
 * (may be NULL) is told after each call that gradients of parameter rows first .. last-1 are final; the call's slots
 * and their gradients are still there. */
typedef void (*sh_ready)(void *arg, int first, int last);
void sh_model_backward(const sh_model *m, const sh_ctx *c, sh_pass *pass, const float *doutput, sh_ready ready,
                       void *arg);

/* Floats of the step arena that a training pass over T tokens in B sequences takes, with the gradient of its output.
 * `scratch` is left as it was. */
int64_t sh_model_pass_floats(const sh_model *m, int64_t T, int64_t B, sh_arena *scratch);

/* Whether a layer mixes tokens: it counts attention among its operations. */
bool sh_has_attention(const sh_layer *l);

/* Forward operations of a batch: linear and attention parts, x2 per multiply-add. */
void sh_model_flops(const sh_model *m, const sh_batch *b, double *linear, double *attention);

#endif
