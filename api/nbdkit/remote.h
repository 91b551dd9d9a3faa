/* remote.h - requests to a vhost-user-blk server from any thread, blocking, without a thread of its
 * own.
 *
 * Data go through buffers in memory that the server shares. Who has a request puts it into the
 * queue; one of those who wait leads: it sleeps until the server calls, takes what is finished, and
 * wakes the others. When its own is finished it passes the lead on.
 *
 * A server that went away is waited for: what is in flight goes on with the next one on the same
 * socket. What is in flight when patience ends fails with -EIO, and so does all that comes, at
 * once, until the server is there again. */
#ifndef API_NBDKIT_REMOTE_H
#define API_NBDKIT_REMOTE_H

#include "api/vhost/front.h"

struct remote;

struct remote_options {
  /* Sees to it that the server listens, and says where. -EAGAIN: not yet, it is asked again; other
   * errors are final. Runs in any thread, one at a time. */
  int (*attach)(void *arg, char socket[108]);
  void (*say)(void *arg, const char *line); /* something to be logged */
  void *arg;
  uint32_t patience_ms;
};
/* Waits for the server as long as patience lasts. Errors of attach(), and of vfront_open(). */
int remote_open(struct remote **remote, const struct remote_options *options);
/* No requests are in work any more. */
void remote_close(struct remote *remote);

/* The disk as it is now. -EIO. */
int remote_look(struct remote *remote, uint64_t *size_bytes, uint32_t *block_bytes,
                bool *read_only);
/* Whole sectors; buf is for reads and writes alone. Large requests are cut. -EIO, -EOPNOTSUPP. */
int remote_run(struct remote *remote, enum vfront_op op, void *buf, uint64_t bytes,
               uint64_t offset);

#endif
