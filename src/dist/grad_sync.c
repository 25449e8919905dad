#include "dist/grad_sync.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_axis *axis, int64_t bucket_bytes) {
  *s = (sh_grad_sync){.params = p, .axis = axis};
  s->bucket_of = sh_calloc((size_t)p->n, sizeof(int));
  s->first = sh_calloc((size_t)p->n + 1, sizeof(int64_t));
  s->last = sh_calloc((size_t)p->n + 1, sizeof(int64_t));
  s->rows = sh_calloc((size_t)p->n + 1, sizeof(int));
  s->waits = sh_calloc((size_t)p->n + 1, sizeof(int));
  s->request = sh_calloc((size_t)p->n + 1, sizeof *s->request);
  int64_t end = p->block;
  int b = 0;
  s->last[0] = end;
  for (int i = p->n - 1; i >= 0; i--) {
    if (p->row[i].tie >= 0) continue;
    s->bucket_of[i] = b;
    s->rows[b]++;
    s->first[b] = p->row[i].offset;
    if ((end - s->first[b]) * (int64_t)sizeof(float) >= bucket_bytes) {
      end = s->first[b++];
      s->last[b] = end;
    }
  }
  s->nbuckets = s->rows[b] > 0 ? b + 1 : b;
  for (int i = 0; i < p->n; i++)
    if (p->row[i].tie >= 0) s->bucket_of[i] = s->bucket_of[p->row[i].tie];
  for (int i = 0; i < s->nbuckets; i++) s->request[i] = sh_request_new();
}

void sh_grad_sync_destroy(sh_grad_sync *s) {
  for (int i = 0; i < s->nbuckets; i++) sh_request_free(s->request[i]);
  free(s->bucket_of);
  free(s->first);
  free(s->last);
  free(s->rows);
  free(s->waits);
  free(s->request);
  *s = (sh_grad_sync){0};
}

void sh_grad_sync_start(sh_grad_sync *s) {
  memcpy(s->waits, s->rows, sizeof(int) * (size_t)s->nbuckets);
  s->begun = 0;
}

void sh_grad_sync_ready(void *sync, int first, int last) {
  sh_grad_sync *s = sync;
  for (int i = first; i < last; i++)
    if (s->params->row[i].tie < 0) s->waits[s->bucket_of[i]]--;
  while (s->begun < s->nbuckets && s->waits[s->begun] == 0) {
    int b = s->begun++;
    sh_sum_f32_begin(s->axis, s->request[b], s->params->grad + s->first[b], s->last[b] - s->first[b]);
  }
}

void sh_grad_sync_end(sh_grad_sync *s) {
  assert(s->begun == s->nbuckets);
  for (int b = 0; b < s->nbuckets; b++) sh_request_end(s->request[b]);
}
