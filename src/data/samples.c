#include "data/samples.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/hash.h"

static int64_t user_events(const sh_dataset *d, int64_t u) { return d->offsets[u + 1] - d->offsets[u]; }

/* Events of the train part. */
static int64_t train_events(const sh_samples *s, int64_t u) {
  int64_t n = user_events(s->data, u);
  if (s->train_end) return s->train_end[u];
  n -= !strcmp(s->conf.split, "leave-two-out") ? 2 : 1;
  return n > 0 ? n : 0;
}

/* Windows of max_len inputs in a train part: the last one whole, the first one short. */
static int64_t windows(const sh_samples *s, int64_t u) {
  int64_t inputs = train_events(s, u) - 1;
  if (inputs < 1 || inputs < s->conf.min_history) return 0;
  return !strcmp(s->conf.window, "all") ? (inputs + s->max_len - 1) / s->max_len : 1;
}

enum { CHUNK = 1 << 16, BINS = 1 << 16 };

typedef struct scan {
  int64_t lo, hi; /* range of times */
  int64_t *bin;   /* histogram over it */
  int64_t width;
} scan;

static sh_status each_time(const sh_dataset *d, void (*visit)(void *arg, int64_t event, int64_t time), void *arg) {
  int64_t *time = sh_malloc(sizeof(int64_t) * CHUNK);
  sh_status status = SH_OK;
  for (int64_t at = 0; at < d->events && status == SH_OK; at += CHUNK) {
    int64_t n = d->events - at < CHUNK ? d->events - at : CHUNK;
    status = sh_dataset_times(d, at, n, time);
    for (int64_t i = 0; i < n && status == SH_OK; i++) visit(arg, at + i, time[i]);
  }
  free(time);
  return status;
}

static void visit_range(void *arg, int64_t event, int64_t time) {
  scan *c = arg;
  if (event == 0 || time < c->lo) c->lo = time;
  if (event == 0 || time > c->hi) c->hi = time;
}
static void visit_bin(void *arg, int64_t event, int64_t time) {
  (void)event;
  scan *c = arg;
  c->bin[(time - c->lo) / c->width]++;
}

/* Start of the first bin that at least `quantile` of the events lie before. */
static int64_t cut_at(const scan *c, int64_t events, double quantile) {
  int64_t before = 0, b = 0;
  while (b < BINS && (double)before < quantile * (double)events) before += c->bin[b++];
  return c->lo + b * c->width;
}

typedef struct split_scan {
  sh_samples *s;
  int64_t user;
} split_scan;
static void visit_split(void *arg, int64_t event, int64_t time) {
  split_scan *c = arg;
  sh_samples *s = c->s;
  while (event >= s->data->offsets[c->user + 1]) c->user++;
  int32_t at = (int32_t)(event - s->data->offsets[c->user]);
  if (time < s->t1) s->train_end[c->user] = at + 1;
  if (time >= s->t1 && time < s->t2 && s->query_at[SH_QUERY_VALID][c->user] < 0)
    s->query_at[SH_QUERY_VALID][c->user] = at;
  if (time >= s->t2 && s->query_at[SH_QUERY_TEST][c->user] < 0) s->query_at[SH_QUERY_TEST][c->user] = at;
}

static sh_status temporal_split(sh_samples *s) {
  const sh_dataset *d = s->data;
  if (!d->has_time) return sh_fail(SH_ERR_USAGE, "data.split: temporal needs times, and %s has none", d->path);
  scan c = {.bin = sh_calloc(BINS, sizeof(int64_t))};
  sh_status status = each_time(d, visit_range, &c);
  c.width = (c.hi - c.lo) / BINS + 1;
  if (status == SH_OK) status = each_time(d, visit_bin, &c);
  s->t1 = cut_at(&c, d->events, s->conf.valid_quantile);
  s->t2 = cut_at(&c, d->events, s->conf.test_quantile);
  free(c.bin);
  SH_TRY(status);
  size_t bytes = sizeof(int32_t) * (size_t)d->users;
  s->train_end = sh_calloc((size_t)d->users, sizeof(int32_t));
  for (int k = 0; k < 2; k++) s->query_at[k] = memset(sh_malloc(bytes), 0xff, bytes);
  split_scan sc = {.s = s};
  return each_time(d, visit_split, &sc);
}

