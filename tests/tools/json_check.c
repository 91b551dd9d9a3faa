/* json_check.c - asks a JSON file questions, for the tests of the tools.
 *
 *   json_check FILE [QUESTION...]
 *     PATH           is there
 *     PATH=TEXT      is that text, or number, or true/false
 *     PATH>NUMBER    is a number above it
 *     PATH#COUNT     has so many members
 * Exit status 0 if the file is one JSON value and every answer is yes. */
#include "api/control/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool holds(const struct js *node, char relation, const char *value) {
  char *end;
  double number = strtod(value, &end);
  bool numeric = *value && *end == 0;
  if (!node) return false;
  if (relation == '=' && js_is_text(node)) return strcmp(js_text_of(node), value) == 0;
  if (relation == '=' && strcmp(value, "true") == 0)
    return !js_is_number(node) && js_number_of(node);
  if (relation == '=' && strcmp(value, "false") == 0)
    return !js_is_number(node) && js_size(node) == 0 && js_number_of(node) == 0;
  if (relation == '=') return numeric && js_is_number(node) && js_number_of(node) == number;
  if (relation == '>') return numeric && js_is_number(node) && js_number_of(node) > number;
  if (relation == '#') return numeric && (double)js_size(node) == number;
  return true;
}

static int ask(const struct js *root, const char *question) {
  char path[512];
  size_t n = strcspn(question, "=>#");
  snprintf(path, sizeof(path), "%.*s", (int)n, question);
  const struct js *node = js_find(root, path);
  if (holds(node, question[n], question[n] ? question + n + 1 : "")) return 0;
  fprintf(stderr, "no: %s (it is %s%.15g%s)\n", question, node ? "" : "missing ",
          js_number_of(node), js_text_of(node));
  return 1;
}

int main(int argc, char **argv) {
  char why[256];
  int bad = 0;
  FILE *f = argc > 1 ? fopen(argv[1], "re") : NULL;
  if (!f) return perror(argc > 1 ? argv[1] : "json_check FILE [QUESTION...]"), 2;
  struct js *root = js_read(f, why, sizeof(why));
  fclose(f);
  if (!root) return fprintf(stderr, "%s: %s\n", argv[1], why), 1;
  for (int i = 2; i < argc; i++) bad |= ask(root, argv[i]);
  js_free(root);
  return bad;
}
