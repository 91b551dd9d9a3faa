/* block_sums.h - checksums of the blocks of a leaf: which blocks have one, and CRC32C of each.
 *
 * Two forms. struct leaf_sums is for passing on, with a slot for each of the 1024 blocks.
 * struct block_sums is what is kept: a piece of a slab, sums of those blocks alone that have one, 4
 * bytes each and 144 for the leaf. Single-threaded, owned by whoever owns the slab. */
#ifndef SHARDS_BLOCK_SUMS_H
#define SHARDS_BLOCK_SUMS_H

#include "shards/base/slab.h"

#define SUMS_BLOCKS 1024u /* as LEAF_BLOCKS */
#define SUMS_WORDS  (SUMS_BLOCKS / 64)

struct leaf_sums {
  uint64_t has[SUMS_WORDS];
  uint32_t sum[SUMS_BLOCKS]; /* of those that have one */
};
static inline bool leaf_sums_has(const struct leaf_sums *s, uint32_t block) {
  return s->has[block / 64] >> block % 64 & 1;
}
static inline void leaf_sums_set(struct leaf_sums *s, uint32_t block, uint32_t sum) {
  s->has[block / 64] |= UINT64_C(1) << block % 64;
  s->sum[block] = sum;
}
/* How many bits are set in has[SUMS_WORDS]. */
uint32_t sums_count(const uint64_t *has);

struct block_sums {
  uint64_t has[SUMS_WORDS];
  uint16_t before[SUMS_WORDS]; /* bits in the words before */
  uint32_t room;               /* sums that the piece was made for */
  uint32_t sum[];
};
static inline bool block_sums_has(const struct block_sums *s, uint32_t block) {
  return s->has[block / 64] >> block % 64 & 1;
}
/* Of a block that has one. */
static inline uint32_t block_sums_at(const struct block_sums *s, uint32_t block) {
  uint64_t below = s->has[block / 64] & ((UINT64_C(1) << block % 64) - 1);
  return s->sum[s->before[block / 64] + (uint32_t)__builtin_popcountll(below)];
}
/* The blocks from one on, of at most `max` in the leaf, that all have a sum or all have none (*has
 * says which); s NULL: none. */
uint32_t block_sums_run(const struct block_sums *s, uint32_t block, uint32_t max, bool *has);

/* A new piece for those of the sums whose bit is in `only` (NULL: all). 0 and *ref; *ref is 0 where
 * none is left. -ENOMEM. */
int block_sums_pack(struct slab *slab, const struct leaf_sums *from, const uint64_t *only,
                    uint32_t *ref);
void block_sums_unpack(const struct block_sums *s, struct leaf_sums *to);
/* Only those whose bit is in `only` stay. */
void block_sums_keep(struct block_sums *s, const uint64_t *only);
void block_sums_free(struct slab *slab, uint32_t ref);

#endif
