/* dist/plan.h: where the arrays of one pass through a model lie, and which of them backward makes anew.
 *
 * Everything a pass needs (slots, their gradients, tapes) is known from the calls and the batch's size, so it is placed
 * before the pass begins: each array gets a place in one block of floats for as long as it is read, and the places of
 * the dead are used again. A gradient lives from its first reader's backward to its producer's; in inference a slot
 * dies with its last reader.
 *
 * model.recompute makes groups of calls. A group's tapes, and slots that no other call reads, die at its forward, which
 * runs once more in front of its backward. Dropout is counted, not stored, so the bits are the same.
 *
 *   attention   a group is one call with attention: its tape is dropped, its outputs stay
 *   layer       a group is a block, the consecutive calls of one name: what flows from block to block stays
 *
 * The last group is never dropped: backward begins with it, so keeping it costs nothing at the peak.
 *
 * On a tensor axis what split layers read and leave is passing: whole rows, while kept slots are sliced or split. Such
 * a slot dies with its last reader's forward; what entered is gathered again in front of its readers' backward.
 */
#ifndef SH_DIST_PLAN_H
#define SH_DIST_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"

typedef enum sh_recompute { SH_RECOMPUTE_NONE, SH_RECOMPUTE_ATTENTION, SH_RECOMPUTE_LAYER } sh_recompute;

/* Places are floats from the start of the block, multiples of 16; -1 where there is no array. */
typedef struct sh_plan {
  int64_t floats;      /* size of the block */
  int64_t live;        /* most floats alive at one time: what no placing could do without */
  int64_t *value;      /* [nslots] in forward */
  int64_t *tape;       /* [ncalls] */
  int64_t *again;      /* [nslots] in backward: another place when it is made anew */
  int64_t *tape_again; /* [ncalls] */
  int64_t *grad;       /* [nslots] */
  bool *dropped;       /* [nslots] dies with its group's forward and is made anew */
  bool *passing;       /* [nslots] dies with its last reader's forward */
  int *remake;         /* [ncalls] the call that makes a passing input of this one's backward again, or -1 */
  int *rerun;          /* [ncalls] the call from which on forward runs again in front of this one's backward, or -1 */
} sh_plan;

/* What a pass is over. rows: of each slot, T, or B for those computed for last tokens only. */
typedef struct sh_plan_shape {
  int64_t T, B;
  bool train;
  const int64_t *rows; /* [nslots] */
} sh_plan_shape;

struct sh_model;
/* Arrays of the plan in `arena`. */
void sh_plan_make(const struct sh_model *m, const sh_plan_shape *shape, sh_arena *arena, sh_plan *plan);

#endif
