/* test_recover.c - recovery after power cuts, damage and holes. */
#include "tests/shards/manifest_rig.h"

#include "shards/base/crc32c.h"

/* ---- Power cuts ------------------------------------------------------------------------------ */

/* Any cut leaves the state before some sequence, not older than what was promised; recovery
 * changes nothing and gives the same again; blobs' blocks are theirs (freed space was not reused
 * too early). All that is checked by mrig_crash(). */
static void power_cuts(uint64_t seed, uint64_t blocks, int crashes) {
  struct mrig r;
  mrig_open(&r, blocks, seed);
  for (int i = 0; i < crashes; i++) {
    for (uint64_t n = random_below(&r.random, 1500); n > 0; n--) {
      mrig_random_step(&r);
      if (n % 64 == 0) mrig_check_space(r.m);
    }
    mrig_crash(&r);
  }
  struct manifest_stats stats;
  manifest_stats(r.m, &stats);
  assert_int_equal(r.crashes, crashes);
  assert_true(r.flushes > (uint64_t)crashes);
  mrig_settle(&r);
  mrig_close(&r);
}
static void test_power_cuts(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 6; seed++) power_cuts(seed, 4096, 25);
}
static void test_power_cuts_in_a_full_region(void **state) {
  (void)state;
  for (uint64_t seed = 100; seed < 104; seed++) power_cuts(seed, 900, 25);
}

/* ---- Damage ------------------------------------------------------------------------------ */

/* A store with something in the log before the root's tail, and something committed behind it. Some
 * blobs have no checksums: commit frames say what counts. */
static void put_some(struct mrig *r, uint32_t i) {
  assert_int_equal(mrig_put_as(r, i, 5000, i % 5 == 2 ? BLOB_NO_CHECKSUM : 0), 0);
}
static void make_history(struct mrig *r) {
  mrig_open(r, 4096, 5);
  for (uint32_t i = 0; i < 40; i++) {
    put_some(r, i);
    if (i % 10 == 9) assert_int_equal(mrig_commit(r), 0);
  }
  mrig_flush(r);
  for (uint32_t i = 40; i < 60; i++) {
    put_some(r, i);
    if (i % 5 == 4) assert_int_equal(mrig_commit(r), 0);
  }
}

static int recover_only(struct mrig *r) {
  struct manifest *m;
  int e = mrig_recover(r, &m);
  if (!e) {
    mrig_check(r, m, r->next_sequence, r->next_sequence);
    manifest_destroy(m);
  }
  return e;
}

static void checkpoint_all(struct mrig *r) {
  manifest_checkpoint_all(r->m);
  for (int i = 0; !manifest_checkpoint_done(r->m); i++) {
    assert_true(i < 10000);
    mrig_step(r);
  }
  mrig_flush(r);
}

/* Each block of the committed log is damaged in turn: it is noticed, and named. */
static void test_damage_in_the_committed_log(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  struct manifest_stats stats;
  manifest_stats(r.m, &stats);
  assert_int_equal(recover_only(&r), 0);
  assert_true(stats.log_blocks_used >= 16);
  for (uint64_t b = 0; b + 1 < stats.log_blocks_used; b++) {
    char place[48], *at = mrig_block(&r, b) + random_below(&r.random, 64);
    *at ^= 0x10;
    assert_int_equal(recover_only(&r), -EBADMSG);
    snprintf(place, sizeof place, "region block %llu", (unsigned long long)b);
    if (!strstr(r.why, place)) fail_msg("block %llu: %s", (unsigned long long)b, r.why);
    *at ^= 0x10;
  }
  assert_int_equal(recover_only(&r), 0);
  mrig_close(&r);
}

/* The last commit frame lost: a torn tail, all before the last but one commit is there. */
static void test_torn_tail(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  struct manifest_stats stats;
  manifest_stats(r.m, &stats);
  memset(mrig_block(&r, stats.log_blocks_used - 1), 0, BLOCK_BYTES);
  struct manifest *m;
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, r.next_sequence - 5, r.next_sequence - 5);
  manifest_destroy(m);
  mrig_close(&r);
}

/* What is staged or written without a commit does not count, whole as it may be, unless it says
 * itself how to find out whether its data are there. */
static void test_uncommitted_is_dropped(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  uint64_t committed = r.next_sequence;
  struct mseal s;
  for (uint32_t i = 0; i < 20; i++) put_some(&r, i);
  mrig_seal(&r, &s);
  mrig_wait_seal(&r, &s); /* frames are on disk, no root names them */
  struct manifest *m;
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, committed, committed);
  manifest_destroy(m);
  manifest_root_durable(r.m, s.seal.epoch, -EIO);
  mrig_close(&r);
}

