#include "dist/table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "dist/table_internal.h"

enum { DEFAULT_SHARDS = 4096, DIRECT_ROWS = 1 << 26, HUGE_PAGE = 1 << 21 };

/* Large ones lie on huge pages, small ones should not take a whole one. */
static void buffer_free(sh_buffer *b) {
  if (b->bytes >= HUGE_PAGE)
    sh_pages_free(b->data, b->bytes);
  else
    free(b->data);
}

void *sh_buffer_need(sh_buffer *b, size_t bytes) {
  if (bytes > b->bytes || !b->data) {
    buffer_free(b);
    b->bytes = bytes + bytes / 2;
    b->data = b->bytes >= HUGE_PAGE ? sh_pages_alloc(b->bytes) : sh_malloc(b->bytes);
  }
  return b->data;
}

static sh_status check(const sh_table_conf *c, int64_t shards) {
  if (c->rows < 1)
    return sh_fail(SH_ERR_USAGE, "table %s: %lld rows, expected at least 1", c->name, (long long)c->rows);
  if (c->width < 1) return sh_fail(SH_ERR_USAGE, "table %s: width %d, expected at least 1", c->name, c->width);
  if (shards < 1 || shards > (int64_t)1 << 30 || (shards & (shards - 1)))
    return sh_fail(SH_ERR_USAGE, "table %s: %lld shards, expected a power of two up to 2^30", c->name,
                   (long long)shards);
  if ((unsigned)c->optim >= SH_ROW_OPTIMS)
    return sh_fail(SH_ERR_USAGE, "table %s: no row optimiser has the number %d", c->name, (int)c->optim);
  return SH_OK;
}

static void place_shards(sh_table *t, int64_t S) {
  int64_t V = t->conf.rows, P = t->axis->size, *start = sh_malloc(sizeof *start * (size_t)(S + 1));
  struct sh_table_impl *impl = t->impl;
  impl->start_of_mod = sh_malloc(sizeof *start * (size_t)S);
  start[0] = 0;
  for (int64_t s = 0; s < S; s++) {
    int64_t mod = sh_bit_reverse(s, t->shard_bits);
    impl->start_of_mod[mod] = start[s];
    start[s + 1] = start[s] + V / S + (mod < V % S);
  }
  t->shard_start = start;
  impl->rank_start = sh_malloc(sizeof *start * (size_t)(P + 1));
  for (int64_t r = 0; r <= P; r++) impl->rank_start[r] = start[r * S / P];
  t->shard_first = t->axis->index * S / P;
  t->shard_last = (t->axis->index + 1) * S / P;
  t->position_first = start[t->shard_first];
  t->local_rows = start[t->shard_last] - t->position_first;
}

static void draw_rows(sh_table *t) {
  uint32_t hash = sh_name_hash(t->conf.name), site = SH_SITE(SH_SITE_TABLE_INIT, 0);
  int64_t D = t->conf.width;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < t->local_rows; i++) {
    int64_t key = sh_table_key(t, t->position_first + i);
    for (int64_t d = 0; d < D; d++) t->rows[i * D + d] = sh_init_value(&t->conf.init, t->conf.seed, site, hash, key, d);
  }
}

static void make_states(sh_table *t) {
  const sh_row_optim_info *info = sh_row_optim_get(t->conf.optim);
  t->nstate = info->states;
  for (int k = 0; k < t->nstate; k++) {
    int64_t width = info->state_wide[k] ? t->conf.width : 1, rows = t->local_rows;
    float initial = t->conf.optim == SH_ROW_ADAGRAD ? (float)t->conf.adagrad_initial : 0.0f;
    float *state = sh_pages_alloc(sizeof *state * (size_t)(rows * width));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
      for (int64_t d = 0; d < width; d++) state[i * width + d] = initial;
    t->state[k] = state;
    t->state_width[k] = (int)width;
    snprintf(t->state_name[k], sizeof t->state_name[k], "%s", info->state_name[k]);
  }
}

