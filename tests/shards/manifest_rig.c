/* manifest_rig.c - see manifest_rig.h. */
#include "tests/shards/manifest_rig.h"

#include <sys/mman.h>

#include "shards/base/crc32c.h"
#include "shards/manifest_internal.h" /* for mrig_check_space(): who holds which block */

/* ---- The disk ------------------------------------------------------------------------------ */

static void disk_take(struct device *d, struct io *io) {
  struct mdisk *k = (struct mdisk *)d;
  assert_true(k->count < MRIG_IOS);
  if (io->op != IO_FLUSH) {
    assert_int_equal((uintptr_t)io->buf % BLOCK_BYTES, 0);
    assert_int_equal(io->bytes % BLOCK_BYTES, 0);
    assert_in_range(io->bytes, BLOCK_BYTES, IO_BYTES_MAX);
    assert_true(io->offset + io->bytes <= k->blocks * BLOCK_BYTES);
  }
  k->held_writes[k->count] = k->writes;
  k->held[k->count++] = io;
}

static void disk_settle(struct mdisk *k, uint64_t block) {
  memcpy(k->stable + block * BLOCK_BYTES, (char *)k->now->memory + block * BLOCK_BYTES,
         BLOCK_BYTES);
  k->unstable[block] = 0;
}

/* What a flush that runs will cover is about to be overwritten: there is one stable copy alone, so
 * it counts from now on. */
static void settle_before(struct mdisk *k, uint64_t block) {
  for (uint32_t i = 0; k->unstable[block] && i < k->count; i++)
    if (k->held[i]->op == IO_FLUSH && k->written[block] <= k->held_writes[i]) disk_settle(k, block);
}

static void disk_write(struct mdisk *k, const char *from, uint64_t block, uint64_t blocks) {
  for (uint64_t b = block; b < block + blocks; b++) settle_before(k, b);
  memcpy((char *)k->now->memory + block * BLOCK_BYTES, from, blocks * BLOCK_BYTES);
  k->writes++;
  for (uint64_t b = block; b < block + blocks; b++) {
    k->unstable[b] = 1;
    k->written[b] = k->writes;
  }
}

static bool fails(int *in) { return *in > 0 && --*in == 0; }

static void disk_do(struct mdisk *k, struct io *io, uint64_t writes_before) {
  uint64_t block = io->offset / BLOCK_BYTES, blocks = io->bytes / BLOCK_BYTES;
  io->result = k->dead ? -EIO : 0;
  if (k->dead) return;
  if (io->op == IO_WRITE) {
    if (fails(&k->fail_write_in)) {
      io->result = -EIO;
      return;
    }
    disk_write(k, io->buf, block, blocks);
    k->fua_writes += !!(io->flags & IO_FUA);
    for (uint64_t b = block; (io->flags & IO_FUA) && b < block + blocks; b++) disk_settle(k, b);
  } else if (io->op == IO_FLUSH) {
    k->flushes++;
    if (fails(&k->fail_flush_in)) {
      io->result = -EIO;
      return;
    }
    for (uint64_t b = 0; b < k->blocks; b++) /* what completed before it was submitted */
      if (k->unstable[b] && k->written[b] <= writes_before) disk_settle(k, b);
  } else {
    fail_msg("the manifest reads through the device");
  }
}

static uint32_t disk_poll(struct device *d) {
  struct mdisk *k = (struct mdisk *)d;
  uint32_t done = 0;
  if (k->count == 0) return 0;
  for (uint64_t n = random_below(&k->random, k->count + 1); n > 0 && k->count > 0; n--) {
    uint64_t i = random_below(&k->random, k->count);
    struct io *io = k->held[i];
    uint64_t writes = k->held_writes[i];
    k->count--;
    k->held[i] = k->held[k->count];
    k->held_writes[i] = k->held_writes[k->count];
    disk_do(k, io, writes);
    io->done(io);
    done++;
  }
  return done;
}
static const struct device_ops disk_ops = {.name = "rig", .submit = disk_take, .poll = disk_poll};

/* A power cut: each block that no flush had covered is the old or the new one; of what was on its
 * way any blocks may have arrived. */
