/* inflight_packed.c - see inflight.h; packed rings.
 *
 * Every change of the file is one of two: a chain is taken, or a batch is given back. Each is
 * undone after a restart unless its last store was made: old_free of a chain, and of a batch the
 * first descriptor's flags in the ring, which the driver sees at the same moment. So while chains
 * are taken, free and old_free are the same, and what is given back is kept in put[] until it is
 * about to be published. */
#include "api/vhost/inflight.h"

#include <errno.h>
#include <string.h>

/* A process may be killed between any two stores, and the next one goes by their order. */
#ifndef PUT /* a test ends the process there */
#define PUT(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)
#endif
#define GET(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

_Static_assert(sizeof(struct inflight_desc) == 32, "as the protocol has it");
_Static_assert(sizeof(struct inflight_packed) == 32, "as the protocol has it");
_Static_assert(offsetof(struct inflight_packed, where.old_used_wrap) == 21,
               "as the protocol has it");

static uint16_t number_of(uint16_t position) { return (uint16_t)(position & ~RING_POSITION_WRAP); }
static uint8_t wrap_of(uint16_t position) { return (position & RING_POSITION_WRAP) != 0; }
static uint16_t position_of(uint16_t number, uint8_t wrap) {
  return (uint16_t)(number | (wrap ? RING_POSITION_WRAP : 0));
}

static void put_where(struct inflight_packed *p, uint16_t used, uint16_t old_used) {
  union inflight_where now = {.used = number_of(used),
                              .old_used = number_of(old_used),
                              .used_wrap = wrap_of(used),
                              .old_used_wrap = wrap_of(old_used)};
  PUT(p->where.all, now.all);
}

/* ---- While it runs --------------------------------------------------------------------------- */

/* Of a driver that changes what it has made available there may be no room: it loses only its own
 * requests. */
void inflight_take_packed(struct inflight *t, uint16_t head) {
  struct inflight_packed *p = t->p;
  uint16_t first = t->free, at = first, last = first;
  if (t->links[head].entry != INFLIGHT_NONE) return; /* it stands there already */
  for (uint32_t i = 0; i < t->ring->ids[head].count; i++) {
    const struct vring_packed_desc *d = &t->ring->copies[i];
    if (at >= t->size) return;
    struct inflight_desc *e = &p->entries[at];
    if (i == 0) {
      e->counter = t->counter++;
      PUT(e->in_flight, 1);
    }
    e->id = d->id;
    e->flags = d->flags;
    e->bytes = d->bytes;
    e->address = d->address;
    last = at;
    at = t->links[at].next;
  }
  p->entries[first].count = t->ring->ids[head].count;
  p->entries[first].last = last;
  t->links[first].last = last;
  t->links[head].entry = first;
  t->free = at;
  PUT(p->free, at);
  PUT(p->old_free, at);
}

void inflight_publish_packed(struct inflight *t, uint16_t next_used) {
  struct inflight_packed *p = t->p;
  for (uint32_t i = 0; i < t->put_count; i++) {
    uint16_t first = t->links[t->put[i]].entry;
    t->links[t->put[i]].entry = INFLIGHT_NONE;
    t->put[i] = first; /* for inflight_published_packed() */
    if (first == INFLIGHT_NONE) continue;
    uint16_t last = t->links[first].last;
    t->links[last].next = t->free;
    PUT(p->entries[last].next, t->free);
    t->free = first;
    PUT(p->free, first);
  }
  put_where(p, next_used, t->used);
}

void inflight_published_packed(struct inflight *t, uint16_t next_used) {
  struct inflight_packed *p = t->p;
  for (uint32_t i = 0; i < t->put_count; i++)
    if (t->put[i] != INFLIGHT_NONE) PUT(p->entries[t->put[i]].in_flight, 0);
  t->put_count = 0;
  PUT(p->old_free, t->free);
  put_where(p, next_used, next_used);
  t->used = next_used;
}

/* ---- After a restart ------------------------------------------------------------------------- */

/* What the file says, copied and checked. */
struct found {
  uint16_t free, used; /* used: position */
  uint32_t total;      /* descriptors in flight */
  int chains;
  uint8_t seen[RING_SIZE_MAX]; /* entries */
  struct inflight_order order[RING_SIZE_MAX];
};

static void begin_file(struct inflight *t, struct inflight_packed *p, const struct vring *ring) {
  p->size = t->size;
  p->free = p->old_free = 0;
  for (uint16_t i = 0; i < t->size; i++)
    p->entries[i] = (struct inflight_desc){.next = (uint16_t)(i + 1)};
  put_where(p, ring->next_used, ring->next_used);
  PUT(p->version, INFLIGHT_VERSION);
}

