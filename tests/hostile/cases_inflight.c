/* cases_inflight.c - in-flight files that were cut, forged, or made for something else. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/vhost/inflight.h"
#include "tests/hostile/hostile.h"

#define FILE_BYTES (HOSTILE_QUEUES * inflight_queue_bytes(QUEUE_SIZE, false))

static struct message with_file(int fd, uint64_t bytes, uint64_t offset, uint16_t queues,
                                uint16_t size) {
  struct message set = msg(VHOST_SET_INFLIGHT_FD, sizeof set.inflight);
  set.inflight = (struct message_inflight){bytes, offset, queues, size, 0};
  set.fds[set.fd_count++] = fd;
  return set;
}

static int make_file(uint64_t bytes) {
  int fd = memfd_create("inflight", MFD_CLOEXEC);
  expect(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
  return fd;
}

static void wrong_sizes(void) {
  static const struct {
    uint64_t bytes, offset, file;
    uint16_t queues, size;
  } bad[] = {
      {0, 0, 1 << 20, 2, QUEUE_SIZE},
      {1 << 20, 0, 0, 2, QUEUE_SIZE},
      {1 << 20, 0, 64, 2, QUEUE_SIZE},
      {1 << 20, 0, 4096, 2, QUEUE_SIZE},
      {1 << 20, 1, 1 << 20, 2, QUEUE_SIZE},
      {1 << 20, 1 << 20, 1 << 20, 2, QUEUE_SIZE},
      {1 << 20, UINT64_MAX - 4095, 1 << 20, 2, QUEUE_SIZE},
      {UINT64_MAX, UINT64_MAX - 4095, 1 << 20, 2, QUEUE_SIZE},
      {1 << 20, UINT64_C(1) << 63, 1 << 20, 2, QUEUE_SIZE},
      {1 << 20, 0, 1 << 20, 0, QUEUE_SIZE},
      {1 << 20, 0, 1 << 20, 3, QUEUE_SIZE},
      {1 << 20, 0, 1 << 20, 65535, QUEUE_SIZE},
      {1 << 20, 0, 1 << 20, 2, 0},
      {1 << 20, 0, 1 << 20, 2, 3},
      {1 << 20, 0, 1 << 20, 2, 65535},
      {1 << 20, 0, 1 << 20, 2, 32768},
      {64, 0, 1 << 20, 2, QUEUE_SIZE},
  };
  for (uint32_t i = 0; i < array_size(bad); i++) {
    struct monitor m;
    int fd = make_file(bad[i].file);
    struct message set = with_file(fd, bad[i].bytes, bad[i].offset, bad[i].queues, bad[i].size);
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    if (world.strict)
      expect_refused(&m, &set);
    else
      mon_tell(&m, &set);
    if (!m.dropped && i < 6) {
      mon_share(&m);
      for (uint32_t q = 0; q < HOSTILE_QUEUES && world.strict; q++)
        mon_start_ring(&m, q, QUEUE_SIZE, 0);
      if (world.strict) expect_usable(&m);
    }
    close(fd);
    mon_close(&m);
    struct message ask = msg(VHOST_GET_INFLIGHT_FD, sizeof ask.inflight);
    ask.inflight = set.inflight;
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    if (mon_ask(&m, &ask)) message_close_fds(&m.reply);
    mon_close(&m);
  }
}

/* Runs with a file, whatever it says: all heads that it calls in flight lead to whatever lies in
 * the ring. */
static void run_with(int fd, const char *socket) {
  struct monitor m;
  mon_open(&m, socket);
  mon_negotiate(&m);
  mon_share(&m);
  struct random r = {4};
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) {
    mon_ring_init(&m, q, QUEUE_SIZE);
    for (uint16_t i = 0; i < QUEUE_SIZE; i++)
      put_desc(&m, q, i, guest_of(random_below(&r, MEMORY_BYTES)), (uint32_t)random_below(&r, 8192),
               (uint16_t)random_below(&r, 8), (uint16_t)random_below(&r, QUEUE_SIZE + 1));
  }
  struct message set = with_file(fd, FILE_BYTES, 0, HOSTILE_QUEUES, QUEUE_SIZE);
  mon_tell(&m, &set);
  for (uint32_t q = 0; q < HOSTILE_QUEUES && !m.dropped; q++) {
    struct message start[] = {
        msg_state(VHOST_SET_VRING_NUM, q, QUEUE_SIZE),
        msg_state(VHOST_SET_VRING_BASE, q, 0),
        mon_address(&m, q),
        msg_fd(VHOST_SET_VRING_CALL, q, m.rings[q].call_fd),
        msg_fd(VHOST_SET_VRING_KICK, q, m.rings[q].kick_fd),
        msg_state(VHOST_SET_VRING_ENABLE, q, 1),
    };
    for (uint32_t i = 0; i < array_size(start) && !m.dropped; i++) mon_tell(&m, &start[i]);
    kick(&m, q);
  }
  nap_ms(2);
  mon_close(&m);
}

