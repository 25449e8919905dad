/* shoal/bench.h: time and arithmetic rate of the machine, of kernels, of a model's layers, and of whole training steps.
 */
#ifndef SHOAL_BENCH_H
#define SHOAL_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sh_world;

/* Zero means: the default said here. */
typedef struct sh_bench_options {
  const char *config; /* YAML file; NULL: the defaults, HSTU as published for MovieLens-1M */
  int nset;
  const char *const *set; /* "section.key=value", and bench.length, bench.items, bench.users: synthetic sequences */
  const char *shapes;  /* file: NAME [base=RECIPE.yaml] [section.key=value ...] a line; each is measured; `set` wins */
  int64_t steps;       /* measured training steps (24, or a shape's bench.steps) */
  const char *threads; /* "1,2": everything once with each number of threads; NULL: train.threads */
  const char *only;    /* "step,eval": some of machine, kernels, layers, step, eval; NULL: all these, with shapes:
                          step; table, overlap only when named */
  bool synthetic;      /* use synthetic sequences even when data.path exists */
  const char *json;    /* file: one JSON object a line, one line a shape and number of threads */
} sh_bench_options;

/* Whether any shape asks for a communication thread, to be known before MPI is initialised (sh_world_start). */
bool sh_bench_wants_threads(const sh_bench_options *o);

/* Trains for a few steps on data.path, or, where that file does not exist, on synthetic sequences of MovieLens-1M's
 * lengths and times; writes no run folder and no checkpoint. Tables go to `out` on rank 0: times are those of the
 * slowest rank, FLOP and bytes those of all ranks, medians over repetitions (docs/BENCHMARKS.md has the definitions).
 * Collective over the world. */
sh_status sh_bench(struct sh_world *world, const sh_bench_options *o, FILE *out);

/* Two files that `json` wrote, part by part: time before and after, and how many times faster it became, beside the
 * machine's own speed. SH_ERR_USAGE where a file cannot be read, SH_ERR_DATA where it holds no such figures. Local. */
sh_status sh_bench_compare(const char *old_json, const char *new_json, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
