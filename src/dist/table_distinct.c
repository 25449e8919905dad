/* The distinct rows of a batch: millions of keys, a few thousand different ones. */
#include <assert.h>
#include <string.h>

#include "dist/table_internal.h"
#include "mpi/coll.h"

enum { FEW = 4096, BLOCK = 64 };

/* Up to a bound, marks over all positions and an array position -> slot. */
static void ask_direct(const sh_table *t, int32_t *slot, int64_t n, const int64_t *position, const uint32_t *choice) {
  sh_marks marks = t->impl->asked;
  uint64_t V = (uint64_t)t->conf.rows;
  for (int64_t first = 0; first < n; first += BLOCK) {
    int64_t last = first + BLOCK < n ? first + BLOCK : n;
    uint64_t all = 1;
    for (int64_t k = first; k < last; k++) {
      int64_t p = position[choice ? choice[k] : k];
      assert((uint64_t)p < V);
      slot[k] = (int32_t)p; /* the position first; its slot when all are known */
      all &= sh_marks_has(&marks, p);
    }
    for (int64_t k = first; k < last && !all; k++) sh_marks_set(&marks, slot[k]);
  }
}

/* Slots of the distinct positions list[n], which the table's array `of` knows by handle[n]: those that one of slot[0 ..
 * nfirst - 1] stands for come first. out[slot] = position. Returns how many are first. */
static int64_t number(int64_t n, const int64_t *list, const int64_t *handle, const int32_t *slot, int64_t nfirst,
                      int32_t *of, int64_t *out) {
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t s = 0; s < n; s++) of[handle[s]] = 0;
#pragma omp parallel for schedule(static) if (nfirst > FEW)
  for (int64_t k = 0; k < nfirst; k++) __atomic_store_n(of + slot[k], 1, __ATOMIC_RELAXED);
  int64_t first = 0, next[2] = {0};
  for (int64_t s = 0; s < n; s++) first += of[handle[s]];
  next[0] = first;
  for (int64_t s = 0; s < n; s++) {
    int64_t at = next[of[handle[s]]]++;
    of[handle[s]] = (int32_t)at;
    out[at] = list[s];
  }
  return first;
}

static int64_t settle_direct(sh_table *t, int32_t *slot, int64_t n, int64_t nfirst, sh_arena *arena,
                             int64_t **positions, int64_t *first) {
  struct sh_table_impl *impl = t->impl;
  sh_marks *marks = &impl->asked;
  int32_t *slot_of = impl->slot_of;
  int64_t nslots = sh_marks_count(marks), *out = *positions = SH_ARENA_NEW(arena, int64_t, nslots);
  *first = nslots;
  if (nfirst == n) {
    sh_marks_take(marks, out);
    if (nslots == t->conf.rows) return nslots; /* every row: a slot is a position */
#pragma omp parallel for schedule(static) if (nslots > FEW)
    for (int64_t s = 0; s < nslots; s++) slot_of[out[s]] = (int32_t)s;
  } else {
    int64_t *list = sh_buffer_need(&impl->sort[0], sizeof *list * (size_t)nslots);
    sh_marks_take(marks, list);
    *first = number(nslots, list, list, slot, nfirst, slot_of, out);
  }
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) slot[i] = slot_of[slot[i]];
  return nslots;
}

/* Place of a position in the set: where it stands, or the empty place (-1) where it would. */
static int64_t probe(const int64_t *set, int64_t mask, int64_t p) {
  int64_t h = (int64_t)((uint64_t)p * 0x9E3779B97F4A7C15u >> 20) & mask;
  for (;; h = (h + 1) & mask) {
    int64_t seen = __atomic_load_n(set + h, __ATOMIC_RELAXED);
    if (seen == p || seen == -1) return h;
  }
}

