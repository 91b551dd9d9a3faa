/* pool.c - the engine for places where io_uring is refused: a few threads with pread and
 * pwritev2.
 *
 * The owner's thread holds `staged` (submitted since the last poll). Under the lock are `work`
 * (in the hands of the threads, at most queue_depth with those being worked on), `finished`, and
 * the owner's sleeping flag. An io is at one place: staged, work, a thread, finished. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "shards/device/engine.h"

#define POOL_THREADS_MAX 8u
#define RETRY_PAUSE_NS   100000

struct pool {
  struct device device;
  /* The owner's. */
  struct io_list staged;
  uint32_t staged_count, in_work, cap;
  struct device_stats stats;
  struct waker waker;
  uint32_t file_count;
  int *files; /* by slot; -1: nothing attached. Written before the slot's first request */
  uint32_t thread_count;
  pthread_t threads[POOL_THREADS_MAX];
  /* Under the lock. */
  pthread_mutex_t lock;
  pthread_cond_t work_there;
  struct io_list work, finished;
  uint64_t short_ios, retried_ios;
  uint32_t idle; /* threads waiting for work */
  bool owner_sleeps, stop;
};

static inline struct pool *pool_of(struct device *d) {
  return container_of(d, struct pool, device);
}

/* ---- The threads ------------------------------------------------------------------------ */

static ssize_t move_once(const struct io *io, int fd) {
  if (io->op == IO_FLUSH) return fdatasync(fd);
  uint32_t bytes, entries = io_entries(io);
  char *at = io_rest(io, &bytes);
  const struct iovec rest = {at, bytes}, *iov = entries ? io->buf : &rest;
  int count = entries ? (int)entries : 1;
  off_t offset = (off_t)(io->offset + io->moved);
  if (io->op == IO_READ) return preadv(fd, iov, count, offset);
  return pwritev2(fd, iov, count, offset, io->flags & IO_FUA ? RWF_DSYNC : 0);
}

/* The whole request, however many calls it takes. A pause costs nobody but this thread. */
static void work_off(struct io *io, int fd, uint64_t *short_ios, uint64_t *retried_ios) {
  for (;;) {
    ssize_t n = move_once(io, fd);
    switch (io_advance(io, n < 0 ? -errno : (int32_t)n)) {
    case IO_STEP_DONE:
      return;
    case IO_STEP_RESUBMIT:
      ++*short_ios;
      break;
    case IO_STEP_RETRY:
      ++*retried_ios;
      nanosleep(&(struct timespec){0, RETRY_PAUSE_NS}, NULL);
      break;
    }
  }
}

static void *pool_thread(void *arg) {
  struct pool *p = arg;
  pthread_mutex_lock(&p->lock);
  for (;;) {
    struct io *io = io_list_pop(&p->work);
    if (!io) {
      if (p->stop) break;
      p->idle++;
      pthread_cond_wait(&p->work_there, &p->lock);
      p->idle--;
      continue;
    }
    uint64_t short_ios = 0, retried_ios = 0;
    pthread_mutex_unlock(&p->lock);
    work_off(io, p->files[io->file], &short_ios, &retried_ios);
    pthread_mutex_lock(&p->lock);
    p->short_ios += short_ios;
    p->retried_ios += retried_ios;
    io_list_push(&p->finished, io);
    if (p->owner_sleeps) {
      p->owner_sleeps = false; /* one wake is enough */
      waker_raise(&p->waker);
    }
  }
  pthread_mutex_unlock(&p->lock);
  return NULL;
}

/* The owner is pinned; its helpers may run wherever the process's main thread may. */
static void spread_thread(pthread_t thread) {
  cpu_set_t cpus;
  if (sched_getaffinity(getpid(), sizeof cpus, &cpus) == 0)
    (void)pthread_setaffinity_np(thread, sizeof cpus, &cpus);
  (void)pthread_setname_np(thread, "sr-pool");
}

/* Signals are the program's business: none is delivered to these threads. */
static int start_threads(struct pool *p, uint32_t count) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = 0;
  while (rc == 0 && p->thread_count < count) {
    rc = pthread_create(&p->threads[p->thread_count], NULL, pool_thread, p);
    if (rc == 0) spread_thread(p->threads[p->thread_count++]);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return p->thread_count ? 0 : -rc; /* fewer than wanted is slower, not wrong */
}

/* ---- The owner -------------------------------------------------------------------------- */

static void pool_submit(struct device *d, struct io *io) {
  struct pool *p = pool_of(d);
  check(io->file < p->file_count);
  io_begin(io);
  p->stats.flushes += io->op == IO_FLUSH;
  p->stats.fua_writes += io->op == IO_WRITE && (io->flags & IO_FUA);
  io_list_push(&p->staged, io);
  p->staged_count++;
}

