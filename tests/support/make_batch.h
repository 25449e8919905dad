/* support/make_batch.h: random jagged batches for tests.
 *
 * Sequences come in lengths around the sizes kernels are cut by; times hold ties, neighbours and gaps from a second to
 * years; sample ids go beyond 32 bits. The same seed makes the same batch.
 */
#ifndef SH_TESTS_MAKE_BATCH_H
#define SH_TESTS_MAKE_BATCH_H

#include "data/batch.h"

/* 1, 2, 15, 16, 17, 33 */
enum { SH_TEST_LENGTHS = 6, SH_TEST_LONGEST = 33, SH_TEST_TOKENS = 84 };
extern const int32_t sh_test_length[SH_TEST_LENGTHS];

/* B sequences of these lengths (0 is allowed) over items 0 .. items-1; targets, positions, times of prediction and time
 * runs are set. Arrays lie in `arena`. */
void sh_make_batch(sh_batch *b, int64_t B, const int32_t *length, int64_t items, uint32_t seed, sh_arena *arena);

/* Normal numbers times `scale`: element i of stream `what`. */
void sh_make_normal(float *x, int64_t n, float scale, uint32_t what);
float *sh_new_normal(int64_t n, float scale, uint32_t what); /* free() it */

/* 32 random bits. */
uint32_t sh_make_bits(uint32_t what, int64_t i);

#endif
