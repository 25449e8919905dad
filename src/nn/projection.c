#include "nn/projection.h"

#include <string.h>

#include "nn/linear.h"

/* Floats that hold z. */
static int64_t z_floats(const sh_projection *p, int64_t T) {
  int64_t n = T * sh_projection_width(p);
  return p->half ? (n + 1) / 2 : n;
}

int64_t sh_projection_tape(const sh_projection *p, int64_t T) {
  return (p->slim ? 0 : T * p->D) + (T + 15) / 16 * 16 + z_floats(p, T) + T * sh_projection_rest(p);
}

sh_projected sh_projection_view(const sh_projection *p, int64_t T, float *tape) {
  sh_projected v = {.xn = p->slim ? NULL : tape};
  v.rstd = tape + (p->slim ? 0 : T * p->D);
  float *z = v.rstd + (T + 15) / 16 * 16;
  if (p->half)
    v.half_z = (uint16_t *)z;
  else
    v.z = z;
  v.vqk = z + z_floats(p, T);
  return v;
}

static void norm_rows(const sh_projection *p, const sh_ctx *c, const sh_args *a, sh_projected v, int64_t t, int64_t n) {
  (p->rms ? c->k->rmsnorm : c->k->layernorm)(n, p->D, p->eps, a->in[0] + t * p->D, p->D, v.xn + t * p->D, p->D,
                                             v.rstd + t);
}

/* silu of a token's z, which is kept: columns first .. first+n-1 to y. */
static void activate(const sh_projection *p, const sh_kernels *k, sh_projected v, int64_t t, const float *z,
                     int64_t first, int64_t n, float *y) {
  if (p->half)
    k->silu_half(n, z + first, v.half_z + t * sh_projection_width(p) + first, y);
  else
    k->silu(n, z + first, y);
}

static void project_all(const sh_projection *p, const sh_ctx *c, const sh_args *a, sh_projected v,
                        const float *weight) {
  int64_t D = p->D, W = sh_projection_width(p), rest = sh_projection_rest(p);
  sh_right w = sh_right_of(c, D, W, weight, W, false);
  float *blocks = p->half ? SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *W *sh_max_threads()) : NULL;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(a->T); block++) {
    sh_breathe();
    int64_t t = block * SH_TOKEN_BLOCK, n = sh_block_rows(a->T, block);
    float *z = p->half ? blocks + SH_TOKEN_BLOCK * W * sh_thread() : v.z + t * W;
    norm_rows(p, c, a, v, t, n);
    c->k->multiply(n, v.xn + t * D, D, &w, z, W, false);
    for (int64_t i = 0; i < n; i++) {
      activate(p, c->k, v, t + i, z + i * W, 0, p->u, a->out[0] + (t + i) * p->u);
      activate(p, c->k, v, t + i, z + i * W, p->u, rest, v.vqk + (t + i) * rest);
    }
  }
}

/* silu(x W) of a block of rows, where the columns go. */
static void activated(const sh_ctx *c, int64_t rows, const float *x, int64_t ldx, const sh_right *w, float *y,
                      int64_t ldy) {
  c->k->multiply(rows, x, ldx, w, y, ldy, false);
  for (int64_t i = 0; i < rows; i++) c->k->silu(w->N, y + i * ldy, y + i * ldy);
}

/* v and k of every token, u and q of output rows. */
static void project_last(const sh_projection *p, const sh_ctx *c, const sh_args *a, sh_projected v, const float *weight,
                         float *q_rows) {
  int64_t D = p->D, W = sh_projection_width(p), rest = sh_projection_rest(p), q = p->u + p->v, k = q + p->q;
  sh_right wu = sh_right_of(c, D, p->u, weight, W, false), wv = sh_right_of(c, D, p->v, weight + p->u, W, false);
  sh_right wq = sh_right_of(c, D, p->q, weight + q, W, false), wk = sh_right_of(c, D, p->q, weight + k, W, false);
  float *blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *D *sh_max_threads());
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t block = 0; block < sh_token_blocks(a->T); block++) {
      int64_t t = block * SH_TOKEN_BLOCK, n = sh_block_rows(a->T, block);
      norm_rows(p, c, a, v, t, n);
      activated(c, n, v.xn + t * D, D, &wv, v.vqk + t * rest, rest);
      activated(c, n, v.xn + t * D, D, &wk, v.vqk + t * rest + p->v + p->q, rest);
    }
