/* data/time_runs.h: time buckets as runs.
 *
 * bucket(dt) = min(128, trunc(ln(max(1, |dt|)) / 0.301)) in float32, given by integer lower bounds (as the authors'
 * code rounds). Times of a sequence do not decrease, so for a fixed query the bucket does not increase with the key: a
 * query's keys fall into a few runs. They are computed once per batch and shared by layers and passes.
 */
#ifndef SH_DATA_TIME_RUNS_H
#define SH_DATA_TIME_RUNS_H

#include "data/batch.h"

/* Smallest |dt| whose bucket is at least b, for b = 1 .. 128 at [b - 1]. */
extern const int64_t sh_time_bucket_bound[128];

int sh_time_bucket(int64_t dt); /* 0 .. 128; the sign of dt does not matter */

/* Fills b->runs (arrays in `arena`) from time and next_time. Times that decrease (bad data) only make more runs. */
void sh_time_runs_build(sh_batch *b, sh_arena *arena);

#endif
