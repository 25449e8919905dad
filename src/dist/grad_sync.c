#include "dist/grad_sync.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bf16.h"

enum { BLOCK = 4096 };

static size_t wire_size(const sh_grad_sync *s) { return s->half ? sizeof(uint16_t) : sizeof(float); }

static bool is_partial(const sh_grad_sync *s, int i) {
  const sh_param *r = &s->params->row[i];
  return s->grid->tensor.size > 1 && r->tie < 0 && r->split < 0 && r->tgrad == SH_TGRAD_PARTIAL;
}

/* Room for a bucket on the way: as sent when that is not the gradient itself, and as many pieces as ranks. */
static void make_room(sh_grad_sync *s) {
  int P = s->grid->data.size, me = s->grid->data.index;
  int64_t largest = 0, own = 0, partial = 0;
  for (int k = 0; k < s->buckets.n; k++) {
    const sh_bucket *b = &s->buckets.bucket[k];
    int64_t rows = 0, mine = b->cut[me + 1] - b->cut[me];
    for (int i = 0; i < s->params->n; i++)
      if (s->buckets.of[i] == k && is_partial(s, i)) rows += s->params->row[i].size;
    if (b->last - b->first > largest) largest = b->last - b->first;
    if (mine > own) own = mine;
    if (rows > partial) partial = rows;
  }
  s->partial = sh_malloc(sizeof *s->partial * (size_t)(partial + 1));
  for (int f = 0; f < SH_SYNC_WINDOW && f < s->buckets.n && P > 1; f++) {
    s->flight[f].request = sh_request_new();
    s->flight[f].arrived = sh_malloc(wire_size(s) * (size_t)(own * P));
    if (s->half) s->flight[f].sent = sh_malloc(wire_size(s) * (size_t)largest);
  }
}

void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_grid *grid, const sh_conf_comm *comm, bool zero,
                         sh_grain grain) {
  *s = (sh_grad_sync){.params = p, .grid = grid, .zero = zero, .half = !strcmp(comm->wire, "bf16")};
  sh_buckets_create(&s->buckets, p, &grid->data, comm->bucket, grain);
  s->waits = sh_calloc((size_t)s->buckets.n + 1, sizeof *s->waits);
  s->count = sh_calloc((size_t)grid->data.size, sizeof *s->count);
  s->own_count = sh_calloc((size_t)grid->data.size, sizeof *s->own_count);
  make_room(s);
}

void sh_grad_sync_destroy(sh_grad_sync *s) {
  for (int f = 0; f < SH_SYNC_WINDOW; f++) {
    sh_request_free(s->flight[f].request);
    free(s->flight[f].sent);
    free(s->flight[f].arrived);
  }
  sh_buckets_destroy(&s->buckets);
  free(s->waits);
  free(s->count);
  free(s->own_count);
  free(s->partial);
  *s = (sh_grad_sync){0};
}

static void to_wire(int64_t n, const float *x, uint16_t *wire) {
#pragma omp parallel for schedule(static) if (n > BLOCK)
  for (int64_t i = 0; i < n; i++) wire[i] = (uint16_t)(bf16_word(x[i]) >> 16);
}

static void from_wire(int64_t n, const uint16_t *wire, float *x) {
#pragma omp parallel for schedule(static) if (n > BLOCK)
  for (int64_t i = 0; i < n; i++) x[i] = bf16_low(wire[i]);
}

/* out[n] = the sum of P pieces of n that stand one after another, in that order. */
static void sum_pieces(int64_t n, int P, bool half, const void *pieces, float *out) {
#pragma omp parallel for schedule(static) if (n > BLOCK)
  for (int64_t at = 0; at < n; at += BLOCK) {
    int64_t m = n - at < BLOCK ? n - at : BLOCK;
    for (int r = 0; r < P; r++) {
      const float *x = (const float *)pieces + r * n + at;
      const uint16_t *h = (const uint16_t *)pieces + r * n + at;
      float *y = out + at;
      if (half)
        for (int64_t i = 0; i < m; i++) y[i] = (r ? y[i] : 0) + bf16_low(h[i]);
      else
        for (int64_t i = 0; i < m; i++) y[i] = (r ? y[i] : 0) + x[i];
    }
  }
}

