/* test_requests.c - requests through ports: batches, order, waiting, cores' own ports, streams,
 * lists, statistics; on a store in memory and on files, by the argument. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

static struct sr_store *fresh(struct fixture *f) {
  format_store(f, 3, 32 * MIB);
  return open_store(f);
}

/* Submits all, reaping when the port is full, until all are back. */
static void run_all(struct sr_port *p, struct sr_request *r, uint32_t n) {
  struct sr_request **list = calloc(n, sizeof *list), *out[64];
  uint32_t sent = 0, back = 0;
  for (uint32_t i = 0; i < n; i++) list[i] = &r[i];
  while (back < n) {
    if (sent < n) {
      int s = sr_port_submit(p, list + sent, n - sent);
      assert_true(s > 0 || s == -EAGAIN);
      if (s > 0) sent += (uint32_t)s;
    }
    int b = sr_port_reap(p, out, 64);
    assert_true(b >= 0);
    back += (uint32_t)b;
    if (b == 0) assert_true(sr_port_wait(p, 5000000000) == 1);
  }
  assert_int_equal(sr_port_in_flight(p), 0);
  free(list);
}

static void batch_reads_have_a_status_each(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  enum { N = 3000 }; /* more than any ring's depth */
  struct sr_request *r = aligned_alloc(64, N * sizeof *r);
  char *data = malloc(N * 100), *out = calloc(N, 100);
  fill_bytes(data, N * 100, 3);
  for (uint32_t i = 0; i < N; i++) r[i] = request_of_op(SR_OP_PUT, i, data + i * 100, i % 100);
  run_all(p, r, N);
  for (uint32_t i = 0; i < N; i++) assert_int_equal(r[i].result, 0);
  for (uint32_t i = 0; i < N; i++)
    r[i] = request_of_op(SR_OP_GET, i % 3 ? i : 1000000 + i, out + i * 100, 100);
  run_all(p, r, N);
  for (uint32_t i = 0; i < N; i++) {
    assert_int_equal(r[i].result, i % 3 ? (int)(i % 100) : -ENOENT);
    if (i % 3) assert_memory_equal(out + i * 100, data + i * 100, i % 100);
  }
  free(r), free(data), free(out);
  close_both(s, p);
}

static void the_last_of_a_batch_wins(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  enum { N = 1500 };
  struct sr_request *r = aligned_alloc(64, N * sizeof *r);
  uint64_t *values = calloc(N, sizeof *values);
  char *big = calloc(1, 300000), *out = calloc(1, 300000);
  for (uint32_t i = 0; i < N; i++) {
    values[i] = i; /* five ids; sizes differ, so that completions come in another order */
    r[i] = request_of_op(SR_OP_PUT, i % 5, &values[i], 8);
    if (i % 7 == 0) r[i].buf = big, r[i].bytes = 300000;
    if (i % 11 == 0) r[i].op = SR_OP_DELETE;
  }
  run_all(p, r, N);
  for (uint32_t id = 0; id < 5; id++) {
    uint32_t last = N - 5 + id;
    int64_t got = sr_get(p, (struct sr_id){0, id}, out, 0, 300000);
    assert_int_equal(got, last % 11 == 0 ? -ENOENT : last % 7 == 0 ? 300000 : 8);
    if (got == 8) assert_memory_equal(out, &values[last], 8);
  }
  free(r), free(values), free(big), free(out);
  close_both(s, p);
}

static void any_offset_and_length(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  const uint64_t sizes[] = {1, 4095, 4096, 4097, 70000, MIB, MIB + 1, 5 * MIB + 77};
  char *in = malloc(6 * MIB), *out = malloc(6 * MIB);
  uint64_t x = 88172645463325252u;
  for (uint32_t k = 0; k < 8; k++) {
    fill_bytes(in, sizes[k], k + 9);
    assert_int_equal(sr_put(p, id_of(k), in, sizes[k], 0), 0);
    for (uint32_t i = 0; i < 60; i++) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      uint64_t offset = x % (sizes[k] + 10), bytes = (x >> 20) % (i % 2 ? 9000 : sizes[k] + 1);
      uint64_t shift = i % 3; /* misaligned buffers too */
      uint64_t want = offset >= sizes[k]          ? 0
                      : bytes < sizes[k] - offset ? bytes
                                                  : sizes[k] - offset;
      memset(out, 0x5a, shift + bytes + 8);
      assert_int_equal(sr_get(p, id_of(k), out + shift, offset, bytes), want);
      assert_memory_equal(out + shift, in + offset, want);
      for (uint64_t g = want; g < bytes + 8; g++) assert_int_equal(out[shift + g], 0x5a);
    }
  }
  free(in), free(out);
  close_both(s, p);
}

