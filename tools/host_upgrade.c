/* host_upgrade.c - see host_upgrade.h. The old one's half runs on one of its workers, the new one's
 * on its main thread. Descriptors are sent one with each line, at the line's first byte. */
#include "tools/host_upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/host_log.h"

enum { LINE_MAX = 1024, LINE_SECONDS = 10, CLOSE_SECONDS = 600 };

/* ---- Which store ----------------------------------------------------------------------------- */

static uint64_t mix(uint64_t v) {
  v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  v = (v ^ (v >> 27)) * UINT64_C(0x94d049bb133111eb);
  return v ^ (v >> 31);
}

static int stat_part(const char *part, struct stat *st) {
  if (strncmp(part, "fd:", 3) == 0)
    return fstat((int)strtol(part + 3, NULL, 10), st) < 0 ? -errno : 0;
  return stat(part, st) < 0 ? -errno : 0;
}

int host_store_identity(const char *where, char identity[HOST_IDENTITY_BYTES]) {
  uint64_t sum = 0;
  struct stat st;
  char part[4096];
  *identity = 0;
  if (strncmp(where, "mem:", 4) == 0) return 0;
  for (;;) {
    size_t n = strcspn(where, ",");
    snprintf(part, sizeof(part), "%.*s", (int)n, where);
    int r = stat_part(part, &st);
    if (r < 0) return r;
    /* Of a device the device, not the node that leads to it. Parts may come in any order. */
    sum += S_ISBLK(st.st_mode) ? mix(mix(1) + (uint64_t)st.st_rdev)
                               : mix(mix((uint64_t)st.st_dev) + (uint64_t)st.st_ino);
    if (!where[n]) break;
    where += n + 1;
  }
  snprintf(identity, HOST_IDENTITY_BYTES, "%016" PRIx64, sum);
  return 0;
}

/* ---- Lines with a descriptor ----------------------------------------------------------------- */

union control_room {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int))];
};

/* passed: -1: none. The line ends with a newline. */
static int send_line(int fd, const char *line, int passed) {
  size_t left = strlen(line);
  union control_room room = {.bytes = {0}};
  struct iovec iov = {(char *)(uintptr_t)line, left};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
  if (passed >= 0) {
    m.msg_control = room.bytes;
    m.msg_controllen = sizeof(room.bytes);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &passed, sizeof(int));
  }
  while (left > 0) {
    ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    left -= (size_t)n;
    iov.iov_base = (char *)iov.iov_base + n;
    iov.iov_len = left;
    m.msg_control = NULL; /* it went with the first byte */
    m.msg_controllen = 0;
  }
  return 0;
}

/* The last descriptor of the message wins: there should be one. */
static void take_descriptors(struct msghdr *m, int *passed) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      if (*passed >= 0) close(*passed);
      memcpy(passed, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
  }
}

/* A line without its newline. One byte at a time: what follows the last line is for others. */
static int receive_line(int fd, char line[LINE_MAX], int *passed) {
  *passed = -1;
  for (size_t n = 0; n < LINE_MAX;) {
    union control_room room;
    struct iovec iov = {line + n, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = room.bytes,
                       .msg_controllen = sizeof(room.bytes)};
    ssize_t got = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN ? -ETIMEDOUT : -errno;
    take_descriptors(&m, passed);
    if (got == 0) return -ECONNRESET;
    if (line[n] == '\n') return line[n] = 0, 0;
    n++;
  }
  return -EMSGSIZE;
}

/* ---- The old one ----------------------------------------------------------------------------- */

static int inherited_left(struct host *h) {
  int left = 0;
  for (int i = 0; i < h->inherited.count; i++) left += h->inherited.all[i].fd >= 0;
  return left;
}

