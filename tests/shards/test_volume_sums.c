/* Checksums of sealed layers: made by OP_LAYER_SUM, kept through merges, log and checkpoints, and
 * verified by every read, on a device whose memory the test damages. */
#include "tests/shards/sums_rig.h"

/* ---- Damage is found ------------------------------------------------------------------------ */

/* Every way to read a block that a sealed layer has says so; its neighbours are read. */
static void expect_damage(struct rig *r, struct disk *d, uint64_t block) {
  char *buf = rig_data(32 << BLOCK_SHIFT, 1), want[BLOCK_BYTES];
  uint64_t at = block << BLOCK_SHIFT, from = block >= 8 ? at - (8 << BLOCK_SHIFT) : 0;
  uint32_t logged = r->errors_logged;
  assert_int_equal(run(r, d, OP_READ, at, BLOCK_BYTES, buf), -EBADMSG);
  assert_int_equal(r->errors_logged, logged + 1);
  assert_non_null(strstr(r->last_error, "checksum mismatch"));
  char name[32];
  snprintf(name, sizeof name, "block %llu ", (unsigned long long)block);
  assert_non_null(strstr(r->last_error, name));
  assert_int_equal(run(r, d, OP_READ, from, 16 << BLOCK_SHIFT, buf), -EBADMSG);
  assert_int_equal(run(r, d, OP_READ, at + 512, 1024, buf), -EBADMSG);
  assert_int_equal(run(r, d, OP_READ, at, BLOCK_BYTES, buf + 64), -EBADMSG); /* misaligned memory */
  struct iovec iov[2] = {{buf, 1536}, {buf + 8192, BLOCK_BYTES - 1536}};
  struct shard_op *op = volume_op(r, d, OP_READ, at, BLOCK_BYTES, iov);
  volume_args(op)->iov_count = 2;
  assert_int_equal(rig_run(r, op), -EBADMSG);
  for (uint64_t other = block ? block - 1 : 1; other <= block + 1 && other < DISK_BLOCKS; other++) {
    if (other == block) continue;
    assert_int_equal(run(r, d, OP_READ, other << BLOCK_SHIFT, BLOCK_BYTES, buf), BLOCK_BYTES);
    fill_block(want, d->tags[other], other);
    assert_memory_equal(buf, want, BLOCK_BYTES);
  }
  free(buf);
}

static void damage_and_look(struct rig *r, struct disk *s, struct disk *clone) {
  char sector[512] = {1};
  for (int i = 0; i < 12; i++) {
    uint64_t block = random_block(r, s->layer), bit = random_below(&r->random, BLOCK_BYTES * 8);
    bool seen = clone->tags[block] == s->tags[block] && !place_of(r, clone->layer, block);
    flip(r, s->layer, block, bit);
    expect_damage(r, s, block);
    if (seen) {
      expect_damage(r, clone, block);
      /* What must be read to be changed is not made good by being written. */
      assert_int_equal(run(r, clone, OP_WRITE, (block << BLOCK_SHIFT) + 1024, 512, sector),
                       -EBADMSG);
      expect_damage(r, clone, block);
      assert_int_equal(run(r, clone, OP_PROMOTE, block << BLOCK_SHIFT, BLOCK_BYTES, NULL),
                       -EBADMSG);
    }
    flip(r, s->layer, block, bit);
  }
  expect_disk(r, s);
  expect_disk(r, clone);
}

static void flips_are_found(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    struct rig r;
    uint32_t tag = 0;
    open_rig(&r, seed);
    struct disk d = {0}, s = {0}, clone = {0};
    disk_open(&r, &d, 1, nothing, false);
    write_some(&r, &d, 40, &tag);
    snapshot(&r, &d, &s, 2);
    memcpy(clone.tags, s.tags, sizeof s.tags);
    disk_open(&r, &clone, 100, here(1), false);
    expect_disk(&r, &clone); /* it knows the places before there are sums */
    assert_int_equal(sum_layer(&r, 1), 0);
    assert_all_summed(&r, 1);
    write_some(&r, &clone, 4, &tag);
    write_some(&r, &d, 10, &tag);
    assert_int_equal(stats_of(&r, 2).summed_blocks, 0); /* live */
    expect_disk(&r, &d);
    damage_and_look(&r, &s, &clone);
    /* A whole block needs nothing of what was there. */
    uint64_t block = random_block(&r, 1);
    flip(&r, 1, block, 77);
    write_blocks(&r, &clone, block, 1, ++tag);
    expect_disk(&r, &clone);
    expect_damage(&r, &s, block);
    disk_close(&r, &d);
    disk_close(&r, &s);
    disk_close(&r, &clone);
    rig_close(&r);
  }
}

