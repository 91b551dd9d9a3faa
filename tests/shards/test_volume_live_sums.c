/* Checksums of what is written to a volume at once (live_sums): reads are verified while blocks are
 * overwritten, discarded and sealed; and at no crash does the log have one that its data does not
 * have. On a device whose memory the test damages, and whose cache it loses. */
#include "shards/manifest.h"
#include "tests/shards/live_crash.h"
#include "tests/shards/sums_rig.h"

#define SAVE_NS 1000000u

static uint64_t test_now = 1;
static uint64_t now_ns(void *arg) {
  (void)arg;
  return test_now;
}

static void live_open(struct rig *r, struct disk *d, uint64_t layer, struct layer_below below) {
  struct volume_config config = {
      .layer = layer, .live_sums = true, .size_bytes = DISK_BYTES, .block_bytes = 512};
  d->layer = layer;
  assert_int_equal(shard_layer_set(r->shard, layer, below), 0);
  assert_int_equal(shard_volume_open(r->shard, &config, &d->volume), 0);
}

static void tune(struct rig *r) {
  r->config.manifest.clock = (struct clock){now_ns, NULL};
  r->config.live_save_ns = SAVE_NS;
  reopen(r);
}
static void open_live_rig(struct rig *r, uint64_t seed) {
  open_rig(r, seed);
  tune(r);
}

/* The log is short: it needs a flush of the store now and then. */
static void step(struct rig *r) {
  rig_step(r);
  if (manifest_wants_flush(shard_manifest(r->shard))) rig_flush(r);
}
static int64_t wait_for(struct rig *r, const struct shard_op *op) {
  for (int i = 0; !rig_done(op); i++) {
    assert_true(i < 100000);
    step(r);
  }
  return op->result;
}

static int64_t sum_op(struct rig *r, uint64_t layer, uint64_t mode) {
  struct shard_op *op = rig_op(r, OP_LAYER_SUM, 0);
  op->offset = layer;
  op->bytes = mode;
  rig_submit(r, op);
  int64_t result = wait_for(r, op);
  free(op);
  return result;
}
/* At the end. */
static void save_all(struct rig *r) { assert_int_equal(sum_op(r, 0, SUM_SAVE), 0); }
/* Nothing is written for a while. */
static void wait_until_saved(struct rig *r) {
  const struct map *map = manifest_map(shard_manifest(r->shard));
  for (int i = 0; map_unsaved_leaves(map); i++) {
    assert_true(i < 100000);
    test_now += SAVE_NS / 50;
    step(r);
  }
}

static struct layer *layer_of(struct rig *r, uint64_t id) {
  return map_layer(manifest_map(shard_manifest(r->shard)), id);
}
static bool has_sum(struct rig *r, uint64_t layer, uint64_t block) {
  const struct block_sums *s = layer_sums(layer_of(r, layer), block / LEAF_BLOCKS);
  return s && block_sums_has(s, block % LEAF_BLOCKS);
}
/* What a crash would leave of it. */
static uint64_t cold_blocks(struct rig *r, uint64_t layer) {
  uint64_t count = 0;
  for (uint64_t leaf = 0; leaf < DISK_BLOCKS / LEAF_BLOCKS; leaf++) {
    const struct block_sums *s = layer_lasting_sums(layer_of(r, layer), leaf);
    if (s) count += sums_count(s->has);
  }
  return count;
}

/* Every way to read it says so. */
static void expect_damage(struct rig *r, struct disk *d, uint64_t block) {
  char *buf = rig_data(32 << BLOCK_SHIFT, 1);
  uint64_t at = block << BLOCK_SHIFT, from = block >= 8 ? at - (8 << BLOCK_SHIFT) : 0;
  flip(r, d->layer, block, 4321);
  uint32_t logged = r->errors_logged;
  assert_int_equal(run(r, d, OP_READ, at, BLOCK_BYTES, buf), -EBADMSG);
  assert_int_equal(r->errors_logged, logged + 1);
  assert_non_null(strstr(r->last_error, "checksum mismatch"));
  assert_int_equal(run(r, d, OP_READ, from, 16 << BLOCK_SHIFT, buf), -EBADMSG);
  assert_int_equal(run(r, d, OP_READ, at + 512, 1024, buf), -EBADMSG);
  assert_int_equal(run(r, d, OP_READ, at, BLOCK_BYTES, buf + 64), -EBADMSG);
  assert_int_equal(run(r, d, OP_WRITE, at + 1024, 512, buf), -EBADMSG); /* part of it is lost */
  flip(r, d->layer, block, 4321);
  free(buf);
}

