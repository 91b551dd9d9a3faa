/* test_manifest.c - commits and seals, the ring of the log, checkpoints, full regions, failures. */
#include "tests/shards/manifest_rig.h"

/* ---- Commits and seals ------------------------------------------------------------------- */

static void test_commits_share_a_flush(void **state) {
  (void)state;
  struct mrig r;
  struct mwaiter w[20];
  mrig_open(&r, 4096, 1);
  uint64_t flushes = r.disk.flushes, fua = r.disk.fua_writes;
  for (uint32_t i = 0; i < 20; i++) {
    assert_int_equal(mrig_put(&r, i, 100), 0);
    mrig_commit_start(&r, &w[i]);
    assert_false(w[i].done);
  }
  mrig_drain(&r);
  for (int i = 0; i < 20; i++) assert_true(w[i].done && w[i].result == 0);
  assert_int_equal(r.disk.flushes - flushes, 1); /* all segments lie in one file */
  assert_int_equal(r.disk.fua_writes - fua, 1);
  mrig_commit_start(&r, &w[0]); /* all is durable: done at once, for nothing */
  assert_true(w[0].done && w[0].result == 0);
  assert_int_equal(r.disk.flushes - flushes, 1);
  struct manifest_stats stats;
  manifest_stats(r.m, &stats);
  assert_int_equal(stats.commits, 1);
  assert_int_equal(stats.commit_waiters, 20);
  mrig_close(&r);
}

/* Who comes while a commit runs waits for the next one: its change may not be in the first. */
static void test_commit_during_a_commit(void **state) {
  (void)state;
  struct mrig r;
  struct mwaiter first, second;
  mrig_open(&r, 4096, 2);
  uint64_t flushes = r.disk.flushes;
  mrig_put(&r, 1, 100);
  mrig_commit_start(&r, &first);
  manifest_tick(r.m);
  mrig_put(&r, 2, 100);
  mrig_commit_start(&r, &second);
  for (int i = 0; !first.done; i++) {
    assert_true(i < 1000);
    mrig_step(&r);
  }
  assert_false(second.done);
  mrig_drain(&r);
  assert_true(second.done && second.result == 0);
  assert_int_equal(r.disk.flushes - flushes, 2);
  mrig_close(&r);
}

static void test_seal_of_nothing(void **state) {
  (void)state;
  struct mrig r;
  struct mseal s;
  mrig_open(&r, 4096, 3);
  assert_false(manifest_dirty(r.m));
  uint64_t writes = r.disk.writes, flushes = r.disk.flushes;
  mrig_seal(&r, &s);
  assert_true(s.done);
  assert_false(s.seal.dirty);
  assert_int_equal(s.seal.result, 0);
  assert_memory_equal(&s.seal.root, &r.root.shards[2], sizeof s.seal.root);
  manifest_root_durable(r.m, s.seal.epoch, 0);
  assert_int_equal(mrig_delete(&r, 5), 0); /* nothing there: nothing logged */
  assert_false(manifest_dirty(r.m));
  assert_int_equal(r.disk.writes, writes);
  assert_int_equal(r.disk.flushes, flushes);
  mrig_close(&r);
}

/* Dirty from the change on until its own root is durable; a change during the seal stays so. */
static void test_dirty(void **state) {
  (void)state;
  struct mrig r;
  struct mseal s;
  mrig_open(&r, 4096, 4);
  mrig_put(&r, 1, 100);
  assert_true(manifest_dirty(r.m));
  mrig_seal(&r, &s);
  mrig_put(&r, 2, 100);
  mrig_wait_seal(&r, &s);
  assert_true(s.seal.dirty);
  assert_true(manifest_dirty(r.m));
  assert_int_equal(s.seal.root.sequence, r.next_sequence - 1);
  manifest_root_durable(r.m, s.seal.epoch, 0);
  assert_true(manifest_dirty(r.m));
  mrig_flush(&r);
  assert_false(manifest_dirty(r.m));
  mrig_close(&r);
}

/* Freed blocks come back with the root that says so, not before. */
static void test_freed_space_waits_for_the_root(void **state) {
  (void)state;
  struct mrig r;
  struct mseal s;
  mrig_open(&r, 4096, 5);
  mrig_put(&r, 1, 400000);
  mrig_flush(&r);
  uint64_t before = space_free_blocks(manifest_space(r.m));
  mrig_delete(&r, 1);
  mrig_seal(&r, &s);
  mrig_wait_seal(&r, &s);
  assert_int_equal(space_free_blocks(manifest_space(r.m)), before);
  manifest_root_durable(r.m, s.seal.epoch, 0);
  assert_int_equal(space_free_blocks(manifest_space(r.m)), before + bytes_to_blocks(400000));
  mrig_close(&r);
}

