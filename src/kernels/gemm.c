#include "kernels/gemm.h"

#include <libxsmm.h>
#include <stdio.h>
#include <string.h>

/* libxsmm is column major: row-major C = A B is column-major C^T = B^T A^T, so its first operand is our B. One JITted
 * kernel covers up to 64 columns of C (four AVX-512 registers), 64 rows and 512 of the inner dimension: near peak, and
 * its operands stay in L1 and L2. */
enum { BLOCK_N = 64, BLOCK_M = 64, BLOCK_K = 512 };

static void plain(int64_t M, int64_t N, int64_t K, const float *A, int64_t am, int64_t ak, const float *B, int64_t ldb,
                  float *C, int64_t ldc, bool add) {
  for (int64_t m = 0; m < M; m++) {
    float *row = C + m * ldc;
    if (!add) memset(row, 0, sizeof(float) * (size_t)N);
    for (int64_t k = 0; k < K; k++) {
      float a = A[m * am + k * ak];
      for (int64_t n = 0; n < N; n++) row[n] += a * B[k * ldb + n];
    }
  }
}

static void blocked(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, bool trans, const float *B,
                    int64_t ldb, float *C, int64_t ldc, bool add) {
  if (K == 0) {
    if (!add)
      for (int64_t m = 0; m < M; m++) memset(C + m * ldc, 0, sizeof(float) * (size_t)N);
    return;
  }
  int64_t am = trans ? 1 : lda, ak = trans ? lda : 1; /* strides of A along M and K */
  libxsmm_blasint la = (libxsmm_blasint)ldb, lb = (libxsmm_blasint)lda, lc = (libxsmm_blasint)ldc;
  int flags = trans ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE;
  const float one = 1, zero = 0;
  for (int64_t k = 0; k < K; k += BLOCK_K) {
    int64_t kb = K - k < BLOCK_K ? K - k : BLOCK_K;
    bool accumulate = add || k > 0;
    for (int64_t n = 0; n < N; n += BLOCK_N) {
      int64_t nb = N - n < BLOCK_N ? N - n : BLOCK_N;
      for (int64_t m = 0; m < M; m += BLOCK_M) {
        int64_t mb = M - m < BLOCK_M ? M - m : BLOCK_M;
        const float *a = A + m * am + k * ak, *b = B + k * ldb + n;
        float *c = C + m * ldc + n;
        libxsmm_smmfunction f = libxsmm_smmdispatch((libxsmm_blasint)nb, (libxsmm_blasint)mb, (libxsmm_blasint)kb, &la,
                                                    &lb, &lc, &one, accumulate ? &one : &zero, &flags, NULL);
        if (f)
          f(b, a, c);
        else
          plain(mb, nb, kb, a, am, ak, b, ldb, c, ldc, accumulate);
      }
    }
  }
}

void sh_gemm(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
             int64_t ldc, bool add) {
  blocked(M, N, K, A, lda, false, B, ldb, C, ldc, add);
}

void sh_gemm_tn(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
                int64_t ldc, bool add) {
  blocked(M, N, K, A, lda, true, B, ldb, C, ldc, add);
}

void sh_transpose(int64_t M, int64_t N, const float *A, int64_t lda, float *B, int64_t ldb) {
  for (int64_t m0 = 0; m0 < M; m0 += 16)
    for (int64_t n0 = 0; n0 < N; n0 += 16) {
      int64_t m1 = m0 + 16 < M ? m0 + 16 : M, n1 = n0 + 16 < N ? n0 + 16 : N;
      for (int64_t n = n0; n < n1; n++)
        for (int64_t m = m0; m < m1; m++) B[n * ldb + m] = A[m * lda + n];
    }
}

const char *sh_gemm_name(void) {
  static char name[64];
  snprintf(name, sizeof name, "libxsmm %s (%s)", LIBXSMM_VERSION, libxsmm_get_target_arch());
  return name;
}
