/* test_merge.c - adjacent requests of a guest become few I/Os, and each is answered as if it had
 * been alone: data, errors, counters. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/shardring_vhost.h"
#include "api/vhost/front.h"

#define DISK   (UINT64_C(16) << 20)
#define BLOCK  4096u
#define COUNT  32u
#define ROUNDS 8u
#define FEW                                                                                        \
  (ROUNDS * COUNT / 4) /* I/Os of all rounds; the store has some of its own now and then */

static bool packed; /* rings: the program's argument */

static struct {
  char dir[256], store_path[300], socket[300];
  struct sr_store *store;
  struct sr_port *port;
  struct sr_vhost *vhost;
  struct vfront *front;
  struct vfront_request all[COUNT];
} rig;

static int set_up(void **state) {
  const char *tmp = getenv("TMPDIR");
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  (void)state;
  memset(&rig, 0, sizeof rig);
  snprintf(rig.dir, sizeof rig.dir, "%s/merge-XXXXXX", tmp ? tmp : ".");
  assert_non_null(mkdtemp(rig.dir));
  snprintf(rig.store_path, sizeof rig.store_path, "%s/store", rig.dir);
  snprintf(rig.socket, sizeof rig.socket, "%s/socket", rig.dir);
  f.size_bytes = 96 << 20;
  f.shards = 2;
  assert_int_equal(sr_format(rig.store_path, &f), 0);
  o.core_count = 2;
  o.no_pin = true;
  assert_int_equal(sr_store_open(rig.store_path, &o, &rig.store), 0);
  assert_int_equal(sr_port_open(rig.store, NULL, &rig.port), 0);
  assert_int_equal(sr_vhost_start(rig.store, NULL, &rig.vhost), 0);
  return 0;
}

static int tear_down(void **state) {
  char command[400];
  (void)state;
  vfront_close(rig.front);
  sr_vhost_stop(rig.vhost);
  assert_int_equal(sr_port_close(rig.port), 0);
  assert_int_equal(sr_store_close(rig.store), 0);
  snprintf(command, sizeof command, "rm -rf '%s'", rig.dir);
  return system(command);
}

static void open_disk(bool striped, bool integrity) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  char why[256] = "";
  v.size_bytes = DISK;
  v.striped = striped;
  v.integrity = integrity ? SR_INTEGRITY_ON : SR_INTEGRITY_OFF;
  assert_int_equal(sr_volume_create(rig.port, "volume", &v), 0);
  d.volume = "volume";
  d.socket = rig.socket;
  assert_int_equal(sr_vhost_attach(rig.vhost, "disk", &d), 0);
  struct vfront_options o = {.socket = rig.socket,
                             .queues = 1,
                             .depth = COUNT,
                             .pieces = 4,
                             .regions = 2,
                             .buffer_bytes = 8 << 20,
                             .packed = packed,
                             .connect_ms = 5000};
  int e = vfront_open(&rig.front, &o, why, sizeof why);
  if (e) fail_msg("%s: %s", strerror(-e), why);
  /* From now on it is known that the driver flushes: writes need not be durable. */
  struct vfront_request flush = {.op = VFRONT_FLUSH};
  assert_int_equal(vfront_do(&rig.front->queues[0], &flush), BLK_OK);
}

static uint64_t device_ios(void) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < 2; i++) {
    struct sr_core_stats s;
    assert_int_equal(sr_core_stats(rig.port, i, &s), 0);
    sum += s.device_ios;
  }
  return sum;
}

/* Pages with one between them, so that no two lie in a row. */
static char *page(uint32_t i) { return rig.front->buffers + (uint64_t)i * 2 * BLOCK; }

static void fill(uint32_t i, uint64_t offset, uint32_t bytes, uint32_t tag) {
  uint32_t *p = (uint32_t *)(void *)page(i);
  for (uint32_t k = 0; k < bytes / 4; k++) p[k] = tag * 2654435761u + (uint32_t)(offset / 4) + k;
}

static void expect(uint32_t i, uint64_t offset, uint32_t bytes, uint32_t tag) {
  const uint32_t *p = (const uint32_t *)(const void *)page(i);
  for (uint32_t k = 0; k < bytes / 4; k++)
    assert_int_equal(p[k], tag * 2654435761u + (uint32_t)(offset / 4) + k);
}

