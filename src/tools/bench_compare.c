/* Two files of `shoal bench --json` side by side. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "shoal/bench.h"

static char *read_all(const char *path, size_t *size) {
  FILE *f = fopen(path, "r");
  if (!f) return NULL;
  char *text = NULL;
  size_t room = 0;
  ssize_t n = getdelim(&text, &room, 0, f); /* a text has no zero byte; what stands behind one is lost to JSON too */
  bool whole = !ferror(f);
  fclose(f);
  if (!whole) {
    free(text);
    return NULL;
  }
  *size = n > 0 ? (size_t)n : 0;
  return text ? text : sh_strdup("");
}

static const char *text_of(const cJSON *o, const char *key) {
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
  return text ? text : "";
}
static double number_of(const cJSON *o, const char *key) {
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsNumber(x) ? x->valuedouble : 0;
}

/* Everything the comparison reads is there. */
static bool is_pass(const cJSON *o) {
  const cJSON *rows = cJSON_GetObjectItemCaseSensitive(o, "rows"), *r;
  if (!cJSON_IsArray(rows) || number_of(o, "threads") < 1) return false;
  cJSON_ArrayForEach(r, rows) {
    const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(r, "seconds");
    if (!*text_of(r, "section") || !*text_of(r, "name") || !cJSON_IsNumber(seconds) || !isfinite(seconds->valuedouble))
      return false;
  }
  return true;
}

/* The objects of a file as a JSON array; NULL with a message. */
static cJSON *read_passes(const char *path, sh_status *status) {
  size_t size = 0;
  char *text = read_all(path, &size);
  if (!text) {
    *status = sh_fail(SH_ERR_USAGE, "%s: cannot be read: %s", path, strerror(errno ? errno : EIO));
    return NULL;
  }
  cJSON *all = cJSON_CreateArray();
  int line = 1;
  *status = SH_OK;
  for (const char *at = text; *status == SH_OK;) {
    for (; *at && strchr(" \t\r\n", *at); at++) line += *at == '\n';
    if (!*at) break;
    const char *end = at;
    cJSON *o = cJSON_ParseWithLengthOpts(at, size - (size_t)(at - text), &end, false);
    if (!o || !is_pass(o)) {
      *status = sh_fail(SH_ERR_DATA, "%s: line %d: %s; expected what shoal bench --json writes", path, line,
                        o ? "these are no figures of a benchmark" : "this is no JSON");
      cJSON_Delete(o);
      break;
    }
    cJSON_AddItemToArray(all, o);
    for (; at < end; at++) line += *at == '\n';
  }
  free(text);
  if (*status == SH_OK && cJSON_GetArraySize(all) == 0)
    *status = sh_fail(SH_ERR_DATA, "%s: is empty; expected what shoal bench --json writes", path);
  if (*status == SH_OK) return all;
  cJSON_Delete(all);
  return NULL;
}

/* The same shape on the same ranks and threads. */
static const cJSON *counterpart(const cJSON *passes, const cJSON *of) {
  const cJSON *p;
  cJSON_ArrayForEach(p, passes) {
    if (!strcmp(text_of(p, "shape"), text_of(of, "shape")) && number_of(p, "ranks") == number_of(of, "ranks") &&
        number_of(p, "threads") == number_of(of, "threads"))
      return p;
  }
  return NULL;
}

/* Names may come again (micro-batches): the k-th of one file is the k-th of the other. */
static const cJSON *same_row(const cJSON *rows, const cJSON *mine, const cJSON *of) {
  int skip = 0;
  const cJSON *r;
  cJSON_ArrayForEach(r, mine) {
    if (r == of) break;
    skip += !strcmp(text_of(r, "name"), text_of(of, "name")) && !strcmp(text_of(r, "section"), text_of(of, "section"));
  }
  cJSON_ArrayForEach(r, rows) {
    if (!strcmp(text_of(r, "name"), text_of(of, "name")) && !strcmp(text_of(r, "section"), text_of(of, "section")) &&
        skip-- == 0)
      return r;
  }
  return NULL;
}

