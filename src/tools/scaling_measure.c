/* What `shoal plan --measure` measures: cores and memory, steps of one rank, a link. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/breathe.h"
#include "core/threads.h"
#include "core/timer.h"
#include "kernels/gemm.h"
#include "mpi/progress.h"
#include "tools/scaling_internal.h"
#include "train/references.h"
#include "train/step.h"

/* FLOP/s and bytes/s of a core of this rank; local. */
static void measure_core(double *gemm, double *memory) {
  sh_grid one;
  sh_grid_single(&one);
  sh_trainer t = {.grid = &one};
  sh_bench_state b = {.t = &t};
  sh_bench_yardsticks(&b);
  *gemm = b.peak / sh_threads(), *memory = b.triad / sh_threads();
}

static double seconds_of(const sh_bench_state *b, const char *name) {
  double seconds = 0;
  for (int i = 0; i < b->nrows; i++)
    if (!strcmp(b->row[i].section, "layers") && !strcmp(b->row[i].name, name)) seconds += b->row[i].seconds;
  return seconds;
}

static double distinct_inputs(const sh_trainer *t, const sh_stage *s) {
  bool *seen = sh_calloc((size_t)t->data.items, sizeof *seen);
  double n = 0;
  for (int m = 0; m < s->batch.nmicro; m++)
    for (int64_t k = 0; k < s->batch.micro[m].T; k++) {
      bool *x = &seen[s->batch.micro[m].item[k]];
      n += !*x, *x = true;
    }
  free(seen);
  return n;
}

/* Means of the first batches. */
static sh_status count(sh_trainer *t, sh_work_sample *x) {
  int64_t steps = sh_loader_steps(&t->loader, 0), n = steps < 8 ? steps : 8;
  sh_stage s;
  sh_status status = SH_OK;
  sh_bench_stage_init(t, &s);
  *x = (sh_work_sample){0};
  for (int64_t i = 0; i < n && status == SH_OK; i++) {
    status = sh_step_read(t, &s, 0, i, i);
    if (status != SH_OK) break;
    sh_references_build(t, &s);
    sh_fetch_send(&t->item, &s.fetch);
    x->tokens += (double)s.batch.global_tokens / (double)n, x->users += (double)s.batch.global_users / (double)n;
    x->rows += (double)s.fetch.nslots / (double)n, x->inputs += distinct_inputs(t, &s) / (double)n;
  }
  sh_bench_stage_free(&s);
  return status;
}

static double longest(const sh_samples *s) {
  int64_t most = 0;
  for (int64_t i = 0; i < s->n; i++) {
    int64_t length = sh_samples_get(s, i).length;
    most = length > most ? length : most;
  }
  return (double)most;
}

/* Parts are timed one by one on a batch of about mean size; `scale` takes them to the whole step. */
static void take_parts(const sh_bench_state *b, sh_work_sample *s) {
  const sh_phase of[SH_WORK_DENSE] = {[SH_WORK_LOAD] = SH_PHASE_LOAD,
                                      [SH_WORK_EXCHANGE] = SH_PHASE_EXCHANGE,
                                      [SH_WORK_FORWARD] = SH_PHASE_FORWARD,
                                      [SH_WORK_LOSS] = SH_PHASE_LOSS,
                                      [SH_WORK_BACKWARD] = SH_PHASE_BACKWARD};
  double scale = s->tokens / b->parts_tokens;
  for (int i = 0; i < SH_WORK_DENSE; i++) s->seconds[i] = scale * b->phase[of[i]];
  s->seconds[SH_WORK_DENSE] = seconds_of(b, "norm and AdamW of dense parameters");
  s->seconds[SH_WORK_TABLE] = seconds_of(b, "update of table rows");
}

/* A trainer of this rank as if it were alone. */
static sh_status create_alone(sh_trainer *t, sh_grid *one, const sh_bench_shape *s, int64_t users) {
  sh_config c = s->conf;
  sh_grid_single(one);
  c.parallel.tensor = 1;
  if (c.batch.tokens > 0) c.batch.tokens = c.batch.tokens * users / c.batch.users;
  c.batch.users = users;
  return sh_trainer_create(t, &c, one);
}

