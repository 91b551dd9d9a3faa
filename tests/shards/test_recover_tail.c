/* test_recover_tail.c - what counts behind the last root: frames that a flush alone has made
 * durable, verified by the data that they name; what needs a commit frame; the witness behind a
 * commit; roots that are left out. */
#include "tests/shards/manifest_rig.h"

#include "shards/manifest_internal.h"

/* The only extent of what an id holds. */
static struct extent place_of(struct mrig *r, uint32_t id) {
  struct blob b;
  struct blob_id bid = mrig_id(id);
  assert_int_equal(index_find(manifest_index(r->m), mrig_hash(r, bid), bid, &b), 0);
  assert_int_equal(b.extent_count, 1);
  return b.extents[0];
}

static int recover_at(struct mrig *r, uint64_t sequence) {
  struct manifest *m;
  int e = mrig_recover(r, &m);
  if (e) return e;
  mrig_check(r, m, sequence, sequence);
  manifest_destroy(m);
  return 0;
}

/* Puts with checksums, a commit after each: every one a frame. */
static void commit_each(struct mrig *r, uint32_t first, uint32_t count) {
  for (uint32_t i = first; i < first + count; i++) {
    assert_int_equal(mrig_put_as(r, i, 5000 + i, 0), 0);
    assert_int_equal(mrig_commit(r), 0);
  }
}

static void one_flush_is_enough(void **state) {
  (void)state;
  struct mrig r;
  struct manifest_stats before, after;
  mrig_open(&r, 4096, 1);
  for (int plain = 0; plain < 2; plain++) {
    mrig_drain(&r);
    manifest_stats(r.m, &before);
    uint64_t flushes = r.disk.flushes, fua = r.disk.fua_writes;
    assert_int_equal(mrig_put_as(&r, 1, 9000, plain ? BLOB_NO_CHECKSUM : 0), 0);
    assert_int_equal(mrig_delete(&r, 1), 0);
    assert_int_equal(mrig_put_as(&r, 2, 100, 0), 0);
    assert_int_equal(mrig_commit(&r), 0);
    assert_int_equal(r.disk.flushes - flushes, 1);
    assert_int_equal(r.disk.fua_writes - fua, plain); /* the commit frame */
    mrig_drain(&r);
    manifest_stats(r.m, &after);
    assert_int_equal(after.log_frames - before.log_frames, 2); /* the other one, or a witness */
    assert_int_equal(recover_at(&r, r.next_sequence), 0);
  }
  mrig_close(&r);
}

/* Data that is not what an entry says was never promised: the frame and all behind it do not count,
 * all before it do. Data of a deleted blob, zeros behind a blob and its last byte are looked at
 * too.
 */
#define BYTES 300000u
static void what_does_not_match_is_dropped(void **state) {
  (void)state;
  for (uint32_t lost = 0; lost < 6; lost++) {
    for (uint32_t where = 0; where < 3; where++) {
      struct mrig r;
      mrig_open(&r, 4096, 2 + lost);
      mrig_flush(&r);
      uint64_t first = r.next_sequence;
      struct extent at[6];
      for (uint32_t i = 0; i < 6; i++) { /* large: each has a frame of its own at once */
        assert_int_equal(mrig_put_as(&r, i, BYTES, 0), 0);
        at[i] = place_of(&r, i);
        mrig_step(&r);
        mrig_drain(&r);
      }
      assert_int_equal(recover_at(&r, r.next_sequence), 0);
      const uint32_t byte[] = {0, BYTES - 1, BYTES};
      char *bytes = mrig_block(&r, at[lost].block + (byte[where] >> BLOCK_SHIFT));
      bytes[byte[where] % BLOCK_BYTES] ^= 1;
      assert_int_equal(recover_at(&r, first + lost), 0);
      bytes[byte[where] % BLOCK_BYTES] ^= 1;
      assert_int_equal(recover_at(&r, r.next_sequence), 0);
      mrig_close(&r);
    }
  }
}

/* With a witness behind it what was durable is not looked at, and a frame that is damaged is
 * damage. */
static void a_witness_tells_damage_from_a_torn_tail(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 4096, 3);
  mrig_flush(&r);
  uint64_t tail = r.root.shards[2].log_tail;
  commit_each(&r, 1, 3);
  mrig_drain(&r);                                           /* the last witness, too */
  char *data = mrig_block(&r, place_of(&r, 3).block) + 100; /* for whoever reads the blob */
  *data ^= 1;
  struct manifest *m;
  assert_int_equal(mrig_recover(&r, &m), 0);
  assert_int_equal(m->sequence, r.next_sequence);
  manifest_destroy(m);
  *data ^= 1;
  for (uint64_t b = tail; b < r.m->position; b++) {
    mrig_block(&r, b)[20] ^= 8;
    assert_int_equal(mrig_recover(&r, &m), -EBADMSG);
    mrig_block(&r, b)[20] ^= 8;
  }
  /* Torn, the witness is missed by nobody. */
  memset(mrig_block(&r, r.m->position - 1) + 512, 0, 512);
  assert_int_equal(recover_at(&r, r.next_sequence), 0);
  mrig_close(&r);
}

