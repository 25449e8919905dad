/* The function table of one instruction set: of precision fp32, or bf16 where the set has its instructions. */
#include "kernels/fast/fast.h"
#include "kernels/gemm.h"
#ifdef SH_BF16
#include "kernels/bf16/bf16_fn.h"
#endif

#define STR2(x) #x
#define STR(x)  STR2(x)

extern const sh_kernels SH_JOIN(sh_kernels, SH_ISA);
const sh_kernels SH_JOIN(sh_kernels, SH_ISA) = {
    .name = STR(SH_ISA),
    .gemm = sh_gemm,
    .gemm_tn = sh_gemm_tn,
#ifdef SH_BF16
    .precision = "bf16",
    .copy_parts = 2,
    .right_room = SH_FN(bf16_right_room),
    .right_pack = SH_FN(bf16_right_pack),
    .multiply = SH_FN(bf16_multiply),
    .multiply_tn = SH_FN(bf16_multiply_tn),
#else
    .precision = "fp32",
    .copy_parts = 1,
    .right_room = sh_right_room,
    .right_pack = sh_right_pack,
    .multiply = sh_multiply,
    .multiply_tn = sh_gemm_tn,
#endif
    .layernorm = SH_FN(layernorm),
    .layernorm_back = SH_FN(layernorm_back),
    .rmsnorm = SH_FN(rmsnorm),
    .rmsnorm_back = SH_FN(rmsnorm_back),
    .silu = SH_FN(silu),
    .silu_back = SH_FN(silu_back),
    .silu_half = SH_FN(silu_half),
    .silu_back_half = SH_FN(silu_back_half),
    .random_words = SH_FN(random_words),
    .random_below = SH_FN(random_below),
    .row_sums = SH_FN(row_sums),
    .dropout = SH_FN(dropout),
    .hstu_attention = SH_FN(hstu_attention),
    .hstu_attention_back = SH_FN(hstu_attention_back),
    .fuxi_attention = SH_FN(fuxi_attention),
    .fuxi_attention_back = SH_FN(fuxi_attention_back),
    .softmax_attention = SH_FN(softmax_attention),
    .softmax_attention_back = SH_FN(softmax_attention_back),
    .adamw = SH_FN(adamw),
    .unit_rows = SH_FN(unit_rows),
    .unit_rows_back = SH_FN(unit_rows_back),
    .unit_copies = SH_FN(unit_copies),
    .gather_sum = SH_FN(gather_sum),
    .sampled_softmax = SH_FN(sampled_softmax),
    .pair_sums = SH_FN(pair_sums),
    .softmax_scan = SH_FN(softmax_scan),
    .softmax_tile = SH_FN(softmax_tile),
    .gate = SH_FN(gate),
    .gate_back = SH_FN(gate_back),
    .add_affine = SH_FN(add_affine),
    .dot = SH_FN(dot),
    .axpy = SH_FN(axpy),
};
