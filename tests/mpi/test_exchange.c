/* ranks: 1 2 3 4 5 8 */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "core/arena.h"
#include "core/rng.h"
#include "mpi/coll.h"
#include "mpi/exchange.h"

static uint32_t draw(int a, int64_t b, int c) {
  return sh_random4(5, SH_SITE(SH_SITE_TEST, 1), (uint32_t)a, b, (uint32_t)c, 0).v[0];
}
static float number(int a, int64_t b, int c) { return sh_uniform(draw(a, b, c)) - 0.5f; }

/* How many ids `rank` wants of `owner` in a plan: rank 1 asks nothing, nobody asks rank 2. */
static int64_t wants(int plan, int rank, int owner) {
  if (rank == 1 || owner == 2) return 0;
  return draw(100 + plan, rank, owner) % (plan == 0 ? 1u : 40u);
}
static int64_t id_of(int plan, int rank, int owner, int64_t i) {
  return (int64_t)plan << 40 | rank << 20 | owner << 10 | i;
}

static void check_plan(sh_exchange *x, const sh_axis *a, int plan, int64_t width) {
  int P = a->size, me = a->index;
  int64_t count[8] = {0}, ids[8 * 40] = {0}, n = 0;
  for (int r = 0; r < P; r++) {
    count[r] = wants(plan, me, r);
    for (int64_t i = 0; i < count[r]; i++) ids[n++] = id_of(plan, me, r, i);
  }
  sh_exchange_ids_begin(x, ids, count);
  const int64_t *asked, *asked_count;
  int64_t m = sh_exchange_ids_end(x, &asked, &asked_count), at = 0;
  bool right = true;
  for (int r = 0; r < P; r++) {
    right &= asked_count[r] == wants(plan, r, me);
    for (int64_t i = 0; i < asked_count[r]; i++) right &= asked[at++] == id_of(plan, r, me, i);
  }
  assert_all(right && at == m);

  /* F: rows of the owners -> rows of the users. <F u, v> = <u, F' v>. */
  size_t nu = (size_t)(m * width), nv = (size_t)(n * width);
  float *u = sh_malloc(nu * 4), *Fu = sh_malloc(nv * 4), *v = sh_malloc(nv * 4), *Fv = sh_malloc(nu * 4);
  for (int64_t i = 0; i < m; i++)
    for (int64_t d = 0; d < width; d++) u[i * width + d] = number(me, asked[i], (int)d);
  for (size_t i = 0; i < nv; i++) v[i] = number(50 + me, (int64_t)i, plan);
  sh_exchange_rows_begin(x, u, Fu, width);
  sh_exchange_rows_end(x);
  for (int r = 0, k = 0; r < P; r++)
    for (int64_t i = 0; i < count[r]; i++, k++)
      for (int64_t d = 0; d < width; d++) right &= Fu[k * width + d] == number(r, ids[k], (int)d);
  assert_all(right);
  sh_exchange_grads_begin(x, v, Fv, width);
  sh_exchange_grads_end(x);
  double product[2] = {0, 0};
  for (size_t i = 0; i < nv; i++) product[0] += (double)Fu[i] * (double)v[i];
  for (size_t i = 0; i < nu; i++) product[1] += (double)u[i] * (double)Fv[i];
  sh_sum_f64(a, product, 2);
  assert_all(fabs(product[0] - product[1]) <= 1e-12 * (1 + fabs(product[0])));
  assert_all(plan == 0 || product[0] != 0); /* something travelled */
  free(u), free(Fu), free(v), free(Fv);
}

static void test_adjoint(void **state) {
  (void)state;
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  assert_all(sh_grid_create(&g, &comm, 1) == SH_OK);
  sh_exchange *x = sh_exchange_create(&g.table);
  for (int plan = 0; plan < 5; plan++) /* plan 0: nobody asks anything */
    check_plan(x, &g.table, plan, plan == 2 ? 1 : 17);
  sh_exchange_destroy(x);
  sh_grid_destroy(&g);
}

/* Two plans with their ids under way at once, and other collectives in between. */
static void test_two_plans(void **state) {
  (void)state;
  MPI_Comm comm = MPI_COMM_WORLD;
  sh_grid g;
  assert_all(sh_grid_create(&g, &comm, 1) == SH_OK);
  const sh_axis *a = &g.world;
  sh_exchange *x[2] = {sh_exchange_create(a), sh_exchange_create(a)};
  int64_t count[8], ids[2][8];
  for (int r = 0; r < a->size; r++) count[r] = 1;
  for (int k = 0; k < 2; k++) {
    for (int r = 0; r < a->size; r++) ids[k][r] = id_of(k, a->index, r, 0);
    sh_exchange_ids_begin(x[k], ids[k], count);
  }
  double one = 1;
  sh_sum_f64(a, &one, 1);
  bool right = one == a->size;
  for (int k = 0; k < 2; k++) {
    const int64_t *asked, *asked_count;
    right &= sh_exchange_ids_end(x[k], &asked, &asked_count) == a->size;
    for (int r = 0; r < a->size; r++) right &= asked_count[r] == 1 && asked[r] == id_of(k, r, a->index, 0);
  }
  assert_all(right);
  sh_exchange_destroy(x[0]);
  sh_exchange_destroy(x[1]);
  sh_grid_destroy(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_adjoint), cmocka_unit_test(test_two_plans)};
  return mpi_run_tests(tests);
}
