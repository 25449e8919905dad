/* kernels/fast/transpose.h: matrices of 32-bit words transposed, 16 x 16 at a time in registers where there are 32 of
 * them: through memory in smaller pieces, each piece would wait for the store before it. Static: see fast.h. */
#ifndef SH_KERNELS_TRANSPOSE_H
#define SH_KERNELS_TRANSPOSE_H

#include "kernels/fast/lanes.h"
#include "kernels/gemm.h"

#if defined(__AVX512F__)

/* r[j] of all 16 := element j of r[0 .. 15]: 4 x 4 words in every quarter of four registers, then the quarters. */
LANES_INLINE void transpose_registers(__m512 r[16]) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2)
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 4)
    for (int k = 0; k < 2; k++) {
      __m512d a = _mm512_castps_pd(t[i + k]), b = _mm512_castps_pd(t[i + k + 2]);
      r[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      r[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 8)
    for (int c = 0; c < 4; c++) {
      t[i + c] = _mm512_shuffle_f32x4(r[i + c], r[i + c + 4], 0x88);
      t[i + c + 4] = _mm512_shuffle_f32x4(r[i + c], r[i + c + 4], 0xdd);
    }
#pragma GCC unroll 8
  for (int c = 0; c < 8; c++) {
    r[c] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0x88);
    r[c + 8] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0xdd);
  }
}

/* Of 16 registers of rows: column j, `rows` elements, to row j of `to`, j below `columns`. Stores without a mask come
 * back from the store buffer, others only from the cache. */
LANES_INLINE void transpose_store(__m512 r[16], int rows, int columns, float *to, int64_t ld) {
  transpose_registers(r);
#pragma GCC unroll 16
  for (int j = 0; j < 16; j++) {
    if (j == columns) return;
    if (rows == 16)
      _mm512_storeu_ps(to + j * ld, r[j]);
    else if (rows == 8)
      _mm256_storeu_ps(to + j * ld, _mm512_castps512_ps256(r[j]));
    else
      _mm512_mask_storeu_ps(to + j * ld, lanes_mask(rows), r[j]);
  }
}

/* B[N x M] = A[M x N]^T. */
static inline void transpose(int M, int N, const float *A, int64_t lda, float *B, int64_t ldb) {
  for (int m = 0; m < M; m += 16)
    for (int n = 0; n < N; n += 16) {
      int rows = lanes_next(M - m), columns = lanes_next(N - n);
      const float *a = A + m * lda + n;
      __m512 r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++)
        r[i] = i < rows ? _mm512_maskz_loadu_ps(lanes_mask(columns), a + i * lda) : _mm512_setzero_ps();
      transpose_store(r, rows, columns, B + n * ldb + m, ldb);
    }
}

#else

static inline void transpose(int M, int N, const float *A, int64_t lda, float *B, int64_t ldb) {
  sh_transpose(M, N, A, lda, B, ldb);
}

#endif
#endif
