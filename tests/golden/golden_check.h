/* golden/golden_check.h: steps of a golden case, each result compared with the file. */
#ifndef SH_TESTS_GOLDEN_CHECK_H
#define SH_TESTS_GOLDEN_CHECK_H

#include "golden/golden_model.h"
#include "support/close.h"

typedef struct sh_golden_run {
  sh_golden_model g;
  sh_golden_batch in;
  sh_rows rows;
  sh_ctx ctx;
  sh_pass pass;
  sh_close_report report;
  double tolerance;
  int step;
  double (*scalar)[2][3]; /* [layers][a, b] FuXi-beta: scales of gradient, exp_avg, exp_avg_sq */
} sh_golden_run;

/* Gradients zero, batch of inputs{step}, context; what the step arena held is gone. */
void sh_golden_begin(sh_golden_run *r, int step, bool train);

/* Forward, loss, backward and AdamW of step 0, 1, 2: layers, hidden states, logits, loss, gradients, moments and
 * parameters are checked. */
void sh_golden_train_step(sh_golden_run *r, int step);

#endif