/* Parts of a step of so many users, scaled so that they make up whole steps measured beside them. */
static sh_status measure_parts(const sh_bench_shape *s, int64_t users, sh_work *w, int k) {
  sh_grid one;
  sh_trainer t;
  sh_bench_state b = {.t = &t, .steps = s->steps};
  sh_status status = create_alone(&t, &one, s, users);
  if (status == SH_OK) status = count(&t, &w->sample[k]);
  if (status == SH_OK) status = sh_bench_parts(&b);
  if (status == SH_OK) status = sh_bench_step(&b);
  if (status == SH_OK) {
    take_parts(&b, &w->sample[k]);
    double sum = 0, step = w->sample[k].tokens / b.tokens_per_second;
    for (int i = 0; i < SH_WORKS; i++) sum += w->sample[k].seconds[i];
    for (int i = 0; i < SH_WORKS; i++) w->sample[k].seconds[i] *= step / sum;
    w->threads = sh_threads(), w->items = (double)t.data.items, w->longest = longest(&t.samples);
  }
  free(b.row);
  sh_trainer_destroy(&t);
  return status;
}

static int64_t part_of(const sh_bench_shape *s) {
  enum { PART = 4 };
  return s->conf.batch.users / PART > 0 ? s->conf.batch.users / PART : 1;
}

static sh_status measure_alone(const sh_bench_shape *s, sh_work *w) {
  SH_TRY(measure_parts(s, s->conf.batch.users, w, 0));
  return measure_parts(s, part_of(s), w, 1);
}

/* Other ranks must not even wait busily while the first one is alone: they sleep as long as it took before. */
static void rest(double seconds) {
  if (seconds > 0) nanosleep(&(struct timespec){(time_t)seconds, (long)(1e9 * fmod(seconds, 1))}, NULL);
}

/* Seconds a token of steps that ranks do each for itself but begin together: the slowest counts, as where they wait for
 * each other. Collective over the axis. */
static sh_status measure_steps(const sh_axis *axis, sh_trainer *t, int64_t steps, double *seconds) {
  enum { WARM_UP = 2 };
  double *pace = sh_calloc((size_t)steps, sizeof *pace);
  sh_status status = SH_OK;
  for (int64_t i = -WARM_UP; i < steps && status == SH_OK; i++) {
    sh_step_report r;
    sh_barrier(axis);
    double start = sh_now();
    status = sh_train_step(t, false, &r);
    double now = status == SH_OK ? (sh_now() - start) / (double)r.tokens : 0;
    sh_max_f64(axis, &now, 1);
    status = sh_agree(axis, status);
    if (i >= 0) pace[i] = now;
  }
  sh_trainer_rewind(t);
  *seconds = sh_median(pace, steps);
  free(pace);
  return status;
}

/* Steps of a part of the batch by the first rank, while the others rest, then by all, in turns: machines change their
 * pace within seconds (clock, other tenants of a core). Seconds a token of both, in sum; the first turn warms up. */
static sh_status take_turns(const sh_axis *world, sh_trainer *t, int64_t steps, double *alone, double *beside) {
  enum { TURNS = 12 };
  const double enough = 4; /* seconds of the first rank alone */
  double spent = 0, last = 0;
  *alone = *beside = 0;
  for (int i = 0; i <= TURNS && (i < 2 || spent < enough); i++) {
    double start = sh_now(), one = 0, all;
    sh_status status = SH_OK;
    if (world->index > 0)
      rest(.9 * last);
    else
      status = measure_steps(&t->grid->world, t, steps, &one);
    SH_TRY(sh_agree(world, status));
    last = world->index == 0 ? sh_now() - start : 0;
    sh_max_f64(world, &last, 1);
    SH_TRY(measure_steps(world, t, steps, &all));
    sh_max_f64(world, &one, 1);
    if (i > 0) *alone += one, *beside += all, spent += last;
  }
  return SH_OK;
}

