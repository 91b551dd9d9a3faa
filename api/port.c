/* port.c - requests through ports: submit, reap, wait. A port's own thread. */
#include <errno.h>
#include <string.h>

#include "api/internal.h"

#define FLAGS_KNOWN (SR_DURABLE | SR_IF_ABSENT | SR_NO_CHECKSUM | SR_RESERVE)

int sr_port_open(struct sr_store *s, const struct sr_port_options *options, struct sr_port **out) {
  struct sr_port_options o;
  if (!s || !out) return -EINVAL;
  int r = options_copy(&o, sizeof o, options);
  if (r) return r;
  if (o.depth > 65536) return -EINVAL;
  struct port *port;
  r = port_open(&port, store_of(s), o.depth ? o.depth : 1024);
  if (!r) *out = (struct sr_port *)port;
  return r;
}

int sr_port_close(struct sr_port *p) { return port_close(port_of(p)); }
int sr_port_fd(struct sr_port *p) {
  if (!p || port_of(p)->peer.local) return -EINVAL;
  port_of(p)->fd_used = true;
  port_arm(port_of(p));
  return port_of(p)->event_fd;
}
uint32_t sr_port_in_flight(const struct sr_port *p) { return p ? port_of(p)->in_flight : 0; }

static bool is_block_op(const struct sr_request *r) {
  return r->op >= SR_OP_READ && r->op <= SR_OP_SYNC;
}

static bool well_formed(const struct sr_request *r) {
  if (is_block_op(r)) return true; /* block_fill() looks closer */
  if (r->op < SR_OP_GET || r->op > SR_OP_BATCH || r->flags & ~FLAGS_KNOWN) return false;
  if (!r->buf && r->bytes && (r->op == SR_OP_GET || !(r->flags & SR_RESERVE)))
    return r->op != SR_OP_GET && r->op != SR_OP_PUT && r->op != SR_OP_APPEND;
  return r->op != SR_OP_APPEND || r->stream;
}

/* Copies what the shard needs into the op; what the caller wrote is read only here. `size` is for
 * who may not reach a shard's get to set. */
static void fill_op(const struct store *s, const struct sr_request *r, struct shard_op *op) {
  op->kind = (uint8_t)r->op;
  op->flags = (uint8_t)r->flags;
  op->id = (struct blob_id){r->id.hi, r->id.lo};
  op->hash = hash_id_mixed(op->id, s->hash_key);
  op->buf = r->buf;
  op->offset = r->offset;
  op->bytes = r->bytes;
}

struct sr_stream; /* api/stream.c */
void stream_fill_op(const struct sr_stream *stream, struct shard_op *op);

/* ---- Batches ---- */

static bool part_well_formed(const struct sr_request *r) {
  if (!r || r->done || (r->op != SR_OP_PUT && r->op != SR_OP_DELETE)) return false;
  if (r->flags & ~(r->op == SR_OP_PUT ? SR_NO_CHECKSUM : 0u)) return false;
  return r->op == SR_OP_DELETE || r->buf || !r->bytes;
}

/* On core 0. */
static void part_finished(struct shard_op *part) { request_finish(request_of(part)); }

int batch_fill(const struct store *s, struct sr_request *const parts[], uint64_t count,
               uint32_t flags, struct shard_op *op) {
  if (!parts || !count || count > SR_BATCH_PARTS_MAX || flags & ~SR_DURABLE) return -EINVAL;
  for (uint64_t i = 0; i < count; i++) {
    if (!part_well_formed(parts[i])) return -EINVAL;
    op_of(parts[i])->tick = 0;
  }
  struct shard_op *before = NULL;
  for (uint64_t i = count; i-- > 0;) {
    struct shard_op *part = op_of(parts[i]);
    if (part->tick) return -EINVAL; /* twice in the array */
    fill_op(s, parts[i], part);
    part->size = 0;
    part->core = (uint8_t)core_of_hash(s, part->hash);
    part->tick = 1;
    part->next = before;
    before = part;
  }
  batch_part_fn *fn = part_finished;
  op->kind = OP_BATCH;
  op->flags = (uint8_t)flags;
  op->buf = before;
  op->bytes = count;
  op->size = 0;
  memcpy(&op->work, &fn, sizeof fn); /* a function in a data pointer: POSIX allows it */
  return 0;
}

/* ---- Submit ---- */

