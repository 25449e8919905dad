/* ranks: 1 2 3 4 6 8 */
/* Sums of dense gradients on every grid of the ranks: what is summed over which axis, who owns what, the norm. */
#include "support/mpi_verdict.h"

#include <math.h>
#include <string.h>

#include "core/arena.h"
#include "core/bf16.h"
#include "dist/grad_sync.h"
#include "optim/dense.h"
#include "support/whole.h"

static void add(sh_params *p, const char *name, int64_t rows, int64_t columns, int split, int nseg, int64_t unit,
                sh_tensor_grad tgrad, sh_grain grain) {
  sh_param r = {.ndim = columns > 1 ? 2 : 1, .dim = {rows, columns}, .split = split, .nseg = nseg, .tie = -1};
  snprintf(r.name, sizeof r.name, "%s", name);
  r.tgrad = tgrad, r.grain = grain;
  int64_t length = split < 0 ? 0 : r.dim[split] / nseg;
  for (int k = 0; k < nseg; k++) r.seg[k] = (sh_segment){k * length, length / unit, unit};
  sh_params_add(p, &r);
}

/* Units can be dealt to 1, 2, 3, 4, 6 and 8 ranks. */
static void make_params(sh_params *p, const sh_grid *g) {
  sh_params_create(p, g->tensor.index, g->tensor.size);
  add(p, "position", 37, 5, -1, 0, 1, SH_TGRAD_SAME, SH_GRAIN_ROW);
  for (int l = 0; l < 3; l++) {
    char name[SH_PARAM_NAME];
    snprintf(name, sizeof name, "block.%d.uvqk", l);
    add(p, name, 7, 4 * 48, 1, 4, 2, SH_TGRAD_SPLIT, SH_GRAIN_MATRIX);
    snprintf(name, sizeof name, "block.%d.bias", l);
    add(p, name, 129, 1, -1, 0, 1, SH_TGRAD_PARTIAL, SH_GRAIN_ELEMENT);
    snprintf(name, sizeof name, "block.%d.norm", l);
    add(p, name, 3, 1, -1, 0, 1, SH_TGRAD_PARTIAL, SH_GRAIN_ELEMENT);
    snprintf(name, sizeof name, "block.%d.out", l);
    add(p, name, 72, 13, 0, 1, 3, SH_TGRAD_SPLIT, SH_GRAIN_MATRIX);
    snprintf(name, sizeof name, "block.%d.out_bias", l);
    add(p, name, 13, 1, -1, 0, 1, SH_TGRAD_SAME, SH_GRAIN_ELEMENT);
  }
  add(p, "tied", 37, 5, -1, 0, 1, SH_TGRAD_SAME, SH_GRAIN_ROW);
  p->row[p->n - 1].tie = 0;
  assert_all(sh_params_finish(p) == SH_OK);
}

/* Whole numbers: their sums are exact. */
static int value(int param, int64_t element, int data, int tensor, int step) {
  return (int)((param * 7 + element * 13 + data * 31 + tensor * 17 + step * 5) % 23) - 11;
}

/* What rank (data, tensor) has, or the sum over the grid. */
static int want(const sh_grid *g, const sh_param *r, int param, int64_t element, int step, bool sum) {
  bool partial = r->split < 0 && r->tgrad == SH_TGRAD_PARTIAL;
  if (!sum) return value(param, element, g->data.index, partial ? g->tensor.index : 0, step);
  int total = 0;
  for (int d = 0; d < g->data.size; d++)
    for (int t = 0; t < (partial ? g->tensor.size : 1); t++) total += value(param, element, d, t, step);
  return total;
}

typedef struct visit {
  const sh_grid *g;
  sh_params *p;
  int step;
} visit;

/* Set every gradient, or count wrong ones: all, or those of `slices`. */
static int64_t walk(const visit *v, bool set, const sh_slices *slices) {
  int64_t bad = 0;
  for (int i = 0; i < v->p->n; i++) {
    const sh_param *r = &v->p->row[i];
    if (r->tie >= 0) continue;
    int64_t *place = whole_places(v->p, i);
    for (int64_t k = 0; k < r->size; k++) {
      int64_t row = k / r->local[1];
      float *at = sh_param_grad(v->p, i) + k;
      if (set) *at = (float)want(v->g, r, i, place[k], v->step, false);
      bool mine = !slices || (row >= slices->slice[i].row && row < slices->slice[i].row + slices->slice[i].rows);
      if (!set && mine) bad += *at != (float)want(v->g, r, i, place[k], v->step, true);
    }
    free(place);
  }
  return bad;
}

