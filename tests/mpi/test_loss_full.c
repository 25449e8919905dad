/* ranks: 1 2 3 4 5 8 */
/* Full softmax over ranks against the formula in double: every rank computes the whole problem from the same numbers
 * and compares its share. Ranks may have no tokens, no rows, no candidates. */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "dist/loss_full.h"
#include "dist/table_internal.h"
#include "support/make_batch.h"

enum { D = 13 };

/* The whole problem, on every rank. */
typedef struct whole {
  int64_t V, T;      /* keys; tokens of all ranks */
  int64_t *first;    /* [size + 1] each rank's tokens */
  float *e, *hidden; /* [V x D] by key, [T x D] */
  int64_t *target;   /* [T] */
  bool *candidate;   /* [V] */
  sh_conf_loss conf;
  double scale;
  double *loss, *dhidden, *de; /* the formula: [T], [T x D], [V x D] */
} whole;

static double unit(const whole *w, const float *x, double *n) {
  double square = 0;
  for (int d = 0; d < D; d++) square += (double)x[d] * (double)x[d];
  double divisor = w->conf.l2_norm ? fmax(sqrt(square), w->conf.l2_eps) : 1;
  for (int d = 0; d < D; d++) n[d] = (double)x[d] / divisor;
  return divisor;
}

static void unit_back(const whole *w, const double *n, double divisor, const double *dn, double *dx) {
  double along = 0;
  for (int d = 0; d < D; d++) along += n[d] * dn[d];
  bool clamped = !w->conf.l2_norm || divisor <= w->conf.l2_eps;
  for (int d = 0; d < D; d++) dx[d] += (dn[d] - (clamped ? 0 : along * n[d])) / divisor;
}

static void formula(whole *w) {
  int64_t V = w->V;
  double *e = sh_calloc((size_t)(V * D), sizeof *e), *divisor = sh_calloc((size_t)V, sizeof *divisor);
  double *de = sh_calloc((size_t)(V * D), sizeof *de), *s = sh_calloc((size_t)V, sizeof *s);
  for (int64_t v = 0; v < V; v++) divisor[v] = unit(w, w->e + v * D, e + v * D);
  for (int64_t t = 0; t < w->T; t++) {
    double h[D], dh[D] = {0}, top = -INFINITY, sum = 0, length = unit(w, w->hidden + t * D, h);
    for (int64_t v = 0; v < V; v++) {
      s[v] = w->candidate[v] ? 0 : -INFINITY;
      for (int d = 0; d < D; d++) s[v] += h[d] * e[v * D + d] / w->conf.temperature;
      if (s[v] > top) top = s[v];
    }
    for (int64_t v = 0; v < V; v++) sum += exp(s[v] - top);
    w->loss[t] = top + log(sum) - s[w->target[t]];
    for (int64_t v = 0; v < V; v++) {
      double g = w->scale / w->conf.temperature * (exp(s[v] - top) / sum - (v == w->target[t]));
      for (int d = 0; d < D; d++) dh[d] += g * e[v * D + d], de[v * D + d] += g * h[d];
    }
    unit_back(w, h, length, dh, w->dhidden + t * D);
  }
  for (int64_t v = 0; v < V; v++) unit_back(w, e + v * D, divisor[v], de + v * D, w->de + v * D);
  free(e), free(divisor), free(de), free(s);
}