/* Returns the place, which a member keeps. */
static int64_t insert(int64_t *set, int64_t mask, int64_t p) {
  for (;;) {
    int64_t h = probe(set, mask, p), empty = -1;
    if (__atomic_load_n(set + h, __ATOMIC_RELAXED) == p) return h;
    if (__atomic_compare_exchange_n(set + h, &empty, p, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return h;
  }
}

/* Radix sort by 11 bits a pass; the result stands in `a`. */
static void sort(int64_t *a, int64_t *b, int64_t n, int64_t largest) {
  int64_t *from = a, *to = b;
  for (int shift = 0; shift < 63 && largest >> shift; shift += 11) {
    int64_t start[2049] = {0};
    for (int64_t i = 0; i < n; i++) start[(from[i] >> shift & 2047) + 1]++;
    for (int d = 0; d < 2048; d++) start[d + 1] += start[d];
    for (int64_t i = 0; i < n; i++) to[start[from[i] >> shift & 2047]++] = from[i];
    int64_t *other = from;
    from = to;
    to = other;
  }
  if (from != a) memcpy(a, from, sizeof *a * (size_t)n);
}

/* Larger tables: a hash set of the size of the batch. Where a member stands in it depends on the threads; the sorted
 * list and so the slots do not. */
static void open_hashed(sh_table *t, int64_t n) {
  struct sh_table_impl *impl = t->impl;
  int64_t size = 1024;
  while (size < 2 * n) size *= 2;
  int64_t *set = sh_buffer_need(&impl->set, sizeof *set * (size_t)size);
  impl->set_size = size;
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t h = 0; h < size; h++) set[h] = -1;
}

static void ask_hashed(const sh_table *t, int32_t *slot, int64_t n, const int64_t *position, const uint32_t *choice) {
  int64_t *set = t->impl->set.data, mask = t->impl->set_size - 1;
  uint64_t V = (uint64_t)t->conf.rows;
  for (int64_t k = 0; k < n; k++) {
    int64_t p = position[choice ? choice[k] : k];
    assert((uint64_t)p < V);
    slot[k] = (int32_t)insert(set, mask, p); /* the place first */
  }
}

/* The set's members, in the order of their places, into list; returns how many. */
static int64_t members(const int64_t *set, int64_t size, int64_t *list) {
  enum { CHUNKS = 64 };
  int64_t start[CHUNKS + 1] = {0};
#pragma omp parallel for schedule(static) if (size > FEW)
  for (int64_t c = 0; c < CHUNKS; c++)
    for (int64_t h = size * c / CHUNKS; h < size * (c + 1) / CHUNKS; h++) start[c + 1] += set[h] >= 0;
  for (int64_t c = 0; c < CHUNKS; c++) start[c + 1] += start[c];
#pragma omp parallel for schedule(static) if (size > FEW)
  for (int64_t c = 0; c < CHUNKS; c++) {
    int64_t *to = list + start[c];
    for (int64_t h = size * c / CHUNKS; h < size * (c + 1) / CHUNKS; h++)
      if (set[h] >= 0) *to++ = set[h];
  }
  return start[CHUNKS];
}

static int64_t settle_hashed(sh_table *t, int32_t *slot, int64_t n, int64_t nfirst, sh_arena *arena,
                             int64_t **positions, int64_t *first) {
  struct sh_table_impl *impl = t->impl;
  int64_t *set = impl->set.data, size = impl->set_size, mask = size - 1;
  int32_t *slot_at = sh_buffer_need(&impl->set_slot, sizeof *slot_at * (size_t)size);
  int64_t *list = sh_buffer_need(&impl->sort[0], sizeof *list * (size_t)n);
  int64_t *other = sh_buffer_need(&impl->sort[1], sizeof *list * (size_t)n);
  int64_t nslots = members(set, size, list);
  sort(list, other, nslots, t->conf.rows - 1);
  int64_t *out = *positions = SH_ARENA_NEW(arena, int64_t, nslots), *place = other;
#pragma omp parallel for schedule(static) if (nslots > FEW)
  for (int64_t s = 0; s < nslots; s++) place[s] = probe(set, mask, list[s]);
  *first = number(nslots, list, place, slot, nfirst, slot_at, out);
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) slot[i] = slot_at[slot[i]];
  return nslots;
}

static bool direct(const sh_table *t) { return t->conf.rows <= t->impl->direct_limit; }

void sh_distinct_open(sh_table *t, int64_t n) {
  enum { MOST = 1 << 29 }; /* twice as many places, a power of two, are still counted in 32 bits */
  if (n > MOST)
    sh_abort(t->axis, SH_ERR_USAGE,
             "a rank names more than 2^29 table rows in a step: use more ranks, or fewer "
             "batch.users or loss.negatives");
  if (!direct(t)) open_hashed(t, n);
}

void sh_distinct_ask(const sh_table *t, int32_t *slot, int64_t n, const int64_t *position, const uint32_t *choice) {
  if (direct(t))
    ask_direct(t, slot, n, position, choice);
  else
    ask_hashed(t, slot, n, position, choice);
}

int64_t sh_distinct_settle(sh_table *t, int32_t *slot, int64_t n, int64_t nfirst, sh_arena *arena, int64_t **positions,
                           int64_t *first) {
  return direct(t) ? settle_direct(t, slot, n, nfirst, arena, positions, first)
                   : settle_hashed(t, slot, n, nfirst, arena, positions, first);
}
