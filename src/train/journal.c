#include "train/journal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/folders.h"
#include "core/log.h"
#include "core/outfile.h"
#include "core/timer.h"
#include "kernels/peak.h"
#include "shoal/version.h"

static sh_status write_text(const char *folder, const char *name, const char *text) {
  char path[4096];
  sh_outfile o;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  SH_TRY(sh_outfile_open(&o, path));
  fputs(text, o.f);
  return sh_outfile_close(&o, true);
}

/* Keep the lines of a killed run that the checkpoint knows about. */
static sh_status drop_lines_beyond(const char *path, const sh_run_state *state) {
  FILE *f = fopen(path, "r");
  if (!f) return SH_OK;
  char *line = NULL;
  size_t room = 0;
  sh_outfile kept;
  sh_status status = sh_outfile_open(&kept, path);
  for (ssize_t n; status == SH_OK && (n = getline(&line, &room, f)) > 0;) {
    const char *at = strstr(line, "\"step\":");
    int64_t step = at ? strtoll(at + 7, NULL, 10) : INT64_MAX;
    bool again = state->evaluation_due && step == state->step && strstr(line, "\"kind\":\"eval\"");
    if (line[n - 1] == '\n' && step <= state->step && !again) fputs(line, kept.f);
  }
  bool unread = ferror(f) != 0;
  free(line);
  fclose(f);
  SH_TRY(status);
  status = sh_outfile_close(&kept, !unread);
  return unread ? sh_fail(SH_ERR_INTERNAL, "%s: cannot be read to its end", path) : status;
}

static const char *const run_files[] = {"ckpt", "metrics.jsonl", "config.yaml", "build.txt", "trace.json"};
enum { RUN_FILES = sizeof run_files / sizeof run_files[0] };

/* A new run in the folder of an old one destroys nothing: what is there becomes NAME.old-1, -2, ..., one number a run.
 */
static sh_status set_aside(const char *folder) {
  char from[4096], to[4096 + 32];
  bool taken = true, any = false;
  int n = 0;
  while (taken) {
    taken = false, n++;
    for (int i = 0; i < RUN_FILES; i++) {
      snprintf(to, sizeof to, "%s/%s.old-%d", folder, run_files[i], n);
      taken |= access(to, F_OK) == 0;
    }
  }
  for (int i = 0; i < RUN_FILES; i++) {
    snprintf(from, sizeof from, "%s/%s", folder, run_files[i]);
    snprintf(to, sizeof to, "%s.old-%d", from, n);
    if (access(from, F_OK) != 0) continue;
    if (rename(from, to)) return sh_fail(SH_ERR_INTERNAL, "%s: %s", from, strerror(errno));
    any = true;
  }
  if (any) sh_info("%s held an earlier run: its files are kept as *.old-%d", folder, n);
  return SH_OK;
}

