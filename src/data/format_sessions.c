/* One session a line, oldest item first, without a user: `item item ...`. The user key is the session's number over all
 * files, from 1. */
#include <stdio.h>

#include "data/prepare.h"

static sh_status begin(sh_source *s) {
  s->has_time = s->has_action = false;
  return SH_OK;
}

static bool line(sh_source *s, char *text, size_t length) {
  (void)length;
  char number[24];
  int n = snprintf(number, sizeof number, "%lld", (long long)s->raw->user.n + 1);
  int64_t user = sh_source_user(s, number, (size_t)n);
  sh_field word;
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

const sh_format sh_format_sessions = {"sessions", begin, line, item_line};
