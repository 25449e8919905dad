#include "optim/dense.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 16384 };

void sh_dense_adamw(const sh_kernels *k, sh_params *p, const sh_slices *held, const sh_conf_optim *o, double lr,
                    double scale, int64_t step, float *exp_avg, float *exp_avg_sq) {
  double c1 = 1 - pow(o->beta1, (double)step), c2 = 1 - pow(o->beta2, (double)step);
  for (int i = 0; i < p->n; i++) {
    int64_t size = sh_slice_size(held, p, i), first = sh_slice_first(held, p, i), state = held->slice[i].at;
    double decay = p->row[i].decay ? o->weight_decay : 0;
#pragma omp parallel for schedule(static) if (size > BLOCK)
    for (int64_t at = 0; at < size; at += BLOCK) {
      int64_t n = size - at < BLOCK ? size - at : BLOCK, q = first + at, m = state + at;
      k->adamw(n, lr, o->beta1, o->beta2, o->eps, decay, c1, c2, (float)scale, p->grad + q, p->value + q, exp_avg + m,
               exp_avg_sq + m);
    }
  }
}

double sh_dense_grad_sq(const sh_params *p, const sh_slices *own) {
  double total = 0;
  for (int i = 0; i < p->n; i++) {
    if (p->row[i].split < 0 && p->part > 0) continue;
    const float *g = p->grad + sh_slice_first(own, p, i);
    int64_t n = sh_slice_size(own, p, i);
    for (int64_t at = 0; at < n; at += BLOCK) {
      double sum = 0;
      for (int64_t k = at; k < n && k < at + BLOCK; k++) sum += (double)g[k] * (double)g[k];
      total += sum;
    }
  }
  return total;
}

double sh_schedule_factor(const sh_conf_optim *o, int64_t step, int64_t total) {
  if (step <= o->warmup) return (double)step / (double)o->warmup;
  if (!strcmp(o->schedule, "constant")) return 1;
  double left = (double)(total - o->warmup), done = (double)(step - o->warmup), end = o->lr > 0 ? o->lr_end / o->lr : 0;
  double x = left > 0 && done < left ? done / left : 1;
  if (!strcmp(o->schedule, "linear")) return 1 + (end - 1) * x;
  return end + (1 - end) * 0.5 * (1 + cos(3.14159265358979323846 * x));
}

double sh_clip_scale(double clip, double norm) { return clip > 0 && norm > clip ? clip / norm : 1; }