static int callbacks;
static void count_callback(struct sr_request *r) {
  assert_int_equal(r->result, 0);
  callbacks++;
}

static void callbacks_and_event_descriptor(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  struct pollfd fd = {.fd = sr_port_fd(p), .events = POLLIN};
  struct sr_request r = request_of_op(SR_OP_PUT, 1, "x", 1), *list[] = {&r};
  r.done = count_callback;
  callbacks = 0;
  for (int i = 0; i < 200; i++) {
    assert_int_equal(sr_port_reap(p, NULL, 0), 0); /* arms the descriptor */
    assert_int_equal(sr_port_submit(p, list, 1), 1);
    while (sr_port_reap(p, NULL, 0) == 0) assert_int_equal(poll(&fd, 1, 10000), 1);
    assert_int_equal(callbacks, i + 1);
  }
  assert_int_equal(sr_port_wait(p, 0), -ENODATA);
  close_both(s, p);
}

static void malformed_and_closed(void **state) {
  struct sr_space space;
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  struct sr_request r = request_of_op(99, 1, NULL, 0), *list[] = {&r}, *null[] = {NULL};
  assert_int_equal(sr_port_submit(p, list, 1), -EINVAL);
  r = request_of_op(SR_OP_PUT, 1, NULL, 5);
  assert_int_equal(sr_port_submit(p, list, 1), -EINVAL);
  r = request_of_op(SR_OP_GET, 1, NULL, 5);
  assert_int_equal(sr_port_submit(p, list, 1), -EINVAL);
  r = request_of_op(SR_OP_PUT, 1, "x", 1);
  r.flags = 1u << 20;
  assert_int_equal(sr_port_submit(p, list, 1), -EINVAL);
  assert_int_equal(sr_port_submit(p, null, 1), -EINVAL);
  assert_int_equal(sr_port_submit(p, NULL, 1), -EINVAL);
  assert_int_equal(sr_port_submit(NULL, list, 1), -EINVAL);
  assert_int_equal(sr_port_submit(p, list, 0), 0);
  assert_int_equal(sr_put(p, id_of(1), NULL, 1, 0), -EINVAL);
  assert_int_equal(sr_put(p, id_of(1), "x", (UINT64_C(1) << 40) + 1, 0), -EFBIG);
  assert_int_equal(sr_put(p, id_of(1), NULL, 0, 0), 0); /* an empty blob is a blob */
  assert_int_equal(sr_exists(p, id_of(1)), 1);
  assert_int_equal(sr_get(p, id_of(1), NULL, 0, 0), 0);
  assert_int_equal(sr_get(p, id_of(2), NULL, 0, 0), -ENOENT);
  assert_int_equal(sr_delete(p, id_of(2), 0), -ENOENT);
  assert_int_equal(sr_port_close(NULL), 0);
  assert_int_equal(sr_store_close(NULL), 0);
  assert_int_equal(sr_store_close(s), -EBUSY); /* a port is open */
  assert_int_equal(sr_port_close(p), 0);
  r = request_of_op(SR_OP_GET, 1, NULL, 0);
  assert_int_equal(sr_port_submit(p, list, 1), -ESHUTDOWN);
  assert_int_equal(sr_count(p), -ESHUTDOWN);
  assert_int_equal(sr_space(p, &space), -ESHUTDOWN);
  assert_int_equal(sr_store_close(s), 0);
}

