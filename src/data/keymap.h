/* data/keymap.h: original keys (UTF-8 byte strings; integers are their digits) -> 0, 1, 2 ... by first appearance. */
#ifndef SH_DATA_KEYMAP_H
#define SH_DATA_KEYMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SH_KEY_MAX = 1024 }; /* bytes of a key */

typedef struct sh_keymap_slot {
  uint32_t id_plus_1, hash;
} sh_keymap_slot;

typedef struct sh_keymap {
  int64_t n, capacity; /* at most 2^31 - 1 keys */
  int64_t *offsets;    /* [n+1] into bytes */
  char *bytes;
  size_t bytes_capacity;
  sh_keymap_slot *slot; /* [slots], a power of two */
  size_t slots;
} sh_keymap;

void sh_keymap_init(sh_keymap *m);
void sh_keymap_free(sh_keymap *m);

/* The key's id, a new one if it was not seen; -1 when it is no key: sh_key_fault says why. */
int64_t sh_keymap_add(sh_keymap *m, const char *key, size_t length);

/* "is empty", "is not UTF-8" ... or NULL when it is a good key. */
const char *sh_key_fault(const char *key, size_t length);

/* XXH3 of a key's bytes: what random draws about it are counted by. */
uint64_t sh_keymap_hash(const sh_keymap *m, int64_t id);

/* The order of table rows: of the ids with used[id] != 0, ascending by value when all those keys are integers (no
 * leading zeros, 64 bits), else by first appearance. Writes order[rows] (row -> id) and row[n] (id -> row, -1 when
 * unused); returns the rows. */
int64_t sh_keymap_order(const sh_keymap *m, const uint8_t *used, int32_t *order, int32_t *row);

#endif
