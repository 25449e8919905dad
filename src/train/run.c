/* The public runs of shoal/train.h: configuration in, trainer built, loop or evaluation, everything freed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/log.h"
#include "core/outfile.h"
#include "core/threads.h"
#include "core/timer.h"
#include "mpi/check.h"
#include "mpi/places.h"
#include "mpi/progress.h"
#include "shoal/train.h"
#include "train/eval.h"
#include "train/failure.h"
#include "train/loop.h"
#include "train/recommend.h"
#include "train/resume.h"
#include "train/watchdog.h"

void sh_list_keys(FILE *out) { sh_config_list(out); }

/* The grid that reads a configuration, or the one whose ranks share layers as it says. */
static sh_status share_layers(struct sh_world *world, const sh_config *c, sh_grid *grid) {
  if (c->parallel.tensor == 1) return SH_OK;
  sh_grid_destroy(grid);
  return sh_grid_create(grid, sh_world_comm(world), (int)c->parallel.tensor);
}

static sh_status resolve_config(const sh_train_options *o, sh_config *c) {
  sh_config_defaults(c);
  if (o->config) SH_TRY(sh_config_read(c, o->config));
  for (int i = 0; i < o->nset; i++) SH_TRY(sh_config_set(c, o->set[i]));
  return sh_config_check(c);
}

bool sh_train_wants_threads(const sh_train_options *o) {
  sh_config c;
  return resolve_config(o, &c) == SH_OK && !strcmp(c.comm.progress, "thread");
}

/* Files are read by rank 0 alone; everyone gets the result. */
static sh_status read_config(const sh_grid *grid, const sh_train_options *o, sh_config *c) {
  SH_TRY(sh_agree(&grid->world, grid->world.index == 0 ? resolve_config(o, c) : SH_OK));
  sh_bcast(&grid->world, c, sizeof *c, 0);
  return SH_OK;
}

static sh_status set_all(sh_config *c, int n, const char *const *set) {
  for (int i = 0; i < n; i++) SH_TRY(sh_config_set(c, set[i]));
  return sh_config_check(c);
}

/* Ranks that share layers; they talk in every layer, so they should do so within a host. */
static void announce_groups(const sh_place *place, int ranks, int tensor) {
  enum { GROUPS = 8 };
  char list[GROUPS * 24] = "", more[48] = "";
  size_t n = 0;
  int groups = ranks / tensor, first;
  for (int g = 0; g < groups && g < GROUPS; g++)
    n += (size_t)snprintf(list + n, sizeof list - n, "%s%d-%d", g ? ", " : "", g * tensor, (g + 1) * tensor - 1);
  if (groups > GROUPS) snprintf(more, sizeof more, " ... and %d groups more", groups - GROUPS);
  sh_info("        layers shared by ranks %s%s", list, more);
  int astride = sh_places_astride(place, ranks, tensor, &first);
  if (astride > 0)
    sh_warn("%d of %d groups of parallel.tensor = %d ranks, the first of ranks %d-%d (%s ... %s), lie on more than one "
            "host: their layers wait for the network; let parallel.tensor divide the ranks of a host",
            astride, groups, tensor, first * tensor, (first + 1) * tensor - 1, place[first * tensor].host,
            place[(first + 1) * tensor - 1].host);
}

/* Hosts with their ranks and the cores each may use; consecutive ranks with the same stand together. Collective. */
static void announce_places(const sh_axis *world, int tensor) {
  enum { LINES = 16 };
  sh_place *place = sh_calloc((size_t)world->size, sizeof *place);
  sh_places_gather(world, place);
  int lines = 0;
  for (int first = 0, next; first < world->size && lines < LINES; first = next, lines++) {
    const sh_place *p = &place[first];
    for (next = first + 1; next < world->size && !memcmp(p, &place[next], sizeof *p); next++) continue;
    char ranks[48];
    snprintf(ranks, sizeof ranks, next - first > 1 ? "ranks %d-%d" : "rank %d", first, next - 1);
    if (lines == LINES - 1 && next < world->size)
      sh_info("        ... and %d ranks more", world->size - first);
    else
      sh_info("%s %s on %s, cores %s%s", lines ? "       " : "places ", ranks, p->host,
              *p->cores ? p->cores : "unknown", next - first > 1 ? " shared" : "");
  }
  if (tensor > 1 && world->index == 0) announce_groups(place, world->size, tensor);
  free(place);
}

