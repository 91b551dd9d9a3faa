/* ring.c - see ring.h; a packed ring's side of it is ring_packed.c.
 *
 * What order must hold, between this thread and the driver's processors: avail->index is read
 * before the entries and descriptors that it covers (acquire); used->index is written after the
 * entries that it covers (release); and before the driver's wish to be told is read, or the driver
 * is asked to tell and looked at once more, what was written before must be visible (a full
 * fence), since both sides first write and then read. */
#include "api/vhost/ring_internal.h"

/* ---- Set-up ---------------------------------------------------------------------------------- */

void *ring_map_area(const struct guest_memory *m, uint64_t user, uint64_t bytes, uint64_t unit,
                    int *error) {
  char *at = memory_user(m, user, bytes);
  if (!at)
    *error = -EFAULT;
  else if (!is_aligned((uintptr_t)at, unit))
    *error = -EINVAL;
  return *error ? NULL : at;
}

void ring_unmap(struct vring *r) {
  r->desc = NULL;
  r->avail = NULL;
  r->used = NULL;
  r->known_avail = r->last_avail;
}

int ring_map(struct vring *r, const struct guest_memory *memory, uint16_t size, uint64_t desc_user,
             uint64_t avail_user, uint64_t used_user, uint16_t last_avail) {
  int error = 0;
  ring_unmap(r);
  r->packed = false;
  if (!size || size > RING_SIZE_MAX || (size & (size - 1))) return -EINVAL;
  /* Each ring has one more field behind its entries: the event index. */
  uint64_t desc_bytes = sizeof(struct vring_desc) * size;
  uint64_t avail_bytes = sizeof(struct vring_avail) + 2u * size + 2;
  uint64_t used_bytes = sizeof(struct vring_used) + sizeof(struct vring_used_entry) * size + 2;
  void *desc = ring_map_area(memory, desc_user, desc_bytes, 16, &error);
  void *avail = ring_map_area(memory, avail_user, avail_bytes, 2, &error);
  void *used = ring_map_area(memory, used_user, used_bytes, 4, &error);
  if (error) return error;
  r->memory = memory;
  r->recent = &memory->regions[0];
  r->desc = desc;
  r->avail = avail;
  r->used = used;
  r->size = size;
  r->last_avail = r->known_avail = last_avail;
  r->next_used = r->told_used = __atomic_load_n(&r->used->index, __ATOMIC_RELAXED);
  r->told_valid = false;
  r->broken = false;
  return 0;
}

/* ---- Taking ---------------------------------------------------------------------------------- */

static inline uint16_t mask_of(const struct vring *r) { return (uint16_t)(r->size - 1); }

int ring_available(struct vring *r) {
  if (unlikely(r->packed)) return ring_packed_available(r);
  if (r->broken) return -EBADMSG;
  if (!r->desc) return 0;
  uint16_t index = __atomic_load_n(&r->avail->index, __ATOMIC_ACQUIRE);
  uint16_t count = (uint16_t)(index - r->last_avail);
  if (count > r->size) {
    r->broken = true;
    return -EBADMSG;
  }
  r->known_avail = index;
  return count;
}

static inline uint16_t head_at(const struct vring *r, uint32_t i) {
  uint16_t at = (uint16_t)(r->last_avail + i) & mask_of(r);
  return __atomic_load_n(&r->avail->ring[at], __ATOMIC_RELAXED) & mask_of(r);
}

/* Each was written by another processor just now: first all descriptors are on their way, then all
 * that they name, be that a header or an indirect table. */
void ring_prefetch(const struct vring *r, uint32_t count) {
  if (unlikely(r->packed)) {
    ring_packed_prefetch(r, count);
    return;
  }
  const struct memory_region *g = r->recent;
  uint32_t known = (uint16_t)(r->known_avail - r->last_avail);
  if (count > known) count = known;
  for (uint32_t i = 0; i < count; i++) __builtin_prefetch(&r->desc[head_at(r, i)]);
  for (uint32_t i = 0; i < count; i++) {
    uint64_t offset = copy_desc(&r->desc[head_at(r, i)]).address - g->guest;
    if (likely(offset < g->bytes)) __builtin_prefetch(g->host + offset);
  }
}

/* Goes on in the table that an indirect descriptor names. */
static inline bool enter_table(struct vring *r, struct walk *w, struct vring_desc d) {
  if (!r->indirect || w->indirect || (d.flags & VRING_NEXT)) return false;
  const struct vring_desc *table = table_of(r, d);
  if (!table) return false;
  uint32_t walked = r->size - w->left;
  w->table = table;
  w->entries = d.bytes / (uint32_t)sizeof(d);
  w->next = 0;
  w->left = (uint32_t)min_u64(w->entries, RING_CHAIN_MAX - walked);
  w->indirect = true;
  return true;
}

