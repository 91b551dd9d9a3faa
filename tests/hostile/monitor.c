/* monitor.c - the hostile side of a connection: it sends what it is told to, and keeps an eye on
 * what comes back. One thread. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

#define PATIENCE_MS 20000
#define FOREIGN_MS  1000 /* until a ring of a foreign server counts as stopped */
#define OPEN_MAX    2048u

static struct monitor *opened[OPEN_MAX];

/* ---- Life ------------------------------------------------------------------------------------ */

static int connect_once(const char *path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, path, sizeof a.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  expect(fd >= 0);
  if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

void mon_open(struct monitor *m, const char *socket_path) {
  uint64_t end = now_ms() + PATIENCE_MS;
  *m = (struct monitor){.fd = -1, .memory_fd = -1, .reader.kind = MESSAGE_REPLIES};
  m->packed = world.packed;
  for (uint32_t i = 0; i < HOSTILE_QUEUES; i++)
    m->rings[i].kick_fd = m->rings[i].call_fd = m->rings[i].err_fd = -1;
  for (uint32_t i = 0; i < OPEN_MAX; i++)
    if (!opened[i]) {
      opened[i] = m;
      break;
    }
  while ((m->fd = connect_once(socket_path)) < 0) {
    if (errno != EAGAIN || now_ms() > end) fail_case("cannot connect: %s", strerror(errno));
    nap_ms(1);
  }
}

static void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

void mon_close(struct monitor *m) {
  close_fd(&m->fd);
  close_fd(&m->memory_fd);
  message_close_fds(&m->reader.message);
  for (uint32_t i = 0; i < HOSTILE_QUEUES; i++) {
    close_fd(&m->rings[i].kick_fd);
    close_fd(&m->rings[i].call_fd);
    close_fd(&m->rings[i].err_fd);
  }
  if (m->memory) munmap(m->memory, MEMORY_BYTES);
  m->memory = NULL;
  for (uint32_t i = 0; i < OPEN_MAX; i++)
    if (opened[i] == m) opened[i] = NULL;
}

void mon_close_all(void) {
  for (uint32_t i = 0; i < OPEN_MAX; i++)
    if (opened[i]) mon_close(opened[i]);
}

/* ---- Messages -------------------------------------------------------------------------------- */

struct message msg(uint32_t request, uint32_t bytes) {
  return (struct message){.request = request, .flags = MESSAGE_VERSION, .bytes = bytes};
}

struct message msg_u64(uint32_t request, uint64_t value) {
  struct message m = msg(request, 8);
  m.u64 = value;
  return m;
}

struct message msg_state(uint32_t request, uint32_t index, uint32_t num) {
  struct message m = msg(request, 8);
  m.state = (struct message_vring_state){index, num};
  return m;
}

struct message msg_fd(uint32_t request, uint64_t value, int fd) {
  struct message m = msg_u64(request, value);
  if (fd >= 0) m.fds[m.fd_count++] = fd;
  return m;
}

static bool wait_for(struct monitor *m, short events) {
  struct pollfd p = {.fd = m->fd, .events = events};
  int n = poll(&p, 1, PATIENCE_MS);
  if (n == 0) fail_case("the server neither answers nor closes");
  return n > 0;
}

bool mon_raw(struct monitor *m, const void *bytes, size_t count, const int *fds,
             uint32_t fd_count) {
  union {
    char bytes[CMSG_SPACE(253 * sizeof(int))];
    struct cmsghdr aligned;
  } control = {{0}};
  struct iovec iov = {(void *)(uintptr_t)bytes, count};
  struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
  if (m->dropped) return false;
  if (fd_count) {
    h.msg_control = control.bytes;
    h.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
  }
  while (count > 0) {
    ssize_t n = sendmsg(m->fd, &h, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      wait_for(m, POLLOUT);
      continue;
    }
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
      m->dropped = true;
      return false;
    }
    if (n < 0) fail_case("sendmsg: %s", strerror(errno));
    count -= (size_t)n;
    iov = (struct iovec){(char *)iov.iov_base + n, count};
    h.msg_control = NULL;
    h.msg_controllen = 0;
  }
  return true;
}

bool mon_send(struct monitor *m, const struct message *message) {
  uint8_t wire[12 + sizeof message->raw];
  uint32_t bytes = message->bytes <= sizeof message->raw ? message->bytes : 0;
  memcpy(wire, message, 12);
  memcpy(wire + 12, message->raw, bytes);
  return mon_raw(m, wire, 12 + bytes, message->fds, message->fd_count);
}

