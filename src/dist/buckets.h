/* dist/buckets.h: the parameter block cut into buckets, and each bucket into one piece a rank of the data axis.
 *
 * A bucket is a range of the block in whole parameters, at least comm.bucket bytes, cut from the block's end, where
 * backward finishes first. Pieces are cut between rows of parameters' local parts, so a rank's slice of a parameter is
 * rectangular in global coordinates; cuts make up for each other over the buckets, so ranks own the same number of
 * floats but for a row.
 */
#ifndef SH_DIST_BUCKETS_H
#define SH_DIST_BUCKETS_H

#include "mpi/grid.h"
#include "optim/state.h"

typedef struct sh_bucket {
  int64_t first, last; /* floats of the block */
  int params;          /* parameters in it, ties not counted */
  int64_t *cut;        /* [data + 1] floats of the block: rank r owns [cut[r], cut[r + 1]) */
} sh_bucket;

typedef struct sh_buckets {
  int n;
  sh_bucket *bucket; /* bucket 0 at the end of the block */
  int *of;           /* [params->n] the bucket of a parameter */
  sh_slices own;     /* this rank's pieces, by parameter */
} sh_buckets;

/* `grain`: the finest the optimiser can work on (optim/dense.h); where parameter and optimiser both ask for whole
 * matrices, they are not cut. The same on all ranks of a tensor group. */
void sh_buckets_create(sh_buckets *s, const sh_params *p, const sh_axis *data, int64_t bucket_bytes, sh_grain grain);
void sh_buckets_destroy(sh_buckets *s);

#endif
