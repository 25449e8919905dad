/* Which shared library answers for a BLAS routine. Two libraries may define dgemm_ (BLIS and whatever libblas.so.3 is);
 * the order at link time decides, so it is looked up in the running process rather than assumed. */
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shoal/version.h"

/* The real path of the file that holds an address. */
static const char *file_of(void *address, char out[PATH_MAX]) {
  Dl_info info;
  *out = 0;
  if (!address || !dladdr(address, &info) || !info.dli_fname) return out;
  if (!realpath(info.dli_fname, out)) strncat(out, info.dli_fname, PATH_MAX - 1);
  return out;
}

const char *sh_blas_file(const char *symbol) {
  static char file[PATH_MAX];
  return file_of(dlsym(RTLD_DEFAULT, symbol), file);
}

typedef struct search {
  const char *symbol;
  void *bound; /* what the slot of the symbol points to */
} search;

typedef struct tables {
  const ElfW(Sym) * symbols;
  const char *strings;
  ElfW(Addr) jump, data;
  size_t jump_bytes, data_bytes;
} tables;

static tables read_tables(const struct dl_phdr_info *object) {
  tables t = {0};
  for (int i = 0; i < object->dlpi_phnum; i++) {
    if (object->dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    for (const ElfW(Dyn) *d = (const void *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr); d->d_tag; d++) {
      switch (d->d_tag) {
      case DT_SYMTAB:
        t.symbols = (const void *)d->d_un.d_ptr;
        break;
      case DT_STRTAB:
        t.strings = (const void *)d->d_un.d_ptr;
        break;
      case DT_JMPREL:
        t.jump = d->d_un.d_ptr;
        break;
      case DT_PLTRELSZ:
        t.jump_bytes = d->d_un.d_val;
        break;
      case DT_RELA:
        t.data = d->d_un.d_ptr;
        break;
      case DT_RELASZ:
        t.data_bytes = d->d_un.d_val;
        break;
      default:
        break;
      }
    }
  }
  return t;
}

static void search_slots(const struct dl_phdr_info *object, const tables *t, ElfW(Addr) at, size_t bytes, search *s) {
  const ElfW(Rela) *slots = (const void *)at;
  for (size_t i = 0; at && i < bytes / sizeof *slots; i++) {
    size_t symbol = (size_t)ELF64_R_SYM(slots[i].r_info);
    if (symbol && !strcmp(t->strings + t->symbols[symbol].st_name, s->symbol))
      s->bound = *(void **)(object->dlpi_addr + slots[i].r_offset);
  }
}

static int visit(struct dl_phdr_info *object, size_t size, void *arg) {
  (void)size;
  search *s = arg;
  const char *name = object->dlpi_name ? strrchr(object->dlpi_name, '/') : NULL;
  if (!name || !strstr(name, "scalapack")) return 0;
  tables t = read_tables(object);
  if (!t.symbols || !t.strings) return 0;
  search_slots(object, &t, t.jump, t.jump_bytes, s);
  search_slots(object, &t, t.data, t.data_bytes, s);
  return 1;
}

const char *sh_blas_file_under_scalapack(const char *symbol) {
  static char file[PATH_MAX];
  search s = {.symbol = symbol};
  if (!dl_iterate_phdr(visit, &s)) {
    *file = 0; /* ScaLAPACK is not loaded */
    return file;
  }
  file_of(s.bound, file);
  /* A slot not bound yet points back into ScaLAPACK; binding it will search the same scope as RTLD_DEFAULT. */
  if (!*file || strstr(file, "scalapack")) file_of(dlsym(RTLD_DEFAULT, symbol), file);
  return file;
}
