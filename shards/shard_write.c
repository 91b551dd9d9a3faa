/* shard_write.c - put, delete, and the order of writes to one id. Owned by the shard's thread.
 *
 *   submit: writes_add
 *     |  an older write of the id has not started: BEHIND     no work, detail, room: WAITING
 *     v
 *   write_start: space and log reserved, data going out: STARTED
 *     |  write_ready: all data I/O has completed
 *     v
 *   READY: waits until it is the oldest write of its id
 *     |  writes_advance -> apply
 *     v
 *   in the index and the log; a durable one then waits for a commit
 *
 * A write starts only after all older ones of its id have: so whoever waits for its turn waits
 * for one that already holds all it needs. Links: op->next in FIFOs, op->io.next in s->writes. */
#include "shards/base/plant.h"
#include "shards/shard_internal.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct manifest_waiter) <= sizeof(struct io), "a waiter lies in op->io");

/* ---- Order of one id ---------------------------------------------------------------------- */

static struct shard_op *write_next(const struct shard_op *op) {
  return (struct shard_op *)op->io.next;
}

void writes_add(struct shard *s, struct shard_op *op) {
  uint32_t i = WRITE_HASH(op->hash);
  op->io.next = NULL;
  op->state = WRITE_WAITING;
  if (s->writes[i].first) {
    s->writes[i].last->io.next = &op->io;
  } else {
    s->writes[i].first = op;
  }
  s->writes[i].last = op;
}

static void writes_remove(struct shard *s, struct shard_op *op) {
  uint32_t i = WRITE_HASH(op->hash);
  struct shard_op *before = NULL, *at = s->writes[i].first;
  for (; at != op; at = write_next(at)) before = at;
  if (before) {
    before->io.next = op->io.next;
  } else {
    s->writes[i].first = write_next(op);
  }
  if (s->writes[i].last == op) s->writes[i].last = before;
}

/* The oldest write of an id that is in flight, or NULL. */
static struct shard_op *writes_oldest(struct shard *s, uint64_t hash, struct blob_id id) {
  struct shard_op *op = s->writes[WRITE_HASH(hash)].first;
  while (op && !blob_id_equal(op->id, id)) op = write_next(op);
  return op;
}

void writes_run(struct shard *s, struct shard_op *op) {
  struct shard_op *at = writes_oldest(s, op->hash, op->id);
  for (; at != op; at = write_next(at)) {
    if (blob_id_equal(at->id, op->id) && at->state < WRITE_STARTED) {
      op->state = WRITE_BEHIND;
      return;
    }
  }
  uint64_t hash = op->hash; /* the op may be gone afterwards */
  struct blob_id id = op->id;
  shard_run(s, op);
  writes_advance(s, hash, id);
}

static void apply(struct shard *s, struct shard_op *op);

void writes_advance(struct shard *s, uint64_t hash, struct blob_id id) {
  for (;;) {
    struct shard_op *op = writes_oldest(s, hash, id);
    if (op && op->state == WRITE_READY) {
      apply(s, op);
      continue;
    }
    while (op &&
           (op->state == WRITE_STARTED || op->state == WRITE_READY || !blob_id_equal(op->id, id)))
      op = write_next(op);
    if (!op || op->state != WRITE_BEHIND) return;
    op->state = WRITE_WAITING;
    shard_run(s, op);
  }
}

void write_ready(struct shard *s, struct shard_op *op, int result) {
  op->result = result;
  op->state = WRITE_READY;
  if (PLANTED(writes_out_of_order)) {
    apply(s, op);
    return;
  }
  writes_advance(s, op->hash, op->id);
}

void write_fail(struct shard *s, struct shard_op *op, int result) {
  writes_remove(s, op);
  op_complete(s, op, result);
}

/* ---- Put ------------------------------------------------------------------------------------ */

static void put_finish(struct work *w) {
  sums_late_end(w);
  sums_end(w->feed);
  write_ready(w->shard, w->op, w->error);
}

/* Space for the work's data. STARTED: w->extents and w->extent_count; else the FIFO, or a
 * negative errno. */
