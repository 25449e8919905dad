#include "shoal/version.h"

#include <dlfcn.h>
#include <libxsmm.h>
#include <stdarg.h>
#include <string.h>

#include "build_info.h" /* made at build time: SHOAL_VERSION, SHOAL_COMMIT, SHOAL_COMPILER, SHOAL_FLAGS */
#include "core/threads.h"

const char *sh_version(void) { return SHOAL_VERSION; }
const char *sh_commit(void) { return SHOAL_COMMIT; }

typedef struct writer {
  char *text;
  size_t size, used;
} writer;

static void put(writer *w, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void put(writer *w, const char *name, const char *fmt, ...) {
  va_list args;
  int n = snprintf(w->text + w->used, w->size - w->used, "%s: ", name);
  w->used += (size_t)n;
  va_start(args, fmt);
  n = vsnprintf(w->text + w->used, w->size - w->used, fmt, args);
  va_end(args);
  w->used += (size_t)n;
  if (w->used + 2 > w->size) w->used = w->size - 2;
  strcpy(w->text + w->used++, "\n");
}

/* BLIS describes itself; asked through the loader, so that another BLAS in its place is no link error. */
static void blis_name(char *out, size_t size) {
  typedef const char *version_fn(void);
  typedef int query_fn(void);
  typedef const char *name_fn(int);
  version_fn *version = (version_fn *)dlsym(RTLD_DEFAULT, "bli_info_get_version_str");
  query_fn *query = (query_fn *)dlsym(RTLD_DEFAULT, "bli_arch_query_id");
  name_fn *name = (name_fn *)dlsym(RTLD_DEFAULT, "bli_arch_string");
  if (version && query && name)
    snprintf(out, size, "BLIS %s, configuration %s", version(), name(query()));
  else
    snprintf(out, size, "not BLIS");
}

const char *sh_build_info(void) {
  static char text[8192];
  if (*text) return text;
  writer w = {text, sizeof text, 0};
  char blis[128], blas[2048];
  put(&w, "version", "%s", sh_version());
  put(&w, "commit", "%s", sh_commit());
  put(&w, "compiler", "%s", SHOAL_COMPILER);
  put(&w, "flags", "%s", SHOAL_FLAGS);
  put(&w, "mpi", "%s", sh_mpi_library_version());
  put(&w, "hdf5", "%s", sh_h5_library_version());
  const char *file = sh_blas_file("dgemm_");
  blis_name(blis, sizeof blis);
  snprintf(blas, sizeof blas, "%s (%s)", strstr(file, "blis") ? blis : "not BLIS", *file ? file : "none");
  put(&w, "blas", "%s", blas);
  const char *under = sh_blas_file_under_scalapack("dgemm_");
  snprintf(blas, sizeof blas, "%s (%s)", strstr(under, "blis") ? blis : "not BLIS", *under ? under : "not loaded");
  put(&w, "blas under scalapack", "%s", !strcmp(file, under) ? "the same" : blas);
  put(&w, "libxsmm", "%s, target %s", LIBXSMM_VERSION, libxsmm_get_target_arch());
  put(&w, "isa", "%s", sh_kernels_isa());
  put(&w, "bf16", "%s", sh_kernels_bf16_name());
  put(&w, "threads", "%d", sh_threads());
  return text;
}
