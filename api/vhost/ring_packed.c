/* ring_packed.c - the device's side of a packed virtqueue (virtio 1.1, 2.7): see ring.h.
 *
 * Available and used descriptors lie in the same array. Between told_used and last_avail it is the
 * device's: at most all of it, and what is written there as used never passes what was taken. Only
 * the driver's buffer ids say which chain is which, so the number of each one's descriptors is kept
 * here, and nothing is looked up in descriptors that have been passed.
 *
 * Order: a descriptor's flags are read before the rest of it, and before the descriptors behind it
 * in its chain (acquire); they are written after the rest of it (release), those of the first one
 * used since the last time after all others: until then the driver looks at none of them. What is
 * written before the driver's wish is read is ordered as in a split ring (ring.c). */
#include "api/vhost/ring_internal.h"

/* ---- Set-up ---------------------------------------------------------------------------------- */

static bool is_position(uint16_t position, uint32_t size) {
  return (position & ~RING_POSITION_WRAP) < size;
}

int ring_map_packed(struct vring *r, const struct guest_memory *memory, uint16_t size,
                    uint64_t desc_user, uint64_t driver_user, uint64_t device_user,
                    uint16_t last_avail, uint16_t next_used, struct ring_id *ids) {
  int error = 0;
  ring_unmap(r);
  if (!size || size > RING_SIZE_MAX || (size & (size - 1))) return -EINVAL;
  if (!is_position(last_avail, size) || !is_position(next_used, size) ||
      ring_position_distance(next_used, last_avail, size) > size)
    return -EINVAL;
  void *desc =
      ring_map_area(memory, desc_user, sizeof(struct vring_packed_desc) * size, 16, &error);
  void *driver = ring_map_area(memory, driver_user, sizeof(struct vring_event), 4, &error);
  void *device = ring_map_area(memory, device_user, sizeof(struct vring_event), 4, &error);
  if (error) return error;
  r->memory = memory;
  r->recent = &memory->regions[0];
  r->desc = desc;
  r->avail = driver;
  r->used = device;
  r->size = size;
  r->last_avail = r->known_avail = last_avail;
  r->next_used = r->told_used = next_used;
  r->told_valid = r->broken = false;
  r->packed = true;
  r->ids = ids;
  memset(ids, 0, size * sizeof *ids);
  r->copies = NULL;
  return 0;
}

/* ---- Taking ---------------------------------------------------------------------------------- */

static inline struct vring_packed_desc *desc_at(const struct vring *r, uint16_t position) {
  struct vring_packed_desc *descs = (void *)r->desc;
  return &descs[position & ~RING_POSITION_WRAP];
}

static inline bool is_available(const struct vring *r, uint16_t position) {
  uint16_t flags = __atomic_load_n(&desc_at(r, position)->flags, __ATOMIC_ACQUIRE);
  return (flags & (VRING_PACKED_AVAIL | VRING_PACKED_USED)) == ring_flags_available(position);
}

/* How many descriptors the driver may have made available. */
static inline uint32_t room_of(const struct vring *r) {
  return r->size - ring_position_distance(r->told_used, r->last_avail, r->size);
}

int ring_packed_available(struct vring *r) {
  if (unlikely(r->broken)) return -EBADMSG;
  if (!r->desc || !is_available(r, r->last_avail)) return 0;
  uint32_t room = room_of(r);
  if (unlikely(!room)) r->broken = true;
  return room ? (int)room : -EBADMSG;
}

/* As struct vring_desc: its `next` is the id. */
static inline struct vring_desc copy_packed(const struct vring_desc *from) {
  struct vring_desc raw = copy_desc(from);
  return (struct vring_desc){raw.address, raw.bytes, raw.next, raw.flags};
}

