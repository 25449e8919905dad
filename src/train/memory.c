#include "train/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "core/log.h"
#include "core/threads.h"
#include "nn/linear.h"
#include "nn/loss.h"
#include "nn/pieces.h"
#include "optim/rows.h"
#include "train/trainer.h"

enum { FLOAT = sizeof(float) };

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t padded(int64_t width) { return (width + 15) / 16 * 16; }

int64_t sh_memory_total(const sh_memory *m) {
  return m->dense + m->table + m->activations + m->rows + m->merged + m->workspace + m->batch;
}

static bool loss_is(const sh_config *c, const char *name) { return !strcmp(c->loss.name, name); }

/* Tokens whose rows and loss a rank of a tensor group has. */
static int64_t own_tokens(const sh_memory_shape *s) { return (s->tokens + s->tensor - 1) / s->tensor; }

/* Keys a step names for its loss: of each token, and once. */
static int64_t keys_of_token(const sh_config *c) {
  return loss_is(c, "full") ? 0 : loss_is(c, "sampled") ? 1 + c->loss.negatives : 1;
}
static int64_t shared_keys(const sh_config *c, const sh_memory_shape *s) {
  return loss_is(c, "shared")     ? c->loss.negatives
         : loss_is(c, "in-batch") ? s->tokens * s->micro * s->ranks / s->tensor
                                  : 0;
}
static int64_t keys_of_step(const sh_config *c, const sh_memory_shape *s) {
  return own_tokens(s) * s->micro * (1 + keys_of_token(c)) + shared_keys(c, s);
}

/* Keys fall on rows as if all rows were alike: more rows than with popular items. */
static int64_t distinct_rows(const sh_config *c, const sh_memory_shape *s) {
  double n = (double)keys_of_step(c, s), V = (double)larger(s->items, 1);
  return s->rows > 0 ? s->rows : (int64_t)ceil(V * -expm1(-n / V));
}

static int64_t table_bytes(const sh_config *c, const sh_memory_shape *s) {
  const sh_row_optim_info *info = sh_row_optim_get((sh_row_optim)sh_row_optim_find(c->table.optim));
  int64_t own = (s->items + s->ranks - 1) / s->ranks, floats = c->model.width;
  for (int k = 0; k < info->states; k++) floats += info->state_wide[k] ? c->model.width : 1;
  bool counts = loss_is(c, "in-batch") || (loss_is(c, "shared") && !strcmp(c->loss.sampler, "popularity"));
  int64_t item = 3 * (int64_t)sizeof(int64_t) +
                 (int64_t)sizeof(int32_t); /* candidate, count, position; its place in an evaluation */
  if (counts) item += 2 * (int64_t)sizeof(int64_t);
  return own * (floats + 2) * FLOAT + s->items * item;
}

/* Inside one call: gradients of what its tape holds, prepared weights, partial sums of weight gradients and
 * of bias tables, and a thread's attention tiles. */
static int64_t call_floats(const sh_config *c, const sh_model *m, const sh_memory_shape *s, int call) {
  const sh_call *k = &m->call[call];
  sh_layer whole = k->layer;
  whole.half = false; /* gradients are floats whatever the tape is */
  int64_t floats = larger(whole.ops->tape(&whole, s->tokens, s->sequences), s->tokens * m->width), params = 0,
          partials = 0;
  int64_t heads = c->model.heads / s->tensor;
  if (s->tensor > 1) floats += 2 * s->tokens * m->width; /* normalised rows, made again */
  for (int r = k->param_first; r < k->param_last; r++) {
    const sh_param *p = &m->params.row[r];
    params += p->size;
    if (p->ndim == 2) partials = larger(partials, sh_linear_grad_floats(s->tokens, p->local[0], p->local[1]));
  }
  floats += params + partials;
  int64_t dqk = c->model.dqk ? c->model.dqk : c->model.width / c->model.heads;
  int64_t dv = c->model.dv ? c->model.dv : c->model.width / c->model.heads;
  floats += s->threads * sh_attention_work(s->longest, dqk, dv);
  floats += 3 * heads * larger(dqk, dv) * sh_pieces_surplus(s->sequences, heads, s->longest);
  floats += smaller(s->sequences, 64) * heads * (c->model.max_len + c->model.extra_positions);
  return floats;
}

