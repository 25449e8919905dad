/* The way of rows to their users, and of gradients back. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dist/table_internal.h"

enum { FEW = 256, AHEAD = 8, BLOCK = 64 };

enum { FIRST, REST, PARTS };

void sh_fetch_init(sh_fetch *f, sh_table *t) {
  *f = (sh_fetch){.ld = (t->conf.width + 15) / 16 * 16, .impl = sh_calloc(1, sizeof *f->impl)};
  f->impl->table = t;
  for (int k = 0; k < PARTS; k++) {
    f->impl->part[k].exchange = sh_exchange_create(t->axis);
    f->impl->part[k].count = sh_calloc((size_t)t->axis->size, sizeof(int64_t));
  }
}

void sh_fetch_free(sh_fetch *f) {
  if (!f->impl) return;
  for (int k = 0; k < PARTS; k++) {
    sh_exchange_destroy(f->impl->part[k].exchange);
    free(f->impl->part[k].count);
  }
  if (f->impl->table->impl && f->impl->table->impl->late == f) f->impl->table->impl->late = NULL;
  free(f->impl);
  *f = (sh_fetch){0};
}

/* Keys of the slots: positions ascend, so the shard is mostly the one before or its neighbour. */
static void name_slots(const sh_table *t, sh_fetch *f, int64_t from, int64_t to) {
  const int64_t *position = f->impl->position, *start = t->shard_start;
#pragma omp parallel for schedule(static) if (to - from > FEW)
  for (int64_t first = from; first < to; first += FEW) {
    int64_t last = first + FEW < to ? first + FEW : to, shard = sh_shard_at(t, position[first]);
    for (int64_t s = first; s < last; s++) {
      if (position[s] >= start[shard + 1]) shard++;
      if (position[s] >= start[shard + 1]) shard = sh_shard_at(t, position[s]);
      f->slot_key[s] = ((position[s] - start[shard]) << t->shard_bits) + sh_bit_reverse(shard, t->shard_bits);
    }
  }
}

void sh_fetch_open(sh_table *t, sh_fetch *f, int64_t nkeys, int64_t nfirst, sh_arena *batch) {
  struct sh_fetch_impl *impl = f->impl;
  assert(impl->table == t && !t->impl->open && nfirst >= 0 && nfirst <= nkeys);
  t->impl->open = f;
  impl->batch = batch;
  impl->nfirst = t->axis->size > 1 ? nfirst : nkeys;
  impl->parts = t->axis->size > 1 ? PARTS : 0;
  f->nkeys = nkeys;
  f->rows = f->drows = NULL;
  f->slot = SH_ARENA_NEW(batch, int32_t, nkeys);
  sh_distinct_open(t, nkeys);
}

void sh_fetch_ask(sh_fetch *f, int64_t first, int64_t n, const int64_t *position, const uint32_t *choice) {
  assert(f->impl->table->impl->open == f && first >= 0 && first + n <= f->nkeys);
  sh_distinct_ask(f->impl->table, f->slot + first, n, position, choice);
}

/* The ids of one part, grouped by owner as they are. */
static void send_ids(sh_table *t, sh_fetch *f, sh_fetch_part *p, int64_t first, int64_t last) {
  const int64_t *rank_start = t->impl->rank_start, *position = f->impl->position + first;
  int64_t before = 0;
  p->first = first, p->n = last - first;
  for (int r = 0; r < t->axis->size; r++) {
    int64_t end = sh_lower_bound(position, p->n, rank_start[r + 1]);
    p->count[r] = end - before;
    before = end;
  }
  sh_exchange_ids_begin(p->exchange, position, p->count);
}

void sh_fetch_send(sh_table *t, sh_fetch *f) {
  struct sh_fetch_impl *impl = f->impl;
  sh_arena *batch = impl->batch;
  assert(t->impl->open == f);
  t->impl->open = NULL;
  f->nslots = sh_distinct_settle(t, f->slot, f->nkeys, impl->nfirst, batch, &impl->position, &f->nfirst);
  f->slot_key = SH_ARENA_NEW(batch, int64_t, f->nslots);
  name_slots(t, f, 0, f->nfirst);
  name_slots(t, f, f->nfirst, f->nslots);
  impl->asked = impl->rows_begun = impl->grads_begun[FIRST] = impl->grads_begun[REST] = false;
  impl->part[REST].nasked = 0;
  if (impl->parts > FIRST) send_ids(t, f, &impl->part[FIRST], 0, f->nfirst);
  if (impl->parts > REST) send_ids(t, f, &impl->part[REST], f->nfirst, f->nslots);
}

