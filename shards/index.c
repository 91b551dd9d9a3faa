/* index.c - see index.h. Written by the owning core alone.
 *
 * TABLES arrays of entries, each for four neighbouring partitions: enough that a growth is short,
 * few enough that whole pages waste little. An array is sorted by the low 26 bits of the hash. An
 * entry's home is those bits scaled to the number of homes; it lies there or, pushed by others, a
 * little behind, never before, with no empty slot between (linear probing, Robin Hood order).
 * Nothing wraps: some slots lie behind the last home, and the very last slot is always empty.
 * Because scaling keeps the order, growth is one pass from the old array to the new one, so the
 * steps can be small and the load high; and a partition is one stretch of its table.
 *
 * Behind the slots of an array lie their tags, a byte of the hash for each: the owner compares many
 * at once and touches one slot, not all from the home on. Readers on other threads do without. What
 * a prefetch has found is noted for the lookup that follows (`noted`); as notes are pointers into
 * arrays, all are forgotten when one is replaced.
 *
 * A table's version is odd while its array is changed (watched.h). A reader on another thread
 * (index_look.c) reads version, entry, version again, and, if the entry leads into the slab, that
 * and the version once more. What it may still look at stays where it is: arrays until it has gone
 * (readers.h), the slab's memory for ever. */
#include "shards/base/watched.h"
#include "shards/index_find.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINE_BYTES  64u
#define PAGE_BYTES  4096u
#define SLOT_BYTES  (sizeof(struct index_slot) + 1) /* and its tag */
#define SLOTS_FIRST 24u
/* Slots behind the last home: 1/32, within these. */
#define SLACK_MIN TAGS_AT_ONCE
#define SLACK_MAX 32u

/* At most 29 of 32 homes are taken; growth is by 1/10. So the load is between 0.82 and 0.9: at
 * most 40 bytes an entry. A smaller step would save memory and make puts slower. */
#define LOAD_NUMERATOR   29u
#define LOAD_DENOMINATOR 32u
#define GROWTH_DIVISOR   10u

/* Where a lookup that no tag has helped begins to hash: most that lie there are later in the order,
 * and it is in a line that was prefetched. */
#define LOOK_FROM 4u

/* Where a table begins: nothing is ever written to it, as it has no room. */
static const struct index_slot nothing[TAGS_AT_ONCE];
static const uint8_t no_tags[TAGS_AT_ONCE];

static uint32_t order_of_entry(const struct index *x, const struct index_slot *e) {
  return order_of(hash_id(e->id, x->key));
}

static void forget_noted(struct index *x) {
  for (uint32_t i = 0; i < NOTED; i++) x->noted[i] = nothing;
}

int index_create(struct index **out, const uint64_t key[2]) {
  struct index *x = aligned_alloc(64, round_up(sizeof *x, 64));
  if (!x) return -ENOMEM;
  memset(x, 0, sizeof *x);
  memcpy(x->key, key, sizeof x->key);
  slab_init(&x->slab);
  readers_init(&x->readers);
  for (uint32_t i = 0; i < TABLES; i++)
    x->tables[i] = (struct index_table){.entries = (struct index_slot *)(uintptr_t)nothing,
                                        .tags = (uint8_t *)(uintptr_t)no_tags,
                                        .homes = 1};
  forget_noted(x);
  *out = x;
  return 0;
}

/* Of an array: the slots, then the tags. */
static uint64_t array_needs(uint64_t slots) { return slots * SLOT_BYTES; }
static uint64_t array_bytes(uint64_t slots) {
  uint64_t bytes = array_needs(slots);
  return round_up(bytes, bytes < PAGE_BYTES ? LINE_BYTES : PAGE_BYTES);
}

/* Arrays of a page and more are mappings: a heap would keep the holes that growing arrays leave.
 * All that is taken is counted. */
static bool new_array(struct index *x, struct index_table *t) {
  size_t bytes = array_bytes(t->slots);
  void *block;
  if (bytes >= PAGE_BYTES) {
    block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                 -1, 0);
    if (block == MAP_FAILED) return false;
    x->table_bytes += bytes;
  } else {
    block = aligned_alloc(LINE_BYTES, bytes);
    if (!block) return false;
    memset(block, 0, bytes);
    x->table_bytes += malloc_usable_size(block) + sizeof(size_t);
  }
  t->entries = block;
  t->tags = (uint8_t *)(t->entries + t->slots);
  return true;
}

