/* Checksums of sealed layers: made by OP_LAYER_SUM, kept through merges, log and checkpoints, and
 * verified by every read, on a device whose memory the test damages. */
#include "shards/base/crc32c.h"
#include "shards/log.h"
#include "shards/volume.h"
#include "tests/shards/shard_rig.h"

#define DISK_BLOCKS 2048u /* two leaves */
#define DISK_BYTES  ((uint64_t)DISK_BLOCKS << BLOCK_SHIFT)

struct disk {
  struct volume *volume;
  uint64_t layer;
  uint32_t tags[DISK_BLOCKS]; /* the write that a block has; 0: zeros */
};

static const struct layer_below nothing = {0};
static struct layer_below here(uint64_t layer) { return (struct layer_below){.id = layer}; }

static void fill_block(char *at, uint32_t tag, uint64_t block) {
  struct random r = {.state = tag * UINT64_C(0x100000001) + block};
  for (uint32_t i = 0; i < BLOCK_BYTES; i += 8) {
    uint64_t v = tag ? random_next(&r) : 0;
    memcpy(at + i, &v, 8);
  }
}

static void disk_open(struct rig *r, struct disk *d, uint64_t layer, struct layer_below below,
                      bool sealed) {
  struct volume_config config = {
      .layer = layer, .read_only = sealed, .size_bytes = DISK_BYTES, .block_bytes = 512};
  d->layer = layer;
  assert_int_equal(shard_layer_set(r->shard, layer, below), 0);
  assert_int_equal(shard_volume_open(r->shard, &config, &d->volume), 0);
}
static void disk_close(struct rig *r, struct disk *d) {
  assert_int_equal(shard_volume_close(r->shard, d->volume), 0);
}

static struct shard_op *volume_op(struct rig *r, struct disk *d, uint8_t kind, uint64_t offset,
                                  uint64_t bytes, void *buf) {
  struct shard_op *op = rig_op(r, kind, 0);
  *volume_args(op) = (struct volume_args){.volume = d->volume};
  op->offset = offset;
  op->bytes = bytes;
  op->buf = buf;
  return op;
}
static int64_t run(struct rig *r, struct disk *d, uint8_t kind, uint64_t offset, uint64_t bytes,
                   void *buf) {
  return rig_run(r, volume_op(r, d, kind, offset, bytes, buf));
}

static void write_blocks(struct rig *r, struct disk *d, uint64_t first, uint64_t count,
                         uint32_t tag) {
  char *buf = rig_data(count << BLOCK_SHIFT, 1);
  for (uint64_t i = 0; i < count; i++) {
    fill_block(buf + (i << BLOCK_SHIFT), tag, first + i);
    d->tags[first + i] = tag;
  }
  assert_int_equal(run(r, d, OP_WRITE, first << BLOCK_SHIFT, count << BLOCK_SHIFT, buf),
                   (int64_t)(count << BLOCK_SHIFT));
  free(buf);
}

static void write_some(struct rig *r, struct disk *d, uint32_t writes, uint32_t *tag) {
  static const uint64_t sizes[] = {1, 1, 2, 5, 16, 40, 130};
  while (writes-- > 0) {
    uint64_t n = sizes[random_below(&r->random, sizeof sizes / sizeof *sizes)];
    write_blocks(r, d, random_below(&r->random, DISK_BLOCKS - n), n, ++*tag);
  }
}

/* d goes on in a new layer; s is what it was. */
static void snapshot(struct rig *r, struct disk *d, struct disk *s, uint64_t layer) {
  memcpy(s->tags, d->tags, sizeof s->tags);
  struct layer_below below =
      layer_below(map_layer(manifest_map(shard_manifest(r->shard)), d->layer));
  assert_int_equal(run(r, d, OP_FREEZE, 0, 0, NULL), 0);
  disk_open(r, s, d->layer, below, true);
  assert_int_equal(shard_layer_set(r->shard, layer, here(d->layer)), 0);
  assert_int_equal(shard_volume_set_layer(r->shard, d->volume, layer, false), 0);
  d->layer = layer;
  assert_int_equal(run(r, d, OP_THAW, 0, 0, NULL), 0);
}

