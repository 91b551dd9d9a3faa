/* Volumes in one shard against a model: 512-byte sectors, each with the number of the write that it
 * came from. The device completes in a random order. */
#include "shards/gate.h"
#include "shards/volume.h"
#include "tests/shards/shard_rig.h"

#define SECTOR        512u
#define DISK_BYTES    (20u << 20)
#define SECTORS       (DISK_BYTES / SECTOR)
#define IN_FLIGHT_MAX 24u
#define LAYERS_MAX    64u

/* What a sector holds after write `tag`; 0: zeros. */
static void fill_sector(char *at, uint32_t tag, uint64_t sector) {
  struct random r = {.state = tag * UINT64_C(0x100000001) + sector};
  for (uint32_t i = 0; i < SECTOR; i += 8) {
    uint64_t v = tag ? random_next(&r) : 0;
    memcpy(at + i, &v, 8);
  }
}

struct disk {
  struct volume *volume;
  uint64_t layer;
  uint32_t *tags; /* [SECTORS] */
};

static struct disk disk_open(struct rig *r, uint64_t layer, struct layer_below below,
                             const uint32_t *tags) {
  struct disk d = {.layer = layer, .tags = calloc(SECTORS, sizeof *d.tags)};
  struct volume_config config = {.layer = layer, .size_bytes = DISK_BYTES, .block_bytes = SECTOR};
  assert_int_equal(shard_layer_set(r->shard, layer, below), 0);
  assert_int_equal(shard_volume_open(r->shard, &config, &d.volume), 0);
  if (tags) memcpy(d.tags, tags, SECTORS * sizeof *tags);
  return d;
}
static void disk_close(struct rig *r, struct disk *d) {
  assert_int_equal(shard_volume_close(r->shard, d->volume), 0);
  free(d->tags);
}

static struct shard_op *volume_op(struct rig *r, const struct disk *d, uint8_t kind,
                                  uint64_t offset, uint64_t bytes) {
  struct shard_op *op = rig_op(r, kind, 0);
  *volume_args(op) = (struct volume_args){.volume = d->volume};
  op->offset = offset;
  op->bytes = bytes;
  return op;
}
static int64_t volume_run_op(struct rig *r, const struct disk *d, uint8_t kind, uint64_t offset,
                             uint64_t bytes, void *buf, uint8_t flags) {
  struct shard_op *op = volume_op(r, d, kind, offset, bytes);
  op->buf = buf;
  op->flags = flags;
  return rig_run(r, op);
}

static void expect_sectors(const struct disk *d, const char *buf, uint64_t first, uint64_t count) {
  char want[SECTOR];
  for (uint64_t i = 0; i < count; i++) {
    fill_sector(want, d->tags[first + i], first + i);
    if (memcmp(buf + i * SECTOR, want, SECTOR) != 0)
      fail_msg("layer %llu sector %llu (block %llu): not what write %u left",
               (unsigned long long)d->layer, (unsigned long long)(first + i),
               (unsigned long long)((first + i) / 8), d->tags[first + i]);
  }
}

/* Reads all of it, in large pieces. */
static void expect_disk(struct rig *r, const struct disk *d) {
  char *buf = rig_data(1 << 20, 1);
  for (uint64_t at = 0; at < DISK_BYTES; at += 1 << 20) {
    assert_int_equal(volume_run_op(r, d, OP_READ, at, 1 << 20, buf, 0), 1 << 20);
    expect_sectors(d, buf, at / SECTOR, (1 << 20) / SECTOR);
  }
  free(buf);
}

/* ---- Random requests ------------------------------------------------------------------------ */

struct pending {
  struct shard_op *op;
  char *memory;
  struct iovec *iov;
  char *linear; /* reads: a copy to compare */
  uint32_t *tags;
};

