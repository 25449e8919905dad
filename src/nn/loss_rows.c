#include "nn/loss_rows.h"

#include "nn/linear.h"

void sh_normalise_rows(const sh_kernels *k, int64_t n, int width, bool l2_norm, float eps, const float *x, int64_t ldx,
                       float *y, int64_t ldy, float *length) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(n); block++) {
    int64_t i = block * SH_TOKEN_BLOCK;
    k->unit_rows(sh_block_rows(n, block), width, l2_norm, eps, x + i * ldx, ldx, y + i * ldy, ldy, length + i);
  }
}

void sh_copy_rows(const sh_kernels *k, int64_t n, int width, bool l2_norm, float eps, const float *x, int64_t ldx,
                  float *copy, float *length) {
  int64_t ld = sh_copy_floats(k, width);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(n); block++) {
    int64_t i = block * SH_TOKEN_BLOCK;
    k->unit_copies(sh_block_rows(n, block), width, l2_norm, eps, x + i * ldx, ldx, copy + i * ld, ld, length + i);
  }
}

void sh_normalise_rows_back(const sh_kernels *k, int64_t n, int width, bool l2_norm, float eps, const float *x,
                            int64_t ldx, const float *length, const float *dy, int64_t lddy, float *dx, int64_t lddx,
                            bool add) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < sh_token_blocks(n); block++) {
    int64_t i = block * SH_TOKEN_BLOCK;
    k->unit_rows_back(sh_block_rows(n, block), width, l2_norm, eps, x + i * ldx, ldx, length + i, dy + i * lddy, lddy,
                      dx + i * lddx, lddx, add);
  }
}
