/* test_volume_merge.c - crashes after a removed snapshot was merged into a volume that is written
 * to: nobody else sees what was overwritten then. And volumes whose size is no whole block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/api/fixture.h"

#define BLOCK  4096u
#define BLOCKS 40u

struct opened {
  struct sr_store *store;
  struct sr_port *port;
  struct sr_block *disk;
};

static struct opened open_it(struct fixture *f, const char *disk) {
  struct opened o = {.store = open_store(f)};
  o.port = open_port(o.store);
  if (disk) assert_int_equal(sr_volume_open(o.port, disk, NULL, &o.disk), 0);
  return o;
}

/* As after kill -9: what was written is in the file, what was not committed is not in the log. */
static void crash(struct opened *o) {
  assert_int_equal(sr_volume_close(o->port, o->disk), 0);
  assert_int_equal(sr_port_close(o->port), 0);
  sr_store_abandon(o->store);
}

static void create(struct fixture *f, struct opened *o, uint64_t bytes) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  v.size_bytes = bytes;
  format_store(f, 1, 16 * MIB);
  *o = open_it(f, NULL);
  assert_int_equal(sr_volume_create(o->port, "disk", &v), 0);
  assert_int_equal(sr_volume_open(o->port, "disk", NULL, &o->disk), 0);
}

static void write_all(struct opened *o, uint64_t seed) {
  static char data[BLOCKS * BLOCK];
  fill_bytes(data, sizeof data, seed);
  assert_int_equal(sr_volume_write(o->port, o->disk, data, 0, sizeof data, 0), sizeof data);
}

static bool holds(struct opened *o, const char *name, uint64_t seed) {
  static char data[BLOCKS * BLOCK], want[BLOCKS * BLOCK];
  struct sr_block_options read_only = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b;
  read_only.read_only = true;
  fill_bytes(want, sizeof want, seed);
  assert_int_equal(sr_volume_open(o->port, name, &read_only, &b), 0);
  assert_int_equal(sr_volume_read(o->port, b, data, 0, sizeof data), sizeof data);
  assert_int_equal(sr_volume_close(o->port, b), 0);
  return memcmp(data, want, sizeof data) == 0;
}

static uint64_t checked_blocks(struct opened *o) {
  struct sr_scrub_status st;
  assert_int_equal(sr_scrub_start(o->port, NULL), 0);
  do {
    usleep(500);
    assert_int_equal(sr_scrub_status(o->port, &st), 0);
  } while (st.running);
  assert_int_equal(st.damaged_blocks, 0);
  return st.checked_blocks;
}

/* The snapshot's removal was not promised. If it is there again, it is what it was. */
static void a_snapshot_that_comes_back(void **state) {
  struct fixture *f = *state;
  struct opened o;
  struct sr_volume_info info;
  create(f, &o, BLOCKS * BLOCK);
  write_all(&o, 1);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "snapshot"), 0);
  assert_int_equal(sr_flush(o.port), 0);
  assert_int_equal(sr_volume_remove(o.port, "snapshot"), 0);
  assert_int_equal(sr_volume_stat(o.port, "disk", &info), 0);
  assert_int_equal(info.depth, 0); /* it has been merged */
  write_all(&o, 2);
  crash(&o);
  o = open_it(f, "disk");
  if (sr_volume_stat(o.port, "snapshot", &info) == 0) assert_true(holds(&o, "snapshot", 1));
  assert_true(holds(&o, "disk", 1) || holds(&o, "disk", 2));
  assert_int_equal(sr_volume_close(o.port, o.disk), 0);
  close_both(o.store, o.port);
}

/* The same of another volume that lay on it, and was removed. */
static void a_clone_that_comes_back(void **state) {
  struct fixture *f = *state;
  struct opened o;
  struct sr_volume_info info;
  create(f, &o, BLOCKS * BLOCK);
  write_all(&o, 1);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "snapshot"), 0);
  assert_int_equal(sr_volume_clone(o.port, "snapshot", "clone", NULL), 0);
  assert_int_equal(sr_volume_remove(o.port, "snapshot"), 0);
  assert_int_equal(sr_flush(o.port), 0);
  assert_int_equal(sr_volume_remove(o.port, "clone"), 0);
  assert_int_equal(sr_volume_stat(o.port, "disk", &info), 0);
  assert_int_equal(info.depth, 0);
  write_all(&o, 2);
  crash(&o);
  o = open_it(f, "disk");
  if (sr_volume_stat(o.port, "clone", &info) == 0) assert_true(holds(&o, "clone", 1));
  assert_true(holds(&o, "disk", 1) || holds(&o, "disk", 2));
  assert_int_equal(sr_volume_close(o.port, o.disk), 0);
  close_both(o.store, o.port);
}

static int remove_beside(void *arg, const struct sr_volume_range *range) {
  struct opened *o = arg;
  (void)range;
  assert_int_equal(sr_volume_close(o->port, o->disk), 0);
  assert_int_equal(sr_volume_remove(o->port, "disk"), 0);
  assert_int_equal(sr_volume_remove(o->port, "upper"), 0);
  assert_int_equal(sr_flush(o->port), 0);
  return 1;
}

