/* Operations under way (mpi/coll.h), each a short list of parts: messages, then arithmetic on what they brought.
 *
 * They are made of point-to-point messages with the operation's number as tag, because collectives of MPI must be
 * called in the same order on all ranks, and the second part of one operation may come before or after the first of
 * the next. It also fixes what MPI leaves open, the order of a sum: always the same binary tree over the ranks' places,
 * split at the largest power of two, so that the sum over `near` ranks of a node is one of its subtrees and bits do not
 * depend on where nodes end.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#define SH_COLL_INSIDE
#include "mpi/coll.h"
#include "mpi/internal.h"
#include "mpi/progress.h"

enum { PARTS = 8, NUMBERS = 4096 }; /* tags stay below 32,767, which every MPI has */

int sh_mpi_near;

static unsigned dry;
void sh_progress_dry(unsigned kinds) { dry = kinds; }
bool sh_request_dry(unsigned kind) { return dry & kind; }

static int find_near(const sh_axis *axis) {
  int leader = axis->index, *of = sh_malloc(sizeof *of * (size_t)axis->size), near = 1;
  MPI_Comm node;
  SH_MPI(axis, MPI_Comm_split_type, axis->impl->comm, MPI_COMM_TYPE_SHARED, axis->index, MPI_INFO_NULL, &node);
  SH_MPI(axis, MPI_Bcast, &leader, 1, MPI_INT, 0, node);
  SH_MPI(axis, MPI_Comm_free, &node);
  SH_MPI(axis, MPI_Allgather, &leader, 1, MPI_INT, of, 1, MPI_INT, axis->impl->comm);
  for (bool together = true; together; near *= together ? 2 : 1) {
    together = axis->size % (2 * near) == 0;
    for (int i = 0; i < axis->size && together; i++) together = of[i] == of[i / (2 * near) * (2 * near)];
  }
  free(of);
  return sh_mpi_near && axis->size % sh_mpi_near == 0 ? sh_mpi_near : near;
}

void sh_axis_open(sh_axis *axis) {
  SH_MPI(axis, MPI_Comm_dup, axis->impl->comm, &axis->impl->open);
  SH_MPI(axis, MPI_Comm_set_errhandler, axis->impl->open, MPI_ERRORS_RETURN);
  axis->impl->begun = 0;
  axis->impl->near = find_near(axis);
}

void sh_axis_close(sh_axis *axis) { SH_MPI(axis, MPI_Comm_free, &axis->impl->open); }

sh_request *sh_request_new(void) { return sh_calloc(1, sizeof(sh_request)); }

void sh_request_free(sh_request *r) {
  if (!r) return;
  sh_request_end(r);
  free(r->message);
  free(r->send_at);
  free(r->recv_at);
  free(r->row);
  free(r->buffer);
  free(r->wire);
  free(r);
}

/* Room for one more. */
static MPI_Request *next_message(sh_request *r) {
  if (r->nmessages == r->message_capacity) {
    r->message_capacity = 2 * r->message_capacity + 16;
    r->message = sh_realloc(r->message, sizeof *r->message * (size_t)r->message_capacity);
  }
  return r->message + r->nmessages++;
}

void sh_request_send(sh_request *r, int rank, const void *data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += sh_mpi_piece)
    SH_MPI(r->axis, MPI_Isend, (const char *)data + i, (int)sh_mpi_next(bytes - i), MPI_BYTE, rank, r->tag,
           r->axis->impl->open, next_message(r));
}

void sh_request_receive(sh_request *r, int rank, void *data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += sh_mpi_piece)
    SH_MPI(r->axis, MPI_Irecv, (char *)data + i, (int)sh_mpi_next(bytes - i), MPI_BYTE, rank, r->tag,
           r->axis->impl->open, next_message(r));
}

void sh_request_open(sh_request *r, const sh_axis *axis, const char *call, const sh_request_part *parts) {
  assert(!r->axis); /* one operation at a time */
  r->op = sh_mpi_begin(axis, call);
  r->axis = axis;
  r->part = parts;
  r->tag = (int)(axis->impl->begun++ % NUMBERS) * PARTS;
  sh_engine_begin(r);
  sh_mpi_posted(&r->op, r->sent);
}

void sh_request_open_sum(sh_request *r, const sh_axis *axis, const char *call, const sh_request_part *parts) {
  if (!sh_request_dry(SH_DRY_SUMS)) sh_request_open(r, axis, call, parts);
}

