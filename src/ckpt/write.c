/* ckpt/write.c: state -> file. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ckpt/files.h"
#include "ckpt/layout.h"
#include "core/arena.h"
#include "mpi/coll.h"
#include "shoal/version.h"

typedef struct writer {
  const sh_ckpt_content *c;
  sh_h5 *f;
  sh_ck_list list;
  uint64_t *sums; /* this rank's share of all checksums */
  char *config, *build, *written;
} writer;

static void plan(writer *w) {
  sh_ck_plan(&w->list, w->c, false);
  sh_ck_add(&w->list, "/config", SH_H5_U8, 1, (int64_t[2]){(int64_t)strlen(w->config), 1}, 1);
  sh_ck_add(&w->list, "/build", SH_H5_U8, 1, (int64_t[2]){(int64_t)strlen(w->build), 1}, 1);
  w->sums = sh_calloc((size_t)w->list.nsums + 1, sizeof *w->sums);
}

static int64_t bytes_of(const writer *w) {
  int64_t bytes = 1 << 20; /* headers, alignment */
  for (int i = 0; i < w->list.n; i++) bytes += sh_ck_bytes(&w->list.array[i]) + 8 * w->list.array[i].nblocks + 2048;
  return bytes;
}

/* Everything but the arrays' bytes, so that the digest and the file's size are known before any is written. */
static sh_status put_headers(writer *w) {
  sh_h5 *f = w->f;
  sh_ck_list *list = &w->list;
  const sh_run_state *state = w->c->state;
  char digest[17];
  SH_TRY(sh_ck_put_text(f, list, "/", "format", SH_CK_FORMAT));
  SH_TRY(sh_ck_put_i64(f, list, "/", "version", SH_CK_VERSION));
  SH_TRY(sh_ck_put_text(f, list, "/", "program", sh_version()));
  SH_TRY(sh_ck_put_text(f, list, "/", "commit", sh_commit()));
  SH_TRY(sh_ck_put_text(f, list, "/", "written", w->written));
  SH_TRY(sh_ck_put_i64(f, list, "/", "ranks", w->c->grid->world.size));
  SH_TRY(sh_ck_put_i64(f, list, "/", "parameters", sh_params_count(w->c->params)));
#define INT(name)  SH_TRY(sh_ck_put_i64(f, list, "/run", #name, state->name));
#define REAL(name) SH_TRY(sh_ck_put_f64(f, list, "/run", #name, state->name));
  SH_CK_STATE(INT, REAL, INT)
#undef INT
#undef REAL
  for (int i = 0; i < list->n; i++) SH_TRY(sh_ck_put_array(f, list, &list->array[i]));
  for (int t = 0; t < w->c->ntables; t++) {
    const sh_table_conf *conf = &w->c->table[t]->conf;
    char group[96];
    snprintf(group, sizeof group, "/tables/%s", conf->name);
    if (conf->vocabulary[0]) SH_TRY(sh_ck_put_text(f, list, group, "vocabulary", conf->vocabulary));
  }
  sh_ck_digest_text(list->digest, digest);
  SH_TRY(sh_h5_attr_write_text(f, "/", "digest", digest));
  return sh_h5_reserve(f);
}

static const sh_ck_array *array_of(const writer *w, const char *folder, const char *name) {
  char path[SH_CK_PATH];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return sh_ck_find(&w->list, path);
}

static sh_status put_dense(writer *w, const char *folder, const float *base, const sh_slices *divided) {
  const sh_params *p = w->c->params;
  for (int i = 0; i < p->n; i++) {
    if (p->row[i].tie >= 0) continue;
    const sh_ck_array *a = array_of(w, folder, p->row[i].name);
    sh_rect rect[SH_PARAM_SEGMENTS];
    int n = sh_param_rects(p, i, rect);
    int64_t ld = p->row[i].local[1];
    for (int k = 0; k < n; k++) {
      const float *from = base + sh_ck_dense_part(p, i, divided, &rect[k]);
      if (!sh_ck_dense_mine(w->c, i, divided)) rect[k] = (sh_rect){0};
      sh_ck_sum_rect(w->sums, a, &rect[k], from, ld);
      SH_TRY(sh_h5_write(w->f, a->path, SH_H5_F32, rect[k].start, rect[k].count, ld, from));
    }
  }
  return SH_OK;
}

static sh_status put_rows(writer *w, const sh_table *t, const char *name, const float *rows, int width, bool mine) {
  char folder[96];
  snprintf(folder, sizeof folder, "/tables/%s", t->conf.name);
  const sh_ck_array *a = array_of(w, folder, name);
  int64_t start[2] = {t->position_first, 0}, count[2] = {mine ? t->local_rows : 0, width};
  if (mine) sh_ck_sum(w->sums, a, start[0], count[0], rows);
  return sh_h5_write(w->f, a->path, SH_H5_F32, start, count, 0, rows);
}