sh_status sh_samples_create(sh_samples *s, const sh_dataset *d, const sh_conf_data *conf, int64_t max_len) {
  *s = (sh_samples){.data = d, .conf = *conf, .max_len = max_len};
  if (d->users > INT32_MAX)
    return sh_fail(SH_ERR_DATA, "%s: %lld users, expected fewer than 2^31", d->path, (long long)d->users);
  if (!strcmp(conf->split, "temporal")) SH_TRY(temporal_split(s));
  for (int64_t u = 0; u < d->users; u++) s->n += windows(s, u);
  if (s->n == 0)
    return sh_fail(SH_ERR_DATA, "%s: no user has enough events to train on (data.split %s, data.min_history %lld)",
                   d->path, conf->split, (long long)conf->min_history);
  s->sample_user = sh_malloc(sizeof(int32_t) * (size_t)s->n);
  s->sample_window = sh_malloc(sizeof(int32_t) * (size_t)s->n);
  int64_t at = 0;
  for (int64_t u = 0; u < d->users; u++) {
    int64_t w = windows(s, u);
    s->skipped_users += w == 0;
    for (int64_t k = 0; k < w; k++, at++) s->sample_user[at] = (int32_t)u, s->sample_window[at] = (int32_t)k;
  }
  s->digest = sh_hash(d->events_digest, strlen(d->events_digest));
  for (int64_t i = 0; i < s->n; i++) {
    sh_sample sample = sh_samples_get(s, i);
    int64_t place[3] = {(int64_t)s->digest, sample.first, sample.length};
    s->digest = sh_hash(place, sizeof place);
    s->train_tokens += sample.length;
  }
  return SH_OK;
}

sh_status sh_samples_count(const sh_samples *s, int64_t *count) {
  int64_t room = 0, *item = NULL;
  sh_status status = SH_OK;
  for (int64_t u = 0; u < s->data->users && status == SH_OK; u++) {
    int64_t n = train_events(s, u);
    if (n > room) item = sh_realloc(item, sizeof(int64_t) * (size_t)(room = 2 * n));
    if (n > 0) status = sh_dataset_items(s->data, s->data->offsets[u], n, item);
    for (int64_t i = 0; i < n && status == SH_OK; i++) count[item[i]]++;
  }
  free(item);
  return status;
}

void sh_samples_destroy(sh_samples *s) {
  free(s->sample_user);
  free(s->sample_window);
  free(s->train_end);
  free(s->query_at[0]);
  free(s->query_at[1]);
  *s = (sh_samples){0};
}

sh_sample sh_samples_get(const sh_samples *s, int64_t index) {
  int64_t u = s->sample_user[index], w = s->sample_window[index], inputs = train_events(s, u) - 1;
  int64_t end = inputs - w * s->max_len, start = end > s->max_len ? end - s->max_len : 0; /* window 0 is the last */
  return (sh_sample){
      .user = u, .first = s->data->offsets[u] + start, .length = (int32_t)(end - start), .id = u + w * s->data->users};
}

bool sh_samples_query(const sh_samples *s, sh_query_kind kind, int64_t user, sh_sample *out, int64_t *seen_first) {
  int64_t n = user_events(s->data, user), target;
  if (s->train_end)
    target = s->query_at[kind][user];
  else if (kind == SH_QUERY_TEST || !strcmp(s->conf.split, "leave-one-out"))
    target = n - 1;
  else
    target = n - 2;
  if (target < 1) return false; /* no history */
  int64_t start = target > s->max_len ? target - s->max_len : 0;
  *out = (sh_sample){
      .user = user, .first = s->data->offsets[user] + start, .length = (int32_t)(target - start), .id = user};
  *seen_first = s->data->offsets[user];
  return true;
}
