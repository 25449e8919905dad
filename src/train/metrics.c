#include "train/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const int sh_cut[SH_CUTS] = {1, 10, 50, 100, 200, 500};

int64_t sh_count_better(int64_t n, const float *score, const int64_t *id, float target_score, int64_t target_id) {
  int32_t above = 0, equal = 0; /* as wide as a score: whole vectors are compared and counted */
#pragma omp simd reduction(+ : above, equal)
  for (int32_t i = 0; i < (int32_t)n; i++) {
    above += score[i] > target_score;
    equal += score[i] == target_score;
  }
  int64_t better = above;
  if (equal > 0)
    for (int64_t i = 0; i < n && id[i] < target_id; i++) better += score[i] == target_score;
  return better;
}

int64_t sh_rank(int64_t better, int64_t top) { return better < 0 || better >= top ? top + 1 : better + 1; }

void sh_metrics_add(sh_metrics *m, int64_t rank, int64_t top) {
  m->n += 1;
  m->mrr += 1.0 / (double)rank;
  for (int c = 0; c < SH_CUTS; c++)
    if (rank <= sh_cut[c] && rank <= top) {
      m->hr[c] += 1;
      m->ndcg[c] += 1.0 / log2((double)rank + 1);
    }
}

int sh_cuts_within(int64_t top) {
  int n = 0;
  while (n < SH_CUTS && sh_cut[n] <= top) n++;
  return n;
}

double sh_metrics_get(const sh_metrics *m, const char *name) {
  int cut = 0;
  if (m->n == 0) return -1;
  if (!strcmp(name, "mrr")) return m->mrr / m->n;
  for (int c = 0; c < SH_CUTS; c++) {
    if (sscanf(name, "hr@%d", &cut) == 1 && cut == sh_cut[c]) return m->hr[c] / m->n;
    if (sscanf(name, "ndcg@%d", &cut) == 1 && cut == sh_cut[c]) return m->ndcg[c] / m->n;
  }
  return -1;
}
