/* index.c - see index.h. Written by the owning core alone.
 *
 * Each partition is one array of entries, sorted by the low 24 bits of the hash. An entry's home is
 * those bits scaled to the number of homes; it lies there or, pushed by others, a little behind,
 * never before, with no empty slot between (linear probing, Robin Hood order). Nothing wraps: some
 * slots lie behind the last home, and the very last slot is always empty. Because scaling keeps
 * the order, growth is one pass from the old array to the new one, so the steps can be small and
 * the load high.
 *
 * A partition's version is odd while its array is changed. A reader on another thread would read
 * version, entry, version again (acquire fences between), under an epoch that retire() respects. */
#include "shards/index.h"
#include "shards/index_entry.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES   4096u
#define PAGE_ENTRIES (PAGE_BYTES / sizeof(struct entry))
#define SLOTS_FIRST  8u
#define SLACK_MIN    4u /* slots behind the last home: 1/32, within these bounds */
#define SLACK_MAX    32u
#define MAPPED_BYTES                                                                               \
  65536u               /* arrays from here on are mappings, smaller ones come from the heap        \
                        */
#define SCAN_BLIND 12u /* slots that find compares by id alone before it hashes them */

/* At most 29 of 32 homes are taken; growth is by 1/16. So the load is between 0.83 and 0.9. */
#define LOAD_NUMERATOR   29u
#define LOAD_DENOMINATOR 32u
#define GROWTH_SHIFT     4

