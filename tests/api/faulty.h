/* faulty.h - a device that fails, wakes late or cannot be made, put under a whole store by
 * store_config.engine_ops, and stores on it. One engine wraps another: what is to fail never
 * reaches the inner one. Include after <cmocka.h>. */
#ifndef TESTS_API_FAULTY_H
#define TESTS_API_FAULTY_H

#include <sched.h>
#include <stdatomic.h>

#include "api/internal.h"
#include "tests/api/fixture.h"

/* ---- The engine ------------------------------------------------------------------------------ */

static struct {
  const struct device_ops *inner;
  _Atomic int op, file;    /* what fails; op 0: nothing */
  _Atomic uint64_t before; /* only below this offset; 0: anywhere */
  _Atomic uint32_t hits;
  _Atomic int polls;   /* what fails stays in flight so many polls */
  int create_fails_at; /* number of the engine that cannot be made; 0: none */
  _Atomic int created, alive, late_wakes;
  _Atomic int slow_wakes; /* 1: all; 2: those by cores, which get up by themselves sooner */
} faults;

struct faulty {
  struct device device;
  struct device *inner;
  struct io *failed;
  uint32_t failed_count;
  atomic_bool gone;
};
static struct faulty kept[16]; /* never freed, so that a wake of a dead engine can be told */

static inline struct faulty *faulty_of(const struct device *d) {
  return container_of((struct device *)(uintptr_t)d, struct faulty, device);
}

static const struct device_ops faulty_ops;

static inline int faulty_create(struct device **d, const struct device_options *options) {
  int n = atomic_fetch_add(&faults.created, 1);
  if (n + 1 == faults.create_fails_at) return -ENOMEM;
  struct faulty *f = &kept[n % 16];
  *f = (struct faulty){.device.ops = &faulty_ops};
  int r = faults.inner->create(&f->inner, options);
  if (r) return r;
  atomic_fetch_add(&faults.alive, 1);
  *d = &f->device;
  return 0;
}
static inline void faulty_destroy(struct device *d) {
  struct faulty *f = faulty_of(d);
  atomic_store(&f->gone, true);
  f->inner->ops->destroy(f->inner);
  atomic_fetch_sub(&faults.alive, 1);
}
static inline int faulty_attach(struct device *d, uint16_t slot, struct backing *b) {
  struct faulty *f = faulty_of(d);
  return f->inner->ops->attach(f->inner, slot, b);
}
static inline int faulty_register(struct device *d, uint32_t index, void *base, size_t bytes) {
  struct faulty *f = faulty_of(d);
  return f->inner->ops->register_memory(f->inner, index, base, bytes);
}
static inline void faulty_unregister(struct device *d, uint32_t index) {
  struct faulty *f = faulty_of(d);
  f->inner->ops->unregister_memory(f->inner, index);
}
static inline void faulty_submit(struct device *d, struct io *io) {
  struct faulty *f = faulty_of(d);
  uint64_t before = atomic_load(&faults.before);
  if (io->op != atomic_load(&faults.op) || io->file != atomic_load(&faults.file) ||
      (before && io->offset >= before)) {
    device_submit(f->inner, io);
    return;
  }
  atomic_fetch_add(&faults.hits, 1);
  io->next = f->failed;
  f->failed = io;
  f->failed_count++;
}
static inline uint32_t faulty_poll(struct device *d) {
  struct faulty *f = faulty_of(d);
  struct io *io = f->failed;
  uint32_t n = f->failed_count;
  if (io && atomic_load(&faults.polls) > 0) {
    atomic_fetch_sub(&faults.polls, 1);
    return device_poll(f->inner);
  }
  f->failed = NULL;
  f->failed_count = 0;
  while (io) {
    struct io *next = io->next;
    io->result = -EIO;
    io->done(io);
    io = next;
  }
  return n + device_poll(f->inner);
}
static inline void faulty_sleep(struct device *d, int64_t timeout_ns) {
  struct faulty *f = faulty_of(d);
  if (atomic_load(&faults.slow_wakes) == 2) timeout_ns = 1000000;
  if (!f->failed) f->inner->ops->sleep(f->inner, timeout_ns);
}
/* A wake that is slow to arrive: whoever is woken must be there still. */
static inline void faulty_wake(struct device *d) {
  struct faulty *f = faulty_of(d);
  int slow = atomic_load(&faults.slow_wakes);
  if (slow == 1 || (slow == 2 && gettid() != getpid())) usleep(20000);
  if (atomic_load(&f->gone))
    atomic_fetch_add(&faults.late_wakes, 1);
  else
    f->inner->ops->wake(f->inner);
}
static inline uint32_t faulty_in_flight(const struct device *d) {
  const struct faulty *f = faulty_of(d);
  return f->failed_count + f->inner->ops->in_flight(f->inner);
}
static inline void faulty_stats(const struct device *d, struct device_stats *stats) {
  const struct faulty *f = faulty_of(d);
  f->inner->ops->stats(f->inner, stats);
}
static const struct device_ops faulty_ops = {.name = "faulty",
                                             .create = faulty_create,
                                             .destroy = faulty_destroy,
                                             .attach = faulty_attach,
                                             .register_memory = faulty_register,
                                             .unregister_memory = faulty_unregister,
                                             .submit = faulty_submit,
                                             .poll = faulty_poll,
                                             .sleep = faulty_sleep,
                                             .wake = faulty_wake,
                                             .in_flight = faulty_in_flight,
                                             .stats = faulty_stats};

