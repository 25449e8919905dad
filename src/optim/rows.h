/* optim/rows.h: optimisers of table rows. Local: each owner updates its own rows; the result does not depend on the
 * number of threads.
 *
 * With g = clip_scale * gradient, t = step, and decoupled weight decay p *= 1 - lr * weight_decay first:
 *   adam_dense, adam_lazy  m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 *                          p -= lr * (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)     (Loshchilov & Hutter, 2019)
 *                          dense: every row each step, g = 0 where untouched; lazy: touched rows only
 *   adagrad                s += mean over the row of g^2; p -= lr * g / (sqrt(s) + eps)     (row-wise, as TorchRec)
 *   sgd                    p -= lr * g
 * Weight decay reaches the rows the optimiser visits.
 */
#ifndef SH_OPTIM_ROWS_H
#define SH_OPTIM_ROWS_H

#include <stdbool.h>
#include <stdint.h>

/* Registry in optim/row_optims.def. */
typedef enum sh_row_optim {
#define ROW_OPTIM(id, name, states, name0, shape0, name1, shape1, help) id,
#include "optim/row_optims.def"
#undef ROW_OPTIM
  SH_ROW_OPTIMS
} sh_row_optim;

typedef struct sh_row_hyper {
  double lr, beta1, beta2, eps, weight_decay;
  double clip_scale; /* multiplies every gradient; 1 without clipping */
  int64_t step;      /* 1, 2, ... of this update */
} sh_row_hyper;

enum { SH_ROW_STATES = 2 };

typedef struct sh_row_optim_info {
  const char *name; /* as in the configuration */
  const char *help;
  int states; /* 0 .. SH_ROW_STATES */
  const char *state_name[SH_ROW_STATES];
  bool state_wide[SH_ROW_STATES]; /* as wide as a row; otherwise one number a row */
} sh_row_optim_info;

const sh_row_optim_info *sh_row_optim_get(sh_row_optim optim);
int sh_row_optim_find(const char *name); /* enum sh_row_optim, or -1 */

/* Rows, their state and their gradient. */
typedef struct sh_row_view {
  int64_t n;                   /* rows */
  int width;                   /* floats of a row; rows lie tight */
  float *value;                /* [n x width] */
  float *state[SH_ROW_STATES]; /* [n x width] or [n] */
  int64_t ntouched;
  const int64_t *touched; /* [ntouched] rows with a gradient, ascending */
  const float *grad;      /* [ntouched x grad_ld] */
  int64_t grad_ld;
} sh_row_view;
void sh_row_optim_update(const sh_row_view *r, sh_row_optim optim, const sh_row_hyper *h);

#endif
