/* zeroer.h - writes a region once, ahead of the allocator, since a first write into reserved but
 * unwritten space of a file system is slow. Block devices need none of it.
 *
 * Owned by the shard's thread. The zeroer takes a free range out of the space while it writes
 * it, and gives it back at once. Its mark (manifest_set_zeroed_blocks) says below which block
 * everything was written at least once. */
#ifndef SHARDS_ZEROER_H
#define SHARDS_ZEROER_H

#include "shards/manifest.h"

#define ZEROER_IOS          2u
#define ZEROER_IO_BLOCKS    (IO_BYTES_MAX / BLOCK_BYTES)
#define ZEROER_AHEAD_BLOCKS ((64u << 20) / BLOCK_BYTES) /* of the highest block in use */

struct zeroer_slot {
  struct io io;
  struct zeroer *zeroer;
  struct extent range;
  bool busy;
};
struct zeroer {
  struct manifest *manifest;
  struct space *space;
  struct region *region;
  struct device *device;
  struct logger logger;
  const void *zeros; /* IO_BYTES_MAX that nothing ever writes: the kernel's one zero page */
  bool stopped;      /* not wanted, or a write failed */
  uint64_t next;     /* first block not looked at yet */
  uint64_t end;      /* of the blocks in use, as last seen */
  uint64_t credit;   /* blocks that may be written before more is allocated: what was punched
                        stays punched until there is use for it */
  uint32_t busy;
  struct zeroer_slot slots[ZEROER_IOS];
};

/* enabled: false only keeps the mark. -ENOMEM. */
int zeroer_init(struct zeroer *z, struct manifest *m, struct region *region, struct device *device,
                const struct logger *logger, bool enabled);
void zeroer_finish(struct zeroer *z); /* no I/O in flight */
/* Submits at most one write. True if it did something. */
bool zeroer_tick(struct zeroer *z);
/* The allocator took blocks. */
void zeroer_allocated(struct zeroer *z, uint64_t blocks);
/* It holds free space: an allocation that fails now may succeed when that I/O is done. */
static inline bool zeroer_busy(const struct zeroer *z) { return z->busy != 0; }
/* Blocks from here on may be unwritten again. */
void zeroer_punched(struct zeroer *z, uint64_t block);

#endif
