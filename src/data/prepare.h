/* data/prepare.h: how a raw format hands its events to shoal prepare.
 *
 * A format is one file format_<name>.c with one sh_format, and one line in formats.def. Its functions see one line at a
 * time and hand keys and events to the source; prepare.c does files, line numbers, malformed lines, keys and filters.
 */
#ifndef SH_DATA_PREPARE_H
#define SH_DATA_PREPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/keymap.h"
#include "data/textfile.h"
#include "shoal/data.h"

/* The log as read: columns, in file order. Ids are those of the key maps. */
typedef struct sh_raw {
  sh_keymap user, item;
  int64_t n, capacity; /* events; fewer than 2^32 */
  uint32_t *user_id, *item_id;
  int64_t *time; /* seconds; NULL without */
  float *action; /* NULL without */
  bool has_time, has_action;
} sh_raw;

/* Bytes of the current line. A format may write into its line, so fields are NUL-terminated. */
typedef struct sh_field {
  char *text;
  size_t length;
} sh_field;

enum { SH_ROLE_USER, SH_ROLE_ITEM, SH_ROLE_TIME, SH_ROLE_ACTION, SH_ROLES };

/* A file being read. */
typedef struct sh_source {
  const sh_prepare_options *options;
  sh_textfile text;
  sh_raw *raw;
  bool items_only;           /* this is the file of the candidate set: only item keys are asked for */
  bool has_time, has_action; /* set by begin */
  int column[SH_ROLES];      /* delimited formats: place of a role in a line, -1 when absent */
  int ncolumns;
  sh_field *field; /* [ncolumns] */
  char fault[512]; /* what is wrong with the current line */
} sh_source;

typedef struct sh_format {
  const char *name;
  /* Start of a file: read a header if there is one, set has_time and has_action. */
  sh_status (*begin)(sh_source *s);
  /* A line of events; false when it is malformed (sh_source_fault). Events of a malformed line are taken back. */
  bool (*line)(sh_source *s, char *line, size_t length);
  /* The item key of a line of the candidate file; false when it is malformed. */
  bool (*item)(sh_source *s, char *line, size_t length, sh_field *key);
} sh_format;

const sh_format *sh_format_find(const char *name); /* NULL when unknown */

/* Record what is wrong with the current line; returns false. */
bool sh_source_fault(sh_source *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The id of a key, or -1 with the fault recorded. */
int64_t sh_source_user(sh_source *s, const char *key, size_t length);
int64_t sh_source_item(sh_source *s, const char *key, size_t length);
void sh_source_push(sh_source *s, int64_t user, int64_t item, int64_t time, float action);

/* Text (NUL-terminated) to seconds: a number >= 0, by options.time_unit, fractions cut. To a finite number. */
bool sh_source_time(sh_source *s, const sh_field *f, int64_t *out);
bool sh_source_action(sh_source *s, const sh_field *f, float *out);

/* The next word of a line (words are separated by blanks and tabs), NUL-terminated; false at the end. */
bool sh_next_word(char **line, sh_field *word);

/* What formats of words share: how they begin (no times, no actions: the order is the file's), a line's other words as
 * items of a user (< 0: a fault already), a line of the item file. */
sh_status sh_words_begin(sh_source *s);
bool sh_words_push(sh_source *s, int64_t user, char *text);
bool sh_words_item(sh_source *s, char *text, size_t length, sh_field *key);

#endif
