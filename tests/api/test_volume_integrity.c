/* test_volume_integrity.c - checksums of snapshots on a real file: bits that flip on disk are found
 * through the snapshot, its volume, clones in other shards and a scrub, and after a reopen. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/api/fixture.h"
#include "tests/random.h"

#define BLOCK      4096
#define BLOCKS     600u
#define DISK_BYTES (8 * MIB)

struct opened {
  struct sr_store *store;
  struct sr_port *port;
};

static struct opened open_it(struct fixture *f) {
  struct opened o;
  struct sr_open_options options = open_options(f);
  options.core_count = 2;
  options.no_pin = true;
  assert_int_equal(sr_store_open(f->where, &options, &o.store), 0);
  assert_int_equal(sr_port_open(o.store, NULL, &o.port), 0);
  return o;
}
static void close_it(struct opened *o) {
  assert_int_equal(sr_port_close(o->port), 0);
  assert_int_equal(sr_store_close(o->store), 0);
}

/* No two blocks of a test are alike. */
static void fill(char *block, uint64_t seed, uint64_t number) {
  struct random r = {seed * 1000003 + number};
  for (uint32_t i = 0; i < BLOCK; i += 8) {
    uint64_t v = random_next(&r);
    memcpy(block + i, &v, 8);
  }
}

static void create(struct opened *o, const char *name, uint32_t shard, bool striped,
                   uint32_t integrity) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  v.size_bytes = DISK_BYTES;
  v.striped = striped;
  if (striped) v.stripe_bytes = 64 << 10;
  v.on_shard = !striped;
  v.shard = shard;
  v.integrity = integrity;
  assert_int_equal(sr_volume_create(o->port, name, &v), 0);
}
static void make_clone(struct opened *o, const char *from, const char *name, uint32_t shard,
                       bool on_shard) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  v.on_shard = on_shard;
  v.shard = shard;
  assert_int_equal(sr_volume_clone(o->port, from, name, &v), 0);
}
static struct sr_block *opened(struct opened *o, const char *name, bool read_only) {
  struct sr_block_options options = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b;
  options.read_only = read_only;
  assert_int_equal(sr_volume_open(o->port, name, &options, &b), 0);
  return b;
}

static void write_all(struct opened *o, const char *name, uint64_t seed) {
  struct sr_block *b = opened(o, name, false);
  char *data = aligned_alloc(BLOCK, BLOCKS * BLOCK);
  for (uint64_t i = 0; i < BLOCKS; i++) fill(data + i * BLOCK, seed, i);
  assert_int_equal(sr_block_write(o->port, b, data, 0, BLOCKS * BLOCK, 0), BLOCKS * BLOCK);
  assert_int_equal(sr_block_close(o->port, b), 0);
  free(data);
}

static struct sr_scrub_status scrub(struct opened *o) {
  struct sr_scrub_status st;
  assert_int_equal(sr_scrub_start(o->port, NULL), 0);
  do {
    usleep(500);
    assert_int_equal(sr_scrub_status(o->port, &st), 0);
  } while (st.running);
  return st;
}
/* Checksums are made in the background. */
static void wait_for_sums(struct opened *o, uint64_t blocks) {
  struct sr_scrub_status st = {0};
  for (int i = 0; i < 5000 && st.checked_blocks < blocks; i++) st = scrub(o);
  assert_int_equal(st.checked_blocks, blocks);
  assert_int_equal(st.damaged_blocks + st.damaged_metadata, 0);
}

static uint32_t flip_in(const char *path, const char *want, uint32_t bit) {
  char got[BLOCK];
  uint32_t found = 0;
  int fd = open(path, O_RDWR);
  assert_true(fd >= 0);
  for (off_t at = 0; pread(fd, got, BLOCK, at) == BLOCK; at += BLOCK) {
    bool is = memcmp(got, want, BLOCK) == 0;
    got[bit / 8] ^= (char)(1 << bit % 8);
    if (!is && memcmp(got, want, BLOCK) != 0) continue;
    assert_int_equal(pwrite(fd, got, BLOCK, at), BLOCK);
    found++;
  }
  assert_int_equal(fsync(fd), 0);
  close(fd);
  return found;
}

