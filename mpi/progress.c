#include "mpi/progress.h"

#include <assert.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "core/breathe.h"
#include "core/log.h"
#include "core/timer.h"
#include "mpi/coll.h"
#include "mpi/internal.h"

/* Between two looks at what has arrived. A look costs some 5 us, and what sockets hold lasts longer than this at 10
 * Gbit/s and more. */
static const double poll_every = 250e-6;
static const long sleep_ns = 250000;

static const char *const names[] = {"none", "poll", "thread"};

/* `open` belongs to who advances: with a thread to that, which takes `queue` over; the lock guards the rest. */
static struct {
  sh_progress mode;
  sh_request *open; /* in the order begun */
  double looked;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t begun, ended;
  sh_request *queue;
  int under_way, waiting; /* operations; threads in sh_engine_wait */
  bool stop;
} engine = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

static void append(sh_request **list, sh_request *r) {
  while (*list) list = &(*list)->next;
  r->next = NULL;
  *list = r;
}

static void post(sh_request *r) {
  r->nmessages = 0;
  r->part->post(r);
}

/* As far as it goes now; true when done. */
static bool advance(sh_request *r) {
  for (;;) {
    int arrived;
    SH_MPI(r->axis, MPI_Testall, r->nmessages, r->message, &arrived, MPI_STATUSES_IGNORE);
    if (!arrived) return false;
    if (r->part->then) r->part->then(r);
    r->part++, r->tag++;
    if (!r->part->post) return true;
    post(r);
  }
}

/* A look at everything open; returns how many are done now. One that is done is its owner's again at once. */
static int advance_all(void) {
  int finished = 0;
  for (sh_request **at = &engine.open; *at;) {
    sh_request *r = *at;
    if (!advance(r)) {
      at = &r->next;
      continue;
    }
    *at = r->next;
    r->completed = sh_now();
    atomic_store(&r->done, true);
    finished++;
  }
  return finished;
}

static void look(void) {
  if (omp_get_level() > 1 || omp_get_thread_num() != 0 || !engine.open) return; /* the main thread's alone */
  double now = sh_now();
  if (now - engine.looked < poll_every) return;
  sh_mpi_op first = engine.open->op; /* whose kind pays */
  advance_all();
  sh_mpi_polled(&first, now);
  engine.looked = sh_now();
}

/* Called with the lock held: nothing has happened since the last look. */
static void rest(void) {
  if (engine.waiting) { /* the core is free */
    pthread_mutex_unlock(&engine.lock);
    sched_yield();
    pthread_mutex_lock(&engine.lock);
    return;
  }
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += sleep_ns;
  if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
  pthread_cond_timedwait(&engine.begun, &engine.lock, &until);
}

static void *work(void *unused) {
  (void)unused;
  pthread_mutex_lock(&engine.lock);
  while (!engine.stop) {
    sh_request *r;
    while ((r = engine.queue)) {
      engine.queue = r->next;
      append(&engine.open, r);
      post(r);
    }
    if (engine.under_way == 0) {
      pthread_cond_wait(&engine.begun, &engine.lock);
      continue;
    }
    pthread_mutex_unlock(&engine.lock);
    int finished = advance_all();
    pthread_mutex_lock(&engine.lock);
    engine.under_way -= finished;
    if (finished > 0)
      pthread_cond_broadcast(&engine.ended);
    else if (!engine.queue)
      rest();
  }
  pthread_mutex_unlock(&engine.lock);
  return NULL;
}

void sh_engine_begin(sh_request *r) {
  atomic_store(&r->done, false);
  if (engine.mode != SH_PROGRESS_THREAD) {
    append(&engine.open, r);
    post(r);
    return;
  }
  pthread_mutex_lock(&engine.lock);
  append(&engine.queue, r);
  engine.under_way++;
  pthread_cond_signal(&engine.begun);
  pthread_mutex_unlock(&engine.lock);
}

void sh_engine_wait(sh_request *r) {
  if (engine.mode != SH_PROGRESS_THREAD) {
    while (!atomic_load(&r->done))
      if (advance_all() == 0) sched_yield();
    return;
  }
  if (atomic_load(&r->done)) return;
  pthread_mutex_lock(&engine.lock);
  engine.waiting++;
  pthread_cond_signal(&engine.begun);
  while (!atomic_load(&r->done)) pthread_cond_wait(&engine.ended, &engine.lock);
  engine.waiting--;
  pthread_mutex_unlock(&engine.lock);
}

void sh_progress_drain(void) {
  if (engine.mode != SH_PROGRESS_THREAD) return;
  pthread_mutex_lock(&engine.lock);
  engine.waiting++;
  pthread_cond_signal(&engine.begun);
  while (engine.under_way > 0) pthread_cond_wait(&engine.ended, &engine.lock);
  engine.waiting--;
  pthread_mutex_unlock(&engine.lock);
}

/* Signals are for the thread that was there before. */
static bool start_thread(void) {
  sigset_t all, before;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&engine.begun, &monotonic);
  pthread_condattr_destroy(&monotonic);
  engine.stop = false;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(&engine.thread, NULL, work, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!started) pthread_cond_destroy(&engine.begun);
  return started;
}

sh_progress sh_progress_start(const sh_axis *world, const char *mode) {
  assert(!engine.open && engine.under_way == 0);
  sh_progress_stop();
  int wanted = SH_PROGRESS_THREAD;
  while (wanted > 0 && strcmp(names[wanted], mode) != 0) wanted--;
  if (world->size == 1) return engine.mode;
  if (wanted == SH_PROGRESS_THREAD) {
    int level = 0;
    SH_MPI(world, MPI_Query_thread, &level);
    double able = level == MPI_THREAD_MULTIPLE && start_thread();
    double all = able;
    sh_sum_f64(world, &all, 1);
    if (all < world->size) {
      engine.mode = able > 0 ? SH_PROGRESS_THREAD : SH_PROGRESS_NONE;
      sh_progress_stop();
      wanted = SH_PROGRESS_POLL;
      if (world->index == 0)
        sh_warn("comm.progress = thread: MPI was not initialised with MPI_THREAD_MULTIPLE on all ranks; using poll");
    }
  }
  engine.mode = (sh_progress)wanted;
  if (wanted == SH_PROGRESS_POLL) sh_breathe_hook = look;
  return engine.mode;
}

void sh_progress_stop(void) {
  if (engine.mode == SH_PROGRESS_THREAD) {
    sh_progress_drain();
    pthread_mutex_lock(&engine.lock);
    engine.stop = true;
    pthread_cond_signal(&engine.begun);
    pthread_mutex_unlock(&engine.lock);
    pthread_join(engine.thread, NULL);
    pthread_cond_destroy(&engine.begun);
  }
  sh_breathe_hook = NULL;
  engine.mode = SH_PROGRESS_NONE;
}

const char *sh_progress_name(void) { return names[engine.mode]; }