static void a_full_queue_is_eagain(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port_options o = SR_PORT_OPTIONS_INIT;
  struct sr_port *p;
  o.depth = 8;
  assert_int_equal(sr_port_open(s, &o, &p), 0);
  struct sr_request r[20], *list[20], *out[20];
  for (uint32_t i = 0; i < 20; i++) r[i] = request_of_op(SR_OP_STAT, i, NULL, 0), list[i] = &r[i];
  assert_int_equal(sr_port_submit(p, list, 20), 8);
  assert_int_equal(sr_port_submit(p, list + 8, 12), -EAGAIN);
  assert_int_equal(sr_port_close(p), -EBUSY);
  uint32_t back = 0;
  while (back < 8) {
    assert_int_equal(sr_port_wait(p, -1), 1);
    back += (uint32_t)sr_port_reap(p, out, 20);
  }
  assert_int_equal(sr_port_submit(p, list + 8, 12), 8);
  for (back = 0; back < 8; back += (uint32_t)sr_port_reap(p, out, 20)) sr_port_wait(p, -1);
  close_both(s, p);
}

/* One batch each, more than a mailbox takes, before the first is reaped: cores keep what does not
 * fit. */
static void answers_wait_for_who_does_not_reap(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port_options o = SR_PORT_OPTIONS_INIT;
  struct sr_port *p;
  enum { N = 5000 };
  o.depth = 65536;
  assert_int_equal(sr_port_open(s, &o, &p), 0);
  struct sr_request *r = aligned_alloc(64, N * sizeof *r), *out[64];
  for (uint32_t i = 0; i < N; i++) {
    struct sr_request *list[] = {&r[i]};
    r[i] = request_of_op(SR_OP_NOP, i, NULL, 0);
    r[i].result = 1;
    int n;
    while ((n = sr_port_submit(p, list, 1)) == -EAGAIN) sched_yield();
    assert_int_equal(n, 1);
  }
  assert_int_equal(sr_port_in_flight(p), N);
  assert_int_equal(sr_put(p, id_of(1), "x", 1, 0), 0);
  for (uint32_t back = 0; back < N; back += (uint32_t)sr_port_reap(p, out, 64)) sr_port_wait(p, -1);
  for (uint32_t i = 0; i < N; i++) assert_int_equal(r[i].result, 0);
  free(r);
  close_both(s, p);
}

/* A blocking call needs no place of the port's depth, nor anything to be reaped first. */
static void blocking_calls_pass_a_full_port(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port_options o = SR_PORT_OPTIONS_INIT;
  struct sr_port *p;
  o.depth = 4;
  assert_int_equal(sr_port_open(s, &o, &p), 0);
  struct sr_request r[4], *list[4], *out[4];
  for (uint32_t i = 0; i < 4; i++) r[i] = request_of_op(SR_OP_NOP, i, NULL, 0), list[i] = &r[i];
  assert_int_equal(sr_port_submit(p, list, 4), 4);
  assert_int_equal(sr_put(p, id_of(1), "x", 1, 0), 0);
  assert_int_equal(sr_exists(p, id_of(1)), 1);
  assert_int_equal(sr_port_in_flight(p), 4);
  assert_int_equal(sr_port_submit(p, list, 1), -EAGAIN);
  for (int back = 0; back < 4; back += sr_port_reap(p, out, 4)) sr_port_wait(p, -1);
  close_both(s, p);
}

/* A wait in between, whatever it returns, takes nothing from who polls the descriptor. */
static void waiting_keeps_the_descriptor_armed(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  struct pollfd fd = {.fd = sr_port_fd(p), .events = POLLIN};
  struct sr_request r = request_of_op(SR_OP_FLUSH, 0, NULL, 0), *list[] = {&r}, *out[1];
  for (int i = 0; i < 100; i++) {
    assert_int_equal(sr_put(p, id_of(1), &i, sizeof i, 0), 0);
    while (sr_port_reap(p, out, 1) != 0) {
    }
    assert_int_equal(sr_port_submit(p, list, 1), 1);
    sr_port_wait(p, i * 20000); /* over before the flush is, or not */
    assert_int_equal(poll(&fd, 1, 10000), 1);
    while (sr_port_reap(p, out, 1) == 0) assert_int_equal(poll(&fd, 1, 10000), 1);
  }
  close_both(s, p);
}

static struct sr_port *reaped_port;
static void reap_again(struct sr_request *r) {
  r->user = &callbacks;
  callbacks += 1 + 100 * sr_port_reap(reaped_port, NULL, 0);
}