/* The next descriptor, which may be the first one of an indirect table. */
static inline bool next_desc(struct vring *r, struct walk *w, struct vring_desc *d) {
  for (;;) {
    if (unlikely(!w->left || w->next >= w->entries)) return false;
    w->left--;
    *d = copy_desc(&w->table[w->next]);
    if (!(d->flags & VRING_INDIRECT)) break;
    if (unlikely(!enter_table(r, w, *d))) return false;
  }
  w->next = d->next;
  return true;
}

/* Cuts a malformed chain down to where its status belongs. d: the descriptor that did not do, if
 * the chain can be followed from there on. */
static int __attribute__((noinline, cold))
cut_down(struct vring *r, struct ring_chain *c, struct walk w, struct vring_desc d, bool follow) {
  char *status = NULL, *at;
  uint64_t run;
  if (w.writable && w.pieces > w.out_count) {
    const struct iovec *last = &c->iov[w.pieces - 1];
    status = (char *)last->iov_base + last->iov_len - 1;
  }
  for (; follow; follow = (d.flags & VRING_NEXT) && next_desc(r, &w, &d)) {
    if (!(d.flags & VRING_WRITE) || !d.bytes || d.address > UINT64_MAX - d.bytes) continue;
    at = memory_at(r->memory, d.address + d.bytes - 1, 1, &run);
    if (at) status = at;
  }
  bool found = status && c->room;
  if (found) c->iov[0] = (struct iovec){status, 1};
  set_counts(c, 0, found, 0, found);
  return -EBADMSG;
}

static inline int follow(struct vring *r, struct ring_chain *c, uint16_t head) {
  struct walk w = {.table = r->desc, .entries = r->size, .next = head, .left = r->size};
  struct vring_desc d = {0};
  c->head = head;
  do {
    if (unlikely(!next_desc(r, &w, &d))) return cut_down(r, c, w, d, false);
    if (unlikely(!add_desc(r, c, &w, d))) return cut_down(r, c, w, d, true);
  } while (d.flags & VRING_NEXT);
  return end_chain(c, w);
}

int ring_take(struct vring *r, struct ring_chain *chain) {
  if (unlikely(r->packed)) return ring_packed_take(r, chain);
  set_counts(chain, 0, 0, 0, 0);
  chain->head = UINT16_MAX;
  if (unlikely(r->broken)) return -EBADMSG;
  if (r->last_avail == r->known_avail) return 0;
  uint16_t head = __atomic_load_n(&r->avail->ring[r->last_avail & mask_of(r)], __ATOMIC_RELAXED);
  if (unlikely(head >= r->size)) {
    r->broken = true;
    return -EBADMSG;
  }
  r->last_avail++;
  return follow(r, chain, head);
}

int ring_again(struct vring *r, uint16_t head, struct ring_chain *chain) {
  check(head < r->size);
  if (unlikely(r->packed)) return ring_packed_again(r, head, chain);
  return follow(r, chain, head);
}

/* ---- Giving back ----------------------------------------------------------------------------- */

void ring_put(struct vring *r, uint16_t head, uint32_t bytes) {
  check(head < r->size);
  if (unlikely(r->packed)) {
    ring_packed_put(r, head, bytes);
    return;
  }
  struct vring_used_entry entry = {head, bytes};
  memcpy(&r->used->ring[r->next_used & mask_of(r)], &entry, sizeof(entry));
  r->next_used++;
}

/* The fields behind the entries. */
static inline uint16_t *used_event_of(const struct vring *r) { return &r->avail->ring[r->size]; }
static inline uint16_t *avail_event_of(const struct vring *r) {
  return (uint16_t *)(void *)&r->used->ring[r->size];
}

bool ring_publish(struct vring *r) {
  if (unlikely(r->packed)) return ring_packed_publish(r);
  uint16_t next = r->next_used, before = r->told_used;
  bool first = !r->told_valid;
  if (next == before && !first) return false;
  __atomic_store_n(&r->used->index, next, __ATOMIC_RELEASE);
  r->told_used = next;
  r->told_valid = true;
  if (first) return true;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!r->event_idx)
    return !(__atomic_load_n(&r->avail->flags, __ATOMIC_RELAXED) & VRING_NO_INTERRUPT);
  /* Is the entry that the driver waits for one of those that are new? */
  uint16_t event = __atomic_load_n(used_event_of(r), __ATOMIC_RELAXED);
  return (uint16_t)(next - event - 1) < (uint16_t)(next - before);
}

void ring_notify_me(struct vring *r, bool wanted) {
  if (!r->desc) return;
  if (unlikely(r->packed)) {
    ring_packed_notify_me(r, wanted);
    return;
  }
  if (!r->event_idx)
    __atomic_store_n(&r->used->flags, wanted ? 0 : VRING_NO_NOTIFY, __ATOMIC_RELAXED);
  else /* not wanted: an index that has just been passed, until 65535 requests later */
    __atomic_store_n(avail_event_of(r), (uint16_t)(r->last_avail - !wanted), __ATOMIC_RELAXED);
  if (wanted) __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
