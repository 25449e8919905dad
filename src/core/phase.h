/* core/phase.h: where this rank stands in its work: the step, its phase, and whether anything moves.
 *
 *   sh_phase_step(11);            the step begins
 *   sh_phase(SH_PHASE_FORWARD);   from here on; ends the phase before
 *   sh_phase(SH_PHASE_OTHER);     none of them
 *
 * Seconds by phase go to the run's report, spans to the trace, the place to the watchdog. Main thread only, but for
 * sh_phase_now. Costs a clock reading.
 */
#ifndef SH_CORE_PHASE_H
#define SH_CORE_PHASE_H

#include <stdint.h>

typedef enum sh_phase_id {
  SH_PHASE_OTHER,
  SH_PHASE_LOAD,  /* read the next batch, name its rows */
  SH_PHASE_FETCH, /* rows of this batch arrive; ids of the next leave */
  SH_PHASE_FORWARD,
  SH_PHASE_LOSS,
  SH_PHASE_BACKWARD,
  SH_PHASE_SYNC, /* gradients of all ranks are summed */
  SH_PHASE_UPDATE,
  SH_PHASE_EVAL,
  SH_PHASE_CHECKPOINT,
  SH_PHASES
} sh_phase_id;

const char *sh_phase_name(int phase); /* "other" "load" "fetch" ... */
int sh_phase_find(const char *name);  /* -1: no such phase */

void sh_phase(sh_phase_id phase); /* counts as progress */
void sh_phase_step(int64_t step);
void sh_phase_step_end(void); /* the phase becomes SH_PHASE_OTHER */

/* Something moved inside a long phase (a round of an evaluation, a piece of a checkpoint). From any thread. */
void sh_phase_moved(void);

typedef struct sh_phase_place {
  sh_phase_id phase;
  int64_t step;
  double since;  /* of the phase, sh_now */
  int64_t moves; /* grows with progress */
} sh_phase_place;
sh_phase_place sh_phase_now(void);

double sh_phase_seconds(int phase); /* spent in it so far */

/* Called on entering every phase when not NULL: tests make a rank fail there (train/failure.h). */
extern void (*sh_phase_hook)(sh_phase_id phase, int64_t step);

#endif
