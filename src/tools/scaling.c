/* `shoal plan`: grids, what the model of scaling_model.h needs to know of them, tables. */
#include "shoal/scaling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "dist/buckets.h"
#include "dist/tensor.h"
#include "optim/dense.h"
#include "tools/scaling_internal.h"

enum { MOST_NODES = 32, MOST_TENSOR = 64 };

typedef struct request {
  const sh_scaling_options *o;
  sh_scaling_file file;
  sh_bench_shape shape[SH_BENCH_SHAPES];
  int nshapes;
  int64_t nodes[MOST_NODES];
  int nnodes;
} request;

static sh_status read_nodes(const char *text, request *q) {
  SH_TRY(sh_bench_numbers("nodes", text ? text : "1,2,4,8,16,32,64", 65536, MOST_NODES, q->nodes, &q->nnodes));
  if (q->nnodes == 0) return sh_fail(SH_ERR_USAGE, "--nodes: found nothing, expected numbers: 1,2,4");
  return SH_OK;
}

/* What the bench is asked for the same shapes: without what is said of the machine. Settings lie in `set`: free it. */
static sh_bench_options as_bench(const sh_scaling_options *o, const char ***set) {
  sh_bench_options b = {.config = o->config, .shapes = o->shapes};
  *set = sh_calloc((size_t)o->nset + 1, sizeof **set);
  for (int i = 0; i < o->nset; i++)
    if (strncmp(o->set[i], "machine.", 8) != 0) (*set)[b.nset++] = o->set[i];
  b.set = *set;
  return b;
}

/* A recipe alone is called as its file. */
static void name_shape(sh_bench_shape *s, const char *config) {
  if (*s->name) return;
  const char *slash = config ? strrchr(config, '/') : NULL, *name = slash ? slash + 1 : config ? config : "default";
  snprintf(s->name, sizeof s->name, "%.*s", (int)strcspn(name, "."), name);
}

/* A data set that is not there, or histories made to order: then steps are measured on made ones, as in the bench. */
static sh_status choose_data(sh_bench_shape *s, bool say) {
  char wanted[SH_TEXT];
  strcpy(wanted, s->conf.data.path);
  SH_TRY(sh_bench_choose_data(s, false));
  if (say && *wanted && !*s->conf.data.path)
    sh_warn("%s: steps are measured on made histories, not on data.path = %s, which %s", s->name, wanted,
            access(wanted, F_OK) ? "is not there" : "bench.* replace");
  return SH_OK;
}

static sh_status read_request(request *q, bool first) {
  const sh_scaling_options *o = q->o;
  const char **set;
  sh_bench_options b = as_bench(o, &set);
  sh_status status = sh_bench_shapes(&b, q->shape, &q->nshapes);
  free(set);
  SH_TRY(status);
  for (int i = 0; i < q->nshapes; i++) {
    name_shape(&q->shape[i], o->config);
    SH_TRY(choose_data(&q->shape[i], first && o->measure));
  }
  SH_TRY(read_nodes(o->nodes, q));
  if (o->machine) SH_TRY(sh_scaling_read(&q->file, o->machine));
  for (int i = 0; i < o->nset; i++)
    if (!strncmp(o->set[i], "machine.", 8)) SH_TRY(sh_scaling_set(&q->file, o->set[i], true));
  return SH_OK;
}

/* Collectives of a call forward and backward, and the floats a rank sends in them for a token (docs/ARCHITECTURE.md,
 * "Parallelism"). */
static void count_tensor(const sh_call *k, double n, sh_scaling_case *c) {
  static const struct {
    const sh_layer_ops *ops;
    double calls, times;
  } known[] = {{&sh_tensor_gather_ops, 3, 3}, {&sh_tensor_scatter_ops, 2, 2}, {&sh_tensor_copy_ops, 1, 2},
               {&sh_tensor_sum_ops, 1, 2},    {&sh_tensor_spread_ops, 1, 1},  {&sh_tensor_take_ops, 1, 1},
               {&sh_tensor_span_ops, 2, 4}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    if (k->layer.ops != known[i].ops) continue;
    const sh_tensor_conf *f = k->layer.conf;
    c->tensor_calls += known[i].calls;
    c->tensor_floats += known[i].times * f->width * (f->doubles ? 2 : 1) * (n - 1) / n;
  }
}