/* A write that failed leaves its blocks without. */
static void give_back_sums(struct rig *r, struct disk *d, uint64_t block) {
  write_blocks(r, d, block, 1, d->tags[block]);
}

static void flips_are_found(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    struct rig r;
    uint32_t tag = 0;
    static struct disk d;
    memset(&d, 0, sizeof d);
    open_live_rig(&r, seed);
    live_open(&r, &d, 1, nothing);
    for (int round = 0; round < 6; round++) {
      write_some(&r, &d, 15, &tag);
      assert_all_summed(&r, 1);
      uint64_t block = random_block(&r, 1);
      expect_damage(&r, &d, block);
      assert_false(has_sum(&r, 1, block));
      give_back_sums(&r, &d, block);
      expect_disk(&r, &d);
      /* A whole block needs nothing of what was there. */
      flip(&r, 1, block, 5);
      write_blocks(&r, &d, block, 1, ++tag);
      expect_disk(&r, &d);
      if (round % 2) wait_until_saved(&r);
      if (round == 3) save_all(&r);
    }
    assert_all_summed(&r, 1);
    disk_close(&r, &d);
    rig_close(&r);
  }
}

/* Parts of blocks, zeros, discards, vectors. */
static void all_kinds_of_writes(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  char *buf = rig_data(64 << BLOCK_SHIFT, 9), *got = rig_data(64 << BLOCK_SHIFT, 1);
  static char model[64 << BLOCK_SHIFT];
  memset(model, 0, sizeof model);
  memset(&d, 0, sizeof d);
  open_live_rig(&r, 4);
  live_open(&r, &d, 1, nothing);
  for (int i = 0; i < 600; i++) {
    uint64_t at = random_below(&r.random, 64 * 8), n = 1 + random_below(&r.random, 40);
    uint64_t kind = random_below(&r.random, 5);
    if (at + n > 64 * 8) n = 64 * 8 - at;
    at *= 512, n *= 512;
    char *from = buf + 512 * random_below(&r.random, 64 * 8 - n / 512);
    if (kind == 0) {
      assert_int_equal(run(&r, &d, OP_WRITE_ZEROES, at, n, NULL), (int64_t)n);
      memset(model + at, 0, n);
    } else if (kind == 1) {
      uint64_t first = round_up(at, BLOCK_BYTES), end = round_down(at + n, BLOCK_BYTES);
      assert_int_equal(run(&r, &d, OP_DISCARD, at, n, NULL), (int64_t)n);
      if (first < end) memset(model + first, 0, end - first);
    } else {
      assert_int_equal(run(&r, &d, OP_WRITE, at, n, from), (int64_t)n);
      memcpy(model + at, from, n);
    }
    struct layer_stats stats = stats_of(&r, 1);
    assert_int_equal(stats.summed_blocks, stats.valid_blocks);
    assert_int_equal(run(&r, &d, OP_READ, 0, sizeof model, got), sizeof model);
    assert_memory_equal(got, model, sizeof model);
    if (i % 50 == 0) save_all(&r);
    if (i % 83 == 0) wait_until_saved(&r);
  }
  free(buf);
  free(got);
  disk_close(&r, &d);
  rig_close(&r);
}

/* ---- What it costs --------------------------------------------------------------------------- */

/* First writes wait for nothing, nor does any write to what is hot. */
static void only_the_first_overwrite_waits(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  memset(&d, 0, sizeof d);
  open_live_rig(&r, 5);
  live_open(&r, &d, 1, nothing);
  uint64_t flushes = r.device.flushes;
  write_blocks(&r, &d, 0, 64, 1);
  write_blocks(&r, &d, 10, 20, 2);
  assert_int_equal(r.device.flushes, flushes);
  assert_int_equal(cold_blocks(&r, 1), 0);
  wait_until_saved(&r);
  assert_int_equal(cold_blocks(&r, 1), 64);
  flushes = r.device.flushes;
  write_blocks(&r, &d, 64, 64, 3);
  assert_int_equal(r.device.flushes, flushes);
  write_blocks(&r, &d, 0, 2, 4);
  assert_in_range(r.device.flushes, flushes + 1, flushes + 2); /* one for each file */
  flushes = r.device.flushes;
  assert_int_equal(cold_blocks(&r, 1), 0);
  write_blocks(&r, &d, 0, 128, 5);
  assert_int_equal(r.device.flushes, flushes);
  expect_disk(&r, &d);
  /* Not while it is being written. */
  for (int i = 0; i < 50; i++) {
    test_now += SAVE_NS / 3;
    write_blocks(&r, &d, 3, 1, 6);
    assert_int_equal(cold_blocks(&r, 1), 0);
  }
  wait_until_saved(&r);
  assert_int_equal(cold_blocks(&r, 1), 128);
  disk_close(&r, &d);
  rig_close(&r);
}

