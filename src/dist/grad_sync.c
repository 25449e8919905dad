#include "dist/grad_sync.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void make_buckets(sh_grad_sync *s, int64_t bucket_bytes) {
  const sh_params *p = s->params;
  int64_t end = p->block;
  sh_bucket *b = s->bucket;
  for (int i = p->n - 1; i >= 0; i--) {
    const sh_param *r = &p->row[i];
    if (r->tie >= 0) continue;
    s->bucket_of[i] = (int)(b - s->bucket);
    b->rows++;
    b->first = r->offset, b->last = end;
    if ((end - b->first) * (int64_t)sizeof(float) < bucket_bytes) continue;
    end = b->first;
    b++;
  }
  s->nbuckets = (int)(b - s->bucket) + (b->rows > 0);
  for (int i = 0; i < p->n; i++)
    if (p->row[i].tie >= 0) s->bucket_of[i] = s->bucket_of[p->row[i].tie];
}

/* The place nearest to `at` where bucket b may be cut. */
static int64_t nearest_cut(const sh_grad_sync *s, int b, sh_grain grain, int64_t at) {
  const sh_params *p = s->params;
  int64_t best = s->bucket[b].last;
  for (int i = 0; i < p->n; i++) {
    const sh_param *r = &p->row[i];
    if (s->bucket_of[i] != b || r->tie >= 0) continue;
    int64_t unit = grain == SH_GRAIN_MATRIX && r->grain == SH_GRAIN_MATRIX ? r->size : r->local[1];
    int64_t k = at > r->offset ? (at - r->offset + unit / 2) / unit : 0;
    int64_t cut = r->offset + (k * unit < r->size ? k * unit : r->size);
    if (llabs(cut - at) < llabs(best - at)) best = cut;
  }
  return best;
}

/* Rank r's piece of a bucket begins where ranks before it own their share of all buckets so far: what one cut misses by
 * rounding to a row the next makes up for. */
static void make_cuts(sh_grad_sync *s, sh_grain grain) {
  int P = s->grid->data.size;
  int64_t *before = sh_calloc((size_t)P + 1, sizeof *before), all = 0; /* floats of ranks below r */
  for (int k = 0; k < s->nbuckets; k++) {
    sh_bucket *b = &s->bucket[k];
    all += b->last - b->first;
    b->cut = sh_malloc(((size_t)P + 1) * sizeof *b->cut);
    b->cut[0] = b->first, b->cut[P] = b->last;
    for (int r = 1; r < P; r++) {
      int64_t at = nearest_cut(s, k, grain, b->first + all * r / P - before[r]);
      b->cut[r] = at > b->cut[r - 1] ? at : b->cut[r - 1];
    }
    for (int r = 1; r < P; r++) before[r] += b->cut[r] - b->first;
  }
  free(before);
}

static void make_slices(sh_grad_sync *s) {
  int n = s->params->n, me = s->grid->data.index;
  int64_t *first = sh_calloc((size_t)n + 1, sizeof *first), *last = sh_calloc((size_t)n + 1, sizeof *last);
  for (int i = 0; i < n; i++) {
    const int64_t *cut = s->bucket[s->bucket_of[i]].cut;
    first[i] = cut[me], last[i] = cut[me + 1];
  }
  sh_slices_of(&s->own, s->params, first, last);
  free(first), free(last);
}

static bool is_partial(const sh_param *r) { return r->tie < 0 && r->split < 0 && r->tgrad == SH_TGRAD_PARTIAL; }

void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_grid *grid, int64_t bucket_bytes, sh_grain grain) {
  *s = (sh_grad_sync){.params = p, .grid = grid};
  s->bucket_of = sh_calloc((size_t)p->n + 1, sizeof *s->bucket_of);
  s->bucket = sh_calloc((size_t)p->n + 1, sizeof *s->bucket);
  make_buckets(s, bucket_bytes);
  make_cuts(s, grain);
  make_slices(s);
  for (int b = 0; b < s->nbuckets; b++) s->bucket[b].request = sh_request_new();
  for (int i = 0; i < p->n && grid->tensor.size > 1; i++)
    if (is_partial(&p->row[i])) s->npartial += p->row[i].size;
  s->partial = sh_malloc(sizeof *s->partial * (size_t)(s->npartial + 1));
}

void sh_grad_sync_destroy(sh_grad_sync *s) {
  for (int b = 0; b < s->nbuckets; b++) {
    sh_request_free(s->bucket[b].request);
    free(s->bucket[b].cut);
  }
  free(s->bucket);
  free(s->bucket_of);
  free(s->partial);
  sh_slices_destroy(&s->own);
  *s = (sh_grad_sync){0};
}

void sh_grad_sync_start(sh_grad_sync *s) {
  for (int b = 0; b < s->nbuckets; b++) s->bucket[b].waits = s->bucket[b].rows;
  s->begun = 0;
}

void sh_grad_sync_ready(void *sync, int first, int last) {
  sh_grad_sync *s = sync;
  sh_comm_kind outer = sh_comm_as(SH_COMM_GRADIENTS);
  for (int i = first; i < last; i++)
    if (s->params->row[i].tie < 0) s->bucket[s->bucket_of[i]].waits--;
  while (s->begun < s->nbuckets && s->bucket[s->begun].waits == 0) {
    sh_bucket *b = &s->bucket[s->begun++];
    sh_sum_f32_begin(&s->grid->data, b->request, s->params->grad + b->first, b->last - b->first);
  }
  sh_comm_as(outer);
}

/* Few and small (bias tables, norms): one sum behind the buckets costs less than one inside each. */
static void sum_partial(sh_grad_sync *s) {
  sh_params *p = s->params;
  if (s->npartial == 0) return;
  float *at = s->partial;
  for (int i = 0; i < p->n; i++)
    if (is_partial(&p->row[i]))
      memcpy(at, sh_param_grad(p, i), sizeof *at * (size_t)p->row[i].size), at += p->row[i].size;
  sh_comm_kind outer = sh_comm_as(SH_COMM_GRADIENTS);
  sh_sum_f32(&s->grid->tensor, s->partial, s->npartial);
  sh_comm_as(outer);
  at = s->partial;
  for (int i = 0; i < p->n; i++)
    if (is_partial(&p->row[i]))
      memcpy(sh_param_grad(p, i), at, sizeof *at * (size_t)p->row[i].size), at += p->row[i].size;
}

void sh_grad_sync_end(sh_grad_sync *s) {
  assert(s->begun == s->nbuckets);
  for (int b = 0; b < s->nbuckets; b++) sh_request_end(s->bucket[b].request);
  sum_partial(s);
}
