#include "train/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/phase.h"
#include "core/timer.h"
#include "mpi/account.h"

static struct {
  int rank;
  char host[64];
  double limit; /* seconds; 0: not running */
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t stopped;
  bool stop;
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

/* True when asked to stop. */
static bool sleep_for(double seconds) {
  double until = sh_now() + seconds;
  struct timespec t = {.tv_sec = (time_t)until, .tv_nsec = (long)(1e9 * (until - (double)(time_t)until))};
  while (!dog.stop && sh_now() < until) pthread_cond_timedwait(&dog.stopped, &dog.lock, &t);
  return dog.stop;
}

/* One write, past the C library's buffers: the main thread may hold their locks. */
static void say_where(double quiet, const sh_phase_place *p) {
  char line[1024];
  double now = sh_now();
  sh_comm_place c;
  int n = snprintf(line, sizeof line, "shoal: rank %d on %s: no progress for %.3g min: step %lld, phase %s for %.1f s",
                   dog.rank, dog.host, quiet / 60, (long long)p->step, sh_phase_name(p->phase), now - p->since);
  if (sh_comm_now(&c))
    n += snprintf(line + n, sizeof line - (size_t)n, ", in %s (%s) over axis %s, called at %s:%d, for %.1f s", c.call,
                  c.kind, c.axis, c.file, c.line, now - c.since);
  else
    n += snprintf(line + n, sizeof line - (size_t)n, ", in no collective");
  line[n++] = '\n';
  if (write(STDERR_FILENO, line, (size_t)n) < 0) return;
}

static void say_going_on(void) {
  char line[256];
  int n = snprintf(line, sizeof line, "shoal: rank %d on %s: goes on; it was only slow\n", dog.rank, dog.host);
  if (write(STDERR_FILENO, line, (size_t)n) < 0) return;
}

static void *watch(void *unused) {
  (void)unused;
  pthread_mutex_lock(&dog.lock);
  sh_phase_place last = sh_phase_now();
  double nap = clamp(dog.limit / 20, 0.01, 1), looked = sh_now(), quiet = 0;
  while (!sleep_for(nap)) {
    sh_phase_place now = sh_phase_now();
    /* A process that was suspended slept far longer than it asked for: that is not the run's fault. */
    quiet += clamp(sh_now() - looked, 0, 4 * nap);
    looked = sh_now();
    if (now.moves != last.moves) {
      last = now;
      quiet = 0;
    } else if (quiet > dog.limit) {
      say_where(quiet, &now);
      bool stopped = sleep_for(clamp(dog.limit / 5, 0.5, 10)); /* ranks that stopped a little later speak as well */
      if (!stopped && sh_phase_now().moves == now.moves) _exit(SH_ERR_STALLED);
      if (!stopped) say_going_on();
      quiet = 0;
    }
  }
  pthread_mutex_unlock(&dog.lock);
  return NULL;
}

sh_status sh_watchdog_start(const sh_axis *world, double minutes) {
  sh_watchdog_stop();
  if (minutes <= 0) return SH_OK;
  dog.rank = world->index;
  dog.limit = 60 * minutes;
  dog.stop = false;
  if (gethostname(dog.host, sizeof dog.host - 1)) strcpy(dog.host, "?");
  dog.host[strcspn(dog.host, ".")] = 0;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&dog.stopped, &monotonic);
  pthread_condattr_destroy(&monotonic);
  sh_phase(SH_PHASE_OTHER); /* the clock of what comes first starts here */
  sigset_t all, before;     /* signals are for the main thread */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&dog.thread, NULL, watch, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!failed) return SH_OK;
  dog.limit = 0;
  return sh_fail(SH_ERR_INTERNAL, "comm.watchdog: no thread to be had: %s", strerror(failed));
}

void sh_watchdog_stop(void) {
  if (dog.limit <= 0) return;
  pthread_mutex_lock(&dog.lock);
  dog.stop = true;
  pthread_cond_signal(&dog.stopped);
  pthread_mutex_unlock(&dog.lock);
  pthread_join(dog.thread, NULL);
  pthread_cond_destroy(&dog.stopped);
  dog.limit = 0;
}
