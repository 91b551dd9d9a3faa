/* json.c - see json.h. The only file that includes jansson. */
#include "api/control/json.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A node of ours is a node of theirs; the cast is made in these two places only. */
static json_t *theirs(const struct js *node) { return (json_t *)(uintptr_t)node; }
static struct js *ours(json_t *node) {
  if (!node) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  return (struct js *)node;
}

struct js *js_object(void) {
  return ours(json_object());
}
struct js *js_array(void) {
  return ours(json_array());
}

struct js *js_add(struct js *parent, const char *key, struct js *child) {
  int r = key ? json_object_set_new(theirs(parent), key, theirs(child))
              : json_array_append_new(theirs(parent), theirs(child));
  if (r < 0) ours(NULL);
  return child;
}

void js_text(struct js *parent, const char *key, const char *text) {
  json_t *node = json_string(text);
  if (!node) {
    char *ascii = strdup(text);
    for (char *p = ascii; p && *p; p++)
      if (*p & 0x80) *p = '?';
    node = ascii ? json_string(ascii) : NULL;
    free(ascii);
  }
  js_add(parent, key, ours(node));
}

void js_count(struct js *parent, const char *key, uint64_t value) {
  js_add(parent, key, ours(json_integer((json_int_t)value)));
}
void js_real(struct js *parent, const char *key, double value) {
  js_add(parent, key, ours(isfinite(value) ? json_real(value) : json_null()));
}
void js_bool(struct js *parent, const char *key, bool value) {
  js_add(parent, key, ours(json_boolean(value)));
}

int js_write(const struct js *root, FILE *out) {
  int r = json_dumpf(theirs(root), out, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
  return r < 0 || fputc('\n', out) == EOF || fflush(out) == EOF ? -EIO : 0;
}
void js_free(struct js *root) { json_decref(theirs(root)); }

struct js *js_read(FILE *in, char *why, size_t why_bytes) {
  json_error_t e;
  json_t *root = json_loadf(in, JSON_DECODE_ANY, &e);
  if (!root) snprintf(why, why_bytes, "line %d: %s", e.line, e.text);
  return (struct js *)root;
}

/* How deep containers lie inside one another; brackets in texts do not count. Of text that is no
 * JSON the answer is not below what a parser would reach. */
static unsigned depth_of(const char *text, size_t bytes) {
  unsigned depth = 0, most = 0;
  bool quoted = false;
  for (size_t i = 0; i < bytes; i++) {
    if (quoted && text[i] == '\\') {
      i++;
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && (text[i] == '{' || text[i] == '[')) {
      if (++depth > most) most = depth;
    } else if (!quoted && (text[i] == '}' || text[i] == ']') && depth > 0) {
      depth--;
    }
  }
  return most;
}

struct js *js_parse(const char *text, size_t bytes, unsigned depth_max, char *why,
                    size_t why_bytes) {
  json_error_t e;
  if (depth_of(text, bytes) > depth_max) {
    snprintf(why, why_bytes, "more than %u containers inside one another", depth_max);
    return NULL;
  }
  json_t *root = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e);
  if (!root) snprintf(why, why_bytes, "byte %d: %s", e.position, e.text);
  return (struct js *)root;
}

char *js_line(const struct js *root) {
  char *line = json_dumps(theirs(root), JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
  if (!line) ours(NULL);
  return line;
}

const struct js *js_find(const struct js *root, const char *path) {
  const json_t *node = theirs(root);
  while (node && *path) {
    char key[128];
    size_t n = strcspn(path, "/");
    snprintf(key, sizeof(key), "%.*s", (int)n, path);
    node = json_is_array(node) ? json_array_get(node, strtoul(key, NULL, 10))
                               : json_object_get(node, key);
    path += n + (path[n] == '/');
  }
  return (const struct js *)node;
}

bool js_is_text(const struct js *node) { return node && json_is_string(theirs(node)); }
bool js_is_number(const struct js *node) { return node && json_is_number(theirs(node)); }
bool js_is_bool(const struct js *node) { return node && json_is_boolean(theirs(node)); }
bool js_is_object(const struct js *node) { return node && json_is_object(theirs(node)); }
bool js_is_array(const struct js *node) { return node && json_is_array(theirs(node)); }
const char *js_text_of(const struct js *node) {
  return js_is_text(node) ? json_string_value(theirs(node)) : "";
}
double js_number_of(const struct js *node) {
  if (!node) return 0;
  return json_is_boolean(theirs(node)) ? json_is_true(theirs(node))
                                       : json_number_value(theirs(node));
}
size_t js_size(const struct js *node) {
  if (!node) return 0;
  return json_is_array(theirs(node)) ? json_array_size(theirs(node))
                                     : json_object_size(theirs(node));
}

bool js_count_of(const struct js *node, uint64_t *value) {
  if (!node || !json_is_integer(theirs(node)) || json_integer_value(theirs(node)) < 0) return false;
  *value = (uint64_t)json_integer_value(theirs(node));
  return true;
}

struct js *js_copy(const struct js *node) {
  return ours(json_deep_copy(theirs(node)));
}

const struct js *js_member(const struct js *object, const char *key) {
  return object ? (const struct js *)json_object_get(theirs(object), key) : NULL;
}

int js_each(const struct js *object, int (*fn)(void *arg, const char *key, const struct js *value),
            void *arg) {
  const char *key;
  json_t *value;
  if (!object) return 0;
  json_object_foreach(theirs(object), key, value) {
    int r = fn(arg, key, (const struct js *)value);
    if (r) return r;
  }
  return 0;
}
