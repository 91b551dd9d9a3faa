/* test_batch_crash.c - after a crash a batch is there in full or not at all: at every step of a
 * stepped store, beside durable puts and flushes, and when writers race them. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "api/internal.h"
#include "tests/api/parts.h"

/* ---- Every moment of a batch --------------------------------------------------------------------
 */

static uint64_t still(void *arg) { return *(uint64_t *)arg; }
static const uint64_t noon = 1000;
static struct clock stopped_clock(void) { return (struct clock){still, (void *)(uintptr_t)&noon}; }

static struct sr_store *open_stepped(struct layout *l, const struct clock *clock, bool read_only) {
  struct store_config config = {.core_count = 2,
                                .stepped = true,
                                .no_background = true,
                                .read_only = read_only,
                                .queue_depth = 64,
                                .arena_bytes = MIB,
                                .seed = 1,
                                .clock = clock,
                                .engine_ops = &device_mem,
                                .layout = l,
                                .local_finished = local_finished};
  struct store *s;
  assert_int_equal(store_open(&s, NULL, &config), 0);
  return (struct sr_store *)s;
}

static bool is_zero(const char *block) {
  static const char zeros[BLOCK_BYTES];
  return memcmp(block, zeros, BLOCK_BYTES) == 0;
}

/* The same bytes in memory. Most of them were never touched. */
static struct layout *copy_layout(const struct layout *l, bool read_only) {
  struct backing *copies[8];
  struct layout *out;
  struct logger quiet = {0};
  assert_true(l->backing_count <= 8);
  char *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  for (uint32_t b = 0; b < l->backing_count; b++) {
    struct backing *from = l->backings[b];
    assert_int_equal(backing_open_memory(&copies[b], from->bytes), 0);
    for (uint64_t at = 0; at < from->bytes; at += BLOCK_BYTES) {
      const char *bytes = from->memory ? (char *)from->memory + at : block;
      if (!from->memory) assert_int_equal(from->ops->read(from, block, BLOCK_BYTES, at), 0);
      if (!is_zero(bytes)) memcpy((char *)copies[b]->memory + at, bytes, BLOCK_BYTES);
    }
  }
  free(block);
  assert_int_equal(layout_open_backings(&out, copies, l->backing_count, read_only, &quiet), 0);
  return out;
}

/* What a crash now would leave, opened: which of the ids have the new value? */
static uint32_t look_at_image(struct sr_store *s, const struct clock *clock, const uint64_t *ids,
                              uint32_t count) {
  uint32_t mask = 0;
  struct sr_store *copy = open_stepped(copy_layout(store_of(s)->layout, true), clock, true);
  struct sr_port *p = open_port(copy);
  for (uint32_t i = 0; i < count; i++) {
    char out[8] = "";
    int64_t n = sr_get(p, id_of(ids[i]), out, 0, sizeof out);
    assert_int_equal(n, 3);
    mask |= (uint32_t)(strcmp(out, "new") == 0) << i;
  }
  close_both(copy, p);
  return mask;
}

/* Steps until r is done; at every step the crash leaves of the batch all or nothing. Returns how
 * many times it was all. */
static uint32_t step_and_look(struct sr_store *s, struct sr_port *p, struct sr_request *r,
                              const uint64_t *ids) {
  const struct clock clock = stopped_clock();
  struct sr_request *out[1], *list[1] = {r};
  uint32_t all = 0;
  assert_int_equal(sr_port_submit(p, list, 1), 1);
  for (int n = 0; n == 0; n = sr_port_reap(p, out, 1)) {
    for (uint32_t core = 0; core < 2; core++) {
      core_step(&store_of(s)->cores[core]);
      uint32_t mask = look_at_image(s, &clock, ids, 3);
      assert_true((mask & 3) == 0 || (mask & 3) == 3);
      all += (mask & 3) == 3;
    }
  }
  assert_int_equal(r->result, 0);
  return all;
}

static struct sr_store *open_stepped_copy(struct fixture *f, const struct clock *clock) {
  struct logger quiet = {0};
  struct layout *files;
  format_store(f, 2, 16 * MIB);
  assert_int_equal(layout_open(&files, f->where, true, 0, 2, &quiet), 0);
  struct sr_store *s = open_stepped(copy_layout(files, false), clock, false);
  layout_close(files);
  return s;
}

