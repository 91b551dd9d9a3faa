/* test_blocks.c - files and devices outside the store behind the block interface, and limits. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

static void path_of(const struct fixture *f, const char *name, char path[400]) {
  snprintf(path, 400, "%s/%s", f->directory, name);
}

static void make_file(const char *path, uint64_t bytes) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
  close(fd);
}

static struct sr_block *open_file(struct sr_port *p, const char *file, bool read_only) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b = NULL;
  o.read_only = read_only;
  assert_int_equal(sr_block_open(p, file, &o, &b), 0);
  return b;
}

static void files_are_read_and_written(void **state) {
  struct fixture *f = *state;
  char path[400], in[8192], out[8192], fd_name[32];
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  path_of(f, "disk", path);
  make_file(path, MIB + 1000);
  struct sr_block *b = open_file(p, path, false);
  assert_int_equal(sr_block_size_bytes(b), MIB); /* whole blocks of 4 KiB */
  assert_int_equal(sr_block_block_bytes(b), 512);
  assert_false(sr_block_read_only(b));
  fill_bytes(in, sizeof in, 1);
  assert_int_equal(sr_block_write(p, b, in, 4096, 8192, 0), 8192);
  assert_int_equal(sr_block_write(p, b, in, MIB - 512, 512, SR_DURABLE), 512);
  assert_int_equal(sr_block_read(p, b, out, 4096, 8192), 8192);
  assert_memory_equal(in, out, 8192);
  assert_int_equal(sr_block_read(p, b, out, MIB - 512, 512), 512);
  assert_memory_equal(in, out, 512);
  assert_int_equal(sr_block_write(p, b, in, MIB, 512, 0), -EINVAL);
  assert_int_equal(sr_block_write(p, b, in, MIB - 512, 1024, 0), -EINVAL);
  assert_int_equal(sr_block_write(p, b, in, UINT64_MAX - 511, 512, 0), -EINVAL);
  assert_int_equal(sr_block_read(p, b, out, 100, 512), -EINVAL);
  assert_int_equal(sr_block_flush(p, b), 0);
  assert_int_equal(sr_block_close(p, b), 0);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_int_equal(pread(fd, out, 8192, 4096), 8192);
  assert_memory_equal(in, out, 8192);
  assert_int_equal(lseek(fd, 0, SEEK_END), MIB + 1000); /* never grows */
  snprintf(fd_name, sizeof fd_name, "fd:%d", fd);
  b = open_file(p, fd_name, true);
  close(fd); /* it was duplicated */
  assert_true(sr_block_read_only(b));
  assert_int_equal(sr_block_read(p, b, out, 4096, 8192), 8192);
  assert_memory_equal(in, out, 8192);
  assert_int_equal(sr_block_write(p, b, in, 0, 512, 0), -EROFS);
  assert_int_equal(sr_block_close(p, b), 0);
  close_both(s, p);
}

static void what_is_no_file_is_refused(void **state) {
  struct fixture *f = *state;
  char path[400];
  struct sr_block *b = NULL;
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_block_open(p, f->directory, NULL, &b), -EISDIR);
  o.read_only = true;
  assert_int_equal(sr_block_open(p, f->directory, &o, &b), -EISDIR);
  o.read_only = false;
  path_of(f, "none", path);
  assert_int_equal(sr_block_open(p, path, NULL, &b), -ENOENT);
  assert_int_equal(sr_block_open(p, "/dev/null", NULL, &b), -EINVAL);
  assert_int_equal(sr_block_open(p, "fd:", NULL, &b), -EINVAL);
  assert_int_equal(sr_block_open(p, "fd:x", NULL, &b), -EINVAL);
  assert_int_equal(sr_block_open(p, "fd:1000000", NULL, &b), -EBADF);
  int pipes[2];
  assert_int_equal(pipe(pipes), 0);
  snprintf(path, sizeof path, "fd:%d", pipes[0]);
  o.read_only = true;
  assert_int_equal(sr_block_open(p, path, &o, &b), -EINVAL);
  o.read_only = false;
  close(pipes[0]);
  close(pipes[1]);
  path_of(f, "disk", path);
  make_file(path, MIB);
  o.block_bytes = 1024;
  assert_int_equal(sr_block_open(p, path, &o, &b), -EINVAL);
  o.block_bytes = 4096;
  o.on_shard = true;
  o.shard = 2;
  assert_int_equal(sr_block_open(p, path, &o, &b), -EINVAL);
  o.shard = 1;
  assert_int_equal(sr_block_open(p, path, &o, &b), 0);
  assert_int_equal(sr_block_block_bytes(b), 4096);
  char sector[512] = "";
  assert_int_equal(sr_block_write(p, b, sector, 0, 512, 0), -EINVAL);
  assert_int_equal(sr_block_close(p, b), 0);
  close_both(s, p);
}