/* COUNT requests at once, each `step` after the one before; all are answered, each once. Returns
 * how many I/Os they were. */
static uint64_t run(uint32_t op, uint64_t offset, uint32_t bytes, uint64_t step, uint32_t tag) {
  struct vfront_queue *q = &rig.front->queues[0];
  struct vfront_request *list[COUNT], *done[COUNT];
  bool seen[COUNT] = {false};
  uint64_t before = device_ios();
  for (uint32_t i = 0; i < COUNT; i++) {
    list[i] = &rig.all[i];
    rig.all[i] = (struct vfront_request){.op = op,
                                         .bytes = bytes,
                                         .offset = offset + i * step,
                                         .buf = page(i),
                                         .pieces = 1 + i % 2,
                                         .status = 77,
                                         .number = i};
    fill(i, rig.all[i].offset, bytes, op == VFRONT_WRITE ? tag : 12345);
  }
  assert_int_equal(vfront_submit(q, list, COUNT), COUNT);
  for (uint32_t n = 0; n < COUNT;) {
    int got = vfront_reap(q, done, COUNT);
    assert_true(got >= 0);
    if (!got) assert_int_equal(vfront_wait(q, 20000), 1);
    for (int i = 0; i < got; i++, n++) {
      assert_false(seen[done[i]->number]);
      seen[done[i]->number] = true;
    }
  }
  return device_ios() - before;
}

static void expect_all(uint32_t tag) {
  for (uint32_t i = 0; i < COUNT; i++) {
    assert_int_equal(rig.all[i].status, BLK_OK);
    expect(i, rig.all[i].offset, rig.all[i].bytes, tag);
  }
}

static struct sr_vhost_info info(void) {
  struct sr_vhost_info i;
  assert_int_equal(sr_vhost_stat(rig.vhost, "disk", &i), 0);
  return i;
}

static void adjacent_ones_are_few(void **state) {
  (void)state;
  open_disk(false, false);
  run(VFRONT_WRITE, 1 << 20, BLOCK, BLOCK, 1);
  expect_all(1);
  uint64_t writes = 0, reads = 0;
  for (uint32_t round = 2; round < ROUNDS + 2; round++) {
    writes += run(VFRONT_WRITE, 1 << 20, BLOCK, BLOCK, round);
    expect_all(round);
    reads += run(VFRONT_READ, 1 << 20, BLOCK, BLOCK, 0);
    expect_all(round);
  }
  assert_in_range(writes, ROUNDS, FEW);
  assert_in_range(reads, ROUNDS, FEW);
  struct sr_vhost_info i = info();
  assert_int_equal(i.reads, ROUNDS * COUNT);
  assert_int_equal(i.writes, (ROUNDS + 1) * COUNT);
  assert_int_equal(i.read_bytes, ROUNDS * COUNT * BLOCK);
  assert_int_equal(i.errors, 0);
  assert_int_equal(i.in_flight, 0);
}

/* Of sectors: misaligned, and bounced, and the block is read once for all that change it. */
static void sectors_are_few(void **state) {
  (void)state;
  open_disk(false, false);
  uint64_t reads = 0;
  for (uint32_t round = 1; round < ROUNDS + 1; round++) {
    run(VFRONT_WRITE, (2 << 20) + 512, 512, 512, round);
    expect_all(round);
    reads += run(VFRONT_READ, (2 << 20) + 512, 512, 512, 0);
    expect_all(round);
  }
  assert_in_range(reads, ROUNDS, FEW);
}

static void others_are_alone(void **state) {
  (void)state;
  open_disk(false, false);
  run(VFRONT_WRITE, 4 << 20, BLOCK, BLOCK, 1);
  run(VFRONT_WRITE, (4 << 20) + COUNT * BLOCK, BLOCK, BLOCK, 1);
  assert_true(run(VFRONT_READ, 4 << 20, BLOCK, 2 * BLOCK, 0) >= COUNT);
  expect_all(1);
  assert_true(run(VFRONT_READ, 4 << 20, BLOCK, 0, 0) >= COUNT); /* all the same one */
  expect_all(1);
  /* Backwards: none continues the one before. */
  assert_true(run(VFRONT_READ, (4 << 20) + COUNT * BLOCK, BLOCK, -(uint64_t)BLOCK, 0) >= COUNT);
  expect_all(1);
}