static void disk_cut_power(struct mdisk *k) {
  for (uint32_t i = 0; i < k->count; i++) {
    const struct io *io = k->held[i];
    for (uint64_t b = 0; io->op == IO_WRITE && b < io->bytes / BLOCK_BYTES; b++)
      if (random_below(&k->random, 2))
        disk_write(k, (char *)io->buf + b * BLOCK_BYTES, io->offset / BLOCK_BYTES + b, 1);
  }
  uint64_t luck = random_below(&k->random, 4); /* 0: all is lost that can be */
  for (uint64_t b = 0; b < k->blocks; b++) {
    if (!k->unstable[b]) continue;
    if (random_below(&k->random, 3) >= luck)
      memcpy((char *)k->now->memory + b * BLOCK_BYTES, k->stable + b * BLOCK_BYTES, BLOCK_BYTES);
    disk_settle(k, b);
  }
}

/* ---- Model ----------------------------------------------------------------------------------- */

struct blob_id mrig_id(uint32_t n) {
  return (struct blob_id){n * UINT64_C(0x9e3779b97f4a7c15), ~(uint64_t)n};
}
uint64_t mrig_hash(const struct mrig *r, struct blob_id id) {
  return hash_id(id, r->config.hash_key);
}

static uint64_t mix(uint32_t id, uint64_t version) {
  struct random x = {id * UINT64_C(1000003) + version * UINT64_C(7919)};
  return version ? random_next(&x) : 0;
}

void mrig_changed(struct mrig *r, uint64_t ticket, uint64_t delta) {
  assert_int_equal(ticket, r->next_sequence + r->notes);
  assert_true(r->next_sequence + 1 - r->first_sequence < MRIG_HISTORY);
  r->digest ^= delta;
  r->next_sequence++;
  r->digests[r->next_sequence - r->first_sequence] = r->digest;
  memcpy(r->states[r->next_sequence - r->first_sequence], r->state, sizeof r->state);
}

static void model_set(struct mrig *r, uint64_t ticket, uint32_t id, uint64_t version) {
  uint64_t before = mix(id, r->state[id].version);
  r->state[id].version = version;
  mrig_changed(r, ticket, before ^ mix(id, version));
}

char *mrig_block(struct mrig *r, uint64_t block) {
  struct io io;
  region_map(&r->region, block, 1, &io);
  return (char *)r->disk.now->memory + io.offset;
}

void mrig_write(struct mrig *r, uint64_t block, const void *bytes) {
  struct io io;
  region_map(&r->region, block, 1, &io);
  disk_write(&r->disk, bytes, io.offset / BLOCK_BYTES, 1);
}

/* The first bytes of each extent of a blob, so that its place can be told from another's. */
struct stamp {
  uint64_t id, version, extent;
};
/* Byte `at` of a blob's block [0, BLOCK_BYTES): a stamp in the first block of an extent, and what
 * the version says in the others. */
static void fill_block(char *block, const struct stamp *s, uint64_t in_extent) {
  memset(block, (int)(s->version + in_extent), BLOCK_BYTES);
  if (in_extent == 0) memcpy(block, s, sizeof *s);
}

/* Writes a blob's data as the last of it is cut off, zeros behind; sums: NULL, or of each granule.
 */
static void write_data(struct mrig *r, uint32_t id, uint64_t version, const struct blob *b,
                       uint32_t *sums) {
  uint64_t left = b->bytes, granule = UINT64_C(1) << b->granule_shift, in_granule = 0;
  uint32_t crc = 0, done = 0;
  for (uint32_t i = 0; i < b->extent_count; i++) {
    struct stamp s = {id, version, i};
    for (uint64_t k = 0; k < b->extents[i].blocks; k++) {
      char block[BLOCK_BYTES];
      uint64_t data = min_u64(left, BLOCK_BYTES);
      fill_block(block, &s, k);
      memset(block + data, 0, BLOCK_BYTES - data);
      mrig_write(r, b->extents[i].block + k, block);
      crc = crc32c(crc, block, data);
      left -= data;
      in_granule += data;
      if (!sums || (in_granule < granule && left > 0) || data == 0) continue;
      sums[done++] = crc;
      crc = 0;
      in_granule = 0;
    }
  }
  assert_int_equal(left, 0);
}