static void test_ask_flush(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 4096, 15);
  assert_int_equal(mrig_put(&r, 1, 100000), 0);
  assert_int_equal(mrig_delete(&r, 1), 0);
  assert_false(manifest_ask_flush(r.m, 0)); /* nothing freed: it would not help */
  assert_false(manifest_wants_flush(r.m));
  assert_true(manifest_ask_flush(r.m, space_pending_blocks(manifest_space(r.m))));
  assert_true(manifest_wants_flush(r.m));
  mrig_flush(&r);
  assert_false(manifest_wants_flush(r.m)); /* it has come */
  assert_int_equal(space_pending_blocks(manifest_space(r.m)), 0);
  manifest_stop(r.m);
  assert_false(manifest_ask_flush(r.m, 1));
  assert_false(manifest_wants_flush(r.m));
  mrig_close(&r);
}

/* ---- The ring ---------------------------------------------------------------------------- */

/* Round and round, with a flush only when the manifest wants one. */
static void test_the_log_goes_round(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  uint64_t tail = 0;
  mrig_open(&r, 4096, 6);
  for (int i = 0; tail < 20 * MRIG_LOG; i++) {
    assert_true(i < 1000000);
    int e = mrig_put(&r, (uint32_t)random_below(&r.random, MRIG_IDS),
                     1 + random_below(&r.random, 30000));
    if (random_below(&r.random, 4) == 0) assert_int_equal(mrig_commit(&r), 0);
    if (e) mrig_step(&r);
    if (e == -ENOSPC || manifest_wants_flush(r.m)) mrig_flush(&r);
    tail = r.root.shards[2].log_tail;
    assert_true(tail - r.root.shards[2].log_head <= MRIG_LOG);
  }
  mrig_commit(&r);
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, r.next_sequence, r.next_sequence);
  manifest_destroy(m);
  struct manifest_stats stats;
  manifest_stats(r.m, &stats);
  assert_true(stats.checkpoints > 20);
  mrig_close(&r);
}

/* Without a flush the log fills up; then the manifest says what it needs; with it all goes on. */
static void test_a_full_log_wants_a_flush(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 4096, 7);
  uint32_t puts = 0, waited = 0;
  while (waited < 1000) {
    int e = mrig_put(&r, puts % MRIG_IDS, 100);
    assert_true(e == 0 || e == -EAGAIN);
    if (e == 0 && puts++ % 2) assert_int_equal(mrig_commit(&r), 0);
    waited = e ? waited + 1 : 0;
    mrig_step(&r);
  }
  assert_true(manifest_wants_flush(r.m));
  for (uint32_t id = 0; id < 8; id++) { /* deletes have room of their own */
    assert_int_equal(mrig_delete(&r, id), 0);
    assert_int_equal(mrig_put(&r, id, 100), -EAGAIN);
  }
  struct mseal s; /* the room for a flush is kept */
  mrig_seal(&r, &s);
  assert_false(manifest_wants_flush(r.m)); /* it runs */
  mrig_wait_seal(&r, &s);
  assert_int_equal(s.seal.result, 0);
  manifest_root_durable(r.m, s.seal.epoch, 0);
  assert_int_equal(mrig_put(&r, 0, 100), 0);
  assert_false(manifest_wants_flush(r.m));
  mrig_close(&r);
}

/* Reservations hold although a commit closes the buffer that they count on, while no write ends. */
static void test_reservations_hold(void **state) {
  (void)state;
  struct mrig r;
  uint32_t held;
  mrig_open_log(&r, 40000, 16384, 8);
  struct blob_id id = mrig_id(0);
  uint64_t hash = mrig_hash(&r, id);
  struct blob b = {.id = id, .granule_shift = 12};
  for (;;) { /* until so many frames are being written that nothing more is taken */
    held = 0;
    while (held < 1000 && manifest_reserve(r.m, hash, 0, 0) == 0) held++;
    if (held < 1000) break;
    for (; held > 0; held--) manifest_put(r.m, hash, &b);
    manifest_tick(r.m);
  }
  assert_true(held > 0);
  struct mseal s;
  mrig_seal(&r, &s);
  manifest_tick(r.m);
  for (; held > 0; held--) manifest_put(r.m, hash, &b); /* none may find no buffer */
  mrig_wait_seal(&r, &s);
  assert_int_equal(s.seal.result, 0);
  mrig_drain(&r);
  manifest_root_durable(r.m, s.seal.epoch, 0);
  assert_int_equal(manifest_reserve(r.m, hash, 0, 0), 0);
  manifest_cancel(r.m, 0, 0);
  mrig_close(&r);
}

