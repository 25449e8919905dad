/* mpi/h5par.c: opening, closing, arrays. Slabs stand in h5par_slab.c, attributes and listings in h5par_attr.c.
 *
 * One rank (root) holds HDF5's handle and sends the few facts the others need; array bytes go straight between every
 * rank and the file, at the offsets HDF5 gave out. Why not HDF5's MPI-IO driver: when a write fails (full disk, quota,
 * file size limit) Open MPI's collective writes leave ranks waiting for ever, and H5Fclose crashes the process at its
 * end. Here a failure is one rank's errno, agreed upon at sh_h5_close; metadata is read once, and the file's bytes do
 * not depend on the number of ranks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "mpi/coll.h"
#include "mpi/h5par_internal.h"
#include "mpi/progress.h"

/* Arrays from this size on begin at a multiple of it: pages of a node, blocks of a parallel file system. */
static const hsize_t align_from = 1 << 16, align_to = 1 << 12;

static herr_t innermost(unsigned n, const H5E_error2_t *e, void *arg) {
  if (n == 0 && e->desc) snprintf(arg, 256, "%s", e->desc);
  return 0;
}

sh_status sh_h5_fail(const sh_h5 *f, const char *object, const char *what) {
  char inner[256] = "";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, inner);
  H5Eclear2(H5E_DEFAULT);
  return sh_fail(f->writing ? SH_ERR_INTERNAL : SH_ERR_DATA, "%s%s%s: %s%s%s", f->path, object ? ": " : "",
                 object ? object : "", what, inner[0] ? ": " : "", inner);
}

sh_status sh_h5_from_root(sh_h5 *f, sh_status status, void *result, size_t bytes) {
  if (f->axis.size == 1) return status;
  int code = status;
  sh_bcast(&f->axis, &code, sizeof code, 0);
  if (code != SH_OK) return sh_agree(&f->axis, f->root ? status : SH_OK);
  if (bytes > 0) sh_bcast(&f->axis, result, bytes, 0);
  return SH_OK;
}

sh_status sh_h5_step(sh_h5 *f, sh_status status) {
  if (status != SH_OK && f->failed == SH_OK) {
    f->failed = status;
    f->message = sh_strdup(sh_error_message());
  }
  return f->axis.size == 1 ? status : SH_OK;
}

/* The first failure of any rank, on all ranks. */
static sh_status outcome(sh_h5 *f) {
  if (f->failed != SH_OK) sh_fail(f->failed, "%s", f->message);
  return f->axis.size > 1 ? sh_agree(&f->axis, f->failed) : f->failed;
}

hid_t sh_h5_native(sh_h5_type t) {
  switch (t) {
  case SH_H5_U8:
    return H5T_NATIVE_UINT8;
  case SH_H5_I32:
    return H5T_NATIVE_INT32;
  case SH_H5_I64:
    return H5T_NATIVE_INT64;
  case SH_H5_U64:
    return H5T_NATIVE_UINT64;
  case SH_H5_F32:
    return H5T_NATIVE_FLOAT;
  case SH_H5_F64:
    return H5T_NATIVE_DOUBLE;
  }
  return H5I_INVALID_HID;
}

size_t sh_h5_type_size(sh_h5_type t) { return t == SH_H5_U8 ? 1 : t == SH_H5_I32 || t == SH_H5_F32 ? 4 : 8; }

static sh_h5 *file_new(const char *path, const sh_axis *axis, bool writing) {
  sh_h5 *f = sh_calloc(1, sizeof *f);
  f->path = sh_strdup(path);
  f->axis = *axis;
  f->root = axis->index == 0;
  f->file = H5I_INVALID_HID;
  f->fd = -1;
  f->writing = writing;
  if (f->root) H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  return f;
}

static void file_free(sh_h5 *f) {
  if (f->file >= 0) H5Fclose(f->file);
  if (f->fd >= 0) close(f->fd);
  sh_h5_pages_free(&f->pages);
  free(f->message);
  free(f->path);
  free(f);
}