/* Damage where nothing is committed yet is a torn tail, wherever it is. */
static void test_damage_in_the_uncommitted_tail(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  struct manifest_stats stats;
  manifest_stats(r.m, &stats);
  uint64_t committed = r.next_sequence;
  struct mseal s;
  for (uint32_t i = 0; i < 60; i++) assert_int_equal(mrig_put_as(&r, i, 90000, i == 0), 0);
  mrig_seal(&r, &s);
  mrig_wait_seal(&r, &s);
  assert_true(s.seal.root.log_tail > stats.log_blocks_used + 1);
  for (uint64_t b = stats.log_blocks_used; b < s.seal.root.log_tail; b++) {
    char *at = mrig_block(&r, b) + random_below(&r.random, BLOCK_BYTES);
    struct manifest *m;
    *at ^= 0x10;
    if (mrig_recover(&r, &m)) fail_msg("block %llu: %s", (unsigned long long)b, r.why);
    mrig_check(&r, m, committed, committed);
    manifest_destroy(m);
    *at ^= 0x10;
  }
  manifest_root_durable(r.m, s.seal.epoch, -EIO);
  mrig_close(&r);
}

/* The message is cut to the room that it has. */
static void test_short_message(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  mrig_block(&r, 3)[100] ^= 1;
  for (size_t bytes = 1; bytes < 100; bytes += 7) {
    struct manifest *m;
    char *why = malloc(bytes);
    assert_int_equal(manifest_recover(&m, &r.config, &r.root, why, bytes), -EBADMSG);
    assert_true(strlen(why) < bytes);
    free(why);
  }
  mrig_block(&r, 3)[100] ^= 1;
  mrig_close(&r);
}

/* Frames of an earlier open stay behind the tail, and may fit the chain: they are not taken for new
 * ones. */
static void test_dead_incarnation(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  make_history(&r);
  r.root.incarnation++; /* what is committed behind this tail was committed by another open */
  uint64_t sequence = r.root.shards[2].sequence;
  assert_true(sequence < r.next_sequence);
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, sequence, sequence);
  manifest_destroy(m);
  mrig_close(&r);
}

static void test_dead_frames_fit_the_chain(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  struct mseal s;
  struct manifest *m;
  uint64_t committed = r.next_sequence;
  put_some(&r, 2); /* without checksums */
  for (uint32_t i = 0; i < 20; i++) assert_int_equal(mrig_delete(&r, i), 0);
  mrig_seal(&r, &s);
  mrig_wait_seal(&r, &s);
  uint64_t dead = s.seal.root.log_tail - 1;
  manifest_root_durable(r.m, s.seal.epoch, -EIO);
  mrig_crash(&r);
  assert_int_equal(r.next_sequence, committed);
  assert_true(r.root.shards[2].log_tail <= dead);
  assert_memory_equal(mrig_block(&r, dead), "SFRM", 4);
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, committed, committed);
  manifest_destroy(m);
  assert_int_equal(mrig_put(&r, 1, 100), 0);
  assert_int_equal(mrig_commit(&r), 0);
  assert_int_equal(mrig_recover(&r, &m), 0);
  mrig_check(&r, m, committed + 1, committed + 1);
  manifest_destroy(m);
  mrig_close(&r);
}

/* ---- Swapped and foreign bytes ----------------------------------------------------------- */

static void test_frames_of_others(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  r.config.uuid[3] ^= 1; /* as if the region were of another store */
  assert_int_equal(recover_only(&r), -EBADMSG);
  assert_non_null(strstr(r.why, "another store"));
  r.config.uuid[3] ^= 1;
  /* a misdirected write: the frame of another place */
  char kept[BLOCK_BYTES];
  memcpy(kept, mrig_block(&r, 0), BLOCK_BYTES);
  memcpy(mrig_block(&r, 0), mrig_block(&r, 2), BLOCK_BYTES);
  assert_int_equal(recover_only(&r), -EBADMSG);
  memcpy(mrig_block(&r, 0), kept, BLOCK_BYTES);
  r.root.shards[1] = r.root.shards[2]; /* another shard's region */
  r.config.shard = 1;
  assert_int_equal(recover_only(&r), -EBADMSG);
  r.config.shard = 2;
  assert_int_equal(recover_only(&r), 0);
  mrig_close(&r);
}

