/* test_shard_scrub.c - a shard's scrub while its I/O completes in any order: blobs are overwritten,
 * deleted, moved; the log goes round; checkpoints come and go. Nothing of that is damage. What is
 * damage is found, and so is what cannot be read. */
#include "tests/shards/shard_rig.h"

#define IDS     60u
#define PENDING 12u

struct life {
  struct rig r;
  struct shard_op *pending[PENDING];
  uint64_t passes, flushes, checkpoints, moved;
  struct shard_vacuum_result vacuum;
};

static void expect_nothing(struct life *x) {
  struct shard_scrub_stats st;
  shard_scrub_stats(x->r.shard, &st);
  assert_int_equal(st.damaged_blobs, 0);
  assert_int_equal(st.damaged_metadata, 0);
  assert_int_equal(st.unreadable, 0);
}

/* One turn of everything. */
static void turn(struct life *x) {
  struct shard_scrub_stats st;
  bool more;
  shard_scrub_stats(x->r.shard, &st);
  x->passes = st.passes;
  if (!st.running) assert_int_equal(shard_scrub_start(x->r.shard), 0);
  shard_scrub_step(x->r.shard, random_below(&x->r.random, 3) ? 1 : 1 << 20, &more);
  rig_step(&x->r);
}

static void reap(struct life *x, uint32_t i) {
  struct shard_op *op = x->pending[i];
  for (int n = 0; !rig_done(op); n++) {
    assert_true(n < 1000000);
    turn(x);
  }
  assert_true(op->result >= 0 || op->result == -ENOENT || op->result == -ENOSPC);
  if (op->kind == OP_VACUUM) x->moved += x->vacuum.moved_bytes;
  if (op->kind == OP_PUT) free(op->buf);
  free(op);
  x->pending[i] = NULL;
}

static void random_op(struct life *x) {
  static const uint64_t sizes[] = {1, 4096, 5000, 70000, 200000, 1300000};
  struct rig *r = &x->r;
  uint32_t i = (uint32_t)random_below(&r->random, PENDING);
  uint64_t dice = random_below(&r->random, 200), id = random_below(&r->random, IDS);
  if (x->pending[i]) reap(x, i);
  struct shard_op *op;
  if (dice < 150) {
    op = rig_op(r, OP_PUT, id);
    op->bytes = 1 + random_below(&r->random, sizes[random_below(&r->random, array_size(sizes))]);
    op->buf = rig_data(op->bytes, random_next(&r->random));
    op->flags = dice % 16 == 0 ? OP_NO_CHECKSUM : dice % 16 == 1 ? OP_DURABLE : 0;
  } else if (dice < 196) {
    op = rig_op(r, OP_DELETE, id);
  } else if (dice < 198) {
    op = rig_op(r, OP_CHECKPOINT, 0);
    x->checkpoints++;
  } else {
    for (uint32_t k = 0; k < PENDING; k++)
      if (x->pending[k] && x->pending[k]->kind == OP_VACUUM) return;
    op = rig_op(r, OP_VACUUM, 0);
    op->buf = &x->vacuum;
  }
  x->pending[i] = op;
  rig_submit(r, op);
}

static void live(uint64_t seed, uint64_t region_bytes) {
  struct life x;
  memset(&x, 0, sizeof x);
  rig_open(&x.r, region_bytes, seed);
  for (int n = 0; n < 1500; n++) {
    random_op(&x);
    for (uint64_t k = random_below(&x.r.random, 6); k > 0; k--) turn(&x);
    if (random_below(&x.r.random, 25) == 0 || manifest_wants_flush(shard_manifest(x.r.shard))) {
      rig_flush(&x.r);
      x.flushes++;
    }
    expect_nothing(&x);
  }
  for (uint32_t i = 0; i < PENDING; i++)
    while (x.pending[i]) {
      if (manifest_wants_flush(shard_manifest(x.r.shard))) rig_flush(&x.r);
      if (rig_done(x.pending[i])) reap(&x, i);
      turn(&x);
    }
  expect_nothing(&x);
  assert_true(x.passes > 2 && x.flushes > 20);
  shard_scrub_stop(x.r.shard);
  bool more;
  for (int i = 0; !shard_idle(x.r.shard); i++) {
    assert_true(i < 100000);
    shard_scrub_step(x.r.shard, 1 << 20, &more);
    rig_step(&x.r);
  }
  struct shard_scrub_stats st;
  shard_scrub_step(x.r.shard, 0, &more);
  shard_scrub_stats(x.r.shard, &st);
  assert_false(st.running);
  rig_close(&x.r);
}

