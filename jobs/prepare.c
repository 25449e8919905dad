#include <string.h>

#include "common.h"
#include "shoal/data.h"

static const char *format, *items, *output, *columns, *ties = "file", *name, *time_unit;
static int64_t seed = 1, k_core, min_length, skip_bad;
static bool one_pass, drop_repeats, no_header;

static const sh_option options[] = {
    SH_OPT_TEXT("format", &format, "NAME", "of the input (required; listed below)"),
    SH_OPT_TEXT("out", &output, "FILE", "data set to write; also -o (required)"),
    SH_OPT_TEXT("items", &items, "FILE", "its items are the candidate set, rated or not (all items of the input)"),
    SH_OPT_TEXT("columns", &columns, "LIST", "user=NAME,item=NAME,time=NAME,action=NAME (usual names are found)"),
    SH_OPT_FLAG("no-header", &no_header, "csv, tsv: no header line; --columns gives numbers from 1"),
    SH_OPT_TEXT("time-unit", &time_unit, "UNIT", "of the input's times: s, ms or us; stored are seconds (s)"),
    SH_OPT_TEXT("ties", &ties, "ORDER", "of a user's events of equal time: file, or shuffle by --seed (file)"),
    SH_OPT_INT("seed", &seed, 0, 4294967295.0, "N", "of --ties shuffle (1)"),
    SH_OPT_FLAG("drop-repeats", &drop_repeats, "of consecutive events with the same item keep the first"),
    SH_OPT_INT("k-core", &k_core, 0, 1e9, "N", "drop users and items with fewer events until none is left"),
    SH_OPT_FLAG("one-pass", &one_pass, "k-core: once, by the counts of the whole input"),
    SH_OPT_INT("min-length", &min_length, 0, 1e9, "N", "at last drop users with fewer events, once"),
    SH_OPT_INT("skip-bad", &skip_bad, 0, 1e15, "N", "tolerate up to N malformed lines (0)"),
    SH_OPT_TEXT("name", &name, "TEXT", "of the data set (name of the output file)"),
};

static void list_formats(FILE *out) {
  fprintf(out, "\nformats:\n");
  sh_prepare_list_formats(out);
}

static const sh_usage usage = {
    .synopsis = "--format NAME FILE... --out DATA.h5 [options]",
    .summary =
        "Turn raw files into one data set and print a report. Files are plain or gzip, read in order as one log.",
    .example = "shoal prepare --format movielens ratings.dat --items movies.dat --out data/ml-1m.h5\n"
               "shoal prepare --format csv log.csv.gz --columns user=uid,item=sku,time=ts --k-core 5 -o data/log.h5",
    .options = options,
    .noptions = sizeof options / sizeof options[0],
    .least = 1,
    .most = -1,
    .more = list_formats,
};

sh_status sh_job_prepare(int argc, char **argv) {
  sh_arguments a;
  SH_TRY(sh_arguments_read(&usage, argc, argv, &a));
  if (a.help || !sh_is_first_rank()) return SH_OK; /* started under mpirun: one process writes the file */
  if (!format) return sh_fail(SH_ERR_USAGE, "prepare: --format is missing; `shoal prepare --help` lists the formats");
  if (!output) return sh_fail(SH_ERR_USAGE, "prepare: --out is missing: the data set to write");
  bool shuffle = strcmp(ties, "shuffle") == 0;
  if (!shuffle && strcmp(ties, "file") != 0)
    return sh_fail(SH_ERR_USAGE, "prepare: --ties: found '%s', expected file or shuffle", ties);
  sh_prepare_options o = {.format = format,
                          .ninputs = a.npositional,
                          .inputs = (const char *const *)a.positional,
                          .items = items,
                          .output = output,
                          .name = name,
                          .columns = columns,
                          .no_header = no_header,
                          .time_unit = time_unit,
                          .shuffle_ties = shuffle,
                          .seed = (uint32_t)seed,
                          .k_core = k_core,
                          .one_pass = one_pass,
                          .min_length = min_length,
                          .drop_repeats = drop_repeats,
                          .skip_bad = skip_bad};
  sh_data_report report;
  SH_TRY(sh_prepare(&o, &report, stderr));
  sh_data_report_print(&report, stdout);
  printf("written: %s\n", output);
  return SH_OK;
}
