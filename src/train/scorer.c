#include "train/scorer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/time_runs.h"
#include "kernels/gemm.h"
#include "nn/linear.h"
#include "nn/loss_rows.h"

/* A GEMM may sum in another order for another shape. Queries always go in blocks of QUERIES (padded with zeros) and
 * candidates in multiples of PICK, so that a score is the same number wherever and on whatever grid it is computed. */
enum { TILE = 1024, QUERIES = 32, PICK = 64 };

typedef struct by_key {
  int64_t key;
  int32_t local;
} by_key;
static int ascending(const void *a, const void *b) {
  int64_t x = ((const by_key *)a)->key, y = ((const by_key *)b)->key;
  return x < y ? -1 : x > y;
}
static int ascending_key(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

void sh_scorer_create(sh_scorer *s, sh_trainer *t) {
  *s = (sh_scorer){.t = t, .n = t->nown_candidates};
  sh_arena_init(&s->memory, "scorer");
  sh_arena_init(&s->step, "scorer step");
  sh_fetch_init(&s->fetch, &t->item);
  int64_t D = t->model.width;
  s->padded = (s->n + TILE - 1) / TILE * TILE;
  s->columns = SH_ARENA_ZNEW(&s->memory, float, D * s->padded);
  s->id = SH_ARENA_NEW(&s->memory, int64_t, s->n);
  by_key *order = SH_ARENA_NEW(&s->memory, by_key, s->n);
  for (int64_t i = 0; i < s->n; i++)
    order[i] = (by_key){sh_table_key(&t->item, t->item.position_first + t->own_candidate[i]), t->own_candidate[i]};
  qsort(order, (size_t)s->n, sizeof *order, ascending);
  float *row = SH_ARENA_NEW(&s->memory, float, D), length;
  for (int64_t i = 0; i < s->n; i++) {
    s->id[i] = order[i].key;
    sh_normalise_rows(t->kernels, 1, (int)D, t->conf.loss.l2_norm, (float)t->conf.loss.l2_eps,
                      t->item.rows + order[i].local * D, D, row, D, &length);
    for (int64_t k = 0; k < D; k++) s->columns[k * s->padded + i] = row[k];
  }
}

void sh_scorer_destroy(sh_scorer *s) {
  sh_fetch_free(&s->fetch);
  sh_arena_free(&s->memory);
  sh_arena_free(&s->step);
}

/* Hidden states of own queries, [mine x D]. Collective (rows are fetched). */
static float *encode(sh_scorer *s, sh_batch *b) {
  sh_trainer *t = s->t;
  if (t->model.needs_time_runs && t->data.has_time) sh_time_runs_build(b, &s->step);
  sh_table_fetch_begin(&t->item, &s->fetch, b->item, b->T, &s->step);
  sh_table_fetch_end(&t->item, &s->fetch, &s->step);
  sh_rows rows = {.ld = s->fetch.ld, .nslots = s->fetch.nslots, .value = s->fetch.rows, .slot = s->fetch.slot};
  sh_ctx c = {.batch = b, .params = &t->model.params, .rows = &rows, .scratch = &t->scratch, .k = t->kernels};
  sh_pass pass;
  float *query = SH_ARENA_NEW(&s->step, float, b->B * t->model.width);
  float *length = SH_ARENA_NEW(&s->step, float, b->B);
  if (b->B == 0) return query;
  float *hidden = sh_model_forward(&t->model, &c, true, &s->step, &pass);
  sh_normalise_rows(t->kernels, b->B, t->model.width, t->conf.loss.l2_norm, (float)t->conf.loss.l2_eps, hidden,
                    t->model.width, query, t->model.width, length);
  return query;
}

/* Keys a query must not rank: ascending, distinct, in the step arena; count in *n. */
static sh_status filtered_keys(sh_scorer *s, const sh_sample *q, int64_t seen_first, int64_t *out, int64_t *n) {
  const char *filter = s->t->conf.eval.filter;
  *n = 0;
  if (!strcmp(filter, "none")) return SH_OK;
  int64_t first = !strcmp(filter, "seen") ? seen_first : q->first, count = q->first + q->length - first, kept = 0;
  SH_TRY(sh_dataset_items(&s->t->data, first, count, out));
  qsort(out, (size_t)count, sizeof(int64_t), ascending_key);
  for (int64_t i = 0; i < count; i++)
    if (kept == 0 || out[i] != out[kept - 1]) out[kept++] = out[i];
  *n = kept;
  return SH_OK;
}

typedef struct own_part {
  sh_batch batch;
  int64_t *target, *filtered_count, *filtered, nfiltered;
} own_part;

static sh_status read_own(sh_scorer *s, const sh_sample *query, const int64_t *seen_first, int64_t mine,
                          bool with_target, own_part *o) {
  sh_trainer *t = s->t;
  int64_t room = 0;
  for (int64_t i = 0; i < mine; i++) room += query[i].first + query[i].length - seen_first[i];
  o->target = SH_ARENA_NEW(&s->step, int64_t, mine);
  o->filtered_count = SH_ARENA_NEW(&s->step, int64_t, mine);
  o->filtered = SH_ARENA_NEW(&s->step, int64_t, room);
  SH_TRY(sh_loader_queries(&t->samples, t->conf.model.request_time, with_target, query, mine, &s->step, &o->batch));
  for (int64_t i = 0; i < mine; i++) {
    o->target[i] = with_target ? o->batch.target[o->batch.offsets[i + 1] - 1] : -1;
    SH_TRY(filtered_keys(s, &query[i], seen_first[i], o->filtered + o->nfiltered, &o->filtered_count[i]));
    o->nfiltered += o->filtered_count[i];
  }
  return SH_OK;
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

/* Own candidates of a tile that a query filters get -infinity: both lists ascend. */
static void mask(const sh_scorer *s, const sh_round *r, int64_t q, int64_t first, int64_t count, float *score) {
  const int64_t *f = r->filtered + r->filtered_start[q], *end = r->filtered + r->filtered_start[q + 1];
  int64_t lo = 0, hi = end - f, i = 0;
  while (lo < hi) { /* first filtered key not below the tile */
    int64_t mid = (lo + hi) / 2;
    if (f[mid] < s->id[first])
      lo = mid + 1;
    else
      hi = mid;
  }
  for (f += lo; f < end && i < count; f++) {
    int64_t a = i, b = count;
    while (a < b) {
      int64_t mid = (a + b) / 2;
      if (s->id[first + mid] < *f)
        a = mid + 1;
      else
        b = mid;
    }
    i = a;
    if (i < count && s->id[first + i] == *f) score[i] = -INFINITY;
  }
}

void sh_scorer_tiles(sh_scorer *s, const sh_round *r, sh_score_visit visit, void *arg) {
  int64_t D = s->t->model.width;
  float *tiles = SH_ARENA_NEW(&s->step, float, (int64_t)TILE *QUERIES *sh_max_threads());
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t q0 = 0; q0 < r->n; q0 += QUERIES) {
    int64_t nq = r->n - q0 < QUERIES ? r->n - q0 : QUERIES;
    float *score = tiles + (int64_t)TILE * QUERIES * sh_thread();
    for (int64_t first = 0; first < s->n; first += TILE) {
      int64_t count = s->n - first < TILE ? s->n - first : TILE;
      s->t->kernels->gemm(QUERIES, TILE, D, r->query + q0 * D, D, s->columns + first, s->padded, score, TILE, false);
      for (int64_t q = 0; q < nq; q++) {
        mask(s, r, q0 + q, first, count, score + q * TILE);
        visit(arg, q0 + q, first, count, score + q * TILE);
      }
    }
  }
}

void sh_scorer_pick(sh_scorer *s, const sh_round *r, const int64_t *own, float *score) {
  int64_t D = s->t->model.width, room = (D + QUERIES) * PICK;
  float *memory = SH_ARENA_NEW(&s->step, float, room *sh_max_threads());
#pragma omp parallel for schedule(static)
  for (int64_t q0 = 0; q0 < r->n; q0 += QUERIES) {
    int64_t nq = r->n - q0 < QUERIES ? r->n - q0 : QUERIES;
    float *columns = memory + room * sh_thread(), *tile = columns + D * PICK;
    memset(columns, 0, sizeof(float) * (size_t)(D * PICK));
    for (int64_t q = 0; q < nq; q++)
      for (int64_t k = 0; k < D && own[q0 + q] >= 0; k++)
        columns[k * PICK + q] = s->columns[k * s->padded + own[q0 + q]];
    s->t->kernels->gemm(QUERIES, PICK, D, r->query + q0 * D, D, columns, PICK, tile, PICK, false);
    for (int64_t q = 0; q < nq; q++) score[q0 + q] = own[q0 + q] >= 0 ? tile[q * PICK + q] : 0;
  }
}