/* Log, then checkpoints, then both. */
static void they_survive(void **state) {
  (void)state;
  struct rig r;
  uint32_t tag = 0;
  open_rig(&r, 5);
  static struct disk d, s, s2;
  disk_open(&r, &d, 1, nothing, false);
  write_some(&r, &d, 40, &tag);
  snapshot(&r, &d, &s, 2);
  assert_int_equal(sum_layer(&r, 1), 0);
  for (int round = 0; round < 3; round++) {
    if (round == 1) {
      assert_int_equal(rig_run(&r, rig_op(&r, OP_CHECKPOINT, 0)), 0);
    } else if (round == 2) {
      write_some(&r, &d, 20, &tag);
      snapshot(&r, &d, &s2, 3);
      assert_int_equal(sum_layer(&r, 2), 0);
      disk_close(&r, &s2);
    }
    rig_flush(&r);
    disk_close(&r, &d);
    disk_close(&r, &s);
    reopen(&r);
    disk_open(&r, &s, 1, nothing, true);
    if (round == 2) disk_open(&r, &s2, 2, here(1), true);
    disk_open(&r, &d, round == 2 ? 3 : 2, here(round == 2 ? 2 : 1), false);
    assert_all_summed(&r, 1);
    damage_and_look(&r, &s, &d);
    if (round == 2) assert_all_summed(&r, 2);
    if (round == 2) damage_and_look(&r, &s2, &d);
  }
  disk_close(&r, &d);
  disk_close(&r, &s);
  disk_close(&r, &s2);
  rig_close(&r);
}

/* Blocks with sums and without lie beside each other. */
static void take_some_away(struct rig *r, uint64_t layer) {
  static struct leaf_sums sums;
  struct map *map = manifest_map(shard_manifest(r->shard));
  struct layer *l = map_layer(map, layer);
  for (uint64_t leaf = 0; leaf < DISK_BLOCKS / LEAF_BLOCKS; leaf++) {
    const struct block_sums *have = layer_sums(l, leaf);
    assert_non_null(have);
    block_sums_unpack(have, &sums);
    for (uint32_t i = 0; i < SUMS_WORDS; i++) sums.has[i] &= random_next(&r->random);
    assert_int_equal(layer_set_sums(map, l, leaf, &sums), 0);
  }
  assert_int_not_equal(shard_unsummed_blocks(r->shard, layer), 0);
}

/* What no log has is made again, what is there is not. */
static void made_once(void **state) {
  (void)state;
  struct rig r;
  uint32_t tag = 0;
  open_rig(&r, 6);
  static struct disk d, s;
  disk_open(&r, &d, 1, nothing, false);
  write_some(&r, &d, 30, &tag);
  snapshot(&r, &d, &s, 2);
  r.device.fail_reads = 1;
  assert_int_equal(sum_layer(&r, 1), -EIO);
  struct layer_stats stats = stats_of(&r, 1);
  assert_in_range(stats.summed_blocks, 1, stats.valid_blocks - 1);
  expect_disk(&r, &s); /* those that have none are read as before, beside others */
  expect_disk(&r, &d);
  uint64_t missing = shard_unsummed_blocks(r.shard, 1), reads = r.device.reads;
  assert_int_equal(sum_layer(&r, 1), 0);
  assert_in_range(r.device.reads - reads, 1, missing);
  assert_all_summed(&r, 1);
  reads = r.device.reads;
  assert_int_equal(sum_layer(&r, 1), 0);
  assert_int_equal(r.device.reads, reads);
  assert_int_equal(sum_layer(&r, 99), 0);
  damage_and_look(&r, &s, &d);
  take_some_away(&r, 1);
  assert_int_equal(run(&r, &s, OP_VIEWS_DROP, 0, 0, NULL), 0);
  expect_disk(&r, &s);
  expect_disk(&r, &d);
  assert_int_equal(sum_layer(&r, 1), 0);
  assert_all_summed(&r, 1);
  damage_and_look(&r, &s, &d);
  disk_close(&r, &d);
  disk_close(&r, &s);
  rig_close(&r);
}

