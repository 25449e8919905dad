#include "common.h"
#include "shoal/checkpoint.h"
#include "shoal/data.h"

static const sh_usage usage = {
    .synopsis = "FILE ...",
    .summary =
        "Print what a checkpoint holds, on one screen: who wrote it and when, progress, model, settings, sizes;\n"
        "or the report of a data set.",
    .example = "shoal inspect run/ckpt/latest.h5\nshoal inspect data/ml-1m.h5",
    .least = 1,
    .most = -1,
};

static sh_status inspect(const char *path) {
  if (!sh_data_is_set(path)) return sh_checkpoint_inspect(path, stdout);
  sh_data_report report;
  SH_TRY(sh_data_report_read(path, &report));
  sh_data_report_print(&report, stdout);
  return SH_OK;
}

sh_status sh_job_inspect(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help || !sh_is_first_rank()) return SH_OK;
  for (int i = 0; i < a.npositional; i++) {
    if (i > 0) putchar('\n');
    SH_TRY(inspect(a.positional[i]));
  }
  return SH_OK;
}