/* An array that readers may still look at; lies in its first slot. */
struct retired {
  uint64_t next, tag, bytes; /* struct retired *, readers_tag(), of the array */
};
_Static_assert(sizeof(struct retired) <= sizeof(struct index_slot), "fits a slot");

static void free_array(struct index *x, void *block, size_t bytes) {
  if (bytes >= PAGE_BYTES) {
    x->table_bytes -= bytes;
    munmap(block, bytes);
  } else {
    x->table_bytes -= malloc_usable_size(block) + sizeof(size_t);
    free(block);
  }
}
static void free_table(struct index *x, const struct index_table *t) {
  if (t->slots) free_array(x, t->entries, array_bytes(t->slots));
}

static void free_retired(struct index *x, bool all) {
  struct retired *kept = NULL;
  for (struct retired *r = x->retired, *next; r; r = next) {
    next = (struct retired *)(uintptr_t)r->next;
    if (all || readers_passed(&x->readers, r->tag)) {
      free_array(x, r, r->bytes);
    } else {
      __atomic_store_n(&r->next, (uintptr_t)kept, __ATOMIC_RELAXED);
      kept = r;
    }
  }
  x->retired = kept;
}

/* The one place where an array goes that readers may still look at; they drop what they see of it
 * by now. It waits for those who do and for the next growth, if there are any. */
static void retire(struct index *x, const struct index_table *t) {
  if (t->slots == 0) return;
  const uint64_t words[] = {(uintptr_t)x->retired, readers_tag(&x->readers), array_bytes(t->slots)};
  watched_copy(t->entries, words, sizeof words);
  x->retired = (struct retired *)(void *)t->entries;
  free_retired(x, false);
}

void index_destroy(struct index *x) {
  if (!x) return;
  free_retired(x, true);
  for (uint32_t i = 0; i < TABLES; i++) free_table(x, &x->tables[i]);
  slab_finish(&x->slab);
  free(x);
}

static void change_begin(struct index_table *t) { watched_begin(&t->version); }
static void change_end(struct index_table *t) { watched_end(&t->version); }

static inline struct index_slot *find_slot(const struct index *x, uint64_t hash,
                                           struct blob_id id) {
  const struct index_table *t = &x->tables[table_of(hash)];
  const struct index_slot *near = index_near(x, hash, id);
  uint32_t order = order_of(hash), home = home_of(t->homes, order);
  if (near) return (struct index_slot *)(uintptr_t)near;
  /* It cannot lie behind an empty slot, nor behind one that is later in the order. */
  if (tags_empty(t->tags + home)) return NULL;
  struct index_slot *e = &t->entries[home + LOOK_FROM], *far = &t->entries[home + TAGS_AT_ONCE];
  for (; slot_kind(e) != SLOT_EMPTY && order_of_entry(x, e) <= order; e++)
    if (e >= far && blob_id_equal(e->id, id)) return e;
  return NULL;
}

struct index_slot *index_slot(const struct index *x, uint64_t hash, struct blob_id id) {
  return find_slot(x, hash, id);
}

int index_find(const struct index *x, uint64_t hash, struct blob_id id, struct blob *blob) {
  const struct index_slot *e = index_slot(x, hash, id);
  if (!e) return -ENOENT;
  slot_decode(&x->slab, e, blob);
  return 0;
}

static uint32_t homes_of(uint32_t slots) {
  return slots - (uint32_t)min_u64(max_u64(slots / 32, SLACK_MIN), SLACK_MAX);
}
static bool has_room(const struct index_table *t) {
  if (t->slots == 0) return false;
  /* An insert pushes the tail by one slot at most, and the last slot stays empty. */
  return t->count < (uint64_t)t->homes * LOAD_NUMERATOR / LOAD_DENOMINATOR &&
         slot_kind(&t->entries[t->slots - 2]) == SLOT_EMPTY;
}
/* At most so many, in whole cache lines, or whole pages where the array is mapped. */
static uint32_t whole(uint64_t slots) {
  if (array_bytes(slots) < PAGE_BYTES) return (uint32_t)round_down(slots, 2);
  uint64_t pages = max_u64(array_needs(slots) / PAGE_BYTES, 1);
  return (uint32_t)(pages * PAGE_BYTES / SLOT_BYTES);
}
/* The least step. */
static uint32_t whole_above(uint64_t slots) {
  return whole(slots + (array_bytes(slots) < PAGE_BYTES ? 2 : PAGE_BYTES / SLOT_BYTES + 2));
}
static uint32_t next_slots(uint32_t slots) {
  if (slots == 0) return SLOTS_FIRST;
  /* Below a page the steps are large: there is little to save. */
  uint32_t step = slots / (array_bytes(slots) < PAGE_BYTES ? 2 : GROWTH_DIVISOR);
  return (uint32_t)max_u64(whole((uint64_t)slots + step), whole_above(slots));
}

