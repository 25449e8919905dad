#include "data/synth.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "data/dataset.h"

enum { BLOCK = 1024, BASELINE_EVENTS = 20000000 };

sh_status sh_synth_preset(sh_synth_options *o, const char *name) {
  *o = (sh_synth_options){.users = 10000,
                          .items = 1000,
                          .mean_length = 40,
                          .min_length = 10,
                          .short_share = 0.5,
                          .noise = 0.3,
                          .topic_decay = 1,
                          .evergreen_decay = 0.8,
                          .seed = 1};
  if (strcmp(name, "default") == 0) return SH_OK;
  if (strcmp(name, "toy") == 0) {
    o->users = 300, o->items = 120, o->mean_length = 20, o->min_length = 5;
    return SH_OK;
  }
  if (strcmp(name, "large") == 0) {
    o->users = 1255000, o->items = 200000, o->mean_length = 80;
    return SH_OK;
  }
  return sh_fail(SH_ERR_USAGE, "synth: preset \"%s\", expected toy, default or large", name);
}

static void generate_user(sh_synth_history *h, sh_synth_scratch *s, int64_t user, int64_t length, int32_t *item,
                          int64_t *time, double optimum[SH_SYNTH_METRICS]) {
  double own[SH_SYNTH_METRICS];
  sh_synth_history_clear(h);
  for (int64_t e = 0; e < length; e++) {
    int64_t t = sh_synth_time(h, user);
    sh_synth_conditional c = sh_synth_condition(h, t);
    int32_t index = sh_synth_draw(h, &c, user, e);
    if (e == length - 1) {
      sh_synth_optimum(h, t, s, own);
      for (int m = 0; m < SH_SYNTH_METRICS; m++) optimum[m] += own[m];
    }
    item[e] = h->p->item[index], time[e] = t;
    sh_synth_history_push(h, index, t);
  }
}

void sh_synth_generate(const sh_synth_process *p, const int64_t *offsets, int32_t *item, int64_t *time,
                       double optimum[SH_SYNTH_METRICS]) {
  /* Sums of fixed blocks, added in order: the same bits for any number of threads. */
  int64_t blocks = (p->o.users + BLOCK - 1) / BLOCK;
  double(*sum)[SH_SYNTH_METRICS] = sh_calloc((size_t)blocks, sizeof *sum);
  int threads = p->o.threads > 0 ? (int)p->o.threads : omp_get_max_threads();
#pragma omp parallel num_threads(threads)
  {
    sh_synth_history h;
    sh_synth_scratch s;
    sh_synth_history_open(&h, p);
    sh_synth_scratch_open(&s, p);
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; b++)
      for (int64_t u = b * BLOCK; u < p->o.users && u < (b + 1) * BLOCK; u++)
        generate_user(&h, &s, u, offsets[u + 1] - offsets[u], item + offsets[u], time + offsets[u], sum[b]);
    sh_synth_history_close(&h);
    sh_synth_scratch_close(&s);
  }
  for (int m = 0; m < SH_SYNTH_METRICS; m++) {
    optimum[m] = 0;
    for (int64_t b = 0; b < blocks; b++) optimum[m] += sum[b][m];
    optimum[m] /= (double)p->o.users;
  }
  free(sum);
}

/* Keys "u0", "u1" ... */
typedef struct key_list {
  int64_t *offsets;
  char *bytes;
} key_list;

static key_list make_keys(char prefix, int64_t n) {
  key_list k = {sh_malloc((size_t)(n + 1) * sizeof *k.offsets), NULL};
  int64_t digits = 1, limit = 10;
  k.offsets[0] = 0;
  for (int64_t i = 0; i < n; i++) {
    if (i == limit) digits++, limit *= 10;
    k.offsets[i + 1] = k.offsets[i] + 1 + digits;
  }
  k.bytes = sh_malloc((size_t)k.offsets[n] + 1);
  for (int64_t i = 0; i < n; i++) {
    int64_t rest = i;
    for (int64_t at = k.offsets[i + 1] - 1; at > k.offsets[i]; at--, rest /= 10) k.bytes[at] = (char)('0' + rest % 10);
    k.bytes[k.offsets[i]] = prefix;
  }
  return k;
}

static void free_keys(key_list *k) {
  free(k->offsets);
  free(k->bytes);
}

static sh_status write_set(const sh_synth_process *p, const char *path, const char *name, const char *provenance,
                           const int64_t *offsets, const int32_t *item, const int64_t *time, const double *optimum) {
  key_list users = make_keys('u', p->o.users), items = make_keys('i', p->o.items);
  sh_dataset_content c = {
      .name = name ? name : "synth",
      .provenance = provenance ? provenance : "shoal synth",
      .users = p->o.users,
      .events = offsets[p->o.users],
      .items = p->o.items,
      .offsets = offsets,
      .item = item,
      .time = time,
      .user_key_offsets = users.offsets,
      .user_key_bytes = users.bytes,
      .item_key_offsets = items.offsets,
      .item_key_bytes = items.bytes,
      .noptimum = SH_SYNTH_METRICS,
      .optimum_name = sh_synth_metric_name,
      .optimum = optimum,
  };
  sh_status status = sh_dataset_write(&c, path);
  free_keys(&users);
  free_keys(&items);
  return status;
}

sh_status sh_synth_make(const sh_synth_options *o, const char *path, const char *name, const char *provenance,
                        sh_synth_summary *summary) {
  sh_synth_process p;
  SH_TRY(sh_synth_process_open(&p, o));
  int64_t *offsets = sh_malloc((size_t)(o->users + 1) * sizeof *offsets);
  offsets[0] = 0;
  for (int64_t u = 0; u < o->users; u++) offsets[u + 1] = offsets[u] + sh_synth_length(&p, u);
  int64_t events = offsets[o->users];
  int32_t *item = sh_malloc((size_t)events * sizeof *item);
  int64_t *time = sh_malloc((size_t)events * sizeof *time);
  *summary = (sh_synth_summary){
      .events = events, .topics = p.topics, .evergreens = p.evergreens, .popularity_hr10 = -1, .markov_hr10 = -1};
  sh_synth_generate(&p, offsets, item, time, summary->optimum);
  sh_status status = write_set(&p, path, name, provenance, offsets, item, time, summary->optimum);
  if (status == SH_OK && events <= BASELINE_EVENTS)
    sh_synth_baselines(o->users, o->items, offsets, item, &summary->popularity_hr10, &summary->markov_hr10);
  free(offsets);
  free(item);
  free(time);
  sh_synth_process_close(&p);
  return status;
}
