#include "data/textfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "core/arena.h"

enum { CHUNK = 1 << 20 };
static const size_t longest = (size_t)1 << 30;

sh_status sh_textfile_open(sh_textfile *t, const char *path) {
  *t = (sh_textfile){.path = path};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return sh_fail(SH_ERR_DATA, "%s: cannot be opened: %s", path, strerror(errno));
  struct stat st;
  if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && st.st_size == 0)) {
    const char *what = S_ISDIR(st.st_mode) ? "is a folder, expected a file" : "is empty, expected lines of events";
    close(fd);
    return sh_fail(SH_ERR_DATA, "%s: %s", path, what);
  }
  t->gz = gzdopen(fd, "rb");
  if (!t->gz) {
    close(fd);
    return sh_fail(SH_ERR_INTERNAL, "%s: zlib cannot read it", path);
  }
  gzbuffer(t->gz, CHUNK / 4);
  t->size = CHUNK;
  t->buffer = sh_malloc(t->size + 1);
  return SH_OK;
}

void sh_textfile_close(sh_textfile *t) {
  if (t->gz) gzclose_r(t->gz);
  free(t->buffer);
  *t = (sh_textfile){0};
}

static sh_status read_failure(sh_textfile *t) {
  int code = Z_OK;
  const char *text = gzerror(t->gz, &code);
  if (code == Z_ERRNO) return sh_fail(SH_ERR_INTERNAL, "%s: read failed: %s", t->path, strerror(errno));
  if (code == Z_BUF_ERROR)
    return sh_fail(SH_ERR_DATA, "%s: truncated gzip file: it ends inside its data, after line %lld", t->path,
                   (long long)t->line);
  return sh_fail(SH_ERR_DATA, "%s: damaged gzip file after line %lld (%s)", t->path, (long long)t->line, text);
}

/* Move what is left to the front, make room, append. */
static sh_status refill(sh_textfile *t) {
  size_t left = t->end - t->begin;
  memmove(t->buffer, t->buffer + t->begin, left);
  t->begin = 0, t->end = left;
  if (t->size - left < CHUNK / 2) {
    if (t->size >= longest)
      return sh_fail(SH_ERR_DATA, "%s:%lld: line longer than 1 GiB: this is not a text file of events", t->path,
                     (long long)t->line + 1);
    t->size *= 2;
    t->buffer = sh_realloc(t->buffer, t->size + 1);
  }
  size_t room = t->size - t->end;
  int n = gzread(t->gz, t->buffer + t->end, (unsigned)(room < CHUNK ? room : CHUNK));
  int code = Z_OK;
  gzerror(t->gz, &code);
  if (n < 0 || (n == 0 && code != Z_OK && code != Z_STREAM_END)) return read_failure(t);
  if (n == 0) t->at_end = true;
  t->end += (size_t)n;
  return SH_OK;
}

sh_status sh_textfile_line(sh_textfile *t, char **line, size_t *length) {
  size_t searched = 0;
  char *newline = NULL;
  *line = NULL;
  *length = 0;
  for (;;) {
    size_t have = t->end - t->begin;
    if (have > searched) newline = memchr(t->buffer + t->begin + searched, '\n', have - searched);
    if (newline || t->at_end) break;
    searched = have;
    SH_TRY(refill(t));
  }
  if (!newline && t->begin == t->end) return SH_OK;
  char *start = t->buffer + t->begin, *stop = newline ? newline : t->buffer + t->end;
  t->begin = newline ? (size_t)(newline + 1 - t->buffer) : t->end;
  if (stop > start && stop[-1] == '\r') stop--;
  *stop = '\0';
  if (t->line == 0 && stop - start >= 3 && memcmp(start, "\xEF\xBB\xBF", 3) == 0) start += 3;
  t->line++;
  *line = start;
  *length = (size_t)(stop - start);
  return SH_OK;
}
