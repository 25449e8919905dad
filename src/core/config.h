/* core/config.h: one schema (schema.def), YAML files, key=value overrides.
 *
 * A module receives its own section's struct, never the whole configuration.
 */
#ifndef SH_CORE_CONFIG_H
#define SH_CORE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "shoal/names.h" /* sh_nearest */
#include "shoal/status.h"

enum { SH_TEXT = 256, SH_ENUM = 32 };

#define SECTION(section, help) typedef struct sh_conf_##section {
#define END(section)                                                                                                   \
  }                                                                                                                    \
  sh_conf_##section;
#define INT(key, value, min, max, help)  int64_t key;
#define REAL(key, value, min, max, help) double key;
#define BOOL(key, value, help)           bool key;
#define TEXT(key, value, help)           char key[SH_TEXT];
#define ENUM(key, value, names, help)    char key[SH_ENUM];
#include "core/schema.def"
#undef SECTION
#undef END
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef ENUM

typedef struct sh_config {
#define SECTION(section, help) sh_conf_##section section;
#define END(section)
#define INT(key, value, min, max, help)
#define REAL(key, value, min, max, help)
#define BOOL(key, value, help)
#define TEXT(key, value, help)
#define ENUM(key, value, names, help)
#include "core/schema.def"
#undef SECTION
#undef END
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef ENUM
} sh_config;

void sh_config_defaults(sh_config *c);

/* Read a YAML file of sections over what `c` holds. Errors (SH_ERR_USAGE) name file, line, key, what was found and
 * expected, and the nearest valid name. A key `base: other.yaml` at the top reads that file first (one level, path
 * relative to this file). */
sh_status sh_config_read(sh_config *c, const char *path);

/* The same from a string, e.g. the config stored in a checkpoint; `origin` stands in messages. */
sh_status sh_config_read_text(sh_config *c, const char *text, const char *origin);

/* "section.key=value" from the command line. */
sh_status sh_config_set(sh_config *c, const char *assignment);

/* Conflicts between keys (for example width not divisible by heads while dqk = 0). Call after all sources. */
sh_status sh_config_check(const sh_config *c);

/* The resolved configuration as YAML that sh_config_read accepts; free() the result. */
char *sh_config_text(const sh_config *c);

/* The first key of `sections` ("model loss"; NULL: all) in which a and b differ, as "model.layers: 2, not 8" in
 * out[size]; returns false when they agree. */
bool sh_config_differs(const sh_config *a, const sh_config *b, const char *sections, char *out, size_t size);

/* Every key with type, range, default and help. */
void sh_config_list(FILE *out);

#endif
