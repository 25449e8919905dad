/* dist/grad_sync.h: sums of dense gradients over the grid, in buckets begun during backward, and with ZeRO-1 the
 * parameters' way back.
 *
 *   sh_grad_sync_start(&s);
 *   backward: sh_grad_sync_ready(&s, first, last) after each call
 *   sh_grad_sync_end(&s);           own slices hold sums; without `zero` everything does
 *   ... update values ...
 *   sh_grad_sync_values(&s);        with `zero`: everybody's updated slices
 *
 * A bucket whose gradients are final goes to the owners of its pieces (dist/buckets.h), which sum what ranks sent in
 * rank order, so that a sum does not depend on the MPI, the buckets or the cuts, and hand sums round (without `zero`).
 * Gradients of replicated parameters that are partial (SH_TGRAD_PARTIAL) are summed over the tensor axis before that.
 * comm.wire = bf16: what ranks send and what comes back is rounded to bf16, sums are fp32; every rank gets the same.
 *
 * Few buckets are under way at a time, which bounds the memory (sh_grad_sync_bytes). Bytes on the wire:
 * ARCHITECTURE.md.
 */
#ifndef SH_DIST_GRAD_SYNC_H
#define SH_DIST_GRAD_SYNC_H

#include "core/config.h"
#include "dist/buckets.h"
#include "mpi/coll.h"

enum { SH_SYNC_WINDOW = 4 }; /* buckets under way */

typedef struct sh_grad_sync {
  sh_params *params;
  const sh_grid *grid;
  bool zero; /* sums stay with their owners */
  bool half; /* bf16 on the wire */
  sh_buckets buckets;
  int *waits;       /* [buckets] parameters whose gradients are not final yet, this step */
  int begun, ended; /* buckets so far: in order */
  struct sh_flight {
    sh_request *request;
    void *sent;               /* bf16: the bucket as it travels */
    void *arrived;            /* everybody's version of the own piece, in rank order */
  } flight[SH_SYNC_WINDOW];   /* of bucket b: flight[b % SH_SYNC_WINDOW] */
  int64_t *count, *own_count; /* [data] floats of everybody's piece; of the own one, for each rank */
  float *partial;             /* partial rows of a bucket, packed */
} sh_grad_sync;

void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_grid *grid, const sh_conf_comm *comm, bool zero,
                         sh_grain grain);
void sh_grad_sync_destroy(sh_grad_sync *s);

void sh_grad_sync_start(sh_grad_sync *s);                 /* before the backward that finishes gradients */
void sh_grad_sync_ready(void *sync, int first, int last); /* rows [first, last) are final */
void sh_grad_sync_end(sh_grad_sync *s);                   /* waits for all buckets; collective over the grid */
void sh_grad_sync_values(sh_grad_sync *s);                /* collective over the data axis */

/* Bytes of its buffers with `data` ranks, at most but for pieces that differ by a row. */
int64_t sh_grad_sync_bytes(const sh_params *p, int data, const sh_conf_comm *comm);

#endif
