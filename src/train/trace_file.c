#include "train/trace_file.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/log.h"
#include "core/timer.h"
#include "core/trace.h"
#include "mpi/coll.h"
#include "mpi/places.h"

enum { STEP_SPANS = 8192, MOST_SPANS = 1 << 20, LANES = 64 };

sh_status sh_tracer_open(sh_tracer *x, const sh_train_options *o, const sh_axis *world, const char *folder) {
  *x = (sh_tracer){.world = world, .first = o->trace_first, .last = o->trace_last};
  if (x->first == 0) return SH_OK;
  if (o->trace_file)
    snprintf(x->path, sizeof x->path, "%s", o->trace_file);
  else
    snprintf(x->path, sizeof x->path, "%s/trace.json", folder);
  return sh_agree(world, world->index == 0 ? sh_outfile_open(&x->file, x->path) : SH_OK);
}

static void compare_clocks(sh_tracer *x, int end) {
  x->offset[end] = sh_clock_offset(x->world);
  x->when[end] = sh_now();
}

void sh_tracer_before(sh_tracer *x, int64_t step) {
  if (step < x->first || step > x->last) return;
  x->to = step;
  if (sh_tracing) return;
  x->from = step;
  int64_t spans = (x->last - step + 1) * STEP_SPANS;
  sh_trace_open(spans < MOST_SPANS ? spans : MOST_SPANS);
  compare_clocks(x, 0);
  sh_trace_switch(true);
}

/* Text that grows. */
typedef struct text {
  char *data;
  size_t n, room;
} text;

static void __attribute__((format(printf, 2, 3))) put(text *t, const char *fmt, ...) {
  enum { LINE = 512 };
  if (t->n + LINE > t->room) {
    t->room = 2 * t->room + LINE;
    t->data = sh_realloc(t->data, t->room);
  }
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(t->data + t->n, LINE, fmt, args);
  va_end(args);
  t->n += n < LINE ? (size_t)n : LINE - 1;
}

/* Nanoseconds on rank 0's clock. It only grows with `t`, so spans that nest here nest there. */
static int64_t aligned(const sh_tracer *x, double t) {
  double length = x->when[1] - x->when[0], share = length > 0 ? (t - x->when[0]) / length : 0;
  return llround(1e9 * (t + x->offset[0] + share * (x->offset[1] - x->offset[0])));
}

static int by_start(const void *a, const void *b) {
  const sh_span *x = *(sh_span *const *)a, *y = *(sh_span *const *)b;
  return x->start < y->start ? -1 : x->start > y->start;
}

/* Operations in flight at the same time stand on threads of their own: lane[i] of span i, from 1; returns how many. */
static int deal_lanes(const sh_spans *s, int *lane) {
  const sh_span **order = sh_malloc(sizeof *order * (size_t)(s->n + 1));
  double busy[LANES] = {0};
  int lanes = 1;
  int64_t n = 0;
  for (int64_t i = 0; i < s->n; i++)
    if (s->span[i].lane == SH_LANE_COMM) order[n++] = &s->span[i];
  qsort(order, (size_t)n, sizeof *order, by_start);
  for (int64_t i = 0; i < n; i++) {
    int k = 0;
    while (k < LANES && busy[k] > order[i]->start) k++;
    lane[order[i] - s->span] = k < LANES ? k + 1 : 0; /* 0: no thread is free; left out */
    if (k == LANES) continue;
    busy[k] = order[i]->end;
    if (k + 1 > lanes) lanes = k + 1;
  }
  free(order);
  return lanes;
}

static void put_name(text *out, int rank, int thread, const char *what, const char *name) {
  put(out, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"args\":{\"name\":\"%s\"}}", rank, thread, what,
      name);
}

