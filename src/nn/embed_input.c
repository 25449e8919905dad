#include "nn/embed_input.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "core/csr.h"
#include "core/rng.h"
#include "nn/linear.h"

static void params(sh_layer *l, sh_params *p) {
  const sh_embed_input_conf *f = l->conf;
  sh_param row = {.ndim = 2,
                  .dim = {f->N, f->D},
                  .split = -1,
                  .tgrad = SH_TGRAD_PARTIAL,
                  .grain = SH_GRAIN_ROW,
                  .init = f->pos_init,
                  .decay = true,
                  .tie = -1};
  snprintf(row.name, sizeof row.name, "%s.pos_emb", l->name);
  l->param[0] = sh_params_add(p, &row);
}

static int64_t tape(const sh_layer *l, int64_t T, int64_t B) {
  (void)l, (void)T, (void)B;
  return 0;
}

/* Own tokens: t counts from the first. */
static int64_t first_of(const sh_layer *l, int64_t T) { return sh_deal_first(T, l->part, l->parts); }
static int64_t own_of(const sh_layer *l, int64_t T) { return sh_deal_first(T, l->part + 1, l->parts) - first_of(l, T); }

static void forward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_embed_input_conf *f = l->conf;
  const float *pos = sh_param_value(c->params, l->param[0]);
  sh_drop drop = sh_layer_drop(l, c, SH_SITE_DROP_INPUT, f->dropout);
  int64_t first = first_of(l, a->T), own = own_of(l, a->T);
  const int32_t *position = c->batch->position + first;
  float scale = sqrtf((float)f->D);
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < own; t++) {
    const float *e = c->rows->value + (int64_t)c->rows->slot[t] * c->rows->ld, *p = pos + position[t] * f->D;
    float *x = a->out[0] + t * f->D;
    assert(position[t] < f->N);
    for (int d = 0; d < f->D; d++) x[d] = scale * e[d] + p[d];
    sh_drop_row(c, &drop, first + t, 0, f->D, x, x);
  }
}

static void backward(const sh_layer *l, const sh_ctx *c, const sh_args *a) {
  const sh_embed_input_conf *f = l->conf;
  const sh_batch *b = c->batch;
  int64_t D = f->D, first = first_of(l, a->T), own = own_of(l, a->T), longest = sh_longest(b);
  sh_drop drop = sh_layer_drop(l, c, SH_SITE_DROP_INPUT, f->dropout);
  float *dpos = sh_param_grad(c->params, l->param[0]), scale = sqrtf((float)D);
  sh_arena_mark mark = sh_arena_save(c->scratch);
  float *dx = SH_ARENA_NEW(c->scratch, float, own *D);
  sh_csr by_row;
  sh_csr_build(&by_row, own, c->rows->slot, c->rows->nslots, c->scratch);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < own; t++) sh_drop_row(c, &drop, first + t, 0, D, a->dout[0] + t * D, dx + t * D);
#pragma omp for schedule(static) nowait
    for (int64_t p = 0; p < longest; p++)
      for (int64_t s = 0; s < b->B; s++) {
        int64_t t = b->offsets[s] + p - first;
        if (b->offsets[s] + p < b->offsets[s + 1] && t >= 0 && t < own) c->k->axpy(D, 1.f, dx + t * D, dpos + p * D);
      }
#pragma omp for schedule(static)
    for (int64_t r = 0; r < by_row.rows; r++)
      for (int32_t q = by_row.start[r]; q < by_row.start[r + 1]; q++)
        c->k->axpy(D, scale, dx + by_row.item[q] * D, c->rows->grad + r * c->rows->ld);
  }
  sh_arena_release(c->scratch, mark);
}

static void flops(const sh_layer *l, const sh_batch *b, double *linear, double *attention) {
  (void)l, (void)b;
  *linear = *attention = 0;
}

const sh_layer_ops sh_embed_input_ops = {.name = "embed_input",
                                         .conf_bytes = sizeof(sh_embed_input_conf),
                                         .params = params,
                                         .tape = tape,
                                         .forward = forward,
                                         .backward = backward,
                                         .flops = flops};
