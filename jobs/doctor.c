#include "shoal/doctor.h"

#include "common.h"
#include "shoal/shoal_mpi.h"

static const char *folder = ".";
static const sh_option options[] = {
    SH_OPT_TEXT("folder", &folder, "PATH", "where runs will be written (.)"),
};
static const sh_usage usage = {
    .synopsis = "[options]",
    .summary =
        "Check this machine, or the nodes of a job when started under mpirun or srun: whether the ranks see each\n"
        "other, which BLAS answers, threads against cores, huge pages, memory, and the disk.",
    .example = "shoal doctor\nmpirun -n 2 shoal doctor --folder run",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
};

sh_status sh_job_doctor(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help) return SH_OK;
  sh_world *world;
  SH_TRY(sh_world_start(&argc, &argv, false, &world));
  sh_status status = sh_doctor(world, folder, stdout);
  sh_world_finish(world);
  return status;
}
