/* dist/grad_sync.h: sums of dense gradients over the grid, in buckets begun during backward, and with ZeRO-1 the
 * parameters' way back.
 *
 *   sh_grad_sync_start(&s);
 *   backward: sh_grad_sync_ready(&s, first, last) after each call
 *   sh_grad_sync_end(&s);           own slices hold sums; without `zero` everything does
 *   ... owners update values ...
 *   sh_grad_sync_values_begin(&s);  with `zero`: everybody's slices go round
 *   sh_grad_sync_values_end(&s);
 *
 * A bucket whose gradients are final is summed over the data axis (mpi/coll.h: a tree over ranks, element by element,
 * so that neither buckets nor cuts nor `zero` change a bit). Gradients of replicated parameters that are partial
 * (SH_TGRAD_PARTIAL) are summed over the tensor axis before that. comm.wire = bf16: what travels is rounded to bf16,
 * sums are fp32, and every rank gets the same; values always travel as they are.
 *
 * Few sums are under way at a time, which bounds their memory. Bytes on the wire: docs/ARCHITECTURE.md, "Parallelism".
 */
#ifndef SH_DIST_GRAD_SYNC_H
#define SH_DIST_GRAD_SYNC_H

#include "core/config.h"
#include "dist/buckets.h"
#include "mpi/coll.h"

enum { SH_SYNC_WINDOW = 4 }; /* sums under way */

typedef struct sh_grad_sync {
  sh_params *params;
  const sh_grid *grid;
  bool zero; /* sums stay with their owners */
  bool half; /* bf16 on the wire */
  sh_buckets buckets;
  int *waits;                      /* [buckets] parameters whose gradients are not final yet, this step */
  int begun, ended;                /* buckets so far: in order */
  sh_request *sum[SH_SYNC_WINDOW]; /* of bucket b: sum[b % SH_SYNC_WINDOW] */
  sh_request **values;             /* [buckets] with `zero` */
  int64_t *count;                  /* [data] floats of everybody's piece of a bucket */
  sh_request *shared;              /* of the sum over the tensor axis */
  float *partial;                  /* partial rows of a bucket, packed */
} sh_grad_sync;

void sh_grad_sync_create(sh_grad_sync *s, sh_params *p, const sh_grid *grid, const sh_conf_comm *comm, bool zero,
                         sh_grain grain);
void sh_grad_sync_destroy(sh_grad_sync *s);

void sh_grad_sync_start(sh_grad_sync *s);                 /* before the backward that finishes gradients */
void sh_grad_sync_ready(void *sync, int first, int last); /* rows [first, last) are final; collective over the grid */
void sh_grad_sync_end(sh_grad_sync *s);                   /* waits for all buckets */

/* Collective over the data axis; without `zero` nothing. Values are not touched in between. */
void sh_grad_sync_values_begin(sh_grad_sync *s);
void sh_grad_sync_values_end(sh_grad_sync *s);

/* Bytes of its buffers that are ever written with `data` ranks, at most but for pieces that differ by a row. */
int64_t sh_grad_sync_bytes(const sh_params *p, int data, const sh_conf_comm *comm);

#endif