/* Merged into a removed snapshot first, and with that into a volume. The second removal is durable,
 * the merge after it had to wait: nothing is merged while differences are looked for. */
static void a_snapshot_below_others_that_comes_back(void **state) {
  struct fixture *f = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct opened o;
  struct sr_volume_info info;
  create(f, &o, BLOCKS * BLOCK);
  v.size_bytes = BLOCK;
  assert_int_equal(sr_volume_create(o.port, "beside", &v), 0);
  char data[BLOCK] = "data";
  struct sr_block *b;
  assert_int_equal(sr_volume_open(o.port, "beside", NULL, &b), 0);
  assert_int_equal(sr_volume_write(o.port, b, data, 0, BLOCK, 0), BLOCK);
  assert_int_equal(sr_volume_close(o.port, b), 0);
  write_all(&o, 1);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "lower"), 0);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "upper"), 0);
  assert_int_equal(sr_volume_clone(o.port, "upper", "clone", NULL), 0);
  assert_int_equal(sr_volume_diff(o.port, NULL, "beside", remove_beside, &o), 1);
  assert_int_equal(sr_volume_stat(o.port, "clone", &info), 0);
  assert_int_equal(info.depth, 2);
  assert_int_equal(sr_volume_remove(o.port, "lower"), 0);
  assert_int_equal(sr_volume_stat(o.port, "clone", &info), 0);
  assert_int_equal(info.depth, 0);
  assert_int_equal(sr_volume_open(o.port, "clone", NULL, &o.disk), 0);
  write_all(&o, 2);
  crash(&o);
  o = open_it(f, "clone");
  if (sr_volume_stat(o.port, "lower", &info) == 0) assert_true(holds(&o, "lower", 1));
  assert_true(holds(&o, "clone", 1) || holds(&o, "clone", 2));
  assert_int_equal(sr_volume_close(o.port, o.disk), 0);
  close_both(o.store, o.port);
}

/* The removal is durable, the merge is not: the removed snapshot's layer has blocks with checksums,
 * and other data than they are of. */
static void checksums_of_what_was_overwritten(void **state) {
  struct fixture *f = *state;
  struct opened o;
  create(f, &o, BLOCKS * BLOCK);
  write_all(&o, 1);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "snapshot"), 0);
  for (int i = 0; i < 5000 && checked_blocks(&o) < BLOCKS; i++) {
  }
  assert_int_equal(checked_blocks(&o), BLOCKS);
  assert_int_equal(sr_flush(o.port), 0);
  assert_int_equal(sr_volume_remove(o.port, "snapshot"), 0);
  write_all(&o, 2);
  crash(&o);
  for (int life = 0; life < 2; life++) { /* the second has what the first one made of it */
    o = open_it(f, "disk");
    assert_true(holds(&o, "disk", 2 + (uint64_t)life));
    write_all(&o, 3 + (uint64_t)life);
    assert_int_equal(sr_volume_flush(o.port, o.disk), 0);
    (void)checked_blocks(&o); /* finds no damage */
    crash(&o);
  }
}

static void flatten_an_odd_size(void **state) {
  struct fixture *f = *state;
  struct opened o;
  struct sr_volume_info info;
  create(f, &o, BLOCKS * BLOCK + 512);
  write_all(&o, 1);
  char last[512], got[512];
  memset(last, 7, sizeof last);
  assert_int_equal(sr_volume_write(o.port, o.disk, last, BLOCKS * BLOCK, 512, 0), 512);
  assert_int_equal(sr_volume_close(o.port, o.disk), 0);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "snapshot"), 0);
  assert_int_equal(sr_volume_clone(o.port, "snapshot", "clone", NULL), 0);
  assert_int_equal(sr_volume_flatten(o.port, "clone"), 0);
  assert_int_equal(sr_volume_stat(o.port, "clone", &info), 0);
  assert_int_equal(info.depth, 0);
  assert_true(holds(&o, "clone", 1));
  assert_int_equal(sr_volume_open(o.port, "clone", NULL, &o.disk), 0);
  assert_int_equal(sr_volume_read(o.port, o.disk, got, BLOCKS * BLOCK, 512), 512);
  assert_memory_equal(got, last, 512);
  assert_int_equal(sr_volume_close(o.port, o.disk), 0);
  close_both(o.store, o.port);
}

static void zeros_in_a_part_of_a_block_need_a_flush(void **state) {
  struct fixture *f = *state;
  struct opened o;
  create(f, &o, BLOCKS * BLOCK);
  write_all(&o, 1);
  assert_int_equal(sr_flush(o.port), 0);
  assert_false(sr_needs_flush(o.store));
  assert_int_equal(sr_volume_write_zeroes(o.port, o.disk, 512, 512, 0), 512);
  assert_true(sr_needs_flush(o.store));
  assert_int_equal(sr_flush(o.port), 0);
  assert_false(sr_needs_flush(o.store));
  assert_int_equal(sr_volume_close(o.port, o.disk), 0);
  close_both(o.store, o.port);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_snapshot_that_comes_back, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(a_clone_that_comes_back, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(a_snapshot_below_others_that_comes_back, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(checksums_of_what_was_overwritten, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(flatten_an_odd_size, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(zeros_in_a_part_of_a_block_need_a_flush, fixture_setup,
                                      fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
