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
 * A table's version is odd while its array is changed. A reader on another thread would read
 * version, entry, version again (acquire fences between), under an epoch that retire() and the
 * release of details respect. */
#include "shards/index.h"
#include "shards/index_entry.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TABLE_BITS   6u /* of the hash's low 32, from the top */
#define TABLES       (1u << TABLE_BITS)
#define ORDER_BITS   (32u - TABLE_BITS)
#define LINE_BYTES   64u
#define PAGE_BYTES   4096u
#define PAGE_ENTRIES (PAGE_BYTES / sizeof(struct entry))
#define SLOTS_FIRST  8u
#define SLACK_MIN    4u /* slots behind the last home: 1/32, within these bounds */
#define SLACK_MAX    32u
#define SCAN_BLIND   12u /* slots that find compares by id alone before it hashes them */

/* At most 29 of 32 homes are taken; growth is by 1/10. So the load is between 0.82 and 0.9: at
 * most 39 bytes an entry. A smaller step would save memory and make puts slower. */
#define LOAD_NUMERATOR   29u
#define LOAD_DENOMINATOR 32u
#define GROWTH_DIVISOR   10u

struct table {
  struct entry *entries;
  uint32_t slots; /* the last one is always empty */
  uint32_t homes;
  uint32_t count;
  uint32_t version; /* odd while it changes */
  void *block;      /* the memory that entries lies in */
};
struct index {
  struct table tables[TABLES];
  uint64_t key[2];
  uint32_t partition_count[INDEX_PARTITIONS];
  uint64_t count;
  uint64_t live_bytes;
  uint64_t table_bytes;
  struct slab slab;
};

int index_create(struct index **out, const uint64_t key[2]) {
  struct index *x = aligned_alloc(64, round_up(sizeof *x, 64));
  if (!x) return -ENOMEM;
  memset(x, 0, sizeof *x);
  memcpy(x->key, key, sizeof x->key);
  slab_init(&x->slab);
  *out = x;
  return 0;
}

/* Arrays of a page and more are mappings: a heap would keep the holes that growing arrays leave.
 * Smaller ones come from the heap, aligned by hand. All that is taken is counted. */
static bool new_array(struct index *x, struct table *t) {
  size_t bytes = (size_t)t->slots * sizeof(struct entry);
  if (bytes >= PAGE_BYTES) {
    t->block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                    -1, 0);
    if (t->block == MAP_FAILED) return false;
    t->entries = t->block;
    x->table_bytes += bytes;
  } else {
    t->block = malloc(bytes + LINE_BYTES);
    if (!t->block) return false;
    t->entries = (void *)round_up((uintptr_t)t->block, LINE_BYTES);
    memset(t->entries, 0, bytes);
    x->table_bytes += malloc_usable_size(t->block) + sizeof(size_t);
  }
  return true;
}

/* The one place where an array goes that readers may still look at. */
static void retire(struct index *x, const struct table *t) {
  size_t bytes = (size_t)t->slots * sizeof(struct entry);
  if (bytes == 0) return;
  if (bytes >= PAGE_BYTES) {
    x->table_bytes -= bytes;
    munmap(t->block, bytes);
  } else {
    x->table_bytes -= malloc_usable_size(t->block) + sizeof(size_t);
    free(t->block);
  }
}

void index_destroy(struct index *x) {
  if (!x) return;
  for (uint32_t i = 0; i < TABLES; i++) retire(x, &x->tables[i]);
  slab_finish(&x->slab);
  free(x);
}

static void change_begin(struct table *t) {
  __atomic_store_n(&t->version, t->version + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_RELEASE); /* the odd version is seen before any change */
}
static void change_end(struct table *t) {
  __atomic_store_n(&t->version, t->version + 1, __ATOMIC_RELEASE);
}

static uint32_t table_of(uint64_t hash) { return (uint32_t)hash >> ORDER_BITS; }
/* The bits by which a table is sorted, and where they want to be. */
static uint32_t order_of(uint64_t hash) { return (uint32_t)hash & ((1u << ORDER_BITS) - 1); }
static uint32_t order_of_entry(const struct index *x, const struct entry *e) {
  return order_of(hash_id(e->id, x->key));
}
static uint32_t home_of(uint32_t homes, uint32_t order) {
  return (uint32_t)((uint64_t)order * homes >> ORDER_BITS);
}

