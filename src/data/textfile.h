/* data/textfile.h: lines of a plain or gzip file, one at a time, in place. Memory: 1 MiB, or the longest line. */
#ifndef SH_DATA_TEXTFILE_H
#define SH_DATA_TEXTFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

typedef struct sh_textfile {
  const char *path; /* the caller's */
  void *gz;
  char *buffer;
  size_t size, begin, end;
  bool at_end;
  int64_t line; /* number of the line returned last, from 1 */
} sh_textfile;

/* SH_ERR_DATA when it cannot be opened, is a folder or is empty. */
sh_status sh_textfile_open(sh_textfile *t, const char *path);
void sh_textfile_close(sh_textfile *t);

/* The next line without its end (LF or CRLF; the last may have none), NUL-terminated, writable, valid until the next
 * call; a byte order mark at the start is left out. *line is NULL at the end. SH_ERR_DATA when the file is truncated or
 * damaged gzip, or a line is longer than 1 GiB. */
sh_status sh_textfile_line(sh_textfile *t, char **line, size_t *length);

#endif