void sh_table_fetch_begin(sh_table *t, sh_fetch *f, const int64_t *keys, int64_t nkeys, sh_arena *batch) {
  sh_fetch_open(t, f, nkeys, nkeys, batch);
  if (f->impl->parts > REST) f->impl->parts = REST;
#pragma omp parallel for schedule(static) if (nkeys > FEW)
  for (int64_t first = 0; first < nkeys; first += FEW) {
    int64_t position[FEW], n = nkeys - first < FEW ? nkeys - first : FEW;
    for (int64_t k = 0; k < n; k++) position[k] = sh_table_position(t, keys[first + k]);
    sh_fetch_ask(f, first, n, position, NULL);
  }
  sh_fetch_send(t, f);
}

/* Own rows at these positions, in their order; padding is zero. */
static void gather(const sh_table *t, const int64_t *position, int64_t n, float *out, int64_t ld) {
  int64_t D = t->conf.width;
  size_t bytes = sizeof *out * (size_t)D;
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) {
    if (i + AHEAD < n) {
      const float *next = t->rows + (position[i + AHEAD] - t->position_first) * D;
      for (int64_t d = 0; d < D; d += 16) __builtin_prefetch(next + d);
    }
    memcpy(out + i * ld, t->rows + (position[i] - t->position_first) * D, bytes);
    for (int64_t d = D; d < ld; d++) out[i * ld + d] = 0;
  }
}

/* n rows from one row length to another; what is behind `width` becomes zero. */
static void repack(const float *in, int64_t in_ld, float *out, int64_t out_ld, int64_t width, int64_t n) {
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) {
    memcpy(out + i * out_ld, in + i * in_ld, sizeof *in * (size_t)width);
    for (int64_t d = width; d < out_ld; d++) out[i * out_ld + d] = 0;
  }
}

static void clear(float *x, int64_t ld, int64_t n) {
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) memset(x + i * ld, 0, sizeof *x * (size_t)ld);
}

/* Rows of a part at their owner, asked for or their gradients: those of the first part stand first. */
static float *wire_rows(const sh_fetch *f, int part) {
  const struct sh_fetch_impl *impl = f->impl;
  const sh_table *t = impl->table;
  int64_t n = impl->part[FIRST].nasked + impl->part[REST].nasked;
  float *wire = sh_buffer_need(&t->impl->wire, sizeof *wire * (size_t)(n * t->conf.width));
  return wire + (part == FIRST ? 0 : impl->part[FIRST].nasked * t->conf.width);
}

/* Tight rows of a part at their user: the rows themselves unless they are padded. */
static float *tight_rows(const sh_fetch *f, const sh_fetch_part *p, float *rows) {
  const sh_table *t = f->impl->table;
  int64_t D = t->conf.width;
  if (f->ld == D) return rows + p->first * D;
  return (float *)sh_buffer_need(&t->impl->pack, sizeof(float) * (size_t)(f->nslots * D)) + p->first * D;
}

void sh_fetch_ids(sh_fetch *f) {
  struct sh_fetch_impl *impl = f->impl;
  if (impl->asked) return;
  for (int k = 0; k < impl->parts; k++)
    impl->part[k].nasked =
        sh_exchange_ids_end(impl->part[k].exchange, &impl->part[k].asked, &impl->part[k].asked_count);
  impl->asked = true;
}

static void rows_begin(sh_table *t, sh_fetch *f, int part) {
  sh_fetch_part *p = &f->impl->part[part];
  float *wire = wire_rows(f, part);
  gather(t, p->asked, p->nasked, wire, t->conf.width);
  sh_exchange_rows_begin(p->exchange, wire, tight_rows(f, p, f->rows), t->conf.width);
}

static void rows_end(sh_table *t, sh_fetch *f, int part) {
  sh_fetch_part *p = &f->impl->part[part];
  int64_t D = t->conf.width;
  sh_exchange_rows_end(p->exchange);
  if (f->ld != D) repack(tight_rows(f, p, f->rows), D, f->rows + p->first * f->ld, f->ld, D, p->n);
}

