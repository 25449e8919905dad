/* nn/projection.h: the projection at the head of HSTU and FuXi blocks, with what stands around it:
 *
 *   xn = norm(x); z = xn W [T x (u + v + q + k)]; u, v, q, k = silu(z)
 *
 * norm is a layer norm or RMS norm without scale and shift; k is as wide as q, and both may be 0.
 */
#ifndef SH_NN_PROJECTION_H
#define SH_NN_PROJECTION_H

#include "nn/layer.h"

typedef struct sh_projection {
  int64_t D, u, v, q; /* width of x; local widths */
  float eps;
  bool rms;   /* RMS norm */
  bool slim;  /* xn is not kept on the tape: backward makes it again (sh_keeps_norm) */
  bool half;  /* z is kept as bf16 */
  int weight; /* parameter W [D x (u + v + 2q)] */
} sh_projection;

/* Tape: xn [T x D] unless slim (then NULL), rstd [T], z [T x width] or, if half, half_z, vqk = silu(z) without u
 * [T x rest]. */
typedef struct sh_projected {
  float *xn, *rstd, *z, *vqk;
  uint16_t *half_z;
} sh_projected;
static inline int64_t sh_projection_rest(const sh_projection *p) { return p->v + 2 * p->q; }
static inline int64_t sh_projection_width(const sh_projection *p) { return p->u + sh_projection_rest(p); }
int64_t sh_projection_tape(const sh_projection *p, int64_t T);
sh_projected sh_projection_view(const sh_projection *p, int64_t T, float *tape);

/* u goes to a->out[0]. In last-only inference u and q are needed for output rows only: q goes to q_rows [R x q]. */
void sh_project(const sh_projection *p, const sh_ctx *c, const sh_args *a, sh_projected v, float *q_rows);

/* From d [T x rest], the gradients of v, q, k, and a->dout[0], that of u: gradients of x (a->din[0]) and of W. */
void sh_project_back(const sh_projection *p, const sh_ctx *c, const sh_args *a, sh_projected v, const float *d);

#endif
