/* Sequences for a benchmark without data: what matters to speed is how long they are and how many runs of equal time
 * bucket a query sees, so both follow quantiles counted on MovieLens-1M. Which item comes when matters little: a step's
 * negatives touch most rows of the table anyway. */
#include <math.h>
#include <stdlib.h>

#include "core/rng.h"
#include "data/dataset.h"
#include "tools/bench_internal.h"

enum { USERS = 6040, ITEMS = 3883, POINTS = 9 };

/* Piecewise linear in the logarithm. */
typedef struct quantiles {
  double p[POINTS], x[POINTS];
} quantiles;
static const quantiles events_of_user = {{0, .05, .10, .25, .50, .75, .90, .95, 1},
                                         {20, 23, 27, 44, 96, 208, 400, 556, 2314}};
static const quantiles seconds_between = {{0, .415, .50, .75, .90, .95, .98, .99, 1},
                                          {.1, .9, 12, 30, 71, 160, 72500, 775000, 4e7}};

static double draw(const quantiles *q, double u) {
  int i = 1;
  while (i < POINTS - 1 && u > q->p[i]) i++;
  double w = (u - q->p[i - 1]) / (q->p[i] - q->p[i - 1]);
  return exp(log(q->x[i - 1]) + w * (log(q->x[i]) - log(q->x[i - 1])));
}

static double uniform(int64_t user, int64_t event, int lane) {
  sh_philox r = sh_random4(0, SH_SITE(SH_SITE_SYNTH, 1), 0, user, (uint32_t)event, 0);
  return ((double)r.v[lane] + 0.5) * 0x1p-32;
}

/* Beyond the window nobody looks: it ends two events before the last, which are kept for tests and targets. */
static int64_t events_of(int64_t user, int64_t length, int64_t max_len) {
  int64_t events = length > 0 ? length + 2 : (int64_t)draw(&events_of_user, uniform(user, 0, 0));
  return events < max_len + 2 ? events : max_len + 2;
}

sh_status sh_bench_data(const char *path, const sh_bench_sequences *want, int64_t batch_users, int64_t max_len) {
  int64_t items = want->items ? want->items : ITEMS, n = 0;
  int64_t users = want->users ? want->users : want->length ? 4 * batch_users : USERS;
  int64_t *offsets = sh_malloc(sizeof *offsets * (size_t)(users + 1));
  offsets[0] = 0;
  for (int64_t u = 0; u < users; u++) offsets[u + 1] = n += events_of(u, want->length, max_len);
  int32_t *item = sh_malloc(sizeof *item * (size_t)n);
  int64_t *time = sh_malloc(sizeof *time * (size_t)n);
  for (int64_t u = 0; u < users; u++) {
    int64_t now = 956703932;
    for (int64_t e = offsets[u]; e < offsets[u + 1]; e++) {
      now += (int64_t)draw(&seconds_between, uniform(u, e - offsets[u], 1));
      time[e] = now;
      item[e] = (int32_t)((double)items * pow(uniform(u, e - offsets[u], 2), 2.2)); /* some are popular */
    }
  }
  sh_dataset_content c = {.name = "bench",
                          .provenance = "shoal bench",
                          .users = users,
                          .events = n,
                          .items = items,
                          .offsets = offsets,
                          .item = item,
                          .time = time};
  sh_status status = sh_dataset_write(&c, path);
  free(offsets);
  free(item);
  free(time);
  return status;
}