/* What the first bytes of the blob's data say; all of them must fit. */
static uint64_t version_of(struct mrig *r, uint32_t id, const struct blob *b) {
  struct stamp s;
  if (b->extent_count == 0) return b->bytes == 0 ? UINT64_MAX : 0;
  memcpy(&s, mrig_block(r, b->extents[0].block), sizeof s);
  for (uint32_t i = 0; i < b->extent_count; i++) {
    struct stamp t;
    memcpy(&t, mrig_block(r, b->extents[i].block), sizeof t);
    assert_int_equal(t.id, id);
    assert_int_equal(t.version, s.version);
    assert_int_equal(t.extent, i);
  }
  return s.version;
}

uint64_t mrig_check(struct mrig *r, struct manifest *m, uint64_t low, uint64_t high) {
  uint64_t digest = r->extra ? r->extra(r, m) : 0, found = 0, count = 0;
  for (uint32_t id = 0; id < MRIG_IDS; id++) {
    struct blob b;
    struct blob_id bid = mrig_id(id);
    if (index_find(manifest_index(m), mrig_hash(r, bid), bid, &b)) continue;
    digest ^= mix(id, version_of(r, id, &b));
    count++;
    for (uint32_t i = 0; i < b.extent_count; i++)
      for (uint64_t k = 0; k < b.extents[i].blocks; k++)
        assert_true(space_is_used(manifest_space(m), b.extents[i].block + k));
  }
  assert_int_equal(index_count(manifest_index(m)), count);
  for (uint64_t s = low; s <= high && !found; s++)
    if (r->digests[s - r->first_sequence] == digest) found = s;
  if (!found)
    fail_msg("no state from sequence %llu to %llu is like this one", (unsigned long long)low,
             (unsigned long long)high);
  return found;
}

struct owners {
  const struct manifest *m;
  uint8_t *owned; /* by block */
  uint64_t blocks;
};
static void own(struct owners *o, const struct extent *extents, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    for (uint64_t b = extents[i].block; b < extents[i].block + extents[i].blocks; b++) {
      assert_true(b < o->m->config.region->blocks);
      if (o->owned[b]) fail_msg("block %llu has two owners", (unsigned long long)b);
      assert_true(space_is_used(o->m->space, b));
      o->owned[b] = 1;
      o->blocks++;
    }
}
static int own_blob(void *arg, uint64_t hash, const struct blob *b) {
  (void)hash;
  own(arg, b->extents, b->extent_count);
  return 0;
}

static int own_leaf(void *arg, struct layer *layer, uint64_t leaf,
                    const struct cluster clusters[LEAF_CLUSTERS]) {
  (void)layer;
  (void)leaf;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    if (clusters[i].place) own(arg, &(struct extent){clusters[i].place, CLUSTER_BLOCKS}, 1);
  return 0;
}

void mrig_check_space(const struct manifest *m) {
  struct owners o = {.m = m, .owned = calloc(m->config.region->blocks, 1)};
  own(&o, &(struct extent){0, m->config.region->log_blocks}, 1);
  own(&o, m->directory_area, 2);
  own(&o, m->reserve, m->reserve_count);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    const struct checkpoint *c = m->of_partition[p];
    bool seen = false;
    for (uint32_t k = 0; k < p; k++) seen |= m->of_partition[k] == c;
    if (c && !seen) own(&o, c->extents, c->extent_count);
    index_partition_visit(m->index, p, own_blob, &o);
    map_partition_visit(m->map, p, own_leaf, &o);
  }
  for (const struct checkpoint *c = m->dead; c; c = c->next) own(&o, c->extents, c->extent_count);
  for (const struct checkpoint *c = m->retiring; c; c = c->next)
    own(&o, c->extents, c->extent_count);
  if (m->writing) own(&o, m->writing->extents, m->writing->extent_count);
  assert_int_equal(space_total_blocks(m->space), m->config.region->blocks);
  assert_int_equal(o.blocks + space_pending_blocks(m->space) + space_free_blocks(m->space),
                   space_total_blocks(m->space));
  free(o.owned);
}

/* The history begins anew with the state before a sequence. */
static void model_restart(struct mrig *r, uint64_t sequence) {
  uint64_t at = sequence - r->first_sequence;
  memcpy(r->state, r->states[at], sizeof r->state);
  r->digest = r->digests[at];
  memcpy(r->states[0], r->state, sizeof r->state);
  r->digests[0] = r->digest;
  r->first_sequence = r->next_sequence = r->covered = sequence;
}