static void pick_range(struct random *x, uint64_t *first, uint64_t *count) {
  static const uint64_t sizes[] = {1, 3, 8, 8, 8, 8, 16, 40, 128, 200, 2048, 9000};
  *count = sizes[random_below(x, sizeof sizes / sizeof *sizes)];
  if (random_below(x, 4) == 0) *count = 1 + random_below(x, *count);
  *first = random_below(x, SECTORS - *count);
  if (random_below(x, 3)) *first &= ~UINT64_C(7);
  if (random_below(x, 8) == 0) *first = (*first & ~UINT64_C(8191)) + 8192 - *count / 2;
  if (*first + *count > SECTORS) *first = SECTORS - *count;
}

/* The memory of an op: one piece, aligned or not, or a vector of odd pieces. */
static void give_memory(struct rig *r, struct pending *p, uint64_t bytes) {
  uint64_t skew = random_below(&r->random, 3) ? 0 : random_below(&r->random, 4096);
  p->memory = rig_data(bytes + skew + 64, 5);
  p->op->buf = p->memory + skew;
  if (random_below(&r->random, 3)) return;
  uint32_t count = 1 + (uint32_t)random_below(&r->random, 6);
  p->iov = calloc(count, sizeof *p->iov);
  char *at = p->op->buf;
  uint64_t left = bytes;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t n = i + 1 == count ? left : random_below(&r->random, left + 1);
    if (random_below(&r->random, 2)) n &= ~UINT64_C(4095);
    if (i + 1 == count) n = left;
    p->iov[i] = (struct iovec){at, n};
    at += n;
    left -= n;
  }
  volume_args(p->op)->iov_count = count;
  p->linear = p->op->buf; /* the pieces follow each other, so it can be filled and read as one */
  p->op->buf = p->iov;
}
static char *linear_memory(struct pending *p) { return p->iov ? p->linear : p->op->buf; }

static void submit_random(struct rig *r, struct disk *d, struct pending *p, uint32_t tag,
                          bool reads) {
  static const uint8_t kinds[] = {OP_WRITE, OP_WRITE,        OP_WRITE,
                                  OP_WRITE, OP_WRITE_ZEROES, OP_DISCARD};
  uint64_t first, count;
  pick_range(&r->random, &first, &count);
  uint8_t kind = reads ? OP_READ : kinds[random_below(&r->random, sizeof kinds)];
  /* A discard leaves parts of blocks alone: whole ones only, so that the model knows. */
  if (kind == OP_DISCARD) {
    first &= ~UINT64_C(7);
    count = (count + 7) & ~UINT64_C(7);
    if (first + count > SECTORS) first = SECTORS - count;
  }
  *p = (struct pending){.op = volume_op(r, d, kind, first * SECTOR, count * SECTOR)};
  if (kind == OP_READ || kind == OP_WRITE) give_memory(r, p, count * SECTOR);
  if (kind != OP_READ && random_below(&r->random, 16) == 0 && kind != OP_DISCARD)
    p->op->flags = OP_DURABLE;
  for (uint64_t i = 0; i < count && kind != OP_READ; i++) {
    d->tags[first + i] = kind == OP_WRITE ? tag : 0;
    if (kind == OP_WRITE) fill_sector(linear_memory(p) + i * SECTOR, tag, first + i);
  }
  rig_submit(r, p->op);
}

static void reap(struct disk *d, struct pending *p) {
  assert_int_equal(p->op->result, (int64_t)p->op->bytes);
  if (p->op->kind == OP_READ)
    expect_sectors(d, linear_memory(p), p->op->offset / SECTOR, p->op->bytes / SECTOR);
  free(p->memory);
  free(p->iov);
  free(p->op);
  p->op = NULL;
}

/* Many writes in flight, overlapping as they like: they take effect in the order of submission.
 * Then reads, many at once. */
