/* fuzz_ring.c - the device's side of a virtqueue against whatever a driver may write, and when: a
 * second walk over the same bytes says which chains are sound, and what is in them.
 *
 * Input: flags (1 byte: features), room (1), the ring: its size (1), first entry (2), areas (3
 * places); then steps: kind (1) and what belongs to it. */
#include "tests/fuzz/ring_opinion.h"

static bool walk_chain(const struct guest *g, uint32_t head, struct walk *w) {
  const char *table = (const char *)g->ring.desc;
  uint64_t entries = g->ring.size, next = head, steps = 0, most = entries, run;
  bool indirect = false, writable = false;
  memset(w->count, 0, sizeof(w->count));
  memset(w->bytes, 0, sizeof(w->bytes));
  for (;;) {
    struct vring_desc d;
    if (next >= entries || steps++ == most) return false;
    memcpy(&d, table + next * sizeof(d), sizeof(d));
    if (d.flags & VRING_INDIRECT) {
      if (indirect || !g->ring.indirect || d.flags & VRING_NEXT || d.bytes % 16) return false;
      table = translate(g, d.address, false, &run);
      if (!table || run < d.bytes) return false;
      entries = d.bytes / 16;
      most = min_u64(RING_CHAIN_MAX, steps + entries);
      next = 0;
      indirect = true;
      continue;
    }
    if (writable && !(d.flags & VRING_WRITE)) return false;
    writable = d.flags & VRING_WRITE;
    if (!walk_pieces(g, w, &d)) return false;
    if (!(d.flags & VRING_NEXT)) return true;
    next = d.next;
  }
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void map_ring(struct guest *g, struct feed *f) {
  static const uint16_t sizes[] = {8, 16, 1, 2, 4, 32, 0, 3, 2048, 1024};
  uint16_t size = sizes[feed_u8(f) % array_size(sizes)], first = feed_u16(f);
  uint64_t desc = feed_place(f, true), avail = feed_place(f, true), used = feed_place(f, true);
  bool good = size && !(size & (size - 1)) && size <= RING_SIZE_MAX &&
              area_is_good(g, desc, 16u * size, 16) && area_is_good(g, avail, 6 + 2u * size, 2) &&
              area_is_good(g, used, 6 + 8u * size, 4);
  int result = ring_map(&g->ring, &g->memory, size, desc, avail, used, first);
  check((result == 0) == good && (g->ring.desc != NULL) == good);
  g->head_count = 0;
  if (!good) return;
  g->told = false;
  g->published = g->ring.used->index;
  check(g->ring.next_used == g->published && g->ring.last_avail == first && !g->ring.broken);
}

static void look(struct guest *g) {
  bool was_broken = g->ring.broken;
  int n = ring_available(&g->ring);
  if (!g->ring.desc && !was_broken) {
    check(n == 0);
    return;
  }
  if (was_broken) {
    check(n == -EBADMSG);
    return;
  }
  uint16_t count = (uint16_t)(g->ring.avail->index - g->ring.last_avail);
  check(n == (count <= g->ring.size ? count : -EBADMSG));
  check(g->ring.broken == (n < 0));
}

static void take(struct guest *g, struct feed *f, bool changing) {
  static struct walk w;
  struct ring_chain *c = &g->chain;
  bool was_broken = g->ring.broken;
  uint16_t before = g->ring.last_avail, waiting = (uint16_t)(g->ring.known_avail - before);
  changes.guest = changing ? g : NULL;
  changes.feed = f;
  changes.calls = 0;
  int result = ring_take(&g->ring, c);
  changes.guest = NULL;
  check(changes.calls <= 2 * RING_CHAIN_MAX + 8);
  if (result == 0) {
    check(waiting == 0 && g->ring.last_avail == before);
    return;
  }
  if (c->head == UINT16_MAX) {
    check(result == -EBADMSG && g->ring.broken && g->ring.last_avail == before);
    check(was_broken || g->ring.avail->ring[before % g->ring.size] >= g->ring.size);
    return;
  }
  check(waiting > 0 && !was_broken && g->ring.last_avail == (uint16_t)(before + 1));
  check(c->head < g->ring.size);
  use_pieces(g, c, result);
  if (!changing) compare(g, result, &w, walk_chain(g, c->head, &w));
  for (uint32_t i = 0; i < c->in_count; i++) /* as a device does; maybe over its own ring */
    memset(c->iov[c->out_count + i].iov_base, feed_u8(f), c->iov[c->out_count + i].iov_len);
  if (g->head_count < array_size(g->heads)) g->heads[g->head_count++] = c->head;
}

/* A chain that was taken before, whatever it is now. */
static void again(struct guest *g) {
  static struct walk w;
  if (!g->ring.desc || !g->head_count) return;
  uint16_t head = g->heads[g->head_count - 1], before = g->ring.last_avail;
  int result = ring_again(&g->ring, head, &g->chain);
  check(g->chain.head == head && g->ring.last_avail == before);
  use_pieces(g, &g->chain, result);
  compare(g, result, &w, walk_chain(g, head, &w));
}

static void put(struct guest *g, uint32_t bytes) {
  struct vring_used_entry entry;
  if (!g->ring.desc || !g->head_count) return;
  uint16_t at = g->ring.next_used % g->ring.size, head = g->heads[--g->head_count];
  ring_put(&g->ring, head, bytes);
  memcpy(&entry, &g->ring.used->ring[at], sizeof(entry));
  check(entry.id == head && entry.bytes == bytes);
}

static void publish(struct guest *g) {
  if (!g->ring.desc) return;
  uint16_t next = g->ring.next_used;
  bool asked = ring_publish(&g->ring), wanted = false;
  if (!g->told) {
    wanted = true;
  } else if (next != g->published && !g->ring.event_idx) {
    wanted = !(g->ring.avail->flags & 1);
  } else {
    for (uint16_t i = g->published; i != next; i++)
      wanted |= i == g->ring.avail->ring[g->ring.size];
  }
  check(asked == wanted);
  check(next == g->published || g->ring.used->index == next);
  g->published = next;
  g->told = true;
}

static void offer(struct guest *g, uint16_t head) {
  if (!g->ring.desc) return;
  struct vring_avail *a = g->ring.avail;
  a->ring[a->index % g->ring.size] = head;
  a->index++;
}

static void step(struct guest *g, struct feed *f) {
  struct vring_desc d;
  uint64_t place, run;
  char *at;
  switch (feed_u8(f) % 13) {
  case 0:
    write_bytes(g, f);
    break;
  case 1: /* a descriptor of the ring */
  case 2: /* or anywhere, as in an indirect table */
    place = feed_place(f, false);
    d.address = feed_place(f, false);
    d.bytes = feed_length(f);
    d.flags = feed_u8(f) % 16;
    d.next = feed_u8(f);
    at = g->ring.desc ? (char *)&g->ring.desc[place % g->ring.size] : NULL;
    if (!at || d.flags & 8)
      at = translate(g, place, false, &run);
    else
      run = sizeof(d);
    if (at && run >= sizeof(d)) memcpy(at, &d, sizeof(d));
    break;
  case 3:
    offer(g, feed_u8(f) % (g->ring.size + 1u));
    break;
  case 4:
    if (g->ring.desc) g->ring.avail->index = feed_u16(f);
    break;
  case 5:
    look(g);
    break;
  case 6:
    look(g);
    take(g, f, false);
    break;
  case 7:
    take(g, f, true);
    break;
  case 8:
    put(g, feed_length(f));
    break;
  case 9:
    publish(g);
    break;
  case 10:
    ring_prefetch(&g->ring, feed_u8(f));
    ring_notify_me(&g->ring, feed_u8(f) & 1);
    break;
  case 11:
    map_ring(g, f);
    break;
  case 12:
    again(g);
    break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  static struct guest g;
  uint8_t flags = feed_u8(&f);
  begin_guest(&g, flags, feed_u8(&f));
  map_ring(&g, &f);
  for (int i = 0; i < STEPS_MAX && f.left > 0; i++) step(&g, &f);
  end_guest(&g);
  return 0;
}
