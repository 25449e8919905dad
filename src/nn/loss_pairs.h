/* nn/loss_pairs.h: the (token, candidate) pairs of a tile of tokens, sorted by the row they refer to. */
#ifndef SH_NN_LOSS_PAIRS_H
#define SH_NN_LOSS_PAIRS_H

#include "kernels/kernels.h"

/* Tokens whose pairs are sorted and summed together, when each has m: few enough that hidden states and pairs stay in a
 * core's cache, enough that a pass over all rows costs less than the pairs. 512 or more; at most 2^29 pairs, or 512 m.
 */
int64_t sh_pairs_tile(int64_t tokens, int64_t m, int64_t rows);

/* Coefficient coef[t ldcoef + j] refers to row slot[t m + j] < rows, t < tokens, j < m. pair[tokens m] receives all
 * pairs by row, those of a row by token and candidate; start[rows + 1] where each row's begin. Serial. */
void sh_pairs_by_row(int64_t tokens, int64_t m, const int32_t *slot, const float *coef, int64_t ldcoef, int64_t rows,
                     int32_t *start, sh_share *pair);

#endif
