#include "train/failure.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/phase.h"
#include "mpi/coll.h"

static struct {
  const sh_axis *world;
  sh_phase_id phase;
  long long step;
  char how[16];
  bool due; /* an error that waits for sh_failure_here */
} asked;

static sh_status injected(void) {
  return sh_fail(SH_ERR_INTERNAL, "SHOAL_FAIL: error in phase %s of step %lld", sh_phase_name(asked.phase), asked.step);
}

static void fail(sh_phase_id phase, int64_t step) {
  if (phase != asked.phase || step != asked.step) return;
  if (!strcmp(asked.how, "kill")) raise(SIGKILL);
  if (!strcmp(asked.how, "abort")) abort();
  if (!strcmp(asked.how, "stop")) {
    raise(SIGTERM);
    return;
  }
  while (!strcmp(asked.how, "hang")) pause();
  asked.due = phase == SH_PHASE_LOAD || phase == SH_PHASE_EVAL || phase == SH_PHASE_CHECKPOINT;
  if (asked.due) return;
  injected();
  sh_abort(asked.world, SH_ERR_INTERNAL, sh_error_message());
}

sh_status sh_failure_setup(const sh_axis *world) {
  const char *text = getenv("SHOAL_FAIL");
  char phase[16];
  int rank = 0;
  sh_phase_hook = NULL;
  asked.due = false;
  if (!text || !*text) return SH_OK;
  strcpy(asked.how, "error");
  int n = sscanf(text, "%15[a-z]:%lld:%d:%15[a-z]", phase, &asked.step, &rank, asked.how);
  int p = n >= 3 ? sh_phase_find(phase) : -1;
  static const char *const ways[] = {"error", "abort", "kill", "hang", "stop"};
  bool known = false;
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) known |= !strcmp(asked.how, ways[i]);
  if (p <= SH_PHASE_OTHER || !known)
    return sh_fail(SH_ERR_USAGE, "SHOAL_FAIL: found '%s', expected phase:step:rank[:error|abort|kill|hang|stop]", text);
  asked.phase = (sh_phase_id)p;
  asked.world = world;
  if (rank == world->index) sh_phase_hook = fail;
  return SH_OK;
}

sh_status sh_failure_here(sh_status status) {
  if (!asked.due || status != SH_OK) return status;
  asked.due = false;
  return injected();
}
