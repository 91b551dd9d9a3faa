/* index_find.h - private to the index and to the path of reads: the tables, and the lookup inline.
 * Owned by the shard's core; see index.c for how a table is laid out. */
#ifndef SHARDS_INDEX_FIND_H
#define SHARDS_INDEX_FIND_H

#include "shards/base/readers.h"
#include "shards/index_slot.h"

#define TABLE_BITS 6u /* of the hash's low 32, from the top */
#define TABLES     (1u << TABLE_BITS)
#define ORDER_BITS (32u - TABLE_BITS)
/* A table has so many slots and more from each home on, so that a look at the first ones needs to
 * know nothing of where it ends; that one by half of the id alone: an empty slot has all zeros. */
#define SLACK_MIN  8u
#define SCAN_BLIND 12u /* slots that are compared by id alone before they are hashed */

struct index_table {
  struct index_slot *entries; /* never NULL: the first table of all is one empty slot */
  uint32_t slots;             /* the last one is always empty */
  uint32_t homes;
  uint32_t count;
  uint32_t version; /* odd while it changes */
  void *block;      /* the memory that entries lies in */
};
struct index {
  struct index_table tables[TABLES];
  uint64_t key[2];
  uint32_t partition_count[INDEX_PARTITIONS];
  uint64_t count;
  uint64_t live_bytes;
  uint64_t table_bytes;
  struct slab slab;
  struct retired *retired;
  struct readers readers; /* on other threads: index_look() */
};

static inline uint32_t table_of(uint64_t hash) { return (uint32_t)hash >> ORDER_BITS; }
/* The bits by which a table is sorted, and where they want to be. */
static inline uint32_t order_of(uint64_t hash) { return (uint32_t)hash & ((1u << ORDER_BITS) - 1); }
static inline uint32_t home_of(uint32_t homes, uint32_t order) {
  return (uint32_t)((uint64_t)order * homes >> ORDER_BITS);
}

/* The rest of index_slot(): hashes, to see whether it could still come. */
struct index_slot *index_find_farther(const struct index *x, struct index_slot *e, uint32_t order,
                                      struct blob_id id);

static inline struct index_slot *index_home(const struct index *x, uint64_t hash) {
  const struct index_table *t = &x->tables[table_of(hash)];
  return &t->entries[home_of(t->homes, order_of(hash))];
}
/* The slot of id if it is where most are; NULL: it may be farther on, or not there. */
static inline const struct index_slot *index_near(const struct index *x, uint64_t hash,
                                                  struct blob_id id) {
  const struct index_slot *e = index_home(x, hash), *far = e + SLACK_MIN;
  while (e->id.lo != id.lo)
    if (++e == far) return NULL;
  return likely(e->id.hi == id.hi && slot_kind(e) != SLOT_EMPTY) ? e : NULL;
}
/* The slot of id, or NULL. Mostly it is near: comparing is cheaper than hashing. */
static inline struct index_slot *index_slot(const struct index *x, uint64_t hash,
                                            struct blob_id id) {
  struct index_slot *e = index_home(x, hash);
  for (const struct index_slot *far = e + SCAN_BLIND; e != far; e++) {
    if (slot_kind(e) == SLOT_EMPTY) return NULL;
    if (e->id.lo == id.lo && e->id.hi == id.hi) return e;
  }
  return index_find_farther(x, e, order_of(hash), id);
}

/* A hint to the caches: call for a batch, then look. */
static inline void index_prefetch(const struct index *x, uint64_t hash) {
  uintptr_t line = (uintptr_t)index_home(x, hash); /* as a number: the end may be near */
  /* At these loads an entry lies three or four slots behind its home on average. */
  __builtin_prefetch((const void *)line);
  __builtin_prefetch((const void *)(line + 64));
  __builtin_prefetch((const void *)(line + 128));
}

#endif
