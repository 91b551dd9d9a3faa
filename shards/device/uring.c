/* uring.c - the io_uring engine: one ring for one core. The only file that sees liburing.
 *
 * Everything belongs to the thread that created the device (SINGLE_ISSUER; the ring's fd is
 * registered with that thread), except uring_wake().
 *
 * Invariants:
 *  - in_flight counts the requests that have a submission entry, are in the kernel, or are on
 *    the retry list. It never exceeds cap, and cap never exceeds the submission ring, which is
 *    smaller than the completion ring: neither can overflow.
 *  - waiting is empty or in_flight == cap, whenever no function of this file is running.
 *  - An io is at one place: waiting, ring or kernel, retry, ready (answered, done() not run).
 *
 * A request goes:  uring_submit -> [waiting -> refill ->] prep -> enter -> collect -> ready ->
 * run_ready -> done(). A write that begins where the one before ends, before that is in the kernel,
 * becomes one request with it (struct run). A short one goes from collect back to prep, one to be
 * tried again waits on retry until restart_retries. The path of a whole read has no branch that is
 * taken per request only because something can go wrong: collect compares the answer with what was
 * asked and leaves the rest to collect_odd. */
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shards/device/engine.h"

struct range {
  uintptr_t base, end; /* empty: base above end */
};
static const struct range empty_range = {UINTPTR_MAX, 0};

/* Small writes in a row on disk, as one request of the kernel's: what a device does in a second is
 * counted in requests. If it fails they are done again one by one, so that each has its own result.
 */
#define RUNS             64u
#define RUN_IOS          64u
#define RUN_IO_BYTES_MAX (64u << 10)
#define RUN_BYTES_MAX    (256u << 10)
struct run {
  struct io io; /* stands for all of them */
  struct uring *uring;
  struct io *first, **end; /* by io->next */
  uint32_t count, rows;    /* rows: of iov in use */
  struct run *next;        /* free */
  struct iovec iov[RUN_IOS];
};

struct uring {
  struct device device;
  /* What every request touches. */
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  uint32_t *sq_head, *sq_tail, *sq_flags, *cq_head, *cq_tail;
  uint32_t sq_mask, cq_mask;
  uint32_t sqe_tail; /* prepared up to here; *sq_tail follows in enter() */
  uint32_t in_flight, cap;
  struct range hit; /* the registered range used last */
  uint16_t hit_index;
  uint8_t sqe_flags; /* IOSQE_FIXED_FILE or 0 */
  bool taskrun_flag; /* the kernel says in *sq_flags that completions want an enter */
  uint32_t file_count;
  int32_t *files; /* by slot: what goes into sqe->fd; -1: nothing attached */
  struct io_list waiting, ready;
  /* The small write that was prepared last, or the run that it has become, if its entry is not in
   * the kernel yet; NULL: none. And where the next one must begin. */
  struct io *last;
  struct run *last_run;
  struct io_uring_sqe *last_sqe;
  uint64_t last_end;
  struct run *runs, *free_runs;
  struct io_retry retry;
  uint32_t waiting_count, ready_count;
  /* The rest. */
  int enter_fd;
  uint32_t enter_flags;
  uint32_t range_count; /* slots in use end here */
  struct range ranges[DEVICE_RANGES];
  struct io wake_io;  /* stands for the armed read of wake_fd; never given to anybody */
  struct io other_io; /* for the armed poll of other_fd */
  bool wake_armed, other_armed;
  int other_fd; /* ends a sleep, too; -1: none */
  bool buffers_sparse, warned;
  int wake_fd;
  uint64_t wake_count;
  struct clock clock;
  struct logger logger;
  struct io_uring ring;
  struct device_stats stats;
  /* Other threads write here: a line of its own. */
  _Alignas(64) uint32_t wake_pending;
};

static inline struct uring *uring_of(struct device *d) {
  return container_of(d, struct uring, device);
}

/* ---- Preparing requests ----------------------------------------------------------------- */

/* The registered range that holds all of the request's buffer becomes the hit. */
static __attribute__((noinline)) bool find_range(struct uring *u, uintptr_t base, uintptr_t end) {
  for (uint32_t i = 0; i < u->range_count; i++) {
    if (base < u->ranges[i].base || end > u->ranges[i].end) continue;
    u->hit = u->ranges[i];
    u->hit_index = (uint16_t)i;
    return true;
  }
  return false;
}