static void churn(struct rig *r, struct disk *d, uint32_t count, uint32_t *tag) {
  struct pending all[IN_FLIGHT_MAX] = {0};
  for (uint32_t phase = 0; phase < 2; phase++) {
    for (uint32_t i = 0; i < count; i++) {
      struct pending *p = &all[random_below(&r->random, IN_FLIGHT_MAX)];
      if (p->op && !rig_done(p->op)) rig_wait(r, p->op);
      if (p->op) reap(d, p);
      submit_random(r, d, p, ++*tag, phase == 1);
      if (random_below(&r->random, 3) == 0) rig_step(r);
    }
    for (uint32_t i = 0; i < IN_FLIGHT_MAX; i++) {
      if (!all[i].op) continue;
      rig_wait(r, all[i].op);
      reap(d, &all[i]);
    }
  }
}

static const struct layer_below nothing = {0};
static struct layer_below here(uint64_t layer) { return (struct layer_below){.id = layer}; }

static void requests_in_any_order_and_size(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 4; seed++) {
    struct rig r;
    uint32_t tag = 0;
    rig_open(&r, 96 << 20, seed);
    struct disk d = disk_open(&r, 7, nothing, NULL);
    for (int round = 0; round < 4; round++) {
      churn(&r, &d, 120, &tag);
      rig_flush(&r);
    }
    expect_disk(&r, &d);
    disk_close(&r, &d);
    rig_close(&r);
  }
}

/* ---- Snapshots and clones -----------------------------------------------------------------------
 */

static void control(struct rig *r, const struct disk *d, uint8_t kind) {
  assert_int_equal(rig_run(r, volume_op(r, d, kind, 0, 0)), 0);
}

/* The disk goes on in a new layer. Requests that come while it is frozen wait. */
static struct disk take_snapshot(struct rig *r, struct disk *d, uint64_t new_layer) {
  struct disk s = {.layer = d->layer, .tags = malloc(SECTORS * sizeof *s.tags)};
  struct volume_config config = {
      .layer = d->layer, .read_only = true, .size_bytes = DISK_BYTES, .block_bytes = SECTOR};
  char *buf = rig_data(4096, 9);
  control(r, d, OP_FREEZE);
  struct shard_op *held = volume_op(r, d, OP_WRITE, 8192, 4096);
  held->buf = buf;
  rig_submit(r, held);
  for (int i = 0; i < 20; i++) rig_step(r);
  assert_false(rig_done(held));
  memcpy(s.tags, d->tags, SECTORS * sizeof *s.tags);
  assert_int_equal(shard_volume_open(r->shard, &config, &s.volume), 0);
  assert_int_equal(shard_layer_set(r->shard, new_layer, here(d->layer)), 0);
  assert_int_equal(shard_volume_set_layer(r->shard, d->volume, new_layer, false), 0);
  d->layer = new_layer;
  control(r, d, OP_THAW);
  assert_int_equal(rig_wait(r, held), 4096);
  free(held);
  /* Now it is known what the held one wrote. */
  for (uint32_t i = 0; i < 8; i++) {
    d->tags[16 + i] = 1000000 + i;
    fill_sector(buf + i * SECTOR, d->tags[16 + i], 16 + i);
  }
  assert_int_equal(volume_run_op(r, d, OP_WRITE, 8192, 4096, buf, 0), 4096);
  free(buf);
  return s;
}

static void snapshots_and_clones(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    struct rig r;
    uint32_t tag = 0;
    rig_open(&r, 512 << 20, seed);
    struct disk d = disk_open(&r, 1, nothing, NULL), snapshots[5], clones[5];
    for (uint32_t i = 0; i < 5; i++) {
      churn(&r, &d, 40, &tag);
      snapshots[i] = take_snapshot(&r, &d, 2 + i);
      clones[i] = disk_open(&r, 100 + i, here(snapshots[i].layer), snapshots[i].tags);
      for (uint32_t k = 0; k <= i; k++) churn(&r, &clones[k], 20, &tag);
    }
    struct shard_op *op = volume_op(&r, &snapshots[0], OP_WRITE, 0, 512);
    op->buf = op;
    assert_int_equal(rig_run(&r, op), -EROFS);
    expect_disk(&r, &d);
    for (uint32_t i = 0; i < 5; i++) {
      expect_disk(&r, &snapshots[i]);
      expect_disk(&r, &clones[i]);
    }
    /* A flattened clone needs nothing below, whatever is written to it meanwhile. */
    for (uint64_t at = 0; at < DISK_BYTES; at += 4 << 20) {
      struct shard_op *promote = volume_op(&r, &clones[3], OP_PROMOTE, at, 4 << 20);
      rig_submit(&r, promote);
      churn(&r, &clones[3], 10, &tag);
      assert_true(rig_wait(&r, promote) >= 0);
      free(promote);
    }
    control(&r, &clones[3], OP_FREEZE);
    assert_int_equal(shard_layer_set(r.shard, clones[3].layer, nothing), 0);
    assert_int_equal(shard_volume_set_layer(r.shard, clones[3].volume, clones[3].layer, false), 0);
    control(&r, &clones[3], OP_THAW);
    expect_disk(&r, &clones[3]);
    disk_close(&r, &d);
    for (uint32_t i = 0; i < 5; i++) {
      disk_close(&r, &snapshots[i]);
      disk_close(&r, &clones[i]);
    }
    rig_close(&r);
  }
}