static sh_status open_fd(sh_h5 *f, int flags, const char *verb) {
  f->fd = open(f->path, flags | O_CLOEXEC, 0666);
  if (f->fd >= 0) return SH_OK;
  return sh_fail(f->writing ? SH_ERR_INTERNAL : SH_ERR_DATA, "%s: cannot %s: %s", f->path, verb, strerror(errno));
}

static sh_status root_create(sh_h5 *f) {
  SH_TRY(open_fd(f, O_RDWR | O_CREAT | O_TRUNC, "create"));
  hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
  H5Pset_obj_track_times(create, false);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_alignment(access, align_from, align_to);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  if (sh_h5_pages_driver(access, &f->pages)) f->file = H5Fcreate(f->path, H5F_ACC_TRUNC, create, access);
  H5Pclose(create);
  H5Pclose(access);
  return f->file < 0 ? sh_h5_fail(f, NULL, "cannot create") : SH_OK;
}

sh_status sh_h5_create(sh_h5 **out, const char *path, const sh_axis *axis) {
  sh_progress_drain();
  sh_h5 *f = file_new(path, axis, true);
  sh_status status = f->root ? root_create(f) : SH_OK;
  status = sh_h5_from_root(f, status, NULL, 0);
  if (status == SH_OK && axis->size > 1) {
    /* Write only: an NFS client then sends no byte of a page but those it was given. */
    status = f->root ? SH_OK : open_fd(f, O_WRONLY, "open");
    status = sh_agree(axis, status);
  }
  *out = status == SH_OK ? f : NULL;
  if (status != SH_OK) file_free(f);
  return status;
}

static sh_status looks_like_hdf5(const sh_h5 *f) {
  unsigned char mark[8] = {0};
  ssize_t got = pread(f->fd, mark, sizeof mark, 0);
  if (got < 0) return sh_fail(SH_ERR_DATA, "%s: cannot read: %s", f->path, strerror(errno));
  if (got == 0) return sh_fail(SH_ERR_DATA, "%s: the file is empty", f->path);
  if (got < 8 || memcmp(mark, "\211HDF\r\n\032\n", 8) != 0)
    return sh_fail(SH_ERR_DATA, "%s: not an HDF5 file (it does not begin with HDF5's signature)", f->path);
  return SH_OK;
}

static sh_status root_open(sh_h5 *f) {
  SH_TRY(looks_like_hdf5(f));
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  H5Pset_file_locking(access, false, true); /* many shared file systems have no locks; readers change nothing */
  f->file = H5Fopen(f->path, H5F_ACC_RDONLY, access);
  H5Pclose(access);
  return f->file < 0 ? sh_h5_fail(f, NULL, "damaged or truncated HDF5 file") : SH_OK;
}

sh_status sh_h5_open(sh_h5 **out, const char *path, const sh_axis *axis) {
  sh_progress_drain();
  sh_h5 *f = file_new(path, axis, false);
  sh_status status = open_fd(f, O_RDONLY, "open");
  if (status == SH_OK && f->root) status = root_open(f);
  if (axis->size > 1) status = sh_agree(axis, status);
  *out = status == SH_OK ? f : NULL;
  if (status != SH_OK) file_free(f);
  return status;
}

static sh_status system_fail(const sh_h5 *f, const char *what, int why) {
  return sh_fail(SH_ERR_INTERNAL, "%s: cannot %s: %s", f->path, what, strerror(why));
}

sh_status sh_h5_close(sh_h5 *f, bool sync) {
  if (!f) return SH_OK;
  sh_status status = SH_OK;
  if (f->writing) {
    if (f->root) {
      herr_t closed = H5Fclose(f->file);
      f->file = H5I_INVALID_HID;
      if (closed < 0) sh_h5_step(f, sh_h5_fail(f, NULL, "cannot close"));
      int why = f->failed == SH_OK ? sh_h5_pages_flush(&f->pages, f->fd) : 0;
      if (why) sh_h5_step(f, system_fail(f, "write", why));
    }
    /* Every rank syncs: nodes hold dirty pages of their own. */
    if (sync && f->failed == SH_OK && fsync(f->fd) != 0) sh_h5_step(f, system_fail(f, "sync", errno));
    if (close(f->fd) != 0) sh_h5_step(f, system_fail(f, "close", errno));
    f->fd = -1;
    status = outcome(f);
  }
  file_free(f);
  return status;
}