static void every_moment_leaves_all_or_nothing(void **state, bool durable) {
  struct fixture *f = *state;
  const struct clock clock = stopped_clock();
  struct sr_store *s = open_stepped_copy(f, &clock);
  struct sr_port *p = open_port(s);
  const uint64_t ids[3] = {id_in(s, 0, 0), id_in(s, 1, 0), id_in(s, 0, 1000)};
  struct parts b = make_parts(2);
  struct sr_request batch, put = request_of_op(SR_OP_PUT, 0, "new", 3);
  for (uint32_t i = 0; i < 3; i++) assert_int_equal(sr_put(p, id_of(ids[i]), "old", 3, 0), 0);
  assert_int_equal(sr_flush(p), 0);
  add_put(&b, ids[0], "new");
  add_put(&b, ids[1], "new");
  batch = request_of_op(SR_OP_BATCH, 0, b.list, 2);
  batch.flags = durable ? SR_DURABLE : 0;
  uint32_t all = step_and_look(s, p, &batch, ids);
  assert_true(durable ? all > 0 : all == 0);
  /* A durable put in one of the shards must not take the batch's half there with it. */
  put.id = id_of(ids[2]);
  put.flags = SR_DURABLE;
  step_and_look(s, p, &put, ids);
  assert_int_equal(look_at_image(s, &clock, ids, 3), 7);
  free_parts(&b);
  close_both(s, p);
}

static void every_moment_of_a_batch(void **state) {
  every_moment_leaves_all_or_nothing(state, false);
}
static void every_moment_of_a_durable_batch(void **state) {
  every_moment_leaves_all_or_nothing(state, true);
}

/* A flush that comes while a batch is at any of its steps has all of it or nothing; also where a
 * commit in one of the shards makes it wait there. */
struct moment {
  const char *turn; /* which core steps, over and over */
  uint32_t batch_at, flush_at;
};

/* Returns what the flush has left of the batch. */
static uint32_t meet(struct sr_store *s, struct sr_port *p, const uint64_t *ids,
                     const struct moment *m) {
  const struct clock clock = stopped_clock();
  struct parts b = make_parts(2);
  struct sr_request put = request_of_op(SR_OP_PUT, 0, "new", 3), batch,
                    flush = request_of_op(SR_OP_FLUSH, 0, NULL, 0), *out[3];
  struct sr_request *list[3] = {&put, &batch, &flush};
  uint32_t mask = 0;
  for (uint32_t i = 0; i < 2; i++) add_put(&b, ids[i], "new");
  put.id = id_of(ids[2]);
  put.flags = SR_DURABLE;
  batch = request_of_op(SR_OP_BATCH, 0, b.list, 2);
  assert_int_equal(sr_port_submit(p, list, 1), 1);
  for (uint32_t step = 0; sr_port_in_flight(p) > 0 || step <= m->flush_at; step++) {
    if (step == m->batch_at) assert_int_equal(sr_port_submit(p, list + 1, 1), 1);
    if (step == m->flush_at) assert_int_equal(sr_port_submit(p, list + 2, 1), 1);
    core_step(&store_of(s)->cores[m->turn[step % strlen(m->turn)] - '0']);
    for (int n = sr_port_reap(p, out, 3); n > 0; n--)
      if (out[n - 1] == &flush) mask = look_at_image(s, &clock, ids, 2);
  }
  assert_int_equal(put.result, 0);
  assert_int_equal(batch.result, 0);
  assert_int_equal(flush.result, 0);
  free_parts(&b);
  return mask;
}

static void a_flush_at_any_moment_of_a_batch(void **state) {
  struct fixture *f = *state;
  static const char turns[][5] = {"01", "0001", "0111"};
  const struct clock clock = stopped_clock();
  struct sr_store *s = open_stepped_copy(f, &clock);
  struct sr_port *p = open_port(s);
  const uint64_t ids[3] = {id_in(s, 0, 0), id_in(s, 1, 0), id_in(s, 1, 1000)};
  uint32_t seen[2] = {0};
  for (uint32_t i = 0; i < 3 * 8 * 8; i++) {
    const struct moment m = {turns[i % 3], i / 3 % 8, i / 3 % 8 + i / 24};
    for (uint32_t k = 0; k < 3; k++) assert_int_equal(sr_put(p, id_of(ids[k]), "old", 3, 0), 0);
    assert_int_equal(sr_flush(p), 0);
    uint32_t mask = meet(s, p, ids, &m);
    assert_true(mask == 0 || mask == 3);
    seen[mask & 1]++;
  }
  assert_true(seen[0] > 0 && seen[1] > 0);
  close_both(s, p);
}