/* Bias tables, norms, positions: few and small. */
static void sum_partial(sh_grad_sync *s, int b) {
  sh_params *p = s->params;
  int64_t n = 0;
  for (int i = 0; i < p->n; i++) {
    if (s->buckets.of[i] != b || !is_partial(s, i)) continue;
    memcpy(s->partial + n, sh_param_grad(p, i), sizeof(float) * (size_t)p->row[i].size);
    n += p->row[i].size;
  }
  if (n == 0) return;
  sh_sum_f32(&s->grid->tensor, s->partial, n);
  n = 0;
  for (int i = 0; i < p->n; i++) {
    if (s->buckets.of[i] != b || !is_partial(s, i)) continue;
    memcpy(sh_param_grad(p, i), s->partial + n, sizeof(float) * (size_t)p->row[i].size);
    n += p->row[i].size;
  }
}

/* Everybody's piece of bucket b in s->count. */
static const sh_bucket *measure(sh_grad_sync *s, int b) {
  const sh_bucket *k = &s->buckets.bucket[b];
  for (int r = 0; r < s->grid->data.size; r++) s->count[r] = k->cut[r + 1] - k->cut[r];
  return k;
}

static void bucket_begin(sh_grad_sync *s, int b) {
  const sh_axis *data = &s->grid->data;
  sum_partial(s, b);
  if (data->size == 1) return;
  const sh_bucket *k = measure(s, b);
  struct sh_flight *f = &s->flight[b % SH_SYNC_WINDOW];
  const void *send = s->params->grad + k->first;
  if (s->half) {
    to_wire(k->last - k->first, send, f->sent);
    send = f->sent;
  }
  for (int r = 0; r < data->size; r++) s->own_count[r] = s->count[data->index];
  sh_alltoallv_begin(data, f->request, send, s->count, f->arrived, s->own_count, wire_size(s));
}

static void bucket_end(sh_grad_sync *s, int b) {
  const sh_axis *data = &s->grid->data;
  if (data->size == 1) return;
  const sh_bucket *k = measure(s, b);
  struct sh_flight *f = &s->flight[b % SH_SYNC_WINDOW];
  int64_t at = k->cut[data->index], own = s->count[data->index];
  float *grad = s->params->grad;
  sh_request_end(f->request);
  sum_pieces(own, data->size, s->half, f->arrived, grad + at);
  if (s->zero) return;
  if (!s->half) {
    sh_allgatherv(data, grad + at, s->count, sizeof *grad, grad + k->first);
    return;
  }
  uint16_t *sums = f->sent;
  to_wire(own, grad + at, sums + (at - k->first));
  sh_allgatherv(data, sums + (at - k->first), s->count, sizeof *sums, sums);
  from_wire(k->last - k->first, sums, grad + k->first);
}

void sh_grad_sync_start(sh_grad_sync *s) {
  for (int b = 0; b < s->buckets.n; b++) s->waits[b] = s->buckets.bucket[b].params;
  s->begun = s->ended = 0;
}

void sh_grad_sync_ready(void *sync, int first, int last) {
  sh_grad_sync *s = sync;
  for (int i = first; i < last; i++)
    if (s->params->row[i].tie < 0) s->waits[s->buckets.of[i]]--;
  while (s->begun < s->buckets.n && s->waits[s->begun] == 0) {
    if (s->begun - s->ended == SH_SYNC_WINDOW) bucket_end(s, s->ended++);
    bucket_begin(s, s->begun++);
  }
}

void sh_grad_sync_end(sh_grad_sync *s) {
  assert(s->begun == s->buckets.n);
  while (s->ended < s->buckets.n) bucket_end(s, s->ended++);
}

void sh_grad_sync_values(sh_grad_sync *s) {
  float *value = s->params->value;
  for (int b = 0; b < s->buckets.n && s->zero; b++) {
    const sh_bucket *k = measure(s, b);
    sh_allgatherv(&s->grid->data, value + k->cut[s->grid->data.index], s->count, sizeof *value, value + k->first);
  }
}

int64_t sh_grad_sync_bytes(const sh_params *p, int data, const sh_conf_comm *comm) {
  int64_t largest = 0, block = p->block * (int64_t)sizeof(float), window; /* bf16: half as much, but twice */
  for (int i = 0; i < p->n; i++)
    if (p->row[i].size > largest) largest = p->row[i].size;
  window = SH_SYNC_WINDOW * (comm->bucket + largest * (int64_t)sizeof(float));
  return data == 1 ? 0 : window < block ? window : block;
}