/* Flips a bit in the only place of the store's files that holds a block: there, or back. */
static void flip(struct fixture *f, uint64_t seed, uint64_t number, uint32_t bit) {
  char want[BLOCK], path[800];
  uint32_t found = 0;
  fill(want, seed, number);
  for (uint32_t shard = 0; shard < 2; shard++) {
    snprintf(path, sizeof path, "%s/shard-%04u", f->where, shard);
    found += flip_in(path, want, bit);
  }
  assert_int_equal(found, 1);
}

static void expect(struct opened *o, const char *name, uint64_t seed, uint64_t number, bool bad) {
  struct sr_block *b = opened(o, name, true);
  char want[BLOCK], *got = aligned_alloc(BLOCK, 8 * BLOCK);
  fill(want, seed, number);
  assert_int_equal(sr_block_read(o->port, b, got, number * BLOCK, BLOCK), bad ? -EBADMSG : BLOCK);
  if (!bad) assert_memory_equal(got, want, BLOCK);
  assert_int_equal(sr_block_read(o->port, b, got, (number - 3) * BLOCK, 8 * BLOCK),
                   bad ? -EBADMSG : 8 * BLOCK);
  assert_int_equal(sr_block_read(o->port, b, got + 8, (number - 1) * BLOCK, 512), 512);
  fill(want, seed, number - 1);
  assert_memory_equal(got + 8, want, 512);
  assert_int_equal(sr_block_close(o->port, b), 0);
  free(got);
}

/* Who knew places before there were checksums looks again a moment after they are all there. */
static void wait_for_damage(struct opened *o, const char *name, uint64_t number) {
  struct sr_block *b = opened(o, name, true);
  char *got = aligned_alloc(BLOCK, BLOCK);
  for (int i = 0; i < 5000; i++) {
    if (sr_block_read(o->port, b, got, number * BLOCK, BLOCK) == -EBADMSG) break;
    usleep(500);
  }
  assert_int_equal(sr_block_close(o->port, b), 0);
  free(got);
}

static void flips_on_disk_are_found(void **state) {
  struct fixture *f = *state;
  static const char *const all[] = {"disk", "snap", "near", "far", "deep"};
  format_store(f, 2, 64 * MIB);
  struct opened o = open_it(f);
  create(&o, "disk", 0, false, SR_INTEGRITY_SEALED);
  write_all(&o, "disk", 1);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "snap"), 0);
  make_clone(&o, "snap", "near", 0, true);
  make_clone(&o, "snap", "far", 1, true);
  for (int i = 0; i < 4; i++) expect(&o, all[i], 1, 40, false);
  wait_for_sums(&o, BLOCKS);
  assert_int_equal(sr_volume_snapshot(o.port, "far", "far.snap"), 0); /* over both shards */
  make_clone(&o, "far.snap", "deep", 0, true);
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < 5; i++) expect(&o, all[i], 1, 40, false);
    flip(f, 1, 40, 12345);
    for (int i = 0; i < 5 && round == 0; i++) wait_for_damage(&o, all[i], 40);
    for (int i = 0; i < 5; i++) expect(&o, all[i], 1, 40, true);
    assert_non_null(strstr(f->log, "checksum mismatch in block 40 "));
    struct sr_scrub_status st = scrub(&o);
    assert_int_equal(st.damaged_blocks, 1);
    assert_int_equal(st.checked_blocks, BLOCKS);
    /* Part of it cannot be written, since the rest is lost; all of it can. */
    struct sr_block *b = opened(&o, "far", false);
    char block[BLOCK];
    fill(block, 2, 40);
    assert_int_equal(sr_block_write(o.port, b, block, 40 * BLOCK + 512, 512, 0), -EBADMSG);
    assert_int_equal(sr_block_close(o.port, b), 0);
    flip(f, 1, 40, 12345);
    assert_int_equal(scrub(&o).damaged_blocks, 0);
    for (int i = 0; i < 5; i++) expect(&o, all[i], 1, 40, false);
    assert_int_equal(sr_flush(o.port), 0);
    close_it(&o);
    o = open_it(f);
  }
  flip(f, 1, 40, 1);
  write_all(&o, "far", 3);
  expect(&o, "far", 3, 40, false);
  expect(&o, "snap", 1, 40, true);
  close_it(&o);
}

