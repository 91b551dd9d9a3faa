/* good.c - a well-behaved client on a thread of its own: writes, reads what it wrote, compares,
 * flushes. It counts what it completes, and stops at the first thing that is not as it should be.
 *
 * `count` and `wrong` are read by the main thread; all else is the thread's. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/hostile/hostile.h"
#include "api/vhost/front.h"

enum { DEPTH = 8, BYTES = 8192, STALL_MS = 60000 };

struct place { /* one part of the disk, with one request at a time */
  struct vfront_request request;
  uint64_t seed;
  bool written;
};

static struct {
  struct vfront *front;
  pthread_t thread;
  atomic_uint_fast64_t count;
  _Atomic(const char *) wrong;
  atomic_bool stop;
  bool runs;
  char why[300];
  struct place places[HOSTILE_QUEUES][DEPTH];
} good;

static void fill(struct place *p) {
  struct random r = {p->seed};
  uint64_t *at = p->request.buf;
  for (uint32_t i = 0; i < BYTES / 8; i++) at[i] = random_next(&r);
}

static bool is_right(const struct place *p) {
  struct random r = {p->seed};
  const uint64_t *at = p->request.buf;
  for (uint32_t i = 0; i < BYTES / 8; i++)
    if (at[i] != random_next(&r)) return false;
  return true;
}

/* Write, then read it, and again. */
static void next_request(struct place *p) {
  p->written = !p->written;
  p->request.op = p->written ? VFRONT_WRITE : VFRONT_READ;
  if (p->written) {
    p->seed++;
    fill(p);
  } else {
    memset(p->request.buf, 0, BYTES);
  }
}

static bool look_at(struct place *p) {
  if (p->request.status != 0) {
    snprintf(good.why, sizeof good.why, "the good client: a %s had status %d",
             p->written ? "write" : "read", p->request.status);
    return false;
  }
  if (p->written || is_right(p)) return true;
  snprintf(good.why, sizeof good.why, "the good client: what it wrote at %llu is not there",
           (unsigned long long)p->request.offset);
  return false;
}

static bool serve_queue(struct vfront_queue *q) {
  struct vfront_request *done[DEPTH];
  int n = vfront_reap(q, done, DEPTH);
  if (n < 0) {
    snprintf(good.why, sizeof good.why, "the good client: %s", q->why);
    return false;
  }
  for (int i = 0; i < n; i++) {
    struct place *p = container_of(done[i], struct place, request);
    if (!look_at(p)) return false;
    atomic_fetch_add(&good.count, 1);
    next_request(p);
  }
  if (n > 0 && vfront_submit(q, done, (uint32_t)n) != n) {
    snprintf(good.why, sizeof good.why, "the good client: %s", q->why);
    return false;
  }
  return true;
}

static void *run(void *arg) {
  bool fine = true;
  for (uint32_t turn = 0; fine && !atomic_load(&good.stop); turn++) {
    struct vfront_queue *q = &good.front->queues[turn % good.front->o.queues];
    int r = vfront_wait(q, 10);
    if (r < 0) {
      snprintf(good.why, sizeof good.why, "the good client: %s",
               r == -ECONNRESET ? "its connection was closed" : q->why);
      fine = false;
    }
    fine = fine && serve_queue(q);
    nap_ms(1); /* others share this machine */
  }
  if (!fine) atomic_store(&good.wrong, good.why);
  return arg;
}

int good_start(const char *socket) {
  struct vfront_options o = {.socket = socket,
                             .queues = HOSTILE_QUEUES,
                             .depth = DEPTH,
                             .pieces = 2,
                             .regions = 1,
                             .buffer_bytes = HOSTILE_QUEUES * DEPTH * BYTES,
                             .connect_ms = 20000};
  int r = vfront_open(&good.front, &o, good.why, sizeof good.why);
  if (r < 0) {
    fprintf(stderr, "the good client: %s\n", good.why);
    return r;
  }
  atomic_store(&good.stop, false);
  atomic_store(&good.wrong, NULL);
  for (uint32_t q = 0; q < HOSTILE_QUEUES; q++)
    for (uint32_t i = 0; i < DEPTH; i++) {
      struct place *p = &good.places[q][i];
      uint32_t number = q * DEPTH + i;
      p->seed = number * 1000003;
      p->written = false;
      p->request = (struct vfront_request){.bytes = BYTES,
                                           .offset = (uint64_t)number * 256 * 1024,
                                           .buf = good.front->buffers + (uint64_t)number * BYTES,
                                           .pieces = 1 + i % 2};
      next_request(p);
      struct vfront_request *one = &p->request;
      if (vfront_submit(&good.front->queues[q], &one, 1) != 1) return -EIO;
    }
  good.runs = pthread_create(&good.thread, NULL, run, NULL) == 0;
  return good.runs ? 0 : -EAGAIN;
}

const char *good_progress(uint32_t requests) {
  uint64_t target = atomic_load(&good.count) + requests, end = now_ms() + STALL_MS;
  if (!good.runs) return NULL;
  while (atomic_load(&good.count) < target) {
    const char *wrong = atomic_load(&good.wrong);
    if (wrong) return wrong;
    if (now_ms() > end) return "the good client does not get on";
    nap_ms(1);
  }
  return NULL;
}

void good_stop(void) {
  if (!good.runs) return;
  atomic_store(&good.stop, true);
  pthread_join(good.thread, NULL);
  good.runs = false;
  vfront_close(good.front);
  good.front = NULL;
}
