/* kernels/ref/ref.h: the plain formulas, with double accumulation: what every other table is checked against. */
#ifndef SH_KERNELS_REF_H
#define SH_KERNELS_REF_H

#include "kernels/kernels.h"

void sh_ref_hstu_attention(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work);
void sh_ref_hstu_attention_back(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work);
void sh_ref_fuxi_attention(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work);
void sh_ref_fuxi_attention_back(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work);
void sh_ref_softmax_attention(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample,
                              int64_t first_element, float *work);
void sh_ref_softmax_attention_back(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample,
                                   int64_t first_element, float *work);

static inline double ref_sigmoid(double x) { return 1.0 / (1.0 + __builtin_exp(-x)); }
static inline double ref_silu_slope(double x) {
  double s = ref_sigmoid(x);
  return s * (1.0 + x * (1.0 - s));
}
static inline double ref_dot(int64_t n, const float *a, const float *b) {
  double s = 0;
  for (int64_t k = 0; k < n; k++) s += (double)a[k] * (double)b[k];
  return s;
}

#endif
