/* device.h - block I/O under one table of operations.
 *
 * Two kinds of object:
 *   struct backing   what holds the bytes: a file, a block device, memory. Shared by all
 *                    cores; synchronous calls for the control plane (format, recovery).
 *   struct device    one core's engine: asynchronous I/O on backings. It belongs to the
 *                    thread that created it; only ops->wake() may be called by others.
 *
 * A caller owns its struct io from device_submit() until io->done() runs. done() runs inside
 * device_poll() only, after all completions at hand have been collected, and may submit.
 * Short reads and writes are resubmitted by the engine, EINTR and EAGAIN retried, and
 * requests above the in-flight cap wait in the engine: device_submit() never fails.
 * An engine may make one request of writes in a row on disk (each has its own result all the same,
 * and may have been written twice if one of them failed); statistics, poll() and in_flight() count
 * such a request as one.
 *
 * No file descriptor and no ring is assumed by this header's users: the table also serves
 * engines that have neither. */
#ifndef SHARDS_DEVICE_DEVICE_H
#define SHARDS_DEVICE_DEVICE_H

#include <sys/uio.h>

#include "shards/base/base.h"

/* ---- Backings ------------------------------------------------------------------------- */

struct backing;
struct backing_ops {
  /* All return 0 or -errno, whole or not at all: short transfers are completed inside.
   * -EIO past the end. Offsets, lengths and buffers are multiples of BLOCK_BYTES. */
  int (*read)(struct backing *b, void *buf, uint64_t bytes, uint64_t offset);
  int (*write)(struct backing *b, const void *buf, uint64_t bytes, uint64_t offset);
  int (*flush)(struct backing *b); /* what was written survives a power cut */
  int (*punch)(struct backing *b, uint64_t bytes,
               uint64_t offset); /* give space back; reads as zeros or stale */
  int (*resize)(struct backing *b, uint64_t bytes, bool reserve); /* files and memory only */
  int (*lock)(struct backing *b, bool exclusive,
              uint32_t timeout_ms); /* -EBUSY; freed by a crash */
  void (*close)(struct backing *b);
};
struct backing {
  const struct backing_ops *ops;
  int fd;         /* -1 if there is none */
  int lock_fd;    /* of the lock alone; -1 */
  void *memory;   /* mem: the bytes; else NULL */
  uint64_t bytes; /* now */
  bool read_only, is_block_device;
  uint64_t device_id; /* st_dev of the file system, st_rdev of a block device: same value,
                         same device cache to flush */
  int numa_node;      /* of the device, -1 if unknown */
  /* A flush has failed since it was opened. What had been written before may be gone, of whatever
   * shard, and a later flush that succeeds says nothing about it: so nothing on this backing counts
   * as flushed any more. Set by who sees the failure, read with __atomic by all. */
  bool flush_failed;
  char name[256]; /* for messages */
};

struct backing_open {
  bool read_only, create, exclusive_create, buffered /* no O_DIRECT: only if direct is refused */;
};
/* Opens with O_DIRECT | O_CLOEXEC (falls back to buffered where O_DIRECT is refused, e.g. tmpfs,
 * with a warning). -EINVAL: neither a regular file nor a block device. */
int backing_open_path(struct backing **b, const char *path, const struct backing_open *how,
                      const struct logger *logger);
/* Adopts a duplicate of an open descriptor: O_CLOEXEC, O_DIRECT switched on if it can be. */
int backing_open_fd(struct backing **b, int fd, bool read_only, const struct logger *logger);
int backing_open_memory(struct backing **b, uint64_t bytes);
void backing_close(struct backing *b);
static inline void backing_flush_failed(struct backing *b) {
  __atomic_store_n(&b->flush_failed, true, __ATOMIC_RELEASE);
}
static inline bool backing_has_failed(const struct backing *b) {
  return __atomic_load_n(&b->flush_failed, __ATOMIC_ACQUIRE);
}

/* ---- I/O ------------------------------------------------------------------------------ */

