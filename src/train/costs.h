/* train/costs.h: what a step costs on each rank: computing, exposed and hidden communication, bytes by kind, phases.
 *
 * Gathered at report intervals only. Computing is the time of the interval outside communication.
 */
#ifndef SH_TRAIN_COSTS_H
#define SH_TRAIN_COSTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/phase.h"
#include "mpi/account.h"
#include "mpi/places.h"

typedef struct sh_rank_cost {
  double compute, exposed, hidden; /* seconds */
  double resident;                 /* bytes, now */
} sh_rank_cost;

/* Sums over ranks. */
typedef struct sh_cost_sums {
  sh_comm_account comm;
  double phase[SH_PHASES];
} sh_cost_sums;

typedef struct sh_costs {
  const sh_axis *world;
  sh_place *place; /* [size] */
  int64_t steps, run_steps;
  sh_rank_cost *rank, *run_rank; /* [size] of the last interval; of the run so far */
  sh_cost_sums sum, run_sum;
  sh_cost_sums last; /* this rank's totals when the interval began */
} sh_costs;

void sh_costs_open(sh_costs *c, const sh_axis *world); /* collective over the world */
void sh_costs_close(sh_costs *c);

/* What lies between the calls belongs to no interval. */
void sh_costs_pause(sh_costs *c, sh_cost_sums *at);
void sh_costs_continue(sh_costs *c, const sh_cost_sums *at);

/* An interval of `seconds` and so many steps ends. Collective over the world. */
void sh_costs_gather(sh_costs *c, double seconds, int64_t steps);

/* Of the last interval: the rank that computed longest, and how much longer than the mean; the largest share of time
 * any rank spent in communication; the largest resident size. */
int sh_costs_slowest(const sh_costs *c, double *imbalance);
double sh_costs_exposed_share(const sh_costs *c);
double sh_costs_resident(const sh_costs *c);

void sh_costs_line(const sh_costs *c, int64_t step, FILE *out); /* of the last interval, a line of metrics.jsonl */
void sh_costs_table(const sh_costs *c);                         /* of the run, for people, from rank 0 */

#endif
