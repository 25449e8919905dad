#include "train/scorer.h"

#include <math.h>
#include <string.h>

#include "data/time_runs.h"
#include "kernels/gemm.h"
#include "nn/linear.h"
#include "nn/loss_rows.h"

/* A GEMM may sum in another order for another shape. Queries always go in blocks of QUERIES (padded with zeros) and
 * candidates in panels of PANEL, so that a score is the same number wherever and on whatever grid it is computed. A
 * tile is TILE candidates, scored by up to UNIT queries before the next one: it stays in cache. */
enum { PANEL = 64, TILE = 512, QUERIES = 32, UNIT = 128 };
/* A thread encodes so many tokens at a time, whole queries: what a layer leaves is still in cache for the next. */
enum { GROUP = 512 };

static void normalise(const sh_trainer *t, int64_t n, const float *x, float *y, float *length) {
  int64_t D = t->model.width;
  sh_normalise_rows(t->kernels, n, (int)D, t->conf.loss.l2_norm, (float)t->conf.loss.l2_eps, x, D, y, D, length);
}

/* Own candidates by ascending key. */
static void list_candidates(sh_scorer *s, int32_t *local) {
  const sh_dataset *d = &s->t->data;
  for (int64_t v = 0; v < d->items; v++) s->place[v] = -1;
  for (int64_t c = 0; c < d->ncandidates; c++) {
    int64_t row = sh_table_local(&s->t->item, d->candidates[c]);
    if (row < 0) continue;
    s->place[d->candidates[c]] = (int32_t)s->n;
    local[s->n] = (int32_t)row;
    s->id[s->n++] = d->candidates[c];
  }
}

static void fill_panels(sh_scorer *s, const int32_t *local) {
  const sh_trainer *t = s->t;
  int64_t D = t->model.width, panels = (s->n + PANEL - 1) / PANEL;
  s->panel = SH_ARENA_NEW(&s->memory, float, panels *PANEL *D);
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < panels; p++) {
    sh_arena *arena = &s->encoder[sh_thread()].step;
    sh_arena_reset(arena);
    float *raw = SH_ARENA_ZNEW(arena, float, PANEL *D), *row = SH_ARENA_NEW(arena, float, PANEL *D), length[PANEL];
    for (int64_t i = p * PANEL; i < (p + 1) * PANEL && i < s->n; i++)
      memcpy(raw + (i - p * PANEL) * D, t->item.rows + local[i] * D, sizeof(float) * (size_t)D);
    normalise(t, PANEL, raw, row, length);
    sh_transpose(PANEL, D, row, D, s->panel + p * PANEL * D, PANEL);
  }
}

void sh_scorer_create(sh_scorer *s, sh_trainer *t) {
  *s = (sh_scorer){.t = t, .nencoders = sh_max_threads()};
  sh_arena_init(&s->memory, "scorer");
  sh_arena_init(&s->step, "scorer step");
  sh_fetch_init(&s->fetch, &t->item);
  s->encoder = SH_ARENA_ZNEW(&s->memory, sh_encoder, s->nencoders);
  for (int k = 0; k < s->nencoders; k++) {
    sh_arena_init(&s->encoder[k].step, "encoder");
    sh_arena_init(&s->encoder[k].scratch, "encoder scratch");
    sh_marks_create(&s->encoder[k].seen, t->data.items);
  }
  s->id = SH_ARENA_NEW(&s->memory, int64_t, t->nown_candidates);
  s->place = SH_ARENA_NEW(&s->memory, int32_t, t->data.items);
  int32_t *local = SH_ARENA_NEW(&s->step, int32_t, t->nown_candidates);
  list_candidates(s, local);
  fill_panels(s, local);
}

void sh_scorer_destroy(sh_scorer *s) {
  sh_fetch_free(&s->fetch);
  for (int k = 0; k < s->nencoders; k++) {
    sh_arena_free(&s->encoder[k].step);
    sh_arena_free(&s->encoder[k].scratch);
    sh_marks_destroy(&s->encoder[k].seen);
  }
  sh_arena_free(&s->memory);
  sh_arena_free(&s->step);
}

/* Sequences first .. last-1 of a batch as a batch of their own, as far as inference reads it. */
static sh_batch part_of(const sh_batch *b, int64_t first, int64_t last, sh_arena *arena) {
  int32_t at = b->offsets[first], *offsets = SH_ARENA_NEW(arena, int32_t, last - first + 1);
  for (int64_t s = first; s <= last; s++) offsets[s - first] = b->offsets[s] - at;
  int32_t *sequence = SH_ARENA_NEW(arena, int32_t, b->offsets[last] - at);
  for (int64_t t = at; t < b->offsets[last]; t++) sequence[t - at] = b->sequence[t] - (int32_t)first;
  return (sh_batch){.B = last - first,
                    .T = b->offsets[last] - at,
                    .offsets = offsets,
                    .sample = b->sample + first,
                    .item = b->item + at,
                    .target = b->target + at,
                    .time = b->time ? b->time + at : NULL,
                    .next_time = b->next_time ? b->next_time + at : NULL,
                    .position = b->position + at,
                    .sequence = sequence};
}