static void there_are_64_of_them(void **state) {
  struct fixture *f = *state;
  struct sr_block *blocks[64], *more = NULL;
  char path[400], sector[512], out[512];
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  for (int turn = 0; turn < 2; turn++) { /* slots are used again */
    for (int i = 0; i < 64; i++) {
      snprintf(path, sizeof path, "%s/disk%d", f->directory, i);
      make_file(path, 64 << 10);
      blocks[i] = open_file(p, path, false);
      fill_bytes(sector, sizeof sector, 100 + i);
      if (turn == 0) assert_int_equal(sr_block_write(p, blocks[i], sector, 512, 512, 0), 512);
    }
    assert_int_equal(sr_block_open(p, path, NULL, &more), -EMFILE);
    for (int i = 0; i < 64; i++) {
      fill_bytes(sector, sizeof sector, 100 + i);
      assert_int_equal(sr_block_read(p, blocks[i], out, 512, 512), 512);
      assert_memory_equal(sector, out, 512);
    }
    for (int i = 63; i >= 0; i--) assert_int_equal(sr_block_close(p, blocks[i]), 0);
  }
  close_both(s, p);
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static struct sr_limits limits_of(uint64_t bytes, uint64_t ops, const char *group) {
  struct sr_limits l = SR_LIMITS_INIT;
  if (bytes) l.bytes = (struct sr_bucket){bytes, 0, 1000};
  if (ops) l.ops = (struct sr_bucket){ops, 0, 1000};
  l.group = group;
  return l;
}

static void assert_limits(struct sr_port *p, const char *name, uint64_t bytes, uint64_t ops,
                          const char *group) {
  struct sr_limits l = SR_LIMITS_INIT;
  char in[64];
  assert_int_equal(sr_volume_limits(p, name, &l, in), 0);
  assert_int_equal(l.bytes.size, bytes);
  assert_int_equal(l.bytes.refill_ms, bytes ? 1000 : 0);
  assert_int_equal(l.ops.size, ops);
  assert_string_equal(in, group);
}

static void limits_are_kept(void **state) {
  struct fixture *f = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_volume_info info;
  v.size_bytes = MIB;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_volume_create(p, "v", &v), 0);
  assert_limits(p, "v", 0, 0, "");
  struct sr_limits l = limits_of(1 << 20, 1000, "tenant");
  assert_int_equal(sr_volume_limit(p, "v", &l), 0);
  l = limits_of(0, 5000, NULL);
  assert_int_equal(sr_group_limit(p, "tenant", &l), 0);
  assert_int_equal(sr_store_limit(p, &l), 0);
  assert_limits(p, "v", 1 << 20, 1000, "tenant");
  close_both(s, p);
  s = open_store(f);
  p = open_port(s);
  assert_limits(p, "v", 1 << 20, 1000, "tenant");
  struct sr_limits got = SR_LIMITS_INIT;
  assert_int_equal(sr_group_limits(p, "tenant", &got), 0);
  assert_int_equal(got.ops.size, 5000);
  assert_int_equal(got.bytes.size, 0);
  assert_int_equal(sr_store_limits(p, &got), 0);
  assert_int_equal(got.ops.size, 5000);
  assert_int_equal(sr_group_limits(p, "nobody", &got), -ENOENT);
  assert_int_equal(sr_volume_stat(p, "v", &info), 0);
  assert_string_equal(info.group, "tenant");
  l = limits_of(0, 7, NULL);
  struct sr_block *b;
  assert_int_equal(sr_volume_open(p, "v", NULL, &b), 0);
  assert_int_equal(sr_volume_limit(p, "v", &l), 0); /* live, and out of the group */
  assert_limits(p, "v", 0, 7, "");
  l = limits_of(0, 0, NULL);
  assert_int_equal(sr_volume_limit(p, "v", &l), 0);
  assert_int_equal(sr_store_limit(p, &l), 0);
  assert_limits(p, "v", 0, 0, "");
  assert_int_equal(sr_block_close(p, b), 0);
  close_both(s, p);
}