/* ---- Crash, drop --------------------------------------------------------------------------------
 */

static void reopen(struct rig *r) {
  char why[256] = "";
  rig_drain(r);
  shard_close(r->shard);
  r->root.incarnation = r->config.manifest.incarnation++;
  if (shard_open(&r->shard, &r->config, &r->root, why, sizeof why)) fail_msg("%s", why);
}

static uint64_t free_and_pending(struct rig *r) {
  struct shard_stats stats;
  shard_stats(r->shard, &stats);
  return stats.free_blocks + stats.pending_blocks;
}

static void what_was_flushed_is_there(void **state) {
  (void)state;
  struct rig r;
  uint32_t tag = 0;
  rig_open(&r, 128 << 20, 3);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  churn(&r, &d, 100, &tag);
  struct disk s = take_snapshot(&r, &d, 2);
  churn(&r, &d, 100, &tag);
  rig_flush(&r);
  uint32_t *tags = malloc(SECTORS * sizeof *tags), *old = malloc(SECTORS * sizeof *old);
  memcpy(tags, d.tags, SECTORS * sizeof *tags);
  memcpy(old, s.tags, SECTORS * sizeof *old);
  disk_close(&r, &d);
  disk_close(&r, &s);
  reopen(&r);
  assert_int_equal(shard_next_orphan(r.shard, 0), 1);
  assert_int_equal(shard_next_orphan(r.shard, 1), 2);
  assert_int_equal(shard_next_orphan(r.shard, 2), 0);
  s = disk_open(&r, 1, nothing, old);
  d = disk_open(&r, 2, here(1), tags);
  expect_disk(&r, &s);
  expect_disk(&r, &d);
  disk_close(&r, &d);
  disk_close(&r, &s);
  free(tags);
  free(old);
  rig_close(&r);
}

/* A volume's own flush survives without a root; a write that was not flushed may be lost, whole. */
static void a_flush_of_the_volume_is_enough(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 64 << 20, 4);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  char *buf = rig_data(4096, 1), *got = rig_data(4096, 2);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 65536, 4096, buf, 0), 4096);
  uint64_t flushes = r.device.flushes;
  assert_int_equal(volume_run_op(&r, &d, OP_SYNC, 0, 0, NULL, 0), 0);
  assert_int_equal(r.device.flushes, flushes + 1);
  /* Nothing new: no flush. In place: a flush, though no metadata changed. */
  assert_int_equal(volume_run_op(&r, &d, OP_SYNC, 0, 0, NULL, 0), 0);
  assert_int_equal(r.device.flushes, flushes + 1);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 65536, 4096, buf, 0), 4096);
  assert_true(manifest_dirty(shard_manifest(r.shard)));
  uint64_t writes = r.device.writes;
  assert_int_equal(volume_run_op(&r, &d, OP_SYNC, 0, 0, NULL, 0), 0);
  assert_int_equal(r.device.flushes, flushes + 2);
  assert_int_equal(r.device.writes, writes); /* no commit frame */
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 1 << 20, 4096, buf, 0), 4096);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 2 << 20, 4096, buf, OP_DURABLE), 4096);
  disk_close(&r, &d);
  reopen(&r);
  d = disk_open(&r, 1, nothing, NULL);
  for (uint32_t i = 0; i < 3; i++) {
    static const uint64_t places[] = {65536, 1 << 20, 2 << 20};
    assert_int_equal(volume_run_op(&r, &d, OP_READ, places[i], 4096, got, 0), 4096);
    assert_memory_equal(got, buf, 4096);
  }
  free(buf);
  free(got);
  disk_close(&r, &d);
  rig_close(&r);
}

