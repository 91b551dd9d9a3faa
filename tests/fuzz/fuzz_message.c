/* fuzz_message.c - message_receive(): whatever bytes and descriptors come, however they are cut, no
 * descriptor is lost or kept, and what passes is what message_check_as() allows; it goes through
 * message_send() and comes out the same.
 *
 * Input: one byte (its lowest two bits: the kind), then pieces: a byte of how many bytes, a byte of
 * how many descriptors, the bytes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "api/vhost/message.h"
#include "tests/fuzz/fuzz.h"

#define FDS_MAX 12

/* The lowest free number: the same before and after, if nothing leaks (one thread). */
static int free_fd(void) {
  int fd = dup(STDERR_FILENO);
  if (fd >= 0) close(fd);
  return fd;
}

static void send_piece(int fd, const uint8_t *bytes, size_t count, uint32_t fds) {
  union {
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct cmsghdr aligned;
  } control = {{0}};
  struct iovec iov = {(void *)bytes, count};
  struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
  if (fds > 0) {
    h.msg_control = control.bytes;
    h.msg_controllen = CMSG_SPACE(fds * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds * sizeof(int));
    const int any = STDERR_FILENO;
    for (uint32_t i = 0; i < fds; i++) memcpy(CMSG_DATA(c) + i * sizeof(int), &any, sizeof(int));
  }
  check(sendmsg(fd, &h, MSG_NOSIGNAL) == (ssize_t)count);
}

/* Sent again it comes out the same. */
static void check_round(const struct message *m, enum message_kind kind) {
  static struct message_reader reader;
  static struct message again;
  int s[2];
  reader.got = 0;
  reader.kind = kind;
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s) == 0);
  check(message_send(s[0], m) == 0);
  check(message_receive(s[1], &reader, &again) == 1);
  check(again.request == m->request && again.flags == m->flags && again.bytes == m->bytes);
  check(again.fd_count == m->fd_count);
  check(memcmp(again.raw, m->raw, sizeof(m->raw)) == 0);
  message_close_fds(&again);
  close(s[0]);
  close(s[1]);
}

static void check_passed(const struct message *m, enum message_kind kind) {
  check(m->bytes <= MESSAGE_BYTES_MAX - 12 && m->fd_count <= MESSAGE_FDS_MAX);
  check((m->flags & 3) == MESSAGE_VERSION && message_name(m->request)[0]);
  if (kind != MESSAGE_REPLIES) check(!(m->flags & MESSAGE_REPLY));
  if (kind == MESSAGE_REQUESTS && m->request == VHOST_SET_MEM_TABLE)
    check(m->table.count <= MESSAGE_REGIONS_MAX && m->fd_count <= m->table.count);
  if (kind == MESSAGE_REQUESTS && m->request == VHOST_SET_CONFIG)
    check(m->config.bytes <= MESSAGE_CONFIG_MAX);
  for (uint32_t i = m->bytes; i < sizeof(m->raw); i++) check(m->raw[i] == 0);
  check_round(m, kind);
}

/* All that has come. False: of no use any more. */
static bool receive_all(int fd, struct message_reader *reader) {
  static struct message m;
  int r;
  enum message_kind kind = reader->kind;
  while ((r = message_receive(fd, reader, &m)) == 1) {
    check_passed(&m, kind);
    message_close_fds(&m);
  }
  check(r == 0 || r == -EBADMSG || r == -EMSGSIZE || r == -ENODATA);
  return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed in = {data, size};
  struct message_reader *reader = fuzz_alloc(sizeof(*reader));
  int before = free_fd(), s[2];
  memset(reader, 0, sizeof(*reader));
  reader->kind = (enum message_kind)(feed_u8(&in) % 3);
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s) == 0);
  bool alive = true;
  while (alive && in.left > 2) {
    uint8_t bytes[256];
    size_t count = feed_u8(&in);
    uint32_t fds = feed_u8(&in) % (FDS_MAX + 1);
    count = feed_bytes(&in, bytes, count);
    if (count) send_piece(s[0], bytes, count, fds);
    alive = receive_all(s[1], reader);
  }
  close(s[0]);
  if (alive) check(!receive_all(s[1], reader));
  check(reader->got == 0 && reader->message.fd_count == 0);
  close(s[1]);
  check(free_fd() == before);
  free(reader);
  return 0;
}
