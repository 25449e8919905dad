#include "common.h"
#include "shoal/checkpoint.h"

static const sh_usage usage = {
    .synopsis = "CHECKPOINT ...",
    .summary = "Print what a checkpoint holds, on one screen: who wrote it and when, progress, model, settings, sizes.",
    .example = "shoal inspect run/ckpt/latest.h5",
    .least = 1,
    .most = -1,
};

sh_status sh_job_inspect(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help || !sh_is_first_rank()) return SH_OK;
  for (int i = 0; i < a.npositional; i++) {
    if (i > 0) putchar('\n');
    SH_TRY(sh_checkpoint_inspect(a.positional[i], stdout));
  }
  return SH_OK;
}
