/* One user a line, oldest item first: `user item item ...`. There are no times: the order is the file's. */
#include "data/prepare.h"

static bool line(sh_source *s, char *text, size_t length) {
  (void)length;
  sh_field word;
  if (!sh_next_word(&text, &word)) return true;
  return sh_words_push(s, sh_source_user(s, word.text, word.length), text);
}

const sh_format sh_format_sequences = {"sequences", sh_words_begin, line, sh_words_item};
