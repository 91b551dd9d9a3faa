/* cases_ring.c - rings in places where none can be, of sizes that there are not, and indices that
 * jump. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

/* Until it is dropped or refused; then one more kick. */
static void try_address(const struct message_vring_addr *addr, uint32_t size, bool bad) {
  struct monitor m;
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  mon_share(&m);
  mon_ring_init(&m, 0, size);
  struct message set[] = {
      msg_state(VHOST_SET_VRING_NUM, 0, size),
      msg_state(VHOST_SET_VRING_BASE, 0, 0),
      msg(VHOST_SET_VRING_ADDR, sizeof *addr),
      msg_fd(VHOST_SET_VRING_CALL, 0, m.rings[0].call_fd),
      msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd),
      msg_state(VHOST_SET_VRING_ENABLE, 0, 1),
  };
  set[2].addr = *addr;
  bool refused = false;
  for (uint32_t i = 0; i < array_size(set) && !m.dropped; i++)
    refused |= mon_tell(&m, &set[i]) != ACCEPTED;
  if (world.strict && bad) expect(refused);
  memset(m.memory, 0x11, 0x40000); /* whatever it takes for rings: nonsense */
  kick(&m, 0);
  mon_close(&m);
}

static void outside(void) {
  const struct message_vring_addr good = {0, 0, USER_BASE, USER_BASE + 0x10000, USER_BASE + 0x8000,
                                          0};
  const uint64_t end = USER_BASE + MEMORY_BYTES;
  const uint64_t wrong[] = {0,
                            GUEST_BASE,
                            USER_BASE - 4096,
                            end,
                            end - 16,
                            UINT64_MAX,
                            UINT64_MAX - 15,
                            UINT64_MAX - 4095,
                            UINT64_C(1) << 63,
                            end - 0xf0};
  for (uint32_t i = 0; i < array_size(wrong); i++)
    for (uint32_t area = 0; area < 3; area++) {
      struct message_vring_addr a = good;
      *(area == 0 ? &a.desc_user : area == 1 ? &a.used_user : &a.avail_user) = wrong[i];
      try_address(&a, QUEUE_SIZE, true);
    }
}

static void misaligned(void) {
  const struct message_vring_addr good = {0, 0, USER_BASE, USER_BASE + 0x10000, USER_BASE + 0x8000,
                                          0};
  for (uint32_t by = 1; by < 16; by++) {
    struct message_vring_addr a = good;
    a.desc_user += by;
    try_address(&a, QUEUE_SIZE, true);
    a = good;
    a.used_user += by;
    try_address(&a, QUEUE_SIZE, by % 4);
    a = good;
    a.avail_user += by;
    try_address(&a, QUEUE_SIZE, by % 2);
  }
}

/* All areas on top of each other: legal to say, nonsense to run. */
static void on_top(void) {
  static const uint64_t places[][3] = {
      {0, 0, 0}, {0, 16, 32}, {0x1000, 0x1000, 0}, {0, 0x1000, 0x1004}, {64, 0, 64}};
  for (uint32_t i = 0; i < array_size(places); i++) {
    struct message_vring_addr a = {.desc_user = USER_BASE + places[i][0],
                                   .used_user = USER_BASE + places[i][1],
                                   .avail_user = USER_BASE + places[i][2]};
    try_address(&a, QUEUE_SIZE, false);
  }
}

/* Two regions that follow each other for the monitor, but not here. */
static void in_two_regions(void) {
  for (uint32_t area = 0; area < 3; area++) {
    struct monitor m;
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    mon_ring_init(&m, 0, QUEUE_SIZE);
    const uint64_t half = MEMORY_BYTES / 2;
    struct message set = msg(VHOST_SET_MEM_TABLE, 8 + 64);
    set.table.count = 2;
    set.table.regions[0] = (struct message_region){GUEST_BASE, half, USER_BASE, half};
    set.table.regions[1] = (struct message_region){GUEST_BASE + half, half, USER_BASE + half, 0};
    set.fds[set.fd_count++] = m.memory_fd;
    set.fds[set.fd_count++] = m.memory_fd;
    expect_accepted(&m, &set);
    struct message addr = mon_address(&m, 0);
    *(area == 0   ? &addr.addr.desc_user
      : area == 1 ? &addr.addr.used_user
                  : &addr.addr.avail_user) = USER_BASE + half - 64;
    struct message start[] = {
        msg_state(VHOST_SET_VRING_NUM, 0, QUEUE_SIZE),
        addr,
        msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd),
        msg_state(VHOST_SET_VRING_ENABLE, 0, 1),
    };
    bool refused = false;
    for (uint32_t i = 0; i < array_size(start) && !m.dropped; i++)
      refused |= mon_tell(&m, &start[i]) != ACCEPTED;
    if (world.strict) expect(refused);
    mon_close(&m);
  }
}

