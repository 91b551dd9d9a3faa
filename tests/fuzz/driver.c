/* driver.c - a fuzz target without a fuzzer: runs files, and all files of directories, through it
 * once. So corpus and regressions are tests in every build, with every compiler.
 *
 *   fuzz_TARGET PATH...    the last line says how many inputs there were; 1 if there were none */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static long run_file(const char *path, uint64_t bytes) {
  FILE *in = fopen(path, "rb");
  /* Exactly as long as the input: a sanitizer sees one byte too many. */
  uint8_t *data = fuzz_alloc(bytes);
  if (!in || fread(data, 1, bytes, in) != bytes) {
    perror(path);
    exit(1);
  }
  fclose(in);
  fprintf(stderr, "%s\n", path); /* if it ends here, this one did it */
  LLVMFuzzerTestOneInput(data, bytes);
  free(data);
  return 1;
}

static long run_path(const char *path, bool must_be) {
  struct stat st;
  if (stat(path, &st) != 0) {
    if (!must_be) return 0;
    perror(path);
    exit(1);
  }
  if (!S_ISDIR(st.st_mode)) return run_file(path, (uint64_t)st.st_size);
  struct dirent **names;
  long inputs = 0;
  int n = scandir(path, &names, NULL, alphasort);
  for (int i = 0; i < n; i++) {
    char name[4096];
    if (names[i]->d_name[0] != '.') {
      snprintf(name, sizeof name, "%s/%s", path, names[i]->d_name);
      inputs += run_path(name, true);
    }
    free(names[i]);
  }
  if (n >= 0) free(names);
  return inputs;
}

int main(int argc, char **argv) {
  long inputs = 0;
  LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
  for (int i = 1; i < argc; i++) inputs += run_path(argv[i], i == 1); /* regressions may be none */
  printf("%ld inputs\n", inputs);
  return inputs == 0;
}
