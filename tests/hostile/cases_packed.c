/* cases_packed.c - what only packed rings have: positions with wrap counters, ids at the end of
 * chains, event areas, in-flight files with copies of descriptors. Many other cases run with them,
 * too. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/vhost/inflight.h"
#include "tests/hostile/hostile.h"

#define TABLE (DATA_OFFSET + 0x8000)

static void put_read(struct monitor *m, uint32_t q, uint16_t head) {
  put_header(m, AT_HEADER, 0, 0);
  put_desc(m, q, head, guest_of(AT_HEADER), 16, VRING_NEXT, (uint16_t)(head + 1));
  put_desc(m, q, (uint16_t)(head + 1), guest_of(AT_DATA), 4096, VRING_NEXT | VRING_WRITE,
           (uint16_t)(head + 2));
  put_desc(m, q, (uint16_t)(head + 2), guest_of(AT_STATUS), 1, VRING_WRITE, 0);
}

/* All of the ring is one chain, and goes on; from different places, with requests before it. */
static void endless(void) {
  for (uint32_t before = 0; before < 3; before++) {
    struct monitor m;
    mon_run(&m, world.bad);
    for (uint32_t i = 0; i < before; i++) expect(proper_read(&m, 0) == BLK_OK || !world.strict);
    for (uint32_t i = 0; i < QUEUE_SIZE; i++)
      put_packed(&m, 0,
                 (struct vring_packed_desc){guest_of(AT_DATA), 512, 1, VRING_NEXT | VRING_WRITE},
                 true);
    kick(&m, 0);
    if (world.strict) expect_dropped(&m);
    mon_close(&m);
  }
}

/* The ring is full and nothing is seen used, yet more is made available over it. What the device
 * makes of it depends on how far it is. */
static void over_itself(void) {
  const char *sockets[] = {world.bad, world.slow};
  for (uint32_t s = 0; s < 2; s++) {
    struct monitor m;
    if (!sockets[s]) continue;
    mon_run(&m, sockets[s]);
    for (uint32_t i = 0; i < 420; i++) {
      uint16_t head = (uint16_t)(i % 42 * 3);
      put_read(&m, 0, head);
      push(&m, 0, head);
      if (i % 42 < 41) continue;
      kick(&m, 0);
      nap_ms(2);
    }
    mon_close(&m);
  }
  if (world.slow) expect_serves(world.slow);
}

/* An id whose request is in flight. */
static void id_in_flight(void) {
  struct monitor m;
  mon_run(&m, world.slow);
  for (uint32_t i = 0; i < 30; i++) {
    put_read(&m, 0, 9);
    push(&m, 0, 9);
  }
  kick(&m, 0);
  expect_dropped(&m);
  mon_close(&m);
  expect_serves(world.slow);
}

static void areas(void) {
  const uint64_t end = USER_BASE + MEMORY_BYTES;
  const uint64_t wrong[] = {0,       GUEST_BASE,    USER_BASE - 4, end,
                            end - 2, end - 3,       UINT64_MAX,    UINT64_MAX - 3,
                            end + 4, USER_BASE + 1, USER_BASE + 2, UINT64_C(1) << 63};
  for (uint32_t i = 0; i < array_size(wrong); i++)
    for (uint32_t area = 0; area < 3; area++) {
      struct monitor m;
      mon_run(&m, world.bad);
      struct message set = mon_address(&m, 0);
      *(area == 0   ? &set.addr.desc_user
        : area == 1 ? &set.addr.used_user
                    : &set.addr.avail_user) = wrong[i];
      if (world.strict)
        expect_refused(&m, &set);
      else
        mon_tell(&m, &set);
      mon_close(&m);
    }
}

/* The last descriptor of the ring has to be there, too. */
static void cut_short(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  struct message set = mon_address(&m, 0);
  set.addr.desc_user = USER_BASE + MEMORY_BYTES - 16 * QUEUE_SIZE + 16;
  if (world.strict)
    expect_refused(&m, &set);
  else
    mon_tell(&m, &set);
  mon_close(&m);
}

static void bases(void) {
  static const uint32_t odd[] = {0,          1,          0x80,       0x8080,     0x80008080,
                                 0x80808000, 0xffffffff, 0x7fff7fff, 0x80000001, 0x00018000,
                                 0x80018000, 0x00058007, 0x80078005, 0x807f807f, 0x007f007f};
  for (uint32_t i = 0; i < array_size(odd); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    struct message set = msg_state(VHOST_SET_VRING_BASE, 0, odd[i]);
    mon_tell(&m, &set);
    if (!m.dropped) {
      put_read(&m, 0, 0);
      for (uint32_t n = 0; n < 60; n++) push(&m, 0, 0);
      kick(&m, 0);
      nap_ms(1);
    }
    mon_close(&m);
  }
}