static void test_life_goes_on(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 6; seed++) live(seed, 24 << 20);
}
/* Freed blocks are given out again at once. */
static void test_life_in_a_full_region(void **state) {
  (void)state;
  for (uint64_t seed = 50; seed <= 55; seed++) live(seed, 7 << 20);
}

static struct shard_scrub_stats scrub_once(struct rig *r) {
  struct shard_scrub_stats st;
  bool more;
  assert_int_equal(shard_scrub_start(r->shard), 0);
  assert_int_equal(shard_scrub_start(r->shard), -EBUSY);
  for (int i = 0;; i++) {
    assert_true(i < 100000);
    shard_scrub_stats(r->shard, &st);
    if (!st.running) return st;
    shard_scrub_step(r->shard, UINT64_MAX, &more);
    rig_step(r);
  }
}

/* Any block of any blob: in one piece, in many, in granules larger than a read. */
static void test_finds_damage(void **state) {
  (void)state;
  struct rig r;
  static const uint64_t sizes[] = {100, 4096, 300000, 5000000};
  rig_open(&r, 64 << 20, 7);
  for (uint64_t i = 0; i < array_size(sizes); i++) {
    char *data = rig_data(sizes[i], i);
    assert_int_equal(rig_put(&r, i, data, sizes[i], 0), 0);
    free(data);
  }
  rig_flush(&r);
  assert_int_equal(scrub_once(&r).damaged_blobs, 0);
  for (int n = 0; n < 60; n++) {
    struct blob b;
    uint64_t id = random_below(&r.random, array_size(sizes)), i;
    assert_int_equal(rig_find(&r, id, &b), 0);
    i = random_below(&r.random, b.bytes);
    const struct extent *e = b.extents;
    uint64_t block = i >> BLOCK_SHIFT;
    while (block >= e->blocks) block -= e++->blocks;
    char *at = rig_block(&r, e->block + block) + i % BLOCK_BYTES;
    *at ^= 8;
    struct shard_scrub_stats st = scrub_once(&r);
    assert_int_equal(st.damaged_blobs, 1);
    assert_int_equal(st.blobs, array_size(sizes));
    assert_int_equal(st.unreadable, 0);
    *at ^= 8;
  }
  assert_int_equal(scrub_once(&r).damaged_blobs, 0);
  rig_close(&r);
}

static void test_what_cannot_be_read(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 24 << 20, 8);
  char *data = rig_data(900000, 1);
  assert_int_equal(rig_put(&r, 1, data, 900000, 0), 0);
  rig_flush(&r);
  r.device.fail_reads = 1;
  struct shard_scrub_stats st = scrub_once(&r);
  assert_true(st.unreadable == 1 && st.damaged_blobs + st.damaged_metadata == 1);
  st = scrub_once(&r);
  assert_int_equal(st.unreadable + st.damaged_blobs + st.damaged_metadata, 0);
  r.device.fail_reads = 1000;
  st = scrub_once(&r);
  assert_true(st.damaged_blobs == 1 && st.damaged_metadata > 0);
  r.device.fail_reads = 0;
  free(data);
  rig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_life_goes_on),
      cmocka_unit_test(test_life_in_a_full_region),
      cmocka_unit_test(test_finds_damage),
      cmocka_unit_test(test_what_cannot_be_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