/* Copies in order; false if the tail does not fit, which only chance or a flood of equal hashes
 * brings about. */
static bool copy_entries(const struct index *x, const struct index_table *t,
                         const struct index_table *to) {
  /* All that it needs at hand: the stores might be to anything. */
  const struct index_table n = *to;
  const uint64_t key[2] = {x->key[0], x->key[1]};
  uint32_t next = 0, left = t->count;
  for (const struct index_slot *e = t->entries; left > 0; e++) {
    if (slot_kind(e) == SLOT_EMPTY) continue;
    uint64_t hash = hash_id(e->id, key);
    uint32_t home = home_of(n.homes, order_of(hash));
    if (home > next) next = home;
    if (next >= n.slots - 1) return false;
    n.tags[next] = tag_of(hash);
    n.entries[next++] = *e;
    left--;
  }
  return true;
}

/* Moves to an array of `slots`, or the next size that has room. */
static int grow(struct index *x, struct index_table *t, uint32_t slots) {
  struct index_table new = *t, old = *t;
  for (new.slots = slots;; new.slots = next_slots(new.slots)) {
    new.homes = homes_of(new.slots);
    if (!new_array(x, &new)) return -ENOMEM;
    if (copy_entries(x, t, &new) && has_room(&new)) break;
    free_table(x, &new);
    /* Far too large and still no room: a flood of equal hashes, which no size will spread. */
    if (new.slots > 4 * (uint64_t)t->count + 1024) return -ENOMEM;
  }
  change_begin(t);
  __atomic_store_n(&t->entries, new.entries, __ATOMIC_RELAXED);
  __atomic_store_n(&t->slots, new.slots, __ATOMIC_RELAXED);
  __atomic_store_n(&t->homes, new.homes, __ATOMIC_RELAXED);
  t->tags = new.tags;
  forget_noted(x);
  change_end(t);
  retire(x, &old);
  return 0;
}

int index_reserve_partition(struct index *x, uint32_t partition, uint64_t count) {
  check(partition < INDEX_PARTITIONS);
  struct index_table *t = &x->tables[partition * TABLES / INDEX_PARTITIONS];
  /* The neighbours in the table will be about as large; room for this one alone would have it
   * crowd into its quarter of the homes. */
  uint64_t expected = count * (INDEX_PARTITIONS / TABLES);
  uint64_t slots = expected * LOAD_DENOMINATOR / LOAD_NUMERATOR * 33 / 32 + SLOTS_FIRST;
  slots = whole_above(slots);
  if (slots > UINT32_MAX / 2) return -ENOMEM;
  return slots <= t->slots ? 0 : grow(x, t, (uint32_t)slots);
}

int index_reserve(struct index *x, uint64_t hash, uint32_t extents, uint32_t granules) {
  check(extents <= BLOB_EXTENTS_MAX);
  check(granules <= BLOB_GRANULES_MAX);
  struct index_table *t = &x->tables[table_of(hash)];
  if (unlikely(!has_room(t))) {
    int rc = grow(x, t, next_slots(t->slots));
    if (rc < 0) return rc;
  }
  if (extents <= 1 && granules <= 1) return 0; /* fits into the entry */
  return slab_reserve(&x->slab, slot_detail_bytes_max(extents, granules));
}

/* The first empty slot from there on: there is one. */
static inline uint32_t first_empty(const struct index_table *t, uint32_t from) {
  uint32_t empty = tags_empty(t->tags + from);
  if (likely(empty)) return from + (uint32_t)__builtin_ctz(empty);
  from += TAGS_AT_ONCE;
  const uint8_t *tag = memchr(t->tags + from, 0, t->slots - from);
  return (uint32_t)(tag - t->tags);
}

