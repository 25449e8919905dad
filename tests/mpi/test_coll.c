/* ranks: 1 2 3 4 5 8 */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "core/arena.h"
#include "mpi/coll.h"
#include "mpi/internal.h"
#include "mpi/progress.h"
#include "shoal/shoal_mpi.h"

static sh_grid grid_of(int tensor) {
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  assert_all(sh_grid_create(&g, &comm, tensor) == SH_OK);
  return g;
}

/* Small whole numbers: sums are exact in any order. */
static int value(int rank, int64_t i) { return (int)((rank * 37 + i * 11) % 101) - 50; }

static void reductions_of(const sh_axis *a, int64_t n) {
  size_t m = (size_t)n + 1;
  float *f = sh_malloc(m * sizeof *f), *fm = sh_malloc(m * sizeof *f), *fb = sh_malloc(m * sizeof *f);
  double *d = sh_malloc(m * sizeof *d), *dm = sh_malloc(m * sizeof *d);
  int64_t *k = sh_malloc(m * sizeof *k), *km = sh_malloc(m * sizeof *k);
  for (int64_t i = 0; i <= n; i++) {
    int v = value(a->index, i);
    f[i] = fm[i] = fb[i] = (float)v;
    d[i] = dm[i] = v;
    k[i] = km[i] = v;
  }
  sh_request *r = sh_request_new();
  sh_sum_f32_begin(a, r, fb, n);
  sh_sum_f32(a, f, n);
  sh_sum_f64(a, d, n);
  sh_sum_i64(a, k, n);
  sh_max_f32(a, fm, n);
  sh_max_f64(a, dm, n);
  sh_max_i64(a, km, n);
  sh_request_end(r);
  sh_request_end(r); /* ended: returns at once */
  bool right = true;
  for (int64_t i = 0; i <= n; i++) {
    int sum = 0, max = -1000;
    for (int q = 0; q < a->size; q++) {
      int v = value(q, i);
      sum += v;
      max = v > max ? v : max;
    }
    if (i == n) sum = max = value(a->index, i); /* one past the end stays */
    right &= f[i] == (float)sum && fb[i] == (float)sum && d[i] == sum && k[i] == sum;
    right &= fm[i] == (float)max && dm[i] == max && km[i] == max;
  }
  sh_request_free(r);
  free(f), free(fm), free(fb), free(d), free(dm), free(k), free(km);
  assert_all(right);
}

static void test_reductions(void **state) {
  (void)state;
  int64_t whole = sh_mpi_piece;
  for (int tensor = 1; tensor <= mpi_size(); tensor++) {
    if (mpi_size() % tensor) continue;
    sh_grid g = grid_of(tensor);
    const sh_axis *axes[] = {&g.world, &g.data, &g.tensor, &g.table};
    for (int a = 0; a < 4; a++)
      for (int cut = 0; cut < 2; cut++) {
        sh_mpi_piece = cut ? 7 : whole;
        reductions_of(axes[a], 0);
        reductions_of(axes[a], 1);
        reductions_of(axes[a], 100);
      }
    sh_mpi_piece = whole;
    sh_grid_destroy(&g);
  }
}

static void test_grid(void **state) {
  (void)state;
  for (int tensor = 1; tensor <= mpi_size(); tensor++) {
    MPI_Comm comm = MPI_COMM_WORLD;
    sh_grid g;
    sh_status status = sh_grid_create(&g, &comm, tensor);
    if (mpi_size() % tensor) {
      assert_all(status == SH_ERR_USAGE && strstr(sh_error_message(), "does not divide"));
      continue;
    }
    assert_all(status == SH_OK);
    assert_all(g.world.index == mpi_rank() && g.world.size == mpi_size());
    assert_all(g.table.index == mpi_rank() && g.table.size == mpi_size());
    assert_all(g.tensor.size == tensor && g.data.size == mpi_size() / tensor);
    assert_all(g.data.index * tensor + g.tensor.index == mpi_rank());
    assert_all(!strcmp(g.world.name, "world") && !strcmp(g.data.name, "data"));
    assert_all(!strcmp(g.tensor.name, "tensor") && !strcmp(g.table.name, "table"));
    sh_grid_destroy(&g);
  }
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  assert_all(sh_grid_create(&g, &comm, 0) == SH_ERR_USAGE);
}

static int64_t length(int rank) { return rank % 3 == 1 ? 0 : 5 + 3 * rank; } /* ranks 1, 4, 7 have nothing */