/* ---- Kept ------------------------------------------------------------------------------------ */

static void saved_ones_survive(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  uint32_t tag = 0;
  memset(&d, 0, sizeof d);
  open_live_rig(&r, 6);
  live_open(&r, &d, 1, nothing);
  for (int round = 0; round < 4; round++) {
    write_some(&r, &d, 20, &tag);
    if (round == 1) assert_int_equal(rig_run(&r, rig_op(&r, OP_CHECKPOINT, 0)), 0);
    save_all(&r);
    if (round == 2) assert_int_equal(rig_run(&r, rig_op(&r, OP_CHECKPOINT, 0)), 0);
    rig_flush(&r);
    disk_close(&r, &d);
    reopen(&r);
    live_open(&r, &d, 1, nothing);
    assert_all_summed(&r, 1);
    uint64_t block = random_block(&r, 1), reads = r.device.reads;
    assert_int_equal(sum_op(&r, 1, SUM_LIVE), 0);
    assert_int_equal(r.device.reads, reads);
    expect_damage(&r, &d, block);
    give_back_sums(&r, &d, block);
    expect_disk(&r, &d);
  }
  /* Not saved: none; made again by reading. */
  write_blocks(&r, &d, 0, 4, ++tag);
  rig_flush(&r);
  disk_close(&r, &d);
  reopen(&r);
  live_open(&r, &d, 1, nothing);
  assert_false(has_sum(&r, 1, 2));
  expect_disk(&r, &d);
  assert_int_equal(sum_op(&r, 1, SUM_LIVE), 0);
  assert_all_summed(&r, 1);
  expect_damage(&r, &d, 2);
  disk_close(&r, &d);
  rig_close(&r);
}

/* Snapshots keep what there is, merges bring it, a drop takes it. */
static void they_go_with_layers(void **state) {
  (void)state;
  struct rig r;
  static struct disk d, s;
  uint32_t tag = 0;
  memset(&d, 0, sizeof d);
  open_live_rig(&r, 7);
  live_open(&r, &d, 1, nothing);
  write_some(&r, &d, 40, &tag);
  snapshot(&r, &d, &s, 2);
  assert_all_summed(&r, 1);
  uint64_t reads = r.device.reads;
  assert_int_equal(sum_op(&r, 1, SUM_SEALED), 0);
  assert_int_equal(r.device.reads, reads); /* there is nothing to be made */
  assert_int_equal(cold_blocks(&r, 1), stats_of(&r, 1).valid_blocks);
  write_some(&r, &d, 40, &tag);
  assert_all_summed(&r, 2);
  expect_disk(&r, &d);
  expect_disk(&r, &s);
  disk_close(&r, &s);
  struct shard_op *merge = volume_op(&r, &d, OP_LAYER_MERGE, 1, 0, NULL);
  rig_submit(&r, merge);
  write_some(&r, &d, 40, &tag);
  assert_int_equal(rig_wait(&r, merge), 0);
  free(merge);
  assert_all_summed(&r, 2);
  write_some(&r, &d, 10, &tag);
  expect_damage(&r, &d, random_block(&r, 2));
  expect_disk(&r, &d);
  wait_until_saved(&r);
  disk_close(&r, &d);
  assert_int_equal(drop_layer(&r, 2), 0);
  assert_int_equal(map_unsaved_leaves(manifest_map(shard_manifest(r.shard))), 0);
  rig_close(&r);
}

static void a_failed_write_leaves_none(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  memset(&d, 0, sizeof d);
  open_live_rig(&r, 8);
  live_open(&r, &d, 1, nothing);
  write_blocks(&r, &d, 0, 16, 1);
  char *buf = rig_data(16 << BLOCK_SHIFT, 3);
  r.device.fail_writes = 1;
  assert_int_equal(run(&r, &d, OP_WRITE, 4 << BLOCK_SHIFT, BLOCK_BYTES, buf), -EIO);
  assert_false(has_sum(&r, 1, 4));
  assert_true(has_sum(&r, 1, 5));
  expect_disk(&r, &d);
  r.device.fail_writes = 1;
  assert_int_equal(run(&r, &d, OP_WRITE, 40 << BLOCK_SHIFT, BLOCK_BYTES, buf), -EIO);
  expect_disk(&r, &d);
  write_blocks(&r, &d, 0, 48, 2);
  assert_all_summed(&r, 1);
  expect_disk(&r, &d);
  free(buf);
  disk_close(&r, &d);
  rig_close(&r);
}