/* What cores lose beside each other or, where ranks outnumber them, what those lose that take turns on a core.
 * Collective. */
static sh_status measure_beside(const sh_axis *world, const sh_bench_shape *s, double cores, sh_work *w) {
  sh_grid one;
  sh_trainer t;
  double alone, beside, share = world->size * sh_threads() / cores;
  sh_status status = sh_agree(world, create_alone(&t, &one, s, part_of(s)));
  if (status == SH_OK) status = take_turns(world, &t, s->steps, &alone, &beside);
  if (status == SH_OK && share <= 1) w->busy = fmax(beside / alone, 1);
  if (status == SH_OK && share > 1) w->turns = fmax(beside / alone / share / w->busy, 1);
  sh_trainer_destroy(&t);
  return status;
}

enum { PIECE = 1 << 20, WINDOW = 4, SHORT = 8, EDGE = 64, SLICE = 16 };

typedef struct link_test {
  const sh_axis *axis;
  sh_request *request[16];
  char *send, *recv; /* [size x WINDOW x PIECE] */
  int64_t *count;    /* [size] */
  float *abc;        /* matrices to multiply meanwhile */
} link_test;

/* `bytes` to the next rank. */
static void send_next(link_test *l, int k, int64_t bytes) {
  const sh_axis *axis = l->axis;
  int64_t *to = l->count, *from = l->count + axis->size;
  memset(l->count, 0, sizeof *l->count * 2 * (size_t)axis->size);
  to[(axis->index + 1) % axis->size] = bytes;
  from[(axis->index + axis->size - 1) % axis->size] = bytes;
  int64_t place = (int64_t)(k % WINDOW) * PIECE;
  sh_alltoallv_begin(axis, l->request[k], l->send + place, to, l->recv + place, from, 1);
}

/* Seconds of n messages of some bytes, so many at a time. */
static double exchange(link_test *l, int n, int window, int64_t bytes) {
  sh_barrier(l->axis);
  double start = sh_now();
  for (int i = 0; i < n + window; i++) {
    if (i >= window) sh_request_end(l->request[(i - window) % window]);
    if (i < n) send_next(l, i % window, bytes);
  }
  return (sh_now() - start) / n;
}

/* A core's work for so many slices of some 80 us, breathing between them. */
static double work(link_test *l, int64_t slices) {
  double start = sh_now();
  float *abc = l->abc;
  for (int64_t s = 0; s < slices; s++) {
    sh_breathe();
    for (int i = 0; i < SLICE; i++)
      sh_gemm(EDGE, EDGE, EDGE, abc, EDGE, abc + EDGE * EDGE, EDGE, abc + 2 * EDGE * EDGE, EDGE, false);
  }
  return sh_now() - start;
}

/* What transfers take from work that is twice as long as they are. */
static double seconds_taken(link_test *l, double piece) {
  int64_t slices = (int64_t)(2 * WINDOW * piece / (work(l, 100) / 100)) + 1;
  sh_barrier(l->axis);
  double plain = work(l, slices);
  sh_barrier(l->axis);
  double start = sh_now();
  for (int k = 0; k < WINDOW; k++) send_next(l, k, PIECE);
  work(l, slices);
  for (int k = 0; k < WINDOW; k++) sh_request_end(l->request[k]);
  double taken = (sh_now() - start - plain) / WINDOW;
  return taken < 0 ? 0 : taken < piece ? taken : piece;
}

