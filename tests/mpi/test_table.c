/* ranks: 1 2 3 4 5 8 */
#include "support/mpi_verdict.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/arena.h"
#include "core/rng.h"
#include "dist/table_internal.h"
#include "mpi/coll.h"

/* The work of a step is a list of occurrences, each a key and a gradient, the same on every number of ranks; ranks take
 * turns, and when there are several, rank 1 takes nothing. */
static uint32_t draw(int step, int64_t i, uint32_t what) {
  return sh_random4(9, SH_SITE(SH_SITE_TEST, 2), (uint32_t)step, i, what, 0).v[0];
}
static int64_t key_of(int64_t V, int step, int64_t i) {
  /* half of them popular */
  uint32_t n = (uint32_t)(draw(step, i, 0) % 2 ? V : (V + 19) / 20);
  return (int64_t)sh_below(draw(step, i, 1), n);
}
static float grad_of(int step, int64_t i, int64_t d) { return sh_uniform(draw(step, i, 2 + (uint32_t)d)) - 0.3f; }
static bool is_mine(const sh_axis *a, int64_t i) {
  if (a->size == 1) return true;
  int64_t turn = i % (a->size - 1);
  return a->index == (turn >= 1 ? turn + 1 : 0);
}

/* A whole table in one piece, in double. */
typedef struct dense {
  int64_t V, D;
  double *p, *m, *v, *g;
  bool *touched;
} dense;

static dense dense_of(const sh_table_conf *c) {
  dense r = {.V = c->rows, .D = c->width};
  size_t n = (size_t)(r.V * r.D);
  r.p = sh_calloc(n, sizeof *r.p), r.m = sh_calloc(n, sizeof *r.m), r.v = sh_calloc(n, sizeof *r.v);
  r.g = sh_calloc(n, sizeof *r.g), r.touched = sh_calloc((size_t)r.V, sizeof *r.touched);
  for (int64_t k = 0; k < r.V; k++)
    for (int64_t d = 0; d < r.D; d++)
      r.p[k * r.D + d] =
          (double)sh_init_value(&c->init, c->seed, SH_SITE(SH_SITE_TABLE_INIT, 0), sh_name_hash(c->name), k, d);
  if (c->optim == SH_ROW_ADAGRAD)
    for (int64_t k = 0; k < r.V; k++) r.m[k] = c->adagrad_initial;
  return r;
}

static void dense_free(dense *r) { free(r->p), free(r->m), free(r->v), free(r->g), free(r->touched); }

static double dense_grad(dense *r, int step, int64_t n) {
  memset(r->g, 0, sizeof *r->g * (size_t)(r->V * r->D));
  memset(r->touched, 0, sizeof *r->touched * (size_t)r->V);
  for (int64_t i = 0; i < n; i++) {
    int64_t k = key_of(r->V, step, i);
    r->touched[k] = true;
    for (int64_t d = 0; d < r->D; d++) r->g[k * r->D + d] += (double)grad_of(step, i, d);
  }
  double square = 0;
  for (int64_t i = 0; i < r->V * r->D; i++) square += r->g[i] * r->g[i];
  return square;
}

static void dense_row(dense *r, int64_t k, sh_row_optim optim, const sh_row_hyper *h) {
  double *p = r->p + k * r->D, *m = r->m + k * r->D, *v = r->v + k * r->D, *g = r->g + k * r->D, mean = 0;
  double t = (double)h->step;
  for (int64_t d = 0; d < r->D; d++) {
    g[d] *= h->clip_scale;
    p[d] *= 1 - h->lr * h->weight_decay;
    mean += g[d] * g[d] / (double)r->D;
  }
  if (optim == SH_ROW_ADAGRAD) r->m[k] += mean;
  for (int64_t d = 0; d < r->D; d++) {
    if (optim == SH_ROW_SGD) {
      p[d] -= h->lr * g[d];
    } else if (optim == SH_ROW_ADAGRAD) {
      p[d] -= h->lr * g[d] / (sqrt(r->m[k]) + h->eps);
    } else {
      m[d] = h->beta1 * m[d] + (1 - h->beta1) * g[d];
      v[d] = h->beta2 * v[d] + (1 - h->beta2) * g[d] * g[d];
      p[d] -= h->lr * (m[d] / (1 - pow(h->beta1, t))) / (sqrt(v[d] / (1 - pow(h->beta2, t))) + h->eps);
    }
  }
}

static void dense_update(dense *r, sh_row_optim optim, const sh_row_hyper *h) {
  for (int64_t k = 0; k < r->V; k++)
    if (optim == SH_ROW_ADAM_DENSE || r->touched[k]) dense_row(r, k, optim, h);
}

