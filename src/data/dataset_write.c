#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/folders.h"
#include "core/outfile.h"
#include "data/dataset.h"
#include "data/dataset_file.h"
#include "data/report.h"

enum { CHUNK = 1 << 18 }; /* elements converted at a time */

sh_status sh_dataset_make_folder(const char *path) {
  char *folder = sh_strdup(path), *slash = strrchr(folder, '/');
  if (slash) slash[slash == folder] = '\0';
  sh_status status = slash ? sh_make_folders(folder, false, SH_ERR_INTERNAL) : SH_OK;
  if (status == SH_OK && access(slash ? folder : ".", W_OK) != 0)
    status = sh_fail(SH_ERR_INTERNAL, "%s: cannot write here: %s", path, strerror(errno));
  struct stat st;
  if (status == SH_OK && stat(path, &st) == 0 && !S_ISREG(st.st_mode))
    status = sh_fail(SH_ERR_INTERNAL, "%s: is a %s, expected the name of a file to write", path,
                     S_ISDIR(st.st_mode) ? "folder" : "device or a pipe");
  free(folder);
  return status;
}

static sh_status put(sh_h5 *f, const char *name, sh_h5_type type, int64_t n, const void *data) {
  const int64_t start[2] = {0, 0}, count[2] = {n, 1};
  SH_TRY(sh_h5_array_create(f, name, type, 1, count));
  if (n > 0) SH_TRY(sh_h5_write(f, name, type, start, count, 0, data));
  uint64_t hash = sh_hash(n > 0 ? data : "", (size_t)n * sh_h5_type_size(type));
  return sh_h5_attr_write_text(f, name, "xxh3", sh_checksum_format(hash).text);
}

/* Items stand as i64, so that sets of more than 2^31 items need no other version; they come as i32. */
static sh_status put_items(sh_h5 *f, const sh_dataset_content *c) {
  const char *name = "/features/item";
  const int64_t size[2] = {c->events, 1};
  SH_TRY(sh_h5_array_create(f, name, SH_H5_I64, 1, size));
  XXH3_state_t *hash = XXH3_createState();
  int64_t *wide = sh_malloc(CHUNK * sizeof *wide);
  XXH3_64bits_reset(hash);
  sh_status status = SH_OK;
  for (int64_t first = 0; first < c->events && status == SH_OK; first += CHUNK) {
    int64_t n = c->events - first < CHUNK ? c->events - first : CHUNK;
    for (int64_t i = 0; i < n; i++) wide[i] = c->item[first + i];
    XXH3_64bits_update(hash, wide, (size_t)n * sizeof *wide);
    const int64_t start[2] = {first, 0}, count[2] = {n, 1};
    status = sh_h5_write(f, name, SH_H5_I64, start, count, 0, wide);
  }
  uint64_t digest = XXH3_64bits_digest(hash);
  XXH3_freeState(hash);
  free(wide);
  SH_TRY(status);
  SH_TRY(sh_h5_attr_write_text(f, name, "xxh3", sh_checksum_format(digest).text));
  SH_TRY(sh_h5_attr_write_text(f, name, "kind", "token"));
  SH_TRY(sh_h5_attr_write_text(f, name, "table", "item"));
  return sh_h5_attr_write_i64(f, name, "rows", c->items);
}

static sh_status put_features(sh_h5 *f, const sh_dataset_content *c) {
  SH_TRY(put(f, "/sequence/offsets", SH_H5_I64, c->users + 1, c->offsets));
  SH_TRY(put_items(f, c));
  if (c->time) {
    SH_TRY(put(f, "/features/time", SH_H5_I64, c->events, c->time));
    SH_TRY(sh_h5_attr_write_text(f, "/features/time", "kind", "token"));
  }
  if (c->action) {
    SH_TRY(put(f, "/features/action", SH_H5_F32, c->events, c->action));
    SH_TRY(sh_h5_attr_write_text(f, "/features/action", "kind", "token"));
  }
  return SH_OK;
}

