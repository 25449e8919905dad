/* What a table of 1 GiB does with random rows of 256 bytes, beside what memory can: the table section of the bench.
 *
 * The limits are loops that do nothing else: rows in random order, read, or read and written, with the best of some
 * prefetch distances, huge pages, the threads of the run. A batch is as many distinct rows as one of MovieLens-size
 * histories touches in a catalogue of millions. */
#include <omp.h>
#include <stdlib.h>

#include "core/threads.h"
#include "core/timer.h"
#include "tools/bench_internal.h"

enum { WIDTH = 64, ROW_BITS = 22, ROWS = 1 << ROW_BITS, BATCH = 1 << 14, BATCHES = 64, REPEATS = 5, AHEADS = 5 };
static const int aheads[AHEADS] = {0, 4, 8, 16, 32};

/* Key i of all batches: no row twice, in no order that a prefetcher knows. */
static int64_t key_of(int64_t i) {
  uint64_t x = (uint64_t)i * 0x9E3779B1u; /* odd: a permutation of ROWS */
  x ^= (x & (ROWS - 1)) >> 11;
  return (int64_t)(x * 0x85EBCA6Bu & (ROWS - 1));
}

typedef struct random_rows {
  float *x; /* [ROWS x WIDTH] */
  const int64_t *key;
  int ahead;
  float *sink; /* [threads x WIDTH] */
} random_rows;

/* always_inline: GCC drops calls of a function that only prefetches (optim/rows.c). */
__attribute__((always_inline)) static inline void fetch_ahead(const random_rows *r, int64_t i) {
  if (r->ahead == 0 || i + r->ahead >= (int64_t)BATCH * BATCHES) return;
  const float *next = r->x + r->key[i + r->ahead] * WIDTH;
  for (int d = 0; d < WIDTH; d += 16) __builtin_prefetch(next + d);
}

typedef float quarter __attribute__((vector_size(WIDTH / 4 * sizeof(float))));
static void read_rows(const random_rows *r) {
#pragma omp parallel
  {
    quarter sum = {0};
#pragma omp for schedule(static)
    for (int64_t i = 0; i < (int64_t)BATCH * BATCHES; i++) {
      fetch_ahead(r, i);
      const quarter *x = (const quarter *)(const void *)(r->x + r->key[i] * WIDTH);
      sum += (x[0] + x[1]) + (x[2] + x[3]);
    }
    for (int d = 0; d < 16; d++) r->sink[omp_get_thread_num() * WIDTH + d] = sum[d];
  }
}

static void change_rows(const random_rows *r) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < (int64_t)BATCH * BATCHES; i++) {
    fetch_ahead(r, i);
    for (int d = 0; d < WIDTH; d++) r->x[r->key[i] * WIDTH + d] += 0x1p-20f;
  }
}

/* Seconds of all batches with the best distance. */
static double best_of(void (*call)(const random_rows *), random_rows *r) {
  double best = 0;
  for (int k = 0; k < AHEADS; k++)
    for (int n = 0; n < REPEATS; n++) {
      r->ahead = aheads[k];
      double start = sh_now();
      call(r);
      double seconds = sh_now() - start;
      if (best == 0 || seconds < best) best = seconds;
    }
  return best;
}

enum { DISTINCT, GATHER, MERGE, UPDATE, PHASES };

/* Best seconds of all batches in each phase of a table's step. */
static void table_step(sh_table *t, const int64_t *key, double best[PHASES]) {
  sh_fetch f;
  sh_arena arena;
  sh_row_hyper hyper = {.lr = 1e-6, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .clip_scale = 1, .step = 1};
  sh_arena_init(&arena, "bench table");
  sh_fetch_init(&f, t);
  for (int n = -1; n < REPEATS; n++) {
    double sum[PHASES] = {0};
    for (int b = 0; b < BATCHES; b++) {
      double at[PHASES + 1];
      sh_arena_reset(&arena);
      at[0] = sh_now();
      sh_table_fetch_begin(t, &f, key + (int64_t)b * BATCH, BATCH, &arena);
      at[1] = sh_now();
      sh_table_fetch_end(t, &f, &arena);
      at[2] = sh_now();
      for (int64_t i = 0; i < f.nslots; i++) f.drows[i * f.ld] = 1e-3f;
      double skipped = sh_now() - at[2];
      sh_table_grad(t, &f);
      at[3] = sh_now();
      sh_table_update(t, &hyper);
      at[4] = sh_now();
      for (int p = 0; p < PHASES; p++) sum[p] += at[p + 1] - at[p];
      sum[MERGE] -= skipped;
    }
    for (int p = 0; p < PHASES && n >= 0; p++)
      if (n == 0 || sum[p] < best[p]) best[p] = sum[p];
  }
  sh_fetch_free(&f);
  sh_arena_free(&arena);
}

static void report(const sh_bench_state *b, const char *what, double seconds, double limit) {
  double rows = (double)BATCH * BATCHES;
  if (b->out)
    fprintf(b->out, "  %s: %.1f M rows/s, %.0f %% of the limit %.1f\n", what, 1e-6 * rows / seconds,
            100 * limit / seconds, 1e-6 * rows / limit);
}

sh_status sh_bench_table(sh_bench_state *b) {
  sh_grid single; /* each rank measures a table of its own */
  sh_table t[2];
  const sh_row_optim optim[2] = {SH_ROW_SGD, SH_ROW_ADAGRAD};
  const char *const name[2] = {"SGD", "row-wise AdaGrad"};
  int64_t n = (int64_t)BATCH * BATCHES;
  sh_grid_single(&single);
  int64_t *key = sh_malloc(sizeof *key * (size_t)n);
  for (int64_t i = 0; i < n; i++) key[i] = key_of(i);
  float *sink = sh_calloc((size_t)sh_threads() * WIDTH, sizeof *sink);
  sh_bench_title(b, "table of 4 Mi rows x 64, 64 batches of 16 Ki rows");
  double bytes = (double)n * WIDTH * sizeof(float);
  for (int o = 0; o < 2; o++) {
    double best[PHASES] = {0};
    sh_table_conf conf = {.name = "bench", .rows = ROWS, .width = WIDTH, .seed = 1, .optim = optim[o]};
    SH_TRY(sh_agree(&b->t->grid->world, sh_table_create(&t[o], &conf, &single.table)));
    random_rows r = {.x = t[o].rows, .key = key, .sink = sink};
    double read = best_of(read_rows, &r), change = best_of(change_rows, &r);
    table_step(&t[o], key, best);
    char line[64];
    if (o == 0) {
      sh_bench_add(b, "table", "limit: rows read", read, 0, 0, bytes);
      sh_bench_add(b, "table", "limit: rows read and written", change, 0, 0, 2 * bytes);
      sh_bench_add(b, "table", "distinct rows of a batch", best[DISTINCT], 0, 0, 0);
      sh_bench_add(b, "table", "gather", best[GATHER], 0, 0, bytes);
    }
    snprintf(line, sizeof line, "merge of gradients, %s", name[o]);
    sh_bench_add(b, "table", line, best[MERGE], 0, 0, bytes);
    snprintf(line, sizeof line, "update, %s", name[o]);
    sh_bench_add(b, "table", line, best[UPDATE], 0, 0, 3 * bytes);
    if (o == 0) report(b, "gather", best[GATHER], read);
    report(b, line, best[UPDATE], change);
    sh_table_destroy(&t[o]);
  }
  free(key);
  free(sink);
  return SH_OK;
}
