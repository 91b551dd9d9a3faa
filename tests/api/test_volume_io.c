/* The way of a volume's data through the public interface: striped and foreign ones, vectors, many
 * threads, snapshots of what is being written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <cmocka.h>

#include <stdatomic.h>

#include "tests/api/fixture.h"
#include "tests/random.h"

#define DISK_BYTES (24 * MIB)

struct opened {
  struct sr_store *store;
  struct sr_port *port;
};

static struct opened open_memory(struct fixture *f, const char *where, uint32_t cores) {
  struct opened o;
  struct sr_open_options options = open_options(f);
  options.core_count = cores;
  options.no_pin = true;
  assert_int_equal(sr_store_open(where, &options, &o.store), 0);
  assert_int_equal(sr_port_open(o.store, NULL, &o.port), 0);
  return o;
}
static void close_all(struct opened *o) {
  assert_int_equal(sr_port_close(o->port), 0);
  assert_int_equal(sr_store_close(o->store), 0);
}

static struct sr_block *make_volume(struct opened *o, const char *name, uint32_t stripe_bytes,
                                    uint32_t shard) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_block *b;
  v.size_bytes = DISK_BYTES;
  v.striped = stripe_bytes != 0;
  v.stripe_bytes = stripe_bytes;
  v.on_shard = !stripe_bytes;
  v.shard = shard;
  v.integrity = SR_INTEGRITY_OFF; /* checksums that are made meanwhile would be messages, too */
  assert_int_equal(sr_volume_create(o->port, name, &v), 0);
  assert_int_equal(sr_volume_open(o->port, name, NULL, &b), 0);
  return b;
}

static char *noise(uint64_t bytes, uint64_t seed) {
  struct random r = {seed};
  char *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t v = random_next(&r);
    memcpy(p + i, &v, 8);
  }
  return p;
}

static void expect_content(struct opened *o, struct sr_block *b, const char *want) {
  char *got = malloc(DISK_BYTES);
  assert_int_equal(sr_block_read(o->port, b, got, 0, DISK_BYTES), DISK_BYTES);
  for (uint64_t i = 0; i < DISK_BYTES; i++)
    if (got[i] != want[i]) fail_msg("byte %llu differs", (unsigned long long)i);
  free(got);
}

/* ---- One request at a time, of any shape -------------------------------------------------------
 */

static void random_request(struct opened *o, struct sr_block *b, char *model, struct random *r) {
  uint64_t offset = random_below(r, DISK_BYTES / 512) * 512, bytes;
  bytes = (1 + random_below(r, random_below(r, 4) ? 16 : 9000)) * 512;
  if (offset + bytes > DISK_BYTES) bytes = DISK_BYTES - offset;
  char *data = noise(bytes, random_next(r));
  switch (random_below(r, 5)) {
  case 0:
    assert_int_equal(sr_block_write_zeroes(o->port, b, offset, bytes, 0), bytes);
    memset(model + offset, 0, bytes);
    break;
  case 1:
    offset &= ~UINT64_C(4095);
    bytes = (bytes + 4095) & ~UINT64_C(4095);
    if (offset + bytes > DISK_BYTES) bytes = DISK_BYTES - offset;
    assert_int_equal(sr_volume_discard(o->port, b, offset, bytes), bytes);
    memset(model + offset, 0, bytes);
    break;
  case 2: {
    uint64_t cut = random_below(r, bytes + 1);
    struct iovec iov[3] = {{data, cut}, {data + cut, 0}, {data + cut, bytes - cut}};
    assert_int_equal(sr_block_writev(o->port, b, iov, 3, offset, SR_DURABLE), bytes);
    memcpy(model + offset, data, bytes);
    memset(data, 0, bytes);
    assert_int_equal(sr_block_readv(o->port, b, iov, 3, offset), bytes);
    assert_memory_equal(data, model + offset, bytes);
    break;
  }
  default:
    assert_int_equal(sr_volume_write(o->port, b, data, offset, bytes, 0), bytes);
    memcpy(model + offset, data, bytes);
  }
  free(data);
}

static void any_shape(void **state) {
  static const uint32_t stripes[] = {0, 65536, 1 << 20};
  for (uint32_t i = 0; i < 3; i++) {
    struct opened o = open_memory(*state, "mem:192M:3", 2);
    struct sr_block *b = make_volume(&o, "disk", stripes[i], 1);
    struct random r = {i + 1};
    char *model = calloc(1, DISK_BYTES), *old = malloc(DISK_BYTES);
    for (int k = 0; k < 60; k++) random_request(&o, b, model, &r);
    expect_content(&o, b, model);
    memcpy(old, model, DISK_BYTES);
    assert_int_equal(sr_volume_snapshot(o.port, "disk", "then"), 0);
    for (int k = 0; k < 60; k++) random_request(&o, b, model, &r);
    expect_content(&o, b, model);
    struct sr_block_options read_only = SR_BLOCK_OPTIONS_INIT;
    struct sr_block *then;
    read_only.read_only = true;
    assert_int_equal(sr_volume_open(o.port, "then", &read_only, &then), 0);
    expect_content(&o, then, old);
    assert_int_equal(sr_block_write(o.port, then, model, 0, 4096, 0), -EROFS);
    assert_int_equal(sr_block_flush(o.port, b), 0);
    assert_int_equal(sr_volume_close(o.port, then), 0);
    assert_int_equal(sr_volume_close(o.port, b), 0);
    free(model);
    free(old);
    close_all(&o);
  }
}

