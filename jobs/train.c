#include "shoal/train.h"

#include "common.h"
#include "shoal/shoal_mpi.h"

static bool resume, list_keys;
static const char *resume_from, *trace, *trace_file;

static const sh_option options[] = {
    SH_OPT_FLAG("resume", &resume, "continue from train.out/ckpt/latest.h5 when there is one"),
    SH_OPT_TEXT("resume-from", &resume_from, "FILE", "continue from this checkpoint"),
    SH_OPT_TEXT("trace", &trace, "steps=A-B", "write these steps of all ranks as a trace for ui.perfetto.dev"),
    SH_OPT_TEXT("trace-file", &trace_file, "FILE", "where to (train.out/trace.json)"),
    SH_OPT_FLAG("list-keys", &list_keys, "every configuration key with type, range, default and help"),
};
static const sh_usage usage = {
    .synopsis = "CONFIG.yaml [section.key=value ...] [--resume]",
    .summary = "Train a model. SIGTERM, SIGINT or SIGUSR1 finish the step, write a checkpoint and exit with 75 (to "
               "Open MPI's\n"
               "mpirun send SIGUSR1: it kills the ranks one second after a SIGTERM).",
    .example = "shoal train configs/ml-1m/hstu.yaml train.out=run/hstu train.epochs=20\n"
               "mpirun -n 8 shoal train configs/ml-1m/hstu.yaml --resume\n"
               "mpirun -n 2 shoal train configs/ml-1m/hstu.yaml train.steps=20 --trace steps=10-12",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 0,
    .most = -1,
};

static const sh_usage resume_usage = {
    .synopsis = "CONFIG.yaml [section.key=value ...]",
    .summary = "Continue a run from train.out/ckpt/latest.h5 (train --resume); start it when there is none.",
    .example = "shoal resume configs/ml-1m/hstu.yaml\n"
               "mpirun -n 4 shoal resume configs/ml-1m/hstu.yaml train.epochs=200",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 0,
    .most = -1,
};

/* "steps=10-12" or "steps=10". */
static sh_status read_trace(const char *command, sh_train_options *o) {
  long long first = 0, last = 0;
  int end = 0;
  if (!trace && trace_file) return sh_fail(SH_ERR_USAGE, "%s: --trace-file needs --trace steps=A-B", command);
  if (!trace) return SH_OK;
  if (sscanf(trace, "steps=%lld%n", &first, &end) == 1 && trace[end] == 0)
    last = first;
  else if (sscanf(trace, "steps=%lld-%lld%n", &first, &last, &end) != 2 || trace[end] != 0)
    first = 0;
  if (first < 1 || last < first)
    return sh_fail(SH_ERR_USAGE, "%s: --trace: found '%s', expected steps=A-B with 1 <= A <= B", command, trace);
  o->trace_first = first, o->trace_last = last, o->trace_file = trace_file;
  return SH_OK;
}

static sh_status run(int argc, char **argv, bool always_resume) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(always_resume ? &resume_usage : &usage, argc, argv, &a));
  if (a.help) return SH_OK;
  if (list_keys) {
    if (!sh_is_first_rank()) return SH_OK;
    sh_list_keys(stdout);
    return SH_OK;
  }
  if (a.npositional == 0) return sh_fail(SH_ERR_USAGE, "%s: a configuration file is missing", argv[0]);
  sh_train_options o = {
      .config = a.file, .nset = a.nset, .set = a.set, .resume = resume || always_resume, .resume_from = resume_from};
  SH_TRY(read_trace(argv[0], &o));
  sh_train_catch_stop();
  sh_world *world;
  SH_TRY(sh_world_start(&argc, &argv, sh_train_wants_threads(&o), &world));
  sh_status status = sh_train(world, &o);
  sh_world_finish(world);
  return status;
}

sh_status sh_job_train(int argc, char **argv) { return run(argc, argv, false); }
sh_status sh_job_resume(int argc, char **argv) { return run(argc, argv, true); }
