/* nn/embed_input.h: x_i = sqrt(D) E[item_i] + P[i], then dropout (reference: HSTU's and SASRec's input layer).
 *
 * Slots: out[0] x [T x D]; on a split axis sliced, [own T x D]. No input slot: reads sh_ctx.rows (item rows) and the
 * batch's positions.
 */
#ifndef SH_NN_EMBED_INPUT_H
#define SH_NN_EMBED_INPUT_H

#include "nn/layer.h"

typedef struct sh_embed_input_conf {
  int D, N; /* N positions: rows of the position table */
  double dropout;
  sh_init pos_init;
} sh_embed_input_conf;

extern const sh_layer_ops sh_embed_input_ops;

#endif
