#include "kernels/gemm_bf16.h"

#include <libxsmm.h>
#include <string.h>

#include "kernels/bf16.h"

enum { BLOCK_N = 64, BLOCK_M = 64, BLOCK_PAIRS = 256 }; /* see gemm.c */

/* What a JITted kernel is compiled for; all of int32_t, so that shapes compare as bytes. */
typedef struct shape {
  int32_t n, m, pairs, ldb, lda, ldc, add;
} shape;

/* The kernel of a shape, or NULL; a thread keeps the shapes it met (see gemm.c). */
static libxsmm_bsmmfunction kernel_of(const shape *s) {
  enum { KEPT = 64 };
  static _Thread_local struct {
    shape s;
    libxsmm_bsmmfunction call;
  } kept[KEPT];
  uint32_t hash = (uint32_t)(s->n + 3 * s->m + 17 * s->pairs + 5 * s->ldb + 7 * s->lda + 11 * s->ldc + 2 * s->add);
  unsigned i = (hash ^ hash >> 6) % KEPT;
  if (!kept[i].call || memcmp(&kept[i].s, s, sizeof *s)) {
    const float one = 1, beta = s->add ? 1 : 0;
    const int flags = LIBXSMM_GEMM_FLAG_VNNI_A, k = 2 * s->pairs, lda = 2 * s->lda;
    kept[i].s = *s;
    kept[i].call = libxsmm_bsmmdispatch(s->n, s->m, k, &s->ldb, &lda, &s->ldc, &one, &beta, &flags, NULL);
  }
  return kept[i].call;
}

static void plain(const shape *s, const sh_pair *a, const sh_pair *b, float *C) {
  for (int64_t i = 0; i < s->m; i++)
    for (int64_t j = 0; j < s->n; j++) {
      float sum = s->add ? C[i * s->ldc + j] : 0;
      for (int64_t p = 0; p < s->pairs; p++) {
        sh_pair x = a[i * s->lda + p], y = b[p * s->ldb + j];
        sum += bf16_low(x) * bf16_low(y) + bf16_high(x) * bf16_high(y);
      }
      C[i * s->ldc + j] = sum;
    }
}

static int32_t least(int64_t a, int64_t b) { return (int32_t)(a < b ? a : b); }

void sh_gemm_bf16(int64_t M, int64_t N, int64_t pairs, const sh_pair *a, int64_t lda, const sh_pair *b, int64_t ldb,
                  float *C, int64_t ldc, bool add) {
  shape s = {.ldb = (int32_t)ldb, .lda = (int32_t)lda, .ldc = (int32_t)ldc};
  for (int64_t p = 0; p < pairs; p += BLOCK_PAIRS) {
    s.pairs = least(pairs - p, BLOCK_PAIRS), s.add = add || p > 0;
    for (int64_t n = 0; n < N; n += BLOCK_N) {
      s.n = least(N - n, BLOCK_N);
      for (int64_t m = 0; m < M; m += BLOCK_M) {
        s.m = least(M - m, BLOCK_M);
        const sh_pair *left = a + m * lda + p, *right = b + p * ldb + n;
        libxsmm_bsmmfunction call = kernel_of(&s);
        if (call)
          call((const libxsmm_bfloat16 *)right, (const libxsmm_bfloat16 *)left, C + m * ldc + n);
        else
          plain(&s, left, right, C + m * ldc + n);
      }
    }
  }
}
