/* data/dataset.h: the data set on disk, one HDF5 file (layout: docs/FORMATS.md), written by prepare and synth.
 *
 * Users' events lie one user after another, in time order, in arrays of named features. Items are table rows
 * 0 .. items-1; `candidates` are the rows that are ranked and drawn as negatives. Original keys are kept.
 * Opening reads offsets [users+1], candidates and item counts; events stay on disk and are read by ranges with pread,
 * so a process never holds the set and no call here is collective.
 *
 *   /                     attributes: format "shoal-dataset", version, name, provenance (the command), report values
 *   every array: attribute xxh3, 16 hexadecimal digits, the XXH3-64 of its bytes
 *   /sequence/offsets     i64 [users+1]
 *   /features/item        i64 [events]   table row
 *   /features/time        i64 [events]   seconds (or any unit), non-decreasing within a user; absent when unknown
 *   /features/action      f32 [events]   rating, click ...; optional
 *       each feature: attributes kind ("jagged" "token" "dense"), and for ids: table ("item"), rows
 *   /items/candidates     i64 [n]        ascending rows
 *   /items/count          i64 [items]    events of each item
 *   /items/key_bytes u8, /items/key_offsets i64 [items+1]   original keys as UTF-8 byte strings; the same under /users
 *   /optimum/...          synth only: the Bayes-optimal metrics as attributes
 */
#ifndef SH_DATA_DATASET_H
#define SH_DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

typedef struct sh_dataset {
  char path[4096];
  char name[64];
  int64_t users, events, items;
  int64_t *offsets; /* [users+1] */
  int64_t ncandidates;
  int64_t *candidates; /* ascending table rows */
  int64_t *item_count; /* [items] */
  bool has_time, has_action;
  char events_digest[80];       /* of the events' items, times and actions in file order, and of the candidates */
  char vocabulary[40];          /* digest of the item keys in row order: equal for the same rows only */
  struct sh_dataset_impl *impl; /* file descriptor, array offsets */
} sh_dataset;

sh_status sh_dataset_open(sh_dataset *d, const char *path);
void sh_dataset_close(sh_dataset *d);

/* Events [first, first+count) of the file. Thread-safe. */
sh_status sh_dataset_items(const sh_dataset *d, int64_t first, int64_t count, int64_t *out);
sh_status sh_dataset_times(const sh_dataset *d, int64_t first, int64_t count, int64_t *out);
sh_status sh_dataset_actions(const sh_dataset *d, int64_t first, int64_t count, float *out);
/* Ask the system to read a range ahead (posix_fadvise); never fails. */
void sh_dataset_willneed(const sh_dataset *d, int64_t first, int64_t count);

/* Original keys: NUL-terminated copy into out[size] (cut when longer). */
sh_status sh_dataset_user_key(const sh_dataset *d, int64_t user, char *out, size_t size);
sh_status sh_dataset_item_key(const sh_dataset *d, int64_t item, char *out, size_t size);

/* A number stored at /optimum ("hr@10"); SH_ERR_DATA when the set has none. */
sh_status sh_dataset_optimum(const sh_dataset *d, const char *metric, double *out);

/* Writing: the whole content in memory, in the order above. `time`, `action`, `candidates` may be NULL (candidates: all
 * items), and so may keys (then 0, 1, 2 ...). Missing folders of the path are made. Written as path.partial, then
 * renamed. */
typedef struct sh_dataset_content {
  const char *name, *provenance;
  int64_t users, events, items;
  const int64_t *offsets;
  const int32_t *item; /* [events] */
  const int64_t *time;
  const float *action;
  int64_t ncandidates;
  const int64_t *candidates;
  const int64_t *user_key_offsets, *item_key_offsets; /* [n+1] */
  const char *user_key_bytes, *item_key_bytes;
  int noptimum;
  const char *const *optimum_name; /* [noptimum] "hr@10" ... */
  const double *optimum;
  const struct sh_data_report *report; /* shoal/data.h; NULL: computed from the content */
} sh_dataset_content;
sh_status sh_dataset_write(const sh_dataset_content *c, const char *path);

#endif
