/* writer.c - random puts, deletes, streams, batches, flushes, checkpoints and vacuums, each noted
 * in the ledger: `issued` before it is submitted, `done` and `durable` after the answer.
 *
 * Volumes have a thread of their own: disk_writer.c.
 *
 * A thread has a port and units of its own. On a single blob several puts and deletes may be in
 * flight; a group has one batch at a time, since batches have no order with others in flight. What
 * a flush promises is what had completed, in all threads, before it was submitted. */
#include "tests/crash/disk_writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/random.h"

#define SLOTS      12u
#define SLOT_BYTES (LEDGER_BLOB_MAX + 8192u)
_Static_assert(LEDGER_MEMBERS *LEDGER_PART_MAX <= SLOT_BYTES, "a group's parts lie in one slot");
_Static_assert(sizeof(struct writer_done) <= SLOT_BYTES, "what has completed before a flush, too");

struct slot {
  struct sr_request request;
  struct sr_request parts[LEDGER_MEMBERS];
  struct sr_request *list[LEDGER_MEMBERS];
  uint8_t *buf;
  uint32_t unit, version;
  bool used;
};

struct thread {
  const struct writer_options *o;
  struct ledger *l;
  struct sr_store *store;
  struct sr_port *port;
  struct slot *slots;
  uint32_t in_flight[LEDGER_UNITS]; /* operations, a unit */
  struct random random;
  uint32_t number;
  _Atomic bool *stop;
  bool failed;
};

static void count(struct thread *t, enum ledger_count what) {
  atomic_fetch_add(&t->l->counts[what], 1);
}

static void fail(struct thread *t, const char *what, int64_t result) {
  fprintf(stderr, "writer: %s: %s\n", what, result < 0 ? strerror((int)-result) : "wrong");
  t->failed = true;
  atomic_store(t->stop, true);
}

/* ---- Promises -----------------------------------------------------------------------------------
 */

static void promise(struct thread *t, uint32_t unit, uint32_t version) {
  ledger_raise(&t->l->units[unit].durable, version);
  atomic_fetch_add(&t->l->acks, 1);
}

void writer_note_done(const struct ledger *l, struct writer_done *done) {
  for (uint32_t u = 0; u < LEDGER_UNITS; u++) done->units[u] = atomic_load(&l->units[u].done);
  disks_note_done(&l->disks, &done->disks);
}

void writer_promise_all(struct ledger *l, const struct writer_done *done) {
  for (uint32_t u = 0; u < LEDGER_UNITS; u++) ledger_raise(&l->units[u].durable, done->units[u]);
  disks_promise(&l->disks, &done->disks);
  atomic_fetch_add(&l->acks, 1);
}

/* The answer to a change of a unit. A delete that finds nothing has completed, but promises
 * nothing: what it saw may itself not be durable. */
static void settle(struct thread *t, uint32_t unit, uint32_t version, uint32_t flags,
                   int64_t result) {
  if (result == -ENOSPC) {
    count(t, COUNT_FULL);
    return;
  }
  if (result != 0 && result != -ENOENT) {
    fail(t, "a change", result);
    return;
  }
  ledger_raise(&t->l->units[unit].done, version);
  if (result == 0 && (flags & SR_DURABLE)) {
    count(t, COUNT_DURABLE);
    promise(t, unit, version);
  }
}

static void settle_slot(struct thread *t, struct slot *s) {
  const struct sr_request *r = &s->request;
  s->used = false;
  if (r->op == SR_OP_FLUSH) {
    if (r->result) {
      fail(t, "flush", r->result);
      return;
    }
    writer_promise_all(t->l, (const struct writer_done *)(const void *)s->buf);
    return;
  }
  t->in_flight[s->unit]--;
  settle(t, s->unit, s->version, r->flags, r->result);
}

static void reap(struct thread *t, int64_t wait_ns) {
  struct sr_request *finished[SLOTS];
  if (wait_ns && sr_port_in_flight(t->port)) sr_port_wait(t->port, wait_ns);
  int n = sr_port_reap(t->port, finished, SLOTS);
  if (n < 0) {
    fail(t, "reap", n);
    return;
  }
  for (int i = 0; i < n; i++) settle_slot(t, finished[i]->user);
}

/* ---- Requests -----------------------------------------------------------------------------------
 */

static void submit(struct thread *t, struct slot *s) {
  struct sr_request *r = &s->request;
  s->used = true;
  r->user = s;
  for (;;) {
    int n = sr_port_submit(t->port, &r, 1);
    if (n == 1) return;
    if (n != -EAGAIN) {
      fail(t, "submit", n);
      return;
    }
    reap(t, 1000000);
  }
}

static uint32_t next_version(struct thread *t, uint32_t unit) {
  return atomic_fetch_add(&t->l->units[unit].issued, 1) + 1;
}

