#include "common.h"
#include "shoal/checkpoint.h"

static const sh_usage usage = {
    .synopsis = "CHECKPOINT ...",
    .summary = "Recompute every checksum of a checkpoint and say whether it is whole, or which array and block is not.",
    .example = "shoal verify run/ckpt/latest.h5\nshoal verify run/ckpt/step-*.h5",
    .least = 1,
    .most = -1,
};

/* All files are looked at. main prints the last failure; those before it are printed here. */
sh_status sh_job_verify(int argc, char **argv) {
  sh_arguments a;
  sh_status status = SH_OK;
  char failure[2048] = "";
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help || !sh_is_first_rank()) return SH_OK;
  for (int i = 0; i < a.npositional; i++) {
    sh_status one = sh_checkpoint_verify(a.positional[i], stdout);
    if (one == SH_OK) continue;
    if (status != SH_OK) fprintf(stderr, "shoal: %s\n", failure);
    snprintf(failure, sizeof failure, "%s", sh_error_message());
    status = one;
  }
  return status == SH_OK ? SH_OK : sh_fail(status, "%s", failure);
}
