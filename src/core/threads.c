#include "core/threads.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The lowest hardware thread of the core that `cpu` belongs to; `cpu` itself when the system does not say. */
static int first_sibling(int cpu) {
  char path[96];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  FILE *f = fopen(path, "r");
  int first = cpu;
  if (f) {
    if (fscanf(f, "%d", &first) != 1) first = cpu;
    fclose(f);
  }
  return first;
}

/* CPUs' worth of time the control group grants (version 2), or 0 for no limit. */
static int group_quota(void) {
  FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
  if (!f) return 0;
  long long quota = 0, period = 0;
  int got = fscanf(f, "%lld %lld", &quota, &period);
  fclose(f);
  if (got != 2 || quota <= 0 || period <= 0) return 0;
  return quota < period ? 1 : (int)(quota / period);
}

static int cores_in_mask(bool *bound) {
  cpu_set_t set;
  *bound = false;
  if (sched_getaffinity(0, sizeof set, &set)) return (int)sysconf(_SC_NPROCESSORS_ONLN);
  int n = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET((size_t)cpu, &set)) continue;
    int first = first_sibling(cpu);
    if (first == cpu || first < 0 || first >= CPU_SETSIZE || !CPU_ISSET((size_t)first, &set)) n++;
  }
  *bound = CPU_COUNT(&set) < sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? n : 1;
}

int sh_cores(void) {
  bool bound;
  int n = cores_in_mask(&bound), quota = group_quota();
  return quota > 0 && quota < n ? quota : n;
}

/* The kernel gives no mask wider than the job's share of the node, so asking for everything shows that share. */
int sh_node_cores(void) {
  cpu_set_t mine, all;
  if (sched_getaffinity(0, sizeof mine, &mine)) return sh_cores();
  memset(&all, 0xff, sizeof all);
  if (sched_setaffinity(0, sizeof all, &all)) return sh_cores();
  int n = sh_cores();
  sched_setaffinity(0, sizeof mine, &mine);
  return n;
}

int sh_node_ranks(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE",
                                      "SLURM_NTASKS_PER_NODE"}; /* the third: "4(x2),3", of the nodes in turn */
  for (int i = 0; i < 4; i++) {
    const char *text = getenv(names[i]);
    int n = text ? atoi(text) : 0;
    if (n > 0) return n;
  }
  return 1;
}

int sh_threads_setup(int64_t wanted) {
  int n = (int)wanted;
  if (n <= 0) {
    const char *text = getenv("OMP_NUM_THREADS");
    n = text ? atoi(text) : 0;
  }
  if (n <= 0) {
    /* A bound rank owns its mask; ranks that are not bound see the same cores and must share them. */
    bool bound;
    cores_in_mask(&bound);
    n = sh_cores();
    if (!bound) n /= sh_node_ranks();
    if (n < 1) n = 1;
  }
  omp_set_num_threads(n);
  omp_set_max_active_levels(1); /* a loop inside another's team is that thread's alone, whatever OMP_* says */
  return n;
}

int sh_threads(void) { return omp_get_max_threads(); }