static int64_t sum_layer(struct rig *r, uint64_t layer) {
  struct shard_op *op = rig_op(r, OP_LAYER_SUM, 0);
  op->offset = layer;
  return rig_run(r, op);
}
static int64_t drop_layer(struct rig *r, uint64_t layer) {
  struct shard_op *op = rig_op(r, OP_LAYER_DROP, 0);
  op->offset = layer;
  return rig_run(r, op);
}

static struct layer_stats stats_of(struct rig *r, uint64_t layer) {
  struct layer_stats stats;
  shard_layer_stats(r->shard, layer, &stats);
  return stats;
}
static void assert_all_summed(struct rig *r, uint64_t layer) {
  struct layer_stats stats = stats_of(r, layer);
  assert_int_not_equal(stats.valid_blocks, 0);
  assert_int_equal(stats.summed_blocks, stats.valid_blocks);
  assert_int_equal(shard_unsummed_blocks(r->shard, layer), 0);
}

/* In pieces of all sizes, so that all ways of reading are taken. */
static void expect_disk(struct rig *r, struct disk *d) {
  static const uint64_t sizes[] = {1, 3, 16, 64, 200};
  char *buf = rig_data(200 << BLOCK_SHIFT, 1), want[BLOCK_BYTES];
  for (uint64_t at = 0, n; at < DISK_BLOCKS; at += n) {
    n = sizes[random_below(&r->random, 5)];
    if (n > DISK_BLOCKS - at) n = DISK_BLOCKS - at;
    assert_int_equal(run(r, d, OP_READ, at << BLOCK_SHIFT, n << BLOCK_SHIFT, buf),
                     (int64_t)(n << BLOCK_SHIFT));
    for (uint64_t i = 0; i < n; i++) {
      fill_block(want, d->tags[at + i], at + i);
      if (memcmp(buf + (i << BLOCK_SHIFT), want, BLOCK_BYTES) != 0)
        fail_msg("layer %llu block %llu", (unsigned long long)d->layer,
                 (unsigned long long)(at + i));
    }
  }
  free(buf);
}

/* Where a layer has a block; NULL: it has not. */
static char *place_of(struct rig *r, uint64_t layer, uint64_t block) {
  struct layer *l = map_layer(manifest_map(shard_manifest(r->shard)), layer);
  struct cluster c = l ? layer_get(l, block / CLUSTER_BLOCKS) : (struct cluster){0};
  return c.valid >> block % CLUSTER_BLOCKS & 1 ? rig_block(r, c.place + block % CLUSTER_BLOCKS)
                                               : NULL;
}
static uint64_t random_block(struct rig *r, uint64_t layer) {
  uint64_t block;
  do block = random_below(&r->random, DISK_BLOCKS);
  while (!place_of(r, layer, block));
  return block;
}
static void flip(struct rig *r, uint64_t layer, uint64_t block, uint64_t bit) {
  place_of(r, layer, block)[bit / 8] ^= (char)(1 << bit % 8);
}

static void reopen(struct rig *r) {
  char why[256] = "";
  rig_drain(r);
  shard_close(r->shard);
  r->root.incarnation = r->config.manifest.incarnation++;
  if (shard_open(&r->shard, &r->config, &r->root, why, sizeof why)) fail_msg("%s", why);
}

