/* test_inflight_packed.c - a process that serves a packed ring is ended between any two of its
 * stores to the in-flight file, or to the ring; the next one goes on from there. The driver sees
 * each request used once, and none is lost, whatever the order. A file that makes no sense is
 * refused. */
#include <setjmp.h>
#include <stdint.h>

static uint32_t stores_left; /* until the process ends; UINT32_MAX: never */
static jmp_buf end;
static void before_store(void) {
  if (stores_left == UINT32_MAX) return;
  if (stores_left-- == 0) longjmp(end, 1);
}
#define PUT(field, value) (before_store(), __atomic_store_n(&(field), (value), __ATOMIC_RELEASE))
#include "api/vhost/inflight_packed.c"
#include "tests/vhost/ring_guest.h"

/* ---- The guest, and the file ------------------------------------------------------------------
 */

struct request {
  uint64_t number; /* 0: none with this id */
  uint32_t count;
};
static struct {
  struct vring_packed_desc *descs;
  struct request requests[SIZE];
  uint16_t next_avail, next_used;
  uint32_t room, in_flight; /* room: descriptors */
  uint64_t offered, used;
} driver;

static union {
  struct inflight_packed p;
  char bytes[sizeof(struct inflight_packed) + SIZE * sizeof(struct inflight_desc)];
} file;

static uint16_t taken[SIZE]; /* ids that it has */
static uint32_t taken_count;

static uint32_t random_below(uint32_t n) {
  static uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 11) % n;
}

static int make_all(void **state) {
  make_guest(state);
  memset(&driver, 0, sizeof driver);
  memset(&file, 0, sizeof file);
  driver.descs = (void *)descs;
  driver.next_avail = driver.next_used = RING_POSITION_FIRST;
  driver.room = SIZE;
  taken_count = 0;
  stores_left = UINT32_MAX;
  return 0;
}

/* Each request's data lies at a place that says which one it is. */
static uint64_t data_of(uint64_t number) { return HIGH + number % 0x8000 * 512; }

static bool offer_one(void) {
  uint16_t id = (uint16_t)random_below(SIZE);
  uint32_t count = 1 + random_below(3);
  struct request *r = &driver.requests[id];
  if (r->number || driver.room < count) return false;
  *r = (struct request){++driver.offered, count};
  driver.room -= count;
  driver.in_flight++;
  uint16_t first = driver.next_avail;
  for (uint32_t i = count; i-- > 0;) { /* the first one last */
    uint16_t at = ring_position_add(first, i, SIZE);
    uint16_t flags = ring_flags_available(at) | VRING_WRITE | (i + 1 < count ? VRING_NEXT : 0);
    driver.descs[number_of(at)] =
        (struct vring_packed_desc){data_of(r->number) + 100 * i, 50, id, flags};
  }
  driver.next_avail = ring_position_add(first, count, SIZE);
  return true;
}

static bool reap_one(void) {
  const struct vring_packed_desc *d = &driver.descs[number_of(driver.next_used)];
  uint16_t flags = d->flags & (VRING_PACKED_AVAIL | VRING_PACKED_USED);
  if (flags != ring_flags_used(driver.next_used)) return false;
  assert_true(d->id < SIZE);
  struct request *r = &driver.requests[d->id];
  assert_true(r->number != 0);           /* it is in flight */
  assert_int_equal(d->bytes, r->number); /* and this is it, not one before */
  driver.next_used = ring_position_add(driver.next_used, r->count, SIZE);
  driver.room += r->count;
  driver.in_flight--;
  driver.used++;
  r->number = 0;
  return true;
}

/* ---- A process --------------------------------------------------------------------------------
 */

static struct inflight tracker;
static struct ring_id ids[SIZE];
static struct inflight_link links[SIZE];
static struct vring_packed_desc copies[SIZE];
static uint16_t put[2 * SIZE], heads[SIZE];

static void check_chain(void) {
  const struct request *r = &driver.requests[chain.head];
  assert_true(r->number != 0);
  assert_int_equal(chain.in_bytes, 50 * r->count);
  for (uint32_t i = 0; i < r->count; i++) assert_piece(i, data_of(r->number) + 100 * i, 50);
}