/* Puts an entry that is not there yet to its place in the order. */
static inline void insert(const struct index *x, struct index_table *t, uint64_t hash,
                          const struct index_slot *new) {
  uint32_t order = order_of(hash), home = home_of(t->homes, order);
  struct index_slot *end = &t->entries[first_empty(t, home)], *at = &t->entries[home];
  /* when loading in order it goes behind all */
  if (end > at && order_of_entry(x, end - 1) <= order) at = end;
  while (at < end && order_of_entry(x, at) <= order) at++;
  uint8_t *tag = t->tags + (at - t->entries);
  change_begin(t);
  if (end != at) {
    watched_move(at + 1, at, (size_t)(end - at) * sizeof *at);
    memmove(tag + 1, tag, (size_t)(end - at));
  }
  watched_copy(at, new, sizeof *at);
  change_end(t);
  *tag = tag_of(hash);
}

int index_put(struct index *x, uint64_t hash, const struct blob *blob) {
  struct index_table *t = &x->tables[table_of(hash)];
  struct index_slot *at = find_slot(x, hash, blob->id), new;
  if (!at && !has_room(t)) return -ENOMEM;
  int rc = slot_encode(&x->slab, blob, &new);
  if (rc < 0) return rc;
  if (at) {
    struct index_slot old = *at;
    change_begin(t);
    watched_copy(at, &new, sizeof *at);
    change_end(t);
    x->live_bytes -= slot_bytes(&old);
    slot_release(&x->slab, &old);
  } else {
    insert(x, t, hash, &new);
    t->count++;
    x->partition_count[index_partition_of(hash)]++;
    x->count++;
  }
  x->live_bytes += blob->bytes;
  return 0;
}

int index_delete(struct index *x, uint64_t hash, struct blob_id id) {
  struct index_table *t = &x->tables[table_of(hash)];
  struct index_slot *at = index_slot(x, hash, id);
  if (!at) return -ENOENT;
  struct index_slot old = *at;
  /* those behind that were pushed away from home move up by one */
  struct index_slot *end = at + 1;
  while (slot_kind(end) != SLOT_EMPTY &&
         &t->entries[home_of(t->homes, order_of_entry(x, end))] < end)
    end++;
  change_begin(t);
  watched_move(at, at + 1, (size_t)(end - at - 1) * sizeof *at);
  watched_copy(end - 1, &(struct index_slot){.where = 0}, sizeof *at);
  change_end(t);
  uint8_t *tag = t->tags + (at - t->entries);
  memmove(tag, tag + 1, (size_t)(end - at - 1));
  t->tags[end - 1 - t->entries] = 0;
  t->count--;
  x->partition_count[index_partition_of(hash)]--;
  x->count--;
  x->live_bytes -= slot_bytes(&old);
  slot_release(&x->slab, &old);
  return 0;
}

uint64_t index_count(const struct index *x) { return x->count; }
uint64_t index_live_bytes(const struct index *x) { return x->live_bytes; }
uint64_t index_ram_bytes(const struct index *x) {
  return sizeof *x + x->table_bytes + x->slab.mapped_bytes;
}

uint64_t index_partition_count(const struct index *x, uint32_t partition) {
  check(partition < INDEX_PARTITIONS);
  return x->partition_count[partition];
}

int index_partition_visit(const struct index *x, uint32_t partition,
                          int (*visit)(void *arg, uint64_t hash, const struct blob *blob),
                          void *arg) {
  check(partition < INDEX_PARTITIONS);
  uint32_t low = partition << 24; /* the lowest hash of the partition */
  const struct index_table *t = &x->tables[table_of(low)];
  if (t->count == 0) return 0;
  const struct index_slot *e = t->entries + home_of(t->homes, order_of(low));
  for (uint64_t left = x->partition_count[partition]; left > 0; e++) {
    if (slot_kind(e) == SLOT_EMPTY) continue;
    uint64_t hash = hash_id(e->id, x->key);
    if (index_partition_of(hash) != partition) continue; /* pushed here from the one before */
    struct blob blob;
    slot_decode(&x->slab, e, &blob);
    int rc = visit(arg, hash, &blob);
    if (rc != 0) return rc;
    left--;
  }
  return 0;
}