static struct inflight_queue *queue_in(char *file, uint32_t q) {
  return (struct inflight_queue *)(void *)(file + q * inflight_queue_bytes(QUEUE_SIZE, false));
}

enum forgery {
  NOISE,
  ALL_IN_FLIGHT,
  EQUAL_COUNTERS,
  LAST_COUNTERS,
  CYCLE,
  SELF,
  FAR,
  OTHER_SIZE,
  OTHER_VERSION,
  NOT_BEGUN,
  FORGERIES
};

static void forge(char *file, enum forgery what, struct random *r) {
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) {
    struct inflight_queue *f = queue_in(file, q);
    *f = (struct inflight_queue){.version = 1, .size = QUEUE_SIZE};
    for (uint32_t i = 0; i < QUEUE_SIZE; i++)
      f->entries[i] = (struct inflight_entry){.in_flight = what >= ALL_IN_FLIGHT && what != CYCLE,
                                              .next = (uint16_t)((i + 1) % QUEUE_SIZE),
                                              .counter = i};
    for (uint32_t i = 0; i < QUEUE_SIZE; i++) {
      if (what == EQUAL_COUNTERS) f->entries[i].counter = 7;
      if (what == LAST_COUNTERS) f->entries[i].counter = UINT64_MAX - i % 2;
      if (what == SELF) f->entries[i].next = (uint16_t)i;
      if (what == FAR) f->entries[i].next = (uint16_t)random_next(r);
    }
    if (what == CYCLE || what == SELF) f->used_index = 65535 - 60;
    if (what == FAR) f->last_head = 65535;
    if (what == FAR) f->used_index = 32768;
    if (what == OTHER_SIZE) f->size = q ? 65535 : 64;
    if (what == OTHER_VERSION) f->version = 65535;
    if (what == NOT_BEGUN) f->version = 0;
  }
  if (what == NOISE)
    for (uint64_t i = 0; i < FILE_BYTES; i++) file[i] = (char)random_next(r);
}

static void forged(void) {
  struct random r = {9};
  const char *sockets[] = {world.bad, world.slow};
  for (uint32_t i = 0; i < 3 * FORGERIES; i++) {
    int fd = make_file(FILE_BYTES);
    char *file = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    expect(file != MAP_FAILED);
    forge(file, (enum forgery)(i % FORGERIES), &r);
    run_with(fd, sockets[world.slow && i >= 2 * FORGERIES]);
    munmap(file, FILE_BYTES);
    close(fd);
  }
  if (world.slow) expect_serves(world.slow);
}

/* The same file again and again, as it is left each time. */
static void used_again(void) {
  int fd = make_file(FILE_BYTES);
  for (uint32_t i = 0; i < 10; i++) run_with(fd, world.bad);
  close(fd);
}

