/* fuzz_ring_packed.c - the device's side of a packed virtqueue against whatever a driver may write,
 * and when: a second walk over the same bytes says which chains there are, which are sound, and
 * what is in them.
 *
 * Input: flags (1 byte: features; 4: chains are copied), room (1), the ring: its size (1), where
 * the device is (2 and 2), areas (3 places); then steps: kind (1) and what belongs to it. */
#include "tests/fuzz/ring_opinion.h"

static struct {
  uint16_t size, next_avail;               /* where the driver's next descriptor goes */
  uint16_t count[RING_SIZE_MAX];           /* by id: descriptors of what the device has */
  struct ring_id *ids;                     /* [size], of just that size */
  struct vring_packed_desc *copies, *last; /* [size] both, or NULL; last: of the last chain */
  uint16_t last_id;
  bool copied;
} model;

/* ---- A second opinion ------------------------------------------------------------------------ */

static bool walk_one(const struct guest *g, struct walk *w, const struct vring_packed_desc *p,
                     bool *writable) {
  struct vring_desc d = {p->address, p->bytes, p->flags, 0};
  if (*writable && !(d.flags & VRING_WRITE)) return false;
  *writable = d.flags & VRING_WRITE;
  return walk_pieces(g, w, &d);
}

static bool walk_table(const struct guest *g, struct walk *w, const struct vring_packed_desc *p) {
  uint64_t run;
  bool writable = false;
  const char *table = translate(g, p->address, false, &run);
  if (!g->ring.indirect || p->flags & VRING_NEXT || !p->bytes || p->bytes % 16) return false;
  if (!table || run < p->bytes || p->bytes / 16 >= RING_CHAIN_MAX) return false;
  for (uint32_t i = 0; i < p->bytes / 16; i++) {
    struct vring_packed_desc e;
    memcpy(&e, table + i * 16, sizeof e);
    if (e.flags & (VRING_NEXT | VRING_INDIRECT) || !walk_one(g, w, &e, &writable)) return false;
  }
  return true;
}

/* A chain from number `at` on: is it sound? *count: its descriptors, 0: it has no end within
 * `most`. */
static bool walk_chain(const struct guest *g, const char *descs, uint32_t at, uint32_t size,
                       uint32_t most, struct walk *w, uint32_t *count, uint16_t *id) {
  bool sound = true, writable = false;
  memset(w->count, 0, sizeof w->count);
  memset(w->bytes, 0, sizeof w->bytes);
  for (*count = 0; *count < most;) {
    struct vring_packed_desc d;
    memcpy(&d, descs + (at + *count) % size * 16, sizeof d);
    ++*count;
    if (sound && d.flags & VRING_INDIRECT)
      sound = *count == 1 && walk_table(g, w, &d);
    else if (sound)
      sound = walk_one(g, w, &d, &writable);
    *id = d.id;
    if (!(d.flags & VRING_NEXT)) return sound;
  }
  *count = 0;
  return false;
}

