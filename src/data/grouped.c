#include "data/grouped.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/rng.h"

static size_t at_least_1(int64_t n) { return (size_t)(n > 0 ? n : 1); }

void sh_grouped_make(sh_grouped *g, sh_raw *raw, const int32_t *user_row, int64_t users, const int32_t *item_row,
                     int64_t items) {
  int64_t n = raw->n;
  *g = (sh_grouped){.users = users, .items = items, .events = n};
  g->offsets = sh_calloc((size_t)users + 2, sizeof *g->offsets);
  int64_t *cursor = g->offsets + 1; /* becomes offsets[u + 1] when the events are placed */
  for (int64_t e = 0; e < n; e++) cursor[user_row[raw->user_id[e]] + 1]++;
  for (int64_t u = 0; u < users; u++) cursor[u + 1] += cursor[u];
  uint32_t *place = raw->user_id; /* in place: the id is read, its position written */
  for (int64_t e = 0; e < n; e++) place[e] = (uint32_t)cursor[user_row[raw->user_id[e]]]++;

  g->item = sh_malloc(at_least_1(n) * sizeof *g->item);
  for (int64_t e = 0; e < n; e++) g->item[place[e]] = item_row[raw->item_id[e]];
  free(raw->item_id);
  if (raw->has_time) {
    g->time = sh_malloc(at_least_1(n) * sizeof *g->time);
    for (int64_t e = 0; e < n; e++) g->time[place[e]] = raw->time[e];
    free(raw->time);
  }
  if (raw->has_action) {
    g->action = sh_malloc(at_least_1(n) * sizeof *g->action);
    for (int64_t e = 0; e < n; e++) g->action[place[e]] = raw->action[e];
    free(raw->action);
  }
  free(raw->user_id);
  raw->user_id = raw->item_id = NULL;
  raw->time = NULL, raw->action = NULL;
  raw->n = raw->capacity = 0;
}

void sh_grouped_free(sh_grouped *g) {
  free(g->offsets);
  free(g->item);
  free(g->time);
  free(g->action);
  *g = (sh_grouped){0};
}

typedef struct sort_key {
  int64_t time;
  uint64_t tie;
  int64_t from;
} sort_key;

static int by_time(const void *pa, const void *pb) {
  const sort_key *a = pa, *b = pb;
  if (a->time != b->time) return a->time < b->time ? -1 : 1;
  if (a->tie != b->tie) return a->tie < b->tie ? -1 : 1;
  return a->from < b->from ? -1 : 1;
}

static uint64_t draw_tie(const sh_tie_order *t, int64_t user, int32_t item, int64_t time) {
  uint64_t h = t->item_hash[item];
  sh_philox r = sh_random4(t->seed, SH_SITE(SH_SITE_PREPARE, 0), (uint32_t)time, (int64_t)t->user_hash[user],
                           (uint32_t)h, (uint32_t)(h >> 32) & 0xFFFFu);
  return (uint64_t)r.v[0] << 32 | r.v[1];
}

typedef struct sort_room {
  sort_key *key;
  int32_t *item;
  float *action;
} sort_room;

static void sort_user(sh_grouped *g, int64_t u, const sh_tie_order *shuffle, const sort_room *room) {
  int64_t first = g->offsets[u], n = g->offsets[u + 1] - first;
  for (int64_t i = 0; i < n; i++) {
    int64_t t = g->time[first + i];
    room->key[i] = (sort_key){t, shuffle ? draw_tie(shuffle, u, g->item[first + i], t) : 0, i};
  }
  qsort(room->key, (size_t)n, sizeof *room->key, by_time);
  memcpy(room->item, g->item + first, (size_t)n * sizeof *g->item);
  if (g->action) memcpy(room->action, g->action + first, (size_t)n * sizeof *g->action);
  for (int64_t i = 0; i < n; i++) {
    int64_t from = room->key[i].from;
    g->time[first + i] = room->key[i].time;
    g->item[first + i] = room->item[from];
    if (g->action) g->action[first + i] = room->action[from];
  }
}

static bool in_order(const int64_t *time, int64_t n, bool strict) {
  for (int64_t i = 1; i < n; i++) {
    if (time[i] < time[i - 1] || (strict && time[i] == time[i - 1])) return false;
  }
  return true;
}

