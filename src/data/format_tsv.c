/* Tab separated values with a header, no quotes. */
#include "data/delimited.h"

static const sh_delimited layout = {'\t', false, false};

static sh_status begin(sh_source *s) { return sh_delimited_begin(s, &layout); }

static bool line(sh_source *s, char *text, size_t length) { return sh_delimited_line(s, &layout, text, length); }

static bool item_line(sh_source *s, char *text, size_t length, sh_field *key) {
  return sh_delimited_item(s, &layout, text, length, key);
}

const sh_format sh_format_tsv = {"tsv", begin, line, item_line};
