/* test_ring_packed.c - the device's side of a packed virtqueue: chains as drivers make them, and as
 * no driver should; what was used, in any order, past the end and back; who wants to be told. */
#include "tests/vhost/ring_guest.h"

static struct vring_packed_desc *packed;
static struct vring_event *driver, *device;
static struct ring_id ids[RING_SIZE_MAX];
static uint16_t next_avail, next_used; /* the driver's */

static int map_packed(uint16_t size, uint16_t last_avail, uint16_t used_at) {
  return ring_map_packed(&ring, &memory, size, USER + LOW, USER + LOW + 0x8000, USER + LOW + 0x9000,
                         last_avail, used_at, ids);
}

static int make_packed(void **state) {
  make_guest(state);
  packed = (void *)descs;
  driver = (void *)avail;
  device = (void *)used;
  next_avail = next_used = RING_POSITION_FIRST;
  assert_int_equal(map_packed(SIZE, next_avail, next_used), 0);
  return 0;
}
#define WITH_PACKED(f) cmocka_unit_test_setup_teardown(f, make_packed, drop_guest)

/* ---- A driver -------------------------------------------------------------------------------- */

static struct vring_packed_desc *desc_at(uint16_t position) {
  return &packed[position & ~RING_POSITION_WRAP];
}

/* The next descriptors of the ring; the first one's flags are written last. */
static void offer_chain(const struct vring_packed_desc *d, uint32_t count) {
  uint16_t first = next_avail;
  for (uint32_t i = 0; i < count; i++) {
    struct vring_packed_desc *to = desc_at(next_avail);
    uint16_t flags = d[i].flags | ring_flags_available(next_avail);
    to->address = d[i].address;
    to->bytes = d[i].bytes;
    to->id = d[i].id;
    if (i) to->flags = flags;
    next_avail = ring_position_add(next_avail, 1, SIZE);
  }
  __atomic_store_n(&desc_at(first)->flags, d[0].flags | ring_flags_available(first),
                   __ATOMIC_RELEASE);
}

static void offer_request(uint16_t id, uint64_t data, uint32_t bytes) {
  const struct vring_packed_desc d[3] = {{LOW + 0xa000, 16, 999, VRING_NEXT},
                                         {data, bytes, 888, VRING_NEXT | VRING_WRITE},
                                         {STATUS, 1, id, VRING_WRITE}};
  offer_chain(d, 3); /* only the last one has the id */
}
static void offer_table(uint16_t id, uint64_t address, uint32_t bytes) {
  const struct vring_packed_desc d = {address, bytes, id, VRING_INDIRECT | VRING_WRITE};
  offer_chain(&d, 1);
}
static void make_table(uint64_t data, uint32_t bytes) {
  struct vring_packed_desc *t = (void *)table;
  t[0] = (struct vring_packed_desc){LOW + 0xa000, 16, 7, 0};
  t[1] = (struct vring_packed_desc){data, bytes, 7, VRING_WRITE};
  t[2] = (struct vring_packed_desc){STATUS, 1, 7, VRING_WRITE};
}

static int take_packed(void) {
  int n = ring_available(&ring);
  return n < 0 ? n : ring_take(&ring, &chain);
}

/* What the driver finds used next: its id; -1: nothing. */
static int find_used(uint32_t count, uint32_t *bytes) {
  const struct vring_packed_desc *d = desc_at(next_used);
  uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
  if ((flags & (VRING_PACKED_AVAIL | VRING_PACKED_USED)) != ring_flags_used(next_used)) return -1;
  assert_int_equal((flags & VRING_WRITE) != 0, d->bytes != 0);
  if (bytes) *bytes = d->bytes;
  next_used = ring_position_add(next_used, count, SIZE);
  return d->id;
}

static void finish(uint16_t id, uint32_t bytes) {
  ring_put(&ring, id, bytes);
  ring_publish(&ring);
}

/* The next chain is malformed: its id is known, and it has a status there, or none (0). */
static void assert_refused(uint16_t id, uint64_t status) {
  uint16_t count = (uint16_t)ring_position_distance(ring.last_avail, next_avail, SIZE);
  assert_int_equal(take_packed(), -EBADMSG);
  assert_int_equal(chain.head, id);
  assert_false(ring.broken);
  assert_int_equal(chain.out_count, 0);
  assert_int_equal(chain.in_count, status != 0);
  assert_int_equal(chain.in_bytes, status != 0);
  if (status) assert_piece(0, status, 1);
  finish(id, 0);
  assert_int_equal(find_used(count, NULL), id);
}