/* Where it stands is told on stopping, and taken for granted on starting. */
static void base_again(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < 50 && !m.dropped; i++) {
    for (uint32_t k = 0; k <= i % 7; k++) expect(proper_read(&m, 0) == BLK_OK || !world.strict);
    struct message ask = msg_state(VHOST_GET_VRING_BASE, 0, 0);
    if (!mon_ask(&m, &ask)) break;
    uint32_t base = m.reply.state.num;
    if (world.strict) expect(base == m.rings[0].seen * 0x10001u);
    struct message set[] = {msg_state(VHOST_SET_VRING_BASE, 0, base), mon_address(&m, 0),
                            msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd)};
    for (uint32_t s = 0; s < array_size(set) && !m.dropped; s++) mon_tell(&m, &set[s]);
  }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

/* NEXT in a table, where there are no chains; the status is answered nevertheless. */
static void table_chains(void) {
  static const uint16_t flags[] = {VRING_NEXT, VRING_INDIRECT, VRING_NEXT | VRING_INDIRECT};
  for (uint32_t i = 0; i < array_size(flags); i++)
    for (uint32_t at = 0; at < 2; at++) {
      struct monitor m;
      mon_run(&m, world.bad);
      put_header(&m, AT_HEADER, 0, 0);
      struct vring_packed_desc table[3] = {{guest_of(AT_HEADER), 16, 0, 0},
                                           {guest_of(AT_DATA), 512, 0, VRING_WRITE},
                                           {guest_of(AT_STATUS), 1, 0, VRING_WRITE}};
      table[at].flags |= flags[i];
      memcpy(m.memory + TABLE, table, sizeof table);
      put_desc(&m, 0, 0, guest_of(TABLE), sizeof table, VRING_INDIRECT, 0);
      expect_ioerr(&m);
      if (world.strict) expect_usable(&m);
      mon_close(&m);
    }
}

/* Whatever the driver's area says, and the device's is made to say: who looks finds what is used.
 */
static void events(void) {
  struct monitor m;
  struct random r = {7};
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < 200 && !m.dropped; i++) {
    uint64_t word = random_next(&r);
    memcpy(m.memory + m.rings[0].avail_at, &word, 4);
    memcpy(m.memory + m.rings[0].used_at, (char *)&word + 4, 4);
    if (proper_read(&m, 0) != BLK_OK && world.strict)
      fail_case("events 0x%llx", (unsigned long long)word);
  }
  mon_close(&m);
}

/* One kind of ring and the other, while requests are under way. */
static void kinds_in_turn(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < 20 && !m.dropped; i++) {
    uint64_t features = m.offered;
    if (i % 2 == 0) features &= ~(UINT64_C(1) << VIRTIO_F_RING_PACKED);
    for (uint16_t h = 0; h < 10; h++) {
      put_read(&m, 0, (uint16_t)(h * 3));
      push(&m, 0, (uint16_t)(h * 3));
    }
    kick(&m, 0);
    struct message set = msg_u64(VHOST_SET_FEATURES, features);
    mon_tell(&m, &set);
  }
  mon_close(&m);
}

