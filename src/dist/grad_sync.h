/* dist/grad_sync.h: sums of dense gradients over the data axis, in buckets begun during backward.
 *
 * Buckets are ranges of the parameter block, cut from its end (backward finishes there first). Their order is the same
 * on all ranks because backward is.
 */
#ifndef SH_DIST_GRAD_SYNC_H
#define SH_DIST_GRAD_SYNC_H

#include "core/params.h"
#include "mpi/coll.h"

typedef struct sh_grad_sync {
  sh_params *params;
  const sh_axis *axis;
  int nbuckets;
  int64_t *first, *last; /* floats of each bucket, bucket 0 at the end of the block */
  int *waits;            /* parameter rows of the bucket whose gradients are not final yet, this step */
  int *rows;             /* parameter rows of the bucket */
  int *bucket_of;        /* [params->n] */
  int begun;             /* buckets begun so far: in order */
  sh_request **request;
} sh_grad_sync;

void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_axis *axis, int64_t bucket_bytes);
void sh_grad_sync_destroy(sh_grad_sync *s);

void sh_grad_sync_start(sh_grad_sync *s);                 /* before the backward that finishes gradients */
void sh_grad_sync_ready(void *sync, int first, int last); /* rows [first, last) are final */
void sh_grad_sync_end(sh_grad_sync *s);                   /* waits for all buckets */

#endif
