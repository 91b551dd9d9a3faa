/* block_sums.h - checksums of the blocks of a leaf: which blocks have one, and CRC32C of each.
 *
 * Two forms. struct leaf_sums is for passing on, with a slot for each of the 1024 blocks.
 * struct block_sums is what is kept: a piece of a slab, 4 bytes for each sum and 168 for the leaf.
 * It is packed: sums of those blocks alone that have one; or spread, with a slot for each block, so
 * that blocks can get and lose theirs: for leaves that are written to. One that has all 1024 is
 * both. Single-threaded, owned by whoever owns the slab. */
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

/* Of a spread piece, for whoever changes it (map.h); all 0 in one that was packed. */
struct live_sums {
  uint64_t voided; /* ticket of the change that took the sums from the log; 0: long ago */
  uint64_t stamp;  /* of the last write; 0: none since it is spread */
  uint32_t turn;   /* when that was */
  bool hot;        /* log and checkpoints have none of them */
  bool unsaved;    /* they have not all of them */
};

struct block_sums {
  uint64_t has[SUMS_WORDS];
  union {
    uint16_t before[SUMS_WORDS]; /* packed: bits in the words before */
    struct live_sums live;       /* spread */
  };
  uint32_t room; /* sums that the piece was made for; SUMS_BLOCKS: spread */
  uint32_t sum[];
};
static inline bool block_sums_spread(const struct block_sums *s) { return s->room == SUMS_BLOCKS; }
static inline bool block_sums_has(const struct block_sums *s, uint32_t block) {
  return s->has[block / 64] >> block % 64 & 1;
}
/* Of a block that has one. */
static inline uint32_t block_sums_at(const struct block_sums *s, uint32_t block) {
  if (block_sums_spread(s)) return s->sum[block];
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
/* The same sums in a spread piece; from NULL: none. -ENOMEM. */
int block_sums_make_spread(struct slab *slab, const struct block_sums *from, uint32_t *ref);
void block_sums_unpack(const struct block_sums *s, struct leaf_sums *to);
/* Only those whose bit is in `only` stay. */
void block_sums_keep(struct block_sums *s, const uint64_t *only);
void block_sums_free(struct slab *slab, uint32_t ref);

#endif
