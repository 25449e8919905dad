/* MovieLens: ratings.dat (ML-1M, ML-10M) and u.data (ML-100K); movies.dat and u.item give the candidate set. Only the
 * id of an item line is read, so the titles' encoding (Latin-1) does not matter. */
#include <string.h>

#include "data/prepare.h"

static sh_status begin(sh_source *s) {
  s->has_time = s->has_action = true;
  return SH_OK;
}

static bool line(sh_source *s, char *text, size_t length) {
  sh_field f[4];
  const char *separator = memchr(text, '\t', length) ? "\t" : "::";
  size_t width = strlen(separator);
  int n = 0;
  char *p = text, *stop = text + length;
  for (;; n++) {
    char *next = strstr(p, separator);
    if (n < 4) f[n] = (sh_field){p, (size_t)((next ? next : stop) - p)};
    if (!next) break;
    *next = '\0';
    p = next + width;
  }
  if (n + 1 != 4) return sh_source_fault(s, "%d fields, expected 4: user::item::rating::time", n + 1);
  int64_t time, user, item;
  float action;
  if (!sh_source_action(s, &f[2], &action) || !sh_source_time(s, &f[3], &time)) return false;
  if ((user = sh_source_user(s, f[0].text, f[0].length)) < 0) return false;
  if ((item = sh_source_item(s, f[1].text, f[1].length)) < 0) return false;
  sh_source_push(s, user, item, time, action);
  return true;
}

static bool item_line(sh_source *s, char *text, size_t length, sh_field *key) {
  char *end = strstr(text, "::");
  if (!end) end = memchr(text, '|', length);
  if (!end) return sh_source_fault(s, "no '::' or '|' behind the item id, expected id::title::genres");
  *end = '\0';
  *key = (sh_field){text, (size_t)(end - text)};
  return true;
}

const sh_format sh_format_movielens = {"movielens", begin, line, item_line};
