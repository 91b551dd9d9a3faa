/* cases_repeat.c - the same message thousands of times: nothing may be left of it, neither a
 * descriptor nor a mapping nor memory. */
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/vhost/inflight.h"
#include "tests/hostile/hostile.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { TIMES = 1000, SANITIZED = 1 }; /* what is freed is kept there, memory says nothing */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { TIMES = 1000, SANITIZED = 1 };
#else
enum { TIMES = 3000, SANITIZED = 0 };
#endif
#else
enum { TIMES = 3000, SANITIZED = 0 };
#endif
enum { GROWTH_KIB = 2048 };

static uint64_t server_anonymous_kib(void) {
  char path[64], line[256];
  unsigned long kib = 0;
  snprintf(path, sizeof path, "/proc/%d/status", world.pid);
  FILE *f = world.pid ? fopen(path, "r") : NULL;
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "RssAnon: %lu", &kib) == 1) break;
  if (f) fclose(f);
  return kib;
}

/* After a first round all that is kept on purpose is there; after many more it is no more. */
static void repeat(struct monitor *m, void (*once)(struct monitor *m, uint32_t i)) {
  for (uint32_t i = 0; i < TIMES / 10 && !m->dropped; i++) once(m, i);
  if (m->dropped) fail_case("dropped, though all of it was in order");
  uint32_t fds = server_fds(), maps = server_maps();
  uint64_t kib = server_anonymous_kib();
  for (uint32_t i = 0; i < TIMES && !m->dropped; i++) once(m, i);
  if (m->dropped) fail_case("dropped, though all of it was in order");
  expect_back_to(fds, maps);
  uint64_t after = server_anonymous_kib();
  if (!SANITIZED && after > kib + GROWTH_KIB)
    fail_case("the server has grown from %llu to %llu KiB", (unsigned long long)kib,
              (unsigned long long)after);
}

static void get_inflight_once(struct monitor *m, uint32_t i) {
  struct message ask = msg(VHOST_GET_INFLIGHT_FD, sizeof ask.inflight);
  (void)i;
  ask.inflight.queues = HOSTILE_QUEUES;
  ask.inflight.queue_size = QUEUE_SIZE;
  if (mon_ask(m, &ask)) message_close_fds(&m->reply);
}

static void set_inflight_once(struct monitor *m, uint32_t i) {
  static const uint16_t sizes[] = {128, 64, 256};
  struct message set = msg(VHOST_SET_INFLIGHT_FD, sizeof set.inflight);
  set.inflight = (struct message_inflight){MEMORY_BYTES, 0, 1 + i % 2, sizes[i % 3], 0};
  int fd = memfd_create("inflight", MFD_CLOEXEC);
  expect(fd >= 0 && ftruncate(fd, (off_t)MEMORY_BYTES) == 0);
  set.fds[set.fd_count++] = fd;
  mon_tell(m, &set);
  close(fd);
}

static void set_num_once(struct monitor *m, uint32_t i) {
  struct message set = msg_state(VHOST_SET_VRING_NUM, i % 2, 2u << i % 8);
  mon_tell(m, &set);
}

static void set_table_once(struct monitor *m, uint32_t i) {
  struct message set = msg(VHOST_SET_MEM_TABLE, 8 + 64);
  set.table.count = 2;
  set.table.regions[0] = mon_region(m);
  set.table.regions[1] = (struct message_region){GUEST_BASE + MEMORY_BYTES + i * 4096, 4096, 0, 0};
  for (uint32_t f = 0; f < 2; f++) set.fds[set.fd_count++] = m->memory_fd;
  mon_tell(m, &set);
}

static void add_and_remove_once(struct monitor *m, uint32_t i) {
  struct message set = msg(VHOST_ADD_MEM_REG, sizeof set.reg);
  set.reg.region = (struct message_region){UINT64_C(1) << 40, 4096 + i * 4096 % 65536, 0, 0};
  set.fds[set.fd_count++] = m->memory_fd;
  mon_tell(m, &set);
  set.request = VHOST_REM_MEM_REG; /* some send the descriptor here, too */
  mon_tell(m, &set);
}

