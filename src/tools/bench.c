/* `shoal bench`: configuration, data, one pass for each number of threads. */
#include "shoal/bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/outfile.h"
#include "core/threads.h"
#include "mpi/progress.h"
#include "shoal/version.h"
#include "tools/bench_internal.h"

enum { MOST_THREAD_COUNTS = 16 };
static const char *const sections[] = {"machine", "kernels", "layers", "step", "eval", "table", "overlap"};
enum { MACHINE, KERNELS, LAYERS, STEP, EVAL, TABLE, OVERLAP, SECTIONS }; /* the last two only when asked for */

typedef struct plan {
  sh_bench_shape shape[SH_BENCH_SHAPES];
  int nshapes;
  bool wanted[SECTIONS];
  int64_t threads[MOST_THREAD_COUNTS];
  int nthreads; /* 0: each shape's own train.threads */
} plan;

sh_status sh_bench_numbers(const char *option, const char *text, int64_t largest, int most, int64_t *out, int *n) {
  *n = 0;
  while (text && *text) {
    char *end;
    long long x = strtoll(text, &end, 10);
    if (end == text || (*end && *end != ',') || x < 1 || x > largest || *n == most)
      return sh_fail(SH_ERR_USAGE, "--%s: found '%s', expected at most %d numbers from 1 to %lld: 1,2,4", option, text,
                     most, (long long)largest);
    out[(*n)++] = x;
    text = *end ? end + 1 : end;
  }
  return SH_OK;
}

static sh_status read_sections(const char *text, plan *p) {
  for (int i = 0; i < SECTIONS; i++) p->wanted[i] = !text && i < TABLE;
  while (text) {
    size_t n = strcspn(text, ",");
    int found = -1;
    for (int i = 0; i < SECTIONS; i++)
      if (strlen(sections[i]) == n && !strncmp(text, sections[i], n)) found = i;
    if (found < 0)
      return sh_fail(SH_ERR_USAGE,
                     "--only: found '%.*s', expected some of machine,kernels,layers,step,eval,table,overlap", (int)n,
                     text);
    p->wanted[found] = true;
    text = text[n] ? text + n + 1 : NULL;
  }
  return SH_OK;
}

sh_status sh_bench_choose_data(sh_bench_shape *s, bool synthetic) {
  sh_config *c = &s->conf;
  const sh_bench_sequences *q = &s->sequences;
  if (q->length > c->model.max_len)
    return sh_fail(SH_ERR_USAGE, "bench.length = %lld is beyond model.max_len = %lld", (long long)q->length,
                   (long long)c->model.max_len);
  if (synthetic || q->users || q->items || q->length || access(c->data.path, F_OK)) strcpy(c->data.path, "");
  return SH_OK;
}

static sh_status read_options(const sh_bench_options *o, plan *p) {
  SH_TRY(sh_bench_shapes(o, p->shape, &p->nshapes));
  SH_TRY(sh_bench_numbers("threads", o->threads, 4096, MOST_THREAD_COUNTS, p->threads, &p->nthreads));
  SH_TRY(read_sections(o->only ? o->only : o->shapes ? "step" : NULL, p));
  for (int i = 0; i < p->nshapes; i++) SH_TRY(sh_bench_choose_data(&p->shape[i], o->synthetic));
  return SH_OK;
}

sh_status sh_bench_own_data(const sh_bench_shape *s, char path[SH_TEXT]) {
  const char *folder = getenv("TMPDIR");
  int n = snprintf(path, SH_TEXT, "%s/shoal-bench-%ld.h5", folder && *folder ? folder : "/tmp", (long)getpid());
  if (n < 0 || n >= SH_TEXT) {
    *path = 0;
    return sh_fail(SH_ERR_USAGE, "TMPDIR is longer than %d characters", SH_TEXT - 40);
  }
  return sh_bench_data(path, &s->sequences, s->conf.batch.users, s->conf.model.max_len);
}

void sh_bench_busy(FILE *out, const char *note) {
  double load;
  if (getloadavg(&load, 1) == 1 && load > 0.5)
    fprintf(out, "%sthe machine was busy in the last minute (load %.1f): figures may be too low\n", note, load);
}

static void announce(const sh_bench_state *b, const sh_bench_sequences *own, const char *wanted_path) {
  const sh_trainer *t = b->t;
  const sh_conf_model *m = &t->conf.model;
  if (!b->out) return;
  if (*b->shape) fprintf(b->out, "shape   %s\n", b->shape);
  fprintf(b->out, "shoal %s (%s), %d rank%s x %d thread%s, progress %s, %s kernels, precision %s\n", sh_version(),
          sh_commit(), t->grid->world.size, t->grid->world.size == 1 ? "" : "s", sh_threads(),
          sh_threads() == 1 ? "" : "s", sh_progress_name(), t->kernels->name, t->kernels->precision);
  if (own && own->length)
    fprintf(b->out, "data    synthetic, every history %lld inputs long\n", (long long)own->length);
  else if (own)
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
  if (p->wanted[MACHINE])
    sh_bench_machine(b);
  else
    sh_bench_yardsticks(b);
  if (p->wanted[KERNELS]) SH_TRY(sh_bench_kernels(b));
  if (p->wanted[LAYERS]) SH_TRY(sh_bench_parts(b));
  if (p->wanted[STEP]) SH_TRY(sh_bench_step(b));
  if (p->wanted[EVAL]) SH_TRY(sh_bench_eval(b));
  if (p->wanted[TABLE]) SH_TRY(sh_bench_table(b));
  if (p->wanted[OVERLAP]) SH_TRY(sh_bench_overlap(b));
  return SH_OK;
}

