/* mem.c - the two engines without a kernel: mem copies to and from memory backings, null moves
 * nothing at all (what the layers above cost). A request completes in the next poll.
 *
 * All belongs to the creating thread, except instant_wake(). */
#include <stdlib.h>
#include <string.h>

#include "shards/device/engine.h"

struct instant {
  struct device device;
  struct io_list list; /* submitted, not done */
  uint32_t file_count;
  struct backing **files; /* by slot; NULL: nothing attached */
  struct device_stats stats;
  struct waker waker;
};

static inline struct instant *instant_of(struct device *d) {
  return container_of(d, struct instant, device);
}

static int instant_create(struct device **d, const struct device_options *options,
                          const struct device_ops *ops) {
  if (options->queue_depth == 0 || options->file_count == 0) return -EINVAL;
  struct instant *m = calloc(1, sizeof *m);
  if (!m) return -ENOMEM;
  m->device.ops = ops;
  m->file_count = options->file_count;
  m->files = calloc(m->file_count, sizeof *m->files);
  int rc = m->files ? waker_init(&m->waker) : -ENOMEM;
  if (rc < 0) {
    free(m->files);
    free(m);
    return rc;
  }
  io_list_init(&m->list);
  *d = &m->device;
  return 0;
}

static void instant_destroy(struct device *d) {
  if (!d) return;
  struct instant *m = instant_of(d);
  waker_finish(&m->waker);
  free(m->files);
  free(m);
}

static int instant_attach(struct device *d, uint16_t slot, struct backing *b) {
  struct instant *m = instant_of(d);
  if (slot >= m->file_count) return -EINVAL;
  m->files[slot] = b;
  return 0;
}

static int instant_register_memory(struct device *d, uint32_t index, void *base, size_t bytes) {
  (void)d, (void)base;
  return index < DEVICE_RANGES && bytes != 0 && bytes <= DEVICE_RANGE_BYTES ? 0 : -EINVAL;
}
static void instant_unregister_memory(struct device *d, uint32_t index) { (void)d, (void)index; }

static __attribute__((noinline)) void submit_other(struct instant *m, struct io *io) {
  io_begin(io);
  m->stats.flushes += io->op == IO_FLUSH;
  m->stats.fua_writes += io->op == IO_WRITE && (io->flags & IO_FUA);
  io_list_push(&m->list, io);
}

static void instant_submit(struct device *d, struct io *io) {
  struct instant *m = instant_of(d);
  check(io->file < m->file_count);
  if (!io_is_plain(io)) {
    submit_other(m, io);
    return;
  }
  io_begin_plain(io);
  *m->list.end = io; /* ends at take_all() */
  m->list.end = &io->next;
}

/* Takes the list away, so that what done() submits waits for the next poll. */
static inline struct io *take_all(struct instant *m) {
  *m->list.end = NULL;
  struct io *io = m->list.head;
  io_list_init(&m->list);
  return io;
}

static inline uint32_t finish(struct instant *m, uint32_t count) {
  if (count > m->stats.in_flight_max) m->stats.in_flight_max = count;
  m->stats.ios += count;
  m->stats.submits += count != 0;
  return count;
}

static int32_t copy(const struct instant *m, const struct io *io) {
  const struct backing *b = m->files[io->file];
  if (!b) return -EBADF;
  if (io->op == IO_FLUSH) return 0;
  uint64_t bytes = __atomic_load_n(&b->bytes, __ATOMIC_ACQUIRE);
  if (io->offset > bytes || io->bytes > bytes - io->offset) return -EIO;
  if (io->op == IO_WRITE && b->read_only) return -EBADF;
  char *on_disk = (char *)b->memory + io->offset;
  for (uint32_t at = 0, row; at < io->bytes; at += row) {
    char *memory = io_memory(io, at, &row);
    memcpy(io->op == IO_READ ? memory : on_disk + at, io->op == IO_READ ? on_disk + at : memory,
           row);
  }
  return 0;
}

static uint32_t mem_poll(struct device *d) {
  struct instant *m = instant_of(d);
  struct io *all = take_all(m), *next;
  uint32_t count = 0;
  for (struct io *io = all; io; io = io->next) {
    io->result = copy(m, io);
    io->moved = io->bytes;
  }
  for (struct io *io = all; io; io = next, count++) {
    next = io->next; /* the io may be gone */
    io->done(io);
  }
  return finish(m, count);
}

static uint32_t null_poll(struct device *d) {
  struct instant *m = instant_of(d);
  uint32_t count = 0;
  for (struct io *io = take_all(m), *next; io; io = next, count++) {
    next = io->next;
    io->result = 0;
    io->done(io);
  }
  return finish(m, count);
}

static void instant_sleep(struct device *d, int64_t timeout_ns) {
  struct instant *m = instant_of(d);
  m->stats.sleeps++;
  if (m->list.end == &m->list.head) waker_wait(&m->waker, timeout_ns);
}

static void instant_wake(struct device *d) { waker_raise(&instant_of(d)->waker); }
static void instant_sleep_on(struct device *d, int fd) { instant_of(d)->waker.other = fd; }

static uint32_t instant_in_flight(const struct device *d) {
  const struct instant *m = container_of(d, const struct instant, device);
  uint32_t count = 0;
  *m->list.end = NULL;
  for (struct io *io = m->list.head; io; io = io->next) count++;
  return count;
}

static void instant_stats(const struct device *d, struct device_stats *stats) {
  *stats = container_of(d, const struct instant, device)->stats;
}

static int mem_attach(struct device *d, uint16_t slot, struct backing *b) {
  return !b || b->memory ? instant_attach(d, slot, b) : -EINVAL;
}
static int mem_create(struct device **d, const struct device_options *options) {
  return instant_create(d, options, &device_mem);
}
static int null_create(struct device **d, const struct device_options *options) {
  return instant_create(d, options, &device_null);
}

const struct device_ops device_mem = {
    .name = "mem",
    .create = mem_create,
    .destroy = instant_destroy,
    .attach = mem_attach,
    .register_memory = instant_register_memory,
    .unregister_memory = instant_unregister_memory,
    .submit = instant_submit,
    .poll = mem_poll,
    .sleep = instant_sleep,
    .wake = instant_wake,
    .sleep_on = instant_sleep_on,
    .in_flight = instant_in_flight,
    .stats = instant_stats,
};
const struct device_ops device_null = {
    .name = "null",
    .create = null_create,
    .destroy = instant_destroy,
    .attach = instant_attach,
    .register_memory = instant_register_memory,
    .unregister_memory = instant_unregister_memory,
    .submit = instant_submit,
    .poll = null_poll,
    .sleep = instant_sleep,
    .wake = instant_wake,
    .sleep_on = instant_sleep_on,
    .in_flight = instant_in_flight,
    .stats = instant_stats,
};
