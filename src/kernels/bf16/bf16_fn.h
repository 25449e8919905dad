/* kernels/bf16/bf16_fn.h: these files are compiled beside src/kernels/fast/ for the instruction sets with bf16 dot
 * products, and only for them. fast.h has the rules. */
#ifndef SH_KERNELS_BF16_FN_H
#define SH_KERNELS_BF16_FN_H

#include "kernels/fast/fast.h"

int64_t SH_FN(bf16_right_room)(int64_t, int64_t);
void SH_FN(bf16_right_pack)(const sh_right *, const float *, int64_t, bool, int64_t, int64_t);
void SH_FN(bf16_multiply)(int64_t, const float *, int64_t, const sh_right *, float *, int64_t, bool);
void SH_FN(bf16_multiply_tn)(int64_t, int64_t, int64_t, const float *, int64_t, const float *, int64_t, float *,
                             int64_t, bool);

#endif