static void striped_volumes_have_them_in_all_shards(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 64 * MIB);
  struct opened o = open_it(f);
  create(&o, "disk", 0, true, SR_INTEGRITY_SEALED);
  write_all(&o, "disk", 1);
  assert_int_equal(sr_volume_snapshot(o.port, "disk", "snap"), 0);
  make_clone(&o, "snap", "clone", 0, false);
  wait_for_sums(&o, BLOCKS);
  for (uint64_t number = 4; number < 40; number += 16) { /* one stripe after the other */
    flip(f, 1, number, 7);
    wait_for_damage(&o, "disk", number);
    expect(&o, "snap", 1, number, true);
    expect(&o, "clone", 1, number, true);
    expect(&o, "disk", 1, number, true);
    flip(f, 1, number, 7);
    expect(&o, "clone", 1, number, false);
  }
  close_it(&o);
}

/* Without them damage is not seen, which shows that the others are what sees it. What an open finds
 * without checksums though it should have them, it makes. */
static void none_where_none_are_wanted(void **state) {
  struct fixture *f = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  format_store(f, 2, 64 * MIB);
  struct opened o = open_it(f);
  v.size_bytes = DISK_BYTES;
  v.integrity = SR_INTEGRITY_ON + 1;
  assert_int_equal(sr_volume_create(o.port, "disk", &v), -EINVAL);
  create(&o, "off", 0, false, SR_INTEGRITY_OFF);
  create(&o, "on", 1, false, SR_INTEGRITY_SEALED);
  write_all(&o, "off", 1);
  write_all(&o, "on", 2);
  assert_int_equal(sr_volume_snapshot(o.port, "off", "off.snap"), 0);
  assert_int_equal(sr_volume_snapshot(o.port, "on", "on.snap"), 0);
  assert_int_equal(sr_flush(o.port), 0);
  for (int round = 0; round < 2; round++) {
    wait_for_sums(&o, BLOCKS);
    close_it(&o);
    o = open_it(f);
  }
  flip(f, 1, 40, 3);
  struct sr_block *b = opened(&o, "off.snap", true);
  char *got = aligned_alloc(BLOCK, BLOCK), want[BLOCK];
  fill(want, 1, 40);
  assert_int_equal(sr_block_read(o.port, b, got, 40 * BLOCK, BLOCK), BLOCK);
  assert_memory_not_equal(got, want, BLOCK);
  assert_int_equal(sr_block_close(o.port, b), 0);
  free(got);
  assert_int_equal(scrub(&o).damaged_blocks, 0);
  flip(f, 2, 40, 3);
  expect(&o, "on.snap", 2, 40, true);
  close_it(&o);
}

/* ---- integrity=on ---------------------------------------------------------------------------- */

/* A read of it, and a write of a part of it, which takes its checksum: so it is written again. */
static void live_damage(struct fixture *f, struct opened *o, uint64_t seed, uint64_t number) {
  flip(f, seed, number, 999);
  expect(o, "disk", seed, number, true);
  assert_int_equal(scrub(o).damaged_blocks, 1);
  flip(f, seed, number, 999);
  expect(o, "disk", seed, number, false);
  assert_int_equal(scrub(o).damaged_blocks, 0);
}

static void what_is_written_has_them_at_once(void **state) {
  struct fixture *f = *state;
  for (uint32_t striped = 0; striped < 2; striped++) {
    if (striped) {
      fixture_teardown(state);
      fixture_setup(state);
      f = *state;
    }
    format_store(f, 2, 64 * MIB);
    struct opened o = open_it(f);
    create(&o, "disk", 0, striped, SR_INTEGRITY_ON);
    write_all(&o, "disk", 1);
    live_damage(f, &o, 1, 40);
    write_all(&o, "disk", 2); /* in place */
    live_damage(f, &o, 2, 41);
    /* A clean end keeps them. */
    close_it(&o);
    o = open_it(f);
    assert_int_equal(scrub(&o).checked_blocks, BLOCKS);
    live_damage(f, &o, 2, 42);
    write_all(&o, "disk", 3); /* over what has checksums on disk */
    live_damage(f, &o, 3, 43);
    /* Snapshots go on with what there is, clones get their own. */
    assert_int_equal(sr_volume_snapshot(o.port, "disk", "snap"), 0);
    live_damage(f, &o, 3, 44);
    struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
    v.integrity = SR_INTEGRITY_ON;
    assert_int_equal(sr_volume_clone(o.port, "snap", "clone", &v), 0);
    write_all(&o, "clone", 4);
    flip(f, 4, 45, 77);
    expect(&o, "clone", 4, 45, true);
    expect(&o, "disk", 3, 45, false);
    flip(f, 4, 45, 77);
    write_all(&o, "disk", 5);
    assert_int_equal(sr_volume_rollback(o.port, "disk", "snap"), 0);
    assert_int_equal(sr_volume_resize(o.port, "disk", 2 * DISK_BYTES, false), 0);
    expect(&o, "disk", 3, 46, false);
    assert_int_equal(sr_volume_remove(o.port, "clone"), 0);
    assert_int_equal(sr_volume_remove(o.port, "disk"), 0);
    assert_int_equal(sr_volume_remove(o.port, "snap"), 0);
    close_it(&o);
  }
}

