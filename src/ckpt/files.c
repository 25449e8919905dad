/* ckpt/files.c: names, links and space. A name only ever changes by rename, so a reader finds the old or the new. */
#include "ckpt/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"
#include "core/arena.h"
#include "core/folders.h"
#include "mpi/coll.h"

static sh_status fail(const char *dir, const char *name, const char *what) {
  return sh_fail(SH_ERR_CKPT, "%s%s%s: cannot %s: %s", dir, name ? "/" : "", name ? name : "", what, strerror(errno));
}

static void join(char out[SH_CK_FILE], const char *dir, const char *name) {
  snprintf(out, SH_CK_FILE, "%s/%s", dir, name);
}

static bool ends_with(const char *name, const char *end) {
  size_t n = strlen(name), m = strlen(end);
  return n >= m && strcmp(name + n - m, end) == 0;
}

/* step-<digits>.h5, and with what a killed run leaves behind. */
static bool is_step(const char *name, const char *end) {
  if (strncmp(name, "step-", 5) != 0 || !ends_with(name, end)) return false;
  size_t digits = strspn(name + 5, "0123456789");
  return digits > 0 && strcmp(name + 5 + digits, end) == 0;
}

static int by_number(const void *a, const void *b) {
  long long x = atoll(*(char *const *)a + 5), y = atoll(*(char *const *)b + 5);
  return x < y ? -1 : x > y;
}

/* Names "step-<digits>" + end, oldest first; free each and the list. Negative: the folder cannot be read. */
static int list_steps(const char *dir, const char *end, char ***names) {
  DIR *d = opendir(dir);
  *names = NULL;
  if (!d) return -1;
  int n = 0;
  for (struct dirent *e = readdir(d); e; e = readdir(d)) {
    if (!is_step(e->d_name, end)) continue;
    *names = sh_realloc(*names, (size_t)(n + 1) * sizeof **names);
    (*names)[n++] = sh_strdup(e->d_name);
  }
  closedir(d);
  if (n > 1) qsort(*names, (size_t)n, sizeof **names, by_number);
  return n;
}

static void free_names(char **names, int n) {
  for (int i = 0; i < n; i++) free(names[i]);
  free(names);
}

sh_status sh_ck_folder_prepare(const char *dir, int64_t bytes) {
  char path[SH_CK_FILE], **names;
  struct statvfs disk;
  if (strlen(dir) + 64 >= SH_CK_FILE)
    return sh_fail(SH_ERR_CKPT, "the name of the checkpoint folder has %zu letters", strlen(dir));
  SH_TRY(sh_make_folders(dir, true, SH_ERR_CKPT));
  int n = list_steps(dir, ".h5.partial", &names);
  if (n < 0) return fail(dir, NULL, "read the folder");
  for (int i = 0; i < n; i++) {
    join(path, dir, names[i]);
    unlink(path);
  }
  free_names(names, n);
  if (statvfs(dir, &disk) == 0 && disk.f_blocks > 0) {
    double room = (double)disk.f_bavail * (double)disk.f_frsize;
    if (room < (double)bytes)
      return sh_fail(SH_ERR_CKPT, "%s: no space for a checkpoint: it takes %.1f MB, %.1f MB are free", dir,
                     1e-6 * (double)bytes, 1e-6 * room);
  }
  return SH_OK;
}

/* dir/link -> name in the same folder, symbolic or hard, replacing what stood there. */
static sh_status move_link(const char *dir, const char *name, const char *link_name, bool hard) {
  char target[SH_CK_FILE], at[SH_CK_FILE], fresh[SH_CK_FILE + 8];
  join(target, dir, name);
  join(at, dir, link_name);
  snprintf(fresh, sizeof fresh, "%s.new", at);
  unlink(fresh);
  int rc = hard ? link(target, fresh) : symlink(name, fresh);
  if (rc != 0) rc = hard ? symlink(name, fresh) : link(target, fresh); /* file systems that know only one kind */
  if (rc != 0 || rename(fresh, at) != 0) return fail(dir, link_name, "move the link");
  unlink(fresh); /* rename leaves it when both were already the same file */
  return sh_sync_folder(dir, SH_ERR_CKPT);
}

sh_status sh_ck_publish(const char *dir, const char *partial, const char *name) {
  char final[SH_CK_FILE];
  join(final, dir, name);
  if (rename(partial, final) != 0) return fail(dir, name, "rename the finished file");
  SH_TRY(sh_sync_folder(dir, SH_ERR_CKPT));
  return move_link(dir, name, "latest.h5", false);
}

/* The step file that a link stands for; "" without the link. */
static void link_target(const char *dir, const char *link_name, char out[SH_CK_FILE]) {
  char at[SH_CK_FILE], path[SH_CK_FILE], **names;
  struct stat a, b;
  out[0] = '\0';
  join(at, dir, link_name);
  if (stat(at, &a) != 0) return;
  int n = list_steps(dir, ".h5", &names);
  for (int i = 0; i < n; i++) {
    join(path, dir, names[i]);
    if (stat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev) snprintf(out, SH_CK_FILE, "%s", names[i]);
  }
  free_names(names, n);
}

static sh_status mark_best(const char *dir) {
  char newest[SH_CK_FILE];
  link_target(dir, "latest.h5", newest);
  if (!*newest) return sh_fail(SH_ERR_CKPT, "%s: no checkpoint to mark as the best: latest.h5 leads nowhere", dir);
  return move_link(dir, newest, "best.h5", true);
}

sh_status sh_ckpt_mark_best(const sh_ckpt_content *c, const char *dir) {
  const sh_axis *world = &c->grid->world;
  return sh_agree(world, world->index == 0 ? mark_best(dir) : SH_OK);
}

static bool is_link(const char *dir, const char *name) {
  char path[SH_CK_FILE];
  struct stat s;
  join(path, dir, name);
  return lstat(path, &s) == 0 && S_ISLNK(s.st_mode);
}

static sh_status prune(const char *dir, int keep) {
  char path[SH_CK_FILE], latest[SH_CK_FILE], best[SH_CK_FILE] = "", **names;
  sh_status status = SH_OK;
  link_target(dir, "latest.h5", latest);
  if (is_link(dir, "best.h5")) link_target(dir, "best.h5", best); /* a hard link keeps its content by itself */
  int n = list_steps(dir, ".h5", &names);
  if (n < 0) return fail(dir, NULL, "read the folder");
  for (int i = 0; i < n - keep && status == SH_OK; i++) {
    if (strcmp(names[i], latest) == 0 || strcmp(names[i], best) == 0) continue;
    join(path, dir, names[i]);
    if (unlink(path) != 0) status = fail(dir, names[i], "delete the old checkpoint");
  }
  free_names(names, n);
  return status;
}

sh_status sh_ckpt_prune(const sh_ckpt_content *c, const char *dir, int keep) {
  const sh_axis *world = &c->grid->world;
  return sh_agree(world, world->index == 0 ? prune(dir, keep) : SH_OK);
}
