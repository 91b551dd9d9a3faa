/* cases_descriptor.c - descriptors of the wrong kind wherever one is asked for, and right ones that
 * would block whoever touches them. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

enum kind {
  REGULAR,
  READ_ONLY,
  PIPE_READ,
  PIPE_WRITE,
  PIPE_CLOSED,
  NULL_DEVICE,
  ZERO_DEVICE,
  DIRECTORY,
  PATH_ONLY,
  EPOLL,
  MEMFD,
  TIMER,
  OWN_SOCKET,
  DEAD_SOCKET,
  FULL_EVENT,
  KINDS,
};

static int pair_end(int s[2], bool pipes, int keep) {
  expect((pipes ? pipe2(s, O_CLOEXEC) : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s)) ==
         0);
  close(s[!keep]);
  return s[keep];
}

static int make(enum kind kind, struct monitor *m) {
  int s[2];
  uint64_t most = UINT64_MAX - 1;
  switch (kind) {
  case REGULAR:
    return open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  case READ_ONLY:
    return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  case PIPE_READ:
    return pair_end(s, true, 0);
  case PIPE_WRITE:
  case PIPE_CLOSED:
    return pair_end(s, true, 1);
  case NULL_DEVICE:
    return open("/dev/null", O_RDWR | O_CLOEXEC);
  case ZERO_DEVICE:
    return open("/dev/zero", O_RDWR | O_CLOEXEC);
  case DIRECTORY:
    return open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  case PATH_ONLY:
    return open("/tmp", O_PATH | O_CLOEXEC);
  case EPOLL:
    return epoll_create1(EPOLL_CLOEXEC);
  case MEMFD:
    return memfd_create("wrong", MFD_CLOEXEC);
  case TIMER:
    return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  case OWN_SOCKET:
    return dup(m->fd);
  case DEAD_SOCKET:
    return pair_end(s, false, 0);
  default:
    s[0] = eventfd(0, EFD_CLOEXEC);
    expect(write(s[0], &most, sizeof most) == sizeof most);
    return s[0];
  }
}

static struct message with_fd(uint32_t request, int fd) {
  struct message set = msg_fd(request, 0, fd);
  if (request == VHOST_SET_BACKEND_REQ_FD) set.bytes = 0;
  if (request == VHOST_SET_MEM_TABLE) {
    set.bytes = 8 + 32;
    set.table.count = 1;
    set.table.padding = 0;
    set.table.regions[0] = (struct message_region){GUEST_BASE, 4096, USER_BASE, 0};
  }
  if (request == VHOST_ADD_MEM_REG) {
    set.bytes = sizeof set.reg;
    set.reg = (struct message_mem_reg){0, {0, 4096, 0, 0}};
  }
  if (request == VHOST_SET_INFLIGHT_FD) {
    set.bytes = sizeof set.inflight;
    set.inflight = (struct message_inflight){65536, 0, 1, QUEUE_SIZE, 0};
  }
  return set;
}

/* Of a running device: what the descriptor is for is used at once. */
static void wrong_kinds(uint32_t request) {
  for (enum kind k = 0; k < KINDS; k++) {
    struct monitor m;
    /* A server that keeps our own end of our connection never sees that it ends: this hurts only
     * ourselves, and a channel must be a socket. */
    if (k == OWN_SOCKET && request == VHOST_SET_BACKEND_REQ_FD) continue;
    if (k == OWN_SOCKET && !world.strict) continue;
    mon_run(&m, world.bad);
    int fd = make(k, &m);
    expect(fd >= 0);
    struct message set = with_fd(request, fd);
    enum answer a = mon_tell(&m, &set);
    if (a == ACCEPTED && request != VHOST_SET_MEM_TABLE) {
      push(&m, 0, 0);
      put_header(&m, AT_HEADER, 0, 0);
      put_desc(&m, 0, 0, guest_of(AT_HEADER), 16, VRING_NEXT, 1);
      put_desc(&m, 0, 1, guest_of(AT_DATA), 4096, VRING_NEXT | VRING_WRITE, 2);
      put_desc(&m, 0, 2, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
      kick(&m, 0);
      if (request != VHOST_SET_VRING_KICK) wait_used(&m, 0, 1);
    }
    close(fd);
    mon_close(&m);
  }
}

static void wrong_kick(void) { wrong_kinds(VHOST_SET_VRING_KICK); }
static void wrong_call(void) { wrong_kinds(VHOST_SET_VRING_CALL); }
static void wrong_err(void) { wrong_kinds(VHOST_SET_VRING_ERR); }
static void wrong_memory(void) { wrong_kinds(VHOST_SET_MEM_TABLE); }
static void wrong_region(void) { wrong_kinds(VHOST_ADD_MEM_REG); }
static void wrong_inflight(void) { wrong_kinds(VHOST_SET_INFLIGHT_FD); }
static void wrong_channel(void) { wrong_kinds(VHOST_SET_BACKEND_REQ_FD); }

/* No descriptor where the message says that there is one, and the other way round. */
static void missing(void) {
  static const uint32_t requests[] = {VHOST_SET_VRING_KICK,  VHOST_SET_VRING_CALL,
                                      VHOST_SET_VRING_ERR,   VHOST_ADD_MEM_REG,
                                      VHOST_SET_INFLIGHT_FD, VHOST_SET_BACKEND_REQ_FD};
  for (uint32_t i = 0; i < array_size(requests); i++) {
    struct monitor m;
    struct message set = with_fd(requests[i], -1);
    set.fd_count = 0;
    mon_run(&m, world.bad);
    if (world.strict) expect_refused(&m, &set);
    if (i < 3 && !m.dropped) {
      set = msg_fd(requests[i], MESSAGE_VRING_NO_FD, STDERR_FILENO);
      if (world.strict) expect_refused(&m, &set);
    }
    mon_close(&m);
  }
}

static void make_blocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  expect(flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0);
}

