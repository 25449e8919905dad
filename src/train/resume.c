#include "train/resume.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"

sh_status sh_resume_same_model(const sh_config *now, const sh_config *stored, const char *path) {
  char what[512];
  sh_config same = *stored; /* how backward gets its activations is no part of the model */
  memcpy(same.model.recompute, now->model.recompute, sizeof same.model.recompute);
  if (sh_config_differs(now, &same, "model", what, sizeof what))
    return sh_fail(SH_ERR_DATA, "%s holds another model: %s", path, what);
  return SH_OK;
}

/* Optimiser state has the shape these keys give it. */
static sh_status same_state(const sh_config *now, const sh_config *stored, const char *path) {
  if (strcmp(now->table.optim, stored->table.optim) != 0)
    return sh_fail(SH_ERR_USAGE, "%s: table.optim was %s and cannot become %s in a resume", path, stored->table.optim,
                   now->table.optim);
  if (now->table.shards != stored->table.shards)
    return sh_fail(SH_ERR_USAGE, "%s: table.shards was %lld and cannot become %lld in a resume", path,
                   (long long)stored->table.shards, (long long)now->table.shards);
  return SH_OK;
}

/* Batches of an epoch are a function of these: inside one they must stay. */
static sh_status same_batches(const sh_trainer *t, const sh_config *stored, bool same_data, const char *path) {
  const sh_config *now = &t->conf;
  const char *key = same_data ? NULL : "the data set, or how data.* cuts it,";
  if (now->batch.users != stored->batch.users) key = "batch.users";
  if (now->batch.tokens != stored->batch.tokens) key = "batch.tokens";
  if (strcmp(now->data.split, stored->data.split) != 0) key = "data.split";
  if (strcmp(now->data.window, stored->data.window) != 0) key = "data.window";
  if (now->data.min_history != stored->data.min_history) key = "data.min_history";
  if (now->data.shuffle_block != stored->data.shuffle_block) key = "data.shuffle_block";
  if (now->train.seed != stored->train.seed) key = "train.seed";
  if (!key || t->state.step_in_epoch == 0) return SH_OK;
  return sh_fail(SH_ERR_USAGE, "%s stands inside an epoch (%lld batches into it): %s cannot change there", path,
                 (long long)t->state.step_in_epoch, key);
}

/* The best evaluation so far means nothing under another yardstick, or when its checkpoint is not at hand. */
static sh_status keep_or_forget_best(sh_trainer *t, const sh_config *stored, bool same_queries, bool same_folder) {
  const sh_config *now = &t->conf;
  char dir[4096], best[4096 + 16];
  snprintf(dir, sizeof dir, "%s/ckpt", now->train.out);
  snprintf(best, sizeof best, "%s/best.h5", dir);
  int64_t there = access(best, F_OK) == 0;
  sh_bcast(&t->grid->world, &there, sizeof there, 0);
  bool same_yardstick = same_queries && !strcmp(now->eval.metric, stored->eval.metric) &&
                        !strcmp(now->eval.filter, stored->eval.filter) &&
                        !strcmp(now->data.split, stored->data.split) && now->eval.top == stored->eval.top &&
                        now->data.valid_quantile == stored->data.valid_quantile &&
                        now->data.test_quantile == stored->data.test_quantile;
  bool wanted = now->checkpoint.best && t->state.best_metric >= 0;
  if (!same_yardstick && wanted)
    sh_info("another yardstick: the best %s so far, %.4f, is forgotten", stored->eval.metric, t->state.best_metric);
  if (!same_yardstick || !same_folder) {
    t->state.best_metric = -1, t->state.best_epoch = 0, t->state.best_step = 0, t->state.evals_since_best = 0;
    return SH_OK;
  }
  /* A run that died between writing its best checkpoint and linking it links it now. */
  sh_ckpt_content c = sh_trainer_content(t);
  if (wanted && t->state.best_epoch == t->state.epoch && t->state.step_in_epoch == 0) return sh_ckpt_mark_best(&c, dir);
  if (wanted && !there) t->state.best_metric = -1, t->state.evals_since_best = 0;
  return SH_OK;
}

/* Which file to read: found[0] = 0 for a fresh start. Rank 0's answer is everyone's. */
static sh_status choose(const sh_trainer *t, const char *from, char path[4096], int64_t *found) {
  char pattern[4096 + 16];
  *found = 0;
  if (from)
    snprintf(path, 4096, "%s", from);
  else
    snprintf(path, 4096, "%s/ckpt/latest.h5", t->conf.train.out);
  if (t->grid->world.index != 0) return SH_OK;
  *found = access(path, F_OK) == 0;
  if (*found) return SH_OK;
  if (from) return sh_fail(SH_ERR_DATA, "%s: there is no such checkpoint", path);
  snprintf(pattern, sizeof pattern, "%s/ckpt/*.h5", t->conf.train.out);
  glob_t files;
  bool others = glob(pattern, 0, NULL, &files) == 0 && files.gl_pathc > 0;
  sh_status status = SH_OK;
  if (others)
    status = sh_fail(SH_ERR_DATA, "%s is missing, though %s is there: name a checkpoint with --resume-from", path,
                     files.gl_pathv[files.gl_pathc - 1]);
  globfree(&files);
  return status;
}

sh_status sh_resume(sh_trainer *t, const char *from) {
  char path[4096], what[512];
  int64_t found;
  const sh_axis *world = &t->grid->world;
  SH_TRY(sh_agree(world, choose(t, from, path, &found)));
  sh_bcast(world, &found, sizeof found, 0);
  if (!found) {
    sh_info("no checkpoint at %s yet: starting from the beginning", path);
    return SH_OK;
  }
  sh_config stored;
  SH_TRY(sh_ckpt_read_config(t->grid, path, &stored));
  SH_TRY(sh_resume_same_model(&t->conf, &stored, path));
  SH_TRY(same_state(&t->conf, &stored, path));
  sh_ckpt_content c = sh_trainer_content(t);
  SH_TRY(sh_ckpt_read(&c, path, false));
  int64_t samples = (int64_t)t->samples.digest;
  bool same_data = t->state.samples == 0 || t->state.samples == samples;
  t->state.samples = samples;
  bool other_windows = strcmp(t->conf.data.window, stored.data.window) != 0 || /* change training samples alone */
                       t->conf.data.min_history != stored.data.min_history;
  SH_TRY(same_batches(t, &stored, same_data, path));
  if (t->state.step_in_epoch > 0 && t->state.step_in_epoch >= sh_loader_steps(&t->loader, t->state.epoch))
    return sh_fail(SH_ERR_DATA, "%s stands at batch %lld of epoch %lld, and %s gives %lld: another data set?", path,
                   (long long)t->state.step_in_epoch, (long long)t->state.epoch, t->data.path,
                   (long long)sh_loader_steps(&t->loader, t->state.epoch));
  if (sh_config_differs(&t->conf, &stored, "data loss batch optim table eval", what, sizeof what))
    sh_info("resuming with changed settings: %s", what);
  if (t->conf.train.seed != stored.train.seed)
    sh_info("resuming with another seed: train.seed %lld -> %lld", (long long)stored.train.seed,
            (long long)t->conf.train.seed);
  t->branched = from != NULL;
  SH_TRY(keep_or_forget_best(t, &stored, same_data || other_windows, from == NULL));
  sh_info("resumed %s: step %lld, epoch %lld", path, (long long)t->state.step, (long long)t->state.epoch);
  return SH_OK;
}