static int put_alloc(struct shard *s, struct work *w, uint64_t blocks) {
  struct extent *to = w->detail ? w->detail->extents : w->inline_extents;
  int n = w->detail ? shard_alloc(s, blocks, to, BLOB_EXTENTS_MAX, 0)
                    : shard_alloc_now(s, blocks, to, WORK_EXTENTS, 0);
  if (n == -ENOSPC && !w->detail) {
    n = shard_alloc(s, blocks, s->scratch, BLOB_EXTENTS_MAX, 0);
    if (n > 0 && !work_take_detail(w)) {
      space_cancel(s->space, s->scratch, (uint32_t)n);
      return WAIT_DETAIL;
    }
    if (n > 0) memcpy(w->detail->extents, s->scratch, (size_t)n * sizeof *s->scratch);
  }
  if (n == -EAGAIN) return WAIT_ROOM;
  if (n < 0) return n;
  w->extent_count = (uint32_t)n;
  return STARTED;
}

int put_take(struct shard *s, const struct shard_op *op, struct work **work) {
  bool plain = op->flags & (OP_NO_CHECKSUM | OP_RESERVE);
  uint8_t shift = plain ? 0 : blob_granule_shift(op->bytes);
  bool detail = shift && blob_granule_count(op->bytes, shift) > WORK_SUMS;
  struct work *w = work_take(s, detail);
  if (!w) return detail ? WAIT_DETAIL : WAIT_WORK;
  w->sums.shift = shift;
  int r = put_alloc(s, w, bytes_to_blocks(op->bytes));
  if (r)
    work_free(w);
  else
    *work = w;
  return r;
}

void put_write(struct work *w, struct shard_op *op, void (*finish)(struct work *w)) {
  w->op = op;
  w->plan = write_plan;
  w->piece_done = write_piece_done;
  w->finish = finish;
  w->end = round_up(op->bytes, BLOCK_BYTES);
  w->src = op->buf;
  w->src_bytes = op->bytes;
  if (w->sums.shift) sums_late_add(w);
  work_drive(w);
}

/* Space, work and log; 0, the FIFO, or a negative errno with nothing held. */
static int put_reserve(struct shard *s, struct shard_op *op, struct work **work) {
  int r = put_take(s, op, work);
  if (r) return r;
  struct work *w = *work;
  uint32_t granules = w->sums.shift ? blob_granule_count(op->bytes, w->sums.shift) : 0;
  r = manifest_reserve(s->manifest, op->hash, w->extent_count, granules);
  if (r == 0) return 0;
  space_cancel(s->space, w->extents, w->extent_count);
  work_free(w);
  return r == -EAGAIN ? WAIT_ROOM : r;
}

static enum start empty_start(struct shard *s, struct shard_op *op) {
  int r = manifest_reserve(s->manifest, op->hash, 0, 0);
  if (r == -EAGAIN) return WAIT_ROOM;
  if (r) {
    write_fail(s, op, r);
    return STARTED;
  }
  op->work = NULL;
  op->result = 0;
  op->state = WRITE_READY;
  return STARTED;
}

static enum start put_start(struct shard *s, struct shard_op *op) {
  if (op->bytes == 0) return empty_start(s, op);
  struct work *w;
  int r = put_reserve(s, op, &w);
  if (r > 0) return (enum start)r;
  if (r) {
    write_fail(s, op, r);
    return STARTED;
  }
  op->work = w;
  op->result = 0;
  op->state = WRITE_READY;
  if (op->flags & OP_RESERVE) return STARTED;
  op->state = WRITE_STARTED;
  put_write(w, op, put_finish);
  return STARTED;
}

static void put_blob(const struct shard_op *op, const struct work *w, struct blob *b) {
  memset(b, 0, sizeof *b);
  b->id = op->id;
  b->bytes = op->bytes;
  b->granule_shift = blob_granule_shift(op->bytes);
  b->flags = op->flags & (OP_NO_CHECKSUM | OP_RESERVE) ? BLOB_NO_CHECKSUM : 0;
  if (!w) return;
  b->extents = w->extents;
  b->extent_count = w->extent_count;
  b->checksums = w->sums.at;
  b->granule_count = w->sums.count;
}

