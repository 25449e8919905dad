#include "dist/buckets.h"

#include <stdlib.h>

static void make_buckets(sh_buckets *s, const sh_params *p, int64_t bucket_bytes) {
  int64_t end = p->block;
  sh_bucket *b = s->bucket;
  for (int i = p->n - 1; i >= 0; i--) {
    const sh_param *r = &p->row[i];
    if (r->tie >= 0) continue;
    s->of[i] = (int)(b - s->bucket);
    b->params++;
    b->first = r->offset, b->last = end;
    if ((end - b->first) * (int64_t)sizeof(float) < bucket_bytes) continue;
    end = b->first;
    b++;
  }
  s->n = (int)(b - s->bucket) + (b->params > 0);
  for (int i = 0; i < p->n; i++)
    if (p->row[i].tie >= 0) s->of[i] = s->of[p->row[i].tie];
}

/* The place nearest to `at` where bucket b may be cut. */
static int64_t nearest_cut(const sh_buckets *s, int b, const sh_params *p, sh_grain grain, int64_t at) {
  int64_t best = s->bucket[b].last;
  for (int i = 0; i < p->n; i++) {
    const sh_param *r = &p->row[i];
    if (s->of[i] != b || r->tie >= 0) continue;
    int64_t unit = grain == SH_GRAIN_MATRIX && r->grain == SH_GRAIN_MATRIX ? r->size : r->local[1];
    int64_t k = at > r->offset ? (at - r->offset + unit / 2) / unit : 0;
    int64_t cut = r->offset + (k * unit < r->size ? k * unit : r->size);
    if (llabs(cut - at) < llabs(best - at)) best = cut;
  }
  return best;
}

/* Rank r's piece of a bucket begins where ranks before it own their share of all buckets so far: what one cut misses by
 * rounding to a row the next makes up for. */
static void make_cuts(sh_buckets *s, const sh_params *p, int P, sh_grain grain) {
  int64_t *before = sh_calloc((size_t)P + 1, sizeof *before), all = 0; /* floats of ranks below r */
  for (int k = 0; k < s->n; k++) {
    sh_bucket *b = &s->bucket[k];
    all += b->last - b->first;
    b->cut = sh_malloc(((size_t)P + 1) * sizeof *b->cut);
    b->cut[0] = b->first, b->cut[P] = b->last;
    for (int r = 1; r < P; r++) {
      int64_t at = nearest_cut(s, k, p, grain, b->first + all * r / P - before[r]);
      b->cut[r] = at > b->cut[r - 1] ? at : b->cut[r - 1];
    }
    for (int r = 1; r < P; r++) before[r] += b->cut[r] - b->first;
  }
  free(before);
}

static void make_slices(sh_buckets *s, const sh_params *p, int me) {
  int64_t *first = sh_calloc((size_t)p->n + 1, sizeof *first), *last = sh_calloc((size_t)p->n + 1, sizeof *last);
  for (int i = 0; i < p->n; i++) {
    const int64_t *cut = s->bucket[s->of[i]].cut;
    first[i] = cut[me], last[i] = cut[me + 1];
  }
  sh_slices_of(&s->own, p, first, last);
  free(first), free(last);
}

void sh_buckets_create(sh_buckets *s, const sh_params *p, const sh_axis *data, int64_t bucket_bytes, sh_grain grain) {
  *s = (sh_buckets){.of = sh_calloc((size_t)p->n + 1, sizeof *s->of),
                    .bucket = sh_calloc((size_t)p->n + 1, sizeof *s->bucket)};
  make_buckets(s, p, bucket_bytes);
  make_cuts(s, p, data->size, grain);
  make_slices(s, p, data->index);
}

void sh_buckets_destroy(sh_buckets *s) {
  for (int b = 0; b < s->n; b++) free(s->bucket[b].cut);
  free(s->bucket);
  free(s->of);
  sh_slices_destroy(&s->own);
  *s = (sh_buckets){0};
}
