#include "kernels/gemm.h"

#include <libxsmm.h>
#include <stdio.h>
#include <string.h>

/* libxsmm is column major: row-major C = A B is column-major C^T = B^T A^T, so its first operand is our B. One JITted
 * kernel covers up to 64 columns of C (four AVX-512 registers), 64 rows and 512 of the inner dimension: near peak, and
 * its operands stay in L1 and L2. */
enum { BLOCK_N = SH_PANEL, BLOCK_M = 64, BLOCK_K = 512 };

/* What a JITted kernel is compiled for; all of int32_t, so that shapes compare as bytes. */
typedef struct shape {
  int32_t n, m, k, ldb, lda, ldc, flags, add;
} shape;

/* The kernel of a shape, or NULL. libxsmm's own look-up costs some 25 ns, a few per cent of a small product: a thread
 * keeps the shapes it met. */
static libxsmm_smmfunction kernel_of(const shape *s) {
  enum { KEPT = 64 };
  static _Thread_local struct {
    shape s;
    libxsmm_smmfunction call;
  } kept[KEPT];
  uint32_t hash =
      (uint32_t)(s->n + 3 * s->m + 17 * s->k + 5 * s->ldb + 7 * s->lda + 11 * s->ldc + s->flags + 2 * s->add);
  unsigned i = (hash ^ hash >> 6) % KEPT;
  if (!kept[i].call || memcmp(&kept[i].s, s, sizeof *s)) {
    const float one = 1, beta = s->add ? 1 : 0;
    kept[i].s = *s;
    kept[i].call = libxsmm_smmdispatch(s->n, s->m, s->k, &s->ldb, &s->lda, &s->ldc, &one, &beta, &s->flags, NULL);
  }
  return kept[i].call;
}

static void plain(const shape *s, const float *A, const float *B, float *C) {
  bool trans = s->flags & LIBXSMM_GEMM_FLAG_TRANS_B;
  int64_t am = trans ? 1 : s->lda, ak = trans ? s->lda : 1;
  for (int64_t m = 0; m < s->m; m++) {
    float *row = C + m * s->ldc;
    if (!s->add) memset(row, 0, sizeof(float) * (size_t)s->n);
    for (int64_t k = 0; k < s->k; k++) {
      float a = A[m * am + k * ak];
      for (int64_t n = 0; n < s->n; n++) row[n] += a * B[k * s->ldb + n];
    }
  }
}

static int32_t least(int64_t a, int64_t b) { return (int32_t)(a < b ? a : b); }

/* `panel`: floats from one panel of 64 columns of B to the next. */
static void blocked(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, bool trans, const float *B,
                    int64_t ldb, int64_t panel, float *C, int64_t ldc, bool add) {
  if (K == 0 && !add)
    for (int64_t m = 0; m < M; m++) memset(C + m * ldc, 0, sizeof(float) * (size_t)N);
  int64_t am = trans ? 1 : lda, ak = trans ? lda : 1; /* strides of A along M and K */
  shape s = {.ldb = (int32_t)ldb, .lda = (int32_t)lda, .ldc = (int32_t)ldc};
  s.flags = trans ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE;
  for (int64_t k = 0; k < K; k += BLOCK_K) {
    s.k = least(K - k, BLOCK_K), s.add = add || k > 0;
    for (int64_t n = 0; n < N; n += BLOCK_N) {
      s.n = least(N - n, BLOCK_N);
      for (int64_t m = 0; m < M; m += BLOCK_M) {
        s.m = least(M - m, BLOCK_M);
        const float *a = A + m * am + k * ak, *b = B + n / BLOCK_N * panel + k * ldb;
        libxsmm_smmfunction call = kernel_of(&s);
        if (call)
          call(b, a, C + m * ldc + n);
        else
          plain(&s, a, b, C + m * ldc + n);
      }
    }
  }
}

void sh_gemm(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
             int64_t ldc, bool add) {
  blocked(M, N, K, A, lda, false, B, ldb, BLOCK_N, C, ldc, add);
}

void sh_gemm_tn(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
                int64_t ldc, bool add) {
  blocked(M, N, K, A, lda, true, B, ldb, BLOCK_N, C, ldc, add);
}

int64_t sh_right_room(int64_t K, int64_t N) { return (N + SH_PANEL - 1) / SH_PANEL * SH_PANEL * K; }

void sh_right_pack(const sh_right *B, const float *W, int64_t ldw, bool transposed, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; n += SH_PANEL) {
    int64_t width = least(n1 - n, SH_PANEL);
    float *panel = B->packed + n * B->K;
    if (transposed)
      sh_transpose(width, B->K, W + n * ldw, ldw, panel, SH_PANEL);
    else
      for (int64_t k = 0; k < B->K; k++) memcpy(panel + k * SH_PANEL, W + k * ldw + n, sizeof(float) * (size_t)width);
  }
}

void sh_multiply(int64_t M, const float *A, int64_t lda, const sh_right *B, float *C, int64_t ldc, bool add) {
  blocked(M, B->N, B->K, A, lda, false, B->packed, SH_PANEL, SH_PANEL * B->K, C, ldc, add);
}

/* Four rows of four at a time, in registers. */
typedef float four __attribute__((vector_size(16)));
typedef int32_t mask4 __attribute__((vector_size(16)));
static inline void transpose_4x4(const float *a, int64_t lda, float *b, int64_t ldb) {
  four r[4], t[4];
  for (int i = 0; i < 4; i++) memcpy(&r[i], a + i * lda, sizeof(four));
  t[0] = __builtin_shuffle(r[0], r[1], (mask4){0, 4, 1, 5}), t[1] = __builtin_shuffle(r[2], r[3], (mask4){0, 4, 1, 5});
  t[2] = __builtin_shuffle(r[0], r[1], (mask4){2, 6, 3, 7}), t[3] = __builtin_shuffle(r[2], r[3], (mask4){2, 6, 3, 7});
  for (int i = 0; i < 4; i += 2) {
    r[i] = __builtin_shuffle(t[i], t[i + 1], (mask4){0, 1, 4, 5});
    r[i + 1] = __builtin_shuffle(t[i], t[i + 1], (mask4){2, 3, 6, 7});
  }
  for (int i = 0; i < 4; i++) memcpy(b + i * ldb, &r[i], sizeof(four));
}

void sh_transpose(int64_t M, int64_t N, const float *A, int64_t lda, float *B, int64_t ldb) {
  int64_t m4 = M / 4 * 4, n4 = N / 4 * 4;
  for (int64_t m0 = 0; m0 < m4; m0 += 16) /* 16 rows: whole cache lines of B */
    for (int64_t n = 0; n < n4; n += 4)
      for (int64_t m = m0; m < m4 && m < m0 + 16; m += 4) transpose_4x4(A + m * lda + n, lda, B + n * ldb + m, ldb);
  for (int64_t n = n4; n < N; n++)
    for (int64_t m = 0; m < m4; m++) B[n * ldb + m] = A[m * lda + n];
  for (int64_t m = m4; m < M; m++)
    for (int64_t n = 0; n < N; n++) B[n * ldb + m] = A[m * lda + n];
}
