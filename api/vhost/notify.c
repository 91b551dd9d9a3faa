/* notify.c - see notify.h.
 *
 * The kernel itself signals eventfds without ever waiting for room: for completions of asynchronous
 * I/O that are to be told so. The I/O is a byte for /dev/null, done before the call returns. */
#include "api/vhost/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ROOM = 256, REAP_AFTER = 64 };

void notifier_open(struct notifier *n) {
  *n = (struct notifier){.null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC)};
  if (n->null_fd >= 0 && syscall(SYS_io_setup, ROOM, &n->context) != 0) n->context = 0;
}

void notifier_close(struct notifier *n) {
  if (n->context) syscall(SYS_io_destroy, n->context);
  if (n->null_fd >= 0) close(n->null_fd);
  *n = (struct notifier){.null_fd = -1};
}

/* What has completed is forgotten; its places are needed. */
static void reap(struct notifier *n) {
  struct io_event events[REAP_AFTER];
  struct timespec none = {0, 0};
  if (++n->unreaped < REAP_AFTER) return;
  n->unreaped = 0;
  syscall(SYS_io_getevents, n->context, 0, (long)REAP_AFTER, events, &none);
}

int notifier_call(struct notifier *n, int fd) {
  static const uint64_t one = 1;
  if (!n->context) return write(fd, &one, sizeof one) < 0 && errno != EAGAIN ? -errno : 0;
  struct iocb request = {.aio_lio_opcode = IOCB_CMD_PWRITE,
                         .aio_fildes = (uint32_t)n->null_fd,
                         .aio_buf = (uint64_t)(uintptr_t)&one,
                         .aio_nbytes = 1,
                         .aio_flags = IOCB_FLAG_RESFD,
                         .aio_resfd = (uint32_t)fd},
              *list = &request;
  if (syscall(SYS_io_submit, n->context, 1L, &list) != 1) return -errno;
  reap(n);
  return 0;
}

bool notify_is_event(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && !(st.st_mode & S_IFMT);
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

/* Of a file every access ends. Of a pipe O_NONBLOCK is the next best thing, where the kernel does
 * not know RWF_NOWAIT of it. */
static bool may_wait(int fd) {
  struct stat st;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) return true;
  int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  return false;
}

ssize_t read_now(int fd, void *to, size_t bytes) {
  struct iovec iov = {to, bytes};
  ssize_t n = recv(fd, to, bytes, MSG_DONTWAIT);
  if (n < 0 && errno == ENOTSOCK) {
    bool wait = may_wait(fd);
    n = wait ? -1 : preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
    if (wait || (n < 0 && errno == EOPNOTSUPP)) n = read(fd, to, bytes);
  }
  return n < 0 ? -errno : n;
}

ssize_t write_now(int fd, const void *from, size_t bytes) {
  struct iovec iov = {(void *)(uintptr_t)from, bytes};
  ssize_t n = send(fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0 && errno == ENOTSOCK) {
    bool wait = may_wait(fd);
    n = wait ? -1 : pwritev2(fd, &iov, 1, -1, RWF_NOWAIT);
    if (wait || (n < 0 && errno == EOPNOTSUPP)) n = write(fd, from, bytes);
  }
  return n < 0 ? -errno : n;
}
