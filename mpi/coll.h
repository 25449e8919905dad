/* mpi/coll.h: collectives by axis. All are collective over the axis given; on size 1 they copy or do nothing.
 *
 * An MPI error aborts the job with the rank and the call's name: there is nothing a trainer could do about it, and the
 * others must not wait. Counts are 64 bit; what exceeds MPI's int is cut into pieces. Blocking sums of floats are added
 * in the order of the MPI library's algorithm, the same in every run with the same ranks, library and settings
 * (docs/ARCHITECTURE.md, "Parallelism"); operations under way have an order of their own.
 */
#ifndef SH_MPI_COLL_H
#define SH_MPI_COLL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/account.h"
#include "mpi/grid.h"

void sh_sum_f32(const sh_axis *axis, float *x, int64_t n);   /* in place */
void sh_sum_f64(const sh_axis *axis, double *x, int64_t n);  /* in place */
void sh_sum_i64(const sh_axis *axis, int64_t *x, int64_t n); /* in place */
void sh_max_f32(const sh_axis *axis, float *x, int64_t n);
void sh_max_f64(const sh_axis *axis, double *x, int64_t n);
void sh_max_i64(const sh_axis *axis, int64_t *x, int64_t n);
void sh_bcast(const sh_axis *axis, void *data, size_t bytes, int root);
void sh_barrier(const sh_axis *axis);

/* Every rank's `bytes` bytes, in rank order, into out[size * bytes]. Here and below `mine` may be its place in out. */
void sh_allgather(const sh_axis *axis, const void *mine, size_t bytes, void *out);

/* Pieces of different length: count[size] in units of `unit` bytes, known to every rank; out holds their sum. */
void sh_allgatherv(const sh_axis *axis, const void *mine, const int64_t *count, size_t unit, void *out);

/* Sum of everyone's x[sum of count], of which this rank receives its own count[index] floats into out,
 * which must not overlap x. */
void sh_reduce_scatter_f32(const sh_axis *axis, const float *x, const int64_t *count, float *out);

/* Element r of `send` goes to rank r; element r of `recv` came from rank r. */
void sh_alltoall_i64(const sh_axis *axis, const int64_t *send, int64_t *recv);

/* Operations under way: each begins here and ends with sh_request_end; in between mpi/progress.h advances it. A request
 * holds one at a time; several requests may be open. All ranks of an axis begin the same operations in the same order
 * and may end them in any; what blocks (sh_barrier, sh_sum_f32, ...) stands at the same place between their begins and
 * ends on all ranks, since a rank inside it moves none on. Arrays, except counts, stay untouched until the end. On an
 * axis of size 1 they copy or do nothing. Float sums are a fixed tree over the ranks' places: neither nodes nor timing
 * change a bit. */
typedef struct sh_request sh_request;
sh_request *sh_request_new(void);
void sh_request_free(sh_request *r);
void sh_request_end(sh_request *r); /* waits; a request never begun, or ended, returns at once */

/* All-to-all of pieces: counts [size] in units of `unit` bytes, pieces in rank order without gaps. */
void sh_alltoallv_begin(const sh_axis *axis, sh_request *r, const void *send, const int64_t *send_count, void *recv,
                        const int64_t *recv_count, size_t unit);

/* In-place sum (gradient buckets). */
void sh_sum_f32_begin(const sh_axis *axis, sh_request *r, float *x, int64_t n);

/* As their blocking counterparts above, but `out` may be this rank's place in x. A reduce-scatter and an all-gather
 * give the bits of sh_sum_f32_begin, whatever the counts. */
void sh_reduce_scatter_f32_begin(const sh_axis *axis, sh_request *r, const float *x, const int64_t *count, float *out);
void sh_allgatherv_begin(const sh_axis *axis, sh_request *r, const void *mine, const int64_t *count, size_t unit,
                         void *out);

/* The same sums with half the bytes: what ranks send is rounded to bf16, also their own share, and added in fp32. The
 * sum in place comes back rounded once more, the same on every rank; a reduce-scatter's is fp32. On an axis of size 1
 * nothing is rounded. */
