/* dist/table_internal.h: what the files of the table share. Included by table*.c and tests only. */
#ifndef SH_DIST_TABLE_INTERNAL_H
#define SH_DIST_TABLE_INTERNAL_H

#include "core/search.h"
#include "dist/marks.h"
#include "dist/table.h"
#include "mpi/exchange.h"

/* A buffer that only grows, with room to spare, so that steps soon stop asking the system. */
typedef struct sh_buffer {
  void *data;
  size_t bytes;
} sh_buffer;
void *sh_buffer_need(sh_buffer *b, size_t bytes); /* contents are lost when it grows */

/* Gradients from one place: of rows[n], ascending, counted from `base`. */
struct sh_grad_source {
  const int64_t *row;
  int64_t n, base;
  const float *grad;
  int64_t ld;
};

struct sh_table_impl {
  int64_t *start_of_mod; /* [S] first position of the shard of keys with key mod S = m: one look-up a key */
  int64_t *rank_start;   /* [axis size + 1] position of each rank's first row */
  /* Distinct keys: marks and a direct array over positions up to direct_limit rows, else a hash set. */
  int64_t direct_limit;
  const sh_fetch *open; /* the fetch that is being filled, or NULL */
  sh_fetch *late;       /* the fetch whose second part is on its way and uses wire and pack, or NULL */
  sh_marks asked;
  int32_t *slot_of; /* [V], NULL when beyond the limit */
  sh_buffer set, set_slot, sort[2];
  int64_t set_size;
  /* Rows on their way: one asked of this rank, one asked by it when its rows are padded. */
  sh_buffer wire, pack;
  /* The merged gradient: rows touched, ascending, and their gradients; two, for merging one into the other. What came
   * from one place alone is not copied: `waiting` is the fetch's own. */
  sh_marks own;
  sh_buffer touched[2], grad[2], block_square, local;
  int now;              /* which of the two */
  bool pending;         /* a gradient waits for update: */
  const float *waiting; /* [ntouched x waiting_ld] */
  int64_t waiting_ld;
  struct sh_grad_source *source; /* [2 axis size + 1] */
  int64_t ntouched;
};

/* Slots that go together: those needed first, and the rest. Each kind has its own plan of exchange. */
typedef struct sh_fetch_part {
  sh_exchange *exchange;
  int64_t first, n; /* slots */
  int64_t *count;   /* [axis size] slots of each owner */
  int64_t nasked;
  const int64_t *asked, *asked_count; /* positions others want of this rank */
} sh_fetch_part;

struct sh_fetch_impl {
  sh_table *table;
  sh_arena *batch;   /* between open and send */
  int64_t nfirst;    /* places asked for first */
  int64_t *position; /* [nslots] batch arena */
  sh_fetch_part part[2];
  int parts;              /* 1 when everything comes first; 0 on an axis of size 1: nothing travels */
  bool asked, rows_begun; /* ids have come; first rows are under way or here */
  bool grads_begun[2];    /* gradients of each part are under way */
};

static inline int64_t sh_position_of(const sh_table *t, int64_t key) {
  return t->impl->start_of_mod[key & (((int64_t)1 << t->shard_bits) - 1)] + (key >> t->shard_bits);
}

/* The lowest `bits` bits of x in opposite order: shard <-> key mod S. */
static inline int64_t sh_bit_reverse(int64_t x, int bits) {
  uint32_t v = __builtin_bswap32((uint32_t)x);
  v = (v >> 4 & 0x0F0F0F0Fu) | (v & 0x0F0F0F0Fu) << 4;
  v = (v >> 2 & 0x33333333u) | (v & 0x33333333u) << 2;
  v = (v >> 1 & 0x55555555u) | (v & 0x55555555u) << 1;
  return bits ? (int64_t)(v >> (32 - bits)) : 0;
}

/* The shard of a position: the last that starts at or before it, since empty ones before it start there too. */
static inline int64_t sh_shard_at(const sh_table *t, int64_t position) {
  return sh_lower_bound(t->shard_start, ((int64_t)1 << t->shard_bits) + 1, position + 1) - 1;
}

/* The distinct positions among n asked for, one list at a time: open; ask, from any threads; settle.
 * Ask notes position[choice[k]] (choice NULL: position[k]) in slot[k]; settle makes it the position's place among the
 * distinct ones, which it returns in the arena with their number: first those among slot[0 .. nfirst - 1], of which
 * there are *first, ascending, then the others, ascending. */
void sh_distinct_open(sh_table *t, int64_t n);
void sh_distinct_ask(const sh_table *t, int32_t *slot, int64_t n, const int64_t *position, const uint32_t *choice);
int64_t sh_distinct_settle(sh_table *t, int32_t *slot, int64_t n, int64_t nfirst, sh_arena *arena, int64_t **positions,
                           int64_t *first);

#endif
