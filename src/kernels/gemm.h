/* kernels/gemm.h: single-threaded row-major GEMM through libxsmm (blocks that fit its JIT) over BLIS. */
#ifndef SH_KERNELS_GEMM_H
#define SH_KERNELS_GEMM_H
#include <stdbool.h>
#include <stdint.h>

/* C[M x N] = A[M x K] B[K x N] (+ C). */
void sh_gemm(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
             int64_t ldc, bool add);
/* C[M x N] = A[K x M]^T B[K x N] (+ C). */
void sh_gemm_tn(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
                int64_t ldc, bool add);
/* B[N x M] = A[M x N]^T. */
void sh_transpose(int64_t M, int64_t N, const float *A, int64_t lda, float *B, int64_t ldb);

/* Name of the library and code path, for --version and bench: "libxsmm 1.17 (cpx)". */
const char *sh_gemm_name(void);
#endif
