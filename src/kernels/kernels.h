/* kernels/kernels.h: arithmetic on local arrays, behind one table per instruction set.
 *
 * `ref` is the plain formula with double accumulation, never tuned. Every other table is the same set of functions from
 * src/kernels/fast/, compiled per instruction set. All functions are single-threaded: callers cut the work.
 * Arrays are float, row major; `ld` is the distance between rows.
 */
#ifndef SH_KERNELS_KERNELS_H
#define SH_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* Dropout of a row of elements: which are dropped is drawn from these counters (core/rng.h). threshold 0: none. */
typedef struct sh_drop {
  uint32_t seed, site, when;
  uint32_t threshold; /* element dropped when its 32-bit number is below */
  float scale;        /* 1 / (1 - p) */
} sh_drop;

/* Where random numbers are drawn: all of a counter but the quad (core/rng.h). */
typedef struct sh_draw {
  uint32_t seed, site, when, position;
  int64_t sample;
} sh_draw;

/* Attention of one head over one sequence, keys j <= query i. Arrays point at the sequence's first token and the head's
 * first column; rows are tokens, ld apart. Query rows are query_first .. L-1 (a long sequence is cut into pieces; only
 * L-1 for last-only), and q, out, dq, dout point at row query_first. */
typedef struct sh_heads_io {
  int L, query_first;
  int dqk, dv;
  int ldq, ldkv, ldout; /* q and dq; k, v and dk, dv; out and dout */
  const float *q, *k, *v;
  float *out;
  const float *dout;    /* backward */
  float *dq, *dk, *dv_; /* backward, overwritten; dk and dv_ have all L rows: sums over these queries */
} sh_heads_io;

/* Relative bias of pointwise attention. */
typedef struct sh_rel_bias {
  const float *pos;         /* pos[j - i], j - i in -(L-1) .. 0 */
  const float *ts;          /* [129] by time bucket, or NULL: no time bias */
  const int32_t *run_start; /* [L+1] of this sequence (absolute indices into end and bucket) */
  const int32_t *run_end;
  const uint8_t *run_bucket;
  float *dpos; /* backward, added to, indexed as pos */
  float *dts;
} sh_rel_bias;

/* FuXi's maps besides attention: position and time, each applied to the values as its own channel. */
typedef struct sh_fuxi_maps {
  sh_rel_bias bias;   /* position; and FuXi-alpha's time map by buckets */
  int channels;       /* 3: position, time, semantic (alpha); 2: position, time (beta) */
  int channel_stride; /* columns between a head's channels in out and dout: dv */
  int time_function;  /* beta: 0 a (1 + x)^-b, 1 a exp(-e^b x), x = max(next_time_i - time_j, 0) */
  float a, b;
  const int64_t *time, *next_time; /* of the sequence; beta */
  double *da, *db;                 /* backward, added to */
} sh_fuxi_maps;

/* What a token's hidden state has in a row's gradient. */
typedef struct sh_share {
  float coef;
  int32_t token;
} sh_share;

/* Right-hand operand B [K x N] of many products, prepared once: sh_right_of (nn/linear.h). */
typedef struct sh_right {
  int64_t K, N;
  float *packed; /* right_room() floats, in the table's own layout */
} sh_right;
enum { SH_PANEL = 64 }; /* columns of B that lie together */