void sh_request_end(sh_request *r) {
  if (!r->axis) return;
  double since = sh_mpi_wait(&r->op);
  sh_engine_wait(r);
  r->axis = NULL;
  sh_mpi_waited(&r->op, since, r->completed);
}

void sh_request_places(sh_request *r, int ranks) {
  r->sent = 0; /* a dry operation before may have left it */
  if (ranks < r->places_capacity) return;
  r->places_capacity = ranks + 1;
  r->send_at = sh_realloc(r->send_at, sizeof *r->send_at * (size_t)r->places_capacity);
  r->recv_at = sh_realloc(r->recv_at, sizeof *r->recv_at * (size_t)r->places_capacity);
  r->row = sh_realloc(r->row, sizeof *r->row * (size_t)r->places_capacity);
}

void sh_places(int64_t *at, const int64_t *count, int n) {
  at[0] = 0;
  for (int i = 0; i < n; i++) at[i + 1] = at[i] + count[i];
}

/* The others of this rank, the next one first, so that not all begin with the same. */
static int other(const sh_axis *axis, int i) { return (axis->index + i) % axis->size; }

void sh_request_post_pieces(sh_request *r) {
  int64_t unit = (int64_t)r->unit;
  for (int i = 1; i < r->axis->size; i++) {
    int from = other(r->axis, r->axis->size - i);
    sh_request_receive(r, from, r->recv + r->recv_at[from] * unit, (r->recv_at[from + 1] - r->recv_at[from]) * unit);
  }
  for (int i = 1; i < r->axis->size; i++) {
    int to = other(r->axis, i);
    sh_request_send(r, to, r->send + r->send_at[to] * unit, (r->send_at[to + 1] - r->send_at[to]) * unit);
  }
  int me = r->axis->index;
  size_t own = (size_t)(r->send_at[me + 1] - r->send_at[me]) * r->unit;
  assert(r->send_at[me + 1] - r->send_at[me] == r->recv_at[me + 1] - r->recv_at[me]);
  if (own) memcpy(r->recv + r->recv_at[me] * unit, r->send + r->send_at[me] * unit, own);
}

void sh_alltoallv_begin(const sh_axis *axis, sh_request *r, const void *send, const int64_t *send_count, void *recv,
                        const int64_t *recv_count, size_t unit) {
  static const sh_request_part parts[] = {{sh_request_post_pieces, NULL}, {NULL, NULL}};
  assert(unit > 0);
  if (axis->size == 1) {
    assert(send_count[0] == recv_count[0]);
    if (send_count[0]) memcpy(recv, send, (size_t)send_count[0] * unit);
    return;
  }
  if (sh_checking) sh_check_call(axis, __func__, 0, (int64_t)unit, send_count, recv_count);
  sh_request_places(r, axis->size);
  sh_places(r->send_at, send_count, axis->size);
  sh_places(r->recv_at, recv_count, axis->size);
  r->send = send, r->recv = recv, r->unit = unit;
  r->sent += (r->send_at[axis->size] - send_count[axis->index]) * (int64_t)unit;
  sh_request_open(r, axis, __func__, parts);
}

/* Sums and gathers. Pieces are cut at send_at (sums) or recv_at (gathers); piece b * near + q belongs to place q of
 * block b. A sum first adds, over the ranks of a block, the pieces that belong to a rank's place in any block, then,
 * over the ranks of its place, its own piece; a gather goes the same way back. Across blocks a node thus sends no more
 * than one rank would. */
typedef struct shape {
  int near, blocks, block, place;
} shape;

static shape shape_of(const sh_request *r) {
  int near = r->axis->impl->near;
  return (shape){near, r->axis->size / near, r->axis->index / near, r->axis->index % near};
}

static int64_t length(const int64_t *at, int piece) { return at[piece + 1] - at[piece]; }

/* Of the pieces of this rank's place in blocks 0 .. b - 1. */
static int64_t length_before(const sh_request *r, const shape *s, int b) {
  int64_t n = 0;
  for (int c = 0; c < b; c++) n += length(r->send_at, c * s->near + s->place);
  return n;
}

/* In the buffer: the pieces of this rank's place as each rank of the block has them, its own row holding their sum;
 * then its own piece as each block has it. */
static float *near_row(const sh_request *r, const shape *s, int place) {
  return r->buffer + place * length_before(r, s, s->blocks);
}
static float *far_row(const sh_request *r, const shape *s, int block) {
  return near_row(r, s, s->near) + block * length(r->send_at, r->axis->index);
}

static const float *addend(const sh_request *r, int piece) {
  return (const float *)(const void *)r->send + r->send_at[piece];
}

