/* kernels/gemm_bf16.h: single-threaded products of bf16 operands with fp32 sums, through libxsmm, for the tables of
 * precision bf16 (src/kernels/bf16/, and the attentions of src/kernels/fast/ compiled with SH_BF16). */
#ifndef SH_KERNELS_GEMM_BF16_H
#define SH_KERNELS_GEMM_BF16_H

#include <stdbool.h>
#include <stdint.h>

/* Two bf16 that are neighbours in the inner dimension, the first in the lower half; may alias the floats whose room
 * they take. */
typedef uint32_t __attribute__((may_alias)) sh_pair;

/* C[M x N] = a[M x 2 pairs] b[2 pairs x N] (+ C when add); a is [M x pairs], b is [pairs x N], rows lda and ldb pairs
 * apart. */
void sh_gemm_bf16(int64_t M, int64_t N, int64_t pairs, const sh_pair *a, int64_t lda, const sh_pair *b, int64_t ldb,
                  float *C, int64_t ldc, bool add);

#endif