static void fill_request(struct thread *t, struct sr_request *r, uint32_t unit, uint32_t member,
                         uint32_t version, uint8_t *buf) {
  int64_t bytes = member_bytes(t->l->seed, unit, member, version);
  memset(r, 0, sizeof *r);
  r->op = bytes < 0 ? SR_OP_DELETE : SR_OP_PUT;
  r->id = unit_id(unit, member);
  if (bytes < 0) return;
  r->buf = buf;
  r->bytes = (uint64_t)bytes;
  member_fill(t->l->seed, unit, member, version, buf, (uint64_t)bytes);
}

static void change_single(struct thread *t, struct slot *s, uint32_t unit) {
  s->unit = unit;
  s->version = next_version(t, unit);
  /* Both ways of a buffer: used as it is, and copied. */
  uint8_t *buf = s->buf + (random_below(&t->random, 2) ? 0 : random_below(&t->random, 4096));
  fill_request(t, &s->request, unit, 0, s->version, buf);
  if (random_below(&t->random, 4) == 0) s->request.flags = SR_DURABLE;
  count(t, s->request.op == SR_OP_PUT ? COUNT_PUT : COUNT_DELETE);
  if (t->o->promise_early && s->request.op == SR_OP_PUT) promise(t, unit, s->version);
  t->in_flight[unit]++;
  submit(t, s);
}

static void change_group(struct thread *t, struct slot *s, uint32_t unit) {
  s->unit = unit;
  s->version = next_version(t, unit);
  uint32_t n = unit_members(unit);
  for (uint32_t m = 0; m < n; m++) {
    s->list[m] = &s->parts[m];
    fill_request(t, &s->parts[m], unit, m, s->version, s->buf + m * LEDGER_PART_MAX);
  }
  memset(&s->request, 0, sizeof s->request);
  s->request.op = SR_OP_BATCH;
  s->request.buf = s->list;
  s->request.bytes = n;
  if (random_below(&t->random, 3) == 0) s->request.flags = SR_DURABLE;
  count(t, COUNT_BATCH);
  t->in_flight[unit]++;
  submit(t, s);
}

static void start_flush(struct thread *t, struct slot *s) {
  memset(&s->request, 0, sizeof s->request);
  s->request.op = SR_OP_FLUSH;
  writer_note_done(t->l, (struct writer_done *)(void *)s->buf);
  count(t, COUNT_FLUSH);
  submit(t, s);
}

/* ---- Blocking calls -----------------------------------------------------------------------------
 */

static int append_all(struct thread *t, struct sr_stream *stream, const uint8_t *buf,
                      uint64_t bytes) {
  for (uint64_t at = 0; at < bytes;) {
    uint64_t n = 1 + random_below(&t->random, 65536);
    if (n > bytes - at) n = bytes - at;
    int r = sr_stream_append(t->port, stream, buf + at, n);
    if (r < 0) return r;
    at += n;
  }
  return 0;
}

static void stream_single(struct thread *t, struct slot *s, uint32_t unit) {
  uint32_t version = next_version(t, unit);
  int64_t bytes = member_bytes(t->l->seed, unit, 0, version);
  if (bytes < 0) return; /* a stream cannot delete: this version never happens */
  member_fill(t->l->seed, unit, 0, version, s->buf, (uint64_t)bytes);
  uint32_t flags = random_below(&t->random, 2) ? SR_DURABLE : 0;
  uint64_t hint = random_below(&t->random, 2) ? (uint64_t)bytes : 0;
  struct sr_stream *stream;
  count(t, COUNT_STREAM);
  int r = sr_stream_begin(t->port, unit_id(unit, 0), hint, flags, &stream);
  if (r == -EAGAIN) return;
  if (!r) {
    r = append_all(t, stream, s->buf, (uint64_t)bytes);
    if (r)
      sr_stream_abort(t->port, stream);
    else
      r = sr_stream_commit(t->port, stream);
  }
  settle(t, unit, version, flags, r);
}

/* The last version that has completed is what is read, as long as nothing is in flight. */
static void read_single(struct thread *t, struct slot *s, uint32_t unit) {
  uint32_t version = atomic_load(&t->l->units[unit].done);
  if (version == 0) return;
  if (version != atomic_load(&t->l->units[unit].issued)) return; /* one has failed in between */
  int64_t n = sr_get(t->port, unit_id(unit, 0), s->buf, 0, SLOT_BYTES);
  if (n == -ENOENT) n = -1;
  if (n < -1) {
    fail(t, "get", n);
    return;
  }
  count(t, COUNT_READ);
  if (!member_is(t->l->seed, unit, 0, version, s->buf, n)) fail(t, "bytes read", 0);
}

static void flush_by(struct thread *t, struct slot *s, enum ledger_count what) {
  struct writer_done *done = (struct writer_done *)(void *)s->buf;
  writer_note_done(t->l, done);
  int r = what == COUNT_CHECKPOINT ? sr_checkpoint(t->port) : sr_flush(t->port);
  if (r == -ENOSPC) {
    count(t, COUNT_FULL);
    return;
  }
  if (r) {
    fail(t, what == COUNT_CHECKPOINT ? "checkpoint" : "flush", r);
    return;
  }
  count(t, what);
  writer_promise_all(t->l, done);
}