static void put_span(text *out, const sh_span *s, int rank, int thread, int64_t start, int64_t end) {
  int64_t length = end - start;
  bool comm = s->axis != NULL, step = !comm && s->number > 0;
  put(out, ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%lld.%03lld,\"dur\":%lld.%03lld,\"cat\":\"%s\"", rank, thread,
      (long long)(start / 1000), (long long)(start % 1000), (long long)(length / 1000), (long long)(length % 1000),
      comm ? "communication" : s->part);
  if (comm)
    put(out, ",\"name\":\"%s %s\",\"args\":{\"kind\":\"%s\",\"axis\":\"%s\",\"bytes\":%lld,\"call\":\"%s\"}}", s->name,
        s->axis, s->name, s->axis, (long long)s->number, s->part);
  else if (step)
    put(out, ",\"name\":\"%s %lld\"}", s->name, (long long)s->number);
  else
    put(out, ",\"name\":\"%s\"}", s->name);
}

/* This rank's events; `zero` is the first start of all, on rank 0's clock. */
static text events(const sh_tracer *x, const sh_spans *s, const sh_place *place, int64_t zero) {
  int rank = x->world->index;
  text out = {0};
  int *lane = sh_calloc((size_t)s->n + 1, sizeof *lane), lanes = deal_lanes(s, lane);
  char name[128];
  snprintf(name, sizeof name, "rank %d on %s", rank, place[rank].host);
  put_name(&out, rank, 0, "process_name", name);
  put(&out, ",\n{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_sort_index\",\"args\":{\"sort_index\":%d}}", rank, rank);
  put_name(&out, rank, 0, "thread_name", "main");
  for (int k = 1; k <= lanes; k++) {
    snprintf(name, sizeof name, k > 1 ? "communication %d" : "communication", k);
    put_name(&out, rank, k, "thread_name", name);
  }
  for (int64_t i = 0; i < s->n; i++)
    if (s->span[i].lane == SH_LANE_MAIN || lane[i] > 0)
      put_span(&out, &s->span[i], rank, lane[i], aligned(x, s->span[i].start) - zero,
               aligned(x, s->span[i].end) - zero);
  free(lane);
  return out;
}

static void append(void *file, int rank, const void *data, size_t bytes) {
  (void)rank;
  fwrite(data, 1, bytes, file);
}

static void write_file(sh_tracer *x) {
  const sh_spans *s = sh_trace_spans();
  compare_clocks(x, 1);
  double first = 0, lost = (double)s->dropped; /* max of -start */
  for (int64_t i = 0; i < s->n; i++) {
    double start = -(double)aligned(x, s->span[i].start);
    if (i == 0 || start > first) first = start;
  }
  if (s->n == 0) first = -1e300;
  sh_max_f64(x->world, &first, 1);
  sh_sum_f64(x->world, &lost, 1);
  sh_place *place = sh_calloc((size_t)x->world->size, sizeof *place);
  sh_places_gather(x->world, place);
  text mine = events(x, s, place, first > -1e299 ? (int64_t)-first : 0);
  FILE *f = x->file.f;
  if (f)
    fprintf(f, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{\"ph\":\"M\",\"pid\":0,\"name\":\"trace_of\","
               "\"args\":{\"name\":\"shoal\"}}");
  sh_collect(x->world, mine.data, mine.n, append, f);
  if (f) {
    fprintf(f, "\n]}\n");
    bool failed = sh_outfile_close(&x->file, true) != SH_OK;
    if (failed) sh_warn("%s", sh_error_message()); /* no reason to lose the run */
    if (lost > 0) sh_warn("%s: the buffers were full; %.0f spans are missing", x->path, lost);
    if (!failed) sh_info("trace of steps %lld-%lld in %s", (long long)x->from, (long long)x->to, x->path);
  }
  x->first = 0;
  free(mine.data);
  free(place);
  sh_trace_close();
}

void sh_tracer_after(sh_tracer *x, int64_t step) {
  if (!sh_tracing || step < x->last) return;
  sh_trace_switch(false);
  write_file(x);
}

void sh_tracer_close(sh_tracer *x, sh_status status) {
  if (x->first == 0) return;
  if (status != SH_OK || !sh_tracing) { /* an older file stays as it is */
    if (status == SH_OK && x->world->index == 0)
      sh_warn("%s: not written: none of steps %lld-%lld was run", x->path, (long long)x->first, (long long)x->last);
    sh_outfile_close(&x->file, false);
    x->first = 0;
    sh_trace_close();
    return;
  }
  sh_trace_switch(false);
  write_file(x);
}
