/* core/config_keys.h: schema.def as a table, for the files that implement config.h. */
#ifndef SH_CORE_CONFIG_KEYS_H
#define SH_CORE_CONFIG_KEYS_H

#include "core/config.h"

typedef enum sh_key_kind { SH_KEY_INT, SH_KEY_REAL, SH_KEY_BOOL, SH_KEY_TEXT, SH_KEY_ENUM } sh_key_kind;

typedef struct sh_key {
  const char *section, *name;
  sh_key_kind kind;
  size_t offset; /* of the value in sh_config */
  double min, max;
  const char *names; /* enum: "a|b|c" */
  const char *help;
  union {
    int64_t i;
    double r;
    bool b;
    const char *s;
  } value; /* default */
} sh_key;

typedef struct sh_key_section {
  const char *name, *help;
  int first, n; /* its keys */
} sh_key_section;

enum { SH_CONFIG_SECTIONS = 32, SH_CONFIG_KEYS = 256 };

typedef struct sh_key_table {
  int sections, keys;
  sh_key_section section[SH_CONFIG_SECTIONS];
  sh_key key[SH_CONFIG_KEYS];
} sh_key_table;

const sh_key_table *sh_keys(void);

/* Section or key by name; -1 when there is none. */
int sh_keys_section(const char *name, size_t length);
int sh_keys_find(int section, const char *name);

/* "unknown key model.layer; nearest is model.layers": fails with `where` in front ("file:7", "command line"). */
sh_status sh_keys_unknown(const char *where, int section, const char *name);
sh_status sh_keys_unknown_section(const char *where, const char *name);

/* Parse `text` as the key's type, check its range and store it. */
sh_status sh_key_set(sh_config *c, const sh_key *k, const char *where, const char *text);

/* The value as text that sh_key_set accepts (no quotes). */
void sh_key_print(const sh_config *c, const sh_key *k, char *out, size_t size);
bool sh_key_equal(const sh_config *a, const sh_config *b, const sh_key *k);

#endif
