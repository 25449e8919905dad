#include "optim/rows.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/search.h"
#include "kernels/kernels.h"

enum { ONE, WIDE };
static const sh_row_optim_info registry[] = {
#define ROW_OPTIM(id, name, states, name0, shape0, name1, shape1, help)                                                \
  {#name, help, states, {name0, name1}, {shape0 == WIDE, shape1 == WIDE}},
#include "optim/row_optims.def"
#undef ROW_OPTIM
};

const sh_row_optim_info *sh_row_optim_get(sh_row_optim optim) {
  assert((unsigned)optim < SH_ROW_OPTIMS);
  return &registry[optim];
}

int sh_row_optim_find(const char *name) {
  for (int i = 0; i < SH_ROW_OPTIMS; i++)
    if (!strcmp(registry[i].name, name)) return i;
  return -1;
}

/* The constants of one step, rounded once. */
typedef struct scale {
  float keep; /* 1 - lr * weight_decay */
  float clip, lr, eps;
  float b1, b2, new1, new2; /* new = 1 - b */
  float step1, root2;       /* lr / (1 - b1^t), 1 / sqrt(1 - b2^t) */
} scale;

static scale scale_of(const sh_row_hyper *h) {
  double t = (double)h->step;
  return (scale){.keep = (float)(1 - h->lr * h->weight_decay),
                 .clip = (float)h->clip_scale,
                 .lr = (float)h->lr,
                 .eps = (float)h->eps,
                 .b1 = (float)h->beta1,
                 .b2 = (float)h->beta2,
                 .new1 = (float)(1 - h->beta1),
                 .new2 = (float)(1 - h->beta2),
                 .step1 = (float)(h->lr / (1 - pow(h->beta1, t))),
                 .root2 = (float)(1 / sqrt(1 - pow(h->beta2, t)))};
}

/* Moments that only decay end as denormals, which never reach zero and cost a hundred cycles each. */
static inline float flush(float x) { return fabsf(x) < FLT_MIN ? 0.0f : x; }

static void adam(float *restrict p, float *restrict m, float *restrict v, const float *restrict g, int64_t n, scale s) {
  for (int64_t i = 0; i < n; i++) {
    float gi = g[i] * s.clip;
    m[i] = flush(s.b1 * m[i] + s.new1 * gi);
    v[i] = flush(s.b2 * v[i] + s.new2 * gi * gi);
    p[i] = p[i] * s.keep - s.step1 * (m[i] / (sqrtf(v[i]) * s.root2 + s.eps));
  }
}

/* The same with g = 0. */
static void adam_idle(float *restrict p, float *restrict m, float *restrict v, int64_t n, scale s) {
  for (int64_t i = 0; i < n; i++) {
    m[i] = flush(s.b1 * m[i]);
    v[i] = flush(s.b2 * v[i]);
    p[i] = p[i] * s.keep - s.step1 * (m[i] / (sqrtf(v[i]) * s.root2 + s.eps));
  }
}

/* Rows [row, end), touched ones in between; runs of idle rows are one flat loop. */
static void adam_dense_span(const sh_row_view *r, int64_t row, int64_t end, scale s) {
  int64_t w = r->width;
  for (int64_t k = sh_lower_bound(r->touched, r->ntouched, row); row < end; k++) {
    int64_t next = k < r->ntouched && r->touched[k] < end ? r->touched[k] : end;
    adam_idle(r->value + row * w, r->state[0] + row * w, r->state[1] + row * w, (next - row) * w, s);
    if (next < end)
      adam(r->value + next * w, r->state[0] + next * w, r->state[1] + next * w, r->grad + k * r->grad_ld, w, s);
    row = next + 1;
  }
}

static void sh_row_adam_dense(const sh_row_view *r, scale s) {
  int64_t span = 16384 / r->width + 1, spans = (r->n + span - 1) / span;
#pragma omp parallel for schedule(static) if (spans > 1)
  for (int64_t i = 0; i < spans; i++) adam_dense_span(r, i * span, (i + 1) * span < r->n ? (i + 1) * span : r->n, s);
}

enum { FEW = 256, AHEAD = 16 }; /* rows not worth waking threads for; rows fetched ahead of their turn */

/* Touched rows lie anywhere in memory: without this each would be waited for. (GCC takes a function that only
 * prefetches for one without effect, and drops calls of it that it has not inlined early.) */
__attribute__((always_inline)) static inline void fetch_ahead(const sh_row_view *r, int64_t k, int wide_states) {
  if (k + AHEAD >= r->ntouched) return;
  int64_t row = r->touched[k + AHEAD];
  for (int64_t d = 0; d < r->width; d += 16) __builtin_prefetch(r->value + row * r->width + d, 1);
  for (int s = 0; s < wide_states; s++)
    for (int64_t d = 0; d < r->width; d += 16) __builtin_prefetch(r->state[s] + row * r->width + d, 1);
}

/* p = keep p - step g */
static inline void descend(const sh_kernels *k, float *restrict p, const float *restrict g, int64_t n, float keep,
                           float step) {
  if (keep == 1.f)
    k->axpy(n, -step, g, p);
  else
    for (int64_t i = 0; i < n; i++) p[i] = p[i] * keep - step * g[i];
}

static void sh_row_adam_lazy(const sh_row_view *r, scale s) {
  int64_t w = r->width;
#pragma omp parallel for schedule(static) if (r->ntouched > FEW)
  for (int64_t k = 0; k < r->ntouched; k++) {
    int64_t at = r->touched[k] * w;
    fetch_ahead(r, k, 2);
    adam(r->value + at, r->state[0] + at, r->state[1] + at, r->grad + k * r->grad_ld, w, s);
  }
}

static void sh_row_adagrad(const sh_row_view *r, scale s) {
  const sh_kernels *fast = sh_kernels_best();
  int64_t w = r->width;
#pragma omp parallel for schedule(static) if (r->ntouched > FEW)
  for (int64_t k = 0; k < r->ntouched; k++) {
    float *total = r->state[0] + r->touched[k];
    const float *g = r->grad + k * r->grad_ld;
    fetch_ahead(r, k, 0);
    if (k + AHEAD < r->ntouched) __builtin_prefetch(r->state[0] + r->touched[k + AHEAD], 1);
    *total += fast->dot(w, g, g) * s.clip * s.clip / (float)w;
    descend(fast, r->value + r->touched[k] * w, g, w, s.keep, s.lr * s.clip / (sqrtf(*total) + s.eps));
  }
}

static void sh_row_sgd(const sh_row_view *r, scale s) {
  const sh_kernels *fast = sh_kernels_best();
  int64_t w = r->width;
  float step = s.lr * s.clip;
#pragma omp parallel for schedule(static) if (r->ntouched > FEW)
  for (int64_t k = 0; k < r->ntouched; k++) {
    fetch_ahead(r, k, 0);
    descend(fast, r->value + r->touched[k] * w, r->grad + k * r->grad_ld, w, s.keep, step);
  }
}

void sh_row_optim_update(const sh_row_view *r, sh_row_optim optim, const sh_row_hyper *h) {
  static void (*const update[])(const sh_row_view *, scale) = {
#define ROW_OPTIM(id, name, states, name0, shape0, name1, shape1, help) sh_row_##name,
#include "optim/row_optims.def"
#undef ROW_OPTIM
  };
  assert((unsigned)optim < SH_ROW_OPTIMS && h->step >= 1);
  update[optim](r, scale_of(h));
}
