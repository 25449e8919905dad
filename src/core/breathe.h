/* core/breathe.h: long loops let communication advance. A level below MPI: mpi/progress.c sets the hook in the mode
 * that needs it, and elsewhere a breath costs the test of a pointer. Call it at the start of a block of work (some
 * 10 us to 1 ms) of a parallel loop; it acts on the thread that communicates, and touches no data of the caller. */
#ifndef SH_CORE_BREATHE_H
#define SH_CORE_BREATHE_H

extern void (*sh_breathe_hook)(void); /* NULL: nothing to do */

static inline void sh_breathe(void) {
  if (sh_breathe_hook) sh_breathe_hook();
}

#endif
