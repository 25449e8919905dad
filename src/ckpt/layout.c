#include "ckpt/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/hash.h"
#include "mpi/coll.h"

static const int64_t block_bytes = 1 << 20;

void sh_ck_list_free(sh_ck_list *list) {
  free(list->array);
  *list = (sh_ck_list){0};
}

sh_ck_array *sh_ck_add(sh_ck_list *list, const char *path, sh_h5_type type, int ndim, const int64_t dim[2],
                       int64_t unit) {
  if (list->n == list->capacity) {
    list->capacity = list->capacity ? 2 * list->capacity : 64;
    list->array = sh_realloc(list->array, (size_t)list->capacity * sizeof *list->array);
  }
  sh_ck_array *a = &list->array[list->n++];
  *a = (sh_ck_array){.type = type, .ndim = ndim, .dim = {dim[0], ndim == 2 ? dim[1] : 1}, .unit = unit};
  snprintf(a->path, sizeof a->path, "%s", path);
  int64_t unit_bytes = unit * (int64_t)sh_h5_type_size(type), units = a->dim[0] * a->dim[1] / unit;
  a->block = unit_bytes < block_bytes ? block_bytes / unit_bytes : 1;
  a->nblocks = (units + a->block - 1) / a->block;
  a->first_sum = list->nsums;
  list->nsums += a->nblocks;
  return a;
}

const sh_ck_array *sh_ck_find(const sh_ck_list *list, const char *path) {
  for (int i = 0; i < list->n; i++)
    if (strcmp(list->array[i].path, path) == 0) return &list->array[i];
  return NULL;
}

int64_t sh_ck_bytes(const sh_ck_array *a) { return a->dim[0] * a->dim[1] * (int64_t)sh_h5_type_size(a->type); }

const char *sh_ck_shape(const sh_ck_array *a, char *out) {
  if (a->ndim == 2)
    snprintf(out, 48, "%lldx%lld", (long long)a->dim[0], (long long)a->dim[1]);
  else
    snprintf(out, 48, "%lld", (long long)a->dim[0]);
  return out;
}

static void plan_dense(sh_ck_list *list, const sh_params *p, const char *folder) {
  char path[SH_CK_PATH];
  for (int i = 0; i < p->n; i++) {
    const sh_param *r = &p->row[i];
    if (r->tie >= 0) continue;
    snprintf(path, sizeof path, "%s/%s", folder, r->name);
    sh_ck_add(list, path, SH_H5_F32, r->ndim, r->dim, 1);
  }
}

static void plan_table(sh_ck_list *list, const sh_table *t, bool weights_only) {
  char path[SH_CK_PATH];
  int64_t S[2] = {((int64_t)1 << t->shard_bits) + 1, 1};
  snprintf(path, sizeof path, "/tables/%s/offsets", t->conf.name);
  sh_ck_add(list, path, SH_H5_I64, 1, S, 1);
  snprintf(path, sizeof path, "/tables/%s/rows", t->conf.name);
  sh_ck_add(list, path, SH_H5_F32, 2, (int64_t[2]){t->conf.rows, t->conf.width}, t->conf.width);
  for (int k = 0; k < t->nstate && !weights_only; k++) {
    snprintf(path, sizeof path, "/tables/%s/%s", t->conf.name, t->state_name[k]);
    sh_ck_add(list, path, SH_H5_F32, 2, (int64_t[2]){t->conf.rows, t->state_width[k]}, t->state_width[k]);
  }
}

void sh_ck_plan(sh_ck_list *list, const sh_ckpt_content *c, bool weights_only) {
  char folder[96];
  plan_dense(list, c->params, "/params");
  for (int m = 0; m < c->nmoments && !weights_only; m++) {
    snprintf(folder, sizeof folder, "/optim/%s", c->moment_name[m]);
    plan_dense(list, c->params, folder);
  }
  for (int t = 0; t < c->ntables; t++) plan_table(list, c->table[t], weights_only);
}

void sh_ck_sum(uint64_t *sums, const sh_ck_array *a, int64_t first, int64_t n, const void *data) {
  if (n <= 0) return;
  size_t bytes = (size_t)a->unit * sh_h5_type_size(a->type);
  int64_t last = first + n, from = first / a->block, to = (last - 1) / a->block;
#pragma omp parallel for schedule(static) if (to - from > 3)
  for (int64_t b = from; b <= to; b++) {
    int64_t u = b * a->block > first ? b * a->block : first,
            end = (b + 1) * a->block < last ? (b + 1) * a->block : last;
    const char *at = (const char *)data + (size_t)(u - first) * bytes;
    uint64_t sum = 0;
    for (; u < end; u++, at += bytes) sum += XXH3_64bits_withSeed(at, bytes, (uint64_t)u);
    sums[a->first_sum + b] += sum;
  }
}

