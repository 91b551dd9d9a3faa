/* sim_disk.c - disks with a volatile cache, as layout and recovery see them; see sim_disk.h. One
 * thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_internal.h"

/* ---- One disk -------------------------------------------------------------------------------- */

/* Takes over the reference. */
void disk_set_now(struct sim_disk *d, uint64_t block, struct page *p) {
  if (d->base && !d->is_touched[block]) {
    if (d->touched_count == d->touched_room) {
      d->touched_room = d->touched_room ? 2 * d->touched_room : 64;
      d->touched = realloc(d->touched, d->touched_room * sizeof *d->touched);
      check(d->touched != NULL);
    }
    d->touched[d->touched_count++] = block;
    d->is_touched[block] = true;
  } else {
    page_unref(d->now[block]);
  }
  d->now[block] = p;
}

void disk_set_durable(struct sim_disk *d, uint64_t block, struct page *p) {
  d->hash ^= page_hash_at(d->durable[block], d->number, block) ^ page_hash_at(p, d->number, block);
  page_unref(d->durable[block]);
  d->durable[block] = p;
  d->io->changes++;
}

/* Of one block what came before is overtaken by what is durable now. */
static void drop_cached(struct sim_disk *d, uint64_t block, uint32_t before) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < d->cached_count; i++) {
    if (i < before && d->cached[i].block == block)
      page_unref(d->cached[i].page);
    else
      d->cached[kept++] = d->cached[i];
  }
  d->cached_count = kept;
}

static void cache(struct sim_disk *d, uint64_t block, struct page *p, uint64_t order) {
  if (d->cached_count == d->cached_room) {
    d->cached_room = d->cached_room ? 2 * d->cached_room : 64;
    d->cached = realloc(d->cached, d->cached_room * sizeof *d->cached);
    check(d->cached != NULL);
  }
  d->cached[d->cached_count++] = (struct cached){block, order, p};
}

void disk_store(struct sim_disk *d, uint64_t block, struct page *p, bool durable, uint64_t order) {
  if (block >= d->blocks) {
    page_unref(p);
    return;
  }
  disk_set_now(d, block, page_ref(p));
  if (!d->durable) {
    page_unref(p);
  } else if (durable) {
    drop_cached(d, block, d->cached_count);
    disk_set_durable(d, block, p);
  } else {
    cache(d, block, p, order);
  }
}

/* What had completed before `mark` becomes durable; in order, so that the last of a block stays. */
void disk_flush_cached(struct sim_disk *d, uint64_t mark) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < d->cached_count; i++) {
    struct cached *c = &d->cached[i];
    if (c->order >= mark) {
      d->cached[kept++] = *c;
      continue;
    }
    uint32_t before = kept; /* those that a failed flush has left behind */
    for (uint32_t k = 0; k < before; k++)
      if (d->cached[k].block == c->block) {
        page_unref(d->cached[k].page);
        memmove(&d->cached[k], &d->cached[k + 1], (--kept - k) * sizeof *d->cached);
        before--;
        k--;
      }
    disk_set_durable(d, c->block, c->page);
  }
  d->cached_count = kept;
}

/* After a failed flush nobody knows what became of the writes: no later flush covers them. */
int disk_flush_lost(struct sim_disk *d, uint64_t mark) {
  d->failed_order = ++d->io->order;
  for (uint32_t i = 0; i < d->cached_count; i++)
    if (d->cached[i].order < mark) d->cached[i].order = UINT64_MAX;
  return -EIO;
}

void sim_disk_write(struct sim_disk *d, uint64_t block, const void *buf, uint64_t blocks) {
  for (uint64_t i = 0; i < blocks; i++)
    disk_store(d, block + i, page_of((const char *)buf + (i << BLOCK_SHIFT)), true, 0);
}

void sim_disk_flip(struct sim_disk *d, uint64_t block, uint32_t bit) {
  char bytes[BLOCK_BYTES] __attribute__((aligned(8)));
  page_read(d->now[block], bytes);
  bytes[bit / 8] ^= (char)(1 << bit % 8);
  sim_disk_write(d, block, bytes, 1);
}

/* ---- Backings: what recovery and layout read --------------------------------------------------
 */

static bool sync_fault(struct sim_disk *d, uint32_t chance) {
  if (!random_chance(&d->io->random, chance)) return false;
  d->io->faults.injected++;
  return true;
}

static int disk_read(struct backing *b, void *buf, uint64_t bytes, uint64_t offset) {
  struct sim_disk *d = disk_of(b);
  uint64_t block = offset >> BLOCK_SHIFT, count = bytes >> BLOCK_SHIFT;
  if (d->io->faults.gone || block > d->blocks || count > d->blocks - block) return -EIO;
  d->io->reads++;
  if (sync_fault(d, d->io->faults.read_error)) return -EIO;
  for (uint64_t i = 0; i < count; i++)
    page_read(d->now[block + i], (char *)buf + (i << BLOCK_SHIFT));
  return 0;
}

