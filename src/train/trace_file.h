/* train/trace_file.h: `shoal train --trace steps=10-12`: those steps of all ranks as one file for Perfetto
 * (ui.perfetto.dev) or chrome://tracing. A process is a rank, its threads are the main thread and what it has in
 * flight.
 *
 *   sh_tracer x;
 *   SH_TRY(sh_tracer_open(&x, options, world, folder));
 *   for every step n = 1, 2, ...:  sh_tracer_before(&x, n);  step;  sh_tracer_after(&x, n);
 *   sh_tracer_close(&x, status);
 *
 * Times are rank 0's: clocks are compared at the first traced step and at the end, and what lies between goes by a
 * line. All are collective over the world, but cost a branch outside the traced steps.
 */
#ifndef SH_TRAIN_TRACE_FILE_H
#define SH_TRAIN_TRACE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/outfile.h"
#include "mpi/grid.h"
#include "shoal/train.h"

typedef struct sh_tracer {
  const sh_axis *world;
  int64_t first, last; /* steps; 0: nothing is traced */
  int64_t from, to;    /* those that were run */
  char path[4096];
  sh_outfile file;           /* rank 0 */
  double offset[2], when[2]; /* seconds to rank 0's clock, and at what time here */
} sh_tracer;

/* The file is o->trace_file, or trace.json in `folder`; it is written beside that name, at once, so that a wrong path
 * is no surprise, and takes it when it is whole. */
sh_status sh_tracer_open(sh_tracer *x, const sh_train_options *o, const sh_axis *world, const char *folder);
void sh_tracer_before(sh_tracer *x, int64_t step);
void sh_tracer_after(sh_tracer *x, int64_t step); /* and what fell due behind it */
/* A run that ended well within the traced steps still gets its file; one that failed (on all ranks) gets none. */
void sh_tracer_close(sh_tracer *x, sh_status status);

#endif
