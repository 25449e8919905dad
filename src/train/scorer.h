/* train/scorer.h: queries against all candidates with the table sharded. No rank holds a score matrix.
 *
 * A round: each tensor group encodes its own queries, a few at a time (last block for the last token only);
 * queries, targets and filtered ids travel to all ranks; each scores them against its own candidate rows in tiles.
 */
#ifndef SH_TRAIN_SCORER_H
#define SH_TRAIN_SCORER_H

#include "dist/marks.h"
#include "train/trainer.h"

/* What a thread needs to encode queries by itself. */
typedef struct sh_encoder {
  sh_arena step, scratch;
  sh_marks seen; /* of items */
} sh_encoder;

typedef struct sh_scorer {
  sh_trainer *t;
  sh_arena memory, step; /* candidates; one round */
  sh_fetch fetch;
  int nencoders; /* threads */
  sh_encoder *encoder;
  int64_t n;      /* own candidates */
  float *panel;   /* normalised rows, transposed, 64 candidates after 64: [panels][D x 64] */
  int64_t *id;    /* [n] keys, ascending */
  int32_t *place; /* [items] own candidate of a key, or -1 */
} sh_scorer;

/* One round's queries of all ranks, in rank order. */
typedef struct sh_round {
  int64_t n, first, mine;  /* all queries; own ones are first .. first+mine-1 */
  float *query;            /* [n x D], normalised when loss.l2_norm; zeros follow to a whole block */
  int64_t *target;         /* [n] key, or -1 (recommend) */
  int64_t *filtered_start; /* [n+1] */
  int64_t *filtered;       /* keys that are not ranked, ascending */
} sh_round;

/* Collective over the world. Rows are taken as they are now. */
void sh_scorer_create(sh_scorer *s, sh_trainer *t);
void sh_scorer_destroy(sh_scorer *s);

/* Encode `mine` own queries (may be 0; the same on all ranks of a tensor group, whose first rank has them in
 * out->mine) and gather everyone's. with_target: target[] is the event behind the history.
 * Collective over the world; arrays live until the next round. */
sh_status sh_scorer_round(sh_scorer *s, const sh_sample *query, const int64_t *seen_first, int64_t mine,
                          bool with_target, sh_round *out);

/* Every own candidate's score for each query, tile by tile: calls visit(arg, q, first candidate, count,
 * scores) with filtered candidates at -infinity. Tiles of a query come in ascending order, from one thread. */
typedef void (*sh_score_visit)(void *arg, int64_t query, int64_t first, int64_t count, const float *score);
void sh_scorer_tiles(sh_scorer *s, const sh_round *r, sh_score_visit visit, void *arg);

/* One own candidate's score for each query, the same number to the bit as in the tiles: own[n] = candidate or -1, whose
 * score is 0. */
void sh_scorer_pick(sh_scorer *s, const sh_round *r, const int64_t *own, float *score);

#endif
