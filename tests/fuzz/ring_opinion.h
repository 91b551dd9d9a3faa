/* ring_opinion.h - what the targets of virtqueues share: a guest whose memory changes between two
 * looks, and a second opinion of what a descriptor's memory is. Each target is one program.
 *
 * The guest has three regions, each an allocation of its own of just that size: two that meet, and
 * one that ends with the last address there is. While a chain is taken, memory changes between two
 * looks at descriptors: the calls of the ring's side that translate addresses come by here
 * (--wrap). A place in the input is two bytes, or ten: which region, offset from a little before
 * its start; or any address. */
#ifndef TESTS_FUZZ_RING_OPINION_H
#define TESTS_FUZZ_RING_OPINION_H

#include <errno.h>
#include <stdlib.h>

#include "api/vhost/ring.h"
#include "tests/fuzz/fuzz.h"

#define REGIONS   3u
#define ROOM_MAX  64u
#define STEPS_MAX 400

struct guest {
  struct guest_memory memory;
  struct vring ring;
  struct ring_chain chain;
  struct iovec *iov; /* of just the room that the ring is told of */
  uint16_t heads[64];
  uint32_t head_count;
  uint16_t published;
  bool told;
};

static const struct {
  uint64_t guest, user, bytes;
} layout[REGIONS] = {
    {0x1000, 0x70000, 2048}, {0x1800, 0x90000, 1024}, {UINT64_MAX - 1008, 0x70800, 1008}};

static inline uint64_t feed_place(struct feed *f, bool user) {
  uint16_t v = feed_u16(f);
  uint32_t which = v >> 14;
  if (which == REGIONS) return feed_number(f, 8);
  return (user ? layout[which].user : layout[which].guest) + (v & 0x3fff) % 2200 - 32;
}
static inline uint32_t feed_length(struct feed *f) {
  uint16_t v = feed_u16(f);
  return v < 0xff00 ? v & 0xfff : UINT32_MAX - (v & 0xff);
}

/* ---- A second opinion ------------------------------------------------------------------------ */

/* What follows at a guest's (or a user's) address in one region; NULL: it is none. */
static inline char *translate(const struct guest *g, __uint128_t address, bool user,
                              uint64_t *run) {
  for (uint32_t i = 0; i < REGIONS; i++) {
    __uint128_t base = user ? layout[i].user : layout[i].guest;
    if (address < base || address >= base + layout[i].bytes) continue;
    *run = (uint64_t)(base + layout[i].bytes - address);
    return g->memory.regions[i].host + (uint64_t)(address - base);
  }
  return NULL;
}

static inline bool area_is_good(const struct guest *g, uint64_t user, uint64_t bytes,
                                uint64_t unit) {
  uint64_t run;
  char *at = translate(g, user, true, &run);
  return at && run >= bytes && (uintptr_t)at % unit == 0;
}

static inline void check_inside(const struct guest *g, const void *base, uint64_t bytes) {
  bool inside = false;
  for (uint32_t i = 0; i < REGIONS; i++) {
    uint64_t offset = (uint64_t)((uintptr_t)base - (uintptr_t)g->memory.regions[i].host);
    inside |= offset < layout[i].bytes && bytes <= layout[i].bytes - offset;
  }
  check(inside && bytes > 0);
}

struct walk {
  struct iovec pieces[RING_CHAIN_MAX * 2];
  uint32_t count[2];
  uint64_t bytes[2];
};

static inline bool walk_pieces(const struct guest *g, struct walk *w, const struct vring_desc *d) {
  __uint128_t address = d->address;
  bool in = d->flags & VRING_WRITE;
  uint64_t left = d->bytes, run;
  uint32_t all = w->count[0] + w->count[1];
  for (; left > 0; left -= run, address += run) {
    char *at = translate(g, address, false, &run);
    if (!at || all == array_size(w->pieces)) return false;
    run = min_u64(run, left);
    struct iovec *last = w->count[in] ? &w->pieces[all - 1] : NULL;
    bool begins = false; /* a region */
    for (uint32_t i = 0; i < REGIONS; i++) begins |= at == g->memory.regions[i].host;
    if (last && !begins && (char *)last->iov_base + last->iov_len == at) {
      last->iov_len += run;
    } else {
      w->pieces[all++] = (struct iovec){at, run};
      w->count[in]++;
    }
  }
  w->bytes[in] += d->bytes;
  return all <= g->chain.room && w->bytes[0] + w->bytes[1] <= UINT32_MAX;
}

