#include "shoal/scaling.h"

#include "common.h"
#include "shoal/shoal_mpi.h"

static int64_t per_node = 1, threads;
static const char *nodes, *machine, *shapes;
static bool weak, best, measure;

static const sh_option options[] = {
    SH_OPT_TEXT("nodes", &nodes, "LIST", "numbers of nodes (1,2,4,8,16,32,64)"),
    SH_OPT_INT("ranks-per-node", &per_node, 1, 4096, "N", "ranks of a node (1)"),
    SH_OPT_INT("threads", &threads, 1, 4096, "N", "threads of a rank (those measured)"),
    SH_OPT_TEXT("machine", &machine, "FILE", "what --measure printed"),
    SH_OPT_TEXT("shapes", &shapes, "FILE", "a table for each line: NAME [base=RECIPE.yaml] [section.key=value ...]"),
    SH_OPT_FLAG("weak", &weak, "the batch of the configuration is that of one data-parallel rank, not of all"),
    SH_OPT_FLAG("best", &best, "the fastest parallel.tensor for each number of nodes"),
    SH_OPT_FLAG("measure", &measure, "print a machine file: --machine FILE with what is measured here"),
};
static const sh_usage usage = {
    .synopsis = "[CONFIG.yaml] [section.key=value ...] [machine.key=value ...] [options]",
    .summary =
        "Predict memory of a rank, time of a training step by kind, tokens a second and efficiency on more nodes,\n"
        "from a description of the machine that the program measures: on one rank its cores and the steps of the\n"
        "configuration; on the ranks of one node, cores and steps beside each other and the link within a node; on\n"
        "ranks of a node each, the link between nodes. machine.key=value plans for another machine.",
    .example = "shoal plan --measure configs/ml-1m/hstu.yaml --threads 1 > one.txt\n"
               "mpirun -n 2 shoal plan --measure configs/ml-1m/hstu.yaml --threads 1 --machine one.txt > two.txt\n"
               "shoal plan configs/ml-1m/hstu.yaml --machine two.txt --nodes 1 --ranks-per-node 2\n"
               "shoal plan configs/ml-1m/hstu.yaml --machine two.txt --nodes 1,8,64 machine.far.bandwidth=12.5e9 \\\n"
               "  machine.far.latency=2e-6 machine.far.cpu=1e-10",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 0,
    .most = -1,
};

sh_status sh_job_plan(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help) return SH_OK;
  sh_scaling_options o = {.config = a.file,
                          .nset = a.nset,
                          .set = a.set,
                          .shapes = shapes,
                          .machine = machine,
                          .nodes = nodes,
                          .per_node = per_node,
                          .threads = threads,
                          .weak = weak,
                          .best = best,
                          .measure = measure};
  sh_world *world;
  SH_TRY(sh_world_start(&argc, &argv, sh_scaling_wants_threads(&o), &world));
  sh_status status = sh_scaling(world, &o, stdout);
  sh_world_finish(world);
  return status;
}
