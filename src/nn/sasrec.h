/* nn/sasrec.h: the SASRec block (Kang and McAuley, ICDM 2018) as the generative-recommenders baseline runs it: only the
 * query is normalised, the residual starts from the normalised input, and the second norm is the one the feed-forward
 * network adds to.
 *
 *   sasrec_attention  Q = LN(x);  q = Q Wq + bq, [k|v] = x [Wk|Wv] + [bk|bv];  a_ij = softmax_j(q_i.k_j / sqrt(d)), j
 * <= i; h = Q + concat_heads(sum_j drop(a_ij) v_j) Wo + bo sasrec_ffn        z = LN(h);  x' = z + drop(drop(act(z W1 +
 * b1)) W2 + b2),  act = relu or gelu (erf)
 *
 * LN has no scale and no shift; d = D / H.
 * Slots: sasrec_attention  in: x [T x D]   out: h [T x D]
 *        sasrec_ffn        in: h [T x D]   out: x' [T x D]
 * On a split axis a part holds H / parts heads and F / parts hidden columns; part 0 adds Q and bo (z and b2), and the
 * parts' sum is h (x').
 *
 * Parameters, after the call's name, and the upstream state_dict they correspond to (upstream stores out x in):
 *   qkv_weight [D x 3D]  segments q|k|v, unit = one head   attention_layers.<l>.in_proj_weight transposed
 *   qkv_bias   [3D]      likewise                          attention_layers.<l>.in_proj_bias
 *   o_weight   [D x D]   rows split by head                attention_layers.<l>.out_proj.weight transposed
 *   o_bias     [D]                                         attention_layers.<l>.out_proj.bias
 *   w1         [D x F]   columns split                     forward_layers.<l>._conv1d.0.weight[:, :, 0] transposed
 *   b1         [F]       split                             forward_layers.<l>._conv1d.0.bias
 *   w2         [F x D]   rows split                        forward_layers.<l>._conv1d.3.weight[:, :, 0] transposed
 *   b2         [D]                                         forward_layers.<l>._conv1d.3.bias
 * The true gradient of the key part of qkv_bias is zero (the softmax does not see a shift of its scores).
 */
#ifndef SH_NN_SASREC_H
#define SH_NN_SASREC_H

#include "nn/layer.h"

typedef struct sh_sasrec_conf {
  int D, H; /* H divides D */
  int F;    /* hidden width of the feed-forward network */
  int N;    /* dropout of the weight of key j in head h: element h N + j; no sequence is longer */
  float eps;
  double attention_dropout, ffn_dropout;
  bool gelu;
} sh_sasrec_conf;

extern const sh_layer_ops sh_sasrec_attention_ops, sh_sasrec_ffn_ops;

#endif
