#include "support/train_data.h"

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "data/dataset.h"
#include "mpi/coll.h"
#include "support/folder.h"
#include "support/whole.h"

static uint32_t draw(const train_data *d, int64_t user, int64_t event, uint32_t what, uint32_t below) {
  sh_philox p = sh_random4(d->seed, SH_SITE(SH_SITE_TEST, 7), (uint32_t)event, user, what, 0);
  return (uint32_t)sh_below(p.v[0], below);
}

static int32_t draw_item(const train_data *d, int64_t user, int64_t event) {
  uint32_t items = (uint32_t)d->items;
  if (draw(d, user, event, 0, 2)) return (int32_t)draw(d, user, event, 1, items);
  return (int32_t)((draw(d, user, 0, 2, items) + draw(d, user, event, 3, 3)) % items);
}

static void number_keys(int64_t n, const char *prefix, int64_t **offsets, char **bytes) {
  *offsets = sh_calloc((size_t)n + 1, sizeof(int64_t));
  *bytes = sh_malloc((size_t)n * 32 + 1);
  for (int64_t i = 0; i < n; i++)
    (*offsets)[i + 1] = (*offsets)[i] + sprintf(*bytes + (*offsets)[i], "%s%lld", prefix, (long long)i);
}

static void must(sh_status status) {
  if (status == SH_OK) return;
  fprintf(stderr, "%s\n", sh_error_message());
  abort();
}

static void write_to(const train_data *d, const char *path) {
  int64_t *offsets = sh_calloc((size_t)d->users + 1, sizeof *offsets), *candidates = NULL;
  for (int64_t u = 0; u < d->users; u++)
    offsets[u + 1] = offsets[u] + d->least + draw(d, u, 0, 4, (uint32_t)(d->most - d->least + 1));
  int64_t events = offsets[d->users], *time = sh_malloc(sizeof *time * (size_t)events);
  int32_t *item = sh_malloc(sizeof *item * (size_t)events);
  for (int64_t u = 0; u < d->users; u++)
    for (int64_t e = offsets[u], now = 1000000 + u; e < offsets[u + 1]; e++) {
      item[e] = draw_item(d, u, e - offsets[u]);
      time[e] = now += draw(d, u, e, 5, 3) ? draw(d, u, e, 6, 90000) : 0; /* a third are ties */
    }
  sh_dataset_content c = {.name = "test", .users = d->users, .events = events, .items = d->items};
  c.offsets = offsets, c.item = item, c.time = d->times ? time : NULL;
  if (d->candidates > 0) {
    candidates = sh_malloc(sizeof *candidates * (size_t)d->candidates);
    for (int64_t i = 0; i < d->candidates; i++) candidates[i] = i * (d->items / d->candidates);
    c.ncandidates = d->candidates, c.candidates = candidates;
  }
  int64_t *key_at[2] = {NULL, NULL};
  char *key[2] = {NULL, NULL};
  if (d->keys) {
    number_keys(d->users, "user-", &key_at[0], &key[0]);
    number_keys(d->items, "item/", &key_at[1], &key[1]);
    c.user_key_offsets = key_at[0], c.user_key_bytes = key[0];
    c.item_key_offsets = key_at[1], c.item_key_bytes = key[1];
  }
  must(sh_dataset_write(&c, path));
  for (int k = 0; k < 2; k++) free(key_at[k]), free(key[k]);
  free(offsets), free(candidates), free(time), free(item);
}

const train_data train_usual = {
    .users = 70, .items = 60, .least = 1, .most = 20, .candidates = 50, .times = true, .seed = 1};

const char *train_data_write(const train_data *d, const char *name) {
  if (folder_mine()) write_to(d, in_folder(name));
  folder_wait();
  return in_folder(name);
}

sh_config train_config(const char *model, const char *data) {
  sh_config c;
  sh_config_defaults(&c);
  snprintf(c.model.name, sizeof c.model.name, "%s", model);
  snprintf(c.data.path, sizeof c.data.path, "%s", data);
  c.model.width = 16, c.model.layers = 2, c.model.heads = 2;
  c.model.max_len = 12, c.model.extra_positions = 3;
  c.model.dropout = c.model.linear_dropout = c.model.attention_dropout = 0.2;
  c.loss.negatives = 20, c.loss.tile_tokens = 64;
  c.batch.users = 16;
  c.data.shuffle_block = 8;
  c.table.shards = 128;
  c.comm.bucket = 4096; /* several buckets */
  return c;
}

static const char *const models[TRAIN_MODELS] = {"hstu", "sasrec", "fuxi-alpha", "fuxi-beta"};
static const char *const losses[TRAIN_LOSSES] = {"sampled", "shared", "in-batch", "full"};
static const char *const optims[] = {"adam_dense", "adam_lazy", "adagrad", "sgd"};

