/* nn/pieces.h: attention's units of work. Usually a sequence is one piece; where a batch has few and long ones, their
 * queries are cut into pieces of about equal cost, so that threads need not wait for one long sequence. A piece sees
 * all keys up to its last query, so pieces after the first have key gradients of their own, which are added at the end.
 *
 * The cut depends on the batch alone: the number of threads never changes a bit.
 */
#ifndef SH_NN_PIECES_H
#define SH_NN_PIECES_H

#include "nn/layer.h"

typedef struct sh_piece {
  int64_t sequence;
  int first, end;  /* queries first .. end-1 against keys 0 .. end-1 */
  int skip;        /* rows of q, out, dout, dq before the first query's: `first`, or 0 with last_only */
  int64_t surplus; /* first row of its key gradients beside those of the sequence, or -1: the sequence's own */
} sh_piece;

typedef struct sh_pieces {
  int64_t n;
  sh_piece *piece; /* [n], by sequence and first query; empty sequences have none */
  int64_t surplus; /* rows of key gradients beside the sequences' own */
} sh_pieces;

/* In the scratch arena. last_only: a piece is the last query of a sequence. */
sh_pieces sh_pieces_of(const sh_ctx *c, int64_t heads, bool last_only);

/* `surplus` of B sequences of L tokens, for predictions of memory. */
int64_t sh_pieces_surplus(int64_t B, int64_t heads, int64_t L);

/* Narrow io of a whole sequence to a piece. */
void sh_piece_io(const sh_piece *p, sh_heads_io *io);

/* d[T x ld], columns first .. first+n-1: add those of surplus [pieces' surplus x ld], in order. Keys that the first
 * piece does not see are written, not added to. Parallel inside. */
void sh_pieces_add(const sh_ctx *c, const sh_pieces *p, const float *surplus, int64_t ld, int64_t first, int64_t n,
                   float *d);

/* Groups of consecutive pieces, the unit of bias gradients: as many as there are, at most 64. */
static inline int64_t sh_piece_groups(const sh_pieces *p) { return p->n < 64 ? p->n : 64; }
static inline int64_t sh_piece_group(const sh_pieces *p, int64_t g) { return p->n * g / sh_piece_groups(p); }

#endif
