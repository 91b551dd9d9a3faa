/* shard_rig.c - see shard_rig.h. */
#include "tests/shards/shard_rig.h"

#include <stdio.h>

#define REGION_LOG_BLOCKS 256

/* ---- The device -------------------------------------------------------------------------- */

static void take(struct rig_device *rd, const struct io *io) {
  char *disk = (char *)rd->backing->memory + io->offset;
  for (uint32_t at = 0, row; at < io->bytes; at += row) {
    char *memory = io_memory(io, at, &row);
    if (io->op == IO_READ)
      memcpy(memory, disk + at, row);
    else
      memcpy(disk + at, memory, row);
  }
}

static void device_take(struct device *d, struct io *io) {
  struct rig_device *rd = (struct rig_device *)d;
  assert_true(rd->count < RIG_IOS_MAX);
  if (io->op != IO_FLUSH) {
    for (uint32_t at = 0, row; at < io->bytes; at += row) {
      assert_int_equal((uintptr_t)io_memory(io, at, &row) % BLOCK_BYTES, 0);
      assert_true(row && row % BLOCK_BYTES == 0);
    }
    assert_int_equal(io->bytes % BLOCK_BYTES, 0);
    assert_int_equal(io->offset % BLOCK_BYTES, 0);
    assert_in_range(io->bytes, 1, IO_BYTES_MAX);
    assert_true(io->offset + io->bytes <= rd->backing->bytes);
  }
  if (rd->take_early && io->op == IO_WRITE) take(rd, io);
  rd->held[rd->count++] = io;
  if (rd->count > rd->in_flight_max) rd->in_flight_max = rd->count;
}

static void move(struct rig_device *rd, struct io *io) {
  io->result = 0;
  if (io->op == IO_READ) {
    rd->reads++;
    if (rd->fail_reads && rd->fail_reads--) {
      io->result = -EIO;
    } else {
      take(rd, io);
    }
  } else if (io->op == IO_WRITE) {
    rd->writes++;
    if (rd->fail_writes && rd->fail_writes--) {
      io->result = -EIO;
    } else if (!rd->take_early) {
      take(rd, io);
    }
  } else {
    rd->flushes++;
  }
}

/* Completes a random part of what is held, in a random order. */
static uint32_t device_complete(struct device *d) {
  struct rig_device *rd = (struct rig_device *)d;
  if (rd->count == 0) return 0;
  uint64_t n = 1 + random_below(&rd->random, rd->count), done = 0;
  while (n-- > 0 && rd->count > 0) {
    uint64_t i = random_below(&rd->random, rd->count);
    struct io *io = rd->held[i];
    if (io->op == IO_WRITE && rd->hold_writes) continue;
    rd->held[i] = rd->held[--rd->count];
    move(rd, io);
    io->done(io);
    done++;
  }
  return (uint32_t)done;
}
static uint32_t device_count(const struct device *d) {
  return ((const struct rig_device *)d)->count;
}
static const struct device_ops rig_device_ops = {
    .name = "rig", .submit = device_take, .poll = device_complete, .in_flight = device_count};

static int backing_read(struct backing *b, void *buf, uint64_t bytes, uint64_t offset) {
  struct rig *r = container_of(b, struct rig, disguise);
  memcpy(buf, (char *)r->backing->memory + offset, bytes);
  return 0;
}
static int backing_write(struct backing *b, const void *buf, uint64_t bytes, uint64_t offset) {
  struct rig *r = container_of(b, struct rig, disguise);
  memcpy((char *)r->backing->memory + offset, buf, bytes);
  return 0;
}
static int backing_punch(struct backing *b, uint64_t bytes, uint64_t offset) {
  struct rig *r = container_of(b, struct rig, disguise);
  memset((char *)r->backing->memory + offset, 0xee, bytes); /* whoever still needs it will notice */
  return 0;
}
static const struct backing_ops rig_backing_ops = {
    .read = backing_read, .write = backing_write, .punch = backing_punch};

/* ---- Life ---------------------------------------------------------------------------------- */

static void note_line(void *arg, int level, const char *text) {
  struct rig *r = arg;
  if (level == 0) {
    r->errors_logged++;
    snprintf(r->last_error, sizeof r->last_error, "%s", text);
  }
}

static void lay_out(struct rig *r, uint64_t blocks) {
  uint64_t cut = blocks / 2 + 3;
  r->region.blocks = blocks;
  r->region.log_blocks = REGION_LOG_BLOCKS;
  r->region.segment_count = 2;
  /* The second half lies first in the backing. */
  r->region.segments[0] = (struct segment){
      .backing = &r->disguise, .first_block = blocks - cut, .blocks = cut, .region_block = 0};
  r->region.segments[1] = (struct segment){
      .backing = &r->disguise, .first_block = 0, .blocks = blocks - cut, .region_block = cut};
}

static void prepare(struct rig *r, uint64_t region_bytes, uint64_t seed) {
  memset(r, 0, sizeof *r);
  r->random.state = seed;
  r->device.random.state = seed ^ 77;
  assert_int_equal(backing_open_memory(&r->backing, region_bytes), 0);
  r->disguise = *r->backing;
  r->disguise.ops = &rig_backing_ops;
  r->device.device.ops = &rig_device_ops;
  r->device.backing = r->backing;
  lay_out(r, region_bytes >> BLOCK_SHIFT);
  r->root.shard_count = 1;
  r->root.shards[0].sequence = 1;
  r->config = (struct shard_config){
      .manifest = {.region = &r->region,
                   .device = &r->device.device,
                   .hash_key = {11, 22},
                   .shard_count = 1,
                   .incarnation = 1,
                   .clock = clock_monotonic,
                   .logger = {.line = note_line, .arg = r}},
  };
}
static void open_shard(struct rig *r) {
  char why[256] = "";
  assert_int_equal(shard_open(&r->shard, &r->config, &r->root, why, sizeof why), 0);
}

