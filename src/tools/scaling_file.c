/* The machine file of `shoal plan`. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "tools/scaling_internal.h"

typedef struct key {
  const char *name;
  size_t place, second; /* second: of the other sample; 0: there is one value */
  const char *help;
} key;

#define OF_MACHINE(name, help)                                                                                         \
  { #name, offsetof(sh_machine, name), 0, help }
static const key machine_key[] = {
    OF_MACHINE(cores, "of a node"),
    OF_MACHINE(gemm_one, "FLOP/s in fp32 of a core that works alone"),
    OF_MACHINE(gemm_all, "of each core, when all of a node work"),
    OF_MACHINE(memory_one, "bytes/s of a core that works alone"),
    OF_MACHINE(memory_all, "of each core, when all of a node work"),
    OF_MACHINE(near.latency, "seconds of a short message between ranks of a node"),
    OF_MACHINE(near.gap, "of each of many short messages"),
    OF_MACHINE(near.bandwidth, "bytes/s, both ways at once, of a rank"),
    OF_MACHINE(near.cpu, "seconds of a core a byte sent and one received"),
    OF_MACHINE(far.latency, "between nodes"),
    OF_MACHINE(far.gap, ""),
    OF_MACHINE(far.bandwidth, "of a node's link"),
    OF_MACHINE(far.cpu, ""),
};
enum { MACHINE_KEYS = sizeof machine_key / sizeof machine_key[0] };

#define OF_WORK(name, help)                                                                                            \
  { #name, offsetof(sh_work, name), 0, help }
#define OF_SAMPLE(name, of, help)                                                                                      \
  { #name, offsetof(sh_work, sample[0].of), offsetof(sh_work, sample[1].of), help }
static const key work_key[] = {
    OF_WORK(threads, "of the rank measured"),
    OF_WORK(items, "rows of the table"),
    OF_WORK(longest, "tokens of the longest sequence"),
    OF_WORK(busy, "a step beside steps on all cores, until the slowest is done, over one alone"),
    OF_WORK(turns, "and of ranks that take turns on a core, over that times ranks a core"),
    OF_SAMPLE(tokens, tokens, "of a mean step: of the whole batch, of a part"),
    OF_SAMPLE(users, users, ""),
    OF_SAMPLE(inputs, inputs, "distinct table rows of inputs"),
    OF_SAMPLE(rows, rows, "and of everything"),
    OF_SAMPLE(load, seconds[SH_WORK_LOAD], "seconds of a rank alone"),
    OF_SAMPLE(exchange, seconds[SH_WORK_EXCHANGE], ""),
    OF_SAMPLE(forward, seconds[SH_WORK_FORWARD], ""),
    OF_SAMPLE(loss, seconds[SH_WORK_LOSS], ""),
    OF_SAMPLE(backward, seconds[SH_WORK_BACKWARD], ""),
    OF_SAMPLE(dense, seconds[SH_WORK_DENSE], "update of dense parameters"),
    OF_SAMPLE(table, seconds[SH_WORK_TABLE], "update of table rows"),
};
enum { WORK_KEYS = sizeof work_key / sizeof work_key[0] };

int sh_scaling_find(sh_scaling_file *f, const char *name, bool add) {
  for (int i = 0; i < f->nshapes; i++)
    if (!strcmp(f->shape[i].name, name)) return i;
  if (!add || f->nshapes == SH_BENCH_SHAPES) return -1;
  memset(&f->shape[f->nshapes], 0, sizeof f->shape[0]);
  snprintf(f->shape[f->nshapes].name, sizeof f->shape[0].name, "%s", name);
  f->shape[f->nshapes].work.busy = f->shape[f->nshapes].work.turns = 1;
  return f->nshapes++;
}

static sh_status unknown(const char *name, const key *keys, int n) {
  const char *names[MACHINE_KEYS + WORK_KEYS];
  for (int i = 0; i < n; i++) names[i] = keys[i].name;
  const char *near = sh_nearest(name, names, n);
  return sh_fail(SH_ERR_USAGE, "unknown key %s%s%s", name, near ? "; nearest is " : "", near ? near : "");
}

static sh_status set_value(const key *keys, int n, const char *name, void *into, const double *value, int values) {
  for (int i = 0; i < n; i++) {
    if (strcmp(keys[i].name, name) != 0) continue;
    int wanted = keys[i].second ? 2 : 1;
    if (values != wanted)
      return sh_fail(SH_ERR_USAGE, "%s: found %d value%s, expected %d", name, values, values == 1 ? "" : "s", wanted);
    memcpy((char *)into + keys[i].place, &value[0], sizeof *value);
    if (wanted == 2) memcpy((char *)into + keys[i].second, &value[1], sizeof *value);
    return SH_OK;
  }
  return unknown(name, keys, n);
}

/* At most two numbers, 0 or more; -1: something else. */
static int read_values(const char *text, double value[2]) {
  int n = 0;
  while (*(text += strspn(text, " \t\r\n"))) {
    char *end;
    if (n == 2) return -1;
    value[n] = strtod(text, &end);
    if (end == text || !isfinite(value[n]) || value[n] < 0) return -1;
    n++, text = end;
  }
  return n ? n : -1;
}

sh_status sh_scaling_set(sh_scaling_file *f, const char *setting, bool machine_only) {
  char word[128] = "";
  const char *equals = strchr(setting, '=');
  double value[2];
  int n = equals ? read_values(equals + 1, value) : -1;
  if (equals) snprintf(word, sizeof word, "%.*s", (int)(equals - setting), setting);
  word[strcspn(word, " \t")] = 0;
  char *dot = strchr(word, '.');
  bool machine = dot && !strncmp(word, "machine.", 8);
  if (!machine && dot) dot = strrchr(word, '.'); /* names of shapes may have dots */
  if (!dot || n < 0 || (machine_only && !machine))
    return sh_fail(SH_ERR_USAGE, "found '%s', expected %s = NUMBER", setting,
                   machine_only ? "machine.KEY" : "machine.KEY or SHAPE.KEY");
  *dot = 0;
  if (machine) return set_value(machine_key, MACHINE_KEYS, dot + 1, &f->machine, value, n);
  int i = sh_scaling_find(f, word, true);
  if (i < 0) return sh_fail(SH_ERR_USAGE, "more than %d shapes", SH_BENCH_SHAPES);
  if (strcmp(dot + 1, "config") != 0) return set_value(work_key, WORK_KEYS, dot + 1, &f->shape[i].work, value, n);
  f->shape[i].config = value[0];
  return SH_OK;
}

sh_status sh_scaling_read(sh_scaling_file *f, const char *path) {
  FILE *in = fopen(path, "r");
  if (!in) return sh_fail(SH_ERR_USAGE, "%s: cannot be read: %s", path, strerror(errno));
  char *line = NULL, message[1024];
  size_t room = 0;
  sh_status status = SH_OK;
  for (int at = 1; status == SH_OK && getline(&line, &room, in) > 0; at++) {
    line[strcspn(line, "#\n")] = 0;
    if (!line[strspn(line, " \t\r")]) continue;
    status = sh_scaling_set(f, line, false);
    snprintf(message, sizeof message, "%s", sh_error_message());
    if (status != SH_OK) sh_fail(status, "%s:%d: %s", path, at, message);
  }
  free(line);
  fclose(in);
  return status;
}

static void print_keys(FILE *out, const char *section, const key *keys, int n, const void *from) {
  for (int i = 0; i < n; i++) {
    double value[2] = {0};
    memcpy(&value[0], (const char *)from + keys[i].place, sizeof *value);
    if (keys[i].second) memcpy(&value[1], (const char *)from + keys[i].second, sizeof *value);
    int width = fprintf(out, "%s.%s = %.6g", section, keys[i].name, value[0]);
    if (keys[i].second) width += fprintf(out, " %.6g", value[1]);
    if (*keys[i].help) fprintf(out, "%*s# %s", width < 44 ? 44 - width : 1, "", keys[i].help);
    fputc('\n', out);
  }
}

void sh_scaling_print(const sh_scaling_file *f, FILE *out) {
  print_keys(out, "machine", machine_key, MACHINE_KEYS, &f->machine);
  for (int i = 0; i < f->nshapes; i++) {
    fprintf(out, "\n%s.config = %.0f\n", f->shape[i].name, f->shape[i].config);
    print_keys(out, f->shape[i].name, work_key, WORK_KEYS, &f->shape[i].work);
  }
}

double sh_scaling_fingerprint(const sh_config *c) {
  sh_config x;
  sh_config_defaults(&x);
  x.model = c->model, x.loss = c->loss, x.table = c->table;
  strcpy(x.train.precision, c->train.precision);
  char *text = sh_config_text(&x);
  double print = (double)(1 + (sh_hash(text, strlen(text)) >> 33));
  free(text);
  return print;
}
