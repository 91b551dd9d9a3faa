/* host_systemd.c - see host_systemd.h; sd_listen_fds(3) and sd_notify(3) describe the protocols. */
#include "tools/host_systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

static int notify_fd = -1;
static struct sockaddr_un notify_address;
static socklen_t notify_bytes;

int host_inherited_read(struct host_inherited *in) {
  const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
  const char *names = getenv("LISTEN_FDNAMES");
  in->count = 0;
  if (pid && fds && strtol(pid, NULL, 10) == (long)getpid()) {
    long count = strtol(fds, NULL, 10);
    for (int i = 0; i < count && i < HOST_INHERITED_MAX; i++) {
      size_t n = names ? strcspn(names, ":") : 0;
      in->all[i].fd = FIRST_FD + i;
      snprintf(in->all[i].name, sizeof(in->all[i].name), "%.*s", (int)n, names ? names : "");
      names = names && names[n] ? names + n + 1 : NULL;
      fcntl(FIRST_FD + i, F_SETFD, FD_CLOEXEC);
      in->count = i + 1;
    }
  }
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_FDNAMES");
  return in->count;
}

int host_inherited_take(struct host_inherited *in, const char *name) {
  for (int i = 0; i < in->count; i++) {
    int fd = in->all[i].fd;
    if (fd < 0 || strcmp(in->all[i].name, name) != 0) continue;
    in->all[i].fd = -1;
    return fd;
  }
  return -1;
}

void host_inherited_put(struct host_inherited *in, const char *name, int fd) {
  for (int i = 0; i < in->count; i++) {
    if (in->all[i].fd >= 0 || strcmp(in->all[i].name, name) != 0) continue;
    in->all[i].fd = fd;
    return;
  }
}

int host_inherited_add(struct host_inherited *in, const char *name, int fd) {
  if (in->count == HOST_INHERITED_MAX) return -ENOSPC;
  in->all[in->count].fd = fd;
  snprintf(in->all[in->count].name, sizeof(in->all[0].name), "%s", name);
  in->count++;
  return 0;
}

void host_inherited_close(struct host_inherited *in) {
  for (int i = 0; i < in->count; i++)
    if (in->all[i].fd >= 0) close(in->all[i].fd);
  in->count = 0;
}

void host_notify_init(void) {
  const char *path = getenv("NOTIFY_SOCKET");
  if (path && (*path == '/' || *path == '@') && strlen(path) < sizeof(notify_address.sun_path)) {
    notify_address.sun_family = AF_UNIX;
    memcpy(notify_address.sun_path, path, strlen(path));
    if (*path == '@') notify_address.sun_path[0] = 0; /* an abstract one */
    notify_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  }
  unsetenv("NOTIFY_SOCKET");
}

void host_notify(const char *state) {
  if (notify_fd < 0) return;
  ssize_t n = sendto(notify_fd, state, strlen(state), MSG_NOSIGNAL,
                     (const struct sockaddr *)&notify_address, notify_bytes);
  (void)n; /* whoever does not listen does not want to know */
}