static void measure_link(const sh_axis *world, sh_link *out) {
  enum { TIMES = 9 };
  size_t bytes = (size_t)WINDOW * PIECE, floats = 3 * EDGE * EDGE;
  link_test l = {.axis = world, .send = sh_pages_alloc(bytes), .recv = sh_pages_alloc(bytes)};
  l.count = sh_calloc(2 * (size_t)world->size, sizeof *l.count);
  l.abc = sh_calloc(floats, sizeof *l.abc);
  for (int i = 0; i < 16; i++) l.request[i] = sh_request_new();
  double best[3] = {1e30, 1e30, 1e30}, taken[TIMES];
  for (int i = 0; i < TIMES; i++) { /* the best of what others disturb; what is taken may be too little or too much */
    const double x[3] = {exchange(&l, 100, 1, SHORT), exchange(&l, 400, 16, SHORT),
                         exchange(&l, 4 * WINDOW, WINDOW, PIECE)};
    for (int k = 0; k < 3; k++) best[k] = fmin(best[k], x[k]);
    taken[i] = seconds_taken(&l, x[2]);
  }
  double cpu = fmin(sh_median(taken, TIMES), best[2]);
  sh_max_f64(world, best, 3);
  sh_max_f64(world, &cpu, 1);
  *out = (sh_link){.latency = best[0], .gap = best[1], .bandwidth = PIECE / best[2], .cpu = cpu / PIECE};
  for (int i = 0; i < 16; i++) sh_request_free(l.request[i]);
  free(l.abc);
  free(l.count);
  sh_pages_free(l.send, bytes);
  sh_pages_free(l.recv, bytes);
}

static sh_status measure_ranks(const sh_axis *world, sh_scaling_file *f) {
  sh_machine *m = &f->machine;
  int here = sh_node_ranks();
  if (here != 1 && here != world->size)
    return sh_fail(SH_ERR_USAGE,
                   "%d ranks, %d of them on this node: a link is measured between ranks of one node, or "
                   "of nodes with one rank each",
                   world->size, here);
  double rate[2];
  sh_barrier(world);
  measure_core(&rate[0], &rate[1]);
  sh_sum_f64(world, rate, 2);
  if (here > 1) {
    m->gemm_all = rate[0] / world->size, m->memory_all = rate[1] / world->size;
  }
  measure_link(world, here > 1 ? &m->near : &m->far);
  return SH_OK;
}

static sh_status measure_shape(const sh_axis *world, sh_scaling_file *f, sh_bench_shape *s) {
  int i = sh_scaling_find(f, s->name, true);
  char own_data[SH_TEXT] = "";
  sh_status status = i < 0 ? sh_fail(SH_ERR_USAGE, "more than %d shapes", SH_BENCH_SHAPES) : SH_OK;
  if (status == SH_OK && !*s->conf.data.path) {
    status = sh_bench_own_data(s, own_data);
    strcpy(s->conf.data.path, own_data);
  }
  status = sh_agree(world, status);
  if (status == SH_OK && world->size == 1) status = measure_alone(s, &f->shape[i].work);
  if (status == SH_OK && sh_node_ranks() > 1) /* on nodes of a rank each cores do not share anything */
    status = measure_beside(world, s, f->machine.cores, &f->shape[i].work);
  if (*own_data) unlink(own_data);
  if (status == SH_OK && world->size == 1) f->shape[i].config = sh_scaling_fingerprint(&s->conf);
  return status;
}

sh_status sh_scaling_measure(sh_scaling_file *f, sh_bench_shape *shape, int n, const struct sh_world *world,
                             int64_t threads) {
  sh_grid grid;
  SH_TRY(sh_grid_create(&grid, sh_world_comm(world), 1));
  sh_threads_setup(threads > 0 ? threads : shape[0].conf.train.threads);
  sh_progress_start(&grid.world, shape[0].conf.comm.progress);
  sh_status status = SH_OK;
  f->machine.cores = sh_node_cores();
  if (grid.world.size > 1)
    status = sh_agree(&grid.world, measure_ranks(&grid.world, f));
  else
    measure_core(&f->machine.gemm_one, &f->machine.memory_one);
  for (int i = 0; i < n && status == SH_OK; i++) status = measure_shape(&grid.world, f, &shape[i]);
  sh_progress_stop();
  sh_grid_destroy(&grid);
  return status;
}
