#include "data/report.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/arena.h"

typedef struct stored_field {
  const char *name;
  bool real;
  size_t offset;
} stored_field;

#define INT(field)                                                                                                     \
  { #field, false, offsetof(sh_data_report, field) }
#define REAL(field)                                                                                                    \
  { #field, true, offsetof(sh_data_report, field) }
static const stored_field fields[] = {
    INT(users),          INT(items),      INT(candidates),      INT(events),       INT(time_min),
    INT(time_max),       INT(length_min), INT(length_p5),       INT(length_p25),   INT(length_p50),
    INT(length_p75),     INT(length_p95), INT(length_max),      REAL(length_mean), INT(one_event_users),
    INT(tied),           REAL(tie_rate),  INT(duplicates),      INT(repeats),      INT(unseen_items),
    INT(unlisted_items), REAL(gini),      INT(lines_read),      INT(bad_lines),    INT(events_read),
    INT(users_read),     INT(items_read), INT(removed_repeats), INT(removed_core), INT(removed_short),
};
#undef INT
#undef REAL
enum { FIELDS = sizeof fields / sizeof *fields };

sh_status sh_report_store(sh_h5 *f, const sh_data_report *r) {
  SH_TRY(sh_h5_attr_write_text(f, "/", "ties", r->ties));
  for (int i = 0; i < FIELDS; i++) {
    const char *at = (const char *)r + fields[i].offset;
    if (fields[i].real) {
      SH_TRY(sh_h5_attr_write_f64(f, "/", fields[i].name, *(const double *)(const void *)at));
    } else {
      SH_TRY(sh_h5_attr_write_i64(f, "/", fields[i].name, *(const int64_t *)(const void *)at));
    }
  }
  return SH_OK;
}

sh_status sh_report_load(sh_h5 *f, sh_data_report *r) {
  *r = (sh_data_report){0};
  SH_TRY(sh_h5_attr_read_text(f, "/", "name", r->name, sizeof r->name));
  SH_TRY(sh_h5_attr_read_text(f, "/", "ties", r->ties, sizeof r->ties));
  for (int i = 0; i < FIELDS; i++) {
    char *at = (char *)r + fields[i].offset;
    if (fields[i].real) {
      SH_TRY(sh_h5_attr_read_f64(f, "/", fields[i].name, (double *)(void *)at));
    } else {
      SH_TRY(sh_h5_attr_read_i64(f, "/", fields[i].name, (int64_t *)(void *)at));
    }
  }
  return SH_OK;
}

static int ascending(const void *pa, const void *pb) {
  int64_t a = *(const int64_t *)pa, b = *(const int64_t *)pb;
  return a < b ? -1 : a > b;
}

/* The smallest length that at least p percent of the users do not exceed. */
static int64_t percentile(const int64_t *sorted, int64_t n, int64_t p) {
  int64_t rank = (n * p + 99) / 100;
  return sorted[rank > 0 ? rank - 1 : 0];
}

static void count_lengths(const sh_dataset_content *c, sh_data_report *r) {
  if (c->users == 0) return;
  int64_t *length = sh_malloc((size_t)c->users * sizeof *length);
  for (int64_t u = 0; u < c->users; u++) {
    length[u] = c->offsets[u + 1] - c->offsets[u];
    r->one_event_users += length[u] == 1;
  }
  qsort(length, (size_t)c->users, sizeof *length, ascending);
  r->length_min = length[0];
  r->length_p5 = percentile(length, c->users, 5);
  r->length_p25 = percentile(length, c->users, 25);
  r->length_p50 = percentile(length, c->users, 50);
  r->length_p75 = percentile(length, c->users, 75);
  r->length_p95 = percentile(length, c->users, 95);
  r->length_max = length[c->users - 1];
  r->length_mean = (double)c->events / (double)c->users;
  free(length);
}

static void count_pairs(const sh_dataset_content *c, sh_data_report *r) {
  int64_t *seen_by = sh_calloc((size_t)c->items + 1, sizeof *seen_by); /* last user of an item, from 1 */
  int64_t pairs = 0;
  for (int64_t u = 0; u < c->users; u++) {
    for (int64_t e = c->offsets[u]; e < c->offsets[u + 1]; e++) {
      r->duplicates += seen_by[c->item[e]] == u + 1;
      seen_by[c->item[e]] = u + 1;
      if (e == c->offsets[u]) continue;
      pairs++;
      r->repeats += c->item[e] == c->item[e - 1];
      r->tied += c->time && c->time[e] == c->time[e - 1];
    }
  }
  r->tie_rate = pairs > 0 ? (double)r->tied / (double)pairs : 0;
  free(seen_by);
}

static void count_items(const sh_dataset_content *c, sh_data_report *r) {
  if (c->items == 0) return;
  int64_t *count = sh_calloc((size_t)c->items, sizeof *count);
  for (int64_t e = 0; e < c->events; e++) count[c->item[e]]++;
  qsort(count, (size_t)c->items, sizeof *count, ascending);
  double weighted = 0, n = (double)c->items;
  for (int64_t i = 0; i < c->items; i++) {
    weighted += (double)(i + 1) * (double)count[i];
    r->unseen_items += count[i] == 0;
  }
  if (c->events > 0) r->gini = 2 * weighted / (n * (double)c->events) - (n + 1) / n;
  free(count);
}

void sh_report_make(const sh_dataset_content *c, sh_data_report *r) {
  *r = (sh_data_report){.users = c->users, .items = c->items, .events = c->events};
  snprintf(r->name, sizeof r->name, "%s", c->name ? c->name : "");
  snprintf(r->ties, sizeof r->ties, "%s", c->time ? "file" : "none");
  r->candidates = c->candidates ? c->ncandidates : c->items;
  r->unlisted_items = c->items - r->candidates;
  for (int64_t e = 0; c->time && e < c->events; e++) {
    if (e == 0 || c->time[e] < r->time_min) r->time_min = c->time[e];
    if (e == 0 || c->time[e] > r->time_max) r->time_max = c->time[e];
  }
  count_lengths(c, r);
  count_pairs(c, r);
  count_items(c, r);
}

/* A date when it can be one (1973 .. 2286 in seconds), with a hint when it looks like another unit. */
static void print_time(int64_t t, FILE *out) {
  time_t seconds = (time_t)t;
  struct tm tm;
  char text[32];
  fprintf(out, "%" PRId64, t);
  if (t < 100000000 || t >= 10000000000 || !gmtime_r(&seconds, &tm)) return;
  strftime(text, sizeof text, "%Y-%m-%d", &tm);
  fprintf(out, " (%s)", text);
}

static void print_removed(const sh_data_report *r, FILE *out) {
  if (r->lines_read == 0) return;
  fprintf(out, "  read           %" PRId64 " lines, %" PRId64 " events of %" PRId64 " users and %" PRId64 " items\n",
          r->lines_read, r->events_read, r->users_read, r->items_read);
  if (r->bad_lines) fprintf(out, "  skipped        %" PRId64 " malformed lines\n", r->bad_lines);
  if (r->removed_repeats) fprintf(out, "  removed        %" PRId64 " repeated events\n", r->removed_repeats);
  if (r->removed_core) fprintf(out, "  removed        %" PRId64 " events by k-core\n", r->removed_core);
  if (r->removed_short) fprintf(out, "  removed        %" PRId64 " events of short users\n", r->removed_short);
  if (r->users_read != r->users)
    fprintf(out, "  removed        %" PRId64 " users left without events\n", r->users_read - r->users);
}

void sh_data_report_print(const sh_data_report *r, FILE *out) {
  fprintf(out, "data set %s\n", r->name);
  print_removed(r, out);
  fprintf(out, "  users          %" PRId64 "\n", r->users);
  fprintf(out, "  items          %" PRId64 ", of them %" PRId64 " without events\n", r->items, r->unseen_items);
  fprintf(out, "  candidates     %" PRId64 "\n", r->candidates);
  fprintf(out, "  events         %" PRId64 "\n", r->events);
  fprintf(out, "  length         min %" PRId64 ", 5%% %" PRId64 ", 25%% %" PRId64 ", 50%% %" PRId64, r->length_min,
          r->length_p5, r->length_p25, r->length_p50);
  fprintf(out, ", 75%% %" PRId64 ", 95%% %" PRId64 ", max %" PRId64 ", mean %.1f\n", r->length_p75, r->length_p95,
          r->length_max, r->length_mean);
  if (strcmp(r->ties, "none") == 0) {
    fprintf(out, "  time           none: events are in the order of the file\n");
  } else {
    fprintf(out, "  time           ");
    print_time(r->time_min, out);
    fprintf(out, " .. ");
    print_time(r->time_max, out);
    if (r->time_max >= 10000000000) fprintf(out, " (no seconds since 1970; milliseconds? see --time-unit)");
    fprintf(out, "\n  ties           %.2f %% of consecutive events have the same time (order: %s)\n", 100 * r->tie_rate,
            r->ties);
  }
  fprintf(out, "  duplicates     %" PRId64 " events whose user had the item before, %" PRId64 " of them right before\n",
          r->duplicates, r->repeats);
  fprintf(out, "  popularity     Gini %.4f\n", r->gini);
  if (r->one_event_users)
    fprintf(out, "  note           %" PRId64 " users have one event: kept, but there is nothing to train on\n",
            r->one_event_users);
  if (r->unlisted_items)
    fprintf(out, "  note           %" PRId64 " items with events are not in the item list: they are no candidates\n",
            r->unlisted_items);
}