static void assert_broken(void) {
  assert_int_equal(chain.head, UINT16_MAX);
  assert_int_equal(chain.in_count + chain.out_count, 0);
  assert_true(ring.broken);
  assert_int_equal(ring_available(&ring), -EBADMSG);
  assert_int_equal(ring_take(&ring, &chain), -EBADMSG);
  assert_int_equal(chain.head, UINT16_MAX);
}

/* ---- What is sound --------------------------------------------------------------------------- */

static void takes_a_chain(void **state) {
  (void)state;
  assert_int_equal(ring_available(&ring), 0);
  assert_int_equal(ring_take(&ring, &chain), 0);
  offer_request(5, HIGH + 0x1000, 4096);
  assert_true(ring_available(&ring) > 0);
  assert_int_equal(ring_take(&ring, &chain), 1);
  assert_int_equal(chain.head, 5);
  assert_int_equal(chain.out_count, 1);
  assert_int_equal(chain.out_bytes, 16);
  assert_int_equal(chain.in_count, 2);
  assert_int_equal(chain.in_bytes, 4097);
  assert_piece(0, LOW + 0xa000, 16);
  assert_piece(1, HIGH + 0x1000, 4096);
  assert_piece(2, STATUS, 1);
  assert_int_equal(ring.last_avail, RING_POSITION_FIRST | 3);
  assert_int_equal(ring_take(&ring, &chain), 0);
  assert_int_equal(chain.head, UINT16_MAX);
  assert_false(ring.broken);
}

static void zeros_are_not_available(void **state) {
  (void)state;
  /* Neither to begin with, nor where the other wrap counter is due. */
  assert_int_equal(ring_available(&ring), 0);
  assert_int_equal(map_packed(SIZE, 3, 3), 0);
  assert_int_equal(ring_available(&ring), 0);
  packed[3].flags = VRING_PACKED_AVAIL | VRING_PACKED_USED;
  assert_int_equal(ring_available(&ring), 0);
  packed[3].flags = VRING_PACKED_AVAIL;
  assert_int_equal(ring_available(&ring), 0);
  packed[3].flags = VRING_PACKED_USED;
  assert_true(ring_available(&ring) > 0);
}

static void takes_an_indirect_table(void **state) {
  (void)state;
  make_table(HIGH, 8192);
  offer_table(3, TABLE, 48);
  assert_int_equal(take_packed(), 1);
  assert_int_equal(chain.head, 3);
  assert_int_equal(chain.out_bytes, 16);
  assert_int_equal(chain.in_bytes, 8193);
  assert_piece(1, HIGH, 8192);
  assert_int_equal(ring.last_avail, RING_POSITION_FIRST | 1);
  memmove((char *)table + 5, table, 48); /* it need not be aligned */
  offer_table(4, TABLE + 5, 48);
  assert_int_equal(take_packed(), 1);
  assert_piece(2, STATUS, 1);
}

static void chain_as_long_as_the_ring(void **state) {
  (void)state;
  struct vring_packed_desc d[SIZE];
  next_avail = next_used = 5;
  assert_int_equal(map_packed(SIZE, 5, 5), 0); /* over the end */
  for (uint32_t i = 0; i < SIZE; i++)
    d[i] = (struct vring_packed_desc){NEXT + 64u * i, 1, 15, VRING_NEXT};
  d[SIZE - 1].flags = VRING_WRITE;
  offer_chain(d, SIZE);
  assert_int_equal(take_packed(), 1);
  assert_int_equal(chain.out_count, SIZE - 1);
  assert_int_equal(ring.last_avail, RING_POSITION_WRAP | 5);
  assert_int_equal(ring_available(&ring), 0);
  finish(15, 1);
  assert_int_equal(find_used(SIZE, NULL), 15);
  assert_int_equal(ring.next_used, RING_POSITION_WRAP | 5);
  offer_chain(d, SIZE);
  assert_int_equal(take_packed(), 1);
}