sh_status sh_table_create(sh_table *t, const sh_table_conf *conf, const sh_axis *axis) {
  *t = (sh_table){.conf = *conf, .axis = axis};
  int64_t S = conf->shards ? conf->shards : DEFAULT_SHARDS;
  SH_TRY(check(conf, S));
  t->conf.shards = (int)S;
  while ((int64_t)1 << t->shard_bits < S) t->shard_bits++;
  struct sh_table_impl *impl = t->impl = sh_calloc(1, sizeof *impl);
  place_shards(t, S);
  impl->direct_limit = DIRECT_ROWS;
  if (conf->rows <= impl->direct_limit) {
    sh_marks_create(&impl->asked, conf->rows);
    impl->slot_of = sh_malloc(sizeof *impl->slot_of * (size_t)conf->rows);
  }
  sh_marks_create(&impl->own, t->local_rows);
  impl->source = sh_malloc(sizeof *impl->source * (size_t)(2 * axis->size + 1));
  t->rows = sh_pages_alloc(sizeof *t->rows * (size_t)(t->local_rows * conf->width));
  draw_rows(t);
  make_states(t);
  return SH_OK;
}

void sh_table_destroy(sh_table *t) {
  struct sh_table_impl *impl = t->impl;
  if (!impl) return;
  sh_buffer *buffers[] = {&impl->set,     &impl->set_slot, &impl->sort[0],      &impl->sort[1],
                          &impl->wire,    &impl->pack,     &impl->touched[0],   &impl->touched[1],
                          &impl->grad[0], &impl->grad[1],  &impl->block_square, &impl->local};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) buffer_free(buffers[i]);
  sh_marks_destroy(&impl->asked);
  sh_marks_destroy(&impl->own);
  free(impl->slot_of);
  free(impl->source);
  free(impl->start_of_mod);
  free(impl->rank_start);
  free(impl);
  size_t rows = sizeof(float) * (size_t)t->local_rows;
  for (int k = 0; k < t->nstate; k++) sh_pages_free(t->state[k], rows * (size_t)t->state_width[k]);
  sh_pages_free(t->rows, rows * (size_t)t->conf.width);
  free(t->shard_start);
  *t = (sh_table){0};
}

int64_t sh_table_position(const sh_table *t, int64_t key) {
  assert(key >= 0 && key < t->conf.rows);
  return sh_position_of(t, key);
}

int64_t sh_table_key(const sh_table *t, int64_t position) {
  assert(position >= 0 && position < t->conf.rows);
  int64_t shard = sh_shard_at(t, position);
  return ((position - t->shard_start[shard]) << t->shard_bits) + sh_bit_reverse(shard, t->shard_bits);
}

int sh_table_owner(const sh_table *t, int64_t key) {
  assert(key >= 0 && key < t->conf.rows);
  int64_t S = (int64_t)1 << t->shard_bits, s = sh_bit_reverse(key & (S - 1), t->shard_bits);
  /* the last r with r*S/P <= s */
  return (int)(((s + 1) * t->axis->size - 1) >> t->shard_bits);
}

int64_t sh_table_local(const sh_table *t, int64_t key) {
  int64_t local = sh_table_position(t, key) - t->position_first;
  return local >= 0 && local < t->local_rows ? local : -1;
}

void sh_table_update(sh_table *t, const sh_row_hyper *h) {
  struct sh_table_impl *impl = t->impl;
  if (!impl->pending) impl->ntouched = 0;
  sh_row_view rows = {.n = t->local_rows,
                      .width = t->conf.width,
                      .value = t->rows,
                      .state = {t->state[0], t->state[1]},
                      .ntouched = impl->ntouched,
                      .touched = impl->touched[impl->now].data,
                      .grad = impl->waiting,
                      .grad_ld = impl->waiting_ld};
  sh_row_optim_update(&rows, t->conf.optim, h);
  impl->pending = false;
}

int64_t sh_table_touched(const sh_table *t) { return t->impl->ntouched; }