/* What is on its way to the log costs recovery no more than VERIFY_BYTES_MAX of reading. */
static void too_much_to_verify_gets_a_commit_frame(void **state) {
  (void)state;
  struct mrig r;
  mrig_open_log(&r, 40000, 512, 4);
  uint64_t fua = r.disk.fua_writes, each = VERIFY_BYTES_MAX / 8;
  for (uint32_t i = 0; i < 8; i++) assert_int_equal(mrig_put_as(&r, i, each, 0), 0);
  assert_int_equal(mrig_commit(&r), 0);
  assert_int_equal(r.disk.fua_writes, fua);
  for (uint32_t i = 0; i < 9; i++) {
    assert_int_equal(mrig_put_as(&r, 10 + i, each, 0), 0);
    mrig_step(&r); /* each has a frame of its own, at once */
  }
  assert_int_equal(mrig_commit(&r), 0);
  assert_int_equal(r.disk.fua_writes, fua + 1);
  assert_int_equal(mrig_put_as(&r, 20, each, 0), 0); /* and from there on as before */
  assert_int_equal(mrig_commit(&r), 0);
  assert_int_equal(r.disk.fua_writes, fua + 1);
  assert_int_equal(recover_at(&r, r.next_sequence), 0);
  mrig_close(&r);
}

/* A batch counts by itself only if one frame has all of it. */
static void a_batch_of_two_frames_is_not_split(void **state) {
  (void)state;
  for (uint32_t count = 40; count <= 2400; count += 2360) {
    struct mrig r;
    struct manifest_group g = {0};
    mrig_open_log(&r, 60000, 1024, 5);
    mrig_flush(&r);
    uint64_t fua = r.disk.fua_writes, before = r.next_sequence;
    for (uint32_t i = 0; i < count; i++) manifest_group_add(&g, 1, 1);
    assert_int_equal(manifest_reserve_group(r.m, &g), 0);
    manifest_use_group(r.m, &g);
    for (uint32_t i = 0; i < count; i++) mrig_put_reserved(&r, i % MRIG_IDS, 100);
    manifest_end_group(r.m);
    struct mwaiter w;
    mrig_commit_start(&r, &w);
    for (int i = 0; r.disk.flushes == 0 || !w.done; i++) {
      assert_true(i < 10000);
      /* Before the commit frame is written none of a batch of many frames counts. */
      if (count > 40 && r.disk.fua_writes == fua && r.disk.count == 0)
        assert_int_equal(recover_at(&r, before), 0);
      mrig_step(&r);
    }
    assert_int_equal(r.disk.fua_writes - fua, count > 40);
    assert_int_equal(recover_at(&r, r.next_sequence), 0);
    mrig_close(&r);
  }
}

/* Checkpoints that are taken when a witness ends the log, and roots that do not name it. */
static void checkpoints_behind_a_witness(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 4096, 6);
  for (uint32_t i = 0; i < 60; i++) assert_int_equal(mrig_put_as(&r, i, 100, 0), 0);
  mrig_flush(&r);
  for (uint32_t round = 0; round < 200; round++) {
    assert_int_equal(mrig_put_as(&r, round % 60, 100, 0), 0);
    assert_int_equal(mrig_commit(&r), 0);
    mrig_drain(&r);
    assert_true(r.m->position == r.m->witness_position);
    if (round % 3 == 0) manifest_checkpoint_all(r.m);
    for (uint32_t n = round % 8; n > 0; n--) mrig_step(&r); /* some of them */
    mrig_flush(&r);
    assert_int_equal(recover_at(&r, r.next_sequence), 0);
    uint64_t log_tail = r.root.shards[2].log_tail;
    mrig_flush(&r); /* nothing to do */
    assert_int_equal(r.root.shards[2].log_tail, log_tail);
  }
  mrig_close(&r);
}

/* What a witness that nothing needs says: one wrong bit in it is no damage. */
static void a_witness_behind_a_root_is_not_missed(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 4096, 9);
  assert_int_equal(mrig_put_as(&r, 1, 100, 0), 0);
  assert_int_equal(mrig_commit(&r), 0);
  mrig_drain(&r);
  mrig_flush(&r);
  assert_int_equal(r.root.shards[2].log_tail + 1, r.m->position);
  mrig_block(&r, r.m->position - 1)[30] ^= 1;
  assert_int_equal(recover_at(&r, r.next_sequence), 0);
  mrig_close(&r);
}

/* Recovery may begin once more from the root that does not know of the tail: until one does,
 * nothing is written where the tail has freed something. */
static void what_the_tail_freed_stays(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  mrig_open(&r, 4096, 8);
  for (uint32_t i = 0; i < 60; i++) assert_int_equal(mrig_put_as(&r, i, 5000, 0), 0);
  mrig_flush(&r);
  for (uint32_t i = 0; i < 50; i++) assert_int_equal(mrig_delete(&r, i), 0);
  assert_int_equal(mrig_commit(&r), 0);
  mrig_drain(&r);
  assert_int_equal(mrig_recover(&r, &m), 0);
  assert_true(manifest_unsettled(m));
  uint64_t writes = r.disk.writes;
  manifest_checkpoint_all(m);
  for (int i = 0; i < 20; i++) {
    manifest_tick(m);
    device_poll(&r.disk.device);
  }
  assert_int_equal(r.disk.writes, writes);
  assert_false(manifest_checkpoint_done(m));
  manifest_destroy(m);
  assert_int_equal(recover_at(&r, r.next_sequence), 0);
  mrig_close(&r);
}

