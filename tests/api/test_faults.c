/* test_faults.c - a device that fails, wakes late or cannot be made, put under a whole store by
 * store_config.engine_ops; and a store without threads, driven by steps under a clock that stands
 * still. One engine wraps another: what is to fail never reaches the inner one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/api/faulty.h"

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
  assert_int_equal(sr_checkpoint(p), 0); /* a flush that waits for its root */
  assert_int_equal(sr_put(p, id[1], "new", 3, SR_NO_CHECKSUM), 0); /* only a root makes it count */
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

/* What is durable and no root names yet: an open in which a flush fails leaves it as it is. */
static void a_flush_that_fails_in_an_open_loses_nothing(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  struct store *none;
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  struct sr_id id = id_on_shard(s, 1);
  assert_int_equal(sr_put(p, id, "verified", 8, SR_DURABLE), 0);
  assert_int_equal(sr_put(p, id, "newer", 5, SR_DURABLE | SR_NO_CHECKSUM), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  fail_io(IO_FLUSH, 2, 0);
  assert_int_equal(store_open(&none, f->where, &config), -EIO);
  assert_true(atomic_load(&faults.hits) > 0);
  fail_nothing();
  s = open_faulty(f, &config);
  p = open_port(s);
  assert_value(p, id, "newer");
  close_both(s, p);
}

/* Reads of a root slot fail. */
static const struct backing_ops *whole_ops;
static uint64_t bad_offset, bad_bytes;
static int read_or_fail(struct backing *b, void *buf, uint64_t bytes, uint64_t offset) {
  if (offset < bad_offset + bad_bytes && offset + bytes > bad_offset) return -EIO;
  return whole_ops->read(b, buf, bytes, offset);
}

/* The epoch that serves, or a negative errno; slot: of the one that cannot be read. */
static int64_t epoch_without(struct fixture *f, const struct logger *logger, uint32_t slot) {
  struct backing *parts[2];
  struct backing_open how = {.read_only = false};
  struct layout *l;
  char path[800];
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", f->where, i ? "shard-0000" : "root");
    assert_int_equal(backing_open_path(&parts[i], path, &how, logger), 0);
  }
  struct backing_ops failing = *parts[0]->ops;
  whole_ops = parts[0]->ops;
  failing.read = read_or_fail;
  parts[0]->ops = &failing;
  bad_offset = (FORMAT_IDENTITY_BLOCKS + slot * (bad_bytes >> BLOCK_SHIFT)) << BLOCK_SHIFT;
  int r = layout_open_backings(&l, parts, 2, false, logger);
  if (r) return r;
  int64_t epoch = (int64_t)l->root->epoch;
  l->backings[0]->ops = whole_ops;
  layout_close(l);
  return epoch;
}

/* The newest root may lie in one slot alone: where that cannot be read the one before must not take
 * its place, nor be written over it. */
static void a_root_that_cannot_be_read_is_not_replaced(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 1, 16 * MIB);
  for (int i = 0; i < 5; i++) assert_int_equal(sr_store_close(open_faulty(f, &config)), 0);
  int64_t newest = epoch_without(f, &config.logger, 0); /* all of it can be read */
  bad_bytes = 2 * BLOCK_BYTES;                          /* a slot */
  assert_true(newest > 5);
  /* Its second copy was under way when the power failed. */
  char path[800], zeros[2 * BLOCK_BYTES] = {0};
  snprintf(path, sizeof path, "%s/root", f->where);
  int fd = open(path, O_WRONLY);
  off_t second = (FORMAT_IDENTITY_BLOCKS + 2 * root_mirror_of_epoch((uint64_t)newest))
                 << BLOCK_SHIFT;
  assert_int_equal(pwrite(fd, zeros, sizeof zeros, second), sizeof zeros);
  close(fd);
  for (uint32_t slot = 0; slot < FORMAT_ROOT_SLOTS; slot++) {
    bool newest_there = slot == root_slot_of_epoch((uint64_t)newest);
    bool next_there = slot == root_slot_of_epoch((uint64_t)newest + 1);
    assert_int_equal(epoch_without(f, &config.logger, slot),
                     newest_there || next_there ? -EIO : newest);
  }
  assert_non_null(strstr(f->log, "may have a newer root"));
}

/* A killed process has left what it had completed, in memory. Once a flush has failed nobody knows
 * what of it the device has. */
static void memory_counts_no_more_after_a_failed_flush(void **state) {
  SKIP_WITHOUT_MEMORY();
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  struct store *none;
  int status;
  config.memory_dir = MEMORY_DIRECTORY;
  format_store(f, 3, 16 * MIB);
  pid_t pid = fork();
  if (pid == 0) {
    struct store *s;
    if (store_open(&s, f->where, &config)) _exit(1);
    put_everywhere((struct sr_store *)s, open_port((struct sr_store *)s), "left");
    kill(getpid(), SIGKILL);
  }
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status));
  fail_io(IO_FLUSH, 2, 0);
  assert_int_equal(store_open(&none, f->where, &config), -EIO);
  assert_true(atomic_load(&faults.hits) > 0);
  fail_nothing();
  assert_int_equal(sr_store_close(open_faulty(f, &config)), 0);
  assert_non_null(strstr(f->log, "the process before had a write or a flush that failed"));
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

/* ---- Stepped --------------------------------------------------------------------------------- */

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
      TEST(a_flush_that_fails_in_an_open_loses_nothing),
      TEST(memory_counts_no_more_after_a_failed_flush),
      TEST(a_root_that_cannot_be_read_is_not_replaced),
      TEST(a_layout_stays_the_callers_until_the_store_is_open),
      TEST(no_core_is_woken_after_its_end),
      TEST(a_stepped_store_needs_no_threads),
      TEST(a_stepped_store_closes_while_a_core_is_at_work),
  };
  cmocka_set_test_filter(getenv("CMOCKA_FILTER"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
