/* What is to be measured: one shape from the command line, or a file of them. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_internal.h"

static sh_status set_bench_key(sh_bench_shape *s, const char *setting) {
  static const char *const names[] = {"users", "items", "length", "steps"};
  int64_t *const values[] = {&s->sequences.users, &s->sequences.items, &s->sequences.length, &s->steps};
  enum { KEYS = sizeof names / sizeof names[0] };
  char word[32];
  const char *name = setting + strlen("bench.");
  size_t n = strcspn(name, "=");
  snprintf(word, sizeof word, "%.*s", (int)n, name);
  for (int i = 0; i < KEYS; i++) {
    if (strcmp(word, names[i]) != 0) continue;
    char *end = NULL;
    long long v = name[n] ? strtoll(name + n + 1, &end, 10) : 0;
    if (!end || end == name + n + 1 || *end || v < 1 || v > 1000000000)
      return sh_fail(SH_ERR_USAGE, "found '%s', expected bench.%s=N, a whole number from 1 to 1000000000", setting,
                     word);
    *values[i] = v;
    return SH_OK;
  }
  const char *near = sh_nearest(word, names, KEYS);
  return sh_fail(SH_ERR_USAGE, "found '%s', expected bench.users, .items, .length or .steps%s%s", setting,
                 near ? "; nearest is bench." : "", near ? near : "");
}

static sh_status set(sh_bench_shape *s, const char *setting) {
  return strncmp(setting, "bench.", 6) ? sh_config_set(&s->conf, setting) : set_bench_key(s, setting);
}

/* base=PATH reads a recipe, from the folder of the file of shapes. */
static sh_status read_base(sh_bench_shape *s, const char *file, const char *path) {
  const char *slash = strrchr(file, '/');
  char full[4096];
  snprintf(full, sizeof full, "%.*s%s", *path == '/' || !slash ? 0 : (int)(slash - file + 1), file, path);
  return sh_config_read(&s->conf, full);
}

static sh_status read_name(sh_bench_shape *s, const char *word) {
  for (const char *p = word; *p; p++)
    if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
      return sh_fail(SH_ERR_USAGE, "found '%s', expected a name of letters, digits, '.', '_' and '-' first", word);
  if (strlen(word) >= sizeof s->name)
    return sh_fail(SH_ERR_USAGE, "'%s' is longer than %zu characters", word, sizeof s->name - 1);
  strcpy(s->name, word);
  return SH_OK;
}

/* NAME [base=PATH] [section.key=value ...], and behind them what the command line sets. */
static sh_status read_line(sh_bench_shape *s, const char *file, char *line, const sh_bench_options *o) {
  char *rest = NULL, *word = strtok_r(line, " \t\r\n", &rest);
  SH_TRY(read_name(s, word));
  while ((word = strtok_r(NULL, " \t\r\n", &rest)))
    SH_TRY(strncmp(word, "base=", 5) ? set(s, word) : read_base(s, file, word + 5));
  for (int i = 0; i < o->nset; i++) SH_TRY(set(s, o->set[i]));
  if (o->steps > 0) s->steps = o->steps;
  return sh_config_check(&s->conf);
}

static sh_status read_file(const char *path, FILE *f, const sh_bench_shape *base, const sh_bench_options *o,
                           sh_bench_shape *shape, int *n) {
  char *line = NULL;
  size_t room = 0;
  sh_status status = SH_OK;
  for (int at = 1; status == SH_OK && getline(&line, &room, f) > 0; at++) {
    line[strcspn(line, "#")] = 0;
    if (!line[strspn(line, " \t\r\n")]) continue;
    char message[1024];
    if (*n == SH_BENCH_SHAPES) {
      status = sh_fail(SH_ERR_USAGE, "more than %d shapes", SH_BENCH_SHAPES);
    } else {
      shape[*n] = *base;
      status = read_line(&shape[*n], path, line, o);
      for (int i = 0; i < *n && status == SH_OK; i++)
        if (!strcmp(shape[i].name, shape[*n].name))
          status = sh_fail(SH_ERR_USAGE, "a second shape is called '%s'", shape[i].name);
    }
    snprintf(message, sizeof message, "%s", sh_error_message());
    if (status != SH_OK) sh_fail(status, "%s:%d: %s", path, at, message);
    ++*n;
  }
  free(line);
  if (status == SH_OK && *n == 0) status = sh_fail(SH_ERR_USAGE, "%s: no shapes in it", path);
  return status;
}

sh_status sh_bench_shapes(const sh_bench_options *o, sh_bench_shape *shape, int *n) {
  sh_bench_shape base = {.steps = o->steps > 0 ? o->steps : 24};
  *n = 0;
  sh_config_defaults(&base.conf);
  if (o->config) SH_TRY(sh_config_read(&base.conf, o->config));
  if (o->shapes) {
    FILE *f = fopen(o->shapes, "r");
    if (!f) return sh_fail(SH_ERR_USAGE, "%s: cannot be read", o->shapes);
    sh_status status = read_file(o->shapes, f, &base, o, shape, n);
    fclose(f);
    return status;
  }
  for (int i = 0; i < o->nset; i++) SH_TRY(set(&base, o->set[i]));
  shape[(*n)++] = base;
  return sh_config_check(&base.conf);
}

bool sh_bench_wants_threads(const sh_bench_options *o) {
  sh_bench_shape *shape = sh_calloc(SH_BENCH_SHAPES, sizeof *shape);
  int n = 0;
  bool wants = false;
  if (sh_bench_shapes(o, shape, &n) == SH_OK)
    for (int i = 0; i < n; i++) wants |= !strcmp(shape[i].conf.comm.progress, "thread");
  free(shape);
  return wants;
}