static inline struct io_uring_sqe *next_sqe(struct uring *u) {
  return &u->sqes[u->sqe_tail++ & u->sq_mask];
}

/* Fills all 64 bytes of an entry, in order: entries are reused. */
static inline void fill_plain(struct uring *u, struct io_uring_sqe *sqe, struct io *io,
                              uintptr_t base, uint32_t bytes) {
  static const uint8_t opcode[2][IO_FLUSH] = {
      {0, IORING_OP_READ, IORING_OP_WRITE},
      {0, IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED},
  };
  uint32_t fixed =
      (base >= u->hit.base && base + bytes <= u->hit.end) || find_range(u, base, base + bytes);
  sqe->opcode = opcode[fixed][io->op];
  sqe->flags = u->sqe_flags;
  sqe->ioprio = 0;
  sqe->fd = u->files[io->file];
  sqe->off = io->offset + io->moved;
  sqe->addr = base;
  sqe->len = bytes;
  sqe->rw_flags = io->flags & IO_FUA ? RWF_DSYNC : 0;
  sqe->user_data = (uintptr_t)io;
  sqe->buf_index = fixed ? u->hit_index : 0;
  sqe->personality = 0;
  sqe->file_index = 0;
  sqe->addr3 = 0;
  sqe->__pad2[0] = 0;
}

/* An entry for the library to fill: from 2.6 on it leaves fields as they are. */
static inline struct io_uring_sqe *blank(struct io_uring_sqe *sqe) {
  return memset(sqe, 0, sizeof *sqe);
}

/* A flush, a vectored transfer or a row of what such a one has left, a write with FUA. */
static __attribute__((noinline)) void fill_special(struct uring *u, struct io_uring_sqe *sqe,
                                                   struct io *io) {
  uint32_t row, entries = io_entries(io);
  if (io->op != IO_FLUSH && !entries) {
    uintptr_t base = (uintptr_t)io_rest(io, &row);
    fill_plain(u, sqe, io, base, row);
    return;
  }
  int fd = u->files[io->file];
  blank(sqe);
  if (io->op == IO_FLUSH)
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
  else if (io->op == IO_READ)
    io_uring_prep_readv(sqe, fd, io->buf, entries, io->offset);
  else
    io_uring_prep_writev2(sqe, fd, io->buf, entries, io->offset,
                          io->flags & IO_FUA ? RWF_DSYNC : 0);
  sqe->flags = u->sqe_flags;
  sqe->user_data = (uintptr_t)io;
}

static inline void fill(struct uring *u, struct io_uring_sqe *sqe, struct io *io) {
  if (io_is_plain(io))
    fill_plain(u, sqe, io, (uintptr_t)io->buf + io->moved, io->bytes - io->moved);
  else
    fill_special(u, sqe, io);
}

static inline void prep(struct uring *u, struct io *io) { fill(u, next_sqe(u), io); }

/* One that may have to wait, or is more than a plain transfer. */
static __attribute__((noinline)) void submit_odd(struct uring *u, struct io *io) {
  io_begin(io);
  u->stats.flushes += io->op == IO_FLUSH;
  u->stats.fua_writes += io->op == IO_WRITE && (io->flags & IO_FUA);
  if (u->in_flight >= u->cap) {
    io_list_push(&u->waiting, io);
    u->waiting_count++;
    return;
  }
  u->in_flight++;
  prep(u, io);
}

/* ---- Runs of writes ----------------------------------------------------------------------- */

static void run_done(struct io *io) {
  struct run *r = container_of(io, struct run, io);
  struct uring *u = r->uring;
  struct io *next = r->first;
  int32_t result = io->result;
  r->next = u->free_runs;
  u->free_runs = r;
  for (uint32_t left = r->count; left > 0; left--) {
    io = next;
    next = io->next;
    io->result = 0;
    io->moved = io->bytes;
    if (likely(!result))
      io->done(io); /* may begin another run: `r` may be in use again */
    else
      submit_odd(u, io);
  }
}

static void run_add(struct run *r, struct io *io) {
  struct iovec *last = r->rows ? &r->iov[r->rows - 1] : NULL;
  if (last && (char *)last->iov_base + last->iov_len == io->buf)
    last->iov_len += io->bytes;
  else
    r->iov[r->rows++] = (struct iovec){io->buf, io->bytes};
  *r->end = io;
  r->end = &io->next;
  r->count++;
  r->io.bytes += io->bytes;
}

