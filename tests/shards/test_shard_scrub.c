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

/* ---- Reads that take long ------------------------------------------------------------------- */

/* Everything that is read here is read by the scrub or a move: some of these I/Os reach the device
 * only after many other things have happened. */
#define LATE_MAX 64u
static struct {
  const struct device_ops *ops; /* the rig's */
  struct device_ops late_ops;
  struct io *io[LATE_MAX];
  uint32_t turns[LATE_MAX], count;
  bool hold; /* all reads */
  struct random random;
} late;

static void late_submit(struct device *d, struct io *io) {
  bool at_once = !late.hold && random_below(&late.random, 2);
  if (io->op != IO_READ || late.count == LATE_MAX || at_once) {
    late.ops->submit(d, io);
    return;
  }
  late.io[late.count] = io;
  uint64_t most = random_below(&late.random, 4) ? 20 : random_below(&late.random, 3) ? 800 : 6000;
  late.turns[late.count++] = (uint32_t)random_below(&late.random, most);
}

static void late_begin(struct rig *r, uint64_t seed) {
  late.ops = r->device.device.ops;
  late.late_ops = *late.ops;
  late.late_ops.submit = late_submit;
  late.count = 0;
  late.random.state = seed;
  r->device.device.ops = &late.late_ops;
}

/* Those whose time has come, or all. */
static void late_release(struct rig *r, bool all) {
  for (uint32_t i = 0; i < late.count;) {
    if (!all && late.turns[i]-- > 0) {
      i++;
      continue;
    }
    late.ops->submit(&r->device.device, late.io[i]);
    late.io[i] = late.io[--late.count];
    late.turns[i] = late.turns[late.count];
  }
}

/* One turn of everything. */
static void turn(struct life *x) {
  struct shard_scrub_stats st;
  bool more;
  shard_scrub_stats(x->r.shard, &st);
  x->passes = st.passes;
  if (!st.running) assert_int_equal(shard_scrub_start(x->r.shard), 0);
  shard_scrub_step(x->r.shard, random_below(&x->r.random, 3) ? 1 : 1 << 20, &more);
  late_release(&x->r, false);
  rig_step(&x->r);
}

static void reap(struct life *x, uint32_t i) {
  struct shard_op *op = x->pending[i];
  for (int n = 0; !rig_done(op); n++) {
    assert_true(n < 1000000);
    if (manifest_wants_flush(shard_manifest(x->r.shard))) rig_flush(&x->r);
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
    op->flags = dice % 16 == 0 ? OP_NO_CHECKSUM : dice % 3 == 1 ? OP_DURABLE : 0;
  } else if (dice < 190) {
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
  late_begin(&x.r, seed);
  for (int n = 0; n < 3000; n++) {
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
    late_release(&x.r, true);
    shard_scrub_step(x.r.shard, 1 << 20, &more);
    rig_step(&x.r);
  }
  struct shard_scrub_stats st;
  shard_scrub_step(x.r.shard, 0, &more);
  shard_scrub_stats(x.r.shard, &st);
  assert_false(st.running);
  x.r.device.device.ops = late.ops;
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

/* A blob in small pieces, each of them less than a granule; it is replaced by one of the same
 * length between any two reads. */
static void test_replaced_within_a_granule(void **state) {
  (void)state;
  struct rig r;
  struct blob b;
  bool more;
  const uint64_t bytes = 1300000;
  rig_open(&r, 12 << 20, 9);
  char *data = rig_data(bytes, 5);
  uint64_t n = 0;
  while (rig_put(&r, 1000 + n, data, 20000, 0) == 0) n++;
  for (uint64_t i = 0; i < n; i += 2) assert_int_equal(rig_delete(&r, 1000 + i), 0);
  rig_flush(&r);
  assert_int_equal(rig_put(&r, 1, data, bytes, 0), 0);
  assert_int_equal(rig_find(&r, 1, &b), 0);
  assert_true(b.extent_count > 20 && b.granule_shift == 16);
  assert_int_equal(shard_scrub_start(r.shard), 0);
  struct shard_scrub_stats st = {.running = true};
  for (uint64_t i = 0; st.running; i++) {
    assert_true(i < 10000);
    shard_scrub_step(r.shard, 1, &more);
    for (int k = 0; k < 8; k++) rig_step(&r);
    if (i % 3 == 0) {
      free(data);
      data = rig_data(bytes, 100 + i);
      assert_int_equal(rig_put(&r, 1, data, bytes, 0), 0);
      rig_flush(&r);
    }
    shard_scrub_stats(r.shard, &st);
  }
  assert_int_equal(st.damaged_blobs, 0);
  free(data);
  rig_close(&r);
}

/* The log goes all the way round while it is being read. */
static void test_log_overtakes_the_read(void **state) {
  (void)state;
  struct rig r;
  struct manifest_stats ms = {0};
  bool more;
  rig_open(&r, 24 << 20, 10);
  late_begin(&r, 10);
  late.hold = true;
  char *data = rig_data(3000, 1);
  for (uint64_t i = 0; i < 20; i++) {
    assert_int_equal(rig_put(&r, i, data, 3000, 0), 0);
    rig_flush(&r);
  }
  assert_int_equal(shard_scrub_start(r.shard), 0);
  shard_scrub_step(r.shard, 1, &more);
  assert_int_equal(late.count, 1); /* the log's first blocks: there is no checkpoint yet */
  for (uint64_t i = 0; ms.log_frames < 400; i++) {
    assert_int_equal(rig_put(&r, i % 20, data, 1 + i % 3000, 0), 0);
    if (i % 40 == 0) assert_int_equal(rig_run(&r, rig_op(&r, OP_CHECKPOINT, 0)), 0);
    rig_flush(&r);
    manifest_stats(shard_manifest(r.shard), &ms);
  }
  assert_true(ms.log_frames > ms.log_blocks + 20);
  late.hold = false;
  struct shard_scrub_stats st = {.running = true};
  for (int i = 0; st.running; i++) {
    assert_true(i < 10000);
    late_release(&r, true);
    rig_step(&r);
    shard_scrub_step(r.shard, 1 << 20, &more);
    shard_scrub_stats(r.shard, &st);
  }
  assert_int_equal(st.damaged_metadata + st.damaged_blobs, 0);
  r.device.device.ops = late.ops;
  free(data);
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
      cmocka_unit_test(test_replaced_within_a_granule),
      cmocka_unit_test(test_log_overtakes_the_read),
      cmocka_unit_test(test_what_cannot_be_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
