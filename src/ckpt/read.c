/* ckpt/read.c: file -> state. The first rank checks what the file is before any rank reads arrays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/layout.h"
#include "core/arena.h"
#include "mpi/coll.h"

typedef struct reader {
  sh_ckpt_content *c;
  const char *path;
  sh_h5 *f;
  sh_ck_list want; /* arrays of this model */
  uint64_t *sums;  /* of what this rank has read and counts */
  sh_run_state state;
} reader;

/* "it has model.layers: 8, not 2" when the stored configuration says so. */
static void explain(sh_h5 *f, const sh_ck_list *have, const sh_config *mine, char *out, size_t size) {
  char *text = NULL, what[600];
  sh_config *stored = sh_malloc(sizeof *stored);
  sh_config_defaults(stored);
  out[0] = '\0';
  if (sh_ck_read_text(f, have, "/config", &text) == SH_OK) {
    if (sh_config_read_text(stored, text, "checkpoint") == SH_OK &&
        sh_config_differs(stored, mine, "model", what, sizeof what))
      snprintf(out, size, " (the checkpoint has %s)", what);
    free(text);
  }
  free(stored);
}

static sh_status another(reader *r, sh_h5 *f, const sh_ck_list *have, const char *difference) {
  char why[640];
  explain(f, have, r->c->config, why, sizeof why);
  return sh_fail(SH_ERR_DATA, "%s: a checkpoint of another model%s: %s", r->path, why, difference);
}

static sh_status compare_arrays(reader *r, sh_h5 *f, const sh_ck_list *have) {
  char a[48], b[48], text[512];
  for (int i = 0; i < r->want.n; i++) {
    const sh_ck_array *w = &r->want.array[i], *h = sh_ck_find(have, w->path);
    if (!h) {
      snprintf(text, sizeof text, "array %s (%s) is not in the file", w->path, sh_ck_shape(w, a));
      return another(r, f, have, text);
    }
    if (h->dim[0] == w->dim[0] && h->dim[1] == w->dim[1] && h->ndim == w->ndim && h->type == w->type) continue;
    snprintf(text, sizeof text, "array %s is %s in the file, %s in this run", w->path, sh_ck_shape(h, a),
             sh_ck_shape(w, b));
    return another(r, f, have, text);
  }
  for (int i = 0; i < have->n; i++) {
    const sh_ck_array *h = &have->array[i];
    size_t n = strlen(h->path);
    bool weights = strncmp(h->path, "/params/", 8) == 0;
    weights = weights || (strncmp(h->path, "/tables/", 8) == 0 && n > 5 && strcmp(h->path + n - 5, "/rows") == 0);
    if (!weights || sh_ck_find(&r->want, h->path)) continue;
    snprintf(text, sizeof text, "array %s (%s) of the file is not in this run", h->path, sh_ck_shape(h, a));
    return another(r, f, have, text);
  }
  return SH_OK;
}

/* Rows lie in the order of shards: the same offsets mean the same order. */
static sh_status compare_offsets(reader *r, sh_h5 *f, const sh_ck_list *have, const sh_table *t) {
  char path[SH_CK_PATH];
  int64_t bad;
  snprintf(path, sizeof path, "/tables/%s/offsets", t->conf.name);
  const sh_ck_array *a = sh_ck_find(have, path);
  SH_TRY(sh_ck_check(f, a, &bad));
  int64_t *stored = sh_malloc((size_t)sh_ck_bytes(a));
  sh_status status = sh_h5_read(f, path, SH_H5_I64, (int64_t[2]){0, 0}, a->dim, 0, stored);
  if (status == SH_OK && memcmp(stored, t->shard_start, (size_t)sh_ck_bytes(a)) != 0)
    status = sh_fail(SH_ERR_DATA, "%s: table %s is cut into other shards than in this run", r->path, t->conf.name);
  free(stored);
  return status;
}

/* The same number of rows may be of other things. */
static sh_status compare_vocabulary(reader *r, sh_h5 *f, const sh_table *t) {
  char group[96], stored[sizeof t->conf.vocabulary];
  snprintf(group, sizeof group, "/tables/%s", t->conf.name);
  if (!t->conf.vocabulary[0] || !sh_h5_attr_exists(f, group, "vocabulary")) return SH_OK;
  SH_TRY(sh_h5_attr_read_text(f, group, "vocabulary", stored, sizeof stored));
  if (!strcmp(stored, t->conf.vocabulary)) return SH_OK;
  return sh_fail(
      SH_ERR_DATA,
      "%s: the rows of table %s are of other keys, or in another order, than the data set's; prepare the data "
      "as it was for training",
      r->path, t->conf.name);
}

