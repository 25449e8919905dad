#include "golden/golden_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs the above */
#include <cmocka.h>

#define FORMAT_PATH(out, fmt)                                                                                          \
  do {                                                                                                                 \
    va_list args_;                                                                                                     \
    va_start(args_, fmt);                                                                                              \
    vsnprintf((out), sizeof(out), (fmt), args_);                                                                       \
    va_end(args_);                                                                                                     \
  } while (0)

hid_t sh_golden_open(const char *path) {
  hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file < 0) fail_msg("%s cannot be opened as HDF5", path);
  return file;
}

/* H5Lexists wants every link on the way to exist. */
static bool exists(hid_t at, const char *path) {
  char part[512];
  snprintf(part, sizeof part, "%s", path);
  for (char *slash = strchr(part + 1, '/');; slash = strchr(slash + 1, '/')) {
    if (slash) *slash = 0;
    if (H5Lexists(at, part, H5P_DEFAULT) <= 0) return false;
    if (!slash) return true;
    *slash = '/';
  }
}

bool sh_golden_has(hid_t at, const char *path, ...) {
  char full[512];
  FORMAT_PATH(full, path);
  return exists(at, full);
}

static sh_golden_array read_as(hid_t at, sh_arena *a, hid_t type, const char *path) {
  sh_golden_array out = {.n = 1};
  if (!exists(at, path)) fail_msg("%s is missing", path);
  hid_t set = H5Dopen2(at, path, H5P_DEFAULT), space = H5Dget_space(set);
  hsize_t dim[H5S_MAX_RANK];
  out.ndim = H5Sget_simple_extent_dims(space, dim, NULL);
  if (out.ndim < 0 || out.ndim > 4) fail_msg("%s has %d dimensions, expected at most 4", path, out.ndim);
  for (int i = 0; i < out.ndim; i++) out.dim[i] = (int64_t)dim[i], out.n *= (int64_t)dim[i];
  void *to = SH_ARENA_NEW(a, double, out.n);
  if (out.n > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, to) < 0) fail_msg("%s cannot be read", path);
  H5Sclose(space);
  H5Dclose(set);
  if (type == H5T_NATIVE_DOUBLE)
    out.v = to;
  else
    out.ints = to;
  return out;
}

sh_golden_array sh_golden_read(hid_t at, sh_arena *a, const char *path, ...) {
  char full[512];
  FORMAT_PATH(full, path);
  return read_as(at, a, H5T_NATIVE_DOUBLE, full);
}

sh_golden_array sh_golden_ints(hid_t at, sh_arena *a, const char *path, ...) {
  char full[512];
  FORMAT_PATH(full, path);
  return read_as(at, a, H5T_NATIVE_INT64, full);
}

sh_golden_names sh_golden_list(hid_t at, sh_arena *a, bool groups, const char *path, ...) {
  char full[512];
  FORMAT_PATH(full, path);
  hid_t group = H5Gopen2(at, full, H5P_DEFAULT);
  if (group < 0) fail_msg("%s is no group", full);
  H5G_info_t info;
  H5Gget_info(group, &info);
  sh_golden_names out = {.name = sh_arena_alloc(a, SH_GOLDEN_NAME * (size_t)(info.nlinks + 1))};
  for (hsize_t i = 0; i < info.nlinks; i++) {
    char *name = out.name[out.n];
    H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, SH_GOLDEN_NAME, H5P_DEFAULT);
    hid_t member = H5Oopen(group, name, H5P_DEFAULT);
    out.n += H5Iget_type(member) == (groups ? H5I_GROUP : H5I_DATASET);
    H5Oclose(member);
  }
  H5Gclose(group);
  return out;
}

void sh_golden_numbers(hid_t at, const char *name, int n, double *out) {
  if (H5Aexists(at, name) <= 0) fail_msg("attribute %s is missing", name);
  hid_t attr = H5Aopen(at, name, H5P_DEFAULT), space = H5Aget_space(attr);
  if (H5Sget_simple_extent_npoints(space) != n) fail_msg("attribute %s has not %d values", name, n);
  if (H5Aread(attr, H5T_NATIVE_DOUBLE, out) < 0) fail_msg("attribute %s is no number", name);
  H5Sclose(space);
  H5Aclose(attr);
}

double sh_golden_number(hid_t at, const char *name) {
  double value = 0;
  sh_golden_numbers(at, name, 1, &value);
  return value;
}

double sh_golden_number_or(hid_t at, const char *name, double otherwise) {
  return H5Aexists(at, name) > 0 ? sh_golden_number(at, name) : otherwise;
}

void sh_golden_text(hid_t at, const char *name, char *out, size_t size) {
  out[0] = 0;
  if (H5Aexists(at, name) <= 0) return;
  hid_t attr = H5Aopen(at, name, H5P_DEFAULT), type = H5Aget_type(attr);
  if (H5Tis_variable_str(type) > 0) {
    char *text = NULL;
    if (H5Aread(attr, type, &text) >= 0 && text) snprintf(out, size, "%s", text);
    H5free_memory(text);
  } else {
    char text[256] = {0};
    if (H5Tget_size(type) < sizeof text && H5Aread(attr, type, text) >= 0) snprintf(out, size, "%s", text);
  }
  H5Tclose(type);
  H5Aclose(attr);
}
