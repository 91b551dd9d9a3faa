/* test_group.c - what batches need of the manifest: groups of reservations, and changes that no
 * commit may cover before a root does. */
#include "tests/shards/manifest_rig.h"

/* ---- Groups ------------------------------------------------------------------------------- */

#define LARGE  1100u /* extents of a blob whose entry takes a buffer of its own */
#define MIDDLE 900u  /* and of one with the longest entries that do not */

static struct manifest_group group_of(const uint32_t *extents, uint32_t count) {
  struct manifest_group g = {0};
  for (uint32_t i = 0; i < count; i++) manifest_group_add(&g, extents[i], 0);
  return g;
}

/* A blob of so many extents, one block each; 0: a delete of what is there, else an empty one. */
static void put_extents(struct mrig *r, uint32_t id, uint32_t extents) {
  static struct extent run[LARGE], all[LARGE];
  struct blob b = {.id = mrig_id(id), .bytes = (uint64_t)extents * BLOCK_BYTES}, old;
  uint64_t hash = mrig_hash(r, b.id), n = 0;
  if (extents == 0 && index_find(manifest_index(r->m), hash, b.id, &old) == 0) {
    manifest_delete(r->m, hash, b.id);
    return;
  }
  int runs = extents ? space_alloc(manifest_space(r->m), extents, run, LARGE, 0) : 0;
  assert_true(runs >= 0);
  for (int i = 0; i < runs; i++)
    for (uint64_t k = 0; k < run[i].blocks; k++) all[n++] = (struct extent){run[i].block + k, 1};
  b.granule_shift = blob_granule_shift(b.bytes);
  b.flags = extents ? BLOB_NO_CHECKSUM : 0;
  b.extents = all;
  b.extent_count = extents;
  manifest_put(r->m, hash, &b);
}

static void use(struct mrig *r, const uint32_t *extents, uint32_t count) {
  struct manifest_group g = group_of(extents, count);
  manifest_use_group(r->m, &g);
  for (uint32_t i = 0; i < count; i++) put_extents(r, i % MRIG_IDS, extents[i]);
}

/* How many more single reservations there is room for. */
static uint32_t room(struct mrig *r) {
  uint32_t n = 0;
  while (manifest_reserve(r->m, n, 1, 1) == 0) n++;
  for (uint32_t i = 0; i < n; i++) manifest_cancel(r->m, 1, 1);
  return n;
}

static void test_a_group_that_never_fits(void **state) {
  (void)state;
  struct mrig r;
  uint32_t large[4] = {LARGE, LARGE, LARGE, LARGE};
  mrig_open(&r, 8192, 1);
  uint32_t before = room(&r);
  struct manifest_group g = group_of(large, 4);
  assert_int_equal(manifest_reserve_group(r.m, &g), -ENOSPC);
  g = (struct manifest_group){0};
  for (uint32_t i = 0; i < 20000; i++) manifest_group_add(&g, 1, 1); /* longer than the log */
  assert_int_equal(manifest_reserve_group(r.m, &g), -ENOSPC);
  assert_int_equal(room(&r), before);
  g = group_of(large, 3);
  assert_int_equal(manifest_reserve_group(r.m, &g), 0);
  assert_true(room(&r) < before);
  manifest_cancel_group(r.m, &g);
  assert_int_equal(room(&r), before);
  mrig_close(&r);
}

/* More changes than single reservations have room for, and the frames that they become. */
static void test_a_group_takes_less_of_the_log(void **state) {
  (void)state;
  struct mrig r;
  static uint32_t extents[1024];
  struct manifest_stats before, after;
  mrig_open(&r, 8192, 2);
  assert_true(room(&r) < 200);
  for (uint32_t i = 0; i < 1024; i++) extents[i] = i < MRIG_IDS ? 1 : 0;
  struct manifest_group g = group_of(extents, 1024);
  assert_int_equal(manifest_reserve_group(r.m, &g), 0);
  manifest_stats(r.m, &before);
  use(&r, extents, 1024);
  mrig_flush(&r);
  manifest_stats(r.m, &after);
  assert_true(after.log_blocks_used - before.log_blocks_used < 20);
  assert_true(room(&r) > 0);
  mrig_close(&r);
}

/* Whatever is in a group: once it is reserved it finds its place, beside single reservations that
 * are used later. The manifest checks itself at each. */
