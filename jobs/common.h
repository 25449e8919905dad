/* jobs/common.h: what the commands share: arguments and help.
 *
 *   static const char *out;
 *   static int64_t users = 1000;
 *   static const sh_option options[] = {
 *     SH_OPT_INT("users", &users, 1, 1000000000, "N", "users to make (1000)"),
 *     SH_OPT_TEXT("provenance", &out, "TEXT", "stored with the data"),
 *   };
 *   static const sh_usage usage = {.synopsis = "OUT.h5 [options]", .summary = "Make a data set.", ... };
 *   sh_arguments a;
 *   SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
 *   if (a.help) return SH_OK;
 *
 * Failures are returned, never printed here: main prints the message once, from rank 0.
 */
#ifndef SHOAL_JOBS_COMMON_H
#define SHOAL_JOBS_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shoal/status.h"

#define COMMAND(name, summary) sh_status sh_job_##name(int argc, char **argv); /* argv[0] is the command's name */
#include "commands.def"
#undef COMMAND

typedef enum sh_option_kind { SH_OPTION_FLAG, SH_OPTION_INT, SH_OPTION_REAL, SH_OPTION_TEXT } sh_option_kind;

typedef struct sh_option {
  const char *name; /* "users" for --users */
  sh_option_kind kind;
  void *value;      /* bool, int64_t, double or const char *, holding the default */
  double min, max;  /* of numbers */
  const char *meta; /* "N" in the help */
  const char *help;
} sh_option;

#define SH_OPT_FLAG(name, value, help)                                                                                 \
  { name, SH_OPTION_FLAG, value, 0, 0, NULL, help }
#define SH_OPT_INT(name, value, min, max, meta, help)                                                                  \
  { name, SH_OPTION_INT, value, min, max, meta, help }
#define SH_OPT_REAL(name, value, min, max, meta, help)                                                                 \
  { name, SH_OPTION_REAL, value, min, max, meta, help }
#define SH_OPT_TEXT(name, value, meta, help)                                                                           \
  { name, SH_OPTION_TEXT, value, 0, 0, meta, help }

typedef struct sh_usage {
  const char *synopsis; /* behind "usage: shoal train": "CONFIG [section.key=value ...] [options]" */
  const char *summary;  /* what it does; may have several lines */
  const char *example;  /* command lines, one a line; required */
  const sh_option *options;
  int noptions;
  int least, most;         /* positional arguments; most < 0: any number */
  void (*more)(FILE *out); /* prints what follows the example, or NULL */
} sh_usage;

typedef struct sh_arguments {
  bool help;         /* --help was given and printed: return SH_OK */
  int npositional;   /* arguments that are no options, in order */
  char **positional; /* within argv */
  const char *file;  /* the first of them, where the command requires one or it holds no '='; or NULL */
  int nset;          /* those behind `file`: section.key=value */
  const char *const *set;
} sh_arguments;

/* Options may stand anywhere; "--" ends them; -o is short for --out where a command has that. SH_ERR_USAGE names what
 * was found, expected, and the nearest option. */
sh_status sh_arguments_read(const sh_usage *u, int argc, char **argv, sh_arguments *out);

void sh_usage_print(const sh_usage *u, const char *command, FILE *out);

/* Whether the launcher calls this process rank 0 (its environment says so before MPI is up), or there is none. */
bool sh_is_first_rank(void);

#endif