static void count_params(const sh_params *p, const sh_config *conf, sh_scaling_case *c) {
  sh_axis data = {.name = "data", .size = (int)(c->nodes * c->per_node / c->tensor)};
  sh_buckets b;
  sh_buckets_create(&b, p, &data, conf->comm.bucket, SH_DENSE_GRAIN);
  c->block = (double)p->block;
  c->buckets = b.n;
  c->last_bucket = b.n > 0 ? (double)(b.bucket[b.n - 1].last - b.bucket[b.n - 1].first) : 0;
  sh_buckets_destroy(&b);
  for (int i = 0; i < p->n && c->tensor > 1; i++)
    if (p->row[i].tgrad == SH_TGRAD_PARTIAL) c->partial += (double)p->row[i].size;
}

static void batch_of(const request *q, const sh_config *conf, const sh_work *w, sh_scaling_case *c) {
  const sh_work_sample *s = &w->sample[0];
  double times = q->o->weak ? c->nodes * c->per_node / c->tensor : 1;
  c->tokens =
      times * (conf->batch.tokens > 0 ? (double)conf->batch.tokens : (double)conf->batch.users * s->tokens / s->users);
  c->users = c->tokens * s->users / s->tokens;
}

static sh_memory memory_of(const sh_config *conf, const sh_model *m, const sh_work *w, const sh_scaling_case *c) {
  double data = c->nodes * c->per_node / c->tensor, bins = data * (double)conf->batch.accumulate;
  double tokens = sh_scaling_share(w, c->tokens, bins);
  sh_memory_shape s = {.tokens = (int64_t)ceil(tokens),
                       .sequences = (int64_t)ceil(c->users / bins),
                       .longest = (int64_t)w->longest,
                       .micro = conf->batch.accumulate,
                       .rows = (int64_t)ceil(sh_scaling_rows(w, sh_scaling_share(w, c->tokens, data) / c->tensor)),
                       .items = (int64_t)w->items,
                       .ranks = (int)(c->nodes * c->per_node),
                       .tensor = (int)c->tensor,
                       .threads = (int)c->threads};
  sh_arena scratch;
  sh_arena_init(&scratch, "plan");
  sh_memory memory = sh_memory_predict(conf, m, &s, &scratch);
  sh_arena_free(&scratch);
  return memory;
}

/* One grid: a line of the tables. Fails where layers cannot be shared by so many. */
typedef struct outcome {
  sh_scaling_case c;
  sh_prediction p;
  double mib; /* of memory a rank */
} outcome;

static void predict(const request *q, const sh_config *conf, const sh_work *w, const sh_model *m, outcome *x) {
  count_params(&m->params, conf, &x->c);
  for (int i = 0; i < m->ncalls; i++) count_tensor(&m->call[i], x->c.tensor, &x->c);
  batch_of(q, conf, w, &x->c);
  sh_memory memory = memory_of(conf, m, w, &x->c);
  x->mib = (double)sh_memory_total(&memory) / 1048576;
  x->p = sh_scaling_predict(&q->file.machine, w, &x->c);
}

static sh_status try_grid(const request *q, const sh_bench_shape *s, const sh_work *w, int64_t nodes, int64_t tensor,
                          outcome *x) {
  const sh_config *conf = &s->conf;
  *x = (outcome){.c = {.nodes = (double)nodes,
                       .per_node = (double)(q->o->per_node > 0 ? q->o->per_node : 1),
                       .threads = q->o->threads > 0 ? (double)q->o->threads : w->threads,
                       .tensor = (double)tensor,
                       .width = (double)conf->model.width,
                       .zero = conf->parallel.zero,
                       .half = !strcmp(conf->comm.wire, "bf16"),
                       .sweep = !strcmp(conf->table.optim, "adam_dense"),
                       .tile_tokens = strcmp(conf->loss.name, "full") ? 0 : (double)conf->loss.tile_tokens,
                       .overlap = strcmp(conf->comm.progress, "none") != 0}};
  sh_scaling_case *c = &x->c;
  int64_t ranks = nodes * (int64_t)c->per_node;
  if (ranks % tensor)
    return sh_fail(SH_ERR_USAGE, "parallel.tensor = %lld does not divide %lld ranks", (long long)tensor,
                   (long long)ranks);
  sh_model m;
  sh_status status = sh_model_create(&m, &conf->model, NULL, conf->parallel.sequence);
  c->block_alone = (double)m.params.block;
  sh_model_destroy(&m);
  SH_TRY(status);
  sh_axis group = {.name = "tensor", .size = (int)tensor};
  status = sh_model_create(&m, &conf->model, &group, conf->parallel.sequence);
  if (status == SH_OK) {
    sh_model_precision(&m, conf->train.precision);
    predict(q, conf, w, &m, x);
  }
  sh_model_destroy(&m);
  return status;
}

