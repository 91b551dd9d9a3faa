/* ring.h - the device's side of a virtqueue, split or packed (virtio 1.1, 2.6 and 2.7): takes
 * chains of descriptors that a driver has made available, and gives them back as used.
 *
 * A chain goes by its head: in a split ring the number of its first descriptor, in a packed one the
 * driver's buffer id, which must be below the size, too. Which of the two a ring is, only the call
 * that maps it says.
 *
 * Owned by one thread at a time. Everything in the three areas is the driver's word and may change
 * at any moment: each field is read once, copied, and checked before it is used. Nothing here
 * blocks or allocates, and no malformed ring makes it touch memory outside of the guest's regions
 * or run for longer than RING_CHAIN_MAX descriptors. */
#ifndef API_VHOST_RING_H
#define API_VHOST_RING_H

#include "api/vhost/memory.h"

#define RING_SIZE_MAX  1024u /* descriptors; a power of two, as split rings have it */
#define RING_CHAIN_MAX 1024u /* of one chain, those in an indirect table included */
#define RING_BYTES_MAX UINT32_MAX

/* As they lie in memory, little endian. */
struct vring_desc {
  uint64_t address;
  uint32_t bytes;
  uint16_t flags, next;
};
enum { VRING_NEXT = 1, VRING_WRITE = 2, VRING_INDIRECT = 4 };
struct vring_avail {
  uint16_t flags, index, ring[]; /* then used_event */
};
enum { VRING_NO_INTERRUPT = 1 };
struct vring_used_entry {
  uint32_t id, bytes;
};
struct vring_used {
  uint16_t flags, index;
  struct vring_used_entry ring[]; /* then avail_event */
};
enum { VRING_NO_NOTIFY = 1 };

/* The same of a packed ring: one array of descriptors, which both sides write, and two areas that
 * say which notifications are wanted. */
struct vring_packed_desc {
  uint64_t address;
  uint32_t bytes;
  uint16_t id, flags; /* of struct vring_desc, and these: */
};
enum { VRING_PACKED_AVAIL = 1 << 7, VRING_PACKED_USED = 1 << 15 };
struct vring_event {
  uint16_t where; /* a position */
  uint16_t flags;
};
enum { VRING_EVENT_ENABLE = 0, VRING_EVENT_DISABLE = 1, VRING_EVENT_DESC = 2 };

/* A position in a packed ring, as the protocol has it: the descriptor's number, and in bit 15 the
 * wrap counter, which changes whenever the end is passed. */
#define RING_POSITION_WRAP  0x8000u
#define RING_POSITION_FIRST 0x8000u /* of a ring that was never used */
static inline uint16_t ring_position_add(uint16_t position, uint32_t count, uint32_t size) {
  uint32_t at = (position & ~RING_POSITION_WRAP) + count;
  return (uint16_t)(at < size ? (position & RING_POSITION_WRAP) | at
                              : (~position & RING_POSITION_WRAP) | (at - size));
}
/* How many descriptors lie in between; above the size: that cannot be. */
static inline uint32_t ring_position_distance(uint16_t from, uint16_t to, uint32_t size) {
  uint32_t laps = (from ^ to) & RING_POSITION_WRAP ? size : 0;
  return (to & ~RING_POSITION_WRAP) + laps - (from & ~RING_POSITION_WRAP);
}
/* Of the two flags, what they are in a descriptor that is available, or used, at a position. */
static inline uint16_t ring_flags_available(uint16_t position) {
  return position & RING_POSITION_WRAP ? VRING_PACKED_AVAIL : VRING_PACKED_USED;
}
static inline uint16_t ring_flags_used(uint16_t position) {
  return position & RING_POSITION_WRAP ? VRING_PACKED_AVAIL | VRING_PACKED_USED : 0;
}

/* Of a buffer id. */
struct ring_id {
  uint16_t count; /* of its chain's descriptors; 0: it is not with the device */
  uint16_t copy;  /* for ring_again(): where it begins in vring.copies */
};

