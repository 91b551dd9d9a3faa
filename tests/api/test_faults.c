/* test_faults.c - a device that fails, wakes late or cannot be made, put under a whole store by
 * store_config.engine_ops; and a store without threads, driven by steps under a clock that stands
 * still. One engine wraps another: what is to fail never reaches the inner one. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

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

static struct faulty *faulty_of(const struct device *d) {
  return container_of((struct device *)(uintptr_t)d, struct faulty, device);
}

static const struct device_ops faulty_ops;

static int faulty_create(struct device **d, const struct device_options *options) {
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
static void faulty_destroy(struct device *d) {
  struct faulty *f = faulty_of(d);
  atomic_store(&f->gone, true);
  f->inner->ops->destroy(f->inner);
  atomic_fetch_sub(&faults.alive, 1);
}
static int faulty_attach(struct device *d, uint16_t slot, struct backing *b) {
  struct faulty *f = faulty_of(d);
  return f->inner->ops->attach(f->inner, slot, b);
}
static int faulty_register(struct device *d, uint32_t index, void *base, size_t bytes) {
  struct faulty *f = faulty_of(d);
  return f->inner->ops->register_memory(f->inner, index, base, bytes);
}
static void faulty_unregister(struct device *d, uint32_t index) {
  struct faulty *f = faulty_of(d);
  f->inner->ops->unregister_memory(f->inner, index);
}
static void faulty_submit(struct device *d, struct io *io) {
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
static uint32_t faulty_poll(struct device *d) {
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
static void faulty_sleep(struct device *d, int64_t timeout_ns) {
  struct faulty *f = faulty_of(d);
  if (atomic_load(&faults.slow_wakes) == 2) timeout_ns = 1000000;
  if (!f->failed) f->inner->ops->sleep(f->inner, timeout_ns);
}
/* A wake that is slow to arrive: whoever is woken must be there still. */
static void faulty_wake(struct device *d) {
  struct faulty *f = faulty_of(d);
  int slow = atomic_load(&faults.slow_wakes);
  if (slow == 1 || (slow == 2 && gettid() != getpid())) usleep(20000);
  if (atomic_load(&f->gone))
    atomic_fetch_add(&faults.late_wakes, 1);
  else
    f->inner->ops->wake(f->inner);
}
static uint32_t faulty_in_flight(const struct device *d) {
  const struct faulty *f = faulty_of(d);
  return f->failed_count + f->inner->ops->in_flight(f->inner);
}
static void faulty_stats(const struct device *d, struct device_stats *stats) {
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

static void fail_io(int op, int file, uint64_t before) {
  atomic_store(&faults.file, file);
  atomic_store(&faults.before, before);
  atomic_store(&faults.op, op);
}
static void fail_nothing(void) { atomic_store(&faults.op, 0); }

/* ---- Stores on it -------------------------------------------------------------------------------
 */

static void keep_line(void *arg, int level, const char *text) {
  keep_log(arg, (enum sr_log_level)level, text);
}

static uint32_t two_cores_if_there_are(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < 2 ? 1 : 2;
}

static struct store_config faulty_config(struct fixture *f) {
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

static struct sr_store *open_faulty(struct fixture *f, struct store_config *config) {
  struct store *s;
  int r = store_open(&s, f->where, config);
  if (r) print_error("open: %s\n%s", strerror(-r), f->log);
  assert_int_equal(r, 0);
  return (struct sr_store *)s;
}

static struct sr_id id_on_shard(struct sr_store *s, uint32_t shard) {
  for (uint64_t n = 0;; n++)
    if (sr_shard_of(s, id_of(n)) == shard) return id_of(n);
}

static void put_everywhere(struct sr_store *s, struct sr_port *p, const char *value) {
  for (uint32_t shard = 0; shard < sr_shard_count(s); shard++)
    assert_int_equal(sr_put(p, id_on_shard(s, shard), value, strlen(value), 0), 0);
}

static void assert_value(struct sr_port *p, struct sr_id id, const char *value) {
  char out[16] = "";
  assert_int_equal(sr_get(p, id, out, 0, sizeof out), strlen(value));
  assert_string_equal(out, value);
}

/* Shard 1 of 3 has stopped, with "new" unflushed in all; the others go on. Then the crash. */
static void assert_only_shard_1_stopped(struct fixture *f, struct sr_store *s, struct sr_port *p) {
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
  assert_value(p, id[1], "old");
  assert_value(p, id[2], "newer");
  assert_int_equal(sr_put(p, id[1], "again", 5, 0), 0);
  assert_int_equal(sr_flush(p), 0);
  close_both(s, p);
}

static void a_failed_flush_stops_its_shard_alone(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  put_everywhere(s, p, "new");
  fail_io(IO_FLUSH, 2, 0); /* file 0 is the root's */
  assert_int_equal(sr_flush(p), -EIO);
  fail_nothing();
  assert_int_equal(atomic_load(&faults.hits), 1); /* never tried again */
  assert_only_shard_1_stopped(f, s, p);
}

static void a_failed_log_write_stops_its_shard_alone(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  put_everywhere(s, p, "new");
  fail_io(IO_WRITE, 2, (FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT) + MIB); /* the log */
  assert_int_equal(sr_flush(p), -EIO);
  fail_nothing();
  assert_true(atomic_load(&faults.hits) > 0);
  assert_only_shard_1_stopped(f, s, p);
}

static void a_failed_durable_put_is_told(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  put_everywhere(s, p, "new");
  fail_io(IO_FLUSH, 2, 0);
  assert_int_equal(sr_put(p, id_on_shard(s, 1), "new", 3, SR_DURABLE), -EIO);
  fail_nothing();
  assert_only_shard_1_stopped(f, s, p);
}

/* What was dirty stops; what was clean can be written, and flushed, afterwards. */
static void a_failed_root_stops_what_was_dirty(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  struct sr_id id[3];
  for (uint32_t i = 0; i < 3; i++) id[i] = id_on_shard(s, i);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(sr_put(p, id[1], "new", 3, 0), 0);
  fail_io(IO_WRITE, 0, 0);
  assert_int_equal(sr_flush(p), -EIO);
  fail_nothing();
  assert_int_equal(atomic_load(&faults.hits), 1);
  assert_value(p, id[1], "new");
  assert_int_equal(sr_put(p, id[1], "no", 2, 0), -EIO);
  assert_int_equal(sr_put(p, id[0], "new", 3, 0), 0);
  assert_int_equal(sr_flush(p), -EIO);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), -EIO); /* closed all the same */
  assert_int_equal(atomic_load(&faults.alive), 0);
  s = open_store(f);
  p = open_port(s);
  assert_value(p, id[0], "new");
  assert_value(p, id[1], "old");
  assert_value(p, id[2], "old");
  close_both(s, p);
}