static double whole_norm(const visit *v) {
  double sum = 0;
  for (int i = 0; i < v->p->n; i++) {
    const sh_param *r = &v->p->row[i];
    for (int64_t k = 0; r->tie < 0 && k < r->dim[0] * r->dim[1]; k++) sum += pow(want(v->g, r, i, k, v->step, true), 2);
  }
  return sum;
}

/* Every element is owned once over the data axis, and ranks own as many as their share but for a row. */
static bool owned_once(const sh_grid *g, const sh_params *p, const sh_slices *own, sh_grain grain) {
  float *count = sh_calloc((size_t)p->block + 1, sizeof *count);
  double mine = 0, row = 0, all = 0;
  bool good = true;
  for (int i = 0; i < p->n; i++) {
    const sh_param *r = &p->row[i];
    int64_t n = sh_slice_size(own, p, i);
    for (int64_t k = 0; k < n; k++) count[sh_slice_first(own, p, i) + k]++;
    if (r->tie >= 0) good = good && n == 0;
    bool whole = grain == SH_GRAIN_MATRIX && r->grain == SH_GRAIN_MATRIX;
    if (whole) good = good && (n == 0 || n == r->size);
    mine += (double)n, all += r->tie < 0 ? (double)r->size : 0;
    row = fmax(row, (double)(whole ? r->size : r->local[1]));
  }
  good = good && own->floats >= (int64_t)mine && own->floats < (int64_t)mine + 16 * p->n;
  double pad = 16.0 * p->n;
  good = good && fabs(mine - all / g->data.size) <= row + pad;
  sh_sum_f32(&g->data, count, p->block);
  for (int i = 0; i < p->n; i++)
    for (int64_t k = 0; k < p->row[i].size; k++) good = good && count[p->row[i].offset + k] == 1;
  free(count);
  return good;
}

/* As backward does. */
static void sum_up(sh_grad_sync *s) {
  sh_grad_sync_start(s);
  for (int i = s->params->n; i > 0; i -= 3) sh_grad_sync_ready(s, i > 3 ? i - 3 : 0, i);
  sh_grad_sync_end(s);
}

/* Owners set their slices; everybody does without `zero`. */
static void update(sh_grad_sync *s, int step) {
  const sh_params *p = s->params;
  for (int i = 0; i < p->n; i++) {
    int64_t first = p->row[i].offset, last = first + p->row[i].size;
    if (s->zero) first = sh_slice_first(&s->buckets.own, p, i), last = first + sh_slice_size(&s->buckets.own, p, i);
    for (int64_t k = first; k < last; k++) p->value[k] = (float)(k + step);
  }
}

static bool values_are_updated(const sh_params *p, int step) {
  bool right = true;
  for (int i = 0; i < p->n; i++)
    for (int64_t k = p->row[i].offset; k < p->row[i].offset + p->row[i].size; k++)
      right &= p->value[k] == (float)(k + step);
  return right;
}

/* docs/ARCHITECTURE.md, "Parallelism": what all ranks send together in one step. */
static int64_t bytes_of(const sh_grad_sync *s) {
  int64_t P = s->grid->data.size, T = s->grid->tensor.size, bytes = 0, wire = s->half ? 2 : 4, block = s->params->block;
  sh_sum_i64(&s->grid->tensor, &block, 1);
  for (int b = 0; b < s->buckets.n; b++) {
    int64_t partial = 0;
    for (int i = 0; i < s->params->n; i++) {
      const sh_param *r = &s->params->row[i];
      if (s->buckets.of[i] == b && r->tie < 0 && r->split < 0 && r->tgrad == SH_TGRAD_PARTIAL) partial += r->size;
    }
    bytes += P * 2 * 4 * partial * (T - 1);
  }
  return bytes + (P - 1) * block * (wire + (s->zero ? 4 : wire));
}

static int64_t all_sent(const sh_grad_sync *s, int64_t since) {
  int64_t sent = sh_comm_bytes() - since;
  sh_sum_i64(&s->grid->world, &sent, 1);
  return sent;
}