static void a_callback_may_reap(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = reaped_port = open_port(s);
  struct sr_request r[5], *list[5];
  for (uint32_t i = 0; i < 5; i++) {
    r[i] = request_of_op(SR_OP_NOP, 0, NULL, 0);
    r[i].done = reap_again;
    list[i] = &r[i];
  }
  callbacks = 0;
  assert_int_equal(sr_port_submit(p, list, 5), 5);
  while (sr_port_in_flight(p) > 0) {
    sr_port_wait(p, -1);
    sr_port_reap(p, NULL, 0);
  }
  for (uint32_t i = 0; i < 5; i++) assert_ptr_equal(r[i].user, &callbacks);
  close_both(s, p);
}

static void ports_up_to_their_number(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p[64], *extra = NULL;
  struct rlimit before, none = {0, 0};
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  none.rlim_max = before.rlim_max;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  int r = sr_port_open(s, NULL, &extra); /* no descriptor is left, this time */
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  assert_int_equal(r, -EMFILE);
  for (int round = 0; round < 2; round++) {
    for (uint32_t i = 0; i < 64; i++) assert_int_equal(sr_port_open(s, NULL, &p[i]), 0);
    assert_int_equal(sr_port_open(s, NULL, &extra), -EMFILE);
    for (uint32_t i = 0; i < 64; i++) {
      assert_int_equal(sr_put(p[i], id_of(i), &i, sizeof i, 0), 0);
      assert_int_equal(sr_port_close(p[i]), 0);
    }
  }
  assert_null(extra);
  assert_int_equal(sr_store_close(s), 0);
}

static void port_options_of_other_headers(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = NULL;
  struct {
    struct sr_port_options o;
    uint64_t tail;
  } newer = {.o = {.size = sizeof newer}, .tail = 1};
  assert_int_equal(sr_port_open(s, &newer.o, &p), -E2BIG);
  newer.o.size = 0;
  assert_int_equal(sr_port_open(s, &newer.o, &p), -EINVAL);
  newer.o.size = sizeof newer.o;
  newer.o.depth = 65537;
  assert_int_equal(sr_port_open(s, &newer.o, &p), -EINVAL);
  assert_null(p);
  newer.o.size = sizeof(size_t); /* older: it had no depth */
  assert_int_equal(sr_port_open(s, &newer.o, &p), 0);
  close_both(s, p);
}

/* ---- On the cores -------------------------------------------------------------------------------
 */

struct on_core {
  struct sr_port *port;
  struct sr_request request;
  uint64_t ids[8];
  uint32_t next, errors;
  char buf[8];
  atomic_int finished;
};

static void on_core_next(struct sr_request *r) {
  struct on_core *c = r->user;
  struct sr_request *list[] = {&c->request};
  if (r->op == SR_OP_PUT) {
    c->errors += r->result != 0;
    r->op = SR_OP_GET; /* read back what was put */
  } else {
    c->errors += r->result != 8 || memcmp(c->buf, &c->ids[c->next], 8) != 0;
    if (++c->next == 8) {
      atomic_store(&c->finished, 1);
      return;
    }
    r->op = SR_OP_PUT;
    memcpy(c->buf, &c->ids[c->next], 8);
    r->id.lo = c->ids[c->next];
  }
  c->errors += sr_port_submit(c->port, list, 1) != 1;
}

static void on_core_start(struct sr_port *port, void *arg) {
  struct on_core *c = arg;
  struct sr_request *list[] = {&c->request};
  c->port = port;
  memcpy(c->buf, &c->ids[0], 8);
  c->request = request_of_op(SR_OP_PUT, c->ids[0], c->buf, 8);
  c->request.user = c;
  c->errors += sr_port_submit(port, list, 1) != -EINVAL; /* no callback: nobody would see it */
  c->request.done = on_core_next;
  c->errors += sr_port_submit(port, list, 1) != 1;
  c->errors += sr_flush(port) != -EDEADLK;
  c->errors += sr_port_wait(port, 0) != -EINVAL;
}