/* ---- Beside each other ----------------------------------------------------------------------- */

#define SLOTS  24u
#define WINDOW 24u /* blocks: they overlap all the time */

struct slots {
  struct shard_op *ops[SLOTS];
  char *bufs[SLOTS];
  uint32_t tag;
  uint64_t reads;
};

static void submit_one(struct rig *r, struct disk *d, struct slots *x, uint32_t i) {
  static const uint8_t kinds[] = {OP_READ,  OP_READ,    OP_WRITE, OP_WRITE,
                                  OP_WRITE, OP_DISCARD, OP_SYNC};
  uint8_t kind = kinds[random_below(&r->random, 7)];
  uint64_t leaf = random_below(&r->random, 2) * LEAF_BLOCKS;
  uint64_t first = random_below(&r->random, WINDOW);
  uint64_t n = 1 + random_below(&r->random, WINDOW - first);
  uint64_t at = (leaf + first) << BLOCK_SHIFT, bytes = n << BLOCK_SHIFT;
  if (kind == OP_WRITE && random_below(&r->random, 3) == 0) at += 512, bytes -= 512;
  for (uint64_t k = 0; kind == OP_WRITE && k < n; k++)
    fill_block(x->bufs[i] + (k << BLOCK_SHIFT), ++x->tag, leaf + first + k);
  if (kind == OP_SYNC) at = bytes = 0;
  x->reads += kind == OP_READ;
  x->ops[i] = volume_op(r, d, kind, at, bytes, x->bufs[i]);
  rig_submit(r, x->ops[i]);
}

static void reap(struct slots *x, bool all_good) {
  for (uint32_t i = 0; i < SLOTS; i++) {
    if (!x->ops[i] || !rig_done(x->ops[i])) continue;
    if (all_good) assert_int_equal(x->ops[i]->result, (int64_t)x->ops[i]->bytes);
    free(x->ops[i]);
    x->ops[i] = NULL;
  }
}

static void work(struct rig *r, struct disk *d, struct slots *x, uint32_t steps) {
  while (steps-- > 0) {
    uint32_t i = (uint32_t)random_below(&r->random, SLOTS);
    if (!x->ops[i]) submit_one(r, d, x, i);
    if (random_below(&r->random, 3)) step(r);
    if (random_below(&r->random, 40) == 0) test_now += SAVE_NS;
    reap(x, true);
  }
}

static void slots_begin(struct slots *x) {
  memset(x, 0, sizeof *x);
  for (uint32_t i = 0; i < SLOTS; i++) x->bufs[i] = rig_data(WINDOW << BLOCK_SHIFT, 1);
}
static void slots_end(struct rig *r, struct slots *x) {
  for (uint32_t i = 0; i < SLOTS; i++) {
    if (x->ops[i]) wait_for(r, x->ops[i]);
    free(x->bufs[i]);
  }
  reap(x, true);
}

static void reads_beside_writes(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 6; seed++) {
    struct rig r;
    static struct disk d;
    struct slots x;
    open_live_rig(&r, seed);
    live_open(&r, &d, 1, nothing);
    slots_begin(&x);
    work(&r, &d, &x, 4000);
    assert_true(x.reads > 500);
    slots_end(&r, &x);
    assert_int_equal(r.errors_logged, 0);
    struct layer_stats stats = stats_of(&r, 1);
    assert_int_equal(stats.summed_blocks, stats.valid_blocks);
    wait_until_saved(&r);
    assert_int_equal(cold_blocks(&r, 1), stats.valid_blocks);
    disk_close(&r, &d);
    rig_close(&r);
  }
}

static uint64_t data_writes(const struct disk *d) {
  struct volume_stats stats;
  shard_volume_stats(d->volume, &stats);
  return stats.device_writes;
}

/* A guest goes on writing to a page that is on its way to the disk. What the disk has got is what
 * it has, and gets its checksum when the leaf is quiet (save). skew: of its memory. */
