#include "data/loader.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/threads.h"

void sh_loader_create(sh_loader *l, const sh_samples *s, const sh_conf_batch *conf, uint32_t seed,
                      int64_t shuffle_block, bool request_time, int rank, int ranks) {
  *l = (sh_loader){.samples = s,
                   .seed = seed,
                   .users = conf->users,
                   .tokens = conf->tokens,
                   .rank = rank,
                   .ranks = ranks,
                   .micro = (int)conf->accumulate,
                   .linear = 1,
                   .request_time = request_time,
                   .epoch = -1,
                   .left_epoch = -1};
  sh_order_create(&l->order, s->n, shuffle_block);
}

void sh_loader_destroy(sh_loader *l) {
  sh_order_destroy(&l->order);
  free(l->start);
  free(l->sample);
  free(l->bin);
  free(l->by_cost);
  *l = (sh_loader){0};
}

void sh_loader_cost(sh_loader *l, double linear, double quadratic) { l->linear = linear, l->quadratic = quadratic; }

/* Batches of at least one sample and at most `tokens` tokens (more only when one sample alone has more). */
static void cut_by_tokens(sh_loader *l) {
  int64_t capacity = 0, n = 0, tokens = 0;
  free(l->start);
  l->start = NULL;
  for (int64_t p = 0; p < l->samples->n; p++) {
    int64_t length = sh_samples_get(l->samples, sh_order_at(&l->order, p)).length;
    if (p == 0 || tokens + length > l->tokens) {
      if (n + 2 > capacity) l->start = sh_realloc(l->start, sizeof(int64_t) * (size_t)(capacity = 2 * capacity + 64));
      l->start[n++] = p;
      tokens = 0;
    }
    tokens += length;
  }
  l->start[n] = l->samples->n;
  l->steps = n;
}

static void enter_epoch(sh_loader *l, int64_t epoch) {
  if (l->epoch == epoch) return;
  l->left_epoch = l->epoch, l->left_steps = l->steps;
  sh_order_epoch(&l->order, l->seed, (uint32_t)epoch);
  l->epoch = epoch;
  l->steps = (l->samples->n + l->users - 1) / l->users;
  if (l->tokens > 0) cut_by_tokens(l);
}

int64_t sh_loader_steps(sh_loader *l, int64_t epoch) {
  if (epoch == l->left_epoch) return l->left_steps; /* its last batches are trained on while the next epoch is read */
  enter_epoch(l, epoch);
  return l->steps;
}

static double cost_of(const sh_loader *l, int64_t length) {
  return (double)length * (l->linear + l->quadratic * (double)length);
}

static void reserve(sh_loader *l, int64_t n) {
  if (n <= l->capacity) return;
  l->capacity = n + n / 4;
  l->sample = sh_realloc(l->sample, sizeof(sh_sample) * (size_t)l->capacity);
  l->bin = sh_realloc(l->bin, sizeof(int32_t) * (size_t)l->capacity);
  l->by_cost = sh_realloc(l->by_cost, sizeof(int64_t) * (size_t)l->capacity);
}

static int descending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* Bins as a heap, the lightest first, of equals the first. */
static bool lighter(const double *load, int a, int b) { return load[a] < load[b] || (load[a] == load[b] && a < b); }
static void sink_first(const double *load, int *heap, int n) {
  int bin = heap[0], at = 0;
  for (int child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && lighter(load, heap[child + 1], heap[child])) child++;
    if (!lighter(load, heap[child], bin)) break;
    heap[at] = heap[child];
  }
  heap[at] = bin;
}

/* bin[i] for n samples; returns the imbalance. Equal costs go by place in the batch, so every rank deals alike. */
static double deal(sh_loader *l, int64_t n, sh_arena *arena) {
  int bins = l->ranks * l->micro, *heap = SH_ARENA_NEW(arena, int, bins);
  double *load = SH_ARENA_ZNEW(arena, double, bins), total = 0, top = 0;
  for (int64_t i = 0; i < n; i++) l->by_cost[i] = ((int64_t)l->sample[i].length << 32) | (n - 1 - i);
  qsort(l->by_cost, (size_t)n, sizeof(int64_t), descending);
  for (int b = 0; b < bins; b++) heap[b] = b;
  for (int64_t k = 0; k < n; k++) {
    int64_t i = n - 1 - (l->by_cost[k] & 0xffffffff);
    l->bin[i] = heap[0];
    load[heap[0]] += cost_of(l, l->sample[i].length);
    sink_first(load, heap, bins);
  }
  for (int b = 0; b < bins; b++) {
    total += load[b];
    if (load[b] > top) top = load[b];
  }
  return total > 0 ? top * bins / total : 1;
}

typedef struct columns {
  int32_t *offsets, *position, *sequence;
  int64_t *sample, *item, *target, *time, *next_time;
} columns;

static columns new_columns(int64_t B, int64_t T, bool time, sh_arena *a) {
  columns c = {.offsets = SH_ARENA_NEW(a, int32_t, B + 1),
               .position = SH_ARENA_NEW(a, int32_t, T),
               .sequence = SH_ARENA_NEW(a, int32_t, T),
               .sample = SH_ARENA_NEW(a, int64_t, B),
               .item = SH_ARENA_NEW(a, int64_t, T),
               .target = SH_ARENA_NEW(a, int64_t, T)};
  if (time) {
    c.time = SH_ARENA_NEW(a, int64_t, T);
    c.next_time = SH_ARENA_NEW(a, int64_t, T);
  }
  return c;
}

/* What the sequences of a batch have in common. */
typedef struct reading {
  const sh_dataset *data;
  bool request_time, with_target;
} reading;

