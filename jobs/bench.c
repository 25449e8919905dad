#include "shoal/bench.h"

#include "common.h"
#include "shoal/shoal_mpi.h"

static int64_t steps;
static const char *threads, *only, *json, *shapes;
static bool synthetic, compare;

static const sh_option options[] = {
    SH_OPT_INT("steps", &steps, 1, 1000000, "N", "training steps to measure (24)"),
    SH_OPT_TEXT("threads", &threads, "LIST", "1,2: everything once with each number of threads (train.threads)"),
    SH_OPT_TEXT(
        "only", &only, "LIST",
        "some of machine,kernels,layers,step,eval (all; with --shapes: step), table (3 GiB), overlap (of ranks)"),
    SH_OPT_TEXT("shapes", &shapes, "FILE", "measure each line: NAME [base=RECIPE.yaml] [section.key=value ...]"),
    SH_OPT_FLAG("synthetic", &synthetic, "synthetic sequences even when data.path exists"),
    SH_OPT_TEXT("json", &json, "FILE", "write the figures too, one JSON object for each shape and number of threads"),
    SH_OPT_FLAG("compare", &compare, "OLD.json NEW.json: times of two --json files side by side; measures nothing"),
};
static const sh_usage usage = {
    .synopsis = "[CONFIG.yaml] [section.key=value ...] [options] | --compare OLD.json NEW.json",
    .summary =
        "Measure this machine, the kernels, every layer of a model forward and backward, the embedding exchange,\n"
        "whole training steps and evaluation: time, GFLOP/s, GB/s, and the share of the machine's peak.\n"
        "Without a configuration: HSTU as published for MovieLens-1M. Where data.path does not exist, synthetic\n"
        "sequences of MovieLens-1M's lengths are used; bench.length=N makes every history N inputs long,\n"
        "bench.items and bench.users say how many there are. Nothing is written but the --json file.",
    .example = "shoal bench configs/ml-1m/hstu.yaml --threads 1,2\n"
               "shoal bench configs/ml-1m/hstu-large.yaml --only step,eval --json large.json\n"
               "mpirun -n 2 shoal bench model.width=256 model.heads=4 --threads 1\n"
               "shoal bench --shapes configs/bench/shapes.txt --threads 2 --json new.json\n"
               "shoal bench --compare old.json new.json",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 0,
    .most = -1,
};

sh_status sh_job_bench(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help) return SH_OK;
  if (compare) {
    if (a.npositional != 2)
      return sh_fail(SH_ERR_USAGE, "bench: --compare: found %d file%s, expected two: OLD.json NEW.json", a.npositional,
                     a.npositional == 1 ? "" : "s");
    return sh_is_first_rank() ? sh_bench_compare(a.positional[0], a.positional[1], stdout) : SH_OK;
  }
  sh_bench_options o = {.config = a.file,
                        .nset = a.nset,
                        .set = a.set,
                        .shapes = shapes,
                        .steps = steps,
                        .threads = threads,
                        .only = only,
                        .synthetic = synthetic,
                        .json = json};
  sh_world *world;
  SH_TRY(sh_world_start(&argc, &argv, sh_bench_wants_threads(&o), &world));
  sh_status status = sh_bench(world, &o, stdout);
  sh_world_finish(world);
  return status;
}
