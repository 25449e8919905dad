/* ranks: 1 2 3 4 8 */
/* --trace: one file for all ranks, whose spans nest and show communication under computing; it changes no bit. */
#include "support/mpi_verdict.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "core/arena.h"
#include "core/trace.h"
#include "shoal/shoal_mpi.h"
#include "support/folder.h"
#include "support/train_data.h"
#include "train/trace_file.h"

enum { FIRST = 4, LAST = 6, STEPS = 8, RANKS = 8 };

static const char *data, *trace;

static void test_begin(void **state) {
  assert_all(folder_make(state) == 0);
  trace = in_folder("trace.json");
  train_data d = {.users = 64, .items = 60, .least = 3, .most = 20, .times = true, .seed = 1};
  data = train_data_write(&d, "data.h5");
}

static cJSON *parse(const char *path) {
  FILE *f = fopen(path, "r");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  size_t n = (size_t)ftell(f);
  rewind(f);
  char *text = sh_calloc(n + 1, 1);
  bool whole = fread(text, 1, n, f) == n;
  fclose(f);
  cJSON *json = whole ? cJSON_Parse(text) : NULL;
  free(text);
  return json;
}

static double number(const cJSON *o, const char *key) {
  const cJSON *v = cJSON_GetObjectItem(o, key);
  return cJSON_IsNumber(v) ? v->valuedouble : -1;
}

static const char *word(const cJSON *o, const char *key) {
  const cJSON *v = cJSON_GetObjectItem(o, key);
  return cJSON_IsString(v) ? v->valuestring : "";
}

typedef struct event {
  int rank, thread;
  double start, end; /* ns */
  const char *name, *category;
  double bytes;
} event;

static int outer_first(const void *a, const void *b) {
  const event *x = a, *y = b;
  if (x->rank != y->rank) return x->rank - y->rank;
  if (x->thread != y->thread) return x->thread - y->thread;
  if (x->start != y->start) return x->start < y->start ? -1 : 1;
  return x->end > y->end ? -1 : x->end < y->end;
}

static bool read_events(const cJSON *json, event *e, int64_t *n, bool *named) {
  const cJSON *item;
  bool right = true;
  *n = 0;
  cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "traceEvents")) {
    int rank = (int)number(item, "pid");
    right &= rank >= 0 && rank < mpi_size();
    if (!strcmp(word(item, "name"), "process_name")) {
      char want[32];
      snprintf(want, sizeof want, "rank %d on ", rank);
      named[rank] = !strncmp(word(cJSON_GetObjectItem(item, "args"), "name"), want, strlen(want));
    }
    if (strcmp(word(item, "ph"), "X") != 0) continue;
    double start = 1e3 * number(item, "ts"), length = 1e3 * number(item, "dur");
    right &= start >= -0.5 && length >= -0.5;
    e[(*n)++] = (event){.rank = rank,
                        .thread = (int)number(item, "tid"),
                        .start = start,
                        .end = start + length,
                        .name = word(item, "name"),
                        .category = word(item, "cat"),
                        .bytes = number(cJSON_GetObjectItem(item, "args"), "bytes")};
  }
  qsort(e, (size_t)*n, sizeof *e, outer_first);
  return right;
}

/* On each thread a span lies within the one it began in, or behind it. A nanosecond is what printing may cost. */
static bool nests(const event *e, int64_t n) {
  double open[64];
  int depth = 0;
  for (int64_t i = 0; i < n; i++) {
    if (i == 0 || e[i].rank != e[i - 1].rank || e[i].thread != e[i - 1].thread) depth = 0;
    while (depth > 0 && open[depth - 1] <= e[i].start + 1) depth--;
    if (depth > 0 && e[i].end > open[depth - 1] + 1) {
      fprintf(stderr, "rank %d, thread %d: %s %s sticks out\n", e[i].rank, e[i].thread, e[i].category, e[i].name);
      return false;
    }
    if (depth == 64) return false;
    open[depth++] = e[i].end;
  }
  return true;
}

static int64_t count(const event *e, int64_t n, int rank, const char *category, const char *name) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; i++)
    found += e[i].rank == rank && !strcmp(e[i].category, category) && (!name || !strcmp(e[i].name, name));
  return found;
}

/* Gradients in flight while the rank computes backward. */
static bool overlaps(const event *e, int64_t n, int rank) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < n && e[i].rank == rank && e[i].thread > 0 && !strcmp(e[i].name, "gradients data"); k++)
      if (e[k].rank == rank && !strcmp(e[k].category, "backward") && e[k].start < e[i].end && e[k].end > e[i].start &&
          e[i].bytes > 0)
        return true;
  return false;
}