/* Sequence s: L inputs and, with_target, the event behind them; without one the last target is -1 and its time the last
 * event's. event[L + 1] is scratch. */
static sh_status read_sequence(const reading *r, const sh_sample *sample, const columns *c, int64_t s, int64_t *event) {
  int64_t at = c->offsets[s], L = sample->length, n = L + (r->with_target ? 1 : 0);
  SH_TRY(sh_dataset_items(r->data, sample->first, n, event));
  if (!r->with_target) event[L] = -1;
  memcpy(c->item + at, event, sizeof(int64_t) * (size_t)L);
  memcpy(c->target + at, event + 1, sizeof(int64_t) * (size_t)L);
  for (int64_t i = 0; i < L; i++) {
    c->position[at + i] = (int32_t)i;
    c->sequence[at + i] = (int32_t)s;
  }
  c->sample[s] = sample->id;
  if (!c->time) return SH_OK;
  SH_TRY(sh_dataset_times(r->data, sample->first, n, event));
  if (!r->with_target) event[L] = event[L - 1];
  memcpy(c->time + at, event, sizeof(int64_t) * (size_t)L);
  memcpy(c->next_time + at, event + (r->request_time ? 1 : 0), sizeof(int64_t) * (size_t)L);
  return SH_OK;
}

/* B sequences of T tokens. Of several that cannot be read, the first one's failure is told: it is read once more, since
 * the message of a thread is its own. */
static sh_status read_sequences(const reading *r, const sh_sample *sample, int64_t B, int64_t T, sh_arena *arena,
                                columns *c) {
  int64_t longest = 0, failed = B;
  if (T > INT32_MAX)
    return sh_fail(SH_ERR_USAGE,
                   "a batch of %lld tokens on one rank, expected fewer than 2^31: lower batch.users (or "
                   "eval.users), or take more ranks",
                   (long long)T);
  *c = new_columns(B, T, r->data->has_time, arena);
  c->offsets[0] = 0;
  for (int64_t s = 0; s < B; s++) {
    c->offsets[s + 1] = c->offsets[s] + sample[s].length;
    if (sample[s].length > longest) longest = sample[s].length;
  }
  int64_t room = longest + 1, *event = SH_ARENA_NEW(arena, int64_t, room * sh_threads());
#pragma omp parallel for schedule(dynamic, 4) reduction(min : failed)
  for (int64_t s = 0; s < B; s++)
    if (read_sequence(r, &sample[s], c, s, event + room * omp_get_thread_num()) != SH_OK && s < failed) failed = s;
  if (failed == B) return SH_OK;
  /* again, for this thread's message; what others failed on stays unread */
  sh_status again = read_sequence(r, &sample[failed], c, failed, event);
  return again != SH_OK ? again : sh_fail(SH_ERR_DATA, "sequences of a batch could not be read at once");
}

/* The schema's features under their names; those with members of their own share the arrays. */
static void finish(sh_batch *b, const columns *c) {
  b->offsets = c->offsets, b->sample = c->sample, b->item = c->item, b->target = c->target;
  b->time = c->time, b->next_time = c->next_time, b->position = c->position, b->sequence = c->sequence;
  b->feature[b->nfeatures++] = (sh_feature){.name = "item", .kind = SH_FEATURE_TOKEN, .width = 1, .ints = c->item};
  if (c->time)
    b->feature[b->nfeatures++] = (sh_feature){.name = "time", .kind = SH_FEATURE_TOKEN, .width = 1, .ints = c->time};
}

sh_status sh_loader_read(sh_loader *l, int64_t epoch, int64_t step_in_epoch, int64_t step, sh_arena *arena,
                         sh_global_batch *out) {
  enter_epoch(l, epoch);
  const sh_samples *s = l->samples;
  int64_t first = l->start ? l->start[step_in_epoch] : step_in_epoch * l->users;
  int64_t last = l->start ? l->start[step_in_epoch + 1] : first + l->users;
  if (last > s->n) last = s->n;
  int64_t n = last - first;
  reserve(l, n);
  *out = (sh_global_batch){
      .nmicro = l->micro, .global_users = n, .epoch = epoch, .step_in_epoch = step_in_epoch, .step = step};
  out->micro = SH_ARENA_ZNEW(arena, sh_batch, l->micro);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; i++) l->sample[i] = sh_samples_get(s, sh_order_at(&l->order, first + i));
  for (int64_t i = 0; i < n; i++) out->global_tokens += l->sample[i].length;
  out->imbalance = deal(l, n, arena);
  reading how = {.data = s->data, .request_time = l->request_time, .with_target = true};
  for (int m = 0; m < l->micro; m++) {
    sh_batch *b = &out->micro[m];
    int mine = l->rank * l->micro + m;
    sh_sample *own = SH_ARENA_NEW(arena, sh_sample, n);
    for (int64_t i = 0; i < n; i++)
      if (l->bin[i] == mine) own[b->B++] = l->sample[i], b->T += l->sample[i].length;
    columns c;
    SH_TRY(read_sequences(&how, own, b->B, b->T, arena, &c));
    b->epoch = epoch, b->step = step;
    finish(b, &c);
    out->tokens += b->T;
  }
  return SH_OK;
}

sh_status sh_loader_queries(const sh_samples *s, bool request_time, bool with_target, const sh_sample *query, int64_t n,
                            sh_arena *arena, sh_batch *out) {
  *out = (sh_batch){.B = n};
  for (int64_t i = 0; i < n; i++) out->T += query[i].length;
  reading how = {.data = s->data, .request_time = request_time, .with_target = with_target};
  columns c;
  SH_TRY(read_sequences(&how, query, n, out->T, arena, &c));
  finish(out, &c);
  return SH_OK;
}