void ring_packed_prefetch(const struct vring *r, uint32_t count) {
  const struct memory_region *g = r->recent;
  uint16_t at = r->last_avail;
  for (uint32_t i = 0; i < count && is_available(r, at);
       i++, at = ring_position_add(at, 1, r->size)) {
    uint64_t offset = copy_packed((const void *)desc_at(r, at)).address - g->guest;
    if (likely(offset < g->bytes)) __builtin_prefetch(g->host + offset);
  }
}

/* Where a chain's descriptors are read: in the ring, or in copies of them. */
struct source {
  const struct vring_desc *descs;
  uint32_t at, entries;
  uint32_t left; /* that it may have */
};
static inline struct vring_desc next_of(struct source *s) {
  struct vring_desc d = copy_packed(&s->descs[s->at]);
  s->at = s->at + 1 < s->entries ? s->at + 1 : 0;
  s->left--;
  return d;
}

/* Of a chain that is malformed: its status belongs into the last byte that can be written. */
static void __attribute__((noinline, cold))
look_for_status(const struct vring *r, struct vring_desc d, char **status) {
  uint64_t run;
  if (!(d.flags & VRING_WRITE) || d.flags & VRING_INDIRECT) return;
  if (!d.bytes || d.address > UINT64_MAX - d.bytes) return;
  char *at = memory_at(r->memory, d.address + d.bytes - 1, 1, &run);
  if (at) *status = at;
}
static char *__attribute__((noinline, cold))
status_so_far(const struct ring_chain *c, struct walk w) {
  if (!w.writable || w.pieces == w.out_count) return NULL;
  return (char *)c->iov[w.pieces - 1].iov_base + c->iov[w.pieces - 1].iov_len - 1;
}
static int __attribute__((noinline, cold)) refuse(struct ring_chain *c, char *status) {
  bool found = status && c->room;
  if (found) c->iov[0] = (struct iovec){status, 1};
  set_counts(c, 0, found, 0, found);
  return -EBADMSG;
}

/* All that an indirect descriptor names, which is a chain of its own: it has no next one, and
 * nothing in the table says where the table ends. */
static inline bool add_table(struct vring *r, struct ring_chain *c, struct walk *w,
                             struct vring_desc d, char **status) {
  if (unlikely(!r->indirect || d.flags & VRING_NEXT)) return false;
  const struct vring_desc *table = table_of(r, d);
  if (unlikely(!table)) return false;
  uint32_t entries = d.bytes / (uint32_t)sizeof d, i = 0;
  uint32_t most = (uint32_t)min_u64(entries, RING_CHAIN_MAX - 1);
  for (; i < most; i++) {
    struct vring_desc e = copy_packed(&table[i]);
    if (likely(!(e.flags & (VRING_NEXT | VRING_INDIRECT))) && likely(add_desc(r, c, w, e)))
      continue;
    *status = status_so_far(c, *w);
    look_for_status(r, e, status);
    break;
  }
  if (likely(i == entries)) return true;
  if (i == most) *status = status_so_far(c, *w);
  for (i++; i < most; i++) look_for_status(r, copy_packed(&table[i]), status);
  return false;
}

/* Of a chain: how many descriptors it has in the ring, and its id. */
struct extent {
  uint32_t count; /* 0: it has no end */
  uint16_t id;
};

static inline int follow(struct vring *r, struct ring_chain *c, struct source s, bool keep,
                         struct extent *extent) {
  struct walk w = {.table = NULL};
  struct vring_desc d;
  char *status = NULL;
  bool sound = true;
  uint32_t n = 0;
  extent->count = 0;
  do {
    if (unlikely(!s.left)) return refuse(c, NULL);
    d = next_of(&s);
    if (keep) r->copies[n] = (struct vring_packed_desc){d.address, d.bytes, d.next, d.flags};
    n++;
    if (unlikely(!sound)) {
      look_for_status(r, d, &status);
    } else if (d.flags & VRING_INDIRECT) {
      sound = n == 1 && add_table(r, c, &w, d, &status);
    } else if (unlikely(!add_desc(r, c, &w, d))) {
      sound = false;
      status = status_so_far(c, w);
      look_for_status(r, d, &status);
    }
  } while (d.flags & VRING_NEXT);
  *extent = (struct extent){n, d.next};
  if (unlikely(!sound)) return refuse(c, status);
  return end_chain(c, w);
}

