/* test_raw_loop.c - the ceiling really moves the bytes that it counts, and refuses nonsense. */
#include "tools/raw_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILE_BLOCKS 64u
#define BLOCK       4096u

static char path[4096];

static void write_file(const char *bytes, size_t n) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, n), n);
  assert_int_equal(fsync(fd), 0);
  close(fd);
}

static int make_file(void **state) {
  static char bytes[FILE_BLOCKS * BLOCK];
  const char *directory = getenv("TMPDIR");
  (void)state;
  snprintf(path, sizeof(path), "%s/raw_loop.%d", directory ? directory : "/tmp", (int)getpid());
  write_file(bytes, sizeof(bytes));
  return 0;
}
static int remove_file(void **state) {
  (void)state;
  return unlink(path);
}

static struct raw_loop_options options(const char *const *paths) {
  return (struct raw_loop_options){
      .paths = paths, .path_count = 1, .block_bytes = BLOCK, .depth = 16, .batch = 4};
}

static void refused(const struct raw_loop_options *o, int error) {
  struct raw_loop *loop;
  char why[256] = "";
  assert_int_equal(raw_loop_create(&loop, o, why, sizeof(why)), error);
  assert_null(loop);
  assert_true(strlen(why) > 0);
}

static void bad_options(void **state) {
  const char *const here[] = {path}, *const nowhere[] = {"/nowhere/at/all"}, *const dir[] = {"/"};
  struct raw_loop_options o = options(here);
  (void)state;
  o.depth = 0, refused(&o, -EINVAL);
  o = options(here), o.batch = 17, refused(&o, -EINVAL);
  o = options(here), o.batch = 0, refused(&o, -EINVAL);
  o = options(here), o.block_bytes = 100, refused(&o, -EINVAL);
  o = options(here), o.path_count = 0, refused(&o, -EINVAL);
  o = options(here), o.depth = RAW_LOOP_DEPTH_MAX + 1, refused(&o, -EINVAL);
  o = options(here), o.skip_bytes = FILE_BLOCKS * BLOCK, refused(&o, -ENOSPC);
  o = options(nowhere), refused(&o, -ENOENT);
  o = options(dir);
  struct raw_loop *loop;
  assert_true(raw_loop_create(&loop, &o, NULL, 0) < 0);
}

static uint64_t run(const struct raw_loop_options *o, uint64_t ns) {
  struct raw_loop *loop;
  struct raw_loop_result result;
  char why[256];
  uint64_t sum = 0;
  if (raw_loop_create(&loop, o, why, sizeof(why)) < 0) fail_msg("%s", why);
  for (int i = 0; i < 2; i++) { /* in slices */
    assert_int_equal(raw_loop_run(loop, ns, &result), 0);
    assert_true(result.ops > 0);
    assert_true(o->nop || result.bytes == result.ops * o->block_bytes);
    assert_true(result.elapsed_ns >= ns);
    sum += result.ops;
  }
  assert_true(strlen(raw_loop_flags(loop)) > 0);
  raw_loop_destroy(loop);
  return sum;
}

static void reads_and_nops(void **state) {
  const char *const here[] = {path, path};
  struct raw_loop_options o = options(here);
  (void)state;
  run(&o, 1000000);
  o.path_count = 2, o.depth = 7, o.batch = 7, run(&o, 1000000);
  o.sequential = true, o.batch = 1, run(&o, 1000000);
  o.path_count = 0, o.nop = true, run(&o, 1000000);
}

/* Writing one block after the other reaches every block of the span, and none outside of it. */
static void writes_what_it_says(void **state) {
  static char bytes[FILE_BLOCKS * BLOCK];
  const char *const here[] = {path};
  struct raw_loop_options o = options(here);
  (void)state;
  memset(bytes, 1, sizeof(bytes));
  write_file(bytes, sizeof(bytes));
  o.write = o.sequential = true;
  o.skip_bytes = 8 * BLOCK;
  o.span_bytes = 16 * BLOCK;
  uint64_t ops = 0;
  while (ops < 16) ops += run(&o, 5000000);
  int fd = open(path, O_RDONLY);
  assert_int_equal(read(fd, bytes, sizeof(bytes)), sizeof(bytes));
  close(fd);
  for (uint32_t i = 0; i < FILE_BLOCKS; i++) {
    bool inside = i >= 8 && i < 24;
    if ((bytes[i * BLOCK] != 1) != inside) fail_msg("block %u is wrong", i);
  }
}

/* A file that was cut short while it was in use: an error, no count of what was not read. */
static void short_reads_are_errors(void **state) {
  const char *const here[] = {path};
  struct raw_loop_options o = options(here);
  struct raw_loop *loop;
  struct raw_loop_result result;
  (void)state;
  assert_int_equal(raw_loop_create(&loop, &o, NULL, 0), 0);
  assert_int_equal(truncate(path, 0), 0);
  assert_int_equal(raw_loop_run(loop, 1000000, &result), -EIO);
  raw_loop_destroy(loop);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bad_options),
      cmocka_unit_test_setup(reads_and_nops, make_file),
      cmocka_unit_test_setup(writes_what_it_says, make_file),
      cmocka_unit_test_setup(short_reads_are_errors, make_file),
  };
  long r = syscall(__NR_io_uring_setup, 0, NULL); /* refused by a filter or sysctl? */
  if (r < 0 && (errno == EPERM || errno == ENOSYS)) {
    fprintf(stderr, "skipped: io_uring is refused here: %s\n", strerror(errno));
    return 77;
  }
  return cmocka_run_group_tests(tests, make_file, remove_file);
}
