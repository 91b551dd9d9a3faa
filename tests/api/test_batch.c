/* test_batch.c - atomic batches through the public interface: what they do, what they refuse,
 * what an error leaves, and in which order they take effect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "api/internal.h"
#include "tests/api/parts.h"

static void assert_value(struct sr_port *p, uint64_t id, const char *value) {
  char out[32] = "";
  int64_t n = sr_get(p, id_of(id), out, 0, sizeof out);
  if (!value) {
    assert_int_equal(n, -ENOENT);
    return;
  }
  assert_int_equal(n, strlen(value));
  assert_string_equal(out, value);
}

/* ---- What a batch does ---------------------------------------------------------------------- */

static void puts_and_deletes(struct sr_store *s) {
  struct sr_port *p = open_port(s);
  struct parts b = make_parts(8);
  assert_int_equal(sr_put(p, id_of(1), "old", 3, 0), 0);
  assert_int_equal(sr_put(p, id_of(2), "old", 3, 0), 0);
  add_put(&b, 1, "new");
  add_delete(&b, 2);
  add_put(&b, 3, "");
  add_put(&b, 4, "first");
  add_put(&b, 4, "last");
  add_put(&b, 5, "gone");
  add_delete(&b, 5);
  add_delete(&b, 6);
  assert_int_equal(sr_batch(p, b.list, b.count, 0), 0);
  for (uint32_t i = 0; i < 7; i++) assert_int_equal(b.request[i].result, 0);
  assert_int_equal(b.request[7].result, -ENOENT);
  assert_true(sr_needs_flush(s));
  assert_value(p, 1, "new");
  assert_value(p, 2, NULL);
  assert_value(p, 3, "");
  assert_value(p, 4, "last");
  assert_value(p, 5, NULL);
  assert_int_equal(sr_count(p), 3);
  assert_int_equal(sr_flush(p), 0);
  assert_false(sr_needs_flush(s));
  assert_int_equal(sr_port_close(p), 0);
  free_parts(&b);
}

static void a_batch_in_memory(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "mem:64M:4");
  struct sr_store *s = open_store(f);
  puts_and_deletes(s);
  assert_int_equal(sr_store_close(s), 0);
}

static void a_batch_in_files_is_there_after_a_crash(void **state) {
  struct fixture *f = *state;
  format_store(f, 4, 16 * MIB);
  struct sr_store *s = open_store(f);
  puts_and_deletes(s);
  sr_store_abandon(s);
  s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_value(p, 1, "new");
  assert_value(p, 2, NULL);
  assert_value(p, 3, "");
  assert_value(p, 4, "last");
  assert_int_equal(sr_count(p), 3);
  close_both(s, p);
}

/* ---- What is refused ------------------------------------------------------------------------- */

static int submit_one(struct sr_port *p, struct sr_request *const parts[], uint64_t count,
                      uint32_t flags) {
  struct sr_request r = request_of_op(SR_OP_BATCH, 0, (void *)(uintptr_t)parts, count);
  struct sr_request *list = &r;
  r.flags = flags;
  return sr_port_submit(p, &list, 1);
}

static void ignore(struct sr_request *r) { (void)r; }

static void malformed_batches_are_refused(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "mem:32M:2");
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  static struct sr_request *many[SR_BATCH_PARTS_MAX + 1];
  struct parts b = make_parts(2);
  add_put(&b, 1, "a");
  add_put(&b, 2, "b");
  struct sr_request good = b.request[1];
