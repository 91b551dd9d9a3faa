/* fuzz_requests.c - the public interface: a store in memory is opened with whatever options, and
 * asked for whatever; a model knows the right answers.
 *
 * Input: options (fixed fields, then two texts that end with a zero: engine and cores; empty:
 * none), then requests: op (1), flags (4), id (1), offset (8), bytes (8), parts of a batch (1). */
#include <errno.h>
#include <stdlib.h>

#include "api/shardring.h"
#include "tests/fuzz/fuzz.h"

#define IDS          6u
#define BUFFER_BYTES 20000u /* of the caller */
#define PARTS_MAX    5u
#define STEPS_MAX    24
#define KNOWN_FLAGS  (SR_DURABLE | SR_IF_ABSENT | SR_NO_CHECKSUM | SR_RESERVE)

struct model {
  bool there[IDS], hollow[IDS]; /* hollow: reserved, its bytes are undefined */
  uint64_t bytes[IDS];
  char *content[IDS];
};

struct asker {
  struct sr_port *port;
  struct model model;
  char *buffer;
  uint8_t fill;
};

static struct sr_id id_of(uint32_t n) { return (struct sr_id){n * 77u, ~(uint64_t)n}; }

static char *feed_text(struct feed *f) {
  const uint8_t *end = f->left ? memchr(f->at, 0, f->left) : NULL;
  size_t n = end ? (size_t)(end - f->at) : f->left;
  char *text = fuzz_string(f->at, n);
  f->at += n + (end != NULL);
  f->left -= n + (end != NULL);
  return text;
}

/* ---- Model ------------------------------------------------------------------------------- */

static void model_put(struct model *m, uint32_t n, const struct sr_request *r) {
  free(m->content[n]);
  m->content[n] = NULL;
  m->there[n] = true;
  m->hollow[n] = r->flags & SR_RESERVE;
  m->bytes[n] = r->bytes;
  if (!m->hollow[n]) m->content[n] = fuzz_string(r->buf, r->bytes);
}
static void model_apply(struct model *m, uint32_t n, const struct sr_request *r) {
  if (r->op == SR_OP_PUT) model_put(m, n, r);
  if (r->op == SR_OP_DELETE) m->there[n] = false;
}

static void check_get(const struct model *m, uint32_t n, const struct sr_request *r) {
  if (r->offset + r->bytes < r->offset) {
    check(r->result == -EINVAL);
    return;
  }
  if (!m->there[n]) {
    check(r->result == -ENOENT);
    return;
  }
  uint64_t left = r->offset < m->bytes[n] ? m->bytes[n] - r->offset : 0;
  check(r->result == (int64_t)min_u64(left, r->bytes));
  check(r->size_bytes == m->bytes[n]);
  if (r->result > 0 && !m->hollow[n])
    check(memcmp(r->buf, m->content[n] + r->offset, (size_t)r->result) == 0);
}

static void check_put(const struct model *m, uint32_t n, const struct sr_request *r) {
  bool exists = r->flags & SR_IF_ABSENT && m->there[n];
  if (r->result == 0)
    check(!exists);
  else
    check(r->result == -EEXIST ? exists : r->result == -ENOSPC || r->result == -EFBIG);
  if (r->bytes > SR_BLOB_BYTES_MAX) check(r->result == -EFBIG || exists);
  if (r->bytes <= BUFFER_BYTES) check(r->result == 0 || exists);
}

static void check_answer(struct model *m, uint32_t n, const struct sr_request *r) {
  switch ((enum sr_op)r->op) {
  case SR_OP_GET:
    check_get(m, n, r);
    break;
  case SR_OP_PUT:
    check_put(m, n, r);
    break;
  case SR_OP_DELETE:
    check(r->result == (m->there[n] ? 0 : -ENOENT));
    break;
  case SR_OP_STAT:
    check(r->result == (m->there[n] ? 0 : -ENOENT));
    if (m->there[n]) check(r->size_bytes == m->bytes[n]);
    break;
  case SR_OP_FLUSH:
  case SR_OP_NOP:
    check(r->result == 0);
    break;
  case SR_OP_APPEND:
  case SR_OP_BATCH:
    break;
  case SR_OP_READ: /* without a block: never accepted. See fuzz_blocks.c */
  case SR_OP_WRITE:
  case SR_OP_WRITE_ZEROES:
  case SR_OP_DISCARD:
  case SR_OP_SYNC:
    check(false);
  }
  if (r->result == 0) model_apply(m, n, r);
}

/* ---- Asking ------------------------------------------------------------------------------ */

/* One request and its answer; false: it was refused at once. */
static bool ask(struct asker *a, struct sr_request *r) {
  struct sr_request *one[1] = {r}, *finished[2];
  int n = sr_port_submit(a->port, one, 1);
  check(n == 1 || n == -EINVAL);
  if (n < 0) return false;
  check(sr_port_wait(a->port, -1) == 1);
  check(sr_port_reap(a->port, finished, 2) == 1);
  check(finished[0] == r);
  check(sr_port_in_flight(a->port) == 0);
  return true;
}