static void announce(const sh_trainer *t) {
  const sh_dataset *d = &t->data;
  sh_info("data    %s: %lld users, %lld items (%lld candidates), %lld events; %lld sequences, %lld tokens an epoch",
          d->path, (long long)d->users, (long long)d->items, (long long)d->ncandidates, (long long)d->events,
          (long long)t->samples.n, (long long)t->samples.train_tokens);
  if (t->samples.skipped_users > 0)
    sh_info("        %lld users have too few events to train on", (long long)t->samples.skipped_users);
  sh_info("model   %s: %lld dense parameters, table item %lld x %d", t->conf.model.name,
          (long long)sh_params_count(&t->model.params), (long long)d->items, t->model.width);
  sh_info("grid    %d rank%s (data %d, tensor %d), %d thread%s each, progress %s, %s kernels, precision %s",
          t->grid->world.size, t->grid->world.size == 1 ? "" : "s", t->grid->data.size, t->grid->tensor.size,
          sh_threads(), sh_threads() == 1 ? "" : "s", sh_progress_name(), t->kernels->name, t->kernels->precision);
}

static sh_status check_grid(const sh_config *c, int ranks) {
  if (c->table.shards < 16 * ranks)
    return sh_fail(SH_ERR_USAGE, "table.shards = %lld is too few for %d ranks: at least 16 each, a power of two",
                   (long long)c->table.shards, ranks);
  if (c->parallel.table > 0 && c->parallel.table != ranks)
    return sh_fail(SH_ERR_USAGE, "parallel.table = %lld: this version shards tables over all %d ranks; use 0",
                   (long long)c->parallel.table, ranks);
  return SH_OK;
}

static void conclude(const sh_trainer *t) {
  const sh_config *c = &t->conf;
  double best;
  sh_info("done: step %lld; results in %s", (long long)t->state.step, c->train.out);
  sh_memory_conclude(t);
  if (t->state.best_metric < 0) return;
  sh_info("best %s %.4f at epoch %lld", c->eval.metric, t->state.best_metric, (long long)t->state.best_epoch);
  bool last_event = !strcmp(c->data.split, "leave-one-out"); /* what the optimum is of */
  if (last_event && sh_dataset_optimum(&t->data, c->eval.metric, &best) == SH_OK)
    sh_info("that is %.1f %% of the best possible, %.4f", 100 * t->state.best_metric / best, best);
}

sh_status sh_train(struct sh_world *world, const sh_train_options *o) {
  sh_grid grid;
  sh_config c;
  SH_TRY(sh_grid_open(&grid, world));
  sh_status status = read_config(&grid, o, &c);
  if (status == SH_OK) status = check_grid(&c, grid.world.size);
  if (status == SH_OK) status = share_layers(world, &c, &grid);
  if (status == SH_OK) status = sh_agree(&grid.world, sh_failure_setup(&grid.world));
  if (status == SH_OK) status = sh_agree(&grid.world, sh_watchdog_start(&grid.world, c.comm.watchdog));
  if (status == SH_OK) {
    sh_comm_check(c.comm.check);
    sh_threads_setup(c.train.threads);
    sh_progress_start(&grid.world, c.comm.progress);
    sh_trainer t;
    status = sh_trainer_create(&t, &c, &grid);
    if (status == SH_OK) {
      announce(&t);
      announce_places(&grid.world, grid.tensor.size);
      sh_memory_announce(&t);
      if (o->resume || o->resume_from) status = sh_resume(&t, o->resume_from);
      if (status == SH_OK) status = sh_train_loop(&t, o);
      if (status == SH_OK) conclude(&t);
    }
    sh_trainer_destroy(&t);
    sh_progress_stop();
  }
  sh_watchdog_stop();
  sh_grid_destroy(&grid);
  sh_comm_check(false);
  return status;
}

/* A trainer with a checkpoint's configuration and weights. How the ranks of that run shared layers and
 * talked says nothing about those of this one. */
static sh_status load(struct sh_world *world, sh_grid *grid, const char *checkpoint, int nset, const char *const *set,
                      sh_trainer *t) {
  sh_config c, defaults;
  SH_TRY(sh_ckpt_read_config(grid, checkpoint, &c));
  sh_config stored = c;
  sh_config_defaults(&defaults);
  c.parallel = defaults.parallel, c.comm = defaults.comm;
  SH_TRY(sh_agree(&grid->world, set_all(&c, nset, set)));
  SH_TRY(sh_resume_same_model(&c, &stored, checkpoint));
  SH_TRY(share_layers(world, &c, grid));
  SH_TRY(sh_agree(&grid->world, sh_watchdog_start(&grid->world, c.comm.watchdog)));
  sh_comm_check(c.comm.check);
  sh_threads_setup(c.train.threads);
  sh_progress_start(&grid->world, c.comm.progress);
  SH_TRY(sh_trainer_create(t, &c, grid));
  sh_ckpt_content content = sh_trainer_content(t);
  return sh_ckpt_read(&content, checkpoint, true);
}

