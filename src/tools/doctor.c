#include "shoal/doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/threads.h"
#include "core/timer.h"
#include "mpi/coll.h"
#include "shoal/version.h"

enum { HOST = 64 };

/* What a rank knows of itself. */
typedef struct place {
  char host[HOST];
  int64_t threads;
} place;

typedef struct doctor {
  FILE *out; /* NULL on ranks that do not print */
  int bad;
} doctor;

static void say(doctor *d, const char *verdict, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void say(doctor *d, const char *verdict, const char *what, const char *fmt, ...) {
  if (!strcmp(verdict, "bad")) d->bad++;
  if (!d->out) return;
  va_list args;
  va_start(args, fmt);
  fprintf(d->out, "%-5s%-12s ", verdict, what);
  vfprintf(d->out, fmt, args);
  fputc('\n', d->out);
  va_end(args);
}

static void read_line(const char *path, char *out, size_t size) {
  FILE *f = fopen(path, "r");
  if (!f || !fgets(out, (int)size, f)) *out = 0;
  if (f) fclose(f);
  out[strcspn(out, "\n")] = 0;
}

static void check_libraries(doctor *d) {
  const char *blas = sh_blas_file("dgemm_"), *under = sh_blas_file_under_scalapack("dgemm_");
  say(d, "ok", "build", "shoal %s (%s), kernels %s", sh_version(), sh_commit(), sh_kernels_isa());
  say(d, "ok", "mpi", "%s; HDF5 %s", sh_mpi_library_version(), sh_h5_library_version());
  say(d, strstr(blas, "blis") ? "ok" : "bad", "blas", "dgemm_ is answered by %s", *blas ? blas : "nothing");
  say(d, strstr(under, "blis") ? "ok" : "bad", "scalapack", "its dgemm_ is answered by %s", *under ? under : "nothing");
}

/* The slowest of some sums of a megabyte: a first sign of a broken fabric. */
static void check_ranks(doctor *d, const sh_grid *g, const place *all) {
  int nodes = 0;
  for (int r = 0; r < g->world.size; r++) {
    int seen = 0;
    for (int q = 0; q < r; q++) seen |= !strcmp(all[q].host, all[r].host);
    nodes += !seen;
  }
  enum { N = 1 << 18, TIMES = 4 };
  float *x = sh_calloc(N, sizeof *x);
  for (int i = 0; i < N; i++) x[i] = 1;
  double slowest = 0;
  for (int t = 0; t < TIMES; t++) {
    sh_barrier(&g->world);
    double start = sh_now();
    sh_sum_f32(&g->world, x, N);
    double seconds = sh_now() - start;
    if (t > 0 && seconds > slowest) slowest = seconds;
    for (int i = 0; i < N; i++) x[i] /= (float)g->world.size;
  }
  sh_max_f64(&g->world, &slowest, 1);
  int wrong = 0;
  for (int i = 0; i < N; i++) wrong += x[i] < 0.999f || x[i] > 1.001f;
  free(x);
  say(d, wrong ? "bad" : "ok", "ranks", "%d on %d node%s; a sum of 1 MiB took %.2f ms%s", g->world.size, nodes,
      nodes == 1 ? "" : "s", 1e3 * slowest, wrong ? " AND IS WRONG" : "");
}

/* Threads of all ranks of a node against its cores. */
static void check_threads(doctor *d, const sh_grid *g, const place *all) {
  for (int r = 0; r < g->world.size; r++) {
    int64_t threads = 0, ranks = 0;
    int seen = 0;
    for (int q = 0; q < g->world.size; q++) {
      if (strcmp(all[q].host, all[r].host)) continue;
      if (q < r) seen = 1;
      threads += all[q].threads;
      ranks++;
    }
    if (seen) continue;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    say(d, threads > online ? "note" : "ok", "threads", "%s: %lld rank%s with %lld thread%s in all on %ld CPUs%s",
        all[r].host, (long long)ranks, ranks == 1 ? "" : "s", (long long)threads, threads == 1 ? "" : "s", online,
        threads > online ? ": set OMP_NUM_THREADS lower" : "");
  }
}

static void check_memory(doctor *d) {
  char line[256];
  read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line);
  int huge = strstr(line, "[always]") || strstr(line, "[madvise]");
  say(d, huge ? "ok" : "note", "huge pages", "transparent huge pages: %s%s", *line ? line : "not there",
      huge ? "" : "; tables would be up to 4 times slower; wanted: madvise");
  double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1073741824.0;
  double left = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1073741824.0;
  read_line("/sys/fs/cgroup/memory.max", line, sizeof line);
  say(d, "ok", "memory", "%.1f GiB, %.1f GiB free; limit of the control group: %s", total, left, *line ? line : "none");
  struct statvfs shm;
  if (!statvfs("/dev/shm", &shm)) {
    double mib = (double)shm.f_bavail * (double)shm.f_frsize / 1048576.0;
    say(d, mib < 64 ? "note" : "ok", "/dev/shm", "%.0f MiB free%s", mib,
        mib < 64 ? "; MPI on a node wants 64 MiB" : "");
  }
}

static void check_folder(doctor *d, const char *folder) {
  struct statvfs disk;
  if (statvfs(folder, &disk)) {
    say(d, "bad", "folder", "%s: %s", folder, strerror(errno));
    return;
  }
  double gib = (double)disk.f_bavail * (double)disk.f_frsize / 1073741824.0;
  int writable = !access(folder, W_OK | X_OK);
  say(d, writable ? "ok" : "bad", "folder", "%s: %.1f GiB free%s", folder, gib, writable ? "" : ", NOT WRITABLE");
}

sh_status sh_doctor(struct sh_world *w, const char *folder, FILE *out) {
  sh_grid g;
  SH_TRY(sh_grid_create(&g, sh_world_comm(w), 1));
  doctor d = {.out = g.world.index == 0 ? out : NULL};
  place mine = {.threads = sh_threads_setup(0)};
  gethostname(mine.host, sizeof mine.host - 1);
  place *all = sh_malloc(sizeof *all * (size_t)g.world.size);
  sh_allgather(&g.world, &mine, sizeof mine, all);
  check_libraries(&d);
  check_ranks(&d, &g, all);
  check_threads(&d, &g, all);
  check_memory(&d);
  check_folder(&d, folder);
  free(all);
  int64_t bad = d.bad;
  sh_max_i64(&g.world, &bad, 1);
  sh_grid_destroy(&g);
  if (!bad) return SH_OK;
  return sh_fail(SH_ERR_INTERNAL, "doctor: %lld check%s failed", (long long)bad, bad == 1 ? "" : "s");
}
