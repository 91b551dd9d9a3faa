/* notify.h - writes to descriptors that a monitor has given, which must never block whoever does
 * it: a whole core, or the server's thread, with all that others have there.
 *
 * O_NONBLOCK is no answer: it belongs to the file, which the monitor has, too, and can take it off
 * again at any moment. */
#ifndef API_VHOST_NOTIFY_H
#define API_VHOST_NOTIFY_H

#include <sys/types.h>

#include "shards/base/base.h"

/* Adds 1 to eventfds. One thread at a time. */
struct notifier {
  unsigned long context; /* 0: the kernel gave none, so that it is a write after all */
  int null_fd;
  uint32_t unreaped;
};
void notifier_open(struct notifier *n);
void notifier_close(struct notifier *n);
/* Never blocks, however full it is. -EINVAL: it is no eventfd. */
int notifier_call(struct notifier *n, int fd);

/* May it be one? Neither a file nor a pipe, a socket, a device. */
bool notify_is_event(int fd);

/* A few bytes through a socket, a pipe or a file: what of it can be had at once. As read(),
 * write(); errors as negative errno. SIGPIPE is to be blocked. */
ssize_t read_now(int fd, void *to, size_t bytes);
ssize_t write_now(int fd, const void *from, size_t bytes);

#endif
