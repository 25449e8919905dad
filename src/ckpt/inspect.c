/* ckpt/inspect.c: what a checkpoint holds, on one screen. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/layout.h"
#include "core/arena.h"
#include "shoal/checkpoint.h"

static void print_file(const char *path, FILE *out) {
  char target[1024];
  struct stat s = {0};
  ssize_t n = readlink(path, target, sizeof target - 1);
  fprintf(out, "%s", path);
  if (n > 0) fprintf(out, " -> %.*s", (int)n, target);
  if (stat(path, &s) == 0) fprintf(out, "  (%.2f MB)", 1e-6 * (double)s.st_size);
  fputc('\n', out);
}

static sh_status print_origin(sh_h5 *f, FILE *out) {
  char program[64], commit[64], written[64];
  int64_t version, ranks;
  SH_TRY(sh_h5_attr_read_text(f, "/", "program", program, sizeof program));
  SH_TRY(sh_h5_attr_read_text(f, "/", "commit", commit, sizeof commit));
  SH_TRY(sh_h5_attr_read_text(f, "/", "written", written, sizeof written));
  SH_TRY(sh_h5_attr_read_i64(f, "/", "version", &version));
  SH_TRY(sh_h5_attr_read_i64(f, "/", "ranks", &ranks));
  fprintf(out, "format      %s, version %lld\n", SH_CK_FORMAT, (long long)version);
  fprintf(out, "written     %s by shoal %s (%s) on %lld rank%s\n", written, program, commit, (long long)ranks,
          ranks == 1 ? "" : "s");
  return SH_OK;
}

static void print_progress(const sh_run_state *s, const sh_config *c, FILE *out) {
  fprintf(out, "progress    step %lld, epoch %lld (%lld batches into it), %lld tokens, %.0f s of training\n",
          (long long)s->step, (long long)s->epoch, (long long)s->step_in_epoch, (long long)s->tokens, s->seconds);
  const char *metric = c ? c->eval.metric : "metric";
  if (s->best_metric >= 0)
    fprintf(out, "best        %s %.4f at epoch %lld, %lld evaluation%s ago\n", metric, s->best_metric,
            (long long)s->best_epoch, (long long)s->evals_since_best, s->evals_since_best == 1 ? "" : "s");
  else
    fprintf(out, "best        %s: not evaluated yet\n", metric);
}

static void print_config(const sh_config *c, FILE *out) {
  fprintf(out, "model       %s, width %lld, %lld layers, %lld heads, history %lld\n", c->model.name,
          (long long)c->model.width, (long long)c->model.layers, (long long)c->model.heads,
          (long long)c->model.max_len);
  fprintf(out, "training    loss %s, %lld users a batch, lr %g, %s, table %s, seed %lld\n", c->loss.name,
          (long long)c->batch.users, c->optim.lr, c->optim.schedule, c->table.optim, (long long)c->train.seed);
  fprintf(out, "data        %s, %s\n", *c->data.path ? c->data.path : "(no path)", c->data.split);
}

static bool under(const char *path, const char *folder) { return strncmp(path, folder, strlen(folder)) == 0; }

static double megabytes(const sh_ck_list *list, const char *folder) {
  double bytes = 0;
  for (int i = 0; i < list->n; i++)
    if (under(list->array[i].path, folder)) bytes += (double)sh_ck_bytes(&list->array[i]);
  return 1e-6 * bytes;
}

/* One line for each folder below /optim: "exp_avg". Arrays come in name order, so those of a folder stand together. */
static void print_moments(const sh_ck_list *list, FILE *out) {
  char last[SH_CK_PATH] = "", folder[SH_CK_PATH];
  for (int i = 0; i < list->n; i++) {
    if (!under(list->array[i].path, "/optim/")) continue;
    snprintf(folder, sizeof folder, "%s", list->array[i].path);
    char *end = strchr(folder + 7, '/');
    if (end) end[1] = '\0';
    if (strcmp(folder, last) == 0) continue;
    memcpy(last, folder, sizeof last);
    fprintf(out, "%s%.*s", strcmp(last, "") == 0 ? "" : " ", (int)strlen(folder) - 8, folder + 7);
  }
}

static void print_table(const sh_ck_list *list, const sh_ck_array *rows, FILE *out) {
  char folder[SH_CK_PATH];
  size_t n = strlen(rows->path) - 4; /* "/tables/item/" */
  memcpy(folder, rows->path, n);
  folder[n] = '\0';
  fprintf(out, "table       %.*s: %lld rows x %lld, %.2f MB", (int)n - 9, folder + 8, (long long)rows->dim[0],
          (long long)rows->dim[1], 1e-6 * (double)sh_ck_bytes(rows));
  double state = 0;
  for (int i = 0; i < list->n; i++) {
    const sh_ck_array *a = &list->array[i];
    const char *name = a->path + n;
    if (!under(a->path, folder) || a == rows || strcmp(name, "offsets") == 0) continue;
    fprintf(out, "%s %s x %lld", state == 0 ? "; state" : ",", name, (long long)a->dim[1]);
    state += 1e-6 * (double)sh_ck_bytes(a);
  }
  if (state > 0) fprintf(out, ", %.2f MB", state);
  fputc('\n', out);
}

static sh_status print_arrays(sh_h5 *f, const sh_ck_list *list, FILE *out) {
  int64_t parameters, narrays = 0;
  SH_TRY(sh_h5_attr_read_i64(f, "/", "parameters", &parameters));
  for (int i = 0; i < list->n; i++) narrays += under(list->array[i].path, "/params/");
  fprintf(out, "parameters  %lld in %lld arrays, %.2f MB (tables not counted)\n", (long long)parameters,
          (long long)narrays, megabytes(list, "/params/"));
  double optim = megabytes(list, "/optim/");
  if (optim > 0) {
    fprintf(out, "optimiser  ");
    print_moments(list, out);
    fprintf(out, ", %.2f MB\n", optim);
  } else {
    fprintf(out, "optimiser   no state\n");
  }
  for (int i = 0; i < list->n; i++) {
    const char *path = list->array[i].path;
    size_t n = strlen(path);
    if (under(path, "/tables/") && n > 5 && strcmp(path + n - 5, "/rows") == 0) print_table(list, &list->array[i], out);
  }
  return SH_OK;
}

static sh_status inspect(sh_h5 *f, const sh_ck_list *list, const char *path, FILE *out) {
  sh_run_state state;
  char *text;
  SH_TRY(sh_ck_read_state(f, &state));
  SH_TRY(sh_ck_read_text(f, list, "/config", &text));
  sh_config *config = sh_malloc(sizeof *config);
  sh_config_defaults(config);
  bool known = sh_config_read_text(config, text, path) == SH_OK;
  free(text);
  print_file(path, out);
  sh_status status = print_origin(f, out);
  if (status == SH_OK) {
    print_progress(&state, known ? config : NULL, out);
    if (known)
      print_config(config, out);
    else
      fprintf(out, "config      not read by this program: %s\n", sh_error_message());
    status = print_arrays(f, list, out);
  }
  free(config);
  return status;
}

sh_status sh_ckpt_inspect(const char *path, FILE *out) {
  sh_ck_list list;
  sh_h5 *f;
  SH_TRY(sh_ck_open(&f, path, &list));
  sh_status status = inspect(f, &list, path, out);
  sh_ck_list_free(&list);
  sh_h5_close(f, false);
  return status;
}

sh_status sh_checkpoint_inspect(const char *path, FILE *out) { return sh_ckpt_inspect(path, out); }
