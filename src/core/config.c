#include "core/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/config_keys.h"

static sh_key_table table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static sh_key *key_add(const char *name, sh_key_kind kind, size_t offset, const char *help) {
  assert(table.keys < SH_CONFIG_KEYS);
  sh_key_section *s = &table.section[table.sections - 1];
  sh_key *k = &table.key[table.keys++];
  s->n++;
  *k = (sh_key){.section = s->name, .name = name, .kind = kind, .offset = offset, .help = help};
  return k;
}

static void section_add(const char *name, const char *help) {
  assert(table.sections < SH_CONFIG_SECTIONS);
  table.section[table.sections++] = (sh_key_section){.name = name, .help = help, .first = table.keys};
}

/* Each section is a block in which `fields` is its struct. */
#define AT(key) base + offsetof(fields, key)
#define SECTION(s, text)                                                                                               \
  {                                                                                                                    \
    typedef sh_conf_##s fields;                                                                                        \
    const size_t base = offsetof(sh_config, s);                                                                        \
    section_add(#s, text);
#define END(s) }
#define INT(name, deflt, low, high, text)                                                                              \
  {                                                                                                                    \
    sh_key *k = key_add(#name, SH_KEY_INT, AT(name), text);                                                            \
    k->value.i = deflt, k->min = (double)(low), k->max = (double)(high);                                               \
  }
#define REAL(name, deflt, low, high, text)                                                                             \
  {                                                                                                                    \
    sh_key *k = key_add(#name, SH_KEY_REAL, AT(name), text);                                                           \
    k->value.r = deflt, k->min = low, k->max = high;                                                                   \
  }
#define BOOL(name, deflt, text) key_add(#name, SH_KEY_BOOL, AT(name), text)->value.b = deflt;
#define TEXT(name, deflt, text) key_add(#name, SH_KEY_TEXT, AT(name), text)->value.s = deflt;
#define ENUM(name, deflt, all, text)                                                                                   \
  {                                                                                                                    \
    sh_key *k = key_add(#name, SH_KEY_ENUM, AT(name), text);                                                           \
    k->value.s = deflt, k->names = all;                                                                                \
  }
static void table_build(void) {
#include "core/schema.def"
}

const sh_key_table *sh_keys(void) {
  pthread_once(&once, table_build);
  return &table;
}

int sh_keys_section(const char *name, size_t length) {
  const sh_key_table *t = sh_keys();
  for (int i = 0; i < t->sections; i++)
    if (strlen(t->section[i].name) == length && !memcmp(t->section[i].name, name, length)) return i;
  return -1;
}

int sh_keys_find(int section, const char *name) {
  const sh_key_table *t = sh_keys();
  for (int i = t->section[section].first; i < t->section[section].first + t->section[section].n; i++)
    if (!strcmp(t->key[i].name, name)) return i;
  return -1;
}

void sh_config_defaults(sh_config *c) {
  const sh_key_table *t = sh_keys();
  memset(c, 0, sizeof *c);
  for (int i = 0; i < t->keys; i++) {
    const sh_key *k = &t->key[i];
    void *at = (char *)c + k->offset;
    switch (k->kind) {
    case SH_KEY_INT:
      memcpy(at, &k->value.i, sizeof(int64_t));
      break;
    case SH_KEY_REAL:
      memcpy(at, &k->value.r, sizeof(double));
      break;
    case SH_KEY_BOOL:
      memcpy(at, &k->value.b, sizeof(bool));
      break;
    case SH_KEY_TEXT:
    case SH_KEY_ENUM:
      memcpy(at, k->value.s, strlen(k->value.s) + 1);
      break;
    }
  }
}

static int edit_distance(const char *a, const char *b) {
  enum { MOST = 64 };
  size_t n = strlen(a), m = strlen(b);
  if (n >= MOST || m >= MOST) return MOST;
  int row[MOST + 1];
  for (size_t j = 0; j <= m; j++) row[j] = (int)j;
  for (size_t i = 1; i <= n; i++) {
    int diagonal = row[0];
    row[0] = (int)i;
    for (size_t j = 1; j <= m; j++) {
      int best = diagonal + (a[i - 1] != b[j - 1]);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = row[j];
      row[j] = best;
    }
  }
  return row[m];
}

const char *sh_nearest(const char *word, const char *const *names, int n) {
  const char *best = NULL;
  int least = 1 + (int)(strlen(word) / 3) + 1;
  for (int i = 0; i < n; i++) {
    int d = edit_distance(word, names[i]);
    if (d < least) least = d, best = names[i];
  }
  return best;
}

sh_status sh_keys_unknown(const char *where, int section, const char *name) {
  const sh_key_table *t = sh_keys();
  const sh_key_section *s = &t->section[section];
  const char *names[SH_CONFIG_KEYS];
  for (int i = 0; i < s->n; i++) names[i] = t->key[s->first + i].name;
  const char *near = sh_nearest(name, names, s->n);
  if (near)
    return sh_fail(SH_ERR_USAGE, "%s: unknown key %s.%s; nearest is %s.%s", where, s->name, name, s->name, near);
  for (int i = 0; i < t->keys; i++)
    if (!strcmp(t->key[i].name, name))
      return sh_fail(SH_ERR_USAGE, "%s: unknown key %s.%s; nearest is %s.%s", where, s->name, name, t->key[i].section,
                     name);
  char list[1024] = "";
  for (int i = 0; i < s->n; i++) {
    strncat(list, i ? ", " : "", sizeof list - strlen(list) - 1);
    strncat(list, names[i], sizeof list - strlen(list) - 1);
  }
  return sh_fail(SH_ERR_USAGE, "%s: unknown key %s.%s; section %s has %s", where, s->name, name, s->name, list);
}

sh_status sh_keys_unknown_section(const char *where, const char *name) {
  const sh_key_table *t = sh_keys();
  for (int i = 0; i < t->keys; i++)
    if (!strcmp(t->key[i].name, name))
      return sh_fail(SH_ERR_USAGE, "%s: unknown section %s; %s is a key of section %s", where, name, name,
                     t->key[i].section);
  const char *names[SH_CONFIG_SECTIONS];
  char list[512] = "";
  for (int i = 0; i < t->sections; i++) {
    names[i] = t->section[i].name;
    strncat(list, i ? ", " : "", sizeof list - strlen(list) - 1);
    strncat(list, names[i], sizeof list - strlen(list) - 1);
  }
  const char *near = sh_nearest(name, names, t->sections);
  if (near) return sh_fail(SH_ERR_USAGE, "%s: unknown section %s; nearest is %s", where, name, near);
  return sh_fail(SH_ERR_USAGE, "%s: unknown section %s; there are %s", where, name, list);
}

/* A whole number, also written as 1e6; false when `text` is none or does not fit. */
static bool parse_int(const char *text, int64_t *out) {
  char *end;
  errno = 0;
  long long v = strtoll(text, &end, 10);
  if (end != text && !*end) {
    *out = v;
    return errno == 0;
  }
  if (strspn(text, "0123456789+-.eE") != strlen(text)) return false;
  double r = strtod(text, &end);
  if (end == text || *end || r != floor(r) || fabs(r) > 9e15) return false;
  *out = (int64_t)r;
  return true;
}

static bool parse_real(const char *text, double *out) {
  char *end;
  *out = strtod(text, &end);
  return end != text && !*end && isfinite(*out) && strspn(text, "0123456789+-.eE") == strlen(text);
}

static bool parse_bool(const char *text, bool *out) {
  static const char *const yes[] = {"true", "yes", "on"}, *const no[] = {"false", "no", "off"};
  for (int i = 0; i < 3; i++) {
    if (!strcasecmp(text, yes[i])) return *out = true;
    if (!strcasecmp(text, no[i])) {
      *out = false;
      return true;
    }
  }
  return false;
}

static bool is_one_of(const char *text, const char *names) {
  size_t n = strlen(text);
  for (const char *p = names; n && p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
    if (strcspn(p, "|") == n && !memcmp(p, text, n)) return true;
  return false;
}

static sh_status wrong_type(const sh_key *k, const char *where, const char *text, const char *expected) {
  return sh_fail(SH_ERR_USAGE, "%s: %s.%s: found '%s', expected %s", where, k->section, k->name, text, expected);
}

static sh_status set_enum(const sh_key *k, const char *where, const char *text, char *out) {
  if (is_one_of(text, k->names)) {
    memcpy(out, text, strlen(text) + 1);
    return SH_OK;
  }
  char copy[256], expected[640];
  const char *names[32];
  int n = 0;
  snprintf(copy, sizeof copy, "%s", k->names);
  for (char *save, *p = strtok_r(copy, "|", &save); p && n < 32; p = strtok_r(NULL, "|", &save)) names[n++] = p;
  const char *near = sh_nearest(text, names, n);
  snprintf(expected, sizeof expected, "one of %s%s%s", k->names, near ? "; nearest is " : "", near ? near : "");
  return wrong_type(k, where, text, expected);
}

sh_status sh_key_set(sh_config *c, const sh_key *k, const char *where, const char *text) {
  char *at = (char *)c + k->offset, expected[128];
  int64_t i;
  double r;
  bool b;
  switch (k->kind) {
  case SH_KEY_INT:
    snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", k->min, k->max);
    if (!parse_int(text, &i) || (double)i < k->min || (double)i > k->max) return wrong_type(k, where, text, expected);
    memcpy(at, &i, sizeof i);
    return SH_OK;
  case SH_KEY_REAL:
    snprintf(expected, sizeof expected, "a number from %g to %g", k->min, k->max);
    if (!parse_real(text, &r) || r < k->min || r > k->max) return wrong_type(k, where, text, expected);
    memcpy(at, &r, sizeof r);
    return SH_OK;
  case SH_KEY_BOOL:
    if (!parse_bool(text, &b)) return wrong_type(k, where, text, "true or false");
    memcpy(at, &b, sizeof b);
    return SH_OK;
  case SH_KEY_TEXT:
    if (strlen(text) >= SH_TEXT)
      return sh_fail(SH_ERR_USAGE, "%s: %s.%s: text of %zu bytes, expected at most %d", where, k->section, k->name,
                     strlen(text), SH_TEXT - 1);
    memcpy(at, text, strlen(text) + 1);
    return SH_OK;
  case SH_KEY_ENUM:
    return set_enum(k, where, text, at);
  }
  return SH_OK;
}

sh_status sh_config_set(sh_config *c, const char *assignment) {
  static const char where[] = "command line";
  const char *equals = strchr(assignment, '='), *dot = strchr(assignment, '.');
  if (!equals || !dot || dot > equals || dot == assignment || dot + 1 == equals)
    return sh_fail(SH_ERR_USAGE, "%s: found '%s', expected section.key=value (shoal train --list-keys shows them)",
                   where, assignment);
  char section[64], name[64];
  snprintf(section, sizeof section, "%.*s", (int)(dot - assignment), assignment);
  snprintf(name, sizeof name, "%.*s", (int)(equals - dot - 1), dot + 1);
  int s = sh_keys_section(section, strlen(section));
  if (s < 0) return sh_keys_unknown_section(where, section);
  int k = sh_keys_find(s, name);
  if (k < 0) return sh_keys_unknown(where, s, name);
  return sh_key_set(c, &sh_keys()->key[k], where, equals + 1);
}