static void ask_answered(struct shard_op *op) { shard_answered(op); }
static void ask(void *arg, struct shard_op *op, uint32_t shard) {
  struct rig *r = arg;
  assert_int_equal(shard, 0);
  op->done = ask_answered;
  shard_submit(r->shard, op);
}
static void open_rig(struct rig *r, uint64_t seed) {
  rig_open(r, 128 << 20, seed);
  r->config.ask = ask;
  r->config.ask_arg = r;
  r->config.regions = &r->region;
  rig_flush(r);
  reopen(r);
}

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
  rig_open(&r, 128 << 20, 21);
  r.config.ask = ask;
  r.config.ask_arg = &r;
  r.config.regions = &r.region;
  r.config.manifest.damage = (struct damage_sink){note_finding, &found};
  rig_flush(&r);
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

/* ---- The map, and the entry ----------------------------------------------------------------- */

#define LEAF 5u

/* Sums go with their blocks through any change, against an array. */
static void sums_of_the_map(void **state) {
  (void)state;
  static const uint64_t key[2] = {1, 2};
  struct map *map;
  struct layer *layer;
  struct random x = {7};
  struct cluster have[LEAF_CLUSTERS] = {{0}};
  static struct leaf_sums model, given;
  assert_int_equal(map_create(&map, key), 0);
  assert_int_equal(map_layer_add(map, 1, &layer), 0);
  assert_int_equal(layer_pin_leaf(map, layer, LEAF), 0);
  for (uint32_t round = 0; round < 4000; round++) {
    uint32_t slot = (uint32_t)random_below(&x, LEAF_CLUSTERS), what = (uint32_t)random_below(&x, 8);
    struct cluster next[LEAF_CLUSTERS];
    memcpy(next, have, sizeof next);
    if (what == 0) {
      for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        if (random_below(&x, 3)) leaf_sums_set(&given, i, (uint32_t)random_next(&x));
      assert_int_equal(layer_set_sums(map, layer, LEAF, &given), 0);
      for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        model.has[i / 64] &= ~(UINT64_C(1) << i % 64);
        if (leaf_sums_has(&given, i) && have[i / 16].valid >> i % 16 & 1)
          leaf_sums_set(&model, i, given.sum[i]);
      }
      memset(given.has, 0, sizeof given.has);
      continue;
    }
    uint32_t end =
        what == 1 ? slot + 1 + (uint32_t)random_below(&x, LEAF_CLUSTERS - slot) : slot + 1;
    for (uint32_t i = slot; i < end; i++) {
      uint16_t valid = (uint16_t)random_next(&x);
      uint32_t place = 1000 + 16 * (uint32_t)random_below(&x, 2);
      if (random_below(&x, 5) == 0) valid = 0;
      if (random_below(&x, 3)) valid |= have[i].valid, place = have[i].place;
      next[i] = (struct cluster){place || !valid ? place : 1000, valid, (uint16_t)~valid};
    }
    if (end == slot + 1)
      layer_set(map, layer, LEAF * LEAF_CLUSTERS + slot, next[slot]);
    else
      layer_set_leaf(map, layer, LEAF, next);
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
      struct cluster a = have[i / 16], b = next[i / 16];
      if (!(a.valid & b.valid & 1u << i % 16) || a.place != b.place)
        model.has[i / 64] &= ~(UINT64_C(1) << i % 64);
    }
    memcpy(have, next, sizeof have);
    const struct block_sums *sums = layer_sums(layer, LEAF);
    struct layer_stats stats;
    layer_stats(layer, &stats);
    assert_int_equal(stats.summed_blocks, sums_count(model.has));
    assert_int_equal(sums != NULL, stats.summed_blocks != 0);
    for (uint32_t i = 0; sums && i < LEAF_BLOCKS; i++) {
      assert_int_equal(block_sums_has(sums, i), leaf_sums_has(&model, i));
      if (block_sums_has(sums, i)) assert_int_equal(block_sums_at(sums, i), model.sum[i]);
    }
  }
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    layer_set(map, layer, LEAF * LEAF_CLUSTERS + i, (struct cluster){0});
  assert_null(layer_sums(layer, LEAF));
  layer_unpin_leaf(map, layer, LEAF);
  struct layer_stats stats;
  layer_stats(layer, &stats);
  assert_int_equal(stats.leaves + stats.summed_blocks, 0);
  map_destroy(map);
}

