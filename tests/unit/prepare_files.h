/* Files of tests of shoal prepare, in the folder of support/folder.h. */
#ifndef PREPARE_FILES_H
#define PREPARE_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>

#include "data/dataset.h"
#include "shoal/data.h"
#include "support/folder.h"

static inline void put_bytes(const char *name, const void *bytes, size_t n) {
  FILE *f = fopen(in_folder(name), "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

static inline void put_text(const char *name, const char *text) { put_bytes(name, text, strlen(text)); }

static inline void put_gzip(const char *name, const char *text) {
  gzFile f = gzopen(in_folder(name), "wb");
  assert_non_null(f);
  assert_int_equal(gzwrite(f, text, (unsigned)strlen(text)), (int)strlen(text));
  assert_int_equal(gzclose(f), Z_OK);
}

static inline void cut_file(const char *name, int64_t bytes_off) {
  struct stat st;
  assert_int_equal(stat(in_folder(name), &st), 0);
  assert_int_equal(truncate(in_folder(name), st.st_size - bytes_off), 0);
}

/* Prepare one file `name` to out.h5. */
static inline sh_status prepare_one(sh_prepare_options o, const char *name, sh_data_report *r, FILE *warnings) {
  const char *inputs[1] = {in_folder(name)};
  o.ninputs = 1;
  o.inputs = inputs;
  o.output = in_folder("out.h5");
  return sh_prepare(&o, r, warnings);
}

/* Prepare a text; fails the test with the message when that fails. */
static inline sh_data_report prepare_text(sh_prepare_options o, const char *text) {
  sh_data_report r;
  put_text("in", text);
  sh_status status = prepare_one(o, "in", &r, NULL);
  if (status != SH_OK) fail_msg("sh_prepare: %s", sh_error_message());
  return r;
}

/* A whole set as text: "user: item@time*action item ...\n"; without times or actions those are left out. */
static inline const char *set_text(void) {
  static char text[1 << 16];
  sh_dataset d;
  if (sh_dataset_open(&d, in_folder("out.h5")) != SH_OK) fail_msg("sh_dataset_open: %s", sh_error_message());
  size_t at = 0;
  text[0] = '\0';
  for (int64_t u = 0; u < d.users; u++) {
    char key[1100];
    assert_int_equal(sh_dataset_user_key(&d, u, key, sizeof key), SH_OK);
    at += (size_t)snprintf(text + at, sizeof text - at, "%s:", key);
    for (int64_t e = d.offsets[u]; e < d.offsets[u + 1]; e++) {
      int64_t item, time;
      float action;
      assert_int_equal(sh_dataset_items(&d, e, 1, &item), SH_OK);
      assert_int_equal(sh_dataset_item_key(&d, item, key, sizeof key), SH_OK);
      at += (size_t)snprintf(text + at, sizeof text - at, " %s", key);
      if (d.has_time) {
        assert_int_equal(sh_dataset_times(&d, e, 1, &time), SH_OK);
        at += (size_t)snprintf(text + at, sizeof text - at, "@%lld", (long long)time);
      }
      if (d.has_action) {
        assert_int_equal(sh_dataset_actions(&d, e, 1, &action), SH_OK);
        at += (size_t)snprintf(text + at, sizeof text - at, "*%g", (double)action);
      }
    }
    at += (size_t)snprintf(text + at, sizeof text - at, "\n");
  }
  sh_dataset_close(&d);
  return text;
}

#endif