sh_config train_mixed(int m, int l, const char *data, char what[TRAIN_WHAT]) {
  sh_config c = train_config(models[m], data);
  int o = (m + l) % 4;
  snprintf(c.loss.name, sizeof c.loss.name, "%s", losses[l]);
  snprintf(c.table.optim, sizeof c.table.optim, "%s", optims[o]);
  if (o == 3) c.table.lr = 2e-4; /* rows are short, their gradients long: they move as far as with AdamW */
  if (o == 2) c.table.adagrad_initial = 1e-3;
  if (l == 1 && m % 2) snprintf(c.loss.sampler, sizeof c.loss.sampler, "popularity");
  if (m == 2) c.optim.clip = 0.5;
  if (m == 3) c.optim.weight_decay = 0.01;
  snprintf(what, TRAIN_WHAT, "%s, %s, %s", models[m], losses[l], optims[o]);
  return c;
}

sh_config train_smooth(sh_config c) {
  c.optim.eps = 1e-2;
  return c;
}

bool train_steps(train_run *r, sh_trainer *t, int steps) {
  for (int i = 0; i < steps && r->steps < TRAIN_STEPS; i++) {
    sh_step_report report;
    if (sh_train_step(t, false, &report) != SH_OK) {
      fprintf(stderr, "step %lld: %s\n", (long long)t->state.step, sh_error_message());
      return false;
    }
    r->loss[r->steps] = report.loss;
    r->grad_norm[r->steps] = report.grad_norm;
    r->rows_touched[r->steps++] = report.rows_touched;
  }
  return true;
}

static float *append(train_run *r, const char *prefix, const char *name, int64_t n) {
  if (r->arrays == TRAIN_ARRAYS) abort();
  train_array *a = &r->array[r->arrays++];
  snprintf(a->name, sizeof a->name, "%s%s", prefix, name);
  a->at = r->n, a->n = n;
  r->n += n;
  r->value = sh_realloc(r->value, sizeof(float) * (size_t)(r->n + 1));
  return r->value + a->at;
}

static void keep_rows(train_run *r, const sh_table *t, const char *name, const float *rows, int64_t width) {
  int64_t *count = sh_calloc((size_t)t->axis->size, sizeof *count), all = 0;
  sh_allgather(t->axis, &t->local_rows, sizeof(int64_t), count);
  for (int k = 0; k < t->axis->size; k++) all += count[k];
  sh_allgatherv(t->axis, rows, count, sizeof(float) * (size_t)width, append(r, "table.", name, all * width));
  free(count);
}

/* A whole dense array from the parts of the tensor axis. */
static void keep_dense(train_run *r, const sh_trainer *t, const char *prefix, int i, const float *block) {
  const sh_params *p = &t->model.params;
  const sh_param *row = &p->row[i];
  const sh_axis *tensor = &t->grid->tensor;
  int64_t n = row->dim[0] * row->dim[1], *place = whole_places(p, i);
  float *whole = memset(append(r, prefix, row->name, n), 0, sizeof(float) * (size_t)n);
  bool mine = row->split >= 0 || tensor->index == 0;
  for (int64_t k = 0; k < row->size && mine; k++) whole[place[k]] = block[row->offset + k];
  free(place);
  sh_sum_f32(tensor, whole, n);
}

/* State like the parameter block, from everybody's slices when the data axis divides it. To the bit: words are added to
 * zeros. free() it. */
static float *whole_state(const sh_trainer *t, const float *state) {
  const sh_params *p = &t->model.params;
  bool mine = t->conf.parallel.zero || t->grid->data.index == 0;
  int64_t *word = sh_calloc((size_t)p->block + 1, sizeof *word);
  for (int i = 0; i < p->n && mine; i++)
    for (int64_t k = 0; k < sh_slice_size(&t->held, p, i); k++)
      memcpy(&word[sh_slice_first(&t->held, p, i) + k], &state[t->held.slice[i].at + k], sizeof *state);
  sh_sum_i64(&t->grid->data, word, p->block);
  float *whole = sh_malloc(sizeof *whole * (size_t)(p->block + 1));
  for (int64_t k = 0; k < p->block; k++) memcpy(&whole[k], &word[k], sizeof *whole);
  free(word);
  return whole;
}

void train_keep(train_run *r, sh_trainer *t) {
  const sh_params *p = &t->model.params;
  float *dense[3] = {p->value, whole_state(t, t->exp_avg), whole_state(t, t->exp_avg_sq)};
  const char *prefix[3] = {"", "exp_avg.", "exp_avg_sq."};
  r->arrays = 0, r->n = 0;
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < p->n; i++) keep_dense(r, t, prefix[k], i, dense[k]);
  free(dense[1]), free(dense[2]);
  keep_rows(r, &t->item, "rows", t->item.rows, t->item.conf.width);
  for (int k = 0; k < t->item.nstate; k++)
    keep_rows(r, &t->item, t->item.state_name[k], t->item.state[k], t->item.state_width[k]);
}

void train_free(train_run *r) {
  free(r->value);
  *r = (train_run){0};
}

