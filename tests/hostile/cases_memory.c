/* cases_memory.c - regions of memory that overlap, wrap, reach beyond their file, are huge, or are
 * cut short while rings run in them. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

#define MIB (UINT64_C(1) << 20)

static enum answer tell_regions(struct monitor *m, const struct message_region *r, uint32_t count,
                                int fd) {
  struct message set = msg(VHOST_SET_MEM_TABLE, 8 + count * (uint32_t)sizeof *r);
  set.table.count = count;
  memcpy(set.table.regions, r, count * sizeof *r);
  for (uint32_t i = 0; i < count; i++) set.fds[set.fd_count++] = fd;
  return mon_tell(m, &set);
}

static void expect_bad_regions(const struct message_region *r, uint32_t count) {
  struct monitor m;
  for (uint32_t way = 0; way < 2; way++) { /* as a table, and one after the other */
    enum answer a = ACCEPTED;
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    mon_ring_init(&m, 0, QUEUE_SIZE); /* makes the memory */
    if (way == 0) a = tell_regions(&m, r, count, m.memory_fd);
    for (uint32_t i = 0; way == 1 && i < count && a == ACCEPTED; i++) {
      struct message add = msg(VHOST_ADD_MEM_REG, sizeof add.reg);
      add.reg.region = r[i];
      add.fds[add.fd_count++] = m.memory_fd;
      a = mon_tell(&m, &add);
    }
    if (world.strict) expect(a != ACCEPTED);
    mon_close(&m);
  }
}

static void one_bad_region(void) {
  static const struct message_region bad[] = {
      {0, 0, 0, 0},
      {GUEST_BASE, MEMORY_BYTES + 1, USER_BASE, 0},
      {GUEST_BASE, MEMORY_BYTES, USER_BASE, 4096},
      {GUEST_BASE, 4096, USER_BASE, MEMORY_BYTES},
      {GUEST_BASE, 4096, USER_BASE, UINT64_MAX - 4095},
      {GUEST_BASE, 4096, USER_BASE, UINT64_MAX & ~UINT64_C(4095)},
      {GUEST_BASE, 4096, USER_BASE, UINT64_C(1) << 63},
      {UINT64_MAX, 4096, USER_BASE, 0},
      {UINT64_MAX - 4095, 8192, USER_BASE, 0},
      {GUEST_BASE, 4096, UINT64_MAX, 0},
      {GUEST_BASE, 4096, UINT64_MAX - 100, 0},
      {GUEST_BASE, UINT64_MAX, USER_BASE, 0},
      {GUEST_BASE, UINT64_MAX - 4095, USER_BASE, 4096},
      {GUEST_BASE, UINT64_C(1) << 63, USER_BASE, 0},
  };
  for (uint32_t i = 0; i < array_size(bad); i++) expect_bad_regions(&bad[i], 1);
}

static void overlapping(void) {
  static const struct message_region bad[][2] = {
      {{MIB, MIB, USER_BASE, 0}, {MIB, MIB, USER_BASE + MIB, 0}},
      {{MIB, MIB, USER_BASE, 0}, {2 * MIB - 1, MIB, USER_BASE + MIB, 0}},
      {{MIB, MIB, USER_BASE, 0}, {MIB - 4096, 4097, USER_BASE + MIB, 0}},
      {{MIB, MIB, USER_BASE, 0}, {MIB + 4096, 4096, USER_BASE + MIB, 0}},
      {{MIB, MIB, USER_BASE, 0}, {4 * MIB, MIB, USER_BASE + MIB - 1, 0}},
      {{MIB, MIB, USER_BASE, 0}, {4 * MIB, 4096, USER_BASE + 4096, 0}},
  };
  for (uint32_t i = 0; i < array_size(bad); i++) expect_bad_regions(bad[i], 2);
}

/* All the slots there are, and more. */
static void many_slots(void) {
  struct monitor m;
  struct message ask = msg(VHOST_GET_MAX_MEM_SLOTS, 0);
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  mon_ring_init(&m, 0, QUEUE_SIZE);
  expect(mon_ask(&m, &ask));
  uint64_t slots = m.reply.u64;
  expect(slots > 0 && slots <= 4096);
  for (uint64_t i = 0; i < slots + 50 && !m.dropped; i++) {
    struct message add = msg(VHOST_ADD_MEM_REG, sizeof add.reg);
    add.reg.region =
        (struct message_region){GUEST_BASE + i * 65536, 4096, USER_BASE + i * 65536, 0};
    add.fds[add.fd_count++] = m.memory_fd;
    enum answer a = mon_tell(&m, &add);
    if (world.strict) expect((a == ACCEPTED) == (i < slots));
  }
  mon_close(&m);
}

