/* RecBole's atomic .inter files: tab separated, header `name:type`. */
#include "data/delimited.h"

static const sh_delimited layout = {'\t', false, true};

static sh_status begin(sh_source *s) { return sh_delimited_begin(s, &layout); }

static bool line(sh_source *s, char *text, size_t length) { return sh_delimited_line(s, &layout, text, length); }

static bool item_line(sh_source *s, char *text, size_t length, sh_field *key) {
  return sh_delimited_item(s, &layout, text, length, key);
}

const sh_format sh_format_recbole = {"recbole", begin, line, item_line};
