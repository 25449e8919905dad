/* ckpt/files.h: the folder of checkpoints. Called on one rank. Failures: SH_ERR_CKPT. */
#ifndef SH_CKPT_FILES_H
#define SH_CKPT_FILES_H

#include <stdint.h>

#include "shoal/status.h"

enum { SH_CK_FILE = 4096 };

/* Make the folder (and those above), remove *.partial that a run left behind, see that `bytes` fit on the disk. */
sh_status sh_ck_folder_prepare(const char *dir, int64_t bytes);

/* partial -> final by rename, then dir/latest.h5 -> its name; both durable when it returns. */
sh_status sh_ck_publish(const char *dir, const char *partial, const char *name);

#endif
