#include "data/synth.h"

#include <math.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/rng.h"

/* Streams of random numbers. */
enum { STREAM_EVENT, STREAM_USER, STREAM_ITEMS, STREAM_TOPICS };
/* Quads of an event's stream: gap, then the part of the mixture and the item in it, then evergreen draws. */
enum { QUAD_GAP, QUAD_PART, QUAD_EVERGREEN };

static const int64_t EPOCH = 1704067200; /* 2024-01-01 */
static const double START_SPAN = 30 * 86400.0, SHORT_GAP = 20, SHORT_RATIO = 15, LONG_GAP = 43200, LONG_JITTER = 2700;

static sh_philox draw4(const sh_synth_process *p, uint32_t stream, int64_t sample, int64_t position, uint32_t quad) {
  return sh_random4(p->o.seed, SH_SITE(SH_SITE_SYNTH, stream), 0, sample, (uint32_t)position, quad);
}

/* [0, 1) with 53 bits: 24 would never reach the tail of a large table. */
static double uniform53(uint32_t high, uint32_t low) { return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53; }

static sh_status check(const sh_synth_process *p) {
  const sh_synth_options *o = &p->o;
  if (o->users < 1) return sh_fail(SH_ERR_USAGE, "synth: users is %lld, expected at least 1", (long long)o->users);
  if (o->items < 6 || o->items > INT32_MAX)
    return sh_fail(SH_ERR_USAGE, "synth: items is %lld, expected 6 to 2147483647", (long long)o->items);
  if (p->topic_size < 1 || p->topics < 2)
    return sh_fail(SH_ERR_USAGE, "synth: %lld items give %lld topics of %lld items, expected at least 2 topics",
                   (long long)o->items, (long long)p->topics, (long long)p->topic_size);
  if (o->max_length > o->items)
    return sh_fail(SH_ERR_USAGE, "synth: max-length is %lld, expected at most the %lld items: none comes twice",
                   (long long)o->max_length, (long long)o->items);
  if (o->min_length < 2 || o->min_length > o->max_length)
    return sh_fail(SH_ERR_USAGE, "synth: min-length is %lld, expected 2 to max-length %lld", (long long)o->min_length,
                   (long long)o->max_length);
  if (!(o->mean_length >= (double)o->min_length && o->mean_length <= (double)o->max_length))
    return sh_fail(SH_ERR_USAGE, "synth: mean-length is %g, expected %lld (min-length) to %lld (max-length)",
                   o->mean_length, (long long)o->min_length, (long long)o->max_length);
  if (!(o->short_share >= 0 && o->short_share <= 1 && o->noise >= 0 && o->noise < 1))
    return sh_fail(SH_ERR_USAGE, "synth: short-share %g and noise %g, expected 0 to 1, and noise below 1",
                   o->short_share, o->noise);
  if (!(o->topic_decay >= 0 && o->topic_decay <= 10 && o->evergreen_decay >= 0 && o->evergreen_decay <= 10))
    return sh_fail(SH_ERR_USAGE, "synth: topic-decay %g and evergreen-decay %g, expected 0 to 10", o->topic_decay,
                   o->evergreen_decay);
  return SH_OK;
}

/* A random order (Fisher-Yates); `cycle`: one cycle through all (Sattolo), so that every topic leads to every other. */
static void permute(const sh_synth_process *p, uint32_t stream, int32_t *a, int64_t n, bool cycle) {
  for (int64_t i = 0; i < n; i++) a[i] = (int32_t)i;
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = sh_below(draw4(p, stream, i, 0, 0).v[0], (uint32_t)(cycle ? i : i + 1));
    int32_t t = a[i];
    a[i] = a[j], a[j] = t;
  }
}

/* The scale of an exponential that, cut at max_length, has the mean asked for. */
static double length_tail(const sh_synth_options *o) {
  double room = (double)(o->max_length - o->min_length), want = o->mean_length - (double)o->min_length;
  double low = 0, high = 1e9;
  for (int i = 0; i < 100; i++) {
    double middle = (low + high) / 2;
    if (-middle * expm1(-room / middle) < want)
      low = middle;
    else
      high = middle;
  }
  return low;
}

