#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/timer.h"
#include "tools/bench_internal.h"

/* Of the precision that the products of linear layers have. */
static double own_peak(const sh_bench_state *b) {
  return b->peak_bf16 > 0 && !strcmp(b->t->kernels->precision, "bf16") ? b->peak_bf16 : b->peak;
}

void sh_bench_title(sh_bench_state *b, const char *title) {
  if (!b->out) return;
  fprintf(b->out, "\n%-40s %10s %7s %9s %8s %8s %9s\n", title, "ms", "share", "GFLOP/s", "of peak", "GB/s", "of triad");
  fflush(b->out);
}

/* A rate and its share of the best, or dashes. */
static void print_rate(FILE *out, int width, double amount, double seconds, double best) {
  if (amount <= 0 || seconds <= 0) {
    fprintf(out, " %*s %8s", width, "-", "-");
    return;
  }
  double rate = amount / seconds;
  fprintf(out, " %*.1f", width, rate * 1e-9);
  if (best > 0)
    fprintf(out, " %6.1f %%", 100 * rate / best);
  else
    fprintf(out, " %8s", "-");
}

static void print_row(const sh_bench_state *b, const sh_bench_row *r, double share) {
  fprintf(b->out, "  %-38s %10.3f", r->name, 1e3 * r->seconds);
  if (share > 0)
    fprintf(b->out, " %5.1f %%", 100 * r->seconds / share);
  else
    fprintf(b->out, " %7s", "");
  print_rate(b->out, 9, r->flops, r->seconds, own_peak(b));
  print_rate(b->out, 8, r->bytes, r->seconds, b->triad);
  fputc('\n', b->out);
  fflush(b->out);
}

double sh_bench_add(sh_bench_state *b, const char *section, const char *name, double seconds, double share,
                    double flops, double bytes) {
  const sh_axis *world = &b->t->grid->world;
  double sums[2] = {flops, bytes};
  sh_max_f64(world, &seconds, 1);
  sh_sum_f64(world, sums, 2);
  if (b->nrows == b->capacity) {
    b->capacity = b->capacity ? 2 * b->capacity : 128;
    b->row = sh_realloc(b->row, sizeof *b->row * (size_t)b->capacity);
  }
  sh_bench_row *r = &b->row[b->nrows++];
  *r = (sh_bench_row){.section = section, .seconds = seconds, .flops = sums[0], .bytes = sums[1]};
  snprintf(r->name, sizeof r->name, "%s", name);
  if (b->out) print_row(b, r, share);
  return seconds;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

double sh_median(double *x, int64_t n) {
  if (n == 0) return 0;
  qsort(x, (size_t)n, sizeof *x, ascending);
  return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

double sh_bench_time(void (*call)(void *), void *arg) {
  enum { MOST = 64, LEAST = 5 };
  double sample[MOST], total = 0;
  int n = 0;
  call(arg);
  while (n < MOST && (n < LEAST || total < 0.15)) {
    double start = sh_now();
    call(arg);
    total += sample[n++] = sh_now() - start;
  }
  return sh_median(sample, n);
}

double sh_bench_mfu(const sh_bench_state *b) {
  if (b->tokens_per_second <= 0 || own_peak(b) <= 0) return 0;
  return b->step_flops / b->step_tokens * b->tokens_per_second / own_peak(b);
}

void sh_bench_summary(const sh_bench_state *b, FILE *f) {
  if (!b) {
    fprintf(f, "\n%-24s %7s %10s %10s %9s %8s %8s %9s\n", "shape", "threads", "tokens", "k tok/s", "GFLOP/s", "of peak",
            "MiB", "users/s");
    return;
  }
  fprintf(f, "%-24s %7lld", b->shape, (long long)b->t->conf.train.threads);
  if (b->tokens_per_second > 0)
    fprintf(f, " %10.0f %10.2f %9.1f %6.1f %% %8.0f", b->step_tokens, b->tokens_per_second * 1e-3,
            b->step_flops / b->step_tokens * b->tokens_per_second * 1e-9, 100 * sh_bench_mfu(b), b->resident / 1048576);
  else
    fprintf(f, " %10s %10s %9s %8s %8s", "-", "-", "-", "-", "-");
  if (b->users_per_second > 0)
    fprintf(f, " %9.0f\n", b->users_per_second);
  else
    fprintf(f, " %9s\n", "-");
}

void sh_bench_json(const sh_bench_state *b, FILE *f) {
  const sh_trainer *t = b->t;
  fprintf(f,
          "{\"shape\":\"%s\",\"model\":\"%s\",\"layers\":%lld,\"width\":%d,\"ranks\":%d,\"threads\":%lld,\"isa\":\"%"
          "s\",\"precision\":"
          "\"%s\"",
          b->shape, t->conf.model.name, (long long)t->conf.model.layers, t->model.width, t->grid->world.size,
          (long long)t->conf.train.threads, t->kernels->name, t->kernels->precision);
  fprintf(f, ",\"peak_gflops\":%.6g,\"triad_gbs\":%.6g", b->peak * 1e-9, b->triad * 1e-9);
  if (b->peak_bf16 > 0) fprintf(f, ",\"peak_bf16_gflops\":%.6g", b->peak_bf16 * 1e-9);
  if (b->tokens_per_second > 0)
    fprintf(f,
            ",\"step_tokens\":%.6g,\"flops_per_token\":%.6g,\"mfu\":%.4g,\"tokens_per_s\":%.6g,\"resident_bytes\":%.0f,"
            "\"sent_bytes\":%.0f",
            b->step_tokens, b->step_flops / b->step_tokens, sh_bench_mfu(b), b->tokens_per_second, b->resident,
            b->step_sent);
  if (b->users_per_second > 0) fprintf(f, ",\"eval_users_per_s\":%.6g", b->users_per_second);
  fprintf(f, ",\"rows\":[");
  for (int i = 0; i < b->nrows; i++) {
    const sh_bench_row *r = &b->row[i];
    fprintf(f, "%s{\"section\":\"%s\",\"name\":\"%s\",\"seconds\":%.6g,\"flops\":%.6g,\"bytes\":%.6g}", i ? "," : "",
            r->section, r->name, r->seconds, r->flops, r->bytes);
  }
  fprintf(f, "]}\n");
}

/* Linux can start the peak afresh; where it cannot, the peak is that of the whole process. */
void sh_resident_reset(void) {
  FILE *f = fopen("/proc/self/clear_refs", "w");
  if (!f) return;
  fputs("5", f);
  fclose(f);
}

double sh_resident_peak(void) {
  FILE *f = fopen("/proc/self/status", "r");
  char line[256];
  double kib = 0;
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, "VmHWM:", 6)) kib = strtod(line + 6, NULL);
  if (f) fclose(f);
  struct rusage usage;
  if (kib == 0 && !getrusage(RUSAGE_SELF, &usage)) kib = (double)usage.ru_maxrss;
  return 1024 * kib;
}
