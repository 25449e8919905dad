#include "train/loop.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/phase.h"
#include "core/timer.h"
#include "shoal/train.h"
#include "train/eval.h"
#include "train/failure.h"
#include "train/journal.h"
#include "train/trace_file.h"

static volatile sig_atomic_t stop_asked;
static void ask_stop(int signal_number) {
  static const char text[] = "shoal: stopping behind this step; Ctrl-C once more ends at once\n";
  stop_asked = 1;
  if (signal_number == SIGINT && write(STDERR_FILENO, text, sizeof text - 1) < 0) return;
}

void sh_train_catch_stop(void) {
  struct sigaction action = {.sa_handler = ask_stop, .sa_flags = SA_RESTART};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGUSR1, &action, NULL);
  action.sa_flags = SA_RESTART | (int)SA_RESETHAND; /* asked twice: at once */
  sigaction(SIGINT, &action, NULL);
}

static void ckpt_folder(const sh_trainer *t, char out[4096]) { snprintf(out, 4096, "%s/ckpt", t->conf.train.out); }

static sh_status write_checkpoint(sh_trainer *t, sh_journal *j) {
  char dir[4096];
  ckpt_folder(t, dir);
  sh_ckpt_content c = sh_trainer_content(t);
  sh_journal_pause(j);
  sh_phase(SH_PHASE_CHECKPOINT);
  sh_status status = sh_agree(&t->grid->world, sh_failure_here(SH_OK));
  if (status == SH_OK) status = sh_ckpt_write(&c, dir);
  if (status == SH_OK) status = sh_agree(&t->grid->world, sh_ckpt_prune(&c, dir, (int)t->conf.checkpoint.keep));
  sh_phase(SH_PHASE_OTHER);
  sh_journal_continue(j);
  return status;
}

static bool asked_to_stop(void) { return stop_asked != 0; }

/* Ranks a split for the journal with the weights of that epoch and step; not training, so the journal's clock stands.
 * SH_STOPPED when a stop was asked for. */
static sh_status rank_split(sh_trainer *t, sh_journal *j, bool valid, int64_t epoch, int64_t step, sh_metrics *m) {
  sh_journal_pause(j);
  sh_phase(SH_PHASE_EVAL);
  sh_status status = sh_agree(&t->grid->world, sh_failure_here(SH_OK));
  if (status == SH_OK) status = sh_evaluate_split(t, valid ? SH_QUERY_VALID : SH_QUERY_TEST, asked_to_stop, m);
  sh_phase(SH_PHASE_OTHER);
  double seconds = sh_journal_continue(j);
  if (status == SH_OK) sh_journal_metrics(j, t, valid ? "valid" : "test", epoch, step, m, seconds);
  return status;
}

static bool two_out(const sh_trainer *t) { return strcmp(t->conf.data.split, "leave-one-out") != 0; }

/* Validation where the protocol has one, else the published test. Sets *better when eval.metric improved. */
static sh_status evaluate(sh_trainer *t, sh_journal *j, bool *better) {
  sh_metrics m;
  SH_TRY(rank_split(t, j, two_out(t), t->state.epoch, t->state.step, &m));
  double now = sh_metrics_get(&m, t->conf.eval.metric);
  *better = now > t->state.best_metric;
  if (*better) {
    t->state.best_metric = now;
    t->state.best_epoch = t->state.epoch;
    t->state.best_step = t->state.step;
    t->state.evals_since_best = 0;
  } else {
    t->state.evals_since_best++;
  }
  return SH_OK;
}

/* With a validation split the test is read once, at the end, from the best checkpoint (or the last weights). */
static sh_status final_test(sh_trainer *t, sh_journal *j) {
  bool best = t->conf.checkpoint.best && t->state.best_metric >= 0;
  int64_t epoch = best ? t->state.best_epoch : t->state.epoch, step = best ? t->state.best_step : t->state.step;
  if (!two_out(t) || sh_journal_tested(t, step)) return SH_OK;
  if (best) {
    char path[4096 + 16], dir[4096];
    ckpt_folder(t, dir);
    snprintf(path, sizeof path, "%s/best.h5", dir);
    sh_ckpt_content c = sh_trainer_content(t);
    SH_TRY(sh_ckpt_read(&c, path, true));
  }
  sh_metrics m;
  return rank_split(t, j, false, epoch, step, &m);
}

