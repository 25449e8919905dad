/* core/trace.h: spans of time on this rank, kept in a buffer made before the traced steps. Off, a span costs a branch.
 *
 *   double t = sh_trace_begin();
 *   forward(...);
 *   sh_trace_end(t, layer->name, "forward");
 *
 * Names must live until the buffer is written (src/train/trace_file.h). Main thread only: spans of other threads, such
 * as a communication thread's, are recorded by the main thread when it meets their end. Spans of one lane nest, as
 * calls do; those of SH_LANE_COMM may overlap. A full buffer drops spans and counts them.
 */
#ifndef SH_CORE_TRACE_H
#define SH_CORE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/timer.h"

typedef enum sh_lane { SH_LANE_MAIN, SH_LANE_COMM } sh_lane;

typedef struct sh_span {
  double start, end; /* sh_now */
  const char *name;  /* a phase, a layer's name, or a kind of communication */
  const char *part;  /* "step" "phase" "forward" "backward", or the collective */
  const char *axis;  /* of communication, else NULL */
  int64_t number;    /* bytes of communication, or the step */
  sh_lane lane;
} sh_span;

typedef struct sh_spans {
  sh_span *span;
  int64_t n, capacity, dropped;
} sh_spans;

extern bool sh_tracing; /* spans are recorded */

void sh_trace_open(int64_t capacity); /* makes the buffer */
void sh_trace_switch(bool on);        /* spans that began while off are left out */
const sh_spans *sh_trace_spans(void);
void sh_trace_close(void);

void sh_trace_add(const sh_span *s);

static inline double sh_trace_begin(void) { return sh_tracing ? sh_now() : 0; }

static inline void sh_trace_end(double start, const char *name, const char *part) {
  if (sh_tracing) sh_trace_add(&(sh_span){.start = start, .end = sh_now(), .name = name, .part = part});
}

static inline void sh_trace_comm(sh_lane lane, double start, double end, const char *kind, const char *call,
                                 const char *axis, int64_t bytes) {
  if (sh_tracing)
    sh_trace_add(&(sh_span){
        .start = start, .end = end, .name = kind, .part = call, .axis = axis, .number = bytes, .lane = lane});
}

#endif