/* Ids of its own core and of others: a core's port reaches all. */
static void code_runs_on_the_owning_core(void **state) {
  struct sr_store *s = fresh(*state);
  struct on_core *c = aligned_alloc(64, 3 * sizeof *c);
  memset(c, 0, 3 * sizeof *c);
  for (uint32_t shard = 0; shard < 3; shard++) {
    for (uint32_t i = 0; i < 8; i++) c[shard].ids[i] = shard * 1000 + i;
    assert_int_equal(sr_store_run(s, shard, on_core_start, &c[shard]), 0);
  }
  for (uint32_t shard = 0; shard < 3; shard++) {
    while (!atomic_load(&c[shard].finished)) usleep(100);
    assert_int_equal(c[shard].errors, 0);
  }
  assert_int_equal(sr_store_run(s, 3, on_core_start, c), -EINVAL);
  free(c);
  assert_int_equal(sr_store_close(s), 0);
}

/* A function on a core hands the next one on while another thread waits for all cores. */
struct chain {
  struct sr_store *store;
  atomic_int left, errors;
};
static void run_next(struct sr_port *port, void *arg) {
  struct chain *c = arg;
  struct sr_space space;
  atomic_fetch_add(&c->errors, sr_space(port, &space) != -EDEADLK);
  atomic_fetch_add(&c->errors, sr_count(port) != -EDEADLK);
  int left = atomic_load(&c->left);
  if (left > 1)
    atomic_fetch_add(&c->errors, sr_store_run(c->store, (uint32_t)left % 3, run_next, c) != 0);
  atomic_fetch_sub(&c->left, 1);
}

static void cores_run_functions_while_memory_is_registered(void **state) {
  struct sr_store *s = fresh(*state);
  struct chain c = {.store = s, .left = 20000};
  char *mine = aligned_alloc(4096, 4096);
  assert_int_equal(sr_store_run(s, 0, run_next, &c), 0);
  while (atomic_load(&c.left) > 0) {
    int r = sr_memory_register(s, mine, 4096);
    assert_true(r == 0 || r == -ENOMEM);
    if (!r) assert_int_equal(sr_memory_unregister(s, mine), 0);
  }
  assert_int_equal(atomic_load(&c.errors), 0);
  free(mine);
  assert_int_equal(sr_store_close(s), 0);
}

static void note_run(struct sr_port *port, void *arg) {
  (void)port;
  atomic_fetch_add((atomic_int *)arg, 1);
}
static void what_was_to_run_runs_before_the_end(void **state) {
  atomic_int ran = 0;
  struct sr_store *s = fresh(*state);
  for (uint32_t i = 0; i < 60; i++) assert_int_equal(sr_store_run(s, i % 3, note_run, &ran), 0);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_equal(atomic_load(&ran), 60);
}

static void *hammer(void *arg) {
  struct sr_store *s = arg;
  struct sr_port *p;
  char out[64];
  uint64_t base = (uint64_t)(uintptr_t)&p;
  if (sr_port_open(s, NULL, &p)) return (void *)1;
  uintptr_t bad = 0;
  for (uint64_t i = 0; i < 400; i++) {
    bad |= sr_put(p, id_of(base + i % 20), &i, sizeof i, i % 50 ? 0 : SR_DURABLE) != 0;
    bad |= sr_get(p, id_of(base + i % 20), out, 0, 64) != 8 || memcmp(out, &i, 8) != 0;
    if (i % 100 == 99) bad |= sr_flush(p) != 0;
  }
  return (void *)(bad | (uintptr_t)sr_port_close(p));
}

static void many_threads(void **state) {
  struct sr_store *s = fresh(*state);
  pthread_t t[6];
  for (int i = 0; i < 6; i++) assert_int_equal(pthread_create(&t[i], NULL, hammer, s), 0);
  for (int i = 0; i < 6; i++) {
    void *bad;
    pthread_join(t[i], &bad);
    assert_null(bad);
  }
  assert_int_equal(sr_store_close(s), 0);
}

/* ---- The rest of the interface --------------------------------------------------------------- */

