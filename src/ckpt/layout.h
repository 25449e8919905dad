/* ckpt/layout.h: which arrays a checkpoint holds, and their checksums. Included by src/ckpt only.
 *
 * An array is a list of *units*: whole rows for tables and their states, single elements for everything else, so that
 * no grid ever cuts a unit. The checksum of a block of consecutive units is the sum, modulo 2^64, of XXH3-64(bytes of
 * the unit, seed = index of the unit): ranks that hold different units of a block add their parts. The digest is the
 * sum of XXH3-64 over lines that name every array (type, shape) and every attribute (value).
 */
#ifndef SH_CKPT_LAYOUT_H
#define SH_CKPT_LAYOUT_H

#include "ckpt/checkpoint.h"
#include "mpi/h5par.h"

#define SH_CK_FORMAT "shoal-checkpoint"
enum { SH_CK_VERSION = 1, SH_CK_PATH = 192 };

typedef struct sh_ck_array {
  char path[SH_CK_PATH]; /* "/params/block.0.uvqk" */
  sh_h5_type type;
  int ndim;
  int64_t dim[2];
  int64_t unit;               /* elements */
  int64_t block;              /* units of a block, about 1 MiB */
  int64_t nblocks, first_sum; /* its checksums among all */
} sh_ck_array;

typedef struct sh_ck_list {
  sh_ck_array *array;
  int n, capacity;
  int64_t nsums;
  uint64_t digest;
} sh_ck_list;

void sh_ck_list_free(sh_ck_list *list);
sh_ck_array *sh_ck_add(sh_ck_list *list, const char *path, sh_h5_type type, int ndim, const int64_t dim[2],
                       int64_t unit);
const sh_ck_array *sh_ck_find(const sh_ck_list *list, const char *path); /* NULL: absent */
int64_t sh_ck_bytes(const sh_ck_array *a);
/* "50 x 200" or "7"; out[48]. */
const char *sh_ck_shape(const sh_ck_array *a, char *out);

/* The arrays of params, optimiser and tables, in this order. weights_only: no optimiser state. */
void sh_ck_plan(sh_ck_list *list, const sh_ckpt_content *c, bool weights_only);

/* Add units [first, first+n) of an array, lying one after another in `data`, to its blocks' sums. */
void sh_ck_sum(uint64_t *sums, const sh_ck_array *a, int64_t first, int64_t n, const void *data);

/* The same for a rectangle of an array whose unit is an element; `data` has rows of ld elements. */
void sh_ck_sum_rect(uint64_t *sums, const sh_ck_array *a, const sh_rect *rect, const float *data, int64_t ld);

/* Create an array or attribute and take it into the digest. */
sh_status sh_ck_put_array(sh_h5 *f, sh_ck_list *list, const sh_ck_array *a);
sh_status sh_ck_put_i64(sh_h5 *f, sh_ck_list *list, const char *object, const char *name, int64_t v);
sh_status sh_ck_put_f64(sh_h5 *f, sh_ck_list *list, const char *object, const char *name, double v);
sh_status sh_ck_put_text(sh_h5 *f, sh_ck_list *list, const char *object, const char *name, const char *text);
void sh_ck_digest_text(uint64_t digest, char out[17]);

/* Reading on one process. */
/* Open, check format and version, list all arrays, compare the digest. */
sh_status sh_ck_open(sh_h5 **f, const char *path, sh_ck_list *list);
/* Recompute an array's checksums. SH_ERR_DATA names array and first bad block; *bad counts bad blocks. */
sh_status sh_ck_check(sh_h5 *f, const sh_ck_array *a, int64_t *bad);
sh_status sh_ck_read_sums(sh_h5 *f, const sh_ck_array *a, uint64_t *sums);
sh_status sh_ck_bad_block(const char *path, const sh_ck_array *a, int64_t block);
/* A u8 array as text; free() it. */
sh_status sh_ck_read_text(sh_h5 *f, const sh_ck_list *list, const char *path, char **text);
sh_status sh_ck_read_state(sh_h5 *f, sh_run_state *state);

/* Every member of sh_run_state: INT(name) REAL(name), and LATER(name), integers that older files lack: 0. */
#define SH_CK_STATE(INT, REAL, LATER)                                                                                  \
  INT(step)                                                                                                            \
  INT(epoch)                                                                                                           \
  INT(step_in_epoch)                                                                                                   \
  INT(tokens)                                                                                                          \
  REAL(loss_sum)                                                                                                       \
  INT(loss_tokens)                                                                                                     \
  REAL(epoch_loss_sum)                                                                                                 \
  INT(epoch_loss_tokens)                                                                                               \
  REAL(best_metric)                                                                                                    \
  INT(best_epoch)                                                                                                      \
  INT(evals_since_best)                                                                                                \
  REAL(seconds)                                                                                                        \
  LATER(best_step)                                                                                                     \
  LATER(evaluation_due)                                                                                                \
  LATER(samples)

/* One rank of those that hold the same table rows (replica groups) writes and counts them. Collective over the world.
 */
bool sh_ck_table_mine(const sh_ckpt_content *c, const sh_table *t);
/* Of the ranks that hold the same rows of a dense parameter one writes and counts them: a split one every rank of the
 * tensor axis, others the first; over the data axis one in turn, unless that divides the rows. */
bool sh_ck_dense_counts(const sh_ckpt_content *c, int index);
bool sh_ck_dense_mine(const sh_ckpt_content *c, int index, const sh_slices *divided);

/* Cut one of a parameter's rectangles (core/params.h) to the rows that an array over `divided` holds, perhaps none, and
 * return its first float in the array; NULL: the array lies as the parameter block does. */
int64_t sh_ck_dense_part(const sh_params *p, int index, const sh_slices *divided, sh_rect *rect);

#endif