/* ---- Life -------------------------------------------------------------------------------- */

static void note_line(void *arg, int level, const char *text) {
  struct mrig *r = arg;
  if (level == 0) snprintf(r->last_error, sizeof r->last_error, "%s", text);
}

/* Zeros that cost nothing until they are used. */
static char *map_bytes(uint64_t bytes) {
  char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true(p != MAP_FAILED);
  return p;
}

void mrig_open(struct mrig *r, uint64_t blocks, uint64_t seed) {
  mrig_open_log(r, blocks, MRIG_LOG, seed);
}
void mrig_open_log(struct mrig *r, uint64_t blocks, uint64_t log_blocks, uint64_t seed) {
  memset(r, 0, sizeof *r);
  r->random.state = seed;
  struct mdisk *k = &r->disk;
  k->device.ops = &disk_ops;
  k->random.state = seed ^ 4711;
  k->blocks = blocks + 8;
  assert_int_equal(backing_open_memory(&k->now, k->blocks * BLOCK_BYTES), 0);
  k->stable = map_bytes(k->blocks * BLOCK_BYTES);
  k->before = map_bytes(k->blocks * BLOCK_BYTES);
  k->unstable = calloc(k->blocks, 1);
  k->written = calloc(k->blocks, sizeof *k->written);
  r->digests = calloc(MRIG_HISTORY, sizeof *r->digests);
  r->states = calloc(MRIG_HISTORY, sizeof *r->states);
  uint64_t cut = blocks * 2 / 3;
  r->region = (struct region){.segment_count = 2, .blocks = blocks, .log_blocks = log_blocks};
  r->region.segments[0] = (struct segment){.backing = k->now, .first_block = 3, .blocks = cut};
  r->region.segments[1] = (struct segment){
      .backing = k->now, .first_block = 5 + cut, .blocks = blocks - cut, .region_block = cut};
  r->root.shard_count = 3;
  r->root.incarnation = 7;
  r->root.shards[2].sequence = 1;
  r->first_sequence = r->next_sequence = r->covered = 1;
  r->config = (struct manifest_config){.region = &r->region,
                                       .device = &k->device,
                                       .uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9},
                                       .hash_key = {seed, ~seed},
                                       .shard = 2,
                                       .shard_count = 3,
                                       .clock = clock_monotonic,
                                       .logger = {.line = note_line, .arg = r}};
  assert_int_equal(mrig_recover(r, &r->m), 0);
  mrig_flush(r);
}

void mrig_close(struct mrig *r) {
  mrig_drain(r);
  manifest_destroy(r->m);
  backing_close(r->disk.now);
  munmap(r->disk.stable, r->disk.blocks * BLOCK_BYTES);
  munmap(r->disk.before, r->disk.blocks * BLOCK_BYTES);
  free(r->disk.unstable);
  free(r->disk.written);
  free(r->digests);
  free(r->states);
}

int mrig_recover(struct mrig *r, struct manifest **m) {
  r->config.incarnation = r->root.incarnation + 1;
  r->why[0] = 0;
  return manifest_recover(m, &r->config, &r->root, r->why, sizeof r->why);
}

void mrig_step(struct mrig *r) {
  manifest_tick(r->m);
  device_poll(&r->disk.device);
}
void mrig_drain(struct mrig *r) {
  for (int i = 0; !manifest_idle(r->m) || r->disk.count; i++) {
    assert_true(i < 100000);
    mrig_step(r);
  }
}

/* ---- Changes ----------------------------------------------------------------------------- */

