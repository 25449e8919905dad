/* The reference table: row-wise and element-wise formulas. */
#include <math.h>

#include "core/bf16.h"
#include "core/rng.h"
#include "kernels/ref/ref.h"

static void gemm(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
                 int64_t ldc, bool add) {
  for (int64_t m = 0; m < M; m++)
    for (int64_t n = 0; n < N; n++) {
      double s = add ? (double)C[m * ldc + n] : 0;
      for (int64_t k = 0; k < K; k++) s += (double)A[m * lda + k] * (double)B[k * ldb + n];
      C[m * ldc + n] = (float)s;
    }
}

static void gemm_tn(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
                    int64_t ldc, bool add) {
  for (int64_t m = 0; m < M; m++)
    for (int64_t n = 0; n < N; n++) {
      double s = add ? (double)C[m * ldc + n] : 0;
      for (int64_t k = 0; k < K; k++) s += (double)A[k * lda + m] * (double)B[k * ldb + n];
      C[m * ldc + n] = (float)s;
    }
}

/* B as it is, tight. */
static int64_t right_room(int64_t K, int64_t N) { return K * N; }
static void right_pack(const sh_right *B, const float *W, int64_t ldw, bool transposed, int64_t n0, int64_t n1) {
  for (int64_t k = 0; k < B->K; k++)
    for (int64_t n = n0; n < n1; n++) B->packed[k * B->N + n] = transposed ? W[n * ldw + k] : W[k * ldw + n];
}
static void multiply(int64_t M, const float *A, int64_t lda, const sh_right *B, float *C, int64_t ldc, bool add) {
  gemm(M, B->N, B->K, A, lda, B->packed, B->N, C, ldc, add);
}

/* Both norms: layer norm subtracts the mean, RMS norm does not. */
static void norm(bool centre, int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                 float *rstd) {
  for (int64_t i = 0; i < rows; i++) {
    double mean = 0, sq = 0;
    for (int64_t k = 0; k < n && centre; k++) mean += (double)x[i * ldx + k] / (double)n;
    for (int64_t k = 0; k < n; k++) sq += ((double)x[i * ldx + k] - mean) * ((double)x[i * ldx + k] - mean);
    double r = 1.0 / sqrt(sq / (double)n + (double)eps);
    for (int64_t k = 0; k < n; k++) y[i * ldy + k] = (float)(((double)x[i * ldx + k] - mean) * r);
    rstd[i] = (float)r;
  }
}

static void norm_back(bool centre, int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd,
                      const float *dy, int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < rows; i++) {
    double mean = 0, along = ref_dot(n, dy + i * lddy, y + i * ldy) / (double)n;
    for (int64_t k = 0; k < n && centre; k++) mean += (double)dy[i * lddy + k] / (double)n;
    for (int64_t k = 0; k < n; k++) {
      double g = (double)rstd[i] * ((double)dy[i * lddy + k] - mean - (double)y[i * ldy + k] * along);
      dx[i * lddx + k] = (float)(g + (add ? (double)dx[i * lddx + k] : 0));
    }
  }
}

static void layernorm(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                      float *rstd) {
  norm(true, rows, n, eps, x, ldx, y, ldy, rstd);
}
static void layernorm_back(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                           int64_t lddy, float *dx, int64_t lddx, bool add) {
  norm_back(true, rows, n, y, ldy, rstd, dy, lddy, dx, lddx, add);
}
static void rmsnorm(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                    float *rstd) {
  norm(false, rows, n, eps, x, ldx, y, ldy, rstd);
}
static void rmsnorm_back(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                         int64_t lddy, float *dx, int64_t lddx, bool add) {
  norm_back(false, rows, n, y, ldy, rstd, dy, lddy, dx, lddx, add);
}

static void silu(int64_t n, const float *z, float *y) {
  for (int64_t k = 0; k < n; k++) y[k] = (float)((double)z[k] * ref_sigmoid((double)z[k]));
}
static void silu_back(int64_t n, const float *z, const float *dy, float *dz) {
  for (int64_t k = 0; k < n; k++) dz[k] = (float)((double)dy[k] * ref_silu_slope((double)z[k]));
}
static void silu_half(int64_t n, const float *z, uint16_t *half, float *y) {
  for (int64_t k = 0; k < n; k++) half[k] = (uint16_t)(bf16_word(z[k]) >> 16);
  silu(n, z, y);
}
static void silu_back_half(int64_t n, const uint16_t *half, const float *dy, float *dz) {
  for (int64_t k = 0; k < n; k++) dz[k] = (float)((double)dy[k] * ref_silu_slope((double)bf16_low(half[k])));
}