static void print_title(const cJSON *p, FILE *out) {
  if (*text_of(p, "shape")) fprintf(out, "%s: ", text_of(p, "shape"));
  fprintf(out, "%s, %.0f rank%s x %.0f thread%s", text_of(p, "model"), number_of(p, "ranks"),
          number_of(p, "ranks") == 1 ? "" : "s", number_of(p, "threads"), number_of(p, "threads") == 1 ? "" : "s");
}

static void print_row(const cJSON *r, double before, double after, FILE *out) {
  fprintf(out, "  %-8s %-38s", text_of(r, "section"), text_of(r, "name"));
  double x[2] = {before, after};
  for (int i = 0; i < 2; i++)
    if (x[i] >= 0)
      fprintf(out, " %10.3f", 1e3 * x[i]);
    else
      fprintf(out, " %10s", "-");
  if (before > 0 && after > 0)
    fprintf(out, " %8.2fx\n", before / after);
  else
    fprintf(out, " %9s\n", before < 0 ? "only new" : after < 0 ? "only old" : "-");
}

/* 0: one of them did not measure it. */
static void print_rate(const char *name, const cJSON *old, const cJSON *new, const char *key, double unit, FILE *out) {
  double a = number_of(old, key), b = number_of(new, key);
  if (a <= 0 && b <= 0) return;
  fprintf(out, "  %-47s", name);
  for (int i = 0; i < 2; i++)
    if ((i ? b : a) > 0)
      fprintf(out, " %10.2f", (i ? b : a) * unit);
    else
      fprintf(out, " %10s", "-");
  if (a > 0 && b > 0)
    fprintf(out, " %8.2fx\n", b / a);
  else
    fprintf(out, " %9s\n", a > 0 ? "only old" : "only new");
}

static void compare(const cJSON *old, const cJSON *new, FILE *out) {
  const cJSON *old_rows = cJSON_GetObjectItemCaseSensitive(old, "rows"), *r;
  const cJSON *new_rows = cJSON_GetObjectItemCaseSensitive(new, "rows");
  print_title(new, out);
  if (strcmp(text_of(old, "isa"), text_of(new, "isa")) != 0)
    fprintf(out, ", %s -> %s kernels", text_of(old, "isa"), text_of(new, "isa"));
  fprintf(out, "\n  %-47s %10s %10s %9s\n", "", "old", "new", "new/old");
  print_rate("peak of this machine, GFLOP/s", old, new, "peak_gflops", 1, out);
  print_rate("triad of this machine, GB/s", old, new, "triad_gbs", 1, out);
  print_rate("k tokens/s", old, new, "tokens_per_s", 1e-3, out);
  print_rate("MFU, %", old, new, "mfu", 100, out);
  print_rate("users/s, evaluation", old, new, "eval_users_per_s", 1, out);
  print_rate("resident memory, MiB", old, new, "resident_bytes", 0x1p-20, out);
  fprintf(out, "  %-47s %10s %10s %9s\n", "time", "old, ms", "new, ms", "faster");
  cJSON_ArrayForEach(r, new_rows) {
    const cJSON *before = same_row(old_rows, new_rows, r);
    print_row(r, before ? number_of(before, "seconds") : -1, number_of(r, "seconds"), out);
  }
  cJSON_ArrayForEach(r, old_rows) {
    if (!same_row(new_rows, old_rows, r)) print_row(r, number_of(r, "seconds"), -1, out);
  }
}

sh_status sh_bench_compare(const char *old_json, const char *new_json, FILE *out) {
  sh_status status;
  const cJSON *p;
  cJSON *new = NULL, *old = read_passes(old_json, &status);
  if (status == SH_OK) new = read_passes(new_json, &status);
  bool any = false;
  if (status == SH_OK) {
    cJSON_ArrayForEach(p, new) {
      const cJSON *before = counterpart(old, p);
      if (any) fprintf(out, "\n");
      any = true;
      if (before) {
        compare(before, p, out);
      } else {
        print_title(p, out);
        fprintf(out, ": only in %s\n", new_json);
      }
    }
    cJSON_ArrayForEach(p, old) {
      if (counterpart(new, p)) continue;
      fprintf(out, "\n");
      print_title(p, out);
      fprintf(out, ": only in %s\n", old_json);
    }
  }
  cJSON_Delete(old);
  cJSON_Delete(new);
  return status;
}
