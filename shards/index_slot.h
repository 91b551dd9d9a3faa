/* index_slot.h - private to the index: a blob in 32 bytes, and the details beside it.
 *
 * An entry is the id and two words:
 *
 *   where  bits 0-39 block (or extent count), 40-47 flags, 48-51 granule shift, 52-54 kind,
 *          55-63 bits 32-40 of the size in bytes
 *   rest   bits 0-31 the checksum, or a reference into the slab, 32-63 bits 0-31 of the size
 *
 * kind         extents                         checksums
 * SLOT_EMPTY  the slot holds nothing
 * SLOT_ONE    one, its length is the size's   one, here
 * SLOT_BARE   none (empty blob), or as above  none
 * SLOT_SUMS   one, as above                   in the slab
 * SLOT_MANY   in the slab, `struct extent`s   in the slab, behind the extents; may be none
 *
 * So a further granule costs 4 bytes and the slab's rounding, a blob of one extent nothing for
 * it. */
#ifndef SHARDS_INDEX_SLOT_H
#define SHARDS_INDEX_SLOT_H

#include "shards/base/slab.h"
#include "shards/index.h"

enum slot_kind { SLOT_EMPTY, SLOT_ONE, SLOT_BARE, SLOT_SUMS, SLOT_MANY };

struct index_slot {
  struct blob_id id;
  uint64_t where, rest;
};
_Static_assert(sizeof(struct index_slot) == 32, "what the RAM figure rests on");

#define SLOT_KIND_BIT 52
static inline enum slot_kind slot_kind(const struct index_slot *e) {
  return e->where >> SLOT_KIND_BIT & 7;
}
static inline uint64_t slot_bytes(const struct index_slot *e) {
  return e->where >> 55 << 32 | e->rest >> 32;
}

#define SLOT_BLOCK_MASK ((UINT64_C(1) << 40) - 1)
/* The same in bytes, of a kind whose extent is here. */
static inline uint64_t slot_place(const struct index_slot *e) { return e->where << 24 >> 12; }
/* A shift of 0 (nothing to check) or 12 to 26 in four bits. */
#define SLOT_SHIFT_BASE 11
static inline uint8_t slot_granule_shift(const struct index_slot *e) {
  uint32_t shift = e->where >> 48 & 15;
  return (uint8_t)(shift ? shift + SLOT_SHIFT_BASE : 0);
}
/* What a blob's entry will need in the slab; 0: nothing. */
uint32_t slot_detail_bytes(const struct blob *blob);
/* The most that a blob with so many extents and granules can need; 0: nothing. */
uint32_t slot_detail_bytes_max(uint32_t extents, uint32_t granules);
/* Fills *e, the details included: 0, or -ENOMEM if the slab has no room. */
int slot_encode(struct slab *slab, const struct blob *blob, struct index_slot *e);
/* Everything but the id's hash; pointers lead into the slab or into *blob. */
void slot_decode(const struct slab *slab, const struct index_slot *e, struct blob *blob);
/* Gives the details back. */
void slot_release(struct slab *slab, const struct index_slot *e);

#endif
