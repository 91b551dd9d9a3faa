/* region.c - synchronous access to a region by block, across its segments. */
#include "shards/region.h"

#include <errno.h>

static int move(const struct region *r, char *buf, uint64_t block, uint64_t blocks, bool write) {
  if (block > r->blocks || blocks > r->blocks - block) return -ERANGE;
  while (blocks > 0) {
    const struct segment *s = region_segment(r, block);
    uint64_t in = block - s->region_block, n = min_u64(blocks, s->blocks - in);
    uint64_t offset = (s->first_block + in) << BLOCK_SHIFT, bytes = n << BLOCK_SHIFT;
    struct backing *b = s->backing;
    int e = write ? b->ops->write(b, buf, bytes, offset) : b->ops->read(b, buf, bytes, offset);
    if (e) return e;
    block += n;
    blocks -= n;
    buf += bytes;
  }
  return 0;
}

int region_read(const struct region *r, void *buf, uint64_t block, uint64_t blocks) {
  return move(r, buf, block, blocks, false);
}

int region_write(const struct region *r, const void *buf, uint64_t block, uint64_t blocks) {
  return move(r, (char *)(uintptr_t)buf, block, blocks, true);
}