/* Queries first .. last-1; slot: of the group's own tokens. Split layers leave each rank some of its hidden states. */
static void encode_part(sh_scorer *s, sh_encoder *e, const sh_batch *b, int64_t first, int64_t last,
                        const int32_t *slot, float *query) {
  const sh_trainer *t = s->t;
  sh_arena_reset(&e->step);
  sh_batch part = part_of(b, first, last, &e->step);
  if (t->model.needs_time_runs && t->data.has_time) sh_time_runs_build(&part, &e->step);
  sh_rows rows = {.ld = s->fetch.ld, .nslots = s->fetch.nslots, .value = s->fetch.rows, .slot = slot};
  sh_ctx c = {.batch = &part, .params = &t->model.params, .rows = &rows, .scratch = &e->scratch, .k = t->kernels};
  sh_pass pass;
  float *hidden = sh_model_forward(&t->model, &c, true, &e->step, &pass);
  int64_t D = t->model.width, at = sh_model_first(&t->model, part.B), own = sh_model_own(&t->model, part.B);
  normalise(t, own, hidden, query + (first + at) * D, SH_ARENA_NEW(&e->step, float, own));
}

/* Own hidden states of a group of n queries become everybody's of the tensor axis. */
static void share_part(sh_scorer *s, int64_t n, float *query) {
  const sh_model *m = &s->t->model;
  const sh_axis *axis = &s->t->grid->tensor;
  int64_t *count = SH_ARENA_NEW(&s->step, int64_t, axis->size);
  for (int r = 0; r < axis->size; r++) count[r] = sh_deal_first(n, r + 1, axis->size) - sh_deal_first(n, r, axis->size);
  sh_allgatherv(axis, query + sh_model_first(m, n) * m->width, count, sizeof(float) * (size_t)m->width, query);
}

/* Groups of queries: queries start[g] .. start[g+1]-1, whose own tokens begin at place[g] among all own ones. */
typedef struct groups {
  int64_t n, *start, *place;
} groups;
static groups make_groups(sh_scorer *s, const sh_batch *b) {
  groups g = {.start = SH_ARENA_NEW(&s->step, int64_t, b->B + 1), .place = SH_ARENA_NEW(&s->step, int64_t, b->B + 1)};
  for (int64_t i = 0; i < b->B; i++)
    if (i == 0 || b->offsets[i + 1] - b->offsets[g.start[g.n - 1]] > GROUP) g.start[g.n++] = i;
  g.start[g.n] = b->B;
  g.place[0] = 0;
  for (int64_t k = 0; k < g.n; k++)
    g.place[k + 1] = g.place[k] + sh_model_own(&s->t->model, b->offsets[g.start[k + 1]] - b->offsets[g.start[k]]);
  return g;
}

/* Rows of own tokens of all groups. Collective over the table axis. */
static void fetch_own(sh_scorer *s, const sh_batch *b, const groups *g) {
  int64_t *keys = SH_ARENA_NEW(&s->step, int64_t, g->place[g->n]);
  for (int64_t k = 0; k < g->n; k++) {
    int64_t at = b->offsets[g->start[k]], tokens = b->offsets[g->start[k + 1]] - at;
    memcpy(keys + g->place[k], b->item + at + sh_model_first(&s->t->model, tokens),
           sizeof *keys * (size_t)(g->place[k + 1] - g->place[k]));
  }
  sh_table_fetch_begin(&s->t->item, &s->fetch, keys, g->place[g->n], &s->step);
  sh_table_fetch_end(&s->t->item, &s->fetch, &s->step);
}

/* Hidden states of queries, [B x D]. Collective. Alone, threads take groups of queries: no layer waits for a slower
 * thread; a tensor group, which must communicate, takes one group after the other with all threads. Which others
 * are in its group changes a query's numbers by rounding only. */
static float *encode(sh_scorer *s, const sh_batch *b) {
  groups g = make_groups(s, b);
  fetch_own(s, b, &g);
  float *query = SH_ARENA_NEW(&s->step, float, b->B * s->t->model.width);
  bool alone = s->t->grid->tensor.size == 1;
#pragma omp parallel for schedule(dynamic, 1) if (alone && g.n >= s->nencoders)
  for (int64_t k = 0; k < g.n; k++)
    encode_part(s, &s->encoder[alone ? sh_thread() : 0], b, g.start[k], g.start[k + 1], s->fetch.slot + g.place[k],
                query);
  for (int64_t k = 0; k < g.n && !alone; k++)
    share_part(s, g.start[k + 1] - g.start[k], query + g.start[k] * s->t->model.width);
  return query;
}

