#include "dist/tensor.h"

#include <assert.h>
#include <string.h>

#include "mpi/coll.h"

static void no_params(sh_layer *l, sh_params *p) { (void)l, (void)p; }
static int64_t no_tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)l, (void)T, (void)B;
  return 0;
}
static void no_flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  (void)l, (void)b;
  *linear = *attention = 0;
}

/* Floats of every rank's slice of n rows, in the scratch arena; `own` is where this rank's begins in the whole. */
static int64_t *slices(const sh_layer *l, const sh_ctx *c, int64_t n, int64_t *own) {
  const sh_tensor_conf *f = l->conf;
  int64_t *count = SH_ARENA_NEW(c->scratch, int64_t, l->parts);
  for (int r = 0; r < l->parts; r++)
    count[r] = (sh_deal_first(n, r + 1, l->parts) - sh_deal_first(n, r, l->parts)) * f->width;
  *own = sh_deal_first(n, l->part, l->parts) * f->width;
  return count;
}

static void gather(const sh_layer *l, const sh_ctx *c, int64_t n, const float *slice, float *whole) {
  const sh_tensor_conf *f = l->conf;
  int64_t own;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  sh_allgatherv(f->axis, slice, slices(l, c, n, &own), sizeof(float), whole);
  sh_arena_release(c->scratch, mark);
}

static void scatter(const sh_layer *l, const sh_ctx *c, int64_t n, const float *whole, float *slice) {
  const sh_tensor_conf *f = l->conf;
  int64_t own;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  sh_reduce_scatter_f32(f->axis, whole, slices(l, c, n, &own), slice);
  sh_arena_release(c->scratch, mark);
}

static void take(const sh_layer *l, const sh_ctx *c, int64_t n, const float *whole, float *slice) {
  int64_t own;
  sh_arena_mark mark = sh_arena_save(c->scratch);
  const int64_t *count = slices(l, c, n, &own);
  memcpy(slice, whole + own, sizeof(float) * (size_t)count[l->part]);
  sh_arena_release(c->scratch, mark);
}

static void copy(const sh_layer *l, int64_t n, const float *x, float *y) {
  memcpy(y, x, sizeof(float) * (size_t)(n * ((const sh_tensor_conf *)l->conf)->width));
}

static void sum(const sh_layer *l, int64_t n, const float *x, float *y) {
  const sh_tensor_conf *f = l->conf;
  copy(l, n, x, y);
  sh_sum_f32(f->axis, y, n * f->width);
}

/* ---- enter ---- */

static void gather_forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  gather(l, c, a->R, a->in[0], a->out[0]);
}
static void gather_backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  assert(!a->add[0]);
  scatter(l, c, a->T, a->dout[0], a->din[0]);
}

static void copy_forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  (void)c;
  copy(l, a->R, a->in[0], a->out[0]);
}
static void copy_backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  (void)c;
  assert(!a->add[0]);
  sum(l, a->T, a->dout[0], a->din[0]);
}

/* ---- leave ---- */

static void scatter_forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  if (!a->again) scatter(l, c, a->R, a->in[0], a->out[0]);
}
static void scatter_backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  assert(!a->add[0]);
  gather(l, c, a->T, a->dout[0], a->din[0]);
}

static void sum_forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  (void)c;
  if (!a->again) sum(l, a->R, a->in[0], a->out[0]);
}
static void sum_backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  (void)c;
  assert(!a->add[0]);
  copy(l, a->T, a->dout[0], a->din[0]);
}

/* ---- begin and end with whole rows ---- */

static void spread_backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  assert(!a->add[0]);
  take(l, c, a->T, a->dout[0], a->din[0]);
}

static void take_forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  take(l, c, a->R, a->in[0], a->out[0]);
}

/* ---- span ---- */

static void span(const sh_layer *l, int64_t n, const float *x, float *y) {
  const sh_tensor_conf *f = l->conf;
  int64_t floats = n * f->width * (f->doubles ? 2 : 1);
  memcpy(y, x, sizeof(float) * (size_t)floats);
  if (f->doubles)
    sh_sum_f64(f->axis, (double *)(void *)y, n * f->width);
  else
    sh_sum_f32(f->axis, y, n * f->width);
}
static void span_forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  (void)c;
  if (!a->again) span(l, a->R, a->in[0], a->out[0]);
}
static void span_backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  (void)c;
  assert(!a->add[0]);
  span(l, a->T, a->dout[0], a->din[0]);
}

#define OPS(what, ahead, back, ...)                                                                                    \
  const sh_layer_ops sh_tensor_##what##_ops = {.name = "tensor_" #what,                                                \
                                               .conf_bytes = sizeof(sh_tensor_conf),                                   \
                                               .params = no_params,                                                    \
                                               .tape = no_tape,                                                        \
                                               .forward = ahead,                                                       \
                                               .backward = back,                                                       \
                                               .flops = no_flops,                                                      \
                                               .supports_last_only = true,                                             \
                                               .communicates = true,                                                   \
                                               __VA_ARGS__}

OPS(gather, gather_forward, gather_backward, .remade = true);
OPS(copy, copy_forward, copy_backward, .remade = true);
OPS(scatter, scatter_forward, scatter_backward, .input_dies = true);
OPS(sum, sum_forward, sum_backward, .input_dies = true);
OPS(spread, gather_forward, spread_backward, .input_dies = true);
OPS(take, take_forward, scatter_backward, .input_dies = true);
OPS(span, span_forward, span_backward, .input_dies = false);