void sh_ck_sum_rect(uint64_t *sums, const sh_ck_array *a, const sh_rect *rect, const float *data, int64_t ld) {
  int64_t rows = rect->count[0], columns = rect->count[1], width = a->dim[1];
  if (rows == 0 || columns == 0) return;
  if (columns == width && ld == width) {
    sh_ck_sum(sums, a, rect->start[0] * width, rows * width, data);
    return;
  }
  for (int64_t i = 0; i < rows; i++)
    sh_ck_sum(sums, a, (rect->start[0] + i) * width + rect->start[1], columns, data + i * ld);
}

/* One line of the digest; each put_ function and the walk over a file make the same lines. */
static const char *const type_name[] = {"u8", "i32", "i64", "u64", "f32", "f64"};

static void digest_line(sh_ck_list *list, const char *line) { list->digest += sh_hash(line, strlen(line)); }

static void digest_array(sh_ck_list *list, const char *path, sh_h5_type type, int ndim, const int64_t dim[2]) {
  char line[SH_CK_PATH + 128];
  snprintf(line, sizeof line, "array %s %s %d %lld %lld", path, type_name[type], ndim, (long long)dim[0],
           (long long)(ndim == 2 ? dim[1] : 1));
  digest_line(list, line);
}

static void digest_i64(sh_ck_list *list, const char *object, const char *name, int64_t v) {
  char line[512];
  snprintf(line, sizeof line, "attribute %s %s integer %lld", object, name, (long long)v);
  digest_line(list, line);
}

static void digest_f64(sh_ck_list *list, const char *object, const char *name, double v) {
  char line[512];
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  snprintf(line, sizeof line, "attribute %s %s real %016llx", object, name, (unsigned long long)bits);
  digest_line(list, line);
}

static void digest_text(sh_ck_list *list, const char *object, const char *name, const char *text) {
  char line[2048];
  snprintf(line, sizeof line, "attribute %s %s text %s", object, name, text);
  digest_line(list, line);
}

void sh_ck_digest_text(uint64_t digest, char out[17]) { snprintf(out, 17, "%016llx", (unsigned long long)digest); }

sh_status sh_ck_put_i64(sh_h5 *f, sh_ck_list *list, const char *object, const char *name, int64_t v) {
  digest_i64(list, object, name, v);
  return sh_h5_attr_write_i64(f, object, name, v);
}

sh_status sh_ck_put_f64(sh_h5 *f, sh_ck_list *list, const char *object, const char *name, double v) {
  digest_f64(list, object, name, v);
  return sh_h5_attr_write_f64(f, object, name, v);
}

sh_status sh_ck_put_text(sh_h5 *f, sh_ck_list *list, const char *object, const char *name, const char *text) {
  digest_text(list, object, name, text);
  return sh_h5_attr_write_text(f, object, name, text);
}

sh_status sh_ck_put_array(sh_h5 *f, sh_ck_list *list, const sh_ck_array *a) {
  char sums[SH_CK_PATH + 16];
  snprintf(sums, sizeof sums, "/checksums%s", a->path);
  digest_array(list, a->path, a->type, a->ndim, a->dim);
  SH_TRY(sh_h5_array_create(f, a->path, a->type, a->ndim, a->dim));
  digest_array(list, sums, SH_H5_U64, 1, (int64_t[2]){a->nblocks, 1});
  SH_TRY(sh_h5_array_create(f, sums, SH_H5_U64, 1, (int64_t[2]){a->nblocks, 1}));
  SH_TRY(sh_ck_put_i64(f, list, sums, "unit", a->unit));
  return sh_ck_put_i64(f, list, sums, "block", a->block);
}

/* The walk over a file. */
static sh_status walk_attribute(sh_h5 *f, const char *object, const char *name, void *arg) {
  sh_ck_list *list = arg;
  char kind, text[2048] = "";
  int64_t i = 0;
  double x = 0;
  if (strcmp(object, "/") == 0 && strcmp(name, "digest") == 0) return SH_OK;
  SH_TRY(sh_h5_attr_kind(f, object, name, &kind));
  if (kind == 'i') {
    SH_TRY(sh_h5_attr_read_i64(f, object, name, &i));
    digest_i64(list, object, name, i);
  } else if (kind == 'f') {
    SH_TRY(sh_h5_attr_read_f64(f, object, name, &x));
    digest_f64(list, object, name, x);
  } else {
    SH_TRY(sh_h5_attr_read_text(f, object, name, text, sizeof text));
    digest_text(list, object, name, text);
  }
  return SH_OK;
}

