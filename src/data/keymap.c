#include "data/keymap.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/hash.h"

enum { FIRST_SLOTS = 1 << 12, FIRST_KEYS = 1 << 10, FIRST_BYTES = 1 << 14 };

void sh_keymap_init(sh_keymap *m) {
  *m = (sh_keymap){.capacity = FIRST_KEYS, .bytes_capacity = FIRST_BYTES, .slots = FIRST_SLOTS};
  m->offsets = sh_malloc(sizeof(int64_t) * (FIRST_KEYS + 1));
  m->offsets[0] = 0;
  m->bytes = sh_malloc(FIRST_BYTES);
  m->slot = sh_calloc(FIRST_SLOTS, sizeof(sh_keymap_slot));
}

void sh_keymap_free(sh_keymap *m) {
  free(m->offsets);
  free(m->bytes);
  free(m->slot);
  *m = (sh_keymap){0};
}

/* Length of the UTF-8 sequence at s (n bytes left), 0 when there is none: no overlong forms, surrogates or > U+10FFFF.
 */
static size_t utf8_length(const unsigned char *s, size_t n) {
  if (s[0] < 0x80) return 1;
  size_t k = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
  if (s[0] < 0xC2 || s[0] > 0xF4 || n < k) return 0;
  for (size_t i = 1; i < k; i++) {
    if ((s[i] & 0xC0) != 0x80) return 0;
  }
  if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)) return 0;
  if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
  return k;
}

const char *sh_key_fault(const char *key, size_t length) {
  if (length == 0) return "is empty";
  if (length > SH_KEY_MAX) return "is longer than 1024 bytes";
  for (size_t i = 0; i < length;) {
    size_t k = key[i] ? utf8_length((const unsigned char *)key + i, length - i) : 0;
    if (k == 0) return key[i] ? "is not UTF-8" : "contains a zero byte";
    i += k;
  }
  return NULL;
}

static sh_keymap_slot *find_slot(const sh_keymap *m, const char *key, size_t length, uint32_t hash) {
  size_t mask = m->slots - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    sh_keymap_slot *s = &m->slot[i];
    if (s->id_plus_1 == 0) return s;
    if (s->hash != hash) continue;
    int64_t id = (int64_t)s->id_plus_1 - 1, at = m->offsets[id];
    if ((size_t)(m->offsets[id + 1] - at) == length && memcmp(m->bytes + at, key, length) == 0) return s;
  }
}

static void grow_slots(sh_keymap *m) {
  sh_keymap_slot *old = m->slot;
  size_t n = m->slots, mask = 2 * n - 1;
  m->slots = 2 * n;
  m->slot = sh_calloc(m->slots, sizeof *m->slot);
  for (size_t i = 0; i < n; i++) {
    if (old[i].id_plus_1 == 0) continue;
    size_t j = old[i].hash & mask;
    while (m->slot[j].id_plus_1) j = (j + 1) & mask;
    m->slot[j] = old[i];
  }
  free(old);
}

static void append_key(sh_keymap *m, const char *key, size_t length) {
  if (m->n == m->capacity) {
    m->capacity *= 2;
    m->offsets = sh_realloc(m->offsets, sizeof(int64_t) * (size_t)(m->capacity + 1));
  }
  size_t at = (size_t)m->offsets[m->n];
  while (at + length > m->bytes_capacity) {
    m->bytes_capacity *= 2;
    m->bytes = sh_realloc(m->bytes, m->bytes_capacity);
  }
  memcpy(m->bytes + at, key, length);
  m->offsets[++m->n] = (int64_t)(at + length);
}

static uint32_t short_hash(const char *key, size_t length) {
  uint64_t h = sh_hash(key, length);
  return (uint32_t)(h ^ (h >> 32));
}

int64_t sh_keymap_add(sh_keymap *m, const char *key, size_t length) {
  uint32_t hash = short_hash(key, length);
  sh_keymap_slot *s = find_slot(m, key, length, hash);
  if (s->id_plus_1) return (int64_t)s->id_plus_1 - 1;
  if (m->n == INT32_MAX || sh_key_fault(key, length)) return -1;
  append_key(m, key, length);
  *s = (sh_keymap_slot){(uint32_t)m->n, hash};
  if ((size_t)m->n * 4 > m->slots * 3) grow_slots(m);
  return m->n - 1;
}

uint64_t sh_keymap_hash(const sh_keymap *m, int64_t id) {
  return sh_hash(m->bytes + m->offsets[id], (size_t)(m->offsets[id + 1] - m->offsets[id]));
}

/* The value of a canonical 64-bit integer, biased so that unsigned order is its order. */
static bool integer_key(const char *s, size_t n, uint64_t *biased) {
  bool minus = n > 0 && s[0] == '-';
  if (minus) s++, n--;
  if (n == 0 || n > 19 || (s[0] == '0' && (n > 1 || minus))) return false;
  uint64_t v = 0;
  for (size_t i = 0; i < n; i++) {
    if (s[i] < '0' || s[i] > '9') return false;
    v = v * 10 + (uint64_t)(s[i] - '0');
  }
  if (v > (uint64_t)INT64_MAX) return false;
  const uint64_t zero = (uint64_t)1 << 63;
  *biased = minus ? zero - v : zero + v;
  return true;
}

typedef struct numbered {
  uint64_t value;
  int32_t id;
} numbered;

static int by_value(const void *pa, const void *pb) {
  const numbered *a = pa, *b = pb;
  return a->value < b->value ? -1 : a->value > b->value;
}

int64_t sh_keymap_order(const sh_keymap *m, const uint8_t *used, int32_t *order, int32_t *row) {
  int64_t rows = 0;
  bool integers = true;
  numbered *list = sh_malloc(sizeof *list * (size_t)(m->n ? m->n : 1));
  for (int64_t id = 0; id < m->n; id++) {
    row[id] = -1;
    if (!used[id]) continue;
    list[rows].id = (int32_t)id;
    size_t length = (size_t)(m->offsets[id + 1] - m->offsets[id]);
    integers = integers && integer_key(m->bytes + m->offsets[id], length, &list[rows].value);
    rows++;
  }
  if (integers) qsort(list, (size_t)rows, sizeof *list, by_value);
  for (int64_t r = 0; r < rows; r++) {
    order[r] = list[r].id;
    row[list[r].id] = (int32_t)r;
  }
  free(list);
  return rows;
}