static int disk_write(struct backing *b, const void *buf, uint64_t bytes, uint64_t offset) {
  struct sim_disk *d = disk_of(b);
  uint64_t block = offset >> BLOCK_SHIFT, count = bytes >> BLOCK_SHIFT;
  if (d->io->faults.gone || block > d->blocks || count > d->blocks - block) return -EIO;
  bool fails = sync_fault(d, d->io->faults.write_error);
  if (fails && random_percent(&d->io->random, 50)) return -EIO;
  for (uint64_t i = 0; i < count; i++)
    disk_store(d, block + i, page_of((const char *)buf + (i << BLOCK_SHIFT)), false,
               d->io->order++);
  return fails ? -EIO : 0;
}

static int disk_flush(struct backing *b) {
  struct sim_disk *d = disk_of(b);
  if (d->io->faults.gone) return -EIO;
  if (sync_fault(d, d->io->faults.flush_error)) return disk_flush_lost(d, d->io->order);
  disk_flush_cached(d, d->io->order);
  return 0;
}

/* Blocks that were given back read as zeros, or as what they were: what of it a power cut keeps is
 * as undecided as with a write. */
static int disk_punch(struct backing *b, uint64_t bytes, uint64_t offset) {
  struct sim_disk *d = disk_of(b);
  if (d->io->faults.gone) return -EIO;
  for (uint64_t i = 0; i < bytes >> BLOCK_SHIFT; i++)
    if (random_percent(&d->io->random, 80))
      disk_store(d, (offset >> BLOCK_SHIFT) + i, NULL, false, d->io->order++);
  return 0;
}

static int disk_resize(struct backing *b, uint64_t bytes, bool reserve) {
  (void)b, (void)bytes, (void)reserve;
  return -EOPNOTSUPP;
}

static int disk_lock(struct backing *b, bool exclusive, uint32_t timeout_ms) {
  (void)b, (void)exclusive, (void)timeout_ms;
  return 0;
}

static void disk_close(struct backing *b) { (void)b; }

static const struct backing_ops disk_ops = {.read = disk_read,
                                            .write = disk_write,
                                            .flush = disk_flush,
                                            .punch = disk_punch,
                                            .resize = disk_resize,
                                            .lock = disk_lock,
                                            .close = disk_close};

/* ---- Worlds ------------------------------------------------------------------------
 */

static uint64_t sim_now(void *arg) { return ((struct sim_io *)arg)->now_ns; }

void sim_io_init(struct sim_io *io, uint64_t seed) {
  memset(io, 0, sizeof *io);
  io->clock = (struct clock){sim_now, io};
  io->now_ns = 1;
  io->random.state = seed;
  io->delay_ns_max = 20000;
}

void sim_disk_create(struct sim_io *io, uint32_t number, uint64_t blocks, bool image) {
  struct sim_disk *d = &io->disks[number];
  d->io = io;
  d->number = number;
  d->blocks = blocks;
  d->now = calloc(blocks, sizeof *d->now);
  d->durable = image ? NULL : calloc(blocks, sizeof *d->durable);
  d->base = image ? calloc(blocks, sizeof *d->base) : NULL;
  d->is_touched = image ? calloc(blocks, sizeof *d->is_touched) : NULL;
  check(d->now && (image ? d->base && d->is_touched : d->durable != NULL));
  d->backing = (struct backing){.ops = &disk_ops,
                                .fd = -1,
                                .lock_fd = -1,
                                .bytes = blocks << BLOCK_SHIFT,
                                .device_id = number + 1,
                                .numa_node = -1};
  snprintf(d->backing.name, sizeof d->backing.name, "disk%u", number);
}

void sim_io_create(struct sim_io *io, uint64_t seed, uint32_t disk_count, const uint64_t *blocks) {
  check(disk_count <= SIM_DISKS_MAX);
  sim_io_init(io, seed);
  io->disk_count = disk_count;
  for (uint32_t i = 0; i < disk_count; i++) sim_disk_create(io, i, blocks[i], false);
}

void disk_take_back(struct sim_disk *d) {
  for (uint32_t i = 0; i < d->touched_count; i++) {
    uint64_t block = d->touched[i];
    page_unref(d->now[block]);
    d->now[block] = d->base[block];
    d->is_touched[block] = false;
  }
  d->touched_count = 0;
}

static void drop_pages(struct sim_disk *d) {
  for (uint32_t k = 0; k < d->cached_count; k++) page_unref(d->cached[k].page);
  d->cached_count = 0;
  for (uint64_t b = 0; !d->base && b < d->blocks; b++) {
    page_unref(d->now[b]);
    page_unref(d->durable[b]);
  }
}

void sim_io_destroy(struct sim_io *io) {
  check(!io->devices);
  for (uint32_t i = 0; i < io->disk_count; i++) {
    struct sim_disk *d = &io->disks[i];
    if (d->base) disk_take_back(d);
    drop_pages(d);
    free(d->now);
    free(d->durable);
    free(d->base);
    free(d->is_touched);
    free(d->touched);
    free(d->cached);
  }
}

void sim_backings(struct sim_io *io, struct backing **backings) {
  for (uint32_t i = 0; i < io->disk_count; i++) {
    io->disks[i].backing.flush_failed = false; /* as after an open */
    backings[i] = &io->disks[i].backing;
  }
}
