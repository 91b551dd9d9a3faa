/* batch.c - the batcher: states and order in batch.h. On core 0's thread. */
#include "runtime/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/store.h"

#define TRIES            8u /* before a batch is said not to fit the log */
#define TRIES_WITH_FLUSH 3u /* so many by a flush alone, then with checkpoints */

enum batch_step { PREPARE, RESERVE, UNRESERVE, APPLY, CANCEL, ROOM, GUEST };

struct batch { /* in op->io of the batch */
  struct shard_op *first, *leader;
  void *owner;
  uint32_t pending, groups;
  int32_t result;
  uint8_t step, tries;
};
struct part { /* in op->io of a part */
  struct shard_part shard;
  struct shard_op *batch;
  struct shard_op *next;   /* in the order of the batch */
  struct shard_op *leader; /* of a leader, the first part in its shard: the next shard's */
};
_Static_assert(sizeof(struct batch) <= sizeof(struct io), "a batch lies in op->io");
_Static_assert(sizeof(struct part) <= sizeof(struct io), "a part lies in op->io");

static struct batch *batch_of(struct shard_op *op) { return (struct batch *)&op->io; }
static struct part *part_of(struct shard_op *op) { return (struct part *)&op->io; }
static struct core *core0(struct batcher *b) { return &b->store->cores[0]; }

static void finished(struct peer *peer, struct shard_op *op);

int batcher_init(struct batcher *b, struct store *store) {
  *b = (struct batcher){.store = store, .peer = store->cores[0].self};
  b->peer.finished = finished;
  b->groups = calloc(store->shard_count, sizeof *b->groups);
  return b->groups ? 0 : -ENOMEM;
}

void batcher_finish(struct batcher *b) { free(b->groups); }

/* ---- The end -------------------------------------------------------------------------------- */

/* The parts' results, then the batch's own: now, or with the flush that makes it durable. */
static void complete(struct batcher *b, struct shard_op *op) {
  struct batch *x = batch_of(op);
  batch_part_fn *part_finished;
  memcpy(&part_finished, &op->work, sizeof part_finished);
  for (struct shard_op *part = x->first, *next; part; part = next) {
    next = part_of(part)->next;
    if (x->result && part->result == 0) part->result = -ECANCELED;
    part->size = 0;
    if (part_finished) part_finished(part);
  }
  op->owner = x->owner;
  op->result = x->result;
  op->size = 0;
  b->active--;
  b->failed += x->result != 0;
  if (!x->result && op->flags & OP_DURABLE)
    flusher_request(&b->store->flusher, op);
  else
    core_complete(core0(b), op);
}

/* ---- Steps ------------------------------------------------------------------------------------
 */

static void send(struct batcher *b, struct shard_op *part, uint8_t kind) {
  part->kind = kind;
  core_enter(core0(b), part);
}

/* One message for each shard, or for each that succeeded in the last step. */
static void ask_groups(struct batcher *b, struct shard_op *op, enum batch_step step, uint8_t kind,
                       bool succeeded) {
  struct batch *x = batch_of(op);
  x->step = (uint8_t)step;
  x->pending = 0;
  for (struct shard_op *part = x->leader; part; part = part_of(part)->leader) {
    if (succeeded && part->result) continue;
    x->pending++;
    send(b, part, kind);
  }
}

static void enter_gate(struct batcher *b, struct shard_op *op) {
  op_chain_add(&b->waiting, op);
  batcher_admit(b);
}

/* Before all others: it has waited once. */
static void return_to_gate(struct batcher *b, struct shard_op *op) {
  op->next = b->waiting.head;
  if (!b->waiting.head) b->waiting.tail = op;
  b->waiting.head = op;
}

static void leave_gate(struct batcher *b) {
  check(b->inside > 0);
  if (--b->inside == 0) survivors_mark(b->store->survivors, false);
  b->alone = false;
  flusher_start(&b->store->flusher); /* if one waits */
  batcher_admit(b);
}

/* A batch that found no room goes in alone: two that refuse each other would do so for ever. */
void batcher_admit(struct batcher *b) {
  while (b->waiting.head && !b->alone && !b->making_room && flusher_gate_open(&b->store->flusher)) {
    struct shard_op *op = b->waiting.head;
    bool alone = batch_of(op)->tries > 0;
    if (alone && b->inside) return;
    b->waiting.head = op->next;
    if (!op->next) b->waiting.tail = NULL;
    if (b->inside++ == 0) survivors_mark(b->store->survivors, true);
    b->alone = alone;
    if (batch_of(op)->step == GUEST) {
      b->active--;
      core_complete(core0(b), op);
      continue;
    }
    ask_groups(b, op, RESERVE, OP_PARTS_RESERVE, false);
  }
}

void batcher_enter(struct batcher *b, struct shard_op *op) {
  *batch_of(op) = (struct batch){.step = GUEST};
  b->active++;
  enter_gate(b, op);
}

void batcher_leave(struct batcher *b) { leave_gate(b); }

static void cancel(struct batcher *b, struct shard_op *op) {
  ask_groups(b, op, CANCEL, OP_PARTS_CANCEL, false);
}

/* A flush lets the logs move on as far as checkpoints have come; if that does not do, checkpoints
 * of all that a refusing shard holds, and a flush then. */
