/* shoal/checkpoint.h: looking at checkpoints (layout: docs/FORMATS.md). Single process, no MPI. */
#ifndef SHOAL_CHECKPOINT_H
#define SHOAL_CHECKPOINT_H

#include <stdio.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One screen: who wrote it and when, progress, model, settings, arrays and their sizes. Names, shapes and attributes
 * are checked on the way, array contents are not. SH_ERR_DATA: no such file, not a checkpoint, or damaged. */
sh_status sh_checkpoint_inspect(const char *path, FILE *out);

/* Recompute every checksum. Damaged arrays are listed on `out`; SH_ERR_DATA names the first bad block. */
sh_status sh_checkpoint_verify(const char *path, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
