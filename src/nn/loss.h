/* nn/loss.h: losses over rows a rank holds. Forward and gradient are one call: the scale is known beforehand.
 *
 *   loss = scale * sum over tokens of ( logsumexp(s+, s_1 .. s_R) - s+ ),   scale = 1 / tokens of the global batch
 *   s = h . e / temperature with h, e of length 1 (l2_norm) or as they are
 *
 * sampled: R negatives of each token; a negative equal to the positive is masked (Zhai et al. 2024).
 * shared:  one set of R negatives for all tokens with logQ correction (Bengio & Senecal 2008; Yi et al. 2019): a
 *          candidate's logit is lowered by log of its expected count in the set; also in-batch negatives.
 */
#ifndef SH_NN_LOSS_H
#define SH_NN_LOSS_H

#include "core/config.h"
#include "nn/layer.h"

typedef struct sh_loss_args {
  const sh_conf_loss *conf;
  int64_t T;
  int D;
  const float *hidden; /* [T x D] */
  float *dhidden;      /* [T x D], overwritten; NULL: the value only */
  const sh_rows *rows; /* candidates; gradients are added */
  const int32_t
      *reference; /* slots; sampled: [T x (1 + R)], each token's target, then its negatives; shared: [T] targets */
  const int32_t *negative; /* shared: [R] slots */
  int64_t R;
  const float *correction;          /* shared: [R] log expected count of each negative, or NULL */
  const float *positive_correction; /* shared: [T] the same of each token's target, or NULL */
  double scale;
} sh_loss_args;

/* Both return the unscaled sum over the T tokens; scale enters the gradients alone. */
double sh_loss_sampled(const sh_loss_args *a, const sh_ctx *c);
double sh_loss_shared(const sh_loss_args *a, const sh_ctx *c);

/* Floats of workspace of the sampled loss with gradients, for predictions of memory. */
int64_t sh_loss_sampled_floats(int64_t tokens, int64_t R, int64_t rows, int64_t width, int64_t threads);

#endif