/* One run at a time works in a folder. The lock dies with the process. */
static sh_status lock(sh_journal *j, const char *folder) {
  char path[4096];
  snprintf(path, sizeof path, "%s/.lock", folder);
  j->lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  if (j->lock < 0) return sh_fail(SH_ERR_INTERNAL, "%s: %s", path, strerror(errno));
  if (flock(j->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
    return SH_OK; /* some file systems have no locks */
  return sh_fail(SH_ERR_USAGE, "%s is in use by another run: choose another train.out", folder);
}

static sh_status open_files(sh_journal *j, sh_trainer *t) {
  const char *out = t->conf.train.out;
  char path[4096];
  SH_TRY(sh_make_folders(out, true, SH_ERR_INTERNAL));
  SH_TRY(lock(j, out));
  if (t->state.step == 0 || t->branched) SH_TRY(set_aside(out));
  snprintf(path, sizeof path, "%s/ckpt", out);
  SH_TRY(sh_make_folders(path, true, SH_ERR_INTERNAL));
  char *config = sh_config_text(&t->conf);
  sh_status status = write_text(out, "config.yaml", config);
  free(config);
  SH_TRY(status);
  SH_TRY(write_text(out, "build.txt", sh_build_info()));
  snprintf(path, sizeof path, "%s/metrics.jsonl", out);
  if (t->state.step > 0) SH_TRY(drop_lines_beyond(path, &t->state));
  j->file = fopen(path, t->state.step > 0 ? "a" : "w");
  return j->file ? SH_OK : sh_fail(SH_ERR_INTERNAL, "%s: %s", path, strerror(errno));
}

sh_status sh_journal_open(sh_journal *j, sh_trainer *t) {
  *j = (sh_journal){.lock = -1,
                    .began = sh_now(),
                    .last_tokens = t->state.tokens,
                    .last_step = t->state.step,
                    .peak = sh_peak_of(t->kernels)};
  sh_sum_f64(&t->grid->world, &j->peak, 1);
  sh_status status = sh_agree(&t->grid->world, t->grid->world.index == 0 ? open_files(j, t) : SH_OK);
  if (status != SH_OK) {
    sh_journal_close(j);
    return status;
  }
  sh_costs_open(&j->costs, &t->grid->world);
  j->last_time = sh_now();
  return SH_OK;
}

void sh_journal_close(sh_journal *j) {
  bool lost = j->file && ferror(j->file);
  if (j->file) lost |= fclose(j->file) != 0;
  if (lost) sh_warn("metrics.jsonl could not be written to its end, lines are missing: %s", strerror(errno));
  if (j->lock >= 0) close(j->lock);
  j->file = NULL, j->lock = -1;
  sh_costs_close(&j->costs);
}

bool sh_journal_tested(const sh_trainer *t, int64_t step) {
  char path[4096], *line = NULL;
  size_t room = 0;
  int64_t found = 0;
  snprintf(path, sizeof path, "%s/metrics.jsonl", t->conf.train.out);
  FILE *f = t->grid->world.index == 0 ? fopen(path, "r") : NULL;
  while (f && !found && getline(&line, &room, f) > 0) {
    const char *at = strstr(line, "\"split\":\"test\"") ? strstr(line, "\"weights_step\":") : NULL;
    found = at && strtoll(at + 15, NULL, 10) == step;
  }
  if (f) fclose(f);
  free(line);
  sh_bcast(&t->grid->world, &found, sizeof found, 0);
  return found;
}

void sh_journal_pause(sh_journal *j) {
  j->paused_time = sh_now();
  sh_costs_pause(&j->costs, &j->paused_costs);
}

double sh_journal_continue(sh_journal *j) {
  double seconds = sh_now() - j->paused_time;
  j->last_time += seconds;
  sh_costs_continue(&j->costs, &j->paused_costs);
  return seconds;
}

static void duration(double seconds, char *out, size_t size) {
  if (seconds < 90)
    snprintf(out, size, "%.0f s", seconds);
  else if (seconds < 5400)
    snprintf(out, size, "%.0f min", seconds / 60);
  else
    snprintf(out, size, "%.1f h", seconds / 3600);
}

void sh_journal_step(sh_journal *j, const sh_step_report *r) { j->flops += r->flops; }

void sh_journal_progress(sh_journal *j, sh_trainer *t, const sh_step_report *r) {
  double now = sh_now(), seconds = now - j->last_time, slower;
  sh_costs_gather(&j->costs, seconds, t->state.step - j->last_step);
  int slowest = sh_costs_slowest(&j->costs, &slower);
  double rate = (double)(t->state.tokens - j->last_tokens) / seconds;
  double mean = t->state.loss_tokens > 0 ? t->state.loss_sum / (double)t->state.loss_tokens : r->loss;
  double share = sh_costs_exposed_share(&j->costs), mfu = seconds > 0 ? j->flops / (seconds * j->peak) : 0;
  double eta = (double)(t->total_steps - t->state.step) * seconds / (double)(t->state.step - j->last_step);
  char left[32], who[128] = "";
  if (t->grid->world.size > 1)
    snprintf(who, sizeof who, "  slowest rank %d on %s, %.2f x", slowest, j->costs.place[slowest].host, slower);
  duration(eta > 0 ? eta : 0, left, sizeof left);
  sh_info("epoch %lld step %lld/%lld  loss %.4f  %.1f k tokens/s  MFU %.0f %%  comm %.0f %%%s  eta %s",
          (long long)t->state.epoch, (long long)t->state.step, (long long)t->total_steps, mean, rate / 1e3, 100 * mfu,
          100 * share, who, left);
  if (j->file) {
    fprintf(j->file,
            "{\"kind\":\"train\",\"step\":%lld,\"epoch\":%lld,\"loss\":%.9g,\"lr\":%.9g,\"grad_norm\":%.9g,"
            "\"tokens\":%lld,\"tokens_per_s\":%.6g,\"mfu\":%.4g,\"comm_share\":%.4g,\"rows_touched\":%lld,"
            "\"imbalance\":%.4g,"
            "\"resident_mb\":%.6g,\"seconds\":%.6g}\n",
            (long long)t->state.step, (long long)t->state.epoch, mean, r->lr, r->grad_norm, (long long)t->state.tokens,
            rate, mfu, share, (long long)r->rows_touched, r->imbalance, sh_costs_resident(&j->costs) / 1048576,
            t->state.seconds);
    sh_costs_line(&j->costs, t->state.step, j->file);
  }
  j->last_time = sh_now(), j->flops = 0;
  j->last_tokens = t->state.tokens, j->last_step = t->state.step;
}

void sh_journal_conclude(sh_journal *j, sh_trainer *t) {
  int64_t rest = t->state.step - j->last_step; /* steps behind the last progress line */
  if (rest > 0) sh_costs_gather(&j->costs, sh_now() - j->last_time, rest);
  j->last_step = t->state.step, j->last_time = sh_now();
  sh_costs_table(&j->costs);
}

void sh_journal_metrics(sh_journal *j, sh_trainer *t, const char *split, int64_t epoch, int64_t step,
                        const sh_metrics *m, double seconds) {
  if (m->n == 0) {
    sh_info("epoch %lld %s: no user has an event to rank", (long long)epoch, split);
    return;
  }
  static const char *const shown[] = {"hr@10", "ndcg@10", "hr@50", "ndcg@50", "hr@200", "mrr"};
  char line[256], *at = line;
  for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
    int cut = 0;
    if (sscanf(shown[i], "%*[a-z]@%d", &cut) == 1 && cut > t->conf.eval.top) continue;
    for (const char *c = shown[i]; *c; c++) *at++ = (char)toupper((unsigned char)*c);
    at += snprintf(at, 16, " %.4f ", sh_metrics_get(m, shown[i]));
  }
  sh_info("epoch %lld %s: %s (%.0f users/s)", (long long)epoch, split, line, m->n / seconds);
  if (!j->file) return;
  fprintf(j->file,
          "{\"kind\":\"eval\",\"split\":\"%s\",\"step\":%lld,\"epoch\":%lld,\"weights_step\":%lld,\"users\":%.0f,"
          "\"mrr\":%.9g",
          split, (long long)t->state.step, (long long)epoch, (long long)step, m->n, sh_metrics_get(m, "mrr"));
  for (int c = 0; c < sh_cuts_within(t->conf.eval.top); c++)
    fprintf(j->file, ",\"hr@%d\":%.9g,\"ndcg@%d\":%.9g", sh_cut[c], m->hr[c] / m->n, sh_cut[c], m->ndcg[c] / m->n);
  if (t->state.epoch_loss_tokens > 0)
    fprintf(j->file, ",\"epoch_loss\":%.9g", t->state.epoch_loss_sum / (double)t->state.epoch_loss_tokens);
  fprintf(j->file, ",\"seconds\":%.6g}\n", seconds);
  fflush(j->file);
}