static void gathers_of(const sh_axis *a) {
  int P = a->size;
  int32_t mine[3] = {a->index, 2 * a->index, -a->index}, *all = sh_malloc(sizeof mine * (size_t)P);
  sh_allgather(a, mine, sizeof mine, all);
  bool right = true;
  for (int r = 0; r < P; r++) right &= all[3 * r] == r && all[3 * r + 1] == 2 * r && all[3 * r + 2] == -r;
  memset(all, 0, sizeof mine * (size_t)P);
  memcpy(all + 3 * a->index, mine, sizeof mine);
  sh_allgather(a, all + 3 * a->index, sizeof mine, all); /* in place */
  for (int r = 0; r < P; r++) right &= all[3 * r] == r && all[3 * r + 1] == 2 * r && all[3 * r + 2] == -r;
  int64_t *count = sh_malloc(sizeof *count * (size_t)P), total = 0, before = 0;
  for (int r = 0; r < P; r++) {
    count[r] = length(r);
    before += r < a->index ? count[r] : 0;
    total += count[r];
  }
  double *piece = sh_malloc(sizeof *piece * (size_t)(2 * count[a->index])),
         *out = sh_malloc(sizeof *out * (size_t)(2 * total));
  for (int64_t i = 0; i < 2 * count[a->index]; i++) piece[i] = value(a->index, i);
  for (int in_place = 0; in_place < 2; in_place++) {
    memset(out, 0, sizeof *out * (size_t)(2 * total));
    double *place = out + 2 * before;
    if (in_place && count[a->index]) memcpy(place, piece, 2 * sizeof *out * (size_t)count[a->index]);
    sh_allgatherv(a, in_place ? place : piece, count, 2 * sizeof *out, out);
    for (int64_t r = 0, at = 0; r < P; at += 2 * count[r], r++)
      for (int64_t i = 0; i < 2 * count[r]; i++) right &= out[at + i] == value((int)r, i);
  }
  free(all), free(count), free(piece), free(out);
  assert_all(right);
}

static void scatters_of(const sh_axis *a) {
  int P = a->size;
  int64_t *count = sh_malloc(sizeof *count * (size_t)P), total = 0, before = 0;
  for (int r = 0; r < P; r++) {
    count[r] = length(r);
    before += r < a->index ? count[r] : 0;
    total += count[r];
  }
  float *x = sh_malloc(sizeof *x * (size_t)total), *out = sh_malloc(sizeof *out * (size_t)count[a->index]);
  for (int64_t i = 0; i < total; i++) x[i] = (float)value(a->index, i);
  sh_reduce_scatter_f32(a, x, count, out);
  bool right = true;
  for (int64_t i = 0; i < count[a->index]; i++) {
    int sum = 0;
    for (int r = 0; r < P; r++) sum += value(r, before + i);
    right &= out[i] == (float)sum;
  }
  free(count), free(x), free(out);
  assert_all(right);
}

static void test_gathers(void **state) {
  (void)state;
  sh_grid g = grid_of(mpi_size() % 2 ? 1 : 2);
  int64_t whole = sh_mpi_piece;
  for (int cut = 0; cut < 2; cut++) {
    sh_mpi_piece = cut ? 4 : whole;
    gathers_of(&g.world);
    gathers_of(&g.data);
    scatters_of(&g.world);
    scatters_of(&g.tensor);
    for (int root = 0; root < g.world.size; root++) {
      char text[64] = "";
      if (g.world.index == root) snprintf(text, sizeof text, "a text of some length from rank %d", root);
      char want[64];
      snprintf(want, sizeof want, "a text of some length from rank %d", root);
      sh_bcast(&g.world, text, sizeof text, root);
      assert_all(!strcmp(text, want));
    }
  }
  sh_mpi_piece = whole;
  sh_barrier(&g.world);
  sh_grid_destroy(&g);
}

/* Rank s sends to rank d what both can compute; two exchanges are under way at once. */
static void test_all_to_all(void **state) {
  (void)state;
  sh_grid g = grid_of(1);
  const sh_axis *a = &g.world;
  int P = a->size, me = a->index;
  int64_t send[8], recv[8];
  for (int r = 0; r < P; r++) send[r] = me * 100 + r;
  sh_alltoall_i64(a, send, recv);
  bool right = true;
  for (int r = 0; r < P; r++) right &= recv[r] == r * 100 + me;
  assert_all(right);

  int64_t out_count[8], in_count[8], nout = 0;
  for (int r = 0; r < P; r++) {
    out_count[r] = me == 1 ? 0 : (me * 3 + r * 2) % 7;
    in_count[r] = r == 1 ? 0 : (r * 3 + me * 2) % 7;
    nout += out_count[r];
  }
  int32_t out[2][8 * 7 * 3], in[2][8 * 7 * 3];
  sh_request *request[2] = {sh_request_new(), sh_request_new()};
  int64_t sent = sh_comm_bytes();
  for (int round = 0; round < 3; round++) { /* requests are reusable */
    int unit[2] = {3, 1 + round};
    for (int q = 0; q < 2; q++) {
      int64_t at = 0;
      for (int r = 0; r < P; r++)
        for (int64_t i = 0; i < out_count[r] * unit[q]; i++) out[q][at++] = (int32_t)(me * 10000 + r * 1000 + i + q);
      sh_alltoallv_begin(a, request[q], out[q], out_count, in[q], in_count, sizeof out[0][0] * (size_t)unit[q]);
    }
    sh_barrier(a);
    for (int q = 1; q >= 0; q--) {
      sh_request_end(request[q]);
      int64_t at = 0;
      for (int r = 0; r < P; r++)
        for (int64_t i = 0; i < in_count[r] * unit[q]; i++) right &= in[q][at++] == r * 10000 + me * 1000 + i + q;
    }
  }
  assert_all(right);
  assert_all(sh_comm_bytes() - sent == (nout - out_count[me]) * 4 * (3 * 3 + 1 + 2 + 3));
  assert_all(sh_comm_seconds() >= 0);
  sh_request_free(request[0]);
  sh_request_free(request[1]);
  sh_grid_destroy(&g);
}

