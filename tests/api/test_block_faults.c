/* test_block_faults.c - volumes and files on a device that fails: what stops, what goes on, and
 * what a crash leaves. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/faulty.h"

#define FILE_OF_SHARD_1 2 /* 0 is the root's */
#define STRIPE          65536u

static struct sr_block *make_volume(struct sr_port *p, const char *name, uint32_t shard) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  struct sr_block *b = NULL;
  o.size_bytes = MIB;
  o.on_shard = true;
  o.shard = shard;
  assert_int_equal(sr_volume_create(p, name, &o), 0);
  assert_int_equal(sr_volume_open(p, name, NULL, &b), 0);
  return b;
}

static void write_block(struct sr_port *p, struct sr_block *b, uint64_t at, const char *text) {
  static char block[4096];
  snprintf(block, sizeof block, "%s", text);
  assert_int_equal(sr_block_write(p, b, block, at, sizeof block, 0), sizeof block);
}

static void expect_block(struct sr_port *p, struct sr_block *b, uint64_t at, const char *text) {
  static char block[4096];
  assert_int_equal(sr_block_read(p, b, block, at, sizeof block), sizeof block);
  assert_string_equal(block, text);
}

static void expect_stopped(struct sr_port *p, struct sr_block *b) {
  static char block[4096];
  assert_int_equal(sr_block_write(p, b, block, 0, 4096, SR_DURABLE), -EIO);
  assert_int_equal(sr_block_write(p, b, block, 512 * 1024, 4096, 0), -EIO);
  assert_int_equal(sr_block_write_zeroes(p, b, 4096, 4096, 0), -EIO);
}

static void a_failed_flush_stops_the_volumes_of_its_shard(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  struct sr_block *stops = make_volume(p, "stops", 1), *same = make_volume(p, "same", 1);
  struct sr_block *other = make_volume(p, "other", 2);
  write_block(p, stops, 4096, "flushed");
  write_block(p, same, 4096, "flushed");
  assert_int_equal(sr_flush(p), 0);
  write_block(p, stops, 8192, "lost");
  write_block(p, other, 4096, "other");
  fail_io(IO_FLUSH, FILE_OF_SHARD_1, 0);
  assert_int_equal(sr_block_flush(p, stops), -EIO);
  fail_nothing();
  assert_int_equal(atomic_load(&faults.hits), 1); /* never tried again */
  assert_int_equal(sr_block_flush(p, stops), -EIO);
  assert_int_equal(sr_block_flush(p, same), 0); /* all of it is durable */
  expect_stopped(p, stops);
  expect_stopped(p, same);
  assert_int_equal(sr_block_discard(p, stops, 4096, 4096), -EIO);
  assert_int_equal(sr_volume_snapshot(p, "stops", "snapshot"), -EIO);
  o.size_bytes = MIB;
  o.on_shard = true;
  o.shard = 1;
  assert_int_equal(sr_volume_create(p, "new", &o), -EIO);
  expect_block(p, stops, 4096, "flushed");
  expect_block(p, stops, 8192, "lost");
  assert_int_equal(sr_block_flush(p, other), 0);
  assert_int_equal(sr_block_close(p, stops), 0);
  assert_int_equal(sr_block_close(p, same), 0);
  assert_int_equal(sr_block_close(p, other), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  assert_int_equal(sr_volume_open(p, "stops", NULL, &stops), 0);
  assert_int_equal(sr_volume_open(p, "other", NULL, &other), 0);
  expect_block(p, stops, 4096, "flushed");
  expect_block(p, other, 4096, "other");
  write_block(p, stops, 0, "goes on");
  assert_int_equal(sr_block_flush(p, stops), 0);
  assert_int_equal(sr_block_close(p, stops), 0);
  assert_int_equal(sr_block_close(p, other), 0);
  close_both(s, p);
}

static void a_failed_flush_stops_its_file(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b, *other;
  char path[400];
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/disk%d", f->directory, i);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, MIB), 0);
    close(fd);
    assert_int_equal(sr_block_open(p, path, &o, i ? &b : &other), 0);
  }
  write_block(p, b, 0, "new");
  fail_io(IO_FLUSH, FILE_OF_SHARD_1 + 2, 0); /* files outside come after the store's */
  assert_int_equal(sr_block_flush(p, b), -EIO);
  fail_nothing();
  assert_int_equal(atomic_load(&faults.hits), 1);
  assert_int_equal(sr_block_flush(p, b), -EIO);
  expect_stopped(p, b);
  expect_block(p, b, 0, "new");
  write_block(p, other, 0, "other");
  assert_int_equal(sr_block_flush(p, other), 0);
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(sr_block_close(p, b), 0);
  assert_int_equal(sr_block_open(p, path, &o, &b), 0);
  write_block(p, b, 4096, "goes on");
  assert_int_equal(sr_block_flush(p, b), 0);
  assert_int_equal(sr_block_close(p, b), 0);
  assert_int_equal(sr_block_close(p, other), 0);
  close_both(s, p);
}