/* What it knows is all from the file: the monitor says where the ring began. */
static int begin(void) {
  const uint16_t first = RING_POSITION_FIRST;
  assert_int_equal(ring_map_packed(&ring, &memory, SIZE, USER + LOW, USER + LOW + 0x8000,
                                   USER + LOW + 0x9000, first, first, ids),
                   0);
  memset(links, 0xee, sizeof links);
  memset(copies, 0xee, sizeof copies);
  return inflight_begin_packed(&tracker, &file.p, put, &ring, heads, copies, links);
}

static void begin_process(void) {
  uint64_t last = 0;
  int n = begin();
  assert_true(n >= 0);
  taken_count = 0;
  for (int i = 0; i < n; i++) {
    assert_int_equal(ring_again(&ring, heads[i], &chain), 1);
    check_chain();
    assert_true(driver.requests[heads[i]].number > last); /* in the order in which they came */
    last = driver.requests[heads[i]].number;
    inflight_take(&tracker, heads[i]);
    taken[taken_count++] = heads[i];
  }
}

static void publish(void) {
  inflight_publish(&tracker, ring.next_used);
  before_store();
  ring_publish(&ring);
  before_store();
  inflight_published(&tracker, ring.next_used);
}

static void put_one(void) {
  if (!taken_count) return;
  uint32_t i = random_below(taken_count);
  uint16_t id = taken[i];
  taken[i] = taken[--taken_count];
  inflight_put(&tracker, id);
  ring_put(&ring, id, (uint32_t)driver.requests[id].number);
  before_store();
}

static void take_one(void) {
  if (ring_available(&ring) <= 0) return;
  assert_int_equal(ring_take(&ring, &chain), 1);
  check_chain();
  before_store();
  inflight_take(&tracker, chain.head);
  before_store();
  taken[taken_count++] = chain.head;
}

static void do_something(void) {
  switch (random_below(8)) {
  case 0:
  case 1:
    put_one();
    break;
  case 2:
    publish();
    break;
  default:
    take_one();
  }
}

/* Nothing is lost: all that the driver waits for comes. */
static void drain(void) {
  for (uint32_t i = 0; i < 4 * SIZE; i++) take_one();
  while (taken_count) put_one();
  publish();
  while (reap_one()) continue;
  assert_int_equal(driver.in_flight, 0);
  assert_int_equal(driver.used, driver.offered);
}

static void ended_at_any_store(void **state) {
  (void)state;
  volatile uint32_t ends = 0;
  for (volatile uint32_t i = 0; i < 40000; i++) {
    stores_left = UINT32_MAX;
    for (uint32_t k = random_below(6); k > 0; k--) offer_one();
    for (uint32_t k = random_below(6); k > 0; k--) reap_one();
    stores_left = random_below(60);
    if (setjmp(end)) {
      ends = ends + 1;
    } else {
      begin_process();
      for (uint32_t k = 0; k < 40; k++) {
        do_something();
        if (random_below(4) == 0) reap_one();
        if (random_below(3) == 0) offer_one();
      }
    }
  }
  stores_left = UINT32_MAX;
  assert_true(ends > 10000);
  assert_true(driver.used > 10000);
  begin_process();
  drain();
}

/* Ended while it finds out where the one before was ended. */
static void ended_while_it_begins(void **state) {
  (void)state;
  for (volatile uint32_t i = 0; i < 3000; i++) {
    stores_left = UINT32_MAX;
    begin_process();
    for (uint32_t k = 0; k < 20; k++) offer_one();
    stores_left = random_below(80);
    if (!setjmp(end))
      for (;;) do_something();
    for (volatile int again = 0; again < 3; again++) {
      stores_left = random_below(40);
      if (!setjmp(end)) begin();
    }
    while (reap_one()) continue;
  }
  stores_left = UINT32_MAX;
  begin_process();
  drain();
}

/* ---- Files that make no sense ------------------------------------------------------------------
 */

/* Three chains in flight, one given back. */
static void make_file(void) {
  make_all(NULL);
  begin_process();
  while (driver.in_flight < 4) offer_one();
  for (int i = 0; i < 4; i++) take_one();
  put_one();
  publish();
  while (reap_one()) continue;
}

static uint16_t first_in_flight(void) {
  uint16_t i = 0;
  while (!file.p.entries[i].in_flight) i++;
  return i;
}