static void streams(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  struct sr_stream *t;
  char *in = malloc(3 * MIB), *out = malloc(3 * MIB);
  fill_bytes(in, 3 * MIB, 4);
  for (int hint = 0; hint < 2; hint++) {
    assert_int_equal(sr_stream_begin(p, id_of(1), hint ? 3 * MIB : 0, 0, &t), 0);
    uint64_t done = 0;
    for (uint64_t n = 1; done < 3 * MIB; n = n * 3 + 1) {
      uint64_t piece = n < 3 * MIB - done ? n : 3 * MIB - done;
      assert_int_equal(sr_stream_append(p, t, in + done, piece), 0);
      done += piece;
    }
    assert_int_equal(sr_exists(p, id_of(1)), hint); /* not before commit */
    assert_int_equal(sr_stream_commit(p, t), 0);
    assert_int_equal(sr_get(p, id_of(1), out, 0, 3 * MIB), 3 * MIB);
    assert_memory_equal(in, out, 3 * MIB);
  }
  assert_int_equal(sr_stream_begin(p, id_of(2), 0, 0, &t), 0);
  assert_int_equal(sr_stream_append(p, t, in, 100000), 0);
  assert_int_equal(sr_stream_abort(p, t), 0);
  assert_int_equal(sr_exists(p, id_of(2)), 0);
  assert_int_equal(sr_stream_begin(p, id_of(1), 0, SR_IF_ABSENT, &t), -EEXIST);
  free(in), free(out);
  close_both(s, p);
}

static void lists_every_blob_once(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  enum { N = 5000 };
  static uint8_t seen[2 * N];
  memset(seen, 0, sizeof seen);
  for (uint64_t i = 0; i < N; i++) assert_int_equal(sr_put(p, id_of(i), NULL, 0, 0), 0);
  assert_int_equal(sr_count(p), N);
  struct sr_cursor cursor = {{0}};
  struct sr_entry entries[37];
  int n;
  uint64_t added = N;
  while ((n = sr_list(p, &cursor, entries, 37)) > 0) {
    for (int i = 0; i < n; i++) seen[entries[i].id.lo]++;
    if (added < 2 * N - 10)
      for (int i = 0; i < 10; i++) assert_int_equal(sr_put(p, id_of(added++), NULL, 0, 0), 0);
  }
  assert_int_equal(n, 0);
  for (uint64_t i = 0; i < N; i++) assert_int_equal(seen[i], 1);
  for (uint64_t i = N; i < 2 * N; i++) assert_true(seen[i] <= 1);
  close_both(s, p);
}

static void buffers_and_registered_memory(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  char *a = sr_buffer_alloc(s, 10000, true), *b = sr_buffer_alloc(s, 64 * MIB, false);
  assert_non_null(a);
  assert_non_null(b); /* larger than the arena: ordinary memory */
  assert_int_equal((uintptr_t)a % 4096 + (uintptr_t)b % 4096, 0);
  for (int i = 0; i < 10000; i++) assert_int_equal(a[i], 0);
  char *mine = aligned_alloc(4096, MIB);
  int r = sr_memory_register(s, mine, MIB);
  assert_true(r == 0 || r == -ENOMEM);
  fill_bytes(mine, MIB, 5);
  assert_int_equal(sr_put(p, id_of(1), mine, MIB, 0), 0);
  memset(b, 0, MIB);
  assert_int_equal(sr_get(p, id_of(1), b, 0, MIB), MIB);
  assert_memory_equal(mine, b, MIB);
  assert_int_equal(sr_get(p, id_of(1), a, 4096, 4096), 4096);
  assert_memory_equal(mine + 4096, a, 4096);
  if (!r) assert_int_equal(sr_memory_unregister(s, mine), 0);
  assert_int_equal(sr_memory_unregister(s, mine), -ENOENT);
  assert_int_equal(sr_memory_register(s, mine + 1, MIB), -EINVAL);
  assert_int_equal(sr_memory_register(s, NULL, MIB), -EINVAL);
  assert_int_equal(sr_get(p, id_of(1), mine, 0, MIB), MIB); /* works unregistered */
  sr_buffer_free(s, a), sr_buffer_free(s, b), free(mine);
  close_both(s, p);
}

static void out_of_space_is_clean(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  char *buf = malloc(MIB), *out = malloc(MIB);
  uint64_t n = 0;
  int r;
  for (;; n++) {
    fill_bytes(buf, MIB, n);
    if ((r = sr_put(p, id_of(n), buf, MIB, 0)) != 0) break;
  }
  assert_int_equal(r, -ENOSPC);
  assert_in_range(n, 10, 16);
  for (uint64_t i = 0; i < n; i++) {
    fill_bytes(buf, MIB, i);
    assert_int_equal(sr_get(p, id_of(i), out, 0, MIB), MIB);
    assert_memory_equal(buf, out, MIB);
  }
  assert_int_equal(sr_exists(p, id_of(n)), 0);
  assert_int_equal(sr_delete(p, id_of(0), 0), 0);
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(sr_put(p, id_of(n), buf, MIB, 0), 0);
  free(buf), free(out);
  close_both(s, p);
}

