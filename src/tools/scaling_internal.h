/* tools/scaling_internal.h: what the files of `shoal plan` share. */
#ifndef SH_TOOLS_SCALING_INTERNAL_H
#define SH_TOOLS_SCALING_INTERNAL_H

#include "shoal/scaling.h"
#include "tools/bench_internal.h"
#include "tools/scaling_model.h"

/* A machine file: `key = value` lines, machine.* and SHAPE.*; two values where a number belongs to each sample. */
typedef struct sh_scaling_file {
  sh_machine machine;
  int nshapes;
  struct {
    char name[48];
    double config; /* sh_scaling_fingerprint of what was measured; 0: it was not */
    sh_work work;
  } shape[SH_BENCH_SHAPES];
} sh_scaling_file;

/* tools/scaling_file.c. Errors name file, line, key. */
sh_status sh_scaling_read(sh_scaling_file *f, const char *path);
sh_status sh_scaling_set(sh_scaling_file *f, const char *setting, bool machine_only); /* "machine.cores = 2" */
void sh_scaling_print(const sh_scaling_file *f, FILE *out);
int sh_scaling_find(sh_scaling_file *f, const char *name, bool add); /* -1: not there, or no room */

/* Of the keys that decide how long a token takes: those of model, loss and table, and the precision. */
double sh_scaling_fingerprint(const sh_config *c);

/* tools/scaling_measure.c: adds to f what can be measured on these ranks (shoal/scaling.h). Collective over the world.
 */
sh_status sh_scaling_measure(sh_scaling_file *f, sh_bench_shape *shape, int n, const struct sh_world *world,
                             int64_t threads);

#endif