/* 1: m->reply; 0: dropped. */
static bool receive(struct monitor *m) {
  for (;;) {
    int r = message_receive(m->fd, &m->reader, &m->reply);
    if (r == 1) return true;
    if (r == 0) {
      wait_for(m, POLLIN);
      continue;
    }
    if (r == -EBADMSG || r == -EMSGSIZE) fail_case("a malformed answer");
    m->dropped = true;
    return false;
  }
}

bool mon_ask(struct monitor *m, struct message *message) {
  if (!mon_send(m, message) || !receive(m)) return false;
  if (m->reply.request != message->request)
    fail_case("%s was answered with %s", message_name(message->request),
              message_name(m->reply.request));
  return true;
}

enum answer mon_tell(struct monitor *m, struct message *message) {
  message->flags |= MESSAGE_NEED_REPLY;
  if (!mon_ask(m, message)) return DROPPED;
  message_close_fds(&m->reply);
  return m->reply.u64 == 0 ? ACCEPTED : REFUSED;
}

void expect_dropped(struct monitor *m) {
  while (!m->dropped && receive(m)) message_close_fds(&m->reply);
}

void expect_connected(struct monitor *m) {
  struct message ask = msg(VHOST_GET_FEATURES, 0);
  if (!mon_ask(m, &ask)) fail_case("the server has dropped us");
}

void expect_refused(struct monitor *m, struct message *message) {
  if (mon_tell(m, message) == ACCEPTED)
    fail_case("%s was accepted", message_name(message->request));
}

void expect_accepted(struct monitor *m, struct message *message) {
  enum answer a = mon_tell(m, message);
  if (a != ACCEPTED)
    fail_case("%s was %s", message_name(message->request), a == REFUSED ? "refused" : "not liked");
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

void mon_negotiate_features(struct monitor *m, uint64_t features) {
  struct message ask = msg(VHOST_GET_FEATURES, 0);
  if (!mon_ask(m, &ask)) fail_case("GET_FEATURES is not answered");
  m->offered = m->reply.u64;
  m->has_packed = m->offered >> VIRTIO_F_RING_PACKED & 1;
  if (!m->packed) m->offered &= ~(UINT64_C(1) << VIRTIO_F_RING_PACKED);
  ask = msg(VHOST_GET_PROTOCOL_FEATURES, 0);
  if (!mon_ask(m, &ask)) fail_case("GET_PROTOCOL_FEATURES is not answered");
  m->protocol = m->reply.u64;
  if (!(m->protocol >> VHOST_PF_REPLY_ACK & 1)) fail_case("the server has no REPLY_ACK");
  struct message set = msg_u64(VHOST_SET_PROTOCOL_FEATURES, m->protocol);
  mon_send(m, &set);
  set = msg(VHOST_SET_OWNER, 0);
  expect_accepted(m, &set);
  set = msg_u64(VHOST_SET_FEATURES, m->offered & features);
  expect_accepted(m, &set);
}

void mon_negotiate(struct monitor *m) { mon_negotiate_features(m, UINT64_MAX); }

static void make_memory(struct monitor *m) {
  if (m->memory) return;
  m->memory_fd = memfd_create("hostile", MFD_CLOEXEC);
  expect(m->memory_fd >= 0);
  expect(ftruncate(m->memory_fd, (off_t)MEMORY_BYTES) == 0);
  m->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m->memory_fd, 0);
  expect(m->memory != MAP_FAILED);
}

struct message_region mon_region(const struct monitor *m) {
  (void)m;
  return (struct message_region){GUEST_BASE, MEMORY_BYTES, USER_BASE, 0};
}

void mon_share(struct monitor *m) {
  make_memory(m);
  struct message set = msg(VHOST_SET_MEM_TABLE, 8 + sizeof(struct message_region));
  set.table.count = 1;
  set.table.regions[0] = mon_region(m);
  set.fds[set.fd_count++] = m->memory_fd;
  expect_accepted(m, &set);
}

void mon_ring_init(struct monitor *m, uint32_t q, uint32_t size) {
  struct evil_ring *r = &m->rings[q];
  make_memory(m);
  r->size = size;
  r->desc_at = q * 0x20000;
  r->avail_at = r->desc_at + 0x8000;
  r->used_at = r->desc_at + 0x10000;
  r->desc = (struct vring_desc *)(void *)(m->memory + r->desc_at);
  r->avail = (struct vring_avail *)(void *)(m->memory + r->avail_at);
  r->used = (struct vring_used *)(void *)(m->memory + r->used_at);
  r->seen = __atomic_load_n(&r->used->index, __ATOMIC_ACQUIRE);
  if (r->kick_fd < 0) r->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (r->call_fd < 0) r->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (r->err_fd < 0) r->err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  expect(r->kick_fd >= 0 && r->call_fd >= 0 && r->err_fd >= 0);
}