/* The store is given up: no checksum of before may be found for data that came later, and those
 * that are lost come back in the background. */
static void a_crash_takes_those_of_late_writes(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 64 * MIB);
  struct opened o = open_it(f);
  create(&o, "disk", 0, true, SR_INTEGRITY_ON);
  write_all(&o, "disk", 1);
  close_it(&o);
  for (uint64_t seed = 2; seed < 5; seed++) {
    o = open_it(f);
    write_all(&o, "disk", seed);
    assert_int_equal(sr_flush(o.port), 0);
    assert_int_equal(sr_port_close(o.port), 0);
    sr_store_abandon(o.store);
    o = open_it(f);
    for (uint64_t i = 10; i < BLOCKS - 10; i += 9) expect(&o, "disk", seed, i, false);
    wait_for_sums(&o, BLOCKS);
    live_damage(f, &o, seed, 40 + seed);
    close_it(&o);
  }
}

#define READERS 2u
#define WRITERS 2u
struct beside {
  struct sr_store *store;
  struct sr_block *block;
  uint64_t seed;
  bool writes;
  int64_t bad; /* the first result that was not what it should be */
};
static void *work_beside(void *arg) {
  struct beside *b = arg;
  struct sr_port *port;
  struct random r = {b->seed};
  char *buf = aligned_alloc(BLOCK, 16 * BLOCK);
  if (sr_port_open(b->store, NULL, &port)) abort();
  for (uint32_t i = 0; i < 3000 && !b->bad; i++) {
    uint64_t n = 1 + random_below(&r, 16), at = random_below(&r, 24);
    if (b->writes) fill(buf + random_below(&r, n) * BLOCK, b->seed, i);
    int64_t got = b->writes ? sr_block_write(port, b->block, buf, at * BLOCK, n * BLOCK, 0)
                            : sr_block_read(port, b->block, buf, at * BLOCK, n * BLOCK);
    if (got != (int64_t)(n * BLOCK)) b->bad = got ? got : -1;
  }
  sr_port_close(port);
  free(buf);
  return NULL;
}

static void threads_read_beside_writes(void **state) {
  struct fixture *f = *state;
  struct beside b[READERS + WRITERS];
  pthread_t threads[READERS + WRITERS];
  format_store(f, 2, 64 * MIB);
  struct opened o = open_it(f);
  create(&o, "disk", 0, false, SR_INTEGRITY_ON);
  struct sr_block *block = opened(&o, "disk", false);
  for (uint32_t i = 0; i < READERS + WRITERS; i++) {
    b[i] = (struct beside){o.store, block, i + 1, i >= READERS, 0};
    assert_int_equal(pthread_create(&threads[i], NULL, work_beside, &b[i]), 0);
  }
  for (uint32_t i = 0; i < READERS + WRITERS; i++) pthread_join(threads[i], NULL);
  for (uint32_t i = 0; i < READERS + WRITERS; i++) assert_int_equal(b[i].bad, 0);
  assert_null(strstr(f->log, "checksum mismatch"));
  assert_int_equal(scrub(&o).damaged_blocks, 0);
  assert_int_equal(sr_block_close(o.port, block), 0);
  close_it(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(flips_on_disk_are_found, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(striped_volumes_have_them_in_all_shards, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(none_where_none_are_wanted, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(what_is_written_has_them_at_once, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(a_crash_takes_those_of_late_writes, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(threads_read_beside_writes, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