static void odd_sizes(void) {
  static const uint32_t sizes[] = {0,     3,     7,       100,     129,     255,       512,
                                   1025,  32768, 65535,   65536,   65664,   0x10080,   0x80000000,
                                   12345, 1024,  1 << 20, 1 << 24, 1 << 30, 0xffffffff};
  for (uint32_t i = 0; i < array_size(sizes); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    struct message set = msg_state(VHOST_SET_VRING_NUM, 0, sizes[i]);
    if (world.strict)
      expect_refused(&m, &set); /* the server's limit is 256 */
    else
      mon_tell(&m, &set);
    if (world.strict && !m.dropped) expect_usable(&m);
    mon_close(&m);
  }
}

/* Queues that there are not; numbers that would be right if they were cut to 8 or 16 bits. */
static void odd_queues(void) {
  static const uint32_t numbers[] = {2, 63, 64, 255, 256, 257, 65536, 65537, 1u << 31, 0xffffffff};
  static const uint32_t requests[] = {VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE,
                                      VHOST_GET_VRING_BASE, VHOST_SET_VRING_ENABLE};
  for (uint32_t i = 0; i < array_size(numbers); i++) {
    struct monitor m;
    for (uint32_t r = 0; r < array_size(requests); r++) {
      mon_run(&m, world.bad);
      struct message set = msg_state(requests[r], numbers[i], 64);
      if (requests[r] == VHOST_GET_VRING_BASE)
        expect(!mon_ask(&m, &set) || !world.strict);
      else if (world.strict)
        expect_refused(&m, &set);
      else
        mon_tell(&m, &set);
      mon_close(&m);
    }
    mon_run(&m, world.bad);
    struct message set = mon_address(&m, 0);
    set.addr.index = numbers[i];
    if (world.strict) expect_refused(&m, &set);
    if (!m.dropped && numbers[i] < 256) {
      set = msg_fd(VHOST_SET_VRING_KICK, numbers[i], m.rings[0].kick_fd);
      if (world.strict) expect_refused(&m, &set);
    }
    mon_close(&m);
  }
}

/* While it runs: the size is another one, and half of the requests are from before. */
static void resized_running(void) {
  static const uint32_t sizes[] = {256, 64, 16, 2, 1, 128};
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(sizes) && !m.dropped; i++) {
    for (uint16_t h = 0; h < 30; h++) push(&m, 0, h);
    kick(&m, 0);
    struct message set = msg_state(VHOST_SET_VRING_NUM, 0, sizes[i]);
    mon_tell(&m, &set);
    kick(&m, 0);
  }
  mon_close(&m);
}

static void base_odd(void) {
  static const uint32_t bases[] = {1, 127, 32768, 65535, 65536, 0x7fffffff, 0xffffffff};
  for (uint32_t i = 0; i < array_size(bases); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    struct message set = msg_state(VHOST_SET_VRING_BASE, 0, bases[i]);
    mon_tell(&m, &set);
    kick(&m, 0);
    nap_ms(1);
    mon_close(&m);
  }
}

static void index_jumps(void) {
  static const uint16_t indices[] = {129, 130, 1000, 32767, 32768, 65535};
  for (uint32_t i = 0; i < array_size(indices); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    __atomic_store_n(&m.rings[0].avail->index, indices[i], __ATOMIC_RELEASE);
    kick(&m, 0);
    if (world.strict) expect_dropped(&m);
    mon_close(&m);
  }
}

/* Back again behind what was taken. */
static void index_steps_back(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  expect(proper_read(&m, 0) == BLK_OK);
  __atomic_store_n(&m.rings[0].avail->index, 0, __ATOMIC_RELEASE);
  kick(&m, 0);
  if (world.strict) expect_dropped(&m);
  mon_close(&m);
}

static void heads_outside(void) {
  static const uint16_t heads[] = {128, 129, 255, 256, 1024, 32768, 65535};
  for (uint32_t i = 0; i < array_size(heads); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    push(&m, 0, heads[i]);
    kick(&m, 0);
    if (world.strict) expect_dropped(&m);
    mon_close(&m);
  }
}

