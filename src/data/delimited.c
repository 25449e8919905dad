#include "data/delimited.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/arena.h"
#include "core/config.h"

enum { NAME = 128, ALIASES = 7 };

static const char *const roles[SH_ROLES] = {"user", "item", "time", "action"};
static const char *const usual[SH_ROLES][ALIASES] = {
    {"user", "user_id", "userId", "uid", "session_id", "reviewerID"},
    {"item", "item_id", "itemId", "iid", "movie_id", "movieId", "asin"},
    {"time", "timestamp", "unix_time", "unixReviewTime"},
    {"action", "rating", "overall"}};

/* The names given by --columns; "" for roles it does not name. */
typedef struct wanted {
  char name[SH_ROLES][NAME];
} wanted;

static sh_status parse_columns(const char *text, wanted *w) {
  *w = (wanted){0};
  for (const char *p = text; *p;) {
    size_t n = strcspn(p, ",");
    const char *equals = memchr(p, '=', n);
    size_t role_length = equals ? (size_t)(equals - p) : n;
    char role[NAME];
    snprintf(role, sizeof role, "%.*s", (int)role_length, p);
    size_t value = equals ? n - role_length - 1 : 0;
    int r = 0;
    while (r < SH_ROLES && strcmp(roles[r], role) != 0) r++;
    if (r == SH_ROLES) {
      const char *near = sh_nearest(role, roles, SH_ROLES);
      return sh_fail(SH_ERR_USAGE, "--columns %s: unknown role '%s', expected user, item, time or action%s%s%s", text,
                     role, near ? " (nearest: " : "", near ? near : "", near ? ")" : "");
    }
    if (value == 0 || value >= NAME || w->name[r][0])
      return sh_fail(SH_ERR_USAGE, "--columns %s: expected %s=NAME once", text, role);
    memcpy(w->name[r], equals + 1, value);
    p += n + (p[n] == ',');
  }
  if (!w->name[SH_ROLE_USER][0] || !w->name[SH_ROLE_ITEM][0])
    return sh_fail(SH_ERR_USAGE, "--columns %s: user=NAME and item=NAME are needed", text);
  return SH_OK;
}

sh_status sh_delimited_check_columns(const char *columns) {
  wanted w;
  return parse_columns(columns, &w);
}

/* Takes the quotes off a field that starts with one; returns the byte behind the closing quote, NULL if there is none.
 */
static char *unquote(char *p, sh_field *f) {
  char *out = p;
  f->text = p++;
  for (;; p++) {
    if (!*p) return NULL;
    if (*p == '"' && *++p != '"') break;
    *out++ = *p;
  }
  f->length = (size_t)(out - f->text);
  return p;
}

int sh_delimited_split(sh_source *s, const sh_delimited *d, char *line, size_t length, sh_field *field, int max) {
  char *p = line, *stop = line + length;
  int n = 0;
  for (;; n++) {
    sh_field f = {p, 0};
    char *end;
    if (d->quotes && *p == '"') {
      end = unquote(p, &f);
      if (!end || (end < stop && *end != d->separator)) {
        sh_source_fault(s,
                        end ? "field %d: text behind its closing quote"
                            : "field %d: quote is not closed (line breaks inside quotes are not read)",
                        n + 1);
        return -1;
      }
    } else {
      end = memchr(p, d->separator, (size_t)(stop - p));
      if (!end) end = stop;
      f.length = (size_t)(end - p);
    }
    bool last = end >= stop;
    f.text[f.length] = '\0';
    if (n < max) field[n] = f;
    if (last) return n + 1;
    p = end + 1;
  }
}

/* The header's names, for a message. */
static const char *list_columns(const sh_source *s, char *out, size_t size) {
  size_t at = 0;
  out[0] = '\0';
  for (int i = 0; i < s->ncolumns && at + 4 < size; i++) {
    int n = snprintf(out + at, size - at, "%s%s", i ? ", " : "", s->field[i].text);
    at += n > 0 ? (size_t)n : 0;
  }
  return out;
}

/* The place of a name in the header, -1 when absent, -2 when it stands twice. */
static int find_column(const sh_source *s, const char *name, bool any_case) {
  int found = -1;
  for (int i = 0; i < s->ncolumns; i++) {
    if ((any_case ? strcasecmp : strcmp)(s->field[i].text, name) != 0) continue;
    if (found >= 0) return -2;
    found = i;
  }
  return found;
}

static sh_status twice(const sh_source *s, const char *name) {
  return sh_fail(SH_ERR_DATA, "%s:1: column '%s' stands twice in the header, expected one", s->text.path, name);
}

static sh_status find_named(sh_source *s, int role, const char *name) {
  int c = find_column(s, name, false);
  s->column[role] = c;
  if (c >= 0) return SH_OK;
  if (c == -2) return twice(s, name);
  const char **names = sh_malloc(sizeof *names * (size_t)s->ncolumns);
  for (int i = 0; i < s->ncolumns; i++) names[i] = s->field[i].text;
  const char *near = sh_nearest(name, names, s->ncolumns);
  free(names);
  char all[512];
  return sh_fail(SH_ERR_DATA, "%s:1: no column '%s' (for %s)%s%s%s; the header has: %s", s->text.path, name,
                 roles[role], near ? ", nearest is '" : "", near ? near : "", near ? "'" : "",
                 list_columns(s, all, sizeof all));
}