static void random_words(const sh_draw *d, uint32_t quad, int n, uint32_t *word) {
  for (int q = 0; q < n; q++) {
    sh_philox r = sh_random4(d->seed, d->site, d->when, d->sample, d->position, quad + (uint32_t)q);
    for (int k = 0; k < 4; k++) word[4 * q + k] = r.v[k];
  }
}

static void random_below(const sh_draw *d, uint32_t quad, int n, uint32_t bound, uint32_t *word) {
  random_words(d, quad, n, word);
  for (int k = 0; k < 4 * n; k++) word[k] = sh_below(word[k], bound);
}

static void row_sums(int64_t n, const float *x, double sums[2]) {
  sums[0] = sums[1] = 0;
  for (int64_t k = 0; k < n; k++) sums[0] += (double)x[k], sums[1] += (double)x[k] * (double)x[k];
}

static void dropout(const sh_drop *d, int64_t sample, int32_t position, int64_t first, int64_t n, const float *x,
                    float *y) {
  for (int64_t k = 0; k < n; k++) {
    int64_t element = first + k;
    sh_philox r = sh_random4(d->seed, d->site, d->when, sample, (uint32_t)position, (uint32_t)(element >> 2));
    y[k] = x[k] * (r.v[element & 3] < d->threshold ? 0.f : d->scale);
  }
}

static void adamw(int64_t n, double lr, double beta1, double beta2, double eps, double decay, double c1, double c2,
                  float scale, const float *grad, float *value, float *m, float *v) {
  for (int64_t k = 0; k < n; k++) {
    double g = (double)grad[k] * (double)scale;
    m[k] = (float)(beta1 * (double)m[k] + (1 - beta1) * g);
    v[k] = (float)(beta2 * (double)v[k] + (1 - beta2) * g * g);
    double p = (double)value[k] * (1 - lr * decay);
    value[k] = (float)(p - lr * ((double)m[k] / c1) / (sqrt((double)v[k] / c2) + eps));
  }
}

static void unit_rows(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *y,
                      int64_t ldy, float *length) {
  for (int64_t i = 0; i < n; i++, x += ldx, y += ldy) {
    double norm = sqrt(ref_dot(width, x, x)), divisor = !l2_norm ? 1 : norm > (double)eps ? norm : (double)eps;
    length[i] = (float)norm;
    for (int64_t k = 0; k < ldy; k++) y[k] = k < width ? (float)((double)x[k] / divisor) : 0;
  }
}
static void unit_copies(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *copy,
                        int64_t ld, float *length) {
  unit_rows(n, width, l2_norm, eps, x, ldx, copy, ld, length);
}
static void unit_rows_back(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx,
                           const float *length, const float *dy, int64_t lddy, float *dx, int64_t lddx, bool add) {
  for (int64_t i = 0; i < n; i++, x += ldx, dy += lddy, dx += lddx) {
    bool clamped = length[i] <= eps;
    double divisor = !l2_norm ? 1 : (double)(clamped ? eps : length[i]);
    double along = l2_norm && !clamped ? ref_dot(width, x, dy) / divisor : 0;
    for (int64_t k = 0; k < width; k++)
      dx[k] = (float)((add ? (double)dx[k] : 0) + ((double)dy[k] - along * (double)x[k] / divisor) / divisor);
  }
}

static void gather_sum(int64_t n, int64_t width, const float *coef, const float *rows, int64_t ld, const int32_t *slot,
                       float *out) {
  for (int64_t k = 0; k < width; k++) {
    double s = 0;
    for (int64_t j = 0; j < n; j++) s += (double)coef[j] * (double)rows[slot[j] * ld + k];
    out[k] = (float)s;
  }
}
static double sampled_softmax(int64_t tokens, int64_t n, int64_t width, float scale, float factor, const float *h,
                              const float *rows, int64_t ld, const int32_t *slot, float *coef, int64_t ldcoef,
                              float *dh) {
  double loss = 0;
  for (int64_t t = 0; t < tokens; t++, h += ld, slot += n, coef += ldcoef) {
    double positive = (double)scale * ref_dot(width, h, rows + slot[0] * ld), top = positive, sum = 0;
    for (int64_t j = 1; j < n; j++) {
      double s = (double)scale * ref_dot(width, h, rows + slot[j] * ld);
      if (slot[j] != slot[0] && s > top) top = s;
    }
    for (int64_t j = 0; j < n; j++) {
      double s = (double)scale * ref_dot(width, h, rows + slot[j] * ld);
      if (j == 0 || slot[j] != slot[0]) sum += exp(s - top);
    }
    for (int64_t j = 0; j < n; j++) {
      double s = (double)scale * ref_dot(width, h, rows + slot[j] * ld), p = exp(s - top) / sum;
      coef[j] = (float)((double)factor * (j == 0 ? p - 1 : slot[j] != slot[0] ? p : 0));
    }
    if (dh) gather_sum(n, width, coef, rows, ld, slot, dh + t * width);
    loss += top + log(sum) - positive;
  }
  return loss;
}
static void pair_sums(int64_t rows, int64_t width, const int32_t *start, const sh_share *pair, const float *h,
                      int64_t ld, float *out, int64_t ldout) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < width; k++) {
      double s = (double)out[r * ldout + k];
      for (int32_t q = start[r]; q < start[r + 1]; q++) s += (double)pair[q].coef * (double)h[pair[q].token * ld + k];
      out[r * ldout + k] = (float)s;
    }
}

