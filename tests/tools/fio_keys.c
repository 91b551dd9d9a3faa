/* fio_keys.c - do readers of fio's JSON find in ours what they look for?
 *
 *   fio_keys FIO OURS [PATH...]
 *
 * Each path of FIO must be in OURS, with a value of the same type, but for the PATHs named (a * at
 * the end: all that begin so, there or not). Of arrays the first member stands for all. A PATH
 * without * that is in OURS after all is a mistake, too. */
#include "api/control/json.h"

#include <stdio.h>
#include <string.h>

struct walk {
  const struct js *ours;
  const char *path;
  char **left_out;
  int left_out_count, compared, bad;
};

static const char *type_of(const struct js *n) {
  uint64_t whole;
  if (js_is_text(n)) return "text";
  if (js_is_number(n)) return js_count_of(n, &whole) ? "a whole number" : "a number";
  return js_is_object(n) ? "an object" : js_is_array(n) ? "an array" : "true or false";
}

static bool matches(const char *pattern, const char *path) {
  size_t n = strlen(pattern);
  if (n > 0 && pattern[n - 1] == '*') return strncmp(pattern, path, n - 1) == 0;
  return strcmp(pattern, path) == 0;
}

/* The pattern; NULL. */
static const char *left_out_by(const struct walk *w, const char *path) {
  for (int i = 0; i < w->left_out_count; i++)
    if (matches(w->left_out[i], path)) return w->left_out[i];
  return NULL;
}

/* fio writes a rate as 5.000000; that ours has the same form is not needed to read it. */
static bool same_type(const struct js *theirs, const struct js *ours) {
  uint64_t whole;
  if (js_is_number(theirs) && js_is_number(ours))
    return !js_count_of(theirs, &whole) || js_count_of(ours, &whole);
  return strcmp(type_of(theirs), type_of(ours)) == 0;
}

static int compare(void *arg, const char *key, const struct js *theirs);

static void look_inside(struct walk *w, const char *path, const struct js *theirs,
                        const struct js *ours) {
  struct walk inner = *w;
  inner.path = path;
  inner.ours = ours;
  if (js_is_object(theirs)) js_each(theirs, compare, &inner);
  if (js_is_array(theirs) && js_size(theirs) > 0) compare(&inner, "0", js_find(theirs, "0"));
  w->bad = inner.bad;
  w->compared = inner.compared;
}

static int compare(void *arg, const char *key, const struct js *theirs) {
  struct walk *w = arg;
  char path[512];
  snprintf(path, sizeof(path), "%s%s%s", w->path, *w->path ? "/" : "", key);
  const struct js *ours = js_is_array(w->ours) ? js_find(w->ours, key) : js_member(w->ours, key);
  const char *left_out = left_out_by(w, path);
  if (left_out && (!ours || left_out[strlen(left_out) - 1] == '*')) return 0;
  w->compared++;
  if (left_out) {
    printf("%s: is said to be left out, and is there\n", path);
    w->bad++;
  } else if (!ours) {
    printf("%s: missing; fio has %s there\n", path, type_of(theirs));
    w->bad++;
  } else if (!same_type(theirs, ours)) {
    printf("%s: %s; fio has %s there\n", path, type_of(ours), type_of(theirs));
    w->bad++;
  } else {
    look_inside(w, path, theirs, ours);
  }
  return 0;
}

static struct js *read_file(const char *path) {
  char why[200];
  FILE *f = fopen(path, "re");
  struct js *root = f ? js_read(f, why, sizeof(why)) : NULL;
  if (!root) printf("%s: %s\n", path, f ? why : "cannot be opened");
  if (f) fclose(f);
  return root;
}

int main(int argc, char **argv) {
  if (argc < 3) return puts("fio_keys FIO OURS [PATH...]"), 2;
  struct js *theirs = read_file(argv[1]), *ours = read_file(argv[2]);
  if (!theirs || !ours) return 2;
  struct walk w = {.ours = ours, .path = "", .left_out = argv + 3, .left_out_count = argc - 3};
  js_each(theirs, compare, &w);
  printf("%d paths compared, %d bad\n", w.compared, w.bad);
  js_free(theirs);
  js_free(ours);
  return w.bad > 0 || w.compared < 50;
}