/* The write whose entry was prepared last becomes the first of a run. */
static struct run *run_begin(struct uring *u) {
  struct run *r = u->free_runs;
  if (!r) return NULL;
  u->free_runs = r->next;
  r->io = (struct io){
      .done = run_done, .offset = u->last->offset, .file = u->last->file, .op = IO_WRITE};
  r->end = &r->first;
  r->count = r->rows = 0;
  run_add(r, u->last);
  u->last = &r->io;
  u->last_run = r;
  return r;
}

/* Joins a write to the one before it; false: it goes by itself. */
static __attribute__((noinline)) bool join(struct uring *u, struct io *io) {
  struct run *r = u->last_run;
  if (r ? r->count == RUN_IOS : !(r = run_begin(u))) return false;
  run_add(r, io);
  u->last_end += io->bytes;
  bool one = r->rows == 1;
  r->io.buf = one ? r->iov[0].iov_base : r->iov;
  r->io.flags = one ? 0 : IO_VECTORED;
  r->io.result = (int32_t)r->rows;
  fill(u, u->last_sqe, &r->io);
  return true;
}

static inline bool joins_the_last(const struct uring *u, const struct io *io) {
  return u->last && io->offset == u->last_end && io->file == u->last->file &&
         io->bytes <= RUN_IO_BYTES_MAX && io->bytes + u->last->bytes <= RUN_BYTES_MAX;
}

static void submit_write(struct uring *u, struct io *io) {
  if (joins_the_last(u, io) && join(u, io)) return;
  u->in_flight++;
  u->last = io->bytes <= RUN_IO_BYTES_MAX ? io : NULL;
  u->last_run = NULL;
  u->last_end = io->offset + io->bytes;
  u->last_sqe = next_sqe(u);
  fill_plain(u, u->last_sqe, io, (uintptr_t)io->buf, io->bytes);
}

static void uring_submit(struct device *d, struct io *io) {
  struct uring *u = uring_of(d);
  check(io->file < u->file_count);
  if (unlikely(!io_is_plain(io) || u->in_flight >= u->cap)) {
    submit_odd(u, io);
    return;
  }
  io_begin_plain(io);
  if (io->op == IO_WRITE) {
    submit_write(u, io);
    return;
  }
  u->in_flight++;
  fill_plain(u, next_sqe(u), io, (uintptr_t)io->buf, io->bytes);
}

/* ---- Talking to the kernel -------------------------------------------------------------- */

static inline uint32_t unsent(const struct uring *u) {
  return u->sqe_tail - __atomic_load_n(u->sq_head, __ATOMIC_ACQUIRE);
}

/* The one system call: submits all that is prepared and, because DEFER_TASKRUN delivers
 * completions only then, asks for events. min_complete > 0 blocks until so many are there or
 * the timeout (-1: for ever). */
static void enter(struct uring *u, uint32_t min_complete, int64_t timeout_ns) {
  uint32_t flags = u->enter_flags;
  uint32_t to_submit = unsent(u);
  struct __kernel_timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
  struct io_uring_getevents_arg arg = {.ts = (uintptr_t)&ts};
  __atomic_store_n(u->sq_tail, u->sqe_tail, __ATOMIC_RELEASE);
  u->last = NULL; /* its entry is the kernel's */
  u->stats.submits += to_submit != 0;
  if (u->in_flight > u->stats.in_flight_max) u->stats.in_flight_max = u->in_flight;

  int rc;
  if (min_complete && timeout_ns >= 0)
    rc = io_uring_enter2((unsigned)u->enter_fd, to_submit, min_complete,
                         flags | IORING_ENTER_EXT_ARG, (sigset_t *)(void *)&arg, sizeof arg);
  else
    rc = io_uring_enter((unsigned)u->enter_fd, to_submit, min_complete, flags, NULL);
  /* Not taken now (no memory, a signal): what is left in the ring goes with the next call.
   * Anything else is our own mistake, such as a call from another thread (-EEXIST). */
  check(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY || rc == -ETIME);
}

/* Whether an enter would do anything. */
static inline bool enter_needed(const struct uring *u) {
  if (unsent(u)) return true;
  uint32_t flags = __atomic_load_n(u->sq_flags, __ATOMIC_RELAXED);
  if (flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) return true;
  return u->in_flight && !u->taskrun_flag;
}