struct partition {
  struct entry *entries;
  uint32_t slots; /* the last one is always empty */
  uint32_t homes;
  uint32_t count;
  uint32_t version; /* odd while it changes */
  uint64_t unused;  /* 32 bytes: two in a cache line */
};
struct index {
  struct partition partitions[INDEX_PARTITIONS];
  uint64_t key[2];
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

/* What an array of so many slots takes, honestly: a mapping as it is, a heap block with its
 * header and what alignment loses. */
static uint64_t array_ram(const struct entry *entries, uint32_t slots) {
  uint64_t bytes = (uint64_t)slots * sizeof(struct entry);
  return bytes >= MAPPED_BYTES || !entries ? bytes
                                           : malloc_usable_size((void *)(uintptr_t)entries) + 8;
}

static struct entry *new_array(struct index *x, uint32_t slots) {
  size_t bytes = (size_t)slots * sizeof(struct entry);
  struct entry *entries;
  if (bytes >= MAPPED_BYTES) {
    entries = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (entries == MAP_FAILED) return NULL;
  } else {
    entries = aligned_alloc(64, bytes);
    if (!entries) return NULL;
    memset(entries, 0, bytes);
  }
  x->table_bytes += array_ram(entries, slots);
  return entries;
}

/* The one place where an array goes that readers may still look at. */
static void retire(struct index *x, struct entry *entries, uint32_t slots) {
  size_t bytes = (size_t)slots * sizeof(struct entry);
  x->table_bytes -= array_ram(entries, slots);
  if (bytes >= MAPPED_BYTES)
    munmap(entries, bytes);
  else
    free(entries);
}

void index_destroy(struct index *x) {
  if (!x) return;
  for (uint32_t i = 0; i < INDEX_PARTITIONS; i++)
    retire(x, x->partitions[i].entries, x->partitions[i].slots);
  slab_finish(&x->slab);
  free(x);
}

static void change_begin(struct partition *p) {
  __atomic_store_n(&p->version, p->version + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_RELEASE); /* the odd version is seen before any change */
}
static void change_end(struct partition *p) {
  __atomic_store_n(&p->version, p->version + 1, __ATOMIC_RELEASE);
}

/* The 24 bits by which a partition is sorted, and where they want to be. */
static uint32_t order_of(uint64_t hash) { return (uint32_t)hash & 0xffffff; }
static uint32_t order_of_entry(const struct index *x, const struct entry *e) {
  return order_of(hash_id(e->id, x->key));
}
static uint32_t home_of(uint32_t homes, uint32_t order) {
  return (uint32_t)((uint64_t)order * homes >> 24);
}

void index_prefetch(const struct index *x, uint64_t hash) {
  const struct partition *p = &x->partitions[index_partition_of(hash)];
  const char *line = (const char *)&p->entries[home_of(p->homes, order_of(hash))];
  /* At these loads an entry lies three or four slots behind its home on average. */
  __builtin_prefetch(line);
  __builtin_prefetch(line + 64);
  __builtin_prefetch(line + 128);
}

/* The slot of id, or NULL. */
static struct entry *find_slot(const struct index *x, const struct partition *p, uint64_t hash,
                               struct blob_id id) {
  if (p->count == 0) return NULL;
  uint32_t order = order_of(hash);
  struct entry *e = &p->entries[home_of(p->homes, order)];
  /* Mostly it is near: comparing is cheaper than hashing to see whether it could still come. */
  const struct entry *last = &p->entries[p->slots - 1];
  for (uint32_t i = 0; i < SCAN_BLIND && e < last; i++, e++) {
    if (e->id.lo == id.lo && e->id.hi == id.hi && entry_kind(e) != ENTRY_EMPTY) return e;
    if (entry_kind(e) == ENTRY_EMPTY) return NULL;
  }
  for (; entry_kind(e) != ENTRY_EMPTY && order_of_entry(x, e) <= order; e++)
    if (blob_id_equal(e->id, id)) return e;
  return NULL;
}

int index_find(const struct index *x, uint64_t hash, struct blob_id id, struct blob *blob) {
  const struct partition *p = &x->partitions[index_partition_of(hash)];
  const struct entry *e = find_slot(x, p, hash, id);
  if (!e) return -ENOENT;
  entry_decode(&x->slab, e, blob);
  return 0;
}

static uint32_t homes_of(uint32_t slots) {
  return slots - (uint32_t)min_u64(max_u64(slots / 32, SLACK_MIN), SLACK_MAX);
}
static bool has_room(const struct partition *p) {
  if (p->slots == 0) return false;
  /* An insert pushes the tail by one slot at most, and the last slot stays empty. */
  return p->count < (uint64_t)p->homes * LOAD_NUMERATOR / LOAD_DENOMINATOR &&
         entry_kind(&p->entries[p->slots - 2]) == ENTRY_EMPTY;
}
/* Whole cache lines, or whole pages where the array is mapped. */
static uint32_t next_slots(uint32_t slots) {
  if (slots == 0) return SLOTS_FIRST;
  uint64_t unit = slots * sizeof(struct entry) < MAPPED_BYTES ? 2 : PAGE_ENTRIES;
  return (uint32_t)max_u64(round_down(slots + (slots >> GROWTH_SHIFT), unit),
                           round_down(slots, unit) + unit);
}

/* Copies in order; false if the tail does not fit, which only chance or a flood of equal hashes
 * brings about. */
static bool copy_entries(const struct index *x, const struct partition *p, struct entry *to,
                         uint32_t slots) {
  uint32_t homes = homes_of(slots), next = 0, left = p->count;
  for (const struct entry *e = p->entries; left > 0; e++) {
    if (entry_kind(e) == ENTRY_EMPTY) continue;
    uint32_t home = home_of(homes, order_of_entry(x, e));
    if (home > next) next = home;
    if (next >= slots - 1) return false;
    to[next++] = *e;
    left--;
  }
  return true;
}

static int grow(struct index *x, struct partition *p) {
  struct partition new = *p;
  do {
    /* Far too large and still no room: a flood of equal hashes, which no size will spread. */
    if (new.slots > 4 * (uint64_t)p->count + 1024) return -ENOMEM;
    new.slots = next_slots(new.slots);
    new.homes = homes_of(new.slots);
    new.entries = new_array(x, new.slots);
    if (!new.entries) return -ENOMEM;
    if (copy_entries(x, p, new.entries, new.slots) && has_room(&new)) break;
    retire(x, new.entries, new.slots);
  } while (true);
  struct entry *old = p->entries;
  uint32_t old_slots = p->slots;
  change_begin(p);
  p->entries = new.entries;
  p->slots = new.slots;
  p->homes = new.homes;
  change_end(p);
  retire(x, old, old_slots);
  return 0;
}

int index_reserve(struct index *x, uint64_t hash, uint32_t extents, uint32_t granules) {
  check(extents <= BLOB_EXTENTS_MAX);
  check(granules <= BLOB_GRANULES_MAX);
  struct partition *p = &x->partitions[index_partition_of(hash)];
  if (unlikely(!has_room(p))) {
    int rc = grow(x, p);
    if (rc < 0) return rc;
  }
  if (extents <= 1 && granules <= 1) return 0; /* fits into the entry */
  return slab_reserve(&x->slab, entry_detail_bytes_max(extents, granules));
}

/* Puts an entry that is not there yet to its place in the order. */
static void insert(const struct index *x, struct partition *p, uint64_t hash,
                   const struct entry *new) {
  uint32_t order = order_of(hash);
  struct entry *at = &p->entries[home_of(p->homes, order)];
  while (entry_kind(at) != ENTRY_EMPTY && order_of_entry(x, at) <= order) at++;
  struct entry *end = at;
  while (entry_kind(end) != ENTRY_EMPTY) end++;
  change_begin(p);
  memmove(at + 1, at, (size_t)(end - at) * sizeof *at);
  *at = *new;
  change_end(p);
}

int index_put(struct index *x, uint64_t hash, const struct blob *blob) {
  struct partition *p = &x->partitions[index_partition_of(hash)];
  struct entry *at = find_slot(x, p, hash, blob->id), new;
  if (!at && !has_room(p)) return -ENOMEM;
  int rc = entry_encode(&x->slab, blob, &new);
  if (rc < 0) return rc;
  if (at) {
    struct entry old = *at;
    change_begin(p);
    *at = new;
    change_end(p);
    x->live_bytes -= entry_bytes(&old);
    entry_release(&x->slab, &old);
  } else {
    insert(x, p, hash, &new);
    p->count++;
    x->count++;
  }
  x->live_bytes += blob->bytes;
  return 0;
}

int index_delete(struct index *x, uint64_t hash, struct blob_id id) {
  struct partition *p = &x->partitions[index_partition_of(hash)];
  struct entry *at = find_slot(x, p, hash, id);
  if (!at) return -ENOENT;
  struct entry old = *at;
  /* those behind that were pushed away from home move up by one */
  struct entry *end = at + 1;
  while (entry_kind(end) != ENTRY_EMPTY &&
         &p->entries[home_of(p->homes, order_of_entry(x, end))] < end)
    end++;
  change_begin(p);
  memmove(at, at + 1, (size_t)(end - at - 1) * sizeof *at);
  memset(end - 1, 0, sizeof *at);
  change_end(p);
  p->count--;
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
  return x->partitions[partition].count;
}

int index_partition_visit(const struct index *x, uint32_t partition,
                          int (*visit)(void *arg, uint64_t hash, const struct blob *blob),
                          void *arg) {
  check(partition < INDEX_PARTITIONS);
  const struct partition *p = &x->partitions[partition];
  uint64_t left = p->count;
  for (const struct entry *e = p->entries; left > 0; e++) {
    if (entry_kind(e) == ENTRY_EMPTY) continue;
    struct blob blob;
    entry_decode(&x->slab, e, &blob);
    int rc = visit(arg, hash_id(e->id, x->key), &blob);
    if (rc != 0) return rc;
    left--;
  }
  return 0;
}