enum io_op {
  IO_READ = 1,
  IO_WRITE = 2,
  IO_FLUSH = 3, /* fdatasync: covers writes that have completed before it was submitted */
};
enum io_flag {
  IO_FUA = 1, /* write: durable on completion (RWF_DSYNC) */
  /* `buf` is an array of struct iovec, which together have `bytes` bytes: one transfer of
   * what lies in a row on disk, and not in memory. Each entry as a plain buffer: aligned, and at
   * least a block. The array is the caller's, who keeps it as it is until done(); engines only
   * read it, so that he finds in it what was moved. */
  IO_VECTORED = 2,
};
struct io {
  void (*done)(struct io *io);
  struct io *next; /* the engine's while in flight, free otherwise */
  void *buf;       /* multiples of BLOCK_BYTES: address, bytes, offset; or see IO_VECTORED */
  uint64_t offset;
  uint32_t bytes; /* at most IO_BYTES_MAX */
  uint32_t moved; /* the engine's */
  int32_t result; /* 0, or -errno; the engine's while in flight */
  union {
    struct {
      uint16_t file; /* slot given to ops->attach() */
      uint8_t op, flags;
    };
    uint32_t kind; /* the three at once */
  };
};
#define IO_BYTES_MAX (1u << 20)
_Static_assert(sizeof(struct io) == 48, "struct io is embedded in every request");

/* Where byte `at` of an io's bytes lies in memory, and how many follow there in a row. */
static inline char *io_memory(const struct io *io, uint32_t at, uint32_t *row) {
  if (!(io->flags & IO_VECTORED)) {
    *row = io->bytes - at;
    return (char *)io->buf + at;
  }
  const struct iovec *v = io->buf;
  uint64_t in = at;
  for (; in >= v->iov_len; v++) in -= v->iov_len;
  *row = (uint32_t)min_u64(v->iov_len - in, io->bytes - at);
  return (char *)v->iov_base + in;
}

struct device_stats {
  uint64_t ios, submits, short_ios, retried_ios, sleeps, in_flight_max;
  uint64_t flushes, fua_writes; /* submitted */
  char flags[96];               /* ring flags granted; refused ones with a leading '!' */
  bool buffers_registered, files_registered;
};

struct device;
struct device_options {
  uint32_t queue_depth; /* in-flight cap */
  uint32_t file_count;  /* slots */
  struct clock clock;
  struct logger logger;
};

struct device_ops {
  const char *name;
  /* On the thread that will use it. uring: -EPERM, -ENOSYS etc. when refused. */
  int (*create)(struct device **d, const struct device_options *options);
  void (*destroy)(struct device *d);
  /* NULL: detaches; nothing is in flight there. */
  int (*attach)(struct device *d, uint16_t slot, struct backing *b);
  /* At most 16 ranges; index 0..15. -ENOMEM: refused, I/O works without. An io whose buffer
   * lies in a registered range uses it by itself. */
  int (*register_memory)(struct device *d, uint32_t index, void *base, size_t bytes);
  void (*unregister_memory)(struct device *d, uint32_t index);
  void (*submit)(struct device *d, struct io *io);
  /* Starts what was submitted (at most one system call) and runs done() of all that have
   * completed. Returns how many completed. Never blocks. */
  uint32_t (*poll)(struct device *d);
  /* Blocks until a completion, a wake, or the timeout (-1: for ever). Starts what was
   * submitted first. Runs no callbacks. A wake sent before the call is not lost. */
  void (*sleep)(struct device *d, int64_t timeout_ns);
  void (*wake)(struct device *d); /* any thread */
  /* From now on a sleep also ends as soon as fd is readable; it is not read. Once for a device. */
  void (*sleep_on)(struct device *d, int fd);
  uint32_t (*in_flight)(const struct device *d);
  void (*stats)(const struct device *d, struct device_stats *stats);
};
struct device {
  const struct device_ops *ops;
};

extern const struct device_ops device_uring, device_pool, device_mem, device_null;

/* The io_uring engine if io_uring_setup works here, else the pool engine; why: one line for
 * the statistics. */
const struct device_ops *device_choose(char *why, size_t why_bytes);
const struct device_ops *device_by_name(const char *name); /* NULL if unknown */

static inline void device_submit(struct device *d, struct io *io) { d->ops->submit(d, io); }
static inline uint32_t device_poll(struct device *d) { return d->ops->poll(d); }

#endif
