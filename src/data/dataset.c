#include "data/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/arena.h"
#include "data/dataset_file.h"
#include "data/report.h"

enum { OPTIMA = 32 };

/* Where an array stands in the file. */
typedef struct place {
  int64_t at, n;
  size_t width;
} place;

struct sh_dataset_impl {
  int fd;
  place item, time, action, user_key_offsets, user_key_bytes, item_key_offsets, item_key_bytes;
  int noptimum;
  char optimum_name[OPTIMA][32];
  double optimum[OPTIMA];
};

static sh_status read_at(const sh_dataset *d, const place *p, int64_t first, int64_t count, void *out) {
  if (first < 0 || count < 0 || first > p->n - count)
    return sh_fail(SH_ERR_INTERNAL, "%s: entries %lld .. %lld asked for, the array has %lld", d->path, (long long)first,
                   (long long)(first + count), (long long)p->n);
  char *to = out;
  size_t left = (size_t)count * p->width;
  off_t at = (off_t)(p->at + first * (int64_t)p->width);
  while (left > 0) {
    ssize_t got = pread(d->impl->fd, to, left, at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return sh_fail(got < 0 ? SH_ERR_INTERNAL : SH_ERR_DATA, "%s: cannot be read at byte %lld: %s", d->path,
                     (long long)at, got < 0 ? strerror(errno) : "the file ends there");
    to += got;
    at += got;
    left -= (size_t)got;
  }
  return SH_OK;
}

/* Find a 1-d array of a type; n is the length it must have, -1: any. */
static sh_status locate(sh_dataset *d, sh_h5 *f, const char *name, sh_h5_type type, int64_t n, place *out) {
  sh_h5_type found;
  int ndim;
  int64_t dim[2];
  struct stat st;
  SH_TRY(sh_h5_array_info(f, name, &found, &ndim, dim));
  if (ndim != 1 || found != type)
    return sh_fail(SH_ERR_DATA, "%s: %s has another type or shape than docs/FORMATS.md says", d->path, name);
  if (n >= 0 && dim[0] != n)
    return sh_fail(SH_ERR_DATA, "%s: %s has %lld entries, expected %lld", d->path, name, (long long)dim[0],
                   (long long)n);
  *out = (place){0, dim[0], sh_h5_type_size(type)};
  SH_TRY(sh_h5_offset(f, name, &out->at));
  if (fstat(d->impl->fd, &st) != 0) return sh_fail(SH_ERR_INTERNAL, "%s: %s", d->path, strerror(errno));
  int64_t end = out->at + out->n * (int64_t)out->width;
  if (end > st.st_size)
    return sh_fail(SH_ERR_DATA, "%s: truncated: it has %lld bytes, %s ends at %lld", d->path, (long long)st.st_size,
                   name, (long long)end);
  return SH_OK;
}

static sh_status check_sum(const sh_dataset *d, sh_h5 *f, const char *name, uint64_t hash) {
  char stored[64];
  SH_TRY(sh_h5_attr_read_text(f, name, "xxh3", stored, sizeof stored));
  if (strcmp(stored, sh_checksum_format(hash).text) == 0) return SH_OK;
  return sh_fail(SH_ERR_DATA, "%s: %s is damaged: checksum %s, expected %s", d->path, name,
                 sh_checksum_format(hash).text, stored);
}

/* Read a small i64 array whole and check it. */
static sh_status load(sh_dataset *d, sh_h5 *f, const char *name, int64_t n, int64_t **out, int64_t *length) {
  place p;
  SH_TRY(locate(d, f, name, SH_H5_I64, n, &p));
  int64_t *a = *out = sh_malloc((size_t)(p.n + 1) * sizeof *a);
  SH_TRY(read_at(d, &p, 0, p.n, a));
  if (length) *length = p.n;
  return check_sum(d, f, name, sh_hash(a, (size_t)p.n * sizeof *a));
}

static sh_status check_format(sh_dataset *d, sh_h5 *f) {
  char format[64] = "";
  int64_t version = 0;
  if (!sh_h5_attr_exists(f, "/", "format"))
    return sh_fail(SH_ERR_DATA, "%s: not a Shoal data set: it has no attribute 'format'; make one with shoal prepare",
                   d->path);
  SH_TRY(sh_h5_attr_read_text(f, "/", "format", format, sizeof format));
  if (strcmp(format, SH_DATASET_FORMAT) != 0)
    return sh_fail(SH_ERR_DATA, "%s: not a Shoal data set: its format is '%s', expected '%s'", d->path, format,
                   SH_DATASET_FORMAT);
  SH_TRY(sh_h5_attr_read_i64(f, "/", "version", &version));
  if (version != SH_DATASET_VERSION)
    return sh_fail(SH_ERR_DATA, "%s: data set version %lld, this shoal reads version %d", d->path, (long long)version,
                   SH_DATASET_VERSION);
  return sh_h5_attr_read_text(f, "/", "name", d->name, sizeof d->name);
}

/* The arrays' own checksums, so that none is read. */
static sh_status read_digests(sh_dataset *d, sh_h5 *f) {
  char bytes[20], offsets[20];
  SH_TRY(sh_h5_attr_read_text(f, "/items/key_bytes", "xxh3", bytes, sizeof bytes));
  SH_TRY(sh_h5_attr_read_text(f, "/items/key_offsets", "xxh3", offsets, sizeof offsets));
  snprintf(d->vocabulary, sizeof d->vocabulary, "%s%s", bytes, offsets);
  static const char *const arrays[] = {"/features/item", "/items/candidates", "/features/time", "/features/action"};
  char *to = d->events_digest;
  for (int i = 0; i < 4; i++) {
    if ((i == 2 && !d->has_time) || (i == 3 && !d->has_action)) continue;
    SH_TRY(sh_h5_attr_read_text(f, arrays[i], "xxh3", bytes, sizeof bytes));
    to += snprintf(to, sizeof bytes, "%s", bytes);
  }
  return SH_OK;
}

static sh_status check_content(const sh_dataset *d) {
  for (int64_t u = 0; u < d->users; u++) {
    if (d->offsets[u] > d->offsets[u + 1] || d->offsets[0] != 0)
      return sh_fail(SH_ERR_DATA, "%s: /sequence/offsets descends at user %lld", d->path, (long long)u);
  }
  for (int64_t i = 0; i < d->ncandidates; i++) {
    int64_t c = d->candidates[i];
    if (c < 0 || c >= d->items || (i > 0 && c <= d->candidates[i - 1]))
      return sh_fail(SH_ERR_DATA, "%s: /items/candidates is not ascending within the %lld items at entry %lld", d->path,
                     (long long)d->items, (long long)i);
  }
  int64_t sum = 0;
  for (int64_t i = 0; i < d->items; i++) sum += d->item_count[i];
  if (sum != d->events)
    return sh_fail(SH_ERR_DATA, "%s: /items/count sums to %lld, expected the %lld events", d->path, (long long)sum,
                   (long long)d->events);
  return SH_OK;
}

static sh_status add_optimum(sh_h5 *f, const char *object, const char *name, void *arg) {
  struct sh_dataset_impl *impl = arg;
  if (impl->noptimum == OPTIMA || strlen(name) >= sizeof impl->optimum_name[0]) return SH_OK;
  SH_TRY(sh_h5_attr_read_f64(f, object, name, &impl->optimum[impl->noptimum]));
  strcpy(impl->optimum_name[impl->noptimum++], name);
  return SH_OK;
}

static sh_status read_structure(sh_dataset *d, sh_h5 *f) {
  struct sh_dataset_impl *impl = d->impl;
  int64_t n;
  SH_TRY(check_format(d, f));
  SH_TRY(load(d, f, "/sequence/offsets", -1, &d->offsets, &n));
  if (n < 1) return sh_fail(SH_ERR_DATA, "%s: /sequence/offsets is empty", d->path);
  d->users = n - 1;
  d->events = d->offsets[n - 1];
  SH_TRY(load(d, f, "/items/count", -1, &d->item_count, &d->items));
  SH_TRY(load(d, f, "/items/candidates", -1, &d->candidates, &d->ncandidates));
  SH_TRY(locate(d, f, "/features/item", SH_H5_I64, d->events, &impl->item));
  d->has_time = sh_h5_exists(f, "/features/time");
  d->has_action = sh_h5_exists(f, "/features/action");
  if (d->has_time) SH_TRY(locate(d, f, "/features/time", SH_H5_I64, d->events, &impl->time));
  if (d->has_action) SH_TRY(locate(d, f, "/features/action", SH_H5_F32, d->events, &impl->action));
  SH_TRY(locate(d, f, "/items/key_offsets", SH_H5_I64, d->items + 1, &impl->item_key_offsets));
  SH_TRY(locate(d, f, "/items/key_bytes", SH_H5_U8, -1, &impl->item_key_bytes));
  SH_TRY(read_digests(d, f));
  SH_TRY(locate(d, f, "/users/key_offsets", SH_H5_I64, d->users + 1, &impl->user_key_offsets));
  SH_TRY(locate(d, f, "/users/key_bytes", SH_H5_U8, -1, &impl->user_key_bytes));
  if (sh_h5_exists(f, "/optimum")) SH_TRY(sh_h5_each_attr(f, "/optimum", add_optimum, impl));
  return check_content(d);
}

static sh_status open_file(sh_dataset *d, const char *path) {
  *d = (sh_dataset){0};
  if (strlen(path) >= sizeof d->path) return sh_fail(SH_ERR_USAGE, "%.60s...: name longer than 4095 bytes", path);
  strcpy(d->path, path);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return sh_fail(SH_ERR_DATA, "%s: cannot open the data set: %s", path, strerror(errno));
  struct stat st;
  unsigned char mark[8] = {0};
  bool folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
  if (folder || pread(fd, mark, 8, 0) != 8 || memcmp(mark, "\211HDF\r\n\032\n", 8) != 0) {
    close(fd);
    return sh_fail(SH_ERR_DATA, "%s: not a Shoal data set: %s; make one with shoal prepare", path,
                   folder            ? "it is a folder"
                   : st.st_size == 0 ? "it is empty"
                                     : "it is no HDF5 file");
  }
  d->impl = sh_calloc(1, sizeof *d->impl);
  d->impl->fd = fd;
  return SH_OK;
}

/* A file of one process, to read. */
static sh_status open_alone(const char *path, sh_grid *grid, sh_h5 **f) {
  sh_grid_single(grid);
  sh_status status = sh_h5_open(f, path, &grid->world);
  if (status != SH_OK) sh_grid_destroy(grid);
  return status;
}

static void close_alone(sh_h5 *f, sh_grid *grid) {
  sh_h5_close(f, false);
  sh_grid_destroy(grid);
}

sh_status sh_dataset_open(sh_dataset *d, const char *path) {
  SH_TRY(open_file(d, path));
  sh_grid grid;
  sh_h5 *f;
  sh_status status = open_alone(path, &grid, &f);
  if (status == SH_OK) {
    status = read_structure(d, f);
    close_alone(f, &grid);
  }
  if (status != SH_OK) sh_dataset_close(d);
  return status;
}

void sh_dataset_close(sh_dataset *d) {
  if (d->impl) close(d->impl->fd);
  free(d->impl);
  free(d->offsets);
  free(d->candidates);
  free(d->item_count);
  *d = (sh_dataset){0};
}

sh_status sh_dataset_items(const sh_dataset *d, int64_t first, int64_t count, int64_t *out) {
  SH_TRY(read_at(d, &d->impl->item, first, count, out));
  bool bad = false;
  for (int64_t i = 0; i < count; i++) bad |= (uint64_t)out[i] >= (uint64_t)d->items;
  for (int64_t i = 0; bad && i < count; i++) {
    if (out[i] < 0 || out[i] >= d->items)
      return sh_fail(SH_ERR_DATA, "%s: event %lld has item row %lld, the set has %lld items: the file is damaged",
                     d->path, (long long)(first + i), (long long)out[i], (long long)d->items);
  }
  return SH_OK;
}

sh_status sh_dataset_times(const sh_dataset *d, int64_t first, int64_t count, int64_t *out) {
  if (!d->has_time) return sh_fail(SH_ERR_DATA, "%s: the data set has no times", d->path);
  return read_at(d, &d->impl->time, first, count, out);
}

sh_status sh_dataset_actions(const sh_dataset *d, int64_t first, int64_t count, float *out) {
  if (!d->has_action) return sh_fail(SH_ERR_DATA, "%s: the data set has no actions", d->path);
  return read_at(d, &d->impl->action, first, count, out);
}

void sh_dataset_willneed(const sh_dataset *d, int64_t first, int64_t count) {
  const place *all[] = {&d->impl->item, &d->impl->time, &d->impl->action};
  for (int i = 0; i < 3; i++) {
    int64_t width = (int64_t)all[i]->width;
    if (all[i]->n > 0) posix_fadvise(d->impl->fd, all[i]->at + first * width, count * width, POSIX_FADV_WILLNEED);
  }
}

static sh_status read_key(const sh_dataset *d, const place *offsets, const place *bytes, int64_t row, char *out,
                          size_t size) {
  int64_t range[2];
  SH_TRY(read_at(d, offsets, row, 2, range));
  if (range[0] < 0 || range[1] < range[0] || range[1] > bytes->n)
    return sh_fail(SH_ERR_DATA, "%s: key %lld is damaged", d->path, (long long)row);
  if (size == 0) return SH_OK;
  int64_t n = range[1] - range[0] < (int64_t)size - 1 ? range[1] - range[0] : (int64_t)size - 1;
  SH_TRY(read_at(d, bytes, range[0], n, out));
  out[n] = '\0';
  return SH_OK;
}

sh_status sh_dataset_user_key(const sh_dataset *d, int64_t user, char *out, size_t size) {
  return read_key(d, &d->impl->user_key_offsets, &d->impl->user_key_bytes, user, out, size);
}

sh_status sh_dataset_item_key(const sh_dataset *d, int64_t item, char *out, size_t size) {
  return read_key(d, &d->impl->item_key_offsets, &d->impl->item_key_bytes, item, out, size);
}

sh_status sh_dataset_optimum(const sh_dataset *d, const char *metric, double *out) {
  for (int i = 0; i < d->impl->noptimum; i++) {
    if (strcmp(d->impl->optimum_name[i], metric) != 0) continue;
    *out = d->impl->optimum[i];
    return SH_OK;
  }
  return sh_fail(SH_ERR_DATA, "%s: the data set has no optimum of %s (sets of shoal synth have)", d->path, metric);
}

sh_status sh_data_report_read(const char *path, sh_data_report *report) {
  sh_dataset d;
  SH_TRY(sh_dataset_open(&d, path));
  sh_dataset_close(&d);
  sh_grid grid;
  sh_h5 *f;
  SH_TRY(open_alone(path, &grid, &f));
  sh_status status = sh_report_load(f, report);
  close_alone(f, &grid);
  return status;
}

static sh_status verify_array(sh_dataset *d, sh_h5 *f, const char *name) {
  enum { BLOCK = 1 << 20 };
  sh_h5_type type;
  place p;
  SH_TRY(sh_h5_array_info(f, name, &type, NULL, NULL));
  SH_TRY(locate(d, f, name, type, -1, &p));
  place bytes = {p.at, p.n * (int64_t)p.width, 1};
  XXH3_state_t *hash = XXH3_createState();
  char *block = sh_malloc(BLOCK);
  XXH3_64bits_reset(hash);
  sh_status status = SH_OK;
  for (int64_t first = 0; first < bytes.n && status == SH_OK; first += BLOCK) {
    int64_t n = bytes.n - first < BLOCK ? bytes.n - first : BLOCK;
    status = read_at(d, &bytes, first, n, block);
    if (status == SH_OK) XXH3_64bits_update(hash, block, (size_t)n);
  }
  if (status == SH_OK) status = check_sum(d, f, name, XXH3_64bits_digest(hash));
  free(block);
  XXH3_freeState(hash);
  return status;
}

static sh_status verify_child(sh_h5 *f, const char *path, bool group, void *arg) {
  if (group) return sh_h5_each(f, path, verify_child, arg);
  return verify_array(arg, f, path);
}

sh_status sh_data_verify(const char *path) {
  sh_dataset d;
  SH_TRY(sh_dataset_open(&d, path));
  sh_grid grid;
  sh_h5 *f;
  sh_status status = open_alone(path, &grid, &f);
  if (status == SH_OK) {
    status = sh_h5_each(f, "/", verify_child, &d);
    close_alone(f, &grid);
  }
  sh_dataset_close(&d);
  return status;
}

bool sh_data_is_set(const char *path) {
  sh_grid grid;
  sh_h5 *f;
  char format[64] = "";
  if (open_alone(path, &grid, &f) == SH_OK) {
    if (sh_h5_attr_exists(f, "/", "format")) sh_h5_attr_read_text(f, "/", "format", format, sizeof format);
    close_alone(f, &grid);
  }
  return !strcmp(format, SH_DATASET_FORMAT);
}
