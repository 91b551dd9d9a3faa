/* device_testing.h - what the tests of this layer share: a scratch file, and giving up with a
 * reason. */
#ifndef TESTS_DEVICE_DEVICE_TESTING_H
#define TESTS_DEVICE_DEVICE_TESTING_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "shards/device/engine.h"

/* In $TMPDIR, else in the working directory, which is the build directory under meson: both
 * are on a disk, where direct I/O works. */
static inline void scratch_path(char *path, size_t bytes, const char *name) {
  const char *dir = getenv("TMPDIR");
  snprintf(path, bytes, "%s/%s-%d", dir && *dir ? dir : ".", name, (int)getpid());
}

/* A new file of so many bytes, reserved; the name is gone at once, the bytes with the close. */
static inline struct backing *scratch_file(const char *name, uint64_t bytes) {
  char path[512];
  struct backing *b;
  scratch_path(path, sizeof path, name);
  const struct backing_open how = {.exclusive_create = true};
  assert_int_equal(backing_open_path(&b, path, &how, NULL), 0);
  unlink(path);
  assert_int_equal(b->ops->resize(b, bytes, true), 0);
  return b;
}

static inline void *aligned_buffer(size_t bytes) {
  void *p = aligned_alloc(BLOCK_BYTES, bytes);
  assert_non_null(p);
  memset(p, 0, bytes);
  return p;
}

struct log_count {
  int warnings;
  char last[512];
};
static inline void count_log(void *arg, int level, const char *text) {
  struct log_count *c = arg;
  if (level <= 1) c->warnings++;
  snprintf(c->last, sizeof c->last, "%s", text);
}

#endif
