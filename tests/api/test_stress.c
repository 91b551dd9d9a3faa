/* test_stress.c - everything at once: workers with a port each put, get, delete, list, stream,
 * flush, vacuum, ask for statistics, run functions on cores, register memory and reopen their
 * ports, while visitors come and go. Each worker owns its ids and knows what they must hold; what
 * never changes is looked at by all. Every result is checked. A worker must not call cmocka: it
 * counts what is wrong, and the main thread asserts that nothing was. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "tests/api/fixture.h"
#include "tests/random.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STEPS 600u
#else
#define STEPS 1000u
#endif
#define WORKERS     4u
#define IDS         40u /* of each worker */
#define CONSTANTS   50u /* blobs that stay as they are */
#define SHARDS      4u
#define BYTES_MAX   200000u
#define BATCH       24u
#define BATCH_BYTES 8192u

struct held { /* what the store must hold for an id */
  bool exists;
  uint64_t seed, bytes;
};
struct worker {
  struct sr_store *store;
  struct sr_port *port;
  struct random random;
  pthread_t thread;
  uint64_t number, seeds;
  struct held held[IDS];
  char *memory, *want, *got; /* want and got lie in memory */
  bool registered;
  uint32_t wrong;
};
#define MEMORY_BYTES (2u << 20)
static const char *engine; /* of this run */
static uint32_t step_count = STEPS;

/* False, told and counted if it is wrong. */
#define expect(w, what) ((what) || (tell(w, #what, __LINE__), false))
static void tell(struct worker *w, const char *what, int line) {
  if (w->wrong++ < 5) fprintf(stderr, "worker %u, line %d: %s\n", (unsigned)w->number, line, what);
}

static struct sr_id id_for(const struct worker *w, uint32_t n) {
  return (struct sr_id){0x57e55 + w->number, n};
}
static struct sr_id constant_id(uint32_t n) { return (struct sr_id){0xc0257, n}; }
static uint64_t constant_bytes(uint32_t n) { return n * 731 % 20000; }

static uint64_t below(struct worker *w, uint64_t n) { return random_below(&w->random, n); }
static uint64_t some_bytes(struct worker *w) {
  static const uint64_t most[] = {1, 100, 4096, 4097, 9000, 40000, BYTES_MAX};
  return below(w, most[below(w, 7)] + 1);
}
static struct held next_value(struct worker *w, uint64_t bytes) {
  return (struct held){true, (w->number << 32) + ++w->seeds, bytes};
}

/* ---- One request after the other ---------------------------------------------------------------
 */

static void put(struct worker *w) {
  uint32_t n = (uint32_t)below(w, IDS), flags = 0;
  struct held v = next_value(w, some_bytes(w));
  uint64_t dice = below(w, 10);
  if (dice == 0) flags |= SR_DURABLE;
  if (dice == 1) flags |= SR_NO_CHECKSUM;
  if (dice == 2) flags |= SR_IF_ABSENT;
  fill_bytes(w->want, v.bytes, v.seed);
  int r = sr_put(w->port, id_for(w, n), w->want, v.bytes, flags);
  if ((flags & SR_IF_ABSENT) && w->held[n].exists)
    expect(w, r == -EEXIST);
  else if (expect(w, r == 0))
    w->held[n] = v;
}

static void check_blob(struct worker *w, struct sr_port *port, struct sr_id id,
                       const struct held *h, uint64_t offset, uint64_t bytes) {
  int64_t r = sr_get(port, id, w->got, offset, bytes);
  if (!h->exists) {
    expect(w, r == -ENOENT);
    return;
  }
  uint64_t n = offset >= h->bytes ? 0 : h->bytes - offset;
  if (n > bytes) n = bytes;
  fill_bytes(w->want, h->bytes, h->seed);
  if (expect(w, r == (int64_t)n)) expect(w, memcmp(w->got, w->want + offset, n) == 0);
}
static void get(struct worker *w) {
  uint32_t n = (uint32_t)below(w, IDS);
  uint64_t offset = below(w, 2) ? below(w, w->held[n].bytes + 10) : 0;
  check_blob(w, w->port, id_for(w, n), &w->held[n], offset, BYTES_MAX - below(w, BYTES_MAX));
}

