#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gemm.h"

#define ISA(name, condition)      extern const sh_kernels sh_kernels_##name;
#define ISA_BF16(name, condition) ISA(name, condition)
#include "kernels/isas.def"
#undef ISA
#undef ISA_BF16
#define ISA_BF16(name, condition)

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
#undef ISA_BF16

/* The CPU's own table of precision bf16, or NULL. */
static const sh_kernels *native_bf16(void) {
  const sh_kernels *best = NULL;
#define ISA(isa, condition)
#define ISA_BF16(isa, condition)                                                                                       \
  if (condition) best = &sh_kernels_##isa;
#include "kernels/isas.def"
#undef ISA
#undef ISA_BF16
  return best;
}

/* Does SHOAL_ISA allow the table of precision bf16 (that is: does it name that one, or nothing)? */
static bool bf16_allowed(void) {
  const char *wanted = getenv("SHOAL_ISA");
  const sh_kernels *native = native_bf16();
  return native && (!wanted || !*wanted || !strcmp(wanted, native->name));
}

const sh_kernels *sh_kernels_best(void) {
  static const sh_kernels *chosen;
  if (chosen) return chosen;
  const char *names[8], *wanted = getenv("SHOAL_ISA");
  int n = sh_kernels_available(names);
  bool named = wanted && *wanted && !bf16_allowed();
  const sh_kernels *k = named ? sh_kernels_named(wanted) : NULL;
  if (named && !k)
    fprintf(stderr, "shoal: SHOAL_ISA=%s is unknown or not supported by this CPU; using %s\n", wanted, names[n - 1]);
  chosen = k ? k : sh_kernels_named(names[n - 1]);
  return chosen;
}

const sh_kernels *sh_kernels_emulate_bf16(const sh_kernels *k, sh_kernels *room) {
  *room = *k;
  room->precision = "bf16 emulated";
  room->right_room = sh_right_room;
  room->right_pack = sh_right_pack_rounded;
  room->multiply = sh_multiply_rounded;
  room->multiply_tn = sh_multiply_tn_rounded;
  room->unit_copies = sh_unit_copies_rounded;
  return room;
}

const sh_kernels *sh_kernels_bf16(void) {
  static sh_kernels emulated;
  if (bf16_allowed()) return native_bf16();
  return emulated.name ? &emulated : sh_kernels_emulate_bf16(sh_kernels_best(), &emulated);
}

const char *sh_kernels_bf16_name(void) {
  static char name[64];
  const sh_kernels *k = sh_kernels_bf16();
  snprintf(name, sizeof name, "%s%s", k->name, strcmp(k->precision, "bf16") ? ", emulated" : "");
  return name;
}

const char *sh_kernels_isa(void) { return sh_kernels_best()->name; }

int64_t sh_attention_work(int64_t L, int64_t dqk, int64_t dv) {
  int64_t padded = (L + 15) / 16 * 16;
  return padded * (4 * (dqk + dv) + 8) + 272 * 3 * (dqk + dv) + 16 * 256 * 8 + 130 * 16 + 16 * 8 * (dqk + 3 * dv);
}