typedef struct sh_kernels {
  const char *name;
  /* "fp32"; "bf16": of multiply, multiply_tn, copies, attention and silu; "bf16 emulated": not attention, not silu. */
  const char *precision;

  /* C[M x N] = A[M x K] B[K x N] (+ C when add). */
  void (*gemm)(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
               int64_t ldc, bool add);
  /* C[M x N] = A[K x M]^T B[K x N] (+ C when add). */
  void (*gemm_tn)(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C,
                  int64_t ldc, bool add);

  /* The products of linear layers, of the shared and the full softmax. With precision bf16 both operands are rounded to
   * bf16 (nearest, ties to even) and sums are fp32; gemm and gemm_tn above never round. right_pack: columns n0 .. n1-1
   * of B, both multiples of SH_PANEL or N; B is W, or W^T when transposed. multiply: C[M x N] = A[M x K] B (+ C when
   * add). multiply_tn: C[K x N] = A[T x K]^T B[T x N] (+ C when add), a weight's gradient. */
  int64_t (*right_room)(int64_t K, int64_t N);
  void (*right_pack)(const sh_right *B, const float *W, int64_t ldw, bool transposed, int64_t n0, int64_t n1);
  void (*multiply)(int64_t M, const float *A, int64_t lda, const sh_right *B, float *C, int64_t ldc, bool add);
  void (*multiply_tn)(int64_t K, int64_t N, int64_t T, const float *A, int64_t lda, const float *B, int64_t ldb,
                      float *C, int64_t ldc, bool add);

  /* y = (x - mean) r, r = (biased variance + eps)^-1/2 over n columns, no scale or shift; rstd[rows]. */
  void (*layernorm)(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy,
                    float *rstd);
  /* dx = r (dy - mean(dy) - y mean(dy y)) (+ dx when add). */
  void (*layernorm_back)(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                         int64_t lddy, float *dx, int64_t lddx, bool add);
  /* y = x r, r = (mean(x^2) + eps)^-1/2; dx = r (dy - y mean(dy y)). */
  void (*rmsnorm)(int64_t rows, int64_t n, float eps, const float *x, int64_t ldx, float *y, int64_t ldy, float *rstd);
  void (*rmsnorm_back)(int64_t rows, int64_t n, const float *y, int64_t ldy, const float *rstd, const float *dy,
                       int64_t lddy, float *dx, int64_t lddx, bool add);

  void (*silu)(int64_t n, const float *z, float *y);
  void (*silu_back)(int64_t n, const float *z, const float *dy, float *dz); /* dz = dy silu'(z) */
  /* The same with z kept in between as bf16: half = z rounded. */
  void (*silu_half)(int64_t n, const float *z, uint16_t *half, float *y);
  void (*silu_back_half)(int64_t n, const uint16_t *half, const float *dy, float *dz);

  /* word[4n] = the words of quads quad .. quad+n-1, as sh_random4 gives them. */
  void (*random_words)(const sh_draw *d, uint32_t quad, int n, uint32_t *word);
  /* The same words as integers in [0, bound), as sh_below gives them; bound > 0. */
  void (*random_below)(const sh_draw *d, uint32_t quad, int n, uint32_t bound, uint32_t *word);
  /* Sum and sum of squares of a row, good to double precision of their difference sums[1] / n - (sums[0] / n)^2. */
  void (*row_sums)(int64_t n, const float *x, double sums[2]);

  /* y[k] = x[k] times keep mask and scale, for elements first .. first+n-1 of (sample, position). x may be y. */
  void (*dropout)(const sh_drop *d, int64_t sample, int32_t position, int64_t first, int64_t n, const float *x,
                  float *y);

  /* HSTU: out_i = sum_j silu(q_i.k_j + pos[j-i] + ts[bucket(i,j)]) / divisor * v_j. `work` from attention_work(). */
  void (*hstu_attention)(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work);
  void (*hstu_attention_back)(const sh_heads_io *h, const sh_rel_bias *b, float divisor, float *work);
  /* FuXi: out_i = [sum_j pos v_j, sum_j time v_j, sum_j silu(q_i.k_j) / divisor v_j], raw position and time maps. */
  void (*fuxi_attention)(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work);
  void (*fuxi_attention_back)(const sh_heads_io *h, const sh_fuxi_maps *m, float divisor, float *work);
  /* SASRec: out_i = sum_j drop(softmax_j(scale q_i.k_j)) v_j; dropout element = head * element_stride + j. */
  void (*softmax_attention)(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample, int64_t first_element,
                            float *work);
  void (*softmax_attention_back)(const sh_heads_io *h, float scale, const sh_drop *d, int64_t sample,
                                 int64_t first_element, float *work);

  /* AdamW over n elements; c1 = 1 - beta1^t, c2 = 1 - beta2^t. */
  void (*adamw)(int64_t n, double lr, double beta1, double beta2, double eps, double decay, double c1, double c2,
                float scale, const float *grad, float *value, float *m, float *v);

  /* Rows of length one: y = x / max(|x|, eps), or x itself without l2_norm; zero in columns width .. ldy-1; length[n]
   * = |x|. The way back, dx (+)= (dy - y (y . dy)) / max(|x|, eps); a clamped length has no gradient along it. */
  void (*unit_rows)(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *y,
                    int64_t ldy, float *length);
  void (*unit_rows_back)(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx,
                         const float *length, const float *dy, int64_t lddy, float *dx, int64_t lddx, bool add);

  /* out = sum_j coef[j] rows[slot[j]]; width is a multiple of 16. */
  void (*gather_sum)(int64_t n, int64_t width, const float *coef, const float *rows, int64_t ld, const int32_t *slot,
                     float *out);

  /* Copies of unit rows, to be gathered: one float of a copy holds copy_parts columns, in the table's own layout (1; 2
   * of bf16). unit_copies: as unit_rows, the columns beyond `width` zero up to a multiple of 16 copy_parts, the `width`
   * of the functions below (sh_copy_columns); ld floats between copies, at least columns / copy_parts (sh_copy_floats).
   */
  int copy_parts;
  void (*unit_copies)(int64_t n, int64_t width, bool l2_norm, float eps, const float *x, int64_t ldx, float *copy,
                      int64_t ld, float *length);
  /* Softmax of each token t over n candidates of its own, slot[t n], the positive, .. slot[t n + n-1]; others equal to
   * the positive are left out. With logits s_j = scale h . rows[slot[j]]:
   *   coef[t ldcoef + j] = factor (softmax_j - (j == 0)),  dh[t width ..] = sum_j coef_j rows[slot[j]]
   * and the sum of logsumexp(s) - s_0 is returned. h and rows are copies, `ld` floats apart; dh NULL: value only
   * (coef is scratch then). */
  double (*sampled_softmax)(int64_t tokens, int64_t n, int64_t width, float scale, float factor, const float *h,
                            const float *rows, int64_t ld, const int32_t *slot, float *coef, int64_t ldcoef, float *dh);
  /* out[r] += sum over the pairs of row r, pair[start[r]] .. pair[start[r+1] - 1], of coef h[token], in that order; h
   * are copies. */
  void (*pair_sums)(int64_t rows, int64_t width, const int32_t *start, const sh_share *pair, const float *h, int64_t ld,
                    float *out, int64_t ldout);
  /* Softmax over candidates that come in tiles x[rows x n] of h . e; the logit is s = scale x - shift[column].
   * softmax_scan: fold the tile into each row's running max and sum = sum of exp(s - max);
   * softmax_tile: x = factor exp(s - lse[row]). */
  void (*softmax_scan)(int64_t rows, int64_t n, float scale, const float *shift, const float *x, int64_t ld, float *max,
                       double *sum);
  void (*softmax_tile)(int64_t rows, int64_t n, float scale, const float *shift, const float *lse, float factor,
                       float *x, int64_t ld);

  /* One row of the gate behind attention, norm = (o - mean) rstd. y = u norm; backward, `product` being the gradient of
   * y: dnorm = product u (+ more), du = product norm (+ direct), dout = dnorm rstd, and sums = {sum dnorm, sum dnorm
   * norm}; more and direct may be NULL. */
  void (*gate)(int64_t n, const float *u, const float *o, float mean, float rstd, float *y);
  void (*gate_back)(int64_t n, const float *product, const float *direct, const float *more, const float *u,
                    const float *o, float mean, float rstd, float *du, float *dout, float sums[2]);
  /* y = x + a + b o, the term behind x in double precision: what statistics of o pass back. */
  void (*add_affine)(int64_t n, const float *x, double a, double b, const float *o, float *y);

  float (*dot)(int64_t n, const float *a, const float *b);
  void (*axpy)(int64_t n, float a, const float *x, float *y); /* y += a x */
} sh_kernels;