/* With `best` the fastest of all powers of two that can share layers and fit into a node. */
static sh_status choose_grid(const request *q, const sh_bench_shape *s, const sh_work *w, int64_t nodes, outcome *x) {
  if (!q->o->best) return try_grid(q, s, w, nodes, s->conf.parallel.tensor, x);
  SH_TRY(try_grid(q, s, w, nodes, 1, x));
  for (int64_t n = 2; n <= q->o->per_node && n <= MOST_TENSOR; n *= 2) {
    outcome y;
    if (try_grid(q, s, w, nodes, n, &y) == SH_OK && y.p.tokens_per_second > x->p.tokens_per_second) *x = y;
  }
  return SH_OK;
}

static void print_steps(const outcome *x, int n, FILE *out) {
  fprintf(out, "%6s %6s %11s %9s %10s %10s %9s %9s %11s %6s  %s\n", "nodes", "ranks", "data x tens", "MiB/rank",
          "step, ms", "compute", "exposed", "hidden", "tokens/s", "effic.", "limit");
  for (int i = 0; i < n; i++) {
    const sh_scaling_case *c = &x[i].c;
    const sh_prediction *p = &x[i].p;
    double ranks = c->nodes * c->per_node, hidden = 0;
    for (int k = 0; k < SH_KINDS; k++) hidden += p->kind[k].hidden;
    fprintf(out, "%6.0f %6.0f %6.0f x %-2.0f %9.0f %10.2f %10.2f %9.2f %9.2f %11.0f %5.1f%%  %s\n", c->nodes, ranks,
            ranks / c->tensor, c->tensor, x[i].mib, 1e3 * p->step, 1e3 * p->compute, 1e3 * (p->step - p->compute),
            1e3 * hidden, p->tokens_per_second, 100 * p->efficiency, p->limit);
  }
}

/* By kind: MiB a rank sends, milliseconds exposed and hidden. */
static void print_kinds(const outcome *x, int n, FILE *out) {
  fprintf(out, "\nMiB a rank sends: ms exposed + hidden\n%6s", "nodes");
  for (int k = 0; k < SH_KINDS; k++) fprintf(out, " %18s", sh_kind_name[k]);
  fputc('\n', out);
  for (int i = 0; i < n; i++) {
    fprintf(out, "%6.0f", x[i].c.nodes);
    for (int k = 0; k < SH_KINDS; k++) {
      char cell[48];
      snprintf(cell, sizeof cell, "%.2f: %.1f+%.1f", x[i].p.kind[k].bytes / 1048576, 1e3 * x[i].p.kind[k].exposed,
               1e3 * x[i].p.kind[k].hidden);
      fprintf(out, " %18s", cell);
    }
    fputc('\n', out);
  }
}

/* What the run would refuse, or wait for, at some of these numbers of ranks. */
static void print_notes(const sh_bench_shape *s, const outcome *x, int n, bool weak, FILE *out) {
  double ranks = 0, data = 0;
  for (int i = 0; i < n; i++) {
    ranks = fmax(ranks, x[i].c.nodes * x[i].c.per_node);
    data = fmax(data, x[i].c.nodes * x[i].c.per_node / x[i].c.tensor);
  }
  if ((double)s->conf.table.shards < 16 * ranks)
    fprintf(out, "\nnote    table.shards = %lld serves up to %lld ranks: a larger power of two is needed for more\n",
            (long long)s->conf.table.shards, (long long)s->conf.table.shards / 16);
  if (!weak && x[0].c.users < data)
    fprintf(out, "\nnote    %.0f users a step leave some of %.0f data ranks without a sequence\n", x[0].c.users, data);
}