/* Both hold the same blobs. */
struct pair {
  struct index *other;
  uint64_t count;
};
static int find_in_other(void *arg, uint64_t hash, const struct blob *b) {
  struct pair *p = arg;
  struct blob o;
  assert_int_equal(index_find(p->other, hash, b->id, &o), 0);
  assert_true(o.bytes == b->bytes && o.flags == b->flags && o.granule_shift == b->granule_shift);
  assert_int_equal(o.extent_count, b->extent_count);
  assert_int_equal(o.granule_count, b->granule_count);
  if (b->extent_count)
    assert_memory_equal(o.extents, b->extents, b->extent_count * sizeof *b->extents);
  if (b->granule_count)
    assert_memory_equal(o.checksums, b->checksums, b->granule_count * sizeof *b->checksums);
  p->count++;
  return 0;
}
static void assert_recovers(struct mrig *r) {
  struct manifest *m;
  if (mrig_recover(r, &m)) fail_msg("%s", r->why);
  struct pair p = {.other = manifest_index(m)};
  for (uint32_t i = 0; i < INDEX_PARTITIONS; i++)
    index_partition_visit(manifest_index(r->m), i, find_in_other, &p);
  assert_int_equal(p.count, index_count(manifest_index(m)));
  mrig_check_space(m);
  manifest_destroy(m);
}

/* A blob of so many extents, without checksums; its blocks come in one run. */
static int reserve_extents(struct mrig *r, uint32_t count) {
  return manifest_reserve(r->m, mrig_hash(r, mrig_id(0)), count, 0);
}
static void put_extents(struct mrig *r, uint32_t id, uint32_t count) {
  static struct extent extents[BLOB_EXTENTS_MAX];
  struct extent run = {0};
  if (count) assert_int_equal(space_alloc(manifest_space(r->m), count, &run, 1, 0), 1);
  for (uint32_t i = 0; i < count; i++) extents[i] = (struct extent){run.block + i, 1};
  struct blob b = {.id = mrig_id(id),
                   .bytes = (uint64_t)count << BLOCK_SHIFT,
                   .granule_shift = 12,
                   .flags = BLOB_NO_CHECKSUM,
                   .extent_count = count,
                   .extents = extents};
  r->next_sequence = manifest_put(r->m, mrig_hash(r, b.id), &b) + 1;
}

/* Small and large reservations until no more are given; used and given back in any order, while
 * commits and a seal come in between and writes take their time. No check may fail, none may
 * find no buffer. */
static void test_reservations_in_any_order(void **state) {
  (void)state;
  static uint32_t held[4096];
  struct mrig r;
  uint64_t large = 0, most = 0;
  mrig_open_log(&r, 600000, 16384, 16);
  for (int round = 0; round < 40; round++) {
    uint32_t count = 0;
    for (int refused = 0; refused < 20;) {
      uint64_t dice = random_below(&r.random, 8);
      uint32_t n = dice < 3   ? (uint32_t)dice % 2
                   : dice < 7 ? (uint32_t)random_below(&r.random, 1020)
                              : 1024 + (uint32_t)random_below(&r.random, 3073);
      int e = reserve_extents(&r, n);
      assert_true(e == 0 || e == -EAGAIN);
      refused += e != 0;
      if (e) continue;
      assert_true(count < array_size(held));
      large += n >= 1024;
      held[count++] = n;
    }
    most = max_u64(most, count);
    struct mwaiter w = {.done = true};
    struct mseal s = {.done = true};
    bool sealed = false;
    while (count > 0) {
      uint64_t i = random_below(&r.random, count), dice = random_below(&r.random, 100);
      if (dice < 5)
        manifest_cancel(r.m, held[i], 0);
      else
        put_extents(&r, (uint32_t)random_below(&r.random, 48), held[i]);
      held[i] = held[--count];
      if (dice >= 90 && w.done) mrig_commit_start(&r, &w);
      if (dice < 10 && !sealed && round % 2) mrig_seal(&r, &s);
      sealed |= dice < 10 && round % 2;
      if (random_below(&r.random, 10) < (uint64_t)round % 4) mrig_step(&r);
    }
    mrig_wait_seal(&r, &s);
    mrig_drain(&r);
    assert_true(w.done && w.result == 0);
    if (sealed) {
      assert_int_equal(s.seal.result, 0);
      manifest_root_durable(r.m, s.seal.epoch, 0);
    }
    mrig_flush(&r);
    mrig_check_space(r.m);
    if (round % 8 == 0) assert_recovers(&r);
  }
  assert_true(large > 40 && most > 100);
  assert_recovers(&r);
  mrig_close(&r);
}

