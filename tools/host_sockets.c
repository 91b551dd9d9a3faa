/* host_sockets.c - see host_sockets.h. */
#include "tools/host_sockets.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 128 };

/* Takes away a socket whose listener is gone. */
static int make_room(const struct sockaddr_un *address) {
  struct stat st;
  if (lstat(address->sun_path, &st) < 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(st.st_mode)) return -EEXIST;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  int r = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
  close(fd);
  if (r != -ECONNREFUSED) return -EADDRINUSE;
  return unlink(address->sun_path) < 0 ? -errno : 0;
}

/* Nobody can connect before it has its mode: until listen() they are refused. */
static int bind_unix(int fd, const struct sockaddr_un *address, mode_t mode, uid_t uid, gid_t gid) {
  if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) return -errno;
  if (chmod(address->sun_path, mode) < 0) return -errno;
  if ((uid != (uid_t)-1 || gid != (gid_t)-1) && chown(address->sun_path, uid, gid) < 0)
    return -errno;
  return listen(fd, BACKLOG) < 0 ? -errno : 0;
}

int host_listen_unix(const char *path, mode_t mode, uid_t uid, gid_t gid) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, strlen(path));
  int r = make_room(&address);
  if (r < 0) return r;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  r = bind_unix(fd, &address, mode, uid, gid);
  if (r < 0) close(fd);
  return r < 0 ? r : fd;
}

static int split_address(const char *where, char host[64], char port[8]) {
  const char *colon = strrchr(where, ':');
  size_t n = colon ? (size_t)(colon - where) : 0;
  if (!colon || !colon[1] || strlen(colon + 1) > 5 || n >= 64) return -EINVAL;
  if (n >= 2 && where[0] == '[' && where[n - 1] == ']') where++, n -= 2;
  snprintf(host, 64, "%.*s", (int)n, where);
  if (!n) snprintf(host, 64, "127.0.0.1");
  snprintf(port, 8, "%s", colon + 1);
  return 0;
}

int host_listen_tcp(const char *where) {
  const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                 .ai_socktype = SOCK_STREAM};
  struct addrinfo *found;
  char host[64], port[8];
  int one = 1;
  if (split_address(where, host, port) < 0) return -EINVAL;
  if (getaddrinfo(host, port, &hints, &found) != 0) return -EINVAL;
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int r = fd < 0 ? -errno : 0;
  if (r == 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
                 bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0))
    r = -errno;
  freeaddrinfo(found);
  if (r < 0 && fd >= 0) close(fd);
  return r < 0 ? r : fd;
}

unsigned host_port_of(int fd) {
  struct sockaddr_in6 a = {0}; /* the port lies at the same place in both families */
  socklen_t bytes = sizeof(a);
  return getsockname(fd, (struct sockaddr *)&a, &bytes) < 0 ? 0 : ntohs(a.sin6_port);
}
