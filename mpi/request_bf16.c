/* Sums under way that travel as bf16 (mpi/coll.h). Every rank sends its piece of x straight to the owner, who adds them
 * in fp32 by the tree of request.c: sums inside a node first would have to be rounded once more. */
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/bf16.h"
#define SH_COLL_INSIDE
#include "mpi/coll.h"
#include "mpi/internal.h"

enum { BLOCK = 256 };

static int64_t own_length(const sh_request *r, const sh_axis *axis) {
  return r->send_at[axis->index + 1] - r->send_at[axis->index];
}

static void to_wire(int64_t n, const float *x, uint16_t *wire) {
  for (int64_t i = 0; i < n; i++) wire[i] = (uint16_t)(bf16_word(x[i]) >> 16);
}

static void from_wire(int64_t n, const uint16_t *wire, float *x) {
  for (int64_t i = 0; i < n; i++) x[i] = bf16_low(wire[i]);
}

/* Sum of k rows x[.. ld][0 .. n-1], n <= BLOCK. */
static void tree(int k, const uint16_t *x, int64_t ld, int64_t n, float *out) {
  if (k == 1) {
    from_wire(n, x, out);
    return;
  }
  float right[BLOCK];
  int left = 1;
  while (2 * left < k) left *= 2;
  tree(left, x, ld, n, out);
  tree(k - left, x + left * ld, ld, n, right);
  for (int64_t i = 0; i < n; i++) out[i] += right[i];
}

static void sum_own(sh_request *r) {
  int64_t n = own_length(r, r->axis);
  const uint16_t *x = r->wire + r->send_at[r->axis->size];
  for (int64_t i = 0; i < n; i += BLOCK) tree(r->axis->size, x + i, n, n - i < BLOCK ? n - i : BLOCK, r->sum + i);
}

/* The sum takes the place of the own piece among what was sent, and goes round. */
static void sum_and_round(sh_request *r) {
  sum_own(r);
  to_wire(own_length(r, r->axis), r->sum, r->wire + r->send_at[r->axis->index]);
  memcpy(r->recv_at, r->send_at, sizeof *r->recv_at * (size_t)(r->axis->size + 1));
  r->recv = (char *)r->wire;
}

static void widen(sh_request *r) { from_wire(r->send_at[r->axis->size], r->wire, r->whole); }

/* Pieces of x cut at send_at: to their owners. */
static void set_pieces(sh_request *r, const sh_axis *axis, const float *x, float *sum) {
  int P = axis->size;
  int64_t all = r->send_at[P], own = own_length(r, axis), need = all + own * P;
  if (need > r->wire_capacity) {
    free(r->wire);
    r->wire = sh_malloc(sizeof *r->wire * (size_t)need);
    r->wire_capacity = need;
  }
  to_wire(all, x, r->wire);
  for (int p = 0; p <= P; p++) r->recv_at[p] = p * own;
  r->send = (char *)r->wire, r->recv = (char *)(r->wire + all), r->unit = sizeof *r->wire;
  r->sum = sum;
  r->sent += (all - own) * (int64_t)sizeof *r->wire;
}

void sh_reduce_scatter_bf16_begin(const sh_axis *axis, sh_request *r, const float *x, const int64_t *count,
                                  float *out) {
  static const sh_request_part parts[] = {{sh_request_post_pieces, sum_own}, {NULL, NULL}};
  if (axis->size == 1) {
    if (count[0] && x != out) memcpy(out, x, (size_t)count[0] * sizeof *x);
    return;
  }
  sh_check(axis, __func__, sh_check_counts(count, axis->size), sizeof *r->wire);
  sh_request_places(r, axis->size);
  sh_places(r->send_at, count, axis->size);
  set_pieces(r, axis, x, out);
  sh_request_open_sum(r, axis, __func__, parts);
}

void sh_sum_bf16_begin(const sh_axis *axis, sh_request *r, float *x, int64_t n) {
  static const sh_request_part parts[] = {{sh_request_post_pieces, sum_and_round},
                                          {sh_request_post_far_gather, NULL},
                                          {sh_request_post_near_gather, widen},
                                          {NULL, NULL}};
  if (axis->size == 1) return;
  sh_check(axis, __func__, n, sizeof *r->wire);
  if (n == 0) return;
  sh_request_places(r, axis->size);
  sh_request_cut(r->send_at, n, axis->size);
  set_pieces(r, axis, x, x + r->send_at[axis->index]);
  r->whole = x;
  r->sent += own_length(r, axis) * (int64_t)sizeof *r->wire * (axis->size - 1);
  sh_request_open_sum(r, axis, __func__, parts);
}
