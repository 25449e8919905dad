/* One session a line, oldest item first, without a user: `item item ...`. The user key is the session's number over all
 * files, from 1. */
#include <stdio.h>

#include "data/prepare.h"

static bool line(sh_source *s, char *text, size_t length) {
  (void)length;
  char number[24];
  int n = snprintf(number, sizeof number, "%lld", (long long)s->raw->user.n + 1);
  return sh_words_push(s, sh_source_user(s, number, (size_t)n), text);
}

const sh_format sh_format_sessions = {"sessions", sh_words_begin, line, sh_words_item};