static void unload(sh_trainer *t, sh_grid *grid) {
  if (t->grid) sh_trainer_destroy(t);
  sh_progress_stop();
  sh_watchdog_stop();
  sh_grid_destroy(grid);
  sh_comm_check(false);
}

static void print_metrics(const sh_trainer *t, const char *split, const sh_metrics *m, double seconds) {
  FILE *out = stdout;
  double best;
  fprintf(out, "%s, %.0f users, full ranking\n", split, m->n);
  for (int c = 0; c < sh_cuts_within(t->conf.eval.top); c++)
    fprintf(out, "  HR@%-4d %.4f   NDCG@%-4d %.4f\n", sh_cut[c], m->hr[c] / m->n, sh_cut[c], m->ndcg[c] / m->n);
  fprintf(out, "  MRR     %.4f   %.0f users/s\n", m->mrr / m->n, m->n / seconds);
  bool last_event = strcmp(split, "valid") != 0 && strcmp(t->conf.data.split, "temporal") != 0;
  if (last_event && t->conf.eval.top >= 10 && sh_dataset_optimum(&t->data, "hr@10", &best) == SH_OK)
    fprintf(out, "  HR@10 is %.1f %% of the best possible, %.4f\n", 100 * sh_metrics_get(m, "hr@10") / best, best);
}

static void write_json(FILE *f, const char *split, const sh_metrics *m, int64_t top) {
  fprintf(f, "{\"split\":\"%s\",\"users\":%.0f,\"mrr\":%.9g", split, m->n, m->mrr / m->n);
  for (int c = 0; c < sh_cuts_within(top); c++)
    fprintf(f, ",\"hr@%d\":%.9g,\"ndcg@%d\":%.9g", sh_cut[c], m->hr[c] / m->n, sh_cut[c], m->ndcg[c] / m->n);
  fprintf(f, "}\n");
}

/* A file to write that no input of the command is. */
static sh_status spare_inputs(const sh_trainer *t, const char *checkpoint, const char *path) {
  SH_TRY(sh_outfile_spare(path, checkpoint));
  return sh_outfile_spare(path, t->data.path);
}

static sh_status evaluate_loaded(sh_trainer *t, const sh_eval_options *o) {
  const char *split = o->split ? o->split : "test";
  if (strcmp(split, "valid") != 0 && strcmp(split, "test") != 0)
    return sh_fail(SH_ERR_USAGE, "--split: found '%s', expected valid or test", split);
  if (!strcmp(split, "valid") && !strcmp(t->conf.data.split, "leave-one-out"))
    return sh_fail(SH_ERR_USAGE, "--split valid: data.split leave-one-out has no validation");
  sh_metrics m;
  sh_outfile json = {.f = NULL};
  bool first = t->grid->world.index == 0;
  sh_status status = first ? spare_inputs(t, o->checkpoint, o->json) : SH_OK;
  if (first && o->json && status == SH_OK) status = sh_outfile_open(&json, o->json);
  SH_TRY(sh_agree(&t->grid->world, status));
  double start = sh_now();
  status = sh_evaluate_split(t, strcmp(split, "valid") ? SH_QUERY_TEST : SH_QUERY_VALID, NULL, &m);
  if (first && status == SH_OK) {
    if (m.n == 0)
      status = sh_fail(SH_ERR_DATA, "%s: no user has an event to rank in split %s", t->data.path, split);
    else
      print_metrics(t, split, &m, sh_now() - start);
    if (status == SH_OK && json.f) write_json(json.f, split, &m, t->conf.eval.top);
  }
  sh_status written = sh_outfile_close(&json, status == SH_OK);
  return sh_agree(&t->grid->world, status == SH_OK ? written : status);
}

sh_status sh_eval(struct sh_world *world, const sh_eval_options *o) {
  sh_grid grid;
  sh_trainer t = {0};
  SH_TRY(sh_grid_open(&grid, world));
  sh_status status = load(world, &grid, o->checkpoint, o->nset, o->set, &t);
  if (status == SH_OK) status = evaluate_loaded(&t, o);
  unload(&t, &grid);
  return status;
}

sh_status sh_recommend(struct sh_world *world, const sh_recommend_options *o) {
  sh_grid grid;
  sh_trainer t = {0};
  SH_TRY(sh_grid_open(&grid, world));
  sh_status status = load(world, &grid, o->checkpoint, o->nset, o->set, &t);
  if (status == SH_OK) status = sh_agree(&grid.world, spare_inputs(&t, o->checkpoint, o->out));
  if (status == SH_OK) status = sh_recommend_all(&t, o->top, o->out);
  unload(&t, &grid);
  return status;
}