static sh_status walk(sh_h5 *f, const char *path, bool group, void *arg) {
  sh_ck_list *list = arg;
  SH_TRY(sh_h5_each_attr(f, path, walk_attribute, list));
  if (group) return sh_h5_each(f, path, walk, list);
  sh_h5_type type;
  int ndim;
  int64_t dim[2], unit = 1, block = 1;
  SH_TRY(sh_h5_array_info(f, path, &type, &ndim, dim));
  digest_array(list, path, type, ndim, dim);
  if (strncmp(path, "/checksums/", 11) == 0) return SH_OK;
  char sums[SH_CK_PATH + 16];
  snprintf(sums, sizeof sums, "/checksums%s", path);
  SH_TRY(sh_h5_attr_read_i64(f, sums, "unit", &unit));
  SH_TRY(sh_h5_attr_read_i64(f, sums, "block", &block));
  int64_t elements = dim[0] * dim[1];
  if (unit < 1 || block < 1 || elements % unit)
    return sh_fail(SH_ERR_DATA, "%s: %s: blocks of %lld units of %lld elements do not fit an array of %lld elements",
                   sh_h5_path(f), path, (long long)block, (long long)unit, (long long)elements);
  sh_ck_array *a = sh_ck_add(list, path, type, ndim, dim, unit);
  list->nsums -= a->nblocks; /* the file's own block length rules */
  a->block = block;
  a->nblocks = (elements / unit + block - 1) / block;
  list->nsums += a->nblocks;
  return SH_OK;
}

static sh_status check_format(sh_h5 *f) {
  char format[64] = "";
  int64_t version = 0;
  if (!sh_h5_attr_exists(f, "/", "format") || sh_h5_attr_read_text(f, "/", "format", format, sizeof format) != SH_OK)
    return sh_fail(SH_ERR_DATA, "%s: not a Shoal checkpoint (HDF5, but without the attribute \"format\")",
                   sh_h5_path(f));
  if (strcmp(format, SH_CK_FORMAT) != 0)
    return sh_fail(SH_ERR_DATA, "%s: not a Shoal checkpoint: its format is \"%s\", expected \"%s\"", sh_h5_path(f),
                   format, SH_CK_FORMAT);
  SH_TRY(sh_h5_attr_read_i64(f, "/", "version", &version));
  if (version != SH_CK_VERSION)
    return sh_fail(SH_ERR_DATA, "%s: checkpoint of format version %lld, this program reads version %d", sh_h5_path(f),
                   (long long)version, SH_CK_VERSION);
  return SH_OK;
}

static sh_status check_all(sh_h5 *f, sh_ck_list *list) {
  char stored[64], found[17];
  SH_TRY(check_format(f));
  SH_TRY(sh_h5_attr_read_text(f, "/", "digest", stored, sizeof stored));
  SH_TRY(walk(f, "/", true, list));
  sh_ck_digest_text(list->digest, found);
  if (strcmp(stored, found) != 0)
    return sh_fail(SH_ERR_DATA, "%s: damaged: the digest of its names, shapes and attributes is %s, expected %s",
                   sh_h5_path(f), found, stored);
  return SH_OK;
}

sh_status sh_ck_open(sh_h5 **f, const char *path, sh_ck_list *list) {
  sh_grid alone;
  sh_grid_single(&alone);
  *list = (sh_ck_list){0};
  SH_TRY(sh_h5_open(f, path, &alone.world));
  sh_status status = check_all(*f, list);
  if (status == SH_OK) return SH_OK;
  sh_h5_close(*f, false);
  *f = NULL;
  sh_ck_list_free(list);
  return status;
}

sh_status sh_ck_read_sums(sh_h5 *f, const sh_ck_array *a, uint64_t *sums) {
  char path[SH_CK_PATH + 16];
  snprintf(path, sizeof path, "/checksums%s", a->path);
  return sh_h5_read(f, path, SH_H5_U64, (int64_t[2]){0, 0}, (int64_t[2]){a->nblocks, 1}, 0, sums);
}

sh_status sh_ck_bad_block(const char *path, const sh_ck_array *a, int64_t block) {
  int64_t units = a->dim[0] * a->dim[1] / a->unit, end = (block + 1) * a->block;
  return sh_fail(SH_ERR_DATA, "%s: damaged: array %s, block %lld of %lld (%s %lld to %lld) does not match its checksum",
                 path, a->path, (long long)block, (long long)a->nblocks, a->unit > 1 ? "rows" : "elements",
                 (long long)(block * a->block), (long long)((end < units ? end : units) - 1));
}

