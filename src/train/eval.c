#include "train/eval.h"

#include <string.h>

#include "core/phase.h"
#include "core/search.h"
#include "train/scorer.h"

/* Own queries of one round: users are taken in order, eval.users by each data rank in turn. Returns false past the end.
 */
typedef struct cursor {
  int64_t user;
} cursor;
static bool next_round(sh_trainer *t, sh_query_kind kind, cursor *c, sh_sample *query, int64_t *seen, int64_t *mine) {
  const sh_axis *data = &t->grid->data;
  int64_t each = t->conf.eval.users, room = each * data->size, taken = 0;
  *mine = 0;
  for (; c->user < t->data.users && taken < room; c->user++) {
    sh_sample q;
    int64_t first;
    if (!sh_samples_query(&t->samples, kind, c->user, &q, &first)) continue;
    if (taken++ % data->size != data->index) continue; /* dealt one by one: lengths mix */
    query[*mine] = q;
    seen[(*mine)++] = first;
  }
  return taken > 0;
}

typedef struct counting {
  const sh_scorer *s;
  const sh_round *r;
  const float *target_score; /* [n] */
  int64_t *better;           /* [n] */
} counting;

static void count_tile(void *arg, int64_t q, int64_t first, int64_t count, const float *score) {
  counting *c = arg;
  c->better[q] += sh_count_better(count, score, c->s->id + first, c->target_score[q], c->r->target[q]);
}

/* Scores of targets, from their owners; rankable[q] = 1 when the target is a candidate and not filtered. */
static void target_scores(sh_scorer *s, const sh_round *r, float *score, float *rankable) {
  int64_t *own = SH_ARENA_NEW(&s->step, int64_t, r->n);
  for (int64_t q = 0; q < r->n; q++) {
    int64_t first = r->filtered_start[q];
    bool filtered = sh_index_of(r->filtered + first, r->filtered_start[q + 1] - first, r->target[q]) >= 0;
    own[q] = filtered ? -1 : s->place[r->target[q]];
    rankable[q] = own[q] >= 0;
  }
  sh_scorer_pick(s, r, own, score);
  sh_sum_f32(&s->t->grid->table, score, r->n);
  sh_sum_f32(&s->t->grid->table, rankable, r->n);
}

sh_status sh_evaluate_split(sh_trainer *t, sh_query_kind kind, bool (*stop)(void), sh_metrics *out) {
  sh_scorer s;
  sh_scorer_create(&s, t);
  *out = (sh_metrics){0};
  sh_sample *query = SH_ARENA_NEW(&s.memory, sh_sample, t->conf.eval.users);
  int64_t *seen = SH_ARENA_NEW(&s.memory, int64_t, t->conf.eval.users), mine;
  cursor c = {0};
  sh_status status = SH_OK;
  while (status == SH_OK && next_round(t, kind, &c, query, seen, &mine)) {
    sh_round r;
    if (stop) status = sh_agree(&t->grid->world, stop() ? sh_fail(SH_STOPPED, "evaluation stopped on request") : SH_OK);
    if (status == SH_OK) status = sh_scorer_round(&s, query, seen, mine, true, &r);
    if (status != SH_OK) break;
    float *score = SH_ARENA_NEW(&s.step, float, r.n), *rankable = SH_ARENA_NEW(&s.step, float, r.n);
    counting counts = {.s = &s, .r = &r, .target_score = score, .better = SH_ARENA_ZNEW(&s.step, int64_t, r.n)};
    target_scores(&s, &r, score, rankable);
    sh_scorer_tiles(&s, &r, count_tile, &counts);
    sh_sum_i64(&t->grid->table, counts.better, r.n);
    int64_t top = t->conf.eval.top;
    for (int64_t q = r.first; q < r.first + r.mine; q++)
      sh_metrics_add(out, sh_rank(rankable[q] > 0 ? counts.better[q] : -1, top), top);
    sh_phase_moved();
  }
  sh_scorer_destroy(&s);
  sh_sum_f64(&t->grid->world, (double *)out, sizeof *out / sizeof(double));
  return status;
}
