/* nn/loss_rows.h: length-normalised copies of hidden states and item rows, and the way back.
 *
 * n(x) = x / max(|x|, eps); the gradient through a clamped length is zero along the length. With l2_norm off the copy
 * is plain. Kernels unit_rows, unit_copies and unit_rows_back over all threads.
 */
#ifndef SH_NN_LOSS_ROWS_H
#define SH_NN_LOSS_ROWS_H

#include "kernels/kernels.h"

/* y[n x ldy] (ldy >= width, columns beyond it zero) from x[n x ldx]; length[n] = |x|. Parallel inside. */
void sh_normalise_rows(const sh_kernels *k, int64_t n, int width, bool l2_norm, float eps, const float *x, int64_t ldx,
                       float *y, int64_t ldy, float *length);

/* The same as copies to be gathered, sh_copy_floats(width) floats apart. Parallel inside. */
void sh_copy_rows(const sh_kernels *k, int64_t n, int width, bool l2_norm, float eps, const float *x, int64_t ldx,
                  float *copy, float *length);

/* dx (+)= the gradient for dy[n x lddy], with x and length of the way there. Parallel inside. */
void sh_normalise_rows_back(const sh_kernels *k, int64_t n, int width, bool l2_norm, float eps, const float *x,
                            int64_t ldx, const float *length, const float *dy, int64_t lddy, float *dx, int64_t lddx,
                            bool add);

#endif