/* Elements [first, first+n) of an array of any shape, by whole rows or parts of one. */
static sh_status read_elements(sh_h5 *f, const sh_ck_array *a, int64_t first, int64_t n, char *to) {
  size_t size = sh_h5_type_size(a->type);
  int64_t width = a->dim[1];
  while (n > 0) {
    int64_t row = first / width, column = first % width;
    int64_t rows = column == 0 && n >= width ? n / width : 1;
    int64_t columns = rows * width <= n && column == 0 ? width : width - column < n ? width - column : n;
    SH_TRY(sh_h5_read(f, a->path, a->type, (int64_t[2]){row, column}, (int64_t[2]){rows, columns}, 0, to));
    to += (size_t)(rows * columns) * size, first += rows * columns, n -= rows * columns;
  }
  return SH_OK;
}

sh_status sh_ck_check(sh_h5 *f, const sh_ck_array *a, int64_t *bad) {
  sh_ck_array one = *a;
  one.first_sum = 0;
  uint64_t *stored = sh_calloc((size_t)a->nblocks + 1, sizeof *stored);
  uint64_t *found = sh_calloc((size_t)a->nblocks + 1, sizeof *found);
  int64_t units = a->dim[0] * a->dim[1] / a->unit, longest = a->block < units ? a->block : units, first_bad = -1;
  char *data = sh_malloc((size_t)(longest * a->unit) * sh_h5_type_size(a->type) + 1);
  sh_status status = sh_ck_read_sums(f, a, stored);
  *bad = 0;
  for (int64_t b = 0; b < a->nblocks && status == SH_OK; b++) {
    int64_t from = b * a->block, n = units - from < a->block ? units - from : a->block;
    status = read_elements(f, a, from * a->unit, n * a->unit, data);
    if (status == SH_OK) sh_ck_sum(found, &one, from, n, data);
    if (status == SH_OK && found[b] != stored[b] && (*bad)++ == 0) first_bad = b;
  }
  if (status == SH_OK && first_bad >= 0) status = sh_ck_bad_block(sh_h5_path(f), a, first_bad);
  free(stored);
  free(found);
  free(data);
  return status;
}

sh_status sh_ck_read_text(sh_h5 *f, const sh_ck_list *list, const char *path, char **text) {
  const sh_ck_array *a = sh_ck_find(list, path);
  int64_t bad;
  if (!a || a->type != SH_H5_U8) return sh_fail(SH_ERR_DATA, "%s: %s: no such text", sh_h5_path(f), path);
  SH_TRY(sh_ck_check(f, a, &bad));
  *text = sh_calloc((size_t)a->dim[0] + 1, 1);
  sh_status status = sh_h5_read(f, path, SH_H5_U8, (int64_t[2]){0, 0}, a->dim, 0, *text);
  if (status != SH_OK) free(*text);
  return status;
}

sh_status sh_ck_read_state(sh_h5 *f, sh_run_state *state) {
#define INT(name)  SH_TRY(sh_h5_attr_read_i64(f, "/run", #name, &state->name));
#define REAL(name) SH_TRY(sh_h5_attr_read_f64(f, "/run", #name, &state->name));
#define LATER(name)                                                                                                    \
  state->name = 0;                                                                                                     \
  if (sh_h5_attr_exists(f, "/run", #name)) INT(name)
  SH_CK_STATE(INT, REAL, LATER)
#undef INT
#undef REAL
#undef LATER
  return SH_OK;
}

bool sh_ck_table_mine(const sh_ckpt_content *c, const sh_table *t) {
  const sh_axis *world = &c->grid->world;
  int64_t mine = t->local_rows > 0 ? t->position_first : -1, *all = sh_malloc((size_t)world->size * sizeof *all);
  sh_allgather(world, &mine, sizeof mine, all);
  bool first = mine >= 0;
  for (int r = 0; r < world->index; r++) first = first && all[r] != mine;
  free(all);
  return first;
}

bool sh_ck_dense_counts(const sh_ckpt_content *c, int index) {
  return c->params->row[index].split >= 0 || c->grid->tensor.index == 0;
}

bool sh_ck_dense_mine(const sh_ckpt_content *c, int index, const sh_slices *divided) {
  const sh_axis *data = &c->grid->data;
  return (divided || data->index == index % data->size) && sh_ck_dense_counts(c, index);
}

int64_t sh_ck_dense_part(const sh_params *p, int index, const sh_slices *divided, sh_rect *rect) {
  const sh_param *r = &p->row[index];
  int64_t base = r->offset;
  if (divided) {
    const sh_slice *own = &divided->slice[index];
    int64_t first = rect->local_start[0], last = first + rect->count[0], end = own->row + own->rows;
    int64_t from = first > own->row ? first : own->row, to = last < end ? last : end;
    if (from >= to) {
      *rect = (sh_rect){0};
      return 0;
    }
    rect->start[0] += from - first;
    rect->count[0] = to - from;
    rect->local_start[0] = from;
    base = own->at - own->row * r->local[1];
  }
  return base + rect->local_start[0] * r->local[1] + rect->local_start[1];
}