static void softmax_scan(int64_t rows, int64_t n, float scale, const float *shift, const float *x, int64_t ld,
                         float *max, double *sum) {
  for (int64_t i = 0; i < rows; i++) {
    float top = max[i];
    for (int64_t v = 0; v < n; v++) {
      float s = x[i * ld + v] * scale - shift[v];
      if (s > top) top = s;
    }
    sum[i] *= exp((double)max[i] - (double)top);
    for (int64_t v = 0; v < n; v++)
      sum[i] += exp((double)x[i * ld + v] * (double)scale - (double)shift[v] - (double)top);
    max[i] = top;
  }
}
static void softmax_tile(int64_t rows, int64_t n, float scale, const float *shift, const float *lse, float factor,
                         float *x, int64_t ld) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t v = 0; v < n; v++) {
      double s = (double)x[i * ld + v] * (double)scale - (double)shift[v];
      x[i * ld + v] = (float)((double)factor * exp(s - (double)lse[i]));
    }
}

static float dot(int64_t n, const float *a, const float *b) { return (float)ref_dot(n, a, b); }
static void axpy(int64_t n, float a, const float *x, float *y) {
  for (int64_t k = 0; k < n; k++) y[k] = (float)((double)y[k] + (double)a * (double)x[k]);
}

static void gate(int64_t n, const float *u, const float *o, float mean, float rstd, float *y) {
  for (int64_t k = 0; k < n; k++) y[k] = (float)((double)u[k] * ((double)o[k] - (double)mean) * (double)rstd);
}
static void gate_back(int64_t n, const float *product, const float *direct, const float *more, const float *u,
                      const float *o, float mean, float rstd, float *du, float *dout, float sums[2]) {
  double sum = 0, along = 0;
  for (int64_t k = 0; k < n; k++) {
    double norm = ((double)o[k] - (double)mean) * (double)rstd;
    double dnorm = (double)product[k] * (double)u[k] + (more ? (double)more[k] : 0);
    du[k] = (float)((double)product[k] * norm + (direct ? (double)direct[k] : 0));
    dout[k] = (float)(dnorm * (double)rstd);
    sum += dnorm, along += dnorm * norm;
  }
  sums[0] = (float)sum, sums[1] = (float)along;
}
static void add_affine(int64_t n, const float *x, double a, double b, const float *o, float *y) {
  for (int64_t k = 0; k < n; k++) y[k] = (float)((double)x[k] + a + b * (double)o[k]);
}

const sh_kernels sh_kernels_ref = {
    .name = "ref",
    .gemm = gemm,
    .gemm_tn = gemm_tn,
    .precision = "fp32",
    .copy_parts = 1,
    .right_room = right_room,
    .right_pack = right_pack,
    .multiply = multiply,
    .multiply_tn = gemm_tn,
    .layernorm = layernorm,
    .layernorm_back = layernorm_back,
    .rmsnorm = rmsnorm,
    .rmsnorm_back = rmsnorm_back,
    .silu = silu,
    .silu_back = silu_back,
    .silu_half = silu_half,
    .silu_back_half = silu_back_half,
    .random_words = random_words,
    .random_below = random_below,
    .row_sums = row_sums,
    .dropout = dropout,
    .hstu_attention = sh_ref_hstu_attention,
    .hstu_attention_back = sh_ref_hstu_attention_back,
    .fuxi_attention = sh_ref_fuxi_attention,
    .fuxi_attention_back = sh_ref_fuxi_attention_back,
    .softmax_attention = sh_ref_softmax_attention,
    .softmax_attention_back = sh_ref_softmax_attention_back,
    .adamw = adamw,
    .unit_rows = unit_rows,
    .unit_rows_back = unit_rows_back,
    .unit_copies = unit_copies,
    .gather_sum = gather_sum,
    .sampled_softmax = sampled_softmax,
    .pair_sums = pair_sums,
    .softmax_scan = softmax_scan,
    .softmax_tile = softmax_tile,
    .gate = gate,
    .gate_back = gate_back,
    .add_affine = add_affine,
    .dot = dot,
    .axpy = axpy,
};
