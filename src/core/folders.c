#include "core/folders.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

sh_status sh_sync_folder(const char *path, sh_status failure) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return sh_fail(failure, "%s: cannot open: %s", path, strerror(errno));
  int rc = fsync(fd), why = errno;
  close(fd);
  if (rc == 0 || why == EINVAL || why == EROFS) return SH_OK;
  return sh_fail(failure, "%s: cannot sync: %s", path, strerror(why));
}

/* The folder that `path` stands in: "." for a bare name. */
static void parent_of(const char *path, char out[PATH_MAX]) {
  snprintf(out, PATH_MAX, "%s", path);
  char *slash = strrchr(out, '/');
  if (!slash)
    snprintf(out, PATH_MAX, ".");
  else
    slash[slash == out] = '\0';
}

sh_status sh_make_folders(const char *path, bool sync, sh_status failure) {
  char part[PATH_MAX], above[PATH_MAX];
  size_t n = strlen(path);
  if (n >= sizeof part) return sh_fail(failure, "%s: %s", path, strerror(ENAMETOOLONG));
  for (size_t i = 1; i <= n; i++) {
    if (path[i] != '/' && path[i] != '\0') continue;
    snprintf(part, sizeof part, "%.*s", (int)i, path);
    if (mkdir(part, 0777) == 0) {
      parent_of(part, above);
      if (sync && access(above, R_OK) == 0) SH_TRY(sh_sync_folder(above, failure));
    } else if (errno != EEXIST) {
      return sh_fail(failure, "%s: cannot make the folder: %s", part, strerror(errno));
    }
  }
  return SH_OK;
}