/* The table under test with two fetches and their arenas, as a training step uses it. */
typedef struct run {
  sh_grid grid;
  sh_table table;
  sh_fetch fetch[2];
  sh_arena batch[2], step;
  int64_t n; /* occurrences a step */
  int64_t *keys[2], *occurrence[2], nkeys[2];
} run;

static void run_open(run *r, const sh_table_conf *c, int64_t n, bool hashed) {
  MPI_Comm comm = MPI_COMM_WORLD;
  *r = (run){.n = n};
  assert_all(sh_grid_create(&r->grid, &comm, 1) == SH_OK);
  assert_all(sh_table_create(&r->table, c, &r->grid.table) == SH_OK);
  if (hashed) r->table.impl->direct_limit = 0;
  sh_arena_init(&r->step, "step");
  for (int k = 0; k < 2; k++) {
    sh_fetch_init(&r->fetch[k], &r->table);
    sh_arena_init(&r->batch[k], "batch");
    r->keys[k] = sh_malloc(sizeof(int64_t) * (size_t)n);
    r->occurrence[k] = sh_malloc(sizeof(int64_t) * (size_t)n);
  }
}

static void run_close(run *r) {
  for (int k = 0; k < 2; k++) {
    sh_fetch_free(&r->fetch[k]);
    sh_arena_free(&r->batch[k]);
    free(r->keys[k]), free(r->occurrence[k]);
  }
  sh_arena_free(&r->step);
  sh_table_destroy(&r->table);
  sh_grid_destroy(&r->grid);
}

/* Begin the fetch of occurrences first <= i < last of a step. */
static void run_begin(run *r, int which, int step, int64_t first, int64_t last) {
  int64_t n = 0;
  for (int64_t i = first; i < last; i++)
    if (is_mine(&r->grid.table, i)) {
      r->keys[which][n] = key_of(r->table.conf.rows, step, i);
      r->occurrence[which][n++] = i;
    }
  r->nkeys[which] = n;
  sh_arena_reset(&r->batch[which]);
  sh_table_fetch_begin(&r->table, &r->fetch[which], r->keys[which], n, &r->batch[which]);
}

static void run_backward(run *r, int which, int step) {
  sh_fetch *f = &r->fetch[which];
  for (int64_t i = 0; i < r->nkeys[which]; i++)
    for (int64_t d = 0; d < r->table.conf.width; d++)
      f->drows[f->slot[i] * f->ld + d] += grad_of(step, r->occurrence[which][i], d);
}

static bool fetch_is_right(const run *r, int which, const dense *want, double tolerance) {
  const sh_fetch *f = &r->fetch[which];
  int64_t D = r->table.conf.width;
  bool right = f->nkeys == r->nkeys[which] && f->ld % 16 == 0 && f->ld >= D;
  for (int64_t i = 0; i < f->nkeys; i++)
    right &= f->slot[i] >= 0 && f->slot[i] < f->nslots && f->slot_key[f->slot[i]] == r->keys[which][i];
  for (int64_t s = 0; s < f->nslots; s++) {
    right &= !s || sh_table_position(&r->table, f->slot_key[s - 1]) < sh_table_position(&r->table, f->slot_key[s]);
    for (int64_t d = 0; d < f->ld; d++) {
      double row = d < D ? want->p[f->slot_key[s] * D + d] : 0;
      right &= fabs((double)f->rows[s * f->ld + d] - row) <= (d < D ? tolerance : 0) && f->drows[s * f->ld + d] == 0;
    }
  }
  return right;
}

static bool rows_are_right(const run *r, const dense *want, double tolerance) {
  const sh_table *t = &r->table;
  bool right = true;
  for (int64_t i = 0; i < t->local_rows; i++) {
    int64_t key = sh_table_key(t, t->position_first + i), D = t->conf.width;
    for (int64_t d = 0; d < D; d++) {
      right &= fabs((double)t->rows[i * D + d] - want->p[key * D + d]) <= tolerance;
      if (t->nstate == 2) {
        right &= fabs((double)t->state[0][i * D + d] - want->m[key * D + d]) <= tolerance;
        right &= fabs((double)t->state[1][i * D + d] - want->v[key * D + d]) <= tolerance * (1 + want->v[key * D + d]);
      }
    }
    if (t->nstate == 1) right &= fabs((double)t->state[0][i] - want->m[key]) <= tolerance * (1 + want->m[key]);
  }
  return right;
}

static sh_row_hyper hyper(int step) {
  return (sh_row_hyper){
      .lr = 0.01, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.1, .clip_scale = 0.7, .step = step};
}

