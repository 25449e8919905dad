#define SH_COLL_INSIDE
#include "mpi/exchange.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "mpi/coll.h"
#include "mpi/internal.h"
#include "mpi/progress.h"

struct sh_exchange {
  const sh_axis *axis;
  sh_request *request;
  int64_t *count, *asked_count; /* [axis size] */
  int64_t *asked, nasked, capacity;
  enum under_way { IDLE, IDS, ROWS, GRADS } open;
  bool dry; /* the plan of the last real ids stands in for this one (sh_progress_dry) */
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

static void post_counts(sh_request *r) {
  sh_exchange *x = r->arg;
  for (int i = 0; i < x->axis->size; i++)
    if (i != x->axis->index) sh_request_receive(r, i, x->asked_count + i, sizeof *x->asked_count);
  for (int i = 0; i < x->axis->size; i++)
    if (i != x->axis->index) sh_request_send(r, i, x->count + i, sizeof *x->count);
  x->asked_count[x->axis->index] = x->count[x->axis->index];
}

/* The counts are here: make room for the ids. */
static void expect_ids(sh_request *r) {
  sh_exchange *x = r->arg;
  sh_places(r->recv_at, x->asked_count, x->axis->size);
  x->nasked = r->recv_at[x->axis->size];
  if (x->nasked > x->capacity) { /* half as much again, and a page, so that later plans fit */
    free(x->asked);
    x->capacity = x->nasked + x->nasked / 2 + 512;
    x->asked = sh_malloc(sizeof *x->asked * (size_t)x->capacity);
  }
  r->recv = (char *)x->asked;
}

void sh_exchange_ids_begin(sh_exchange *x, const int64_t *ids, const int64_t *count) {
  static const sh_request_part parts[] = {{post_counts, expect_ids}, {sh_request_post_pieces, NULL}, {NULL, NULL}};
  sh_request *r = x->request;
  int P = x->axis->size;
  assert(x->open == IDLE);
  x->open = IDS;
  memcpy(x->count, count, sizeof *count * (size_t)P);
  x->dry = sh_request_dry(SH_DRY_TABLES) && P > 1;
  if (x->dry) return;
  sh_request_places(r, P);
  sh_places(r->send_at, x->count, P);
  r->send = (const char *)ids, r->unit = sizeof *ids, r->arg = x;
  if (P == 1) { /* all ids are its own */
    x->asked_count[0] = x->count[0];
    expect_ids(r);
    if (x->nasked) memcpy(x->asked, ids, sizeof *ids * (size_t)x->nasked);
    return;
  }
  r->sent = (P - 1 + r->send_at[P] - x->count[x->axis->index]) * (int64_t)sizeof *ids;
  sh_comm_kind outer = sh_comm_as(SH_COMM_IDS);
  sh_check(x->axis, __func__, 0, sizeof *ids);
  sh_request_open(r, x->axis, __func__, parts);
  sh_comm_as(outer);
}

static void end(sh_exchange *x, enum under_way what) {
  assert(x->open == what);
  (void)what;
  sh_request_end(x->request);
  x->open = IDLE;
}

int64_t sh_exchange_ids_end(sh_exchange *x, const int64_t **asked, const int64_t **asked_count) {
  end(x, IDS);
  *asked = x->asked;
  *asked_count = x->asked_count;
  return x->nasked;
}

/* send_count and recv_count are of rows. A dry exchange fills `in` with rows of `out`. */
static void pieces_begin(sh_exchange *x, enum under_way what, const float *out, const int64_t *send_count, float *in,
                         const int64_t *recv_count, int64_t width) {
  assert(x->open == IDLE);
  x->open = what;
  size_t row = sizeof *out * (size_t)width;
  if (!x->dry) {
    sh_comm_kind outer = sh_comm_as(what == ROWS ? SH_COMM_ROWS : SH_COMM_ROW_GRADIENTS);
    sh_alltoallv_begin(x->axis, x->request, out, send_count, in, recv_count, row);
    sh_comm_as(outer);
    return;
  }
  int64_t have = 0, want = 0;
  for (int r = 0; r < x->axis->size; r++) have += send_count[r], want += recv_count[r];
  if (have == 0 && want > 0) memset(in, 0, (size_t)want * row);
  for (int64_t n; want > 0 && have > 0; in += n * width, want -= n) {
    n = want < have ? want : have;
    memcpy(in, out, (size_t)n * row);
  }
}

void sh_exchange_rows_begin(sh_exchange *x, const float *out, float *in, int64_t width) {
  pieces_begin(x, ROWS, out, x->asked_count, in, x->count, width);
}

void sh_exchange_rows_end(sh_exchange *x) { end(x, ROWS); }

void sh_exchange_grads_begin(sh_exchange *x, const float *out, float *in, int64_t width) {
  pieces_begin(x, GRADS, out, x->count, in, x->asked_count, width);
}

void sh_exchange_grads_end(sh_exchange *x) { end(x, GRADS); }
