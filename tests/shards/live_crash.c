/* live_crash.c - see live_crash.h. */
#include "tests/shards/live_crash.h"

#include "tests/shards/sums_rig.h"

static struct crash *current;

struct flight {
  struct io *io;
  void (*done)(struct io *io);
  bool *covered; /* a flush: the blocks that were written before it */
};
static struct flight flights[RIG_IOS_MAX];

static char *memory_of(struct device *d) { return ((struct rig_device *)d)->backing->memory; }
static struct device *device_now;

static void make_durable(struct crash *c, uint64_t block) {
  memcpy(c->durable + (block << BLOCK_SHIFT), memory_of(device_now) + (block << BLOCK_SHIFT),
         BLOCK_BYTES);
  c->dirty[block] = false;
}

static void note_write(struct crash *c, const struct io *io) {
  uint64_t first = io->offset >> BLOCK_SHIFT;
  for (uint64_t b = first; b < first + (io->bytes >> BLOCK_SHIFT); b++) {
    c->dirty[b] = true;
    if (io->flags & IO_FUA) make_durable(c, b);
  }
}

static void note_flush(struct crash *c, struct flight *f, bool good) {
  for (uint64_t b = 0; b < c->blocks && good; b++)
    if (f->covered[b]) make_durable(c, b);
  free(f->covered);
  f->covered = NULL;
}

static void io_done(struct io *io) {
  struct flight *f = flights;
  while (f->io != io) f++;
  f->io = NULL;
  io->done = f->done;
  if (io->op == IO_FLUSH) note_flush(current, f, io->result == 0);
  if (io->op == IO_WRITE && io->result == 0) note_write(current, io);
  io->done(io);
}

static void submit(struct device *d, struct io *io) {
  struct flight *f = flights;
  while (f->io) f++;
  device_now = d;
  *f = (struct flight){.io = io, .done = io->done};
  if (io->op == IO_FLUSH) {
    f->covered = malloc(current->blocks);
    memcpy(f->covered, current->dirty, current->blocks);
  }
  io->done = io_done;
  current->below->submit(d, io);
}

void crash_begin(struct rig *r, struct crash *c, uint64_t seed) {
  *c = (struct crash){
      .below = r->device.device.ops, .blocks = r->backing->bytes >> BLOCK_SHIFT, .random = {seed}};
  assert_int_equal(r->device.count, 0);
  c->ops = *c->below;
  c->ops.submit = submit;
  c->durable = malloc(r->backing->bytes);
  memcpy(c->durable, r->backing->memory, r->backing->bytes);
  c->dirty = calloc(c->blocks, sizeof *c->dirty);
  current = c;
  r->device.device.ops = &c->ops;
}

void crash_end(struct rig *r, struct crash *c) {
  r->device.device.ops = c->below;
  free(c->durable);
  free(c->dirty);
}

/* Sectors of what is on its way: there or not. */
static void tear(struct crash *c, char *image, const struct io *io) {
  if (io->op != IO_WRITE) return;
  for (uint32_t at = 0, row; at < io->bytes; at += 512) {
    const char *memory = io_memory(io, at, &row);
    if (random_below(&c->random, 2)) memcpy(image + io->offset + at, memory, 512);
  }
}

void crash_cut(struct rig *r, struct crash *c, void (*close)(void *arg), void *arg) {
  char *image = malloc(r->backing->bytes), *memory = r->backing->memory;
  struct root root = r->root;
  memcpy(image, c->durable, r->backing->bytes);
  for (uint64_t b = 0; b < c->blocks; b++)
    if (c->dirty[b] && random_below(&c->random, 2))
      memcpy(image + (b << BLOCK_SHIFT), memory + (b << BLOCK_SHIFT), BLOCK_BYTES);
  for (uint32_t i = 0; i < r->device.count; i++) tear(c, image, r->device.held[i]);
  for (int i = 0; !shard_idle(r->shard) || r->device.count; i++) {
    assert_true(i < 100000);
    rig_step(r);
    if (manifest_wants_flush(shard_manifest(r->shard))) rig_flush(r);
  }
  close(arg);
  shard_close(r->shard);
  memcpy(memory, image, r->backing->bytes);
  memcpy(c->durable, image, r->backing->bytes);
  memset(c->dirty, 0, c->blocks);
  free(image);
  char why[256] = "";
  r->root = root;
  r->root.incarnation = r->config.manifest.incarnation++;
  if (shard_open(&r->shard, &r->config, &r->root, why, sizeof why)) fail_msg("%s", why);
  manifest_note_data(shard_manifest(r->shard)); /* as an open does: a root of its own */
  rig_flush(r);
}