static const char *refused(const void *buf, uint64_t left) {
  struct entry e;
  const char *why = NULL;
  return log_entry_decode(&e, buf, left, 1 << 20, &why) ? NULL : why;
}

static void hostile_entries(void **state) {
  (void)state;
  static struct leaf_sums sums, got;
  struct random x = {3};
  for (uint32_t round = 0; round < 200; round++) {
    memset(sums.has, 0, sizeof sums.has);
    uint32_t count = 1 + (uint32_t)random_below(&x, round % 2 ? 8 : LEAF_BLOCKS);
    while (count-- > 0)
      leaf_sums_set(&sums, (uint32_t)random_below(&x, LEAF_BLOCKS), (uint32_t)random_next(&x));
    uint32_t n = sums_count(sums.has), bytes = entry_sums_bytes(n), peeked;
    struct blob_id id;
    char *buf = malloc(bytes); /* to its last byte, so that a look beyond it shows */
    assert_int_equal(log_entry_sums(buf, 9, 77, &sums), bytes);
    assert_true(log_entry_peek(buf, bytes, &id, &peeked));
    assert_int_equal(peeked, bytes);
    struct entry e;
    const char *why = "";
    assert_int_equal(log_entry_decode(&e, buf, bytes, 1 << 20, &why), bytes);
    assert_int_equal(e.type, ENTRY_SUMS);
    assert_int_equal(e.sums.layer, 9);
    assert_int_equal(e.sums.leaf, 77);
    log_unpack_sums(&e.sums, &got);
    assert_memory_equal(got.has, sums.has, sizeof sums.has);
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
      if (leaf_sums_has(&sums, i)) assert_int_equal(got.sum[i], sums.sum[i]);
    char *cut = malloc(bytes - 8);
    memcpy(cut, buf, bytes - 8);
    assert_string_equal(refused(cut, bytes - 8), "entry is cut off");
    free(cut);
    buf[1] = 1;
    assert_string_equal(refused(buf, bytes), "unknown flags");
    buf[1] = 0;
    buf[3] = 4;
    assert_string_equal(refused(buf, bytes), "unknown flags");
    buf[3] = 0;
    buf[7] = 1; /* leaf 2^24 and more */
    assert_string_equal(refused(buf, bytes), "impossible layer or leaf");
    buf[7] = 0;
    buf[8] = 0;
    assert_string_equal(refused(buf, bytes), "impossible layer or leaf");
    buf[8] = 9;
    if (n % 2) {
      buf[bytes - 1] = 1;
      assert_string_equal(refused(buf, bytes), "bytes behind the checksums are not zero");
      buf[bytes - 1] = 0;
    }
    for (uint32_t i = 0; i < 40; i++) { /* whatever it is then, it stays inside */
      buf[random_below(&x, 144)] ^= (char)(1 << random_below(&x, 8));
      (void)refused(buf, bytes);
    }
    memset(buf + 16, 0, 128);
    buf[0] = ENTRY_SUMS;
    buf[1] = buf[2] = buf[3] = buf[7] = 0;
    buf[8] = 9;
    assert_string_equal(refused(buf, bytes), "changes nothing");
    free(buf);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(flips_are_found),
      cmocka_unit_test(they_survive),
      cmocka_unit_test(made_once),
      cmocka_unit_test(they_move_with_the_data),
      cmocka_unit_test(overtaken_by_a_merge),
      cmocka_unit_test(others_have_the_way),
      cmocka_unit_test(stopped),
      cmocka_unit_test(sums_of_the_map),
      cmocka_unit_test(hostile_entries),
      cmocka_unit_test(across_leaves),
      cmocka_unit_test(a_scrub_finds_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
