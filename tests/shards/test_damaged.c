/* test_damaged.c - recovery in spite of damage. What it says for certain must be right: a blob that
 * is not called old is the last one that was put, and "not there" means not there. The rest must be
 * reported. Damage is done by chance to logs, checkpoints and directories. */
#include "tests/shards/manifest_rig.h"

#include "shards/losses.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 12
#else
#define SEEDS 40
#endif

struct found {
  uint64_t of_kind[DAMAGE_KINDS];
  char last[300];
};
static void note(void *arg, const struct damage *d) {
  struct found *f = arg;
  f->of_kind[d->kind]++;
  snprintf(f->last, sizeof f->last, "%s", d->what);
  assert_int_equal(d->shard, 2);
}

static int recover_damaged_as(struct mrig *r, enum damaged_mode mode, struct found *f,
                              struct manifest **m) {
  memset(f, 0, sizeof *f);
  r->config.read_only = true;
  r->config.damaged = mode;
  r->config.damage = (struct damage_sink){note, f};
  int e = mrig_recover(r, m);
  r->config.read_only = false;
  r->config.damaged = DAMAGED_REFUSE;
  return e;
}

/* As it is in the index: the version that its data carry; 0: not there. */
static uint64_t version_of(struct mrig *r, struct manifest *m, uint32_t id) {
  struct blob b;
  uint64_t stamp[3];
  struct blob_id bid = mrig_id(id);
  if (index_find(manifest_index(m), mrig_hash(r, bid), bid, &b)) return 0;
  if (b.extent_count == 0) return UINT64_MAX;
  memcpy(stamp, mrig_block(r, b.extents[0].block), sizeof stamp);
  return stamp[0] == id ? stamp[1] : UINT64_MAX - 1;
}

struct tally {
  uint64_t right, old, unknown, absent;
};

/* Against the model. old_wrong: those that were called old, and are. */
static void compare(struct mrig *r, struct manifest *m, struct tally *t) {
  for (uint32_t id = 0; id < MRIG_IDS; id++) {
    struct blob_id bid = mrig_id(id);
    uint64_t hash = mrig_hash(r, bid), have = version_of(r, m, id);
    if (have && manifest_is_old(m, hash, bid)) {
      t->old++;
    } else if (have) {
      assert_int_equal(have, r->state[id].version);
      t->right++;
    } else if (manifest_absent(m, hash) == -EBADMSG) {
      t->unknown++;
    } else {
      assert_int_equal(manifest_absent(m, hash), -ENOENT);
      assert_int_equal(r->state[id].version, 0);
      t->absent++;
    }
  }
}

/* ---- Doing harm ------------------------------------------------------------------------------ */

/* Some block that recovery reads. committed: behind the root's tail a commit covers the log; its
 * own frame is spared, since without it nothing shows that there was one. */
static char *victim(struct mrig *r, uint64_t position, bool committed) {
  const struct manifest *m = r->m;
  uint64_t log = r->region.log_blocks, head = m->root.log_head;
  uint64_t end = position - (committed ? 1 : 0);
  uint64_t kind = random_below(&r->random, 4);
  if (kind == 0 && m->root.dir_block)
    return mrig_block(r, m->root.dir_block +
                             random_below(&r->random, bytes_to_blocks(m->root.dir_bytes)));
  uint32_t p = (uint32_t)random_below(&r->random, INDEX_PARTITIONS);
  const struct checkpoint *c = m->of_partition[p];
  if (kind == 1 && c && c->extent_count)
    return mrig_block(r, c->extents[0].block + random_below(&r->random, c->extents[0].blocks));
  if (end <= head) return NULL;
  return mrig_block(r, log_place(head + random_below(&r->random, end - head), log));
}

static void harm(struct mrig *r, char *at, char *other) {
  switch (random_below(&r->random, 3)) {
  case 0:
    memset(at, 0, BLOCK_BYTES);
    break;
  case 1:
    at[random_below(&r->random, BLOCK_BYTES)] ^= (char)(1 << random_below(&r->random, 8));
    break;
  default:
    memcpy(at, other, BLOCK_BYTES); /* a misdirected write */
  }
}

