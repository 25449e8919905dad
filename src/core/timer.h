/* core/timer.h: wall clock in seconds (monotonic). */
#ifndef SH_CORE_TIMER_H
#define SH_CORE_TIMER_H
#include <time.h>
static inline double sh_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#endif
