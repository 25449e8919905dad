/* mpi/internal.h: what the files of mpi/ share. Nobody else includes it, except tests. */
#ifndef SH_MPI_INTERNAL_H
#define SH_MPI_INTERNAL_H

#include <mpi.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mpi/account.h"
#include "mpi/check.h"
#include "mpi/grid.h"

/* NULL in an axis that knows no MPI (sh_grid_single). */
struct sh_axis_impl {
  MPI_Comm comm;  /* of this axis */
  MPI_Comm job;   /* of the whole grid: what an abort ends */
  int *job_rank;  /* [size of the axis] places in `job`; NULL: calls are not checked */
  MPI_Comm open;  /* of this axis, for operations under way: whoever advances them shares it with nobody */
  unsigned begun; /* operations so far; only its remainder by a power of two counts */
  int near;       /* ranks [k near, (k + 1) near) share a node for every k: a power of two that divides the size */
};

/* Every MPI call goes through here: SH_MPI(axis, MPI_Barrier, comm). A failure ends the job with rank and name. */
#define SH_MPI(axis, function, ...) sh_mpi_check((axis), function(__VA_ARGS__), #function)
void sh_mpi_check(const sh_axis *axis, int code, const char *call);

static inline MPI_Comm sh_axis_comm(const sh_axis *axis) { return axis->impl ? axis->impl->comm : MPI_COMM_SELF; }

/* Tags of messages on `comm` and `job`. */
enum { SH_TAG_CLOCK = 1, SH_TAG_SIZE, SH_TAG_BYTES, SH_TAG_CHECK };

/* The most elements one MPI call is given; more goes in pieces. A variable, so that tests can cut small arrays. */
extern int64_t sh_mpi_piece;

/* If not 0, what `near` of new axes is where it divides the size, whatever their nodes: for tests. */
extern int sh_mpi_near;

/* If not negative, the node this rank says it is on when a grid is made: for tests. */
extern int sh_mpi_node;

/* Fill in and give back what operations need, collective over the axis. */
void sh_axis_open(sh_axis *axis);
void sh_axis_close(sh_axis *axis);

static inline int64_t sh_mpi_next(int64_t rest) { return rest < sh_mpi_piece ? rest : sh_mpi_piece; }

/* One operation for the accounts (mpi/account.h), the trace and the watchdog. A blocking one:
 *   sh_mpi_op op = sh_mpi_begin(axis, __func__);  MPI_Allreduce(...);  sh_mpi_end(&op, bytes);
 * One under way is posted, waited for later, and knows when it was complete:
 *   op = sh_mpi_begin(axis, "sh_sum_f32_begin");  post;  sh_mpi_posted(&op, bytes);
 *   double since = sh_mpi_wait(&op);  wait;  sh_mpi_waited(&op, since, completed); */
typedef struct sh_mpi_op {
  const char *call;
  int axis;
  sh_comm_kind kind;
  int64_t bytes;
  struct sh_comm_site site;
  double begun, posted; /* sh_now */
  double posted_working;
} sh_mpi_op;
sh_mpi_op sh_mpi_begin(const sh_axis *axis, const char *call);
void sh_mpi_end(sh_mpi_op *op, int64_t bytes);
void sh_mpi_posted(sh_mpi_op *op, int64_t bytes);
double sh_mpi_wait(const sh_mpi_op *op);
void sh_mpi_waited(const sh_mpi_op *op, double since, double completed);
void sh_mpi_polled(const sh_mpi_op *op, double since); /* a look at it while computing has ended */

/* A part of an operation: messages are posted, and when all have come and gone, arithmetic on what they brought, which
 * may be NULL. A list of them ends with a `post` of NULL. Both are called by whoever advances the operation: the
 * communication thread, or the thread that began it, perhaps inside a parallel region. */
typedef struct sh_request_part {
  void (*post)(struct sh_request *r);
  void (*then)(struct sh_request *r);
} sh_request_part;

struct sh_request {
  const sh_axis *axis; /* of the open operation; NULL when there is none */
  sh_mpi_op op;
  int64_t sent;                /* bytes of the operation to come */
  double completed;            /* sh_now, when `done` */
  const sh_request_part *part; /* under way */
  int tag;                     /* of its messages: the operation's number on the axis, and the part's */
  MPI_Request *message;
  int nmessages, message_capacity;
  struct sh_request *next; /* in the engine's list */
  atomic_bool done;
  /* Arguments. Pieces are in rank order, their places in units of `unit` bytes. */
  const char *send;
  char *recv;
  size_t unit;
  int64_t *send_at, *recv_at; /* [axis size + 1] */
  int places_capacity;
  float *sum;        /* where the own piece's sum goes */
  float *buffer;     /* what came and is not summed yet */
  const float **row; /* [axis size] what a sum is over */
  int64_t buffer_capacity;
  uint16_t *wire; /* mpi/request_bf16.c: x as it travels, then what came */
  int64_t wire_capacity;
  float *whole; /* the array that sums go back to */
  void *arg;    /* mpi/exchange.c */
};

/* For parts: a message of the open operation; empty ones are left out on both sides. */
void sh_request_send(struct sh_request *r, int rank, const void *data, int64_t bytes);
void sh_request_receive(struct sh_request *r, int rank, void *data, int64_t bytes);

/* Begin an operation that sends r->sent bytes. Its messages carry a number: the order of beginnings on an axis is the
 * same on all ranks. */
void sh_request_open(struct sh_request *r, const sh_axis *axis, const char *call, const sh_request_part *parts);
/* The same unless dry. */
void sh_request_open_sum(struct sh_request *r, const sh_axis *axis, const char *call, const sh_request_part *parts);

/* Room for places; places of n pieces without gaps; an all-to-all of the pieces set in r, as one part. */
void sh_request_places(struct sh_request *r, int ranks);
void sh_places(int64_t *at, const int64_t *count, int n);
void sh_request_post_pieces(struct sh_request *r);

/* Whether operations of this kind send nothing (sh_progress_dry). */
bool sh_request_dry(unsigned kind);

/* Places of one piece a rank in an array of n floats: as even as cache lines allow. */
void sh_request_cut(int64_t *at, int64_t n, int ranks);

/* The two parts of a gather of pieces set in r: between nodes, then inside. */
void sh_request_post_far_gather(struct sh_request *r);
void sh_request_post_near_gather(struct sh_request *r);

/* mpi/progress.c: take over a request that is filled in; wait until it is done. */
void sh_engine_begin(struct sh_request *r);
void sh_engine_wait(struct sh_request *r);

/* n as MPI's int; ends the job when it does not fit. */
int sh_mpi_int(const sh_axis *axis, int64_t n, const char *what);

#endif