static void space_comes_back(void **state) {
  (void)state;
  struct rig r;
  uint32_t tag = 0;
  rig_open(&r, 128 << 20, 5);
  uint64_t before = free_and_pending(&r);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  churn(&r, &d, 60, &tag);
  struct disk s = take_snapshot(&r, &d, 2);
  churn(&r, &d, 60, &tag);
  assert_true(free_and_pending(&r) < before);
  disk_close(&r, &d);
  disk_close(&r, &s);
  for (uint64_t layer = 1; layer <= 2; layer++) {
    struct shard_op *op = rig_op(&r, OP_LAYER_DROP, 0);
    op->offset = layer;
    assert_int_equal(rig_run(&r, op), 0);
  }
  assert_int_equal(free_and_pending(&r), before);
  rig_flush(&r);
  rig_flush(&r);
  assert_int_equal(shard_next_orphan(r.shard, 0), 0);
  rig_close(&r);
}

/* ---- Merging --------------------------------------------------------------------------------- */

static void answered(struct shard_op *op) { shard_answered(op); }
static void ask(void *arg, struct shard_op *op, uint32_t shard) {
  struct rig *r = arg;
  assert_int_equal(shard, 0);
  op->done = answered;
  shard_submit(r->shard, op);
}

static void drop_layer(struct rig *r, uint64_t layer) {
  struct shard_op *op = rig_op(r, OP_LAYER_DROP, 0);
  op->offset = layer;
  assert_int_equal(rig_run(r, op), 0);
}

/* The layer below d's, whose snapshot is not needed any more, while d is in use. */
static void merge_below(struct rig *r, struct disk *d, uint64_t layer, uint32_t *tag) {
  struct layer *l = map_layer(manifest_map(shard_manifest(r->shard)), layer);
  struct layer_below below = layer_below(l);
  struct shard_op *op = volume_op(r, d, OP_LAYER_MERGE, layer, 0);
  rig_submit(r, op);
  churn(r, d, 30, tag);
  assert_int_equal(rig_wait(r, op), 0);
  free(op);
  struct layer_stats stats;
  shard_layer_stats(r->shard, layer, &stats);
  assert_int_equal(stats.clusters + stats.zero_blocks, 0);
  control(r, d, OP_FREEZE);
  assert_int_equal(shard_layer_set(r->shard, d->layer, below), 0);
  assert_int_equal(shard_volume_set_layer(r->shard, d->volume, d->layer, false), 0);
  control(r, d, OP_THAW);
  drop_layer(r, layer);
}

