/* shoal/data.h: raw files to one data set (docs/FORMATS.md), and what a data set holds. Single process, no MPI. */
#ifndef SHOAL_DATA_H
#define SHOAL_DATA_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zero means: off, or the default said here. Strings are the caller's. */
typedef struct sh_prepare_options {
  const char *format;        /* a name of sh_prepare_list_formats */
  int ninputs;               /* at least 1, read in this order as one log */
  const char *const *inputs; /* plain or gzip */
  const char *items;         /* file of the candidate set in the same format (movies.dat), or NULL: all items */
  const char *output;
  const char *name;       /* of the data set; NULL: the output's file name */
  const char *provenance; /* stored as it is; NULL: made from the options */
  const char *columns;    /* csv, tsv, recbole: "user=NAME,item=NAME,time=NAME,action=NAME"; NULL: usual names */
  bool no_header;         /* csv, tsv: no header line; columns are numbers from 1 */
  const char *time_unit;  /* "s" (NULL), "ms" or "us": times are divided to seconds */
  bool shuffle_ties;      /* order of a user's events of equal time: drawn from the seed, else as in the files */
  uint32_t seed;
  int64_t k_core;     /* users and items with fewer events leave, until none is left */
  bool one_pass;      /* k_core by the counts of the unfiltered log, once */
  int64_t min_length; /* users with fewer events leave, after the above */
  bool drop_repeats;  /* of consecutive events of a user with the same item only the first stays */
  int64_t skip_bad;   /* malformed lines tolerated over all inputs */
} sh_prepare_options;

/* What a data set holds; stored as attributes of the file, so it can be read again without a pass over the events. */
typedef struct sh_data_report {
  char name[64];
  char ties[32]; /* "file", "shuffle, seed 1", or "none" without times */
  int64_t users, items, candidates, events;
  int64_t time_min, time_max;                                                                /* 0 without times */
  int64_t length_min, length_p5, length_p25, length_p50, length_p75, length_p95, length_max; /* nearest rank */
  double length_mean;
  int64_t one_event_users; /* kept in the set; training has nothing to predict for them */
  int64_t tied;            /* events with the time of the user's event before */
  double tie_rate;         /* tied / (events - users) */
  int64_t duplicates;      /* events whose user had the item before */
  int64_t repeats;         /* events with the item of the user's event before */
  int64_t unseen_items;    /* items without events */
  int64_t unlisted_items;  /* items that are no candidates */
  double gini;             /* of events over items: 0 all alike, 1 one item has all */
  /* What shoal prepare read and removed; 0 for other sets. */
  int64_t lines_read, bad_lines, events_read, users_read, items_read;
  int64_t removed_repeats, removed_core, removed_short; /* events */
} sh_data_report;

/* Read, filter, write `output` (as output.partial, then renamed: a failure leaves what was there). `bad_lines` and its
 * first message go to `warnings` (may be NULL). SH_ERR_USAGE: options; SH_ERR_DATA: a line, column or file. */
sh_status sh_prepare(const sh_prepare_options *o, sh_data_report *report, FILE *warnings);

/* One line for each raw format. */
void sh_prepare_list_formats(FILE *out);

/* The stored report of a data set. */
sh_status sh_data_report_read(const char *path, sh_data_report *report);
void sh_data_report_print(const sh_data_report *report, FILE *out);

/* Whether a file says that it is a data set; false for anything else, unreadable files too. */
bool sh_data_is_set(const char *path);

/* Recompute every checksum of a data set; SH_ERR_DATA names the first array that differs. */
sh_status sh_data_verify(const char *path);

#ifdef __cplusplus
}
#endif
#endif