static void delete_one(struct worker *w) {
  uint32_t n = (uint32_t)below(w, IDS);
  int r = sr_delete(w->port, id_for(w, n), below(w, 8) ? 0 : SR_DURABLE);
  expect(w, r == (w->held[n].exists ? 0 : -ENOENT));
  w->held[n].exists = false;
}

static void look(struct worker *w) {
  uint32_t n = (uint32_t)below(w, IDS);
  const struct held *h = &w->held[n];
  uint64_t bytes = UINT64_MAX;
  expect(w, sr_exists(w->port, id_for(w, n)) == h->exists);
  int r = sr_stat(w->port, id_for(w, n), &bytes);
  expect(w, h->exists ? r == 0 && bytes == h->bytes : r == -ENOENT);
}

static void stream(struct worker *w) {
  struct sr_stream *s;
  uint32_t n = (uint32_t)below(w, IDS);
  struct held v = next_value(w, some_bytes(w));
  fill_bytes(w->want, v.bytes, v.seed);
  if (!expect(w, sr_stream_begin(w->port, id_for(w, n), below(w, 2) ? v.bytes : 0, 0, &s) == 0))
    return;
  for (uint64_t at = 0, piece; at < v.bytes; at += piece) {
    piece = 1 + below(w, v.bytes - at);
    if (!expect(w, sr_stream_append(w->port, s, w->want + at, piece) == 0)) break;
  }
  if (below(w, 4) == 0) {
    expect(w, sr_stream_abort(w->port, s) == 0);
  } else {
    expect(w, sr_stream_commit(w->port, s) == 0);
    w->held[n] = v;
  }
}

static void buffer(struct worker *w) {
  uint32_t n = (uint32_t)below(w, IDS);
  struct held v = next_value(w, some_bytes(w));
  char *b = sr_buffer_alloc(w->store, v.bytes + 1, true);
  if (!expect(w, b != NULL)) return;
  expect(w, b[0] == 0 && b[v.bytes] == 0);
  fill_bytes(b, v.bytes, v.seed);
  expect(w, sr_put(w->port, id_for(w, n), b, v.bytes, 0) == 0);
  w->held[n] = v;
  sr_buffer_free(w->store, b);
}

/* ---- Many at a time -------------------------------------------------------------------------- */

static void submit_and_reap(struct worker *w, struct sr_request *r, uint32_t count) {
  struct sr_request *list[BATCH], *out[BATCH];
  uint32_t sent = 0, back = 0;
  struct pollfd fd = {.fd = below(w, 2) ? sr_port_fd(w->port) : -1, .events = POLLIN};
  for (uint32_t i = 0; i < count; i++) list[i] = &r[i];
  while (back < count && !w->wrong) {
    int s = sent < count ? sr_port_submit(w->port, list + sent, count - sent) : 0;
    if (expect(w, s >= 0 || s == -EAGAIN) && s > 0) sent += (uint32_t)s;
    int n = sr_port_reap(w->port, out, BATCH);
    if (expect(w, n >= 0)) back += (uint32_t)n;
    if (n > 0 || back == sent) continue;
    if (fd.fd >= 0)
      expect(w, poll(&fd, 1, 60000) == 1);
    else
      expect(w, sr_port_wait(w->port, INT64_C(60000000000)) == 1);
  }
}

/* Changes of few ids, so that many are of the same one: they take effect in their order. */
static void batch_of_changes(struct worker *w) {
  static _Thread_local struct sr_request r[BATCH];
  int64_t results[BATCH];
  uint32_t count = 1 + (uint32_t)below(w, BATCH), first = (uint32_t)below(w, IDS - 5);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t n = first + (uint32_t)below(w, 5);
    struct held v = next_value(w, below(w, BATCH_BYTES + 1)), *h = &w->held[n];
    bool is_put = below(w, 3) > 0, if_absent = below(w, 6) == 0;
    char *at = w->want + (uint64_t)i * BATCH_BYTES;
    r[i] = request_of_op(is_put ? SR_OP_PUT : SR_OP_DELETE, n, at, is_put ? v.bytes : 0);
    r[i].id = id_for(w, n);
    if (is_put && if_absent) r[i].flags |= SR_IF_ABSENT;
    if (below(w, 12) == 0) r[i].flags |= SR_DURABLE;
    if (is_put) {
      results[i] = if_absent && h->exists ? -EEXIST : 0;
      fill_bytes(at, v.bytes, v.seed);
      if (results[i] == 0) *h = v;
    } else {
      results[i] = h->exists ? 0 : -ENOENT;
      h->exists = false;
    }
  }
  submit_and_reap(w, r, count);
  for (uint32_t i = 0; i < count; i++) expect(w, r[i].result == results[i]);
}