typedef struct own_part {
  sh_batch batch;
  int64_t *target, *filtered_count, *filtered, nfiltered;
} own_part;

/* Keys a query must not rank: ascending, distinct; room for all that it has seen. */
static sh_status filtered_keys(sh_scorer *s, const sh_sample *q, int64_t seen_first, int64_t *out, int64_t *n) {
  const char *filter = s->t->conf.eval.filter;
  sh_marks *seen = &s->encoder[sh_thread()].seen;
  *n = 0;
  if (!strcmp(filter, "none")) return SH_OK;
  int64_t first = !strcmp(filter, "seen") ? seen_first : q->first, count = q->first + q->length - first;
  SH_TRY(sh_dataset_items(&s->t->data, first, count, out));
  for (int64_t i = 0; i < count; i++) sh_marks_set(seen, out[i]);
  *n = sh_marks_count(seen);
  sh_marks_take(seen, out);
  return SH_OK;
}

static sh_status read_filtered(sh_scorer *s, const sh_sample *query, const int64_t *seen_first, int64_t mine,
                               own_part *o) {
  int64_t *room = SH_ARENA_NEW(&s->step, int64_t, mine + 1), failed = mine;
  room[0] = 0;
  for (int64_t i = 0; i < mine; i++) room[i + 1] = room[i] + query[i].first + query[i].length - seen_first[i];
  o->filtered = SH_ARENA_NEW(&s->step, int64_t, room[mine]);
  o->filtered_count = SH_ARENA_NEW(&s->step, int64_t, mine);
#pragma omp parallel for schedule(dynamic, 4) reduction(min : failed)
  for (int64_t i = 0; i < mine; i++)
    if (filtered_keys(s, &query[i], seen_first[i], o->filtered + room[i], &o->filtered_count[i]) != SH_OK && i < failed)
      failed = i;
  if (failed < mine) { /* again, for this thread's message; what others failed on stays unread */
    sh_status again = filtered_keys(s, &query[failed], seen_first[failed], o->filtered, &o->filtered_count[failed]);
    return again != SH_OK ? again
                          : sh_fail(SH_ERR_DATA, "events of %lld queries could not be read at once", (long long)mine);
  }
  for (int64_t i = 0; i < mine; i++) {
    memmove(o->filtered + o->nfiltered, o->filtered + room[i], sizeof *o->filtered * (size_t)o->filtered_count[i]);
    o->nfiltered += o->filtered_count[i];
  }
  return SH_OK;
}

static sh_status read_own(sh_scorer *s, const sh_sample *query, const int64_t *seen_first, int64_t mine,
                          bool with_target, own_part *o) {
  sh_trainer *t = s->t;
  SH_TRY(sh_loader_queries(&t->samples, t->conf.model.request_time, with_target, query, mine, &s->step, &o->batch));
  o->target = SH_ARENA_NEW(&s->step, int64_t, mine);
  for (int64_t i = 0; i < mine; i++) o->target[i] = with_target ? o->batch.target[o->batch.offsets[i + 1] - 1] : -1;
  return read_filtered(s, query, seen_first, mine, o);
}

sh_status sh_scorer_round(sh_scorer *s, const sh_sample *query, const int64_t *seen_first, int64_t mine,
                          bool with_target, sh_round *out) {
  sh_trainer *t = s->t;
  const sh_axis *world = &t->grid->world;
  int64_t D = t->model.width;
  sh_arena_reset(&s->step);
  own_part own = {0};
  SH_TRY(sh_agree(world, read_own(s, query, seen_first, mine, with_target, &own)));
  float *q = encode(s, &own.batch);
  if (t->grid->tensor.index > 0) mine = own.nfiltered = 0; /* the first of a tensor group brings its queries */
  int64_t(*size)[2] = sh_arena_alloc(&s->step, sizeof(int64_t[2]) * (size_t)world->size);
  int64_t *count = SH_ARENA_NEW(&s->step, int64_t, world->size), total = 0, pair[2] = {mine, own.nfiltered};
  sh_allgather(world, pair, sizeof pair, size);
  *out = (sh_round){.mine = mine};
  for (int r = 0; r < world->size; r++) {
    if (r < world->index) out->first += size[r][0];
    out->n += count[r] = size[r][0];
    total += size[r][1];
  }
  out->query = SH_ARENA_ZNEW(&s->step, float, (out->n + QUERIES - 1) / QUERIES * QUERIES * D);
  out->target = SH_ARENA_NEW(&s->step, int64_t, out->n);
  out->filtered_start = SH_ARENA_NEW(&s->step, int64_t, out->n + 1);
  out->filtered = SH_ARENA_NEW(&s->step, int64_t, total);
  sh_allgatherv(world, q, count, sizeof(float) * (size_t)D, out->query);
  sh_allgatherv(world, own.target, count, sizeof(int64_t), out->target);
  sh_allgatherv(world, own.filtered_count, count, sizeof(int64_t), out->filtered_start + 1);
  for (int r = 0; r < world->size; r++) count[r] = size[r][1];
  sh_allgatherv(world, own.filtered, count, sizeof(int64_t), out->filtered);
  out->filtered_start[0] = 0;
  for (int64_t i = 0; i < out->n; i++) out->filtered_start[i + 1] += out->filtered_start[i];
  return SH_OK;
}

