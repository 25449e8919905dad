/* optim/state.h: which rows of each dense parameter a rank works for.
 *
 * A slice is a run of whole rows of a parameter's local part, so it is rectangular in global coordinates too. Slices of
 * the ranks of the data axis cover every parameter once: norms count each element once, and with ZeRO-1 (Rajbhandari et
 * al. 2020) a rank holds the optimiser's state of its own slices only.
 */
#ifndef SH_OPTIM_STATE_H
#define SH_OPTIM_STATE_H

#include "core/params.h"

typedef struct sh_slice {
  int64_t row, rows; /* of the local part; rows = 0: nothing of this parameter (also when it is tied) */
  int64_t at;        /* first float in an array over the slices (optimiser state) */
} sh_slice;

typedef struct sh_slices {
  int n;           /* parameters of the table */
  sh_slice *slice; /* [n] */
  int64_t floats;  /* of an array over the slices */
} sh_slices;

/* Every row of every parameter; arrays over it lie as the parameter block does. */
void sh_slices_whole(sh_slices *s, const sh_params *p);

/* What lies in [first[i], last[i]) of the block for parameter i, in whole rows; arrays over it are packed. */
void sh_slices_of(sh_slices *s, const sh_params *p, const int64_t *first, const int64_t *last);

void sh_slices_copy(sh_slices *s, const sh_slices *from);
void sh_slices_destroy(sh_slices *s);

/* Floats of parameter i's slice, and where it begins in the parameter block. */
static inline int64_t sh_slice_size(const sh_slices *s, const sh_params *p, int i) {
  return s->slice[i].rows * p->row[i].local[1];
}
static inline int64_t sh_slice_first(const sh_slices *s, const sh_params *p, int i) {
  return p->row[i].offset + s->slice[i].row * p->row[i].local[1];
}

#endif