#define REFUSED(field, value)                                                                      \
  do {                                                                                             \
    b.request[1].field = value;                                                                    \
    assert_int_equal(sr_batch(p, b.list, 2, 0), -EINVAL);                                          \
    assert_int_equal(submit_one(p, b.list, 2, 0), -EINVAL);                                        \
    b.request[1] = good;                                                                           \
  } while (0)
  REFUSED(op, SR_OP_GET);
  REFUSED(op, SR_OP_FLUSH);
  REFUSED(op, SR_OP_BATCH);
  REFUSED(flags, SR_DURABLE);
  REFUSED(flags, SR_IF_ABSENT);
  REFUSED(flags, SR_RESERVE);
  REFUSED(done, ignore);
  REFUSED(buf, NULL);
  assert_int_equal(sr_batch(p, b.list, 0, 0), -EINVAL);
  assert_int_equal(sr_batch(p, NULL, 2, 0), -EINVAL);
  assert_int_equal(sr_batch(NULL, b.list, 2, 0), -EINVAL);
  assert_int_equal(sr_batch(p, b.list, 2, SR_IF_ABSENT), -EINVAL);
  assert_int_equal(submit_one(p, b.list, 2, SR_NO_CHECKSUM), -EINVAL);
  assert_int_equal(submit_one(p, NULL, 2, 0), -EINVAL);
  assert_int_equal(submit_one(p, b.list, SR_BATCH_PARTS_MAX + 1ull, 0), -EINVAL);
  for (uint32_t i = 0; i <= SR_BATCH_PARTS_MAX; i++) many[i] = &b.request[0];
  assert_int_equal(sr_batch(p, many, 2, 0), -EINVAL); /* one part twice */
  assert_int_equal(sr_batch(p, many, SR_BATCH_PARTS_MAX + 1, 0), -EINVAL);
  b.list[1] = NULL;
  assert_int_equal(sr_batch(p, b.list, 2, 0), -EINVAL);
  assert_int_equal(sr_port_in_flight(p), 0);
  assert_int_equal(sr_count(p), 0);
  b.list[1] = &b.request[1];
  assert_int_equal(sr_batch(p, b.list, 2, 0), 0);
  free_parts(&b);
  close_both(s, p);
}

static void a_read_only_store_takes_no_batch(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_open_options o = open_options(f);
  struct sr_store *s;
  o.read_only = true;
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  struct sr_port *p = open_port(s);
  struct parts b = make_parts(2);
  add_delete(&b, 1);
  assert_int_equal(sr_batch(p, b.list, 1, 0), -EROFS);
  add_put(&b, 2, "b");
  assert_int_equal(sr_batch(p, b.list, 2, SR_DURABLE), -EROFS);
  assert_int_equal(b.request[0].result, -ECANCELED);
  assert_int_equal(b.request[1].result, -EROFS);
  free_parts(&b);
  close_both(s, p);
}

/* ---- Errors: nothing has happened, nothing is lost ---------------------------------------------
 */

static struct sr_space space_now(struct sr_port *p) {
  struct sr_space space;
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(sr_space(p, &space), 0);
  return space;
}

static void assert_nothing_happened(struct sr_port *p, const struct sr_space *before,
                                    const struct parts *b, uint32_t failed, int64_t error) {
  struct sr_space after = space_now(p);
  for (uint32_t i = 0; i < b->count; i++)
    assert_int_equal(b->request[i].result, i == failed ? error : -ECANCELED);
  assert_int_equal(after.free_bytes, before->free_bytes);
  assert_int_equal(after.blobs, before->blobs);
  assert_int_equal(after.live_bytes, before->live_bytes);
}

static void what_does_not_fit_fails_the_whole_batch(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "mem:32M:2");
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct parts b = make_parts(4);
  char *big = calloc(1, 16 * MIB);
  uint64_t zero = id_in(s, 0, 0), one = id_in(s, 1, 0);
  assert_int_equal(sr_put(p, id_of(zero), "old", 3, 0), 0);
  struct sr_space before = space_now(p);
  add_put(&b, zero, "new");
  add_part(&b, SR_OP_PUT, id_of(one), big, 16 * MIB);
  add_delete(&b, zero);
  assert_int_equal(sr_batch(p, b.list, b.count, 0), -ENOSPC);
  assert_nothing_happened(p, &before, &b, 1, -ENOSPC);
  assert_value(p, zero, "old");
  b.request[1].bytes = SR_BLOB_BYTES_MAX + 1;
  assert_int_equal(sr_batch(p, b.list, b.count, SR_DURABLE), -EFBIG);
  assert_nothing_happened(p, &before, &b, 1, -EFBIG);
  struct sr_store_stats st;
  assert_int_equal(sr_store_stats(p, &st), 0);
  assert_int_equal(st.batches, 2);
  assert_int_equal(st.batches_failed, 2);
  b.request[1].bytes = 8 * MIB;
  assert_int_equal(sr_batch(p, b.list, b.count, 0), 0);
  assert_value(p, zero, NULL);
  free(big);
  free_parts(&b);
  close_both(s, p);
}