static void test_agree(void **state) {
  (void)state;
  sh_grid g = grid_of(1);
  const sh_axis *a = &g.world;
  assert_all(sh_agree(a, SH_OK) == SH_OK);
  for (int first = 0; first < a->size; first++) {
    sh_status mine = SH_OK;
    sh_fail(SH_ERR_INTERNAL, "an old message");
    if (a->index == first) mine = sh_fail(SH_ERR_DATA, "x.csv:%d: bad line", 10 + first);
    if (a->index > first && a->index % 2) mine = sh_fail(SH_ERR_CKPT, "something else");
    char who[32] = "", want[96];
    if (a->size > 1) snprintf(who, sizeof who, "rank %d: ", first);
    snprintf(want, sizeof want, "%sx.csv:%d: bad line", who, 10 + first);
    sh_status all = sh_agree(a, mine);
    assert_all(all == SH_ERR_DATA);
    assert_all(!strcmp(sh_error_message(), want));
    assert_all(sh_agree(a, all) == SH_ERR_DATA); /* once more, a level up: nothing is added */
    assert_all(!strcmp(sh_error_message(), want));
  }
  sh_grid_destroy(&g);
}

/* Same ranks, same bits, on every rank. */
static void test_same_bits(void **state) {
  (void)state;
  sh_grid g = grid_of(1);
  enum { N = 20000 };
  float *first = sh_malloc(sizeof *first * N), *again = sh_malloc(sizeof *again * N);
  bool same = true;
  for (int round = 0; round < 5; round++) {
    float *x = round ? again : first;
    for (int i = 0; i < N; i++) x[i] = sinf((float)(i * 7 + g.world.index * 13)) * powf(10, (float)(i % 9 - 4));
    sh_sum_f32(&g.world, x, N);
    if (round) same &= !memcmp(first, again, sizeof *first * N);
  }
  memcpy(again, first, sizeof *first * N);
  sh_bcast(&g.world, again, sizeof *again * N, 0);
  same &= !memcmp(first, again, sizeof *first * N);
  free(first), free(again);
  assert_all(same);
  sh_grid_destroy(&g);
}

static void test_world(void **state) {
  (void)state;
  MPI_Comm half;
  MPI_Comm_split(MPI_COMM_WORLD, mpi_rank() % 2, 0, &half);
  int rank, size;
  MPI_Comm_rank(half, &rank);
  MPI_Comm_size(half, &size);
  sh_world *w;
  assert_all(sh_world_open(half, &w) == SH_OK);
  assert_all(sh_world_rank(w) == rank && sh_world_size(w) == size);
  sh_grid g;
  assert_all(sh_grid_create(&g, sh_world_comm(w), 1) == SH_OK);
  double one = 1;
  sh_sum_f64(&g.world, &one, 1);
  assert_all(one == size);
  sh_grid_destroy(&g);
  sh_world_close(w);
  MPI_Comm_free(&half);
  assert_all(sh_world_start(NULL, NULL, false, &w) == SH_OK); /* MPI is the host's: finish leaves it running */
  assert_all(sh_world_size(w) == mpi_size());
  sh_world_finish(w);
  assert_all(true);
}

/* This program asked MPI for one thread: polling instead of a communication thread. */
static void test_no_threads(void **state) {
  (void)state;
  sh_grid g = grid_of(1);
  sh_progress used = sh_progress_start(&g.world, "thread");
  assert_all(used == (mpi_size() > 1 ? SH_PROGRESS_POLL : SH_PROGRESS_NONE));
  reductions_of(&g.world, 100);
  sh_progress_stop();
  sh_grid_destroy(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_grid),       cmocka_unit_test(test_reductions), cmocka_unit_test(test_gathers),
      cmocka_unit_test(test_all_to_all), cmocka_unit_test(test_agree),      cmocka_unit_test(test_same_bits),
      cmocka_unit_test(test_world),      cmocka_unit_test(test_no_threads),
  };
  return mpi_run_tests(tests);
}