static void write_and_change(struct rig *r, struct disk *d, uint64_t bytes, uint64_t skew,
                             bool pieces, bool save) {
  char *memory = rig_data(bytes + BLOCK_BYTES, 7), *buf = memory + skew;
  char *want = rig_data(bytes, 7), *got = rig_data(bytes, 8);
  struct iovec iov[2] = {{buf, BLOCK_BYTES}, {buf + BLOCK_BYTES, bytes - BLOCK_BYTES}};
  memcpy(want, buf, bytes);
  struct shard_op *op = volume_op(r, d, OP_WRITE, 0, bytes, pieces ? (void *)iov : buf);
  volume_args(op)->iov_count = pieces ? 2 : 0;
  uint64_t before = data_writes(d);
  rig_submit(r, op);
  while (data_writes(d) == before) step(r);
  assert_false(rig_done(op));
  buf[BLOCK_BYTES + 100] ^= 1;
  assert_int_equal(wait_for(r, op), bytes);
  free(op);
  assert_int_equal(has_sum(r, 1, 1), skew != 0); /* through a bounce nobody sees it change */
  assert_int_equal(run(r, d, OP_READ, 0, bytes, got), bytes);
  assert_memory_equal(got, want, bytes);
  if (save) wait_until_saved(r);
  for (uint64_t b = 0; save && b < bytes / BLOCK_BYTES; b++) assert_true(has_sum(r, 1, b));
  assert_int_equal(run(r, d, OP_READ, 0, bytes, got), bytes);
  assert_memory_equal(got, want, bytes);
  assert_int_equal(r->errors_logged, 0);
  free(memory);
  free(want);
  free(got);
}

static void memory_that_changes(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  open_live_rig(&r, 31);
  live_open(&r, &d, 1, nothing);
  r.device.take_early = true;
  const uint64_t bytes = 8 << BLOCK_SHIFT;
  write_and_change(&r, &d, bytes, 0, false, false); /* the first time */
  write_and_change(&r, &d, bytes, 0, false, true);  /* over what is there: one I/O of its own */
  write_and_change(&r, &d, bytes, 0, false, true);  /* with checksums in the log */
  write_and_change(&r, &d, bytes, 0, true, true);
  write_and_change(&r, &d, bytes, 512, false, true);
  disk_close(&r, &d);
  rig_close(&r);
}

/* A read whose data a write has brought while it was on its way is no damage. */
static void overtaken_by_a_write(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 4; seed++) {
    struct rig r;
    static struct disk d;
    char *buf = rig_data(9 << BLOCK_SHIFT, 1), *want = rig_data(BLOCK_BYTES, 1);
    uint64_t bytes = seed % 2 ? BLOCK_BYTES : 8 << BLOCK_SHIFT;
    memset(&d, 0, sizeof d);
    open_live_rig(&r, seed);
    live_open(&r, &d, 1, nothing);
    write_blocks(&r, &d, 0, 64, 1);
    struct shard_op *read =
        volume_op(&r, &d, OP_READ, 8 << BLOCK_SHIFT, bytes, seed > 2 ? buf + 512 : buf);
    rig_submit(&r, read);
    struct io *held[8];
    uint32_t count = r.device.count;
    assert_in_range(count, 1, 8);
    memcpy(held, r.device.held, count * sizeof *held);
    r.device.count = 0;
    write_blocks(&r, &d, 8, 1, 2);
    memcpy(r.device.held + r.device.count, held, count * sizeof *held);
    r.device.count += count;
    assert_int_equal(rig_wait(&r, read), (int64_t)bytes);
    fill_block(want, 2, 8);
    assert_memory_equal(seed > 2 ? buf + 512 : buf, want, BLOCK_BYTES);
    assert_int_equal(r.errors_logged, 0);
    free(read);
    free(buf);
    free(want);
    disk_close(&r, &d);
    rig_close(&r);
  }
}

/* ---- Scrubbing ------------------------------------------------------------------------------- */

struct findings {
  uint64_t count, block;
};
static void note_finding(void *arg, const struct damage *x) {
  struct findings *f = arg;
  f->count++;
  f->block = x->id.lo;
}

static struct shard_scrub_stats scrub(struct rig *r, struct disk *d, struct slots *x) {
  struct shard_scrub_stats st;
  bool more;
  assert_int_equal(shard_scrub_start(r->shard), 0);
  do {
    shard_scrub_step(r->shard, 256 << 10, &more);
    if (x) work(r, d, x, 3);
    rig_step(r);
    shard_scrub_stats(r->shard, &st);
  } while (st.running);
  return st;
}

