#include "shoal/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[2048];

const char *sh_error_message(void) { return message; }

const char *sh_status_text(sh_status s) {
  switch (s) {
  case SH_OK:
    return "finished";
  case SH_ERR_INTERNAL:
    return "internal or I/O failure";
  case SH_ERR_USAGE:
    return "usage or configuration";
  case SH_ERR_DATA:
    return "bad data or checkpoint";
  case SH_ERR_DIVERGED:
    return "diverged (NaN, loss limit)";
  case SH_ERR_CKPT:
    return "checkpoint could not be written";
  case SH_ERR_STALLED:
    return "no progress (watchdog)";
  case SH_STOPPED:
    return "stopped on request with a checkpoint written: run again";
  }
  return "unknown";
}

sh_status sh_fail(sh_status code, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vsnprintf(message, sizeof message, fmt, args);
  va_end(args);
  return code;
}

sh_status sh_fail_context(sh_status code, const char *fmt, ...) {
  char inner[sizeof message];
  memcpy(inner, message, sizeof inner);
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(message, sizeof message, fmt, args);
  va_end(args);
  if (n < 0) n = 0;
  if ((size_t)n < sizeof message) snprintf(message + n, sizeof message - (size_t)n, ": %s", inner);
  return code;
}
