/* shoal: one program, one subcommand a file (commands.def). */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common.h"
#include "shoal/names.h"
#include "shoal/version.h"

typedef struct command {
  const char *name, *summary;
  sh_status (*run)(int argc, char **argv);
} command;

static const command commands[] = {
#define COMMAND(name, summary) {#name, summary, sh_job_##name},
#include "commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out) {
  static const sh_status codes[] = {SH_OK,           SH_ERR_INTERNAL, SH_ERR_USAGE,   SH_ERR_DATA,
                                    SH_ERR_DIVERGED, SH_ERR_CKPT,     SH_ERR_STALLED, SH_STOPPED};
  fprintf(out, "shoal %s: trainer for generative large recommendation models on CPU clusters\n\n", sh_version());
  fprintf(out, "usage: shoal COMMAND [arguments]\n       shoal COMMAND --help\n       shoal --version\n\ncommands:\n");
  for (int i = 0; i < COMMANDS; i++) fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
  fprintf(out, "\nexit codes:\n");
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
    fprintf(out, "  %-12d %s\n", (int)codes[i], sh_status_text(codes[i]));
  fprintf(out, "\nexample:\n  mpirun -n 2 shoal train configs/synth/quickstart.yaml train.epochs=5\n");
}

static sh_status dispatch(int argc, char **argv) {
  if (argc < 2) return sh_fail(SH_ERR_USAGE, "no command given; `shoal --help` lists them");
  const char *word = argv[1];
  bool help = !strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help");
  bool version = !strcmp(word, "--version") || !strcmp(word, "-V") || !strcmp(word, "version");
  if (help || version) {
    if (!sh_is_first_rank()) return SH_OK;
    if (help) print_help(stdout);
    if (version) printf("shoal %s\n%s", sh_version(), strchr(sh_build_info(), '\n') + 1);
    return SH_OK;
  }
  const char *names[COMMANDS];
  for (int i = 0; i < COMMANDS; i++) {
    names[i] = commands[i].name;
    if (!strcmp(word, names[i])) return commands[i].run(argc - 1, argv + 1);
  }
  const char *near = sh_nearest(word, names, COMMANDS);
  if (near) return sh_fail(SH_ERR_USAGE, "unknown command '%s'; nearest is %s", word, near);
  return sh_fail(SH_ERR_USAGE, "unknown command '%s'; `shoal --help` lists them", word);
}

int main(int argc, char **argv) {
  sh_status status = dispatch(argc, argv);
  if (fflush(stdout) || ferror(stdout)) {
    if (status == SH_OK) status = sh_fail(SH_ERR_INTERNAL, "standard output could not be written");
  }
  if (status == SH_OK) return 0;
  if (sh_is_first_rank()) {
    const char *message = sh_error_message();
    fprintf(stderr, "shoal: %s\n", *message ? message : sh_status_text(status));
  } else {
    /* A launcher ends all ranks when one exits with a failure: leave rank 0 the time to say why. */
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
  }
  return (int)status;
}