/* Hidden states and rows, normalised, and their gradients. Then pairs, or candidates in tiles and a panel of
 * their probabilities; the full softmax has all own rows for candidates. */
static int64_t loss_floats(const sh_config *c, const sh_memory_shape *s, int64_t rows) {
  enum { PANEL = 1 << 20 };
  int64_t ld = padded(c->model.width), T = own_tokens(s), own = (s->items + s->ranks - 1) / s->ranks;
  int64_t side = s->threads > 16 ? s->threads : 16, tiles = side * side * 64 * 64; /* as nn/softmax_tiles.c */
  if (loss_is(c, "full")) return 2 * (T + c->loss.tile_tokens) * (ld + 4) + 5 * own * ld + tiles;
  if (!loss_is(c, "sampled")) {
    int64_t n = smaller(rows, shared_keys(c, s)), kept = side * ((n + 63) / 64) * 64 * 64;
    return 2 * (T + rows) * (ld + 1) + 3 * n * ld + 7 * T + (kept <= 16 * PANEL ? kept : tiles);
  }
  return sh_loss_sampled_floats(T, keys_of_token(c) - 1, rows, ld, s->threads);
}

/* Two batches: features of tokens, keys and their slots. */
static int64_t batch_bytes(const sh_config *c, const sh_model *m, const sh_memory_shape *s, int64_t rows) {
  int64_t token = 4 * (int64_t)sizeof(int64_t) + 2 * (int64_t)sizeof(int32_t), runs = m->needs_time_runs ? 64 : 0;
  int64_t key = sizeof(int64_t) + sizeof(int32_t);
  return 2 * (s->tokens * s->micro * (token + runs) + keys_of_step(c, s) * key + rows * 2 * (int64_t)sizeof(int64_t));
}

sh_memory sh_memory_predict(const sh_config *c, const sh_model *m, const sh_memory_shape *s, sh_arena *scratch) {
  int64_t rows = distinct_rows(c, s), row_bytes = rows * padded(c->model.width) * FLOAT;
  int64_t work = loss_floats(c, s, rows);
  for (int i = 0; i < m->ncalls; i++) work = larger(work, call_floats(c, m, s, i));
  int64_t data = s->ranks / s->tensor, block = m->params.block;
  int64_t state = c->parallel.zero ? (block + data - 1) / data : block;
  return (sh_memory){.dense = 2 * (block + state) * FLOAT + sh_grad_sync_bytes(&m->params, (int)data, &c->comm),
                     .table = table_bytes(c, s),
                     .activations = sh_model_pass_floats(m, s->tokens, s->sequences, scratch) * FLOAT,
                     .rows = 2 * row_bytes,
                     .merged = (s->ranks > 1 ? 3 : 2) * row_bytes,
                     .workspace = work * FLOAT,
                     .batch = batch_bytes(c, m, s, rows)};
}

/* A micro-batch that hardly one of an epoch exceeds: mean and three deviations of its sum of lengths, from at most 4096
 * sequences. */
static void usual_batch(const sh_trainer *t, sh_memory_shape *s) {
  const sh_conf_batch *b = &t->conf.batch;
  int64_t bins = t->grid->data.size * b->accumulate, n = smaller(t->samples.n, 4096);
  double sum = 0, square = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t length = sh_samples_get(&t->samples, t->samples.n * i / n).length;
    s->longest = larger(s->longest, length);
    sum += (double)length, square += (double)length * (double)length;
  }
  double mean = n > 0 ? sum / (double)n : 1, variance = n > 0 ? square / (double)n - mean * mean : 0;
  if (b->tokens > 0) {
    s->tokens = larger(b->tokens / bins, s->longest);
    s->sequences = (int64_t)ceil((double)s->tokens / mean);
  } else {
    s->sequences = smaller((b->users + bins - 1) / bins, larger(t->samples.n, 1));
    double top = (double)s->sequences * mean + 3 * sqrt((double)s->sequences * fmax(variance, 0));
    s->tokens = smaller((int64_t)ceil(top), s->sequences * s->longest);
  }
}

static sh_memory_shape shape_of(const sh_trainer *t) {
  return (sh_memory_shape){.micro = t->conf.batch.accumulate,
                           .items = t->data.items,
                           .ranks = t->grid->world.size,
                           .tensor = t->grid->tensor.size,
                           .threads = sh_threads()};
}