#pragma omp for schedule(static)
    for (int64_t block = 0; block < sh_token_blocks(a->R); block++) {
      int64_t r = block * SH_TOKEN_BLOCK, n = sh_block_rows(a->R, block);
      float *xn = blocks + SH_TOKEN_BLOCK * D * sh_thread();
      for (int64_t i = 0; i < n; i++) memcpy(xn + i * D, v.xn + a->row_token[r + i] * D, sizeof(float) * (size_t)D);
      activated(c, n, xn, D, &wu, a->out[0] + r * p->u, p->u);
      activated(c, n, xn, D, &wq, q_rows + r * p->q, p->q);
    }
  }
}

void sh_project(const sh_projection *p, const sh_ctx *c, const sh_args *a, sh_projected v, float *q_rows) {
  const float *weight = sh_param_value(c->params, p->weight);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  if (p->slim) v.xn = SH_ARENA_NEW(c->scratch, float, a->T * p->D);
  if (a->row_token)
    project_last(p, c, a, v, weight, q_rows);
  else
    project_all(p, c, a, v, weight);
  sh_arena_release(c->scratch, mark);
}

typedef struct backward {
  const sh_projection *p;
  const sh_ctx *c;
  const sh_args *a;
  sh_projected v;
  const float *d;
  sh_right wt;   /* W^T */
  float *blocks; /* [threads x SH_TOKEN_BLOCK x D] */
} backward;

/* dz of a token's columns first .. first+n-1 from the gradient dy of what activate made of them. */
static void activate_back(const backward *b, int64_t t, int64_t first, int64_t n, const float *dy, float *dz) {
  int64_t at = t * sh_projection_width(b->p) + first;
  if (b->p->half)
    b->c->k->silu_back_half(n, b->v.half_z + at, dy, dz + first);
  else
    b->c->k->silu_back(n, b->v.z + at, dy, dz + first);
}

/* dz of tokens t .. t+n-1, and with it their gradients of x. */
static void back_rows(void *of, int64_t t, int64_t n, float *dz) {
  const backward *b = of;
  const sh_projection *p = b->p;
  const sh_kernels *k = b->c->k;
  const sh_args *a = b->a;
  int64_t D = p->D, W = sh_projection_width(p), rest = sh_projection_rest(p);
  float *dxn = b->blocks + SH_TOKEN_BLOCK * D * sh_thread();
  if (p->slim) norm_rows(p, b->c, a, b->v, t, n);
  for (int64_t i = 0; i < n; i++) {
    activate_back(b, t + i, 0, p->u, a->dout[0] + (t + i) * p->u, dz + i * W);
    activate_back(b, t + i, p->u, rest, b->d + (t + i) * rest, dz + i * W);
  }
  if (!a->din[0]) return;
  k->multiply(n, dz, W, &b->wt, dxn, D, false);
  (p->rms ? k->rmsnorm_back : k->layernorm_back)(n, D, b->v.xn + t * D, D, b->v.rstd + t, dxn, D, a->din[0] + t * D, D,
                                                 a->add[0]);
}

void sh_project_back(const sh_projection *p, const sh_ctx *c, const sh_args *a, sh_projected v, const float *d) {
  int64_t D = p->D, W = sh_projection_width(p);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  if (p->slim) v.xn = SH_ARENA_NEW(c->scratch, float, a->T *D);
  backward b = {.p = p, .c = c, .a = a, .v = v, .d = d};
  b.wt = sh_right_of(c, W, D, sh_param_value(c->params, p->weight), W, true);
  b.blocks = SH_ARENA_NEW(c->scratch, float, SH_TOKEN_BLOCK *D *sh_max_threads());
  sh_linear_grad_of(c, a->T, D, W, v.xn, D, back_rows, &b, sh_param_grad(c->params, p->weight), W);
  sh_arena_release(c->scratch, mark);
}
