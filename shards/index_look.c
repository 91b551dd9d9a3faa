/* index_look.c - looking up beside the owner: index_look(), for any thread. See index.c for the
 * layout and for what keeps memory in its place meanwhile. Whatever is read here may be changing:
 * so every loop has an end that does not depend on it, and references are followed only once the
 * version has said that they are whole. */
#include <errno.h>

#include "shards/base/watched.h"
#include "shards/index_find.h"

#define LOOKS_MAX 64u
_Static_assert(INDEX_READERS_MAX == READERS_MAX, "a place for each");

/* As index_slot(). Never beyond the last slot, which nobody fills. */
static bool find_slot(const struct index_slot *entries, uint32_t home, uint32_t slots,
                      struct blob_id id, struct index_slot *found) {
  for (uint32_t i = home; i + 1 < slots; i++) {
    const struct index_slot *e = &entries[i];
    found->where = watched_word(&e->where);
    if (slot_kind(found) == SLOT_EMPTY) return false;
    if (watched_word(&e->id.lo) != id.lo || watched_word(&e->id.hi) != id.hi) continue;
    found->rest = watched_word(&e->rest);
    found->id = id;
    return true;
  }
  return false;
}

/* Where the range begins; its blocks must follow in a row. */
static bool find_blocks(const struct blob *b, struct index_look *look) {
  uint64_t block = look->start >> BLOCK_SHIFT, blocks = (look->end - look->start) >> BLOCK_SHIFT;
  for (uint32_t i = 0; i < b->extent_count; i++) {
    uint64_t length = watched_word(&b->extents[i].blocks);
    if (block < length) {
      look->block = watched_word(&b->extents[i].block) + block;
      return blocks <= length - block;
    }
    block -= length;
  }
  return false;
}

static int look_at(const struct index *x, const struct index_slot *e, uint64_t offset,
                   uint64_t bytes, struct index_look *look) {
  struct blob b;
  slot_decode(&x->slab, e, &b);
  look->bytes = b.bytes;
  look->start = look->end = 0;
  if (offset >= b.bytes || bytes == 0) return 0;
  look->shift = b.granule_count ? b.granule_shift : 0;
  uint64_t unit = look->shift ? UINT64_C(1) << look->shift : BLOCK_BYTES;
  uint64_t end = round_up(offset + min_u64(bytes, b.bytes - offset), unit);
  look->start = round_down(offset, unit);
  look->end = min_u64(end, round_up(b.bytes, BLOCK_BYTES));
  if (look->end - look->start > INDEX_LOOK_BYTES || !find_blocks(&b, look)) return -EAGAIN;
  if (!look->shift) return 0;
  const uint32_t *sums = b.checksums + (look->start >> look->shift);
  uint64_t count = div_up(look->end - look->start, unit);
  for (uint64_t i = 0; i < count; i++) look->sums[i] = watched_half(&sums[i]);
  return 0;
}

/* -EBUSY: it changed meanwhile. */
static int look_once(const struct index *x, uint64_t hash, struct blob_id id, uint64_t offset,
                     uint64_t bytes, struct index_look *look) {
  const struct index_table *t = &x->tables[table_of(hash)];
  uint32_t version = watched_half(&t->version);
  const struct index_slot *entries = __atomic_load_n(&t->entries, __ATOMIC_ACQUIRE);
  uint32_t slots = watched_half(&t->slots), homes = watched_half(&t->homes);
  struct index_slot e;
  if (version & 1 || watched_half(&t->version) != version) return -EBUSY;
  bool found = find_slot(entries, home_of(homes, order_of(hash)), slots, id, &e);
  if (watched_half(&t->version) != version) return -EBUSY;
  if (!found) return -ENOENT;
  int r = look_at(x, &e, offset, bytes, look);
  return watched_half(&t->version) == version ? r : -EBUSY;
}

int index_look(struct index *x, uint32_t reader, uint64_t hash, struct blob_id id, uint64_t offset,
               uint64_t bytes, struct index_look *look) {
  int r = -EBUSY;
  readers_enter(&x->readers, reader);
  for (uint32_t i = 0; i < LOOKS_MAX && r == -EBUSY; i++)
    r = look_once(x, hash, id, offset, bytes, look);
  readers_leave(&x->readers, reader);
  return r == -EBUSY ? -EAGAIN : r;
}
