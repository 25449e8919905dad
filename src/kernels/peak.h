/* kernels/peak.h: what the cores can do at best: the yardstick of "of peak" and of a run's MFU. */
#ifndef SH_KERNELS_PEAK_H
#define SH_KERNELS_PEAK_H

#include "kernels/kernels.h"

/* FLOP/s of this process: every thread multiplies 64 x 64 matrices in its own cache through libxsmm for some
 * milliseconds, and the best slices of all threads are summed, so that neighbours on a busy machine take little from
 * it. Call outside parallel regions. */
double sh_peak_fp32(void);
double sh_peak_bf16(void);              /* bf16 operands, fp32 sums; 0 where the CPU has no such instructions */
double sh_peak_of(const sh_kernels *k); /* the one of the table's precision */

#endif
