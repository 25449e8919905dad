/* core/log.h: what a run says while it works.
 *
 * Information goes to standard output, from one process only (the one that speaks: rank 0); warnings go to standard
 * error with their rank. Failures are not logged: they travel as sh_status and are printed once, by main.
 * Lines are written whole, so those of several processes do not mix. Call from one thread at a time.
 */
#ifndef SH_CORE_LOG_H
#define SH_CORE_LOG_H

typedef enum sh_log_level { SH_LOG_QUIET, SH_LOG_NORMAL } sh_log_level;

/* Before it is called a process speaks as rank 0 of 1. The level is that of the environment (SHOAL_LOG = quiet |
 * normal; normal without it). */
void sh_log_setup(int rank, int size);
sh_log_level sh_log_current(void);

/* A line (without line end) on standard output, from rank 0, unless quiet. */
void sh_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* "shoal: warning: ..." on standard error from the rank that calls ("rank 3" when there are several). */
void sh_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
