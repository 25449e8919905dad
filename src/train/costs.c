#include "train/costs.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/log.h"
#include "mpi/coll.h"

static sh_cost_sums totals(void) {
  sh_cost_sums s = {.comm = sh_comm_total()};
  for (int p = 0; p < SH_PHASES; p++) s.phase[p] = sh_phase_seconds(p);
  return s;
}

static void add(sh_cost_sums *sum, const sh_cost_sums *a, double by) {
  sh_comm_add(&sum->comm, &a->comm, by);
  for (int p = 0; p < SH_PHASES; p++) sum->phase[p] += by * a->phase[p];
}

void sh_costs_open(sh_costs *c, const sh_axis *world) {
  size_t P = (size_t)world->size;
  *c = (sh_costs){.world = world, .place = sh_calloc(P, sizeof *c->place)};
  c->rank = sh_calloc(P, sizeof *c->rank);
  c->run_rank = sh_calloc(P, sizeof *c->run_rank);
  sh_places_gather(world, c->place);
  c->last = totals();
}

void sh_costs_close(sh_costs *c) {
  free(c->place);
  free(c->rank);
  free(c->run_rank);
  *c = (sh_costs){0};
}

void sh_costs_pause(sh_costs *c, sh_cost_sums *at) {
  (void)c;
  *at = totals();
}

void sh_costs_continue(sh_costs *c, const sh_cost_sums *at) {
  sh_cost_sums now = totals();
  add(&c->last, &now, 1);
  add(&c->last, at, -1);
}

