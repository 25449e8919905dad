/* optim/dense.h: the optimiser of dense parameters (AdamW, Loshchilov & Hutter 2019), schedules and clipping. */
#ifndef SH_OPTIM_DENSE_H
#define SH_OPTIM_DENSE_H

#include "core/config.h"
#include "core/params.h"
#include "kernels/kernels.h"
#include "optim/state.h"

/* AdamW works element by element: its state may be cut anywhere. */
#define SH_DENSE_GRAIN SH_GRAIN_ELEMENT

/* Update the values of `held` slices; exp_avg and exp_avg_sq are arrays over them. Decoupled weight decay on the rows
 * that ask for it; scale multiplies every gradient; step = 1, 2, ... Element-wise: neither threads nor slices change a
 * bit. */
void sh_dense_adamw(const sh_kernels *k, sh_params *p, const sh_slices *held, const sh_conf_optim *o, double lr,
                    double scale, int64_t step, float *exp_avg, float *exp_avg_sq);

/* This rank's share of the squared norm of summed gradients: own slices, of replicated parameters those of the first
 * rank of the tensor axis. The sum of all shares over the *world* is the squared norm. Fixed blocks in a fixed order.
 */
double sh_dense_grad_sq(const sh_params *p, const sh_slices *own);

/* What learning rates are multiplied by in update `step` (1, 2, ... of `total`): linear warm-up to 1, then the schedule
 * down to optim.lr_end / optim.lr. */
double sh_schedule_factor(const sh_conf_optim *o, int64_t step, int64_t total);

/* What gradients are multiplied by: 1 when clip is 0 or the norm is within it. */
double sh_clip_scale(double clip, double norm);

#endif
