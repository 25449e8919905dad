#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "shoal/names.h"

enum { MOST_OPTIONS = 64 };

bool sh_is_first_rank(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
  for (int i = 0; i < 4; i++) {
    const char *rank = getenv(names[i]);
    if (rank) return !strcmp(rank, "0");
  }
  return true;
}

void sh_usage_print(const sh_usage *u, const char *command, FILE *out) {
  fprintf(out, "usage: shoal %s %s\n\n%s\n", command, u->synopsis, u->summary);
  fprintf(out, "\noptions:\n");
  for (int i = 0; i < u->noptions; i++) {
    char left[64];
    const sh_option *o = &u->options[i];
    snprintf(left, sizeof left, "--%s%s%s", o->name, o->meta ? " " : "", o->meta ? o->meta : "");
    fprintf(out, "  %-26s %s\n", left, o->help);
  }
  fprintf(out, "  %-26s %s\n", "--help", "this text");
  fprintf(out, "\nexample:\n");
  for (const char *line = u->example; *line;) {
    int n = (int)strcspn(line, "\n");
    fprintf(out, "  %.*s\n", n, line);
    line += n + (line[n] == '\n');
  }
  if (u->more) u->more(out);
}

static sh_status set_option(const char *command, const sh_option *o, const char *text) {
  char *end = NULL;
  switch (o->kind) {
  case SH_OPTION_FLAG:
    *(bool *)o->value = true;
    return SH_OK;
  case SH_OPTION_TEXT:
    *(const char **)o->value = text;
    return SH_OK;
  case SH_OPTION_INT: {
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end != text && (*end == 'e' || *end == 'E')) { /* 1e6 */
      double r = strtod(text, &end);
      v = fabs(r) < 9e15 ? (long long)r : 0;
      if ((double)v != r) end = NULL;
    }
    if (!end || end == text || *end || errno || (double)v < o->min || (double)v > o->max)
      return sh_fail(SH_ERR_USAGE, "%s: --%s: found '%s', expected a whole number from %.0f to %.0f", command, o->name,
                     text, o->min, o->max);
    *(int64_t *)o->value = v;
    return SH_OK;
  }
  case SH_OPTION_REAL: {
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || v < o->min || v > o->max)
      return sh_fail(SH_ERR_USAGE, "%s: --%s: found '%s', expected a number from %g to %g", command, o->name, text,
                     o->min, o->max);
    *(double *)o->value = v;
    return SH_OK;
  }
  }
  return SH_OK;
}

static sh_status unknown_option(const sh_usage *u, const char *command, const char *given) {
  const char *names[MOST_OPTIONS + 1];
  for (int i = 0; i < u->noptions; i++) names[i] = u->options[i].name;
  names[u->noptions] = "help";
  char word[64];
  const char *start = given + strspn(given, "-");
  snprintf(word, sizeof word, "%.*s", (int)strcspn(start, "="), start);
  const char *near = sh_nearest(word, names, u->noptions + 1);
  if (near) return sh_fail(SH_ERR_USAGE, "%s: unknown option %s; nearest is --%s", command, given, near);
  return sh_fail(SH_ERR_USAGE, "%s: unknown option %s; `shoal %s --help` lists them", command, given, command);
}

static sh_status check_count(const sh_usage *u, const char *command, const sh_arguments *a) {
  if (a->npositional < u->least)
    return sh_fail(SH_ERR_USAGE, "%s: found %d argument%s, expected %s%d; usage: shoal %s %s", command, a->npositional,
                   a->npositional == 1 ? "" : "s", u->most == u->least ? "" : "at least ", u->least, command,
                   u->synopsis);
  if (u->most >= 0 && a->npositional > u->most)
    return sh_fail(SH_ERR_USAGE, "%s: unexpected argument '%s'; usage: shoal %s %s", command, a->positional[u->most],
                   command, u->synopsis);
  return SH_OK;
}

sh_status sh_arguments_read(const sh_usage *u, int argc, char **argv, sh_arguments *out) {
  struct option options[MOST_OPTIONS + 2] = {0};
  const char *command = argv[0];
  *out = (sh_arguments){0};
  if (u->noptions > MOST_OPTIONS) return sh_fail(SH_ERR_INTERNAL, "%s: too many options", command);
  for (int i = 0; i < u->noptions; i++)
    options[i] = (struct option){u->options[i].name, u->options[i].kind != SH_OPTION_FLAG, NULL, 256 + i};
  options[u->noptions] = (struct option){"help", no_argument, NULL, 'h'};
  int out_option = -1; /* the one that -o stands for */
  for (int i = 0; i < u->noptions; i++)
    if (!strcmp(u->options[i].name, "out")) out_option = i;
  optind = 0; /* start afresh: main may have parsed before */
  opterr = 0;
  for (;;) {
    int at = optind ? optind : 1, c = getopt_long(argc, argv, out_option < 0 ? ":h" : ":ho:", options, NULL);
    if (c == -1) break;
    if (c == 'h') {
      out->help = true;
      if (sh_is_first_rank()) sh_usage_print(u, command, stdout);
      return SH_OK;
    }
    if (c == 'o') c = 256 + out_option;
    if (c == ':') return sh_fail(SH_ERR_USAGE, "%s: %s needs a value", command, argv[optind - 1]);
    if (c == '?' && optopt >= 256)
      return sh_fail(SH_ERR_USAGE, "%s: --%s takes no value", command, u->options[optopt - 256].name);
    if (c == '?') return unknown_option(u, command, argv[optind > at ? optind - 1 : at]);
    SH_TRY(set_option(command, &u->options[c - 256], optarg));
  }
  out->positional = argv + optind;
  out->npositional = argc - optind;
  bool file = out->npositional > 0 && (u->least > 0 || !strchr(out->positional[0], '='));
  out->file = file ? out->positional[0] : NULL;
  out->nset = out->npositional - file;
  out->set = (const char *const *)out->positional + file;
  return check_count(u, command, out);
}
