/* The products of linear layers with AVX512_BF16, through libxsmm: first operand (our B) in panels of 64 columns whose
 * rows are pairs of the inner dimension [K/2 x 64 x 2], second operand (our A) row major, rounded 64 rows at a time
 * into a buffer that stays in L1 and L2. An odd inner dimension is padded with zeros. */
#include "kernels/bf16.h"
#include "kernels/bf16/bf16_fn.h"
#include "kernels/fast/transpose.h"
#include "kernels/gemm.h"
#include "kernels/gemm_bf16.h"

enum { ROWS = 64, DEPTH = 512, PASS = 256, WIDTH = 256 }; /* PASS tokens by WIDTH columns of A: a gradient's block */

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t pairs_of(int64_t k) { return (k + 1) / 2; }

/* to[pairs of rows x ld]: a block of rows x n, pairs of rows. */
static void round_block(int64_t rows, int64_t n, const float *x, int64_t ldx, sh_pair *to, int64_t ld) {
  for (int64_t r = 0; r < rows; r += 2)
    bf16_round_rows(n, x + r * ldx, r + 1 < rows ? x + (r + 1) * ldx : NULL, to + r / 2 * ld);
}

static void transpose_words(int64_t m, int64_t n, const sh_pair *a, int64_t lda, sh_pair *b, int64_t ldb) {
  transpose((int)m, (int)n, (const float *)a, lda, (float *)b, ldb);
}

int64_t SH_FN(bf16_right_room)(int64_t K, int64_t N) { return sh_right_room(pairs_of(K), N); }

void SH_FN(bf16_right_pack)(const sh_right *B, const float *W, int64_t ldw, bool transposed, int64_t n0, int64_t n1) {
  sh_pair rows[SH_PANEL * DEPTH / 2];
  int64_t K = B->K, pairs = pairs_of(K);
  for (int64_t n = n0; n < n1; n += SH_PANEL) {
    int64_t width = least(n1 - n, SH_PANEL);
    sh_pair *panel = (sh_pair *)B->packed + n * pairs;
    if (!transposed) round_block(K, width, W + n, ldw, panel, SH_PANEL);
    for (int64_t k = 0; k < K && transposed; k += DEPTH) {
      int64_t depth = least(K - k, DEPTH);
      for (int64_t j = 0; j < width; j++) bf16_round_row(depth, W + (n + j) * ldw + k, rows + j * (DEPTH / 2));
      transpose_words(width, pairs_of(depth), rows, DEPTH / 2, panel + k / 2 * SH_PANEL, SH_PANEL);
    }
  }
}

void SH_FN(bf16_multiply)(int64_t M, const float *A, int64_t lda, const sh_right *B, float *C, int64_t ldc, bool add) {
  sh_pair a[ROWS * DEPTH / 2] __attribute__((aligned(64)));
  int64_t pairs = pairs_of(B->K);
  if (B->K == 0) {
    sh_gemm(M, B->N, 0, A, lda, B->packed, SH_PANEL, C, ldc, add);
    return;
  }
  for (int64_t m = 0; m < M; m += ROWS)
    for (int64_t k = 0; k < B->K; k += DEPTH) {
      int64_t rows = least(M - m, ROWS), depth = least(B->K - k, DEPTH), ld = pairs_of(depth);
      for (int64_t i = 0; i < rows; i++) bf16_round_row(depth, A + (m + i) * lda + k, a + i * ld);
      for (int64_t n = 0; n < B->N; n += SH_PANEL)
        sh_gemm_bf16(rows, least(B->N - n, SH_PANEL), ld, a, ld,
                     (const sh_pair *)B->packed + n * pairs + k / 2 * SH_PANEL, SH_PANEL, C + m * ldc + n, ldc,
                     add || k > 0);
    }
}

/* A^T of one block of tokens: pairs of tokens side by side, then transposed as words. */
static void pack_left(int64_t T, int64_t width, const float *A, int64_t lda, sh_pair *to, int64_t ld) {
  sh_pair rows[SH_PANEL * PASS / 2];
  for (int64_t k = 0; k < width; k += SH_PANEL) {
    int64_t n = least(width - k, SH_PANEL);
    round_block(T, n, A + k, lda, rows, SH_PANEL);
    transpose_words(pairs_of(T), n, rows, SH_PANEL, to + k * ld, ld);
  }
}

void SH_FN(bf16_multiply_tn)(int64_t K, int64_t N, int64_t T, const float *A, int64_t lda, const float *B, int64_t ldb,
                             float *C, int64_t ldc, bool add) {
  sh_pair a[WIDTH * PASS / 2] __attribute__((aligned(64))), b[SH_PANEL * PASS / 2] __attribute__((aligned(64)));
  if (T == 0) sh_gemm_tn(K, N, 0, A, lda, B, ldb, C, ldc, add);
  for (int64_t t = 0; t < T; t += PASS)
    for (int64_t k0 = 0; k0 < K; k0 += WIDTH) {
      int64_t tokens = least(T - t, PASS), width = least(K - k0, WIDTH), ld = pairs_of(tokens);
      pack_left(tokens, width, A + t * lda + k0, lda, a, ld);
      for (int64_t n = 0; n < N; n += SH_PANEL) {
        int64_t columns = least(N - n, SH_PANEL);
        round_block(tokens, columns, B + t * ldb + n, ldb, b, SH_PANEL);
        for (int64_t k = 0; k < width; k += ROWS)
          sh_gemm_bf16(least(width - k, ROWS), columns, ld, a + k * ld, ld, b, SH_PANEL, C + (k0 + k) * ldc + n, ldc,
                       add || t > 0);
      }
    }
}