static void batch_of_reads(struct worker *w) {
  static _Thread_local struct sr_request r[BATCH];
  for (uint32_t i = 0; i < BATCH; i++) {
    uint32_t n = (uint32_t)below(w, IDS);
    r[i] = request_of_op(SR_OP_GET, n, w->got + (uint64_t)i * BATCH_BYTES, BATCH_BYTES);
    r[i].id = id_for(w, n);
  }
  submit_and_reap(w, r, BATCH);
  for (uint32_t i = 0; i < BATCH; i++) {
    const struct held *h = &w->held[r[i].id.lo];
    uint64_t bytes = h->bytes < BATCH_BYTES ? h->bytes : BATCH_BYTES;
    if (!expect(w, r[i].result == (h->exists ? (int64_t)bytes : -ENOENT)) || !h->exists) continue;
    fill_bytes(w->want, bytes, h->seed);
    expect(w, r[i].size_bytes == h->bytes && memcmp(r[i].buf, w->want, bytes) == 0);
  }
}

/* ---- On a core ------------------------------------------------------------------------------- */

struct errand {
  struct sr_request request;
  struct sr_port *port;
  char *got;
  atomic_int finished;
  int64_t put_result, get_result;
};
static void errand_next(struct sr_request *r) {
  struct errand *e = r->user;
  struct sr_request *list[] = {r};
  if (r->op == SR_OP_GET) {
    e->get_result = r->result;
    atomic_store(&e->finished, 1);
    return;
  }
  e->put_result = r->result;
  r->op = SR_OP_GET;
  r->buf = e->got;
  if (sr_port_submit(e->port, list, 1) != 1) atomic_store(&e->finished, 1);
}
static void errand_start(struct sr_port *port, void *arg) {
  struct errand *e = arg;
  struct sr_request *list[] = {&e->request};
  e->port = port;
  if (sr_port_submit(port, list, 1) != 1) atomic_store(&e->finished, 1);
}
static void run_on_core(struct worker *w) {
  static _Thread_local struct errand e;
  uint32_t n = (uint32_t)below(w, IDS), to = (uint32_t)below(w, SHARDS); /* its own, or another */
  struct held v = next_value(w, 1 + below(w, 5000));
  fill_bytes(w->want, v.bytes, v.seed);
  memset(&e, 0, sizeof e);
  e.request = request_of_op(SR_OP_PUT, n, w->want, v.bytes);
  e.request.id = id_for(w, n);
  e.request.done = errand_next;
  e.request.user = &e;
  e.got = w->got;
  e.put_result = e.get_result = 1;
  int r = sr_store_run(w->store, to, errand_start, &e);
  if (!expect(w, r == 0 || r == -EAGAIN) || r) return;
  while (!atomic_load(&e.finished)) usleep(50);
  expect(w, e.put_result == 0 && e.get_result == (int64_t)v.bytes);
  expect(w, memcmp(w->got, w->want, v.bytes) == 0);
  w->held[n] = v;
}

/* ---- The whole store ------------------------------------------------------------------------- */

/* Lists all: own ids as they are (nobody else changes them), constants, nothing of which nobody
 * knows; each at most once. */