void sh_table_fetch_rows(sh_table *t, sh_fetch *f, sh_arena *step) {
  struct sh_fetch_impl *impl = f->impl;
  assert(!impl->rows_begun);
  impl->rows_begun = true;
  f->rows = SH_ARENA_NEW(step, float, f->nslots * f->ld);
  f->drows = SH_ARENA_NEW(step, float, f->nslots * f->ld);
  if (impl->parts == 0) { /* every position is a row of this rank */
    gather(t, impl->position, f->nslots, f->rows, f->ld);
  } else {
    if (t->impl->late) sh_table_fetch_rest(t, t->impl->late);
    sh_fetch_ids(f);
    rows_begin(t, f, FIRST);
  }
  clear(f->drows, f->ld, f->nslots);
}

void sh_table_fetch_end(sh_table *t, sh_fetch *f, sh_arena *step) {
  if (!f->impl->rows_begun) sh_table_fetch_rows(t, f, step);
  if (f->impl->parts > FIRST) rows_end(t, f, FIRST);
  if (f->impl->parts > REST) {
    rows_begin(t, f, REST);
    t->impl->late = f;
  }
}

void sh_table_fetch_rest(sh_table *t, sh_fetch *f) {
  if (t->impl->late != f) return;
  rows_end(t, f, REST);
  t->impl->late = NULL;
}

/* Rows that any source has, ascending. */
static int64_t unite(sh_table *t, int nsources, sh_buffer *rows) {
  struct sh_table_impl *impl = t->impl;
  if (nsources == 1) { /* in order and distinct already */
    const struct sh_grad_source *only = &impl->source[0];
    int64_t *out = sh_buffer_need(rows, sizeof *out * (size_t)only->n);
    for (int64_t i = 0; i < only->n; i++) out[i] = only->row[i] - only->base;
    return only->n;
  }
  for (int k = 0; k < nsources; k++) {
    const struct sh_grad_source *s = &impl->source[k];
#pragma omp parallel for schedule(static) if (s->n > 4096)
    for (int64_t i = 0; i < s->n; i++) sh_marks_set(&impl->own, s->row[i] - s->base);
  }
  int64_t n = sh_marks_count(&impl->own);
  sh_marks_take(&impl->own, sh_buffer_need(rows, sizeof(int64_t) * (size_t)n));
  return n;
}

static double square_of(const float *x, int64_t n) {
  double part[4] = {0};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; k++) part[k] += (double)x[i + k] * (double)x[i + k];
  for (; i < n; i++) part[0] += (double)x[i] * (double)x[i];
  return (part[0] + part[1]) + (part[2] + part[3]);
}

/* Sum the sources' gradients of touched[first, last) into grad, source after source; returns the sum of squares. */
static double merge_block(const sh_table *t, int nsources, const int64_t *touched, int64_t first, int64_t last,
                          float *grad) {
  int64_t D = t->conf.width;
  memset(grad + first * D, 0, sizeof *grad * (size_t)((last - first) * D));
  for (int k = 0; k < nsources; k++) {
    const struct sh_grad_source *s = &t->impl->source[k];
    int64_t i = sh_lower_bound(s->row, s->n, touched[first] + s->base);
    for (int64_t at = first; i < s->n && s->row[i] - s->base <= touched[last - 1]; i++) {
      while (touched[at] < s->row[i] - s->base) at++;
      float *sum = grad + at * D;
      const float *add = s->grad + i * s->ld;
      for (int64_t d = 0; d < D; d++) sum[d] += add[d];
    }
  }
  return square_of(grad + first * D, (last - first) * D);
}

/* The gradient that waits already, the first source of a merge; returns how many that is. */
static int list_pending(sh_table *t) {
  struct sh_table_impl *impl = t->impl;
  if (!impl->pending) return 0;
  impl->source[0] =
      (struct sh_grad_source){impl->touched[impl->now].data, impl->ntouched, 0, impl->waiting, impl->waiting_ld};
  return 1;
}

/* The places gradients come from, in the order of summation: what waits already, then the ranks. A row comes from a
 * rank in one part only, so the order of parts does not matter. */
static int list_sources(sh_table *t, const sh_fetch *f) {
  struct sh_table_impl *impl = t->impl;
  struct sh_grad_source *s = impl->source;
  int64_t D = t->conf.width;
  int n = list_pending(t);
  if (t->axis->size == 1) {
    s[n++] = (struct sh_grad_source){f->impl->position, f->nslots, 0, f->drows, f->ld};
    return n;
  }
  int64_t at[PARTS] = {0};
  for (int r = 0; r < t->axis->size; r++)
    for (int k = 0; k < f->impl->parts; k++) {
      const sh_fetch_part *p = &f->impl->part[k];
      int64_t rows = p->asked_count[r];
      s[n++] = (struct sh_grad_source){p->asked + at[k], rows, t->position_first, wire_rows(f, k) + at[k] * D, D};
      at[k] += rows;
    }
  return n;
}