sh_status sh_synth_process_open(sh_synth_process *p, const sh_synth_options *o) {
  *p = (sh_synth_process){.o = *o};
  if (o->max_length == 0) p->o.max_length = o->items < 200 ? o->items : 200;
  p->topic_size = o->topic_size;
  if (o->topic_size == 0) p->topic_size = o->items >= 120 ? 20 : o->items >= 12 ? o->items / 6 : 2;
  if (p->topic_size > 0) p->topics = o->items * 4 / 5 / p->topic_size;
  p->evergreens = o->items - p->topics * p->topic_size;
  SH_TRY(check(p));
  p->item = sh_malloc((size_t)o->items * sizeof *p->item);
  p->index = sh_malloc((size_t)o->items * sizeof *p->index);
  p->successor = sh_malloc((size_t)p->topics * sizeof *p->successor);
  p->topic_weight = sh_malloc((size_t)p->topic_size * sizeof *p->topic_weight);
  p->evergreen_weight = sh_malloc((size_t)p->evergreens * sizeof *p->evergreen_weight);
  p->evergreen_sum = sh_malloc((size_t)(p->evergreens + 1) * sizeof *p->evergreen_sum);
  permute(p, STREAM_ITEMS, p->item, o->items, false);
  for (int64_t i = 0; i < o->items; i++) p->index[p->item[i]] = (int32_t)i;
  permute(p, STREAM_TOPICS, p->successor, p->topics, true);
  for (int64_t r = 0; r < p->topic_size; r++) p->topic_weight[r] = pow((double)(r + 1), -o->topic_decay);
  p->evergreen_sum[0] = 0;
  for (int64_t r = 0; r < p->evergreens; r++) {
    p->evergreen_weight[r] = pow((double)(r + 1), -o->evergreen_decay);
    p->evergreen_sum[r + 1] = p->evergreen_sum[r] + p->evergreen_weight[r];
  }
  p->length_tail = length_tail(&p->o);
  return SH_OK;
}

void sh_synth_process_close(sh_synth_process *p) {
  free(p->item);
  free(p->index);
  free(p->successor);
  free(p->topic_weight);
  free(p->evergreen_weight);
  free(p->evergreen_sum);
  *p = (sh_synth_process){0};
}

void sh_synth_history_open(sh_synth_history *h, const sh_synth_process *p) {
  *h = (sh_synth_history){.p = p};
  h->index = sh_malloc((size_t)p->o.max_length * sizeof *h->index);
  h->time = sh_malloc((size_t)p->o.max_length * sizeof *h->time);
  h->seen = sh_calloc((size_t)p->o.items, 1);
  h->taken = sh_calloc((size_t)p->topics, sizeof *h->taken);
}

void sh_synth_history_close(sh_synth_history *h) {
  free(h->index);
  free(h->time);
  free(h->seen);
  free(h->taken);
  *h = (sh_synth_history){0};
}

static bool is_evergreen(const sh_synth_process *p, int64_t index) { return index >= p->topics * p->topic_size; }

static double evergreen_weight(const sh_synth_process *p, int64_t index) {
  return p->evergreen_weight[index - p->topics * p->topic_size];
}

void sh_synth_history_clear(sh_synth_history *h) {
  for (int64_t i = 0; i < h->n; i++) {
    h->seen[h->index[i]] = 0;
    if (!is_evergreen(h->p, h->index[i])) h->taken[h->index[i] / h->p->topic_size] = 0;
  }
  h->n = h->exhausted = h->evergreens = 0;
  h->evergreen = 0;
}

void sh_synth_history_push(sh_synth_history *h, int32_t index, int64_t time) {
  h->index[h->n] = index;
  h->time[h->n++] = time;
  h->seen[index] = 1;
  if (is_evergreen(h->p, index)) {
    h->evergreens++;
    h->evergreen += evergreen_weight(h->p, index);
  } else if (++h->taken[index / h->p->topic_size] == h->p->topic_size) {
    h->exhausted++;
  }
}

static double unseen_weight(const sh_synth_history *h, int64_t topic) {
  double sum = 0;
  for (int64_t r = 0; r < h->p->topic_size; r++)
    if (!h->seen[topic * h->p->topic_size + r]) sum += h->p->topic_weight[r];
  return sum;
}

/* The topic the next event is about: successor of the topic of the latest event of a topic that is at least
 * ANCHOR_AGE old; when there is none yet, the session's topic, or any (-1) in a new session. */
static int64_t next_topic(const sh_synth_history *h, int64_t t) {
  const sh_synth_process *p = h->p;
  int64_t session = -1;
  for (int64_t j = h->n - 1; j >= 0; j--) {
    if (is_evergreen(p, h->index[j])) continue;
    int64_t topic = h->index[j] / p->topic_size;
    if (t - h->time[j] >= SH_SYNTH_ANCHOR_AGE) return p->successor[topic];
    if (session < 0 && t - h->time[h->n - 1] < SH_SYNTH_SESSION) session = topic;
  }
  return session;
}

sh_synth_conditional sh_synth_condition(const sh_synth_history *h, int64_t t) {
  const sh_synth_process *p = h->p;
  bool same_session = h->n > 0 && t - h->time[h->n - 1] < SH_SYNTH_SESSION;
  sh_synth_conditional c = {.topic_share = same_session ? 1 - p->o.noise : 1, .topic = next_topic(h, t)};
  if (c.topic >= 0 && h->taken[c.topic] == p->topic_size) c.topic = -1;
  if (h->evergreens == p->evergreens) c.topic_share = 1;
  if (c.topic >= 0)
    c.topic_left = unseen_weight(h, c.topic);
  else if (h->exhausted == p->topics)
    c.topic_share = 0;
  return c;
}