static sh_status find_usual(sh_source *s, int role) {
  s->column[role] = -1;
  for (int i = 0; i < ALIASES && usual[role][i] && s->column[role] == -1; i++) {
    s->column[role] = find_column(s, usual[role][i], true);
    if (s->column[role] == -2) return twice(s, usual[role][i]);
  }
  if (s->column[role] >= 0 || role == SH_ROLE_TIME || role == SH_ROLE_ACTION) return SH_OK;
  char all[512];
  return sh_fail(SH_ERR_DATA, "%s:1: no column for %s; the header has: %s (name it: --columns user=NAME,item=NAME,...)",
                 s->text.path, roles[role], list_columns(s, all, sizeof all));
}

/* --no-header: the names are numbers from 1. */
static sh_status find_numbered(sh_source *s, int role, const char *name) {
  char *end;
  long n = strtol(name, &end, 10);
  if (*end || n < 1 || n > 100000)
    return sh_fail(SH_ERR_USAGE, "--columns %s=%s: with --no-header a column is a number from 1", roles[role], name);
  s->column[role] = (int)n - 1;
  if (s->ncolumns < n) s->ncolumns = (int)n;
  return SH_OK;
}

static sh_status read_header(sh_source *s, const sh_delimited *d) {
  char *line;
  size_t length;
  SH_TRY(sh_textfile_line(&s->text, &line, &length));
  if (!line) return sh_fail(SH_ERR_DATA, "%s: is empty, expected a header line", s->text.path);
  int max = 1;
  for (size_t i = 0; i < length; i++) max += line[i] == d->separator;
  s->field = sh_malloc(sizeof *s->field * (size_t)max);
  s->ncolumns = sh_delimited_split(s, d, line, length, s->field, max);
  if (s->ncolumns < 0) return sh_fail(SH_ERR_DATA, "%s:1: header: %s", s->text.path, s->fault);
  for (int i = 0; d->types && i < s->ncolumns; i++) {
    char *colon = strrchr(s->field[i].text, ':');
    if (colon) *colon = '\0';
  }
  return SH_OK;
}

sh_status sh_delimited_begin(sh_source *s, const sh_delimited *d) {
  wanted w = {0};
  const sh_prepare_options *o = s->options;
  if (o->columns) SH_TRY(parse_columns(o->columns, &w));
  if (o->no_header && !o->columns)
    return sh_fail(SH_ERR_USAGE, "--no-header needs --columns user=N,item=N,... with numbers from 1");
  if (!o->no_header) SH_TRY(read_header(s, d));
  for (int role = 0; role < SH_ROLES; role++) {
    s->column[role] = -1;
    if (s->items_only && role != SH_ROLE_ITEM) continue;
    if (o->columns && !w.name[role][0]) continue;
    if (o->no_header) {
      SH_TRY(find_numbered(s, role, w.name[role]));
    } else if (o->columns) {
      SH_TRY(find_named(s, role, w.name[role]));
    } else {
      SH_TRY(find_usual(s, role));
    }
  }
  s->field = sh_realloc(s->field, sizeof *s->field * (size_t)s->ncolumns);
  s->has_time = s->column[SH_ROLE_TIME] >= 0;
  s->has_action = s->column[SH_ROLE_ACTION] >= 0;
  return SH_OK;
}

static bool split_line(sh_source *s, const sh_delimited *d, char *line, size_t length) {
  int n = sh_delimited_split(s, d, line, length, s->field, s->ncolumns);
  if (n < 0) return false;
  if (n == s->ncolumns || (s->options->no_header && n > s->ncolumns)) return true;
  return sh_source_fault(s, "%d fields, expected %d%s", n, s->ncolumns,
                         s->options->no_header ? " or more" : " as in the header");
}

bool sh_delimited_line(sh_source *s, const sh_delimited *d, char *line, size_t length) {
  if (!split_line(s, d, line, length)) return false;
  const int *c = s->column;
  int64_t time = 0, user, item;
  float action = 0;
  if (c[SH_ROLE_TIME] >= 0 && !sh_source_time(s, &s->field[c[SH_ROLE_TIME]], &time)) return false;
  if (c[SH_ROLE_ACTION] >= 0 && !sh_source_action(s, &s->field[c[SH_ROLE_ACTION]], &action)) return false;
  const sh_field *u = &s->field[c[SH_ROLE_USER]], *i = &s->field[c[SH_ROLE_ITEM]];
  if ((user = sh_source_user(s, u->text, u->length)) < 0) return false;
  if ((item = sh_source_item(s, i->text, i->length)) < 0) return false;
  sh_source_push(s, user, item, time, action);
  return true;
}

bool sh_delimited_item(sh_source *s, const sh_delimited *d, char *line, size_t length, sh_field *key) {
  if (!split_line(s, d, line, length)) return false;
  *key = s->field[s->column[SH_ROLE_ITEM]];
  return true;
}
