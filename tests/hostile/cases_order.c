/* cases_order.c - messages in an order that nobody expects, and connections that end in the middle
 * of I/O. */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

/* Each message alone, as the first one of all. */
static void first_of_all(void) {
  for (uint32_t i = 0; i < 10; i++) {
    struct monitor m;
    mon_open(&m, world.bad);
    mon_ring_init(&m, 0, QUEUE_SIZE);
    struct message set[] = {
        msg_state(VHOST_SET_VRING_ENABLE, 0, 1),
        msg_state(VHOST_GET_VRING_BASE, 0, 0),
        msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd),
        mon_address(&m, 0),
        msg_state(VHOST_SET_VRING_NUM, 0, 64),
        msg(VHOST_RESET_DEVICE, 0),
        msg(VHOST_RESET_OWNER, 0),
        msg_state(VHOST_SET_VRING_ENABLE, 0, 0),
        msg_fd(VHOST_SET_VRING_CALL, 0, m.rings[0].call_fd),
        msg_u64(VHOST_SET_FEATURES, UINT64_MAX),
    };
    mon_send(&m, &set[i]);
    struct message ask = msg(VHOST_GET_FEATURES, 0);
    if (i != 1) mon_ask(&m, &ask);
    mon_close(&m);
  }
}

/* CALL and ERR before the memory, features twice, ENABLE of rings that are not set up: as QEMU. */
static void as_qemu(void) {
  struct monitor m;
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) {
    mon_ring_init(&m, q, QUEUE_SIZE);
    struct message set = msg_fd(VHOST_SET_VRING_ERR, q, m.rings[q].err_fd);
    expect_accepted(&m, &set);
    set = msg_fd(VHOST_SET_VRING_CALL, q, m.rings[q].call_fd);
    expect_accepted(&m, &set);
    set = msg_state(VHOST_SET_VRING_ENABLE, q, 1);
    expect_accepted(&m, &set);
  }
  struct message set = msg_u64(VHOST_SET_FEATURES, m.offered);
  expect_accepted(&m, &set);
  mon_share(&m);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) mon_start_ring(&m, q, QUEUE_SIZE, 0);
  expect_usable(&m);
  mon_close(&m);
}

static void put_reads(struct monitor *m, uint32_t q, uint32_t count, uint32_t bytes) {
  for (uint16_t i = 0; i < count; i++) {
    uint16_t d = (uint16_t)(3 * i);
    uint64_t at = AT_HEADER + (q * 128u + i) * 32u;
    put_header(m, at, 0, i * 8u);
    m->memory[at + 16] = (char)CANARY;
    put_desc(m, q, d, guest_of(at), 16, VRING_NEXT, (uint16_t)(d + 1));
    put_desc(m, q, (uint16_t)(d + 1), guest_of(AT_DATA), bytes, VRING_NEXT | VRING_WRITE,
             (uint16_t)(d + 2));
    put_desc(m, q, (uint16_t)(d + 2), guest_of(at + 16), 1, VRING_WRITE, 0);
    push(m, q, d);
  }
  kick(m, q);
}

/* The socket closes with all requests in flight. Those that were taken are still completed, in
 * memory that must be there: their status bytes say so. */
static void end_in_flight(const char *socket, bool cut) {
  struct monitor m;
  mon_open(&m, socket);
  mon_negotiate(&m);
  mon_share(&m);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) mon_start_ring(&m, q, 256, 0);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) put_reads(&m, q, 85, 4096);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) wait_used(&m, q, 1); /* it is at work */
  if (cut) expect(ftruncate(m.memory_fd, 0) == 0);
  close(m.fd);
  m.fd = -1;
  expect_serves(socket); /* whoever comes next waits for the last of them */
  for (uint32_t q = 0; q < HOSTILE_QUEUES && !cut; q++) {
    const struct evil_ring *r = &m.rings[q];
    uint16_t used = __atomic_load_n(&r->used->index, __ATOMIC_ACQUIRE);
    expect(used >= 1 && used <= 85);
    for (uint16_t i = 0; i < used && world.strict; i++) {
      uint32_t id = r->used->ring[i].id;
      expect(id % 3 == 0 && id < 255);
      expect(m.memory[AT_HEADER + (q * 128u + id / 3) * 32u + 16] == BLK_OK);
    }
  }
  mon_close(&m);
}

