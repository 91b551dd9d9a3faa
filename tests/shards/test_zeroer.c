/* test_zeroer.c - zeroing ahead of the allocator: what the mark promises, and that nobody else
 * notices it. */
#include "tests/shards/shard_rig.h"

#define MIB (1u << 20)

static struct rig rig;

static uint64_t mark(void) { return manifest_zeroed_blocks(shard_manifest(rig.shard)); }
static struct space *space(void) { return manifest_space(shard_manifest(rig.shard)); }

/* Free blocks below the mark were written: none holds the 0xff any more. */
static void check_mark(void) {
  for (uint64_t block = rig.region.log_blocks; block < mark(); block++) {
    if (!space_is_used(space(), block)) assert_int_not_equal(rig_block(&rig, block)[100], -1);
  }
}

static void run_until_quiet(void) {
  for (int i = 0; shard_tick(rig.shard) || !shard_idle(rig.shard) || rig.device.count; i++) {
    device_poll(&rig.device.device);
    if (i % 16 == 0) check_mark();
    assert_true(i < 100000);
  }
}

static void test_zeroes_ahead(void **state) {
  (void)state;
  rig_open_background(&rig, 160 * MIB, 1, false);
  char *data = rig_data(5 * MIB, 1), *buf = rig_data(5 * MIB, 2);
  run_until_quiet();
  check_mark();
  uint64_t first = mark(), end = space_end(space());
  assert_in_range(first, end + (32 * MIB >> BLOCK_SHIFT), end + (68 * MIB >> BLOCK_SHIFT));
  for (uint64_t i = 0; i < 8; i++) {
    struct shard_op *op = rig_op(&rig, OP_PUT, i); /* puts race with the zeroer */
    op->buf = data + i;
    op->bytes = 5 * MIB - i * 999;
    rig_submit(&rig, op);
    assert_int_equal(rig_wait(&rig, op), 0);
    free(op);
  }
  run_until_quiet();
  check_mark();
  assert_true(mark() > first);
  assert_true(rig.device.in_flight_max <= 12); /* a put's window and two of its own */
  for (uint64_t i = 0; i < 8; i++) {
    assert_int_equal(rig_get(&rig, i, buf, 0, 5 * MIB - 100),
                     min_u64(5 * MIB - i * 999, 5 * MIB - 100));
    assert_memory_equal(buf, data + i, 5 * MIB - i * 999 - 100);
  }
  rig_close(&rig);
  free(data);
  free(buf);
}

/* All free space is asked for while the zeroer holds some of it. */
static void test_no_false_enospc(void **state) {
  (void)state;
  rig_open_background(&rig, 32 * MIB, 1, false);
  rig.device.hold_writes = true;
  for (int i = 0; i < 4; i++) rig_step(&rig);
  uint64_t held = 0;
  for (uint32_t i = 0; i < rig.device.count; i++) held += rig.device.held[i]->bytes >> BLOCK_SHIFT;
  assert_true(held > 0); /* by the zeroer: nothing else has been written */
  uint64_t all = space_free_blocks(space()) + held;
  struct shard_op *op = rig_op(&rig, OP_PUT, 1), *more = rig_op(&rig, OP_PUT, 2);
  op->bytes = all << BLOCK_SHIFT;
  more->bytes = 1;
  op->flags = more->flags = OP_RESERVE;
  rig_submit(&rig, op);
  rig_submit(&rig, more);
  for (int i = 0; i < 10; i++) rig_step(&rig);
  assert_false(rig_done(op));
  rig.device.hold_writes = false;
  assert_int_equal(rig_wait(&rig, op), 0);
  assert_int_equal(rig_wait(&rig, more), -ENOSPC); /* now it is true */
  free(op);
  free(more);
  rig_close(&rig);
}

static void test_failed_write_stops_it(void **state) {
  (void)state;
  rig_open_background(&rig, 32 * MIB, 1, false);
  rig.device.fail_writes = 1;
  run_until_quiet();
  check_mark();
  assert_true(mark() < rig.region.blocks);
  uint64_t writes = rig.device.writes;
  uint64_t free_blocks = space_free_blocks(space());
  assert_int_equal(rig_put(&rig, 1, "x", 1, 0), 0);
  assert_int_equal(rig.device.fail_writes, 0);
  assert_true(rig.device.writes - writes < 8);
  assert_int_equal(space_free_blocks(space()), free_blocks - 1);
  rig_close(&rig);
}

static void test_block_device_needs_none(void **state) {
  (void)state;
  rig_open_background(&rig, 32 * MIB, 1, true);
  assert_int_equal(mark(), rig.region.blocks);
  for (int i = 0; i < 10; i++) rig_step(&rig);
  assert_int_equal(rig.device.writes, 0);
  rig_close(&rig);
}

/* What vacuum gave back is not taken again until there is use for it. */
static void test_punched_stays_punched(void **state) {
  (void)state;
  struct shard_vacuum_result result = {0};
  rig_open_background(&rig, 64 * MIB, 1, false);
  run_until_quiet();
  assert_int_equal(mark(), rig.region.blocks);
  struct extent run = {0};
  while (run.blocks < MIB >> BLOCK_SHIFT)
    assert_true(space_next_free(space(), run.block + run.blocks, UINT64_MAX, &run));
  assert_int_equal(shard_punch(rig.shard, &result), 0);
  assert_true(result.released_bytes > 60 * MIB);
  uint64_t writes = rig.device.writes, low = mark();
  assert_int_equal(low, run.block);
  run_until_quiet();
  assert_int_equal(rig.device.writes, writes);
  assert_int_equal(rig_put(&rig, 1, NULL, 2 * MIB, OP_RESERVE), 0);
  run_until_quiet();
  assert_true(mark() > low);
  assert_true(mark() < low + (16 * MIB >> BLOCK_SHIFT));
  rig_close(&rig);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_zeroes_ahead),          cmocka_unit_test(test_no_false_enospc),
      cmocka_unit_test(test_failed_write_stops_it), cmocka_unit_test(test_block_device_needs_none),
      cmocka_unit_test(test_punched_stays_punched),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
