/* make_stream.c - the stream of changes that makes file OLD file NEW, for the tests of shard-ctl,
 * which has no other way to change a part of a volume.
 *
 *   make_stream OLD NEW NAME   to stdout; NAME is that of the snapshot with OLD in it
 *
 * Both are whole sectors. */
#include "tools/volume_stream.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint64_t size_of(FILE *f) {
  fseek(f, 0, SEEK_END);
  uint64_t bytes = (uint64_t)ftell(f);
  rewind(f);
  return bytes;
}

/* What is beyond a file's end is zeros. */
static void next_unit(FILE *f, char unit[STREAM_UNIT]) {
  memset(unit, 0, STREAM_UNIT);
  if (fread(unit, 1, STREAM_UNIT, f) == 0) clearerr(f);
}

static int compare(struct stream_writer *w, FILE *before, FILE *after, uint64_t size) {
  static const char zeros[STREAM_UNIT];
  char a[STREAM_UNIT], b[STREAM_UNIT];
  int r = 0;
  for (uint64_t at = 0; at < size && r == 0; at += STREAM_UNIT) {
    uint32_t n = size - at < STREAM_UNIT ? (uint32_t)(size - at) : STREAM_UNIT;
    next_unit(before, a);
    next_unit(after, b);
    if (memcmp(a, b, n) == 0) continue;
    r = memcmp(b, zeros, n) == 0 ? stream_write_zeros(w, at, n) : stream_write_data(w, at, b, n);
  }
  return r;
}

int main(int argc, char **argv) {
  FILE *before = argc == 4 ? fopen(argv[1], "rb") : NULL;
  FILE *after = argc == 4 ? fopen(argv[2], "rb") : NULL;
  struct stream_info info = {.incremental = true, .block_bytes = 512, .to = "made"};
  struct stream_writer w;
  if (!before || !after) return 2;
  info.from_size_bytes = size_of(before);
  info.size_bytes = size_of(after);
  snprintf(info.from, sizeof(info.from), "%s", argv[3]);
  int r = stream_write_begin(&w, STDOUT_FILENO, &info);
  if (r == 0) r = compare(&w, before, after, info.size_bytes);
  if (r == 0) r = stream_write_end(&w);
  fclose(before);
  fclose(after);
  return r == 0 ? 0 : 1;
}
