/* raw_loop.c - see raw_loop.h. It is a peer for measurement and no part of the store: that is
 * why this file, beside the store's own engine, may include liburing.
 *
 * Each slot (0 to depth-1) owns a buffer and the submission entry of the same number; all that
 * changes from one use to the next is the offset. The ring's index array says which entries
 * are submitted, so a request costs two stores and a random number. Slots are reused last in,
 * first out: what has just completed is still in the cache.
 *
 * slot: free -> (queue_batch) queued -> (enter) in flight -> (collect) free */
#include "tools/raw_loop.h"
#include "tools/bench_split.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HUGE_BYTES     (UINT64_C(2) << 20)
#define REGISTER_BYTES (UINT64_C(1) << 30) /* the kernel's limit for one buffer */

/* Flags newer than the oldest liburing that we build with, by their value in the kernel's ABI. */
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

struct raw_file {
  int fd;
  uint64_t blocks;
};

struct raw_loop {
  struct raw_loop_options options;
  struct io_uring ring;
  bool ring_up, files_registered, buffers_registered;
  uint32_t enter_flags;
  int enter_fd;
  char flags[128];
  struct raw_file files[RAW_LOOP_FILES_MAX];
  uint32_t file_count;
  uint64_t random, next_block;
  uint64_t moved; /* bytes, with sizes that differ */
  char *memory;
  uint64_t memory_bytes;
  uint32_t free_count, in_flight, queued;
  int error;
  uint32_t free_slots[RAW_LOOP_DEPTH_MAX];
};

static int fail(char *why, size_t why_bytes, int error, const char *what, const char *which) {
  if (why) snprintf(why, why_bytes, "%s%s%s: %s", what, *which ? " " : "", which, strerror(-error));
  return error;
}

