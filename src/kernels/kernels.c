#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ISA(name, condition) extern const sh_kernels sh_kernels_##name;
#include "kernels/isas.def"
#undef ISA

int sh_kernels_available(const char *names[8]) {
  int n = 0;
  names[n++] = "ref";
#define ISA(name, condition)                                                                                           \
  if (condition) names[n++] = #name;
#include "kernels/isas.def"
#undef ISA
  return n;
}

const sh_kernels *sh_kernels_named(const char *name) {
  if (!strcmp(name, "ref")) return &sh_kernels_ref;
#define ISA(isa, condition)                                                                                            \
  if (!strcmp(name, #isa)) return (condition) ? &sh_kernels_##isa : NULL;
#include "kernels/isas.def"
#undef ISA
  return NULL;
}

const sh_kernels *sh_kernels_best(void) {
  static const sh_kernels *chosen;
  if (chosen) return chosen;
  const char *names[8], *wanted = getenv("SHOAL_ISA");
  int n = sh_kernels_available(names);
  const sh_kernels *k = wanted && *wanted ? sh_kernels_named(wanted) : NULL;
  if (wanted && *wanted && !k)
    fprintf(stderr, "shoal: SHOAL_ISA=%s is unknown or not supported by this CPU; using %s\n", wanted, names[n - 1]);
  chosen = k ? k : sh_kernels_named(names[n - 1]);
  return chosen;
}

const char *sh_kernels_isa(void) { return sh_kernels_best()->name; }

int64_t sh_attention_work(int64_t L, int64_t dqk, int64_t dv) {
  int64_t padded = (L + 15) / 16 * 16;
  return padded * (4 * (dqk + dv) + 8) + 272 * 3 * (dqk + dv) + 16 * 256 * 8 + 130 * 16 + 16 * 8 * (dqk + 3 * dv);
}
