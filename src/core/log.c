#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  int rank, size;
  int level; /* -1: not read from the environment yet */
} state = {.size = 1, .level = -1};

void sh_log_setup(int rank, int size) {
  state.rank = rank;
  state.size = size;
  state.level = -1;
}

sh_log_level sh_log_current(void) {
  if (state.level < 0) {
    const char *name = getenv("SHOAL_LOG");
    state.level = SH_LOG_NORMAL;
    if (name && !strcmp(name, "quiet")) state.level = SH_LOG_QUIET;
  }
  return (sh_log_level)state.level;
}

/* One fwrite of the whole line. */
static void say(FILE *out, const char *kind, const char *fmt, va_list args) {
  char line[4096];
  int n = 0, room = (int)sizeof line - 2;
  if (kind && state.size > 1) n = snprintf(line, (size_t)room, "shoal: rank %d: %s", state.rank, kind);
  if (kind && state.size == 1) n = snprintf(line, (size_t)room, "shoal: %s", kind);
  int more = vsnprintf(line + n, (size_t)(room - n), fmt, args);
  n = more < 0 ? n : n + more < room ? n + more : room - 1;
  line[n++] = '\n';
  fwrite(line, 1, (size_t)n, out);
  fflush(out);
}

void sh_info(const char *fmt, ...) {
  if (state.rank != 0 || sh_log_current() == SH_LOG_QUIET) return;
  va_list args;
  va_start(args, fmt);
  say(stdout, NULL, fmt, args);
  va_end(args);
}

void sh_warn(const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  say(stderr, "warning: ", fmt, args);
  va_end(args);
}