static bool check(const char *path) {
  cJSON *json = parse(path);
  if (!json) return false;
  int64_t n, room = cJSON_GetArraySize(cJSON_GetObjectItem(json, "traceEvents"));
  event *e = sh_calloc((size_t)room + 1, sizeof *e);
  bool named[RANKS] = {false}, right = read_events(json, e, &n, named) && nests(e, n);
  static const char *const phases[] = {"load", "fetch", "forward", "loss", "backward", "sync", "update"};
  for (int r = 0; r < mpi_size(); r++) {
    bool all = named[r] && count(e, n, r, "step", NULL) == LAST - FIRST + 1 && count(e, n, r, "step", "step 4") == 1;
    for (int p = 0; p < 7; p++) all &= count(e, n, r, "phase", phases[p]) >= LAST - FIRST + 1;
    all &=
        count(e, n, r, "forward", NULL) >= 4 * 3 && count(e, n, r, "forward", NULL) == count(e, n, r, "backward", NULL);
    if (mpi_size() > 1)
      all &= overlaps(e, n, r) && count(e, n, r, "communication", "rows table") > 0 &&
             count(e, n, r, "communication", "control world") > 0;
    else
      all &= count(e, n, r, "communication", NULL) == 0;
    if (!all) fprintf(stderr, "rank %d: something is missing among %lld spans\n", r, (long long)n);
    right &= all;
  }
  free(e);
  cJSON_Delete(json);
  return right;
}

static sh_config config(void) {
  sh_config c = train_config("hstu", data);
  c.comm.bucket = 1024;
  return c;
}

static void test_no_bit_no_allocation(void **state) {
  (void)state;
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid grid;
  sh_trainer t;
  sh_tracer x;
  sh_config c = config();
  assert_all(sh_grid_create(&grid, &comm, 1) == SH_OK);
  train_run plain = {0}, traced = {0};
  assert_all(train_whole(&plain, &c, &grid, STEPS));
  assert_all(sh_trainer_create(&t, &c, &grid) == SH_OK);
  sh_train_options o = {.trace_first = FIRST, .trace_last = LAST};
  assert_all(sh_tracer_open(&x, &o, &grid.world, folder_name()) == SH_OK);
  bool quiet = true;
  for (int step = 1; step <= STEPS; step++) {
    sh_tracer_before(&x, step);
    assert_all(sh_tracing == (step >= FIRST && step <= LAST));
    int64_t spans = sh_trace_spans()->n, capacity = sh_trace_spans()->capacity;
    quiet &= train_steps(&traced, &t, 1) && (sh_trace_spans()->n > spans) == sh_tracing;
    quiet &= sh_trace_spans()->capacity == capacity && sh_trace_spans()->dropped == 0;
    sh_tracer_after(&x, step);
  }
  sh_tracer_close(&x, SH_OK);
  assert_all(quiet);
  sh_trainer_rewind(&t);
  train_keep(&traced, &t);
  assert_all(train_bits(&traced, &plain, "traced"));
  sh_trainer_destroy(&t);
  train_free(&plain), train_free(&traced);
  sh_grid_destroy(&grid);
  assert_all(mpi_rank() > 0 || check(trace));
}

/* The same by the whole run, into a file of a name of its own. */
static void test_run(void **state) {
  (void)state;
  char set[2][360];
  const char *path = in_folder("other.json");
  snprintf(set[0], sizeof set[0], "data.path=%s", data);
  snprintf(set[1], sizeof set[1], "train.out=%s", in_folder("run"));
  const char *more[] = {"model.width=16", "model.heads=2", "model.layers=2",   "model.max_len=12",
                        "batch.users=16", "train.steps=8", "loss.negatives=8", "comm.bucket=1024",
                        set[0],           set[1]};
  sh_train_options o = {.nset = 10, .set = more, .trace_first = FIRST, .trace_last = LAST, .trace_file = path};
  sh_world *world;
  assert_all(sh_world_open(MPI_COMM_WORLD, &world) == SH_OK);
  assert_all(sh_train(world, &o) == SH_OK);
  assert_all(!sh_tracing && (mpi_rank() > 0 || check(path)));
  o.trace_file = "/nowhere/trace.json";
  assert_all(sh_train(world, &o) == SH_ERR_INTERNAL);
  sh_world_close(world);
}

static void test_end(void **state) { folder_remove(state); }

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_begin),
      cmocka_unit_test(test_no_bit_no_allocation),
      cmocka_unit_test(test_run),
      cmocka_unit_test(test_end),
  };
  return mpi_run_tests(tests);
}
