#include "common.h"
#include "shoal/checkpoint.h"
#include "shoal/data.h"

static const sh_usage usage = {
    .synopsis = "FILE ...",
    .summary = "Recompute every checksum of a checkpoint or data set and say whether it is whole, or what is not.",
    .example = "shoal verify run/ckpt/latest.h5 data/ml-1m.h5\nshoal verify run/ckpt/step-*.h5",
    .least = 1,
    .most = -1,
};

static sh_status verify(const char *path) {
  if (!sh_data_is_set(path)) return sh_checkpoint_verify(path, stdout);
  SH_TRY(sh_data_verify(path));
  printf("%s: whole\n", path);
  return SH_OK;
}

/* All files are looked at. main prints the last failure; those before it are printed here. */
sh_status sh_job_verify(int argc, char **argv) {
  sh_arguments a;
  sh_status status = SH_OK;
  char failure[2048] = "";
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help || !sh_is_first_rank()) return SH_OK;
  for (int i = 0; i < a.npositional; i++) {
    sh_status one = verify(a.positional[i]);
    if (one == SH_OK) continue;
    if (status != SH_OK) fprintf(stderr, "shoal: %s\n", failure);
    snprintf(failure, sizeof failure, "%s", sh_error_message());
    status = one;
  }
  return status == SH_OK ? SH_OK : sh_fail(status, "%s", failure);
}