static void round_and_round(void **state) {
  (void)state;
  for (uint16_t i = 0; i < 1000; i++) {
    uint32_t bytes = 0;
    offer_request(i % SIZE, NEXT, 512);
    assert_int_equal(take_packed(), 1);
    assert_int_equal(chain.head, i % SIZE);
    assert_int_equal(take_packed(), 0);
    ring_put(&ring, i % SIZE, i);
    assert_int_equal(find_used(3, &bytes), -1);
    ring_publish(&ring);
    assert_int_equal(find_used(3, &bytes), i % SIZE);
    assert_int_equal(bytes, i);
    assert_int_equal(find_used(3, &bytes), -1);
  }
  assert_int_equal(ring.last_avail, next_avail);
  assert_int_equal(ring.next_used, next_used);
}

static void used_in_any_order(void **state) {
  (void)state;
  uint32_t bytes;
  make_table(NEXT, 512);
  for (uint32_t turn = 0; turn < 40; turn++) {
    offer_request(1, NEXT, 512);
    offer_table(2, TABLE, 48);
    offer_request(3, NEXT, 512);
    offer_table(0, TABLE, 48);
    for (int i = 0; i < 4; i++) assert_int_equal(take_packed(), 1);
    ring_put(&ring, 0, 513);
    ring_put(&ring, 3, 1);
    ring_put(&ring, 2, 0);
    assert_int_equal(find_used(1, &bytes), -1); /* none of them, before they are published */
    ring_publish(&ring);
    assert_int_equal(find_used(1, &bytes), 0);
    assert_int_equal(bytes, 513);
    assert_int_equal(find_used(3, &bytes), 3);
    assert_int_equal(find_used(1, &bytes), 2);
    assert_int_equal(bytes, 0);
    assert_int_equal(find_used(3, &bytes), -1);
    finish(1, 7);
    assert_int_equal(find_used(3, &bytes), 1);
  }
}

static void untaken_is_taken_again(void **state) {
  (void)state;
  offer_request(6, NEXT, 512);
  offer_request(7, HIGH, 512);
  assert_int_equal(take_packed(), 1);
  assert_int_equal(take_packed(), 1);
  ring_untake(&ring);
  assert_true(ring_available(&ring) > 0);
  assert_int_equal(take_packed(), 1);
  assert_int_equal(chain.head, 7);
  assert_int_equal(take_packed(), 0);
}

/* What a process before had taken: the ring says nothing of it any more. */
static void taken_once_more_from_copies(void **state) {
  (void)state;
  struct vring_packed_desc copies[SIZE] = {{LOW + 0xa000, 16, 0, VRING_NEXT},
                                           {NEXT, 512, 0, VRING_NEXT | VRING_WRITE},
                                           {STATUS, 1, 4, VRING_WRITE},
                                           {TABLE, 48, 9, VRING_INDIRECT}};
  make_table(HIGH, 512);
  ring.copies = copies;
  ids[4] = (struct ring_id){3, 0};
  ids[9] = (struct ring_id){1, 3};
  assert_int_equal(ring_again(&ring, 9, &chain), 1);
  assert_piece(1, HIGH, 512);
  assert_int_equal(ring_again(&ring, 4, &chain), 1);
  assert_int_equal(chain.head, 4);
  assert_piece(1, NEXT, 512);
  copies[2].flags |= VRING_NEXT; /* goes on in another one's */
  assert_int_equal(ring_again(&ring, 4, &chain), -EBADMSG);
  assert_int_equal(chain.head, 4);
}

/* ---- What is not ----------------------------------------------------------------------------- */

static void no_such_id(void **state) {
  (void)state;
  offer_request(SIZE - 1, NEXT, 512);
  assert_int_equal(take_packed(), 1);
  offer_request(SIZE, NEXT, 512);
  assert_int_equal(take_packed(), -EBADMSG);
  assert_broken();
}

static void an_id_twice(void **state) {
  (void)state;
  offer_request(2, NEXT, 512);
  offer_request(2, HIGH, 512);
  assert_int_equal(take_packed(), 1);
  assert_int_equal(take_packed(), -EBADMSG);
  assert_broken();
  ring_put(&ring, 2, 1); /* the first one is in flight, and comes back as it was */
  ring_publish(&ring);
  assert_int_equal(find_used(3, NULL), 2);
}

static void longer_than_the_ring(void **state) {
  (void)state;
  struct vring_packed_desc d[SIZE];
  for (uint32_t i = 0; i < SIZE; i++)
    d[i] = (struct vring_packed_desc){STATUS, 1, 1, VRING_NEXT | VRING_WRITE};
  offer_chain(d, SIZE);
  assert_int_equal(take_packed(), -EBADMSG);
  assert_broken();
}

