/* sim_client.c - see sim_client.h. */
#include "tests/sim/sim_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_vmodel.h"

#define SLOT_BYTES (MODEL_BYTES_MAX + 2 * BLOCK_BYTES)
/* So many versions of one id between two flushes, and no more: the model's limit. */
#define SPAN_MAX (MODEL_SPAN - 8)

void client_create(struct client *c, uint64_t seed, struct model *m, uint32_t slot_count) {
  memset(c, 0, sizeof *c);
  c->random.state = seed;
  c->model = m;
  c->slot_count = slot_count;
  c->memory = aligned_alloc(BLOCK_BYTES, slot_count * SLOT_BYTES);
  check(c->memory != NULL && slot_count <= SLOTS_MAX);
  for (uint32_t i = 0; i < slot_count; i++) c->slots[i].buf = c->memory + i * SLOT_BYTES;
}

void client_destroy(struct client *c) { free(c->memory); }

void client_open(struct client *c, struct sr_store *store) {
  c->store = store;
  memset(c->locked, 0, sizeof c->locked);
  if (sr_port_open(store, NULL, &c->port)) sim_violation("no port");
}

void client_close(struct client *c) {
  int r = sr_port_close(c->port);
  if (r) sim_violation("a port with nothing in flight does not close: %s", strerror(-r));
  c->port = NULL;
}

/* ---- Asking ---------------------------------------------------------------------------------- */

static enum kind choose_kind(struct client *c) {
  uint32_t sum = 0, k = 0;
  for (uint32_t i = 0; i < K_COUNT; i++) sum += c->habits.weight[i];
  uint64_t dice = random_up_to(&c->random, sum);
  while (dice >= c->habits.weight[k]) dice -= c->habits.weight[k++];
  return (enum kind)k;
}

static uint64_t choose_bytes(struct client *c) {
  struct random *r = &c->random;
  if (random_percent(r, c->habits.large_percent)) return random_in(r, 1, c->habits.bytes_max);
  switch (random_up_to(r, 8)) {
  case 0:
    return 0;
  case 1:
    return BLOCK_BYTES;
  case 2:
    return random_in(r, 1, BLOCK_BYTES);
  default:
    return random_in(r, 8, 400); /* one sector: more states from the same atoms */
  }
}

/* Nor between a read that takes long and now. */
static bool may_write(const struct client *c, uint32_t id) {
  uint32_t from = c->model->rows[id].floor;
  for (uint32_t i = 0; i < c->slot_count; i++)
    if (c->slots[i].busy && c->slots[i].id == id && c->slots[i].from < from)
      from = c->slots[i].from;
  return !c->locked[id] && model_last(c->model, id) - from < SPAN_MAX;
}

/* Some aligned, some not. */
static char *place(struct client *c, struct slot *s) {
  return s->buf + (random_percent(&c->random, 50) ? 0 : random_up_to(&c->random, BLOCK_BYTES));
}

static void fill_put(struct client *c, struct sr_request *r, uint32_t id, uint32_t *version,
                     char *buf, uint64_t bytes) {
  *version = model_begin(c->model, id, false, bytes);
  model_fill(c->model, id, *version, buf, bytes);
  r->op = SR_OP_PUT;
  r->id = sim_id(id);
  r->buf = buf;
  r->bytes = bytes;
  if (random_percent(&c->random, c->habits.no_checksum_percent)) r->flags |= SR_NO_CHECKSUM;
}

static bool prepare_put(struct client *c, struct slot *s) {
  if (!may_write(c, s->id)) return false;
  s->from = c->model->rows[s->id].visible;
  fill_put(c, &s->r, s->id, &s->version, place(c, s), choose_bytes(c));
  if (random_percent(&c->random, c->habits.durable_percent)) s->r.flags |= SR_DURABLE;
  if (random_percent(&c->random, c->habits.absent_percent)) s->r.flags |= SR_IF_ABSENT;
  return true;
}

static bool prepare_delete(struct client *c, struct slot *s) {
  if (!may_write(c, s->id)) return false;
  s->from = c->model->rows[s->id].visible;
  s->version = model_begin(c->model, s->id, true, 0);
  s->r.op = SR_OP_DELETE;
  if (random_percent(&c->random, c->habits.durable_percent)) s->r.flags |= SR_DURABLE;
  return true;
}