static void descriptors_once(struct monitor *m, uint32_t i) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct message set = msg_fd(VHOST_SET_VRING_CALL + i % 2, i / 2 % 2, fd);
  mon_tell(m, &set);
  set = msg_fd(VHOST_SET_VRING_KICK, i % 2, fd);
  mon_tell(m, &set);
  close(fd);
}

static void channel_once(struct monitor *m, uint32_t i) {
  int s[2];
  (void)i;
  expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
  struct message set = msg(VHOST_SET_BACKEND_REQ_FD, 0);
  set.fds[set.fd_count++] = s[0];
  mon_tell(m, &set);
  close(s[0]);
  close(s[1]);
}

static void enable_once(struct monitor *m, uint32_t i) {
  struct message set = msg_state(VHOST_SET_VRING_ENABLE, i % 2, i / 2 % 2);
  mon_tell(m, &set);
  push(m, i % 2, (uint16_t)(i % QUEUE_SIZE));
  kick(m, i % 2);
}

static void reset_once(struct monitor *m, uint32_t i) {
  struct message set = msg(i % 2 ? VHOST_RESET_OWNER : VHOST_SET_OWNER, 0);
  mon_tell(m, &set);
  set = msg_fd(VHOST_SET_VRING_ERR, 0, m->rings[0].err_fd);
  mon_tell(m, &set);
}

/* With rings that run in it, and without. */
static void repeat_running(void (*once)(struct monitor *m, uint32_t i)) {
  struct monitor m;
  mon_run(&m, world.bad);
  repeat(&m, once);
  mon_close(&m);
}

static void repeat_fresh(void (*once)(struct monitor *m, uint32_t i)) {
  struct monitor m;
  mon_open(&m, world.bad);
  mon_negotiate(&m);
  mon_share(&m);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) mon_ring_init(&m, q, QUEUE_SIZE);
  repeat(&m, once);
  mon_close(&m);
}

static void get_inflight(void) { repeat_running(get_inflight_once); }
static void set_inflight(void) { repeat_running(set_inflight_once); }
static void set_num(void) { repeat_fresh(set_num_once); }
static void set_num_running(void) { repeat_running(set_num_once); }
static void set_table(void) { repeat_running(set_table_once); }
static void add_and_remove(void) { repeat_running(add_and_remove_once); }
static void descriptors(void) { repeat_running(descriptors_once); }
static void channel(void) { repeat_running(channel_once); }
static void reset(void) { repeat_fresh(reset_once); }

/* ENABLE 0 and 1 with requests under way each time. */
static void enable(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) put_header(&m, AT_HEADER, 0, 0);
  for (uint32_t i = 0; i < TIMES && !m.dropped; i++) enable_once(&m, i);
  mon_close(&m);
}

/* Complete devices, one after the other. */
static void connections(void) {
  for (uint32_t i = 0; i < TIMES / 20; i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    if (i % 2) expect_usable(&m);
    mon_close(&m);
  }
}

const struct hostile_case cases_repeat[] = {
    {"repeat_get_inflight", "repeated GET_INFLIGHT without a leak (CVE-2020-10726)", get_inflight,
     false},
    {"repeat_set_inflight", "repeated SET_INFLIGHT_FD", set_inflight, true},
    {"repeat_set_num", "repeated SET_VRING_NUM without a leak (CVE-2019-14818)", set_num, false},
    {"repeat_set_num_running", "the same of a running ring", set_num_running, true},
    {"repeat_set_table", "repeated SET_MEM_TABLE", set_table, true},
    {"repeat_add_and_remove", "repeated ADD_MEM_REG and REM_MEM_REG", add_and_remove, false},
    {"repeat_descriptors", "repeated KICK and CALL", descriptors, true},
    {"repeat_channel", "repeated SET_BACKEND_REQ_FD", channel, true},
    {"repeat_reset", "repeated RESET_OWNER", reset, true},
    {"repeat_enable", "ENABLE 0 and 1 (trap 6)", enable, false},
    {"repeat_connections", "devices that come and go", connections, false},
    {0},
};
