/* index_find.h - private to the index and to the path of reads: the tables, and the lookup inline.
 * Owned by the shard's core; see index.c for how a table is laid out. */
#ifndef SHARDS_INDEX_FIND_H
#define SHARDS_INDEX_FIND_H

#include "shards/base/readers.h"
#include "shards/index_slot.h"

#ifdef __x86_64__
#include <emmintrin.h>
#endif

#define TABLE_BITS 6u /* of the hash's low 32, from the top */
#define TABLES     (1u << TABLE_BITS)
#define ORDER_BITS (32u - TABLE_BITS)
/* A lookup takes so many tags together, from a home on. A table has as many slots from each home
 * on, so that it needs to know nothing of where the table ends. */
#define TAGS_AT_ONCE 16u

struct index_table {
  struct index_slot *entries; /* never NULL: the first table of all is one empty slot */
  uint8_t *tags;              /* one for each slot, the owner's alone; of empty ones 0 */
  uint32_t slots;             /* the last one is always empty */
  uint32_t homes;
  uint32_t count;
  uint32_t version; /* odd while it changes */
};
/* What the last prefetches found, by bits of the hash: the lookups that follow find it there. A
 * batch should fit several times; more would push other things out of the nearest cache. */
#define NOTED 1024u

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
  /* The owner's alone, never NULL. Pointers into tables, to slots that may have become another
   * blob's or empty: the id tells. */
  const struct index_slot *noted[NOTED];
};

static inline uint32_t note_of(uint64_t hash) { return (uint32_t)hash & (NOTED - 1); }
static inline uint32_t table_of(uint64_t hash) { return (uint32_t)hash >> ORDER_BITS; }
/* The bits by which a table is sorted, and where they want to be. */
static inline uint32_t order_of(uint64_t hash) { return (uint32_t)hash & ((1u << ORDER_BITS) - 1); }
static inline uint32_t home_of(uint32_t homes, uint32_t order) {
  return (uint32_t)((uint64_t)order * homes >> ORDER_BITS);
}

/* Of bits by which nothing is sorted, so that neighbours differ in them. 0 is of empty slots. */
static inline uint8_t tag_of(uint64_t hash) {
  uint8_t tag = (uint8_t)(hash >> 32);
  return tag ? tag : 1;
}
#ifdef __x86_64__
/* Bit i: tags[i] is tag_of(hash), of the first TAGS_AT_ONCE. */
static inline uint32_t tags_equal(const uint8_t *tags, uint64_t hash) {
  __m128i all = _mm_loadu_si128((const __m128i *)(const void *)tags);
  __m128i tag = _mm_cvtsi64_si128((long long)hash);
  tag = _mm_shufflehi_epi16(_mm_unpacklo_epi8(tag, tag), 0); /* bytes 8 to 15 are byte 4 now */
  tag = _mm_max_epu8(_mm_shuffle_epi32(tag, 0xff), _mm_set1_epi8(1));
  return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(all, tag));
}
/* Bit i: the slot of tags[i] is empty. */
static inline uint32_t tags_empty(const uint8_t *tags) {
  __m128i all = _mm_loadu_si128((const __m128i *)(const void *)tags);
  return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_setzero_si128()));
}
#else
static inline uint32_t tags_equal(const uint8_t *tags, uint64_t hash) {
  uint32_t equal = 0;
  for (uint32_t i = 0; i < TAGS_AT_ONCE; i++) equal |= (uint32_t)(tags[i] == tag_of(hash)) << i;
  return equal;
}
static inline uint32_t tags_empty(const uint8_t *tags) {
  uint32_t empty = 0;
  for (uint32_t i = 0; i < TAGS_AT_ONCE; i++) empty |= (uint32_t)(tags[i] == 0) << i;
  return empty;
}
#endif

/* The slot of id if index_prefetch() was called of it lately; else any. May be empty. */
static inline const struct index_slot *index_noted(const struct index *x, uint64_t hash) {
  return x->noted[note_of(hash)];
}
/* The slot of id if it is where nearly all are, else NULL. */
static inline const struct index_slot *index_near(const struct index *x, uint64_t hash,
                                                  struct blob_id id) {
  const struct index_table *t = &x->tables[table_of(hash)];
  uint32_t home = home_of(t->homes, order_of(hash));
  for (uint32_t equal = tags_equal(t->tags + home, hash); equal; equal &= equal - 1) {
    const struct index_slot *e = &t->entries[home + (uint32_t)__builtin_ctz(equal)];
    if (likely(e->id.lo == id.lo && e->id.hi == id.hi)) return e;
  }
  return NULL;
}
/* Notes it: false if it is not there. */
static inline bool index_note(struct index *x, uint64_t hash, struct blob_id id) {
  const struct index_slot *e = index_near(x, hash, id);
  if (e) x->noted[note_of(hash)] = e;
  return e != NULL;
}
/* The slot of id, or NULL. */
struct index_slot *index_slot(const struct index *x, uint64_t hash, struct blob_id id);

/* A hint to the caches: call for a batch, then look. The tags are few enough to be near.
 * always_inline: as a function of its own it has no effect that a compiler knows of. */
__attribute__((always_inline)) static inline void index_prefetch(const struct index *x,
                                                                 uint64_t hash) {
  const struct index_table *t = &x->tables[table_of(hash)];
  uint32_t home = home_of(t->homes, order_of(hash));
  uint32_t equal = tags_equal(t->tags + home, hash);
  uintptr_t line = (uintptr_t)&t->entries[home]; /* as a number: the end may be near */
  if (likely(equal)) {
    const struct index_slot *e = &t->entries[home + (uint32_t)__builtin_ctz(equal)];
    __builtin_prefetch(e);
    /* A hint, no part of what the index says: for the owner it is as good as constant. */
    ((struct index *)(uintptr_t)x)->noted[note_of(hash)] = e;
    return;
  }
  /* Most likely a new one: it goes behind those of its home, which lie three or four slots on. */
  __builtin_prefetch((const void *)line);
  __builtin_prefetch((const void *)(line + 64));
  __builtin_prefetch((const void *)(line + 128));
}

/* The same for one that most likely is not there: waits for nothing, notes nothing. */
__attribute__((always_inline)) static inline void index_prefetch_new(const struct index *x,
                                                                     uint64_t hash) {
  const struct index_table *t = &x->tables[table_of(hash)];
  uint32_t home = home_of(t->homes, order_of(hash));
  uintptr_t line = (uintptr_t)&t->entries[home];
  __builtin_prefetch(t->tags + home, 1);
  __builtin_prefetch((const void *)line, 1);
  __builtin_prefetch((const void *)(line + 64), 1);
  __builtin_prefetch((const void *)(line + 128), 1);
}

#endif
