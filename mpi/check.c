#define SH_COLL_INSIDE
#include "mpi/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/hash.h"
#include "mpi/coll.h"
#include "mpi/internal.h"

bool sh_checking;

void sh_comm_check(bool on) { sh_checking = on; }

int64_t sh_check_counts(const int64_t *count, int n) {
  return sh_checking ? (int64_t)(sh_hash(count, sizeof *count * (size_t)n) >> 1) : 0;
}

typedef struct record {
  char call[40], axis[8], file[80];
  int line, kind;
  int64_t a, b, to_you, from_you; /* the last two: -1 when the call has none */
} record;

/* As a message names it: "rank 1 calls sh_sum_f32 over data at src/x.c:12 (gradients; 100, 4)". */
static void describe(int rank, const record *r, char *out, size_t size) {
  snprintf(out, size, "rank %d calls %s over %s at %s:%d (%s; %lld, %lld)", rank, r->call, r->axis, r->file, r->line,
           sh_comm_kind_name(r->kind), (long long)r->a, (long long)r->b);
}

/* Both sides see it. The lower rank speaks; the other only when that did not end the job. */
static _Noreturn void end_job(const sh_axis *axis, const record *mine, int other, const record *theirs) {
  const int *rank = axis->impl->job_rank;
  int me = rank[axis->index];
  char first[320], second[320], line[1024], more[160] = "";
  describe(me, mine, first, sizeof first);
  describe(rank[other], theirs, second, sizeof second);
  if (mine->to_you != theirs->from_you || mine->from_you != theirs->to_you)
    snprintf(more, sizeof more, "; the first sends %lld and expects %lld, the second expects %lld and sends %lld",
             (long long)mine->to_you, (long long)mine->from_you, (long long)theirs->from_you,
             (long long)theirs->to_you);
  snprintf(line, sizeof line, "comm.check: %s, but %s%s", first, second, more);
  if (me > rank[other]) sleep(2);
  sh_abort(axis, SH_ERR_INTERNAL, line);
}

static bool alike(const record *x, const record *y) {
  return !strcmp(x->call, y->call) && !strcmp(x->axis, y->axis) && !strcmp(x->file, y->file) && x->line == y->line &&
         x->kind == y->kind && x->a == y->a && x->b == y->b && x->to_you == y->from_you && x->from_you == y->to_you;
}

/* What is needed for `ranks`, kept from call to call. */
static struct {
  int ranks;
  record *mine, *theirs;
  MPI_Request *sent, *received;
} room;

static void make_room(int ranks) {
  if (ranks <= room.ranks) return;
  size_t n = (size_t)ranks;
  room.ranks = ranks;
  room.mine = sh_realloc(room.mine, sizeof *room.mine * n);
  room.theirs = sh_realloc(room.theirs, sizeof *room.theirs * n);
  room.sent = sh_realloc(room.sent, sizeof *room.sent * n);
  room.received = sh_realloc(room.received, sizeof *room.received * n);
}

/* Messages go between ranks of the job, whatever the axis: two that are about to enter different axes hear of each
 * other if each belongs to the other's. Between two ranks messages keep their order, so records meet call by call. */
void sh_check_call(const sh_axis *axis, const char *call, int64_t a, int64_t b, const int64_t *send,
                   const int64_t *recv) {
  if (axis->size == 1 || !axis->impl->job_rank) return;
  make_room(axis->size);
  record mine = {.line = sh_comm_site.line, .kind = (int)sh_comm_as(SH_COMM_CONTROL), .a = a, .b = b};
  sh_comm_as((sh_comm_kind)mine.kind);
  snprintf(mine.call, sizeof mine.call, "%s", call);
  snprintf(mine.axis, sizeof mine.axis, "%s", axis->name);
  snprintf(mine.file, sizeof mine.file, "%s", sh_comm_site.file);
  const int *rank = axis->impl->job_rank;
  MPI_Comm job = axis->impl->job;
  for (int i = 0; i < axis->size; i++) {
    room.sent[i] = room.received[i] = MPI_REQUEST_NULL;
    room.mine[i] = mine;
    room.mine[i].to_you = send ? send[i] : -1;
    room.mine[i].from_you = recv ? recv[i] : -1;
    if (i == axis->index) continue;
    SH_MPI(axis, MPI_Irecv, &room.theirs[i], (int)sizeof mine, MPI_BYTE, rank[i], SH_TAG_CHECK, job, &room.received[i]);
    SH_MPI(axis, MPI_Isend, &room.mine[i], (int)sizeof mine, MPI_BYTE, rank[i], SH_TAG_CHECK, job, &room.sent[i]);
  }
  for (int left = axis->size - 1; left > 0; left--) { /* the first that differs ends it, whoever does not come */
    int i;
    SH_MPI(axis, MPI_Waitany, axis->size, room.received, &i, MPI_STATUS_IGNORE);
    if (!alike(&room.mine[i], &room.theirs[i])) end_job(axis, &room.mine[i], i, &room.theirs[i]);
  }
  SH_MPI(axis, MPI_Waitall, axis->size, room.sent, MPI_STATUSES_IGNORE);
}
