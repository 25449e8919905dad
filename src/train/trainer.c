#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rng.h"
#include "optim/dense.h"

static sh_status open_data(sh_trainer *t) {
  const sh_config *c = &t->conf;
  sh_status status = c->data.path[0] ? sh_dataset_open(&t->data, c->data.path)
                                     : sh_fail(SH_ERR_USAGE, "data.path is missing: a data set made by shoal prepare");
  if (status == SH_OK) status = sh_samples_create(&t->samples, &t->data, &c->data, c->model.max_len);
  SH_TRY(sh_agree(&t->grid->world, status));
  sh_loader_create(&t->loader, &t->samples, &c->batch, (uint32_t)c->train.seed, c->data.shuffle_block,
                   c->model.request_time, t->grid->data.index, t->grid->data.size);
  return SH_OK;
}

static sh_status make_model(sh_trainer *t) {
  const sh_config *c = &t->conf;
  sh_conf_model model = c->model;
  if (!t->data.has_time && model.time_bias && strcmp(model.name, "sasrec") != 0) {
    if (!strcmp(model.name, "fuxi-beta") || !strcmp(model.name, "fuxi-alpha"))
      return sh_fail(SH_ERR_USAGE, "model.name: %s needs times, and %s has none; model.time_bias=false goes without",
                     model.name, t->data.path);
    model.time_bias = false;
    sh_info("%s has no times: %s runs without its time bias", t->data.path, model.name);
  }
  SH_TRY(sh_model_create(&t->model, &model, &t->grid->tensor, c->parallel.sequence));
  sh_model_precision(&t->model, c->train.precision);
  sh_params_init(&t->model.params, (uint32_t)c->train.seed);
  return SH_OK;
}

static void make_dense_state(sh_trainer *t) {
  const sh_params *p = &t->model.params;
  bool zero = t->conf.parallel.zero;
  sh_grad_sync_create(&t->sync, &t->model.params, t->grid, &t->conf.comm, zero, SH_DENSE_GRAIN);
  if (zero)
    sh_slices_copy(&t->held, &t->sync.buckets.own);
  else
    sh_slices_whole(&t->held, p);
  t->exp_avg = SH_ARENA_ZNEW(&t->run, float, t->held.floats);
  t->exp_avg_sq = SH_ARENA_ZNEW(&t->run, float, t->held.floats);
}

static sh_status make_table(sh_trainer *t) {
  const sh_config *c = &t->conf;
  sh_table_conf table = {.name = "item",
                         .rows = t->data.items,
                         .width = (int)c->model.width,
                         .shards = (int)c->table.shards,
                         .seed = (uint32_t)c->train.seed,
                         .init = {.kind = SH_INIT_TRUNC_NORMAL, .a = c->table.init_std},
                         .optim = (sh_row_optim)sh_row_optim_find(c->table.optim),
                         .adagrad_initial = c->table.adagrad_initial};
  snprintf(table.vocabulary, sizeof table.vocabulary, "%s", t->data.vocabulary);
  return sh_table_create(&t->item, &table, &t->grid->table);
}

static int ascending(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return x < y ? -1 : x > y;
}

/* Own rows, as local row numbers, ascending: the candidates, and with `events` also whatever has events. */
static int64_t own_rows(sh_trainer *t, bool events, int32_t *out) {
  const sh_dataset *d = &t->data;
  int64_t n = 0;
  for (int64_t item = 0, c = 0; item < d->items; item++) {
    bool candidate = c < d->ncandidates && d->candidates[c] == item;
    c += candidate;
    int64_t local = candidate || (events && d->item_count[item] > 0) ? sh_table_local(&t->item, item) : -1;
    if (local >= 0) out[n++] = (int32_t)local;
  }
  qsort(out, (size_t)n, sizeof(int32_t), ascending);
  return n;
}

static sh_status make_candidates(sh_trainer *t) {
  const sh_dataset *d = &t->data;
  t->candidate_position = SH_ARENA_NEW(&t->run, int64_t, d->ncandidates);
  for (int64_t i = 0; i < d->ncandidates; i++) t->candidate_position[i] = sh_table_position(&t->item, d->candidates[i]);
  t->own_candidate = SH_ARENA_NEW(&t->run, int32_t, t->item.local_rows);
  t->nown_candidates = own_rows(t, false, t->own_candidate);
  t->own_scored = SH_ARENA_NEW(&t->run, int32_t, t->item.local_rows);
  t->nown_scored = own_rows(t, true, t->own_scored);
  bool popularity = !strcmp(t->conf.loss.name, "in-batch") ||
                    (!strcmp(t->conf.loss.name, "shared") && !strcmp(t->conf.loss.sampler, "popularity"));
  if (!popularity) return SH_OK;
  t->train_count = SH_ARENA_ZNEW(&t->run, int64_t, d->items);
  SH_TRY(sh_samples_count(&t->samples, t->train_count));
  t->popularity = SH_ARENA_NEW(&t->run, int64_t, d->ncandidates);
  int64_t sum = 0;
  for (int64_t i = 0; i < d->ncandidates; i++) t->popularity[i] = sum += t->train_count[d->candidates[i]] + 1;
  return SH_OK;
}

