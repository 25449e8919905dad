/* Raw files -> one log -> grouped, sorted, filtered -> data set. Memory: about 20 bytes an event while reading, 40 at
 * the peak, and the keys. */
#include "data/prepare.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/outfile.h"
#include "data/dataset.h"
#include "data/dataset_file.h"
#include "data/delimited.h"
#include "data/grouped.h"
#include "data/report.h"
#include "shoal/names.h"

typedef struct job {
  const sh_prepare_options *options;
  const sh_format *format;
  sh_raw raw;
  int64_t listed; /* items of the candidate file: the first ids */
  sh_grouped log;
  int32_t *user_order, *item_order; /* row -> id */
  char first_bad[800];
  sh_data_report *report;
} job;

static sh_status check_options(job *j) {
  static const char *const units[] = {"s", "ms", "us"};
  const sh_prepare_options *o = j->options;
  if (!o->format) return sh_fail(SH_ERR_USAGE, "no format given, expected --format with one of those --help lists");
  j->format = sh_format_find(o->format);
  if (!j->format) {
    static const char *const names[] = {
#define FORMAT(name, help) #name,
#include "data/formats.def"
#undef FORMAT
    };
    const char *near = sh_nearest(o->format, names, (int)(sizeof names / sizeof *names));
    return sh_fail(SH_ERR_USAGE, "--format %s: unknown format%s%s", o->format, near ? ", nearest is " : "",
                   near ? near : "; --help lists them");
  }
  if (o->ninputs < 1) return sh_fail(SH_ERR_USAGE, "no input file given");
  if (!o->output || !*o->output) return sh_fail(SH_ERR_USAGE, "no output file given");
  for (int i = 0; i < o->ninputs; i++) SH_TRY(sh_outfile_spare(o->output, o->inputs[i]));
  SH_TRY(sh_outfile_spare(o->output, o->items));
  bool known = !o->time_unit;
  for (int i = 0; i < 3; i++) known = known || strcmp(o->time_unit, units[i]) == 0;
  if (!known) return sh_fail(SH_ERR_USAGE, "--time-unit %s: expected s, ms or us", o->time_unit);
  if (o->k_core < 0 || o->min_length < 0 || o->skip_bad < 0)
    return sh_fail(SH_ERR_USAGE, "k-core, min-length and skip-bad cannot be negative");
  if (o->one_pass && o->k_core == 0)
    return sh_fail(SH_ERR_USAGE, "--one-pass is a way of --k-core, which is not given");
  bool delimited = !strcmp(o->format, "csv") || !strcmp(o->format, "tsv") || !strcmp(o->format, "recbole");
  if ((o->columns || o->no_header) && !delimited)
    return sh_fail(SH_ERR_USAGE, "--columns and --no-header belong to csv, tsv and recbole, not to %s", o->format);
  if (o->no_header && !strcmp(o->format, "recbole"))
    return sh_fail(SH_ERR_USAGE, "--no-header belongs to csv and tsv: RecBole files have a header");
  return o->columns ? sh_delimited_check_columns(o->columns) : SH_OK;
}

/* Count a malformed line, or give up. */
static sh_status bad_line(job *j, const sh_source *s) {
  int64_t allowed = j->options->skip_bad;
  if (j->report->bad_lines >= allowed) {
    char more[96] = "";
    if (allowed > 0) snprintf(more, sizeof more, " (--skip-bad %" PRId64 " is used up)", allowed);
    return sh_fail(SH_ERR_DATA, "%s:%" PRId64 ": %s%s", s->text.path, s->text.line, s->fault, more);
  }
  if (j->report->bad_lines++ == 0)
    snprintf(j->first_bad, sizeof j->first_bad, "%.250s:%" PRId64 ": %.500s", s->text.path, s->text.line, s->fault);
  return SH_OK;
}

static bool one_line(job *j, sh_source *s, char *line, size_t length) {
  sh_field key;
  if (memchr(line, '\0', length)) return sh_source_fault(s, "contains a zero byte: this is not a line of text");
  if (!s->items_only) return j->format->line(s, line, length);
  return j->format->item(s, line, length, &key) && sh_source_item(s, key.text, key.length) >= 0;
}

