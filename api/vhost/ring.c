/* ring.c - see ring.h.
 *
 * What order must hold, between this thread and the driver's processors: avail->index is read
 * before the entries and descriptors that it covers (acquire); used->index is written after the
 * entries that it covers (release); and before the driver's wish to be told is read, or the driver
 * is asked to tell and looked at once more, what was written before must be visible (a full
 * fence), since both sides first write and then read. */
#include "api/vhost/ring.h"

#include <errno.h>

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* All of an area, aligned here; NULL and *error: it is not. */
static void *map_area(const struct guest_memory *m, uint64_t user, uint64_t bytes, uint64_t unit,
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
  if (!size || size > RING_SIZE_MAX || (size & (size - 1))) return -EINVAL;
  /* Each ring has one more field behind its entries: the event index. */
  uint64_t desc_bytes = sizeof(struct vring_desc) * size;
  uint64_t avail_bytes = sizeof(struct vring_avail) + 2u * size + 2;
  uint64_t used_bytes = sizeof(struct vring_used) + sizeof(struct vring_used_entry) * size + 2;
  void *desc = map_area(memory, desc_user, desc_bytes, 16, &error);
  void *avail = map_area(memory, avail_user, avail_bytes, 2, &error);
  void *used = map_area(memory, used_user, used_bytes, 4, &error);
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

void ring_prefetch(const struct vring *r, uint32_t count) {
  uint32_t known = (uint16_t)(r->known_avail - r->last_avail);
  if (count > known) count = known;
  for (uint32_t i = 0; i < count; i++) {
    uint16_t at = (uint16_t)(r->last_avail + i) & mask_of(r);
    uint16_t head = __atomic_load_n(&r->avail->ring[at], __ATOMIC_RELAXED);
    __builtin_prefetch(&r->desc[head & mask_of(r)]);
  }
}

/* A descriptor read once, as a whole: the compiler may neither split nor repeat it. An indirect
 * table need not be aligned. */
typedef uint64_t desc_words __attribute__((vector_size(16), aligned(1), may_alias));

static inline struct vring_desc copy_desc(const struct vring_desc *from) {
  union {
    desc_words words;
    struct vring_desc desc;
  } copy;
  copy.words = *(const volatile desc_words *)from;
  return copy.desc;
}

/* Where in a chain. */
struct walk {
  const struct vring_desc *table; /* the ring's, or an indirect one: whole in guest memory */
  uint32_t entries;               /* of the table */
  uint32_t next;                  /* the driver's word */
  uint32_t left;                  /* descriptors until it must be a loop, or is too long */
  bool indirect;
  bool writable; /* one that the device writes has come */
};

/* Goes on in the table that an indirect descriptor names. */
static bool enter_table(struct vring *r, struct walk *w, const struct vring_desc *d) {
  if (!r->indirect || w->indirect || (d->flags & VRING_NEXT)) return false;
  uint64_t run;
  uint32_t entries = d->bytes / sizeof(*d), walked = r->size - w->left;
  if (!entries || d->bytes % sizeof(*d)) return false;
  char *table = memory_at(r->memory, d->address, d->bytes, &run);
  if (!table || run < d->bytes) return false;
  w->table = (const struct vring_desc *)(void *)table;
  w->entries = entries;
  w->next = 0;
  w->left = (uint32_t)min_u64(entries, RING_CHAIN_MAX - walked);
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
    if (unlikely(!enter_table(r, w, d))) return false;
  }
  w->next = d->next;
  return true;
}

/* Adds a descriptor's memory. The one that is seen last is the common one, and one piece. */
static inline bool add_pieces(struct vring *r, struct ring_chain *c, const struct vring_desc *d,
                              bool in) {
  uint32_t *count = in ? &c->in_count : &c->out_count, before = *count;
  struct iovec *iov = c->iov + c->out_count + c->in_count - before;
  uint32_t room = c->room - (c->out_count + c->in_count - before);
  uint64_t offset = d->address - r->recent->guest;
  if (likely(offset < r->recent->bytes && d->bytes <= r->recent->bytes - offset && d->bytes &&
             before < room)) {
    char *at = r->recent->host + offset;
    if (before && offset && (char *)iov[before - 1].iov_base + iov[before - 1].iov_len == at) {
      iov[before - 1].iov_len += d->bytes;
    } else {
      iov[before] = (struct iovec){at, d->bytes};
      *count = before + 1;
    }
    return true;
  }
  const struct memory_region *region = memory_region_at(r->memory, d->address);
  if (region) r->recent = region;
  return memory_iov(r->memory, d->address, d->bytes, iov, count, room, before > 0) == 0;
}

static inline bool add_desc(struct vring *r, struct ring_chain *c, struct walk *w,
                            const struct vring_desc *d) {
  bool in = d->flags & VRING_WRITE;
  if (unlikely(w->writable && !in)) return false;
  w->writable = in;
  if (in)
    c->in_bytes += d->bytes;
  else
    c->out_bytes += d->bytes;
  if (unlikely(c->in_bytes + c->out_bytes > RING_BYTES_MAX)) return false;
  return add_pieces(r, c, d, in);
}

/* Cuts a malformed chain down to where its status belongs. d: the descriptor that did not do, from
 * which on the chain can be followed; NULL: it cannot. */
static int __attribute__((noinline, cold))
cut_down(struct vring *r, struct ring_chain *c, struct walk *w, struct vring_desc *d) {
  char *status = NULL, *at;
  uint64_t run;
  if (c->in_count) {
    const struct iovec *last = &c->iov[c->out_count + c->in_count - 1];
    status = (char *)last->iov_base + last->iov_len - 1;
  }
  for (bool more = d != NULL; more; more = (d->flags & VRING_NEXT) && next_desc(r, w, d)) {
    if (!(d->flags & VRING_WRITE) || !d->bytes || d->address > UINT64_MAX - d->bytes) continue;
    at = memory_at(r->memory, d->address + d->bytes - 1, 1, &run);
    if (at) status = at;
  }
  bool found = status && c->room;
  if (found) c->iov[0] = (struct iovec){status, 1};
  c->out_count = 0;
  c->out_bytes = 0;
  c->in_count = c->in_bytes = found;
  return -EBADMSG;
}

static inline int follow(struct vring *r, struct ring_chain *chain, uint16_t head) {
  chain->out_count = chain->in_count = 0;
  chain->out_bytes = chain->in_bytes = 0;
  chain->head = head;
  struct walk w = {.table = r->desc, .entries = r->size, .next = head, .left = r->size};
  struct vring_desc d;
  do {
    if (unlikely(!next_desc(r, &w, &d))) return cut_down(r, chain, &w, NULL);
    if (unlikely(!add_desc(r, chain, &w, &d))) return cut_down(r, chain, &w, &d);
  } while (d.flags & VRING_NEXT);
  return 1;
}

int ring_take(struct vring *r, struct ring_chain *chain) {
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
  return follow(r, chain, head);
}

/* ---- Giving back ----------------------------------------------------------------------------- */

void ring_put(struct vring *r, uint16_t head, uint32_t bytes) {
  check(head < r->size);
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
  if (!r->event_idx)
    __atomic_store_n(&r->used->flags, wanted ? 0 : VRING_NO_NOTIFY, __ATOMIC_RELAXED);
  else if (wanted)
    __atomic_store_n(avail_event_of(r), r->last_avail, __ATOMIC_RELAXED);
  if (wanted) __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