bool train_whole(train_run *r, const sh_config *c, sh_grid *g, int steps) {
  sh_trainer t;
  bool good = sh_trainer_create(&t, c, g) == SH_OK;
  if (!good) fprintf(stderr, "%s\n", sh_error_message());
  good = good && train_steps(r, &t, steps);
  if (good) {
    sh_trainer_rewind(&t);
    train_keep(r, &t);
  }
  sh_trainer_destroy(&t);
  return good;
}

int64_t train_again_allocations(const sh_config *c, sh_grid *g, int steps) {
  sh_trainer t;
  train_run r = {0};
  bool good = sh_trainer_create(&t, c, g) == SH_OK && train_steps(&r, &t, steps);
  if (good) {
    sh_trainer_rewind(&t);
    t.state = (sh_run_state){.best_metric = -1};
  }
  int64_t before = sh_alloc_count();
  good = good && train_steps(&r, &t, steps);
  int64_t more = sh_alloc_count() - before;
  if (good) sh_trainer_rewind(&t);
  sh_trainer_destroy(&t);
  return good ? more : -1;
}

bool train_share(train_run *r, bool good) {
  int first = good, rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Bcast(&first, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (!first) return false;
  float *mine = r->value;
  MPI_Bcast(r, sizeof *r, MPI_BYTE, 0, MPI_COMM_WORLD);
  r->value = rank > 0 ? sh_malloc(sizeof(float) * (size_t)(r->n + 1)) : mine;
  MPI_Bcast(r->value, (int)r->n, MPI_FLOAT, 0, MPI_COMM_WORLD);
  return true;
}

bool train_alone(train_run *r, const sh_config *c, sh_grid *self, int steps) {
  return train_share(r, folder_mine() && train_whole(r, c, self, steps));
}

static bool same_shape(const train_run *a, const train_run *b, const char *what) {
  bool same = a->steps == b->steps && a->arrays == b->arrays && a->n == b->n;
  if (!same)
    fprintf(stderr, "%s: %d steps, %d arrays of %lld floats against %d, %d, %lld\n", what, a->steps, a->arrays,
            (long long)a->n, b->steps, b->arrays, (long long)b->n);
  return same;
}

bool train_bits(const train_run *a, const train_run *b, const char *what) {
  bool same = same_shape(a, b, what);
  for (int i = 0; i < a->steps && same; i++) {
    same = a->loss[i] == b->loss[i] && a->grad_norm[i] == b->grad_norm[i] && a->rows_touched[i] == b->rows_touched[i];
    if (!same)
      fprintf(stderr, "%s: step %d: loss %.17g, gradient norm %.17g, %lld rows against %.17g, %.17g, %lld\n", what, i,
              a->loss[i], a->grad_norm[i], (long long)a->rows_touched[i], b->loss[i], b->grad_norm[i],
              (long long)b->rows_touched[i]);
  }
  for (int k = 0; k < a->arrays && same; k++) {
    const train_array *x = &a->array[k];
    for (int64_t i = x->at; i < x->at + x->n && same; i++) {
      same = !memcmp(&a->value[i], &b->value[i], sizeof(float));
      if (!same)
        fprintf(stderr, "%s: %s[%lld] is %.9g against %.9g\n", what, x->name, (long long)(i - x->at),
                (double)a->value[i], (double)b->value[i]);
    }
  }
  return same;
}

static bool is_state(const char *name) {
  return !strncmp(name, "exp_avg", 7) || (!strncmp(name, "table.", 6) && strcmp(name, "table.rows") != 0);
}

bool train_rounding(const train_run *got, const train_run *want, double loss, double param, const char *what) {
  bool good = same_shape(got, want, what);
  double worst_loss = 0, worst = 0;
  for (int i = 0; i < got->steps && good; i++) {
    double error = got->loss[i] == want->loss[i] ? 0 : fabs(got->loss[i] - want->loss[i]) / fabs(want->loss[i]);
    if (!(error <= worst_loss)) worst_loss = error;
    if (!(error <= loss))
      good = fprintf(stderr, "%s: step %d: loss %.9g against %.9g: %.2e > %.0e\n", what, i, got->loss[i], want->loss[i],
                     error, loss) < 0;
  }
  for (int k = 0; k < got->arrays && good && param > 0; k++) {
    const train_array *a = &got->array[k];
    if (is_state(a->name)) continue;
    double largest = 0, furthest = 0;
    for (int64_t i = a->at; i < a->at + a->n; i++) {
      double distance = fabs((double)got->value[i] - (double)want->value[i]);
      largest = fmax(largest, fabs((double)want->value[i]));
      if (!(distance <= furthest)) furthest = distance;
    }
    if (!(furthest <= worst * largest)) worst = furthest / largest;
    if (!(furthest <= param * largest))
      good = fprintf(stderr, "%s: %s: off by %.2e of its largest entry %.4g, allowed %.0e\n", what, a->name,
                     furthest / largest, largest, param) < 0;
  }
  if (getenv("SHOAL_TEST_VERBOSE"))
    fprintf(stderr, "%s: loss %.1e, arrays %.1e, last loss %.5f\n", what, worst_loss, worst,
            got->steps ? got->loss[got->steps - 1] : 0);
  return good;
}