/* The sum over this rank's block of the piece of its place in block b. */
static const float *block_sum(const sh_request *r, const shape *s, int b) {
  return s->near > 1 ? near_row(r, s, s->place) + length_before(r, s, b) : addend(r, b * s->near + s->place);
}

enum { BLOCK = 256 };

/* Sum of x[0 .. k-1][first, first + n), n <= BLOCK, by the tree. */
static void tree(int k, const float *const *x, int64_t first, int64_t n, float *out) {
  if (k == 1) {
    memcpy(out, x[0] + first, sizeof *out * (size_t)n);
    return;
  }
  float right[BLOCK];
  int left = 1;
  while (2 * left < k) left *= 2;
  tree(left, x, first, n, out);
  tree(k - left, x + left, first, n, right);
  for (int64_t i = 0; i < n; i++) out[i] += right[i];
}

/* `out` may be one of x. */
static void sum_rows(int k, const float *const *x, int64_t n, float *out) {
  float block[BLOCK];
  for (int64_t i = 0; i < n; i += BLOCK) {
    int64_t m = n - i < BLOCK ? n - i : BLOCK;
    tree(k, x, i, m, block);
    memcpy(out + i, block, sizeof *out * (size_t)m);
  }
}

static const int64_t float_bytes = sizeof(float);

static void post_near_scatter(sh_request *r) {
  shape s = shape_of(r);
  for (int i = 1; i < s.near; i++) {
    int from = (s.place + s.near - i) % s.near;
    float *row = near_row(r, &s, from);
    for (int b = 0; b < s.blocks; b++) {
      int64_t n = length(r->send_at, b * s.near + s.place);
      sh_request_receive(r, s.block * s.near + from, row, n * float_bytes);
      row += n;
    }
  }
  for (int i = 1; i < s.near; i++) {
    int to = (s.place + i) % s.near;
    for (int b = 0; b < s.blocks; b++) {
      int piece = b * s.near + to;
      sh_request_send(r, s.block * s.near + to, addend(r, piece), length(r->send_at, piece) * float_bytes);
    }
  }
}

static void sum_near(sh_request *r) {
  shape s = shape_of(r);
  if (s.near == 1) return;
  for (int b = 0; b < s.blocks; b++) {
    int64_t before = length_before(r, &s, b);
    int piece = b * s.near + s.place;
    for (int q = 0; q < s.near; q++) r->row[q] = q == s.place ? addend(r, piece) : near_row(r, &s, q) + before;
    sum_rows(s.near, r->row, length(r->send_at, piece), near_row(r, &s, s.place) + before);
  }
}

static void post_far_scatter(sh_request *r) {
  shape s = shape_of(r);
  int64_t own = length(r->send_at, r->axis->index);
  for (int i = 1; i < s.blocks; i++) {
    int from = (s.block + s.blocks - i) % s.blocks;
    sh_request_receive(r, from * s.near + s.place, far_row(r, &s, from), own * float_bytes);
  }
  for (int i = 1; i < s.blocks; i++) {
    int to = (s.block + i) % s.blocks, piece = to * s.near + s.place;
    sh_request_send(r, piece, block_sum(r, &s, to), length(r->send_at, piece) * float_bytes);
  }
}

static void sum_far(sh_request *r) {
  shape s = shape_of(r);
  for (int b = 0; b < s.blocks; b++) r->row[b] = b == s.block ? block_sum(r, &s, b) : far_row(r, &s, b);
  sum_rows(s.blocks, r->row, length(r->send_at, r->axis->index), r->sum);
}

static void send_piece(sh_request *r, int rank, int piece) {
  int64_t unit = (int64_t)r->unit;
  sh_request_send(r, rank, r->recv + r->recv_at[piece] * unit, length(r->recv_at, piece) * unit);
}

static void receive_piece(sh_request *r, int rank, int piece) {
  int64_t unit = (int64_t)r->unit;
  sh_request_receive(r, rank, r->recv + r->recv_at[piece] * unit, length(r->recv_at, piece) * unit);
}

void sh_request_post_far_gather(sh_request *r) {
  shape s = shape_of(r);
  for (int i = 1; i < s.blocks; i++) {
    int from = (s.block + s.blocks - i) % s.blocks * s.near + s.place;
    receive_piece(r, from, from);
  }
  for (int i = 1; i < s.blocks; i++) send_piece(r, (s.block + i) % s.blocks * s.near + s.place, r->axis->index);
}