/* The largest entry there is: through the log, through a checkpoint, and replaced. */
static void test_largest_entry(void **state) {
  (void)state;
  static struct extent extents[BLOB_EXTENTS_MAX];
  static uint32_t sums[BLOB_GRANULES_MAX];
  struct mrig r;
  mrig_open_log(&r, 200000, 1024, 17);
  for (uint32_t k = 0; k < 3; k++) {
    struct blob b = {.id = mrig_id(k % 2),
                     .bytes = (uint64_t)BLOB_GRANULES_MAX << 12,
                     .granule_shift = 12,
                     .granule_count = BLOB_GRANULES_MAX,
                     .extent_count = BLOB_EXTENTS_MAX,
                     .extents = extents,
                     .checksums = sums};
    uint64_t hash = mrig_hash(&r, b.id), each = BLOB_GRANULES_MAX / BLOB_EXTENTS_MAX;
    struct extent run;
    assert_int_equal(space_alloc(manifest_space(r.m), BLOB_GRANULES_MAX, &run, 1, 0), 1);
    for (uint32_t i = 0; i < BLOB_EXTENTS_MAX; i++)
      extents[i] = (struct extent){run.block + i * each, each};
    for (uint32_t i = 0; i < BLOB_GRANULES_MAX; i++) sums[i] = k + i;
    assert_int_equal(manifest_reserve(r.m, hash, BLOB_EXTENTS_MAX, BLOB_GRANULES_MAX), 0);
    r.next_sequence = manifest_put(r.m, hash, &b) + 1;
    assert_int_equal(mrig_commit(&r), 0);
    assert_recovers(&r);
    if (k == 1) { /* makes room for the third */
      assert_int_equal(manifest_reserve(r.m, mrig_hash(&r, mrig_id(0)), 0, 0), 0);
      r.next_sequence = manifest_delete(r.m, mrig_hash(&r, mrig_id(0)), mrig_id(0)) + 1;
      assert_int_equal(mrig_commit(&r), 0);
    }
    manifest_checkpoint_all(r.m);
    while (!manifest_checkpoint_done(r.m)) mrig_step(&r);
    mrig_flush(&r);
    assert_int_equal(r.root.shards[2].log_head, r.root.shards[2].log_tail);
    assert_recovers(&r);
    mrig_check_space(r.m);
  }
  mrig_close(&r);
}

/* Entries larger than a usual frame, among small ones. */
static void test_large_entries(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  mrig_open_log(&r, 150000, 1024, 9);
  for (uint32_t i = 0; i < 12; i++) {
    int e = mrig_put(&r, i % 2, UINT64_C(256) << 20); /* 4,096 checksums */
    if (i < 2) assert_int_equal(e, 0);
    assert_int_equal(mrig_put(&r, 10 + i, 3000), 0);
    if (e || i % 3 == 2) mrig_flush(&r);
    mrig_step(&r);
  }
  assert_int_equal(mrig_commit(&r), 0);
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, r.next_sequence, r.next_sequence);
  manifest_destroy(m);
  mrig_close(&r);
}

/* ---- A full region ----------------------------------------------------------------------- */

