/* nn/softmax_tiles.h: softmax over many candidates that never holds tokens x candidates.
 *
 *   s_tv = scale h_t . e_v - shift_v        t: T tokens, v: n candidates
 *
 * Tiles are 64 tokens by 64 candidates. A first pass folds them into a running maximum and sum (online log-sum-exp,
 * Milakov & Gimelshein 2018); a second makes every tile again, with its probabilities, for both gradients:
 * 8 T n D operations. Probabilities of a bounded panel of tiles exist at a time: 1 K tokens x 1 K candidates, more with
 * many threads. Every token block and every candidate chunk is summed by one thread in ascending order, so neither the
 * number of threads nor the size of the panel changes a bit.
 *
 * A token may match one candidate: it is its target (full softmax, where the target is one of the candidates), or it
 * collides with the target and is masked (shared negatives).
 */
#ifndef SH_NN_SOFTMAX_TILES_H
#define SH_NN_SOFTMAX_TILES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "kernels/kernels.h"

enum { SH_SOFTMAX_TILE = 64 };

typedef struct sh_softmax {
  const sh_kernels *k;
  int width;          /* D */
  int64_t ld;         /* floats between rows of h, e, dh, de: a multiple of 16, padding zero */
  int64_t n;          /* candidates; may be 0 */
  const float *e;     /* [n x ld] */
  const float *shift; /* [n], or NULL: none */
  float scale;
  bool masked; /* a match is left out, instead of being the target */
  /* Set by sh_softmax_pack: each tile of candidates as right-hand operand of the table, transposed and (NULL where the
   * table multiplies e as it lies) as it is; the padded shift. */
  float *columns, *rows;
  float *packed_shift;
} sh_softmax;

/* Once before passes over the same candidates; the packed copy lies in `arena`. Parallel inside, as the passes are. */
void sh_softmax_pack(sh_softmax *s, sh_arena *arena);

/* Fold all candidates into max[T] and sum[T] = sum of exp(s - max), which hold what came before (-FLT_MAX and 0 at
 * first). match[T]: candidate or -1. With logit[T] given, it receives s of the match where there is one. */
void sh_softmax_scan(const sh_softmax *s, int64_t T, const float *h, const int32_t *match, float *max, double *sum,
                     float *logit);

/* With p_tv = exp(s_tv - lse_t), or 0 where masked, less 1 where v is the target of t:
 * dh_t = factor sum_v p_tv e_v (overwritten);  de_v += factor sum_t p_tv h_t. */
void sh_softmax_back(const sh_softmax *s, int64_t T, const float *h, const int32_t *match, const float *lse,
                     float factor, float *dh, float *de, sh_arena *scratch);

static inline double sh_softmax_lse(float max, double sum) { return (double)max + log(sum); }

/* Are the candidates so few that their logits of some token blocks can be kept, 64 MiB at most? Then one call does the
 * work of both passes with 6 T n D operations: max and sum as in a scan, lse[T] and gradients as in the pass back. */
bool sh_softmax_keeps(const sh_softmax *s);
void sh_softmax_once(const sh_softmax *s, int64_t T, const float *h, const int32_t *match, float *max, double *sum,
                     float *lse, float factor, float *dh, float *de, sh_arena *scratch);

#endif