int host_upgrade(struct host *h, struct sr_port *port, const struct host_command *c,
                 struct js *reply, char why[HOST_WHY_BYTES]) {
  (void)port;
  if (!*h->identity) {
    snprintf(why, HOST_WHY_BYTES, "%.200s: this store ends with its process", h->where);
    return -EOPNOTSUPP;
  }
  if ((c->given & HOST_M_STORE) && strcmp(c->store, h->identity) != 0) {
    snprintf(why, HOST_WHY_BYTES, "the store here is another one: %.200s", h->where);
    return -EXDEV;
  }
  js_count(reply, "pid", (uint64_t)getpid());
  js_bool(reply, "draining", h->draining);
  js_count(reply, "sockets",
           (uint64_t)((h->control_fd >= 0) + (h->metrics_fd >= 0) + inherited_left(h)));
  return 0;
}

/* at: the option that made it; NULL: it came from systemd. */
static int give_socket(struct host *h, const char *name, const char *at, int passed) {
  struct js *json = js_object();
  js_text(json, "socket", name);
  if (at) js_text(json, "at", at);
  char *text = js_line(json), line[LINE_MAX];
  int n = snprintf(line, sizeof(line), "%s\n", text);
  free(text);
  js_free(json);
  return n < (int)sizeof(line) ? send_line(h->successor.fd, line, passed) : -EMSGSIZE;
}

static int give_sockets(struct host *h) {
  int r = 0;
  if (h->control_fd >= 0) r = give_socket(h, "control", h->control_at, h->control_fd);
  if (r == 0 && h->metrics_fd >= 0) r = give_socket(h, "metrics", h->metrics_at, h->metrics_fd);
  for (int i = 0; i < h->inherited.count && r == 0; i++)
    if (h->inherited.all[i].fd >= 0)
      r = give_socket(h, h->inherited.all[i].name, NULL, h->inherited.all[i].fd);
  return r;
}

void host_upgrade_give(struct host *h) {
  const struct timeval patience = {.tv_sec = LINE_SECONDS};
  char line[LINE_MAX];
  int fd = h->successor.fd, flags = fcntl(fd, F_GETFL);
  int r = flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
                  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0
              ? -errno
              : 0;
  int n = snprintf(line, sizeof(line), "%s\n", h->successor.reply);
  if (r == 0 && n >= (int)sizeof(line)) r = -EMSGSIZE;
  if (r == 0) r = send_line(fd, line, -1);
  if (r == 0) r = give_sockets(h);
  if (r == 0) r = sr_vhost_hand_over(h->vhost, fd);
  h->successor.error = r;
}

/* ---- The new one ----------------------------------------------------------------------------- */

static int connect_control(const char *path, char why[HOST_WHY_BYTES]) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0) return fd;
  int r = -errno;
  if (fd >= 0) close(fd);
  if (r == -ENOENT || r == -ECONNREFUSED)
    snprintf(why, HOST_WHY_BYTES, "no " HOST_TOOL " listens there that could be replaced");
  return r;
}

/* Until something comes. Meanwhile whoever has started us may change his mind. */
static int wait_for_reply(int fd, int signal_fd) {
  struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
  while (poll(fds, 2, -1) < 0)
    if (errno != EINTR) return -errno;
  return fds[1].revents ? -EINTR : 0;
}

static int receive_json(struct host_takeover *t, struct js **json, int *passed,
                        char why[HOST_WHY_BYTES]) {
  char line[LINE_MAX];
  int r = receive_line(t->fd, line, passed);
  if (r == 0 && !(*json = js_parse(line, strlen(line), HOST_DEPTH_MAX, why, HOST_WHY_BYTES)))
    r = -EBADMSG;
  if (r == 0 && !js_is_object(*json)) {
    js_free(*json);
    r = -EBADMSG;
  }
  if (r < 0 && *passed >= 0) close(*passed);
  return r;
}