/* Tokens of a rank: `spread` 0: about the same; 1: every other rank none; 2: all on the last rank. */
static void make_whole(whole *w, int64_t V, int64_t T, int spread, int64_t tile_tokens, bool l2_norm) {
  int size = mpi_size();
  sh_config conf;
  sh_config_defaults(&conf);
  *w = (whole){.V = V, .T = T, .conf = conf.loss, .scale = 0.01};
  w->conf.l2_norm = l2_norm, w->conf.l2_eps = 1.2, w->conf.temperature = 0.25, w->conf.tile_tokens = tile_tokens;
  w->first = sh_calloc((size_t)size + 1, sizeof *w->first);
  w->e = sh_malloc(sizeof(float) * (size_t)(V * D));
  w->hidden = sh_malloc(sizeof(float) * (size_t)(T * D));
  w->target = sh_malloc(sizeof(int64_t) * (size_t)T);
  w->candidate = sh_calloc((size_t)V, sizeof *w->candidate);
  w->loss = sh_calloc((size_t)T, sizeof *w->loss);
  w->dhidden = sh_calloc((size_t)(T * D), sizeof *w->dhidden);
  w->de = sh_calloc((size_t)(V * D), sizeof *w->de);
  for (int64_t v = 0; v < V; v++) sh_make_normal(w->e + v * D, D, 0.2f + 0.4f * (float)(v % 3), (uint32_t)v);
  sh_make_normal(w->hidden, T * D, 0.6f, 70000);
  for (int64_t v = 0; v < V; v++) w->candidate[v] = v % 5 != 3;
  for (int64_t t = 0; t < T; t++) {
    w->target[t] = (int64_t)(sh_make_bits(1, t) % (uint64_t)V);
    if (!w->candidate[w->target[t]]) w->target[t]--;
  }
  int64_t users = spread == 0 ? size : (size + 1) / 2;
  for (int r = 0; r < size; r++) {
    int64_t user = spread == 0 ? r : r / 2;
    bool some = spread == 0 || (spread == 1 ? r % 2 == 0 : r == size - 1);
    int64_t n = !some ? 0 : spread == 2 ? T : T * (user + 1) / users - T * user / users;
    w->first[r + 1] = w->first[r] + n;
  }
  formula(w);
}

static void free_whole(whole *w) {
  free(w->first), free(w->e), free(w->hidden), free(w->target), free(w->candidate);
  free(w->loss), free(w->dhidden), free(w->de);
}

/* This rank's share of the problem. */
typedef struct share {
  sh_grid grid;
  sh_table table;
  sh_arena scratch;
  int32_t *candidate;
  float *dhidden;
  sh_ctx c;
  sh_full_args a;
} share;

static bool open_share(share *s, const whole *w) {
  *s = (share){0};
  MPI_Comm world = MPI_COMM_WORLD;
  if (sh_grid_create(&s->grid, &world, 1) != SH_OK) return false;
  sh_table_conf conf = {.name = "item", .rows = w->V, .width = D, .shards = 64, .optim = SH_ROW_SGD};
  if (sh_table_create(&s->table, &conf, &s->grid.table) != SH_OK) return false;
  sh_arena_init(&s->scratch, "scratch");
  int64_t first = w->first[mpi_rank()], T = w->first[mpi_rank() + 1] - first, n = 0;
  s->candidate = sh_malloc(sizeof(int32_t) * (size_t)(s->table.local_rows + 1));
  s->dhidden = sh_malloc(sizeof(float) * (size_t)(T * D + 1));
  for (int64_t i = 0; i < s->table.local_rows; i++) {
    int64_t key = sh_table_key(&s->table, s->table.position_first + i);
    memcpy(s->table.rows + i * D, w->e + key * D, sizeof(float) * D);
    if (w->candidate[key]) s->candidate[n++] = (int32_t)i;
  }
  s->c = (sh_ctx){.scratch = &s->scratch, .k = sh_kernels_best()};
  s->a = (sh_full_args){.conf = &w->conf,
                        .table = &s->table,
                        .ncandidates = n,
                        .candidate = s->candidate,
                        .T = T,
                        .D = D,
                        .hidden = T ? w->hidden + first * D : NULL,
                        .target = T ? w->target + first : NULL,
                        .dhidden = s->dhidden,
                        .scale = w->scale};
  return true;
}

static void close_share(share *s) {
  sh_table_destroy(&s->table);
  sh_grid_destroy(&s->grid);
  sh_arena_free(&s->scratch);
  free(s->candidate), free(s->dhidden);
}

static double largest(const double *x, int64_t n) {
  double top = 0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, fabs(x[i]));
  return top;
}

static bool hidden_agrees(const share *s, const whole *w) {
  double far = 0;
  const double *want = w->dhidden + w->first[mpi_rank()] * D;
  for (int64_t i = 0; i < s->a.T * D; i++) far = fmax(far, fabs((double)s->dhidden[i] - want[i]));
  return far <= 1e-5 * largest(w->dhidden, w->T * D);
}

/* The gradient that waits in the table, times `count` calls. */
static bool rows_agree(const share *s, const whole *w, double count) {
  struct sh_table_impl *impl = s->table.impl;
  const int64_t *touched = impl->touched[impl->now].data;
  const float *grad = impl->waiting;
  double far = 0;
  if (impl->ntouched != s->a.ncandidates) return false;
  for (int64_t i = 0; i < impl->ntouched; i++) {
    int64_t key = sh_table_key(&s->table, s->table.position_first + touched[i]);
    for (int d = 0; d < D; d++)
      far = fmax(far, fabs((double)grad[i * impl->waiting_ld + d] - count * w->de[key * D + d]));
  }
  return far <= 1e-5 * count * largest(w->de, w->V * D);
}

