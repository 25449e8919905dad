/* Whole training steps and evaluation, as a run does them. */
#include <stdlib.h>

#include "core/timer.h"
#include "tools/bench_internal.h"
#include "train/eval.h"

static const char *const phase_name[SH_PHASES] = {
    [SH_PHASE_LOAD] = "load",          [SH_PHASE_EXCHANGE] = "embedding exchange", [SH_PHASE_FORWARD] = "forward",
    [SH_PHASE_LOSS] = "loss",          [SH_PHASE_BACKWARD] = "backward",           [SH_PHASE_SYNC] = "gradient sum",
    [SH_PHASE_OPTIMISER] = "optimiser"};

/* Phases come from the parts, scaled to the tokens of a step. */
static void print_phases(sh_bench_state *b, double step, double tokens) {
  double sum = 0, scale = tokens / b->parts_tokens;
  for (int i = 0; i < SH_PHASES; i++) {
    sum += scale * b->phase[i];
    sh_bench_add(b, "step", phase_name[i], scale * b->phase[i], step, 0, 0);
  }
  if (b->out) fprintf(b->out, "  the parts measured alone are %.1f %% of the step\n", 100 * sum / step);
}

static void report(sh_bench_state *b, double *pace) {
  double step = sh_median(pace, b->steps) * b->step_tokens;
  char title[64];
  b->tokens_per_second = b->step_tokens / step;
  snprintf(title, sizeof title, "step, %.0f tokens", b->step_tokens);
  sh_bench_title(b, title);
  sh_bench_add(b, "step", "whole step", step, 0, b->step_flops / b->t->grid->world.size, 0);
  if (b->parts_tokens > 0) print_phases(b, step, b->step_tokens);
  if (b->out)
    fprintf(b->out, "  %.1f k tokens/s, %.0f k FLOP a token, MFU %.1f %%, resident memory of a rank %.0f MiB\n",
            b->tokens_per_second * 1e-3, b->step_flops / b->step_tokens * 1e-3, 100 * sh_bench_mfu(b),
            b->resident / 1048576);
  if (b->out && b->t->grid->world.size > 1)
    fprintf(b->out, "  a rank sends at most %.2f MiB a step\n", b->step_sent / 1048576);
}

sh_status sh_bench_step(sh_bench_state *b) {
  sh_trainer *t = b->t;
  sh_step_report r;
  enum { WARM_UP = 3 };
  int64_t sent = 0;
  double *pace = sh_malloc(sizeof *pace * (size_t)b->steps), flops = 0, tokens = 0;
  sh_resident_reset();
  sh_status status = SH_OK;
  for (int64_t i = -WARM_UP; i < b->steps && status == SH_OK; i++) {
    sh_barrier(&t->grid->world);
    int64_t before = sh_comm_bytes();
    double start = sh_now();
    status = sh_train_step(t, false, &r);
    if (i < 0 || status != SH_OK) continue;
    double s = sh_now() - start;
    sent += sh_comm_bytes() - before;
    sh_max_f64(&t->grid->world, &s, 1);
    pace[i] = s / (double)r.tokens;
    flops += r.flops, tokens += (double)r.tokens;
  }
  sh_trainer_rewind(t);
  b->resident = sh_resident_peak();
  sh_max_f64(&t->grid->world, &b->resident, 1);
  b->step_tokens = tokens / (double)b->steps, b->step_flops = flops / (double)b->steps;
  b->step_sent = (double)sent / (double)b->steps;
  sh_max_f64(&t->grid->world, &b->step_sent, 1);
  if (status == SH_OK) report(b, pace);
  free(pace);
  return status;
}

sh_status sh_bench_eval(sh_bench_state *b) {
  enum { MOST = 5 };
  sh_trainer *t = b->t;
  double sample[MOST], total = 0;
  sh_metrics m;
  int n = 0;
  SH_TRY(sh_evaluate_split(t, SH_QUERY_TEST, NULL, &m)); /* warms up */
  while (n < MOST && (n == 0 || total < 3)) {
    sh_barrier(&t->grid->world);
    double start = sh_now();
    SH_TRY(sh_evaluate_split(t, SH_QUERY_TEST, NULL, &m));
    double s = sh_now() - start;
    sh_max_f64(&t->grid->world, &s, 1); /* the same on all: all stop together */
    total += sample[n++] = s;
  }
  double s = sh_median(sample, n);
  b->users_per_second = m.n / s;
  char title[64];
  snprintf(title, sizeof title, "evaluation, %.0f users", m.n);
  sh_bench_title(b, title);
  sh_bench_add(b, "eval", "full ranking", s, 0, 0, 0);
  if (b->out)
    fprintf(b->out, "  %.0f users/s over %lld candidates\n", b->users_per_second, (long long)t->data.ncandidates);
  return SH_OK;
}
