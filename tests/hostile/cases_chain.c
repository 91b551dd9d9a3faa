/* cases_chain.c - chains of descriptors that loop, leave the memory, nest, or are in the wrong
 * order. Where there is a status byte that the device may write, it gets IOERR. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

#define TABLE (DATA_OFFSET + 0x8000) /* of indirect descriptors */

static void put_indirect(struct monitor *m, uint32_t i, uint64_t address, uint32_t bytes,
                         uint16_t flags, uint16_t next) {
  struct vring_desc d = table_desc(m, address, bytes, flags, next);
  memcpy(m->memory + TABLE + i * sizeof d, &d, sizeof d);
}

static void put_status(struct monitor *m, uint16_t i) {
  put_desc(m, 0, i, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
}

static void head_to(struct monitor *m, uint16_t next) {
  put_header(m, AT_HEADER, 0, 0);
  put_desc(m, 0, 0, guest_of(AT_HEADER), 16, VRING_NEXT, next);
}

static void loops(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  head_to(&m, 0); /* itself */
  if (world.strict) expect_survived(&m);
  head_to(&m, 1);
  put_desc(&m, 0, 1, guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, 2);
  put_desc(&m, 0, 2, guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, 1);
  submit(&m, 0, 0);
  if (!m.dropped && world.strict) expect_usable(&m);
  mon_close(&m);
  mon_run(&m, world.bad);
  for (uint16_t i = 0; i < QUEUE_SIZE; i++) /* all of the ring, round and round */
    put_desc(&m, 0, i, guest_of(AT_DATA), 16, VRING_NEXT, (i + 1) % QUEUE_SIZE);
  submit(&m, 0, 0);
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

static void next_outside(void) {
  static const uint16_t nexts[] = {128, 129, 256, 1024, 65535};
  for (uint32_t i = 0; i < array_size(nexts); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    head_to(&m, nexts[i]);
    expect_survived(&m);
    if (world.strict) expect_usable(&m);
    mon_close(&m);
  }
}

static void addresses_outside(void) {
  const uint64_t end = GUEST_BASE + MEMORY_BYTES;
  const struct {
    uint64_t address;
    uint32_t bytes;
  } wrong[] = {
      {0, 512},
      {GUEST_BASE - 1, 512},
      {end, 512},
      {end - 1, 512},
      {end - 511, 512},
      {UINT64_MAX, 512},
      {UINT64_MAX, 1},
      {UINT64_MAX - 511, 512},
      {UINT64_MAX - 510, 512},
      {GUEST_BASE, 0xfffffe00},
      {end - 512, 0xffffffff},
      {UINT64_C(1) << 63, 512},
      {USER_BASE, 512},
      {end - 4096, 8192},
  };
  for (uint32_t i = 0; i < array_size(wrong); i++)
    for (uint32_t type = 0; type < 2; type++) {
      struct monitor m;
      mon_run(&m, world.bad);
      head_to(&m, 1);
      put_header(&m, AT_HEADER, type, 0);
      put_desc(&m, 0, 1, wrong[i].address, wrong[i].bytes,
               VRING_NEXT | (type == 0 ? VRING_WRITE : 0), 2);
      put_status(&m, 2);
      expect_ioerr(&m);
      if (world.strict) expect_usable(&m);
      mon_close(&m);
    }
}

/* A buffer that two regions share is split rightly; one that falls into the gap behind is not
 * memory. */
static void across_regions(void) {
  struct monitor m;
  const uint64_t half = MEMORY_BYTES / 2;
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  mon_ring_init(&m, 0, QUEUE_SIZE);
  struct message set = msg(VHOST_SET_MEM_TABLE, 8 + 3 * 32);
  set.table.count = 3;
  set.table.regions[0] = (struct message_region){GUEST_BASE, half, USER_BASE, 0};
  set.table.regions[1] =
      (struct message_region){GUEST_BASE + half, half / 2, USER_BASE + 2 * half, half + half / 2};
  set.table.regions[2] =
      (struct message_region){GUEST_BASE + 2 * half, half / 2, USER_BASE + 4 * half, half};
  for (uint32_t i = 0; i < 3; i++) set.fds[set.fd_count++] = m.memory_fd;
  expect_accepted(&m, &set);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) mon_start_ring(&m, q, QUEUE_SIZE, 0);
  /* 1024 bytes, 512 of them in each region. */
  char *left = m.memory + half - 512, *right = m.memory + half + half / 2;
  char *wrong = m.memory + half; /* what follows in the file, but not for the guest */
  memset(left, 'l', 512);
  memset(right, 'r', 512);
  memset(wrong, CANARY, 512);
  head_to(&m, 1);
  put_header(&m, AT_HEADER, 1, 8);
  put_desc(&m, 0, 1, GUEST_BASE + half - 512, 1024, VRING_NEXT, 2);
  put_status(&m, 2);
  if (world.strict) expect_status(&m, BLK_OK);
  memset(left, 0, 512);
  memset(right, 0, 512);
  put_header(&m, AT_HEADER, 0, 8);
  put_desc(&m, 0, 1, GUEST_BASE + half - 512, 1024, VRING_NEXT | VRING_WRITE, 2);
  if (world.strict) {
    expect_status(&m, BLK_OK);
    expect(left[0] == 'l' && left[511] == 'l' && right[0] == 'r' && right[511] == 'r');
    expect((uint8_t)wrong[0] == CANARY && (uint8_t)wrong[511] == CANARY);
  }
  put_desc(&m, 0, 1, GUEST_BASE + half + half / 2 - 512, 1024, VRING_NEXT | VRING_WRITE, 2);
  expect_ioerr(&m);
  mon_close(&m);
}

static void readable_after_writable(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  head_to(&m, 1);
  put_desc(&m, 0, 1, guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, 2);
  put_desc(&m, 0, 2, guest_of(AT_DATA + 512), 512, VRING_NEXT, 3);
  put_status(&m, 3);
  expect_ioerr(&m);
  if (world.strict) expect_usable(&m);
  mon_close(&m);
  mon_run(&m, world.bad); /* the header at the end */
  put_header(&m, AT_HEADER, 0, 0);
  put_desc(&m, 0, 0, guest_of(AT_STATUS), 1, VRING_NEXT | VRING_WRITE, 1);
  put_desc(&m, 0, 1, guest_of(AT_HEADER), 16, 0, 0);
  submit(&m, 0, 0);
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

static void no_status(void) {
  struct monitor m;
  static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 99};
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(types) && !m.dropped; i++) {
    head_to(&m, 1);
    put_header(&m, AT_HEADER, types[i], 0);
    put_desc(&m, 0, 1, guest_of(AT_DATA), 512, 0, 0);
    expect_survived(&m);
    put_desc(&m, 0, 0, guest_of(AT_HEADER), 16, 0, 0); /* the header alone */
    if (!m.dropped) expect_survived(&m);
    put_desc(&m, 0, 0, 0, 0, 0, 0); /* and nothing at all */
    if (!m.dropped) expect_survived(&m);
  }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

static void status_nowhere(void) {
  static const uint64_t places[] = {0, GUEST_BASE - 1, GUEST_BASE + MEMORY_BYTES, UINT64_MAX};
  for (uint32_t i = 0; i < array_size(places); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    head_to(&m, 1);
    put_desc(&m, 0, 1, guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, 2);
    put_desc(&m, 0, 2, places[i], 1, VRING_WRITE, 0);
    submit(&m, 0, 0);
    put_desc(&m, 0, 2, guest_of(AT_STATUS), 0, VRING_WRITE, 0); /* of no bytes */
    if (!m.dropped) submit(&m, 0, 0);
    if (world.strict) expect_usable(&m);
    mon_close(&m);
  }
}

/* Lengths that sum up to 2^32 and beyond, all of it in memory: the same file again and again. */
static void lengths_sum(void) {
  struct monitor m;
  const uint64_t big = UINT64_C(5) << 30;
  int fd = memfd_create("big", MFD_CLOEXEC);
  expect(fd >= 0 && ftruncate(fd, (off_t)big) == 0);
  mon_run(&m, world.bad);
  struct message add = msg(VHOST_ADD_MEM_REG, sizeof add.reg);
  add.reg.region = (struct message_region){UINT64_C(1) << 40, big, UINT64_C(1) << 40, 0};
  add.fds[add.fd_count++] = fd;
  if (mon_tell(&m, &add) == ACCEPTED) {
    const struct {
      uint32_t first, second;
    } sums[] = {{0x80000000, 0x80000000},
                {0xffffffff, 0xffffffff},
                {0xfffff000, 0x1000},
                {0xffffffff, 0x201},
                {0xc0000000, 0x40001000}};
    for (uint32_t i = 0; i < array_size(sums) && !m.dropped; i++)
      for (uint32_t type = 0; type < 2; type++) {
        uint16_t way = type == 0 ? VRING_WRITE : 0;
        head_to(&m, 1);
        put_header(&m, AT_HEADER, type, 0);
        put_desc(&m, 0, 1, UINT64_C(1) << 40, sums[i].first, VRING_NEXT | way, 2);
        put_desc(&m, 0, 2, UINT64_C(1) << 40, sums[i].second, VRING_NEXT | way, 3);
        put_status(&m, 3);
        expect_ioerr(&m);
      }
    if (world.strict) expect_usable(&m);
  }
  mon_close(&m);
  close(fd);
}

/* ---- Indirect tables ------------------------------------------------------------------------- */

static void put_table_request(struct monitor *m) {
  put_header(m, AT_HEADER, 0, 0);
  put_indirect(m, 0, guest_of(AT_HEADER), 16, VRING_NEXT, 1);
  put_indirect(m, 1, guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, 2);
  put_indirect(m, 2, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
}

static void indirect_sizes(void) {
  static const uint32_t sizes[] = {0,  1,  15,    17,      47,         49,
                                   16, 32, 65536, 1 << 20, 0xfffffff0, 0xffffffff};
  for (uint32_t i = 0; i < array_size(sizes); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    put_table_request(&m);
    put_desc(&m, 0, 0, guest_of(TABLE), sizes[i], VRING_INDIRECT, 0);
    submit(&m, 0, 0);
    if (world.strict) expect_usable(&m);
    mon_close(&m);
  }
}

static void indirect_nested(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  put_table_request(&m);
  put_indirect(&m, 1, guest_of(TABLE), 48, VRING_INDIRECT, 0); /* itself, for ever */
  put_desc(&m, 0, 0, guest_of(TABLE), 48, VRING_INDIRECT, 0);
  submit(&m, 0, 0);
  put_table_request(&m); /* goes on behind the table */
  put_desc(&m, 0, 0, guest_of(TABLE), 48, VRING_INDIRECT | VRING_NEXT, 1);
  put_status(&m, 1);
  if (!m.dropped) submit(&m, 0, 0);
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

static void indirect_places(void) {
  const uint64_t end = GUEST_BASE + MEMORY_BYTES;
  const uint64_t places[] = {0, end, end - 16, end - 47, UINT64_MAX, UINT64_MAX - 15, USER_BASE};
  for (uint32_t i = 0; i < array_size(places); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    put_desc(&m, 0, 0, places[i], 48, VRING_INDIRECT, 0);
    submit(&m, 0, 0);
    if (world.strict) expect_usable(&m);
    mon_close(&m);
  }
  struct monitor m;
  mon_run(&m, world.bad); /* not aligned, but there */
  put_table_request(&m);
  memmove(m.memory + TABLE + 5, m.memory + TABLE, 48);
  put_desc(&m, 0, 0, guest_of(TABLE + 5), 48, VRING_INDIRECT, 0);
  submit(&m, 0, 0);
  mon_close(&m);
}

static void indirect_loops(void) {
  struct monitor m;
  static const uint16_t nexts[] = {0, 1, 3, 4, 1000, 65535};
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(nexts) && !m.dropped; i++) {
    put_table_request(&m);
    put_indirect(&m, 1, guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, nexts[i]);
    put_desc(&m, 0, 0, guest_of(TABLE), 48, VRING_INDIRECT, 0);
    submit(&m, 0, 0);
  }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

/* Long ones: as long as can be, one more, and as long as memory has room for. */
static void indirect_long(void) {
  static const uint32_t counts[] = {250, 257, 1022, 1023, 1024, 1025, 4000, 40000};
  for (uint32_t i = 0; i < array_size(counts); i++) {
    struct monitor m;
    uint64_t table = 2 << 20;
    mon_run(&m, world.bad);
    put_header(&m, AT_HEADER, 0, 0);
    for (uint32_t d = 0; d < counts[i]; d++) {
      struct vring_desc e = {guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, (uint16_t)(d + 1)};
      if (d == 0) e = (struct vring_desc){guest_of(AT_HEADER), 16, VRING_NEXT, 1};
      if (d == counts[i] - 1) e = (struct vring_desc){guest_of(AT_STATUS), 1, VRING_WRITE, 0};
      e = table_desc(&m, e.address, e.bytes, e.flags, e.next);
      memcpy(m.memory + table + d * sizeof e, &e, sizeof e);
    }
    put_desc(&m, 0, 0, guest_of(table), counts[i] * 16, VRING_INDIRECT, 0);
    submit(&m, 0, 0);
    if (world.strict) expect_usable(&m);
    mon_close(&m);
  }
}

static void indirect_not_agreed(void) {
  struct monitor m;
  mon_open(&m, world.bad);
  mon_negotiate_features(&m, ~(UINT64_C(1) << VIRTIO_F_INDIRECT_DESC));
  mon_share(&m);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) mon_start_ring(&m, q, QUEUE_SIZE, 0);
  put_table_request(&m);
  put_desc(&m, 0, 0, guest_of(TABLE), 48, VRING_INDIRECT, 0);
  submit(&m, 0, 0);
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

/* Every piece has one byte; then every piece is the same one. */
static void many_pieces(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  put_header(&m, AT_HEADER, 0, 0);
  for (uint16_t i = 0; i < 16; i++)
    put_desc(&m, 0, i, guest_of(AT_HEADER + i), 1, VRING_NEXT, (uint16_t)(i + 1));
  for (uint16_t i = 16; i < 80; i++)
    put_desc(&m, 0, i, guest_of(AT_DATA + i), 8, VRING_NEXT | VRING_WRITE, (uint16_t)(i + 1));
  put_status(&m, 80);
  if (world.strict)
    expect_status(&m, BLK_OK);
  else
    submit(&m, 0, 0);
  for (uint16_t i = 16; i < 126; i++)
    put_desc(&m, 0, i, guest_of(AT_DATA), 512, VRING_NEXT | VRING_WRITE, (uint16_t)(i + 1));
  put_status(&m, 126);
  if (world.strict) expect_status(&m, BLK_OK);
  mon_close(&m);
}

const struct hostile_case cases_chain[] = {
    {"chain_loops", "bound chains by the queue size, detect loops", loops, false},
    {"chain_next_outside", "next beyond the table", next_outside, false},
    {"chain_addresses_outside", "a range lies whole within memory (CVE-2018-1059)",
     addresses_outside, BOTH_RINGS},
    {"chain_across_regions", "or is split correctly", across_regions, BOTH_RINGS},
    {"chain_readable_late", "readable after writable", readable_after_writable, BOTH_RINGS},
    {"chain_no_status", "no status byte", no_status, BOTH_RINGS},
    {"chain_status_nowhere", "the status byte outside of memory", status_nowhere, BOTH_RINGS},
    {"chain_lengths_sum", "total bytes below 2^32", lengths_sum, BOTH_RINGS},
    {"chain_many_pieces", "a byte a piece", many_pieces, BOTH_RINGS},
    {"indirect_sizes", "indirect tables of odd and huge sizes", indirect_sizes, BOTH_RINGS},
    {"indirect_nested", "no nested indirect tables", indirect_nested, BOTH_RINGS},
    {"indirect_places", "indirect tables outside, misaligned", indirect_places, BOTH_RINGS},
    {"indirect_loops", "loops in a table, next beyond it", indirect_loops, false},
    {"indirect_long", "longer than the queue", indirect_long, BOTH_RINGS},
    {"indirect_not_agreed", "without INDIRECT_DESC", indirect_not_agreed, BOTH_RINGS},
    {0},
};