static void prepare_read(struct client *c, struct slot *s) {
  struct random *r = &c->random;
  s->from = c->model->rows[s->id].visible;
  s->r.op = s->kind == K_GET ? SR_OP_GET : SR_OP_STAT;
  if (s->kind == K_STAT) return;
  s->r.buf = place(c, s);
  s->r.offset = random_percent(r, 50) ? 0 : random_up_to(r, 10000);
  s->r.bytes = random_percent(r, 50) ? MODEL_BYTES_MAX : random_up_to(r, 10000);
}

static void prepare_flush(struct client *c, struct slot *s) {
  s->r.op = SR_OP_FLUSH;
  s->from = UINT32_MAX;
  s->since = c->model->volumes ? c->model->volumes->clock : 0;
  for (uint32_t i = 0; i < c->model->id_count; i++) s->visible[i] = c->model->rows[i].visible;
}

/* A batch has no order with what is in flight on its ids: it takes quiet ones, and locks them. */
static bool prepare_batch(struct client *c, struct slot *s) {
  uint32_t want = (uint32_t)random_in(&c->random, 1, MODEL_PARTS_MAX);
  char *at = s->buf;
  s->from = UINT32_MAX; /* its ids are quiet, and locked */
  s->batch.count = 0;
  for (uint32_t tries = 0; tries < 2 * want && s->batch.count < want; tries++) {
    uint32_t id = (uint32_t)random_up_to(&c->random, c->model->id_count);
    if (!may_write(c, id) || c->model->rows[id].in_flight) continue;
    uint32_t n = s->batch.count++;
    struct sr_request *part = &s->parts[n];
    memset(part, 0, sizeof *part);
    c->locked[id] = true;
    s->batch.id[n] = id;
    s->part_list[n] = part;
    if (random_percent(&c->random, 25)) {
      part->op = SR_OP_DELETE;
      part->id = sim_id(id);
      s->batch.version[n] = model_begin(c->model, id, true, 0);
    } else {
      uint64_t bytes = max_u64(choose_bytes(c), 8) % (MODEL_BYTES_MAX / MODEL_PARTS_MAX);
      fill_put(c, part, id, &s->batch.version[n], at, bytes);
      at += bytes + random_up_to(&c->random, 64);
    }
  }
  if (s->batch.count == 0) return false;
  s->r.op = SR_OP_BATCH;
  s->r.buf = s->part_list;
  s->r.bytes = s->batch.count;
  if (random_percent(&c->random, c->habits.durable_percent)) s->r.flags = SR_DURABLE;
  model_batch(c->model, &s->batch);
  return true;
}

static bool prepare(struct client *c, struct slot *s) {
  memset(&s->r, 0, sizeof s->r);
  s->kind = choose_kind(c);
  s->id = (uint32_t)random_up_to(&c->random, c->model->id_count);
  s->r.id = sim_id(s->id);
  s->r.user = s;
  switch (s->kind) {
  case K_PUT:
    return prepare_put(c, s);
  case K_DELETE:
    return prepare_delete(c, s);
  case K_BATCH:
    return prepare_batch(c, s);
  case K_FLUSH:
    prepare_flush(c, s);
    return true;
  default:
    prepare_read(c, s);
    return true;
  }
}

bool client_submit(struct client *c) {
  struct slot *s = NULL;
  for (uint32_t i = 0; i < c->slot_count && !s; i++)
    if (!c->slots[i].busy) s = &c->slots[i];
  if (!s || !prepare(c, s)) return false;
  struct sr_request *list[1] = {&s->r};
  int n = sr_port_submit(c->port, list, 1);
  if (n != 1) sim_violation("submit: %s", strerror(-n)); /* a port has more depth than we slots */
  s->busy = true;
  c->in_flight++;
  c->submitted++;
  return true;
}

/* ---- Results --------------------------------------------------------------------------------- */

static const char *kind_name(enum kind k) {
  static const char *names[] = {"put", "delete", "get", "stat", "flush", "batch"};
  return names[k];
}

