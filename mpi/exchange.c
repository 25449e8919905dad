#include "mpi/exchange.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "mpi/coll.h"

struct sh_exchange {
  const sh_axis *axis;
  sh_request *request;
  int64_t *count, *asked_count; /* [axis size] */
  int64_t *asked, nasked, capacity;
  enum { IDLE, IDS, ROWS, GRADS } open;
};

sh_exchange *sh_exchange_create(const sh_axis *axis) {
  sh_exchange *x = sh_calloc(1, sizeof *x);
  x->axis = axis;
  x->request = sh_request_new();
  x->count = sh_calloc((size_t)axis->size, sizeof *x->count);
  x->asked_count = sh_calloc((size_t)axis->size, sizeof *x->asked_count);
  return x;
}

void sh_exchange_destroy(sh_exchange *x) {
  if (!x) return;
  sh_request_free(x->request);
  free(x->count);
  free(x->asked_count);
  free(x->asked);
  free(x);
}

void sh_exchange_ids_begin(sh_exchange *x, const int64_t *ids, const int64_t *count) {
  assert(x->open == IDLE);
  x->open = IDS;
  memcpy(x->count, count, sizeof *count * (size_t)x->axis->size);
  sh_alltoall_i64(x->axis, x->count, x->asked_count);
  x->nasked = 0;
  for (int r = 0; r < x->axis->size; r++) x->nasked += x->asked_count[r];
  if (x->nasked > x->capacity) { /* half as much again, so that later plans fit */
    free(x->asked);
    x->capacity = x->nasked + x->nasked / 2;
    x->asked = sh_malloc(sizeof *x->asked * (size_t)x->capacity);
  }
  sh_alltoallv_begin(x->axis, x->request, ids, x->count, x->asked, x->asked_count, sizeof *ids);
}

int64_t sh_exchange_ids_end(sh_exchange *x, const int64_t **asked, const int64_t **asked_count) {
  assert(x->open == IDS);
  sh_request_end(x->request);
  x->open = IDLE;
  *asked = x->asked;
  *asked_count = x->asked_count;
  return x->nasked;
}

void sh_exchange_rows_begin(sh_exchange *x, const float *out, float *in, int64_t width) {
  assert(x->open == IDLE);
  x->open = ROWS;
  sh_alltoallv_begin(x->axis, x->request, out, x->asked_count, in, x->count, sizeof *out * (size_t)width);
}

void sh_exchange_rows_end(sh_exchange *x) {
  assert(x->open == ROWS);
  sh_request_end(x->request);
  x->open = IDLE;
}

void sh_exchange_grads_begin(sh_exchange *x, const float *out, float *in, int64_t width) {
  assert(x->open == IDLE);
  x->open = GRADS;
  sh_alltoallv_begin(x->axis, x->request, out, x->count, in, x->asked_count, sizeof *out * (size_t)width);
}

void sh_exchange_grads_end(sh_exchange *x) {
  assert(x->open == GRADS);
  sh_request_end(x->request);
  x->open = IDLE;
}