static sh_table_conf conf_of(int64_t rows, int width, int shards, sh_row_optim optim) {
  return (sh_table_conf){.name = "item",
                         .rows = rows,
                         .width = width,
                         .shards = shards,
                         .seed = 3,
                         .init = {SH_INIT_NORMAL, 0.5, 0},
                         .optim = optim,
                         .adagrad_initial = 0.25};
}

/* Five steps against the dense table; the next batch's ids are under way while gradients return. `halves`: two fetches
 * and two gradients before each update. */
static void follows_dense(sh_table_conf c, int64_t n, bool hashed, bool halves) {
  run r;
  run_open(&r, &c, n, hashed);
  dense want = dense_of(&c);
  assert_all(rows_are_right(&r, &want, 0));
  if (!halves) run_begin(&r, 1, 1, 0, n);
  for (int step = 1; step <= 5; step++) {
    int now = step % 2, next = !now;
    double square, expected = dense_grad(&want, step, n);
    sh_row_hyper h = hyper(step);
    sh_arena_reset(&r.step);
    if (halves) {
      run_begin(&r, 0, step, 0, n / 3);
      run_begin(&r, 1, step, n / 3, n);
      for (int k = 0; k < 2; k++) sh_table_fetch_end(&r.table, &r.fetch[k], &r.step);
      assert_all(fetch_is_right(&r, 0, &want, 3e-5) && fetch_is_right(&r, 1, &want, 3e-5));
      for (int k = 0; k < 2; k++) run_backward(&r, k, step);
      sh_table_grad(&r.table, &r.fetch[0]);
      square = sh_table_grad(&r.table, &r.fetch[1]);
    } else {
      sh_table_fetch_end(&r.table, &r.fetch[now], &r.step);
      assert_all(fetch_is_right(&r, now, &want, 3e-5));
      run_begin(&r, next, step + 1, 0, n);
      run_backward(&r, now, step);
      square = sh_table_grad(&r.table, &r.fetch[now]);
    }
    sh_sum_f64(&r.grid.table, &square, 1);
    assert_all(fabs(square - expected) <= 1e-5 * (1e-9 + expected));
    int64_t touched = sh_table_touched(&r.table), distinct = 0;
    for (int64_t k = 0; k < c.rows; k++) distinct += want.touched[k];
    sh_sum_i64(&r.grid.table, &touched, 1);
    assert_all(touched == distinct);
    sh_table_update(&r.table, &h);
    dense_update(&want, c.optim, &h);
    assert_all(rows_are_right(&r, &want, 3e-5));
  }
  if (!halves) sh_table_fetch_end(&r.table, &r.fetch[0], &r.step);
  dense_free(&want);
  run_close(&r);
}

static void test_dense_model(void **state) {
  (void)state;
  for (int optim = 0; optim < SH_ROW_OPTIMS; optim++) {
    follows_dense(conf_of(700, 20, 0, (sh_row_optim)optim), 900, false, false);
    follows_dense(conf_of(700, 16, 64, (sh_row_optim)optim), 900, true, false);
    follows_dense(conf_of(97, 3, 0, (sh_row_optim)optim), 150, false, true);
  }
}

static void test_small_tables(void **state) {
  (void)state;
  for (int64_t rows = 1; rows <= 9; rows += 2) {
    follows_dense(conf_of(rows, 5, 0, SH_ROW_ADAM_DENSE), 40, false, false);
    follows_dense(conf_of(rows, 1, 2, SH_ROW_ADAGRAD), 1, rows > 4,
                  false); /* one key in all, fewer shards than ranks */
  }
  follows_dense(conf_of(5, 4, 1, SH_ROW_SGD), 7, false, true);
  follows_dense(conf_of(5, 4, 0, SH_ROW_ADAM_DENSE), 0, false, false); /* nobody asks anything; moments are zero */
}

