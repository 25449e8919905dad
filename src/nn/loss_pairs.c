#include "nn/loss_pairs.h"

#include <string.h>

int64_t sh_pairs_tile(int64_t tokens, int64_t m, int64_t rows) {
  int64_t tile = 512;
  while (tile < tokens && tile * m < 16 * rows && tile * m < 1 << 28) tile *= 2;
  return tile;
}

/* Counting sort. */
void sh_pairs_by_row(int64_t tokens, int64_t m, const int32_t *slot, const float *coef, int64_t ldcoef, int64_t rows,
                     int32_t *start, sh_share *pair) {
  memset(start, 0, sizeof *start * (size_t)(rows + 1));
  for (int64_t i = 0; i < tokens * m; i++) start[slot[i]]++;
  int32_t end = 0;
  for (int64_t r = 0; r < rows; r++) start[r] = end += start[r];
  start[rows] = end;
  for (int64_t t = tokens - 1; t >= 0; t--) /* from behind, so that ends become starts */
    for (int64_t j = m - 1; j >= 0; j--)
      pair[--start[slot[t * m + j]]] = (sh_share){.coef = coef[t * ldcoef + j], .token = (int32_t)t};
}