void sh_sum_bf16_begin(const sh_axis *axis, sh_request *r, float *x, int64_t n);
void sh_reduce_scatter_bf16_begin(const sh_axis *axis, sh_request *r, const float *x, const int64_t *count, float *out);

/* Ranks agree on an outcome: when any rank brings a failure, all return the failure of the lowest such rank and hold
 * its message ("rank 3: ..." when the axis has several). Used wherever ranks may differ (files, memory, data). */
sh_status sh_agree(const sh_axis *axis, sh_status mine);

/* Exposed seconds and bytes of all kinds and axes since the start (mpi/account.h has them apart). */
double sh_comm_seconds(void);
int64_t sh_comm_bytes(void);

/* Print "shoal: rank r: <message>" and end the whole job with the status as exit code. Never returns. */
_Noreturn void sh_abort(const sh_axis *axis, sh_status code, const char *message);

/* Every collective knows the line that calls it, for messages of the watchdog and of comm.check. Files that implement
 * collectives by others define SH_COLL_INSIDE and keep their caller's line. */
#ifndef SH_COLL_INSIDE
#define sh_sum_f32(...)                   (sh_comm_at(__FILE__, __LINE__), sh_sum_f32(__VA_ARGS__))
#define sh_sum_f64(...)                   (sh_comm_at(__FILE__, __LINE__), sh_sum_f64(__VA_ARGS__))
#define sh_sum_i64(...)                   (sh_comm_at(__FILE__, __LINE__), sh_sum_i64(__VA_ARGS__))
#define sh_max_f32(...)                   (sh_comm_at(__FILE__, __LINE__), sh_max_f32(__VA_ARGS__))
#define sh_max_f64(...)                   (sh_comm_at(__FILE__, __LINE__), sh_max_f64(__VA_ARGS__))
#define sh_max_i64(...)                   (sh_comm_at(__FILE__, __LINE__), sh_max_i64(__VA_ARGS__))
#define sh_bcast(...)                     (sh_comm_at(__FILE__, __LINE__), sh_bcast(__VA_ARGS__))
#define sh_barrier(...)                   (sh_comm_at(__FILE__, __LINE__), sh_barrier(__VA_ARGS__))
#define sh_allgather(...)                 (sh_comm_at(__FILE__, __LINE__), sh_allgather(__VA_ARGS__))
#define sh_allgatherv(...)                (sh_comm_at(__FILE__, __LINE__), sh_allgatherv(__VA_ARGS__))
#define sh_reduce_scatter_f32(...)        (sh_comm_at(__FILE__, __LINE__), sh_reduce_scatter_f32(__VA_ARGS__))
#define sh_alltoall_i64(...)              (sh_comm_at(__FILE__, __LINE__), sh_alltoall_i64(__VA_ARGS__))
#define sh_alltoallv_begin(...)           (sh_comm_at(__FILE__, __LINE__), sh_alltoallv_begin(__VA_ARGS__))
#define sh_sum_f32_begin(...)             (sh_comm_at(__FILE__, __LINE__), sh_sum_f32_begin(__VA_ARGS__))
#define sh_reduce_scatter_f32_begin(...)  (sh_comm_at(__FILE__, __LINE__), sh_reduce_scatter_f32_begin(__VA_ARGS__))
#define sh_allgatherv_begin(...)          (sh_comm_at(__FILE__, __LINE__), sh_allgatherv_begin(__VA_ARGS__))
#define sh_sum_bf16_begin(...)            (sh_comm_at(__FILE__, __LINE__), sh_sum_bf16_begin(__VA_ARGS__))
#define sh_reduce_scatter_bf16_begin(...) (sh_comm_at(__FILE__, __LINE__), sh_reduce_scatter_bf16_begin(__VA_ARGS__))
#define sh_agree(...)                     (sh_comm_at(__FILE__, __LINE__), sh_agree(__VA_ARGS__))
#endif

#endif