static void gone_in_flight(void) {
  for (uint32_t i = 0; i < 20; i++) end_in_flight(world.bad, i % 4 == 3);
  if (world.slow) end_in_flight(world.slow, false);
  if (world.slow) end_in_flight(world.slow, true);
}

/* What stops and changes rings, in the middle of I/O; each is answered when nothing is in flight.
 */
static void stopped_in_flight(void) {
  for (uint32_t what = 0; what < 9; what++) {
    struct monitor m;
    mon_run(&m, world.slow);
    for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) put_reads(&m, q, 40, 4096);
    wait_used(&m, 0, 1);
    struct message set[] = {msg_state(VHOST_GET_VRING_BASE, 0, 0),
                            msg_state(VHOST_SET_VRING_ENABLE, 0, 0),
                            msg(VHOST_RESET_DEVICE, 0),
                            msg(VHOST_RESET_OWNER, 0),
                            msg_u64(VHOST_SET_FEATURES, m.offered),
                            msg_state(VHOST_SET_VRING_NUM, 0, 64),
                            msg(VHOST_SET_MEM_TABLE, 8),
                            mon_address(&m, 0),
                            msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd)};
    if (what == 0)
      expect(mon_ask(&m, &set[what]));
    else
      mon_tell(&m, &set[what]);
    if (what == 1 || what == 0) { /* drained: what was taken is used, and no more comes */
      uint16_t used = __atomic_load_n(&m.rings[0].used->index, __ATOMIC_ACQUIRE);
      nap_ms(10);
      expect(used == __atomic_load_n(&m.rings[0].used->index, __ATOMIC_ACQUIRE));
      if (what == 0) expect(m.reply.state.num == used);
    }
    mon_close(&m);
  }
  expect_serves(world.slow);
}

/* Asked twice, and of a ring that never was. */
static void base_again(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  expect(proper_read(&m, 0) == BLK_OK);
  for (uint32_t i = 0; i < 3; i++) { /* trap 4: it does not reset the ring */
    struct message ask = msg_state(VHOST_GET_VRING_BASE, 0, 0);
    expect(mon_ask(&m, &ask));
    expect(m.reply.state.index == 0 && m.reply.state.num == 1);
  }
  struct message set = msg_fd(VHOST_SET_VRING_KICK, 0, m.rings[0].kick_fd);
  expect_accepted(&m, &set);
  expect_usable(&m);
  mon_close(&m);
}

/* One breaks its ring and is gone; who has waited behind it must not be taken for it. */
static void next_in_line(void) {
  for (uint32_t i = 0; i < 200; i++) {
    struct monitor first, second;
    struct message ask = msg(VHOST_GET_FEATURES, 0);
    mon_run(&first, world.bad);
    mon_open(&second, world.bad);
    mon_send(&second, &ask);
    push(&first, 0, 60000);
    if (i % 2) kick(&first, 0);
    close(first.fd);
    first.fd = -1;
    for (volatile uint32_t spin = 0; spin < i * 100; spin++) {
    }
    kick(&first, 0);
    if (!mon_ask(&second, &ask)) fail_case("the next one is dropped");
    expect_connected(&second);
    mon_close(&first);
    mon_close(&second);
  }
}

/* ---- At random ------------------------------------------------------------------------------- */

static uint64_t any_number(struct random *r) {
  static const uint64_t edges[] = {0,    1,          2,         3,           64,         127,
                                   128,  256,        0xffff,    0x10000,     UINT32_MAX, UINT64_MAX,
                                   4096, GUEST_BASE, USER_BASE, MEMORY_BYTES};
  uint64_t n = random_next(r);
  if (n % 4 == 0) return random_next(r);
  return edges[n / 4 % array_size(edges)] + (n >> 60 == 0);
}