static double mib(int64_t bytes) { return (double)bytes / 1048576.0; }

static int64_t number_in(const char *folder, const char *file, const char *name) {
  char path[600], line[256];
  long long value = -1;
  snprintf(path, sizeof path, "%s/%s", folder, file);
  FILE *f = fopen(path, "r");
  if (!f) return -1;
  size_t n = strlen(name);
  while (value < 0 && fgets(line, sizeof line, f))
    if (!strncmp(line, name, n) && sscanf(line + n, "%lld", &value) != 1) value = -1;
  fclose(f);
  return value;
}

/* Bytes that processes of this node may still take: what the system has, and what the control group (version 2) of this
 * process and those above it allow, where pages of files that were read are as good as free. */
static int64_t available(void) {
  char own[256] = "", folder[512];
  int64_t kib = number_in("/proc", "meminfo", "MemAvailable:"), least = kib >= 0 ? kib << 10 : INT64_MAX;
  FILE *f = fopen("/proc/self/cgroup", "r");
  while (f && fgets(folder, sizeof folder, f) && sscanf(folder, "0::%255[^\n]", own) != 1) continue;
  if (f) fclose(f);
  for (char *last = own + strlen(own); last; last = strrchr(own, '/')) {
    *last = 0;
    snprintf(folder, sizeof folder, "/sys/fs/cgroup%s", own);
    int64_t most = number_in(folder, "memory.max", ""), used = number_in(folder, "memory.current", "");
    int64_t files = number_in(folder, "memory.stat", "inactive_file ");
    if (most >= 0 && used >= 0) least = smaller(least, larger(most - used + larger(files, 0), 0));
  }
  return least;
}

void sh_memory_announce(sh_trainer *t) {
  sh_memory_shape s = shape_of(t);
  usual_batch(t, &s);
  sh_memory m = sh_memory_predict(&t->conf, &t->model, &s, &t->scratch);
  sh_info("memory  %.0f MiB a rank at %lld tokens: activations %.0f (model.recompute %s), workspace %.0f, rows %.0f, "
          "table %.0f, dense %.0f, batches %.0f",
          mib(sh_memory_total(&m)), (long long)s.tokens, mib(m.activations), t->conf.model.recompute, mib(m.workspace),
          mib(m.rows + m.merged), mib(m.table), mib(m.dense), mib(m.batch));
  /* table and dense parameters are taken already; the first rank speaks for its node */
  int64_t more = (sh_memory_total(&m) - m.table - m.dense) * sh_node_ranks(), left = available();
  if (t->grid->world.index == 0 && more > left)
    sh_warn("%.0f MiB more will be needed on this node, and %.0f are free: lower batch.users, or set "
            "model.recompute or batch.accumulate",
            mib(more), mib(left));
}

void sh_memory_note(sh_trainer *t, const sh_batch *b, int64_t rows) {
  sh_memory_shape *s = &t->largest;
  s->tokens = larger(s->tokens, b->T);
  s->sequences = larger(s->sequences, b->B);
  s->longest = larger(s->longest, sh_longest(b));
  s->rows = larger(s->rows, rows);
}

void sh_memory_conclude(const sh_trainer *t) {
  sh_memory_shape s = shape_of(t);
  if (t->largest.tokens == 0) return; /* nothing was trained */
  s.tokens = t->largest.tokens, s.sequences = t->largest.sequences;
  s.longest = t->largest.longest, s.rows = t->largest.rows;
  sh_arena scratch;
  sh_arena_init(&scratch, "plan");
  sh_memory m = sh_memory_predict(&t->conf, &t->model, &s, &scratch);
  sh_arena_free(&scratch);
  struct rusage usage = {0};
  getrusage(RUSAGE_SELF, &usage);
  sh_info("memory  largest batch %lld tokens: predicted and measured, MiB: activations and rows %.1f %.1f, workspace "
          "%.1f %.1f, batches %.1f %.1f; in all %.0f, resident at most %.0f",
          (long long)s.tokens, mib(m.activations + m.rows), mib((int64_t)t->step.peak), mib(m.workspace),
          mib((int64_t)t->scratch.peak), mib(m.batch),
          mib((int64_t)(t->stage[0].memory.peak + t->stage[1].memory.peak)), mib(sh_memory_total(&m)),
          (double)usage.ru_maxrss / 1024);
}