/* Scores of QUERIES queries against candidates first .. first+count-1, first a multiple of PANEL. */
static void score_tile(const sh_scorer *s, const float *query, int64_t first, int64_t count, float *score) {
  int64_t D = s->t->model.width;
  for (int64_t c = 0; c < count; c += PANEL)
    s->t->kernels->gemm(QUERIES, PANEL, D, query, D, s->panel + (first + c) * D, PANEL, score + c, TILE, false);
}

/* Filtered candidates of query q before `end` get -infinity; *next, the first key not seen by an earlier tile, moves.
 */
static void mask(const sh_scorer *s, const sh_round *r, int64_t q, int64_t first, int64_t end, int64_t *next,
                 float *score) {
  int64_t past = end < s->n ? s->id[end] : INT64_MAX;
  for (; *next < r->filtered_start[q + 1] && r->filtered[*next] < past; ++*next) {
    int32_t place = s->place[r->filtered[*next]];
    if (place >= 0) score[place - first] = -INFINITY;
  }
}

/* Queries q0 .. q1-1, at most UNIT, q0 a multiple of QUERIES. */
static void score_unit(const sh_scorer *s, const sh_round *r, int64_t q0, int64_t q1, float *score,
                       sh_score_visit visit, void *arg) {
  int64_t D = s->t->model.width, next[UNIT];
  memcpy(next, r->filtered_start + q0, sizeof *next * (size_t)(q1 - q0));
  for (int64_t first = 0; first < s->n; first += TILE) {
    int64_t end = first + TILE < s->n ? first + TILE : s->n;
    for (int64_t q = q0; q < q1; q++) {
      float *own = score + (q - q0) % QUERIES * TILE;
      if ((q - q0) % QUERIES == 0) score_tile(s, r->query + q * D, first, end - first, own);
      mask(s, r, q, first, end, &next[q - q0], own);
      visit(arg, q, first, end - first, own);
    }
  }
}

void sh_scorer_tiles(sh_scorer *s, const sh_round *r, sh_score_visit visit, void *arg) {
  float *tiles = SH_ARENA_NEW(&s->step, float, (int64_t)TILE *QUERIES *sh_max_threads());
  int64_t unit = r->n >= (int64_t)UNIT * 4 * sh_max_threads() ? UNIT : QUERIES;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t q0 = 0; q0 < r->n; q0 += unit) {
    int64_t q1 = q0 + unit < r->n ? q0 + unit : r->n;
    score_unit(s, r, q0, q1, tiles + (int64_t)TILE * QUERIES * sh_thread(), visit, arg);
  }
}

void sh_scorer_pick(sh_scorer *s, const sh_round *r, const int64_t *own, float *score) {
  int64_t D = s->t->model.width, room = (D + QUERIES) * PANEL;
  float *memory = SH_ARENA_NEW(&s->step, float, room *sh_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t q0 = 0; q0 < r->n; q0 += QUERIES) {
    int64_t nq = r->n - q0 < QUERIES ? r->n - q0 : QUERIES;
    float *panel = memory + room * sh_thread(), *tile = panel + D * PANEL;
    memset(panel, 0, sizeof(float) * (size_t)(D * PANEL));
    for (int64_t q = 0; q < nq; q++) {
      if (own[q0 + q] < 0) continue;
      const float *from = s->panel + own[q0 + q] / PANEL * PANEL * D + own[q0 + q] % PANEL;
      for (int64_t k = 0; k < D; k++) panel[k * PANEL + q] = from[k * PANEL];
    }
    s->t->kernels->gemm(QUERIES, PANEL, D, r->query + q0 * D, D, panel, PANEL, tile, PANEL, false);
    for (int64_t q = 0; q < nq; q++) score[q0 + q] = own[q0 + q] >= 0 ? tile[q * PANEL + q] : 0;
  }
}