/* No block is free: deletes go on for ever, the log moves on, and all comes back. */
static void test_full_region(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 1200, 10);
  uint64_t all = space_free_blocks(manifest_space(r.m));
  uint32_t waits = 0;
  for (int i = 0; i < 40000; i++) {
    uint32_t id = (uint32_t)random_below(&r.random, MRIG_IDS);
    int e = mrig_put(&r, id, 1 + random_below(&r.random, 90000));
    if (e == -ENOSPC && random_below(&r.random, 3) == 0) e = mrig_delete(&r, id);
    if (random_below(&r.random, 8) == 0) assert_int_equal(mrig_commit(&r), 0);
    waits = e == -EAGAIN ? waits + 1 : 0;
    assert_true(waits < 300);
    mrig_step(&r);
    if (manifest_wants_flush(r.m) || random_below(&r.random, 50) == 0) mrig_flush(&r);
  }
  for (uint32_t id = 0; id < MRIG_IDS; id++) {
    while (mrig_delete(&r, id)) {
      mrig_step(&r);
      if (manifest_wants_flush(r.m)) mrig_flush(&r);
    }
  }
  manifest_checkpoint_all(r.m);
  mrig_drain(&r);
  while (!manifest_checkpoint_done(r.m)) mrig_step(&r);
  mrig_flush(&r);
  mrig_flush(&r);
  assert_true(space_free_blocks(manifest_space(r.m)) >= all - 8); /* nothing leaked */
  mrig_close(&r);
}

/* ---- Failures ---------------------------------------------------------------------------- */

/* What fails is never tried again; waiters and seals hear of it; reads go on; a reopen recovers. */
static void failure(int writes, int flushes, bool seal) {
  struct mrig r;
  struct blob b;
  mrig_open(&r, 4096, 11);
  for (uint32_t i = 0; i < 30; i++) mrig_put(&r, i, 100);
  assert_int_equal(mrig_commit(&r), 0);
  uint64_t before = r.next_sequence;
  for (uint32_t i = 0; i < 30; i++) mrig_put(&r, i, 5000);
  r.disk.fail_write_in = writes;
  r.disk.fail_flush_in = flushes;
  if (seal) {
    struct mseal s;
    mrig_seal(&r, &s);
    mrig_wait_seal(&r, &s);
    assert_int_equal(s.seal.result, -EIO);
    assert_memory_equal(&s.seal.root, &r.root.shards[2], sizeof s.seal.root);
    manifest_root_durable(r.m, s.seal.epoch, -EIO);
  } else {
    assert_int_equal(mrig_commit(&r), -EIO);
  }
  assert_true(r.last_error[0] != 0);
  uint64_t tried = r.disk.writes + r.disk.flushes;
  assert_int_equal(mrig_put(&r, 1, 100), -EIO);
  assert_int_equal(mrig_delete(&r, 1), -EIO);
  assert_int_equal(mrig_commit(&r), -EIO);
  struct mseal again;
  mrig_seal(&r, &again);
  assert_true(again.done);
  assert_int_equal(again.seal.result, -EIO);
  for (int i = 0; i < 20; i++) mrig_step(&r);
  assert_int_equal(r.disk.writes + r.disk.flushes, tried);
  assert_int_equal(index_find(manifest_index(r.m), mrig_hash(&r, mrig_id(3)), mrig_id(3), &b), 0);
  assert_int_equal(b.bytes, 5000);
  mrig_crash(&r);
  assert_int_equal(r.next_sequence, before);
  assert_int_equal(mrig_put(&r, 1, 100), 0);
  mrig_close(&r);
}
static void test_failures(void **state) {
  (void)state;
  failure(1, 0, false); /* a frame */
  failure(0, 1, false); /* the flush before a commit frame */
  failure(2, 0, false); /* the commit frame */
  failure(1, 0, true);
  failure(0, 1, true);
}

/* Changes, commits, checkpoints and flushes until something fails. True: something did. */
static bool work_until_failure(struct mrig *r) {
  for (uint32_t i = 0; i < 60; i++) {
    if (mrig_put(r, i, 5000 + i * 500)) return true;
    if (i % 6 == 5 && mrig_delete(r, i / 2)) return true;
    if (i % 5 == 4 && mrig_commit(r)) return true;
    if (i % 15 == 7) manifest_checkpoint_all(r->m);
    if (i % 15 != 14) continue;
    struct mseal s;
    mrig_seal(r, &s);
    mrig_wait_seal(r, &s);
    manifest_root_durable(r->m, s.seal.epoch, s.seal.result);
    if (s.seal.result) return true;
    mrig_adopt_root(r, &s);
    r->covered = s.seal.root.sequence;
  }
  return false;
}

/* Whichever write or flush fails: it is told, nothing more is written, what is in memory is read as
 * before, and a reopen finds all that was promised. */
