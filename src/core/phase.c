#include "core/phase.h"

#include <stdatomic.h>
#include <string.h>

#include "core/timer.h"
#include "core/trace.h"

static const char *const names[SH_PHASES] = {"other",    "load", "fetch",  "forward", "loss",
                                             "backward", "sync", "update", "eval",    "checkpoint"};

void (*sh_phase_hook)(sh_phase_id phase, int64_t step);

/* Atomic for the watchdog's thread, which reads them; nobody else writes. */
static _Atomic int phase;
static _Atomic int64_t step, moves, since_ns;
static double since, step_since, seconds[SH_PHASES];

const char *sh_phase_name(int p) { return names[p]; }

int sh_phase_find(const char *name) {
  for (int i = 0; i < SH_PHASES; i++)
    if (!strcmp(name, names[i])) return i;
  return -1;
}

void sh_phase(sh_phase_id next) {
  int last = atomic_load_explicit(&phase, memory_order_relaxed);
  double now = sh_now();
  seconds[last] += now - since;
  if (sh_tracing && last != SH_PHASE_OTHER)
    sh_trace_add(&(sh_span){.start = since, .end = now, .name = names[last], .part = "phase"});
  since = now;
  atomic_store_explicit(&since_ns, (int64_t)(now * 1e9), memory_order_relaxed);
  atomic_store_explicit(&phase, (int)next, memory_order_relaxed);
  sh_phase_moved();
  if (sh_phase_hook) sh_phase_hook(next, atomic_load_explicit(&step, memory_order_relaxed));
}

void sh_phase_step(int64_t n) {
  step_since = sh_now();
  atomic_store_explicit(&step, n, memory_order_relaxed);
}

void sh_phase_step_end(void) {
  sh_phase(SH_PHASE_OTHER);
  if (sh_tracing)
    sh_trace_add(&(sh_span){.start = step_since,
                            .end = since,
                            .name = "step",
                            .part = "step",
                            .number = atomic_load_explicit(&step, memory_order_relaxed)});
}

void sh_phase_moved(void) { atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed); }

sh_phase_place sh_phase_now(void) {
  return (sh_phase_place){.phase = (sh_phase_id)atomic_load_explicit(&phase, memory_order_relaxed),
                          .step = atomic_load_explicit(&step, memory_order_relaxed),
                          .since = 1e-9 * (double)atomic_load_explicit(&since_ns, memory_order_relaxed),
                          .moves = atomic_load_explicit(&moves, memory_order_relaxed)};
}

double sh_phase_seconds(int p) { return seconds[p]; }
