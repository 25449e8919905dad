/* What a stage's fetch brings: [inputs of micro 0, 1, ...][loss references of micro 0, 1, ...][shared negatives], of
 * own tokens: the tensor axis shares those of a micro-batch.
 *   sampled   a token's references are its target and its negatives, side by side
 *   shared, in-batch   a token's reference is its target; negatives are shared
 *   full      none: owners score their own rows */
#include "train/references.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "core/search.h"

enum { DRAWS = 256 };

static int64_t negatives_of(const sh_trainer *t) { return t->conf.loss.negatives; }

/* Ask for the negatives of a token at places first ... */
static void draw_negatives(const sh_trainer *t, const sh_batch *b, int64_t token, sh_fetch *f, int64_t first) {
  int64_t R = negatives_of(t);
  uint32_t n = (uint32_t)t->data.ncandidates, choice[DRAWS];
  sh_draw at = {(uint32_t)t->conf.train.seed, SH_SITE(SH_SITE_NEGATIVES, 0), (uint32_t)b->step,
                (uint32_t)b->position[token], b->sample[b->sequence[token]]};
  for (int64_t r = 0; r < R; r += DRAWS) {
    int64_t count = R - r < DRAWS ? R - r : DRAWS;
    t->kernels->random_below(&at, (uint32_t)(r / 4), (int)((count + 3) / 4), n, choice);
    sh_fetch_ask(f, first + r, count, t->candidate_position, choice);
  }
}

/* Position in the candidates of a draw by popularity: counts plus one, by their running sum. */
static int64_t by_popularity(const int64_t *running, int64_t n, uint64_t draw) {
  return sh_lower_bound(running, n - 1, (int64_t)draw + 1);
}

static void shared_negatives(sh_trainer *t, sh_stage *s, int64_t *keys) {
  const sh_dataset *d = &t->data;
  int64_t n = d->ncandidates, R = s->nshared;
  const int64_t *running = t->popularity;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < R; r++) {
    sh_philox draw = sh_random4((uint32_t)t->conf.train.seed, SH_SITE(SH_SITE_NEGATIVES, 1), (uint32_t)s->batch.step, 0,
                                (uint32_t)(r >> 32), (uint32_t)r);
    uint64_t wide = ((uint64_t)draw.v[0] << 32) | draw.v[1];
    int64_t c = running
                    ? by_popularity(running, n, (uint64_t)(((unsigned __int128)wide * (uint64_t)running[n - 1]) >> 64))
                    : (int64_t)sh_below(draw.v[0], (uint32_t)n);
    keys[r] = d->candidates[c];
  }
}

/* log of how often a key is expected among the shared negatives. */
float sh_references_correction(const sh_trainer *t, int64_t nshared, int64_t key) {
  const sh_dataset *d = &t->data;
  double p = 1.0 / (double)d->ncandidates;
  if (t->popularity) p = (double)(t->train_count[key] + 1) / (double)t->popularity[d->ncandidates - 1];
  return (float)log((double)nshared * p);
}

/* The targets of the whole global batch, in rank order. */
static void gather_targets(sh_trainer *t, sh_stage *s, int64_t *keys) {
  const sh_axis *axis = &t->grid->data;
  int64_t *mine = SH_ARENA_NEW(&s->memory, int64_t, s->batch.tokens), at = 0;
  int64_t *count = SH_ARENA_NEW(&s->memory, int64_t, axis->size);
  for (int m = 0; m < s->batch.nmicro; m++) {
    const sh_batch *b = &s->batch.micro[m];
    memcpy(mine + at, b->target, sizeof(int64_t) * (size_t)b->T);
    at += b->T;
  }
  sh_comm_kind outer = sh_comm_as(SH_COMM_IDS);
  sh_allgather(axis, &s->batch.tokens, sizeof(int64_t), count);
  sh_allgatherv(axis, mine, count, sizeof(int64_t), keys);
  sh_comm_as(outer);
}

static void ask_key(const sh_trainer *t, sh_fetch *f, int64_t place, int64_t key) {
  int64_t position = sh_table_position(&t->item, key);
  sh_fetch_ask(f, place, 1, &position, NULL);
}

static void ask_shared(sh_trainer *t, sh_stage *s, bool in_batch) {
  int64_t *keys = SH_ARENA_NEW(&s->memory, int64_t, s->nshared);
  if (in_batch)
    gather_targets(t, s, keys);
  else
    shared_negatives(t, s, keys);
  s->correction = SH_ARENA_NEW(&s->memory, float, s->nshared);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < s->nshared; r++) {
    ask_key(t, &s->fetch, s->first_shared + r, keys[r]);
    s->correction[r] = sh_references_correction(t, s->nshared, keys[r]);
  }
}

void sh_references_build(sh_trainer *t, sh_stage *s) {
  const char *loss = t->conf.loss.name;
  bool sampled = !strcmp(loss, "sampled"), full = !strcmp(loss, "full"), in_batch = !strcmp(loss, "in-batch");
  int64_t each = full ? 0 : sampled ? 1 + negatives_of(t) : 1, T = 0;
  for (int m = 0; m < s->batch.nmicro; m++) T += sh_model_own(&t->model, s->batch.micro[m].T);
  s->nshared = in_batch ? s->batch.global_tokens : !strcmp(loss, "shared") ? negatives_of(t) : 0;
  s->first_shared = T * (1 + each);
  sh_fetch *f = &s->fetch;
  sh_fetch_open(&t->item, f, s->first_shared + s->nshared, T, &s->memory); /* layers read inputs before losses */
  s->first_input = SH_ARENA_NEW(&s->memory, int64_t, s->batch.nmicro);
  s->first_loss = SH_ARENA_NEW(&s->memory, int64_t, s->batch.nmicro);
  int64_t input = 0, reference = T;
  for (int m = 0; m < s->batch.nmicro; m++) {
    const sh_batch *b = &s->batch.micro[m];
    int64_t first = sh_model_first(&t->model, b->T), own = sh_model_own(&t->model, b->T);
    s->first_input[m] = input;
    s->first_loss[m] = reference;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < own; k++) {
      ask_key(t, f, input + k, b->item[first + k]);
      if (each > 0) ask_key(t, f, reference + k * each, b->target[first + k]);
      if (sampled) draw_negatives(t, b, first + k, f, reference + k * each + 1);
    }
    input += own;
    reference += own * each;
  }
  s->correction = NULL;
  if (s->nshared > 0) ask_shared(t, s, in_batch);
}