static void fill_event(int fd) {
  uint64_t most = UINT64_MAX - 1, count;
  ssize_t n = read(fd, &count, sizeof count);
  (void)n;
  expect(write(fd, &most, sizeof most) == sizeof most);
}

static void fill_stream(int fd) {
  char bytes[4096] = {0};
  int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  while (write(fd, bytes, sizeof bytes) > 0 || write(fd, bytes, 1) > 0) {
  }
}

/* The state of a device goes through whatever is given: a pipe that is full, empty or broken. */
static void state_pipes(void) {
  for (uint32_t way = 0; way < 6; way++) {
    struct monitor m;
    int s[2];
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    if (way < 3)
      expect(pipe2(s, O_CLOEXEC) == 0);
    else
      expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
    uint32_t load = way % 3 == 1;
    struct message set = msg(VHOST_SET_DEVICE_STATE_FD, sizeof set.device_state);
    set.device_state.direction = load;
    set.fds[set.fd_count++] = s[!load];
    if (way % 3 == 0) fill_stream(s[1]);
    if (way % 3 == 2) close(s[0]);
    make_blocking(s[!load]);
    mon_ask(&m, &set);
    make_blocking(s[!load]);
    set = msg(VHOST_CHECK_DEVICE_STATE, 0);
    if (!m.dropped) mon_ask(&m, &set);
    if (way % 3 != 2) close(s[0]);
    close(s[1]);
    mon_close(&m);
  }
}

/* Notifications go to something that takes no more, and waits for ever: nobody may wait with it. */
static void full_call(int fd, bool event) {
  struct monitor m;
  mon_run(&m, world.bad);
  struct message set = msg_fd(VHOST_SET_VRING_CALL, 0, fd);
  if (mon_tell(&m, &set) == ACCEPTED) {
    if (event)
      fill_event(fd);
    else
      fill_stream(fd);
    make_blocking(fd); /* they share the flag with us */
    for (uint32_t i = 0; i < 4; i++) proper_read(&m, 0);
    const char *wrong = good_progress(40);
    if (wrong) fail_case("meanwhile: %s", wrong);
  }
  mon_close(&m);
}

static void full_call_event(void) {
  int fd = eventfd(0, EFD_CLOEXEC);
  full_call(fd, true);
  close(fd);
}

static void full_call_pipe(void) {
  int s[2];
  expect(pipe2(s, O_CLOEXEC) == 0);
  full_call(s[1], false);
  close(s[0]);
  close(s[1]);
}

static void full_call_socket(void) {
  int s[2];
  expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
  full_call(s[1], false);
  close(s[0]);
  close(s[1]);
}

/* The same of the descriptor that is told when a ring breaks: the server's thread writes it. */
static void full_err(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  int fd = m.rings[0].err_fd;
  fill_event(fd);
  make_blocking(fd);
  push(&m, 0, 60000);
  kick(&m, 0);
  if (world.strict) expect_dropped(&m);
  if (world.late) expect_serves(world.late);
  expect_serves(world.slow ? world.slow : world.bad);
  mon_close(&m);
}

/* ... and of the back-end's own channel. */
static void full_channel(void) {
  struct monitor m;
  int s[2];
  expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
  mon_run(&m, world.bad);
  struct message set = msg_fd(VHOST_SET_BACKEND_REQ_FD, 0, s[1]);
  set.bytes = 0;
  expect_accepted(&m, &set);
  fill_stream(s[1]);
  make_blocking(s[1]);
  for (uint32_t i = 0; i < 4; i++) own_server_resize();
  expect_serves(world.slow);
  expect_usable(&m);
  mon_close(&m);
  close(s[0]);
  close(s[1]);
}

/* Closed by us in the middle: the server has its own, nothing may happen but silence. */
static void closed_early(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < 3; i++) {
    int *fd = i == 0 ? &m.rings[0].call_fd : i == 1 ? &m.rings[0].err_fd : &m.rings[1].kick_fd;
    close(*fd);
    *fd = -1;
  }
  expect(proper_read(&m, 0) == BLK_OK);
  mon_close(&m);
}

const struct hostile_case cases_descriptor[] = {
    {"fd_kick", "descriptors of the wrong kind", wrong_kick, false},
    {"fd_call", "descriptors of the wrong kind", wrong_call, false},
    {"fd_err", "descriptors of the wrong kind", wrong_err, false},
    {"fd_memory", "descriptors of the wrong kind", wrong_memory, false},
    {"fd_region", "descriptors of the wrong kind", wrong_region, false},
    {"fd_inflight", "descriptors of the wrong kind", wrong_inflight, false},
    {"fd_channel", "descriptors of the wrong kind", wrong_channel, false},
    {"fd_missing", "messages without their descriptor", missing, false},
    {"fd_call_full_event", "a client never disturbs others: notifications that block",
     full_call_event, false},
    {"fd_call_full_pipe", "notifications that block", full_call_pipe, false},
    {"fd_call_full_socket", "notifications that block", full_call_socket, false},
    {"fd_err_full", "notifications that block", full_err, false},
    {"fd_channel_full", "a channel that blocks", full_channel, true},
    {"fd_state_pipes", "a state that blocks", state_pipes, true},
    {"fd_closed_early", "the other end is closed", closed_early, false},
    {0},
};