static int put(struct mrig *r, uint32_t id, uint64_t bytes, uint8_t flags, bool reserved) {
  struct extent extents[8];
  uint64_t last = bytes % BLOCK_BYTES; /* has room for a stamp: it may be an extent by itself */
  if (last > 0 && last < sizeof(struct stamp)) bytes += sizeof(struct stamp) - last;
  static uint32_t sums[BLOB_GRANULES_MAX];
  struct blob b = {.id = mrig_id(id), .bytes = bytes, .granule_shift = blob_granule_shift(bytes)};
  uint64_t version = ++r->versions;
  b.flags = flags;
  if (!b.flags) b.granule_count = blob_granule_count(bytes, b.granule_shift);
  int n = space_alloc(manifest_space(r->m), bytes_to_blocks(bytes), extents, 8, 0);
  if (n < 0) return n;
  b.extents = extents;
  b.extent_count = (uint32_t)n;
  b.checksums = sums;
  uint64_t hash = mrig_hash(r, b.id);
  int e = reserved ? 0 : manifest_reserve(r->m, hash, b.extent_count, b.granule_count);
  if (e) {
    space_cancel(manifest_space(r->m), extents, b.extent_count);
    return e;
  }
  write_data(r, id, version, &b, b.flags ? NULL : sums);
  model_set(r, manifest_put(r->m, hash, &b), id, n ? version : UINT64_MAX);
  return 0;
}

int mrig_put_as(struct mrig *r, uint32_t id, uint64_t bytes, uint8_t flags) {
  return put(r, id, bytes, flags, false);
}

void mrig_put_reserved(struct mrig *r, uint32_t id, uint64_t bytes) {
  assert_int_equal(put(r, id, bytes, 0, true), 0);
}

int mrig_put(struct mrig *r, uint32_t id, uint64_t bytes) {
  return mrig_put_as(r, id, bytes, random_below(&r->random, 8) ? 0 : BLOB_NO_CHECKSUM);
}

int mrig_delete(struct mrig *r, uint32_t id) {
  struct blob_id bid = mrig_id(id);
  if (!r->state[id].version) return 0;
  int e = manifest_reserve(r->m, mrig_hash(r, bid), 0, 0);
  if (!e) model_set(r, manifest_delete(r->m, mrig_hash(r, bid), bid), id, 0);
  return e;
}

static void waiter_done(struct manifest_waiter *waiter, int result) {
  struct mwaiter *w = (struct mwaiter *)waiter;
  assert_false(w->done);
  w->done = true;
  w->result = result;
}
void mrig_commit_start(struct mrig *r, struct mwaiter *w) {
  *w =
      (struct mwaiter){.waiter = {.done = waiter_done, .sequence = r->next_sequence + r->notes - 1},
                       .sequence = r->next_sequence - 1};
  manifest_commit(r->m, &w->waiter);
}
void mrig_note_covered(struct mrig *r, const struct mwaiter *w) {
  r->covered = max_u64(r->covered, w->sequence + 1);
}
int mrig_commit(struct mrig *r) {
  struct mwaiter w;
  mrig_commit_start(r, &w);
  for (int i = 0; !w.done; i++) {
    assert_true(i < 100000);
    mrig_step(r);
  }
  if (!w.result) mrig_note_covered(r, &w);
  return w.result;
}

static void seal_done(struct manifest_seal *seal) { ((struct mseal *)seal)->done = true; }
void mrig_seal(struct mrig *r, struct mseal *s) {
  *s = (struct mseal){.seal = {.done = seal_done, .epoch = ++r->epoch, .flush_files = true}};
  manifest_seal(r->m, &s->seal);
}
void mrig_wait_seal(struct mrig *r, struct mseal *s) {
  for (int i = 0; !s->done; i++) {
    assert_true(i < 100000);
    mrig_step(r);
  }
}

void mrig_adopt_root(struct mrig *r, const struct mseal *s) {
  r->root.epoch = s->seal.epoch;
  r->root.incarnation = r->m->config.incarnation; /* r->config may be another one's by now */
  r->root.shards[2] = s->seal.root;
}
static void flush_root(struct mrig *r) {
  struct mseal s;
  mrig_seal(r, &s);
  mrig_wait_seal(r, &s);
  assert_int_equal(s.seal.result, 0);
  mrig_adopt_root(r, &s);
  manifest_root_durable(r->m, s.seal.epoch, 0);
}
void mrig_flush(struct mrig *r) {
  uint64_t sequence = r->next_sequence;
  flush_root(r);
  if (r->covered < sequence) r->covered = sequence;
  if (r->covered == r->next_sequence) model_restart(r, r->next_sequence);
}

/* ---- By chance --------------------------------------------------------------------------- */

