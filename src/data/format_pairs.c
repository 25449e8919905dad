/* One event a line: `user item`. There are no times: the order of a user's events is the file's. */
#include "data/prepare.h"

static bool line(sh_source *s, char *text, size_t length) {
  (void)length;
  sh_field user_word, item_word, more;
  if (!sh_next_word(&text, &user_word) || !sh_next_word(&text, &item_word) || sh_next_word(&text, &more))
    return sh_source_fault(s, "expected two words: user item");
  int64_t user = sh_source_user(s, user_word.text, user_word.length), item;
  if (user < 0 || (item = sh_source_item(s, item_word.text, item_word.length)) < 0) return false;
  sh_source_push(s, user, item, 0, 0);
  return true;
}

const sh_format sh_format_pairs = {"pairs", sh_words_begin, line, sh_words_item};
