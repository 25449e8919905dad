/* core/csr.h: group n references by what they refer to, in reference order. Used to sum gradients of shared rows
 * without locks and in an order that no thread count changes. */
#ifndef SH_CORE_CSR_H
#define SH_CORE_CSR_H

#include <stdint.h>

#include "core/arena.h"

typedef struct sh_csr {
  int64_t n, rows;
  int32_t *start; /* [rows+1] */
  int32_t *item;  /* [n] references of row r: item[start[r] .. start[r+1]), ascending */
} sh_csr;

/* row[n] in 0 .. rows-1, n < 2^31. Arrays in `arena`. Thread parallel; the result is unique. */
void sh_csr_build(sh_csr *c, int64_t n, const int32_t *row, int64_t rows, sh_arena *arena);

#endif
