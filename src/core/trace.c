#include "core/trace.h"

#include <stdlib.h>

#include "core/arena.h"

bool sh_tracing;
static sh_spans spans;
static double since; /* switched on */

void sh_trace_open(int64_t capacity) {
  sh_trace_close();
  spans = (sh_spans){.span = sh_calloc((size_t)capacity, sizeof *spans.span), .capacity = capacity};
}

void sh_trace_switch(bool on) {
  sh_tracing = on && spans.span;
  since = sh_now();
}

const sh_spans *sh_trace_spans(void) { return &spans; }

void sh_trace_close(void) {
  sh_tracing = false;
  free(spans.span);
  spans = (sh_spans){0};
}

void sh_trace_add(const sh_span *s) {
  if (s->start < since) return;
  if (spans.n < spans.capacity)
    spans.span[spans.n++] = *s;
  else
    spans.dropped++;
}
