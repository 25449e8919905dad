/* dist/grad_sync.h: sums of dense gradients over the grid, in buckets begun during backward.
 *
 * Buckets are ranges of the parameter block in whole parameters, cut from its end (backward finishes there first).
 * Their order is the same on all ranks because backward is. Gradients are summed over the data axis; those of
 * replicated parameters that are partial (SH_TGRAD_PARTIAL) over the tensor axis too, at the end, packed.
 *
 * Each bucket is cut into one piece a rank of the data axis, at rows of parameters: `own` lists this rank's slices.
 * Cuts make up for each other over buckets, so ranks own the same number of floats but for a row.
 */
#ifndef SH_DIST_GRAD_SYNC_H
#define SH_DIST_GRAD_SYNC_H

#include "mpi/coll.h"
#include "optim/state.h"

typedef struct sh_bucket {
  int64_t first, last; /* floats of the block */
  int rows;            /* parameters in it */
  int waits;           /* whose gradients are not final yet, this step */
  int64_t *cut;        /* [data + 1] floats of the block: rank r owns [cut[r], cut[r + 1]) */
  sh_request *request;
} sh_bucket;

typedef struct sh_grad_sync {
  sh_params *params;
  const sh_grid *grid;
  int nbuckets;
  sh_bucket *bucket; /* bucket 0 at the end of the block */
  int *bucket_of;    /* [params->n] */
  int begun;         /* buckets begun so far: in order */
  sh_slices own;
  float *partial; /* gradients summed over the tensor axis, packed */
  int64_t npartial;
} sh_grad_sync;

/* `grain`: the finest the optimiser can work on (optim/dense.h); where a parameter and the optimiser both ask for whole
 * matrices, they are not cut. */
void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_grid *grid, int64_t bucket_bytes, sh_grain grain);
void sh_grad_sync_destroy(sh_grad_sync *s);

void sh_grad_sync_start(sh_grad_sync *s);                 /* before the backward that finishes gradients */
void sh_grad_sync_ready(void *sync, int first, int last); /* rows [first, last) are final */
void sh_grad_sync_end(sh_grad_sync *s);                   /* waits for all buckets */

#endif