static void put_apply(struct shard *s, struct shard_op *op) {
  struct work *w = op->work;
  struct blob b, old;
  int result = (int)op->result;
  uint64_t sequence = 0;
  if (!result && op->flags & OP_IF_ABSENT && index_find(s->index, op->hash, op->id, &old) == 0)
    result = -EEXIST;
  put_blob(op, w, &b);
  /* Other puts have used the index since this one reserved: what held then is made sure now. */
  if (!result) result = index_reserve(s->index, op->hash, b.extent_count, b.granule_count);
  if (result == 0) {
    check(op->flags & OP_RESERVE || b.flags ||
          b.granule_count == blob_granule_count(b.bytes, b.granule_shift));
    sequence = manifest_put(s->manifest, op->hash, &b);
  } else {
    uint32_t granules = b.flags || !w ? 0 : blob_granule_count(b.bytes, b.granule_shift);
    if (w && !PLANTED(leak_failed_put)) space_cancel(s->space, w->extents, w->extent_count);
    manifest_cancel(s->manifest, b.extent_count, granules);
  }
  if (w) work_free(w);
  if (result) {
    op_complete(s, op, result);
  } else {
    write_complete(s, op, sequence);
  }
}

/* ---- Delete --------------------------------------------------------------------------------- */

static enum start delete_start(struct shard *s, struct shard_op *op) {
  int r = manifest_reserve(s->manifest, op->hash, 0, 0);
  if (r == -EAGAIN) return WAIT_ROOM;
  if (r) {
    write_fail(s, op, r);
    return STARTED;
  }
  op->result = 0;
  op->state = WRITE_READY;
  return STARTED;
}

static void delete_apply(struct shard *s, struct shard_op *op) {
  struct blob b;
  if (index_find(s->index, op->hash, op->id, &b) != 0) {
    manifest_cancel(s->manifest, 0, 0);
    op_complete(s, op, -ENOENT);
    return;
  }
  write_complete(s, op, manifest_delete(s->manifest, op->hash, op->id));
}

/* ---- All writes -------------------------------------------------------------------------------
 */

static void commit_done(struct manifest_waiter *waiter, int result) {
  struct shard_op *op = (struct shard_op *)waiter; /* op->io is its first member */
  op_complete(op->work, op, result);
}

void write_complete(struct shard *s, struct shard_op *op, uint64_t sequence) {
  if (!(op->flags & OP_DURABLE)) {
    op_complete(s, op, 0);
    return;
  }
  struct manifest_waiter *waiter = (struct manifest_waiter *)&op->io;
  memset(waiter, 0, sizeof *waiter);
  waiter->done = commit_done;
  waiter->sequence = sequence;
  op->work = s;
  manifest_commit(s->manifest, waiter);
}

static void apply(struct shard *s, struct shard_op *op) {
  writes_remove(s, op);
  if (op->kind == OP_PUT) {
    put_apply(s, op);
  } else if (op->kind == OP_DELETE) {
    delete_apply(s, op);
  } else {
    stream_apply(s, op);
  }
  shard_pump(s);
}

int put_refused(const struct shard_op *op) {
  if (op->bytes > BLOB_BYTES_MAX) return -EFBIG;
  if (!op->buf && op->bytes && !(op->flags & OP_RESERVE)) return -EINVAL;
  return 0;
}

void write_submit(struct shard *s, struct shard_op *op) {
  struct blob b;
  int r = op->kind == OP_PUT ? put_refused(op) : 0;
  if (op->kind == OP_PUT) {
    s->puts++;
  } else {
    s->deletes++;
  }
  if (!r && s->read_only) r = -EROFS;
  /* With no write in flight the index already tells; else it will at this one's turn. */
  if (!r && (op->kind == OP_DELETE || op->flags & OP_IF_ABSENT) &&
      !writes_oldest(s, op->hash, op->id)) {
    bool found = index_find(s->index, op->hash, op->id, &b) == 0;
    if (op->kind == OP_DELETE && !found) r = -ENOENT;
    if (op->kind == OP_PUT && found) r = -EEXIST;
  }
  if (r) {
    op_complete(s, op, r);
    return;
  }
  writes_add(s, op);
  writes_run(s, op);
}

enum start write_start(struct shard *s, struct shard_op *op) {
  if (room_is_awaited(s)) return WAIT_ROOM;
  return op->kind == OP_PUT ? put_start(s, op) : delete_start(s, op);
}