/* A run of places that goes on into a leaf without checksums. */
static void across_leaves(void **state) {
  (void)state;
  struct rig r;
  open_rig(&r, 8);
  static struct disk d, s;
  static struct leaf_sums none;
  disk_open(&r, &d, 1, nothing, false);
  write_blocks(&r, &d, LEAF_BLOCKS - 16, 32, 1);
  assert_ptr_equal(place_of(&r, 1, LEAF_BLOCKS), place_of(&r, 1, LEAF_BLOCKS - 1) + BLOCK_BYTES);
  snapshot(&r, &d, &s, 2);
  assert_int_equal(sum_layer(&r, 1), 0);
  struct map *map = manifest_map(shard_manifest(r.shard));
  char *buf = rig_data(8 << BLOCK_SHIFT, 1);
  for (uint64_t leaf = 2; leaf-- > 0;) {
    flip(&r, 1, LEAF_BLOCKS - leaf, 5);
    assert_int_equal(run(&r, &s, OP_READ, (LEAF_BLOCKS - 4) << BLOCK_SHIFT, 8 << BLOCK_SHIFT, buf),
                     -EBADMSG);
    flip(&r, 1, LEAF_BLOCKS - leaf, 5);
    expect_disk(&r, &s);
    assert_int_equal(layer_set_sums(map, map_layer(map, 1), 1, &none), 0);
    flip(&r, 1, LEAF_BLOCKS - 1, 5);
    assert_int_equal(run(&r, &s, OP_READ, (LEAF_BLOCKS - 4) << BLOCK_SHIFT, 8 << BLOCK_SHIFT, buf),
                     -EBADMSG);
    flip(&r, 1, LEAF_BLOCKS - 1, 5);
    expect_disk(&r, &s);
    assert_int_equal(sum_layer(&r, 1), 0);
  }
  free(buf);
  disk_close(&r, &d);
  disk_close(&r, &s);
  rig_close(&r);
}

/* ---- Merges, drops -------------------------------------------------------------------------- */

static void they_move_with_the_data(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    struct rig r;
    uint32_t tag = 0;
    open_rig(&r, seed);
    static struct disk d, s1, s2, clone;
    memset(&d, 0, sizeof d);
    disk_open(&r, &d, 1, nothing, false);
    write_some(&r, &d, 30, &tag);
    snapshot(&r, &d, &s1, 2);
    write_some(&r, &d, 15, &tag);
    snapshot(&r, &d, &s2, 3);
    assert_int_equal(sum_layer(&r, 1), 0);
    assert_int_equal(sum_layer(&r, 2), 0);
    memcpy(clone.tags, s2.tags, sizeof s2.tags);
    disk_open(&r, &clone, 100, here(2), false);
    expect_disk(&r, &clone);
    disk_close(&r, &s1);
    uint64_t before = stats_of(&r, 2).summed_blocks;
    assert_int_equal(run(&r, &s2, OP_LAYER_MERGE, 1, 0, NULL), 0);
    assert_int_equal(stats_of(&r, 1).summed_blocks, 0);
    assert_true(stats_of(&r, 2).summed_blocks > before);
    expect_disk(&r, &s2); /* blocks that were copied have none yet */
    assert_int_equal(sum_layer(&r, 2), 0);
    assert_all_summed(&r, 2);
    damage_and_look(&r, &s2, &clone);
    rig_flush(&r);
    disk_close(&r, &d);
    disk_close(&r, &s2);
    disk_close(&r, &clone);
    reopen(&r);
    disk_open(&r, &s2, 2, nothing, true);
    disk_open(&r, &d, 3, here(2), false);
    disk_open(&r, &clone, 100, here(2), false);
    assert_all_summed(&r, 2);
    damage_and_look(&r, &s2, &clone);
    /* Into a live layer they do not go: it is overwritten. */
    disk_close(&r, &clone);
    assert_int_equal(drop_layer(&r, 100), 0);
    disk_close(&r, &s2);
    assert_int_equal(run(&r, &d, OP_LAYER_MERGE, 2, 0, NULL), 0);
    assert_int_equal(stats_of(&r, 3).summed_blocks, 0);
    write_some(&r, &d, 20, &tag);
    expect_disk(&r, &d);
    disk_close(&r, &d);
    rig_close(&r);
  }
}

/* A read's place goes to a live layer and is overwritten while the read is on its way: the new data
 * is no damage. */