static void not_mapped(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint64_t i = 0; i < 4 && !m.dropped; i++) {
    struct message rem = msg(VHOST_REM_MEM_REG, sizeof rem.reg);
    rem.reg.region = mon_region(&m);
    rem.reg.region.guest += i == 0;
    rem.reg.region.user += i == 1;
    rem.reg.region.bytes -= i == 2;
    if (i == 3) memset(&rem.reg.region, 0xff, sizeof rem.reg.region);
    if (world.strict) expect_refused(&m, &rem);
  }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

/* The memory goes, but the rings in it run; then it comes back. */
static void taken_away(void) {
  for (uint32_t way = 0; way < 2; way++) {
    struct monitor m;
    mon_run(&m, world.bad);
    struct message gone = msg(way ? VHOST_REM_MEM_REG : VHOST_SET_MEM_TABLE, 8);
    if (way) {
      gone.bytes = sizeof gone.reg;
      gone.reg.region = mon_region(&m);
    }
    mon_tell(&m, &gone);
    if (!m.dropped) {
      push(&m, 0, 0);
      kick(&m, 0);
      nap_ms(5);
      struct message set = msg(VHOST_SET_MEM_TABLE, 8 + 32);
      set.table.count = 1;
      set.table.regions[0] = mon_region(&m);
      set.fds[set.fd_count++] = m.memory_fd;
      mon_tell(&m, &set);
    }
    mon_close(&m);
  }
}

/* Files of no bytes but a huge size: nobody else may feel that they are mapped. */
static void huge_regions(void) {
  static struct monitor m;
  int fd = memfd_create("huge", MFD_CLOEXEC);
  uint64_t bytes = UINT64_C(1) << 45; /* four of these are all that a process has */
  expect(fd >= 0);
  expect(ftruncate(fd, (off_t)bytes) == 0);
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  for (uint64_t i = 0; i < 64 && !m.dropped; i++) {
    struct message add = msg(VHOST_ADD_MEM_REG, sizeof add.reg);
    uint64_t size = i < 4 ? bytes : bytes >> (i / 2);
    add.reg.region = (struct message_region){i * bytes, size, i * bytes, 0};
    add.fds[add.fd_count++] = fd;
    mon_tell(&m, &add);
  }
  if (world.slow) { /* another one has a large guest */
    static struct monitor other;
    mon_open(&other, world.slow);
    mon_negotiate(&other);
    struct message add = msg(VHOST_ADD_MEM_REG, sizeof add.reg);
    add.reg.region = (struct message_region){0, UINT64_C(1) << 36, 0, 0};
    add.fds[add.fd_count++] = fd;
    expect_accepted(&other, &add);
    mon_close(&other);
    expect_serves(world.slow);
  }
  const char *wrong = good_progress(40);
  if (wrong) fail_case("meanwhile: %s", wrong);
  mon_close(&m);
  close(fd);
}

/* ---- SIGBUS ---------------------------------------------------------------------------------- */

static void put_read(struct monitor *m, uint32_t q, uint16_t head, uint32_t bytes) {
  uint64_t header = AT_HEADER + head * 32u, status = header + 16;
  put_header(m, header, head % 2, head);
  uint16_t d = (uint16_t)(head * 3);
  put_desc(m, q, d, guest_of(header), 16, VRING_NEXT, (uint16_t)(d + 1));
  put_desc(m, q, (uint16_t)(d + 1), guest_of(AT_DATA + head * 4096u), bytes,
           VRING_NEXT | (head % 2 ? 0 : VRING_WRITE), (uint16_t)(d + 2));
  put_desc(m, q, (uint16_t)(d + 2), guest_of(status), 1, VRING_WRITE, 0);
  push(m, q, d);
}

