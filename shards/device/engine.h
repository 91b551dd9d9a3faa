/* engine.h - what the engines share. Private to shards/device.
 *
 * Everything here belongs to the engine's own thread, except waker_raise(). */
#ifndef SHARDS_DEVICE_ENGINE_H
#define SHARDS_DEVICE_ENGINE_H

#include <errno.h>
#include "shards/device/device.h"

#define DEVICE_RANGES      16u                 /* of registered memory */
#define DEVICE_RANGE_BYTES (UINT64_C(1) << 30) /* the kernel's limit for one */

/* ---- A first-in first-out list through io->next ---------------------------------------- */

struct io_list {
  struct io *head, **end;
};
static inline void io_list_init(struct io_list *l) {
  l->head = NULL;
  l->end = &l->head;
}
static inline void io_list_push(struct io_list *l, struct io *io) {
  io->next = NULL;
  *l->end = io;
  l->end = &io->next;
}
static inline struct io *io_list_pop(struct io_list *l) {
  struct io *io = l->head;
  if (!io) return NULL;
  l->head = io->next;
  if (!l->head) l->end = &l->head;
  return io;
}
/* Moves all of `from` to the end of `to`. */
static inline void io_list_splice(struct io_list *to, struct io_list *from) {
  if (!from->head) return;
  *to->end = from->head;
  to->end = from->end;
  io_list_init(from);
}

/* ---- One step of an io ----------------------------------------------------------------- */

enum io_step {
  IO_STEP_DONE,     /* io->result is final */
  IO_STEP_RESUBMIT, /* short: the rest from io->moved on */
  IO_STEP_RETRY,    /* the same again, after a pause */
};

/* A read or a write without flags; else a flush, which has nothing to move, or one with flags. */
static inline bool io_is_plain(const struct io *io) {
  return likely((uint16_t)((io->op | io->flags << 8) - IO_READ) < 2);
}

/* At the start: proves the caller's side of the contract, which direct I/O does not (the
 * kernel lets some misaligned requests pass). */
void io_begin_other(struct io *io);
static inline void io_begin_plain(struct io *io) {
  io->moved = 0;
  check(is_aligned((uintptr_t)io->buf | io->offset | io->bytes, BLOCK_BYTES));
  check(io->bytes - 1 < IO_BYTES_MAX);
}
static inline void io_begin(struct io *io) {
  if (io_is_plain(io))
    io_begin_plain(io);
  else
    io_begin_other(io);
}

/* Of a vectored io of which nothing was moved yet: how many entries. Once something was, the rest
 * goes row by row, as plain transfers: io_rest(). So nobody has to change the array. */
static inline uint32_t io_entries(const struct io *io) {
  return io->moved || !(io->flags & IO_VECTORED) ? 0 : (uint32_t)io->result;
}
/* What the next plain transfer of an io is to move. */
static inline char *io_rest(const struct io *io, uint32_t *bytes) {
  return io_memory(io, io->moved, bytes);
}

/* What the kernel's answer `moved_now` (bytes or -errno) means for the io. Whole blocks only
 * are counted, so that the rest stays aligned; an answer with no whole block in it is the end
 * of the file: -EIO. */
enum io_step io_advance(struct io *io, int32_t moved_now);

/* ---- Requests that the kernel refused for now (-EAGAIN, -EINTR) -------------------------- */

/* They wait together, until a pause is over that doubles from one refusal to the next: at once
 * they would be refused again, as often as the core can ask. */
#define IO_RETRY_NS_MIN UINT64_C(20000)
#define IO_RETRY_NS_MAX UINT64_C(2000000)
struct io_retry {
  struct io_list list;
  uint32_t count;
  uint64_t at_ns, pause_ns;
};
void io_retry_init(struct io_retry *r);
void io_retry_push(struct io_retry *r, struct io *io, uint64_t now_ns);
/* All of them, linked by next, once the pause is over; until then NULL. */
struct io *io_retry_due(struct io_retry *r, uint64_t now_ns);
/* Of the pause; INT64_MAX: nothing waits. */
int64_t io_retry_left_ns(const struct io_retry *r, uint64_t now_ns);
/* Something got through: the next pause is a short one. */
static inline void io_retry_progress(struct io_retry *r) { r->pause_ns = IO_RETRY_NS_MIN; }

/* ---- Sleeping without a ring ----------------------------------------------------------- */

struct waker {
  int fd;    /* an eventfd */
  int other; /* a descriptor that ends a wait as well; -1: none */
  uint32_t raised;
};
int waker_init(struct waker *w);
void waker_finish(struct waker *w);
/* Any thread. Ends the wait under way, or the next one. */
void waker_raise(struct waker *w);
/* Until raised, `other` is readable, or the timeout (-1: for ever); lowers it. */
void waker_wait(struct waker *w, int64_t timeout_ns);

/* ---- Probing --------------------------------------------------------------------------- */

/* 0 if a ring such as the engine needs can be made here, else -errno. */
int uring_probe(void);

/* NUMA node of the block device major:minor, -1 if unknown. Looks under `sys` ("/sys"). */
int sysfs_numa_node(const char *sys, unsigned major, unsigned minor);

#endif
