#include "core/outfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

sh_status sh_outfile_place(sh_outfile *o, const char *path) {
  struct stat at;
  *o = (sh_outfile){0};
  bool there = stat(path, &at) == 0;
  if (strlen(path) >= sizeof o->path) return sh_fail(SH_ERR_INTERNAL, "%s: %s", path, strerror(ENAMETOOLONG));
  if (!there || !realpath(path, o->path)) snprintf(o->path, sizeof o->path, "%s", path);
  o->in_place = there && !S_ISREG(at.st_mode);
  snprintf(o->partial, sizeof o->partial, "%s%s", o->path, o->in_place ? "" : ".partial");
  return SH_OK;
}

sh_status sh_outfile_spare(const char *path, const char *input) {
  struct stat a, b;
  sh_outfile o;
  if (!path || !input || stat(input, &b) != 0 || !S_ISREG(b.st_mode)) return SH_OK;
  SH_TRY(sh_outfile_place(&o, path));
  for (int i = 0; i < 2; i++)
    if (stat(i ? o.partial : o.path, &a) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev)
      return sh_fail(SH_ERR_USAGE, "%s: is what is read from (%s), expected another file to write", path, input);
  return SH_OK;
}

sh_status sh_outfile_open(sh_outfile *o, const char *path) {
  SH_TRY(sh_outfile_place(o, path));
  o->f = fopen(o->partial, "w");
  return o->f ? SH_OK : sh_fail(SH_ERR_INTERNAL, "%s: cannot be written: %s", o->path, strerror(errno));
}

sh_status sh_outfile_close(sh_outfile *o, bool keep) {
  if (!o->f) return SH_OK;
  bool failed = ferror(o->f) != 0; /* of an earlier write: errno is of the last */
  failed |= fclose(o->f) != 0;
  o->f = NULL;
  if (!failed && keep && !o->in_place) failed = rename(o->partial, o->path) != 0;
  int why = errno;
  if (!o->in_place && (failed || !keep)) remove(o->partial);
  return failed && keep ? sh_fail(SH_ERR_INTERNAL, "%s: %s", o->path, strerror(why)) : SH_OK;
}
