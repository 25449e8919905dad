/* dist/loss_full.h: full softmax over the table axis.
 *
 *   loss = scale * sum over tokens of ( logsumexp over candidates v of s_v - s_target ),  s_v = h . e_v / temperature
 *
 * Hidden states of all ranks travel in tiles of at most loss.tile_tokens tokens; each rank scores its own rows; running
 * maximum and sum and the target's logit are reduced; gradients of hidden states are reduce-scattered; gradients of
 * rows stay where the rows are (sh_table_add_local). Memory is bounded by the tile: never T x D of the world nor T x V.
 */
#ifndef SH_DIST_LOSS_FULL_H
#define SH_DIST_LOSS_FULL_H

#include "core/config.h"
#include "dist/table.h"
#include "nn/layer.h"

typedef struct sh_full_args {
  const sh_conf_loss *conf;
  sh_table *table;
  int64_t ncandidates;
  const int32_t *candidate; /* own candidate rows, as local row numbers, ascending */
  int64_t T;                /* tokens of this rank; may be 0 */
  int D;
  const float *hidden;   /* [T x D] */
  const int64_t *target; /* [T] keys; each must be a candidate */
  float *dhidden;        /* [T x D], overwritten; NULL: the value only */
  double scale;
} sh_full_args;

/* Collective over the table axis. Returns the unscaled sum over this rank's tokens. */
double sh_loss_full(const sh_full_args *a, const sh_ctx *c);

#endif