/* ---- Completions ------------------------------------------------------------------------ */

static void push_ready(struct uring *u, struct io *io) {
  io_list_push(&u->ready, io);
  u->ready_count++;
  u->in_flight--;
}

/* An answer that is not "all of it, no error". */
static __attribute__((noinline)) void collect_odd(struct uring *u, struct io *io, int32_t res) {
  if (io == &u->wake_io) {
    u->wake_armed = false; /* armed again before the next sleep */
    return;
  }
  if (io == &u->other_io) {
    u->other_armed = false;
    return;
  }
  switch (io_advance(io, res)) {
  case IO_STEP_DONE:
    push_ready(u, io);
    break;
  case IO_STEP_RESUBMIT:
    u->stats.short_ios++;
    prep(u, io);
    break;
  case IO_STEP_RETRY:
    u->stats.retried_ios++;
    io_retry_push(&u->retry, io, clock_now_ns(&u->clock));
    break;
  }
}

/* A place was freed: the oldest that wait go into the ring. */
static void refill(struct uring *u) {
  while (u->waiting.head && u->in_flight < u->cap) {
    u->waiting_count--;
    u->in_flight++;
    prep(u, io_list_pop(&u->waiting));
  }
}

static __attribute__((noinline)) void restart_retries(struct uring *u) {
  struct io *io = io_retry_due(&u->retry, clock_now_ns(&u->clock));
  while (io) {
    struct io *next = io->next;
    prep(u, io);
    io = next;
  }
}

/* Takes all answers out of the completion ring. Callbacks run later: one of them may submit,
 * and must find the ring's state whole. */
static void collect(struct uring *u) {
  uint32_t head = *u->cq_head;
  uint32_t tail = __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE);
  if (head == tail) return;
  struct io **end = u->ready.end;
  uint32_t whole = 0;
  for (; head != tail; head++) {
    const struct io_uring_cqe *cqe = &u->cqes[head & u->cq_mask];
    struct io *io = (struct io *)(uintptr_t)cqe->user_data;
    if (likely(cqe->res == (int32_t)(io->bytes - io->moved))) {
      io->result = 0;
      *end = io;
      end = &io->next;
      whole++;
    } else {
      u->ready.end = end;
      collect_odd(u, io, cqe->res);
      end = u->ready.end;
    }
  }
  *end = NULL;
  u->ready.end = end;
  u->ready_count += whole;
  u->in_flight -= whole;
  if (whole) io_retry_progress(&u->retry);
  __atomic_store_n(u->cq_head, tail, __ATOMIC_RELEASE);
  if (unlikely(u->waiting.head != NULL)) refill(u);
}

static uint32_t uring_poll(struct device *d) {
  struct uring *u = uring_of(d);
  if (unlikely(u->retry.count)) restart_retries(u);
  if (enter_needed(u)) enter(u, 0, 0);
  collect(u);
  uint32_t count = u->ready_count;
  if (!count) return 0;
  struct io *io = u->ready.head;
  io_list_init(&u->ready);
  u->ready_count = 0;
  u->stats.ios += count;
  while (io) {
    struct io *next = io->next;
    io->done(io);
    io = next;
  }
  return count;
}

/* ---- Sleeping and waking ---------------------------------------------------------------- */

/* Waking: set wake_pending, then (only whoever set it) write wake_fd, which the sleeper's armed
 * read turns into a completion. Sleeping: collect, then clear wake_pending, then block. A wake
 * whose completion that collect took had set wake_pending before, so it is seen; a wake after
 * the clearing writes wake_fd and ends the block. A write that comes late, for a wake already
 * seen, ends a later sleep early, which does no harm. */
static void uring_wake(struct device *d) {
  struct uring *u = uring_of(d);
  if (__atomic_exchange_n(&u->wake_pending, 1, __ATOMIC_SEQ_CST)) return;
  uint64_t one = 1;
  ssize_t n;
  do n = write(u->wake_fd, &one, sizeof one);
  while (n < 0 && errno == EINTR);
  check(n == sizeof one);
}

static bool sq_has_room(struct uring *u) {
  if (unsent(u) > u->sq_mask) enter(u, 0, 0);
  return unsent(u) <= u->sq_mask;
}