/* A history by chance, up to a flush or a commit; then harm; then what recovery makes of it. */
static void by_chance(uint64_t seed, enum damaged_mode mode, struct tally *t) {
  struct mrig r;
  struct manifest *m;
  struct found f;
  mrig_open(&r, 4096, seed);
  for (uint64_t n = 200 + random_below(&r.random, 3000); n > 0; n--) mrig_random_step(&r);
  mrig_settle(&r);
  bool committed = random_below(&r.random, 2);
  if (!committed) mrig_flush(&r);
  while (committed && mrig_put(&r, 0, 5000) != 0) mrig_step(&r);
  if (committed) assert_int_equal(mrig_commit(&r), 0);
  mrig_drain(&r);
  uint64_t position = r.m->position, bytes = r.disk.blocks * BLOCK_BYTES;
  memcpy(r.disk.before, r.disk.now->memory, bytes);
  /* Nothing is wrong: everything is there, and nothing is said. */
  assert_int_equal(recover_damaged_as(&r, mode, &f, &m), 0);
  mrig_check(&r, m, r.next_sequence, r.next_sequence);
  for (uint32_t k = 0; k < DAMAGE_KINDS; k++) assert_int_equal(f.of_kind[k], 0);
  manifest_destroy(m);
  for (int i = 0; i < 12; i++) {
    for (uint64_t k = 1 + random_below(&r.random, 3); k > 0; k--) {
      char *at = victim(&r, position, committed), *other = victim(&r, position, committed);
      if (at && other) harm(&r, at, other);
    }
    bool same = memcmp(r.disk.before, r.disk.now->memory, bytes) == 0;
    int refused = mrig_recover(&r, &m);
    if (!refused) manifest_destroy(m);
    assert_int_equal(recover_damaged_as(&r, mode, &f, &m), 0);
    compare(&r, m, t);
    uint64_t said =
        f.of_kind[DAMAGE_LOG] + f.of_kind[DAMAGE_DIRECTORY] + f.of_kind[DAMAGE_CHECKPOINT];
    assert_int_equal(refused != 0, said > 0); /* what a normal open refuses is reported */
    if (same) assert_int_equal(said, 0);
    manifest_destroy(m);
    memcpy(r.disk.now->memory, r.disk.before, bytes);
  }
  mrig_close(&r);
}

static void chances(enum damaged_mode mode) {
  struct tally t = {0};
  for (uint64_t seed = 1; seed <= SEEDS; seed++) by_chance(seed, mode, &t);
  print_message("right %llu, old %llu, unknown %llu, absent %llu\n", (unsigned long long)t.right,
                (unsigned long long)t.old, (unsigned long long)t.unknown,
                (unsigned long long)t.absent);
  assert_true(t.right > 1000 && t.old > 100 && t.unknown > 100 && t.absent > 100);
}
static void test_what_is_certain_is_right(void **state) {
  (void)state;
  chances(DAMAGED_SKIP);
}
static void test_what_is_certain_is_right_after_a_search(void **state) {
  (void)state;
  chances(DAMAGED_SEARCH);
}

/* ---- By hand --------------------------------------------------------------------------------- */

/* One frame for each blob. */
static void make_frames(struct mrig *r, uint32_t count) {
  mrig_open(r, 4096, 9);
  for (uint32_t i = 0; i < count; i++) {
    assert_int_equal(mrig_put(r, i, 5000), 0);
    mrig_flush(r);
  }
}

/* A frame in the middle: one change is lost, what came later is certain, what came before may be
 * old. */
static void test_a_frame_in_the_middle(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  struct found f;
  make_frames(&r, 20);
  mrig_block(&r, 10)[100] ^= 1;
  assert_int_equal(mrig_recover(&r, &m), -EBADMSG);
  assert_int_equal(recover_damaged_as(&r, DAMAGED_SKIP, &f, &m), 0);
  assert_int_equal(f.of_kind[DAMAGE_LOG], 1);
  assert_non_null(strstr(f.last, "may be older")); /* the last reports are of old blobs */
  assert_int_equal(f.of_kind[DAMAGE_OLD], 10);
  assert_int_equal(index_count(manifest_index(m)), 19);
  for (uint32_t i = 0; i < 20; i++) {
    struct blob_id id = mrig_id(i);
    struct blob b;
    int e = index_find(manifest_index(m), mrig_hash(&r, id), id, &b);
    assert_int_equal(e, i == 10 ? -ENOENT : 0);
    if (!e) assert_int_equal(manifest_is_old(m, mrig_hash(&r, id), id), i < 10);
  }
  assert_int_equal(manifest_absent(m, mrig_hash(&r, mrig_id(50))), -EBADMSG);
  manifest_destroy(m);
  mrig_close(&r);
}

/* A lost put whose blocks had been freed by an older blob and the other way round: two claim them.
 */
