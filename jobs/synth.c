#include "shoal/synth.h"

#include <string.h>

#include "common.h"
#include "shoal/data.h"

static const char *preset = "default", *name;
static int64_t users, items, min_length, max_length, topic_size, seed = 1, threads;
static double mean_length, short_share = -1, noise = -1;
static const sh_option options[] = {
    SH_OPT_TEXT("preset", &preset, "NAME",
                "toy (300 users), default (10,000 users, 0.4 M events), large (10^8 events)"),
    SH_OPT_INT("users", &users, 1, 1e12, "N", "users (of the preset)"),
    SH_OPT_INT("items", &items, 6, 2147483647, "N", "items (of the preset)"),
    SH_OPT_REAL("mean-length", &mean_length, 2, 1e9, "L", "mean events of a user (of the preset)"),
    SH_OPT_INT("min-length", &min_length, 2, 1e9, "N", "fewest events of a user (of the preset)"),
    SH_OPT_INT("max-length", &max_length, 2, 1e9, "N", "most events of a user (200, or the number of items)"),
    SH_OPT_INT("topic-size", &topic_size, 1, 1e9, "N", "items of a topic (20; fewer below 120 items)"),
    SH_OPT_REAL("short-share", &short_share, 0, 1, "P", "probability that the next event is in the same session (0.5)"),
    SH_OPT_REAL("noise", &noise, 0, 1, "P", "share of evergreens among events within a session (0.3)"),
    SH_OPT_INT("seed", &seed, 0, 4294967295, "N", "of everything random (1)"),
    SH_OPT_INT("threads", &threads, 0, 4096, "N", "OpenMP threads; never changes the result (the cores)"),
    SH_OPT_TEXT("name", &name, "TEXT", "name of the data set (synth)"),
};
static const sh_usage usage = {
    .synopsis = "OUT.h5 [options]",
    .summary =
        "Make a data set of user sequences with times from a planted process, and store the metrics of the best "
        "possible\n"
        "ranker with it. What comes next follows from what the user did about a day before the request: a model needs\n"
        "the order of events and the request time to find it. The process: docs/FORMATS.md, \"Synthetic data\".",
    .example = "shoal synth synth.h5\nshoal synth small.h5 --preset toy --seed 7\nshoal synth big.h5 --preset large",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 1,
    .most = 1,
};

static void print_optimum(const sh_synth_summary *s) {
  printf("\nbest possible (expected from the true conditional of each user's last event)\n");
  for (int m = 0; m < SH_SYNTH_HR10_NO_TIME; m++)
    printf("  %-9s %.4f%s", sh_synth_metric_name[m], s->optimum[m],
           m == SH_SYNTH_HR200 || m == SH_SYNTH_MRR ? "\n" : "");
  double best = s->optimum[SH_SYNTH_HR10];
  printf("share of the best HR@10 (%.4f)\n", best);
  printf("  without the request time, at most  %5.1f %%\n", 100 * s->optimum[SH_SYNTH_HR10_NO_TIME] / best);
  if (s->popularity_hr10 < 0) {
    printf("  popularity and Markov table: not counted, the set is large\n");
    return;
  }
  printf("  first-order Markov table           %5.1f %%\n", 100 * s->markov_hr10 / best);
  printf("  popularity                         %5.1f %%\n", 100 * s->popularity_hr10 / best);
}

static void apply(sh_synth_options *o) {
  if (users > 0) o->users = users;
  if (items > 0) o->items = items;
  if (mean_length > 0) o->mean_length = mean_length;
  if (min_length > 0) o->min_length = min_length;
  if (max_length > 0) o->max_length = max_length;
  if (topic_size > 0) o->topic_size = topic_size;
  if (short_share >= 0) o->short_share = short_share;
  if (noise >= 0) o->noise = noise;
  o->seed = (uint32_t)seed;
  o->threads = threads;
}

static void join(char *out, size_t size, int argc, char **argv) {
  size_t n = (size_t)snprintf(out, size, "shoal");
  for (int i = 0; i < argc && n < size; i++) n += (size_t)snprintf(out + n, size - n, " %s", argv[i]);
}

sh_status sh_job_synth(int argc, char **argv) {
  char command[1024];
  join(command, sizeof command, argc, argv);
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help || !sh_is_first_rank()) return SH_OK;
  sh_synth_options o;
  sh_synth_summary summary;
  sh_data_report report;
  SH_TRY(sh_synth_preset(&o, preset));
  apply(&o);
  SH_TRY(sh_synth_make(&o, a.positional[0], name, command, &summary));
  SH_TRY(sh_data_report_read(a.positional[0], &report));
  sh_data_report_print(&report, stdout);
  print_optimum(&summary);
  printf("written to %s\n", a.positional[0]);
  return SH_OK;
}