/* zero: sums stay with their owners; then values of owners go round. */
static void on_grid(int tensor, int64_t bucket, bool zero, sh_grain grain) {
  sh_grid g;
  sh_params p;
  sh_grad_sync s;
  MPI_Comm world = MPI_COMM_WORLD;
  assert_all(sh_grid_create(&g, &world, tensor) == SH_OK);
  make_params(&p, &g);
  sh_conf_comm comm = {.bucket = bucket, .wire = "fp32"};
  sh_grad_sync_create(&s, &p, &g, &comm, zero, grain);
  const sh_slices *own = &s.buckets.own;
  assert_all(owned_once(&g, &p, own, grain));
  for (int step = 0; step < 3; step++) {
    visit v = {&g, &p, step};
    walk(&v, true, NULL);
    int64_t sent = sh_comm_bytes();
    sum_up(&s);
    sent = all_sent(&s, sent);
    assert_all(walk(&v, false, zero ? own : NULL) == 0);
    double square = sh_dense_grad_sq(&p, own);
    sh_sum_f64(&g.world, &square, 1);
    assert_all(square == whole_norm(&v));
    update(&s, step);
    int64_t spread = sh_comm_bytes();
    sh_grad_sync_values_begin(&s);
    sh_grad_sync_values_end(&s);
    spread = all_sent(&s, spread);
    assert_all(values_are_updated(&p, step));
    assert_all(sent + spread == bytes_of(&s) && (zero || spread == 0));
  }
  sh_grad_sync_destroy(&s);
  sh_params_destroy(&p);
  sh_grid_destroy(&g);
}

static void test_sums(void **state) {
  (void)state;
  static const int64_t buckets[] = {1, 2000, 1 << 20};
  for (int tensor = 1; tensor <= mpi_size(); tensor++)
    for (int k = 0; k < 6 && mpi_size() % tensor == 0; k++) on_grid(tensor, buckets[k / 2], k % 2, SH_GRAIN_ELEMENT);
}

static void test_whole_matrices(void **state) {
  (void)state;
  on_grid(1, 2000, true, SH_GRAIN_MATRIX);
  on_grid(mpi_size() % 2 ? 1 : 2, 1 << 20, false, SH_GRAIN_MATRIX);
}

/* What ranks [first, first + n) have at x, added by the tree of mpi/coll.h. */
static float tree(const float *x, int64_t ld, int n, bool half) {
  int left = 1;
  if (n == 1) return half ? bf16_round(*x) : *x;
  while (2 * left < n) left *= 2;
  return tree(x, ld, left, half) + tree(x + left * ld, ld, n - left, half);
}

/* Any numbers: what everybody has as bf16, added as fp32; without `zero` the sum is rounded once more. Neither buckets
 * nor cuts matter, and wire = fp32 is the same without the roundings. */
static void test_order_and_rounding(void **state) {
  (void)state;
  sh_grid g;
  sh_params p;
  MPI_Comm world = MPI_COMM_WORLD;
  assert_all(sh_grid_create(&g, &world, 1) == SH_OK);
  make_params(&p, &g);
  int P = g.data.size, me = g.data.index;
  float *all = sh_malloc(sizeof *all * (size_t)(p.block * P)), *mine = all + p.block * me;
  for (int64_t k = 0; k < p.block; k++) mine[k] = sinf((float)(k * 7 + me * 13)) * powf(10, (float)(k % 9 - 4));
  sh_allgather(&g.world, mine, sizeof *all * (size_t)p.block, all);
  for (int k = 0; k < 8; k++) {
    bool half = k & 1, zero = k & 2;
    sh_conf_comm comm = {.bucket = k & 4 ? 900 : 1 << 20, .wire = "fp32"};
    if (half) strcpy(comm.wire, "bf16");
    sh_grad_sync s;
    sh_grad_sync_create(&s, &p, &g, &comm, zero, SH_GRAIN_ELEMENT);
    memcpy(p.grad, mine, sizeof *all * (size_t)p.block);
    int64_t sent = sh_comm_bytes();
    sum_up(&s);
    bool right = true;
    for (int i = 0; i < p.n; i++) {
      int64_t first = p.row[i].offset, last = first + p.row[i].size;
      if (zero) first = sh_slice_first(&s.buckets.own, &p, i), last = first + sh_slice_size(&s.buckets.own, &p, i);
      for (int64_t q = first; q < last; q++) {
        float sum = tree(all + q, p.block, P, half && P > 1);
        right &= p.grad[q] == (half && !zero && P > 1 ? bf16_round(sum) : sum);
      }
    }
    assert_all(right);
    sh_grad_sync_values_begin(&s);
    sh_grad_sync_values_end(&s);
    sent = all_sent(&s, sent);
    assert_all(sent == bytes_of(&s));
    sh_grad_sync_destroy(&s);
  }
  free(all);
  sh_params_destroy(&p);
  sh_grid_destroy(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums), cmocka_unit_test(test_whole_matrices),
                                     cmocka_unit_test(test_order_and_rounding)};
  return mpi_run_tests(tests);
}
