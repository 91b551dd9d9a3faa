/* message.c - vhost-user messages: one table of what each request must look like, and the two
 * ways through a socket.
 *
 * Invariants: never more than one message is read at a time, so that descriptors belong to the
 * message at whose first byte they came; a descriptor is in exactly one place, the reader or the
 * caller's message, or closed; nothing of a payload is believed before message_check_as(). */
#include "api/vhost/message.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define HEADER_BYTES   12u
#define PAYLOAD_MAX    (MESSAGE_BYTES_MAX - HEADER_BYTES)
#define TABLE_BYTES    8u /* before its regions, as 12 before a configuration's bytes */
#define CONFIG_BYTES   12u
#define SEND_REST_MS   1000
#define REQUESTS_KNOWN (VHOST_CHECK_DEVICE_STATE + 1)

static_assert(offsetof(struct message, u64) % 8 == 0, "payloads are aligned");
static_assert(sizeof(((struct message *)0)->raw) == PAYLOAD_MAX, "room for any payload");
static_assert(sizeof(struct message_vring_state) == 8, "as on the wire");
static_assert(sizeof(struct message_vring_addr) == 40, "as on the wire");
static_assert(sizeof(struct message_region) == 32, "as on the wire");
static_assert(sizeof(struct message_mem_reg) == 40, "as on the wire");
static_assert(sizeof(struct message_inflight) == 24, "as on the wire");
static_assert(sizeof(struct message_log) == 16, "as on the wire");
static_assert(sizeof(struct message_device_state) == 8, "as on the wire");
static_assert(offsetof(struct message_mem_table, regions) == TABLE_BYTES, "as on the wire");
static_assert(offsetof(struct message_config, region) == CONFIG_BYTES, "as on the wire");

/* ---- What each request must look like ------------------------------------------------------- */

enum shape { NOTHING, U64, STATE, ADDR, TABLE, REG, CONFIG, INFLIGHT, LOG, DEVICE_STATE };