/* Takes the descriptor. */
static int keep_socket(struct host_takeover *t, const struct js *json, int passed,
                       struct host_inherited *in) {
  const char *name = js_text_of(js_member(json, "socket"));
  const struct js *at = js_member(json, "at");
  if (passed < 0) return -EBADMSG;
  if (at && strcmp(name, "control") == 0 && t->control_fd < 0) {
    snprintf(t->control_at, sizeof(t->control_at), "%s", js_text_of(at));
    t->control_fd = passed;
  } else if (at && strcmp(name, "metrics") == 0 && t->metrics_fd < 0) {
    snprintf(t->metrics_at, sizeof(t->metrics_at), "%s", js_text_of(at));
    t->metrics_fd = passed;
  } else if (at || host_inherited_add(in, name, passed) < 0) {
    close(passed); /* of a kind that we do not know, or too many */
  }
  return 0;
}

static int receive_sockets(struct host_takeover *t, uint64_t count, struct host_inherited *in,
                           char why[HOST_WHY_BYTES]) {
  int r = 0;
  for (uint64_t i = 0; i < count && r == 0; i++) {
    struct js *json = NULL;
    int passed;
    r = receive_json(t, &json, &passed, why);
    if (r < 0) break;
    r = keep_socket(t, json, passed, in);
    js_free(json);
  }
  return r;
}

/* The reply, then as many sockets as it says. */
static int receive_answer(struct host_takeover *t, struct host_inherited *in,
                          char why[HOST_WHY_BYTES]) {
  struct js *json = NULL;
  int passed;
  uint64_t pid = 0, sockets = 0;
  int r = receive_json(t, &json, &passed, why);
  if (r < 0) return r;
  if (passed >= 0) close(passed);
  bool ok = js_number_of(js_member(json, "ok")) != 0;
  if (!ok)
    snprintf(why, HOST_WHY_BYTES, "%.300s (%.32s)", js_text_of(js_member(json, "message")),
             js_text_of(js_member(json, "error")));
  js_count_of(js_member(json, "pid"), &pid);
  js_count_of(js_member(json, "sockets"), &sockets);
  t->pid = (pid_t)pid;
  t->draining = js_number_of(js_member(json, "draining")) != 0;
  js_free(json);
  return ok ? receive_sockets(t, sockets, in, why) : -ECONNREFUSED;
}

int host_takeover_ask(struct host_takeover *t, const char *control, const char *identity,
                      int signal_fd, struct host_inherited *inherited, char why[HOST_WHY_BYTES]) {
  const struct timeval patience = {.tv_sec = LINE_SECONDS};
  char line[128];
  t->fd = connect_control(control, why);
  if (t->fd < 0) return t->fd;
  snprintf(line, sizeof(line), "{\"do\":\"upgrade\",\"store\":\"%s\"}\n", identity);
  int r = send_line(t->fd, line, -1);
  if (r == 0) r = wait_for_reply(t->fd, signal_fd);
  if (r == 0 && setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
    r = -errno;
  return r < 0 ? r : receive_answer(t, inherited, why);
}

int host_takeover_receive(struct host_takeover *t) { return sr_vhost_receive(t->fd, &t->handover); }

int host_takeover_wait(struct host_takeover *t) {
  struct pollfd p = {.fd = t->fd, .events = POLLIN};
  char byte;
  ssize_t n;
  do {
    int r = poll(&p, 1, CLOSE_SECONDS * 1000);
    if (r == 0) return -ETIMEDOUT;
    n = r < 0 ? (errno == EINTR ? 1 : -1) : recv(t->fd, &byte, 1, MSG_DONTWAIT);
  } while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)));
  /* The other side is gone, however it went. Whether the store is free its lock says. */
  close(t->fd);
  t->fd = -1;
  return 0;
}

void host_takeover_end(struct host_takeover *t) {
  sr_vhost_handover_free(t->handover);
  t->handover = NULL;
  if (t->fd >= 0) close(t->fd);
  if (t->control_fd >= 0) close(t->control_fd);
  if (t->metrics_fd >= 0) close(t->metrics_fd);
  t->fd = t->control_fd = t->metrics_fd = -1;
}
