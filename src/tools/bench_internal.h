/* tools/bench_internal.h: what the parts of `shoal bench` share. */
#ifndef SH_TOOLS_BENCH_INTERNAL_H
#define SH_TOOLS_BENCH_INTERNAL_H

#include <stdio.h>

#include "shoal/bench.h"
#include "train/trainer.h"

/* Sequences made for a benchmark; zero: MovieLens-1M's. */
typedef struct sh_bench_sequences {
  int64_t users, items;
  int64_t length; /* inputs of every sequence */
} sh_bench_sequences;

enum { SH_BENCH_SHAPES = 64 };
typedef struct sh_bench_shape {
  char name[48]; /* "" without a file of shapes */
  sh_config conf;
  sh_bench_sequences sequences;
  int64_t steps;
} sh_bench_shape;

/* tools/bench_shapes.c: shape[SH_BENCH_SHAPES]; *n of them are filled. */
sh_status sh_bench_shapes(const sh_bench_options *o, sh_bench_shape *shape, int *n);

/* tools/bench.c: empties data.path where synthetic sequences stand in; makes those in a file of this rank's own, alike
 * everywhere: nodes need not share a folder for temporary files. `path` is empty after a failure without a file. */
sh_status sh_bench_choose_data(sh_bench_shape *s, bool synthetic);
sh_status sh_bench_own_data(const sh_bench_shape *s, char path[SH_TEXT]);

/* tools/bench.c: "1,2,4", the value of --option, to out[most]; each from 1 to `largest`. No text, no numbers. */
sh_status sh_bench_numbers(const char *option, const char *text, int64_t largest, int most, int64_t *out, int *n);

/* tools/bench.c: a line where the load of the last minute was too high to measure: other people's work makes every
 * figure a lower bound. */
void sh_bench_busy(FILE *out, const char *note);

/* A measured line. Time of the slowest rank; FLOP and bytes of all ranks; 0: does not apply. */
typedef struct sh_bench_row {
  const char *section; /* static */
  char name[64];
  double seconds, flops, bytes;
} sh_bench_row;

/* Phases of a training step that parts belong to. */
typedef enum sh_phase {
  SH_PHASE_LOAD,
  SH_PHASE_EXCHANGE,
  SH_PHASE_FORWARD,
  SH_PHASE_LOSS,
  SH_PHASE_BACKWARD,
  SH_PHASE_SYNC,
  SH_PHASE_OPTIMISER,
  SH_PHASES
} sh_phase;

typedef struct sh_bench_state {
  FILE *out; /* NULL on ranks that do not print */
  const char *shape;
  sh_trainer *t;
  int64_t steps;
  double peak; /* FLOP/s of all ranks in fp32, 0 before it is known */
  double peak_bf16;
  double triad; /* bytes/s of all ranks, 0 before it is known */
  int nrows, capacity;
  sh_bench_row *row;
  double phase[SH_PHASES], parts_tokens; /* seconds in parts of each phase, over so many tokens; 0: not measured */
  double tokens_per_second, users_per_second, resident; /* bytes of the largest rank */
  double step_tokens, step_flops, step_sent;            /* of the mean step; sent: bytes of the rank that sends most */
} sh_bench_state;

/* tools/bench_report.c. The first two are collective over the world. */
void sh_bench_title(sh_bench_state *b, const char *title); /* a blank line and the heads of columns */
/* Prints and keeps a row; share: of what `time` is a part, in seconds, or 0. Returns the slowest rank's time. */
double sh_bench_add(sh_bench_state *b, const char *section, const char *name, double seconds, double share,
                    double flops, double bytes);
double sh_median(double *x, int64_t n); /* sorts x */
void sh_bench_json(const sh_bench_state *b, FILE *f);
double sh_bench_mfu(const sh_bench_state *b); /* of the whole step; 0 when it was not measured */
/* A line for each shape and number of threads: heads when b is NULL. */
void sh_bench_summary(const sh_bench_state *b, FILE *f);

/* Median time of a call, repeated until it is known well; local. */
double sh_bench_time(void (*call)(void *), void *arg);

/* Peak and triad without a report, in some 0.3 s. Collective over the world. */
void sh_bench_yardsticks(sh_bench_state *b);

/* Each measures one section; collective over the world. */
void sh_bench_machine(sh_bench_state *b);
sh_status sh_bench_kernels(sh_bench_state *b);
sh_status sh_bench_parts(sh_bench_state *b);
sh_status sh_bench_step(sh_bench_state *b);
sh_status sh_bench_eval(sh_bench_state *b);
sh_status sh_bench_table(sh_bench_state *b);
sh_status sh_bench_overlap(sh_bench_state *b);

/* A stage of the bench's own, for sh_step_read (train/step.h). */
void sh_bench_stage_init(sh_trainer *t, sh_stage *s);
void sh_bench_stage_free(sh_stage *s);

/* A data set for batches of `users` histories of at most `max_len` inputs, drawn from a fixed seed: MovieLens-1M's gaps
 * between events, and, where `want` names no other, its lengths and number of candidates. */
sh_status sh_bench_data(const char *path, const sh_bench_sequences *want, int64_t users, int64_t max_len);

/* Peak resident memory of this process since the last reset, in bytes. */
void sh_resident_reset(void);
double sh_resident_peak(void);

#endif