void rig_open_config(struct rig *r, uint64_t region_bytes, uint64_t seed, uint32_t works_max) {
  prepare(r, region_bytes, seed);
  r->config.works_max = works_max;
  open_shard(r);
}
void rig_open_background(struct rig *r, uint64_t region_bytes, uint64_t seed, bool block_device) {
  prepare(r, region_bytes, seed);
  r->config.background = true;
  r->disguise.memory = NULL;
  r->disguise.is_block_device = block_device;
  for (uint64_t block = r->region.log_blocks; block < r->region.blocks; block++)
    memset(rig_block(r, block), 0xff, BLOCK_BYTES);
  open_shard(r);
}
void rig_open_read_only(struct rig *r, uint64_t region_bytes, uint64_t seed) {
  prepare(r, region_bytes, seed);
  r->config.background = true;
  r->config.manifest.read_only = true;
  open_shard(r);
}
void rig_open(struct rig *r, uint64_t region_bytes, uint64_t seed) {
  rig_open_config(r, region_bytes, seed, 0);
}

void rig_close(struct rig *r) {
  r->device.hold_writes = false;
  rig_drain(r);
  shard_close(r->shard);
  backing_close(r->backing);
}

/* ---- Ops ------------------------------------------------------------------------------------ */

static void op_done(struct shard_op *op) { *(bool *)op->owner = true; }

struct owned_op {
  struct shard_op op;
  bool done;
};

struct shard_op *rig_op(struct rig *r, uint8_t kind, uint64_t id) {
  struct owned_op *o = calloc(1, sizeof *o);
  assert_non_null(o);
  o->op.kind = kind;
  o->op.id = (struct blob_id){.hi = ~id, .lo = id};
  o->op.hash = hash_id(o->op.id, r->config.manifest.hash_key);
  o->op.done = op_done;
  o->op.owner = &o->done;
  o->op.result = -12345;
  return &o->op;
}
bool rig_done(const struct shard_op *op) { return *(const bool *)op->owner; }

void rig_submit(struct rig *r, struct shard_op *op) {
  shard_prefetch(r->shard, op);
  shard_submit(r->shard, op);
}
void rig_step(struct rig *r) {
  shard_tick(r->shard);
  device_poll(&r->device.device);
}
int64_t rig_wait(struct rig *r, struct shard_op *op) {
  for (int i = 0; !rig_done(op); i++) {
    assert_true(i < 1000000);
    rig_step(r);
  }
  return op->result;
}
int64_t rig_run(struct rig *r, struct shard_op *op) {
  rig_submit(r, op);
  int64_t result = rig_wait(r, op);
  free(op);
  return result;
}
void rig_drain(struct rig *r) {
  for (int i = 0; !shard_idle(r->shard) || r->device.count; i++) {
    assert_true(i < 1000000);
    rig_step(r);
  }
}

struct sealed {
  struct manifest_seal seal;
  bool done;
};
static void seal_done(struct manifest_seal *seal) { ((struct sealed *)seal)->done = true; }

void rig_flush(struct rig *r) {
  struct sealed x = {.seal = {.done = seal_done, .epoch = ++r->epoch, .flush_files = true}};
  manifest_seal(shard_manifest(r->shard), &x.seal);
  for (int i = 0; !x.done; i++) {
    assert_true(i < 100000);
    rig_step(r);
  }
  assert_int_equal(x.seal.result, 0);
  if (x.seal.dirty) {
    r->root.epoch = r->epoch;
    r->root.shards[0] = x.seal.root;
  }
  manifest_root_durable(shard_manifest(r->shard), r->epoch, 0);
}

int64_t rig_put(struct rig *r, uint64_t id, const void *buf, uint64_t bytes, uint8_t flags) {
  struct shard_op *op = rig_op(r, OP_PUT, id);
  op->buf = (void *)(uintptr_t)buf;
  op->bytes = bytes;
  op->flags = flags;
  return rig_run(r, op);
}
int64_t rig_get(struct rig *r, uint64_t id, void *buf, uint64_t offset, uint64_t bytes) {
  struct shard_op *op = rig_op(r, OP_GET, id);
  op->buf = buf;
  op->offset = offset;
  op->bytes = bytes;
  return rig_run(r, op);
}
int64_t rig_delete(struct rig *r, uint64_t id) { return rig_run(r, rig_op(r, OP_DELETE, id)); }

int rig_find(struct rig *r, uint64_t id, struct blob *blob) {
  struct blob_id key = {.hi = ~id, .lo = id};
  return index_find(manifest_index(shard_manifest(r->shard)),
                    hash_id(key, r->config.manifest.hash_key), key, blob);
}

char *rig_block(struct rig *r, uint64_t block) {
  struct io io;
  region_map(&r->region, block, 1, &io);
  return (char *)r->backing->memory + io.offset;
}

char *rig_data(uint64_t bytes, uint64_t seed) {
  struct random random = {seed};
  char *p = aligned_alloc(BLOCK_BYTES, round_up(bytes + 1, BLOCK_BYTES));
  assert_non_null(p);
  for (uint64_t i = 0; i < round_up(bytes + 1, BLOCK_BYTES); i += 8) {
    uint64_t v = random_next(&random);
    memcpy(p + i, &v, 8);
  }
  return p;
}