/* A chain may be as long as the ring only if nothing else is in it. */
static void into_what_is_taken(void **state) {
  (void)state;
  struct vring_packed_desc d[SIZE];
  offer_request(0, NEXT, 512);
  assert_int_equal(take_packed(), 1);
  for (uint32_t i = 0; i < SIZE; i++)
    d[i] = (struct vring_packed_desc){STATUS, 1, 1,
                                      i + 1 < SIZE - 2 ? VRING_NEXT | VRING_WRITE : VRING_WRITE};
  offer_chain(d, SIZE - 2);
  assert_int_equal(take_packed(), -EBADMSG);
  assert_broken();
}

/* All is taken, and yet the next one says that it is available. */
static void more_than_the_ring_has(void **state) {
  (void)state;
  make_table(NEXT, 512);
  for (uint16_t i = 0; i < SIZE; i++) {
    offer_table(i, TABLE, 48);
    assert_int_equal(take_packed(), 1);
  }
  assert_int_equal(ring_available(&ring), 0);
  ring_put(&ring, 5, 1); /* not published: the driver cannot know */
  offer_table(5, TABLE, 48);
  assert_int_equal(ring_available(&ring), -EBADMSG);
  assert_true(ring.broken);
}

static void malformed_tables(void **state) {
  (void)state;
  struct vring_packed_desc *t = (void *)table;
  make_table(NEXT, 512);
  t[1].flags |= VRING_NEXT; /* no chains in a table */
  offer_table(1, TABLE, 48);
  assert_refused(1, STATUS);
  make_table(NEXT, 512);
  t[2].flags |= VRING_NEXT;
  offer_table(1, TABLE, 48);
  assert_refused(1, STATUS);
  make_table(NEXT, 512);
  t[1].flags |= VRING_INDIRECT;
  offer_table(1, TABLE, 48);
  assert_refused(1, STATUS);
  make_table(NEXT, 512);
  t[1].flags = 0;
  t[0].flags = VRING_WRITE; /* to be read behind what is to be written */
  offer_table(1, TABLE, 48);
  assert_refused(1, STATUS);
  make_table(NEXT, 512);
  ring.indirect = false;
  offer_table(1, TABLE, 48);
  assert_refused(1, 0);
}

static void tables_of_wrong_size_or_place(void **state) {
  (void)state;
  const struct {
    uint64_t address;
    uint32_t bytes;
  } bad[] = {{TABLE, 0},     {TABLE, 15},         {TABLE, 47},
             {TABLE, 49},    {TABLE, UINT32_MAX}, {TABLE, UINT32_MAX & ~15u},
             {0, 48},        {NEXT + 0xfff0, 48}, {UINT64_MAX - 15, 48},
             {NEXT - 16, 48}};
  make_table(NEXT, 512);
  for (size_t i = 0; i < array_size(bad); i++) {
    offer_table(1, bad[i].address, bad[i].bytes);
    assert_refused(1, 0);
  }
}

/* A table is a chain of its own: neither before nor behind other descriptors. */
static void tables_among_others(void **state) {
  (void)state;
  make_table(NEXT, 512);
  struct vring_packed_desc d[3] = {{TABLE, 48, 1, VRING_INDIRECT | VRING_NEXT},
                                   {STATUS, 1, 4, VRING_WRITE}};
  offer_chain(d, 2);
  assert_refused(4, STATUS);
  d[0] = (struct vring_packed_desc){NEXT, 16, 1, VRING_NEXT};
  d[1] = (struct vring_packed_desc){TABLE, 48, 5, VRING_INDIRECT};
  offer_chain(d, 2);
  assert_refused(5, 0);
}

static void tables_are_bounded(void **state) {
  (void)state;
  static struct iovec many[RING_CHAIN_MAX + 8];
  struct vring_packed_desc *large = (void *)at(HIGH);
  chain.iov = many;
  chain.room = array_size(many);
  for (uint32_t i = 0; i < RING_CHAIN_MAX + 8; i++)
    large[i] = (struct vring_packed_desc){HIGH + 0x100000 + 8 * i, 1, 0, VRING_WRITE};
  offer_table(1, HIGH, (RING_CHAIN_MAX - 1) * 16);
  assert_int_equal(take_packed(), 1); /* the indirect one counts */
  assert_int_equal(chain.in_count, RING_CHAIN_MAX - 1);
  finish(1, 0);
  assert_int_equal(find_used(1, NULL), 1);
  offer_table(1, HIGH, RING_CHAIN_MAX * 16);
  assert_int_equal(take_packed(), -EBADMSG);
  assert_int_equal(chain.in_count, 1);
}