static sh_status plan_shape(request *q, const sh_bench_shape *s, FILE *out) {
  outcome x[MOST_NODES];
  int known = sh_scaling_find(&q->file, s->name, false);
  if (known < 0 || q->file.shape[known].config == 0)
    return sh_fail(SH_ERR_USAGE,
                   "%s: no step of %s was measured; shoal plan --measure with the same configuration, "
                   "added to by --machine, does that",
                   q->o->machine ? q->o->machine : "--machine is missing", s->name);
  if (q->file.shape[known].config != sh_scaling_fingerprint(&s->conf))
    return sh_fail(SH_ERR_USAGE, "%s: %s was measured with other settings of model, loss, table or train.precision",
                   q->o->machine, s->name);
  const sh_work *w = &q->file.shape[known].work;
  for (int i = 0; i < q->nnodes; i++) SH_TRY(choose_grid(q, s, w, q->nodes[i], &x[i]));
  fprintf(out, "%s: %.0f users, %.0f tokens a step%s; a node is %.3g cores, %.0f rank%s x %.0f thread%s; progress %s\n",
          s->name, x[0].c.users, x[0].c.tokens, q->o->weak ? " (times data ranks)" : "", q->file.machine.cores,
          x[0].c.per_node, x[0].c.per_node == 1 ? "" : "s", x[0].c.threads, x[0].c.threads == 1 ? "" : "s",
          s->conf.comm.progress);
  print_steps(x, q->nnodes, out);
  print_kinds(x, q->nnodes, out);
  print_notes(s, x, q->nnodes, q->o->weak, out);
  return SH_OK;
}

static sh_status complete(const request *q) {
  const sh_machine *m = &q->file.machine;
  bool near = q->o->per_node > 1, far = false;
  for (int i = 0; i < q->nnodes; i++) far |= q->nodes[i] > 1;
  const char *lacks = m->cores <= 0                    ? "machine.cores"
                      : m->memory_one <= 0             ? "machine.memory_one"
                      : near && m->near.bandwidth <= 0 ? "machine.near"
                      : far && m->far.bandwidth <= 0   ? "machine.far"
                                                       : NULL;
  if (!lacks) return SH_OK;
  return sh_fail(SH_ERR_USAGE,
                 "%s: %s is missing; shoal plan --measure on several ranks adds it, of one node (near) or "
                 "of nodes with one rank each (far); or name a link's figures, as in shoal plan --help",
                 q->o->machine ? q->o->machine : "--machine", lacks);
}

static sh_status plan_all(request *q, FILE *out) {
  SH_TRY(complete(q));
  for (int i = 0; i < q->nshapes; i++) {
    if (i > 0) fputc('\n', out);
    SH_TRY(plan_shape(q, &q->shape[i], out));
  }
  return SH_OK;
}

/* Every rank reads the same files. */
sh_status sh_scaling(struct sh_world *world, const sh_scaling_options *o, FILE *out) {
  sh_grid grid;
  SH_TRY(sh_grid_open(&grid, world));
  request *q = sh_calloc(1, sizeof *q);
  q->o = o;
  bool first = grid.world.index == 0;
  sh_status status = sh_agree(&grid.world, read_request(q, first));
  if (status == SH_OK && o->measure) {
    if (first) sh_bench_busy(out, "# ");
    status = sh_scaling_measure(&q->file, q->shape, q->nshapes, world, o->threads);
    if (first && status == SH_OK) sh_scaling_print(&q->file, out);
  } else if (status == SH_OK) {
    status = sh_agree(&grid.world, first ? plan_all(q, out) : SH_OK);
  }
  free(q);
  sh_grid_destroy(&grid);
  return status;
}

bool sh_scaling_wants_threads(const sh_scaling_options *o) {
  const char **set;
  sh_bench_options b = as_bench(o, &set);
  bool wants = o->measure && sh_bench_wants_threads(&b);
  free(set);
  return wants;
}