/* All callers of a flush that fails hear of it, those who came while it ran too. */
static void every_caller_hears_of_a_failed_flush(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  struct sr_request r[10], *list[10], *out[10];
  put_everywhere(s, p, "new");
  for (int i = 0; i < 10; i++) r[i] = request_of_op(SR_OP_FLUSH, 0, NULL, 0), list[i] = &r[i];
  fail_io(IO_FLUSH, 1, 0);
  assert_int_equal(sr_port_submit(p, list, 10), 10);
  for (int back = 0; back < 10; back += sr_port_reap(p, out, 10)) sr_port_wait(p, -1);
  for (int i = 0; i < 10; i++) assert_int_equal(r[i].result, -EIO);
  assert_int_equal(atomic_load(&faults.hits), 1);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), -EIO);
}

static void failed_reads_and_data_writes_are_of_one_request(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  char out[8];
  assert_int_equal(sr_put(p, id_of(1), "old", 3, 0), 0);
  fail_io(IO_READ, 1, 0);
  assert_int_equal(sr_get(p, id_of(1), out, 0, 8), -EIO);
  fail_io(IO_WRITE, 1, 0);
  assert_int_equal(sr_put(p, id_of(1), "new", 3, 0), -EIO);
  fail_nothing();
  assert_int_equal(atomic_load(&faults.hits), 2);
  assert_value(p, id_of(1), "old");
  assert_int_equal(sr_put(p, id_of(1), "new", 3, 0), 0);
  assert_int_equal(sr_flush(p), 0);
  assert_value(p, id_of(1), "new");
  close_both(s, p);
}

/* ---- Opening and closing ------------------------------------------------------------------------
 */

static void an_open_that_fails_leaves_nothing(void **state) {
  struct fixture *f = *state;
  format_store(f, 3, 16 * MIB);
  struct store_config config = faulty_config(f);
  struct store *s = NULL;
  for (int at = 1; at <= (int)config.core_count;
       at++) { /* one core's engine cannot be made: the other stops again */
    faults.create_fails_at = at;
    atomic_store(&faults.created, 0);
    assert_int_equal(store_open(&s, f->where, &config), -ENOMEM);
    assert_int_equal(atomic_load(&faults.alive), 0);
  }
  faults.create_fails_at = 0;
  fail_io(IO_WRITE, 0, 0); /* the first root */
  assert_int_equal(store_open(&s, f->where, &config), -EIO);
  assert_int_equal(atomic_load(&faults.alive), 0);
  assert_non_null(strstr(f->log, "first root"));
  fail_nothing();
  config.arena_bytes = UINT64_C(1) << 50;
  assert_int_equal(store_open(&s, f->where, &config), -EINVAL);
  config.arena_bytes = 4 * MIB;
  struct sr_store *good = open_faulty(f, &config); /* neither lock nor damage is left */
  assert_int_equal(sr_store_close(good), 0);
  assert_null(s);
}