static void test_groups_of_all_kinds(void **state) {
  (void)state;
  struct mrig r;
  uint32_t reserved = 0, refused = 0;
  static uint32_t extents[300];
  mrig_open_log(&r, 65536, 1024, 3);
  for (int round = 0; round < 400; round++) {
    uint32_t singles = (uint32_t)random_below(&r.random, 20);
    uint32_t count = 1 + (uint32_t)random_below(&r.random, random_below(&r.random, 4) ? 20 : 300);
    for (uint32_t i = 0; i < count; i++) {
      uint64_t dice = random_below(&r.random, 100);
      extents[i] = dice < 2 ? LARGE : dice < 10 ? MIDDLE : dice < 60 ? 1 : 0;
    }
    struct manifest_group g = group_of(extents, count);
    for (uint32_t i = 0; i < singles; i++)
      if (manifest_reserve(r.m, i, 1, 0)) singles = i;
    int e = manifest_reserve_group(r.m, &g);
    assert_true(e == 0 || e == -EAGAIN || e == -ENOSPC);
    reserved += e == 0;
    refused += e != 0;
    for (uint64_t n = random_below(&r.random, 3); n > 0; n--) mrig_step(&r);
    if (e == 0 && random_below(&r.random, 8) == 0)
      manifest_cancel_group(r.m, &g);
    else if (e == 0)
      use(&r, extents, count);
    for (uint32_t i = 0; i < singles; i++) put_extents(&r, MRIG_IDS + i, 1);
    for (uint64_t n = random_below(&r.random, 5); n > 0; n--) mrig_step(&r);
    if (e || round % 4 == 0) {
      manifest_checkpoint_all(r.m);
      mrig_flush(&r);
    }
  }
  assert_true(reserved > 100 && refused > 20);
  mrig_flush(&r);
  mrig_check_space(r.m);
  mrig_close(&r);
}

/* ---- Changes that only a root covers --------------------------------------------------------- */

static void test_no_commit_covers_a_batch(void **state) {
  (void)state;
  struct mrig r;
  struct mwaiter w, later;
  struct mseal s;
  struct manifest_stats stats;
  mrig_open(&r, 4096, 4);
  mrig_put(&r, 1, 100);
  manifest_note_batch(r.m);
  mrig_put(&r, 2, 100);
  mrig_commit_start(&r, &w);
  for (int i = 0; i < 100; i++) mrig_step(&r);
  assert_false(w.done);
  assert_true(manifest_wants_flush(r.m));
  mrig_seal(&r, &s);
  mrig_wait_seal(&r, &s);
  assert_true(s.seal.batched);
  mrig_put(&r, 3, 100);
  mrig_commit_start(&r, &later);
  for (int i = 0; i < 100; i++) mrig_step(&r);
  assert_false(w.done); /* sealed is not durable */
  mrig_adopt_root(&r, &s);
  manifest_root_durable(r.m, s.seal.epoch, 0);
  assert_true(w.done && w.result == 0);
  assert_false(later.done);
  manifest_stats(r.m, &stats);
  assert_int_equal(stats.commits, 0);
  mrig_drain(&r);
  assert_true(later.done && later.result == 0); /* commits are back */
  manifest_stats(r.m, &stats);
  assert_int_equal(stats.commits, 1);
  mrig_seal(&r, &s);
  mrig_wait_seal(&r, &s);
  assert_false(s.seal.batched);
  manifest_root_durable(r.m, s.seal.epoch, 0);
  mrig_close(&r);
}

static void test_a_shard_that_stopped_says_batched_once(void **state) {
  (void)state;
  struct mrig r;
  struct mwaiter w;
  struct mseal s;
  mrig_open(&r, 4096, 5);
  mrig_put(&r, 1, 100);
  manifest_note_batch(r.m);
  mrig_commit_start(&r, &w);
  manifest_stop(r.m);
  mrig_drain(&r);
  assert_true(w.done && w.result == -EIO);
  mrig_seal(&r, &s);
  assert_true(s.done && s.seal.batched);
  assert_int_equal(s.seal.result, -EIO);
  manifest_root_durable(r.m, s.seal.epoch, -EIO);
  mrig_seal(&r, &s);
  assert_true(s.done && !s.seal.batched);
  assert_int_equal(s.seal.result, -EIO);
  mrig_close(&r);
}

/* The flush in which a shard fails has stopped the others; not so for a batch of the epoch after.
 */
static void test_a_failed_flush_and_the_batches_around_it(void **state) {
  (void)state;
  for (int later = 0; later < 2; later++) {
    struct mrig r;
    struct mseal s;
    mrig_open(&r, 4096, 6);
    mrig_put(&r, 1, 100);
    manifest_note_batch(r.m);
    mrig_seal(&r, &s);
    mrig_wait_seal(&r, &s);
    assert_true(s.seal.batched);
    mrig_put(&r, 2, 100);
    if (later) manifest_note_batch(r.m);
    manifest_root_durable(r.m, s.seal.epoch, -EIO);
    mrig_seal(&r, &s);
    assert_int_equal(s.seal.result, -EIO);
    assert_int_equal(s.seal.batched, later);
    mrig_close(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_group_that_never_fits),
      cmocka_unit_test(test_a_group_takes_less_of_the_log),
      cmocka_unit_test(test_groups_of_all_kinds),
      cmocka_unit_test(test_no_commit_covers_a_batch),
      cmocka_unit_test(test_a_shard_that_stopped_says_batched_once),
      cmocka_unit_test(test_a_failed_flush_and_the_batches_around_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