/* However much a hostile log names, an open reads no more of it than of an honest one. */
static void what_is_verified_is_bounded(void **state) {
  (void)state;
  struct mrig r;
  mrig_open_log(&r, 40000, 512, 10);
  mrig_flush(&r);
  uint64_t before = r.next_sequence, each = VERIFY_BYTES_MAX / 4;
  for (uint32_t i = 0; i < 5; i++) {
    assert_int_equal(mrig_put_as(&r, i, each, 0), 0);
    mrig_step(&r);
    mrig_drain(&r);
    r.m->flushed_bytes = r.m->named_bytes; /* a liar */
  }
  assert_int_equal(recover_at(&r, before + 4), 0);
  mrig_close(&r);
}

/* A flush whose root is left out: durable, and part of the next one. */
static void roots_that_are_left_out(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 4096, 7);
  mrig_flush(&r);
  for (uint32_t round = 0; round < 40; round++) {
    struct mseal s;
    assert_int_equal(mrig_put_as(&r, round % 7, 5000, 0), 0);
    if (round % 3) assert_int_equal(mrig_delete(&r, (round + 3) % 7), 0);
    uint64_t sealed = r.next_sequence, pending = space_pending_blocks(manifest_space(r.m));
    mrig_seal(&r, &s);
    mrig_wait_seal(&r, &s); /* with its flush */
    assert_true(s.seal.verifiable && !s.seal.batched);
    assert_int_equal(mrig_put_as(&r, 10, 100, 0), 0); /* of the next epoch */
    manifest_seal_survives(r.m);
    assert_true(manifest_is_durable(r.m, r.m->sequence - 2));
    assert_true(manifest_dirty(r.m));
    if (round % 4 != 3) {
      manifest_root_skipped(r.m);
      assert_in_range(space_pending_blocks(manifest_space(r.m)), pending, pending + 1);
    } else {
      mrig_adopt_root(&r, &s);
      manifest_root_durable(r.m, s.seal.epoch, 0);
    }
    r.covered = max_u64(r.covered, sealed);
    if (round % 5 == 4) mrig_crash(&r);
    mrig_check_space(r.m);
  }
  mrig_close(&r);
}

/* A device of which only short reads succeed, so that a frame's first block is read twice; the
 * second time it says that the frame has 4 GiB. */
#define PAYLOAD_BYTES_AT 60u /* docs/format.md */
static const struct backing_ops *steady_ops;
static uint32_t changed_reads;
static int read_differently(struct backing *b, void *buf, uint64_t bytes, uint64_t offset) {
  if (bytes > 64 * BLOCK_BYTES) return -EIO;
  int r = steady_ops->read(b, buf, bytes, offset);
  if (r || bytes <= BLOCK_BYTES || memcmp(buf, "SFRM", 4) != 0) return r;
  memset((char *)buf + PAYLOAD_BYTES_AT, 0xf8, 4);
  changed_reads++;
  return 0;
}

static void a_frame_that_changes_between_two_reads(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 8192, 6);
  mrig_flush(&r);
  for (uint32_t i = 0; i < 2 * MRIG_IDS; i++)
    assert_int_equal(mrig_put_as(&r, i % MRIG_IDS, 100, 0), 0);
  assert_int_equal(mrig_commit(&r), 0);
  mrig_drain(&r);
  struct backing *b = r.region.segments[0].backing;
  struct backing_ops ops = *b->ops;
  steady_ops = b->ops;
  ops.read = read_differently;
  b->ops = &ops;
  struct manifest *m;
  assert_int_equal(mrig_recover(&r, &m), -EBADMSG); /* the witness says that more was durable */
  assert_true(changed_reads > 0);
  b->ops = steady_ops;
  assert_int_equal(recover_at(&r, r.next_sequence), 0);
  mrig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_flush_is_enough),
      cmocka_unit_test(what_does_not_match_is_dropped),
      cmocka_unit_test(a_witness_tells_damage_from_a_torn_tail),
      cmocka_unit_test(too_much_to_verify_gets_a_commit_frame),
      cmocka_unit_test(a_batch_of_two_frames_is_not_split),
      cmocka_unit_test(checkpoints_behind_a_witness),
      cmocka_unit_test(a_witness_behind_a_root_is_not_missed),
      cmocka_unit_test(what_the_tail_freed_stays),
      cmocka_unit_test(what_is_verified_is_bounded),
      cmocka_unit_test(roots_that_are_left_out),
      cmocka_unit_test(a_frame_that_changes_between_two_reads),
  };
  return cmocka_run_group_tests_name("recover_tail", tests, NULL, NULL);
}