/* The file ends at `bytes` while requests are under way. */
static void cut_file(const char *socket, uint64_t bytes, bool wait) {
  struct monitor m;
  mon_run(&m, socket);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++)
    for (uint16_t i = 0; i < 40; i++) put_read(&m, q, i, 4096);
  if (wait) nap_ms(2);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) kick(&m, q);
  if (wait) wait_used(&m, 0, 5);
  expect(ftruncate(m.memory_fd, (off_t)bytes) == 0);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) kick(&m, q);
  if (world.strict && bytes == 0) expect_dropped(&m);
  /* Our own mapping of it must not be touched any more. */
  mon_close(&m);
}

static void cut_all(void) {
  for (uint32_t i = 0; i < 10; i++) cut_file(world.bad, 0, i % 2);
}

static void cut_data(void) {
  for (uint32_t i = 0; i < 10; i++) cut_file(world.bad, DATA_OFFSET + 0x10000 + 4096 * i, i % 2);
}

static void cut_headers(void) {
  for (uint32_t i = 0; i < 10; i++) cut_file(world.bad, DATA_OFFSET, i % 2);
}

static void cut_in_flight(void) {
  cut_file(world.slow, 0, true);
  cut_file(world.slow, DATA_OFFSET, true);
  cut_file(world.slow, AT_DATA, true);
  expect_serves(world.slow);
}

/* Cut while nothing is asked: zeros look like an empty ring. */
static void cut_idle(void) {
  for (uint32_t i = 0; i < 30; i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    expect(ftruncate(m.memory_fd, 0) == 0);
    kick(&m, i % HOSTILE_QUEUES);
    if (world.strict) expect_dropped(&m);
    mon_close(&m);
  }
}

/* Cut before the server has looked at it at all, and between its messages. */
static void cut_before(void) {
  struct monitor m;
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  mon_share(&m);
  mon_ring_init(&m, 0, QUEUE_SIZE);
  expect(ftruncate(m.memory_fd, 0) == 0);
  struct message set[] = {
      msg_state(VHOST_SET_VRING_NUM, 0, QUEUE_SIZE),
      mon_address(&m, 0),
      msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd),
      msg_state(VHOST_SET_VRING_ENABLE, 0, 1),
  };
  for (uint32_t i = 0; i < array_size(set) && !m.dropped; i++) mon_tell(&m, &set[i]);
  kick(&m, 0);
  if (world.strict) expect_dropped(&m);
  mon_close(&m);
}

/* Cut and grown again: the pages are others than before. */
static void cut_and_grown(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < 200; i++) {
    expect(ftruncate(m.memory_fd, 0) == 0);
    expect(ftruncate(m.memory_fd, (off_t)MEMORY_BYTES) == 0);
    kick(&m, i % HOSTILE_QUEUES);
  }
  mon_close(&m);
}

static void holes(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < 50; i++) {
    for (uint16_t k = 0; k < 4; k++) put_read(&m, 0, k, 4096);
    kick(&m, 0);
    expect(fallocate(m.memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                     (off_t)MEMORY_BYTES) == 0);
  }
  mon_close(&m);
}

const struct hostile_case cases_memory[] = {
    {"memory_bad_region", "regions that wrap or exceed their file", one_bad_region, false},
    {"memory_overlap", "regions that overlap", overlapping, false},
    {"memory_slots", "limits on memory slots", many_slots, false},
    {"memory_not_mapped", "REM_MEM_REG of what is not there", not_mapped, false},
    {"memory_taken_away", "translated again after every change (CVE-2018-1059)", taken_away,
     BOTH_RINGS},
    {"memory_huge", "nothing at a size that is named; others undisturbed", huge_regions, false},
    {"memory_cut_all", "a truncated memory file raises SIGBUS", cut_all, false},
    {"memory_cut_data", "SIGBUS in data", cut_data, false},
    {"memory_cut_headers", "SIGBUS in headers", cut_headers, BOTH_RINGS},
    {"memory_cut_in_flight", "SIGBUS with requests in flight", cut_in_flight,
     OWN_SERVER | BOTH_RINGS},
    {"memory_cut_idle", "SIGBUS of an idle device", cut_idle, false},
    {"memory_cut_before", "SIGBUS at set-up", cut_before, false},
    {"memory_cut_and_grown", "cut and grown again", cut_and_grown, false},
    {"memory_holes", "holes punched under rings", holes, false},
    {0},
};
