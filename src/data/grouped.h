/* data/grouped.h: a log grouped by user, in memory, and the filters of shoal prepare. */
#ifndef SH_DATA_GROUPED_H
#define SH_DATA_GROUPED_H

#include "data/prepare.h"

typedef struct sh_grouped {
  int64_t users, items, events;
  int64_t *offsets; /* [users+1] */
  int32_t *item;    /* [events] */
  int64_t *time;    /* [events] or NULL */
  float *action;    /* [events] or NULL */
} sh_grouped;

/* Counting sort by user, stable. Takes the columns of `raw` (freed one by one: the peak is one column more than the
 * log); row[id] gives the table row of a key. */
void sh_grouped_make(sh_grouped *g, sh_raw *raw, const int32_t *user_row, int64_t users, const int32_t *item_row,
                     int64_t items);
void sh_grouped_free(sh_grouped *g);

/* Events of a user by time. Equal times: as they lie, or with hashes of the keys, in an order that depends on seed,
 * user, time and item alone. */
typedef struct sh_tie_order {
  uint32_t seed;
  const uint64_t *user_hash, *item_hash; /* [users] [items] */
} sh_tie_order;
void sh_grouped_sort(sh_grouped *g, const sh_tie_order *shuffle); /* NULL: as they lie */

/* Each returns the number of events removed; users and items stay, perhaps without events. */
int64_t sh_grouped_drop_repeats(sh_grouped *g);
int64_t sh_grouped_core(sh_grouped *g, int64_t k); /* one pass: both counts taken before it */
int64_t sh_grouped_min_length(sh_grouped *g, int64_t length);

/* Remove users without events, and items without events that are not keep_item. order[row] = key id follows. */
void sh_grouped_compact(sh_grouped *g, const uint8_t *keep_item, int32_t *user_order, int32_t *item_order);

#endif
