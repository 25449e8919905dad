/* nn/fuxi.h: the FuXi-alpha block (Ye et al., "FuXi-alpha: Scaling Recommendation Model with Feature Interaction
 * Enhanced Transformer", WWW 2025) and the FuXi-beta block ("FuXi-beta: Towards a Lightweight and Fast Large-Scale
 * Generative Recommendation Model", 2025), cut where tensor parallelism must communicate: the norm of c spans all
 * heads.
 *
 *   fuxi_in     X~ = RMS(x);  [U|V|Q|K] = silu(X~ W) (beta: [U|V]);  per head c = [P V, M V, A V] (beta: [P V, M V]),
 * where for j <= i  P_ij = pos[N-1+j-i],  A_ij = silu(q_i.k_j) / N  and alpha: M_ij = ts[bucket(i,j)];  beta: M_ij = a
 * (1+d)^-b or a exp(-e^b d), d = max(next_time_i - time_j, 0); stats = sum c^2 over the local columns (the stats are
 * summed over the tensor axis) fuxi_out    o = x + drop(u * RMS(c)) W0 + b0, the norm from the stats over all C H dv
 * columns ffn_swiglu  g = drop(RMS(o));  x' = o + (silu(g W1) * (g W3)) W2
 *
 * Slots: fuxi_in    in: x [T x D]        out: u [T x h C dv], c [T x h C dv], stats [T x 1]
 *        fuxi_out   in: x, u, c, stats   out: o [T x D]; on a split axis part 0 adds x and b0, the parts' sum is o
 *        ffn_swiglu in: o                out: x' [T x D]; likewise part 0 adds o
 * h = heads of this part, C = channels: position, time, semantic (alpha, 3) or position, time (beta, 2). Columns of u
 * and c: head outside, channel inside. RMS(z) = z / sqrt(mean(z^2) + eps). The calls share the prefix of their names.
 * Without time bias M is zero and the columns stay, so that shapes do not depend on it.
 *
 * Parameters, by their names in the authors' code (prefix _fuxi._attention_layers.<l>.), ours stored in x out:
 *   uvqk         [D x H (C+1) dv + 2 H dqk]  _uvqk                    segments U|V|Q|K, unit = one head (U: C dv wide)
 *   pos_w        [2N-1]                      _rel_attn_bias._pos_w
 *   ts_w         [129]       alpha           _rel_attn_bias._ts_w
 *   pow_a pow_b  [1]         beta, pow       _rel_attn_bias._pow_a, _pow_b
 *   exp_a exp_b  [1]         beta, exp       _rel_attn_bias._exp_a, _exp_b
 *   lin0_weight  [C H dv x D]                _mffn.lin0.weight transposed
 *   lin0_bias    [D]                         _mffn.lin0.bias
 *   lin1_weight  [D x F]                     _mffn.lin1.weight transposed
 *   lin3_weight  [D x F]                     _mffn.lin3.weight transposed
 *   lin2_weight  [F x D]                     _mffn.lin2.weight transposed
 */
#ifndef SH_NN_FUXI_H
#define SH_NN_FUXI_H

#include "nn/layer.h"

enum { SH_FUXI_BETA = 2, SH_FUXI_ALPHA = 3 }; /* channels */
enum { SH_FUXI_POW, SH_FUXI_EXP };

typedef struct sh_fuxi_conf {
  int channels;         /* SH_FUXI_ALPHA or SH_FUXI_BETA */
  int D, H, dqk, dv, N; /* dqk: alpha only; N: attention divisor and size of the position table */
  float eps;
  double dropout;    /* in front of the output projection */
  bool time_bias;    /* needs batch times (beta) or time runs (alpha) */
  int time_function; /* beta: SH_FUXI_POW or SH_FUXI_EXP */
} sh_fuxi_conf;

typedef struct sh_swiglu_conf {
  int D, F;
  float eps;
  double dropout; /* of the normalised input */
} sh_swiglu_conf;

extern const sh_layer_ops sh_fuxi_in_ops, sh_fuxi_out_ops, sh_ffn_swiglu_ops;

#endif
