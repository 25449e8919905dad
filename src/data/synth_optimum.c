#include <math.h>
#include <stdlib.h>

#include "core/arena.h"
#include "data/synth.h"

enum { TOP = 2500, TOP_NO_TIME = 10 };
static const int64_t LIKELY_SHORT = 120, LIKELY_LONG = 43200; /* inside the two ranges of gaps */

const char *const sh_synth_metric_name[SH_SYNTH_METRICS] = {
    "hr@1", "hr@10", "hr@50", "hr@200", "ndcg@10", "ndcg@50", "ndcg@200", "mrr", "hr@10-no-request-time",
};

/* At most `top` evergreens, a whole topic, and, when any topic may come, every topic with a seen item and as many items
 * of untouched ones as can be among the top. */
int64_t sh_synth_support_size(const sh_synth_process *p, int64_t top) {
  int64_t touched = p->o.max_length < p->topics ? p->o.max_length : p->topics;
  return 2 * top + (touched + 1) * p->topic_size;
}

static int64_t add_topic(const sh_synth_history *h, int64_t topic, int32_t *out) {
  int64_t n = 0, first = topic * h->p->topic_size;
  for (int64_t i = first; i < first + h->p->topic_size; i++)
    if (!h->seen[i]) out[n++] = (int32_t)i;
  return n;
}

/* Untouched topics are alike, so the best `top` of them are all of rank 1, then all of rank 2 ... */
static int64_t add_any_topic(const sh_synth_history *h, int64_t top, int32_t *out) {
  const sh_synth_process *p = h->p;
  int64_t n = 0, added = 0;
  for (int64_t i = 0; i < h->n; i++) {
    int64_t topic = h->index[i] / p->topic_size;
    bool first = topic < p->topics;
    for (int64_t j = 0; first && j < i; j++) first = h->index[j] / p->topic_size != topic;
    if (first) n += add_topic(h, topic, out + n);
  }
  for (int64_t r = 0; r < p->topic_size; r++)
    for (int64_t topic = 0; topic < p->topics && added < top; topic++)
      if (h->taken[topic] == 0) out[n++] = (int32_t)(topic * p->topic_size + r), added++;
  return n;
}

int64_t sh_synth_support(const sh_synth_history *h, const sh_synth_conditional *c, int64_t top, int32_t *out) {
  const sh_synth_process *p = h->p;
  int64_t n = 0;
  if (c->topic_share > 0) n = c->topic >= 0 ? add_topic(h, c->topic, out) : add_any_topic(h, top, out);
  if (c->topic_share < 1)
    for (int64_t i = p->topics * p->topic_size, added = 0; i < p->o.items && added < top; i++)
      if (!h->seen[i]) out[n++] = (int32_t)i, added++;
  return n;
}

void sh_synth_scratch_open(sh_synth_scratch *s, const sh_synth_process *p) {
  size_t size = 2 * (size_t)sh_synth_support_size(p, TOP);
  s->index = sh_malloc(size * sizeof *s->index);
  s->p = sh_malloc(size * sizeof *s->p);
}

void sh_synth_scratch_close(sh_synth_scratch *s) {
  free(s->index);
  free(s->p);
}

static int descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

static int ascending_index(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

/* The request time unknown, either gap may come: the mixture of both conditionals. Exact as long as no session lasts
 * five hours, when the anchor would depend on the gap within its kind. */
static double optimum_no_time(const sh_synth_history *h, sh_synth_scratch *s) {
  int64_t last = h->time[h->n - 1];
  sh_synth_conditional same = sh_synth_condition(h, last + LIKELY_SHORT),
                       late = sh_synth_condition(h, last + LIKELY_LONG);
  int64_t n = sh_synth_support(h, &same, TOP_NO_TIME, s->index), m = 0;
  n += sh_synth_support(h, &late, TOP_NO_TIME, s->index + n);
  qsort(s->index, (size_t)n, sizeof *s->index, ascending_index);
  double share = h->p->o.short_share, sum = 0;
  for (int64_t i = 0; i < n; i++) {
    if (i > 0 && s->index[i] == s->index[i - 1]) continue;
    s->p[m++] =
        share * sh_synth_probability(h, &same, s->index[i]) + (1 - share) * sh_synth_probability(h, &late, s->index[i]);
  }
  qsort(s->p, (size_t)m, sizeof *s->p, descending);
  for (int64_t r = 0; r < m && r < TOP_NO_TIME; r++) sum += s->p[r];
  return sum;
}

void sh_synth_optimum(const sh_synth_history *h, int64_t t, sh_synth_scratch *s, double out[SH_SYNTH_METRICS]) {
  sh_synth_conditional c = sh_synth_condition(h, t);
  int64_t n = sh_synth_support(h, &c, TOP, s->index);
  for (int64_t i = 0; i < n; i++) s->p[i] = sh_synth_probability(h, &c, s->index[i]);
  qsort(s->p, (size_t)n, sizeof *s->p, descending);
  double hit = 0, gain = 0, reciprocal = 0;
  for (int m = 0; m < SH_SYNTH_METRICS; m++) out[m] = 0;
  /* Beyond the last item nothing changes any more, so short lists run on to rank 200. */
  for (int64_t r = 1; r <= TOP && (r <= n || r <= 200); r++) {
    double p = r <= n ? s->p[r - 1] : 0;
    hit += p, gain += p / log2((double)r + 1), reciprocal += p / (double)r;
    if (r == 1) out[SH_SYNTH_HR1] = hit;
    if (r == 10) out[SH_SYNTH_HR10] = hit, out[SH_SYNTH_NDCG10] = gain;
    if (r == 50) out[SH_SYNTH_HR50] = hit, out[SH_SYNTH_NDCG50] = gain;
    if (r == 200) out[SH_SYNTH_HR200] = hit, out[SH_SYNTH_NDCG200] = gain;
  }
  out[SH_SYNTH_MRR] = reciprocal + (hit < 1 ? (1 - hit) / (TOP + 1) : 0);
  out[SH_SYNTH_HR10_NO_TIME] = optimum_no_time(h, s);
}
