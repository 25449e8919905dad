/* shoal/status.h: how every fallible call of libshoal answers, and the exit codes of the programs.
 *
 * A call that can fail through the world (files, configuration, memory, MPI, HDF5) returns sh_status and leaves a
 * message for the calling thread. Kernels and layers cannot fail: they assert their preconditions.
 */
#ifndef SHOAL_STATUS_H
#define SHOAL_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* The values are the programs' exit codes (`shoal --help` prints them). */
typedef enum sh_status {
  SH_OK = 0,           /* finished */
  SH_ERR_INTERNAL = 1, /* internal or I/O failure */
  SH_ERR_USAGE = 2,    /* usage or configuration */
  SH_ERR_DATA = 3,     /* bad data or checkpoint */
  SH_ERR_DIVERGED = 4, /* NaN or loss limit */
  SH_ERR_CKPT = 5,     /* checkpoint could not be written */
  SH_ERR_STALLED = 6,  /* no progress (watchdog) */
  SH_STOPPED = 75      /* stopped on request, checkpoint written: run again */
} sh_status;

/* One line for each exit code, as `--help` prints it. */
const char *sh_status_text(sh_status s);

/* The calling thread's last message; "" when there is none. Valid until the next failure on this thread. */
const char *sh_error_message(void);

/* Record a message (printf form: what was found, what was expected, file/line/key) and return `code`. */
sh_status sh_fail(sh_status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put context in front of the last message ("reading x.csv: ...") and return `code` unchanged. */
sh_status sh_fail_context(sh_status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Hand a failure up. */
#define SH_TRY(expr)                                                                                                   \
  do {                                                                                                                 \
    sh_status sh_try_status_ = (expr);                                                                                 \
    if (sh_try_status_ != SH_OK) return sh_try_status_;                                                                \
  } while (0)

#ifdef __cplusplus
}
#endif
#endif
