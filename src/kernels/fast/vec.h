/* kernels/fast/vec.h: elementary functions that vectorise (branch-free, float only). Static: see fast.h. */
#ifndef SH_KERNELS_VEC_H
#define SH_KERNELS_VEC_H

#include <stdint.h>
#include <string.h>

static inline __attribute__((always_inline)) float vec_bits_float(int32_t i) {
  float f;
  memcpy(&f, &i, sizeof f);
  return f;
}
static inline __attribute__((always_inline)) int32_t vec_float_bits(float f) {
  int32_t i;
  memcpy(&i, &f, sizeof i);
  return i;
}

/* exp(x), relative error <= 2e-7 (2 ulp); arguments are clamped to [-87.3, 88.3]. Cephes' reduction and polynomial. */
static inline __attribute__((always_inline)) float vec_exp(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.3f ? 88.3f : x;
  float shifted = x * 1.44269504f + 12582912.f; /* 1.5 * 2^23: rounds to the nearest integer */
  float n = shifted - 12582912.f;
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  return p * vec_bits_float((vec_float_bits(shifted) - 0x4B400000 + 127) << 23);
}

/* 1 / (1 + e^-x), absolute error <= 1e-7. */
static inline __attribute__((always_inline)) float vec_sigmoid(float x) { return 1.f / (1.f + vec_exp(-x)); }

/* ln(x) for normal x > 0, relative error <= 2e-7 away from 1, absolute 1e-7 near it. */
static inline __attribute__((always_inline)) float vec_log(float x) {
  int32_t bits = vec_float_bits(x);
  int32_t e = (bits - 0x3F3504F3) >> 23; /* so that the mantissa lies in [sqrt(1/2), sqrt(2)) */
  float m = vec_bits_float(bits - (int32_t)((uint32_t)e << 23)) - 1.f;
  float fe = (float)e, z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  float y = p * m * z - 2.12194440e-4f * fe - 0.5f * z;
  return m + y + 0.693359375f * fe;
}

#endif
