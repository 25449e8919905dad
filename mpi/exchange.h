/* mpi/exchange.h: sparse exchange, the star-forest pattern of PETSc's PetscSF for rows of tables.
 *
 * A plan is made from the ids this rank wants, grouped by owner. Ids travel once; then rows flow owner -> user
 * (`rows`) and gradients user -> owner (`grads`, the transpose: <rows(x), y> = <x, grads(y)>). Each comes as a
 * begin/end pair; at most one pair of one plan is open at a time. Collective over the axis of the plan.
 */
#ifndef SH_MPI_EXCHANGE_H
#define SH_MPI_EXCHANGE_H

#include <stdint.h>

#include "mpi/account.h"
#include "mpi/grid.h"

typedef struct sh_exchange sh_exchange;

sh_exchange *sh_exchange_create(const sh_axis *axis); /* reusable: every ids_begin starts a new plan */
void sh_exchange_destroy(sh_exchange *x);

/* ids[sum of count] in owner order, count[axis size]. The arrays stay the caller's and untouched until ids_end. */
void sh_exchange_ids_begin(sh_exchange *x, const int64_t *ids, const int64_t *count);

/* What others (and this rank) ask of this rank: asked[n], grouped by asking rank in rank order, asked_count[size].
 * The arrays belong to the plan and live until the next ids_begin. Returns n. */
int64_t sh_exchange_ids_end(sh_exchange *x, const int64_t **asked, const int64_t **asked_count);

/* Owner -> user. out[n asked x width], tight, in the order of `asked`; in[sum of count x width], in the order of ids.
 */
void sh_exchange_rows_begin(sh_exchange *x, const float *out, float *in, int64_t width);
void sh_exchange_rows_end(sh_exchange *x);

/* User -> owner. out[sum of count x width] in the order of ids; in[n asked x width] in the order of `asked`. */
void sh_exchange_grads_begin(sh_exchange *x, const float *out, float *in, int64_t width);
void sh_exchange_grads_end(sh_exchange *x);

/* The caller's line (mpi/coll.h). */
#ifndef SH_COLL_INSIDE
#define sh_exchange_ids_begin(...)   (sh_comm_at(__FILE__, __LINE__), sh_exchange_ids_begin(__VA_ARGS__))
#define sh_exchange_rows_begin(...)  (sh_comm_at(__FILE__, __LINE__), sh_exchange_rows_begin(__VA_ARGS__))
#define sh_exchange_grads_begin(...) (sh_comm_at(__FILE__, __LINE__), sh_exchange_grads_begin(__VA_ARGS__))
#endif

#endif