/* Two frames at the tail of an idle log: one with a payload, and the commit that makes it count. */
static void forge_tail(struct mrig *r, struct frame f, const void *payload, uint32_t bytes) {
  static uint64_t buf64[FRAME_BYTES_MAX / 8];
  char *buf = (char *)buf64;
  uint64_t position = r->root.shards[2].log_tail; /* as the frames say, they may lie */
  memcpy(buf + FRAME_HEADER_BYTES, payload, bytes);
  f.payload_bytes = bytes;
  frame_encode(&f, buf);
  uint64_t blocks = frame_blocks(bytes);
  assert_int_equal(region_write(&r->region, buf, position, blocks), 0);
  f = (struct frame){.store = f.store,
                     .shard = f.shard,
                     .incarnation = f.incarnation,
                     .epoch = f.epoch,
                     .position = f.position + blocks,
                     .sequence = f.sequence + f.entry_count,
                     .chain = f.checksum,
                     .durable = f.position + blocks,
                     .flags = FRAME_COMMIT};
  frame_encode(&f, buf);
  assert_int_equal(region_write(&r->region, buf, position + blocks, 1), 0);
}

static struct frame next_frame_of(const struct mrig *r) {
  const struct root_shard *s = &r->root.shards[2];
  return (struct frame){.store = log_store_key(r->config.uuid),
                        .shard = 2,
                        .incarnation = r->root.incarnation,
                        .epoch = r->root.epoch,
                        .position = s->log_tail,
                        .sequence = s->sequence,
                        .chain = s->chain,
                        .entry_count = 1};
}

/* Frames that are sound in themselves, with a commit, where the next ones must come: only those of
 * this store, shard, place and open count, and only if they continue the chain. */
static void test_foreign_frames_at_the_tail(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  mrig_flush(&r);
  uint64_t entry[3];
  uint32_t bytes = log_entry_delete(entry, mrig_id(1));
  for (int i = 0; i < 9; i++) {
    struct frame f = next_frame_of(&r);
    f.store ^= i == 1;
    f.shard ^= i == 2;
    f.position += i == 3 ? MRIG_LOG : 0;
    f.position += i == 4 ? 1 : 0;
    f.incarnation -= i == 5;
    f.incarnation += i == 6;
    f.sequence += i == 7;
    f.chain ^= i == 8;
    forge_tail(&r, f, entry, bytes);
    struct manifest *m;
    struct blob b;
    int e = mrig_recover(&r, &m);
    /* A commit behind a broken chain is a hole; one of a later open proves that a root is lost. */
    assert_int_equal(e, i < 6 ? 0 : -EBADMSG);
    if (e) continue;
    int found = index_find(manifest_index(m), mrig_hash(&r, mrig_id(1)), mrig_id(1), &b);
    assert_int_equal(found, i == 0 ? -ENOENT : 0);
    if (i) mrig_check(&r, m, r.next_sequence, r.next_sequence);
    manifest_destroy(m);
  }
  mrig_close(&r);
}

/* The newest root is gone, as after a lost write: what was written since tells. */
static void test_lost_root(void **state) {
  (void)state;
  for (int later = 0; later < 3; later++) {
    struct mrig r;
    struct manifest *m;
    make_history(&r);
    mrig_flush(&r);
    struct root older = r.root;
    assert_int_equal(mrig_put(&r, 1, 5000), 0);
    mrig_flush(&r);
    if (later) assert_int_equal(mrig_put(&r, 2, 5000), 0);
    if (later) assert_int_equal(mrig_commit(&r), 0);
    if (later == 2) mrig_crash(&r); /* and another open, whose roots are lost as well */
    if (later == 2) assert_int_equal(mrig_put(&r, 3, 5000), 0);
    if (later == 2) assert_int_equal(mrig_commit(&r), 0);
    struct root newest = r.root;
    r.root = older;
    int e = mrig_recover(&r, &m);
    if (later) {
      assert_int_equal(e, -EBADMSG);
      assert_non_null(strstr(r.why, "root is lost"));
    } else {
      assert_int_equal(e, 0); /* nobody can tell */
      manifest_destroy(m);
    }
    r.root = newest;
    assert_int_equal(mrig_recover(&r, &m), 0);
    manifest_destroy(m);
    mrig_close(&r);
  }
}