static inline void fail_io(int op, int file, uint64_t before) {
  atomic_store(&faults.file, file);
  atomic_store(&faults.before, before);
  atomic_store(&faults.op, op);
}
static inline void fail_nothing(void) { atomic_store(&faults.op, 0); }

/* ---- Stores on it -------------------------------------------------------------------------------
 */

static inline void keep_line(void *arg, int level, const char *text) {
  keep_log(arg, (enum sr_log_level)level, text);
}

static inline uint32_t two_cores_if_there_are(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < 2 ? 1 : 2;
}

static inline struct store_config faulty_config(struct fixture *f) {
  char why[128];
  memset(&faults, 0, sizeof faults);
  faults.inner = device_choose(why, sizeof why);
  f->log[0] = 0;
  return (struct store_config){.core_count = two_cores_if_there_are(),
                               .no_background = true,
                               .no_pin = true,
                               .queue_depth = 64,
                               .poll_us = 50,
                               .arena_bytes = 4 * MIB,
                               .seed = 1,
                               .logger = {keep_line, f},
                               .engine_ops = &faulty_ops,
                               .local_finished = local_finished};
}

static inline struct sr_store *open_faulty(struct fixture *f, struct store_config *config) {
  struct store *s;
  int r = store_open(&s, f->where, config);
  if (r) print_error("open: %s\n%s", strerror(-r), f->log);
  assert_int_equal(r, 0);
  return (struct sr_store *)s;
}

static inline struct sr_id id_on_shard(struct sr_store *s, uint32_t shard) {
  for (uint64_t n = 0;; n++)
    if (sr_shard_of(s, id_of(n)) == shard) return id_of(n);
}

static inline void put_everywhere(struct sr_store *s, struct sr_port *p, const char *value) {
  for (uint32_t shard = 0; shard < sr_shard_count(s); shard++)
    assert_int_equal(sr_put(p, id_on_shard(s, shard), value, strlen(value), 0), 0);
}

static inline void assert_value(struct sr_port *p, struct sr_id id, const char *value) {
  char out[16] = "";
  assert_int_equal(sr_get(p, id, out, 0, sizeof out), strlen(value));
  assert_string_equal(out, value);
}

/* One of two: what was written but for a flush that failed may be there. */
static inline void assert_value_of(struct sr_port *p, struct sr_id id, const char *one,
                                   const char *other) {
  char out[16] = "";
  int64_t n = sr_get(p, id, out, 0, sizeof out);
  assert_true(n == (int64_t)strlen(out) && (!strcmp(out, one) || !strcmp(out, other)));
}

/* Shard 1 of 3 has stopped, with "new" unflushed in all; the others go on. Then the crash. */
static inline void assert_only_shard_1_stopped(struct fixture *f, struct sr_store *s,
                                               struct sr_port *p) {
  struct sr_id id[3];
  for (uint32_t i = 0; i < 3; i++) id[i] = id_on_shard(s, i);
  for (uint32_t i = 0; i < 3; i++) assert_value(p, id[i], "new"); /* reads go on */
  assert_int_equal(sr_put(p, id[0], "newer", 5, 0), 0);
  assert_int_equal(sr_put(p, id[1], "newer", 5, 0), -EIO);
  assert_int_equal(sr_delete(p, id[1], 0), -EIO);
  assert_int_equal(sr_put(p, id[2], "newer", 5, SR_DURABLE), 0);
  assert_int_equal(sr_flush(p), -EIO); /* not everything is durable, and never will be */
  assert_true(sr_needs_flush(s));
  assert_non_null(strstr(f->log, "shard 1"));
  assert_null(strstr(f->log, "shard 0"));
  assert_null(strstr(f->log, "shard 2"));
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  assert_value(p, id[0], "newer");
  assert_value_of(p, id[1], "old", "new");
  assert_value(p, id[2], "newer");
  assert_int_equal(sr_put(p, id[1], "again", 5, 0), 0);
  assert_int_equal(sr_flush(p), 0);
  close_both(s, p);
}

#endif