static sh_status read_lines(job *j, sh_source *s) {
  for (;;) {
    char *line;
    size_t length;
    SH_TRY(sh_textfile_line(&s->text, &line, &length));
    if (!line) break;
    if (length == 0) continue;
    int64_t before = j->raw.n;
    if (!one_line(j, s, line, length)) {
      j->raw.n = before;
      SH_TRY(bad_line(j, s));
    }
    if (j->raw.n > UINT32_MAX)
      return sh_fail(SH_ERR_DATA, "%s:%" PRId64 ": more than 4294967295 events", s->text.path, s->text.line);
  }
  if (s->text.line == 0) return sh_fail(SH_ERR_DATA, "%s: is empty, expected lines of events", s->text.path);
  return SH_OK;
}

/* All files of a log must have the same columns. */
static sh_status same_roles(job *j, const sh_source *s, bool first) {
  if (first) {
    j->raw.has_time = s->has_time;
    j->raw.has_action = s->has_action;
  }
  bool time = s->has_time != j->raw.has_time;
  if (!time && s->has_action == j->raw.has_action) return SH_OK;
  return sh_fail(SH_ERR_DATA, "%s: has %s %s column, but %s %s", s->text.path,
                 (time ? s->has_time : s->has_action) ? "a" : "no", time ? "time" : "action", j->options->inputs[0],
                 (time ? s->has_time : s->has_action) ? "has none" : "has one");
}

static sh_status read_file(job *j, const char *path, bool items_only, bool first) {
  sh_source s = {.options = j->options, .raw = &j->raw, .items_only = items_only};
  sh_status status = sh_textfile_open(&s.text, path);
  if (status == SH_OK) status = j->format->begin(&s);
  if (status == SH_OK && !items_only) status = same_roles(j, &s, first);
  if (status == SH_OK) status = read_lines(j, &s);
  if (!items_only) j->report->lines_read += s.text.line;
  sh_textfile_close(&s.text);
  free(s.field);
  return status;
}

static sh_status read_all(job *j) {
  const sh_prepare_options *o = j->options;
  if (o->items) SH_TRY(read_file(j, o->items, true, false));
  j->listed = j->raw.item.n;
  for (int i = 0; i < o->ninputs; i++) SH_TRY(read_file(j, o->inputs[i], false, i == 0));
  if (j->raw.n == 0)
    return sh_fail(SH_ERR_DATA, "%s: no events in %" PRId64 " lines", o->inputs[0], j->report->lines_read);
  if (o->shuffle_ties && !j->raw.has_time)
    return sh_fail(SH_ERR_USAGE, "--ties shuffle: this input has no times, so its order stands");
  return SH_OK;
}

/* Rows of users and items, the log grouped by user. */
static void group(job *j) {
  sh_raw *raw = &j->raw;
  uint8_t *user_used = sh_calloc((size_t)raw->user.n + 1, 1), *item_used = sh_calloc((size_t)raw->item.n + 1, 1);
  int32_t *user_row = sh_malloc((size_t)(raw->user.n + 1) * sizeof *user_row);
  int32_t *item_row = sh_malloc((size_t)(raw->item.n + 1) * sizeof *item_row);
  j->user_order = sh_malloc((size_t)(raw->user.n + 1) * sizeof *j->user_order);
  j->item_order = sh_malloc((size_t)(raw->item.n + 1) * sizeof *j->item_order);
  j->report->events_read = raw->n;
  for (int64_t e = 0; e < raw->n; e++) user_used[raw->user_id[e]] = item_used[raw->item_id[e]] = 1;
  for (int64_t i = 0; i < raw->item.n; i++) j->report->items_read += item_used[i];
  memset(item_used, 1, (size_t)j->listed);
  int64_t users = sh_keymap_order(&raw->user, user_used, j->user_order, user_row);
  int64_t items = sh_keymap_order(&raw->item, item_used, j->item_order, item_row);
  j->report->users_read = users;
  free(user_used);
  free(item_used);
  sh_grouped_make(&j->log, raw, user_row, users, item_row, items);
  free(user_row);
  free(item_row);
}

