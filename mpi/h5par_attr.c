/* mpi/h5par_attr.c: attributes, and listing what a file holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "mpi/coll.h"
#include "mpi/h5par_internal.h"

/* An object's handle (group or array); a missing group is created when writing. Negative: the message is set. */
static hid_t object_open(sh_h5 *f, const char *name) {
  if (f->writing && sh_h5_groups(f, name, true) != SH_OK) return H5I_INVALID_HID;
  hid_t object = H5Oopen(f->file, name, H5P_DEFAULT);
  if (object < 0) sh_h5_fail(f, name, "no such group or array");
  return object;
}

static sh_status root_attr_write(sh_h5 *f, const char *object, const char *name, hid_t type, const void *value) {
  hid_t at = object_open(f, object);
  if (at < 0) return SH_ERR_INTERNAL;
  if (H5Aexists(at, name) > 0) H5Adelete(at, name);
  hid_t space = H5Screate(H5S_SCALAR);
  hid_t attr = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  bool good = attr >= 0 && H5Awrite(attr, type, value) >= 0;
  sh_status status = good ? SH_OK : sh_h5_fail(f, object, name);
  if (attr >= 0) H5Aclose(attr);
  H5Sclose(space);
  H5Oclose(at);
  return status;
}

static sh_status attr_write(sh_h5 *f, const char *object, const char *name, hid_t type, const void *value) {
  return sh_h5_step(f, f->root && f->failed == SH_OK ? root_attr_write(f, object, name, type, value) : SH_OK);
}

sh_status sh_h5_attr_write_text(sh_h5 *f, const char *object, const char *name, const char *text) {
  size_t n = strlen(text);
  hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, n > 0 ? n : 1);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  sh_status status = attr_write(f, object, name, type, text);
  H5Tclose(type);
  return status;
}

sh_status sh_h5_attr_write_i64(sh_h5 *f, const char *object, const char *name, int64_t v) {
  return attr_write(f, object, name, H5T_NATIVE_INT64, &v);
}

sh_status sh_h5_attr_write_f64(sh_h5 *f, const char *object, const char *name, double v) {
  return attr_write(f, object, name, H5T_NATIVE_DOUBLE, &v);
}