static void statistics_tell_the_truth(void **state) {
  struct sr_store *s = fresh(*state);
  struct sr_port *p = open_port(s);
  struct sr_core_stats c;
  struct sr_store_stats st;
  struct sr_space space;
  uint64_t gets = 0, puts = 0, hops = 0, timed = 0;
  for (uint64_t i = 0; i < 320; i++) assert_int_equal(sr_put(p, id_of(i), "abc", 3, 0), 0);
  for (uint64_t i = 0; i < 320; i++) assert_int_equal(sr_put(p, id_of(i), "def", 3, 0), 0);
  assert_int_equal(sr_flush(p), 0);
  for (uint32_t i = 0; i < sr_core_count(s); i++) {
    assert_int_equal(sr_core_stats(p, i, &c), 0);
    gets += c.gets, puts += c.puts, hops += c.hops_in;
    for (uint32_t b = 0; b < SR_LATENCY_BUCKETS; b++) timed += c.latency_ns[b];
    assert_true(c.engine[0] && c.why_cpu[0]);
  }
  assert_int_equal(puts, 640);
  assert_int_equal(gets, 0);
  assert_true(hops >= 641);
  assert_true(timed >= 640 / 16 - sr_core_count(s));
  assert_int_equal(sr_core_stats(p, 999, &c), -EINVAL);
  assert_int_equal(sr_store_stats(p, &st), 0);
  assert_int_equal(st.flushes, 2); /* one at open, one by us */
  assert_int_equal(st.shards, 3);
  assert_int_equal(strlen(st.uuid), 36);
  assert_int_equal(sr_space(p, &space), 0);
  assert_int_equal(space.blobs, 320);
  assert_int_equal(space.live_bytes, 960);
  assert_true(space.free_bytes <= space.total_bytes - 320 * 4096);
  close_both(s, p);
}

static void ids_as_text(void **state) {
  (void)state;
  struct sr_id id;
  char text[33];
  assert_int_equal(sr_id_parse("0123456789abcdefFEDCBA9876543210", &id), 0);
  assert_true(id.hi == 0x0123456789abcdef && id.lo == 0xfedcba9876543210);
  sr_id_format(id, text);
  assert_string_equal(text, "0123456789abcdeffedcba9876543210");
  assert_int_equal(sr_id_parse("0x7", &id), 0);
  assert_true(id.hi == 0 && id.lo == 7);
  const char *bad[] = {"", "0x", "g", "12 ", "0123456789abcdef0123456789abcdef0", "-1"};
  for (uint32_t i = 0; i < 6; i++) assert_int_equal(sr_id_parse(bad[i], &id), -EINVAL);
  assert_int_equal(sr_id_parse(NULL, &id), -EINVAL);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(batch_reads_have_a_status_each),
      TEST(the_last_of_a_batch_wins),
      TEST(any_offset_and_length),
      TEST(callbacks_and_event_descriptor),
      TEST(malformed_and_closed),
      TEST(a_full_queue_is_eagain),
      TEST(answers_wait_for_who_does_not_reap),
      TEST(blocking_calls_pass_a_full_port),
      TEST(waiting_keeps_the_descriptor_armed),
      TEST(a_callback_may_reap),
      TEST(ports_up_to_their_number),
      TEST(port_options_of_other_headers),
      TEST(code_runs_on_the_owning_core),
      TEST(cores_run_functions_while_memory_is_registered),
      TEST(what_was_to_run_runs_before_the_end),
      TEST(many_threads),
      TEST(streams),
      TEST(lists_every_blob_once),
      TEST(buffers_and_registered_memory),
      TEST(out_of_space_is_clean),
      TEST(statistics_tell_the_truth),
      TEST(ids_as_text),
  };
  cmocka_set_test_filter(getenv("CMOCKA_FILTER"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
