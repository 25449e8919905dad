#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "data/synth.h"

enum { K = 10 };

typedef struct count_of {
  int64_t count;
  int32_t item;
} count_of;

static int by_count(const void *a, const void *b) {
  const count_of *x = a, *y = b;
  if (x->count != y->count) return (x->count < y->count) - (x->count > y->count);
  return (x->item > y->item) - (x->item < y->item);
}

static int by_item(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

/* The successors of each item in training, row after row; start[items+1]. */
static int32_t *transitions(int64_t users, int64_t items, const int64_t *offsets, const int32_t *item, int64_t *start) {
  memset(start, 0, (size_t)(items + 1) * sizeof *start);
  for (int64_t u = 0; u < users; u++)
    for (int64_t e = offsets[u]; e + 2 < offsets[u + 1]; e++) start[item[e] + 1]++;
  for (int64_t i = 0; i < items; i++) start[i + 1] += start[i];
  int32_t *next = sh_malloc((size_t)(start[items] + 1) * sizeof *next);
  int64_t *fill = sh_malloc((size_t)items * sizeof *fill);
  memcpy(fill, start, (size_t)items * sizeof *fill);
  for (int64_t u = 0; u < users; u++)
    for (int64_t e = offsets[u]; e + 2 < offsets[u + 1]; e++) next[fill[item[e]]++] = item[e + 1];
  free(fill);
  return next;
}

/* Sort each row by count, the repetitions folded; length[items] receives the distinct successors. */
static count_of *successor_lists(int64_t items, const int64_t *start, int32_t *next, int64_t *length) {
  count_of *list = sh_malloc((size_t)(start[items] + 1) * sizeof *list);
#pragma omp parallel for schedule(dynamic, 64)
  for (int64_t i = 0; i < items; i++) {
    int32_t *row = next + start[i];
    count_of *out = list + start[i];
    int64_t n = start[i + 1] - start[i], m = 0;
    if (n > 0) qsort(row, (size_t)n, sizeof *row, by_item);
    for (int64_t k = 0; k < n; k++) {
      if (m == 0 || out[m - 1].item != row[k]) out[m++] = (count_of){0, row[k]};
      out[m - 1].count++;
    }
    if (m > 0) qsort(out, (size_t)m, sizeof *out, by_count);
    length[i] = m;
  }
  return list;
}

static bool contains(const int32_t *a, int64_t n, int32_t item) {
  for (int64_t i = 0; i < n; i++)
    if (a[i] == item) return true;
  return false;
}

/* Continue top[have] with the list's items that are neither in the history nor there yet; returns the new length. */
static int64_t extend(int32_t top[K], int64_t have, const count_of *list, int64_t n, const int32_t *history,
                      int64_t length) {
  for (int64_t i = 0; i < n && have < K; i++)
    if (!contains(history, length, list[i].item) && !contains(top, have, list[i].item)) top[have++] = list[i].item;
  return have;
}

void sh_synth_baselines(int64_t users, int64_t items, const int64_t *offsets, const int32_t *item, double *popularity,
                        double *markov) {
  count_of *popular = sh_malloc((size_t)items * sizeof *popular);
  int64_t *start = sh_malloc((size_t)(items + 1) * sizeof *start), *length = sh_malloc((size_t)items * sizeof *length);
  for (int64_t i = 0; i < items; i++) popular[i] = (count_of){0, (int32_t)i};
  for (int64_t u = 0; u < users; u++)
    for (int64_t e = offsets[u]; e + 1 < offsets[u + 1]; e++) popular[item[e]].count++;
  qsort(popular, (size_t)items, sizeof *popular, by_count);
  int32_t *next = transitions(users, items, offsets, item, start);
  count_of *list = successor_lists(items, start, next, length);
  int64_t hits = 0, markov_hits = 0;
#pragma omp parallel for reduction(+ : hits, markov_hits)
  for (int64_t u = 0; u < users; u++) {
    const int32_t *history = item + offsets[u];
    int64_t n = offsets[u + 1] - offsets[u] - 1, last = history[n - 1];
    int32_t top[K];
    hits += contains(top, extend(top, 0, popular, items, history, n), history[n]);
    int64_t have = extend(top, 0, list + start[last], length[last], history, n);
    markov_hits += contains(top, extend(top, have, popular, items, history, n), history[n]);
  }
  *popularity = (double)hits / (double)users;
  *markov = (double)markov_hits / (double)users;
  free(popular);
  free(start);
  free(length);
  free(next);
  free(list);
}