struct message mon_address(const struct monitor *m, uint32_t q) {
  const struct evil_ring *r = &m->rings[q];
  struct message set = msg(VHOST_SET_VRING_ADDR, sizeof set.addr);
  set.addr = (struct message_vring_addr){.index = q,
                                         .desc_user = USER_BASE + r->desc_at,
                                         .avail_user = USER_BASE + r->avail_at,
                                         .used_user = USER_BASE + r->used_at};
  return set;
}

void mon_start_ring(struct monitor *m, uint32_t q, uint32_t size, uint16_t base) {
  mon_ring_init(m, q, size);
  struct evil_ring *r = &m->rings[q];
  if (m->packed) r->next = r->seen = RING_POSITION_FIRST;
  struct message set[] = {
      msg_state(VHOST_SET_VRING_NUM, q, size),
      msg_state(VHOST_SET_VRING_BASE, q, m->packed ? r->next * 0x10001u : base),
      mon_address(m, q),
      msg_fd(VHOST_SET_VRING_CALL, q, m->rings[q].call_fd),
      msg_fd(VHOST_SET_VRING_ERR, q, m->rings[q].err_fd),
      msg_fd(VHOST_SET_VRING_KICK, q, m->rings[q].kick_fd),
      msg_state(VHOST_SET_VRING_ENABLE, q, 1),
  };
  for (uint32_t i = 0; i < array_size(set); i++) expect_accepted(m, &set[i]);
}

void mon_run(struct monitor *m, const char *socket_path) {
  mon_open(m, socket_path);
  mon_negotiate(m);
  mon_share(m);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) mon_start_ring(m, q, QUEUE_SIZE, 0);
}

/* ---- The guest ------------------------------------------------------------------------------- */

void put_desc(struct monitor *m, uint32_t q, uint16_t i, uint64_t address, uint32_t bytes,
              uint16_t flags, uint16_t next) {
  struct vring_desc *to = m->packed ? m->rings[q].plan : m->rings[q].desc;
  if (!m->packed || i < RING_PLAN) to[i] = (struct vring_desc){address, bytes, flags, next};
}

struct vring_desc table_desc(const struct monitor *m, uint64_t address, uint32_t bytes,
                             uint16_t flags, uint16_t next) {
  if (m->packed) return (struct vring_desc){address, bytes, 0, flags & (uint16_t)~VRING_NEXT};
  return (struct vring_desc){address, bytes, flags, next};
}

void put_packed(struct monitor *m, uint32_t q, struct vring_packed_desc d, bool visible) {
  struct evil_ring *r = &m->rings[q];
  struct vring_packed_desc *to = (void *)r->desc;
  to += r->next & ~RING_POSITION_WRAP;
  to->address = d.address;
  to->bytes = d.bytes;
  to->id = d.id;
  uint16_t flags = d.flags | (visible ? ring_flags_available(r->next) : ring_flags_used(r->next));
  __atomic_store_n(&to->flags, flags, __ATOMIC_RELEASE);
  r->next = ring_position_add(r->next, 1, r->size);
}

void put_header(struct monitor *m, uint64_t offset, uint32_t type, uint64_t sector) {
  uint32_t words[2] = {type, 0};
  memcpy(m->memory + offset, words, sizeof words);
  memcpy(m->memory + offset + 8, &sector, sizeof sector);
}

/* The first one becomes visible last. */
static void push_packed(struct monitor *m, uint32_t q, uint16_t head) {
  struct evil_ring *r = &m->rings[q];
  uint16_t first = r->next, at = head, n = 0;
  struct vring_desc d = {.next = head};
  do {
    d = at < RING_PLAN ? r->plan[at] : (struct vring_desc){0};
    struct vring_packed_desc packed = {d.address, d.bytes, head, d.flags};
    put_packed(m, q, packed, n++ > 0);
    at = d.next;
  } while (d.flags & VRING_NEXT && n < r->size);
  if (head < RING_PLAN) r->counts[head] = n;
  d = head < RING_PLAN ? r->plan[head] : (struct vring_desc){0};
  struct vring_packed_desc *to = (void *)r->desc;
  __atomic_store_n(&to[first & ~RING_POSITION_WRAP].flags, d.flags | ring_flags_available(first),
                   __ATOMIC_RELEASE);
}