static void cut_while_used(void) {
  for (uint32_t i = 0; i < 4; i++) {
    struct monitor m;
    int fd = make_file(FILE_BYTES);
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    mon_share(&m);
    struct message set = with_file(fd, FILE_BYTES, 0, HOSTILE_QUEUES, QUEUE_SIZE);
    expect_accepted(&m, &set);
    if (i == 0) expect(ftruncate(fd, 0) == 0);
    for (uint32_t q = 0; q < HOSTILE_QUEUES && !m.dropped; q++) {
      mon_ring_init(&m, q, QUEUE_SIZE);
      struct message start[] = {msg_state(VHOST_SET_VRING_NUM, q, QUEUE_SIZE), mon_address(&m, q),
                                msg_fd(VHOST_SET_VRING_KICK, q, m.rings[q].kick_fd),
                                msg_state(VHOST_SET_VRING_ENABLE, q, 1)};
      for (uint32_t s = 0; s < array_size(start) && !m.dropped; s++) mon_tell(&m, &start[s]);
    }
    if (i) expect(ftruncate(fd, i == 1 ? 0 : (off_t)FILE_BYTES / 2) == 0);
    for (uint32_t n = 0; n < 50 && !m.dropped; n++) {
      put_header(&m, AT_HEADER, 0, 0);
      put_desc(&m, 1, 0, guest_of(AT_HEADER), 16, VRING_NEXT, 1);
      put_desc(&m, 1, 1, guest_of(AT_DATA), 4096, VRING_NEXT | VRING_WRITE, 2);
      put_desc(&m, 1, 2, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
      if (submit(&m, 1, 0) != USED) break;
    }
    close(fd);
    mon_close(&m);
  }
}

/* Written while it is used, by a monitor that should leave it alone. */
static void changed_while_used(void) {
  struct monitor m;
  struct random r = {3};
  int fd = make_file(FILE_BYTES);
  char *file = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  expect(file != MAP_FAILED);
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  mon_share(&m);
  struct message set = with_file(fd, FILE_BYTES, 0, HOSTILE_QUEUES, QUEUE_SIZE);
  expect_accepted(&m, &set);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) mon_start_ring(&m, q, QUEUE_SIZE, 0);
  for (uint32_t i = 0; i < 100 && !m.dropped; i++) {
    for (uint64_t b = 0; b < FILE_BYTES; b += 8) {
      uint64_t v = random_next(&r);
      memcpy(file + b, &v, 8);
    }
    for (uint32_t q = 0; q < HOSTILE_QUEUES && !m.dropped; q++) proper_read(&m, q);
  }
  munmap(file, FILE_BYTES);
  close(fd);
  mon_close(&m);
}

/* The file is for rings of 64, they are made larger then (CVE-2026-86565). */
static void another_ring_size(void) {
  static const uint16_t sizes[] = {64, 2, 256, 128};
  for (uint32_t i = 0; i < 2 * array_size(sizes); i++) {
    struct monitor m;
    const uint16_t size = sizes[i / 2];
    const bool first = i % 2; /* it never was as large as the file says */
    uint64_t bytes = round_up(HOSTILE_QUEUES * inflight_queue_bytes(size, false), 4096);
    int fd = make_file(bytes);
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    mon_share(&m);
    struct message set = with_file(fd, bytes, 0, HOSTILE_QUEUES, size);
    mon_tell(&m, &set);
    for (uint32_t q = 0; q < HOSTILE_QUEUES && !m.dropped; q++) {
      mon_ring_init(&m, q, QUEUE_SIZE);
      struct message start[] = {
          msg_state(VHOST_SET_VRING_NUM, q, first ? 256 : size), mon_address(&m, q),
          msg_fd(VHOST_SET_VRING_KICK, q, m.rings[q].kick_fd),
          msg_state(VHOST_SET_VRING_ENABLE, q, 1), msg_state(VHOST_SET_VRING_NUM, q, 256)};
      for (uint32_t s = 0; s < array_size(start) && !m.dropped; s++) mon_tell(&m, &start[s]);
      m.rings[q].size = 256;
      for (uint16_t h = 0; h < 250; h++) push(&m, q, (uint16_t)(255 - h));
      kick(&m, q);
    }
    nap_ms(2);
    /* Whatever it did, it did not take the file for one of larger rings. */
    struct inflight_queue head = {.version = 0};
    expect(pread(fd, &head, sizeof head, 0) == sizeof head);
    if (world.strict && head.version) expect(head.size == size);
    close(fd);
    mon_close(&m);
  }
}

const struct hostile_case cases_inflight[] = {
    {"inflight_wrong_sizes", "SET_INFLIGHT_FD: wrong sizes and offsets", wrong_sizes, false},
    {"inflight_forged", "check every field (trap 5)", forged, false},
    {"inflight_used_again", "as it is left (trap 5)", used_again, false},
    {"inflight_cut", "SIGBUS in the in-flight file", cut_while_used, false},
    {"inflight_changed", "changed while it is used", changed_while_used, false},
    {"inflight_ring_size", "the queue size must not change under it (CVE-2026-86565)",
     another_ring_size, false},
    {0},
};