static void test_an_old_blob_whose_blocks_were_given_away(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  struct found f;
  mrig_open(&r, 700, 3);
  assert_int_equal(mrig_put(&r, 1, 1200 * 1024), 0); /* so large that its blocks are needed again */
  mrig_flush(&r);
  uint64_t gone = r.m->position;
  assert_int_equal(mrig_delete(&r, 1), 0);
  mrig_flush(&r);
  mrig_flush(&r);
  assert_int_equal(mrig_put(&r, 2, 1200 * 1024), 0);
  mrig_flush(&r);
  memset(mrig_block(&r, gone), 0, BLOCK_BYTES); /* the frame that deletes */
  assert_int_equal(recover_damaged_as(&r, DAMAGED_SKIP, &f, &m), 0);
  assert_int_equal(f.of_kind[DAMAGE_OLD], 1);
  assert_non_null(strstr(f.last, "another"));
  assert_int_equal(version_of(&r, m, 1), 0);
  assert_int_equal(version_of(&r, m, 2), r.state[2].version);
  assert_int_equal(manifest_absent(m, mrig_hash(&r, mrig_id(1))), -EBADMSG);
  manifest_destroy(m);
  mrig_close(&r);
}

/* The last commit frame, any bit of it: no torn tail. */
static void test_any_bit_of_the_last_commit(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  struct found f;
  make_frames(&r, 3);
  assert_int_equal(mrig_put(&r, 30, 5000), 0);
  assert_int_equal(mrig_commit(&r), 0);
  char *at = mrig_block(&r, r.m->position - 1);
  for (uint32_t bit = 0; bit < 8 * BLOCK_BYTES; bit += bit < 600 ? 1 : 211) {
    at[bit / 8] ^= (char)(1 << bit % 8);
    assert_int_equal(mrig_recover(&r, &m), -EBADMSG);
    assert_non_null(strstr(r.why, "one wrong bit"));
    if (bit % 16 == 0) {
      assert_int_equal(recover_damaged_as(&r, DAMAGED_SKIP, &f, &m), 0);
      mrig_check(&r, m, r.next_sequence, r.next_sequence); /* what it had committed is there */
      assert_int_equal(f.of_kind[DAMAGE_LOG], 1);
      manifest_destroy(m);
    }
    at[bit / 8] ^= (char)(1 << bit % 8);
  }
  /* Two wrong bits are a torn write, as far as anybody can tell. */
  at[70] ^= 1;
  at[900] ^= 1;
  assert_int_equal(mrig_recover(&r, &m), 0);
  manifest_destroy(m);
  mrig_close(&r);
}

/* The directory is gone: the search finds every checkpoint that it had named. */
static void test_search_finds_checkpoints(void **state) {
  (void)state;
  struct mrig r;
  struct manifest *m;
  struct found f;
  make_frames(&r, 40);
  manifest_checkpoint_all(r.m);
  while (!manifest_checkpoint_done(r.m)) mrig_step(&r);
  mrig_flush(&r);
  for (uint32_t i = 40; i < 44; i++) assert_int_equal(mrig_put(&r, i, 5000), 0);
  mrig_flush(&r);
  assert_true(r.root.shards[2].dir_block > 0 && r.root.shards[2].log_head > 0);
  struct root_shard *root = &r.root.shards[2];
  root->dir_checksum ^= 1; /* the directory itself is whole, but nothing says so */
  assert_int_equal(recover_damaged_as(&r, DAMAGED_SKIP, &f, &m), 0);
  assert_int_equal(index_count(manifest_index(m)), 4);
  assert_int_equal(manifest_absent(m, mrig_hash(&r, mrig_id(3))), -EBADMSG);
  manifest_destroy(m);
  assert_int_equal(recover_damaged_as(&r, DAMAGED_SEARCH, &f, &m), 0);
  assert_int_equal(f.of_kind[DAMAGE_DIRECTORY], 1);
  assert_int_equal(f.of_kind[DAMAGE_OLD], 0);
  mrig_check(&r, m, r.next_sequence, r.next_sequence);
  manifest_destroy(m);
  /* Nor does the root know of one. */
  root->dir_block = 0;
  assert_int_equal(recover_damaged_as(&r, DAMAGED_SEARCH, &f, &m), 0);
  mrig_check(&r, m, r.next_sequence, r.next_sequence);
  manifest_destroy(m);
  mrig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_frame_in_the_middle),
      cmocka_unit_test(test_an_old_blob_whose_blocks_were_given_away),
      cmocka_unit_test(test_any_bit_of_the_last_commit),
      cmocka_unit_test(test_search_finds_checkpoints),
      cmocka_unit_test(test_what_is_certain_is_right),
      cmocka_unit_test(test_what_is_certain_is_right_after_a_search),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
