/* ranks: 1 2 3 4 */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "core/timer.h"
#include "core/trace.h"
#include "mpi/coll.h"
#include "mpi/internal.h"
#include "mpi/places.h"

static sh_grid grid_of(int tensor) {
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  assert_all(sh_grid_create(&g, &comm, tensor) == SH_OK);
  return g;
}

static void rest(double seconds) { usleep((unsigned)(seconds * 1e6)); }

static sh_comm_account since(const sh_comm_account *before) {
  sh_comm_account now = sh_comm_total();
  sh_comm_add(&now, before, -1);
  return now;
}

/* Bytes stand under the kind that the caller set and the axis used, and nowhere else. */
static void test_kinds(void **state) {
  (void)state;
  sh_grid g = grid_of(mpi_size());
  int P = mpi_size();
  float x[100] = {0};
  sh_comm_account before = sh_comm_total();
  sh_comm_kind outer = sh_comm_as(SH_COMM_LOSS);
  sh_sum_f32(&g.world, x, 100);
  sh_comm_as(outer);
  sh_sum_f32(&g.tensor, x, 50); /* the tensor axis carries activations unless something else is said */
  sh_sum_f32(&g.table, x, 10);
  sh_sum_f32(&g.data, x, 10); /* of one rank: nothing to do */
  sh_comm_account a = since(&before);
  double ring = P > 1 ? 8.0 * (P - 1) / P : 0;
  enum { WORLD, DATA, TENSOR, TABLE };
  assert_all(a.of[SH_COMM_LOSS][WORLD].bytes == floor(100 * ring));
  assert_all(a.of[SH_COMM_ACTIVATIONS][TENSOR].bytes == floor(50 * ring));
  assert_all(a.of[SH_COMM_CONTROL][TABLE].bytes == floor(10 * ring));
  assert_all(sh_comm_kind_cost(&a, -1).calls == (P > 1 ? 3 : 0));
  assert_all(sh_comm_kind_cost(&a, SH_COMM_LOSS).bytes == a.of[SH_COMM_LOSS][WORLD].bytes);
  sh_grid_destroy(&g);
}

/* Who waits for a late rank is exposed; what is in flight during work is hidden, and several at once count once. */
static void test_times(void **state) {
  (void)state;
  sh_grid g = grid_of(1);
  int P = mpi_size();
  sh_comm_account before = sh_comm_total();
  if (mpi_rank() == P - 1) rest(0.1);
  sh_barrier(&g.world);
  sh_comm_account a = since(&before);
  double exposed = sh_comm_kind_cost(&a, -1).exposed;
  assert_all(P == 1 ? exposed == 0 : mpi_rank() == P - 1 ? exposed < 0.09 : exposed > 0.09);

  float x[2][64] = {{1}};
  sh_request *r[2] = {sh_request_new(), sh_request_new()};
  before = sh_comm_total();
  double start = sh_now();
  for (int i = 0; i < 2; i++) sh_sum_f32_begin(&g.data, r[i], x[i], 64);
  rest(0.05);
  for (int i = 0; i < 2; i++) sh_request_end(r[i]);
  double took = sh_now() - start;
  a = since(&before);
  double hidden = sh_comm_kind_cost(&a, -1).hidden;
  assert_all(P == 1 ? hidden == 0 : hidden > 0.049 && hidden < took);
  assert_all(hidden + sh_comm_kind_cost(&a, -1).exposed <= took + 1e-6);
  sh_request_free(r[0]), sh_request_free(r[1]);
  sh_grid_destroy(&g);
}

typedef struct seen {
  int n;
  bool right;
} seen;

static void look(void *arg, int rank, const void *data, size_t bytes) {
  seen *s = arg;
  const char *text = data;
  s->right &= rank == s->n && bytes == (size_t)rank * 1000;
  for (size_t i = 0; i < bytes; i++) s->right &= text[i] == 'a' + rank;
  s->n++;
}

