/* One user a line, oldest item first: `user item item ...`. There are no times: the order is the file's. */
#include "data/prepare.h"

static sh_status begin(sh_source *s) {
  s->has_time = s->has_action = false;
  return SH_OK;
}

static bool line(sh_source *s, char *text, size_t length) {
  (void)length;
  sh_field word;
  if (!sh_next_word(&text, &word)) return true;
  int64_t user = sh_source_user(s, word.text, word.length);
  while (user >= 0 && sh_next_word(&text, &word)) {
    int64_t item = sh_source_item(s, word.text, word.length);
    if (item < 0) return false;
    sh_source_push(s, user, item, 0, 0);
  }
  return user >= 0;
}

static bool item_line(sh_source *s, char *text, size_t length, sh_field *key) {
  (void)length;
  return sh_next_word(&text, key) || sh_source_fault(s, "no item key");
}

const sh_format sh_format_sequences = {"sequences", begin, line, item_line};
