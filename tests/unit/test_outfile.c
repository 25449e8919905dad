/* Files that appear whole: a new one, one that replaces another, a link, a pipe, one that is given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/outfile.h"
#include "support/folder.h"

static void write_text(const char *path, const char *text, bool keep) {
  sh_outfile o;
  assert_int_equal(sh_outfile_open(&o, path), SH_OK);
  fputs(text, o.f);
  assert_int_equal(sh_outfile_close(&o, keep), SH_OK);
  assert_null(o.f);
  assert_int_equal(sh_outfile_close(&o, keep), SH_OK); /* again: nothing */
}

static void holds(const char *path, const char *text) {
  char found[64] = "";
  FILE *f = fopen(path, "r");
  assert_non_null(f);
  found[fread(found, 1, sizeof found - 1, f)] = 0;
  fclose(f);
  assert_string_equal(found, text);
}

static bool missing(const char *path) { return access(path, F_OK) != 0; }

static void files(void **state) {
  (void)state;
  const char *path = in_folder("a"), *partial = in_folder("a.partial");
  write_text(path, "one", true);
  holds(path, "one");
  write_text(path, "two", false);
  holds(path, "one");
  write_text(path, "three", true);
  holds(path, "three");
  assert_true(missing(partial));
  sh_outfile o;
  assert_int_equal(sh_outfile_open(&o, in_folder("no/a")), SH_ERR_INTERNAL);
  assert_non_null(strstr(sh_error_message(), "no/a"));
  assert_null(o.f);
}

static void links(void **state) {
  (void)state;
  const char *target = in_folder("target"), *link = in_folder("link");
  write_text(target, "old", true);
  assert_int_equal(symlink(target, link), 0);
  write_text(link, "new", true);
  struct stat s;
  assert_int_equal(lstat(link, &s), 0);
  assert_true(S_ISLNK(s.st_mode));
  holds(target, "new");
}

/* A reader is there before the writer, or opening would wait. */
static void pipes(void **state) {
  (void)state;
  const char *path = in_folder("pipe");
  assert_int_equal(mkfifo(path, 0600), 0);
  int reader = open(path, O_RDONLY | O_NONBLOCK);
  assert_true(reader >= 0);
  write_text(path, "through", true);
  char found[16] = "";
  assert_int_equal(read(reader, found, sizeof found - 1), 7);
  assert_string_equal(found, "through");
  close(reader);
  struct stat s;
  assert_int_equal(lstat(path, &s), 0);
  assert_true(S_ISFIFO(s.st_mode));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(files), cmocka_unit_test(links), cmocka_unit_test(pipes)};
  return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
