/* Preloaded into programs of the preset mpich by tests/mpirun.sh: Debian's MPICH spins on its core while it waits, and
 * tests have more ranks than cores. What it calls in a loop gives the core away when nothing has come. */
#include <dlfcn.h>
#include <sched.h>

unsigned ucp_worker_progress(void *worker);

unsigned ucp_worker_progress(void *worker) {
  static unsigned (*real)(void *);
  if (!real) real = (unsigned (*)(void *))dlsym(RTLD_NEXT, "ucp_worker_progress");
  unsigned moved = real ? real(worker) : 0;
  if (moved == 0) sched_yield();
  return moved;
}