static uint64_t *hash_keys(const sh_keymap *m, const int32_t *order, int64_t rows) {
  uint64_t *hash = sh_malloc((size_t)(rows + 1) * sizeof *hash);
  for (int64_t r = 0; r < rows; r++) hash[r] = sh_keymap_hash(m, order[r]);
  return hash;
}

static void sort_by_time(job *j) {
  if (!j->options->shuffle_ties) {
    sh_grouped_sort(&j->log, NULL);
    return;
  }
  uint64_t *users = hash_keys(&j->raw.user, j->user_order, j->log.users);
  uint64_t *items = hash_keys(&j->raw.item, j->item_order, j->log.items);
  sh_grouped_sort(&j->log, &(sh_tie_order){j->options->seed, users, items});
  free(users);
  free(items);
}

/* Removing items can bring equal ones together: repeats are dropped again in each round. */
static sh_status filter(job *j) {
  const sh_prepare_options *o = j->options;
  sh_data_report *r = j->report;
  sh_grouped *g = &j->log;
  if (o->drop_repeats) r->removed_repeats += sh_grouped_drop_repeats(g);
  for (bool more = o->k_core > 1; more;) {
    int64_t core = sh_grouped_core(g, o->k_core), repeats = o->drop_repeats ? sh_grouped_drop_repeats(g) : 0;
    r->removed_core += core;
    r->removed_repeats += repeats;
    more = core + repeats > 0 && !o->one_pass;
  }
  if (o->min_length > 1) r->removed_short = sh_grouped_min_length(g, o->min_length);
  if (g->events > 0) return SH_OK;
  return sh_fail(SH_ERR_DATA,
                 "nothing is left of %" PRId64 " events: %" PRId64 " removed by k-core %" PRId64 ", %" PRId64
                 " by min-length %" PRId64,
                 r->events_read, r->removed_core, o->k_core, r->removed_short, o->min_length);
}

/* Drop what has no events; the candidates as rows. */
static int64_t *compact(job *j, int64_t *ncandidates) {
  sh_grouped *g = &j->log;
  uint8_t *keep = sh_malloc((size_t)g->items + 1);
  for (int64_t i = 0; i < g->items; i++) keep[i] = j->item_order[i] < j->listed;
  sh_grouped_compact(g, keep, j->user_order, j->item_order);
  free(keep);
  *ncandidates = 0;
  if (!j->options->items) return NULL;
  int64_t *candidates = sh_malloc((size_t)(j->listed + 1) * sizeof *candidates);
  for (int64_t i = 0; i < g->items; i++) {
    if (j->item_order[i] < j->listed) candidates[(*ncandidates)++] = i;
  }
  return candidates;
}

typedef struct packed_keys {
  int64_t *offsets;
  char *bytes;
} packed_keys;

static packed_keys pack_keys(const sh_keymap *m, const int32_t *order, int64_t rows) {
  packed_keys k = {sh_malloc((size_t)(rows + 1) * sizeof(int64_t)), sh_malloc((size_t)m->offsets[m->n] + 1)};
  k.offsets[0] = 0;
  for (int64_t r = 0; r < rows; r++) {
    int64_t at = m->offsets[order[r]], n = m->offsets[order[r] + 1] - at;
    memcpy(k.bytes + k.offsets[r], m->bytes + at, (size_t)n);
    k.offsets[r + 1] = k.offsets[r] + n;
  }
  return k;
}

/* "ml-1m" of "data/ml-1m.h5". */
static void default_name(const char *path, char *out, size_t size) {
  const char *slash = strrchr(path, '/'), *stem = slash ? slash + 1 : path, *dot = strrchr(stem, '.');
  size_t n = dot && dot > stem ? (size_t)(dot - stem) : strlen(stem);
  snprintf(out, size, "%.*s", (int)n, stem);
}

typedef struct text {
  char *at;
  size_t left;
} text;