static void random_put(struct mrig *r) {
  static const uint64_t sizes[] = {0, 1, 4096, 4097, 20000, 70000, 300000};
  uint64_t most = sizes[random_below(&r->random, array_size(sizes))];
  int e = mrig_put(r, (uint32_t)random_below(&r->random, MRIG_IDS),
                   most ? 1 + random_below(&r->random, most) : 0);
  assert_true(e == 0 || e == -EAGAIN || e == -ENOSPC);
  r->agains += e == -EAGAIN;
  r->spaces += e == -ENOSPC;
}

static void random_flush(struct mrig *r) {
  if (r->rooting) {
    mrig_adopt_root(r, &r->seal);
    manifest_root_durable(r->m, r->seal.seal.epoch, 0);
    if (r->covered < r->seal_sequence) r->covered = r->seal_sequence;
    r->rooting = false;
    r->flushes++;
  } else if (!r->sealing) {
    r->seal_sequence = r->next_sequence;
    r->sealing = true;
    mrig_seal(r, &r->seal);
  }
}

static void random_commit(struct mrig *r) {
  struct mwaiter *w = &r->waiters[random_below(&r->random, MRIG_WAITERS)];
  if (!w->waiter.done) mrig_commit_start(r, w);
}

static void look_around(struct mrig *r) {
  if (r->sealing && r->seal.done) {
    assert_int_equal(r->seal.seal.result, 0);
    r->sealing = false;
    r->rooting = true;
  }
  for (uint32_t i = 0; i < MRIG_WAITERS; i++) {
    struct mwaiter *w = &r->waiters[i];
    if (!w->done) continue;
    assert_int_equal(w->result, 0);
    mrig_note_covered(r, w);
    *w = (struct mwaiter){0};
  }
}

void mrig_random_step(struct mrig *r) {
  uint64_t dice = random_below(&r->random, 1000);
  if (dice < 450)
    random_put(r);
  else if (dice < 600)
    assert_true(mrig_delete(r, (uint32_t)random_below(&r->random, MRIG_IDS)) != -ENOSPC);
  else if (dice < 640)
    random_commit(r);
  else if (dice < (r->rooting ? 700 : 650))
    random_flush(r);
  else if (dice < 652)
    manifest_checkpoint_all(r->m);
  else
    mrig_step(r);
  if (manifest_wants_flush(r->m)) random_flush(r);
  look_around(r);
}

void mrig_settle(struct mrig *r) {
  for (int i = 0; r->sealing || !manifest_idle(r->m) || r->disk.count; i++) {
    assert_true(i < 100000);
    mrig_step(r);
    look_around(r);
  }
  if (r->rooting) random_flush(r);
}

/* ---- Crash ------------------------------------------------------------------------------- */

/* From now on nothing reaches the disk: all I/O fails, so that the manifest can be destroyed. */
static void drop_manifest(struct mrig *r) {
  r->disk.dead = true;
  mrig_drain(r);
  manifest_destroy(r->m);
  r->disk.dead = r->sealing = r->rooting = false;
  r->disk.fail_write_in = r->disk.fail_flush_in = 0;
  memset(r->waiters, 0, sizeof r->waiters);
}

void mrig_crash(struct mrig *r) {
  disk_cut_power(&r->disk);
  if (r->rooting && random_below(&r->random, 2)) random_flush(r); /* it may just have arrived */
  r->crashes++;
  drop_manifest(r);
  r->disk.now->flush_failed = false; /* as opened anew */
  struct manifest *again;
  uint64_t bytes = r->disk.blocks * BLOCK_BYTES;
  memcpy(r->disk.before, r->disk.now->memory, bytes);
  if (mrig_recover(r, &r->m)) fail_msg("recovery: %s", r->why);
  r->notes = r->m->notes;
  if (mrig_recover(r, &again)) fail_msg("second recovery: %s", r->why);
  mrig_check(r, r->m, r->covered, r->next_sequence);
  assert_memory_equal(r->disk.before, r->disk.now->memory, bytes);
  mrig_check_space(r->m);
  assert_int_equal(space_pending_blocks(manifest_space(r->m)), 0);
  flush_root(r);
  uint64_t sequence = r->root.shards[2].sequence; /* of all that fit, the one that it says itself */
  assert_in_range(sequence, r->covered, r->next_sequence);
  mrig_check(r, r->m, sequence, sequence);
  mrig_check(r, again, sequence, sequence);
  manifest_destroy(again);
  model_restart(r, sequence);
}