static double resident_bytes(void) {
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f) return 0;
  if (fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  fclose(f);
  return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

void sh_costs_gather(sh_costs *c, double seconds, int64_t steps) {
  c->sum = totals();
  add(&c->sum, &c->last, -1);
  sh_comm_cost all = sh_comm_kind_cost(&c->sum.comm, -1);
  sh_rank_cost mine = {seconds - all.exposed, all.exposed, all.hidden, resident_bytes()};
  sh_allgather(c->world, &mine, sizeof mine, c->rank);
  sh_sum_f64(c->world, (double *)&c->sum, sizeof c->sum / sizeof(double));
  c->steps = steps;
  c->run_steps += steps;
  add(&c->run_sum, &c->sum, 1);
  for (int r = 0; r < c->world->size; r++) {
    c->run_rank[r].compute += c->rank[r].compute;
    c->run_rank[r].exposed += c->rank[r].exposed;
    c->run_rank[r].hidden += c->rank[r].hidden;
  }
  c->last = totals(); /* the two collectives above are not the next interval's */
}

static int slowest(const sh_costs *c, const sh_rank_cost *rank, double *imbalance) {
  int worst = 0;
  double sum = 0;
  for (int r = 0; r < c->world->size; r++) {
    sum += rank[r].compute;
    if (rank[r].compute > rank[worst].compute) worst = r;
  }
  *imbalance = sum > 0 ? rank[worst].compute * c->world->size / sum : 1;
  return worst;
}

int sh_costs_slowest(const sh_costs *c, double *imbalance) { return slowest(c, c->rank, imbalance); }

double sh_costs_exposed_share(const sh_costs *c) {
  double most = 0;
  for (int r = 0; r < c->world->size; r++) {
    double all = c->rank[r].compute + c->rank[r].exposed;
    if (all > 0 && c->rank[r].exposed / all > most) most = c->rank[r].exposed / all;
  }
  return most;
}

double sh_costs_resident(const sh_costs *c) {
  double most = 0;
  for (int r = 0; r < c->world->size; r++)
    if (c->rank[r].resident > most) most = c->rank[r].resident;
  return most;
}

enum { COMPUTE, EXPOSED, HIDDEN };

static void print_ranks(const sh_costs *c, int what, const char *name, FILE *out) {
  fprintf(out, ",\"%s\":[", name);
  for (int r = 0; r < c->world->size; r++) {
    const sh_rank_cost *k = &c->rank[r];
    double s = what == COMPUTE ? k->compute : what == EXPOSED ? k->exposed : k->hidden;
    fprintf(out, "%s%.4g", r ? "," : "", s / (double)c->steps);
  }
  fprintf(out, "]");
}

void sh_costs_line(const sh_costs *c, int64_t step, FILE *out) {
  double imbalance, each = 1.0 / ((double)c->steps * c->world->size);
  int worst = sh_costs_slowest(c, &imbalance);
  fprintf(out, "{\"kind\":\"ranks\",\"step\":%lld", (long long)step);
  print_ranks(c, COMPUTE, "compute_s", out);
  print_ranks(c, EXPOSED, "exposed_s", out);
  print_ranks(c, HIDDEN, "hidden_s", out);
  fprintf(out, ",\"compute_imbalance\":%.4g,\"slowest_rank\":%d,\"slowest_host\":\"%s\",\"phases_s\":{", imbalance,
          worst, c->place[worst].host);
  for (int p = SH_PHASE_LOAD; p <= SH_PHASE_UPDATE; p++)
    fprintf(out, "%s\"%s\":%.4g", p > SH_PHASE_LOAD ? "," : "", sh_phase_name(p), c->sum.phase[p] * each);
  fprintf(out, "},\"comm\":[");
  const char *comma = "";
  for (int k = 0; k < SH_COMM_KINDS; k++)
    for (int x = 0; x < SH_COMM_AXES; x++) {
      const sh_comm_cost *s = &c->sum.comm.of[k][x];
      if (s->calls == 0 && s->exposed == 0) continue;
      fprintf(out, "%s{\"kind\":\"%s\",\"axis\":\"%s\",\"bytes\":%.6g,\"exposed_s\":%.4g,\"hidden_s\":%.4g}", comma,
              sh_comm_kind_name(k), sh_comm_axis_name(x), s->bytes * each, s->exposed * each, s->hidden * each);
      comma = ",";
    }
  fprintf(out, "]}\n");
  fflush(out);
}

static void table_of_ranks(const sh_costs *c) {
  enum { MOST = 16 }; /* ranks shown: the first, and always the slowest */
  double imbalance, each = 1e3 / (double)c->run_steps;
  int worst = slowest(c, c->run_rank, &imbalance), P = c->world->size;
  sh_info("a step by rank (ms)    compute    exposed     hidden   host");
  for (int r = 0; r < P; r++) {
    if (r >= MOST && r != worst) continue;
    const sh_rank_cost *k = &c->run_rank[r];
    sh_info("  rank %-5d          %9.2f  %9.2f  %9.2f   %s%s", r, k->compute * each, k->exposed * each,
            k->hidden * each, c->place[r].host, r == worst && P > 1 ? "  slowest" : "");
  }
  if (P > MOST) sh_info("  ... %d ranks in all; metrics.jsonl has every one", P);
  if (P > 1)
    sh_info("  computing: the slowest, rank %d on %s, takes %.2f times the mean", worst, c->place[worst].host,
            imbalance);
}

void sh_costs_table(const sh_costs *c) {
  if (c->run_steps == 0) return;
  double each = 1.0 / ((double)c->run_steps * c->world->size);
  table_of_ranks(c);
  char line[256] = "";
  int n = 0;
  for (int p = SH_PHASE_LOAD; p <= SH_PHASE_UPDATE; p++)
    n += snprintf(line + n, sizeof line - (size_t)n, "%s%s %.2f", p > SH_PHASE_LOAD ? ", " : "", sh_phase_name(p),
                  1e3 * each * c->run_sum.phase[p]);
  sh_info("a step by phase (ms, mean of ranks): %s", line);
  if (c->world->size == 1) return;
  sh_info("a step by kind (mean of ranks)  axis         KiB   exposed ms   hidden ms");
  for (int k = 0; k < SH_COMM_KINDS; k++)
    for (int x = 0; x < SH_COMM_AXES; x++) {
      const sh_comm_cost *s = &c->run_sum.comm.of[k][x];
      if (s->calls > 0)
        sh_info("  %-28s  %-6s %9.1f    %9.3f   %9.3f", sh_comm_kind_name(k), sh_comm_axis_name(x),
                s->bytes * each / 1024, 1e3 * s->exposed * each, 1e3 * s->hidden * each);
    }
}