/* ---- Races ----------------------------------------------------------------------------------- */

#define WRITERS 3
#define IDS     12

/* Writers raise a counter in all their ids by batches, some of them durable, and put durable blobs
 * in between; the main thread flushes. After the crash all ids of a writer have one value. */
struct writer {
  struct sr_store *store;
  uint32_t number;
  _Atomic uint64_t completed, durable;
  atomic_bool stop;
  atomic_int failed;
};

static uint64_t writer_id(const struct writer *w, uint32_t i) { return w->number * 1000 + i; }

static void *write_batches(void *arg) {
  struct writer *w = arg;
  struct sr_request request[IDS], *list[IDS];
  struct sr_port *p;
  if (sr_port_open(w->store, NULL, &p)) {
    atomic_store(&w->failed, 1);
    return NULL;
  }
  for (uint64_t n = 1; !atomic_load(&w->stop); n++) {
    for (uint32_t i = 0; i < IDS; i++) {
      request[i] = request_of_op(SR_OP_PUT, 0, &n, sizeof n);
      request[i].id = id_of(writer_id(w, i));
      list[i] = &request[i];
    }
    bool durable = n % 8 == 0;
    if (sr_batch(p, list, IDS, durable ? SR_DURABLE : 0)) atomic_store(&w->failed, 1);
    atomic_store(&w->completed, n);
    if (durable) atomic_store(&w->durable, n);
    if (n % 3 == 0 && sr_put(p, id_of(writer_id(w, 100 + n % 7)), &n, sizeof n, SR_DURABLE))
      atomic_store(&w->failed, 1);
  }
  if (sr_port_close(p)) atomic_store(&w->failed, 1);
  return NULL;
}

static void assert_whole(struct sr_port *p, const struct writer *w, uint64_t at_least) {
  uint64_t got, first = 0;
  for (uint32_t i = 0; i < IDS; i++) {
    int64_t n = sr_get(p, id_of(writer_id(w, i)), &got, 0, sizeof got);
    if (n == -ENOENT) got = 0, n = sizeof got;
    assert_int_equal(n, sizeof got);
    if (i == 0) first = got;
    assert_int_equal(got, first);
  }
  assert_true(first >= at_least && first <= atomic_load(&w->completed));
}

static void batches_race_flushes_and_durable_puts(void **state) {
  struct fixture *f = *state;
  static struct writer w[WRITERS];
  pthread_t thread[WRITERS];
  uint64_t noted[WRITERS];
  memset(w, 0, sizeof w);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  for (uint32_t i = 0; i < WRITERS; i++) {
    w[i].store = s;
    w[i].number = i;
    assert_int_equal(pthread_create(&thread[i], NULL, write_batches, &w[i]), 0);
  }
  for (int i = 0; i < 20; i++) {
    for (uint32_t k = 0; k < WRITERS; k++) noted[k] = atomic_load(&w[k].completed);
    assert_int_equal(sr_flush(p), 0);
  }
  for (uint32_t i = 0; i < WRITERS; i++) atomic_store(&w[i].stop, true);
  for (uint32_t i = 0; i < WRITERS; i++) pthread_join(thread[i], NULL);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  for (uint32_t i = 0; i < WRITERS; i++) {
    uint64_t durable = atomic_load(&w[i].durable);
    assert_int_equal(atomic_load(&w[i].failed), 0);
    assert_whole(p, &w[i], noted[i] > durable ? noted[i] : durable);
  }
  close_both(s, p);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(every_moment_of_a_batch),
      TEST(every_moment_of_a_durable_batch),
      TEST(a_flush_at_any_moment_of_a_batch),
      TEST(batches_race_flushes_and_durable_puts),
  };
  cmocka_set_test_filter(getenv("CMOCKA_FILTER"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
