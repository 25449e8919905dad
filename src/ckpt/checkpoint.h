/* ckpt/checkpoint.h: one HDF5 file per checkpoint, independent of the grid (layout: docs/FORMATS.md).
 *
 * Dense parameters whole, each rank writing its rectangles; moments under the parameter's name, the same whether ranks
 * have them whole or divided; tables with rows in position order (dist/table.h) and offsets[S+1]; the run's state
 * (step, data position, RNG is counters only), the resolved configuration and build information. Checksums (XXH3-64 of
 * blocks of rows, independent of the grid) cover every data array; one digest covers names, types, sizes and
 * attributes. Written as `<name>.partial`, synced, agreed upon by all ranks, renamed; the link `latest.h5` moves last.
 * Whatever dies at any moment leaves the previous checkpoint valid and the new one whole or ignored.
 */
#ifndef SH_CKPT_CHECKPOINT_H
#define SH_CKPT_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/config.h"
#include "core/params.h"
#include "dist/table.h"
#include "mpi/grid.h"
#include "optim/state.h"

/* The scalars of a run that a resume needs. All integers and doubles are stored under their names. */
typedef struct sh_run_state {
  int64_t step;          /* updates done */
  int64_t epoch;         /* current epoch, from 0 */
  int64_t step_in_epoch; /* batches of it already trained on */
  int64_t tokens;        /* trained on since the start */
  double loss_sum;       /* running sums of the current logging interval and epoch */
  int64_t loss_tokens;
  double epoch_loss_sum;
  int64_t epoch_loss_tokens;
  double best_metric;            /* of eval.metric; -1 before the first evaluation */
  int64_t best_epoch, best_step; /* when it was; the step 0: unknown */
  int64_t evals_since_best;
  double seconds;         /* training time so far */
  int64_t evaluation_due; /* 1: the epoch ended, and a stop came before its evaluation */
  int64_t samples;        /* digest of what batches are made from (data/samples.h); 0 when unknown */
} sh_run_state;

/* What is saved and restored. Arrays are the caller's. */
typedef struct sh_ckpt_content {
  const sh_grid *grid;
  const sh_config *config;
  sh_run_state *state;
  sh_params *params;
  int nmoments;               /* dense optimiser state */
  const char *moment_name[4]; /* "exp_avg" ... */
  float *moment[4];           /* arrays over `divided` */
  const sh_slices *divided;   /* this rank's slices; NULL: every rank has moments whole, lying as params->value does */
  int ntables;
  sh_table *table[8];
} sh_ckpt_content;

/* Write dir/step-<12 digits>.h5 and move dir/latest.h5. Collective over the world. SH_ERR_CKPT when it cannot be
 * written: the .partial file is removed and everything before stays as it was. */
sh_status sh_ckpt_write(const sh_ckpt_content *c, const char *dir);

/* Make dir/best.h5 the newest checkpoint (hard link, by rename). Delete all but the newest `keep` step files. Rank 0.
 */
sh_status sh_ckpt_mark_best(const sh_ckpt_content *c, const char *dir);
sh_status sh_ckpt_prune(const sh_ckpt_content *c, const char *dir, int keep);

/* Restore everything from a file, whatever grid wrote it; checksums are verified while reading. Every array must match
 * by name and shape: a checkpoint of another model gives SH_ERR_DATA naming the first difference. Collective.
 * weights_only: parameters and table rows; no moments and no state (evaluation). */
sh_status sh_ckpt_read(sh_ckpt_content *c, const char *path, bool weights_only);

/* The stored configuration alone. Collective; every rank gets it. */
sh_status sh_ckpt_read_config(const sh_grid *g, const char *path, sh_config *out);

/* One screen: what is in the file. Single process. */
sh_status sh_ckpt_inspect(const char *path, FILE *out);

/* Recompute every checksum and digest; says what is wrong and where. Single process. SH_ERR_DATA when anything is. */
sh_status sh_ckpt_verify(const char *path, FILE *out);

#endif
