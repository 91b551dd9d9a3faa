/* zeroer.c - writes a region once, ahead of the allocator. Owned by the shard's thread.
 * Invariant: every block below the lower of `next` and the first busy range was written, is
 * being written by its owner, or lies on a device that needs no zeroing. */
#include "shards/zeroer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static bool needs_zeroing(const struct backing *b) {
  return !b->is_block_device && !b->memory && !b->read_only;
}

int zeroer_init(struct zeroer *z, struct manifest *m, struct region *region, struct device *device,
                const struct logger *logger, bool enabled) {
  memset(z, 0, sizeof *z);
  z->manifest = m;
  z->space = manifest_space(m);
  z->region = region;
  z->device = device;
  z->logger = *logger;
  z->next = min_u64(manifest_zeroed_blocks(m), region->blocks);
  z->credit = ZEROER_AHEAD_BLOCKS;
  z->stopped = !enabled;
  if (!enabled) return 0;
  bool any = false;
  for (uint32_t i = 0; i < region->segment_count; i++)
    any |= needs_zeroing(region->segments[i].backing);
  if (!any) {
    z->stopped = true;
    z->next = region->blocks;
    if (manifest_zeroed_blocks(m) < z->next) manifest_set_zeroed_blocks(m, z->next);
    return 0;
  }
  void *zeros = mmap(NULL, IO_BYTES_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (zeros == MAP_FAILED) return -ENOMEM;
  z->zeros = zeros;
  return 0;
}

void zeroer_finish(struct zeroer *z) {
  check(z->busy == 0);
  if (z->zeros) munmap((void *)(uintptr_t)z->zeros, IO_BYTES_MAX);
  z->zeros = NULL;
}

/* The mark may not pass a range whose write is still in flight. */
static void report(struct zeroer *z) {
  uint64_t mark = z->next;
  for (uint32_t i = 0; i < ZEROER_IOS; i++) {
    if (z->slots[i].busy) mark = min_u64(mark, z->slots[i].range.block);
  }
  if (mark > manifest_zeroed_blocks(z->manifest)) manifest_set_zeroed_blocks(z->manifest, mark);
}

static void written(struct io *io) {
  struct zeroer_slot *slot = container_of(io, struct zeroer_slot, io);
  struct zeroer *z = slot->zeroer;
  space_cancel(z->space, &slot->range, 1);
  if (io->result) {
    log_line(&z->logger, 1, "zeroing ahead stopped: block %llu: %s",
             (unsigned long long)slot->range.block, strerror(-io->result));
    z->stopped = true;
    z->next = min_u64(z->next, slot->range.block);
  }
  slot->busy = false;
  z->busy--;
  report(z);
}

static void submit(struct zeroer *z, const struct extent *run) {
  struct zeroer_slot *slot = z->slots;
  while (slot->busy) slot++;
  memset(&slot->io, 0, sizeof slot->io);
  slot->range.block = run->block;
  slot->range.blocks = region_map(z->region, run->block, run->blocks, &slot->io);
  check(space_claim(z->space, slot->range.block, slot->range.blocks) == 0);
  slot->zeroer = z;
  slot->busy = true;
  z->busy++;
  z->next = slot->range.block + slot->range.blocks;
  z->credit -= min_u64(z->credit, slot->range.blocks);
  slot->io.op = IO_WRITE;
  slot->io.buf = (void *)(uintptr_t)z->zeros;
  slot->io.bytes = (uint32_t)(slot->range.blocks << BLOCK_SHIFT);
  slot->io.done = written;
  device_submit(z->device, &slot->io);
}

/* The highest block in use that is not the zeroer's own; may be stale while it writes. */
static uint64_t foreign_end(struct zeroer *z) {
  uint64_t end = space_end(z->space);
  if (z->busy == 0 || end > z->next) z->end = end;
  return z->end;
}

bool zeroer_tick(struct zeroer *z) {
  if (z->stopped || z->busy == ZEROER_IOS || z->credit == 0) return false;
  if (z->next >= z->region->blocks) return false;
  if (z->next >= foreign_end(z) + ZEROER_AHEAD_BLOCKS) return false;
  const struct segment *seg = region_segment(z->region, z->next);
  if (!needs_zeroing(seg->backing)) {
    z->next = seg->region_block + seg->blocks;
    report(z);
    return true;
  }
  struct extent run;
  if (!space_next_free(z->space, z->next, ZEROER_IO_BLOCKS, &run)) {
    z->next = z->region->blocks; /* all in use: written by its owners */
    report(z);
    return true;
  }
  submit(z, &run);
  return true;
}

void zeroer_allocated(struct zeroer *z, uint64_t blocks) {
  z->credit = min_u64(z->credit + 4 * blocks, ZEROER_AHEAD_BLOCKS);
}

void zeroer_punched(struct zeroer *z, uint64_t block) {
  z->credit = 0;
  if (block < z->next) z->next = block;
  if (block < manifest_zeroed_blocks(z->manifest)) manifest_set_zeroed_blocks(z->manifest, block);
}
