/* slab.h - memory for the details of an index: many pieces of a few sizes, small references.
 *
 * Single-threaded. Pieces are cut from large mapped chunks, in size classes: steps of 8 bytes up
 * to 256, then 16 steps for each doubling (waste below 1/16) up to SLAB_BYTES_MAX. There are no
 * headers: who frees a piece says its size. Freed pieces are kept in a list for each class, and
 * larger ones are cut up before another chunk is mapped; pieces are never joined again and chunks
 * are given back by slab_finish() only. A piece never moves. A reference is 32 bits, in
 * units of 8 bytes: one slab holds at most 32 GiB. */
#ifndef SHARDS_BASE_SLAB_H
#define SHARDS_BASE_SLAB_H

#include "shards/base/base.h"

#define SLAB_UNIT        8u
#define SLAB_BYTES_MAX   327680u
#define SLAB_CLASSES     196u
#define SLAB_CHUNK_SHIFT 19
#define SLAB_TABLE       256u /* chunks in a table, and tables: 2^16 of 2^16 units */

struct slab {
  uint32_t bump, bump_end;                      /* what is left of the newest chunk, in units */
  uint32_t chunks;                              /* mapped so far */
  uint32_t free_head[SLAB_CLASSES];             /* the first free piece of each class; 0: none */
  uint64_t not_empty[(SLAB_CLASSES + 63) / 64]; /* classes that have a free piece */
  char **tables[SLAB_TABLE];
  uint64_t mapped_bytes; /* chunks and their tables */
  uint64_t used_bytes;   /* in pieces, rounded up to their classes */
};

void slab_init(struct slab *slab);
void slab_finish(struct slab *slab);

/* The next slab_alloc() of that size will not fail: 0, or -ENOMEM. bytes: 1 to SLAB_BYTES_MAX. */
int slab_reserve(struct slab *slab, uint32_t bytes);
/* A reference to uninitialised memory, aligned to 8; 0 if nothing fits (maps nothing: call
 * slab_reserve() first). */
uint32_t slab_alloc(struct slab *slab, uint32_t bytes);
/* bytes: as asked for. ref 0 is fine. */
void slab_free(struct slab *slab, uint32_t ref, uint32_t bytes);

static inline void *slab_at(const struct slab *slab, uint32_t ref) {
  uint32_t chunk = ref >> (SLAB_CHUNK_SHIFT - 3);
  uint32_t unit = ref & ((1u << (SLAB_CHUNK_SHIFT - 3)) - 1);
  return slab->tables[chunk / SLAB_TABLE][chunk % SLAB_TABLE] + (size_t)unit * SLAB_UNIT;
}
/* What a piece of that size really takes. */
uint32_t slab_piece_bytes(uint32_t bytes);

#endif