static void bad_files_are_refused(void **state) {
  struct inflight_packed *p = &file.p;
  (void)state;
  for (uint32_t what = 0; what < 11; what++) {
    drop_guest(NULL);
    make_file();
    struct inflight_desc *e = &p->entries[first_in_flight()];
    switch (what) {
    case 0:
      p->version = 2;
      break;
    case 1:
      p->size = SIZE / 2;
      break;
    case 2:
      p->where.used = p->where.old_used = SIZE;
      break;
    case 3:
      p->old_free = SIZE; /* many are neither free nor in flight */
      break;
    case 4: /* free ones in a circle */
      p->entries[p->old_free].next = p->old_free;
      break;
    case 5:
      e->count = 0;
      break;
    case 6:
      e->count = SIZE + 1;
      break;
    case 7:
      e->count++;
      break;
    case 8:
      p->entries[e->last].id = SIZE;
      break;
    case 9: /* two with one id */
      for (uint16_t i = 0; i < SIZE; i++) p->entries[i].id = 3;
      break;
    case 10:
      p->old_free = first_in_flight(); /* the free list runs into a chain */
      break;
    }
    int n = begin();
    if (what ==
        10) /* that one is free then; what follows in its chain, and behind it, may not be */
      assert_true(n == -EBADMSG || n < 3);
    else
      assert_int_equal(n, -EBADMSG);
  }
}

/* Whatever stands there, it ends, and what comes of it lies inside of the ring. */
static void any_file_does_no_harm(void **state) {
  (void)state;
  make_guest(NULL);
  for (uint32_t turn = 0; turn < 20000; turn++) {
    drop_guest(NULL);
    make_file();
    for (uint32_t i = 1 + random_below(4); i > 0; i--)
      file.bytes[random_below(sizeof file.bytes)] =
          (char)random_below(random_below(2) ? 256 : SIZE);
    int n = begin();
    assert_true(n == -EBADMSG || (n >= 0 && n <= (int)SIZE));
    for (int i = 0; i < n; i++) {
      assert_true(heads[i] < SIZE);
      ring_again(&ring, heads[i], &chain);
      inflight_take(&tracker, heads[i]);
      inflight_put(&tracker, heads[i]);
      ring_put(&ring, heads[i], 1);
    }
    if (n < 0) continue;
    publish();
    assert_int_equal(ring.next_used, ring.last_avail);
    assert_int_equal(begin(), 0);
  }
}

static void without_a_file(void **state) {
  (void)state;
  begin();
  assert_int_equal(inflight_begin_packed(&tracker, NULL, put, &ring, heads, copies, links), 0);
  while (!offer_one()) continue;
  take_one();
  put_one();
  publish();
  assert_true(reap_one());
}

/* As the protocol has them: QEMU keeps the file, whoever serves the ring. */
static void sizes_are_the_protocols(void **state) {
  (void)state;
  assert_int_equal(inflight_queue_bytes(128, false), 16 + 16 * 128 + 48);
  assert_int_equal(inflight_queue_bytes(128, true), 32 + 32 * 128 + 32);
  begin();
  assert_int_equal(file.bytes[8], 1);     /* version */
  assert_int_equal(file.bytes[10], SIZE); /* entries */
  assert_int_equal(file.bytes[20], 1);    /* wrap counters */
  assert_int_equal(file.bytes[21], 1);
  while (!offer_one()) continue;
  take_one();
  assert_int_equal(file.bytes[32], 1);                                 /* in flight */
  assert_int_equal(file.bytes[14], driver.requests[chain.head].count); /* old free head */
  assert_int_equal(file.bytes[32 + 6], driver.requests[chain.head].count);
  assert_int_equal(file.bytes[32 + 16], driver.descs[0].id);
  assert_memory_equal(&file.bytes[32 + 20], &driver.descs[0].bytes, 4);
  assert_memory_equal(&file.bytes[32 + 24], &driver.descs[0].address, 8);
}

#define WITH_ALL(f) cmocka_unit_test_setup_teardown(f, make_all, drop_guest)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_ALL(ended_at_any_store),    WITH_ALL(ended_while_it_begins),
      WITH_ALL(bad_files_are_refused), WITH_ALL(any_file_does_no_harm),
      WITH_ALL(without_a_file),        WITH_ALL(sizes_are_the_protocols),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