static void overtaken_by_a_merge(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 12; seed++) {
    struct rig r;
    uint64_t bytes = seed % 2 ? BLOCK_BYTES : 24 << BLOCK_SHIFT;
    open_rig(&r, seed);
    static struct disk d, s;
    memset(&d, 0, sizeof d);
    disk_open(&r, &d, 1, nothing, false);
    write_blocks(&r, &d, 0, 64, 1);
    snapshot(&r, &d, &s, 2);
    assert_int_equal(sum_layer(&r, 1), 0);
    expect_disk(&r, &d);
    char *buf = rig_data(bytes + 512, 1), *was = rig_data(BLOCK_BYTES, 1),
         *is = rig_data(BLOCK_BYTES, 1);
    if (seed % 4 == 0) buf += 512; /* through a bounce */
    struct shard_op *read = volume_op(&r, &d, OP_READ, 8 << BLOCK_SHIFT, bytes, buf);
    rig_submit(&r, read);
    /* The device holds it, by not being asked, while the rest goes on. */
    struct io *held[8];
    uint32_t count = r.device.count;
    assert_in_range(count, 1, 8);
    memcpy(held, r.device.held, count * sizeof *held);
    r.device.count = 0;
    struct shard_op *merge = volume_op(&r, &d, OP_LAYER_MERGE, 1, 0, NULL);
    disk_close(&r, &s);
    rig_submit(&r, merge);
    for (int i = 0; i < 200; i++) rig_step(&r);
    assert_int_equal(stats_of(&r, 1).clusters, 0); /* all has moved */
    fill_block(was, 1, 8);
    write_blocks(&r, &d, 8, 1, 2);
    fill_block(is, 2, 8);
    memcpy(r.device.held + r.device.count, held, count * sizeof *held);
    r.device.count += count;
    assert_int_equal(rig_wait(&r, read), (int64_t)bytes);
    assert_memory_equal(buf, is, BLOCK_BYTES);
    assert_int_equal(rig_wait(&r, merge), 0);
    assert_int_equal(r.errors_logged, 0);
    expect_disk(&r, &d);
    free(read);
    free(merge);
    free(seed % 4 == 0 ? buf - 512 : buf);
    free(was);
    free(is);
    disk_close(&r, &d);
    rig_close(&r);
  }
}

static void others_have_the_way(void **state) {
  (void)state;
  struct rig r;
  uint32_t tag = 0;
  open_rig(&r, 9);
  static struct disk d, s, other;
  disk_open(&r, &d, 1, nothing, false);
  write_some(&r, &d, 60, &tag);
  snapshot(&r, &d, &s, 2);
  write_some(&r, &d, 60, &tag);
  disk_open(&r, &other, 50, nothing, false);
  write_some(&r, &other, 10, &tag);
  disk_close(&r, &other);
  uint64_t ids[] = {1, 1, 50};
  struct shard_op *ops[3];
  for (uint32_t i = 0; i < 3; i++) {
    ops[i] = rig_op(&r, i < 2 ? OP_LAYER_SUM : OP_LAYER_DROP, 0);
    ops[i]->offset = ids[i];
    rig_submit(&r, ops[i]);
  }
  assert_int_equal(rig_wait(&r, ops[2]), 0);
  assert_false(rig_done(ops[0]));
  write_some(&r, &d, 10, &tag);
  assert_int_equal(rig_wait(&r, ops[0]), 0);
  assert_int_equal(rig_wait(&r, ops[1]), 0);
  assert_all_summed(&r, 1);
  expect_disk(&r, &s);
  for (uint32_t i = 0; i < 3; i++) free(ops[i]);
  /* What is summed is dropped while it is. */
  disk_close(&r, &s);
  disk_close(&r, &d);
  for (uint32_t i = 0; i < 2; i++) {
    ops[i] = rig_op(&r, i ? OP_LAYER_DROP : OP_LAYER_SUM, 0);
    ops[i]->offset = 2;
    rig_submit(&r, ops[i]);
  }
  assert_int_equal(rig_wait(&r, ops[1]), 0);
  assert_int_equal(rig_wait(&r, ops[0]), 0);
  assert_int_equal(drop_layer(&r, 1), 0);
  assert_null(map_layer_next(manifest_map(shard_manifest(r.shard)), NULL)); /* all are gone */
  free(ops[0]);
  free(ops[1]);
  rig_close(&r);
}

static void stopped(void **state) {
  (void)state;
  struct rig r;
  uint32_t tag = 0;
  open_rig(&r, 10);
  static struct disk d, s;
  disk_open(&r, &d, 1, nothing, false);
  write_some(&r, &d, 60, &tag);
  snapshot(&r, &d, &s, 2);
  struct shard_op *op = rig_op(&r, OP_LAYER_SUM, 0);
  op->offset = 1;
  rig_submit(&r, op);
  while (!r.device.count) shard_tick(r.shard);
  shard_sums_stop(r.shard); /* a read is in flight */
  assert_int_equal(rig_wait(&r, op), -ECANCELED);
  free(op);
  assert_int_equal(sum_layer(&r, 1), -ECANCELED);
  expect_disk(&r, &s);
  disk_close(&r, &d);
  disk_close(&r, &s);
  rig_close(&r);
}

