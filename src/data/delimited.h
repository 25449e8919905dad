/* data/delimited.h: what csv, tsv and recbole share: a header of column names, roles found in it, fields of a line. */
#ifndef SH_DATA_DELIMITED_H
#define SH_DATA_DELIMITED_H

#include "data/prepare.h"

typedef struct sh_delimited {
  char separator;
  bool quotes; /* RFC 4180 quotes; a line break inside quotes is not accepted */
  bool types;  /* header fields are name:type */
} sh_delimited;

sh_status sh_delimited_begin(sh_source *s, const sh_delimited *d);
bool sh_delimited_line(sh_source *s, const sh_delimited *d, char *line, size_t length);
bool sh_delimited_item(sh_source *s, const sh_delimited *d, char *line, size_t length, sh_field *key);

/* Cut a line into field[max] (NUL-terminated, unquoted, in place); the number of fields in the line, or -1 with the
 * fault recorded. */
int sh_delimited_split(sh_source *s, const sh_delimited *d, char *line, size_t length, sh_field *field, int max);

/* Check the text of --columns; SH_ERR_USAGE. */
sh_status sh_delimited_check_columns(const char *columns);

#endif
