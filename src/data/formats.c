/* The list of raw formats, and what they share. */
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "data/prepare.h"

#define FORMAT(name, help) extern const sh_format sh_format_##name;
#include "data/formats.def"
#undef FORMAT

static const struct {
  const sh_format *format;
  const char *help;
} formats[] = {
#define FORMAT(name, help) {&sh_format_##name, help},
#include "data/formats.def"
#undef FORMAT
};
enum { FORMATS = sizeof formats / sizeof *formats };

const sh_format *sh_format_find(const char *name) {
  for (int i = 0; i < FORMATS; i++) {
    if (strcmp(formats[i].format->name, name) == 0) return formats[i].format;
  }
  return NULL;
}

void sh_prepare_list_formats(FILE *out) {
  for (int i = 0; i < FORMATS; i++) fprintf(out, "  %-10s %s\n", formats[i].format->name, formats[i].help);
}

bool sh_source_fault(sh_source *s, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vsnprintf(s->fault, sizeof s->fault, fmt, args);
  va_end(args);
  return false;
}

/* A key for a message: at most 40 bytes, other than printable ASCII as \xNN. */
static const char *shown(const char *key, size_t length, char out[200]) {
  size_t at = 0;
  for (size_t i = 0; i < length && i < 40; i++) {
    if (isprint((unsigned char)key[i])) {
      out[at++] = key[i];
    } else {
      at += (size_t)snprintf(out + at, 5, "\\x%02X", (unsigned char)key[i]);
    }
  }
  snprintf(out + at, 4, "%s", length > 40 ? "..." : "");
  return out;
}

static int64_t key_id(sh_source *s, sh_keymap *m, const char *what, const char *key, size_t length) {
  int64_t id = sh_keymap_add(m, key, length);
  if (id >= 0) return id;
  const char *fault = sh_key_fault(key, length);
  char text[200];
  sh_source_fault(s, "%s key '%s' %s", what, shown(key, length, text),
                  fault ? fault : "is one too many: at most 2147483647 keys are possible");
  return -1;
}

int64_t sh_source_user(sh_source *s, const char *key, size_t length) {
  return key_id(s, &s->raw->user, "user", key, length);
}

int64_t sh_source_item(sh_source *s, const char *key, size_t length) {
  return key_id(s, &s->raw->item, "item", key, length);
}

static void grow(sh_raw *r) {
  r->capacity = r->capacity ? r->capacity * 2 : 1 << 16;
  size_t n = (size_t)r->capacity;
  r->user_id = sh_realloc(r->user_id, n * sizeof *r->user_id);
  r->item_id = sh_realloc(r->item_id, n * sizeof *r->item_id);
  if (r->has_time) r->time = sh_realloc(r->time, n * sizeof *r->time);
  if (r->has_action) r->action = sh_realloc(r->action, n * sizeof *r->action);
}

void sh_source_push(sh_source *s, int64_t user, int64_t item, int64_t time, float action) {
  sh_raw *r = s->raw;
  if (r->n == r->capacity) grow(r);
  r->user_id[r->n] = (uint32_t)user;
  r->item_id[r->n] = (uint32_t)item;
  if (r->has_time) r->time[r->n] = time;
  if (r->has_action) r->action[r->n] = action;
  r->n++;
}

static int64_t unit_divisor(const char *unit) {
  if (unit && strcmp(unit, "ms") == 0) return 1000;
  return unit && strcmp(unit, "us") == 0 ? 1000000 : 1;
}

bool sh_source_time(sh_source *s, const sh_field *f, int64_t *out) {
  int64_t v = 0, divisor = unit_divisor(s->options->time_unit);
  char shown_text[200];
  size_t i = 0;
  for (; i < f->length && i < 18 && f->text[i] >= '0' && f->text[i] <= '9'; i++) v = v * 10 + (f->text[i] - '0');
  if (i == 0 || i < f->length) {
    char *end = f->text;
    double x = f->length && strcspn(f->text, "xXnN") == f->length ? strtod(f->text, &end) : 0;
    while (*end == ' ') end++;
    bool number = f->length && end == f->text + f->length;
    if (number && x < 0)
      return sh_source_fault(s, "time '%s' is negative, expected a number >= 0", shown(f->text, f->length, shown_text));
    if (!number || !isfinite(x) || x >= 0x1p63)
      return sh_source_fault(s, "time '%s' is not a number, expected %s since 1970 (or any clock)",
                             shown(f->text, f->length, shown_text), divisor == 1 ? "seconds" : s->options->time_unit);
    v = (int64_t)x;
  }
  *out = v / divisor;
  return true;
}

bool sh_source_action(sh_source *s, const sh_field *f, float *out) {
  char *end = f->text, shown_text[200];
  *out = strtof(f->text, &end);
  while (*end == ' ') end++;
  if (f->length && end == f->text + f->length && isfinite(*out)) return true;
  return sh_source_fault(s, "action '%s' is not a finite number", shown(f->text, f->length, shown_text));
}

bool sh_next_word(char **line, sh_field *word) {
  char *p = *line;
  while (*p == ' ' || *p == '\t') p++;
  word->text = p;
  while (*p && *p != ' ' && *p != '\t') p++;
  word->length = (size_t)(p - word->text);
  if (*p) *p++ = '\0';
  *line = p;
  return word->length > 0;
}

sh_status sh_words_begin(sh_source *s) {
  s->has_time = s->has_action = false;
  return SH_OK;
}

bool sh_words_push(sh_source *s, int64_t user, char *text) {
  sh_field word;
  while (user >= 0 && sh_next_word(&text, &word)) {
    int64_t item = sh_source_item(s, word.text, word.length);
    if (item < 0) return false;
    sh_source_push(s, user, item, 0, 0);
  }
  return user >= 0;
}

bool sh_words_item(sh_source *s, char *text, size_t length, sh_field *key) {
  (void)length;
  return sh_next_word(&text, key) || sh_source_fault(s, "no item key");
}
