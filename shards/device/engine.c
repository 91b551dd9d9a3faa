/* engine.c - what the engines share: the meaning of an answer, and sleeping without a ring.
 *
 * A waker is the only thing here that several threads touch; its lock covers all of it. */
#include "shards/device/engine.h"

#include <time.h>

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
  pthread_condattr_t attr;
  w->raised = false;
  int rc = pthread_mutex_init(&w->lock, NULL);
  if (rc) return -rc;
  /* Never a reason to fail: glibc only fills in a word. */
  check(pthread_condattr_init(&attr) == 0);
  check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
  rc = pthread_cond_init(&w->cond, &attr);
  pthread_condattr_destroy(&attr);
  if (rc) pthread_mutex_destroy(&w->lock);
  return -rc;
}

void waker_finish(struct waker *w) {
  pthread_cond_destroy(&w->cond);
  pthread_mutex_destroy(&w->lock);
}

void waker_raise(struct waker *w) {
  pthread_mutex_lock(&w->lock);
  w->raised = true;
  pthread_cond_signal(&w->cond);
  pthread_mutex_unlock(&w->lock);
}

void waker_wait(struct waker *w, int64_t timeout_ns) {
  struct timespec end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  int64_t ns = timeout_ns > 0 ? timeout_ns : 0;
  end.tv_sec += ns / 1000000000;
  end.tv_nsec += ns % 1000000000;
  if (end.tv_nsec >= 1000000000) end.tv_sec++, end.tv_nsec -= 1000000000;

  pthread_mutex_lock(&w->lock);
  int rc = 0;
  while (!w->raised && rc == 0)
    rc = timeout_ns < 0 ? pthread_cond_wait(&w->cond, &w->lock)
                        : pthread_cond_timedwait(&w->cond, &w->lock, &end);
  w->raised = false;
  pthread_mutex_unlock(&w->lock);
}
