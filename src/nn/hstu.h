/* nn/hstu.h: the HSTU layer (Zhai et al., "Actions Speak Louder than Words", ICML 2024), cut where tensor parallelism
 * must communicate: the norm of the attention output spans all heads.
 *
 *   hstu_in   X~ = LN(x);  [U|V|Q|K] = silu(X~ W);  A_ij = silu(q_i.k_j + pos[N-1+j-i] + ts[bucket(i,j)]) / N, j <= i;
 *             o = A V per head;  stats = (sum o, sum o^2) over the local columns, in double
 *   (the stats are summed over the tensor axis)
 *   hstu_out  y = u * LN(o) from the stats, or [u | LN(o) | u LN(o)] with concat_ua;  x' = x + drop(y) Wo + bo
 *
 * Slots: hstu_in  in: x [T x D]               out: u [T x h dv], o [T x h dv], stats [T x 4]
 *        hstu_out in: x, u, o, stats          out: x' [T x D]; on a split axis part 0 adds x and bo, the parts' sum is
 * x' h = heads of this part. The two calls share the prefix of their names ("block.0.uvqk", "block.0.o_weight").
 *
 * Parameters: uvqk [D x 2H(dv+dqk)], segments U|V|Q|K, unit = one head; pos_w [2N-1]; ts_w [129];
 *             o_weight [(1|3) H dv x D] (in x out); o_bias [D].
 */
#ifndef SH_NN_HSTU_H
#define SH_NN_HSTU_H

#include "nn/layer.h"

enum { SH_TIME_BUCKETS = 129 };

typedef struct sh_hstu_conf {
  int D, H, dqk, dv, N; /* N: attention divisor and size of the position table */
  float eps;
  double dropout; /* in front of the output projection */
  bool time_bias, concat_ua;
} sh_hstu_conf;

/* The statistics of row r: two doubles in a row of the slot (a float sum of squares would cancel against the mean). */
enum { SH_HSTU_STATS = 4 };
static inline double *sh_hstu_sums(float *stats, int64_t r) { return (double *)(void *)(stats + SH_HSTU_STATS * r); }

extern const sh_layer_ops sh_hstu_in_ops, sh_hstu_out_ops;

#endif