static void make_room(struct batcher *b, struct shard_op *op) {
  struct batch *x = batch_of(op);
  x->step = ROOM;
  x->pending = 1;
  for (struct shard_op *part = x->leader; part && x->tries > TRIES_WITH_FLUSH;
       part = part_of(part)->leader) {
    if (part->result != -EAGAIN) continue;
    x->pending++;
    send(b, part, OP_CHECKPOINT);
  }
}

static void room_made(struct batcher *b, struct shard_op *op) {
  if (--batch_of(op)->pending > 0) return;
  op->owner = &b->peer; /* comes back here */
  flusher_request(&b->store->flusher, op);
}

static void prepared(struct batcher *b, struct shard_op *op) {
  if (batch_of(op)->result)
    cancel(b, op);
  else
    enter_gate(b, op);
}

/* One at a time makes room, so that its tries count. Others who found none wait for it. */
static void retry(struct batcher *b, struct shard_op *op) {
  bool first = !b->making_room;
  b->making_room = true;
  b->retries++;
  if (!first) return_to_gate(b, op);
  leave_gate(b);
  if (!first) return;
  batch_of(op)->tries++;
  make_room(b, op);
  room_made(b, op);
}

static void unreserved(struct batcher *b, struct shard_op *op) {
  struct batch *x = batch_of(op);
  if (!x->result && (b->making_room || x->tries < TRIES)) {
    retry(b, op);
    return;
  }
  if (!x->result) x->result = -ENOSPC;
  for (struct shard_op *part = x->leader; part; part = part_of(part)->leader)
    if (part->result == -EAGAIN) part->result = x->result == -ENOSPC ? -ENOSPC : 0;
  leave_gate(b);
  cancel(b, op);
}

/* The worst of the shards' answers decides: an error, no room, or 0. */
static void reserved(struct batcher *b, struct shard_op *op) {
  struct batch *x = batch_of(op);
  bool short_of_room = false;
  for (struct shard_op *part = x->leader; part; part = part_of(part)->leader) {
    if (part->result == -EAGAIN)
      short_of_room = true;
    else if (part->result && !x->result)
      x->result = (int32_t)part->result;
  }
  if (!x->result && !short_of_room) {
    ask_groups(b, op, APPLY, OP_PARTS_APPLY, false);
    return;
  }
  ask_groups(b, op, UNRESERVE, OP_PARTS_UNRESERVE, true);
  if (x->pending == 0) unreserved(b, op);
}

static void step_done(struct batcher *b, struct shard_op *op) {
  switch (batch_of(op)->step) {
  case PREPARE:
    prepared(b, op);
    break;
  case RESERVE:
    reserved(b, op);
    break;
  case UNRESERVE:
    unreserved(b, op);
    break;
  case APPLY:
    leave_gate(b);
    complete(b, op);
    break;
  default:
    complete(b, op);
  }
}

/* peer.finished: a part has done a step, or the flush for which a batch waited is over. */
static void finished(struct peer *peer, struct shard_op *op) {
  struct batcher *b = container_of(peer, struct batcher, peer);
  if (op->kind == OP_BATCH) {
    b->making_room = false;
    return_to_gate(b, op);
    batcher_admit(b);
    return;
  }
  struct shard_op *batch = part_of(op)->batch;
  struct batch *x = batch_of(batch);
  if (x->step == ROOM) {
    room_made(b, batch);
    return;
  }
  if (x->step == PREPARE && op->result && !x->result) x->result = (int32_t)op->result;
  check(x->pending > 0);
  if (--x->pending == 0) step_done(b, batch);
}

/* ---- The beginning ----------------------------------------------------------------------------
 */

/* Links the parts: all of the batch, those of each shard, the first of each shard. */
static void link_parts(struct batcher *b, struct shard_op *op) {
  struct batch *x = batch_of(op);
  struct shard_op **link = &x->first, **leader = &x->leader;
  uint32_t shards = b->store->shard_count;
  for (struct shard_op *part = op->buf, *next; part; part = next) {
    struct part *p = part_of(part);
    next = part->next;
    *p = (struct part){.batch = op, .shard.kind = part->kind};
    part->owner = &b->peer;
    part->result = 0;
    *link = part;
    link = &p->next;
    struct shard_op **last = &b->groups[shard_of_hash(part->hash, shards)];
    if (*last) {
      part_of(*last)->shard.sibling = part;
    } else {
      *leader = part;
      leader = &p->leader;
      x->groups++;
    }
    *last = part;
  }
  for (struct shard_op *part = x->leader; part; part = part_of(part)->leader) {
    b->groups[shard_of_hash(part->hash, shards)] = NULL;
    part_of(part)->shard.many_shards = x->groups > 1;
  }
}

void batcher_request(struct batcher *b, struct shard_op *op) {
  struct batch *x = batch_of(op);
  *x = (struct batch){.owner = op->owner, .step = PREPARE, .pending = 1};
  b->batches++;
  b->active++;
  link_parts(b, op);
  for (struct shard_op *part = x->first; part; part = part_of(part)->next) {
    if (part->kind != OP_PUT) continue;
    x->pending++;
    send(b, part, OP_PREPARE);
  }
  if (--x->pending == 0) step_done(b, op);
}