/* Begins zeroed, but for the negotiated features. */
struct vring {
  const struct guest_memory *memory;
  const struct memory_region *recent; /* where the last address was found */
  struct vring_desc *desc;            /* NULL: not set up */
  struct vring_avail *avail;
  struct vring_used *used;
  uint16_t size;
  uint16_t last_avail;  /* the next entry to be taken */
  uint16_t next_used;   /* the next one to be filled: used->index as we wrote it */
  uint16_t known_avail; /* avail->index as last read */
  uint16_t told_used;   /* next_used at the last ring_publish(): what the driver knows of */
  bool told_valid;      /* false: the driver may wait for what another one of us has published */
  bool event_idx, indirect; /* negotiated features */
  bool broken;              /* the driver's indices made no sense: nothing is taken any more */
  bool packed;              /* then last_avail, next_used and told_used are positions */
  uint16_t first_flags;     /* of the first descriptor used since: they are written last */
  uint16_t untake_to;       /* last_avail before the last ring_take(), and what that took */
  uint16_t untake_id;
  struct ring_id *ids; /* [size], the caller's */
  /* [size], the caller's: the descriptors of the chain that was taken last, and those of chains to
   * be taken again, as they lie in memory. NULL: nobody looks. */
  struct vring_packed_desc *copies;
};

/* Translates the three areas (user addresses, whole: sizes follow from `size`) and checks
 * alignment (16, 2, 4) here. size: a power of two, at most RING_SIZE_MAX. What is taken next:
 * last_avail; next_used comes from the ring itself. After every change of the memory's regions this
 * has to be done again, with last_avail as it was. -EFAULT, -EINVAL: the ring is not set up then.
 */
int ring_map(struct vring *r, const struct guest_memory *memory, uint16_t size, uint64_t desc_user,
             uint64_t avail_user, uint64_t used_user, uint16_t last_avail);
/* The same for a packed ring: descriptors, the driver's and the device's area (alignment 16, 4, 4).
 * Where to go on, both positions, is not written in the ring. ids: zeroed here. -EINVAL also: there
 * is no such position. */
int ring_map_packed(struct vring *r, const struct guest_memory *memory, uint16_t size,
                    uint64_t desc_user, uint64_t driver_user, uint64_t device_user,
                    uint16_t last_avail, uint16_t next_used, struct ring_id *ids);
void ring_unmap(struct vring *r);

/* A chain, copied and translated: first all that the device reads, then all that it writes. */
struct ring_chain {
  uint16_t head;
  uint32_t out_count, in_count; /* pieces; a descriptor of several regions is several */
  uint64_t out_bytes, in_bytes;
  struct iovec *iov; /* the caller's, of `room`: out pieces, then in pieces */
  uint32_t room;
};
/* How many entries the driver has made available that were not taken; of a packed ring: there is
 * one, and there may be so many. -EBADMSG: more than the ring has: broken. One look at shared
 * memory. 0: the ring is not set up. */
int ring_available(struct vring *r);
/* Takes the next one of those that ring_available() has last seen (of a packed ring: the next one
 * that there is). 1; 0: there is none; -EBADMSG:
 * this chain is malformed (loops, no such descriptor, outside of memory, device-readable after
 * device-writable, nested or misplaced indirect table, one that is not whole in one region, more
 * than RING_CHAIN_MAX or RING_BYTES_MAX, more pieces than room). Then chain->head is to be given
 * back, and the chain is cut down to the byte where a driver looks for the status: the last
 * writable one of what could be followed, in_count 1 and in_bytes 1; or in_count 0. If the head
 * itself is beyond the ring, chain->head is UINT16_MAX, and the ring is broken: every further call
 * is -EBADMSG in the same way. So it is in a packed ring with a chain that has no end, and with an
 * id that was not given back. */
int ring_take(struct vring *r, struct ring_chain *chain);
/* The same chain once more, by its head (below size), whatever the available ring says. 1 or
 * -EBADMSG, as ring_take(). Of a packed ring: as ids and copies have it. */
int ring_again(struct vring *r, uint16_t head, struct ring_chain *chain);
/* What ring_take() has given last is to be given once more. */
static inline void ring_untake(struct vring *r) {
  if (r->packed) {
    r->last_avail = r->untake_to;
    r->ids[r->untake_id].count = 0;
  } else {
    r->last_avail--;
  }
}
/* Fetches shared lines that the next few ring_take() will need. */
void ring_prefetch(const struct vring *r, uint32_t count);
/* Gives a head back (one that is below size), `bytes` of its in pieces written. Not visible before
 * ring_publish(). */
void ring_put(struct vring *r, uint16_t head, uint32_t bytes);
/* Makes all that was put visible. True: the driver wants to be told (by EVENT_IDX or its flag);
 * always at the first time after ring_map(). */
bool ring_publish(struct vring *r);
/* Asks the driver to tell of the next entry (true), or not to (false: a hint). After true: look at
 * ring_available() once more. */
void ring_notify_me(struct vring *r, bool wanted);

#endif
