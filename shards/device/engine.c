/* engine.c - what the engines share: the meaning of an answer, and sleeping without a ring.
 *
 * Of a waker other threads touch only `raised` and the eventfd. */
#include "shards/device/engine.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* No entry is empty, so there are at most IO_BYTES_MAX / BLOCK_BYTES, which is less than the
 * kernel's limit. */
void io_begin_other(struct io *io) {
  io->moved = io->bytes;
  if (io->op == IO_FLUSH) return;
  check(io->op == IO_READ || io->op == IO_WRITE);
  if (!(io->flags & IO_VECTORED)) {
    io_begin_plain(io);
    return;
  }
  const struct iovec *v = io->buf;
  uint64_t sum = 0;
  check(is_aligned(io->offset | io->bytes, BLOCK_BYTES));
  check(io->bytes - 1 < IO_BYTES_MAX);
  for (; sum < io->bytes; v++) {
    check(is_aligned((uintptr_t)v->iov_base | v->iov_len, BLOCK_BYTES) && v->iov_len);
    sum += v->iov_len;
  }
  check(sum == io->bytes);
  io->moved = 0;
  io->result = (int32_t)(v - (const struct iovec *)io->buf);
}

enum io_step io_advance(struct io *io, int32_t moved_now) {
  if (moved_now == -EAGAIN || moved_now == -EINTR) return IO_STEP_RETRY;
  uint32_t left = io->bytes - io->moved;
  if (moved_now < 0) {
    io->result = moved_now;
    return IO_STEP_DONE;
  }
  if ((uint32_t)moved_now == left) {
    io->moved = io->bytes;
    io->result = 0;
    return IO_STEP_DONE;
  }
  uint32_t whole = (uint32_t)round_down((uint32_t)moved_now, BLOCK_BYTES);
  if (whole == 0 || whole > left) {
    io->result = -EIO;
    return IO_STEP_DONE;
  }
  io->moved += whole;
  return IO_STEP_RESUBMIT;
}

void io_retry_init(struct io_retry *r) {
  io_list_init(&r->list);
  r->count = 0;
  r->at_ns = 0;
  r->pause_ns = IO_RETRY_NS_MIN;
}

void io_retry_push(struct io_retry *r, struct io *io, uint64_t now_ns) {
  if (!r->list.head) {
    r->at_ns = now_ns + r->pause_ns;
    r->pause_ns = min_u64(r->pause_ns * 2, IO_RETRY_NS_MAX);
  }
  io_list_push(&r->list, io);
  r->count++;
}

struct io *io_retry_due(struct io_retry *r, uint64_t now_ns) {
  if (now_ns < r->at_ns) return NULL;
  struct io *first = r->list.head;
  io_list_init(&r->list);
  r->count = 0;
  return first;
}

int64_t io_retry_left_ns(const struct io_retry *r, uint64_t now_ns) {
  if (!r->list.head) return INT64_MAX;
  return r->at_ns > now_ns ? (int64_t)(r->at_ns - now_ns) : 0;
}

int waker_init(struct waker *w) {
  w->raised = 0;
  w->other = -1;
  w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return w->fd < 0 ? -errno : 0;
}

void waker_finish(struct waker *w) { close(w->fd); }

void waker_raise(struct waker *w) {
  uint64_t one = 1;
  if (__atomic_exchange_n(&w->raised, 1, __ATOMIC_SEQ_CST)) return;
  check(write(w->fd, &one, sizeof one) == sizeof one);
}

/* First lowered, then read: a raise in between is seen by the next wait, one whose write comes late
 * ends a later wait early, which does no harm. */
void waker_wait(struct waker *w, int64_t timeout_ns) {
  struct pollfd fds[2] = {{.fd = w->fd, .events = POLLIN}, {.fd = w->other, .events = POLLIN}};
  struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
  uint64_t count;
  if (!__atomic_load_n(&w->raised, __ATOMIC_SEQ_CST))
    ppoll(fds, w->other < 0 ? 1 : 2, timeout_ns < 0 ? NULL : &timeout, NULL);
  if (!__atomic_exchange_n(&w->raised, 0, __ATOMIC_SEQ_CST)) return;
  ssize_t n = read(w->fd, &count, sizeof count);
  (void)n;
}