static void merges(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 4; seed++) {
    struct rig r;
    uint32_t tag = 0;
    rig_open(&r, 256 << 20, seed);
    r.config.ask = ask;
    r.config.ask_arg = &r;
    r.config.regions = &r.region;
    rig_flush(&r);
    reopen(&r);
    uint64_t before = free_and_pending(&r);
    struct disk d = disk_open(&r, 1, nothing, NULL), snapshots[4];
    for (uint32_t i = 0; i < 4; i++) {
      churn(&r, &d, 40, &tag);
      snapshots[i] = take_snapshot(&r, &d, 2 + i);
    }
    struct disk clone = disk_open(&r, 100, here(5), d.tags);
    disk_close(&r,
               &clone); /* layer 100 lies on 5: the top one, which is not sealed; never written */
    drop_layer(&r, 100);
    churn(&r, &d, 40, &tag);
    disk_close(&r, &snapshots[3]);
    merge_below(&r, &d, 4, &tag); /* into the live top layer */
    expect_disk(&r, &d);
    /* Into a sealed one, of which a clone is read and written. */
    clone = disk_open(&r, 101, here(3), snapshots[2].tags);
    expect_disk(&r, &clone);
    disk_close(&r, &snapshots[1]);
    struct shard_op *op = volume_op(&r, &snapshots[2], OP_LAYER_MERGE, 2, 0);
    rig_submit(&r, op);
    churn(&r, &clone, 30, &tag);
    assert_int_equal(rig_wait(&r, op), 0);
    free(op);
    expect_disk(&r, &clone);
    expect_disk(&r, &d);
    expect_disk(&r, &snapshots[2]);
    expect_disk(&r, &snapshots[0]);
    rig_flush(&r);
    struct disk *all[] = {&d, &clone, &snapshots[2], &snapshots[0]};
    uint32_t *tags[4];
    for (uint32_t i = 0; i < 4; i++) {
      tags[i] = malloc(SECTORS * sizeof **tags);
      memcpy(tags[i], all[i]->tags, SECTORS * sizeof **tags);
      disk_close(&r, all[i]);
    }
    reopen(&r); /* no place is claimed twice */
    static const uint64_t layers[] = {5, 101, 3, 1}, below[] = {3, 3, 1, 0};
    for (uint32_t i = 4; i-- > 0;) {
      *all[i] = disk_open(&r, layers[i], here(below[i]), tags[i]);
      expect_disk(&r, all[i]);
      disk_close(&r, all[i]);
      free(tags[i]);
    }
    for (uint32_t i = 0; i < 4; i++) drop_layer(&r, layers[i]);
    assert_int_equal(free_and_pending(&r), before);
    rig_close(&r);
  }
}

/* ---- What is refused, and what fails --------------------------------------------------------- */

static void bad_ranges_change_nothing(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 64 << 20, 6);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  char *buf = rig_data(8192, 1);
  static const uint64_t bad[][2] = {
      {DISK_BYTES, 512}, {DISK_BYTES - 512, 1024}, {100, 512},
      {0, 100},          {UINT64_MAX - 511, 512},  {512, UINT64_MAX - 511}};
  for (uint32_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    for (uint8_t kind = OP_READ; kind <= OP_DISCARD; kind++)
      assert_int_equal(volume_run_op(&r, &d, kind, bad[i][0], bad[i][1], buf, 0), -EINVAL);
  }
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 0, 512, buf, OP_READ_ONLY), -EROFS);
  assert_int_equal(volume_run_op(&r, &d, OP_READ, 0, 0, buf, 0), 0);
  assert_int_equal(r.device.writes, 0);
  expect_disk(&r, &d);
  free(buf);
  disk_close(&r, &d);
  rig_close(&r);
}

/* A store that is full: the write fails, the disk is as it was, what is given back can be used. */
static void a_full_store(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 12 << 20, 7);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  char *buf = rig_data(65536, 1);
  uint64_t at = 0;
  int64_t result;
  while ((result = volume_run_op(&r, &d, OP_WRITE, at, 65536, buf, 0)) == 65536) at += 65536;
  assert_int_equal(result, -ENOSPC);
  assert_true(at > 1 << 20 && at < 12 << 20);
  for (uint32_t i = 0; i < 65536 / SECTOR; i++) d.tags[i] = 0;
  assert_int_equal(volume_run_op(&r, &d, OP_READ, at, 65536, buf, 0), 65536);
  for (uint32_t i = 0; i < 65536; i++) assert_int_equal(buf[i], 0);
  free(buf);
  buf = rig_data(65536, 1);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 0, 65536, buf, 0), 65536); /* in place */
  assert_int_equal(volume_run_op(&r, &d, OP_DISCARD, 0, 262144, NULL, 0), 262144);
  rig_flush(&r);
  rig_flush(&r);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, at, 65536, buf, 0), 65536);
  free(buf);
  disk_close(&r, &d);
  rig_close(&r);
}