static uint32_t feed_request(struct asker *a, struct feed *f, struct sr_request *r, char *buffer) {
  memset(r, 0, sizeof *r);
  r->op = feed_u8(f);
  r->flags = (uint32_t)feed_number(f, 4);
  uint32_t n = feed_u8(f) % IDS;
  r->id = id_of(n);
  r->offset = feed_number(f, 8);
  r->bytes = feed_number(f, 8);
  /* A reservation may ask for anything. A buffer is as large as its caller says: that he keeps. */
  if (r->flags & SR_RESERVE && r->op == SR_OP_PUT) return n;
  r->bytes %= BUFFER_BYTES + 1;
  r->buf = buffer;
  if (r->op == SR_OP_PUT) memset(buffer, ++a->fill, r->bytes);
  return n;
}

static void ask_batch(struct asker *a, struct feed *f, struct sr_request *r, uint32_t count) {
  struct sr_request parts[PARTS_MAX], *array[PARTS_MAX];
  uint32_t ids[PARTS_MAX];
  char *buffers[PARTS_MAX];
  bool good = count > 0 && (r->flags & ~(uint32_t)SR_DURABLE) == 0;
  for (uint32_t i = 0; i < count; i++) {
    buffers[i] = fuzz_alloc(BUFFER_BYTES);
    array[i] = &parts[i];
    ids[i] = feed_request(a, f, &parts[i], buffers[i]);
    bool put = parts[i].op == SR_OP_PUT && (parts[i].flags & ~(uint32_t)SR_NO_CHECKSUM) == 0;
    good &= put || (parts[i].op == SR_OP_DELETE && parts[i].flags == 0);
  }
  r->buf = array;
  r->bytes = count;
  if (ask(a, r) && r->result == 0) {
    check(good);
    for (uint32_t i = 0; i < count; i++) {
      bool there = a->model.there[ids[i]];
      check(parts[i].result == (parts[i].op == SR_OP_DELETE && !there ? -ENOENT : 0));
      model_apply(&a->model, ids[i], &parts[i]);
    }
  } else {
    check(!good);
  }
  for (uint32_t i = 0; i < count; i++) free(buffers[i]);
}

static void step(struct asker *a, struct feed *f) {
  struct sr_request r;
  uint32_t n = feed_request(a, f, &r, a->buffer), parts = feed_u8(f) % (PARTS_MAX + 1);
  if (r.op == SR_OP_BATCH) {
    ask_batch(a, f, &r, parts);
    return;
  }
  bool legal = r.op >= SR_OP_GET && r.op <= SR_OP_NOP && r.op != SR_OP_APPEND &&
               (r.flags & ~(uint32_t)KNOWN_FLAGS) == 0;
  if (ask(a, &r)) {
    check(legal);
    check_answer(&a->model, n, &r);
  } else {
    check(!legal);
  }
}

/* All that the model has is there, and no more. */
static void check_all(struct asker *a) {
  uint64_t count = 0;
  for (uint32_t n = 0; n < IDS; n++) {
    struct sr_request r = {
        .op = SR_OP_GET, .id = id_of(n), .buf = a->buffer, .bytes = BUFFER_BYTES};
    check(ask(a, &r));
    check_get(&a->model, n, &r);
    count += a->model.there[n];
  }
  check(sr_count(a->port) == (int64_t)count);
}

static void use(struct sr_store *store, struct feed *f, uint32_t depth) {
  struct asker a = {.buffer = fuzz_alloc(BUFFER_BYTES)};
  struct sr_port_options o = SR_PORT_OPTIONS_INIT;
  o.depth = depth;
  int r = sr_port_open(store, &o, &a.port);
  check(r == (depth > 65536 ? -EINVAL : 0));
  if (r == 0) {
    for (int i = 0; i < STEPS_MAX && f->left > 0; i++) step(&a, f);
    check_all(&a);
    check(sr_port_close(a.port) == 0);
  }
  for (uint32_t n = 0; n < IDS; n++) free(a.model.content[n]);
  free(a.buffer);
}

static void ignore(void *arg, enum sr_log_level level, const char *line) {
  (void)arg, (void)level;
  check(line != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  uint8_t flags = feed_u8(&f);
  uint32_t depth = (uint32_t)feed_number(&f, 4);
  o.core_count = (uint32_t)feed_number(&f, 4);
  o.queue_depth = (uint32_t)feed_number(&f, 4);
  o.poll_us = (uint32_t)feed_number(&f, 4);
  o.lock_timeout_ms = (uint32_t)feed_number(&f, 4);
  o.arena_bytes = feed_number(&f, 8);
  o.damaged = feed_u8(&f);
  o.scrub_bytes_per_second = feed_number(&f, 8);
  o.read_only = flags & 1;
  o.must_engine = flags & 2;
  o.no_background = flags & 4;
  o.no_pin = true;
  o.seed = 1;
  o.log = ignore;
  char *engine = feed_text(&f), *cores = feed_text(&f);
  if (*engine) o.engine = engine;
  if (*cores) o.cores = cores;
  /* Memory is not what is tried here. */
  if (o.arena_bytes < UINT64_C(1) << 40) o.arena_bytes %= 4 << 20;
  struct sr_store *store = NULL;
  int r = sr_store_open("mem:64M:2", &o, &store);
  check((r == 0) == (store != NULL));
  check(r == 0 || r == -EINVAL || r == -ENOMEM || r == -ENOTSUP);
  if (r == 0) {
    check(sr_shard_count(store) == 2);
    check(sr_core_count(store) >= 1 && sr_core_count(store) <= SR_CORES_MAX);
    if (!o.read_only) use(store, &f, depth);
    check(sr_store_close(store) == 0);
  }
  free(cores);
  free(engine);
  return 0;
}
