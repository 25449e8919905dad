/* The public runs of shoal/train.h: configuration in, trainer built, loop or evaluation, everything freed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/threads.h"
#include "core/timer.h"
#include "shoal/train.h"
#include "train/eval.h"
#include "train/loop.h"
#include "train/recommend.h"

void sh_list_keys(FILE *out) { sh_config_list(out); }

static sh_status open_grid(struct sh_world *world, int64_t tensor, sh_grid *grid) {
  SH_TRY(sh_grid_create(grid, sh_world_comm(world), (int)tensor));
  sh_log_setup(grid->world.index, grid->world.size);
  return SH_OK;
}

/* Files are read by rank 0 alone; everyone gets the result. */
static sh_status read_config(const sh_grid *grid, const sh_train_options *o, sh_config *c) {
  sh_status status = SH_OK;
  if (grid->world.index == 0) {
    sh_config_defaults(c);
    if (o->config) status = sh_config_read(c, o->config);
    for (int i = 0; i < o->nset && status == SH_OK; i++) status = sh_config_set(c, o->set[i]);
    if (status == SH_OK) status = sh_config_check(c);
  }
  SH_TRY(sh_agree(&grid->world, status));
  sh_bcast(&grid->world, c, sizeof *c, 0);
  return SH_OK;
}

static sh_status set_all(sh_config *c, int n, const char *const *set) {
  for (int i = 0; i < n; i++) SH_TRY(sh_config_set(c, set[i]));
  return sh_config_check(c);
}

static void announce(const sh_trainer *t) {
  const sh_dataset *d = &t->data;
  sh_info("data    %s: %lld users, %lld items (%lld candidates), %lld events; %lld sequences, %lld tokens an epoch",
          d->path, (long long)d->users, (long long)d->items, (long long)d->ncandidates, (long long)d->events,
          (long long)t->samples.n, (long long)t->samples.train_tokens);
  sh_info("model   %s: %lld dense parameters, table item %lld x %d", t->conf.model.name,
          (long long)sh_params_count(&t->model.params), (long long)d->items, t->model.width);
  sh_info("grid    %d rank%s (data %d, tensor %d), %d thread%s each, %s kernels", t->grid->world.size,
          t->grid->world.size == 1 ? "" : "s", t->grid->data.size, t->grid->tensor.size, sh_threads(),
          sh_threads() == 1 ? "" : "s", t->kernels->name);
}

/* A resume may change where and how long it runs, not what is trained. */
static sh_status check_same_model(const sh_config *now, const sh_config *stored, const char *path) {
  char what[512];
  if (sh_config_differs(now, stored, "model", what, sizeof what))
    return sh_fail(SH_ERR_DATA, "%s holds another model: %s", path, what);
  return SH_OK;
}

static sh_status resume(sh_trainer *t, const sh_train_options *o) {
  char path[4096];
  const sh_axis *world = &t->grid->world;
  if (o->resume_from)
    snprintf(path, sizeof path, "%s", o->resume_from);
  else
    snprintf(path, sizeof path, "%s/ckpt/latest.h5", t->conf.train.out);
  int64_t there = access(path, F_OK) == 0;
  sh_bcast(world, &there, sizeof there, 0);
  if (!there) {
    if (o->resume_from) return sh_fail(SH_ERR_DATA, "%s: there is no such checkpoint", path);
    sh_info("no checkpoint at %s yet: starting from the beginning", path);
    return SH_OK;
  }
  sh_config stored;
  SH_TRY(sh_ckpt_read_config(t->grid, path, &stored));
  SH_TRY(check_same_model(&t->conf, &stored, path));
  char what[512];
  if (sh_config_differs(&t->conf, &stored, "data loss batch optim table", what, sizeof what))
    sh_info("resuming with changed settings: %s", what);
  sh_ckpt_content c = sh_trainer_content(t);
  SH_TRY(sh_ckpt_read(&c, path, false));
  sh_info("resumed %s: step %lld, epoch %lld", path, (long long)t->state.step, (long long)t->state.epoch);
  return SH_OK;
}

static sh_status check_grid(const sh_config *c, int ranks) {
  if (c->parallel.tensor > 1)
    return sh_fail(SH_ERR_USAGE, "parallel.tensor = %lld: this version splits data and tables, not layers; use 1",
                   (long long)c->parallel.tensor);
  if (c->parallel.table > 0 && c->parallel.table != ranks)
    return sh_fail(SH_ERR_USAGE, "parallel.table = %lld: this version shards tables over all %d ranks; use 0",
                   (long long)c->parallel.table, ranks);
  return SH_OK;
}