static void ranges_are_checked_as_a_whole(void **state) {
  struct opened o = open_memory(*state, "mem:192M:3", 2);
  struct sr_block *b = make_volume(&o, "disk", 65536, 0);
  char *model = calloc(1, DISK_BYTES), *data = noise(MIB, 3);
  static const uint64_t bad[][2] = {
      {DISK_BYTES - 65536, 131072}, {DISK_BYTES, 512},           {100, 131072}, {0, 131073},
      {UINT64_MAX - 511, 1024},     {UINT64_MAX - 65535, 131072}};
  for (uint32_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(sr_block_write(o.port, b, data, bad[i][0], bad[i][1], 0), -EINVAL);
    assert_int_equal(sr_block_discard(o.port, b, bad[i][0], bad[i][1]), -EINVAL);
    assert_int_equal(sr_block_write_zeroes(o.port, b, bad[i][0], bad[i][1], 0), -EINVAL);
    assert_int_equal(sr_block_read(o.port, b, data, bad[i][0], bad[i][1]), -EINVAL);
  }
  /* Vectors that do not add up, or are too long. */
  struct iovec iov = {data, 4096};
  struct sr_request r = request_of_op(SR_OP_WRITE, 0, &iov, 8192), *rp = &r;
  r.block = b;
  r.flags = SR_VECTORED;
  r.iov_count = 1;
  assert_int_equal(sr_port_submit(o.port, &rp, 1), -EINVAL);
  r.iov_count = 1025;
  assert_int_equal(sr_port_submit(o.port, &rp, 1), -EINVAL);
  r.block = NULL;
  assert_int_equal(sr_port_submit(o.port, &rp, 1), -EINVAL);
  expect_content(&o, b, model);
  assert_int_equal(sr_block_close(o.port, b), 0);
  free(model);
  free(data);
  close_all(&o);
}

/* ---- What lies in another shard ----------------------------------------------------------------
 */

static uint64_t hops_in(struct opened *o, uint32_t core) {
  struct sr_core_stats s;
  assert_int_equal(sr_core_stats(o->port, core, &s), 0);
  return s.hops_in;
}

/* Clones on core 1 of a base on core 0: after the first touch of each 4 MiB core 0 hears nothing.
 */
static void sealed_data_is_read_without_a_message(void **state) {
  struct opened o = open_memory(*state, "mem:192M:2", 2);
  struct sr_block *base = make_volume(&o, "base", 0, 0), *clone;
  struct sr_volume_options there = SR_VOLUME_OPTIONS_INIT;
  char *data = noise(DISK_BYTES, 1), *got = malloc(65536);
  assert_int_equal(sr_core_of_shard(o.store, 0), 0);
  assert_int_equal(sr_core_of_shard(o.store, 1), 1);
  assert_int_equal(sr_block_write(o.port, base, data, 0, DISK_BYTES, 0), DISK_BYTES);
  assert_int_equal(sr_block_close(o.port, base), 0);
  assert_int_equal(sr_volume_snapshot(o.port, "base", "sealed"), 0);
  there.on_shard = true;
  there.shard = 1;
  assert_int_equal(sr_volume_clone(o.port, "sealed", "clone", &there), 0);
  assert_int_equal(sr_volume_open(o.port, "clone", NULL, &clone), 0);
  expect_content(&o, clone, data);
  assert_int_equal(sr_flush(o.port), 0);
  uint64_t before = hops_in(&o, 0);
  for (uint64_t at = 0; at + 65536 <= DISK_BYTES; at += 65536) {
    assert_int_equal(sr_block_read(o.port, clone, got, at, 65536), 65536);
    assert_memory_equal(got, data + at, 65536);
  }
  assert_true(hops_in(&o, 0) <= before + 1); /* the question itself */
  assert_int_equal(sr_block_close(o.port, clone), 0);
  free(data);
  free(got);
  close_all(&o);
}

/* ---- Snapshots of what is being written ------------------------------------------------------ */

#define SLOTS 96u /* spread over stripes and shards */

struct counting {
  struct opened o;
  struct sr_block *block;
  _Atomic bool stop;
  uint64_t writes;
  int64_t error;
};
static uint64_t slot_offset(uint64_t i) { return (i * 7 % SLOTS) * (DISK_BYTES / SLOTS); }