sh_status sh_h5_reserve(sh_h5 *f) {
  if (f->root && f->failed == SH_OK) {
    int rc;
    do rc = f->pages.end > 0 ? fallocate(f->fd, 0, 0, (off_t)f->pages.end) : 0;
    while (rc != 0 && errno == EINTR); /* a request to stop may come in between */
    if (rc != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
      sh_h5_step(f, sh_fail(SH_ERR_INTERNAL, "%s: cannot reserve %.1f MB: %s", f->path, 1e-6 * (double)f->pages.end,
                            strerror(errno)));
  }
  return outcome(f);
}

/* Every part of a path must be asked in turn: H5Lexists fails when a parent is missing. */
static bool root_exists(sh_h5 *f, const char *name) {
  char part[1024];
  size_t n = strlen(name);
  if (n == 0 || n >= sizeof part) return false;
  bool there = true;
  for (size_t i = 1; i <= n && there; i++) {
    if ((name[i] != '/' && name[i] != '\0') || name[i - 1] == '/') continue;
    memcpy(part, name, i);
    part[i] = '\0';
    there = H5Lexists(f->file, part, H5P_DEFAULT) > 0;
  }
  H5Eclear2(H5E_DEFAULT);
  return there;
}

sh_status sh_h5_groups(sh_h5 *f, const char *name, bool whole) {
  char part[1024];
  size_t n = strlen(name);
  if (n == 0 || n >= sizeof part) return sh_fail(SH_ERR_INTERNAL, "%s: a name of %zu letters", f->path, n);
  hid_t layout = H5Pcreate(H5P_GROUP_CREATE);
  H5Pset_obj_track_times(layout, false); /* equal content, equal bytes */
  sh_status status = SH_OK;
  for (size_t i = 1; i <= n && status == SH_OK; i++) {
    if ((name[i] != '/' && (name[i] != '\0' || !whole)) || name[i - 1] == '/') continue;
    memcpy(part, name, i);
    part[i] = '\0';
    if (H5Lexists(f->file, part, H5P_DEFAULT) > 0) continue;
    hid_t group = H5Gcreate2(f->file, part, H5P_DEFAULT, layout, H5P_DEFAULT);
    if (group < 0) status = sh_h5_fail(f, part, "cannot create the group");
    if (group >= 0) H5Gclose(group);
  }
  H5Pclose(layout);
  return status;
}

static sh_status root_array_create(sh_h5 *f, const char *name, sh_h5_type type, int ndim, const int64_t dim[2]) {
  hsize_t size[2] = {(hsize_t)dim[0], ndim == 2 ? (hsize_t)dim[1] : 1};
  SH_TRY(sh_h5_groups(f, name, false));
  hid_t layout = H5Pcreate(H5P_DATASET_CREATE);
  hid_t space = H5Screate_simple(ndim, size, NULL);
  H5Pset_layout(layout, H5D_CONTIGUOUS);
  H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(layout, false);
  hid_t set = H5Dcreate2(f->file, name, sh_h5_native(type), space, H5P_DEFAULT, layout, H5P_DEFAULT);
  sh_status status = set < 0 ? sh_h5_fail(f, name, "cannot create the array") : SH_OK;
  if (set >= 0) H5Dclose(set);
  H5Sclose(space);
  H5Pclose(layout);
  return status;
}

sh_status sh_h5_array_create(sh_h5 *f, const char *name, sh_h5_type type, int ndim, const int64_t dim[2]) {
  return sh_h5_step(f, f->root && f->failed == SH_OK ? root_array_create(f, name, type, ndim, dim) : SH_OK);
}

bool sh_h5_exists(sh_h5 *f, const char *name) {
  bool there = f->root && root_exists(f, name);
  if (f->axis.size > 1) sh_bcast(&f->axis, &there, sizeof there, 0);
  return there;
}

static bool known_type(hid_t type, sh_h5_place *out) {
  H5T_class_t class = H5Tget_class(type);
  size_t size = H5Tget_size(type);
  bool sign = class == H5T_INTEGER && H5Tget_sign(type) != H5T_SGN_NONE;
  if (class == H5T_INTEGER && size == 1 && !sign)
    out->type = SH_H5_U8;
  else if (class == H5T_INTEGER && size == 4 && sign)
    out->type = SH_H5_I32;
  else if (class == H5T_INTEGER && size == 8)
    out->type = sign ? SH_H5_I64 : SH_H5_U64;
  else if (class == H5T_FLOAT && (size == 4 || size == 8))
    out->type = size == 4 ? SH_H5_F32 : SH_H5_F64;
  else
    return false;
  out->as_memory = H5Tequal(type, sh_h5_native(out->type)) > 0;
  return true;
}

static sh_status root_place(sh_h5 *f, const char *name, sh_h5_place *out) {
  hid_t set = H5Dopen2(f->file, name, H5P_DEFAULT);
  if (set < 0) return sh_h5_fail(f, name, "no such array, or its header is damaged");
  hid_t space = H5Dget_space(set), type = H5Dget_type(set);
  hsize_t size[2] = {1, 1};
  sh_status status = SH_OK;
  out->ndim = H5Sget_simple_extent_ndims(space);
  if (out->ndim < 0 || out->ndim > 2)
    status = sh_fail(SH_ERR_DATA, "%s: %s: %d dimensions, expected 1 or 2", f->path, name, out->ndim);
  else if (!known_type(type, out))
    status = sh_fail(SH_ERR_DATA, "%s: %s: its element type is none of u8 i32 i64 u64 f32 f64", f->path, name);
  else if (out->ndim > 0)
    H5Sget_simple_extent_dims(space, size, NULL);
  out->dim[0] = (int64_t)size[0], out->dim[1] = (int64_t)size[1];
  haddr_t at = H5Dget_offset(set);
  out->offset = at == HADDR_UNDEF ? -1 : (int64_t)at;
  H5Tclose(type);
  H5Sclose(space);
  H5Dclose(set);
  H5Eclear2(H5E_DEFAULT);
  return status;
}

sh_status sh_h5_place_of(sh_h5 *f, const char *name, sh_h5_place *out) {
  *out = (sh_h5_place){.offset = -1};
  return sh_h5_from_root(f, f->root ? root_place(f, name, out) : SH_OK, out, sizeof *out);
}

sh_status sh_h5_array_info(sh_h5 *f, const char *name, sh_h5_type *type, int *ndim, int64_t dim[2]) {
  sh_h5_place place;
  SH_TRY(sh_h5_place_of(f, name, &place));
  if (type) *type = place.type;
  if (ndim) *ndim = place.ndim == 0 ? 1 : place.ndim;
  if (dim) dim[0] = place.dim[0], dim[1] = place.dim[1];
  return SH_OK;
}

sh_status sh_h5_offset(sh_h5 *f, const char *name, int64_t *offset) {
  sh_h5_place place;
  SH_TRY(sh_h5_place_of(f, name, &place));
  *offset = place.offset < 0 ? 0 : place.offset;
  if (place.offset < 0 && place.dim[0] * place.dim[1] > 0)
    return sh_fail(SH_ERR_DATA, "%s: %s: not stored contiguously, so it has no place in the file", f->path, name);
  return SH_OK;
}

const char *sh_h5_path(const sh_h5 *f) { return f->path; }

const char *sh_h5_library_version(void) {
  static char text[64];
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
#ifdef H5_HAVE_PARALLEL
  snprintf(text, sizeof text, "%u.%u.%u, parallel", major, minor, release);
#else
  snprintf(text, sizeof text, "%u.%u.%u, serial", major, minor, release);
#endif
  return text;
}