static void test_places(void **state) {
  (void)state;
  static const int64_t sizes[][2] = {{1, 4096}, {3, 1}, {5000, 4096}, {4096, 4096}, {10000, 16}, {8191, 1024}};
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  assert_all(sh_grid_create(&g, &comm, 1) == SH_OK);
  for (int k = 0; k < 6; k++) {
    int64_t V = sizes[k][0], S = sizes[k][1], own = 0;
    sh_table t;
    sh_table_conf c = conf_of(V, 1, (int)S, SH_ROW_SGD);
    assert_all(sh_table_create(&t, &c, &g.table) == SH_OK);
    bool right = t.shard_start[0] == 0 && t.shard_start[S] == V;
    uint8_t *seen = sh_calloc((size_t)V, 1);
    for (int64_t key = 0; key < V; key++) {
      int64_t p = sh_table_position(&t, key), local = sh_table_local(&t, key), shard = 0;
      right &= p >= 0 && p < V && !seen[p]++ && sh_table_key(&t, p) == key;
      for (int64_t bit = 1; bit < S; bit *= 2) shard = shard * 2 + (key % S / bit) % 2;
      right &= p == t.shard_start[shard] + key / S;
      bool mine = shard >= t.shard_first && shard < t.shard_last;
      right &= (sh_table_owner(&t, key) == g.table.index) == mine;
      right &= local == (mine ? p - t.position_first : -1);
      own += mine;
    }
    right &= own == t.local_rows;
    int64_t total = own;
    sh_sum_i64(&g.table, &total, 1);
    free(seen);
    assert_all(right && total == V);
    if (S >= 16 * g.table.size && V >= 2 * S) assert_all(llabs(own * g.table.size - V) <= V / 4); /* spread evenly */
    sh_table_destroy(&t);
  }
  sh_table_conf bad = conf_of(10, 1, 48, SH_ROW_SGD);
  sh_table t;
  assert_all(sh_table_create(&t, &bad, &g.table) == SH_ERR_USAGE && strstr(sh_error_message(), "48 shards"));
  sh_grid_destroy(&g);
}

/* <rows(x), y> = <x, grads(y)> through the whole table path, over all ranks. */
static void test_adjoint(void **state) {
  (void)state;
  sh_table_conf c = conf_of(900, 12, 0, SH_ROW_SGD);
  run r;
  run_open(&r, &c, 2000, false);
  run_begin(&r, 0, 1, 0, 2000);
  sh_table_fetch_end(&r.table, &r.fetch[0], &r.step);
  double product[2] = {0, 0};
  sh_fetch *f = &r.fetch[0];
  for (int64_t s = 0; s < f->nslots; s++)
    for (int64_t d = 0; d < c.width; d++) {
      float y = grad_of(7, s * 100 + r.grid.table.index, d);
      f->drows[s * f->ld + d] = y;
      product[0] += (double)f->rows[s * f->ld + d] * (double)y;
    }
  sh_table_grad(&r.table, f);
  const int64_t *touched = r.table.impl->touched[r.table.impl->now].data;
  const float *grad = r.table.impl->waiting;
  for (int64_t k = 0; k < sh_table_touched(&r.table); k++)
    for (int64_t d = 0; d < c.width; d++)
      product[1] += (double)r.table.rows[touched[k] * c.width + d] * (double)grad[k * r.table.impl->waiting_ld + d];
  sh_sum_f64(&r.grid.table, product, 2);
  assert_all(product[0] != 0 && fabs(product[0] - product[1]) <= 1e-5 * fabs(product[0]));
  run_close(&r);
}

/* Three steps with some number of threads; copies of the rows and first state, and a digest of the slots. */
static uint64_t three_steps(sh_table_conf c, int threads, bool hashed, float **rows, float **moment, double square[3]) {
  int before = omp_get_max_threads();
  uint64_t digest = 0;
  omp_set_num_threads(threads);
  run r;
  run_open(&r, &c, 12000, hashed);
  for (int step = 1; step <= 3; step++) {
    sh_row_hyper h = hyper(step);
    sh_arena_reset(&r.step);
    run_begin(&r, 0, step, 0, r.n);
    sh_table_fetch_end(&r.table, &r.fetch[0], &r.step);
    for (int64_t i = 0; i < r.nkeys[0]; i++) digest = digest * 1000003 + (uint64_t)r.fetch[0].slot[i];
    run_backward(&r, 0, step);
    square[step - 1] = sh_table_grad(&r.table, &r.fetch[0]);
    sh_table_update(&r.table, &h);
  }
  size_t bytes = sizeof(float) * (size_t)(r.table.local_rows * c.width);
  *rows = memcpy(sh_malloc(bytes), r.table.rows, bytes);
  *moment = memcpy(sh_malloc(bytes), r.table.state[0], bytes);
  run_close(&r);
  omp_set_num_threads(before);
  return digest;
}