static void test_astride(void **state) {
  (void)state;
  static const char *const host[] = {"a", "a", "a", "b", "b", "b", "c", "d"};
  sh_place place[8] = {0};
  int first = -1;
  for (int r = 0; r < 8; r++) strcpy(place[r].host, host[r]), snprintf(place[r].cores, sizeof place[r].cores, "%d", r);
  assert_all(sh_places_astride(place, 8, 1, &first) == 0 && first == -1);
  assert_all(sh_places_astride(place, 6, 3, &first) == 0 && first == -1);
  assert_all(sh_places_astride(place, 8, 2, &first) == 2 && first == 1);
  assert_all(sh_places_astride(place, 8, 4, &first) == 2 && first == 0);
}

static void test_places(void **state) {
  (void)state;
  sh_grid g = grid_of(1);
  sh_place place[8];
  char host[64] = "", mine[8000];
  sh_places_gather(&g.world, place);
  gethostname(host, sizeof host - 1);
  host[strcspn(host, ".")] = 0;
  bool right = true;
  for (int r = 0; r < mpi_size(); r++) right &= !strcmp(place[r].host, host) && place[r].cores[0] != 0;
  assert_all(right);
  double offset = sh_clock_offset(&g.world); /* one machine, one clock */
  assert_all(fabs(offset) < 1e-3);
  memset(mine, 'a' + mpi_rank(), sizeof mine);
  seen s = {.right = true};
  sh_collect(&g.world, mine, (size_t)mpi_rank() * 1000, look, &s);
  assert_all(mpi_rank() ? s.n == 0 : s.n == mpi_size() && s.right);
  sh_grid_destroy(&g);
}

/* Ranks dealt to nodes in turn: groups that share layers still stand on one node each where they fit. */
static void test_nodes(void **state) {
  (void)state;
  int P = mpi_size(), rank = mpi_rank();
  sh_mpi_node = rank % 2;
  sh_grid g = grid_of(P % 2 ? 1 : P / 2);
  sh_mpi_node = -1;
  int even = (P + 1) / 2, want = rank % 2 ? even + rank / 2 : rank / 2;
  assert_all(g.world.index == want && g.table.index == want);
  int64_t nodes = rank % 2;
  sh_sum_i64(&g.tensor, &nodes, 1);
  assert_all(nodes == 0 || nodes == g.tensor.size); /* all on node 0, or all on node 1 */
  sh_grid_destroy(&g);
}

/* Spans are kept while the trace is on, those that began before are not, and a full buffer counts what it drops. */
static void test_trace(void **state) {
  (void)state;
  sh_grid g = grid_of(1);
  sh_trace_open(4);
  assert_all(sh_trace_begin() == 0);
  double early = sh_now();
  sh_trace_switch(true);
  sh_trace_end(early, "early", "x");
  sh_trace_end(sh_trace_begin(), "mine", "x");
  sh_barrier(&g.world);
  sh_trace_switch(false);
  sh_trace_end(sh_trace_begin(), "off", "x");
  const sh_spans *s = sh_trace_spans();
  assert_all(s->n == (mpi_size() > 1 ? 2 : 1) && !strcmp(s->span[0].name, "mine") &&
             s->span[0].end >= s->span[0].start);
  assert_all(mpi_size() == 1 || (!strcmp(s->span[1].name, "control") && !strcmp(s->span[1].part, "sh_barrier") &&
                                 !strcmp(s->span[1].axis, "world")));
  sh_trace_switch(true);
  for (int i = 0; i < 9; i++) sh_trace_end(sh_trace_begin(), "more", "x");
  assert_all(s->n == 4 && s->dropped == (mpi_size() > 1 ? 7 : 6));
  sh_trace_close();
  sh_grid_destroy(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_kinds),   cmocka_unit_test(test_times), cmocka_unit_test(test_places),
      cmocka_unit_test(test_astride), cmocka_unit_test(test_nodes), cmocka_unit_test(test_trace),
  };
  return mpi_run_tests(tests);
}