void push(struct monitor *m, uint32_t q, uint16_t head) {
  struct evil_ring *r = &m->rings[q];
  if (m->packed) {
    push_packed(m, q, head);
    return;
  }
  uint16_t index = r->avail->index;
  r->avail->ring[index & (r->size - 1)] = head;
  __atomic_store_n(&r->avail->index, (uint16_t)(index + 1), __ATOMIC_RELEASE);
}

void kick(struct monitor *m, uint32_t q) {
  uint64_t one = 1;
  if (write(m->rings[q].kick_fd, &one, sizeof one) < 0) expect(errno == EAGAIN);
}

static bool was_dropped(struct monitor *m) {
  struct pollfd p = {.fd = m->fd, .events = POLLRDHUP};
  if (!m->dropped && poll(&p, 1, 0) > 0 && p.revents) m->dropped = true;
  return m->dropped;
}

/* Looks at up to `count` more used entries, and takes that off. */
static void look_at_used(struct monitor *m, uint32_t q, uint32_t *count) {
  struct evil_ring *r = &m->rings[q];
  uint16_t used = m->packed ? 0 : __atomic_load_n(&r->used->index, __ATOMIC_ACQUIRE);
  for (; *count > 0; --*count) {
    if (!m->packed && used == r->seen) return;
    if (!m->packed) {
      const struct vring_used_entry *e = &r->used->ring[r->seen++ & (r->size - 1)];
      r->last_id = e->id;
      r->last_bytes = e->bytes;
      continue;
    }
    const struct vring_packed_desc *d = (const void *)r->desc;
    d += r->seen & ~RING_POSITION_WRAP;
    uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
    if ((flags & (VRING_PACKED_AVAIL | VRING_PACKED_USED)) != ring_flags_used(r->seen)) return;
    r->last_id = d->id;
    r->last_bytes = d->bytes;
    uint16_t n = d->id < RING_PLAN ? r->counts[d->id] : 0;
    if (!n) fail_case("a descriptor is used for %u, which was never available", d->id);
    r->seen = ring_position_add(r->seen, n, r->size);
  }
}

enum outcome wait_used(struct monitor *m, uint32_t q, uint32_t count) {
  uint64_t end = now_ms() + (world.strict ? PATIENCE_MS : FOREIGN_MS);
  for (uint32_t turn = 0;; turn++) {
    look_at_used(m, q, &count);
    if (count == 0) return USED;
    if (was_dropped(m)) return GONE;
    if (now_ms() > end) break;
    if (turn > 50) nap_ms(1);
  }
  if (world.strict) fail_case("a request is neither answered, nor is its client dropped");
  return NOTHING;
}

enum outcome submit(struct monitor *m, uint32_t q, uint16_t head) {
  push(m, q, head);
  kick(m, q);
  return wait_used(m, q, 1);
}

int proper_read(struct monitor *m, uint32_t q) {
  put_header(m, AT_HEADER, 0, 0);
  m->memory[AT_STATUS] = (char)CANARY;
  put_desc(m, q, 0, guest_of(AT_HEADER), 16, VRING_NEXT, 1);
  put_desc(m, q, 1, guest_of(AT_DATA), 4096, VRING_NEXT | VRING_WRITE, 2);
  put_desc(m, q, 2, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
  if (submit(m, q, 0) != USED) return -1;
  return (uint8_t)m->memory[AT_STATUS];
}

void expect_usable(struct monitor *m) {
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++) {
    int status = proper_read(m, q);
    if (status != BLK_OK) fail_case("a proper request after it: status %d", status);
  }
}

void expect_status(struct monitor *m, uint8_t status) {
  m->memory[AT_STATUS] = (char)CANARY;
  enum outcome o = submit(m, 0, 0);
  uint8_t got = (uint8_t)m->memory[AT_STATUS];
  if (!world.strict) {
    if (status != BLK_OK && o == USED) expect(got != BLK_OK);
    return;
  }
  if (o != USED) fail_case("the client was dropped, status %u was expected", status);
  if (got != status) fail_case("status %u, not %u", got, status);
  if (m->rings[0].last_id != 0) fail_case("another head was used");
}

void expect_ioerr(struct monitor *m) { expect_status(m, BLK_IOERR); }

void expect_survived(struct monitor *m) {
  char before[64];
  memset(m->memory + AT_STATUS, CANARY, sizeof before);
  memcpy(before, m->memory + AT_STATUS, sizeof before);
  enum outcome o = submit(m, 0, 0);
  if (o == USED && world.strict) expect(m->rings[0].last_bytes == 0);
  expect(memcmp(before, m->memory + AT_STATUS, sizeof before) == 0);
}
