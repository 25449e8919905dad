/* YAML files to configurations, through libyaml's document interface: it keeps the line of every node. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "core/arena.h"
#include "core/config_keys.h"

enum { WHERE = 512, LARGEST = 1 << 24 };

typedef struct reader {
  sh_config *config;
  const char *origin;
  const char *path; /* of the file, for `base`; NULL for a text */
  bool is_base;
  yaml_document_t document;
} reader;

static const char *place(const reader *r, const yaml_node_t *node, char out[WHERE]) {
  snprintf(out, WHERE, "%s:%zu", r->origin, node->start_mark.line + 1);
  return out;
}

static yaml_node_t *node_of(reader *r, int id) { return yaml_document_get_node(&r->document, id); }
static const char *text_of(const yaml_node_t *node) { return (const char *)node->data.scalar.value; }

/* The name of pair `at` of a mapping; fails on names that are no plain text and on names seen before. */
static sh_status pair_name(reader *r, const yaml_node_t *map, const yaml_node_pair_t *at, const char *prefix,
                           const char **name) {
  char where[WHERE];
  const yaml_node_t *key = node_of(r, at->key);
  if (key->type != YAML_SCALAR_NODE || strlen(text_of(key)) != key->data.scalar.length)
    return sh_fail(SH_ERR_USAGE, "%s: found a key that is not plain text", place(r, key, where));
  *name = text_of(key);
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < at; p++) {
    const yaml_node_t *other = node_of(r, p->key);
    if (!strcmp(text_of(other), *name))
      return sh_fail(SH_ERR_USAGE, "%s: %s%s is given twice, first on line %zu", place(r, key, where), prefix, *name,
                     other->start_mark.line + 1);
  }
  return SH_OK;
}

static bool is_null(const yaml_node_t *value) {
  const char *text = text_of(value);
  return value->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && (!*text || !strcmp(text, "~") || !strcmp(text, "null"));
}

static sh_status read_value(reader *r, const sh_key *k, const yaml_node_t *name, const yaml_node_t *value) {
  char where[WHERE];
  place(r, value->type == YAML_SCALAR_NODE && is_null(value) ? name : value, where);
  if (value->type != YAML_SCALAR_NODE)
    return sh_fail(SH_ERR_USAGE, "%s: %s.%s: found a %s, expected one value", where, k->section, k->name,
                   value->type == YAML_SEQUENCE_NODE ? "list" : "mapping");
  if (strlen(text_of(value)) != value->data.scalar.length)
    return sh_fail(SH_ERR_USAGE, "%s: %s.%s: found a zero byte in the value", where, k->section, k->name);
  if (is_null(value)) {
    if (k->kind == SH_KEY_TEXT) return sh_key_set(r->config, k, where, "");
    return sh_fail(SH_ERR_USAGE, "%s: %s.%s has no value", where, k->section, k->name);
  }
  return sh_key_set(r->config, k, where, text_of(value));
}

static sh_status read_section(reader *r, int section, const yaml_node_t *map) {
  const sh_key_section *s = &sh_keys()->section[section];
  char where[WHERE], prefix[64];
  if (map->type == YAML_SCALAR_NODE && is_null(map)) return SH_OK; /* a heading with all keys commented out */
  if (map->type != YAML_MAPPING_NODE)
    return sh_fail(SH_ERR_USAGE, "%s: section %s: found a %s, expected keys with values", place(r, map, where), s->name,
                   map->type == YAML_SEQUENCE_NODE ? "list" : "single value");
  snprintf(prefix, sizeof prefix, "%s.", s->name);
  for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    const char *name;
    SH_TRY(pair_name(r, map, p, prefix, &name));
    int k = sh_keys_find(section, name);
    if (k < 0) return sh_keys_unknown(place(r, node_of(r, p->key), where), section, name);
    SH_TRY(read_value(r, &sh_keys()->key[k], node_of(r, p->key), node_of(r, p->value)));
  }
  return SH_OK;
}

static sh_status read_file(sh_config *c, const char *path, bool is_base);

static sh_status read_base(reader *r, const yaml_node_t *key, const yaml_node_t *value) {
  char where[WHERE], path[4096];
  place(r, key, where);
  if (r->is_base) return sh_fail(SH_ERR_USAGE, "%s: a base file cannot have a base of its own", where);
  if (!r->path) return sh_fail(SH_ERR_USAGE, "%s: base: only a file can have a base", where);
  if (value->type != YAML_SCALAR_NODE || !*text_of(value))
    return sh_fail(SH_ERR_USAGE, "%s: base: expected the name of a file", where);
  const char *slash = strrchr(r->path, '/'), *name = text_of(value);
  int folder = slash && name[0] != '/' ? (int)(slash - r->path) + 1 : 0;
  snprintf(path, sizeof path, "%.*s%s", folder, r->path, name);
  sh_status status = read_file(r->config, path, true);
  return status == SH_OK ? SH_OK : sh_fail_context(status, "%s: base", where);
}

