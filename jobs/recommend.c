#include "common.h"
#include "shoal/shoal_mpi.h"
#include "shoal/train.h"

static int64_t top = 10;
static const char *out;

static const sh_option options[] = {
    SH_OPT_INT("top", &top, 1, 100000, "K", "items of a user (10)"),
    SH_OPT_TEXT("out", &out, "FILE", "TSV to write: user, rank, item, score (standard output)"),
};
static const sh_usage usage = {
    .synopsis = "CHECKPOINT.h5 [section.key=value ...] [options]",
    .summary = "Write the top K items of every user, from the whole history, with the original keys.",
    .example = "shoal recommend run/hstu/ckpt/best.h5 --top 20 --out top20.tsv eval.filter=seen",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 1,
    .most = -1,
};

sh_status sh_job_recommend(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help) return SH_OK;
  sh_recommend_options o = {.checkpoint = a.file, .nset = a.nset, .set = a.set, .top = top, .out = out};
  sh_world *world;
  SH_TRY(sh_world_start(&argc, &argv, false, &world));
  sh_status status = sh_recommend(world, &o);
  sh_world_finish(world);
  return status;
}