void index_prefetch(const struct index *x, uint64_t hash) {
  const struct table *t = &x->tables[table_of(hash)];
  /* As a number: the table may have no entries yet, and the end may be near. */
  uintptr_t line =
      (uintptr_t)t->entries + home_of(t->homes, order_of(hash)) * (uintptr_t)sizeof(struct entry);
  /* At these loads an entry lies three or four slots behind its home on average. */
  __builtin_prefetch((const void *)line);
  __builtin_prefetch((const void *)(line + 64));
  __builtin_prefetch((const void *)(line + 128));
}

/* The slot of id, or NULL. */
static struct entry *find_slot(const struct index *x, const struct table *t, uint64_t hash,
                               struct blob_id id) {
  if (t->count == 0) return NULL;
  uint32_t order = order_of(hash);
  struct entry *e = &t->entries[home_of(t->homes, order)];
  /* Mostly it is near: comparing is cheaper than hashing to see whether it could still come. */
  const struct entry *last = &t->entries[t->slots - 1];
  for (uint32_t i = 0; i < SCAN_BLIND && e < last; i++, e++) {
    if (e->id.lo == id.lo && e->id.hi == id.hi && entry_kind(e) != ENTRY_EMPTY) return e;
    if (entry_kind(e) == ENTRY_EMPTY) return NULL;
  }
  for (; entry_kind(e) != ENTRY_EMPTY && order_of_entry(x, e) <= order; e++)
    if (blob_id_equal(e->id, id)) return e;
  return NULL;
}

int index_find(const struct index *x, uint64_t hash, struct blob_id id, struct blob *blob) {
  const struct table *t = &x->tables[table_of(hash)];
  const struct entry *e = find_slot(x, t, hash, id);
  if (!e) return -ENOENT;
  entry_decode(&x->slab, e, blob);
  return 0;
}

static uint32_t homes_of(uint32_t slots) {
  return slots - (uint32_t)min_u64(max_u64(slots / 32, SLACK_MIN), SLACK_MAX);
}
static bool has_room(const struct table *t) {
  if (t->slots == 0) return false;
  /* An insert pushes the tail by one slot at most, and the last slot stays empty. */
  return t->count < (uint64_t)t->homes * LOAD_NUMERATOR / LOAD_DENOMINATOR &&
         entry_kind(&t->entries[t->slots - 2]) == ENTRY_EMPTY;
}
/* Whole cache lines, or whole pages where the array is mapped. */
static uint32_t next_slots(uint32_t slots) {
  if (slots == 0) return SLOTS_FIRST;
  uint64_t unit = slots * sizeof(struct entry) < PAGE_BYTES ? 2 : PAGE_ENTRIES;
  return (uint32_t)max_u64(round_down(slots + slots / GROWTH_DIVISOR, unit),
                           round_down(slots, unit) + unit);
}

/* Copies in order; false if the tail does not fit, which only chance or a flood of equal hashes
 * brings about. */
static bool copy_entries(const struct index *x, const struct table *t, struct entry *to,
                         uint32_t slots) {
  uint32_t homes = homes_of(slots), next = 0, left = t->count;
  for (const struct entry *e = t->entries; left > 0; e++) {
    if (entry_kind(e) == ENTRY_EMPTY) continue;
    uint32_t home = home_of(homes, order_of_entry(x, e));
    if (home > next) next = home;
    if (next >= slots - 1) return false;
    to[next++] = *e;
    left--;
  }
  return true;
}

/* Moves to an array of `slots`, or the next size that has room. */
static int grow(struct index *x, struct table *t, uint32_t slots) {
  struct table new = *t, old = *t;
  for (new.slots = slots;; new.slots = next_slots(new.slots)) {
    new.homes = homes_of(new.slots);
    if (!new_array(x, &new)) return -ENOMEM;
    if (copy_entries(x, t, new.entries, new.slots) && has_room(&new)) break;
    retire(x, &new);
    /* Far too large and still no room: a flood of equal hashes, which no size will spread. */
    if (new.slots > 4 * (uint64_t)t->count + 1024) return -ENOMEM;
  }
  change_begin(t);
  t->entries = new.entries;
  t->block = new.block;
  t->slots = new.slots;
  t->homes = new.homes;
  change_end(t);
  retire(x, &old);
  return 0;
}

