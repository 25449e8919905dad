/* kernels/fast/fast.h: these files are compiled once per instruction set (SH_ISA = portable, avx2, avx512); SH_FN gives
 * a function its name in that compilation. Loops are written for the compiler's vectoriser, widths are never assumed.
 * No function here may be called except through the table, and no header may bring code that another translation unit
 * could share (it would carry instructions of this set). */
#ifndef SH_KERNELS_FAST_H
#define SH_KERNELS_FAST_H

#include "kernels/kernels.h"

#define SH_JOIN2(a, b) a##_##b
#define SH_JOIN(a, b)  SH_JOIN2(a, b)
#define SH_FN(name)    SH_JOIN(sh_##name, SH_ISA)

#define SH_SIMD        _Pragma("omp simd")
#define SH_SIMD_SUM(x) SH_PRAGMA(omp simd reduction(+ : x))
#define SH_PRAGMA(x)   _Pragma(#x)

void SH_FN(layernorm)(int64_t, int64_t, float, const float *, int64_t, float *, int64_t, float *);
void SH_FN(layernorm_back)(int64_t, int64_t, const float *, int64_t, const float *, const float *, int64_t, float *,
                           int64_t, bool);
void SH_FN(rmsnorm)(int64_t, int64_t, float, const float *, int64_t, float *, int64_t, float *);
void SH_FN(rmsnorm_back)(int64_t, int64_t, const float *, int64_t, const float *, const float *, int64_t, float *,
                         int64_t, bool);
void SH_FN(silu)(int64_t, const float *, float *);
void SH_FN(silu_back)(int64_t, const float *, const float *, float *);
void SH_FN(silu_half)(int64_t, const float *, uint16_t *, float *);
void SH_FN(silu_back_half)(int64_t, const uint16_t *, const float *, float *);
void SH_FN(random_words)(const sh_draw *, uint32_t, int, uint32_t *);
void SH_FN(random_below)(const sh_draw *, uint32_t, int, uint32_t, uint32_t *);
void SH_FN(row_sums)(int64_t, const float *, double[2]);
void SH_FN(dropout)(const sh_drop *, int64_t, int32_t, int64_t, int64_t, const float *, float *);
void SH_FN(gate)(int64_t, const float *, const float *, float, float, float *);
void SH_FN(gate_back)(int64_t, const float *, const float *, const float *, const float *, const float *, float, float,
                      float *, float *, float[2]);
void SH_FN(add_affine)(int64_t, const float *, double, double, const float *, float *);
void SH_FN(hstu_attention)(const sh_heads_io *, const sh_rel_bias *, float, float *);
void SH_FN(hstu_attention_back)(const sh_heads_io *, const sh_rel_bias *, float, float *);
void SH_FN(fuxi_attention)(const sh_heads_io *, const sh_fuxi_maps *, float, float *);
void SH_FN(fuxi_attention_back)(const sh_heads_io *, const sh_fuxi_maps *, float, float *);
void SH_FN(softmax_attention)(const sh_heads_io *, float, const sh_drop *, int64_t, int64_t, float *);
void SH_FN(softmax_attention_back)(const sh_heads_io *, float, const sh_drop *, int64_t, int64_t, float *);
void SH_FN(adamw)(int64_t, double, double, double, double, double, double, double, float, const float *, float *,
                  float *, float *);
void SH_FN(unit_rows)(int64_t, int64_t, bool, float, const float *, int64_t, float *, int64_t, float *);
void SH_FN(unit_copies)(int64_t, int64_t, bool, float, const float *, int64_t, float *, int64_t, float *);
void SH_FN(unit_rows_back)(int64_t, int64_t, bool, float, const float *, int64_t, const float *, const float *, int64_t,
                           float *, int64_t, bool);
void SH_FN(gather_sum)(int64_t, int64_t, const float *, const float *, int64_t, const int32_t *, float *);
double SH_FN(sampled_softmax)(int64_t, int64_t, int64_t, float, float, const float *, const float *, int64_t,
                              const int32_t *, float *, int64_t, float *);
void SH_FN(pair_sums)(int64_t, int64_t, const int32_t *, const sh_share *, const float *, int64_t, float *, int64_t);
void SH_FN(softmax_scan)(int64_t, int64_t, float, const float *, const float *, int64_t, float *, double *);
void SH_FN(softmax_tile)(int64_t, int64_t, float, const float *, const float *, float, float *, int64_t);
float SH_FN(dot)(int64_t, const float *, const float *);
void SH_FN(axpy)(int64_t, float, const float *, float *);

#endif