/* The last batch is done if the driver has seen its first descriptor, else it never was. */
static bool settle_last_batch(struct inflight *t, struct found *f, const struct vring *ring) {
  const struct vring_packed_desc *descs = (const void *)ring->desc;
  union inflight_where w = {.all = GET(t->p->where.all)};
  if (w.used >= ring->size || w.old_used >= ring->size) return false;
  uint16_t used = position_of(w.used, w.used_wrap);
  f->used = position_of(w.old_used, w.old_used_wrap);
  f->free = GET(t->p->old_free);
  if (used == f->used) return true;
  uint16_t flags = GET(descs[w.old_used].flags);
  if ((flags & (VRING_PACKED_AVAIL | VRING_PACKED_USED)) == ring_flags_available(f->used))
    return true;
  f->free = GET(t->p->free);
  f->used = used;
  return true;
}

/* Marks the free entries. */
static bool walk_free(struct inflight *t, struct found *f) {
  for (uint16_t at = f->free; at < t->size; at = t->links[at].next) {
    if (f->seen[at]) return false;
    f->seen[at] = 1;
    PUT(t->p->entries[at].in_flight, 0);
  }
  return true;
}

/* A chain in flight: copies its descriptors behind those that are known. */
static bool walk_chain(struct inflight *t, struct found *f, struct vring *ring, uint16_t first) {
  const struct inflight_desc *head = &t->p->entries[first];
  uint16_t count = GET(head->count), last = first, start = (uint16_t)f->total;
  uint64_t counter = GET(head->counter);
  if (!count || count > t->size - f->total) return false;
  for (uint16_t i = 0, at = first; i < count; i++, at = t->links[at].next) {
    if (at >= t->size || f->seen[at]) return false;
    const struct inflight_desc *e = &t->p->entries[at];
    ring->copies[f->total++] =
        (struct vring_packed_desc){GET(e->address), GET(e->bytes), GET(e->id), GET(e->flags)};
    f->seen[at] = 1;
    last = at;
  }
  uint16_t id = ring->copies[f->total - 1].id;
  if (id >= t->size || ring->ids[id].count) return false;
  ring->ids[id] = (struct ring_id){count, start};
  t->links[id].entry = first;
  t->links[first].last = last;
  f->order[f->chains++] = (struct inflight_order){counter, id};
  if (counter >= t->counter) t->counter = counter + 1;
  return true;
}

static bool walk_all(struct inflight *t, struct found *f, struct vring *ring) {
  uint32_t seen = 0;
  for (uint16_t i = 0; i < t->size; i++)
    t->links[i] = (struct inflight_link){GET(t->p->entries[i].next), 0, INFLIGHT_NONE};
  if (!settle_last_batch(t, f, ring) || !walk_free(t, f)) return false;
  for (uint16_t i = 0; i < t->size; i++)
    if (!f->seen[i] && GET(t->p->entries[i].in_flight) && !walk_chain(t, f, ring, i)) return false;
  for (uint16_t i = 0; i < t->size; i++) seen += f->seen[i];
  return seen == t->size;
}

/* What was written behind the first descriptor of a batch that the driver has not seen would look
 * as if it were used as soon as that one is. */
static void take_back_used(struct vring *ring) {
  struct vring_packed_desc *descs = (void *)ring->desc;
  for (uint16_t at = ring->next_used; at != ring->last_avail;
       at = ring_position_add(at, 1, ring->size)) {
    struct vring_packed_desc *d = &descs[number_of(at)];
    PUT(d->flags, ring_flags_available(at));
  }
}

static int resume(struct inflight *t, struct found *f, struct vring *ring, uint16_t heads[]) {
  struct inflight_packed *p = t->p;
  if (GET(p->version) != INFLIGHT_VERSION || GET(p->size) != t->size) return -EBADMSG;
  if (!walk_all(t, f, ring)) return -EBADMSG;
  t->free = f->free;
  t->used = f->used;
  PUT(p->free, t->free);
  PUT(p->old_free, t->free);
  put_where(p, f->used, f->used);
  inflight_sort(f->order, f->chains, heads);
  ring->next_used = ring->told_used = f->used;
  ring->last_avail = ring->known_avail = ring_position_add(f->used, f->total, ring->size);
  take_back_used(ring);
  return f->chains;
}

int inflight_begin_packed(struct inflight *t, struct inflight_packed *p, uint16_t *put,
                          struct vring *ring, uint16_t heads[], struct vring_packed_desc *copies,
                          struct inflight_link *links) {
  *t = (struct inflight){.q = (void *)p, .p = p, .ring = ring, .size = ring->size, .put = put};
  if (!p) return 0;
  struct found f;
  memset(&f, 0, sizeof f);
  t->links = links;
  ring->copies = copies;
  if (GET(p->version) == 0) begin_file(t, p, ring);
  return resume(t, &f, ring, heads);
}