/* On the first rank alone: format, digest, arrays, state. */
static sh_status check_file(reader *r, bool weights_only) {
  sh_ck_list have;
  sh_h5 *f;
  SH_TRY(sh_ck_open(&f, r->path, &have));
  sh_status status = compare_arrays(r, f, &have);
  for (int t = 0; t < r->c->ntables && status == SH_OK; t++) status = compare_offsets(r, f, &have, r->c->table[t]);
  for (int t = 0; t < r->c->ntables && status == SH_OK; t++) status = compare_vocabulary(r, f, r->c->table[t]);
  if (status == SH_OK && !weights_only) status = sh_ck_read_state(f, &r->state);
  for (int i = 0; i < r->want.n && status == SH_OK; i++) { /* the file's own block length rules */
    sh_ck_array *w = &r->want.array[i];
    const sh_ck_array *h = sh_ck_find(&have, w->path);
    w->block = h->block, w->nblocks = h->nblocks;
    if (w->unit != h->unit)
      status = sh_fail(SH_ERR_DATA, "%s: %s: checksums over units of %lld elements, expected %lld", r->path, w->path,
                       (long long)h->unit, (long long)w->unit);
  }
  sh_ck_list_free(&have);
  sh_h5_close(f, false);
  return status;
}

static void number_sums(reader *r) {
  const sh_axis *world = &r->c->grid->world;
  sh_bcast(world, r->want.array, (size_t)r->want.n * sizeof *r->want.array, 0);
  r->want.nsums = 0;
  for (int i = 0; i < r->want.n; i++) {
    r->want.array[i].first_sum = r->want.nsums;
    r->want.nsums += r->want.array[i].nblocks;
  }
  r->sums = sh_calloc((size_t)r->want.nsums + 1, sizeof *r->sums);
}

/* The first data-parallel copy reads and hands to the others, or each reads the rows that it has: a file is read once,
 * not once a rank. */
static sh_status get_dense(reader *r, const char *folder, float *base, const sh_slices *divided) {
  const sh_params *p = r->c->params;
  const sh_grid *g = r->c->grid;
  char path[SH_CK_PATH];
  for (int i = 0; i < p->n; i++) {
    const sh_param *row = &p->row[i];
    if (row->tie >= 0) continue;
    snprintf(path, sizeof path, "%s/%s", folder, row->name);
    const sh_ck_array *a = sh_ck_find(&r->want, path);
    sh_rect rect[SH_PARAM_SEGMENTS];
    int n = sh_param_rects(p, i, rect);
    for (int k = 0; k < n; k++) {
      float *to = base + sh_ck_dense_part(p, i, divided, &rect[k]);
      if (!divided && g->data.index != 0) rect[k] = (sh_rect){0};
      SH_TRY(sh_h5_read(r->f, path, SH_H5_F32, rect[k].start, rect[k].count, row->local[1], to));
      if (sh_ck_dense_counts(r->c, i)) sh_ck_sum_rect(r->sums, a, &rect[k], to, row->local[1]);
    }
    if (!divided) sh_bcast(&g->data, base + row->offset, (size_t)row->size * sizeof *base, 0);
  }
  return SH_OK;
}

static sh_status get_rows(reader *r, sh_table *t, const char *name, float *rows, int width, bool mine) {
  char path[SH_CK_PATH];
  snprintf(path, sizeof path, "/tables/%s/%s", t->conf.name, name);
  int64_t start[2] = {t->position_first, 0}, count[2] = {t->local_rows, width};
  SH_TRY(sh_h5_read(r->f, path, SH_H5_F32, start, count, 0, rows));
  const sh_ck_array *a = sh_ck_find(&r->want, path);
  if (mine) sh_ck_sum(r->sums, a, start[0], count[0], rows);
  return SH_OK;
}