void sh_grouped_sort(sh_grouped *g, const sh_tie_order *shuffle) {
  if (!g->time) return;
  int64_t longest = 0;
  for (int64_t u = 0; u < g->users; u++) {
    int64_t n = g->offsets[u + 1] - g->offsets[u];
    if (n > longest) longest = n;
  }
  size_t n = at_least_1(longest);
  sort_room room = {sh_malloc(n * sizeof(sort_key)), sh_malloc(n * sizeof(int32_t)), sh_malloc(n * sizeof(float))};
  for (int64_t u = 0; u < g->users; u++) {
    int64_t first = g->offsets[u];
    if (!in_order(g->time + first, g->offsets[u + 1] - first, shuffle != NULL)) sort_user(g, u, shuffle, &room);
  }
  free(room.key);
  free(room.item);
  free(room.action);
}

/* Keep the events with keep[e] != 0. */
static int64_t squeeze(sh_grouped *g, const uint8_t *keep) {
  int64_t w = 0, e = 0;
  for (int64_t u = 0; u < g->users; u++) {
    for (; e < g->offsets[u + 1]; e++) {
      if (!keep[e]) continue;
      g->item[w] = g->item[e];
      if (g->time) g->time[w] = g->time[e];
      if (g->action) g->action[w] = g->action[e];
      w++;
    }
    g->offsets[u + 1] = w;
  }
  int64_t removed = g->events - w;
  g->events = w;
  return removed;
}

int64_t sh_grouped_drop_repeats(sh_grouped *g) {
  uint8_t *keep = sh_malloc(at_least_1(g->events));
  for (int64_t u = 0; u < g->users; u++) {
    int64_t first = g->offsets[u];
    for (int64_t e = first; e < g->offsets[u + 1]; e++) keep[e] = e == first || g->item[e] != g->item[e - 1];
  }
  int64_t removed = squeeze(g, keep);
  free(keep);
  return removed;
}

int64_t sh_grouped_core(sh_grouped *g, int64_t k) {
  int64_t *count = sh_calloc(at_least_1(g->items), sizeof *count);
  uint8_t *keep = sh_malloc(at_least_1(g->events));
  for (int64_t e = 0; e < g->events; e++) count[g->item[e]]++;
  for (int64_t u = 0; u < g->users; u++) {
    bool enough = g->offsets[u + 1] - g->offsets[u] >= k;
    for (int64_t e = g->offsets[u]; e < g->offsets[u + 1]; e++) keep[e] = enough && count[g->item[e]] >= k;
  }
  int64_t removed = squeeze(g, keep);
  free(keep);
  free(count);
  return removed;
}

int64_t sh_grouped_min_length(sh_grouped *g, int64_t length) {
  uint8_t *keep = sh_malloc(at_least_1(g->events));
  for (int64_t u = 0; u < g->users; u++) {
    int64_t first = g->offsets[u], n = g->offsets[u + 1] - first;
    memset(keep + first, n >= length, (size_t)n);
  }
  int64_t removed = squeeze(g, keep);
  free(keep);
  return removed;
}

void sh_grouped_compact(sh_grouped *g, const uint8_t *keep_item, int32_t *user_order, int32_t *item_order) {
  int32_t *row = sh_malloc(at_least_1(g->items) * sizeof *row);
  uint8_t *kept = sh_malloc(at_least_1(g->items));
  memcpy(kept, keep_item, (size_t)g->items);
  for (int64_t e = 0; e < g->events; e++) kept[g->item[e]] = 1;
  int64_t items = 0, users = 0;
  for (int64_t i = 0; i < g->items; i++) {
    if (!kept[i]) continue;
    item_order[items] = item_order[i];
    row[i] = (int32_t)items++;
  }
  for (int64_t e = 0; e < g->events; e++) g->item[e] = row[g->item[e]];
  for (int64_t u = 0; u < g->users; u++) {
    if (g->offsets[u + 1] == g->offsets[users]) continue;
    user_order[users++] = user_order[u];
    g->offsets[users] = g->offsets[u + 1];
  }
  g->users = users;
  g->items = items;
  free(kept);
  free(row);
}
