/* core/outfile.h: a text file that appears whole or not at all: it is written beside its place and moved there. What a
 * link leads to is replaced, not the link; a device or a pipe is written where it is. */
#ifndef SH_CORE_OUTFILE_H
#define SH_CORE_OUTFILE_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#include "shoal/status.h"

typedef struct sh_outfile {
  FILE *f; /* to write to; NULL when closed */
  char path[PATH_MAX], partial[PATH_MAX + 8];
  bool in_place;
} sh_outfile;

/* Where `path` leads: fills path, partial and in_place, opens nothing. */
sh_status sh_outfile_place(sh_outfile *o, const char *path);

/* SH_ERR_USAGE when `path`, or the file beside it that is written first, is `input`. Either may be NULL. */
sh_status sh_outfile_spare(const char *path, const char *input);

/* SH_ERR_INTERNAL names the path and why. */
sh_status sh_outfile_open(sh_outfile *o, const char *path);

/* Ends writing. With `keep` the file takes its place; SH_ERR_INTERNAL when any of it could not be written, and then, as
 * without `keep`, what was there before stays. */
sh_status sh_outfile_close(sh_outfile *o, bool keep);

#endif