/* Until nothing is in flight. */
static void wait_for(struct sr_port *p) {
  struct sr_request *out[4];
  while (sr_port_in_flight(p) > 0) {
    sr_port_wait(p, -1);
    for (int n = sr_port_reap(p, out, 4); n > 0; n--) assert_int_equal(out[n - 1]->result, 0);
  }
}

/* ---- Large batches, and logs that are full ------------------------------------------------------
 */

static void large_batches_with_blobs_of_many_sizes(void **state) {
  struct fixture *f = *state;
  enum { N = SR_BATCH_PARTS_MAX };
  format_store(f, 3, 32 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct parts b = make_parts(N);
  uint8_t *bytes = malloc(2 * MIB), *got = malloc(2 * MIB);
  fill_bytes(bytes, 2 * MIB, 7);
  for (uint32_t i = 0; i < N; i++) {
    add_part(&b, SR_OP_PUT, id_of(i), bytes + i, i == 5 ? 3 * MIB / 2 : i * 37);
    if (i % 5 == 0) b.request[i].flags = SR_NO_CHECKSUM;
  }
  assert_int_equal(sr_batch(p, b.list, N, SR_DURABLE), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  for (uint32_t i = 0; i < N; i++) {
    uint64_t n = b.request[i].bytes;
    assert_int_equal(b.request[i].result, 0);
    assert_int_equal(sr_get(p, id_of(i), got, 0, 2 * MIB), n);
    assert_memory_equal(got, bytes + i, n);
  }
  free(bytes), free(got);
  free_parts(&b);
  close_both(s, p);
}

static uint64_t noon(void *arg) {
  (void)arg;
  return 1000;
}

/* Without threads, so that all batches come to the gate together. */
static struct sr_store *open_stepped(void) {
  static const struct clock clock = {noon, NULL};
  struct store_config config = {.core_count = 1,
                                .stepped = true,
                                .queue_depth = 64,
                                .arena_bytes = MIB,
                                .seed = 1,
                                .clock = &clock,
                                .engine_ops = &device_mem,
                                .local_finished = local_finished};
  struct store *s;
  assert_int_equal(store_open(&s, "mem:16M:1", &config), 0);
  return (struct sr_store *)s;
}

/* More in flight than a log of 1 MiB holds: they wait for flushes, and for checkpoints. */
static void batches_go_on_when_the_log_is_full(void **state) {
  (void)state;
  enum { N = SR_BATCH_PARTS_MAX, DEPTH = 150, ROUNDS = 2, PUTS = 800 };
  struct sr_store *s = open_stepped();
  struct sr_port *p = open_port(s);
  struct parts b[DEPTH];
  struct sr_request batch[DEPTH], *list[DEPTH], *put = aligned_alloc(64, PUTS * sizeof *put);
  struct sr_request *puts[PUTS];
  uint64_t value[DEPTH], got, first = 0;
  for (uint32_t k = 0; k < DEPTH; k++) {
    b[k] = make_parts(N);
    for (uint32_t i = 0; i < N; i++)
      add_part(&b[k], SR_OP_PUT, id_of(i), &value[k], i % 8 ? 0 : sizeof value[k]);
  }
  for (uint32_t round = 0; round < ROUNDS; round++) {
    for (uint32_t k = 0; k < PUTS; k++) { /* these must not always be first */
      put[k] = request_of_op(SR_OP_PUT, k, &value[0], sizeof value[0]);
      puts[k] = &put[k];
    }
    assert_int_equal(sr_port_submit(p, puts, PUTS), PUTS);
    for (uint32_t k = 0; k < DEPTH; k++) {
      value[k] = round * DEPTH + k;
      batch[k] = request_of_op(SR_OP_BATCH, 0, b[k].list, N);
      list[k] = &batch[k];
    }
    assert_int_equal(sr_port_submit(p, list, DEPTH), DEPTH);
    wait_for(p);
  }
  struct sr_store_stats st;
  assert_int_equal(sr_store_stats(p, &st), 0);
  assert_true(st.batch_retries > 0);
  assert_int_equal(st.batches, ROUNDS * DEPTH);
  assert_int_equal(st.batches_failed, 0);
  for (uint32_t i = 0; i < N; i++) {
    assert_int_equal(sr_get(p, id_of(i), &got, 0, sizeof got), i % 8 ? 0 : sizeof got);
    if (i == 0) first = got;
    assert_true(i % 8 || (got == first && got >= (ROUNDS - 1) * DEPTH));
    b[0].request[i].op = SR_OP_DELETE;
  }
  assert_int_equal(sr_batch(p, b[0].list, N, SR_DURABLE), 0);
  assert_int_equal(sr_count(p), PUTS);
  free(put);
  for (uint32_t k = 0; k < DEPTH; k++) free_parts(&b[k]);
  close_both(s, p);
}

/* ---- Many at once ---------------------------------------------------------------------------- */

#define WRITERS 3
#define IDS     12

/* Several ports write all ids, each with its own value, all in flight at once. */
static void batches_take_effect_in_one_order_on_all_shards(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "mem:64M:4");
  struct sr_store *s = open_store(f);
  struct sr_port *p[WRITERS];
  struct parts b[WRITERS];
  struct sr_request batch[WRITERS], *list[1];
  uint64_t value[WRITERS], got, first;
  for (uint32_t w = 0; w < WRITERS; w++) {
    p[w] = open_port(s);
    b[w] = make_parts(IDS);
    for (uint32_t i = 0; i < IDS; i++)
      add_part(&b[w], SR_OP_PUT, id_of((i * 5 + w) % IDS), &value[w], sizeof value[w]);
  }
  for (uint64_t round = 1; round <= 200; round++) {
    for (uint32_t w = 0; w < WRITERS; w++) {
      value[w] = round * WRITERS + w;
      batch[w] = request_of_op(SR_OP_BATCH, 0, b[w].list, IDS);
      list[0] = &batch[w];
      assert_int_equal(sr_port_submit(p[w], list, 1), 1);
    }
    for (uint32_t w = 0; w < WRITERS; w++) wait_for(p[w]);
    for (uint32_t i = 0; i < IDS; i++) {
      assert_int_equal(sr_get(p[0], id_of(i), &got, 0, sizeof got), sizeof got);
      if (i == 0) first = got;
      assert_int_equal(got, first);
      assert_int_equal(got / WRITERS, round);
    }
  }
  for (uint32_t w = 0; w < WRITERS; w++) {
    assert_int_equal(sr_port_close(p[w]), 0);
    free_parts(&b[w]);
  }
  assert_int_equal(sr_store_close(s), 0);
}

/* ---- On a core --------------------------------------------------------------------------------
 */

struct on_core {
  struct parts parts;
  struct sr_request batch;
  atomic_int result; /* 1: not yet */
};

static void core_batch_done(struct sr_request *r) {
  struct on_core *c = r->user;
  atomic_store(&c->result, (int)r->result);
}

static void submit_on_core(struct sr_port *port, void *arg) {
  struct on_core *c = arg;
  struct sr_request *list = &c->batch;
  int n = sr_port_submit(port, &list, 1);
  if (n != 1) atomic_store(&c->result, n);
}

static void a_batch_through_a_cores_own_port(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "mem:64M:4");
  struct sr_store *s = open_store(f);
  for (uint32_t shard = 0; shard < 4; shard++) {
    struct on_core c = {.parts = make_parts(IDS)};
    atomic_store(&c.result, 1);
    for (uint64_t i = 0; i < IDS; i++) add_put(&c.parts, shard * 100 + i, "core");
    c.batch = request_of_op(SR_OP_BATCH, 0, c.parts.list, IDS);
    c.batch.flags = SR_DURABLE;
    c.batch.done = core_batch_done;
    c.batch.user = &c;
    assert_int_equal(sr_store_run(s, shard, submit_on_core, &c), 0);
    while (atomic_load(&c.result) == 1) usleep(100);
    assert_int_equal(atomic_load(&c.result), 0);
    for (uint32_t i = 0; i < IDS; i++) assert_int_equal(c.parts.request[i].result, 0);
    free_parts(&c.parts);
  }
  assert_false(sr_needs_flush(s));
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_count(p), 4 * IDS);
  close_both(s, p);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_batch_in_memory),
      TEST(a_batch_in_files_is_there_after_a_crash),
      TEST(malformed_batches_are_refused),
      TEST(a_read_only_store_takes_no_batch),
      TEST(what_does_not_fit_fails_the_whole_batch),
      TEST(large_batches_with_blobs_of_many_sizes),
      TEST(batches_go_on_when_the_log_is_full),
      TEST(batches_take_effect_in_one_order_on_all_shards),
      TEST(a_batch_through_a_cores_own_port),
  };
  cmocka_set_test_filter(getenv("CMOCKA_FILTER"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