static uint64_t clock_ns(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Set-up --------------------------------------------------------------------------- */

static int file_bytes(int fd, uint64_t *bytes) {
  struct stat st;
  if (fstat(fd, &st) < 0) return -errno;
  if (S_ISREG(st.st_mode)) return *bytes = (uint64_t)st.st_size, 0;
  if (!S_ISBLK(st.st_mode)) return -EINVAL;
  return ioctl(fd, BLKGETSIZE64, bytes) < 0 ? -errno : 0;
}

/* Access times cost a little on every read; only an owner may do without them. */
static int open_file(const char *path, bool write) {
  int mode = (write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC;
  int fd = open(path, mode | O_NOATIME);
  if (fd < 0 && errno == EPERM) fd = open(path, mode);
  return fd < 0 ? -errno : fd;
}

static int add_file(struct raw_loop *l, const char *path, char *why, size_t why_bytes) {
  const struct raw_loop_options *o = &l->options;
  uint64_t bytes = 0;
  int fd = open_file(path, o->write);
  if (fd < 0) return fail(why, why_bytes, fd, "cannot open", path);
  l->files[l->file_count++].fd = fd;
  int r = file_bytes(fd, &bytes);
  if (r < 0) return fail(why, why_bytes, r, "not a file or block device:", path);
  bytes = bytes > o->skip_bytes ? bytes - o->skip_bytes : 0;
  if (o->span_bytes && bytes > o->span_bytes) bytes = o->span_bytes;
  l->files[l->file_count - 1].blocks = bytes / o->block_bytes;
  if (bytes < o->block_bytes) return fail(why, why_bytes, -ENOSPC, "shorter than a block:", path);
  return 0;
}

static bool options_valid(const struct raw_loop_options *o) {
  if (!o->nop && (o->path_count < 1 || o->path_count > RAW_LOOP_FILES_MAX)) return false;
  if (o->block_bytes == 0 || o->block_bytes % 512 != 0) return false;
  if (o->block_bytes > (64u << 20) || o->skip_bytes % 4096 != 0) return false;
  if (o->depth < 1 || o->depth > RAW_LOOP_DEPTH_MAX) return false;
  if (o->complete > o->depth || (o->split && o->split->max != o->block_bytes)) return false;
  return o->batch >= 1 && o->batch <= o->depth;
}

static int allocate(struct raw_loop *l) {
  uint64_t bytes = (uint64_t)l->options.depth * l->options.block_bytes;
  l->memory_bytes = (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
  if (posix_memalign((void **)&l->memory, HUGE_BYTES, l->memory_bytes)) return -ENOMEM;
  madvise(l->memory, l->memory_bytes, MADV_HUGEPAGE);
  memset(l->memory, 0x5a, l->memory_bytes);
  return 0;
}

int raw_loop_create(struct raw_loop **loop, const struct raw_loop_options *options, char *why,
                    size_t why_bytes) {
  *loop = NULL;
  if (!options_valid(options)) return fail(why, why_bytes, -EINVAL, "raw loop's options", "");
  struct raw_loop *l = calloc(1, sizeof(*l));
  if (!l) return fail(why, why_bytes, -ENOMEM, "raw loop", "");
  l->options = *options;
  l->options.paths = NULL; /* the caller's, only for now */
  if (!l->options.complete) l->options.complete = l->options.batch;
  l->random = (options->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
  int r = 0;
  for (uint32_t i = 0; r == 0 && !options->nop && i < options->path_count; i++)
    r = add_file(l, options->paths[i], why, why_bytes);
  if (r == 0 && (r = allocate(l)) < 0) fail(why, why_bytes, r, "raw loop's buffers", "");
  if (r < 0) return raw_loop_destroy(l), r;
  *loop = l;
  return 0;
}

struct flag_name {
  uint32_t flag;
  const char *name;
};
static const struct flag_name flag_names[] = {
    {IORING_SETUP_SINGLE_ISSUER, "SINGLE_ISSUER"},
    {IORING_SETUP_DEFER_TASKRUN, "DEFER_TASKRUN"},
    {IORING_SETUP_COOP_TASKRUN, "COOP_TASKRUN"},
    {IORING_SETUP_SUBMIT_ALL, "SUBMIT_ALL"},
    {IORING_SETUP_CLAMP, "CLAMP"},
};
#define FLAG_COUNT (sizeof(flag_names) / sizeof(flag_names[0]))

static void say_flags(struct raw_loop *l, uint32_t granted) {
  size_t at = 0;
  for (size_t i = 0; i < FLAG_COUNT && at < sizeof(l->flags); i++)
    at += (size_t)snprintf(l->flags + at, sizeof(l->flags) - at, "%s%s%s", i ? " " : "",
                           granted & flag_names[i].flag ? "" : "!", flag_names[i].name);
}

/* Newest set of flags first; an older kernel answers EINVAL. Which it was, in *granted. more: flags
 * that must be there. */
static int make_ring(struct io_uring *ring, uint32_t depth, uint32_t more, uint32_t *granted) {
  static const uint32_t sets[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
          IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP,
      IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP,
      IORING_SETUP_CLAMP,
      0,
  };
  int r = -EINVAL;
  for (size_t i = 0; r == -EINVAL && i < sizeof(sets) / sizeof(sets[0]); i++) {
    *granted = sets[i];
    r = io_uring_queue_init(depth, ring, sets[i] | more);
  }
  return r;
}

static void register_files(struct raw_loop *l) {
  int fds[RAW_LOOP_FILES_MAX];
  for (uint32_t i = 0; i < l->file_count; i++) fds[i] = l->files[i].fd;
  l->files_registered =
      l->file_count > 0 && io_uring_register_files(&l->ring, fds, l->file_count) == 0;
}

static uint64_t buffers_in_one(const struct raw_loop *l) {
  return REGISTER_BYTES / l->options.block_bytes;
}

/* A memory limit may refuse it; the loop then runs without, and says so in its flags. */
static void register_buffers(struct raw_loop *l) {
  struct iovec v[RAW_LOOP_DEPTH_MAX];
  uint64_t each = buffers_in_one(l) * l->options.block_bytes;
  uint64_t left = (uint64_t)l->options.depth * l->options.block_bytes;
  uint32_t n = 0;
  for (char *at = l->memory; left > 0; at += v[n].iov_len, left -= v[n].iov_len, n++)
    v[n] = (struct iovec){.iov_base = at, .iov_len = left < each ? left : each};
  l->buffers_registered = io_uring_register_buffers(&l->ring, v, n) == 0;
}

static void fill_entry(struct raw_loop *l, uint32_t slot) {
  const struct raw_loop_options *o = &l->options;
  struct io_uring_sqe *e = &l->ring.sq.sqes[slot];
  char *buf = l->memory + (uint64_t)slot * o->block_bytes;
  if (o->nop)
    io_uring_prep_nop(e);
  else if (l->buffers_registered && o->write)
    io_uring_prep_write_fixed(e, 0, buf, o->block_bytes, 0, (int)(slot / buffers_in_one(l)));
  else if (l->buffers_registered)
    io_uring_prep_read_fixed(e, 0, buf, o->block_bytes, 0, (int)(slot / buffers_in_one(l)));
  else if (o->write)
    io_uring_prep_write(e, 0, buf, o->block_bytes, 0);
  else
    io_uring_prep_read(e, 0, buf, o->block_bytes, 0);
  e->fd = l->files_registered || o->nop ? 0 : l->files[0].fd;
  if (l->files_registered) e->flags |= IOSQE_FIXED_FILE;
  e->user_data = slot;
}

static int set_up(struct raw_loop *l) {
  uint32_t granted;
  int r =
      make_ring(&l->ring, l->options.depth, l->options.hipri ? IORING_SETUP_IOPOLL : 0, &granted);
  l->ring_up = r == 0;
  if (r < 0) return r;
  say_flags(l, granted);
  register_files(l);
  if (!l->options.nop) register_buffers(l);
  l->enter_fd = l->ring.ring_fd;
  if (io_uring_register_ring_fd(&l->ring) == 1) {
    l->enter_fd = l->ring.enter_ring_fd;
    l->enter_flags = 1u << 4; /* IORING_ENTER_REGISTERED_RING */
  }
  size_t at = strlen(l->flags);
  snprintf(l->flags + at, sizeof(l->flags) - at, " %sBUFFERS %sFILES %sRING_FD",
           l->buffers_registered ? "" : "!", l->files_registered ? "" : "!",
           l->enter_flags ? "" : "!");
  for (uint32_t i = 0; i < l->options.depth; i++) {
    fill_entry(l, i);
    l->free_slots[l->free_count++] = l->options.depth - 1 - i;
  }
  return 0;
}

/* ---- The loop --------------------------------------------------------------------------- */

static inline uint64_t next_random(struct raw_loop *l) {
  uint64_t x = l->random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return l->random = x;
}

static inline uint64_t pick(uint64_t random, uint64_t count) {
  return (uint64_t)(((__uint128_t)random * count) >> 64);
}

/* Where the next request goes. */
static inline void aim(struct raw_loop *l, struct io_uring_sqe *e) {
  const struct raw_loop_options *o = &l->options;
  uint32_t f = 0;
  uint64_t block;
  if (l->file_count > 1) {
    f = o->sequential ? (uint32_t)(l->next_block % l->file_count)
                      : (uint32_t)pick(next_random(l), l->file_count);
    e->fd = l->files_registered ? (int)f : l->files[f].fd;
  }
  if (o->sequential)
    block = l->next_block++ / l->file_count % l->files[f].blocks;
  else
    block = pick(next_random(l), l->files[f].blocks);
  e->off = o->skip_bytes + block * o->block_bytes;
}

/* The same with several sizes: at multiples of the smallest one. */
static void aim_split(struct raw_loop *l, struct io_uring_sqe *e) {
  const struct raw_loop_options *o = &l->options;
  uint64_t bytes = split_pick(o->split, pick(next_random(l), 100)), unit = o->split->min;
  uint32_t f = o->sequential ? (uint32_t)(l->next_block / (o->block_bytes / unit) % l->file_count)
                             : (uint32_t)pick(next_random(l), l->file_count);
  uint64_t last = (l->files[f].blocks * o->block_bytes - bytes) / unit, at;
  if (l->file_count > 1) e->fd = l->files_registered ? (int)f : l->files[f].fd;
  if (o->sequential) {
    at = l->next_block % (last + 1);
    l->next_block += bytes / unit;
  } else {
    at = pick(next_random(l), last + 1);
  }
  e->off = o->skip_bytes + at * unit;
  e->len = (uint32_t)bytes;
}

static void queue_batch(struct raw_loop *l) {
  struct io_uring_sq *sq = &l->ring.sq;
  uint32_t n = l->free_count < l->options.batch ? l->free_count : l->options.batch;
  uint32_t tail = *sq->ktail, mask = *sq->kring_mask;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t slot = l->free_slots[--l->free_count];
    if (__builtin_expect(l->options.split != NULL, 0))
      aim_split(l, &sq->sqes[slot]);
    else if (!l->options.nop)
      aim(l, &sq->sqes[slot]);
    sq->array[tail++ & mask] = slot;
  }
  __atomic_store_n(sq->ktail, tail, __ATOMIC_RELEASE);
  l->queued += n;
}

/* Returns how many have completed. */
static uint32_t collect(struct raw_loop *l) {
  struct io_uring_cq *cq = &l->ring.cq;
  uint32_t head = *cq->khead, tail = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);
  uint32_t mask = *cq->kring_mask, n = tail - head;
  int32_t want = l->options.nop ? 0 : (int32_t)l->options.block_bytes;
  for (; head != tail; head++) {
    const struct io_uring_cqe *c = &cq->cqes[head & mask];
    if (__builtin_expect(c->res != want, 0) && l->error == 0) l->error = c->res < 0 ? c->res : -EIO;
    l->free_slots[l->free_count++] = (uint32_t)c->user_data;
  }
  __atomic_store_n(cq->khead, head, __ATOMIC_RELEASE);
  l->in_flight -= n;
  return n;
}

static uint32_t collect_split(struct raw_loop *l) {
  struct io_uring_cq *cq = &l->ring.cq;
  uint32_t head = *cq->khead, n = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE) - head;
  for (uint32_t i = 0; i < n; i++) {
    const struct io_uring_cqe *c = &cq->cqes[(head + i) & *cq->kring_mask];
    if (c->res != (int32_t)l->ring.sq.sqes[c->user_data].len && l->error == 0)
      l->error = c->res < 0 ? c->res : -EIO;
    if (c->res > 0) l->moved += (uint32_t)c->res;
    l->free_slots[l->free_count++] = (uint32_t)c->user_data;
  }
  __atomic_store_n(cq->khead, head + n, __ATOMIC_RELEASE);
  l->in_flight -= n;
  return n;
}

/* Submits what is queued and waits for so many completions. */
static int enter(struct raw_loop *l, uint32_t wait) {
  long r = syscall(__NR_io_uring_enter, l->enter_fd, l->queued, wait,
                   IORING_ENTER_GETEVENTS | l->enter_flags, NULL, 0);
  if (r < 0) return errno == EINTR || errno == EAGAIN || errno == EBUSY ? 0 : -errno;
  l->queued -= (uint32_t)r;
  l->in_flight += (uint32_t)r;
  return 0;
}

static uint32_t wait_count(const struct raw_loop *l, bool stopping) {
  uint32_t all = l->in_flight + l->queued;
  if (!stopping && all < l->options.depth) return 0; /* fill up first */
  return all < l->options.complete ? all : l->options.complete;
}

int raw_loop_run(struct raw_loop *l, uint64_t duration_ns, struct raw_loop_result *result) {
  *result = (struct raw_loop_result){0};
  int r = l->ring_up ? 0 : set_up(l);
  if (r < 0) return r;
  l->error = 0;
  l->moved = 0;
  uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID), start = clock_ns(CLOCK_MONOTONIC);
  bool stop = false;
  while (r == 0 && (!stop || l->in_flight + l->queued > 0)) {
    if (!stop && l->queued == 0) queue_batch(l);
    r = enter(l, wait_count(l, stop));
    if (r == 0) result->ops += l->options.split ? collect_split(l) : collect(l);
    if (!stop) stop = l->error != 0 || clock_ns(CLOCK_MONOTONIC) - start >= duration_ns;
  }
  result->elapsed_ns = clock_ns(CLOCK_MONOTONIC) - start;
  result->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
  result->bytes = l->options.split ? l->moved : result->ops * l->options.block_bytes;
  return r < 0 ? r : l->error;
}

