/* train/journal.h: what a run leaves to read: metrics.jsonl, config.yaml, build.txt, and progress lines. Rank 0 writes.
 */
#ifndef SH_TRAIN_JOURNAL_H
#define SH_TRAIN_JOURNAL_H

#include "train/costs.h"
#include "train/metrics.h"
#include "train/trainer.h"

typedef struct sh_journal {
  int lock;         /* rank 0: held on train.out, or -1 */
  FILE *file;       /* rank 0: metrics.jsonl */
  double began;     /* this process's training clock */
  double last_time; /* of the last progress line */
  double paused_time;
  sh_costs costs;
  sh_cost_sums paused_costs;
  double peak;  /* FLOP/s of all ranks, measured when the journal is opened */
  double flops; /* counted since the last progress line */
  int64_t last_tokens, last_step;
} sh_journal;

/* Creates train.out and measures the cores' peak (some 20 ms). On a resume, lines of metrics.jsonl beyond state.step
 * are dropped. Collective over the world. */
sh_status sh_journal_open(sh_journal *j, sh_trainer *t);
void sh_journal_close(sh_journal *j);

/* What a step cost on each rank, as tables. Collective over the world. */
void sh_journal_conclude(sh_journal *j, sh_trainer *t);

/* Whether metrics.jsonl holds a test evaluation of the weights of that step. Collective over the world. */
bool sh_journal_tested(const sh_trainer *t, int64_t step);

/* Between the two calls stands what is not training (evaluation, checkpoints): rates leave it out. */
void sh_journal_pause(sh_journal *j);
double sh_journal_continue(sh_journal *j); /* seconds since the pause */

/* What a step computed, for the MFU of the next progress line: counted FLOP (train/step.h) by time and peak. */
void sh_journal_step(sh_journal *j, const sh_step_report *r);

/* Both are collective over the world. */
void sh_journal_progress(sh_journal *j, sh_trainer *t, const sh_step_report *r);
/* `epoch` and `step` are those of the weights: trained on. */
void sh_journal_metrics(sh_journal *j, sh_trainer *t, const char *split, int64_t epoch, int64_t step,
                        const sh_metrics *m, double seconds);

#endif