static void check(int64_t V, int64_t T, int spread, int64_t tile_tokens, bool l2_norm) {
  whole w;
  share s;
  make_whole(&w, V, T, spread, tile_tokens, l2_norm);
  assert_all(open_share(&s, &w));
  double loss = sh_loss_full(&s.a, &s.c), want = 0;
  for (int64_t t = w.first[mpi_rank()]; t < w.first[mpi_rank() + 1]; t++) want += w.loss[t];
  assert_all(fabs(loss - want) <= 1e-6 * fmax(want, 1));
  assert_all(hidden_agrees(&s, &w));
  assert_all(rows_agree(&s, &w, 1));
  sh_loss_full(&s.a, &s.c); /* a second micro-batch */
  assert_all(rows_agree(&s, &w, 2));
  s.a.dhidden = NULL;
  assert_all(sh_loss_full(&s.a, &s.c) == loss);
  assert_all(rows_agree(&s, &w, 2));
  close_share(&s);
  free_whole(&w);
}

static void even(void **state) {
  (void)state;
  check(400, 150, 0, 2048, true);
  check(400, 150, 0, 64, false); /* several tiles */
}

static void ranks_without_tokens(void **state) {
  (void)state;
  check(300, 90, 1, 16, true);
  check(300, 90, 2, 48, true);
}

/* One token of a rank in a tile; a rank's share of a tile is never nothing. */
static void tiny_tiles(void **state) {
  (void)state;
  check(70, 11, 0, 1, true);
}

static void ranks_without_rows(void **state) {
  (void)state;
  check(3, 20, 0, 16, true);
  check(1, 7, 1, 16, false);
}

/* The same ranks give the same bits. */
static void twice_the_same(void **state) {
  (void)state;
  whole w;
  share s;
  make_whole(&w, 400, 150, 0, 64, true);
  assert_all(open_share(&s, &w));
  double loss = sh_loss_full(&s.a, &s.c);
  float *first = sh_malloc(sizeof(float) * (size_t)(s.a.T * D + 1));
  memcpy(first, s.dhidden, sizeof(float) * (size_t)(s.a.T * D));
  assert_all(sh_loss_full(&s.a, &s.c) == loss);
  assert_all(!memcmp(first, s.dhidden, sizeof(float) * (size_t)(s.a.T * D)));
  free(first);
  close_share(&s);
  free_whole(&w);
}

/* A fetch's gradients join those that stayed: the square that comes back is of their sum. */
static void square_with_a_fetch(void **state) {
  (void)state;
  whole w;
  share s;
  make_whole(&w, 200, 60, 0, 64, true);
  assert_all(open_share(&s, &w));
  sh_fetch fetch;
  sh_arena batch;
  sh_fetch_init(&fetch, &s.table);
  sh_arena_init(&batch, "batch");
  int64_t keys[2] = {0, 40 + mpi_rank()};
  sh_table_fetch_begin(&s.table, &fetch, keys, 2, &batch);
  sh_table_fetch_end(&s.table, &fetch, &batch);
  sh_loss_full(&s.a, &s.c);
  for (int64_t i = 0; i < fetch.nslots; i++)
    for (int d = 0; d < D; d++) fetch.drows[i * fetch.ld + d] = 0.01f;
  double got = sh_table_grad(&s.table, &fetch), want = 0;
  MPI_Allreduce(MPI_IN_PLACE, &got, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  for (int64_t v = 0; v < w.V; v++) {
    double add = v == 0 ? 0.01 * mpi_size() : v >= 40 && v < 40 + mpi_size() ? 0.01 : 0;
    for (int d = 0; d < D; d++) want += pow(w.de[v * D + d] + add, 2);
  }
  assert_all(fabs(got - want) < 1e-5 * want);
  sh_fetch_free(&fetch);
  sh_arena_free(&batch);
  close_share(&s);
  free_whole(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(even),           cmocka_unit_test(ranks_without_tokens),
      cmocka_unit_test(tiny_tiles),     cmocka_unit_test(ranks_without_rows),
      cmocka_unit_test(twice_the_same), cmocka_unit_test(square_with_a_fetch),
  };
  return mpi_run_tests(tests);
}