/* The store's limit holds for a volume that has none of its own, from the call on, until it is
 * lifted. */
static void the_store_limits_every_volume(void **state) {
  struct fixture *f = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_request requests[3], *all[3], *done[3];
  char data[512];
  v.size_bytes = MIB;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct sr_block *b;
  assert_int_equal(sr_volume_create(p, "v", &v), 0);
  assert_int_equal(sr_volume_open(p, "v", NULL, &b), 0);
  assert_int_equal(sr_block_read(p, b, data, 0, 512), 512);
  struct sr_limits l = SR_LIMITS_INIT;
  l.ops = (struct sr_bucket){.size = 2, .refill_ms = 1u << 30};
  assert_int_equal(sr_store_limit(p, &l), 0);
  for (uint32_t i = 0; i < 3; i++) {
    requests[i] = request_of_op(SR_OP_READ, 0, data, 512);
    requests[i].block = b;
    all[i] = &requests[i];
  }
  assert_int_equal(sr_port_submit(p, all, 3), 3);
  for (int n = 0; n < 2;) {
    assert_int_equal(sr_port_wait(p, -1), 1);
    n += sr_port_reap(p, done, 3);
    assert_true(n <= 2);
  }
  assert_int_equal(sr_port_wait(p, 20000000), 0); /* the third has to wait */
  l.ops = (struct sr_bucket){0};
  assert_int_equal(sr_store_limit(p, &l), 0);
  assert_int_equal(sr_port_wait(p, -1), 1);
  assert_int_equal(sr_port_reap(p, done, 3), 1);
  for (uint32_t i = 0; i < 3; i++) assert_int_equal(requests[i].result, 512);
  assert_int_equal(sr_block_close(p, b), 0);
  close_both(s, p);
}

static void bad_limits(void **state) {
  struct fixture *f = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_limits l = SR_LIMITS_INIT;
  char long_name[80];
  v.size_bytes = MIB;
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_volume_create(p, "v", &v), 0);
  assert_int_equal(sr_volume_limit(p, "v", NULL), -EINVAL);
  l.ops = (struct sr_bucket){0, 10, 0};
  assert_int_equal(sr_volume_limit(p, "v", &l), -EINVAL);
  l.ops = (struct sr_bucket){0, 0, 1000};
  assert_int_equal(sr_volume_limit(p, "v", &l), -EINVAL);
  l.ops = (struct sr_bucket){10, 0, 0};
  assert_int_equal(sr_volume_limit(p, "v", &l), -EINVAL);
  assert_int_equal(sr_group_limit(p, "g", &l), -EINVAL);
  assert_int_equal(sr_store_limit(p, &l), -EINVAL);
  l = limits_of(0, 10, "a/b");
  assert_int_equal(sr_volume_limit(p, "v", &l), -EINVAL);
  memset(long_name, 'g', sizeof long_name);
  long_name[64] = 0;
  l.group = long_name;
  assert_int_equal(sr_volume_limit(p, "v", &l), -ENAMETOOLONG);
  long_name[63] = 0;
  assert_int_equal(sr_volume_limit(p, "v", &l), 0);
  l.group = "x";
  assert_int_equal(sr_group_limit(p, "g", &l), -EINVAL);
  l.group = NULL;
  assert_int_equal(sr_group_limit(p, "", &l), -EINVAL);
  assert_int_equal(sr_volume_limit(p, "none", &l), -ENOENT);
  assert_limits(p, "v", 0, 10, long_name);
  close_both(s, p);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {TEST(files_are_read_and_written),
                                     TEST(what_is_no_file_is_refused),
                                     TEST(there_are_64_of_them),
                                     TEST(limits_are_kept),
                                     TEST(bad_limits),
                                     TEST(the_store_limits_every_volume)};
  return cmocka_run_group_tests_name("blocks", tests, NULL, NULL);
}
