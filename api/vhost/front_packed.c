/* front_packed.c - a driver's side of a packed virtqueue (virtio 1.1, 2.7): see front_queue.c. A
 * slot's number is its buffer id.
 *
 * Owned by the thread that uses the queue. Between last_used and avail_index descriptors are the
 * device's. Its word is not believed: what it names must be in flight, and what it has used must
 * not pass what it was given. */
#include "api/vhost/front_queue.h"

#include <errno.h>

static struct vring_packed_desc *desc_at(const struct vfront_queue *q, uint16_t position) {
  struct vring_packed_desc *descs = (void *)q->desc;
  return &descs[position & ~RING_POSITION_WRAP];
}

static void step(const struct vfront_queue *q, uint16_t *position, uint32_t count) {
  *position = ring_position_add(*position, count, q->size);
}

/* ---- Offering ---------------------------------------------------------------------------------
 */

/* The first of all that is offered at once becomes visible last. */
static void put_desc(struct vfront_queue *q, struct vring_desc from, uint32_t slot) {
  struct vring_packed_desc *d = desc_at(q, q->avail_index);
  uint16_t flags = from.flags | ring_flags_available(q->avail_index);
  d->address = from.address;
  d->bytes = from.bytes;
  d->id = (uint16_t)slot;
  if (q->hidden)
    __atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
  else
    q->hidden_flags = flags;
  q->hidden = true;
  step(q, &q->avail_index, 1);
}

void vfront_packed_offer(struct vfront_queue *q, uint32_t slot, const struct vfront_request *r) {
  struct vfront_slot *s = &q->slot[slot];
  struct vring_desc d[VFRONT_PIECES_MAX + 2];
  uint32_t n = vfront_fill(q, slot, r, d);
  q->counts[slot] = q->indirect ? 1 : (uint16_t)n;
  if (!q->indirect) {
    for (uint32_t i = 0; i < n; i++) {
      if (i + 1 < n) d[i].flags |= VRING_NEXT;
      put_desc(q, d[i], slot);
    }
    return;
  }
  struct vring_packed_desc *table = (void *)(r->pieces > 1 ? s->many : s->few);
  for (uint32_t i = 0; i < n; i++)
    table[i] = (struct vring_packed_desc){d[i].address, d[i].bytes, 0, d[i].flags};
  put_desc(q,
           (struct vring_desc){.address = vfront_guest_address(q->front, table),
                               .bytes = n * (uint32_t)sizeof *table,
                               .flags = VRING_INDIRECT},
           slot);
}

bool vfront_packed_show(struct vfront_queue *q, uint16_t before) {
  __atomic_store_n(&desc_at(q, before)->flags, q->hidden_flags, __ATOMIC_RELEASE);
  q->hidden = false;
  __atomic_thread_fence(__ATOMIC_SEQ_CST); /* our descriptors before its event */
  const struct vring_event *e = (const void *)q->used;
  uint16_t flags = __atomic_load_n(&e->flags, __ATOMIC_RELAXED), where;
  if (flags == VRING_EVENT_DISABLE) return false;
  if (flags != VRING_EVENT_DESC || !q->event_idx) return true;
  where = __atomic_load_n(&e->where, __ATOMIC_RELAXED);
  return ring_position_distance(before, where, q->size) <
         ring_position_distance(before, q->avail_index, q->size);
}

/* ---- Reaping ----------------------------------------------------------------------------------
 */

static bool is_used(const struct vfront_queue *q, uint16_t position) {
  uint16_t flags = __atomic_load_n(&desc_at(q, position)->flags, __ATOMIC_ACQUIRE);
  return (flags & (VRING_PACKED_AVAIL | VRING_PACKED_USED)) == ring_flags_used(position);
}

bool vfront_packed_something_used(const struct vfront_queue *q) { return is_used(q, q->last_used); }

static int nothing_in_flight(struct vfront_queue *q) {
  return vfront_queue_fail(q, -EPROTO, "descriptor 0x%x is used, and nothing is in flight",
                           q->last_used);
}

static int take_used(struct vfront_queue *q, struct vfront_request **request) {
  const struct vring_packed_desc *d = desc_at(q, q->last_used);
  uint32_t slot = d->id, bytes = d->bytes;
  if (q->in_flight == 0) return nothing_in_flight(q);
  if (slot >= q->slots)
    return vfront_queue_fail(q, -EPROTO, "descriptor 0x%x is used for buffer %u, which is none",
                             q->last_used, slot);
  if (bytes && !(d->flags & VRING_WRITE))
    return vfront_queue_fail(q, -EPROTO, "descriptor 0x%x: %u bytes, and not written", q->last_used,
                             bytes);
  int error = vfront_used(q, slot, bytes, request);
  if (!error) step(q, &q->last_used, q->counts[slot]);
  return error;
}

int vfront_packed_reap(struct vfront_queue *q, struct vfront_request **requests, uint32_t max) {
  uint32_t n = 0;
  for (; n < max && is_used(q, q->last_used); n++) {
    int r = take_used(q, &requests[n]);
    if (r < 0) return r;
  }
  if (n) vfront_packed_want_calls(q, false);
  if (q->in_flight == 0 && is_used(q, q->last_used)) return nothing_in_flight(q);
  return (int)n;
}

/* As reaping it would go, without. A device that names what is not there gets the wrong base. */
uint32_t vfront_packed_used_base(const struct vfront_queue *q) {
  uint16_t at = q->last_used;
  for (uint32_t n = 0; n < q->in_flight && is_used(q, at); n++) {
    uint32_t slot = desc_at(q, at)->id;
    if (slot >= q->slots) break;
    step(q, &at, q->counts[slot]);
  }
  return at | (uint32_t)at << 16;
}

void vfront_packed_want_calls(struct vfront_queue *q, bool wanted) {
  struct vring_event *e = (void *)q->avail;
  if (wanted) {
    __atomic_store_n(&e->where, q->last_used, __ATOMIC_RELAXED);
    __atomic_store_n(&e->flags, q->event_idx ? VRING_EVENT_DESC : VRING_EVENT_ENABLE,
                     __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the event before its descriptors */
  } else if (e->flags != VRING_EVENT_DISABLE) {
    __atomic_store_n(&e->flags, VRING_EVENT_DISABLE, __ATOMIC_RELAXED);
  }
}

void vfront_packed_init(struct vfront_queue *q) {
  q->avail_index = q->last_used = RING_POSITION_FIRST;
  q->base = RING_POSITION_FIRST | (uint32_t)RING_POSITION_FIRST << 16;
  vfront_packed_want_calls(q, false);
}