/* What ends a sleep. False: the ring is full and stays so. */
static bool arm(struct uring *u) {
  if (!u->wake_armed) {
    if (!sq_has_room(u)) return false;
    struct io_uring_sqe *sqe = blank(next_sqe(u));
    io_uring_prep_read(sqe, u->wake_fd, &u->wake_count, sizeof u->wake_count, 0);
    sqe->user_data = (uintptr_t)&u->wake_io;
    u->wake_armed = true;
  }
  if (!u->other_armed && u->other_fd >= 0) {
    if (!sq_has_room(u)) return false;
    struct io_uring_sqe *sqe = blank(next_sqe(u));
    io_uring_prep_poll_add(sqe, u->other_fd, POLLIN);
    sqe->user_data = (uintptr_t)&u->other_io;
    u->other_armed = true;
  }
  return true;
}

/* The kernel takes entries in order, so those that it left behind include the last ones, which were
 * armed just now: out again, since their places may be requests'. */
static void disarm_unsent(struct uring *u, bool wake, bool other) {
  if (other && unsent(u)) {
    u->sqe_tail--;
    u->other_armed = false;
  }
  if (wake && unsent(u)) {
    u->sqe_tail--;
    u->wake_armed = false;
  }
}

static void uring_sleep(struct device *d, int64_t timeout_ns) {
  struct uring *u = uring_of(d);
  u->stats.sleeps++;
  if (u->retry.count) restart_retries(u);
  collect(u);
  bool woken = __atomic_exchange_n(&u->wake_pending, 0, __ATOMIC_SEQ_CST);
  bool wake_before = u->wake_armed, other_before = u->other_armed;
  bool armed = !woken && !u->ready.head && arm(u);
  if (u->retry.count) { /* they are not in the kernel: nothing else would end the sleep */
    int64_t left = io_retry_left_ns(&u->retry, clock_now_ns(&u->clock));
    if (timeout_ns < 0 || left < timeout_ns) timeout_ns = left;
  }
  if (!armed) {
    if (unsent(u)) enter(u, 0, 0);
  } else {
    enter(u, 1, timeout_ns);
  }
  disarm_unsent(u, u->wake_armed && !wake_before, u->other_armed && !other_before);
  collect(u);
  __atomic_exchange_n(&u->wake_pending, 0, __ATOMIC_SEQ_CST);
}

static void uring_sleep_on(struct device *d, int fd) { uring_of(d)->other_fd = fd; }

/* ---- Files and memory ------------------------------------------------------------------- */

static int uring_attach(struct device *d, uint16_t slot, struct backing *b) {
  struct uring *u = uring_of(d);
  if (slot >= u->file_count || (b && b->fd < 0)) return -EINVAL;
  int fd = b ? b->fd : -1;
  if (!u->stats.files_registered) {
    u->files[slot] = fd;
    return 0;
  }
  int rc = io_uring_register_files_update(&u->ring, slot, &fd, 1);
  if (rc < 0) return rc;
  u->files[slot] = b ? slot : -1;
  return 0;
}

static int update_range(struct uring *u, uint32_t index, void *base, size_t bytes) {
  struct iovec iov = {base, bytes};
  __u64 tag = 0;
  int rc = io_uring_register_buffers_update_tag(&u->ring, index, &iov, &tag, 1);
  return rc < 0 ? rc : 0;
}

static void set_range(struct uring *u, uint32_t index, struct range range) {
  u->ranges[index] = range;
  u->hit = empty_range;
  u->range_count = 0;
  for (uint32_t i = 0; i < DEVICE_RANGES; i++)
    if (u->ranges[i].end) u->range_count = i + 1;
  u->stats.buffers_registered = u->range_count != 0;
}

static int uring_register_memory(struct device *d, uint32_t index, void *base, size_t bytes) {
  struct uring *u = uring_of(d);
  if (index >= DEVICE_RANGES || bytes == 0 || bytes > DEVICE_RANGE_BYTES) return -EINVAL;
  if (!is_aligned((uintptr_t)base | bytes, BLOCK_BYTES)) return -EINVAL;
  int rc = u->buffers_sparse ? update_range(u, index, base, bytes) : -ENOMEM;
  if (rc == 0) {
    set_range(u, index, (struct range){(uintptr_t)base, (uintptr_t)base + bytes});
    return 0;
  }
  if (!u->warned)
    log_line(&u->logger, 1,
             "io_uring: %zu bytes of memory could not be registered (%s; RLIMIT_MEMLOCK?): "
             "I/O goes on with unregistered buffers",
             bytes, strerror(-rc));
  u->warned = true;
  return rc == -EPERM ? -ENOMEM : rc;
}

