/* `shoal bench`: configuration, data, one pass for each number of threads. */
#include "shoal/bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/threads.h"
#include "shoal/version.h"
#include "tools/bench_internal.h"

enum { MOST_THREAD_COUNTS = 16 };
static const char *const sections[] = {"machine", "kernels", "layers", "step", "eval"};
enum { MACHINE, KERNELS, LAYERS, STEP, EVAL, SECTIONS };

typedef struct plan {
  sh_config conf;
  bool wanted[SECTIONS];
  int64_t threads[MOST_THREAD_COUNTS];
  int nthreads;
  char own_data[SH_TEXT]; /* a file of this rank's to be removed, or "" */
} plan;

static sh_status read_threads(const char *text, plan *p) {
  while (text && *text) {
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || (*end && *end != ',') || n < 1 || n > 4096 || p->nthreads == MOST_THREAD_COUNTS)
      return sh_fail(SH_ERR_USAGE, "--threads: found '%s', expected at most %d numbers from 1 to 4096: 1,2", text,
                     MOST_THREAD_COUNTS);
    p->threads[p->nthreads++] = n;
    text = *end ? end + 1 : end;
  }
  if (p->nthreads == 0) p->threads[p->nthreads++] = p->conf.train.threads;
  return SH_OK;
}

static sh_status read_sections(const char *text, plan *p) {
  for (int i = 0; i < SECTIONS; i++) p->wanted[i] = !text;
  while (text && *text) {
    size_t n = strcspn(text, ",");
    int found = -1;
    for (int i = 0; i < SECTIONS; i++)
      if (strlen(sections[i]) == n && !strncmp(text, sections[i], n)) found = i;
    if (found < 0)
      return sh_fail(SH_ERR_USAGE, "--only: found '%.*s', expected some of machine,kernels,layers,step,eval", (int)n,
                     text);
    p->wanted[found] = true;
    text += n + (text[n] == ',');
  }
  return SH_OK;
}

static sh_status read_options(const sh_bench_options *o, plan *p) {
  sh_config *c = &p->conf;
  sh_config_defaults(c);
  if (o->config) SH_TRY(sh_config_read(c, o->config));
  for (int i = 0; i < o->nset; i++) SH_TRY(sh_config_set(c, o->set[i]));
  SH_TRY(sh_config_check(c));
  if (c->parallel.tensor > 1)
    return sh_fail(SH_ERR_USAGE, "parallel.tensor = %lld: this version splits data only; use 1",
                   (long long)c->parallel.tensor);
  SH_TRY(read_threads(o->threads, p));
  SH_TRY(read_sections(o->only, p));
  if (o->synthetic || access(c->data.path, F_OK)) strcpy(c->data.path, "");
  return SH_OK;
}

/* Every rank writes its own file, alike everywhere: nodes need not share a folder for temporary files. */
static sh_status make_data(plan *p) {
  const char *folder = getenv("TMPDIR");
  int n = snprintf(p->own_data, sizeof p->own_data, "%s/shoal-bench-%ld.h5", folder && *folder ? folder : "/tmp",
                   (long)getpid());
  if (n < 0 || (size_t)n >= sizeof p->own_data) {
    *p->own_data = 0;
    return sh_fail(SH_ERR_USAGE, "TMPDIR is longer than %d characters", SH_TEXT - 40);
  }
  SH_TRY(sh_bench_data(p->own_data));
  strcpy(p->conf.data.path, p->own_data);
  return SH_OK;
}

/* Other people's work makes every figure a lower bound. */
static void warn_if_busy(FILE *out) {
  double load;
  if (getloadavg(&load, 1) == 1 && load > 0.5)
    fprintf(out, "note    the machine was busy in the last minute (load %.1f): figures may be too low\n", load);
}