/* Columns of a copy of a row of `width`, and its floats. */
static inline int64_t sh_copy_columns(const sh_kernels *k, int64_t width) {
  return (width + 16 * k->copy_parts - 1) / (16 * k->copy_parts) * (16 * k->copy_parts);
}
static inline int64_t sh_copy_floats(const sh_kernels *k, int64_t width) {
  return sh_copy_columns(k, width) / k->copy_parts;
}

/* The best fp32 table this CPU runs, or the one SHOAL_ISA names (ref portable avx2 avx512). */
const sh_kernels *sh_kernels_best(void);
/* The table of precision bf16: avx512_bf16 where the CPU has it and SHOAL_ISA names no other; otherwise
 * sh_kernels_best() with the rounding of multiply, multiply_tn and copies emulated, attention and silu in fp32. */
const sh_kernels *sh_kernels_bf16(void);
/* `k` with operands rounded to bf16 and multiplied in fp32, made in `room`; returns it. */
const sh_kernels *sh_kernels_emulate_bf16(const sh_kernels *k, sh_kernels *room);
const sh_kernels *sh_kernels_named(const char *name); /* NULL when unknown or not supported by this CPU */
const char *sh_kernels_isa(void);
const char *sh_kernels_bf16_name(void); /* "avx512_bf16"; "avx2, emulated" */

/* Names of the fp32 tables this CPU runs, `ref` first; returns how many. */
int sh_kernels_available(const char *names[8]);

/* Floats of workspace for one sequence of at most L tokens. */
int64_t sh_attention_work(int64_t L, int64_t dqk, int64_t dv);

extern const sh_kernels sh_kernels_ref;

#endif