static uint32_t number_of(uint16_t position) { return position & 0x7fffu; }
static bool wrap_of(uint16_t position) { return position >> 15; }
/* Descriptors from one position to the next; the device's words, which never are too far apart. */
static uint32_t way(const struct guest *g, uint16_t from, uint16_t to) {
  return number_of(to) - number_of(from) + (wrap_of(from) != wrap_of(to) ? g->ring.size : 0u);
}
static uint16_t flags_at(const struct guest *g, uint16_t position) {
  uint16_t flags;
  memcpy(&flags, (const char *)g->ring.desc + number_of(position) * 16 + 14, 2);
  return flags;
}
static bool is_there(const struct guest *g) {
  uint16_t flags = flags_at(g, g->ring.last_avail);
  bool avail = flags >> 7 & 1, used = flags >> 15;
  return avail == wrap_of(g->ring.last_avail) && used != avail;
}
static uint32_t room(const struct guest *g) {
  return g->ring.size - way(g, g->ring.told_used, g->ring.last_avail);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void drop_model(void) {
  free(model.ids);
  free(model.copies);
  free(model.last);
  memset(&model, 0, sizeof model);
}

static void map_ring(struct guest *g, struct feed *f, bool copies) {
  static const uint16_t sizes[] = {8, 16, 1, 2, 4, 32, 0, 3, 2048, 64};
  uint16_t size = sizes[feed_u8(f) % array_size(sizes)], at = feed_u16(f), used = feed_u16(f);
  uint64_t desc = feed_place(f, true), driver = feed_place(f, true), device = feed_place(f, true);
  bool good = size && !(size & (size - 1)) && size <= RING_SIZE_MAX && number_of(at) < size &&
              number_of(used) < size && area_is_good(g, desc, 16u * size, 16) &&
              area_is_good(g, driver, 4, 4) && area_is_good(g, device, 4, 4);
  if (good) /* the one is ahead of the other, and not by more than a lap */
    good = wrap_of(at) == wrap_of(used) ? number_of(at) >= number_of(used)
                                        : number_of(at) <= number_of(used);
  drop_model();
  model.ids = fuzz_alloc((size + 1u) * sizeof *model.ids);
  int result =
      ring_map_packed(&g->ring, &g->memory, size, desc, driver, device, at, used, model.ids);
  check((result == 0) == good && (g->ring.desc != NULL) == good);
  g->head_count = 0;
  if (!good) return;
  g->told = false;
  model.size = size;
  model.next_avail = at;
  if (!copies) return;
  model.copies = fuzz_alloc(size * sizeof *model.copies);
  model.last = fuzz_alloc(size * sizeof *model.last);
  g->ring.copies = model.copies;
}

static void look(struct guest *g) {
  bool was_broken = g->ring.broken, mapped = g->ring.desc != NULL;
  bool there = mapped && is_there(g);
  uint32_t left = mapped ? room(g) : 0;
  int n = ring_available(&g->ring);
  if (was_broken)
    check(n == -EBADMSG);
  else
    check(n == (!there ? 0 : left ? (int)left : -EBADMSG));
  check(g->ring.broken == (n < 0));
}

/* A driver that keeps to the rules, as far as where it writes. */
static void offer(struct guest *g, struct feed *f) {
  struct vring_packed_desc d = {.address = feed_place(f, false)};
  d.bytes = feed_length(f);
  d.flags = feed_u8(f) % 8;
  d.id = feed_u8(f);
  if (!g->ring.desc) return;
  d.flags |= wrap_of(model.next_avail) ? 1 << 7 : 1 << 15;
  memcpy((char *)g->ring.desc + number_of(model.next_avail) * 16, &d, sizeof d);
  uint32_t next = number_of(model.next_avail) + 1u;
  model.next_avail = next < model.size ? model.next_avail + 1 : (~model.next_avail & 0x8000);
}

static void remember(struct guest *g, uint32_t count) {
  model.copied = model.copies != NULL;
  model.last_id = g->chain.head;
  if (model.copied) memcpy(model.last, model.copies, count * sizeof *model.last);
}

static void take(struct guest *g, struct feed *f, bool changing) {
  static struct walk w;
  struct ring_chain *c = &g->chain;
  uint32_t count = 0;
  uint16_t id = 0, before = g->ring.last_avail;
  bool was_broken = g->ring.broken, there = g->ring.desc && is_there(g), sound = false;
  if (there && !was_broken)
    sound = walk_chain(g, (const char *)g->ring.desc, number_of(before), model.size, room(g), &w,
                       &count, &id);
  changes.guest = changing ? g : NULL;
  changes.feed = f;
  changes.calls = 0;
  int result = ring_take(&g->ring, c);
  changes.guest = NULL;
  check(changes.calls <= 2 * RING_CHAIN_MAX + 8);
  if (result == 0) {
    check(!there && !was_broken && g->ring.last_avail == before && c->head == UINT16_MAX);
    return;
  }
  if (c->head == UINT16_MAX) {
    check(result == -EBADMSG && g->ring.broken && g->ring.last_avail == before);
    check(c->in_count + c->out_count == 0);
    check(was_broken || changing || !count || id >= model.size || model.count[id]);
    return;
  }
  check(there && !was_broken && c->head < model.size && !model.count[c->head]);
  uint32_t took = way(g, before, g->ring.last_avail);
  check(took && took == model.ids[c->head].count &&
        way(g, g->ring.told_used, g->ring.last_avail) <= model.size);
  model.count[c->head] = (uint16_t)took;
  use_pieces(g, c, result);
  if (!changing) {
    check(c->head == id && took == count);
    compare(g, result, &w, sound);
  }
  remember(g, took);
  for (uint32_t i = 0; i < c->in_count; i++) /* as a device does; maybe over its own ring */
    memset(c->iov[c->out_count + i].iov_base, feed_u8(f), c->iov[c->out_count + i].iov_len);
  if (g->head_count < array_size(g->heads)) g->heads[g->head_count++] = c->head;
}

/* The chain that was taken last, from its copies. */
static void again(struct guest *g) {
  static struct walk w;
  uint32_t count;
  uint16_t id, head = model.last_id, before = g->ring.last_avail;
  if (!g->ring.desc || !model.copied || !model.count[head]) return;
  uint16_t start = (uint16_t)(model.size - model.count[head]); /* the last ones that there are */
  memcpy(model.copies + start, model.last, model.count[head] * sizeof *model.last);
  model.ids[head].copy = start;
  int result = ring_again(&g->ring, head, &g->chain);
  check(g->chain.head == head && g->ring.last_avail == before);
  use_pieces(g, &g->chain, result);
  bool sound = walk_chain(g, (const char *)model.last, 0, model.count[head], model.count[head], &w,
                          &count, &id);
  check(count == model.count[head] && id == head);
  compare(g, result, &w, sound);
}

static void untake(struct guest *g) {
  if (!g->ring.desc || !g->head_count || !model.copied) return;
  uint16_t head = g->heads[g->head_count - 1], before = g->ring.last_avail;
  if (head != model.last_id || !model.count[head] || head != g->ring.untake_id) return;
  ring_untake(&g->ring);
  check(way(g, g->ring.last_avail, before) == model.count[head] && !model.ids[head].count);
  model.count[head] = 0;
  model.copied = false; /* once */
  g->head_count--;
}

static void put(struct guest *g, uint32_t bytes) {
  struct vring_packed_desc d;
  if (!g->ring.desc || !g->head_count) return;
  uint16_t at = g->ring.next_used, head = g->heads[--g->head_count], flags = flags_at(g, at);
  uint32_t count = model.count[head];
  ring_put(&g->ring, head, bytes);
  model.count[head] = 0;
  memcpy(&d, (const char *)g->ring.desc + number_of(at) * 16, sizeof d);
  check(d.id == head && d.bytes == bytes && way(g, at, g->ring.next_used) == count);
  if (at == g->ring.told_used)
    check(d.flags == flags); /* not yet to be seen */
  else
    check(d.flags == ((wrap_of(at) ? 0x8080 : 0) | (bytes ? VRING_WRITE : 0)));
}

static void publish(struct guest *g) {
  if (!g->ring.desc) return;
  uint16_t from = g->ring.told_used, next = g->ring.next_used;
  bool wanted = !g->told;
  bool asked = ring_publish(&g->ring);
  struct vring_event e;
  memcpy(&e, g->ring.avail, sizeof e);
  if (g->told && from != next) {
    uint32_t kind = e.flags & 3u;
    wanted = kind != VRING_EVENT_DISABLE;
    if (kind == VRING_EVENT_DESC && g->ring.event_idx) {
      wanted = false;
      for (uint16_t at = from; at != next; at = ring_position_add(at, 1, model.size))
        wanted |= at == e.where;
    }
  }
  check(asked == wanted && g->ring.told_used == next);
  if (from != next) check((flags_at(g, from) & 0x8080) == (wrap_of(from) ? 0x8080 : 0));
  g->told = true;
}

static void step(struct guest *g, struct feed *f) {
  struct vring_packed_desc d;
  uint64_t place, run;
  char *at;
  switch (feed_u8(f) % 13) {
  case 0:
    write_bytes(g, f);
    break;
  case 1: /* anywhere, as in an indirect table, or in the ring */
    place = feed_place(f, false);
    d.address = feed_place(f, false);
    d.bytes = feed_length(f);
    d.flags = feed_u16(f);
    d.id = feed_u8(f);
    at = translate(g, place, false, &run);
    if (at && run >= sizeof d) memcpy(at, &d, sizeof d);
    break;
  case 2:
  case 3:
    offer(g, f);
    break;
  case 4:
    look(g);
    break;
  case 5:
    look(g);
    take(g, f, false);
    break;
  case 6:
    take(g, f, true);
    break;
  case 7:
    put(g, feed_length(f));
    break;
  case 8:
    publish(g);
    break;
  case 9:
    if (g->ring.desc) ring_prefetch(&g->ring, feed_u8(f));
    ring_notify_me(&g->ring, feed_u8(f) & 1);
    break;
  case 10:
    map_ring(g, f, model.copies != NULL);
    break;
  case 11:
    again(g);
    break;
  case 12:
    untake(g);
    break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  static struct guest g;
  uint8_t flags = feed_u8(&f);
  begin_guest(&g, flags, feed_u8(&f));
  map_ring(&g, &f, flags & 4);
  for (int i = 0; i < STEPS_MAX && f.left > 0; i++) step(&g, &f);
  end_guest(&g);
  drop_model();
  return 0;
}