static sh_status attr_open(sh_h5 *f, const char *object, const char *name, hid_t *out) {
  char what[320];
  *out = H5Aopen_by_name(f->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
  if (*out >= 0) return SH_OK;
  snprintf(what, sizeof what, "no attribute \"%s\", or its header is damaged", name);
  return sh_h5_fail(f, object, what);
}

static sh_status attr_bad(sh_h5 *f, const char *object, const char *name, const char *expected) {
  H5Eclear2(H5E_DEFAULT);
  return sh_fail(SH_ERR_DATA, "%s: %s: attribute \"%s\" is not %s", f->path, object, name, expected);
}

static sh_status root_attr_text(sh_h5 *f, const char *object, const char *name, char *out, size_t size) {
  hid_t attr;
  SH_TRY(attr_open(f, object, name, &attr));
  hid_t type = H5Aget_type(attr), space = H5Aget_space(attr);
  bool one = H5Sget_simple_extent_npoints(space) == 1 && H5Tget_class(type) == H5T_STRING, good = false;
  if (one && H5Tis_variable_str(type) > 0) { /* files of other programs */
    char *text = NULL;
    good = H5Aread(attr, type, &text) >= 0;
    if (good) snprintf(out, size, "%s", text ? text : "");
    if (text) H5free_memory(text);
  } else if (one) {
    char *text = sh_calloc(H5Tget_size(type) + 1, 1);
    good = H5Aread(attr, type, text) >= 0;
    if (good) snprintf(out, size, "%s", text);
    free(text);
  }
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(attr);
  return good ? SH_OK : attr_bad(f, object, name, "a text");
}

sh_status sh_h5_attr_read_text(sh_h5 *f, const char *object, const char *name, char *out, size_t size) {
  return sh_h5_from_root(f, f->root ? root_attr_text(f, object, name, out, size) : SH_OK, out, size);
}

static sh_status root_attr_number(sh_h5 *f, const char *object, const char *name, bool real, void *out) {
  hid_t attr;
  SH_TRY(attr_open(f, object, name, &attr));
  hid_t type = H5Aget_type(attr), space = H5Aget_space(attr);
  H5T_class_t class = H5Tget_class(type);
  bool good = H5Sget_simple_extent_npoints(space) == 1 && (class == H5T_INTEGER || (real && class == H5T_FLOAT));
  good = good && H5Aread(attr, real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, out) >= 0;
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(attr);
  return good ? SH_OK : attr_bad(f, object, name, real ? "a number" : "an integer");
}

sh_status sh_h5_attr_read_i64(sh_h5 *f, const char *object, const char *name, int64_t *v) {
  return sh_h5_from_root(f, f->root ? root_attr_number(f, object, name, false, v) : SH_OK, v, sizeof *v);
}

sh_status sh_h5_attr_read_f64(sh_h5 *f, const char *object, const char *name, double *v) {
  return sh_h5_from_root(f, f->root ? root_attr_number(f, object, name, true, v) : SH_OK, v, sizeof *v);
}

bool sh_h5_attr_exists(sh_h5 *f, const char *object, const char *name) {
  bool there = sh_h5_exists(f, object);
  if (there && f->root) {
    there = H5Aexists_by_name(f->file, object, name, H5P_DEFAULT) > 0;
    H5Eclear2(H5E_DEFAULT);
  }
  if (f->axis.size > 1) sh_bcast(&f->axis, &there, sizeof there, 0);
  return there;
}

static sh_status root_attr_kind(sh_h5 *f, const char *object, const char *name, char *kind) {
  hid_t attr;
  SH_TRY(attr_open(f, object, name, &attr));
  hid_t type = H5Aget_type(attr);
  H5T_class_t class = H5Tget_class(type);
  *kind = class == H5T_STRING ? 't' : class == H5T_INTEGER ? 'i' : class == H5T_FLOAT ? 'f' : '?';
  H5Tclose(type);
  H5Aclose(attr);
  return SH_OK;
}

sh_status sh_h5_attr_kind(sh_h5 *f, const char *object, const char *name, char *kind) {
  return sh_h5_from_root(f, f->root ? root_attr_kind(f, object, name, kind) : SH_OK, kind, 1);
}

/* Names of children or attributes, one after another, each with its NUL. Collected before any is visited: HDF5 must not
 * be entered again from inside its own iteration. A child's name has '/' or ' ' in front: group or array. */
typedef struct names {
  char *text;
  int64_t bytes, capacity;
} names;

static void names_add(names *list, const char *name) {
  int64_t n = (int64_t)strlen(name) + 1;
  if (list->bytes + n > list->capacity) {
    list->capacity = 2 * (list->bytes + n) + 1024;
    list->text = sh_realloc(list->text, (size_t)list->capacity);
  }
  memcpy(list->text + list->bytes, name, (size_t)n);
  list->bytes += n;
}

static herr_t link_name(hid_t group, const char *name, const H5L_info_t *info, void *arg) {
  (void)info;
  char marked[1024];
  H5O_info_t object;
  if (H5Oget_info_by_name2(group, name, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0) return -1;
  snprintf(marked, sizeof marked, "%c%s", object.type == H5O_TYPE_GROUP ? '/' : ' ', name);
  names_add(arg, marked);
  return 0;
}

static herr_t attr_name(hid_t object, const char *name, const H5A_info_t *info, void *arg) {
  (void)object, (void)info;
  names_add(arg, name);
  return 0;
}

static sh_status names_share(sh_h5 *f, names *list, sh_status status) {
  status = sh_h5_from_root(f, status, &list->bytes, sizeof list->bytes);
  if (status != SH_OK || f->axis.size == 1) return status;
  if (!f->root) list->text = sh_malloc((size_t)list->bytes + 1);
  sh_bcast(&f->axis, list->text, (size_t)list->bytes, 0);
  return SH_OK;
}

sh_status sh_h5_each(sh_h5 *f, const char *group, sh_status (*visit)(sh_h5 *f, const char *path, bool group, void *arg),
                     void *arg) {
  names list = {0};
  hsize_t at = 0;
  sh_status status = SH_OK;
  if (f->root && H5Literate_by_name(f->file, group, H5_INDEX_NAME, H5_ITER_INC, &at, link_name, &list, H5P_DEFAULT) < 0)
    status = sh_h5_fail(f, group, "cannot list the group: no such group, or a header in it is damaged");
  status = names_share(f, &list, status);
  for (int64_t i = 0; i < list.bytes && status == SH_OK; i += (int64_t)strlen(list.text + i) + 1) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", strcmp(group, "/") == 0 ? "" : group, list.text + i + 1);
    status = visit(f, path, list.text[i] == '/', arg);
  }
  free(list.text);
  return status;
}

sh_status sh_h5_each_attr(sh_h5 *f, const char *object,
                          sh_status (*visit)(sh_h5 *f, const char *object, const char *name, void *arg), void *arg) {
  names list = {0};
  hsize_t at = 0;
  sh_status status = SH_OK;
  if (f->root &&
      H5Aiterate_by_name(f->file, object, H5_INDEX_NAME, H5_ITER_INC, &at, attr_name, &list, H5P_DEFAULT) < 0)
    status = sh_h5_fail(f, object, "cannot list attributes, or the header is damaged");
  status = names_share(f, &list, status);
  for (int64_t i = 0; i < list.bytes && status == SH_OK; i += (int64_t)strlen(list.text + i) + 1)
    status = visit(f, object, list.text + i, arg);
  free(list.text);
  return status;
}