static void unexpected(const struct slot *s) {
  sim_violation("%s of blob %u, flags %u: %s", kind_name(s->kind), s->id, s->r.flags,
                strerror((int)-s->r.result));
}

static bool tolerated(const struct client *c, int64_t result) {
  return (result == -EIO && c->tolerance.io_errors) || (result == -EBADMSG && c->tolerance.damage);
}

/* Some version that may have been the newest one before `version` was a blob (or was none). */
static bool was_there(const struct client *c, const struct slot *s, bool present) {
  check(s->from >= c->model->rows[s->id].first);
  for (uint32_t v = s->from; v < s->version; v++) {
    const struct version *x = model_version(c->model, s->id, v);
    if (x->outcome != FAILED && x->absent != present) return true;
  }
  return false;
}

static void end_write(struct client *c, struct slot *s) {
  int64_t r = s->r.result;
  bool absent_only = s->r.flags & SR_IF_ABSENT;
  bool legal = r == 0 || (r == -ENOSPC && s->kind == K_PUT) || tolerated(c, r) ||
               (r == -EEXIST && absent_only) || (r == -ENOENT && s->kind == K_DELETE);
  if (!legal) unexpected(s);
  if (r == -EEXIST && !was_there(c, s, true)) unexpected(s);
  if (r == 0 && absent_only && !was_there(c, s, false))
    sim_violation("put of blob %u: it was there, and only an absent one was to be made", s->id);
  if (r == -ENOENT && !was_there(c, s, false)) unexpected(s);
  if (r == 0 && s->kind == K_DELETE && !was_there(c, s, true))
    sim_violation("delete of blob %u: there was none", s->id);
  c->refused += r == -ENOSPC;
  model_end(c->model, s->id, s->version, r, s->r.flags & SR_DURABLE);
}

static void end_read(struct client *c, const struct slot *s) {
  const struct model *m = c->model;
  int64_t r = s->r.result;
  if (tolerated(c, r)) return;
  if (r < 0 && r != -ENOENT) unexpected(s);
  uint32_t to = model_last(m, s->id);
  if (s->kind == K_GET) {
    if (!model_match_range(m, s->id, s->from, to, r >= 0, s->r.buf, s->r.offset, s->r.bytes,
                           r < 0 ? 0 : (uint64_t)r))
      sim_violation("get of blob %u [%llu, +%llu): %lld: none of the versions %u to %u", s->id,
                    (unsigned long long)s->r.offset, (unsigned long long)s->r.bytes, (long long)r,
                    s->from, to);
    return;
  }
  for (uint32_t v = s->from; v <= to; v++) {
    const struct version *x = model_version(m, s->id, v);
    if (x->outcome != FAILED && (x->absent ? r == -ENOENT : r == 0 && x->bytes == s->r.size_bytes))
      return;
  }
  sim_violation("stat of blob %u: %lld, %llu bytes: none of the versions %u to %u", s->id,
                (long long)r, (unsigned long long)s->r.size_bytes, s->from, to);
}

static void end_batch(struct client *c, struct slot *s) {
  int64_t r = s->r.result;
  if (r && r != -ENOSPC && !tolerated(c, r)) unexpected(s);
  for (uint32_t i = 0; i < s->batch.count; i++) {
    int64_t part = s->parts[i].result;
    /* A delete of nothing is no change, whenever it happened. */
    bool nothing = s->parts[i].op == SR_OP_DELETE && r == 0 && part == -ENOENT;
    model_end(c->model, s->batch.id[i], s->batch.version[i], nothing ? -ENOENT : r,
              s->r.flags & SR_DURABLE);
    c->locked[s->batch.id[i]] = false;
  }
  c->refused += r == -ENOSPC;
}

static void end_request(struct client *c, struct slot *s) {
  switch (s->kind) {
  case K_PUT:
  case K_DELETE:
    end_write(c, s);
    break;
  case K_BATCH:
    end_batch(c, s);
    break;
  case K_FLUSH:
    if (s->r.result && !tolerated(c, s->r.result)) unexpected(s);
    if (s->r.result) break;
    model_flushed(c->model, s->visible);
    if (c->model->volumes) vmodel_cover(c->model->volumes, NULL, s->since);
    break;
  default:
    end_read(c, s);
  }
}

