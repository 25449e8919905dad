/* mpi/h5par_slab.c: rectangles of arrays between memory and file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/phase.h"
#include "mpi/coll.h"
#include "mpi/h5par_internal.h"

/* Bytes of one system call (Linux stops a little below 2 GiB) and elements converted at a time. */
static const size_t call_bytes = (size_t)1 << 30;
enum { CONVERT = 1 << 16 };

/* A slab being moved; `row` counts its rows. */
typedef struct slab {
  sh_h5 *f;
  const char *name;
  sh_h5_place place;
  sh_h5_type type; /* in memory */
  int64_t start[2], count[2], ld;
  bool in; /* file to memory */
  char *memory;
} slab;

static sh_status slab_bounds(slab *s, const int64_t start[2], const int64_t count[2], int64_t ld) {
  for (int d = 0; d < 2; d++) {
    bool used = d == 0 || s->place.ndim == 2;
    s->start[d] = used ? start[d] : 0;
    s->count[d] = used ? count[d] : 1;
  }
  if (s->count[0] == 0 || s->count[1] == 0) s->count[0] = s->count[1] = s->start[0] = s->start[1] = 0;
  for (int d = 0; d < 2; d++) {
    if (s->start[d] >= 0 && s->count[d] >= 0 && s->start[d] <= s->place.dim[d] - s->count[d]) continue;
    return sh_fail(s->in ? SH_ERR_DATA : SH_ERR_INTERNAL,
                   "%s: %s: indices %lld to %lld of dimension %d asked for, the array has %lld", s->f->path, s->name,
                   (long long)s->start[d], (long long)(s->start[d] + s->count[d]), d, (long long)s->place.dim[d]);
  }
  s->ld = s->place.ndim == 2 && ld > 0 ? ld : s->count[1];
  return SH_OK;
}

static sh_status move_bytes(const slab *s, char *memory, size_t bytes, int64_t at) {
  while (bytes > 0) {
    size_t n = bytes < call_bytes ? bytes : call_bytes;
    ssize_t done = s->in ? pread(s->f->fd, memory, n, (off_t)at) : pwrite(s->f->fd, memory, n, (off_t)at);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0)
      return sh_fail(s->in ? SH_ERR_DATA : SH_ERR_INTERNAL, "%s: %s: cannot %s %zu bytes at offset %lld: %s",
                     s->f->path, s->name, s->in ? "read" : "write", bytes, (long long)at, strerror(errno));
    if (done == 0)
      return sh_fail(s->in ? SH_ERR_DATA : SH_ERR_INTERNAL, "%s: %s: the file ends at offset %lld, %zu bytes too early",
                     s->f->path, s->name, (long long)at, bytes);
    memory += done, at += done, bytes -= (size_t)done;
    sh_phase_moved();
  }
  return SH_OK;
}

/* n elements that lie one after another in memory and in the file. */
static sh_status move_run(const slab *s, int64_t element, int64_t n, char *memory) {
  size_t unit = sh_h5_type_size(s->type), stored = sh_h5_type_size(s->place.type);
  int64_t at = s->place.offset + element * (int64_t)stored;
  if (s->type == s->place.type) return move_bytes(s, memory, (size_t)n * unit, at);
  char *buffer = sh_malloc(CONVERT * 8);
  sh_status status = SH_OK;
  for (int64_t done = 0; done < n && status == SH_OK; done += CONVERT) {
    size_t m = (size_t)(n - done < CONVERT ? n - done : CONVERT);
    char *here = memory + (size_t)done * unit;
    if (!s->in) memcpy(buffer, here, m * unit);
    if (s->in) status = move_bytes(s, buffer, m * stored, at + done * (int64_t)stored);
    hid_t from = sh_h5_native(s->in ? s->place.type : s->type), to = sh_h5_native(s->in ? s->type : s->place.type);
    if (status == SH_OK && H5Tconvert(from, to, m, buffer, NULL, H5P_DEFAULT) < 0)
      status = sh_h5_fail(s->f, s->name, "cannot convert its elements");
    if (s->in && status == SH_OK) memcpy(here, buffer, m * unit);
    if (!s->in && status == SH_OK) status = move_bytes(s, buffer, m * stored, at + done * (int64_t)stored);
  }
  free(buffer);
  return status;
}

static sh_status move_rows(const slab *s) {
  int64_t rows = s->count[0], columns = s->count[1], width = s->place.dim[1];
  size_t unit = sh_h5_type_size(s->type);
  if (rows == 0) return SH_OK;
  if (columns == width && s->ld == columns) return move_run(s, s->start[0] * width, rows * columns, s->memory);
  for (int64_t r = 0; r < rows; r++)
    SH_TRY(move_run(s, (s->start[0] + r) * width + s->start[1], columns, s->memory + (size_t)(r * s->ld) * unit));
  return SH_OK;
}

/* Arrays of other programs: chunked, compressed, of another byte order. One process only. */
static sh_status read_through_hdf5(const slab *s) {
  hsize_t start[2] = {(hsize_t)s->start[0], (hsize_t)s->start[1]}, zero[2] = {0, 0};
  hsize_t count[2] = {(hsize_t)s->count[0], (hsize_t)s->count[1]}, size[2] = {count[0], (hsize_t)s->ld};
  if (s->count[0] == 0) return SH_OK;
  hid_t set = H5Dopen2(s->f->file, s->name, H5P_DEFAULT), file = H5Dget_space(set);
  hid_t memory = H5Screate_simple(s->place.ndim == 2 ? 2 : 1, size, NULL);
  H5Sselect_hyperslab(memory, H5S_SELECT_SET, zero, NULL, count, NULL);
  if (s->place.ndim > 0) H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, count, NULL);
  herr_t rc = H5Dread(set, sh_h5_native(s->type), memory, file, H5P_DEFAULT, s->memory);
  sh_status status = rc < 0 ? sh_h5_fail(s->f, s->name, "cannot read") : SH_OK;
  H5Sclose(memory);
  H5Sclose(file);
  H5Dclose(set);
  return status;
}

sh_status sh_h5_write(sh_h5 *f, const char *name, sh_h5_type type, const int64_t start[2], const int64_t count[2],
                      int64_t ld, const void *data) {
  slab s = {.f = f, .name = name, .type = type, .memory = (char *)(uintptr_t)data};
  if (f->axis.size == 1 && f->failed != SH_OK) return sh_fail(f->failed, "%s", f->message);
  sh_status status = sh_h5_place_of(f, name, &s.place);
  if (status == SH_OK) status = slab_bounds(&s, start, count, ld);
  if (status == SH_OK && f->failed == SH_OK) status = move_rows(&s);
  return sh_h5_step(f, status);
}

sh_status sh_h5_read(sh_h5 *f, const char *name, sh_h5_type type, const int64_t start[2], const int64_t count[2],
                     int64_t ld, void *data) {
  slab s = {.f = f, .name = name, .type = type, .memory = data, .in = true};
  SH_TRY(sh_h5_place_of(f, name, &s.place));
  sh_status status = slab_bounds(&s, start, count, ld);
  bool direct = s.place.offset >= 0 && s.place.as_memory;
  if (status == SH_OK && !direct && f->axis.size > 1 && s.count[0] > 0)
    status = sh_fail(SH_ERR_DATA, "%s: %s: not stored contiguously in this machine's byte order", f->path, name);
  if (status == SH_OK) status = direct || f->axis.size > 1 ? move_rows(&s) : read_through_hdf5(&s);
  return f->axis.size > 1 ? sh_agree(&f->axis, status) : status;
}
