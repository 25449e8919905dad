/* data/dataset_file.h: what writing and reading a data set share. */
#ifndef SH_DATA_DATASET_FILE_H
#define SH_DATA_DATASET_FILE_H

#include <stdio.h>

#include "core/hash.h"
#include "shoal/status.h"

#define SH_DATASET_FORMAT "shoal-dataset"
enum { SH_DATASET_VERSION = 1 };

/* The attribute xxh3 of an array. */
typedef struct sh_checksum_text {
  char text[20];
} sh_checksum_text;
static inline sh_checksum_text sh_checksum_format(uint64_t hash) {
  sh_checksum_text t;
  snprintf(t.text, sizeof t.text, "%016llx", (unsigned long long)hash);
  return t;
}

/* Make the folders a file is to stand in, and say now whether it can be written. */
sh_status sh_dataset_make_folder(const char *path);

#endif