/* Where the figures go: `summary` gathers its lines while the tables are printed. */
typedef struct output {
  FILE *out, *json, *summary;
  const char *wanted_path; /* said where synthetic data stand in for a recipe's */
} output;

/* One shape with one number of threads (0: its own). */
static sh_status one_pass(const plan *p, const sh_bench_shape *s, bool own_data, int64_t threads, sh_grid *grid,
                          const output *to) {
  sh_trainer t;
  sh_bench_state b = {.out = to->out, .shape = s->name, .t = &t, .steps = s->steps};
  sh_config c = s->conf;
  c.train.threads = sh_threads_setup(threads > 0 ? threads : c.train.threads);
  sh_progress_start(&grid->world, c.comm.progress);
  sh_status status = sh_trainer_create(&t, &c, grid);
  if (status == SH_OK && t.samples.n == 0)
    status = sh_fail(SH_ERR_DATA, "%s: no user has enough events to train on", c.data.path);
  if (status == SH_OK) {
    announce(&b, own_data ? &s->sequences : NULL, to->wanted_path);
    status = measure(&b, p);
  }
  if (status == SH_OK && to->json) sh_bench_json(&b, to->json);
  if (status == SH_OK && to->summary) sh_bench_summary(&b, to->summary);
  free(b.row);
  sh_trainer_destroy(&t);
  sh_progress_stop();
  return status;
}

static sh_status one_shape(plan *p, sh_bench_shape *s, sh_grid *grid, const output *to) {
  char own_data[SH_TEXT] = ""; /* this rank's file */
  sh_status status = SH_OK;
  if (!*s->conf.data.path) {
    status = sh_agree(&grid->world, sh_bench_own_data(s, own_data));
    strcpy(s->conf.data.path, own_data);
  }
  for (int i = 0; i < (p->nthreads ? p->nthreads : 1) && status == SH_OK; i++) {
    if (to->out && (i > 0 || s != p->shape)) fprintf(to->out, "\n");
    status = one_pass(p, s, *own_data, p->threads[i], grid, to);
  }
  if (*own_data) unlink(own_data);
  return status;
}

static sh_status run(plan *p, const struct sh_world *world, output *to) {
  sh_status status = SH_OK;
  char *lines = NULL;
  size_t size = 0;
  if (to->out) sh_bench_busy(to->out, "note    ");
  if (to->out && *p->shape[0].name) to->summary = open_memstream(&lines, &size);
  if (to->summary) sh_bench_summary(NULL, to->summary);
  for (int i = 0; i < p->nshapes && status == SH_OK; i++) {
    sh_grid grid;
    SH_TRY(sh_grid_create(&grid, sh_world_comm(world), (int)p->shape[i].conf.parallel.tensor));
    status = one_shape(p, &p->shape[i], &grid, to);
    sh_grid_destroy(&grid);
  }
  if (to->summary && !fclose(to->summary) && status == SH_OK) fputs(lines, to->out);
  free(lines);
  return status;
}

sh_status sh_bench(struct sh_world *world, const sh_bench_options *o, FILE *out) {
  sh_grid grid;
  SH_TRY(sh_grid_open(&grid, world));
  plan *p = sh_calloc(1, sizeof *p);
  bool first = grid.world.index == 0;
  output to = {.out = first ? out : NULL, .wanted_path = o->config ? "data.path" : ""};
  sh_status status = first ? read_options(o, p) : SH_OK;
  sh_outfile json = {.f = NULL};
  if (first && status == SH_OK) status = sh_outfile_spare(o->json, o->config);
  for (int i = 0; i < p->nshapes && first && status == SH_OK; i++)
    status = sh_outfile_spare(o->json, p->shape[i].conf.data.path);
  if (first && status == SH_OK && o->json) status = sh_outfile_open(&json, o->json);
  to.json = json.f;
  status = sh_agree(&grid.world, status);
  if (status == SH_OK) {
    sh_bcast(&grid.world, p, sizeof *p, 0);
    status = run(p, world, &to);
  }
  sh_status written = sh_outfile_close(&json, status == SH_OK);
  status = sh_agree(&grid.world, status == SH_OK ? written : status);
  free(p);
  sh_grid_destroy(&grid);
  return status;
}