/* ---- Scrubbing ------------------------------------------------------------------------------ */

struct findings {
  uint32_t count;
  uint64_t layers, blocks; /* sums of them */
};
static void note_finding(void *arg, const struct damage *d) {
  struct findings *f = arg;
  assert_int_equal(d->kind, DAMAGE_VOLUME);
  assert_int_equal(d->error, -EBADMSG);
  assert_non_null(strstr(d->what, "checksum mismatch"));
  f->count++;
  f->layers += d->id.hi;
  f->blocks += d->id.lo;
}

/* tag not NULL: beside writes. */
static struct shard_scrub_stats scrub(struct rig *r, struct disk *d, uint32_t *tag) {
  struct shard_scrub_stats st;
  bool more;
  uint64_t budget = 64 << 10;
  assert_int_equal(shard_scrub_start(r->shard), 0);
  do {
    shard_scrub_step(r->shard, budget, &more);
    if (tag && random_below(&r->random, 8) == 0) write_some(r, d, 1, tag);
    rig_step(r);
    shard_scrub_stats(r->shard, &st);
  } while (st.running);
  return st;
}

static void a_scrub_finds_them(void **state) {
  (void)state;
  struct rig r;
  uint32_t tag = 0;
  struct findings found = {0};
  open_rig(&r, 21);
  r.config.manifest.damage = (struct damage_sink){note_finding, &found};
  reopen(&r);
  static struct disk d, s1, s2;
  disk_open(&r, &d, 1, nothing, false);
  write_some(&r, &d, 40, &tag);
  snapshot(&r, &d, &s1, 2);
  write_some(&r, &d, 40, &tag);
  snapshot(&r, &d, &s2, 3);
  write_some(&r, &d, 10, &tag);
  struct shard_scrub_stats st = scrub(&r, &d, NULL);
  assert_int_equal(st.blocks, 0); /* none has a checksum yet */
  assert_int_equal(sum_layer(&r, 1), 0);
  assert_int_equal(sum_layer(&r, 2), 0);
  uint64_t all = stats_of(&r, 1).valid_blocks + stats_of(&r, 2).valid_blocks;
  st = scrub(&r, &d, &tag);
  assert_int_equal(st.blocks, all);
  assert_int_equal(st.damaged_blocks + found.count, 0);
  assert_true(st.total_bytes >= all << BLOCK_SHIFT && st.done_bytes >= all << BLOCK_SHIFT);
  uint64_t a = random_block(&r, 1), b = random_block(&r, 2);
  flip(&r, 1, a, 12345);
  flip(&r, 2, b, 1);
  st = scrub(&r, &d, &tag);
  assert_int_equal(st.damaged_blocks, 2);
  assert_int_equal(found.count, 2);
  assert_int_equal(found.layers, 1 + 2);
  assert_int_equal(found.blocks, a + b);
  flip(&r, 1, a, 12345);
  flip(&r, 2, b, 1);
  assert_int_equal(scrub(&r, &d, NULL).damaged_blocks, 0);
  /* Layers that are taken away under it, and overwritten. */
  disk_close(&r, &s1);
  disk_close(&r, &s2);
  struct shard_op *merge = volume_op(&r, &d, OP_LAYER_MERGE, 2, 0, NULL);
  rig_submit(&r, merge);
  assert_int_equal(scrub(&r, &d, &tag).damaged_blocks, 0);
  assert_int_equal(rig_wait(&r, merge), 0);
  free(merge);
  expect_disk(&r, &d);
  /* A pass that is stopped half-way. */
  bool more;
  assert_int_equal(shard_scrub_start(r.shard), 0);
  do {
    shard_scrub_step(r.shard, 64 << 10, &more);
    rig_step(&r);
    shard_scrub_stats(r.shard, &st);
  } while (!st.blocks);
  shard_scrub_stop(r.shard);
  for (int i = 0; i < 100 && st.running; i++) {
    rig_step(&r);
    shard_scrub_step(r.shard, 0, &more);
    shard_scrub_stats(r.shard, &st);
  }
  assert_false(st.running);
  disk_close(&r, &d);
  rig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(flips_are_found),
      cmocka_unit_test(they_survive),
      cmocka_unit_test(made_once),
      cmocka_unit_test(across_leaves),
      cmocka_unit_test(they_move_with_the_data),
      cmocka_unit_test(overtaken_by_a_merge),
      cmocka_unit_test(others_have_the_way),
      cmocka_unit_test(stopped),
      cmocka_unit_test(a_scrub_finds_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
