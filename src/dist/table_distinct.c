/* The distinct rows of a batch: millions of keys, a few thousand different ones. */
#include <assert.h>
#include <string.h>

#include "dist/table_internal.h"

enum { FEW = 4096 };

/* Up to a bound, marks over all positions and an array position -> slot. */
static int64_t distinct_direct(sh_table *t, const int64_t *keys, int64_t n, int32_t *slot, sh_arena *arena,
                               int64_t **positions) {
  struct sh_table_impl *impl = t->impl;
  sh_marks *marks = &impl->asked;
  int32_t *slot_of = impl->slot_of;
  uint64_t V = (uint64_t)t->conf.rows;
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) {
    assert((uint64_t)keys[i] < V);
    int64_t p = sh_position_of(t, keys[i]);
    slot[i] = (int32_t)p; /* the position first; its slot below */
    sh_marks_set(marks, p);
  }
  int64_t nslots = sh_marks_count(marks), *out = *positions = SH_ARENA_NEW(arena, int64_t, nslots);
  sh_marks_take(marks, out);
#pragma omp parallel for schedule(static) if (nslots > FEW)
  for (int64_t s = 0; s < nslots; s++) slot_of[out[s]] = (int32_t)s;
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

static void insert(int64_t *set, int64_t mask, int64_t p) {
  for (;;) {
    int64_t h = probe(set, mask, p), empty = -1;
    if (__atomic_load_n(set + h, __ATOMIC_RELAXED) == p) return;
    if (__atomic_compare_exchange_n(set + h, &empty, p, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return;
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
static int64_t distinct_hashed(sh_table *t, const int64_t *keys, int64_t n, int32_t *slot, sh_arena *arena,
                               int64_t **positions) {
  struct sh_table_impl *impl = t->impl;
  uint64_t V = (uint64_t)t->conf.rows;
  int64_t size = 1024;
  while (size < 2 * n) size *= 2;
  int64_t *set = sh_buffer_need(&impl->set, sizeof *set * (size_t)size), mask = size - 1, nslots = 0;
  int32_t *slot_at = sh_buffer_need(&impl->set_slot, sizeof *slot_at * (size_t)size);
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t h = 0; h < size; h++) set[h] = -1;
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) {
    assert((uint64_t)keys[i] < V);
    insert(set, mask, sh_position_of(t, keys[i]));
  }
  int64_t *list = sh_buffer_need(&impl->sort[0], sizeof *list * (size_t)n);
  int64_t *other = sh_buffer_need(&impl->sort[1], sizeof *list * (size_t)n);
  for (int64_t h = 0; h < size; h++)
    if (set[h] >= 0) list[nslots++] = set[h];
  sort(list, other, nslots, t->conf.rows - 1);
  int64_t *out = *positions = SH_ARENA_NEW(arena, int64_t, nslots);
#pragma omp parallel for schedule(static) if (nslots > FEW)
  for (int64_t s = 0; s < nslots; s++) {
    out[s] = list[s];
    slot_at[probe(set, mask, list[s])] = (int32_t)s;
  }
#pragma omp parallel for schedule(static) if (n > FEW)
  for (int64_t i = 0; i < n; i++) slot[i] = slot_at[probe(set, mask, sh_position_of(t, keys[i]))];
  return nslots;
}

int64_t sh_table_distinct(sh_table *t, const int64_t *keys, int64_t n, int32_t *slot, sh_arena *arena,
                          int64_t **positions) {
  assert(n <= INT32_MAX);
  if (t->conf.rows <= t->impl->direct_limit) return distinct_direct(t, keys, n, slot, arena, positions);
  return distinct_hashed(t, keys, n, slot, arena, positions);
}