static void uring_unregister_memory(struct device *d, uint32_t index) {
  struct uring *u = uring_of(d);
  if (index >= DEVICE_RANGES || !u->ranges[index].end) return;
  set_range(u, index, empty_range);
  check(update_range(u, index, NULL, 0) == 0);
}

/* ---- Life ------------------------------------------------------------------------------- */

static const struct {
  uint32_t flag;
  const char *name;
} setup_flags[] = {
    /* The order in which they are given up: the newest first; and each goes before the one
     * that it needs (DEFER_TASKRUN needs SINGLE_ISSUER, TASKRUN_FLAG one of the TASKRUNs). */
    {IORING_SETUP_DEFER_TASKRUN, "defer_taskrun"}, {IORING_SETUP_SINGLE_ISSUER, "single_issuer"},
    {IORING_SETUP_TASKRUN_FLAG, "taskrun_flag"},   {IORING_SETUP_COOP_TASKRUN, "coop_taskrun"},
    {IORING_SETUP_SUBMIT_ALL, "submit_all"},       {IORING_SETUP_CLAMP, "clamp"},
};

static void add_flag_name(char *text, size_t bytes, bool granted, const char *name) {
  size_t used = strlen(text);
  snprintf(text + used, bytes - used, "%s%s%s", used ? " " : "", granted ? "" : "!", name);
}

/* Makes the ring with as many flags as the kernel takes; those granted are in ring->flags. */
static int make_ring(struct io_uring *ring, uint32_t entries) {
  uint32_t flags = 0;
  for (size_t i = 0; i < array_size(setup_flags); i++) flags |= setup_flags[i].flag;
  for (size_t dropped = 0;; dropped++) {
    struct io_uring_params params = {.flags = flags};
    int rc = io_uring_queue_init_params(entries, ring, &params);
    if (rc == 0) {
      /* The timeout of a sleep needs EXT_ARG; both are in every kernel since 5.11. */
      const uint32_t needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP;
      if ((params.features & needed) == needed) return 0;
      io_uring_queue_exit(ring);
      return -ENOSYS;
    }
    if (rc != -EINVAL || dropped == array_size(setup_flags)) return rc;
    flags &= ~setup_flags[dropped].flag;
  }
}

int uring_probe(void) {
  struct io_uring ring;
  int rc = make_ring(&ring, 4);
  if (rc == 0) io_uring_queue_exit(&ring);
  return rc;
}

static void note_flags(struct uring *u, bool ring_fd) {
  char *text = u->stats.flags;
  for (size_t i = 0; i < array_size(setup_flags); i++)
    add_flag_name(text, sizeof u->stats.flags, u->ring.flags & setup_flags[i].flag,
                  setup_flags[i].name);
  add_flag_name(text, sizeof u->stats.flags, ring_fd, "ring_fd");
}

/* Copies out of liburing's structure what the request path uses. */
static void adopt_ring(struct uring *u, uint32_t queue_depth) {
  struct io_uring *ring = &u->ring;
  u->sqes = ring->sq.sqes;
  u->sq_head = ring->sq.khead;
  u->sq_tail = ring->sq.ktail;
  u->sq_flags = ring->sq.kflags;
  u->sq_mask = ring->sq.ring_mask;
  u->sqe_tail = *ring->sq.ktail;
  u->cqes = ring->cq.cqes;
  u->cq_head = ring->cq.khead;
  u->cq_tail = ring->cq.ktail;
  u->cq_mask = ring->cq.ring_mask;
  u->cap = (uint32_t)min_u64(queue_depth, ring->sq.ring_entries);
  check(u->cap + 2 <= ring->cq.ring_entries); /* for the wake, and for other_fd */
  u->taskrun_flag = ring->flags & IORING_SETUP_TASKRUN_FLAG;
}

