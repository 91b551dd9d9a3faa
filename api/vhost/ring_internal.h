/* ring_internal.h - what ring.c and ring_packed.c share: how a descriptor is read, and how its
 * memory becomes pieces of a chain. Not for others; ring.h says what holds for both. */
#ifndef API_VHOST_RING_INTERNAL_H
#define API_VHOST_RING_INTERNAL_H

#include <errno.h>

#include "api/vhost/ring.h"

/* All of an area, aligned here; NULL and *error: it is not. */
void *ring_map_area(const struct guest_memory *m, uint64_t user, uint64_t bytes, uint64_t unit,
                    int *error);

/* ring_packed.c: the calls of ring.h, for a packed ring. */
int ring_packed_available(struct vring *r);
int ring_packed_take(struct vring *r, struct ring_chain *chain);
int ring_packed_again(struct vring *r, uint16_t head, struct ring_chain *chain);
void ring_packed_prefetch(const struct vring *r, uint32_t count);
void ring_packed_put(struct vring *r, uint16_t head, uint32_t bytes);
bool ring_packed_publish(struct vring *r);
void ring_packed_notify_me(struct vring *r, bool wanted);

/* A descriptor read once, as a whole: the compiler may neither split nor repeat it. An indirect
 * table need not be aligned. */
typedef uint64_t desc_words __attribute__((vector_size(16), aligned(1), may_alias));

static inline struct vring_desc copy_desc(const struct vring_desc *from) {
  desc_words w = *(const volatile desc_words *)from;
  return (struct vring_desc){w[0], (uint32_t)w[1], (uint16_t)(w[1] >> 32), (uint16_t)(w[1] >> 48)};
}

/* Where in a chain, and what has come of it. Kept in registers: passed on by value where it goes
 * to a function that is not inline. */
struct walk {
  const struct vring_desc *table; /* the ring's, or an indirect one: whole in guest memory */
  uint32_t entries;               /* of the table */
  uint32_t next;                  /* the driver's word */
  uint32_t left;                  /* descriptors until it must be a loop, or is too long */
  bool indirect;
  bool writable;      /* one that the device writes has come */
  uint32_t pieces;    /* in iov */
  uint32_t out_count; /* of them; only once `writable`: until then all are */
  uint64_t bytes, out_bytes;
};

/* The table that an indirect descriptor names, all of it in one region; NULL: it is none. */
static inline const struct vring_desc *table_of(const struct vring *r, struct vring_desc d) {
  uint64_t offset = d.address - r->recent->guest, run;
  char *table;
  if (!d.bytes || d.bytes % sizeof(d)) return NULL;
  if (likely(offset < r->recent->bytes)) {
    table = r->recent->host + offset;
    run = r->recent->bytes - offset;
  } else {
    table = memory_at(r->memory, d.address, d.bytes, &run);
  }
  return table && run >= d.bytes ? (const struct vring_desc *)(void *)table : NULL;
}

/* Adds a descriptor's memory as memory_iov() does; nearly always one piece of a region that is
 * known. */
static inline bool add_pieces(struct vring *r, struct ring_chain *c, struct walk *w,
                              uint64_t address, uint32_t bytes) {
  const struct memory_region *g = r->recent;
  uint32_t first = w->writable ? w->out_count : 0; /* pieces of one direction join */
  if (unlikely(!bytes)) return true;
  if (unlikely(address - g->guest >= g->bytes)) {
    g = memory_region_at(r->memory, address);
    if (!g) return false;
    r->recent = g;
  }
  uint64_t offset = address - g->guest;
  if (unlikely(bytes > g->bytes - offset || w->pieces == c->room)) {
    uint32_t count = w->pieces - first;
    int error =
        memory_iov(r->memory, address, bytes, c->iov + first, &count, c->room - first, true);
    w->pieces = first + count;
    return error == 0;
  }
  char *at = g->host + offset;
  struct iovec *last = &c->iov[w->pieces];
  if (w->pieces > first && offset && (char *)last[-1].iov_base + last[-1].iov_len == at) {
    last[-1].iov_len += bytes;
  } else {
    *last = (struct iovec){at, bytes};
    w->pieces++;
  }
  return true;
}

static inline bool add_desc(struct vring *r, struct ring_chain *c, struct walk *w,
                            struct vring_desc d) {
  bool in = d.flags & VRING_WRITE;
  if (in != w->writable) {
    if (unlikely(!in)) return false;
    w->writable = true;
    w->out_count = w->pieces;
    w->out_bytes = w->bytes;
  }
  w->bytes += d.bytes;
  return likely(w->bytes <= RING_BYTES_MAX) && likely(add_pieces(r, c, w, d.address, d.bytes));
}

static inline void set_counts(struct ring_chain *c, uint32_t out_count, uint32_t in_count,
                              uint64_t out_bytes, uint64_t in_bytes) {
  c->out_count = out_count;
  c->in_count = in_count;
  c->out_bytes = out_bytes;
  c->in_bytes = in_bytes;
}

/* All of the chain has come. */
static inline int end_chain(struct ring_chain *c, struct walk w) {
  if (!w.writable) {
    w.out_count = w.pieces;
    w.out_bytes = w.bytes;
  }
  set_counts(c, w.out_count, w.pieces - w.out_count, w.out_bytes, w.bytes - w.out_bytes);
  return 1;
}

#endif