static void list_all(struct worker *w) {
  struct sr_cursor cursor = {{0}};
  struct sr_entry entries[7];
  uint32_t seen[IDS] = {0}, constants[CONSTANTS] = {0}, strange = 0;
  for (int n; (n = sr_list(w->port, &cursor, entries, 7)) != 0 && expect(w, n > 0 && n <= 7);) {
    for (int i = 0; i < n; i++) {
      const struct sr_entry *e = &entries[i];
      if (e->id.hi == id_for(w, 0).hi && e->id.lo < IDS)
        seen[e->id.lo] += 1 + (e->size_bytes != w->held[e->id.lo].bytes);
      else if (e->id.hi == constant_id(0).hi && e->id.lo < CONSTANTS)
        constants[e->id.lo] += 1 + (e->size_bytes != constant_bytes((uint32_t)e->id.lo));
      else
        strange += e->id.hi - 0x57e55 >= WORKERS || e->id.lo >= IDS;
    }
  }
  expect(w, strange == 0);
  for (uint32_t i = 0; i < CONSTANTS; i++) expect(w, constants[i] == 1);
  for (uint32_t i = 0; w->number < WORKERS && i < IDS; i++) expect(w, seen[i] == w->held[i].exists);
}

static void ask(struct worker *w) {
  struct sr_space space;
  struct sr_store_stats all;
  struct sr_core_stats core;
  uint32_t cores = sr_core_count(w->store);
  int64_t count = sr_count(w->port), own = CONSTANTS;
  for (uint32_t i = 0; i < IDS; i++) own += w->held[i].exists;
  expect(w, count >= own && count <= CONSTANTS + WORKERS * IDS);
  if (expect(w, sr_space(w->port, &space) == 0))
    expect(w, space.free_bytes + space.pending_bytes <= space.total_bytes && space.blobs > 0);
  if (expect(w, sr_store_stats(w->port, &all) == 0))
    expect(w, all.shards == SHARDS && all.cores == cores && !all.read_only);
  if (expect(w, sr_core_stats(w->port, (uint32_t)below(w, cores), &core) == 0))
    expect(w, core.checksum_errors == 0 && core.short_ios == 0 && core.shards > 0);
  sr_needs_flush(w->store);
}

static void turn_registration(struct worker *w) {
  if (w->registered) {
    expect(w, sr_memory_unregister(w->store, w->memory) == 0);
    w->registered = false;
    return;
  }
  int r = sr_memory_register(w->store, w->memory, MEMORY_BYTES);
  expect(w, r == 0 || r == -ENOMEM);
  w->registered = r == 0;
}

static void reopen_port(struct worker *w) {
  expect(w, sr_port_close(w->port) == 0);
  if (!expect(w, sr_port_open(w->store, NULL, &w->port) == 0)) w->port = NULL;
}

static void maintain(struct worker *w) {
  struct sr_vacuum_result moved;
  if (below(w, 2))
    expect(w, sr_checkpoint(w->port) == 0);
  else
    expect(w, sr_vacuum(w->port, &moved) == 0);
}

static void flush(struct worker *w) { expect(w, sr_flush(w->port) == 0); }

/* ---- All of it ---------------------------------------------------------------------------------
 */

static const struct {
  uint32_t weight;
  void (*step)(struct worker *);
} steps[] = {
    {25, put},
    {25, get},
    {10, delete_one},
    {6, look},
    {6, stream},
    {6, buffer},
    {8, batch_of_changes},
    {5, batch_of_reads},
    {4, run_on_core},
    {1, list_all},
    {3, ask},
    {2, turn_registration},
    {3, reopen_port},
    {1, maintain},
    {2, flush},
};

static void *work(void *arg) {
  struct worker *w = arg;
  uint32_t all = 0;
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) all += steps[i].weight;
  for (uint32_t i = 0; i < step_count && !w->wrong; i++) {
    uint64_t dice = below(w, all);
    size_t k = 0;
    while (dice >= steps[k].weight) dice -= steps[k++].weight;
    steps[k].step(w);
  }
  if (w->registered) turn_registration(w);
  if (w->port) expect(w, sr_port_close(w->port) == 0);
  return NULL;
}

/* Comes, looks at what stays as it is, and goes. */
static void *visit(void *arg) {
  struct worker *w = arg;
  for (uint32_t i = 0; i < step_count / 10 && !w->wrong; i++) {
    if (!expect(w, sr_port_open(w->store, NULL, &w->port) == 0)) break;
    for (uint32_t k = 0; k < 5; k++) {
      uint32_t n = (uint32_t)below(w, CONSTANTS);
      struct held h = {true, n, constant_bytes(n)};
      check_blob(w, w->port, constant_id(n), &h, 0, BYTES_MAX);
    }
    if (i % 8 == 0) list_all(w);
    expect(w, sr_port_close(w->port) == 0);
  }
  return NULL;
}