static void memory_that_there_is_not(void **state) {
  (void)state;
  const struct {
    uint64_t address;
    uint32_t bytes;
  } bad[] = {{0, 1},          {LOW - 1, 2},          {NEXT + 0xffff, 2},
             {HIGH - 1, 1},   {HIGH + BIG - 1, 2},   {HIGH + 1, UINT32_MAX},
             {UINT64_MAX, 2}, {UINT64_MAX - 15, 16}, {UINT64_MAX - 15, 0x20010}};
  for (size_t i = 0; i < array_size(bad); i++) {
    offer_request(1, bad[i].address, bad[i].bytes);
    assert_refused(1, STATUS); /* the chain's end is known, and its status */
  }
  const struct vring_packed_desc d[2] = {{0, 1, 0, VRING_NEXT}, {NEXT, 512, 2, 0}};
  offer_chain(d, 2);
  assert_refused(2, 0);
}

static void readable_behind_writable(void **state) {
  (void)state;
  const struct vring_packed_desc d[3] = {{NEXT, 1, 0, VRING_NEXT | VRING_WRITE},
                                         {NEXT, 16, 0, VRING_NEXT},
                                         {STATUS, 1, 2, VRING_WRITE}};
  offer_chain(d, 3);
  assert_refused(2, STATUS);
  offer_chain(d, 2);
  packed[4].flags &= ~VRING_NEXT;
  assert_refused(0, NEXT);
}

static void more_pieces_than_room(void **state) {
  (void)state;
  chain.room = 2;
  offer_request(1, HIGH + 0x1000, 4096);
  assert_refused(1, STATUS);
  chain.room = 0;
  offer_request(1, HIGH + 0x1000, 4096);
  assert_refused(1, 0);
}

/* ---- Rings in memory ------------------------------------------------------------------------- */

static int try_map(uint16_t size, uint64_t desc, uint64_t driver_at, uint64_t device_at) {
  int result = ring_map_packed(&ring, &memory, size, USER + desc, USER + driver_at,
                               USER + device_at, RING_POSITION_FIRST, RING_POSITION_FIRST, ids);
  assert_int_equal(ring.desc != NULL, result == 0);
  assert_int_equal(ring_available(&ring), 0);
  return result;
}

static void areas_lie_whole_in_one_region(void **state) {
  (void)state;
  const uint64_t end = HIGH + BIG;
  assert_int_equal(try_map(SIZE, end - 256, end - 4, end - 4), 0);
  assert_int_equal(try_map(SIZE, end - 240, end - 4, end - 4), -EFAULT);
  assert_int_equal(try_map(SIZE, end - 256, end, end - 4), -EFAULT);
  assert_int_equal(try_map(SIZE, end - 256, end - 4, end), -EFAULT);
  assert_int_equal(try_map(SIZE, NEXT - 240, LOW, LOW), -EFAULT);
  assert_int_equal(try_map(SIZE, LOW + 8, LOW, LOW), -EINVAL);
  assert_int_equal(try_map(SIZE, LOW, LOW + 2, LOW), -EINVAL);
  assert_int_equal(try_map(SIZE, LOW, LOW, LOW + 2), -EINVAL);
  assert_int_equal(try_map(0, LOW, LOW, LOW), -EINVAL);
  assert_int_equal(try_map(12, LOW, LOW, LOW), -EINVAL);
  assert_int_equal(try_map(2048, HIGH, LOW, LOW), -EINVAL);
}

static void positions_are_checked(void **state) {
  (void)state;
  const uint16_t wrap = RING_POSITION_WRAP;
  assert_int_equal(map_packed(SIZE, SIZE, 0), -EINVAL);
  assert_int_equal(map_packed(SIZE, 0, wrap | SIZE), -EINVAL);
  assert_int_equal(map_packed(SIZE, 3, 4), -EINVAL);        /* more used than taken */
  assert_int_equal(map_packed(SIZE, wrap | 4, 3), -EINVAL); /* more than a lap */
  assert_int_equal(map_packed(SIZE, wrap | 3, 3), 0);
  assert_int_equal(map_packed(SIZE, 4, 3), 0);
}