/* An error is that of the request that met it. */
static void a_failed_read_or_write_is_of_one_request(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  static char block[4096];
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  struct sr_block *b = make_volume(p, "v", 1);
  write_block(p, b, 0, "there");
  fail_io(IO_READ, FILE_OF_SHARD_1, 0);
  assert_int_equal(sr_block_read(p, b, block, 0, 4096), -EIO);
  assert_int_equal(sr_block_read(p, b, block, 65536, 4096), 4096); /* a hole asks no device */
  assert_int_equal(sr_block_write(p, b, block, 0, 512, 0), -EIO);  /* has to read the rest */
  fail_io(IO_WRITE, FILE_OF_SHARD_1, 0);
  assert_int_equal(sr_block_write(p, b, block, 65536, 4096, 0), -EIO);
  assert_int_equal(sr_block_discard(p, b, 131072, 4096), 4096);
  fail_nothing();
  expect_block(p, b, 0, "there");
  expect_block(p, b, 65536, "");
  write_block(p, b, 65536, "now");
  assert_int_equal(sr_block_flush(p, b), 0);
  expect_block(p, b, 65536, "now");
  assert_int_equal(sr_block_close(p, b), 0);
  close_both(s, p);
}

static void expect_stripes(struct sr_port *p, const char *name, uint32_t stripes) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b;
  o.read_only = true;
  assert_int_equal(sr_volume_open(p, name, &o, &b), 0);
  for (uint32_t i = 0; i < stripes; i++) expect_block(p, b, i * STRIPE, "lower");
  assert_int_equal(sr_block_close(p, b), 0);
}

/* A striped snapshot that was removed is merged into another one, shard by shard. Shard 1 is
 * through, and durable by a write of somebody else; the last one fails, so no root has the removal
 * yet, of which the record is in shard 0. If a crash brings the snapshot back, it is whole. */
static void a_merge_that_stops_half_way(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  struct sr_volume_info info;
  static char block[4096];
  struct sr_block *b;
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  o.size_bytes = MIB;
  o.striped = true;
  o.stripe_bytes = STRIPE;
  o.integrity = SR_INTEGRITY_OFF;
  assert_int_equal(sr_volume_create(p, "striped", &o), 0);
  assert_int_equal(sr_volume_open(p, "striped", NULL, &b), 0);
  for (uint32_t i = 0; i < 3; i++) write_block(p, b, i * STRIPE, "lower");
  assert_int_equal(sr_volume_snapshot(p, "striped", "lower"), 0);
  write_block(p, b, 2 * STRIPE + 4096, "upper"); /* in shard 2 a block must be copied */
  assert_int_equal(sr_volume_snapshot(p, "striped", "upper"), 0);
  assert_int_equal(sr_block_close(p, b), 0);
  b = make_volume(p, "other", 1);
  assert_int_equal(sr_flush(p), 0);
  fail_io(IO_READ, FILE_OF_SHARD_1 + 1, 0);
  assert_int_equal(sr_volume_remove(p, "lower"), 0);
  fail_nothing();
  assert_int_equal(atomic_load(&faults.hits), 1);
  assert_int_equal(sr_volume_stat(p, "upper", &info), 0);
  assert_int_equal(info.depth, 1); /* not merged */
  assert_int_equal(sr_block_write(p, b, block, 0, sizeof block, SR_DURABLE), sizeof block);
  assert_int_equal(sr_block_close(p, b), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  if (sr_volume_stat(p, "lower", &info) == 0) expect_stripes(p, "lower", 3);
  expect_stripes(p, "upper", 3);
  expect_stripes(p, "striped", 3);
  close_both(s, p);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_failed_flush_stops_the_volumes_of_its_shard), TEST(a_failed_flush_stops_its_file),
      TEST(a_failed_read_or_write_is_of_one_request), TEST(a_merge_that_stops_half_way)};
  return cmocka_run_group_tests_name("block_faults", tests, NULL, NULL);
}