static void test_every_failure(void **state) {
  (void)state;
  uint32_t failed[2] = {0};
  for (int n = 1; n <= 50; n++) {
    for (int kind = 0; kind < 2; kind++) {
      struct mrig r;
      mrig_open(&r, 4096, 100 + (uint64_t)n);
      r.disk.fail_write_in = kind == 0 ? n : 0;
      r.disk.fail_flush_in = kind == 1 ? n : 0;
      if (work_until_failure(&r)) {
        failed[kind]++;
        mrig_drain(&r);
        assert_true(r.last_error[0] != 0);
        assert_int_equal(mrig_put(&r, 1, 100), -EIO);
        assert_int_equal(mrig_delete(&r, 95), 0); /* nothing there */
        uint64_t tried = r.disk.writes + r.disk.flushes;
        for (int i = 0; i < 10; i++) mrig_step(&r);
        assert_int_equal(r.disk.writes + r.disk.flushes, tried);
        mrig_check(&r, r.m, r.next_sequence, r.next_sequence);
      }
      mrig_crash(&r);
      assert_int_equal(mrig_put(&r, 1, 100), 0);
      assert_int_equal(mrig_commit(&r), 0);
      mrig_close(&r);
    }
  }
  assert_in_range(failed[0], 30, 50);
  assert_in_range(failed[1], 10, 49);
}

static void test_failed_root(void **state) {
  (void)state;
  struct mrig r;
  struct mseal s;
  mrig_open(&r, 4096, 12);
  mrig_put(&r, 1, 100);
  uint64_t before = r.next_sequence;
  assert_int_equal(mrig_commit(&r), 0);
  mrig_put_as(&r, 3, 100, BLOB_NO_CHECKSUM); /* so that only a root makes the rest count */
  mrig_delete(&r, 1);
  uint64_t pending = space_pending_blocks(manifest_space(r.m));
  mrig_seal(&r, &s);
  mrig_wait_seal(&r, &s);
  assert_int_equal(s.seal.result, 0);
  manifest_root_durable(r.m, s.seal.epoch, -EIO);
  assert_int_equal(space_pending_blocks(manifest_space(r.m)), pending);
  assert_int_equal(mrig_put(&r, 2, 100), -EIO);
  mrig_crash(&r);
  assert_int_equal(r.next_sequence, before);
  mrig_close(&r);
}

static void test_failed_checkpoint(void **state) {
  (void)state;
  struct mrig r;
  mrig_open(&r, 4096, 13);
  for (uint32_t i = 0; i < 60; i++) mrig_put(&r, i, 100);
  mrig_flush(&r);
  r.disk.fail_write_in = 1;
  manifest_checkpoint_all(r.m);
  mrig_step(&r);
  mrig_drain(&r);
  assert_true(manifest_checkpoint_done(r.m)); /* none is outstanding: it has stopped */
  assert_int_equal(mrig_put(&r, 1, 100), -EIO);
  mrig_crash(&r);
  mrig_close(&r);
}

static void test_read_only(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  mrig_open(&r, 4096, 14);
  for (uint32_t i = 0; i < 60; i++) mrig_put(&r, i, 100);
  mrig_flush(&r);
  r.config.read_only = true;
  r.config.device = NULL;
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, r.next_sequence, r.next_sequence);
  assert_int_equal(manifest_reserve(m, 1, 1, 1), -EROFS);
  assert_false(manifest_tick(m));
  assert_false(manifest_wants_flush(m));
  assert_true(manifest_idle(m));
  manifest_destroy(m);
  r.config.read_only = false;
  r.config.device = &r.disk.device;
  mrig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_commits_share_a_flush),
      cmocka_unit_test(test_commit_during_a_commit),
      cmocka_unit_test(test_seal_of_nothing),
      cmocka_unit_test(test_dirty),
      cmocka_unit_test(test_freed_space_waits_for_the_root),
      cmocka_unit_test(test_ask_flush),
      cmocka_unit_test(test_the_log_goes_round),
      cmocka_unit_test(test_a_full_log_wants_a_flush),
      cmocka_unit_test(test_reservations_hold),
      cmocka_unit_test(test_reservations_in_any_order),
      cmocka_unit_test(test_largest_entry),
      cmocka_unit_test(test_large_entries),
      cmocka_unit_test(test_full_region),
      cmocka_unit_test(test_failures),
      cmocka_unit_test(test_every_failure),
      cmocka_unit_test(test_failed_root),
      cmocka_unit_test(test_failed_checkpoint),
      cmocka_unit_test(test_read_only),
  };
  return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