/* Under the lock. */
static void hand_over(struct pool *p) {
  uint32_t moved = 0;
  while (p->in_work < p->cap && p->staged.head) {
    io_list_push(&p->work, io_list_pop(&p->staged));
    p->in_work++;
    moved++;
  }
  p->staged_count -= moved;
  p->stats.submits += moved != 0;
  if (p->in_work > p->stats.in_flight_max) p->stats.in_flight_max = p->in_work;
  for (uint32_t i = 0; i < moved && i < p->idle; i++) pthread_cond_signal(&p->work_there);
}

static uint32_t pool_poll(struct device *d) {
  struct pool *p = pool_of(d);
  if (p->staged_count + p->in_work == 0) return 0;
  pthread_mutex_lock(&p->lock);
  struct io *io = p->finished.head;
  io_list_init(&p->finished);
  for (const struct io *i = io; i; i = i->next) p->in_work--;
  hand_over(p);
  p->stats.short_ios = p->short_ios;
  p->stats.retried_ios = p->retried_ios;
  pthread_mutex_unlock(&p->lock);

  uint32_t count = 0;
  while (io) {
    struct io *next = io->next;
    io->done(io);
    io = next;
    count++;
  }
  p->stats.ios += count;
  return count;
}

static void pool_sleep(struct device *d, int64_t timeout_ns) {
  struct pool *p = pool_of(d);
  p->stats.sleeps++;
  pthread_mutex_lock(&p->lock);
  hand_over(p);
  bool ready = p->finished.head != NULL;
  p->owner_sleeps = !ready;
  pthread_mutex_unlock(&p->lock);
  if (ready) return;
  waker_wait(&p->waker, timeout_ns);
  pthread_mutex_lock(&p->lock);
  p->owner_sleeps = false;
  pthread_mutex_unlock(&p->lock);
}

static void pool_wake(struct device *d) { waker_raise(&pool_of(d)->waker); }
static void pool_sleep_on(struct device *d, int fd) { pool_of(d)->waker.other = fd; }

static int pool_attach(struct device *d, uint16_t slot, struct backing *b) {
  struct pool *p = pool_of(d);
  if (slot >= p->file_count || (b && b->fd < 0)) return -EINVAL;
  p->files[slot] = b ? b->fd : -1;
  return 0;
}

/* Nothing to gain from it here: any memory is as good. */
static int pool_register_memory(struct device *d, uint32_t index, void *base, size_t bytes) {
  (void)d, (void)base;
  return index < DEVICE_RANGES && bytes != 0 && bytes <= DEVICE_RANGE_BYTES ? 0 : -EINVAL;
}
static void pool_unregister_memory(struct device *d, uint32_t index) { (void)d, (void)index; }

/* ---- Life ------------------------------------------------------------------------------- */

/* What the threads already hold is finished, what waits is dropped; no callbacks. */
static void pool_destroy(struct device *d) {
  if (!d) return;
  struct pool *p = pool_of(d);
  pthread_mutex_lock(&p->lock);
  io_list_init(&p->work);
  p->stop = true;
  pthread_cond_broadcast(&p->work_there);
  pthread_mutex_unlock(&p->lock);
  for (uint32_t i = 0; i < p->thread_count; i++) pthread_join(p->threads[i], NULL);
  waker_finish(&p->waker);
  pthread_cond_destroy(&p->work_there);
  pthread_mutex_destroy(&p->lock);
  free(p->files);
  free(p);
}

static int pool_create(struct device **d, const struct device_options *options) {
  if (options->queue_depth == 0 || options->file_count == 0) return -EINVAL;
  struct pool *p = calloc(1, sizeof *p);
  if (!p) return -ENOMEM;
  p->device.ops = &device_pool;
  p->cap = options->queue_depth;
  p->file_count = options->file_count;
  p->files = malloc(p->file_count * sizeof *p->files);
  int rc = p->files ? waker_init(&p->waker) : -ENOMEM;
  if (rc < 0) {
    free(p->files);
    free(p);
    return rc;
  }
  for (uint32_t i = 0; i < p->file_count; i++) p->files[i] = -1;
  io_list_init(&p->staged);
  io_list_init(&p->work);
  io_list_init(&p->finished);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->work_there, NULL);
  snprintf(p->stats.flags, sizeof p->stats.flags, "threads");
  rc = start_threads(p, (uint32_t)min_u64(p->cap, POOL_THREADS_MAX));
  if (rc < 0) {
    pool_destroy(&p->device);
    return rc;
  }
  *d = &p->device;
  return 0;
}

static uint32_t pool_in_flight(const struct device *d) {
  const struct pool *p = container_of(d, const struct pool, device);
  return p->staged_count + p->in_work;
}

static void pool_stats(const struct device *d, struct device_stats *stats) {
  *stats = container_of(d, const struct pool, device)->stats;
}

const struct device_ops device_pool = {
    .name = "pool",
    .create = pool_create,
    .destroy = pool_destroy,
    .attach = pool_attach,
    .register_memory = pool_register_memory,
    .unregister_memory = pool_unregister_memory,
    .submit = pool_submit,
    .poll = pool_poll,
    .sleep = pool_sleep,
    .wake = pool_wake,
    .sleep_on = pool_sleep_on,
    .in_flight = pool_in_flight,
    .stats = pool_stats,
};