int index_reserve_partition(struct index *x, uint32_t partition, uint64_t count) {
  check(partition < INDEX_PARTITIONS);
  struct table *t = &x->tables[partition * TABLES / INDEX_PARTITIONS];
  /* The neighbours in the table will be about as large; room for this one alone would have it
   * crowd into its quarter of the homes. */
  uint64_t expected = count * (INDEX_PARTITIONS / TABLES);
  uint64_t slots = expected * LOAD_DENOMINATOR / LOAD_NUMERATOR * 33 / 32 + SLOTS_FIRST;
  slots = round_up(slots, slots * sizeof(struct entry) < PAGE_BYTES ? 2 : PAGE_ENTRIES);
  if (slots > UINT32_MAX / 2) return -ENOMEM;
  return slots <= t->slots ? 0 : grow(x, t, (uint32_t)slots);
}

int index_reserve(struct index *x, uint64_t hash, uint32_t extents, uint32_t granules) {
  check(extents <= BLOB_EXTENTS_MAX);
  check(granules <= BLOB_GRANULES_MAX);
  struct table *t = &x->tables[table_of(hash)];
  if (unlikely(!has_room(t))) {
    int rc = grow(x, t, next_slots(t->slots));
    if (rc < 0) return rc;
  }
  if (extents <= 1 && granules <= 1) return 0; /* fits into the entry */
  return slab_reserve(&x->slab, entry_detail_bytes_max(extents, granules));
}

/* Puts an entry that is not there yet to its place in the order. */
static void insert(const struct index *x, struct table *t, uint64_t hash, const struct entry *new) {
  uint32_t order = order_of(hash);
  struct entry *at = &t->entries[home_of(t->homes, order)];
  while (entry_kind(at) != ENTRY_EMPTY && order_of_entry(x, at) <= order) at++;
  struct entry *end = at;
  while (entry_kind(end) != ENTRY_EMPTY) end++;
  change_begin(t);
  memmove(at + 1, at, (size_t)(end - at) * sizeof *at);
  *at = *new;
  change_end(t);
}

int index_put(struct index *x, uint64_t hash, const struct blob *blob) {
  struct table *t = &x->tables[table_of(hash)];
  struct entry *at = find_slot(x, t, hash, blob->id), new;
  if (!at && !has_room(t)) return -ENOMEM;
  int rc = entry_encode(&x->slab, blob, &new);
  if (rc < 0) return rc;
  if (at) {
    struct entry old = *at;
    change_begin(t);
    *at = new;
    change_end(t);
    x->live_bytes -= entry_bytes(&old);
    entry_release(&x->slab, &old);
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
  struct table *t = &x->tables[table_of(hash)];
  struct entry *at = find_slot(x, t, hash, id);
  if (!at) return -ENOENT;
  struct entry old = *at;
  /* those behind that were pushed away from home move up by one */
  struct entry *end = at + 1;
  while (entry_kind(end) != ENTRY_EMPTY &&
         &t->entries[home_of(t->homes, order_of_entry(x, end))] < end)
    end++;
  change_begin(t);
  memmove(at, at + 1, (size_t)(end - at - 1) * sizeof *at);
  memset(end - 1, 0, sizeof *at);
  change_end(t);
  t->count--;
  x->partition_count[index_partition_of(hash)]--;
  x->count--;
  x->live_bytes -= entry_bytes(&old);
  entry_release(&x->slab, &old);
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
  const struct table *t = &x->tables[table_of(low)];
  if (!t->entries) return 0;
  const struct entry *e = t->entries + home_of(t->homes, order_of(low));
  for (uint64_t left = x->partition_count[partition]; left > 0; e++) {
    if (entry_kind(e) == ENTRY_EMPTY) continue;
    uint64_t hash = hash_id(e->id, x->key);
    if (index_partition_of(hash) != partition) continue; /* pushed here from the one before */
    struct blob blob;
    entry_decode(&x->slab, e, &blob);
    int rc = visit(arg, hash, &blob);
    if (rc != 0) return rc;
    left--;
  }
  return 0;
}