/* Sum the sources listed; what comes out waits for update. Returns its square. */
static double merge(sh_table *t, int nsources) {
  struct sh_table_impl *impl = t->impl;
  int into = !impl->now;
  int64_t n = unite(t, nsources, &impl->touched[into]), blocks = (n + BLOCK - 1) / BLOCK;
  const int64_t *touched = impl->touched[into].data;
  float *grad = sh_buffer_need(&impl->grad[into], sizeof *grad * (size_t)(n * t->conf.width));
  double *square = sh_buffer_need(&impl->block_square, sizeof *square * (size_t)blocks), total = 0;
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t b = 0; b < blocks; b++)
    square[b] = merge_block(t, nsources, touched, b * BLOCK, (b + 1) * BLOCK < n ? (b + 1) * BLOCK : n, grad);
  for (int64_t b = 0; b < blocks; b++) total += square[b];
  impl->now = into;
  impl->ntouched = n;
  impl->pending = true;
  impl->waiting = grad, impl->waiting_ld = t->conf.width;
  return total;
}

/* The only source listed waits as it is. Returns its square, summed as merge does. */
static double adopt(sh_table *t) {
  struct sh_table_impl *impl = t->impl;
  const struct sh_grad_source *s = &impl->source[0];
  int64_t D = t->conf.width, blocks = (s->n + BLOCK - 1) / BLOCK;
  int64_t *touched = sh_buffer_need(&impl->touched[!impl->now], sizeof *touched * (size_t)s->n);
  double *square = sh_buffer_need(&impl->block_square, sizeof *square * (size_t)blocks), total = 0;
#pragma omp parallel for schedule(static) if (s->n > FEW)
  for (int64_t b = 0; b < blocks; b++) {
    square[b] = 0;
    for (int64_t i = b * BLOCK; i < (b + 1) * BLOCK && i < s->n; i++) {
      touched[i] = s->row[i] - s->base;
      square[b] += square_of(s->grad + i * s->ld, D);
    }
  }
  for (int64_t b = 0; b < blocks; b++) total += square[b];
  impl->now = !impl->now;
  impl->ntouched = s->n;
  impl->pending = true;
  impl->waiting = s->grad, impl->waiting_ld = s->ld;
  return total;
}

void sh_table_add_local(sh_table *t, int64_t n, const int32_t *local_row, const float *drows, int64_t ld) {
  int64_t *row = sh_buffer_need(&t->impl->local, sizeof *row * (size_t)n);
  for (int64_t i = 0; i < n; i++) {
    assert(local_row[i] < t->local_rows && local_row[i] > (i ? local_row[i - 1] : -1));
    row[i] = local_row[i];
  }
  int nsources = list_pending(t);
  t->impl->source[nsources++] = (struct sh_grad_source){row, n, 0, drows, ld};
  merge(t, nsources);
}

static void grads_begin(sh_table *t, sh_fetch *f, int part) {
  if (t->impl->late) sh_table_fetch_rest(t, t->impl->late);
  sh_fetch_part *p = &f->impl->part[part];
  int64_t D = t->conf.width;
  float *out = tight_rows(f, p, f->drows);
  if (f->ld != D) repack(f->drows + p->first * f->ld, f->ld, out, D, D, p->n);
  sh_exchange_grads_begin(p->exchange, out, wire_rows(f, part), D);
}

void sh_table_grad_rest(sh_table *t, sh_fetch *f) {
  assert(f->drows);
  if (f->impl->parts <= REST || f->impl->grads_begun[REST]) return;
  grads_begin(t, f, REST);
  f->impl->grads_begun[REST] = true;
}

void sh_table_grad_first(sh_table *t, sh_fetch *f) {
  sh_table_grad_rest(t, f);
  if (f->impl->parts <= FIRST || f->impl->grads_begun[FIRST]) return;
  grads_begin(t, f, FIRST);
  f->impl->grads_begun[FIRST] = true;
}

double sh_table_grad(sh_table *t, sh_fetch *f) {
  sh_table_grad_first(t, f);
  for (int k = 0; k < f->impl->parts; k++) {
    sh_exchange_grads_end(f->impl->part[k].exchange);
    f->impl->grads_begun[k] = false;
  }
  int nsources = list_sources(t, f);
  return nsources == 1 ? adopt(t) : merge(t, nsources);
}
