/* index_entry.h - private to the index: a blob in 32 bytes, and the details beside it.
 *
 * An entry is the id and two words:
 *
 *   where  bits 0-39 block (or extent count), 40-47 flags, 48-51 granule shift, 52-54 kind,
 *          55-63 bits 32-40 of the size in bytes
 *   rest   bits 0-31 the checksum, or a reference into the slab, 32-63 bits 0-31 of the size
 *
 * kind         extents                         checksums
 * ENTRY_EMPTY  the slot holds nothing
 * ENTRY_ONE    one, its length is the size's   one, here
 * ENTRY_BARE   none (empty blob), or as above  none
 * ENTRY_SUMS   one, as above                   in the slab
 * ENTRY_MANY   in the slab, `struct extent`s   in the slab, behind the extents; may be none
 *
 * So a further granule costs 4 bytes and the slab's rounding, a blob of one extent nothing for
 * it. */
#ifndef SHARDS_INDEX_ENTRY_H
#define SHARDS_INDEX_ENTRY_H

#include "shards/base/slab.h"
#include "shards/index.h"

enum entry_kind { ENTRY_EMPTY, ENTRY_ONE, ENTRY_BARE, ENTRY_SUMS, ENTRY_MANY };

struct entry {
  struct blob_id id;
  uint64_t where, rest;
};
_Static_assert(sizeof(struct entry) == 32, "what the RAM figure rests on");

static inline enum entry_kind entry_kind(const struct entry *e) { return e->where >> 52 & 7; }
static inline uint64_t entry_bytes(const struct entry *e) {
  return e->where >> 55 << 32 | e->rest >> 32;
}

/* What a blob's entry will need in the slab; 0: nothing. */
uint32_t entry_detail_bytes(const struct blob *blob);
/* The most that a blob with so many extents and granules can need; 0: nothing. */
uint32_t entry_detail_bytes_max(uint32_t extents, uint32_t granules);
/* Fills *e, the details included: 0, or -ENOMEM if the slab has no room. */
int entry_encode(struct slab *slab, const struct blob *blob, struct entry *e);
/* Everything but the id's hash; pointers lead into the slab or into *blob. */
void entry_decode(const struct slab *slab, const struct entry *e, struct blob *blob);
/* Gives the details back. */
void entry_release(struct slab *slab, const struct entry *e);

#endif