struct rule {
  const char *name;
  enum shape request, reply;
  uint8_t request_fds, reply_fds; /* at most; of a table as many as it has regions */
};
static const struct rule rules[REQUESTS_KNOWN] = {
    [VHOST_GET_FEATURES] = {"GET_FEATURES", NOTHING, U64, 0, 0},
    [VHOST_SET_FEATURES] = {"SET_FEATURES", U64, U64, 0, 0},
    [VHOST_SET_OWNER] = {"SET_OWNER", NOTHING, U64, 0, 0},
    [VHOST_RESET_OWNER] = {"RESET_OWNER", NOTHING, U64, 0, 0},
    [VHOST_SET_MEM_TABLE] = {"SET_MEM_TABLE", TABLE, U64, MESSAGE_REGIONS_MAX, 0},
    [VHOST_SET_LOG_BASE] = {"SET_LOG_BASE", LOG, U64, 1, 0},
    [VHOST_SET_LOG_FD] = {"SET_LOG_FD", NOTHING, U64, 1, 0},
    [VHOST_SET_VRING_NUM] = {"SET_VRING_NUM", STATE, U64, 0, 0},
    [VHOST_SET_VRING_ADDR] = {"SET_VRING_ADDR", ADDR, U64, 0, 0},
    [VHOST_SET_VRING_BASE] = {"SET_VRING_BASE", STATE, U64, 0, 0},
    [VHOST_GET_VRING_BASE] = {"GET_VRING_BASE", STATE, STATE, 0, 0},
    [VHOST_SET_VRING_KICK] = {"SET_VRING_KICK", U64, U64, 1, 0},
    [VHOST_SET_VRING_CALL] = {"SET_VRING_CALL", U64, U64, 1, 0},
    [VHOST_SET_VRING_ERR] = {"SET_VRING_ERR", U64, U64, 1, 0},
    [VHOST_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", NOTHING, U64, 0, 0},
    [VHOST_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", U64, U64, 0, 0},
    [VHOST_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", NOTHING, U64, 0, 0},
    [VHOST_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", STATE, U64, 0, 0},
    [VHOST_SET_BACKEND_REQ_FD] = {"SET_BACKEND_REQ_FD", NOTHING, U64, 1, 0},
    [VHOST_GET_CONFIG] = {"GET_CONFIG", CONFIG, CONFIG, 0, 0},
    [VHOST_SET_CONFIG] = {"SET_CONFIG", CONFIG, U64, 0, 0},
    [VHOST_GET_INFLIGHT_FD] = {"GET_INFLIGHT_FD", INFLIGHT, INFLIGHT, 0, 1},
    [VHOST_SET_INFLIGHT_FD] = {"SET_INFLIGHT_FD", INFLIGHT, U64, 1, 0},
    [VHOST_RESET_DEVICE] = {"RESET_DEVICE", NOTHING, U64, 0, 0},
    [VHOST_GET_MAX_MEM_SLOTS] = {"GET_MAX_MEM_SLOTS", NOTHING, U64, 0, 0},
    [VHOST_ADD_MEM_REG] = {"ADD_MEM_REG", REG, U64, 1, 0},
    /* Some send a descriptor here too; it means nothing. */
    [VHOST_REM_MEM_REG] = {"REM_MEM_REG", REG, U64, 1, 0},
    [VHOST_SET_STATUS] = {"SET_STATUS", U64, U64, 0, 0},
    [VHOST_GET_STATUS] = {"GET_STATUS", NOTHING, U64, 0, 0},
    [VHOST_SET_DEVICE_STATE_FD] = {"SET_DEVICE_STATE_FD", DEVICE_STATE, U64, 1, 1},
    [VHOST_CHECK_DEVICE_STATE] = {"CHECK_DEVICE_STATE", NOTHING, U64, 0, 0},
};

static const struct rule *rule_of(uint32_t request) {
  return request < REQUESTS_KNOWN && rules[request].name ? &rules[request] : NULL;
}

const char *message_name(uint32_t request) {
  const struct rule *rule = rule_of(request);
  return rule ? rule->name : "unknown request";
}

static bool table_fits(const struct message *m) {
  if (m->bytes < TABLE_BYTES || m->table.count > MESSAGE_REGIONS_MAX) return false;
  return m->bytes == TABLE_BYTES + m->table.count * sizeof(struct message_region) &&
         m->fd_count <= m->table.count;
}

static bool config_fits(const struct message *m) {
  return m->bytes >= CONFIG_BYTES && m->config.bytes <= MESSAGE_CONFIG_MAX &&
         m->bytes == CONFIG_BYTES + m->config.bytes;
}

static bool payload_fits(const struct message *m, enum shape shape) {
  switch (shape) {
  case NOTHING:
    return m->bytes == 0;
  case U64:
    return m->bytes == sizeof(m->u64);
  case STATE:
    return m->bytes == sizeof(m->state);
  case ADDR:
    return m->bytes == sizeof(m->addr);
  case TABLE:
    return table_fits(m);
  case REG:
    return m->bytes == sizeof(m->reg);
  case CONFIG:
    return config_fits(m);
  case INFLIGHT:
    return m->bytes == sizeof(m->inflight) || m->bytes == MESSAGE_INFLIGHT_SHORT;
  case LOG:
    return m->bytes == sizeof(m->log);
  case DEVICE_STATE:
    return m->bytes == sizeof(m->device_state);
  }
  return false;
}

/* Failures of the first, and from some back-ends every answer of the second. */
static bool reply_may_be_empty(uint32_t request) {
  return request == VHOST_GET_CONFIG || request == VHOST_SET_LOG_BASE;
}

static bool reply_fits(const struct message *m, const struct rule *rule) {
  if (m->fd_count > rule->reply_fds) return false;
  return payload_fits(m, rule->reply) || (m->bytes == 0 && reply_may_be_empty(m->request));
}

int message_check_as(const struct message *m, enum message_kind kind) {
  bool fits = (m->flags & 3) == MESSAGE_VERSION && m->bytes <= PAYLOAD_MAX &&
              !!(m->flags & MESSAGE_REPLY) == (kind == MESSAGE_REPLIES);
  const struct rule *rule = rule_of(m->request);
  if (fits && kind == MESSAGE_BACKEND_REQUESTS) {
    if (m->request == VHOST_BACKEND_CONFIG_CHANGE_MSG) fits = m->bytes == 0 && m->fd_count == 0;
  } else if (fits && rule) {
    fits = kind == MESSAGE_REPLIES
               ? reply_fits(m, rule)
               : payload_fits(m, rule->request) && m->fd_count <= rule->request_fds;
  }
  return fits ? 0 : -EBADMSG;
}

int message_check(const struct message *message) {
  return message_check_as(message, MESSAGE_REQUESTS);
}

void message_close_fds(struct message *message) {
  for (uint32_t i = 0; i < message->fd_count; i++) close(message->fds[i]);
  message->fd_count = 0;
}

/* ---- Receiving ------------------------------------------------------------------------------ */

union control {
  char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
  struct cmsghdr aligned;
};

/* All descriptors that came, into the reader or away. */
static void take_fds(struct message_reader *r, struct msghdr *header) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
      if (r->got == 0 && r->message.fd_count < MESSAGE_FDS_MAX) {
        r->message.fds[r->message.fd_count++] = fd;
      } else {
        close(fd);
        r->surplus = true;
      }
    }
  }
  /* The kernel has closed what found no room. */
  if (header->msg_flags & MSG_CTRUNC) r->surplus = true;
}

/* Bytes read, at most `bytes`; 0: closed. */
static ssize_t receive_some(int fd, struct message_reader *r, void *to, uint32_t bytes) {
  union control control;
  struct iovec iov = {to, bytes};
  struct msghdr header = {.msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof(control.bytes)};
  ssize_t n;
  do n = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  take_fds(r, &header);
  return n;
}

static void forget(struct message_reader *r) {
  r->got = 0;
  r->surplus = false;
  r->message.fd_count = 0;
}

static int fail(struct message_reader *r, int error) {
  message_close_fds(&r->message);
  forget(r);
  return error;
}

static void hand_over(struct message_reader *r, struct message *to) {
  const struct message *m = &r->message;
  memset(to, 0, sizeof(*to));
  to->request = m->request;
  to->flags = m->flags;
  to->bytes = m->bytes;
  memcpy(to->raw, m->raw, m->bytes);
  memcpy(to->fds, m->fds, sizeof(m->fds));
  to->fd_count = m->fd_count;
  forget(r);
}

int message_receive(int fd, struct message_reader *r, struct message *message) {
  struct message *m = &r->message;
  while (r->got < HEADER_BYTES || r->got < HEADER_BYTES + m->bytes) {
    bool header = r->got < HEADER_BYTES;
    char *to = header ? (char *)m + r->got : (char *)m->raw + (r->got - HEADER_BYTES);
    uint32_t left = header ? HEADER_BYTES - r->got : HEADER_BYTES + m->bytes - r->got;
    ssize_t n = receive_some(fd, r, to, left);
    if (n == -EAGAIN || n == -EWOULDBLOCK) return 0;
    if (n < 0) return fail(r, (int)n);
    if (n == 0) return fail(r, r->got ? -EBADMSG : -ENODATA);
    r->got += (uint32_t)n;
    if (r->got == HEADER_BYTES && m->bytes > PAYLOAD_MAX) return fail(r, -EMSGSIZE);
  }
  if (r->surplus || message_check_as(m, r->kind) < 0) return fail(r, -EBADMSG);
  hand_over(r, message);
  return 1;
}

/* ---- Sending -------------------------------------------------------------------------------- */

static void put_fds(struct msghdr *header, union control *control, const struct message *m) {
  size_t bytes = m->fd_count * sizeof(int);
  memset(control, 0, sizeof(*control));
  header->msg_control = control->bytes;
  header->msg_controllen = CMSG_SPACE(bytes);
  struct cmsghdr *c = CMSG_FIRSTHDR(header);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(c), m->fds, bytes);
}