static void say(text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(text *t, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(t->at, t->left, fmt, args);
  va_end(args);
  size_t step = n < 0 ? 0 : (size_t)n < t->left ? (size_t)n : t->left - 1;
  t->at += step;
  t->left -= step;
}

/* The command that makes this set again. */
static void describe(const sh_prepare_options *o, char *out, size_t size) {
  text t = {out, size};
  say(&t, "shoal prepare --format %s --out %s", o->format, o->output);
  if (o->items) say(&t, " --items %s", o->items);
  if (o->columns) say(&t, " --columns %s", o->columns);
  if (o->no_header) say(&t, " --no-header");
  if (o->time_unit) say(&t, " --time-unit %s", o->time_unit);
  if (o->shuffle_ties) say(&t, " --ties shuffle --seed %" PRIu32, o->seed);
  if (o->drop_repeats) say(&t, " --drop-repeats");
  if (o->k_core) say(&t, " --k-core %" PRId64, o->k_core);
  if (o->one_pass) say(&t, " --one-pass");
  if (o->min_length) say(&t, " --min-length %" PRId64, o->min_length);
  if (o->skip_bad) say(&t, " --skip-bad %" PRId64, o->skip_bad);
  for (int i = 0; i < o->ninputs; i++) say(&t, " %s", o->inputs[i]);
}

static sh_status write_set(job *j) {
  const sh_prepare_options *o = j->options;
  const sh_grouped *g = &j->log;
  char name[64], provenance[4000];
  if (o->name) {
    snprintf(name, sizeof name, "%s", o->name);
  } else {
    default_name(o->output, name, sizeof name);
  }
  describe(o, provenance, sizeof provenance);
  int64_t ncandidates, *candidates = compact(j, &ncandidates);
  packed_keys users = pack_keys(&j->raw.user, j->user_order, g->users);
  packed_keys items = pack_keys(&j->raw.item, j->item_order, g->items);
  sh_dataset_content c = {.name = name,
                          .provenance = o->provenance ? o->provenance : provenance,
                          .users = g->users,
                          .events = g->events,
                          .items = g->items,
                          .offsets = g->offsets,
                          .item = g->item,
                          .time = g->time,
                          .action = g->action,
                          .ncandidates = ncandidates,
                          .candidates = candidates,
                          .user_key_offsets = users.offsets,
                          .user_key_bytes = users.bytes,
                          .item_key_offsets = items.offsets,
                          .item_key_bytes = items.bytes,
                          .report = j->report};
  sh_data_report read = *j->report;
  sh_report_make(&c, j->report);
  j->report->lines_read = read.lines_read, j->report->bad_lines = read.bad_lines;
  j->report->events_read = read.events_read, j->report->users_read = read.users_read;
  j->report->items_read = read.items_read, j->report->removed_repeats = read.removed_repeats;
  j->report->removed_core = read.removed_core, j->report->removed_short = read.removed_short;
  if (o->shuffle_ties) snprintf(j->report->ties, sizeof j->report->ties, "shuffle, seed %" PRIu32, o->seed);
  sh_status status = sh_dataset_write(&c, o->output);
  free(candidates);
  free(users.offsets), free(users.bytes);
  free(items.offsets), free(items.bytes);
  return status;
}

static void job_free(job *j) {
  sh_keymap_free(&j->raw.user);
  sh_keymap_free(&j->raw.item);
  free(j->raw.user_id);
  free(j->raw.item_id);
  free(j->raw.time);
  free(j->raw.action);
  sh_grouped_free(&j->log);
  free(j->user_order);
  free(j->item_order);
}

static sh_status run(job *j) {
  SH_TRY(check_options(j));
  SH_TRY(sh_dataset_make_folder(j->options->output));
  SH_TRY(read_all(j));
  group(j);
  sort_by_time(j);
  SH_TRY(filter(j));
  return write_set(j);
}

sh_status sh_prepare(const sh_prepare_options *o, sh_data_report *report, FILE *warnings) {
  *report = (sh_data_report){0};
  job j = {.options = o, .report = report};
  sh_keymap_init(&j.raw.user);
  sh_keymap_init(&j.raw.item);
  sh_status status = run(&j);
  if (status == SH_OK && report->bad_lines > 0 && warnings)
    fprintf(warnings, "warning: %" PRId64 " malformed lines skipped, the first: %s\n", report->bad_lines, j.first_bad);
  job_free(&j);
  return status;
}