/* A file that says anything of a packed ring: it is refused, or what comes of it stays inside. */
static void forged(void) {
  const uint64_t each = inflight_queue_bytes(QUEUE_SIZE, true), bytes = HOSTILE_QUEUES * each;
  struct random r = {11};
  for (uint32_t round = 0; round < 60; round++) {
    int fd = memfd_create("inflight", MFD_CLOEXEC);
    expect(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    char *file = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    expect(file != MAP_FAILED);
    for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) {
      struct inflight_packed *p = (void *)(file + q * each);
      uint32_t next = 0, chain = round % 4 ? 3 : (uint32_t)random_below(&r, 70000);
      p->version = 1;
      p->size = QUEUE_SIZE;
      p->where.used = p->where.old_used = (uint16_t)random_below(&r, QUEUE_SIZE);
      for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
        bool first = i % 3 == 0 && i < 90;
        p->entries[i] = (struct inflight_desc){
            .in_flight = first,
            .next = (uint16_t)(i + 1),
            .last = (uint16_t)(i + 2),
            .count = (uint16_t)chain,
            .counter = random_next(&r),
            .id = i,
            .flags = (uint16_t)(i % 3 < 2 ? VRING_NEXT | random_below(&r, 8) : random_below(&r, 8)),
            .bytes = (uint32_t)random_below(&r, 70000),
            .address = guest_of(random_below(&r, 2 * MEMORY_BYTES))};
      }
      p->free = p->old_free = 90;
      for (; next < round % 5; next++) /* most of it makes sense */
        ((char *)p)[random_below(&r, each)] = (char)random_next(&r);
    }
    struct monitor m;
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    mon_share(&m);
    struct message set = msg(VHOST_SET_INFLIGHT_FD, sizeof set.inflight);
    set.inflight = (struct message_inflight){bytes, 0, HOSTILE_QUEUES, QUEUE_SIZE, 0};
    set.fds[set.fd_count++] = fd;
    expect_accepted(&m, &set);
    for (uint32_t q = 0; q < HOSTILE_QUEUES && !m.dropped; q++) {
      mon_ring_init(&m, q, QUEUE_SIZE);
      struct message start[] = {
          msg_state(VHOST_SET_VRING_NUM, q, QUEUE_SIZE),
          msg_state(VHOST_SET_VRING_BASE, q, 0x80008000),
          mon_address(&m, q),
          msg_fd(VHOST_SET_VRING_CALL, q, m.rings[q].call_fd),
          msg_fd(VHOST_SET_VRING_KICK, q, m.rings[q].kick_fd),
          msg_state(VHOST_SET_VRING_ENABLE, q, 1),
      };
      for (uint32_t i = 0; i < array_size(start) && !m.dropped; i++) mon_tell(&m, &start[i]);
      kick(&m, q);
    }
    nap_ms(1);
    if (!m.dropped) memset(file, (int)round, bytes); /* and changes while it is used */
    kick(&m, 0);
    munmap(file, bytes);
    close(fd);
    mon_close(&m);
  }
}

/* The file has room for a split ring's entries alone. */
static void file_too_small(void) {
  const uint64_t bytes = HOSTILE_QUEUES * inflight_queue_bytes(QUEUE_SIZE, false);
  struct monitor m;
  int fd = memfd_create("inflight", MFD_CLOEXEC);
  expect(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  mon_share(&m);
  mon_ring_init(&m, 0, QUEUE_SIZE);
  struct message set = msg(VHOST_SET_INFLIGHT_FD, sizeof set.inflight);
  set.inflight = (struct message_inflight){bytes, 0, HOSTILE_QUEUES, QUEUE_SIZE, 0};
  set.fds[set.fd_count++] = fd;
  bool refused = mon_tell(&m, &set) != ACCEPTED;
  struct message start[] = {
      msg_state(VHOST_SET_VRING_NUM, 0, QUEUE_SIZE),
      msg_state(VHOST_SET_VRING_BASE, 0, 0x80008000),
      mon_address(&m, 0),
      msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd),
      msg_state(VHOST_SET_VRING_ENABLE, 0, 1),
  };
  for (uint32_t i = 0; i < array_size(start) && !m.dropped; i++)
    refused |= mon_tell(&m, &start[i]) != ACCEPTED;
  if (world.strict) expect(refused);
  close(fd);
  mon_close(&m);
}

const struct hostile_case cases_packed[] = {
    {"packed_endless", "bound chains by the queue size", endless, PACKED_RINGS},
    {"packed_over_itself", "available minus last seen at most the queue size", over_itself,
     PACKED_RINGS},
    {"packed_id_in_flight", "ids in flight twice", id_in_flight, OWN_SERVER | PACKED_RINGS},
    {"packed_areas", "event areas: whole within one mapping (CVE-2018-1059)", areas, PACKED_RINGS},
    {"packed_cut_short", "the ring: whole within one mapping", cut_short, PACKED_RINGS},
    {"packed_bases", "SET_VRING_BASE anywhere", bases, PACKED_RINGS},
    {"packed_base_again", "GET_VRING_BASE does not reset (trap 4)", base_again, PACKED_RINGS},
    {"packed_table_chains", "no chains, no tables in a table", table_chains, PACKED_RINGS},
    {"packed_events", "event areas that make no sense", events, PACKED_RINGS},
    {"packed_kinds_in_turn", "features change while it runs", kinds_in_turn, PACKED_RINGS},
    {"packed_forged", "the in-flight file: check every field (trap 5)", forged, PACKED_RINGS},
    {"packed_file_too_small", "an in-flight file that has no room", file_too_small, PACKED_RINGS},
    {0},
};
