/* tools/bench_internal.h: what the parts of `shoal bench` share. */
#ifndef SH_TOOLS_BENCH_INTERNAL_H
#define SH_TOOLS_BENCH_INTERNAL_H

#include <stdio.h>

#include "train/trainer.h"

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
  sh_trainer *t;
  int64_t steps;
  double peak;  /* FLOP/s of all ranks, 0 before it is known */
  double triad; /* bytes/s of all ranks, 0 before it is known */
  int nrows, capacity;
  sh_bench_row *row;
  double phase[SH_PHASES], parts_tokens; /* seconds in parts of each phase, over so many tokens; 0: not measured */
  double tokens_per_second, users_per_second, resident; /* bytes of the largest rank */
} sh_bench_state;

/* tools/bench_report.c. All but the last are collective over the world. */
void sh_bench_title(sh_bench_state *b, const char *title); /* a blank line and the heads of columns */
/* Prints and keeps a row; share: of what `time` is a part, in seconds, or 0. Returns the slowest rank's time. */
double sh_bench_add(sh_bench_state *b, const char *section, const char *name, double seconds, double share,
                    double flops, double bytes);
double sh_median(double *x, int64_t n); /* sorts x */
void sh_bench_json(const sh_bench_state *b, FILE *f);

/* Median time of a call, repeated until it is known well; local. */
double sh_bench_time(void (*call)(void *), void *arg);

/* Each measures one section; collective over the world. */
void sh_bench_machine(sh_bench_state *b);
sh_status sh_bench_kernels(sh_bench_state *b);
sh_status sh_bench_parts(sh_bench_state *b);
sh_status sh_bench_step(sh_bench_state *b);
sh_status sh_bench_eval(sh_bench_state *b);

/* This rank's part of the batch at `step` of epoch 0, with time runs when the model asks for them, in a stage of its
 * own (freed also after a failure). */
sh_status sh_bench_stage(sh_trainer *t, sh_stage *s, int64_t step);
void sh_bench_stage_free(sh_stage *s);
/* FLOP of a whole training step on this rank's part (linear 3x, attention 3.5x, loss). */
double sh_bench_step_flops(sh_trainer *t, const sh_stage *s);

/* A data set with MovieLens-1M's lengths, gaps between events and number of candidates, drawn from a fixed seed. */
sh_status sh_bench_data(const char *path);

/* Peak resident memory of this process since the last reset, in bytes. */
void sh_resident_reset(void);
double sh_resident_peak(void);

#endif