int ring_packed_take(struct vring *r, struct ring_chain *c) {
  struct extent extent;
  set_counts(c, 0, 0, 0, 0);
  c->head = UINT16_MAX;
  if (unlikely(r->broken)) return -EBADMSG;
  if (!r->desc || !is_available(r, r->last_avail)) return 0;
  struct source s = {r->desc, r->last_avail & ~RING_POSITION_WRAP, r->size, room_of(r)};
  int result = follow(r, c, s, r->copies != NULL, &extent);
  if (unlikely(!extent.count || extent.id >= r->size || r->ids[extent.id].count)) {
    r->broken = true;
    return refuse(c, NULL);
  }
  c->head = extent.id;
  r->ids[extent.id].count = (uint16_t)extent.count;
  r->untake_to = r->last_avail;
  r->untake_id = extent.id;
  r->last_avail = ring_position_add(r->last_avail, extent.count, r->size);
  return result;
}

int ring_packed_again(struct vring *r, uint16_t head, struct ring_chain *c) {
  const struct ring_id *id = &r->ids[head];
  struct extent extent;
  c->head = head;
  check(r->copies && id->copy + id->count <= r->size);
  struct source s = {(const void *)r->copies, id->copy, r->size, id->count};
  return follow(r, c, s, false, &extent);
}

/* ---- Giving back ----------------------------------------------------------------------------- */

void ring_packed_put(struct vring *r, uint16_t head, uint32_t bytes) {
  struct vring_packed_desc *d = desc_at(r, r->next_used);
  uint16_t flags = ring_flags_used(r->next_used) | (bytes ? VRING_WRITE : 0);
  check(r->ids[head].count);
  d->bytes = bytes;
  d->id = head;
  if (r->next_used == r->told_used)
    r->first_flags = flags;
  else
    __atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
  r->next_used = ring_position_add(r->next_used, r->ids[head].count, r->size);
  r->ids[head].count = 0;
}

/* Is the descriptor that the driver waits for one of those that are new? Both sides count as in a
 * ring without an end, up to here. */
static bool is_new(const struct vring *r, uint16_t where, uint16_t before) {
  uint32_t next = r->next_used & ~RING_POSITION_WRAP, event = where & ~RING_POSITION_WRAP;
  if ((where ^ r->next_used) & RING_POSITION_WRAP) event -= r->size;
  return (uint16_t)(next - event - 1) < ring_position_distance(before, r->next_used, r->size);
}

bool ring_packed_publish(struct vring *r) {
  uint16_t next = r->next_used, before = r->told_used;
  bool first = !r->told_valid;
  if (next == before && !first) return false;
  if (next != before)
    __atomic_store_n(&desc_at(r, before)->flags, r->first_flags, __ATOMIC_RELEASE);
  r->told_used = next;
  r->told_valid = true;
  if (first) return true;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  uint32_t event = __atomic_load_n((const uint32_t *)(const void *)r->avail, __ATOMIC_RELAXED);
  uint32_t flags = event >> 16 & 3;
  if (flags == VRING_EVENT_DESC && r->event_idx) return is_new(r, (uint16_t)event, before);
  return flags != VRING_EVENT_DISABLE;
}

void ring_packed_notify_me(struct vring *r, bool wanted) {
  uint32_t flags = !wanted        ? VRING_EVENT_DISABLE
                   : r->event_idx ? VRING_EVENT_DESC
                                  : VRING_EVENT_ENABLE;
  __atomic_store_n((uint32_t *)(void *)r->used, flags << 16 | r->last_avail, __ATOMIC_RELAXED);
  if (wanted) __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
