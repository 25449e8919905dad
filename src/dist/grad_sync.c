#include "dist/grad_sync.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool is_partial(const sh_grad_sync *s, int bucket, int i) {
  const sh_param *r = &s->params->row[i];
  return s->buckets.of[i] == bucket && r->tie < 0 && r->split < 0 && r->tgrad == SH_TGRAD_PARTIAL;
}

static int64_t partial_floats(const sh_grad_sync *s, int bucket) {
  int64_t n = 0;
  for (int i = 0; i < s->params->n; i++)
    if (is_partial(s, bucket, i)) n += s->params->row[i].size;
  return n;
}

void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_grid *grid, const sh_conf_comm *comm, bool zero,
                         sh_grain grain) {
  *s = (sh_grad_sync){.params = p, .grid = grid, .zero = zero, .half = !strcmp(comm->wire, "bf16")};
  sh_buckets_create(&s->buckets, p, &grid->data, comm->bucket, grain);
  int n = s->buckets.n;
  int64_t partial = 0;
  s->waits = sh_calloc((size_t)n + 1, sizeof *s->waits);
  s->values = sh_calloc((size_t)n + 1, sizeof *s->values);
  s->count = sh_calloc((size_t)grid->data.size, sizeof *s->count);
  for (int k = 0; k < SH_SYNC_WINDOW; k++) s->sum[k] = sh_request_new();
  for (int b = 0; b < n; b++) {
    int64_t rows = grid->tensor.size > 1 ? partial_floats(s, b) : 0;
    if (rows > partial) partial = rows;
    if (zero) s->values[b] = sh_request_new();
  }
  s->shared = sh_request_new();
  s->partial = sh_malloc(sizeof *s->partial * (size_t)(partial + 1));
}

void sh_grad_sync_destroy(sh_grad_sync *s) {
  for (int k = 0; k < SH_SYNC_WINDOW; k++) sh_request_free(s->sum[k]);
  for (int b = 0; b < s->buckets.n; b++) sh_request_free(s->values[b]);
  sh_request_free(s->shared);
  sh_buckets_destroy(&s->buckets);
  free(s->waits);
  free(s->values);
  free(s->count);
  free(s->partial);
  *s = (sh_grad_sync){0};
}

/* Bias tables, norms, positions: few and small. */
static void sum_partial(sh_grad_sync *s, int b) {
  sh_params *p = s->params;
  int64_t n = 0;
  for (int i = 0; i < p->n; i++) {
    if (!is_partial(s, b, i)) continue;
    memcpy(s->partial + n, sh_param_grad(p, i), sizeof(float) * (size_t)p->row[i].size);
    n += p->row[i].size;
  }
  if (n == 0) return;
  sh_sum_f32_begin(&s->grid->tensor, s->shared, s->partial, n); /* the fixed tree, whatever the size of a bucket */
  sh_request_end(s->shared);
  n = 0;
  for (int i = 0; i < p->n; i++) {
    if (!is_partial(s, b, i)) continue;
    memcpy(sh_param_grad(p, i), s->partial + n, sizeof(float) * (size_t)p->row[i].size);
    n += p->row[i].size;
  }
}

/* Everybody's piece of bucket b, in s->count; returns the own one's place in the block. */
static int64_t measure(sh_grad_sync *s, int b) {
  const int64_t *cut = s->buckets.bucket[b].cut;
  for (int r = 0; r < s->grid->data.size; r++) s->count[r] = cut[r + 1] - cut[r];
  return cut[s->grid->data.index];
}

static void bucket_begin(sh_grad_sync *s, int b) {
  const sh_axis *data = &s->grid->data;
  const sh_bucket *k = &s->buckets.bucket[b];
  sh_request *sum = s->sum[b % SH_SYNC_WINDOW];
  float *grad = s->params->grad, *x = grad + k->first, *own = grad + measure(s, b);
  sh_comm_kind outer = sh_comm_as(SH_COMM_GRADIENTS);
  if (s->grid->tensor.size > 1) sum_partial(s, b);
  if (s->zero && s->half)
    sh_reduce_scatter_bf16_begin(data, sum, x, s->count, own);
  else if (s->zero)
    sh_reduce_scatter_f32_begin(data, sum, x, s->count, own);
  else if (s->half)
    sh_sum_bf16_begin(data, sum, x, k->last - k->first);
  else
    sh_sum_f32_begin(data, sum, x, k->last - k->first);
  sh_comm_as(outer);
}

static void bucket_end(sh_grad_sync *s, int b) { sh_request_end(s->sum[b % SH_SYNC_WINDOW]); }

void sh_grad_sync_start(sh_grad_sync *s) {
  for (int b = 0; b < s->buckets.n; b++) s->waits[b] = s->buckets.bucket[b].params;
  s->begun = s->ended = 0;
}

/* A full window holds backward up only where the wire is slower than backward: it has enough to do then. */
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

void sh_grad_sync_values_begin(sh_grad_sync *s) {
  float *value = s->params->value;
  sh_comm_kind outer = sh_comm_as(SH_COMM_PARAMETERS);
  for (int b = 0; b < s->buckets.n && s->zero; b++) {
    const float *own = value + measure(s, b);
    sh_allgatherv_begin(&s->grid->data, s->values[b], own, s->count, sizeof *value, value + s->buckets.bucket[b].first);
  }
  sh_comm_as(outer);
}

void sh_grad_sync_values_end(sh_grad_sync *s) {
  for (int b = 0; b < s->buckets.n && s->zero; b++) sh_request_end(s->values[b]);
}

int64_t sh_grad_sync_bytes(const sh_params *p, int data, const sh_conf_comm *comm) {
  int64_t largest = 0, block = p->block * (int64_t)sizeof(float), window; /* bf16: half as much, but twice */
  for (int i = 0; i < p->n; i++)
    if (p->row[i].size > largest) largest = p->row[i].size;
  window = SH_SYNC_WINDOW * (comm->bucket + largest * (int64_t)sizeof(float));
  return data == 1 ? 0 : window < block ? window : block;
}