static void failed_writes(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 64 << 20, 8);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  char *buf = rig_data(262144, 1);
  r.device.fail_writes = 1;
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 0, 4096, buf, 0), -EIO);
  r.device.fail_writes = 1;
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 65536, 262144, buf, 0), -EIO);
  expect_disk(&r, &d); /* new blocks whose data failed are not there */
  r.device.fail_reads = 1;
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 0, 4096, buf, 0), 4096);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 512, 512, buf, 0), -EIO); /* its read */
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 512, 512, buf, 0), 512);
  free(buf);
  disk_close(&r, &d);
  rig_close(&r);
}

/* After a failed flush nothing is pretended: overwrites in place are refused like all else. */
static void nothing_is_written_after_a_failed_flush(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 64 << 20, 12);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  char *buf = rig_data(4096, 1), *got = rig_data(4096, 2);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 0, 4096, buf, 0), 4096);
  manifest_stop(shard_manifest(r.shard));
  uint64_t writes = r.device.writes;
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 0, 4096, got, 0), -EIO);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 0, 512, got, 0), -EIO);
  assert_int_equal(volume_run_op(&r, &d, OP_WRITE, 65536, 4096, got, 0), -EIO);
  assert_int_equal(volume_run_op(&r, &d, OP_DISCARD, 0, 4096, NULL, 0), -EIO);
  assert_int_equal(volume_run_op(&r, &d, OP_SYNC, 0, 0, NULL, 0), -EIO);
  assert_int_equal(r.device.writes, writes);
  assert_int_equal(volume_run_op(&r, &d, OP_READ, 0, 4096, got, 0), 4096);
  assert_memory_equal(got, buf, 4096);
  free(buf);
  free(got);
  disk_close(&r, &d);
  rig_close(&r);
}

/* The first write of 4 KiB to a clone is one device write of 4 KiB, and reads nothing. */
static void first_write_to_a_clone(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 64 << 20, 9);
  struct disk base = disk_open(&r, 1, nothing, NULL);
  char *buf = rig_data(1 << 20, 1);
  assert_int_equal(volume_run_op(&r, &base, OP_WRITE, 0, 1 << 20, buf, 0), 1 << 20);
  struct disk clone = disk_open(&r, 2, here(1), NULL);
  uint64_t writes = r.device.writes, reads = r.device.reads;
  for (uint32_t i = 0; i < 64; i++)
    assert_int_equal(volume_run_op(&r, &clone, OP_WRITE, i * 16384, 4096, buf, 0), 4096);
  assert_int_equal(r.device.writes, writes + 64);
  assert_int_equal(r.device.reads, reads);
  struct volume_stats stats;
  shard_volume_stats(clone.volume, &stats);
  assert_int_equal(stats.device_writes, 64);
  assert_int_equal(stats.first_writes, 64);
  free(buf);
  disk_close(&r, &clone);
  disk_close(&r, &base);
  rig_close(&r);
}

/* A discard of a whole clone says zeros only where the base has something. */
static void zeros_are_noted_only_where_they_hide_something(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 64 << 20, 11);
  struct disk base = disk_open(&r, 1, nothing, NULL);
  char *buf = rig_data(65536, 1);
  assert_int_equal(volume_run_op(&r, &base, OP_WRITE, 5 << 20, 65536, buf, 0), 65536);
  struct disk clone = disk_open(&r, 2, here(1), NULL);
  assert_int_equal(volume_run_op(&r, &clone, OP_WRITE, 12 << 20, 4096, buf, 0), 4096);
  assert_int_equal(volume_run_op(&r, &clone, OP_DISCARD, 0, DISK_BYTES, NULL, 0), DISK_BYTES);
  struct layer_stats stats;
  shard_layer_stats(r.shard, 2, &stats);
  assert_int_equal(stats.leaves, 2); /* the base's, and the one that the clone had written */
  assert_int_equal(stats.valid_blocks, 0);
  expect_disk(&r, &clone);
  free(buf);
  disk_close(&r, &clone);
  disk_close(&r, &base);
  rig_close(&r);
}