const char *raw_loop_flags(const struct raw_loop *l) { return l->flags; }

void raw_loop_destroy(struct raw_loop *l) {
  if (!l) return;
  if (l->ring_up) io_uring_queue_exit(&l->ring);
  for (uint32_t i = 0; i < l->file_count; i++) close(l->files[i].fd);
  free(l->memory);
  free(l);
}

/* ---- Single writes ------------------------------------------------------------------------ */

struct raw_writer {
  struct io_uring ring;
  int fd;
};

int raw_writer_create(struct raw_writer **writer, const char *path) {
  struct raw_writer *w = calloc(1, sizeof(*w));
  uint32_t granted;
  if (!w) return -ENOMEM;
  w->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
  int r = w->fd < 0 ? -errno : make_ring(&w->ring, 4, 0, &granted);
  if (r < 0) {
    if (w->fd >= 0) close(w->fd);
    free(w);
    return r;
  }
  *writer = w;
  return 0;
}

static int submit_one(struct raw_writer *w) {
  struct io_uring_cqe *cqe;
  int r;
  do r = io_uring_submit_and_wait(&w->ring, 1);
  while (r == -EINTR);
  if (r < 0 || (r = io_uring_wait_cqe(&w->ring, &cqe)) < 0) return r;
  r = cqe->res;
  io_uring_cqe_seen(&w->ring, cqe);
  return r;
}

int raw_writer_write(struct raw_writer *w, enum raw_write kind, const void *block,
                     uint64_t offset) {
  struct io_uring_sqe *e = io_uring_get_sqe(&w->ring);
  io_uring_prep_write(e, w->fd, block, 4096, offset);
  if (kind == RAW_WRITE_DSYNC) e->rw_flags = RWF_DSYNC;
  int r = submit_one(w);
  if (r != 4096) return r < 0 ? r : -EIO;
  if (kind != RAW_WRITE_FLUSH) return 0;
  e = io_uring_get_sqe(&w->ring);
  io_uring_prep_fsync(e, w->fd, IORING_FSYNC_DATASYNC);
  return submit_one(w);
}

void raw_writer_destroy(struct raw_writer *w) {
  if (!w) return;
  io_uring_queue_exit(&w->ring);
  close(w->fd);
  free(w);
}
