/* Many blobs at once from one thread with an event loop: every blob is put, then read back and
 * compared. Requests go out in batches, callbacks say what comes next, and epoll waits on the
 * port's descriptor, where a server would wait on its sockets too. */
#include <errno.h>
#include <shardring.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

enum { BLOBS = 256, BLOB_BYTES = 16384 };

static struct sr_request requests[BLOBS], *ready[BLOBS]; /* ready: to be submitted */
static uint32_t ready_count, finished_count, failed_count;

static void finish(struct sr_request *request, bool good) {
  if (!good) fprintf(stderr, "blob %u: %d\n", (unsigned)request->id.lo, (int)request->result);
  failed_count += !good;
  finished_count++;
}

static void on_read(struct sr_request *request) {
  const unsigned char *bytes = request->buf;
  unsigned char fill = (unsigned char)request->id.lo;
  finish(request, request->result == BLOB_BYTES && bytes[0] == fill &&
                      memcmp(bytes, bytes + 1, BLOB_BYTES - 1) == 0);
}

static void on_put(struct sr_request *request) {
  memset(request->buf, 0, BLOB_BYTES); /* the buffer is ours again */
  request->op = SR_OP_GET, request->done = on_read;
  if (request->result == 0)
    ready[ready_count++] = request;
  else
    finish(request, false);
}

static void prepare(char *buffers) {
  for (uint32_t i = 0; i < BLOBS; i++) {
    struct sr_request *request = ready[ready_count++] = &requests[i];
    request->op = SR_OP_PUT, request->done = on_put, request->id.lo = i;
    request->buf = memset(buffers + (size_t)i * BLOB_BYTES, (int)i, BLOB_BYTES);
    request->bytes = BLOB_BYTES;
  }
}

static int run_loop(struct sr_port *port, int epoll) {
  struct epoll_event event = {.events = EPOLLIN};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, sr_port_fd(port), &event) < 0) return -errno;
  while (finished_count < BLOBS) {
    int sent = ready_count ? sr_port_submit(port, ready, ready_count) : 0;
    if (sent < 0 && sent != -EAGAIN) return sent;
    if (sent > 0) memmove(ready, ready + sent, (ready_count -= (uint32_t)sent) * sizeof(*ready));
    struct sr_request *without_callback[1];
    int reaped = sr_port_reap(port, without_callback, 1);
    if (reaped < 0) return reaped;
    /* Nothing to reap: that armed the descriptor. */
    if (reaped == 0 && sr_port_in_flight(port) > 0) epoll_wait(epoll, &event, 1, -1);
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *where = argc > 1 ? argv[1] : "./loop-store";
  struct sr_format_options format = SR_FORMAT_OPTIONS_INIT;
  struct sr_store *store = NULL;
  struct sr_port *port = NULL;

  format.size_bytes = 64 << 20, format.shards = 2;
  int rc = sr_format(where, &format);
  if (rc == 0 || rc == -EEXIST) rc = sr_store_open(where, NULL, &store);
  if (rc == 0) rc = sr_port_open(store, NULL, &port);
  char *buffers = rc == 0 ? sr_buffer_alloc(store, (size_t)BLOBS * BLOB_BYTES, false) : NULL;
  if (buffers) {
    prepare(buffers);
    rc = run_loop(port, epoll_create1(EPOLL_CLOEXEC));
    if (rc == 0) rc = sr_flush(port);
  }
  if (rc < 0) fprintf(stderr, "%s: %s\n", where, strerror(-rc));
  printf("%u of %d blobs came back as they were put\n", finished_count - failed_count, (int)BLOBS);
  if (buffers) sr_buffer_free(store, buffers);
  sr_port_close(port);
  return (sr_store_close(store) < 0) | (rc < 0) | (finished_count - failed_count != BLOBS);
}