static sh_status get_table(reader *r, sh_table *t, bool weights_only) {
  bool mine = sh_ck_table_mine(r->c, t);
  SH_TRY(get_rows(r, t, "rows", t->rows, t->conf.width, mine));
  for (int k = 0; k < t->nstate && !weights_only; k++)
    SH_TRY(get_rows(r, t, t->state_name[k], t->state[k], t->state_width[k], mine));
  return SH_OK;
}

/* Everyone's parts added up must be what is stored; the first rank compares. */
static sh_status compare_sums(reader *r) {
  const sh_axis *world = &r->c->grid->world;
  char path[SH_CK_PATH + 16];
  const sh_ck_array *bad = NULL;
  int64_t bad_block = 0;
  sh_status status = SH_OK;
  sh_sum_i64(world, (int64_t *)r->sums, r->want.nsums);
  uint64_t *stored = sh_calloc((size_t)r->want.nsums + 1, sizeof *stored);
  for (int i = 0; i < r->want.n && status == SH_OK; i++) {
    const sh_ck_array *a = &r->want.array[i];
    if (a->type != SH_H5_F32) continue; /* offsets: checked before */
    snprintf(path, sizeof path, "/checksums%s", a->path);
    int64_t count[2] = {world->index == 0 ? a->nblocks : 0, 1};
    status = sh_h5_read(r->f, path, SH_H5_U64, (int64_t[2]){0, 0}, count, 0, stored + a->first_sum);
    for (int64_t b = 0; b < count[0] && !bad && status == SH_OK; b++)
      if (stored[a->first_sum + b] != r->sums[a->first_sum + b]) bad = a, bad_block = b;
  }
  free(stored);
  if (status != SH_OK) return status;
  return sh_agree(world, bad ? sh_ck_bad_block(r->path, bad, bad_block) : SH_OK);
}

static sh_status get_content(reader *r, bool weights_only) {
  sh_ckpt_content *c = r->c;
  char folder[96];
  SH_TRY(get_dense(r, "/params", c->params->value, NULL));
  for (int m = 0; m < c->nmoments && !weights_only; m++) {
    snprintf(folder, sizeof folder, "/optim/%s", c->moment_name[m]);
    SH_TRY(get_dense(r, folder, c->moment[m], c->divided));
  }
  for (int t = 0; t < c->ntables; t++) SH_TRY(get_table(r, c->table[t], weights_only));
  return compare_sums(r);
}

static sh_status read_all(reader *r, bool weights_only) {
  const sh_axis *world = &r->c->grid->world;
  sh_ck_plan(&r->want, r->c, weights_only);
  SH_TRY(sh_agree(world, world->index == 0 ? check_file(r, weights_only) : SH_OK));
  number_sums(r);
  SH_TRY(sh_h5_open(&r->f, r->path, world));
  sh_status status = get_content(r, weights_only);
  sh_h5_close(r->f, false);
  if (status == SH_OK && !weights_only) {
    sh_bcast(world, &r->state, sizeof r->state, 0);
    *r->c->state = r->state;
  }
  return status;
}

sh_status sh_ckpt_read(sh_ckpt_content *c, const char *path, bool weights_only) {
  reader r = {.c = c, .path = path};
  sh_status status = read_all(&r, weights_only);
  sh_ck_list_free(&r.want);
  free(r.sums);
  return status;
}

static sh_status config_text(const char *path, char **text) {
  sh_ck_list have;
  sh_h5 *f;
  SH_TRY(sh_ck_open(&f, path, &have));
  sh_status status = sh_ck_read_text(f, &have, "/config", text);
  sh_ck_list_free(&have);
  sh_h5_close(f, false);
  return status;
}

sh_status sh_ckpt_read_config(const sh_grid *g, const char *path, sh_config *out) {
  char *text = NULL;
  bool root = g->world.index == 0;
  SH_TRY(sh_agree(&g->world, root ? config_text(path, &text) : SH_OK));
  size_t n = text ? strlen(text) + 1 : 0;
  sh_bcast(&g->world, &n, sizeof n, 0);
  if (!root) text = sh_malloc(n);
  sh_bcast(&g->world, text, n, 0);
  sh_config_defaults(out);
  sh_status status = sh_config_read_text(out, text, path);
  free(text);
  return status == SH_OK ? SH_OK : sh_fail_context(SH_ERR_DATA, "the configuration stored in the checkpoint");
}