/* Entries that are wrong under a right checksum. */
static void test_hostile_frames(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  mrig_flush(&r);
  uint64_t payload[512];
  uint32_t refused = 0;
  for (int i = 0; i < 1500; i++) {
    struct frame f = next_frame_of(&r);
    uint32_t sums[64] = {0}, bytes = 0, count = 1 + (uint32_t)random_below(&r.random, 8);
    for (uint32_t k = 0; k < count; k++) {
      uint64_t size = 1 + random_below(&r.random, 60000);
      struct extent x = {3000 + k * 16, bytes_to_blocks(size)};
      struct blob b = {.id = mrig_id(k + 70), .bytes = size, .granule_shift = 12};
      b.granule_count = blob_granule_count(size, 12);
      b.extents = &x;
      b.extent_count = 1;
      b.checksums = sums;
      char *at = (char *)payload + bytes;
      bytes +=
          random_below(&r.random, 3) ? log_entry_put(at, &b) : log_entry_delete(at, mrig_id(k));
    }
    for (uint64_t n = random_below(&r.random, 4); n > 0; n--)
      ((char *)payload)[random_below(&r.random, bytes)] ^= (char)(1 << random_below(&r.random, 8));
    f.entry_count = count + (random_below(&r.random, 8) == 0);
    forge_tail(&r, f, payload, bytes);
    struct manifest *m;
    int e = mrig_recover(&r, &m);
    if (e && (e != -EBADMSG || !r.why[0])) fail_msg("round %d: %d, %s", i, e, r.why);
    refused += e != 0;
    if (e) continue;
    mrig_check_space(m);
    manifest_destroy(m);
  }
  assert_in_range(refused, 300, 1300);
  mrig_close(&r);
}

/* An extent may be longer than its blob: from the log, and from a checkpoint. */
static void test_roomy_extent(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  mrig_open(&r, 4096, 6);
  uint32_t sum = 7;
  struct extent x;
  struct blob b = {.id = mrig_id(1), .bytes = 100, .granule_shift = 12, .granule_count = 1}, found;
  uint64_t hash = mrig_hash(&r, b.id);
  assert_int_equal(space_alloc(manifest_space(r.m), 3, &x, 1, 0), 1);
  b.extents = &x;
  b.extent_count = 1;
  b.checksums = &sum;
  assert_int_equal(manifest_reserve(r.m, hash, 1, 1), 0);
  r.next_sequence = manifest_put(r.m, hash, &b) + 1;
  for (int i = 0; i < 2; i++) {
    mrig_flush(&r);
    if (mrig_recover(&r, &m)) fail_msg("%s", r.why);
    assert_int_equal(index_find(manifest_index(m), hash, b.id, &found), 0);
    assert_int_equal(found.extents[0].blocks, 3);
    mrig_check_space(m);
    manifest_destroy(m);
    checkpoint_all(&r);
  }
  mrig_close(&r);
}

/* ---- Unreadable blocks ------------------------------------------------------------------- */

struct bad_backing {
  struct backing backing; /* first: can be cast */
  struct backing *under;
  uint64_t bad_block;
};
static int bad_read(struct backing *b, void *to, uint64_t bytes, uint64_t offset) {
  struct bad_backing *x = (struct bad_backing *)b;
  uint64_t bad = x->bad_block * BLOCK_BYTES;
  if (offset <= bad && bad < offset + bytes) return -EIO;
  return x->under->ops->read(x->under, to, bytes, offset);
}
static int good_write(struct backing *b, const void *from, uint64_t bytes, uint64_t offset) {
  struct bad_backing *x = (struct bad_backing *)b;
  return x->under->ops->write(x->under, from, bytes, offset);
}
static void read_through(struct mrig *r, struct backing *b) {
  for (uint32_t i = 0; i < 2; i++) r->region.segments[i].backing = b;
}