/* What a sequence of L costs, from the model's own operation counts at two lengths. */
static void set_costs(sh_trainer *t) {
  double linear[2], attention[2];
  for (int i = 0; i < 2; i++) {
    int32_t offsets[2] = {0, i == 0 ? 1 : 100};
    sh_batch b = {.B = 1, .T = offsets[1], .offsets = offsets};
    sh_model_flops(&t->model, &b, &linear[i], &attention[i]);
  }
  double loss = 2.0 * (double)(t->conf.loss.negatives + 1) * t->model.width;
  double pair = attention[1] / (100.0 * 101.0 / 2.0);
  sh_loader_cost(&t->loader, 3 * (linear[0] + loss) + 3.5 * pair / 2, 3.5 * pair / 2);
}

/* With batch.tokens epochs differ a little in steps: the first one is the estimate that schedules use. */
static int64_t total_steps(sh_trainer *t) {
  const sh_conf_train *c = &t->conf.train;
  return c->steps > 0 ? c->steps : c->epochs * sh_loader_steps(&t->loader, 0);
}

static sh_status check_schedule(const sh_trainer *t) {
  const sh_conf_optim *o = &t->conf.optim;
  if (t->total_steps == 0 || o->warmup < t->total_steps || o->warmup == 0) return SH_OK;
  return sh_fail(SH_ERR_USAGE, "optim.warmup = %lld is not below the %lld steps of the run", (long long)o->warmup,
                 (long long)t->total_steps);
}

static const sh_kernels *kernels_of(const sh_config *conf, const sh_grid *grid) {
  if (!strcmp(conf->train.precision, "fp32")) return sh_kernels_best();
  const sh_kernels *k = sh_kernels_bf16();
  const char *wanted = getenv("SHOAL_ISA");
  if (strcmp(k->precision, "bf16") && grid->world.index == 0)
    sh_warn("train.precision = bf16: %s, so operands are rounded to bf16 and multiplied in fp32, which is slower than "
            "train.precision=fp32",
            wanted && *wanted ? "SHOAL_ISA asks for kernels without AVX512_BF16" : "this CPU has no AVX512_BF16");
  return k;
}

sh_status sh_trainer_create(sh_trainer *t, const sh_config *conf, sh_grid *grid) {
  *t = (sh_trainer){.conf = *conf, .grid = grid, .kernels = kernels_of(conf, grid)};
  sh_arena_init(&t->run, "run");
  sh_arena_init(&t->step, "step");
  sh_arena_init(&t->scratch, "scratch");
  SH_TRY(open_data(t));
  SH_TRY(sh_agree(&grid->world, make_model(t)));
  SH_TRY(sh_agree(&grid->world, make_table(t)));
  SH_TRY(sh_agree(&grid->world, make_candidates(t)));
  set_costs(t);
  make_dense_state(t);
  for (int i = 0; i < 2; i++) {
    sh_arena_init(&t->stage[i].memory, i ? "batch 1" : "batch 0");
    sh_fetch_init(&t->stage[i].fetch, &t->item);
  }
  t->total_steps = total_steps(t);
  SH_TRY(check_schedule(t));
  t->state.best_metric = -1;
  t->state.samples = (int64_t)t->samples.digest;
  return SH_OK;
}

void sh_trainer_destroy(sh_trainer *t) {
  for (int i = 0; i < 2; i++) {
    if (t->stage[i].fetch.impl) sh_fetch_free(&t->stage[i].fetch);
    sh_arena_free(&t->stage[i].memory);
  }
  sh_slices_destroy(&t->held);
  sh_grad_sync_destroy(&t->sync);
  if (t->item.rows) sh_table_destroy(&t->item);
  sh_model_destroy(&t->model);
  sh_loader_destroy(&t->loader);
  sh_samples_destroy(&t->samples);
  sh_dataset_close(&t->data);
  sh_arena_free(&t->run);
  sh_arena_free(&t->step);
  sh_arena_free(&t->scratch);
}

sh_ckpt_content sh_trainer_content(sh_trainer *t) {
  return (sh_ckpt_content){.grid = t->grid,
                           .config = &t->conf,
                           .state = &t->state,
                           .params = &t->model.params,
                           .nmoments = 2,
                           .moment_name = {"exp_avg", "exp_avg_sq"},
                           .moment = {t->exp_avg, t->exp_avg_sq},
                           .divided = t->conf.parallel.zero ? &t->held : NULL,
                           .ntables = 1,
                           .table = {&t->item}};
}
