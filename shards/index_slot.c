/* index_slot.c - see index_slot.h. Owned by the shard's core, as the index is. */
#include "shards/base/watched.h"
#include "shards/index_slot.h"

#include <errno.h>
#include <string.h>

_Static_assert(INDEX_NEAR_BLOCKS == SLOT_BLOCK_MASK + 1, "what fits an entry");

uint8_t blob_granule_shift(uint64_t bytes) {
  if (bytes <= UINT64_C(1) << 20) return 12;
  uint8_t shift = 16;
  while (bytes > (uint64_t)BLOB_GRANULES_MAX << shift) shift += 2;
  return shift;
}

uint32_t blob_granule_count(uint64_t bytes, uint8_t granule_shift) {
  uint64_t granule = UINT64_C(1) << granule_shift;
  return (uint32_t)((bytes >> granule_shift) + ((bytes & (granule - 1)) != 0));
}

/* One extent, exactly as long as the bytes need, at a place that fits. */
static bool extent_is_plain(const struct blob *b) {
  return b->extent_count == 1 && b->bytes > 0 && b->extents[0].block <= SLOT_BLOCK_MASK &&
         b->extents[0].blocks == bytes_to_blocks(b->bytes);
}

static enum slot_kind kind_of(const struct blob *b) {
  bool plain = extent_is_plain(b);
  if (b->granule_count == 0 && (plain || (b->extent_count == 0 && b->bytes == 0))) return SLOT_BARE;
  if (!plain) return SLOT_MANY;
  return b->granule_count == 1 ? SLOT_ONE : SLOT_SUMS;
}

static uint32_t detail_bytes(uint32_t extents, uint32_t granules) {
  return extents * (uint32_t)sizeof(struct extent) + granules * (uint32_t)sizeof(uint32_t);
}

uint32_t slot_detail_bytes(const struct blob *b) {
  enum slot_kind kind = kind_of(b);
  if (kind == SLOT_SUMS) return detail_bytes(0, b->granule_count);
  /* at least one unit: a reference must name something */
  if (kind == SLOT_MANY)
    return (uint32_t)max_u64(detail_bytes(b->extent_count, b->granule_count), 1);
  return 0;
}

uint32_t slot_detail_bytes_max(uint32_t extents, uint32_t granules) {
  return (uint32_t)max_u64(detail_bytes(extents, granules), 1);
}

static void check_blob(const struct blob *b) {
  check(b->bytes <= UINT64_C(1) << 40);
  check(b->extent_count <= BLOB_EXTENTS_MAX);
  check(b->granule_shift == 0 || (b->granule_shift >= 12 && b->granule_shift <= 26));
  /* find derives the count from the size, so it must agree */
  if (b->flags & BLOB_NO_CHECKSUM)
    check(b->granule_count == 0);
  else
    check(b->granule_count == (b->bytes ? blob_granule_count(b->bytes, b->granule_shift) : 0));
  check(b->granule_count <= BLOB_GRANULES_MAX);
}

int slot_encode(struct slab *slab, const struct blob *b, struct index_slot *e) {
  check_blob(b);
  enum slot_kind kind = kind_of(b);
  uint64_t place = b->extent_count == 1 ? b->extents[0].block : 0;
  uint32_t rest = kind == SLOT_ONE ? b->checksums[0] : 0;
  uint32_t need = slot_detail_bytes(b);
  if (need > 0) {
    rest = slab_alloc(slab, need);
    if (rest == 0) return -ENOMEM;
    char *at = slab_at(slab, rest);
    if (kind == SLOT_MANY) {
      place = b->extent_count;
      size_t extents = b->extent_count * sizeof(struct extent);
      if (extents > 0) watched_copy(at, b->extents, extents);
      at += extents;
    }
    if (b->granule_count > 0) watched_copy(at, b->checksums, b->granule_count * sizeof(uint32_t));
  }
  uint64_t shift = b->granule_shift ? b->granule_shift - SLOT_SHIFT_BASE : 0;
  e->id = b->id;
  e->where =
      place | (uint64_t)b->flags << 40 | shift << 48 | (uint64_t)kind << 52 | b->bytes >> 32 << 55;
  e->rest = rest | b->bytes << 32;
  return 0;
}

void slot_decode(const struct slab *slab, const struct index_slot *e, struct blob *b) {
  enum slot_kind kind = slot_kind(e);
  b->id = e->id;
  b->bytes = slot_bytes(e);
  b->flags = (uint8_t)(e->where >> 40);
  b->granule_shift = slot_granule_shift(e);
  b->inline_extent =
      (struct extent){.block = e->where & SLOT_BLOCK_MASK, .blocks = bytes_to_blocks(b->bytes)};
  b->inline_checksum = (uint32_t)e->rest;
  b->extents = &b->inline_extent;
  b->checksums = &b->inline_checksum;
  b->extent_count = b->bytes > 0;
  b->granule_count = kind == SLOT_ONE;
  if (kind <= SLOT_BARE) return;
  char *at = slab_at(slab, (uint32_t)e->rest);
  if (kind == SLOT_MANY) {
    b->extent_count = (uint32_t)(e->where & SLOT_BLOCK_MASK);
    b->extents = (const struct extent *)(void *)at;
    at += b->extent_count * sizeof(struct extent);
  }
  b->granule_count = 0;
  if (b->bytes > 0 && !(b->flags & BLOB_NO_CHECKSUM))
    b->granule_count = blob_granule_count(b->bytes, b->granule_shift);
  b->checksums = (const uint32_t *)(void *)at;
}

void slot_release(struct slab *slab, const struct index_slot *e) {
  if (slot_kind(e) <= SLOT_BARE) return;
  struct blob b;
  slot_decode(slab, e, &b);
  uint32_t extents = slot_kind(e) == SLOT_MANY ? b.extent_count : 0;
  slab_free(slab, (uint32_t)e->rest, slot_detail_bytes_max(extents, b.granule_count));
}