static sh_status end_of_epoch(sh_trainer *t, sh_journal *j, bool *finished) {
  const sh_config *c = &t->conf;
  bool better = false, last = *finished || (c->train.steps == 0 && t->state.epoch >= c->train.epochs);
  bool due = c->train.eval_every > 0 && t->state.epoch % c->train.eval_every == 0;
  t->state.evaluation_due = 1; /* for the checkpoint, when a stop comes first */
  if (due || last) SH_TRY(evaluate(t, j, &better));
  t->state.evaluation_due = 0;
  t->state.epoch_loss_sum = 0, t->state.epoch_loss_tokens = 0;
  if (c->train.patience > 0 && t->state.evals_since_best >= c->train.patience) {
    sh_info("no better %s for %lld evaluations: stopping", c->eval.metric, (long long)t->state.evals_since_best);
    last = true;
  }
  bool keep = (c->checkpoint.every_epochs > 0 && t->state.epoch % c->checkpoint.every_epochs == 0) ||
              (c->checkpoint.every > 0 && t->state.step % c->checkpoint.every == 0);
  if (keep || last || (better && c->checkpoint.best)) {
    SH_TRY(write_checkpoint(t, j));
    if (better && c->checkpoint.best) {
      char dir[4096];
      ckpt_folder(t, dir);
      sh_ckpt_content content = sh_trainer_content(t);
      SH_TRY(sh_agree(&t->grid->world, sh_ckpt_mark_best(&content, dir)));
    }
  }
  *finished = last;
  return SH_OK;
}

static void account(sh_trainer *t, const sh_step_report *r, double seconds) {
  sh_run_state *s = &t->state;
  double sum = r->loss * (double)r->tokens;
  s->loss_sum += sum, s->loss_tokens += r->tokens;
  s->epoch_loss_sum += sum, s->epoch_loss_tokens += r->tokens;
  s->seconds += seconds;
}

/* One step and what falls due behind it. */
static sh_status one_step(sh_trainer *t, sh_journal *j, bool *finished, bool *stopped) {
  const sh_config *c = &t->conf;
  double start = sh_now();
  sh_step_report r;
  SH_TRY(sh_train_step(t, stop_asked != 0, &r));
  account(t, &r, sh_now() - start);
  sh_journal_step(j, &r);
  if (c->train.loss_limit > 0 && r.loss > c->train.loss_limit)
    return sh_fail(SH_ERR_DIVERGED, "step %lld: loss %.6g is beyond train.loss_limit %.6g", (long long)t->state.step,
                   r.loss, c->train.loss_limit);
  bool all_steps = c->train.steps > 0 && t->state.step >= c->train.steps;
  *finished = all_steps;
  *stopped = r.stop_votes > 0;
  bool epoch_done = t->state.step_in_epoch == 0;
  if (t->state.step % c->train.log_every == 0 || *finished) {
    sh_journal_progress(j, t, &r);
    t->state.loss_sum = 0, t->state.loss_tokens = 0;
  }
  if (epoch_done || all_steps) return end_of_epoch(t, j, finished);
  if (c->checkpoint.every > 0 && t->state.step % c->checkpoint.every == 0) return write_checkpoint(t, j);
  return SH_OK;
}

static bool finished_before(const sh_trainer *t) {
  const sh_conf_train *c = &t->conf.train;
  bool patience = c->patience > 0 && t->state.evals_since_best >= c->patience;
  return (c->steps > 0 ? t->state.step >= c->steps : t->state.epoch >= c->epochs) || patience;
}

static sh_status stopped_here(const sh_trainer *t) {
  return sh_fail(SH_STOPPED, "stopped on request at step %lld", (long long)t->state.step);
}

sh_status sh_train_loop(sh_trainer *t, const sh_train_options *o) {
  sh_journal j;
  sh_tracer tracer;
  SH_TRY(sh_journal_open(&j, t));
  bool finished = finished_before(t), stopped = false;
  sh_status status = sh_tracer_open(&tracer, o, &t->grid->world, t->conf.train.out);
  bool due = t->state.evaluation_due && (t->state.step_in_epoch == 0 || finished); /* else the run has become longer */
  t->state.evaluation_due = due;
  sh_phase_step(t->state.step);
  if (status == SH_OK && due)
    status = end_of_epoch(t, &j, &finished);
  else if (finished)
    sh_info("nothing left to train: step %lld, epoch %lld", (long long)t->state.step, (long long)t->state.epoch);
  while (!finished && !stopped && status == SH_OK) {
    sh_tracer_before(&tracer, t->state.step + 1);
    status = one_step(t, &j, &finished, &stopped);
    if (status == SH_OK || status == SH_STOPPED) sh_tracer_after(&tracer, t->state.step);
  }
  sh_tracer_close(&tracer, status == SH_STOPPED ? SH_OK : status);
  sh_trainer_rewind(t);
  if ((status == SH_OK && stopped && !finished) || status == SH_STOPPED) {
    status = write_checkpoint(t, &j);
    if (status == SH_OK) status = stopped_here(t);
  } else if (status == SH_OK) {
    status = final_test(t, &j);
    if (status == SH_STOPPED) status = stopped_here(t); /* the last checkpoint is written, the best one may be loaded */
  }
  if (status == SH_OK || status == SH_STOPPED) sh_journal_conclude(&j, t);
  sh_journal_close(&j);
  return status;
}