static void hurry(struct rig *r, const struct disk *d, bool begin) {
  assert_int_equal(rig_run(r, volume_op(r, d, OP_HURRY, begin, GATE_HURRY_ALL)), 0);
}

static void submit_again(struct rig *r, struct shard_op *op) {
  *(bool *)op->owner = false;
  rig_submit(r, op);
}

/* Requests that wait for tokens have not begun: who freezes the volume does not wait for them. */
static void a_limit_holds_up_no_snapshot(void **state) {
  (void)state;
  struct rig r;
  rig_open(&r, 64 << 20, 10);
  struct disk d = disk_open(&r, 1, nothing, NULL);
  struct limit limit;
  const struct limit_params slow = {.ops = {.size = 1, .refill_time_ms = LIMIT_REFILL_MS_MAX}};
  limit_init(&limit, &slow, NULL, clock_now_ns(&r.config.manifest.clock));
  shard_volume_set_limit(r.shard, d.volume, &limit);
  struct shard_op *ops[4];
  char *buf = rig_data(4 * 4096, 1);
  for (uint32_t i = 0; i < 4; i++) {
    ops[i] = volume_op(&r, &d, OP_WRITE, i * 4096, 4096);
    ops[i]->buf = buf + i * 4096;
    rig_submit(&r, ops[i]);
  }
  assert_int_equal(rig_wait(&r, ops[0]), 4096);
  control(&r, &d, OP_FREEZE);
  control(&r, &d, OP_THAW);
  for (uint32_t i = 1; i < 4; i++) assert_false(rig_done(ops[i]));
  limit_set(&limit, NULL, clock_now_ns(&r.config.manifest.clock));
  shard_limits_changed(r.shard);
  for (uint32_t i = 1; i < 4; i++) assert_int_equal(rig_wait(&r, ops[i]), 4096);
  struct volume_stats stats;
  shard_volume_stats(d.volume, &stats);
  assert_int_equal(stats.writes, 4);
  struct limit_waits waits;
  shard_volume_limit_waits(d.volume, &waits);
  assert_int_equal(waits.count, 6); /* three, before and after */
  /* Whoever hurries does not wait at all, nor do those that come meanwhile. */
  limit_set(&limit, &slow, clock_now_ns(&r.config.manifest.clock));
  shard_limits_changed(r.shard);
  for (uint32_t i = 0; i < 4; i++) {
    if (i == 2) hurry(&r, &d, true);
    submit_again(&r, ops[i]);
  }
  for (uint32_t i = 0; i < 4; i++) assert_int_equal(rig_wait(&r, ops[i]), 4096);
  hurry(&r, &d, false);
  submit_again(&r, ops[0]);
  for (int i = 0; i < 20; i++) rig_step(&r);
  assert_false(rig_done(ops[0]));
  hurry(&r, &d, true);
  assert_int_equal(rig_wait(&r, ops[0]), 4096);
  hurry(&r, &d, false);
  for (uint32_t i = 0; i < 4; i++) free(ops[i]);
  free(buf);
  disk_close(&r, &d);
  rig_close(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(requests_in_any_order_and_size),
      cmocka_unit_test(snapshots_and_clones),
      cmocka_unit_test(what_was_flushed_is_there),
      cmocka_unit_test(a_flush_of_the_volume_is_enough),
      cmocka_unit_test(space_comes_back),
      cmocka_unit_test(merges),
      cmocka_unit_test(bad_ranges_change_nothing),
      cmocka_unit_test(a_full_store),
      cmocka_unit_test(failed_writes),
      cmocka_unit_test(first_write_to_a_clone),
      cmocka_unit_test(nothing_is_written_after_a_failed_flush),
      cmocka_unit_test(a_limit_holds_up_no_snapshot),
      cmocka_unit_test(zeros_are_noted_only_where_they_hide_something),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
