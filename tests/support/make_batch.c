#include "support/make_batch.h"

#include "core/rng.h"
#include "data/time_runs.h"

const int32_t sh_test_length[SH_TEST_LENGTHS] = {16, 1, 33, 2, 17, 15};

uint32_t sh_make_bits(uint32_t what, int64_t i) {
  return sh_random4(20240, SH_SITE(SH_SITE_TEST, 77), what, i >> 2, 0, 0).v[i & 3];
}

void sh_make_normal(float *x, int64_t n, float scale, uint32_t what) {
  for (int64_t i = 0; i < n; i++) {
    sh_philox r = sh_random4(20241, SH_SITE(SH_SITE_TEST, 78), what, i, 0, 0);
    float two[2];
    sh_normal2(r.v[0], r.v[1], two);
    x[i] = scale * two[0];
  }
}

float *sh_new_normal(int64_t n, float scale, uint32_t what) {
  float *x = sh_malloc(sizeof *x * (size_t)(n + 1));
  sh_make_normal(x, n, scale, what);
  return x;
}

/* Seconds to the next event: none, few, hours, months, years. */
static int64_t gap(uint32_t seed, int64_t i) {
  static const uint32_t range[5] = {1, 5, 20000, 10000000, 200000000};
  return (int64_t)sh_below(sh_make_bits(seed + 1, i), range[sh_below(sh_make_bits(seed, i), 5)]);
}

void sh_make_batch(sh_batch *b, int64_t B, const int32_t *length, int64_t items, uint32_t seed, sh_arena *arena) {
  int32_t *offsets = SH_ARENA_NEW(arena, int32_t, B + 1);
  int64_t *sample = SH_ARENA_NEW(arena, int64_t, B);
  offsets[0] = 0;
  for (int64_t s = 0; s < B; s++) {
    offsets[s + 1] = offsets[s] + length[s];
    sample[s] = ((int64_t)sh_make_bits(seed + 2, s) << (s % 3)) + s;
  }
  int64_t T = offsets[B];
  int64_t *item = SH_ARENA_NEW(arena, int64_t, T), *target = SH_ARENA_NEW(arena, int64_t, T);
  int64_t *time = SH_ARENA_NEW(arena, int64_t, T), *next_time = SH_ARENA_NEW(arena, int64_t, T);
  int32_t *position = SH_ARENA_NEW(arena, int32_t, T), *sequence = SH_ARENA_NEW(arena, int32_t, T);
  for (int64_t s = 0; s < B; s++) {
    int64_t now = 1000000000 + s;
    for (int32_t t = offsets[s]; t < offsets[s + 1]; t++) {
      item[t] = (int64_t)sh_below(sh_make_bits(seed + 3, t), (uint32_t)items);
      target[t] = (int64_t)sh_below(sh_make_bits(seed + 4, t), (uint32_t)items);
      position[t] = t - offsets[s], sequence[t] = (int32_t)s;
      time[t] = now;
      now += gap(seed + 5, t);
      next_time[t] = now;
    }
  }
  *b = (sh_batch){.B = B,
                  .T = T,
                  .offsets = offsets,
                  .sample = sample,
                  .item = item,
                  .target = target,
                  .time = time,
                  .next_time = next_time,
                  .position = position,
                  .sequence = sequence};
  sh_time_runs_build(b, arena);
}
