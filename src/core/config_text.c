/* Configurations to text: YAML, differences, the list of keys. */
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/config_keys.h"

/* The shortest decimal that reads back as the same double. */
static void print_real(double v, char *out, size_t size) {
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(out, size, "%.*g", digits, v);
    if (strtod(out, NULL) == v) return;
  }
}

void sh_key_print(const sh_config *c, const sh_key *k, char *out, size_t size) {
  const char *at = (const char *)c + k->offset;
  int64_t i;
  double r;
  bool b;
  switch (k->kind) {
  case SH_KEY_INT:
    memcpy(&i, at, sizeof i);
    snprintf(out, size, "%lld", (long long)i);
    break;
  case SH_KEY_REAL:
    memcpy(&r, at, sizeof r);
    print_real(r, out, size);
    break;
  case SH_KEY_BOOL:
    memcpy(&b, at, sizeof b);
    snprintf(out, size, "%s", b ? "true" : "false");
    break;
  case SH_KEY_TEXT:
  case SH_KEY_ENUM:
    snprintf(out, size, "%s", at);
    break;
  }
}

bool sh_key_equal(const sh_config *a, const sh_config *b, const sh_key *k) {
  char x[SH_TEXT], y[SH_TEXT];
  sh_key_print(a, k, x, sizeof x);
  sh_key_print(b, k, y, sizeof y);
  return !strcmp(x, y);
}

/* A double-quoted YAML scalar; bytes above ASCII stand as they are. */
static void put_quoted(FILE *out, const char *text) {
  fputc('"', out);
  for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
    if (*p == '"' || *p == '\\')
      fprintf(out, "\\%c", *p);
    else if (*p < 32 || *p == 127)
      fprintf(out, "\\x%02X", *p);
    else
      fputc(*p, out);
  }
  fputc('"', out);
}

char *sh_config_text(const sh_config *c) {
  const sh_key_table *t = sh_keys();
  char *text = NULL, value[SH_TEXT];
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (!out) return sh_strdup("");
  for (int s = 0; s < t->sections; s++) {
    fprintf(out, "%s:\n", t->section[s].name);
    for (int i = t->section[s].first; i < t->section[s].first + t->section[s].n; i++) {
      sh_key_print(c, &t->key[i], value, sizeof value);
      fprintf(out, "  %s: ", t->key[i].name);
      if (t->key[i].kind == SH_KEY_TEXT || t->key[i].kind == SH_KEY_ENUM)
        put_quoted(out, value);
      else
        fputs(value, out);
      fputc('\n', out);
    }
  }
  fclose(out);
  return text;
}

static bool contains_word(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *p = strstr(list, word); p; p = strstr(p + 1, word))
    if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ' ')) return true;
  return false;
}

bool sh_config_differs(const sh_config *a, const sh_config *b, const char *sections, char *out, size_t size) {
  const sh_key_table *t = sh_keys();
  for (int i = 0; i < t->keys; i++) {
    const sh_key *k = &t->key[i];
    if ((sections && !contains_word(sections, k->section)) || sh_key_equal(a, b, k)) continue;
    char x[SH_TEXT], y[SH_TEXT];
    sh_key_print(a, k, x, sizeof x);
    sh_key_print(b, k, y, sizeof y);
    snprintf(out, size, "%s.%s: %s, not %s", k->section, k->name, x, y);
    return true;
  }
  return false;
}

/* `text` wrapped between columns `left` (where the cursor stands) and `right`. */
static void put_wrapped(FILE *out, const char *text, int left, int right) {
  int column = left;
  while (*text) {
    int n = (int)strcspn(text, " ");
    if (column > left && column + 1 + n > right) {
      fprintf(out, "\n%*s", left, "");
      column = left;
    } else if (column > left) {
      fputc(' ', out);
      column++;
    }
    fprintf(out, "%.*s", n, text);
    column += n;
    text += n;
    while (*text == ' ') text++;
  }
  fputc('\n', out);
}

static void list_key(FILE *out, const sh_config *defaults, const sh_key *k) {
  static const char *const kinds[] = {"integer", "number", "yes/no", "text", "choice"};
  char name[64], value[SH_TEXT], range[64] = "", help[1024];
  snprintf(name, sizeof name, "%s.%s", k->section, k->name);
  sh_key_print(defaults, k, value, sizeof value);
  if (k->kind == SH_KEY_INT) snprintf(range, sizeof range, "%.0f..%.0f", k->min, k->max);
  if (k->kind == SH_KEY_REAL) snprintf(range, sizeof range, "%g..%g", k->min, k->max);
  if (k->kind == SH_KEY_BOOL) snprintf(range, sizeof range, "true false");
  snprintf(help, sizeof help, "%s%s%s", k->names ? k->names : "", k->names ? ": " : "", k->help);
  if (k->kind == SH_KEY_TEXT && !*value) snprintf(value, sizeof value, "-");
  fprintf(out, "  %-24s %-8s %-14s %-16s ", name, kinds[k->kind], value, range);
  put_wrapped(out, help, 67, 132);
}

void sh_config_list(FILE *out) {
  const sh_key_table *t = sh_keys();
  sh_config *defaults = sh_malloc(sizeof *defaults);
  sh_config_defaults(defaults);
  for (int s = 0; s < t->sections; s++) {
    const sh_key_section *section = &t->section[s];
    fprintf(out, "%s%s: %s\n", s ? "\n" : "", section->name, section->help);
    fprintf(out, "  %-24s %-8s %-14s %-16s %s\n", "key", "type", "default", "range", "meaning");
    for (int i = section->first; i < section->first + section->n; i++) list_key(out, defaults, &t->key[i]);
  }
  free(defaults);
}
