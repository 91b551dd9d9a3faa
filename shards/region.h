/* region.h - what one shard owns on disk: a list of segments {file slot, offset, blocks}.
 * Region blocks are numbered from 0 across the segments, in order. Single-threaded. */
#ifndef SHARDS_REGION_H
#define SHARDS_REGION_H

#include "shards/device/device.h"

#define REGION_SEGMENTS_MAX 64

struct segment {
  struct backing *backing;
  uint16_t file;        /* device slot of the backing */
  uint64_t first_block; /* of the segment, in the backing */
  uint64_t blocks;
  uint64_t region_block; /* of the segment's first block, in the region */
};
struct region {
  uint32_t segment_count;
  struct segment segments[REGION_SEGMENTS_MAX];
  uint64_t blocks;     /* of all segments */
  uint64_t log_blocks; /* region blocks [0, log_blocks) hold the manifest log; they lie in the
                          first segment. Data follows. */
};

/* The segment that holds a region block. */
static inline const struct segment *region_segment(const struct region *r, uint64_t block) {
  uint32_t i = 0;
  while (block - r->segments[i].region_block >= r->segments[i].blocks) i++;
  return &r->segments[i];
}
/* Fills file and offset of an io for a run of blocks that starts at block; returns how many
 * of the blocks lie in that segment (the caller splits). */
static inline uint64_t region_map(const struct region *r, uint64_t block, uint64_t blocks,
                                  struct io *io) {
  const struct segment *s = region_segment(r, block);
  uint64_t in = block - s->region_block;
  io->file = s->file;
  io->offset = (s->first_block + in) << BLOCK_SHIFT;
  return min_u64(blocks, s->blocks - in);
}
/* See struct backing. */
static inline bool region_flush_failed(const struct region *r) {
  bool failed = false;
  for (uint32_t i = 0; i < r->segment_count; i++)
    failed |= backing_has_failed(r->segments[i].backing);
  return failed;
}
/* Synchronous, for recovery and offline tools; any run of blocks. 0 or -errno. */
int region_read(const struct region *r, void *buf, uint64_t block, uint64_t blocks);
int region_write(const struct region *r, const void *buf, uint64_t block, uint64_t blocks);

#endif