/* Nothing is taken for a torn tail because it cannot be read; what is not needed may be bad. */
static void test_unreadable(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  const struct backing_ops ops = {.read = bad_read, .write = good_write};
  struct bad_backing bad = {.backing = {.ops = &ops}, .under = r.disk.now};
  struct manifest_stats stats;
  manifest_stats(r.m, &stats);
  uint64_t tail = r.root.shards[2].log_tail, end = stats.log_blocks_used;
  uint64_t first = r.region.segments[0].first_block;
  const struct {
    uint64_t block;
    int result;
  } cases[] = {{0, -EIO},   {tail - 1, -EIO}, {tail, -EIO},      {end - 1, -EIO},
               {end, -EIO}, {end + 1, 0},     {MRIG_LOG - 1, 0}, {MRIG_LOG + 300, 0}};
  read_through(&r, &bad.backing);
  for (size_t i = 0; i < array_size(cases); i++) {
    bad.bad_block = first + cases[i].block;
    int e = recover_only(&r);
    if (e != cases[i].result) fail_msg("case %zu: %d, %s", i, e, r.why);
  }
  read_through(&r, r.disk.now);
  checkpoint_all(&r);
  read_through(&r, &bad.backing);
  bad.bad_block = first + r.root.shards[2].dir_block;
  assert_int_equal(recover_only(&r), -EIO);
  assert_non_null(strstr(r.why, "directory"));
  read_through(&r, r.disk.now);
  mrig_close(&r);
}

/* ---- Checkpoints ------------------------------------------------------------------------- */

static void test_damaged_checkpoints(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  checkpoint_all(&r);
  assert_true(r.root.shards[2].dir_block >= MRIG_LOG);
  assert_int_equal(r.root.shards[2].log_head, r.root.shards[2].log_tail);
  assert_int_equal(recover_only(&r), 0);
  uint64_t dir = r.root.shards[2].dir_block;
  for (uint32_t i = 0; i < r.root.shards[2].dir_bytes; i++) {
    mrig_block(&r, dir)[i] ^= 4;
    assert_int_equal(recover_only(&r), -EBADMSG);
    assert_non_null(strstr(r.why, "directory"));
    mrig_block(&r, dir)[i] ^= 4;
  }
  /* one of the directory's entries names it: magic "SHCP" */
  uint64_t found = 0;
  for (uint64_t b = MRIG_LOG; b < r.region.blocks; b++) {
    char *at = mrig_block(&r, b);
    if (memcmp(at, "SHCP", 4) != 0) continue;
    at[100] ^= 1;
    int e = recover_only(&r);
    at[100] ^= 1;
    found += e == -EBADMSG && strstr(r.why, "checkpoint at block");
  }
  assert_true(found > 0);
  assert_int_equal(recover_only(&r), 0);
  mrig_close(&r);
}

/* A directory whose checksum is right and whose contents are hostile. */
static void test_hostile_directory(void **state) {
  (void)state;
  struct mrig r;
  make_history(&r);
  checkpoint_all(&r);
  for (uint32_t i = 0; i < 256; i++) mrig_put(&r, i % 60, 100);
  mrig_flush(&r);
  struct root_shard *s = &r.root.shards[2];
  char *dir = mrig_block(&r, s->dir_block), kept[BLOCK_BYTES];
  memcpy(kept, dir, BLOCK_BYTES);
  uint32_t good = s->dir_checksum, refused = 0;
  for (int i = 0; i < 4000; i++) {
    for (uint64_t n = 1 + random_below(&r.random, 3); n > 0; n--)
      dir[random_below(&r.random, s->dir_bytes)] ^= (char)(1 + random_below(&r.random, 255));
    s->dir_checksum = crc32c(0, dir, s->dir_bytes);
    struct manifest *m;
    int e = mrig_recover(&r, &m);
    refused += e == -EBADMSG;
    assert_true(e == 0 || e == -EBADMSG);
    if (!e) manifest_destroy(m);
    memcpy(dir, kept, BLOCK_BYTES);
  }
  s->dir_checksum = good;
  assert_true(refused > 3000);
  assert_int_equal(recover_only(&r), 0);
  mrig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_power_cuts),
      cmocka_unit_test(test_power_cuts_in_a_full_region),
      cmocka_unit_test(test_damage_in_the_committed_log),
      cmocka_unit_test(test_torn_tail),
      cmocka_unit_test(test_short_message),
      cmocka_unit_test(test_uncommitted_is_dropped),
      cmocka_unit_test(test_damage_in_the_uncommitted_tail),
      cmocka_unit_test(test_dead_incarnation),
      cmocka_unit_test(test_dead_frames_fit_the_chain),
      cmocka_unit_test(test_frames_of_others),
      cmocka_unit_test(test_foreign_frames_at_the_tail),
      cmocka_unit_test(test_lost_root),
      cmocka_unit_test(test_hostile_frames),
      cmocka_unit_test(test_roomy_extent),
      cmocka_unit_test(test_unreadable),
      cmocka_unit_test(test_damaged_checkpoints),
      cmocka_unit_test(test_hostile_directory),
  };
  return cmocka_run_group_tests_name("recover", tests, NULL, NULL);
}