void sh_request_post_near_gather(sh_request *r) {
  shape s = shape_of(r);
  for (int i = 1; i < s.near; i++) {
    int from = (s.place + s.near - i) % s.near;
    for (int b = 0; b < s.blocks; b++) receive_piece(r, s.block * s.near + from, b * s.near + from);
  }
  for (int i = 1; i < s.near; i++) {
    int to = (s.place + i) % s.near;
    for (int b = 0; b < s.blocks; b++) send_piece(r, s.block * s.near + to, b * s.near + s.place);
  }
}

#define SCATTER_PARTS                                                                                                  \
  {post_near_scatter, sum_near}, { post_far_scatter, sum_far }
#define GATHER_PARTS                                                                                                   \
  {sh_request_post_far_gather, NULL}, { sh_request_post_near_gather, NULL }
static const sh_request_part scatter_parts[] = {SCATTER_PARTS, {NULL, NULL}};
static const sh_request_part gather_parts[] = {GATHER_PARTS, {NULL, NULL}};
static const sh_request_part sum_parts[] = {SCATTER_PARTS, GATHER_PARTS, {NULL, NULL}};

/* Sum pieces of x cut at send_at, the own one into `sum`. Every rank sends what it does not own. */
static void set_scatter(sh_request *r, const sh_axis *axis, const float *x, float *sum) {
  int near = axis->impl->near, place = axis->index % near;
  int64_t need = axis->size / near * length(r->send_at, axis->index);
  for (int p = place; p < axis->size; p += near) need += near * length(r->send_at, p);
  if (need > r->buffer_capacity) {
    free(r->buffer);
    r->buffer_capacity = need + need / 2;
    r->buffer = sh_malloc(sizeof *r->buffer * (size_t)r->buffer_capacity);
  }
  r->send = (const char *)x, r->sum = sum;
  r->sent += (r->send_at[axis->size] - length(r->send_at, axis->index)) * float_bytes;
}

/* Gather pieces cut at recv_at; the own one reaches all others. */
static void set_gather(sh_request *r, const sh_axis *axis, void *all, size_t unit) {
  r->recv = all, r->unit = unit;
  r->sent += length(r->recv_at, axis->index) * (int64_t)unit * (axis->size - 1);
}

void sh_request_cut(int64_t *at, int64_t n, int ranks) {
  enum { LINE = 16 };
  int64_t lines = (n + LINE - 1) / LINE;
  for (int p = 0; p <= ranks; p++) {
    int64_t first = lines * p / ranks * LINE;
    at[p] = first < n ? first : n;
  }
}

void sh_sum_f32_begin(const sh_axis *axis, sh_request *r, float *x, int64_t n) {
  if (axis->size == 1) return;
  sh_check(axis, __func__, n, sizeof *x);
  if (n == 0) return;
  sh_request_places(r, axis->size);
  sh_request_cut(r->send_at, n, axis->size);
  sh_request_cut(r->recv_at, n, axis->size);
  set_scatter(r, axis, x, x + r->send_at[axis->index]);
  set_gather(r, axis, x, sizeof *x);
  sh_request_open_sum(r, axis, __func__, sum_parts);
}

void sh_reduce_scatter_f32_begin(const sh_axis *axis, sh_request *r, const float *x, const int64_t *count, float *out) {
  if (axis->size == 1) {
    if (count[0] && x != out) memcpy(out, x, (size_t)count[0] * sizeof *x);
    return;
  }
  sh_check(axis, __func__, sh_check_counts(count, axis->size), sizeof *x);
  sh_request_places(r, axis->size);
  sh_places(r->send_at, count, axis->size);
  set_scatter(r, axis, x, out);
  if (sh_request_dry(SH_DRY_SUMS) && count[axis->index])
    memmove(out, x + r->send_at[axis->index], (size_t)count[axis->index] * sizeof *x);
  sh_request_open_sum(r, axis, __func__, scatter_parts);
}

void sh_allgatherv_begin(const sh_axis *axis, sh_request *r, const void *mine, const int64_t *count, size_t unit,
                         void *out) {
  sh_request_places(r, axis->size);
  sh_places(r->recv_at, count, axis->size);
  char *own = (char *)out + (size_t)r->recv_at[axis->index] * unit;
  if (count[axis->index] && mine != own) memcpy(own, mine, (size_t)count[axis->index] * unit);
  if (axis->size == 1) return;
  sh_check(axis, __func__, sh_check_counts(count, axis->size), (int64_t)unit);
  set_gather(r, axis, out, unit);
  sh_request_open_sum(r, axis, __func__, gather_parts);
}