/* Write i says i and begins when write i - 1 has completed. */
static void *count_up(void *arg) {
  struct counting *c = arg;
  struct sr_port *port;
  char *buf = noise(4096, 1);
  if (sr_port_open(c->o.store, NULL, &port)) return NULL;
  for (uint64_t i = 1; !atomic_load(&c->stop); i++) {
    memcpy(buf, &i, 8);
    int64_t r = sr_block_write(port, c->block, buf, slot_offset(i), 4096, 0);
    if (r != 4096) c->error = r;
    c->writes = i;
  }
  sr_port_close(port);
  free(buf);
  return NULL;
}

/* A snapshot has the writes up to some moment, all of them, and none after it. */
static void expect_one_moment(struct opened *o, const char *name) {
  struct sr_block_options read_only = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b;
  char *buf = malloc(4096);
  uint64_t newest = 0, found[SLOTS];
  read_only.read_only = true;
  assert_int_equal(sr_volume_open(o->port, name, &read_only, &b), 0);
  for (uint64_t i = 0; i < SLOTS; i++) {
    assert_int_equal(sr_block_read(o->port, b, buf, slot_offset(i), 4096), 4096);
    memcpy(&found[i], buf, 8);
    if (found[i] > newest) newest = found[i];
  }
  for (uint64_t i = 0; i < SLOTS; i++) {
    uint64_t want = newest - (newest + SLOTS - i) % SLOTS; /* the newest that went to slot i */
    if (newest < SLOTS && i > newest) want = 0;
    if (i == 0 && newest < SLOTS) want = 0;
    if (found[i] != want)
      fail_msg("%s: slot %llu has write %llu, not %llu; the newest is %llu", name,
               (unsigned long long)i, (unsigned long long)found[i], (unsigned long long)want,
               (unsigned long long)newest);
  }
  assert_int_equal(sr_block_close(o->port, b), 0);
  free(buf);
}

static void a_snapshot_is_one_moment(void **state) {
  static const uint32_t stripes[] = {0, 65536};
  for (uint32_t k = 0; k < 2; k++) {
    struct counting c = {.o = open_memory(*state, "mem:1G:4", 2)};
    pthread_t thread;
    char name[16];
    c.block = make_volume(&c.o, "disk", stripes[k], 0);
    assert_int_equal(pthread_create(&thread, NULL, count_up, &c), 0);
    for (int i = 0; i < 40; i++) {
      snprintf(name, sizeof name, "s%d", i);
      assert_int_equal(sr_volume_snapshot(c.o.port, "disk", name), 0);
      expect_one_moment(&c.o, name);
      if (i % 3 == 2) assert_int_equal(sr_volume_remove(c.o.port, name), 0);
    }
    atomic_store(&c.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(c.error, 0);
    assert_true(c.writes > 0);
    for (int i = 0; i < 40; i++) {
      snprintf(name, sizeof name, "s%d", i);
      if (i % 3 != 2) expect_one_moment(&c.o, name);
    }
    assert_int_equal(sr_block_close(c.o.port, c.block), 0);
    close_all(&c.o);
  }
}

/* ---- Many threads on one volume -------------------------------------------------------------- */

#define THREADS 3u

struct worker {
  struct opened *o;
  struct sr_block *block;
  uint32_t number;
  int failures;
};

/* Each thread owns every third sector, so that all of them change the same 4 KiB blocks at once. */
static void *own_sectors(void *arg) {
  struct worker *w = arg;
  struct sr_port *port;
  struct random r = {w->number + 1};
  uint64_t last[256] = {0};
  char sector[512];
  if (sr_port_open(w->o->store, NULL, &port)) return NULL;
  for (int i = 0; i < 3000; i++) {
    uint64_t k = random_below(&r, 256), at = (k * THREADS + w->number) * 512;
    if (random_below(&r, 2)) {
      last[k] = random_next(&r) | 1;
      for (int j = 0; j < 64; j++) memcpy(sector + j * 8, &last[k], 8);
      w->failures += sr_block_write(port, w->block, sector, at, 512, 0) != 512;
    } else {
      w->failures += sr_block_read(port, w->block, sector, at, 512) != 512;
      for (int j = 0; j < 64; j++) w->failures += memcmp(sector + j * 8, &last[k], 8) != 0;
    }
  }
  sr_port_close(port);
  return NULL;
}

static void no_update_within_a_block_is_lost(void **state) {
  struct opened o = open_memory(*state, "mem:192M:3", 2);
  struct sr_block *b = make_volume(&o, "disk", 65536, 0);
  struct worker workers[THREADS];
  pthread_t threads[THREADS];
  for (uint32_t i = 0; i < THREADS; i++) {
    workers[i] = (struct worker){.o = &o, .block = b, .number = i};
    assert_int_equal(pthread_create(&threads[i], NULL, own_sectors, &workers[i]), 0);
  }
  for (uint32_t i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    assert_int_equal(workers[i].failures, 0);
  }
  assert_int_equal(sr_block_close(o.port, b), 0);
  close_all(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(any_shape, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(ranges_are_checked_as_a_whole, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(sealed_data_is_read_without_a_message, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(a_snapshot_is_one_moment, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(no_update_within_a_block_is_lost, fixture_setup,
                                      fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
