/* fuzz.c - see fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#include "shards/base/crc32c.h"
#include "shards/format.h"
#include "shards/log.h"

void *fuzz_alloc(size_t bytes) {
  void *p = malloc(bytes ? bytes : 1);
  check(p != NULL);
  return p;
}

void *fuzz_blocks(uint64_t blocks) {
  void *p = aligned_alloc(BLOCK_BYTES, blocks << BLOCK_SHIFT);
  check(p != NULL);
  memset(p, 0, blocks << BLOCK_SHIFT);
  return p;
}

char *fuzz_string(const void *from, size_t bytes) {
  char *s = fuzz_alloc(bytes + 1);
  if (bytes) memcpy(s, from, bytes);
  s[bytes] = 0;
  return s;
}

/* A checksum lies inside of what it covers, and counts as zero there. */
static void repair(char *buf, size_t bytes, size_t at) {
  memset(buf + at, 0, 4);
  uint32_t sum = crc32c(0, buf, bytes);
  memcpy(buf + at, &sum, 4);
}

void repair_identity(void *buf) {
  static const uint32_t version = FORMAT_VERSION;
  memcpy(buf, "SHARDRNG", 8);
  memcpy((char *)buf + 8, &version, 4);
  repair(buf, FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT, 12);
}

void repair_root(void *buf, size_t bytes) {
  memcpy(buf, "SHRDROOT", 8);
  repair(buf, bytes, 8);
}

uint32_t frame_bytes_of(const void *buf) {
  uint32_t payload;
  memcpy(&payload, (const char *)buf + 60, 4);
  if (payload > FRAME_BYTES_MAX - FRAME_HEADER_BYTES) return 0;
  return (uint32_t)(frame_blocks(payload) << BLOCK_SHIFT);
}

void repair_frame(void *buf) {
  uint32_t bytes = frame_bytes_of(buf);
  memcpy(buf, "SFRM", 4);
  if (bytes) repair(buf, bytes, 4);
}

static void ignore(void *arg, int level, const char *text) {
  (void)arg;
  check(text != NULL);
  if (getenv("FUZZ_SAY")) fprintf(stderr, "%d: %s\n", level, text);
}
const struct logger fuzz_silent = {ignore, NULL};
