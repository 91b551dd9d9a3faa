/* test_flush.c - the store-wide flush: what races it is not lost, callers share it, a failed one
 * is not pretended, and its cost is one flush a file and one FUA write. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

#define IDS 64

/* Writers raise a counter per id; before each flush the main thread notes what had completed.
 * After the crash every counter must be at least what was noted before the last flush. */
struct racer {
  struct sr_store *store;
  _Atomic uint64_t completed[IDS];
  atomic_bool stop;
  atomic_int failed;
};

static void *write_on(void *arg) {
  struct racer *r = arg;
  struct sr_port *p;
  if (sr_port_open(r->store, NULL, &p)) {
    atomic_store(&r->failed, 1);
    return NULL;
  }
  for (uint64_t n = 1; !atomic_load(&r->stop); n++)
    for (uint64_t id = 0; id < IDS; id++) {
      if (sr_put(p, id_of(id), &n, sizeof n, 0)) atomic_store(&r->failed, 1);
      atomic_store(&r->completed[id], n);
    }
  if (sr_port_close(p)) atomic_store(&r->failed, 1);
  return NULL;
}

static void a_write_that_races_a_flush_is_not_lost(void **state) {
  struct fixture *f = *state;
  static struct racer r;
  uint64_t noted[IDS], got;
  pthread_t writer;
  memset(&r, 0, sizeof r);
  format_store(f, 3, 16 * MIB);
  r.store = open_store(f);
  struct sr_port *p = open_port(r.store);
  assert_int_equal(pthread_create(&writer, NULL, write_on, &r), 0);
  for (int i = 0; i < 30; i++) {
    for (uint64_t id = 0; id < IDS; id++) noted[id] = atomic_load(&r.completed[id]);
    assert_int_equal(sr_flush(p), 0);
  }
  atomic_store(&r.stop, true);
  pthread_join(writer, NULL);
  assert_int_equal(atomic_load(&r.failed), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(r.store);
  struct sr_store *s = open_store(f);
  p = open_port(s);
  for (uint64_t id = 0; id < IDS; id++) {
    int64_t n = sr_get(p, id_of(id), &got, 0, sizeof got);
    if (noted[id] == 0 && n == -ENOENT) continue;
    assert_int_equal(n, 8);
    assert_true(got >= noted[id] && got <= atomic_load(&r.completed[id]));
  }
  close_both(s, p);
}

struct io_counts {
  uint64_t flushes, fua, store_flushes, shared;
};
static struct io_counts counts(struct sr_store *s, struct sr_port *p) {
  struct io_counts c = {0};
  struct sr_store_stats st;
  for (uint32_t i = 0; i < sr_core_count(s); i++) {
    struct sr_core_stats cs;
    assert_int_equal(sr_core_stats(p, i, &cs), 0);
    c.flushes += cs.device_flushes;
    c.fua += cs.device_fua_writes;
  }
  assert_int_equal(sr_store_stats(p, &st), 0);
  c.store_flushes = st.flushes;
  c.shared = st.flushes_shared;
  return c;
}

static void dirty_every_shard(struct sr_store *s, struct sr_port *p) {
  uint32_t left = sr_shard_count(s);
  bool seen[64] = {false};
  for (uint64_t i = 0; left > 0; i++) {
    uint32_t shard = sr_shard_of(s, id_of(i));
    if (seen[shard]) continue;
    seen[shard] = true;
    left--;
    assert_int_equal(sr_put(p, id_of(i), "x", 1, 0), 0);
  }
}

static void a_flush_costs_one_flush_a_file_and_one_fua_write(void **state) {
  struct fixture *f = *state;
  format_store(f, 8, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  dirty_every_shard(s, p);
  struct io_counts a = counts(s, p);
  assert_int_equal(sr_flush(p), 0);
  struct io_counts b = counts(s, p);
  assert_int_equal(b.flushes - a.flushes, 8);
  assert_int_equal(b.fua - a.fua, 1);
  assert_int_equal(sr_flush(p), 0); /* nothing is dirty: no I/O */
  struct io_counts c = counts(s, p);
  assert_int_equal(c.flushes, b.flushes);
  assert_int_equal(c.fua, b.fua);
  assert_int_equal(sr_put(p, id_of(1), "y", 1, 0), 0); /* only the dirty shard's file */
  assert_int_equal(sr_flush(p), 0);
  struct io_counts d = counts(s, p);
  assert_int_equal(d.flushes - c.flushes, 1);
  assert_int_equal(d.fua - c.fua, 1);
  close_both(s, p);
}

static void what_a_durable_put_has_synced_is_not_synced_again(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(1), "durable", 7, SR_DURABLE), 0);
  struct io_counts a = counts(s, p);
  assert_int_equal(sr_flush(p), 0);
  struct io_counts b = counts(s, p);
  assert_int_equal(b.flushes - a.flushes, 0); /* only the root */
  assert_int_equal(b.fua - a.fua, 1);
  assert_int_equal(sr_put(p, id_of(1), "durable", 7, SR_DURABLE), 0);
  assert_int_equal(sr_put(p, id_of(1), "not", 3, 0), 0); /* the same shard */
  a = counts(s, p);
  assert_int_equal(sr_flush(p), 0);
  b = counts(s, p);
  assert_int_equal(b.flushes - a.flushes, 1);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  char out[8];
  assert_int_equal(sr_get(p, id_of(1), out, 0, 8), 3);
  close_both(s, p);
}