static void test_threads(void **state) {
  (void)state;
  sh_table_conf c = conf_of(40000, 8, 0, SH_ROW_ADAM_DENSE);
  float *rows[3], *moment[3];
  double square[3][3];
  uint64_t digest[3];
  digest[0] = three_steps(c, 1, false, &rows[0], &moment[0], square[0]);
  digest[1] = three_steps(c, 3, false, &rows[1], &moment[1], square[1]);
  digest[2] = three_steps(c, 3, true, &rows[2], &moment[2], square[2]);
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  assert_all(sh_grid_create(&g, &comm, 1) == SH_OK);
  sh_table t;
  assert_all(sh_table_create(&t, &c, &g.table) == SH_OK);
  size_t bytes = sizeof(float) * (size_t)(t.local_rows * c.width);
  bool same = memcmp(rows[0], t.rows, bytes) != 0; /* the steps did something */
  for (int k = 1; k < 3; k++) {
    same &= digest[0] == digest[k] && !memcmp(square[0], square[k], sizeof square[0]);
    same &= !memcmp(rows[0], rows[k], bytes) && !memcmp(moment[0], moment[k], bytes);
  }
  for (int k = 0; k < 3; k++) free(rows[k]), free(moment[k]);
  assert_all(same);
  sh_table_destroy(&t);
  sh_grid_destroy(&g);
}

/* A fetch listed in pieces, last one first, from threads, by choices among positions, is the one of its keys. */
static void check_pieces(int64_t rows, bool hashed) {
  enum { PIECE = 300 };
  sh_table_conf c = conf_of(rows, 8, 0, SH_ROW_SGD);
  run r;
  run_open(&r, &c, 9000, hashed);
  run_begin(&r, 0, 1, 0, r.n);
  int64_t n = r.nkeys[0], *position = SH_ARENA_NEW(&r.step, int64_t, rows);
  for (int64_t key = 0; key < rows; key++) position[key] = sh_table_position(&r.table, key);
  sh_table_fetch_end(&r.table, &r.fetch[0], &r.step);
  sh_fetch_open(&r.table, &r.fetch[1], n, n, &r.batch[1]);
#pragma omp parallel for schedule(dynamic, 1) num_threads(3)
  for (int64_t piece = (n - 1) / PIECE; piece >= 0; piece--) {
    int64_t first = piece * PIECE, count = n - first < PIECE ? n - first : PIECE, own[PIECE];
    uint32_t choice[PIECE];
    for (int64_t k = 0; k < count; k++) {
      choice[k] = (uint32_t)r.keys[0][first + k];
      own[k] = position[choice[k]];
    }
    sh_fetch_ask(&r.fetch[1], first, count, piece % 2 ? own : position, piece % 2 ? NULL : choice);
  }
  sh_fetch_send(&r.table, &r.fetch[1]);
  sh_table_fetch_end(&r.table, &r.fetch[1], &r.step);
  const sh_fetch *a = &r.fetch[0], *b = &r.fetch[1];
  bool same = a->nkeys == b->nkeys && a->nslots == b->nslots;
  same = same && !memcmp(a->slot, b->slot, sizeof *a->slot * (size_t)n);
  same = same && !memcmp(a->slot_key, b->slot_key, sizeof *a->slot_key * (size_t)a->nslots);
  assert_all(same && !memcmp(a->rows, b->rows, sizeof *a->rows * (size_t)(a->nslots * a->ld)));
  run_close(&r);
}

static void test_pieces(void **state) {
  (void)state;
  for (int hashed = 0; hashed < 2; hashed++) {
    check_pieces(40000, hashed); /* some rows, */
    check_pieces(50, hashed);    /* all rows */
  }
}

static void test_no_allocation(void **state) {
  (void)state;
  for (int hashed = 0; hashed < 2; hashed++) {
    sh_table_conf c = conf_of(3000, 20, 0, SH_ROW_ADAM_DENSE);
    run r;
    run_open(&r, &c, 3000, hashed);
    int64_t warm = 0;
    run_begin(&r, 1, 1, 0, r.n);
    for (int step = 1; step <= 12; step++) {
      if (step == 5) warm = sh_alloc_count();
      sh_row_hyper h = hyper(step);
      sh_arena_reset(&r.step);
      sh_table_fetch_end(&r.table, &r.fetch[step % 2], &r.step);
      run_begin(&r, (step + 1) % 2, step + 1, 0, r.n);
      run_backward(&r, step % 2, step);
      sh_table_grad(&r.table, &r.fetch[step % 2]);
      sh_table_update(&r.table, &h);
    }
    int64_t more = sh_alloc_count() - warm;
    sh_table_fetch_end(&r.table, &r.fetch[1], &r.step);
    assert_all(more == 0);
    run_close(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_places),  cmocka_unit_test(test_dense_model), cmocka_unit_test(test_small_tables),
      cmocka_unit_test(test_adjoint), cmocka_unit_test(test_threads),     cmocka_unit_test(test_no_allocation),
      cmocka_unit_test(test_pieces),
  };
  return mpi_run_tests(tests);
}