static void register_all(struct uring *u) {
  bool ring_fd = io_uring_register_ring_fd(&u->ring) == 1;
  u->enter_fd = u->ring.enter_ring_fd;
  u->enter_flags = IORING_ENTER_GETEVENTS | (ring_fd ? IORING_ENTER_REGISTERED_RING : 0);
  note_flags(u, ring_fd);
  /* A page shared with a child could be copied under a request: keep the ring out of it. */
  (void)io_uring_ring_dontfork(&u->ring);
  u->stats.files_registered = io_uring_register_files_sparse(&u->ring, u->file_count) == 0;
  u->sqe_flags = u->stats.files_registered ? IOSQE_FIXED_FILE : 0;
  u->buffers_sparse = io_uring_register_buffers_sparse(&u->ring, DEVICE_RANGES) == 0;
  if (!u->stats.files_registered)
    log_line(&u->logger, 1, "io_uring: files could not be registered: plain descriptors");
}

static void uring_free(struct uring *u) {
  if (u->wake_fd >= 0) close(u->wake_fd);
  free(u->files);
  free(u->runs);
  free(u);
}

static int uring_create(struct device **d, const struct device_options *options) {
  if (options->queue_depth == 0 || options->file_count == 0) return -EINVAL;
  struct uring *u = aligned_alloc(64, round_up(sizeof *u, 64));
  if (!u) return -ENOMEM;
  memset(u, 0, sizeof *u);
  u->device.ops = &device_uring;
  u->logger = options->logger;
  u->clock = options->clock.now_ns ? options->clock : clock_monotonic;
  u->file_count = options->file_count;
  io_list_init(&u->waiting);
  io_list_init(&u->ready);
  io_retry_init(&u->retry);
  u->hit = empty_range;
  /* A read of wake_fd moves 8, a poll gives bits: always odd answers. */
  u->wake_io.bytes = 1;
  u->other_io.bytes = IO_BYTES_MAX;
  u->other_fd = -1;
  for (uint32_t i = 0; i < DEVICE_RANGES; i++) u->ranges[i] = empty_range;
  /* Not EFD_NONBLOCK: some kernels answer the read of such a descriptor at once with -EAGAIN
   * instead of waiting for it. */
  u->wake_fd = eventfd(0, EFD_CLOEXEC);
  u->files = malloc(u->file_count * sizeof *u->files);
  u->runs = calloc(RUNS, sizeof *u->runs);
  int rc = u->wake_fd < 0 ? -errno : u->files && u->runs ? 0 : -ENOMEM;
  if (rc == 0) rc = make_ring(&u->ring, (uint32_t)max_u64(options->queue_depth, 2));
  if (rc < 0) {
    uring_free(u);
    return rc;
  }
  for (uint32_t i = 0; i < u->file_count; i++) u->files[i] = -1;
  for (struct run *r = u->runs; r < u->runs + RUNS; r++) {
    r->uring = u;
    r->next = u->free_runs;
    u->free_runs = r;
  }
  adopt_ring(u, options->queue_depth);
  register_all(u);
  *d = &u->device;
  return 0;
}

/* Waits for what the kernel still has, whose memory the caller is about to take back. No
 * callbacks. */
static void drain(struct uring *u) {
  io_list_init(&u->waiting);
  if (u->wake_armed) uring_wake(&u->device);
  while (u->in_flight || u->wake_armed) {
    u->in_flight -= u->retry.count;
    io_retry_init(&u->retry);
    if (u->in_flight || u->wake_armed) enter(u, 1, -1);
    collect(u);
  }
}

static void uring_destroy(struct device *d) {
  if (!d) return;
  struct uring *u = uring_of(d);
  drain(u);
  io_uring_queue_exit(&u->ring);
  uring_free(u);
}

static uint32_t uring_in_flight(const struct device *d) {
  const struct uring *u = container_of(d, const struct uring, device);
  return u->in_flight + u->waiting_count + u->ready_count;
}

static void uring_stats(const struct device *d, struct device_stats *stats) {
  *stats = container_of(d, const struct uring, device)->stats;
}

const struct device_ops device_uring = {
    .name = "uring",
    .create = uring_create,
    .destroy = uring_destroy,
    .attach = uring_attach,
    .register_memory = uring_register_memory,
    .unregister_memory = uring_unregister_memory,
    .submit = uring_submit,
    .poll = uring_poll,
    .sleep = uring_sleep,
    .wake = uring_wake,
    .sleep_on = uring_sleep_on,
    .in_flight = uring_in_flight,
    .stats = uring_stats,
};