sh_status sh_train(struct sh_world *world, const sh_train_options *o) {
  sh_grid grid;
  sh_config c;
  SH_TRY(open_grid(world, 1, &grid));
  sh_status status = read_config(&grid, o, &c);
  if (status == SH_OK) status = check_grid(&c, grid.world.size);
  if (status == SH_OK) {
    sh_threads_setup(c.train.threads);
    sh_trainer t;
    status = sh_trainer_create(&t, &c, &grid);
    if (status == SH_OK) {
      announce(&t);
      if (o->resume || o->resume_from) status = resume(&t, o);
      if (status == SH_OK) status = sh_train_loop(&t);
      if (status == SH_OK)
        sh_info("done: step %lld, best %s %.4f at epoch %lld; results in %s", (long long)t.state.step, c.eval.metric,
                t.state.best_metric, (long long)t.state.best_epoch, c.train.out);
    }
    sh_trainer_destroy(&t);
  }
  sh_grid_destroy(&grid);
  return status;
}

/* A trainer with a checkpoint's configuration and weights. */
static sh_status load(const sh_grid *grid, const char *checkpoint, int nset, const char *const *set, sh_trainer *t) {
  sh_config c;
  SH_TRY(sh_ckpt_read_config(grid, checkpoint, &c));
  sh_config stored = c;
  SH_TRY(sh_agree(&grid->world, set_all(&c, nset, set)));
  SH_TRY(check_same_model(&c, &stored, checkpoint));
  sh_threads_setup(c.train.threads);
  sh_grid *g = (sh_grid *)(uintptr_t)grid;
  SH_TRY(sh_trainer_create(t, &c, g));
  sh_ckpt_content content = sh_trainer_content(t);
  return sh_ckpt_read(&content, checkpoint, true);
}

static void print_metrics(FILE *out, const char *split, const sh_metrics *m, double seconds) {
  fprintf(out, "%s, %.0f users, full ranking\n", split, m->n);
  for (int c = 0; c < SH_CUTS; c++)
    fprintf(out, "  HR@%-4d %.4f   NDCG@%-4d %.4f\n", sh_cut[c], m->hr[c] / m->n, sh_cut[c], m->ndcg[c] / m->n);
  fprintf(out, "  MRR     %.4f   %.0f users/s\n", m->mrr / m->n, m->n / seconds);
}

static sh_status write_json(const char *path, const char *checkpoint, const char *split, const sh_metrics *m) {
  FILE *f = fopen(path, "w");
  if (!f) return sh_fail(SH_ERR_INTERNAL, "%s: cannot be written", path);
  fprintf(f, "{\"checkpoint\":\"%s\",\"split\":\"%s\",\"users\":%.0f,\"mrr\":%.9g", checkpoint, split, m->n,
          m->mrr / m->n);
  for (int c = 0; c < SH_CUTS; c++)
    fprintf(f, ",\"hr@%d\":%.9g,\"ndcg@%d\":%.9g", sh_cut[c], m->hr[c] / m->n, sh_cut[c], m->ndcg[c] / m->n);
  fprintf(f, "}\n");
  return fclose(f) ? sh_fail(SH_ERR_INTERNAL, "%s: cannot be written", path) : SH_OK;
}

static sh_status evaluate_loaded(sh_trainer *t, const sh_eval_options *o) {
  const char *split = o->split ? o->split : "test";
  if (strcmp(split, "valid") != 0 && strcmp(split, "test") != 0)
    return sh_fail(SH_ERR_USAGE, "--split: found '%s', expected valid or test", split);
  if (!strcmp(split, "valid") && !strcmp(t->conf.data.split, "leave-one-out"))
    return sh_fail(SH_ERR_USAGE, "--split valid: data.split leave-one-out has no validation");
  sh_metrics m;
  double start = sh_now();
  SH_TRY(sh_evaluate_split(t, strcmp(split, "valid") ? SH_QUERY_TEST : SH_QUERY_VALID, &m));
  sh_status status = SH_OK;
  if (t->grid->world.index == 0) {
    if (m.n == 0)
      status = sh_fail(SH_ERR_DATA, "%s: no user has an event to rank in split %s", t->data.path, split);
    else
      print_metrics(stdout, split, &m, sh_now() - start);
    if (status == SH_OK && o->json) status = write_json(o->json, o->checkpoint, split, &m);
  }
  return sh_agree(&t->grid->world, status);
}

sh_status sh_eval(struct sh_world *world, const sh_eval_options *o) {
  sh_grid grid;
  sh_trainer t = {0};
  SH_TRY(open_grid(world, 1, &grid));
  sh_status status = load(&grid, o->checkpoint, o->nset, o->set, &t);
  if (status == SH_OK) status = evaluate_loaded(&t, o);
  if (t.grid) sh_trainer_destroy(&t);
  sh_grid_destroy(&grid);
  return status;
}

sh_status sh_recommend(struct sh_world *world, const sh_recommend_options *o) {
  sh_grid grid;
  sh_trainer t = {0};
  SH_TRY(open_grid(world, 1, &grid));
  sh_status status = load(&grid, o->checkpoint, o->nset, o->set, &t);
  if (status == SH_OK) status = sh_recommend_all(&t, o->top, o->out);
  if (t.grid) sh_trainer_destroy(&t);
  sh_grid_destroy(&grid);
  return status;
}