double sh_synth_probability(const sh_synth_history *h, const sh_synth_conditional *c, int32_t index) {
  const sh_synth_process *p = h->p;
  if (h->seen[index]) return 0;
  if (is_evergreen(p, index))
    return (1 - c->topic_share) * evergreen_weight(p, index) / (p->evergreen_sum[p->evergreens] - h->evergreen);
  int64_t topic = index / p->topic_size;
  double weight = p->topic_weight[index % p->topic_size];
  if (c->topic >= 0) return topic == c->topic ? c->topic_share * weight / c->topic_left : 0;
  return c->topic_share * weight / unseen_weight(h, topic) / (double)(p->topics - h->exhausted);
}

/* The n-th (from 0) topic that is not exhausted. */
static int64_t open_topic(const sh_synth_history *h, int64_t n) {
  int64_t c = 0;
  for (;; c++)
    if (h->taken[c] < h->p->topic_size && n-- == 0) return c;
}

/* Evergreens are drawn from all and rejected when seen; a stubborn case is settled by a scan of the unseen. */
static int32_t draw_evergreen(const sh_synth_history *h, int64_t user, int64_t event) {
  const sh_synth_process *p = h->p;
  int64_t first = p->topics * p->topic_size;
  double total = p->evergreen_sum[p->evergreens];
  for (uint32_t attempt = 0; attempt < 64; attempt++) {
    sh_philox r = draw4(p, STREAM_EVENT, user, event, QUAD_EVERGREEN + attempt);
    double x = uniform53(r.v[0], r.v[1]) * total;
    int64_t low = 0, high = p->evergreens - 1;
    while (low < high) {
      int64_t middle = (low + high) / 2;
      if (x < p->evergreen_sum[middle + 1])
        high = middle;
      else
        low = middle + 1;
    }
    if (!h->seen[first + low]) return (int32_t)(first + low);
  }
  sh_philox r = draw4(p, STREAM_EVENT, user, event, QUAD_EVERGREEN + 64);
  double x = uniform53(r.v[0], r.v[1]) * (total - h->evergreen);
  int64_t last = -1;
  for (int64_t i = first; i < p->o.items; i++) {
    if (h->seen[i]) continue;
    last = i;
    x -= evergreen_weight(p, i);
    if (x < 0) break;
  }
  return (int32_t)last;
}

int32_t sh_synth_draw(const sh_synth_history *h, const sh_synth_conditional *c, int64_t user, int64_t event) {
  const sh_synth_process *p = h->p;
  sh_philox part = draw4(p, STREAM_EVENT, user, event, QUAD_PART), gap = draw4(p, STREAM_EVENT, user, event, QUAD_GAP);
  if (uniform53(part.v[0], gap.v[2]) >= c->topic_share) return draw_evergreen(h, user, event);
  int64_t topic = c->topic;
  if (topic < 0) topic = open_topic(h, sh_below(part.v[1], (uint32_t)(p->topics - h->exhausted)));
  double x = uniform53(part.v[2], part.v[3]) * unseen_weight(h, topic);
  int64_t last = -1;
  for (int64_t r = 0; r < p->topic_size; r++) {
    if (h->seen[topic * p->topic_size + r]) continue;
    last = topic * p->topic_size + r;
    x -= p->topic_weight[r];
    if (x < 0) break;
  }
  return (int32_t)last;
}

int64_t sh_synth_length(const sh_synth_process *p, int64_t user) {
  sh_philox r = draw4(p, STREAM_USER, user, 0, 0);
  double extra = -log(1 - uniform53(r.v[0], r.v[1])) * p->length_tail;
  double length = (double)p->o.min_length + floor(extra + 0.5);
  return length < (double)p->o.max_length ? (int64_t)length : p->o.max_length;
}

int64_t sh_synth_time(const sh_synth_history *h, int64_t user) {
  if (h->n == 0) return EPOCH + (int64_t)(uniform53(draw4(h->p, STREAM_USER, user, 0, 1).v[0], 0) * START_SPAN);
  sh_philox r = draw4(h->p, STREAM_EVENT, user, h->n, QUAD_GAP);
  double x = uniform53(r.v[1], 0);
  bool same_session = uniform53(r.v[0], 0) < h->p->o.short_share;
  double gap = same_session ? SHORT_GAP * pow(SHORT_RATIO, x) : LONG_GAP + LONG_JITTER * (2 * x - 1);
  return h->time[h->n - 1] + (int64_t)gap;
}