/* A 1-d array that every rank knows; the first writes it. */
static sh_status put_whole(writer *w, const char *path, const void *data) {
  const sh_ck_array *a = sh_ck_find(&w->list, path);
  bool root = w->c->grid->world.index == 0;
  int64_t count[2] = {root ? a->dim[0] : 0, 1};
  if (root) sh_ck_sum(w->sums, a, 0, a->dim[0], data);
  return sh_h5_write(w->f, path, a->type, (int64_t[2]){0, 0}, count, 0, data);
}

static sh_status put_table(writer *w, const sh_table *t) {
  char path[SH_CK_PATH];
  bool mine = sh_ck_table_mine(w->c, t);
  snprintf(path, sizeof path, "/tables/%s/offsets", t->conf.name);
  SH_TRY(put_whole(w, path, t->shard_start));
  SH_TRY(put_rows(w, t, "rows", t->rows, t->conf.width, mine));
  for (int k = 0; k < t->nstate; k++) SH_TRY(put_rows(w, t, t->state_name[k], t->state[k], t->state_width[k], mine));
  return SH_OK;
}

static sh_status put_sums(writer *w) {
  char path[SH_CK_PATH + 16];
  const sh_axis *world = &w->c->grid->world;
  sh_sum_i64(world, (int64_t *)w->sums, w->list.nsums);
  for (int i = 0; i < w->list.n; i++) {
    const sh_ck_array *a = &w->list.array[i];
    snprintf(path, sizeof path, "/checksums%s", a->path);
    int64_t count[2] = {world->index == 0 ? a->nblocks : 0, 1};
    SH_TRY(sh_h5_write(w->f, path, SH_H5_U64, (int64_t[2]){0, 0}, count, 0, w->sums + a->first_sum));
  }
  return SH_OK;
}

static sh_status put_content(writer *w) {
  const sh_ckpt_content *c = w->c;
  char folder[96];
  SH_TRY(put_headers(w));
  SH_TRY(put_dense(w, "/params", c->params->value, NULL));
  for (int m = 0; m < c->nmoments; m++) {
    snprintf(folder, sizeof folder, "/optim/%s", c->moment_name[m]);
    SH_TRY(put_dense(w, folder, c->moment[m], c->divided));
  }
  for (int t = 0; t < c->ntables; t++) SH_TRY(put_table(w, c->table[t]));
  SH_TRY(put_whole(w, "/config", w->config));
  SH_TRY(put_whole(w, "/build", w->build));
  return put_sums(w);
}

/* On several ranks a failure between creating and closing shows at the close; here all ranks agree at once. */
static sh_status write_file(writer *w, const char *partial) {
  const sh_axis *world = &w->c->grid->world;
  SH_TRY(sh_h5_create(&w->f, partial, world));
  sh_status status = put_content(w);
  char first[1024] = "";
  if (status != SH_OK) snprintf(first, sizeof first, "%s", sh_error_message());
  sh_status closed = sh_h5_close(w->f, true);
  if (status != SH_OK) return sh_fail(status, "%s", first);
  return closed;
}

static sh_status write_all(writer *w, const char *dir) {
  const sh_axis *world = &w->c->grid->world;
  bool root = world->index == 0;
  char partial[SH_CK_FILE + 128], name[64];
  snprintf(name, sizeof name, "step-%012lld.h5", (long long)w->c->state->step);
  snprintf(partial, sizeof partial, "%s/%s.partial", dir, name);
  plan(w);
  SH_TRY(sh_agree(world, root ? sh_ck_folder_prepare(dir, bytes_of(w)) : SH_OK));
  if (write_file(w, partial) != SH_OK) {
    if (root) unlink(partial);
    return sh_fail_context(SH_ERR_CKPT, "checkpoint not written");
  }
  sh_status published = root ? sh_ck_publish(dir, partial, name) : SH_OK;
  if (published != SH_OK) unlink(partial);
  return sh_agree(world, published);
}

/* Texts that ranks may see differently (clock, path of a library) come from the first. Takes `text`, returns a copy. */
static char *share_text(const sh_axis *world, char *text) {
  size_t n = strlen(text);
  sh_bcast(world, &n, sizeof n, 0);
  text = sh_realloc(text, n + 1);
  sh_bcast(world, text, n + 1, 0);
  return text;
}

static char *time_text(void) {
  char *text = sh_calloc(1, 32);
  time_t now = time(NULL);
  struct tm utc;
  strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  return text;
}

sh_status sh_ckpt_write(const sh_ckpt_content *c, const char *dir) {
  const sh_axis *world = &c->grid->world;
  writer w = {.c = c};
  w.config = share_text(world, sh_config_text(c->config));
  w.build = share_text(world, sh_strdup(sh_build_info()));
  w.written = share_text(world, time_text());
  /* A file size limit shall be an error like a full disk, not the end of the process. */
  struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
  sigaction(SIGXFSZ, &ignore, &before);
  sh_status status = write_all(&w, dir);
  sigaction(SIGXFSZ, &before, NULL);
  sh_ck_list_free(&w.list);
  free(w.sums);
  free(w.config);
  free(w.build);
  free(w.written);
  return status;
}
