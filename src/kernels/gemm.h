/* kernels/gemm.h: single-threaded row-major GEMM through libxsmm, in blocks that fit its JIT. */
#ifndef SH_KERNELS_GEMM_H
#define SH_KERNELS_GEMM_H

#include "kernels/kernels.h"

/* C[M x N] = A[M x K] B[K x N] (+ C). */
void sh_gemm(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
             int64_t ldc, bool add);
/* C[M x N] = A[K x M]^T B[K x N] (+ C). */
void sh_gemm_tn(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
                int64_t ldc, bool add);

/* The table's products of linear layers (kernels.h) in fp32: B lies in panels [K x SH_PANEL]. */
int64_t sh_right_room(int64_t K, int64_t N);
void sh_right_pack(const sh_right *B, const float *W, int64_t ldw, bool transposed, int64_t n0, int64_t n1);
void sh_multiply(int64_t M, const float *A, int64_t lda, const sh_right *B, float *C, int64_t ldc, bool add);

/* The same with operands rounded to bf16 and multiplied in fp32: what a CPU without bf16 instructions runs. */
void sh_right_pack_rounded(const sh_right *B, const float *W, int64_t ldw, bool transposed, int64_t n0, int64_t n1);
void sh_multiply_rounded(int64_t M, const float *A, int64_t lda, const sh_right *B, float *C, int64_t ldc, bool add);
void sh_multiply_tn_rounded(int64_t K, int64_t N, int64_t T, const float *A, int64_t lda, const float *B, int64_t ldb,
                            float *C, int64_t ldc, bool add);
void sh_unit_copies_rounded(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *copy,
                            int64_t ld, float *length);

/* B[N x M] = A[M x N]^T. */
void sh_transpose(int64_t M, int64_t N, const float *A, int64_t lda, float *B, int64_t ldb);

#endif
