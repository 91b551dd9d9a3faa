/* make_corpus.c - writes the seed corpus: DIRECTORY/TARGET/NAME, from the real encoders. Always the
 * same bytes; a test compares them with what is in the tree.
 *
 *   make_corpus DIRECTORY */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/fuzz/make_corpus.h"

static const char *top;

static void make_directory(const char *path) {
  if (mkdir(path, 0777) == 0 || errno == EEXIST) return;
  perror(path);
  exit(1);
}

void corpus_add(const char *target, const char *name, const void *bytes, size_t count) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", top, target);
  make_directory(path);
  snprintf(path, sizeof path, "%s/%s/%s", top, target, name);
  FILE *out = fopen(path, "wb");
  if (!out || fwrite(bytes, 1, count, out) != count || fclose(out) != 0) {
    perror(path);
    exit(1);
  }
}

void corpus_add_text(const char *target, const char *name, const char *text) {
  corpus_add(target, name, text, strlen(text));
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: make_corpus DIRECTORY\n");
    return 2;
  }
  top = argv[1];
  make_directory(top);
  corpus_format();
  corpus_log();
  corpus_region();
  corpus_image();
  corpus_text();
  corpus_volume();
  corpus_message();
  corpus_ring();
  corpus_vhost();
  return 0;
}