static struct message any_message(struct monitor *m, struct random *r) {
  uint32_t q = (uint32_t)random_below(r, 3);
  struct message set = msg_state(VHOST_SET_VRING_ENABLE, q, (uint32_t)random_below(r, 2));
  switch (random_below(r, 16)) {
  case 0:
    return msg_state(VHOST_SET_VRING_NUM, q, (uint32_t)any_number(r));
  case 1:
    return msg_state(VHOST_SET_VRING_NUM, q, 1u << random_below(r, 9));
  case 2:
    return msg_state(VHOST_SET_VRING_BASE, q, (uint32_t)any_number(r));
  case 3:
    set = mon_address(m, q % HOSTILE_QUEUES);
    if (random_below(r, 3) == 0) set.addr.desc_user = any_number(r);
    if (random_below(r, 3) == 0) set.addr.avail_user += any_number(r) % 65536;
    return set;
  case 4:
  case 5:
    return msg_fd(VHOST_SET_VRING_KICK + (uint32_t)random_below(r, 3), q,
                  m->rings[q % HOSTILE_QUEUES].kick_fd);
  case 6:
    set = msg(VHOST_SET_MEM_TABLE, 8 + 32);
    set.table.count = 1;
    set.table.regions[0] = mon_region(m);
    if (random_below(r, 3) == 0) set.table.regions[0].bytes = any_number(r);
    set.fds[set.fd_count++] = m->memory_fd;
    return set;
  case 7:
  case 8:
    set = msg(random_below(r, 2) ? VHOST_ADD_MEM_REG : VHOST_REM_MEM_REG, sizeof set.reg);
    set.reg.region = mon_region(m);
    if (random_below(r, 2)) set.reg.region.guest = any_number(r);
    if (random_below(r, 2)) set.reg.region.user = any_number(r);
    if (set.request == VHOST_ADD_MEM_REG) set.fds[set.fd_count++] = m->memory_fd;
    return set;
  case 9:
    return msg_u64(VHOST_SET_FEATURES, m->offered & random_next(r));
  case 10:
    return msg(random_below(r, 2) ? VHOST_RESET_OWNER : VHOST_RESET_DEVICE, 0);
  case 11:
    set = msg(VHOST_SET_INFLIGHT_FD, sizeof set.inflight);
    set.inflight = (struct message_inflight){MEMORY_BYTES, random_below(r, 4) * 4096, 2,
                                             (uint16_t)(1u << random_below(r, 9)), 0};
    set.fds[set.fd_count++] = m->memory_fd;
    return set;
  default:
    return set;
  }
}

static void any_ring_contents(struct monitor *m, struct random *r) {
  uint32_t q = (uint32_t)random_below(r, HOSTILE_QUEUES);
  struct evil_ring *ring = &m->rings[q];
  for (uint32_t i = 0; i < 8; i++)
    put_desc(m, q, (uint16_t)random_below(r, QUEUE_SIZE), guest_of(any_number(r) % MEMORY_BYTES),
             (uint32_t)(any_number(r) % 70000), (uint16_t)random_below(r, 8),
             (uint16_t)random_below(r, QUEUE_SIZE));
  put_header(m, any_number(r) % (MEMORY_BYTES - 16), (uint32_t)random_below(r, 14), 0);
  if (random_below(r, 50) == 0) ring->avail->index = (uint16_t)any_number(r);
  for (uint32_t i = 0; i < 4; i++) push(m, q, (uint16_t)random_below(r, QUEUE_SIZE));
  kick(m, q);
}

static void at_random(void) {
  struct random r = {2026};
  for (uint32_t round = 0; round < 150; round++) {
    struct monitor m;
    mon_run(&m, world.bad);
    for (uint32_t i = 0; i < 30 && !m.dropped; i++) {
      struct message set = any_message(&m, &r);
      any_ring_contents(&m, &r);
      mon_tell(&m, &set);
    }
    mon_close(&m);
  }
}

const struct hostile_case cases_order[] = {
    {"order_first_of_all", "messages in orders nobody expects", first_of_all, false},
    {"order_as_qemu", "CALL before memory, features twice (traps 3, 7)", as_qemu, false},
    {"order_base_again", "GET_VRING_BASE does not reset (trap 4)", base_again, false},
    {"order_gone_in_flight", "mappings stay until the last request (trap 8)", gone_in_flight,
     false},
    {"order_stopped_in_flight", "drain before answering (trap 6)", stopped_in_flight, true},
    {"order_next_in_line", "the next client of the disk", next_in_line, false},
    {"order_at_random", "any message, any ring", at_random, BOTH_RINGS},
    {0},
};