static void stripes_are_not_crossed(void **state) {
  (void)state;
  open_disk(true, false);
  for (uint32_t round = 1; round < 4; round++)
    for (uint64_t at = 0; at < 2 << 20; at += 1 << 18) {
      uint64_t offset = at + (1 << 20) - 12 * BLOCK - 512 * (at >> 18);
      run(VFRONT_WRITE, offset, BLOCK, BLOCK, round);
      expect_all(round);
      run(VFRONT_READ, offset, BLOCK, BLOCK, 0);
      expect_all(round);
    }
}

static void the_end_of_the_disk_is_not_the_others_fault(void **state) {
  (void)state;
  open_disk(false, false);
  run(VFRONT_WRITE, DISK - 20 * BLOCK, BLOCK, BLOCK, 3);
  run(VFRONT_READ, DISK - 20 * BLOCK, BLOCK, BLOCK, 0);
  for (uint32_t i = 0; i < COUNT; i++) {
    assert_int_equal(rig.all[i].status, i < 20 ? BLK_OK : BLK_IOERR);
    if (i < 20) expect(i, rig.all[i].offset, BLOCK, 3);
  }
  assert_int_equal(info().errors, 2 * (COUNT - 20));
}

/* In one file: flips a bit of the block that begins with `first`. Returns how many there were. */
static uint32_t damage_in(const char *path, uint32_t first) {
  static char blocks[1 << 20];
  uint32_t found = 0;
  int fd = open(path, O_RDWR);
  assert_true(fd >= 0);
  off_t at = 0;
  for (ssize_t n; (n = pread(fd, blocks, sizeof blocks, at)) > 0; at += n)
    for (ssize_t k = 0; k < n; k += BLOCK)
      if (memcmp(blocks + k, &first, 4) == 0) {
        char bad = (char)(blocks[k + 1000] ^ 4);
        assert_int_equal(pwrite(fd, &bad, 1, at + k + 1000), 1);
        found++;
      }
  assert_int_equal(fsync(fd), 0);
  close(fd);
  return found;
}

/* Of the block with what fill() puts there. */
static void damage(uint64_t offset, uint32_t tag) {
  uint32_t found = 0;
  for (uint32_t i = 0; i < 2; i++) {
    char path[330];
    snprintf(path, sizeof path, "%s/shard-%04u", rig.store_path, i);
    found += damage_in(path, tag * 2654435761u + (uint32_t)(offset / 4));
  }
  assert_int_equal(found, 1);
}

/* One block cannot be read: that one request fails, whichever run it was in. */
static void one_bad_block_costs_one_request(void **state) {
  (void)state;
  open_disk(false, true);
  run(VFRONT_WRITE, 3 << 20, BLOCK, BLOCK, 5);
  struct vfront_request flush = {.op = VFRONT_FLUSH};
  assert_int_equal(vfront_do(&rig.front->queues[0], &flush), BLK_OK);
  run(VFRONT_READ, 3 << 20, BLOCK, BLOCK, 0);
  expect_all(5);
  damage((3 << 20) + 17 * BLOCK, 5);
  for (uint32_t round = 0; round < 3; round++) {
    run(VFRONT_READ, 3 << 20, BLOCK, BLOCK, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
      assert_int_equal(rig.all[i].status, i == 17 ? BLK_IOERR : BLK_OK);
      if (i != 17) expect(i, rig.all[i].offset, BLOCK, 5);
    }
    assert_int_equal(info().errors, round + 1);
    assert_int_equal(info().in_flight, 0);
  }
  /* Written again, it is whole. */
  run(VFRONT_WRITE, 3 << 20, BLOCK, BLOCK, 6);
  run(VFRONT_READ, 3 << 20, BLOCK, BLOCK, 0);
  expect_all(6);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      CASE(adjacent_ones_are_few),
      CASE(sectors_are_few),
      CASE(others_are_alone),
      CASE(stripes_are_not_crossed),
      CASE(the_end_of_the_disk_is_not_the_others_fault),
      CASE(one_bad_block_costs_one_request),
  };
  packed = argc > 1 && strcmp(argv[1], "packed") == 0;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