static sh_status read_root(reader *r, const yaml_node_t *root) {
  char where[WHERE];
  if (root->type == YAML_SCALAR_NODE && is_null(root)) return SH_OK; /* nothing but comments */
  if (root->type != YAML_MAPPING_NODE)
    return sh_fail(SH_ERR_USAGE, "%s: found no sections, expected e.g. 'model:' with indented keys below",
                   place(r, root, where));
  yaml_node_pair_t *pairs = root->data.mapping.pairs.start, *end = root->data.mapping.pairs.top;
  const char *name;
  for (yaml_node_pair_t *p = pairs; p < end; p++) {
    SH_TRY(pair_name(r, root, p, "", &name));
    if (!strcmp(name, "base")) SH_TRY(read_base(r, node_of(r, p->key), node_of(r, p->value)));
  }
  for (yaml_node_pair_t *p = pairs; p < end; p++) {
    name = text_of(node_of(r, p->key));
    if (!strcmp(name, "base")) continue;
    int section = sh_keys_section(name, strlen(name));
    if (section < 0) return sh_keys_unknown_section(place(r, node_of(r, p->key), where), name);
    SH_TRY(read_section(r, section, node_of(r, p->value)));
  }
  return SH_OK;
}

static sh_status not_yaml(const reader *r, const yaml_parser_t *parser) {
  size_t line = parser->problem_mark.line + 1;
  const char *problem = parser->problem ? parser->problem : "out of memory";
  return sh_fail(SH_ERR_USAGE, "%s:%zu: not valid YAML: %s", r->origin, line, problem);
}

static sh_status read_document(reader *r, yaml_parser_t *parser) {
  if (!yaml_parser_load(parser, &r->document)) return not_yaml(r, parser);
  yaml_node_t *root = yaml_document_get_root_node(&r->document);
  sh_status status = root ? read_root(r, root) : SH_OK;
  yaml_document_delete(&r->document);
  if (status != SH_OK || !root) return status;
  yaml_document_t next;
  if (!yaml_parser_load(parser, &next)) return not_yaml(r, parser);
  yaml_node_t *more = yaml_document_get_root_node(&next);
  if (more) {
    char where[WHERE];
    status = sh_fail(SH_ERR_USAGE, "%s: found a second YAML document, expected one", place(r, more, where));
  }
  yaml_document_delete(&next);
  return status;
}

/* All or nothing: on failure `c` keeps what it held. */
static sh_status read_bytes(sh_config *c, const char *text, size_t length, const char *origin, const char *path,
                            bool is_base) {
  sh_config *fresh = sh_malloc(sizeof *fresh);
  *fresh = *c;
  reader r = {.config = fresh, .origin = origin, .path = path, .is_base = is_base};
  yaml_parser_t parser;
  sh_status status;
  if (yaml_parser_initialize(&parser)) {
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    status = read_document(&r, &parser);
    yaml_parser_delete(&parser);
  } else {
    status = sh_fail(SH_ERR_INTERNAL, "%s: libyaml could not be started", origin);
  }
  if (status == SH_OK) *c = *fresh;
  free(fresh);
  return status;
}

static sh_status read_file(sh_config *c, const char *path, bool is_base) {
  FILE *f = fopen(path, "rb");
  if (!f) return sh_fail(SH_ERR_USAGE, "%s: cannot be read: %s", path, strerror(errno));
  char *text = NULL;
  size_t n = 0, room = 0;
  do {
    room = room ? 2 * room : 8192;
    text = sh_realloc(text, room);
    n += fread(text + n, 1, room - n, f);
  } while (n == room && room < LARGEST);
  sh_status status = SH_OK;
  if (ferror(f)) status = sh_fail(SH_ERR_USAGE, "%s: cannot be read: %s", path, strerror(errno));
  if (n == room) status = sh_fail(SH_ERR_USAGE, "%s: larger than %d MiB, not a configuration", path, LARGEST >> 20);
  fclose(f);
  if (status == SH_OK) status = read_bytes(c, text, n, path, path, is_base);
  free(text);
  return status;
}

sh_status sh_config_read(sh_config *c, const char *path) { return read_file(c, path, false); }

sh_status sh_config_read_text(sh_config *c, const char *text, const char *origin) {
  return read_bytes(c, text, strlen(text), origin, NULL, false);
}