uint32_t client_reap(struct client *c) {
  struct sr_request *out[SLOTS_MAX];
  int n = sr_port_reap(c->port, out, SLOTS_MAX);
  if (n < 0) sim_violation("reap: %s", strerror(-n));
  for (int i = 0; i < n; i++) {
    struct slot *s = out[i]->user;
    if (!c->tolerance.dead) end_request(c, s);
    s->busy = false;
    c->in_flight--;
    c->finished++;
  }
  return (uint32_t)n;
}

/* ---- Calls that wait ------------------------------------------------------------------------- */

/* Ids with nothing in flight are listed once, or not at all, as the model says. */
static void block_list(struct client *c) {
  const struct model *m = c->model;
  bool sure[MODEL_IDS_MAX], present[MODEL_IDS_MAX];
  uint32_t times[MODEL_IDS_MAX] = {0};
  for (uint32_t i = 0; i < m->id_count; i++) {
    const struct row *r = &m->rows[i];
    sure[i] = r->in_flight == 0;
    for (uint32_t v = r->visible + 1; v <= model_last(m, i); v++)
      sure[i] &= model_version(m, i, v)->outcome == FAILED;
    present[i] = !model_version(m, i, r->visible)->absent;
  }
  struct sr_cursor cursor = {0};
  struct sr_entry entries[32];
  int n;
  while ((n = sr_list(c->port, &cursor, entries, array_size(entries))) > 0)
    for (int i = 0; i < n; i++) {
      int64_t id = sim_number(entries[i].id);
      if (id < 0 || id >= m->id_count) sim_violation("list: an id that was never written");
      times[id]++;
    }
  if (c->tolerance.dead) return;
  if (n < 0) sim_violation("list: %s", strerror(-n));
  for (uint32_t i = 0; i < m->id_count; i++)
    if (sure[i] ? times[i] != present[i] : times[i] > 1)
      sim_violation("list: blob %u is listed %u times", i, times[i]);
}

static void block_stream(struct client *c) {
  static char data[MODEL_BYTES_MAX];
  struct random *r = &c->random;
  uint32_t id = (uint32_t)random_up_to(r, c->model->id_count);
  if (!may_write(c, id) || c->model->rows[id].in_flight) return;
  uint64_t bytes = choose_bytes(c), at = 0;
  uint32_t flags = random_percent(r, c->habits.durable_percent) ? SR_DURABLE : 0;
  struct sr_stream *stream;
  int result =
      sr_stream_begin(c->port, sim_id(id), random_percent(r, 50) ? bytes : 0, flags, &stream);
  if (c->tolerance.dead || tolerated(c, result) || result == -ENOSPC) return;
  if (result) sim_violation("stream: begin: %s", strerror(-result));
  uint32_t v = model_begin(c->model, id, false, bytes);
  model_fill(c->model, id, v, data, bytes);
  while (!result && at < bytes) {
    uint64_t n = random_in(r, 1, bytes - at);
    result = sr_stream_append(c->port, stream, data + at, n);
    at += n;
  }
  bool give_up = result || random_percent(r, 10);
  int end = give_up ? sr_stream_abort(c->port, stream) : sr_stream_commit(c->port, stream);
  if (c->tolerance.dead) return;
  if (!give_up) result = end;
  if (give_up && end && !tolerated(c, end)) sim_violation("stream: abort: %s", strerror(-end));
  if (result && result != -ENOSPC && !tolerated(c, result))
    sim_violation("stream of blob %u: %s", id, strerror(-result));
  model_end(c->model, id, v, give_up ? -ECANCELED : result, flags & SR_DURABLE);
}

void client_block(struct client *c) {
  struct sr_vacuum_result vacuum;
  int r = 0;
  switch (random_up_to(&c->random, 6)) {
  case 0:
    r = sr_checkpoint(c->port);
    break;
  case 1:
    r = sr_vacuum(c->port, &vacuum);
    break;
  case 2:
  case 3:
    block_stream(c);
    break;
  default:
    block_list(c);
  }
  if (c->tolerance.dead) return;
  if (r && !tolerated(c, r) && r != -ENOSPC)
    sim_violation("checkpoint or vacuum: %s", strerror(-r));
}