static void a_layout_stays_the_callers_until_the_store_is_open(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  struct store *s;
  faults.inner = &device_mem;
  assert_int_equal(layout_open(&config.layout, "mem:32M:2", false, 0, 1, &config.logger), 0);
  faults.create_fails_at = (int)config.core_count;
  assert_int_equal(store_open(&s, "mem:", &config), -ENOMEM);
  faults.create_fails_at = 0;
  fail_io(IO_WRITE, 0, 0);
  assert_int_equal(store_open(&s, "mem:", &config), -EIO);
  fail_nothing();
  assert_int_equal(store_open(&s, "mem:", &config), 0);
  assert_int_equal(store_close(s, true), 0);
}

/* The core may see that it shall stop before the wake that comes with it. */
static void no_core_is_woken_after_its_end(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  config.poll_us = 500000; /* awake when it is told to stop */
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  atomic_store(&faults.slow_wakes, 1);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_equal(atomic_load(&faults.late_wakes), 0);
  assert_int_equal(atomic_load(&faults.alive), 0);
  /* Nor by another core, for what it found by itself long ago. */
  config = faulty_config(f);
  for (int i = 0; i < 5; i++) {
    s = open_faulty(f, &config);
    struct sr_port *p = open_port(s);
    put_everywhere(s, p, "x");
    atomic_store(&faults.slow_wakes, 2);
    close_both(s, p);
    atomic_store(&faults.slow_wakes, 0);
    assert_int_equal(atomic_load(&faults.late_wakes), 0);
  }
}

/* ---- Stepped
 * --------------------------------------------------------------------------------------- */

static uint64_t virtual_now(void *arg) { return *(uint64_t *)arg; }

static void a_stepped_store_needs_no_threads(void **state) {
  struct fixture *f = *state;
  uint64_t now = 1000;
  const struct clock clock = {virtual_now, &now};
  struct store_config config = faulty_config(f);
  faults.inner = &device_mem;
  config.core_count = 3;
  config.stepped = true;
  config.no_background = false;
  config.clock = &clock;
  assert_int_equal(layout_open(&config.layout, "mem:64M:4", false, 0, 1, &config.logger), 0);
  struct sr_store *s = open_faulty(f, &config);
  for (uint32_t i = 0; i < 3; i++) assert_false(store_of(s)->cores[i].thread_started);
  struct sr_port *p = open_port(s);
  struct sr_request r[100], *list[100], *out[100];
  for (uint64_t i = 0; i < 100; i++)
    r[i] = request_of_op(SR_OP_PUT, i, &r[i].id, 16), list[i] = &r[i];
  assert_int_equal(sr_port_submit(p, list, 100), 100);
  assert_int_equal(sr_port_reap(p, out, 100), 0); /* nothing moves by itself */
  for (int back = 0; back < 100; back += sr_port_reap(p, out, 100)) store_step(store_of(s));
  for (uint64_t i = 0; i < 100; i++) assert_int_equal(r[i].result, 0);
  assert_int_equal(sr_port_wait(p, 0), -ENODATA);
  assert_true(sr_needs_flush(s));
  assert_int_equal(sr_flush(p), 0); /* blocking calls step */
  assert_false(sr_needs_flush(s));
  for (uint64_t i = 0; i < 100; i++) {
    struct sr_id got;
    assert_int_equal(sr_get(p, (struct sr_id){0, i}, &got, 0, 16), 16);
    assert_true(got.hi == 0 && got.lo == i);
  }
  now += 1000000000;
  assert_int_equal(sr_checkpoint(p), 0);
  close_both(s, p);
  assert_int_equal(atomic_load(&faults.alive), 0);
}

/* The first core is idle long before the last one, whose write takes its time. */
static void a_stepped_store_closes_while_a_core_is_at_work(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  config.core_count = 2;
  config.stepped = true;
  config.no_background = false;
  format_store(f, 2, 16 * MIB); /* reserved, not written: zeroed ahead */
  fail_io(IO_WRITE, 2, 0);
  atomic_store(&faults.polls, INT32_MAX);
  struct sr_store *s = open_faulty(f, &config);
  for (int i = 0; i < 10 && atomic_load(&faults.hits) == 0; i++) store_step(store_of(s));
  assert_true(atomic_load(&faults.hits) > 0);
  atomic_store(&faults.polls, 100000);
  sr_store_abandon(s);
  assert_int_equal(atomic_load(&faults.polls), 0);
  assert_int_equal(atomic_load(&faults.alive), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_failed_flush_stops_its_shard_alone),
      TEST(a_failed_log_write_stops_its_shard_alone),
      TEST(a_failed_durable_put_is_told),
      TEST(a_failed_root_stops_what_was_dirty),
      TEST(every_caller_hears_of_a_failed_flush),
      TEST(failed_reads_and_data_writes_are_of_one_request),
      TEST(an_open_that_fails_leaves_nothing),
      TEST(a_layout_stays_the_callers_until_the_store_is_open),
      TEST(no_core_is_woken_after_its_end),
      TEST(a_stepped_store_needs_no_threads),
      TEST(a_stepped_store_closes_while_a_core_is_at_work),
  };
  cmocka_set_test_filter(getenv("CMOCKA_FILTER"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
