/* space.h - free and used blocks of one region, in memory only.
 *
 * Single-threaded, owned by a shard. What is used is derived from the manifest at open.
 * A freed block goes through four sets before it can be allocated again:
 *
 *   open --space_seal()--> sealed --space_durable()--> ready --(no readers)--> free
 *
 * open: freed in the running epoch; sealed: freed in the epoch that is being flushed; ready:
 * that epoch's root is durable. Readers hold what they read: space_read_begin() returns a
 * generation, and blocks that were freed while a reader of it runs stay unusable until
 * space_read_end(). Memory: a few bits per block, all allocated by space_create(). */
#ifndef SHARDS_SPACE_H
#define SHARDS_SPACE_H

#include "shards/base/base.h"

struct extent {
  uint64_t block;
  uint64_t blocks;
};
struct space;

int space_create(struct space **s, uint64_t blocks);
void space_destroy(struct space *s);
/* More blocks at the end (grow). */
int space_grow(struct space *s, uint64_t blocks);

/* Recovery: marks as used; -EEXIST if any block of it already is, -ERANGE out of the region. */
int space_claim(struct space *s, uint64_t block, uint64_t blocks);
/* A hint to the caches: a claim there follows. */
void space_claim_prefetch(const struct space *s, uint64_t block);
/* Recovery: undoes a claim at once, without the sets. */
void space_unclaim(struct space *s, uint64_t block, uint64_t blocks);

/* Takes exactly `blocks` blocks as at most `max` extents, large ones first where there is a
 * choice; prefers one extent at the cursor (next fit). Returns the number of extents, or -ENOSPC
 * and takes nothing. below: 0, or only blocks under it (vacuum; first fit from the start). */
int space_alloc(struct space *s, uint64_t blocks, struct extent *extents, uint32_t max,
                uint64_t below);
/* Gives back what was allocated and never became visible: at once usable. */
void space_cancel(struct space *s, const struct extent *extents, uint32_t count);
/* Frees into the open set. */
void space_free(struct space *s, const struct extent *extents, uint32_t count);

void space_seal(struct space *s);    /* requires that the sealed set is empty (check) */
void space_durable(struct space *s); /* sealed becomes ready */
/* The flush failed: sealed joins open again. */
void space_unseal(struct space *s);

/* Two additions a read; inline for that. */
struct space_readers {
  uint64_t count[2]; /* by generation */
  uint32_t generation;
};
/* The last reader of the generation before has gone. */
void space_readers_gone(struct space *s);
static inline uint32_t space_read_begin(struct space *s) {
  struct space_readers *r = (struct space_readers *)s;
  r->count[r->generation]++;
  return r->generation;
}
static inline void space_read_end(struct space *s, uint32_t generation) {
  struct space_readers *r = (struct space_readers *)s;
  check(generation < 2 && r->count[generation] > 0);
  if (--r->count[generation] == 0 && unlikely(generation != r->generation)) space_readers_gone(s);
}
/* The same for who would rather not call: false: it has nothing to give back yet, or nobody but
 * space_read_end() can. */
static inline bool space_read_end_fast(struct space *s, uint32_t generation) {
  struct space_readers *r = (struct space_readers *)s;
  if (unlikely(generation != r->generation || r->count[generation] == 0)) return false;
  r->count[generation]--;
  return true;
}

/* How often blocks that were freed have become usable again. Any thread: who finds the same number
 * before it learned where something lay, and after it has read it, has read what lay there then. */
uint64_t space_reuses(const struct space *s);

uint64_t space_free_blocks(const struct space *s);
uint64_t space_pending_blocks(const struct space *s);
uint64_t space_total_blocks(const struct space *s);
bool space_is_used(const struct space *s, uint64_t block); /* used or pending */
/* Highest used block + 1. */
uint64_t space_end(const struct space *s);
/* First run of free blocks at or after block, of at most max blocks; 0 if none. */
uint64_t space_next_free(const struct space *s, uint64_t block, uint64_t max, struct extent *run);

#endif
