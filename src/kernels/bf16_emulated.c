/* Precision bf16 without the instructions: operands are rounded and multiplied as floats (products of two bf16 numbers
 * are exact in fp32, as they are in the instructions). */
#include "kernels/bf16.h"
#include "kernels/gemm.h"

enum { TILE = 64, DEPTH = 256 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void round_block(int64_t rows, int64_t n, const float *x, int64_t ldx, float *y, int64_t ldy) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < n; k++) y[i * ldy + k] = bf16_round(x[i * ldx + k]);
}

void sh_right_pack_rounded(const sh_right *B, const float *W, int64_t ldw, bool transposed, int64_t n0, int64_t n1) {
  sh_right_pack(B, W, ldw, transposed, n0, n1);
  for (int64_t n = n0; n < n1; n += SH_PANEL) {
    float *panel = B->packed + n * B->K;
    round_block(B->K, least(n1 - n, SH_PANEL), panel, SH_PANEL, panel, SH_PANEL);
  }
}

void sh_multiply_rounded(int64_t M, const float *A, int64_t lda, const sh_right *B, float *C, int64_t ldc, bool add) {
  float a[TILE * DEPTH];
  for (int64_t m = 0; m < M; m += TILE) {
    int64_t rows = least(M - m, TILE), k = 0;
    do { /* once even when K = 0: C is then zero, or stays */
      int64_t depth = least(B->K - k, DEPTH);
      round_block(rows, depth, A + m * lda + k, lda, a, DEPTH);
      for (int64_t n = 0; n < B->N; n += SH_PANEL)
        sh_gemm(rows, least(B->N - n, SH_PANEL), depth, a, DEPTH, B->packed + n * B->K + k * SH_PANEL, SH_PANEL,
                C + m * ldc + n, ldc, add || k > 0);
      k += depth;
    } while (k < B->K);
  }
}

void sh_multiply_tn_rounded(int64_t K, int64_t N, int64_t T, const float *A, int64_t lda, const float *B, int64_t ldb,
                            float *C, int64_t ldc, bool add) {
  float a[DEPTH * TILE], b[DEPTH * TILE];
  int64_t t = 0;
  do {
    int64_t depth = least(T - t, DEPTH);
    for (int64_t k = 0; k < K; k += TILE) {
      round_block(depth, least(K - k, TILE), A + t * lda + k, lda, a, TILE);
      for (int64_t n = 0; n < N; n += TILE) {
        round_block(depth, least(N - n, TILE), B + t * ldb + n, ldb, b, TILE);
        sh_gemm_tn(least(K - k, TILE), least(N - n, TILE), depth, a, TILE, b, TILE, C + k * ldc + n, ldc, add || t > 0);
      }
    }
    t += depth;
  } while (t < T);
}

void sh_unit_copies_rounded(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *copy,
                            int64_t ld, float *length) {
  const sh_kernels *k = sh_kernels_best();
  int64_t columns = sh_copy_columns(k, width);
  k->unit_copies(n, width, l2_norm, eps, x, ldx, copy, ld, length);
  round_block(n, columns, copy, ld, copy, ld);
}
