/* dist/table.h: row-sharded embedding tables.
 *
 * Keys 0 .. rows-1 -> S virtual shards (a power of two, fixed per table) -> ranks own contiguous ranges of shards: rank
 * r of P owns shards [r*S/P, (r+1)*S/P). A static table stores no keys: shard(key) = bit_reverse(key mod S)   over
 * log2(S) bits: consecutive keys spread over all ranks at any P and V place(key) = key / S                  rows of a
 * shard lie by key The *position* of a row is its index when all shards stand one after another; a checkpoint stores
 * rows in this order with offsets[S+1], so its content is the same on every grid, and each rank's part is one
 * contiguous range.
 *
 * A step: fetch_begin or its parts (ids leave, nothing of the table is read) ... fetch_end (rows arrive) ... grad (row
 * gradients go back over the same plan, merged at the owner in rank order) ... update. All are collective over the
 * table axis.
 *
 * So that rows travel while layers compute, a fetch may say which places it needs first; the rows of the others come
 * later and their gradients leave earlier:
 *   send, rows (may be left out), end: first rows are here, the rest leaves
 *   ... forward ... rest: all rows are here ... loss: gradients of the rest are final ... grad_rest: they leave
 *   ... backward ... grad_first: the others leave (may be left out) ... grad: all are merged
 */
#ifndef SH_DIST_TABLE_H
#define SH_DIST_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/params.h"
#include "mpi/grid.h"
#include "optim/rows.h"

typedef struct sh_table_conf {
  char name[SH_PARAM_NAME]; /* "item" */
  int64_t rows;             /* V: keys 0 .. V-1 */
  int width;                /* D */
  int shards;               /* S; 0 = default (4096) */
  uint32_t seed;
  sh_init init;
  sh_row_optim optim;
  double adagrad_initial; /* initial accumulator */
  char vocabulary[40];    /* digest of what the keys stand for, kept in checkpoints; "" when unknown */
} sh_table_conf;

enum { SH_TABLE_STATES = SH_ROW_STATES };

typedef struct sh_table {
  sh_table_conf conf;
  const sh_axis *axis;
  int shard_bits;
  int64_t shard_first, shard_last; /* own shards [first, last) */
  int64_t *shard_start;            /* [S+1] position of each shard's first row */
  int64_t position_first;          /* position of own row 0 */
  int64_t local_rows;
  float *rows;                          /* [local_rows x width], tight, huge pages, in position order */
  int nstate;                           /* 0..2 */
  int state_width[SH_TABLE_STATES];     /* width or 1 */
  char state_name[SH_TABLE_STATES][16]; /* "exp_avg" "exp_avg_sq" "sum_sq" */
  float *state[SH_TABLE_STATES];        /* [local_rows x state_width] */
  struct sh_table_impl *impl;           /* marks, merge buffers */
} sh_table;

/* Rows are drawn from (seed, name, key): the same on every grid. */
sh_status sh_table_create(sh_table *t, const sh_table_conf *conf, const sh_axis *axis);
void sh_table_destroy(sh_table *t);

int64_t sh_table_position(const sh_table *t, int64_t key); /* 0 .. V-1 */
int64_t sh_table_key(const sh_table *t, int64_t position); /* inverse */
int sh_table_owner(const sh_table *t, int64_t key);        /* rank on the axis */
int64_t sh_table_local(const sh_table *t, int64_t key);    /* own row index, or -1 */

/* One batch's view of a table. Reused over batches; its arrays live in the arena given at begin. */
typedef struct sh_fetch {
  int64_t nkeys;
  int32_t *slot;     /* [nkeys] slot of each key asked for */
  int64_t nslots;    /* distinct keys: first ones in position order, then the rest in position order */
  int64_t nfirst;    /* slots of places needed first; all of them on an axis of size 1 */
  int64_t *slot_key; /* [nslots] */
  int ld;            /* floats between rows: width rounded up to 16, padding zero */
  float *rows;       /* [nslots x ld], the first valid after fetch_end, the rest after fetch_rest */
  float *drows;      /* [nslots x ld], zeroed by fetch_end: the caller adds gradients here */
  struct sh_fetch_impl *impl;
} sh_fetch;
void sh_fetch_init(sh_fetch *f, sh_table *t);
void sh_fetch_free(sh_fetch *f);

/* What a fetch brings is listed between open, which makes room for nkeys, and send, when the ids leave; one fetch of a
 * table at a time. Places 0 .. nfirst - 1 are needed first. ask: place first + k wants the row at position[choice[k]],
 * or at position[k] when choice is NULL. Every place is asked for once, in any order, by any thread; positions may
 * repeat; each in [0, V) (asserted). Nothing of the table is read. Send is thread parallel and collective; slots do not
 * depend on threads. */
void sh_fetch_open(sh_table *t, sh_fetch *f, int64_t nkeys, int64_t nfirst, sh_arena *batch);
void sh_fetch_ask(sh_fetch *f, int64_t first, int64_t n, const int64_t *position, const uint32_t *choice);
void sh_fetch_send(sh_table *t, sh_fetch *f);

/* All of it, everything first, for a list of keys, which may repeat and come in any order; each in [0, V) (asserted).
 */
void sh_table_fetch_begin(sh_table *t, sh_fetch *f, const int64_t *keys, int64_t nkeys, sh_arena *batch);

/* The ids have come (fetch_rows waits for them itself). */
void sh_fetch_ids(sh_fetch *f);

/* Rows after the last update. rows: the first ones leave their owners; end: they are here, the rest leaves; rest: all
 * are here. `step` holds rows and drows. */
void sh_table_fetch_rows(sh_table *t, sh_fetch *f, sh_arena *step);
void sh_table_fetch_end(sh_table *t, sh_fetch *f, sh_arena *step);
void sh_table_fetch_rest(sh_table *t, sh_fetch *f);

/* drows travel to their owners and are summed per row in rank order; the sums wait in the table, or in drows
 * themselves, which must stay as they are until the update. Returns this rank's sum of squares of the merged gradient
 * (for the global norm, sum over the table axis). Called again before the update, for another fetch or micro-batch, it
 * adds to what is there and returns the square of the whole. */
double sh_table_grad(sh_table *t, sh_fetch *f);

/* Send part of the gradients ahead of it, when they are final: those of slots nfirst and on; then those before. */
void sh_table_grad_rest(sh_table *t, sh_fetch *f);
void sh_table_grad_first(sh_table *t, sh_fetch *f);

/* Add gradients drows[n x ld] of own rows, numbered from 0 and ascending, that no fetch brings (full softmax). Local.
 * They are merged with what waits and with what sh_table_grad brings later, whose square and count then cover both. */
void sh_table_add_local(sh_table *t, int64_t n, const int32_t *local_row, const float *drows, int64_t ld);

/* Apply the merged gradient to own rows. */
void sh_table_update(sh_table *t, const sh_row_hyper *h);

int64_t sh_table_touched(const sh_table *t); /* own rows with a gradient in the last step */

#endif
