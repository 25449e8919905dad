#include "common.h"
#include "shoal/shoal_mpi.h"
#include "shoal/train.h"

static const char *split, *json;

static const sh_option options[] = {
    SH_OPT_TEXT("split", &split, "NAME", "valid or test (test)"),
    SH_OPT_TEXT("json", &json, "FILE", "write the metrics as one JSON object, too"),
};
static const sh_usage usage = {
    .synopsis = "CHECKPOINT.h5 [section.key=value ...] [options]",
    .summary = "Rank every user's held-out event among all candidates. The checkpoint's own configuration applies;\n"
               "keys given change it (data.path, eval.filter, eval.users, train.threads ...).",
    .example = "shoal eval run/hstu/ckpt/best.h5 eval.filter=seen\n"
               "mpirun -n 4 shoal eval run/hstu/ckpt/latest.h5 --json metrics.json",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 1,
    .most = -1,
};

sh_status sh_job_eval(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help) return SH_OK;
  sh_eval_options o = {.checkpoint = a.file, .nset = a.nset, .set = a.set, .split = split, .json = json};
  sh_world *world;
  SH_TRY(sh_world_start(&argc, &argv, false, &world));
  sh_status status = sh_eval(world, &o);
  sh_world_finish(world);
  return status;
}