/* One head, made available as often as the ring has room. */
static void head_twice(void) {
  const char *sockets[] = {world.bad, world.slow};
  for (uint32_t s = 0; s < 2; s++) {
    struct monitor m;
    if (!sockets[s]) continue;
    mon_run(&m, sockets[s]);
    put_header(&m, AT_HEADER, 0, 0);
    put_desc(&m, 0, 0, guest_of(AT_HEADER), 16, VRING_NEXT, 1);
    put_desc(&m, 0, 1, guest_of(AT_DATA), 65536, VRING_NEXT | VRING_WRITE, 2);
    put_desc(&m, 0, 2, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
    for (uint32_t round = 0; round < 8; round++) {
      for (uint32_t i = 0; i < QUEUE_SIZE; i++) push(&m, 0, 0);
      kick(&m, 0);
      nap_ms(1);
    }
    mon_close(&m);
  }
  if (world.slow) expect_serves(world.slow);
}

/* Different heads, the same descriptors behind them, buffers and status bytes. */
static void shared_chains(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  put_header(&m, AT_HEADER, 0, 0);
  put_desc(&m, 0, 100, guest_of(AT_DATA), 4096, VRING_NEXT | VRING_WRITE, 101);
  put_desc(&m, 0, 101, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
  for (uint32_t round = 0; round < 20; round++) {
    for (uint16_t i = 0; i < 100; i++) {
      put_desc(&m, 0, i, guest_of(AT_HEADER), 16, VRING_NEXT, 100);
      push(&m, 0, i);
    }
    kick(&m, 0);
    expect(wait_used(&m, 0, 100) == USED || !world.strict);
  }
  mon_close(&m);
}

static void set_log(struct monitor *m, uint64_t log_guest) {
  struct message set = mon_address(m, 0);
  set.addr.flags = 1;
  set.addr.log_guest = log_guest;
  mon_tell(m, &set);
}

/* Logs of which address and size overflow (CVE-2020-10722), and logs where there are none. */
static void logs(void) {
  static const uint64_t places[] = {0, UINT64_MAX, UINT64_MAX - 4095, UINT64_C(1) << 63};
  for (uint32_t i = 0; i < array_size(places); i++) {
    struct monitor m;
    int fd = memfd_create("log", MFD_CLOEXEC);
    expect(fd >= 0 && ftruncate(fd, 65536) == 0);
    mon_run(&m, world.bad);
    struct message log = msg(VHOST_SET_LOG_BASE, sizeof log.log);
    log.log = (struct message_log){i & 1 ? UINT64_MAX - 100 : 65536, places[i]};
    log.fds[log.fd_count++] = fd;
    if (m.protocol >> VHOST_PF_LOG_SHMFD & 1) /* it is answered by whoever has it */
      mon_ask(&m, &log);
    else
      mon_tell(&m, &log);
    message_close_fds(&m.reply);
    if (!m.dropped) set_log(&m, places[i]);
    if (!m.dropped) proper_read(&m, 0);
    close(fd);
    mon_close(&m);
  }
}

const struct hostile_case cases_ring[] = {
    {"ring_outside", "rings too: whole within one mapping (CVE-2018-1059)", outside, false},
    {"ring_misaligned", "rings that are not aligned", misaligned, false},
    {"ring_on_top", "areas upon each other", on_top, false},
    {"ring_in_two_regions", "a ring in two regions", in_two_regions, false},
    {"ring_odd_sizes", "SET_VRING_NUM 0, 3, 65535 and others", odd_sizes, false},
    {"ring_odd_queues", "ring index without truncation (CVE-2020-10723)", odd_queues, BOTH_RINGS},
    {"ring_resized_running", "the queue size changes while it runs", resized_running, BOTH_RINGS},
    {"ring_odd_base", "SET_VRING_BASE anywhere", base_odd, false},
    {"ring_index_jumps", "available minus last seen at most the queue size", index_jumps, false},
    {"ring_index_steps_back", "an index that goes back", index_steps_back, false},
    {"ring_heads_outside", "head below size", heads_outside, BOTH_RINGS},
    {"ring_head_twice", "heads in flight twice", head_twice, BOTH_RINGS},
    {"ring_shared_chains", "many heads, one chain", shared_chains, false},
    {"ring_logs", "log address plus size without overflow (CVE-2020-10722)", logs, BOTH_RINGS},
    {0},
};