static void a_scrub_reads_them(void **state) {
  (void)state;
  struct rig r;
  static struct disk d;
  struct slots x;
  struct findings found = {0};
  open_live_rig(&r, 31);
  r.config.manifest.damage = (struct damage_sink){note_finding, &found};
  reopen(&r);
  live_open(&r, &d, 1, nothing);
  write_blocks(&r, &d, 0, DISK_BLOCKS - 1, 1);
  slots_begin(&x);
  for (int i = 0; i < 20; i++) {
    struct shard_scrub_stats st = scrub(&r, &d, &x);
    assert_true(st.blocks > 1000);
    assert_int_equal(st.damaged_blocks, 0);
  }
  flip(&r, 1, 700, 3);
  assert_int_equal(scrub(&r, &d, &x).damaged_blocks, 1);
  assert_int_equal(found.count, 1);
  assert_int_equal(found.block, 700);
  slots_end(&r, &x);
  disk_close(&r, &d);
  rig_close(&r);
}

/* ---- Power cuts ------------------------------------------------------------------------------ */

static void close_disk(void *arg) {
  assert_int_equal(shard_volume_close(*(struct shard **)arg, ((void **)arg)[1]), 0);
}

/* Whatever the crash was: no block is called damaged that is not, and of those that have a checksum
 * each damaged one is. */
static void look(struct rig *r, struct disk *d, uint64_t *verified) {
  char *buf = rig_data(BLOCK_BYTES, 1);
  for (uint64_t block = 0; block < DISK_BLOCKS; block++) {
    if (block % LEAF_BLOCKS >= WINDOW) continue;
    uint64_t at = block << BLOCK_SHIFT;
    if (run(r, d, OP_READ, at, BLOCK_BYTES, buf) != BLOCK_BYTES)
      fail_msg("block %llu after a crash: %s", (unsigned long long)block, r->last_error);
    if (!place_of(r, 1, block) || !has_sum(r, 1, block)) continue;
    flip(r, 1, block, block % 100);
    assert_int_equal(run(r, d, OP_READ, at, BLOCK_BYTES, buf), -EBADMSG);
    flip(r, 1, block, block % 100);
    ++*verified;
  }
  free(buf);
}

static void power_cuts(void **state) {
  (void)state;
  uint64_t verified = 0, again = 0;
  for (uint64_t seed = 1; seed <= 30; seed++) {
    struct rig r;
    struct crash c;
    static struct disk d;
    struct slots x;
    rig_open(&r, 12 << 20, seed);
    tune(&r);
    crash_begin(&r, &c, seed * 77);
    live_open(&r, &d, 1, nothing);
    slots_begin(&x);
    for (int life = 0; life < 6; life++) {
      work(&r, &d, &x, (uint32_t)random_below(&r.random, 500));
      if (random_below(&r.random, 3) == 0) {
        for (uint32_t i = 0; i < SLOTS; i++)
          if (x.ops[i]) wait_for(&r, x.ops[i]);
        reap(&x, true);
        random_below(&r.random, 2) ? wait_until_saved(&r) : save_all(&r);
        if (random_below(&r.random, 2)) rig_flush(&r);
        work(&r, &d, &x, (uint32_t)random_below(&r.random, 16));
      }
      void *which[2] = {r.shard, d.volume};
      crash_cut(&r, &c, close_disk, which);
      reap(&x, false);
      live_open(&r, &d, 1, nothing);
      look(&r, &d, &verified);
      if (random_below(&r.random, 2)) continue;
      assert_int_equal(sum_op(&r, 1, SUM_LIVE), 0);
      struct layer_stats stats = stats_of(&r, 1);
      assert_int_equal(stats.summed_blocks, stats.valid_blocks);
      look(&r, &d, &again);
    }
    slots_end(&r, &x);
    disk_close(&r, &d);
    rig_drain(&r);
    crash_end(&r, &c);
    rig_close(&r);
  }
  assert_true(verified > 200); /* or it has shown nothing */
  assert_true(again > verified);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(flips_are_found),
      cmocka_unit_test(all_kinds_of_writes),
      cmocka_unit_test(only_the_first_overwrite_waits),
      cmocka_unit_test(saved_ones_survive),
      cmocka_unit_test(they_go_with_layers),
      cmocka_unit_test(a_failed_write_leaves_none),
      cmocka_unit_test(reads_beside_writes),
      cmocka_unit_test(memory_that_changes),
      cmocka_unit_test(overtaken_by_a_write),
      cmocka_unit_test(a_scrub_reads_them),
      cmocka_unit_test(power_cuts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