/* Whatever is not a plain get. */
__attribute__((noinline)) static int fill_other(const struct store *s, const struct sr_request *r,
                                                struct shard_op *op, uint32_t *core) {
  if (!well_formed(r)) return -EINVAL;
  if (is_block_op(r)) return block_fill(r, op, core);
  fill_op(s, r, op);
  op->size = 0;
  int e = op->kind == SR_OP_BATCH ? batch_fill(s, r->buf, r->bytes, r->flags, op) : 0;
  if (op->kind == OP_APPEND) stream_fill_op(r->stream, op);
  bool on_core_0 = (op->kind & ~OP_CALL) == OP_FLUSH; /* or OP_BATCH */
  *core = on_core_0 ? 0 : core_of_hash(s, op->hash);
  return e;
}

static inline bool is_plain_get(const struct sr_request *r) {
  return likely(r->op == SR_OP_GET && !(r->flags & ~FLAGS_KNOWN) && r->buf);
}

static inline int fill(const struct store *s, const struct sr_request *r, struct shard_op *op,
                       uint32_t *core) {
  if (!is_plain_get(r)) return fill_other(s, r, op, core);
  fill_op(s, r, op);
  *core = core_of_hash(s, op->hash);
  return 0;
}

/* On a core, whatever is no plain get. */
__attribute__((noinline)) static int enter_other(struct port *port, struct sr_request *r) {
  uint32_t core;
  if (!r || !r->done) return -EINVAL;
  int e = fill(port->store, r, op_of(r), &core);
  if (e) return e;
  op_of(r)->core = (uint8_t)core;
  op_of(r)->owner = &port->peer;
  core_enter(port->peer.local, op_of(r));
  return 0;
}

/* On a core: nothing is ever full. */
static int submit_here(struct port *port, struct sr_request *const requests[], uint32_t count) {
  struct core *here = port->peer.local;
  const struct store *s = port->store;
  uint32_t i = 0;
  int e = 0;
  for (; i < count; i++) {
    struct sr_request *r = requests[i];
    if (likely(r && r->done) && is_plain_get(r)) {
      struct shard_op *op = op_of(r);
      fill_op(s, r, op);
      if (core_enter_get(here, op, &port->peer)) continue;
      op->core = (uint8_t)core_of_hash(s, op->hash);
      op->owner = &port->peer;
      core_leave(here, op);
      continue;
    }
    e = enter_other(port, r);
    if (e) break;
  }
  port->in_flight += i;
  return i ? (int)i : e;
}

int sr_port_submit(struct sr_port *p, struct sr_request *const requests[], uint32_t count) {
  struct port *port = port_of(p);
  if (unlikely(!p || (!requests && count))) return -EINVAL;
  if (unlikely(!port->open)) return -ESHUTDOWN;
  if (port->peer.local) return submit_here(port, requests, count);
  const struct store *s = port->store;
  uint32_t i = 0;
  int r = 0;
  for (; i < count; i++) {
    struct sr_request *request = requests[i];
    uint32_t core;
    r = unlikely(!request) ? -EINVAL : fill(s, request, op_of(request), &core);
    if (likely(!r)) r = port_add(port, core, op_of(request));
    if (unlikely(r)) break;
  }
  port_send(port);
  return i ? (int)i : r;
}

int sr_port_reap(struct sr_port *p, struct sr_request *finished[], uint32_t max) {
  struct port *port = port_of(p);
  if (!p || port->peer.local || (!finished && max)) return -EINVAL;
  if (!port->open) return -ESHUTDOWN;
  port_drain(port);
  uint32_t n = 0, stored = 0;
  /* Only what is here now: a callback that submits again must not hold us for ever. */
  const struct shard_op *last = port->finished.tail, *op = NULL;
  while (op != last && port->finished.head) {
    op = port->finished.head;
    struct sr_request *request = request_of(port->finished.head);
    if (!request->done && stored == max) break;
    port_take(port);
    request_finish(request);
    n++;
    if (request->done)
      request->done(request);
    else
      finished[stored++] = request;
  }
  if (n == 0 && port->fd_used && !port->finished.head) port_arm(port);
  return (int)n;
}

int sr_port_wait(struct sr_port *p, int64_t timeout_ns) {
  struct port *port = port_of(p);
  if (!p || port->peer.local) return -EINVAL;
  if (!port->open) return -ESHUTDOWN;
  if (port->in_flight == 0) return -ENODATA;
  return port_wait(port, timeout_ns);
}

void local_finished(struct peer *peer, struct shard_op *op) {
  struct port *port = container_of(peer, struct port, peer);
  struct sr_request *request = request_of(op);
  port->in_flight--;
  request_finish(request);
  request->done(request);
}
