/* core/folders.h: making folders. */
#ifndef SH_CORE_FOLDERS_H
#define SH_CORE_FOLDERS_H

#include <stdbool.h>

#include "shoal/status.h"

/* Make `path` and what is missing above it. `failure` with the folder's name and why when one cannot be made. With
 * `sync`, what is made stays after a power cut, as far as the file system can promise it. */
sh_status sh_make_folders(const char *path, bool sync, sh_status failure);

/* Make names in a folder durable. `failure` as above; a file system that cannot sync folders is no failure. */
sh_status sh_sync_folder(const char *path, sh_status failure);

#endif