static void worker_init(struct worker *w, struct sr_store *s, uint64_t number) {
  memset(w, 0, sizeof *w);
  w->store = s;
  w->number = number;
  w->random.state = 1000 + number;
  w->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true(w->memory != MAP_FAILED);
  w->want = w->memory;
  w->got = w->memory + MEMORY_BYTES / 2;
}

static void check_all(struct sr_store *s, struct worker *w) {
  struct sr_port *p = open_port(s);
  int64_t count = CONSTANTS;
  for (uint32_t i = 0; i < WORKERS; i++) {
    for (uint32_t n = 0; n < IDS; n++) {
      check_blob(&w[i], p, id_for(&w[i], n), &w[i].held[n], 0, BYTES_MAX);
      count += w[i].held[n].exists;
    }
    assert_int_equal(w[i].wrong, 0);
  }
  assert_int_equal(sr_count(p), count);
  assert_int_equal(sr_port_close(p), 0);
}

static struct sr_store *open_with(struct fixture *f, uint32_t cores) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  o.engine = engine;
  o.core_count = cores;
  o.must_engine = true;
  o.no_pin = true;
  int r = sr_store_open(f->where, &o, &s);
  if (r == -ENOTSUP) {
    print_message("[  SKIPPED ] no engine %s: %s\n", engine, f->log);
    skip();
  }
  if (r) fail_msg("open: %s\n%s", strerror(-r), f->log);
  return s;
}

static uint32_t two_cores(void) {
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1 ? 1 : 2;
}

static void stress(struct fixture *f) {
  static struct worker w[WORKERS + 2]; /* the last two visit */
  struct sr_store *s = open_with(f, two_cores());
  struct sr_port *p = open_port(s);
  for (uint32_t i = 0; i < WORKERS + 2; i++) worker_init(&w[i], s, i);
  for (uint32_t n = 0; n < CONSTANTS; n++) {
    fill_bytes(w[0].want, constant_bytes(n), n);
    assert_int_equal(sr_put(p, constant_id(n), w[0].want, constant_bytes(n), 0), 0);
  }
  assert_int_equal(sr_port_close(p), 0);
  for (uint32_t i = 0; i < WORKERS + 2; i++) {
    if (i < WORKERS) w[i].port = open_port(s);
    assert_int_equal(pthread_create(&w[i].thread, NULL, i < WORKERS ? work : visit, &w[i]), 0);
  }
  for (uint32_t i = 0; i < WORKERS + 2; i++) pthread_join(w[i].thread, NULL);
  for (uint32_t i = 0; i < WORKERS + 2; i++) assert_int_equal(w[i].wrong, 0);
  check_all(s, w);
  assert_int_equal(sr_store_close(s), 0);
  if (strncmp(f->where, "mem:", 4) !=
      0) { /* and once more from the disk, by another number of cores */
    s = open_with(f, 1);
    check_all(s, w);
    assert_int_equal(sr_store_close(s), 0);
  }
  for (uint32_t i = 0; i < WORKERS + 2; i++) munmap(w[i].memory, MEMORY_BYTES);
}

static void in_memory(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "mem:256M:%u", SHARDS);
  engine = "mem";
  stress(f);
}
static void on_files_by_threads(void **state) {
  engine = "pool";
  format_store(*state, SHARDS, 64 * MIB);
  stress(*state);
}
static void on_files_by_rings(void **state) {
  engine = "uring";
  format_store(*state, SHARDS, 64 * MIB);
  stress(*state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
/* usage: test_stress [STEPS [TEST]]: shorter for slow tools, longer for a night. */
int main(int argc, char **argv) {
  if (argc > 1) step_count = (uint32_t)strtoul(argv[1], NULL, 10);
  if (argc > 2) cmocka_set_test_filter(argv[2]);
  const struct CMUnitTest tests[] = {TEST(in_memory), TEST(on_files_by_threads),
                                     TEST(on_files_by_rings)};
  return cmocka_run_group_tests_name("stress", tests, NULL, NULL);
}
