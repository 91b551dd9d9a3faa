/* block.h - an open volume, file or device as a port sees it: which part of which shard has an
 * address. Made and closed by volumes.c; in between read by any thread. */
#ifndef RUNTIME_BLOCK_H
#define RUNTIME_BLOCK_H

#include <stdatomic.h>

#include "shards/volume.h"

struct block_part {
  struct volume *volume; /* the shard's */
  struct direct *direct; /* direct.h: it may be read past the shard; NULL: it must not */
  uint64_t hash;         /* routes an op to the shard */
  uint32_t core;         /* that hosts it */
};
struct block {
  _Atomic uint64_t size_bytes; /* changes with the volume's */
  uint32_t block_bytes;
  bool direct;          /* parts[].direct were asked for */
  bool read_only;       /* this handle; the volume may be open for writing by another one */
  uint8_t stripe_shift; /* of bytes; 0: one part has it all */
  uint32_t part_count;
  void *owner; /* volumes.c's: the volume in the catalog, or the file */
  struct block *next;
  struct block_part parts[];
};

/* Striped: stripe unit i lies in part i mod part_count, at unit i / part_count there. A stripe is
 * never smaller than a cluster. */
static inline uint64_t block_unit_bytes(const struct block *b) {
  return b->stripe_shift ? UINT64_C(1) << b->stripe_shift : UINT64_MAX;
}
/* The part of an address, the address in it, and how many bytes follow there in a row. */
static inline uint32_t block_route(const struct block *b, uint64_t offset, uint64_t *in,
                                   uint64_t *bytes) {
  if (!b->stripe_shift) {
    *in = offset;
    *bytes = UINT64_MAX;
    return 0;
  }
  uint64_t unit = offset >> b->stripe_shift, mask = block_unit_bytes(b) - 1;
  *in = (unit / b->part_count) << b->stripe_shift | (offset & mask);
  *bytes = mask + 1 - (offset & mask);
  return (uint32_t)(unit % b->part_count);
}
/* Bytes of a part of a disk of so many. */
static inline uint64_t block_part_bytes(const struct block *b, uint64_t size, uint32_t part) {
  if (!b->stripe_shift) return size;
  uint64_t units = size >> b->stripe_shift, rest = size & (block_unit_bytes(b) - 1);
  uint64_t whole = units / b->part_count + (units % b->part_count > part);
  return (whole << b->stripe_shift) + (units % b->part_count == part ? rest : 0);
}
/* Requests of all its parts, whoever made them. Any thread. */
static inline struct limit_waits block_limit_waits(const struct block *b) {
  struct limit_waits sum = {0, 0}, one;
  for (uint32_t i = 0; i < b->part_count; i++) {
    shard_volume_limit_waits(b->parts[i].volume, &one);
    sum.count += one.count;
    sum.ns += one.ns;
  }
  return sum;
}

#endif