static void vacuum(struct thread *t) {
  struct sr_vacuum_result result;
  int r = sr_vacuum(t->port, &result);
  if (r && r != -ENOSPC && r != -EBUSY) {
    fail(t, "vacuum", r);
    return;
  }
  count(t, COUNT_VACUUM);
}

/* ---- A thread -----------------------------------------------------------------------------------
 */

static uint32_t own_unit(struct thread *t, uint32_t first, uint32_t units) {
  uint32_t u;
  do u = first + (uint32_t)random_below(&t->random, units);
  while (u % LEDGER_THREADS != t->number);
  return u;
}

static struct slot *free_slot(struct thread *t) {
  for (;;) {
    for (uint32_t i = 0; i < SLOTS; i++)
      if (!t->slots[i].used) return &t->slots[i];
    reap(t, 10000000);
    if (atomic_load(t->stop)) return NULL;
  }
}

static void act(struct thread *t, struct slot *s) {
  uint64_t dice = random_below(&t->random, 1000);
  uint32_t single = own_unit(t, 0, LEDGER_SINGLES);
  uint32_t group = own_unit(t, LEDGER_SINGLES, LEDGER_GROUPS);
  if (dice < 750) {
    change_single(t, s, single);
    return;
  }
  if (dice < 850) {
    if (t->in_flight[group] == 0) change_group(t, s, group);
  } else if (dice < 880) {
    if (t->in_flight[single] == 0) stream_single(t, s, single);
  } else if (dice < 940) {
    if (t->in_flight[single] == 0) read_single(t, s, single);
  } else if (dice < 965) {
    start_flush(t, s);
  } else if (dice < 988) {
    flush_by(t, s, COUNT_FLUSH);
  } else if (dice < 996) {
    flush_by(t, s, COUNT_CHECKPOINT);
  } else {
    vacuum(t);
  }
}

static void *run_thread(void *arg) {
  struct thread *t = arg;
  while (!atomic_load(t->stop)) {
    struct slot *s = free_slot(t);
    if (s) act(t, s);
    reap(t, 0);
  }
  return NULL;
}

static bool start_thread(struct thread *t) {
  t->slots = aligned_alloc(64, SLOTS * sizeof(struct slot));
  memset(t->slots, 0, SLOTS * sizeof(struct slot));
  for (uint32_t i = 0; i < SLOTS; i++) t->slots[i].buf = aligned_alloc(4096, SLOT_BYTES);
  int r = sr_port_open(t->store, NULL, &t->port);
  if (r) fail(t, "port", r);
  return r == 0;
}

/* Full stores and such are the writer's own business; a log line of an error is not. */
static void on_log(void *arg, enum sr_log_level level, const char *line) {
  (void)arg;
  if (level == SR_LOG_ERROR) fprintf(stderr, "writer: log: %s\n", line);
}

bool writer_run(const struct writer_options *o, struct ledger *l) {
  struct sr_open_options options = SR_OPEN_OPTIONS_INIT;
  options.engine = o->engine;
  options.core_count = o->cores;
  options.no_pin = true;
  options.arena_bytes = 1 << 20;
  options.log = on_log;
  options.seed = o->seed;
  struct sr_store *store;
  atomic_store(&l->opening, 1);
  int r = sr_store_open(o->where, &options, &store);
  atomic_store(&l->opened, 1);
  if (r) {
    fprintf(stderr, "writer: open: %s\n", strerror(-r));
    return false;
  }
  static _Atomic bool stop;
  static struct thread threads[LEDGER_THREADS];
  pthread_t ids[LEDGER_THREADS], disks_id;
  struct disk_thread *disks = disk_thread_create(o, l, store, &stop);
  if (!disks) return false;
  for (uint32_t i = 0; i < LEDGER_THREADS; i++) {
    threads[i] = (struct thread){.o = o, .l = l, .store = store, .number = i, .stop = &stop};
    threads[i].random.state = o->seed + i;
    if (!start_thread(&threads[i])) return false;
  }
  for (uint32_t i = 0; i < LEDGER_THREADS; i++)
    pthread_create(&ids[i], NULL, run_thread, &threads[i]);
  pthread_create(&disks_id, NULL, disk_thread_run, disks);
  time_t end = time(NULL) + o->seconds;
  while (!atomic_load(&stop) && (!o->seconds || time(NULL) < end)) {
    struct timespec ms = {0, 10000000};
    nanosleep(&ms, NULL);
  }
  atomic_store(&stop, true);
  pthread_join(disks_id, NULL);
  bool good = !disk_thread_failed(disks);
  for (uint32_t i = 0; i < LEDGER_THREADS; i++) {
    pthread_join(ids[i], NULL);
    good = good && !threads[i].failed;
  }
  return good;
}
