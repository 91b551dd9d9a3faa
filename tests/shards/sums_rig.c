/* sums_rig.c - see sums_rig.h. */
#include "tests/shards/sums_rig.h"

struct layer_below here(uint64_t layer) {
  return (struct layer_below){.id = layer};
}

void fill_block(char *at, uint32_t tag, uint64_t block) {
  struct random r = {.state = tag * UINT64_C(0x100000001) + block};
  for (uint32_t i = 0; i < BLOCK_BYTES; i += 8) {
    uint64_t v = tag ? random_next(&r) : 0;
    memcpy(at + i, &v, 8);
  }
}

void disk_open(struct rig *r, struct disk *d, uint64_t layer, struct layer_below below,
               bool sealed) {
  struct volume_config config = {
      .layer = layer, .read_only = sealed, .size_bytes = DISK_BYTES, .block_bytes = 512};
  d->layer = layer;
  assert_int_equal(shard_layer_set(r->shard, layer, below), 0);
  assert_int_equal(shard_volume_open(r->shard, &config, &d->volume), 0);
}
void disk_close(struct rig *r, struct disk *d) {
  assert_int_equal(shard_volume_close(r->shard, d->volume), 0);
}

struct shard_op *volume_op(struct rig *r, struct disk *d, uint8_t kind, uint64_t offset,
                           uint64_t bytes, void *buf) {
  struct shard_op *op = rig_op(r, kind, 0);
  *volume_args(op) = (struct volume_args){.volume = d->volume};
  op->offset = offset;
  op->bytes = bytes;
  op->buf = buf;
  return op;
}
int64_t run(struct rig *r, struct disk *d, uint8_t kind, uint64_t offset, uint64_t bytes,
            void *buf) {
  return rig_run(r, volume_op(r, d, kind, offset, bytes, buf));
}

void write_blocks(struct rig *r, struct disk *d, uint64_t first, uint64_t count, uint32_t tag) {
  char *buf = rig_data(count << BLOCK_SHIFT, 1);
  for (uint64_t i = 0; i < count; i++) {
    fill_block(buf + (i << BLOCK_SHIFT), tag, first + i);
    d->tags[first + i] = tag;
  }
  assert_int_equal(run(r, d, OP_WRITE, first << BLOCK_SHIFT, count << BLOCK_SHIFT, buf),
                   (int64_t)(count << BLOCK_SHIFT));
  free(buf);
}

void write_some(struct rig *r, struct disk *d, uint32_t writes, uint32_t *tag) {
  static const uint64_t sizes[] = {1, 1, 2, 5, 16, 40, 130};
  while (writes-- > 0) {
    uint64_t n = sizes[random_below(&r->random, sizeof sizes / sizeof *sizes)];
    write_blocks(r, d, random_below(&r->random, DISK_BLOCKS - n), n, ++*tag);
  }
}

/* d goes on in a new layer; s is what it was. */
void snapshot(struct rig *r, struct disk *d, struct disk *s, uint64_t layer) {
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

int64_t sum_layer(struct rig *r, uint64_t layer) {
  struct shard_op *op = rig_op(r, OP_LAYER_SUM, 0);
  op->offset = layer;
  return rig_run(r, op);
}
int64_t drop_layer(struct rig *r, uint64_t layer) {
  struct shard_op *op = rig_op(r, OP_LAYER_DROP, 0);
  op->offset = layer;
  return rig_run(r, op);
}

struct layer_stats stats_of(struct rig *r, uint64_t layer) {
  struct layer_stats stats;
  shard_layer_stats(r->shard, layer, &stats);
  return stats;
}
void assert_all_summed(struct rig *r, uint64_t layer) {
  struct layer_stats stats = stats_of(r, layer);
  assert_int_not_equal(stats.valid_blocks, 0);
  assert_int_equal(stats.summed_blocks, stats.valid_blocks);
  assert_int_equal(shard_unsummed_blocks(r->shard, layer), 0);
}

/* In pieces of all sizes, so that all ways of reading are taken. */
void expect_disk(struct rig *r, struct disk *d) {
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
char *place_of(struct rig *r, uint64_t layer, uint64_t block) {
  struct layer *l = map_layer(manifest_map(shard_manifest(r->shard)), layer);
  struct cluster c = l ? layer_get(l, block / CLUSTER_BLOCKS) : (struct cluster){0};
  return c.valid >> block % CLUSTER_BLOCKS & 1 ? rig_block(r, c.place + block % CLUSTER_BLOCKS)
                                               : NULL;
}
uint64_t random_block(struct rig *r, uint64_t layer) {
  uint64_t block;
  do block = random_below(&r->random, DISK_BLOCKS);
  while (!place_of(r, layer, block));
  return block;
}
void flip(struct rig *r, uint64_t layer, uint64_t block, uint64_t bit) {
  place_of(r, layer, block)[bit / 8] ^= (char)(1 << bit % 8);
}

void reopen(struct rig *r) {
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
void open_rig(struct rig *r, uint64_t seed) {
  rig_open(r, 128 << 20, seed);
  r->config.ask = ask;
  r->config.ask_arg = r;
  r->config.regions = &r->region;
  rig_flush(r);
  reopen(r);
}