static void announce(const sh_bench_state *b, const plan *p, const char *wanted_path) {
  const sh_trainer *t = b->t;
  const sh_conf_model *m = &t->conf.model;
  if (!b->out) return;
  fprintf(b->out, "shoal %s (%s), %d rank%s x %d thread%s, %s kernels, precision %s\n", sh_version(), sh_commit(),
          t->grid->world.size, t->grid->world.size == 1 ? "" : "s", sh_threads(), sh_threads() == 1 ? "" : "s",
          t->kernels->name, t->kernels->precision);
  if (*p->own_data)
    fprintf(b->out, "data    synthetic, MovieLens-1M's lengths and times%s%s%s\n", *wanted_path ? " (" : "",
            wanted_path, *wanted_path ? " not used)" : "");
  else
    fprintf(b->out, "data    %s\n", t->data.path);
  fprintf(b->out, "        %lld sequences, %lld tokens an epoch, %lld candidates\n", (long long)t->samples.n,
          (long long)t->samples.train_tokens, (long long)t->data.ncandidates);
  fprintf(b->out, "model   %s: %lld layers, width %d, %lld head%s, %lld dense parameters, table %lld x %d, loss %s\n",
          m->name, (long long)m->layers, t->model.width, (long long)m->heads, m->heads == 1 ? "" : "s",
          (long long)sh_params_count(&t->model.params), (long long)t->data.items, t->model.width, t->conf.loss.name);
}

static sh_status measure(sh_bench_state *b, const plan *p) {
  if (p->wanted[MACHINE]) sh_bench_machine(b);
  if (p->wanted[KERNELS]) SH_TRY(sh_bench_kernels(b));
  if (p->wanted[LAYERS]) SH_TRY(sh_bench_parts(b));
  if (p->wanted[STEP]) SH_TRY(sh_bench_step(b));
  if (p->wanted[EVAL]) SH_TRY(sh_bench_eval(b));
  return SH_OK;
}

static sh_status one_pass(const plan *p, int64_t threads, const sh_bench_options *o, sh_grid *grid, FILE *out,
                          FILE *json) {
  sh_trainer t;
  sh_bench_state b = {.out = out, .t = &t, .steps = o->steps > 0 ? o->steps : 24};
  sh_config c = p->conf;
  c.train.threads = sh_threads_setup(threads);
  sh_status status = sh_trainer_create(&t, &c, grid);
  if (status == SH_OK && t.samples.n == 0)
    status = sh_fail(SH_ERR_DATA, "%s: no user has enough events to train on", c.data.path);
  if (status == SH_OK) {
    announce(&b, p, o->config ? "data.path" : "");
    status = measure(&b, p);
  }
  if (status == SH_OK && json) sh_bench_json(&b, json);
  free(b.row);
  sh_trainer_destroy(&t);
  return status;
}

static sh_status run(plan *p, const sh_bench_options *o, sh_grid *grid, FILE *out, FILE *json) {
  sh_status status = *p->conf.data.path ? SH_OK : make_data(p);
  status = sh_agree(&grid->world, status);
  if (out) warn_if_busy(out);
  for (int i = 0; i < p->nthreads && status == SH_OK; i++) {
    if (i > 0 && out) fprintf(out, "\n");
    status = one_pass(p, p->threads[i], o, grid, out, json);
  }
  if (*p->own_data) unlink(p->own_data);
  return status;
}

sh_status sh_bench(struct sh_world *world, const sh_bench_options *o, FILE *out) {
  sh_grid grid;
  SH_TRY(sh_grid_create(&grid, sh_world_comm(world), 1));
  sh_log_setup(grid.world.index, grid.world.size);
  plan p = {0};
  FILE *json = NULL;
  bool first = grid.world.index == 0;
  sh_status status = first ? read_options(o, &p) : SH_OK;
  if (first && status == SH_OK && o->json && !(json = fopen(o->json, "w")))
    status = sh_fail(SH_ERR_INTERNAL, "%s: cannot be written", o->json);
  status = sh_agree(&grid.world, status);
  if (status == SH_OK) {
    sh_bcast(&grid.world, &p, sizeof p, 0);
    status = run(&p, o, &grid, first ? out : NULL, json);
  }
  if (json && fclose(json) && status == SH_OK) status = sh_fail(SH_ERR_INTERNAL, "%s: cannot be written", o->json);
  status = sh_agree(&grid.world, status);
  sh_grid_destroy(&grid);
  return status;
}
