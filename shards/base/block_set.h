/* block_set.h - a set of block numbers below a bound: a bitmap with summaries over it.
 *
 * Single-threaded. Level 0 holds a bit per member; a bit of level n+1 speaks of one 64-bit word of
 * level n. Three kinds of summary, kept exact by every change:
 *   any    the word below is not zero: finds members
 *   full   the word below is all ones: finds non-members
 *   busy   over the words of level 0 that are not zero, all ones again: finds empty words, that is
 *          long runs of non-members
 * so each search looks at a few words, wherever the answer lies. full and busy are only kept on
 * request. Zero bits beyond the bound are never members. All memory is one mapping made by init;
 * what was never touched costs nothing. */
#ifndef SHARDS_BASE_BLOCK_SET_H
#define SHARDS_BASE_BLOCK_SET_H

#include "shards/base/base.h"

#define BLOCK_SET_LEVELS 4
#define BLOCK_SET_NONE   UINT64_MAX

struct block_set {
  uint64_t bits;                    /* members are below this */
  uint64_t count;                   /* members */
  uint64_t words[BLOCK_SET_LEVELS]; /* of each level */
  uint64_t *any[BLOCK_SET_LEVELS];  /* [0]: the bitmap itself */
  uint64_t *full[BLOCK_SET_LEVELS]; /* [0] is any[0]; [1] NULL unless finds_clear */
  uint64_t *busy[BLOCK_SET_LEVELS]; /* [1] is any[1] */
  size_t ram_bytes;
};

/* finds_clear: keep what block_set_next_clear() and block_set_next_empty() need. -ENOMEM. */
int block_set_init(struct block_set *set, uint64_t bits, bool finds_clear);
void block_set_finish(struct block_set *set);

static inline bool block_set_test(const struct block_set *set, uint64_t bit) {
  return set->any[0][bit >> 6] >> (bit & 63) & 1;
}
/* Makes [first, first + n) members, or none of it. Return how many were not before / were. */
uint64_t block_set_add(struct block_set *set, uint64_t first, uint64_t n);
uint64_t block_set_remove(struct block_set *set, uint64_t first, uint64_t n);

/* Moves all members of from, whose bound is not larger, into set. Costs nothing if set was empty
 * and of the same shape; else as much as from has words. */
void block_set_take(struct block_set *set, struct block_set *from);
/* Removes all members of from from both. Every one must be a member of set (check). */
void block_set_subtract(struct block_set *set, struct block_set *from);

/* The first member, or non-member, at or after from; BLOCK_SET_NONE if there is none below the
 * bound. */
uint64_t block_set_next(const struct block_set *set, uint64_t from);
uint64_t block_set_next_clear(const struct block_set *set, uint64_t from);
/* Where the first run of non-members at or after from begins that holds 64 aligned ones: each run
 * of 127 or more does. Or BLOCK_SET_NONE. The run may be cut at `from`. */
uint64_t block_set_next_empty(const struct block_set *set, uint64_t from);
/* Where the first run of at least min (1 to 64) non-members begins, at or after from. Skips words
 * that members fill by the summaries, others at a nanosecond or two each. */
uint64_t block_set_next_clear_run(const struct block_set *set, uint64_t from, uint64_t min);
/* True if none of [first, first + n) is a member. Looks at these words alone. */
bool block_set_is_clear(const struct block_set *set, uint64_t first, uint64_t n);
static inline void block_set_prefetch(const struct block_set *set, uint64_t bit) {
  if (bit < set->bits) __builtin_prefetch(&set->any[0][bit >> 6], 1);
}
/* How many non-members follow each other from `from` on, at most max. */
uint64_t block_set_clear_run(const struct block_set *set, uint64_t from, uint64_t max);
/* Highest member + 1; 0 if there is none. */
uint64_t block_set_end(const struct block_set *set);

#endif