/* ---- Changes meanwhile ----------------------------------------------------------------------- */

static struct {
  struct guest *guest; /* NULL: nothing changes now */
  struct feed *feed;
  uint32_t calls;
} changes;

static inline void write_bytes(struct guest *g, struct feed *f) {
  uint64_t run, guest = feed_place(f, false);
  char *at = translate(g, guest, false, &run);
  uint64_t bytes = feed_u8(f) % 65u;
  if (at) feed_bytes(f, at, min_u64(bytes, run));
}

static inline void change(void) {
  changes.calls++;
  if (changes.guest && feed_u8(changes.feed) & 1) write_bytes(changes.guest, changes.feed);
}

char *__real_memory_at(const struct guest_memory *m, uint64_t guest, uint64_t bytes, uint64_t *run);
char *__wrap_memory_at(const struct guest_memory *m, uint64_t guest, uint64_t bytes, uint64_t *run);
char *__wrap_memory_at(const struct guest_memory *m, uint64_t guest, uint64_t bytes,
                       uint64_t *run) {
  change();
  return __real_memory_at(m, guest, bytes, run);
}
const struct memory_region *__real_memory_region_at(const struct guest_memory *m, uint64_t guest);
const struct memory_region *__wrap_memory_region_at(const struct guest_memory *m, uint64_t guest);
const struct memory_region *__wrap_memory_region_at(const struct guest_memory *m, uint64_t guest) {
  change();
  return __real_memory_region_at(m, guest);
}

/* ---- What was taken ----- */

/* All of a chain's memory is the guest's, and may be used. */
static inline void use_pieces(const struct guest *g, const struct ring_chain *c, int result) {
  uint64_t bytes[2] = {0, 0};
  uint32_t all = c->out_count + c->in_count;
  check(all <= c->room);
  for (uint32_t i = 0; i < all; i++) {
    check_inside(g, c->iov[i].iov_base, c->iov[i].iov_len);
    bytes[i >= c->out_count] += c->iov[i].iov_len;
    for (size_t k = 0; k < c->iov[i].iov_len; k++)
      (void)((volatile uint8_t *)c->iov[i].iov_base)[k];
  }
  check(bytes[0] == c->out_bytes && bytes[1] == c->in_bytes);
  check(bytes[0] + bytes[1] <= RING_BYTES_MAX);
  if (result == 1) return;
  check(result == -EBADMSG && c->out_count == 0 && c->in_count <= 1 && c->in_bytes == c->in_count);
}

static inline void compare(const struct guest *g, int result, const struct walk *w, bool sound) {
  const struct ring_chain *c = &g->chain;
  check((result == 1) == sound);
  if (!sound) return;
  check(c->out_count == w->count[0] && c->in_count == w->count[1]);
  check(c->out_bytes == w->bytes[0] && c->in_bytes == w->bytes[1]);
  for (uint32_t i = 0; i < c->out_count + c->in_count; i++) {
    check(c->iov[i].iov_base == w->pieces[i].iov_base);
    check(c->iov[i].iov_len == w->pieces[i].iov_len);
  }
}

/* The memory, zeroed; flags: of the features. */
static inline void begin_guest(struct guest *g, uint8_t flags, uint8_t room) {
  memset(g, 0, sizeof(*g));
  for (uint32_t i = 0; i < REGIONS; i++) {
    struct memory_region *r = &g->memory.regions[i];
    r->guest = layout[i].guest;
    r->user = layout[i].user;
    r->bytes = layout[i].bytes;
    r->host = aligned_alloc(16, layout[i].bytes);
    check(r->host != NULL);
    memset(r->host, 0, layout[i].bytes);
  }
  g->memory.count = REGIONS;
  g->ring.event_idx = flags & 1;
  g->ring.indirect = !(flags & 2);
  g->chain.room = room % (ROOM_MAX + 1);
  g->chain.iov = fuzz_alloc(g->chain.room * sizeof(*g->chain.iov));
}
static inline void end_guest(struct guest *g) {
  for (uint32_t i = 0; i < REGIONS; i++) free(g->memory.regions[i].host);
  free(g->chain.iov);
}

#endif