static sh_status put_candidates(sh_h5 *f, const sh_dataset_content *c) {
  int64_t n = c->candidates ? c->ncandidates : c->items;
  int64_t *all = sh_malloc((size_t)(n > c->items ? n : c->items + 1) * sizeof *all);
  for (int64_t i = 0; i < n; i++) all[i] = c->candidates ? c->candidates[i] : i;
  sh_status status = put(f, "/items/candidates", SH_H5_I64, n, all);
  memset(all, 0, (size_t)c->items * sizeof *all);
  for (int64_t e = 0; e < c->events; e++) all[c->item[e]]++;
  if (status == SH_OK) status = put(f, "/items/count", SH_H5_I64, c->items, all);
  free(all);
  return status;
}

/* Keys of a set that was given none: 0, 1, 2 ... */
static sh_status put_numbers(sh_h5 *f, const char *bytes_name, const char *offsets_name, int64_t n) {
  int64_t *offsets = sh_malloc((size_t)(n + 1) * sizeof *offsets);
  char *bytes = sh_malloc((size_t)(n + 1) * 20);
  offsets[0] = 0;
  for (int64_t i = 0; i < n; i++) offsets[i + 1] = offsets[i] + sprintf(bytes + offsets[i], "%lld", (long long)i);
  sh_status status = put(f, bytes_name, SH_H5_U8, offsets[n], bytes);
  if (status == SH_OK) status = put(f, offsets_name, SH_H5_I64, n + 1, offsets);
  free(offsets);
  free(bytes);
  return status;
}

static sh_status put_keys(sh_h5 *f, const char *group, int64_t n, const int64_t *offsets, const char *bytes) {
  char bytes_name[64], offsets_name[64];
  snprintf(bytes_name, sizeof bytes_name, "%s/key_bytes", group);
  snprintf(offsets_name, sizeof offsets_name, "%s/key_offsets", group);
  if (!offsets) return put_numbers(f, bytes_name, offsets_name, n);
  SH_TRY(put(f, bytes_name, SH_H5_U8, offsets[n], bytes));
  return put(f, offsets_name, SH_H5_I64, n + 1, offsets);
}

static sh_status put_all(sh_h5 *f, const sh_dataset_content *c) {
  sh_data_report computed;
  if (!c->report) sh_report_make(c, &computed);
  char provenance[4096];
  snprintf(provenance, sizeof provenance, "%s", c->provenance ? c->provenance : "");
  SH_TRY(sh_h5_attr_write_text(f, "/", "format", SH_DATASET_FORMAT));
  SH_TRY(sh_h5_attr_write_i64(f, "/", "version", SH_DATASET_VERSION));
  SH_TRY(sh_h5_attr_write_text(f, "/", "name", c->name ? c->name : ""));
  SH_TRY(sh_h5_attr_write_text(f, "/", "provenance", provenance));
  SH_TRY(sh_report_store(f, c->report ? c->report : &computed));
  SH_TRY(put_features(f, c));
  SH_TRY(put_candidates(f, c));
  SH_TRY(put_keys(f, "/items", c->items, c->item_key_offsets, c->item_key_bytes));
  SH_TRY(put_keys(f, "/users", c->users, c->user_key_offsets, c->user_key_bytes));
  for (int i = 0; i < c->noptimum; i++) {
    SH_TRY(sh_h5_attr_write_f64(f, "/optimum", c->optimum_name[i], c->optimum[i]));
  }
  return SH_OK;
}

sh_status sh_dataset_write(const sh_dataset_content *c, const char *path) {
  sh_outfile o;
  if (strlen(path) >= 4096) return sh_fail(SH_ERR_USAGE, "%.60s...: name longer than 4095 bytes", path);
  SH_TRY(sh_dataset_make_folder(path));
  SH_TRY(sh_outfile_place(&o, path));
  sh_grid grid;
  sh_grid_single(&grid);
  sh_h5 *f = NULL;
  sh_status status = sh_h5_create(&f, o.partial, &grid.world);
  if (status == SH_OK) {
    status = put_all(f, c);
    sh_status closed = sh_h5_close(f, status == SH_OK);
    if (status == SH_OK) status = closed;
    if (status == SH_OK && rename(o.partial, o.path) != 0)
      status = sh_fail(SH_ERR_INTERNAL, "%s: cannot rename it to %s: %s", o.partial, o.path, strerror(errno));
    if (status != SH_OK) unlink(o.partial);
  }
  sh_grid_destroy(&grid);
  return status;
}