static void slices_of_one_device_share_one_flush(void **state) {
  struct fixture *f = *state;
  const uint32_t shards[] = {1, 2, 8, 64};
  for (uint32_t i = 0; i < 4; i++) {
    snprintf(f->where, sizeof f->where, "mem:%uM:%u", 16 * shards[i], shards[i]);
    struct sr_store *s = open_store(f);
    struct sr_port *p = open_port(s);
    dirty_every_shard(s, p);
    struct io_counts a = counts(s, p);
    assert_int_equal(sr_flush(p), 0);
    struct io_counts b = counts(s, p);
    assert_int_equal(b.flushes - a.flushes, 1);
    assert_int_equal(b.fua - a.fua, 1);
    close_both(s, p);
  }
}

static void concurrent_callers_share_a_flush(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct sr_request r[10], *list[10], *out[10];
  dirty_every_shard(s, p);
  struct io_counts a = counts(s, p);
  for (int i = 0; i < 10; i++) r[i] = request_of_op(SR_OP_FLUSH, 0, NULL, 0), list[i] = &r[i];
  assert_int_equal(sr_port_submit(p, list, 10), 10);
  for (int back = 0; back < 10; back += sr_port_reap(p, out, 10)) sr_port_wait(p, -1);
  for (int i = 0; i < 10; i++) assert_int_equal(r[i].result, 0);
  struct io_counts b = counts(s, p);
  /* The first starts one; the nine others come meanwhile and share the next. */
  assert_int_equal(b.store_flushes - a.store_flushes, 2);
  assert_int_equal(b.shared - a.shared, 8);
  assert_int_equal(b.fua - a.fua, 1);
  close_both(s, p);
}

/* Without any flush by the user the log must not fill up. */
static void a_long_run_without_flush_goes_on(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB); /* a log of 1 MiB */
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  enum { N = 512, ROUNDS = 120 };
  struct sr_request *r = aligned_alloc(64, N * sizeof *r), **list = calloc(N, sizeof *list),
                    *out[64];
  for (uint64_t k = 0; k < ROUNDS; k++) {
    uint32_t sent = 0, back = 0;
    for (uint32_t i = 0; i < N; i++) r[i] = request_of_op(SR_OP_PUT, i, &k, 8), list[i] = &r[i];
    while (back < N) {
      int n = sent < N ? sr_port_submit(p, list + sent, N - sent) : 0;
      if (n > 0) sent += (uint32_t)n;
      back += (uint32_t)sr_port_reap(p, out, 64);
      if (back < sent) sr_port_wait(p, -1);
    }
    for (uint32_t i = 0; i < N; i++) assert_int_equal(r[i].result, 0);
  }
  struct sr_store_stats st;
  assert_int_equal(sr_store_stats(p, &st), 0);
  assert_true(st.checkpoints > 0);
  close_both(s, p);
  s = open_store(f);
  p = open_port(s);
  for (uint64_t i = 0, got; i < N; i++) {
    assert_int_equal(sr_get(p, (struct sr_id){0, i}, &got, 0, 8), 8);
    assert_int_equal(got, ROUNDS - 1);
  }
  free(r), free(list);
  close_both(s, p);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_write_that_races_a_flush_is_not_lost),
      TEST(a_flush_costs_one_flush_a_file_and_one_fua_write),
      TEST(what_a_durable_put_has_synced_is_not_synced_again),
      TEST(slices_of_one_device_share_one_flush),
      TEST(concurrent_callers_share_a_flush),
      TEST(a_long_run_without_flush_goes_on),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
