/* support/layer_bench.h: one layer, whole or a part of the tensor axis, with everything it reads and writes, filled
 * with the same random numbers each time. For tests/unit/test_layers.c.
 */
#ifndef SH_TESTS_LAYER_BENCH_H
#define SH_TESTS_LAYER_BENCH_H

#include "nn/layer.h"
#include "support/make_batch.h"

/* Width of layers; rows of the item table; tokens and sequences of the batch. */
enum {
  SH_BENCH_D = 12,
  SH_BENCH_ITEMS = 23,
  SH_BENCH_LD = 16,
  SH_BENCH_T = SH_TEST_TOKENS,
  SH_BENCH_B = SH_TEST_LENGTHS
};

/* What a slot holds: numbers of any kind, or statistics of each row of the slot before it: the sum and the sum of
 * squares as two doubles in four floats (nn/hstu.h), or the sum of squares. */
typedef enum sh_slot_kind { SH_SLOT_NUMBERS, SH_SLOT_SUMS, SH_SLOT_SQUARES } sh_slot_kind;
typedef struct sh_slot_case {
  int width;   /* floats a row when there is one part; 0 ends the list */
  bool split;  /* a part holds its share of the columns; otherwise all of an input, an addend of an output */
  bool sliced; /* a part holds its share of the rows */
  bool only;   /* input read by this call alone: its gradient is written, never added to nor left out */
  sh_slot_kind kind;
} sh_slot_case;

typedef struct sh_layer_case {
  const sh_layer_ops *ops;
  const char *what;
  const void *conf;
  size_t dropout[2]; /* offsets of the probabilities in conf; 0: none */
  sh_slot_case in[SH_CALL_SLOTS], out[SH_CALL_SLOTS];
  double step, tolerance; /* of finite differences; 0: the usual. Activations with a kink need small steps */
} sh_layer_case;

typedef struct sh_layer_bench {
  const sh_layer_case *l;
  sh_arena mem, scratch;
  _Alignas(16) char conf[256];
  sh_layer layer;
  sh_params params;
  sh_batch batch;
  sh_rows rows;
  float *row_value; /* [items x ld] */
  sh_ctx c;
  sh_args a;
  int nin, nout, win[SH_CALL_SLOTS], wout[SH_CALL_SLOTS]; /* local widths in floats */
  float *in[SH_CALL_SLOTS], *dout[SH_CALL_SLOTS];
  float *moved[SH_CALL_SLOTS]; /* statistics in doubles as floats that finite differences move: see projection */
} sh_layer_bench;

/* Slots, rows and parameters are filled when there is one part; a part is filled by its caller. */
void sh_layer_bench_open(sh_layer_bench *b, const sh_layer_case *l, bool dropout, const sh_kernels *k, int part,
                         int parts);
void sh_layer_bench_close(sh_layer_bench *b);

/* Forward and backward from gradients of zero. */
void sh_layer_bench_run(sh_layer_bench *b);

/* Random projection of the outputs, sum of dout * out, by a forward pass. */
double sh_layer_bench_projection(void *bench);

/* Every array a run writes: outputs, gradients of inputs, of parameters, of rows. */
typedef struct sh_bench_array {
  char name[SH_PARAM_NAME + 16];
  float *at;
  int64_t n; /* floats */
  bool wide; /* they are doubles */
} sh_bench_array;
enum { SH_BENCH_ARRAYS = 2 * SH_CALL_SLOTS + SH_LAYER_PARAMS + 1 };
int sh_layer_bench_arrays(const sh_layer_bench *b, sh_bench_array out[SH_BENCH_ARRAYS]);

/* "hstu_out concat_ua" */
const char *sh_layer_case_name(const sh_layer_case *l);

/* Number of slots of a list. */
int sh_slot_count(const sh_slot_case *s);

/* 0, or 1 and a line on stderr, when `got` is further from `want` than tolerance times the largest entry of `want`. */
int sh_layer_differs(const char *test, const sh_layer_case *l, const sh_bench_array *got, const float *want,
                     double tolerance);

/* All arrays of two benches; returns how many differ. */
int sh_layer_bench_compare(const char *test, const sh_layer_bench *got, const sh_layer_bench *want, double tolerance);

static inline bool sh_slot_wide(const sh_slot_case *s) { return s->kind == SH_SLOT_SUMS; }

#endif