/* ---- Who wants to be told -------------------------------------------------------------------- */

static void driver_may_wish_not_to_be_told(void **state) {
  (void)state;
  make_table(NEXT, 512);
  driver->flags = VRING_EVENT_DISABLE;
  assert_true(ring_publish(&ring)); /* the first time: who knows what it was told */
  assert_false(ring_publish(&ring));
  for (uint16_t flags = 0; flags < 4; flags++) {
    offer_table(1, TABLE, 48);
    assert_int_equal(take_packed(), 1);
    ring_put(&ring, 1, 0);
    driver->flags = flags;
    driver->where = 12; /* EVENT_IDX was not negotiated: it does not count */
    assert_int_equal(ring_publish(&ring), flags != VRING_EVENT_DISABLE);
    assert_false(ring_publish(&ring)); /* nothing new */
    assert_int_equal(find_used(1, NULL), 1);
  }
}

/* For each start and each number of new ones, each position that the driver may wait for. */
static void driver_is_told_of_what_it_waits_for(void **state) {
  (void)state;
  ring.event_idx = true;
  make_table(NEXT, 512);
  for (uint32_t start = 0; start < 2 * SIZE; start++) {
    for (uint16_t batch = 1; batch <= SIZE; batch++) {
      for (uint32_t event = 0; event < 2 * SIZE; event++) {
        uint16_t from = ring_position_add(RING_POSITION_FIRST, start % SIZE, SIZE);
        if (start >= SIZE) from ^= RING_POSITION_WRAP;
        next_avail = from;
        assert_int_equal(map_packed(SIZE, from, from), 0);
        ring_publish(&ring);
        for (uint16_t i = 0; i < batch; i++) {
          offer_table(i, TABLE, 48);
          assert_int_equal(take_packed(), 1);
          ring_put(&ring, i, 0);
        }
        uint16_t where = event < SIZE ? (uint16_t)event : RING_POSITION_WRAP | (event - SIZE);
        *driver = (struct vring_event){where, VRING_EVENT_DESC};
        bool is_new = false;
        for (uint16_t i = 0; i < batch; i++) is_new |= where == ring_position_add(from, i, SIZE);
        assert_int_equal(ring_publish(&ring), is_new);
      }
    }
  }
}

static void asks_to_be_told(void **state) {
  (void)state;
  offer_request(1, NEXT, 512);
  assert_int_equal(take_packed(), 1);
  ring_notify_me(&ring, false);
  assert_int_equal(device->flags, VRING_EVENT_DISABLE);
  ring_notify_me(&ring, true);
  assert_int_equal(device->flags, VRING_EVENT_ENABLE);
  ring.event_idx = true;
  ring_notify_me(&ring, true);
  assert_int_equal(device->flags, VRING_EVENT_DESC);
  assert_int_equal(device->where, RING_POSITION_FIRST | 3);
  ring_unmap(&ring);
  ring_notify_me(&ring, true);
  assert_int_equal(ring_available(&ring), 0);
  assert_int_equal(ring_take(&ring, &chain), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_PACKED(takes_a_chain),
      WITH_PACKED(zeros_are_not_available),
      WITH_PACKED(takes_an_indirect_table),
      WITH_PACKED(chain_as_long_as_the_ring),
      WITH_PACKED(round_and_round),
      WITH_PACKED(used_in_any_order),
      WITH_PACKED(untaken_is_taken_again),
      WITH_PACKED(taken_once_more_from_copies),
      WITH_PACKED(no_such_id),
      WITH_PACKED(an_id_twice),
      WITH_PACKED(longer_than_the_ring),
      WITH_PACKED(into_what_is_taken),
      WITH_PACKED(more_than_the_ring_has),
      WITH_PACKED(malformed_tables),
      WITH_PACKED(tables_of_wrong_size_or_place),
      WITH_PACKED(tables_among_others),
      WITH_PACKED(tables_are_bounded),
      WITH_PACKED(memory_that_there_is_not),
      WITH_PACKED(readable_behind_writable),
      WITH_PACKED(more_pieces_than_room),
      WITH_PACKED(areas_lie_whole_in_one_region),
      WITH_PACKED(positions_are_checked),
      WITH_PACKED(driver_may_wish_not_to_be_told),
      WITH_PACKED(driver_is_told_of_what_it_waits_for),
      WITH_PACKED(asks_to_be_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