static uint64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int wait_for_room(int fd, uint64_t deadline_ns) {
  uint64_t now = clock_ns();
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  if (now >= deadline_ns) return -ETIMEDOUT;
  int n = poll(&p, 1, (int)((deadline_ns - now) / 1000000) + 1);
  return n < 0 && errno != EINTR ? -errno : 0;
}

static int send_whole(int fd, const struct message *m, int flags) {
  union control control;
  uint32_t sent = 0, all = HEADER_BYTES + m->bytes;
  uint64_t deadline_ns = 0;
  if (m->bytes > PAYLOAD_MAX || m->fd_count > MESSAGE_FDS_MAX) return -EINVAL;
  while (sent < all) {
    uint32_t skip = sent < HEADER_BYTES ? 0 : sent - HEADER_BYTES;
    struct iovec iov[2] = {
        {(char *)m + sent, sent < HEADER_BYTES ? HEADER_BYTES - sent : 0},
        {(char *)m->raw + skip, m->bytes - skip},
    };
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = 2};
    if (sent == 0 && m->fd_count > 0) put_fds(&header, &control, m);
    ssize_t n = sendmsg(fd, &header, MSG_NOSIGNAL | flags);
    if (n >= 0) {
      sent += (uint32_t)n;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN || sent == 0 || flags) return -errno;
    if (!deadline_ns) deadline_ns = clock_ns() + SEND_REST_MS * UINT64_C(1000000);
    int r = wait_for_room(fd, deadline_ns);
    if (r < 0) return r;
  }
  return 0;
}

int message_send(int fd, const struct message *m) { return send_whole(fd, m, 0); }

int message_send_now(int fd, const struct message *m) { return send_whole(fd, m, MSG_DONTWAIT); }
