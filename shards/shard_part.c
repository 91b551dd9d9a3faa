/* shard_part.c - a shard's parts of an atomic batch: prepare, reserve, apply; see struct
 * shard_part. Owned by the shard's thread.
 *
 * A prepared put keeps its extents and checksums in memory of its own, one allocation of the exact
 * size, and gives its work back: the parts of a batch wait for each other, so if they held any of
 * the fixed works meanwhile, batches could lock each other up.
 *
 * Parts take no place in the order of writes of an id: they have none with other requests in
 * flight, and among themselves they are applied in one go. */
#include "shards/shard_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct prepared { /* op->work of a prepared put that is not empty */
  uint32_t extent_count, granule_count;
  struct extent extents[]; /* then uint32_t checksums[granule_count] */
};

_Static_assert(sizeof(struct shard_part) <= sizeof(struct io), "a part lies in op->io");

static struct shard_part *part_of(struct shard_op *op) { return (struct shard_part *)&op->io; }

/* ---- Prepare -------------------------------------------------------------------------------- */

static struct prepared *keep(const struct work *w) {
  size_t extents = w->extent_count * sizeof *w->extents, sums = w->sums.count * sizeof *w->sums.at;
  struct prepared *p = malloc(sizeof *p + extents + sums);
  if (!p) return NULL;
  p->extent_count = w->extent_count;
  p->granule_count = w->sums.count;
  memcpy(p->extents, w->extents, extents);
  memcpy(p->extents + p->extent_count, w->sums.at, sums);
  return p;
}

static void prepare_finish(struct work *w) {
  struct shard *s = w->shard;
  struct shard_op *op = w->op;
  int result = w->error;
  sums_late_end(w);
  sums_end(w->feed);
  op->work = result ? NULL : keep(w);
  if (!result && !op->work) result = -ENOMEM;
  if (result) space_cancel(s->space, w->extents, w->extent_count);
  work_free(w);
  op_complete(s, op, result);
  shard_pump(s);
}

enum start part_start(struct shard *s, struct shard_op *op) {
  struct work *w;
  if (s->waiting[WAIT_ROOM].first && !s->pumping) return WAIT_ROOM; /* first come, first served */
  int r = put_take(s, op, &w);
  if (r > 0) return (enum start)r;
  if (r)
    op_complete(s, op, r);
  else
    put_write(w, op, prepare_finish);
  return STARTED;
}

static void prepare(struct shard *s, struct shard_op *op) {
  int r = s->read_only ? -EROFS : put_refused(op);
  s->puts++;
  op->work = NULL;
  if (r || op->bytes == 0)
    op_complete(s, op, r);
  else
    shard_run(s, op);
}

/* ---- Reserve -------------------------------------------------------------------------------- */

static struct manifest_group group_of(struct shard_op *first) {
  struct manifest_group g = {0};
  for (struct shard_op *op = first; op; op = part_of(op)->sibling) {
    const struct prepared *p = part_of(op)->kind == OP_PUT ? op->work : NULL;
    manifest_group_add(&g, p ? p->extent_count : 0, p ? p->granule_count : 0);
  }
  return g;
}

/* Applying makes sure of the index's memory again, one put after the other; here it is found out
 * early that there is none. */
static int reserve_index(struct shard *s, struct shard_op *first) {
  int r = 0;
  for (struct shard_op *op = first; op && !r; op = part_of(op)->sibling) {
    const struct prepared *p = op->work;
    if (part_of(op)->kind != OP_PUT) continue;
    r = index_reserve(s->index, op->hash, p ? p->extent_count : 0, p ? p->granule_count : 0);
  }
  return r;
}

static void hold(struct shard *s, struct shard_op *first, bool on) {
  s->holds += (uint32_t)on - (uint32_t)part_of(first)->holds;
  part_of(first)->holds = on;
}

static void reserve(struct shard *s, struct shard_op *first) {
  struct manifest_group g = group_of(first);
  int r = manifest_reserve_group(s->manifest, &g);
  if (!r && (r = reserve_index(s, first))) manifest_cancel_group(s->manifest, &g);
  hold(s, first, r == -EAGAIN);
  op_complete(s, first, r);
}

static void unreserve(struct shard *s, struct shard_op *first) {
  struct manifest_group g = group_of(first);
  manifest_cancel_group(s->manifest, &g);
  hold(s, first, true);
  op_complete(s, first, first->result);
}

/* ---- Apply and cancel ------------------------------------------------------------------------ */

static void apply_put(struct shard *s, struct shard_op *op) {
  struct prepared *p = op->work;
  struct blob b = {.id = op->id,
                   .bytes = op->bytes,
                   .granule_shift = blob_granule_shift(op->bytes),
                   .flags = op->flags & OP_NO_CHECKSUM ? BLOB_NO_CHECKSUM : 0};
  if (p) {
    b.extents = p->extents;
    b.extent_count = p->extent_count;
    b.checksums = (const uint32_t *)(p->extents + p->extent_count);
    b.granule_count = p->granule_count;
  }
  manifest_put(s->manifest, op->hash, &b);
  free(p);
  op->work = NULL;
}

static int apply_delete(struct shard *s, struct shard_op *op) {
  struct blob b;
  s->deletes++;
  if (index_find(s->index, op->hash, op->id, &b) != 0) {
    manifest_cancel(s->manifest, 0, 0);
    return -ENOENT;
  }
  manifest_delete(s->manifest, op->hash, op->id);
  return 0;
}

static void apply(struct shard *s, struct shard_op *first) {
  struct manifest_group g = group_of(first);
  manifest_use_group(s->manifest, &g);
  for (struct shard_op *op = first; op; op = part_of(op)->sibling) {
    op->result = 0;
    if (part_of(op)->kind == OP_PUT)
      apply_put(s, op);
    else
      op->result = apply_delete(s, op);
  }
  if (part_of(first)->many_shards) manifest_note_batch(s->manifest);
  manifest_end_group(s->manifest);
  op_complete(s, first, first->result);
}

static void cancel(struct shard *s, struct shard_op *first) {
  for (struct shard_op *op = first; op; op = part_of(op)->sibling) {
    struct prepared *p = part_of(op)->kind == OP_PUT ? op->work : NULL;
    if (!p) continue;
    space_cancel(s->space, p->extents, p->extent_count);
    free(p);
    op->work = NULL;
  }
  hold(s, first, false);
  op_complete(s, first, first->result);
}

void part_submit(struct shard *s, struct shard_op *op) {
  switch (op->kind) {
  case OP_PREPARE:
    prepare(s, op);
    break;
  case OP_PARTS_RESERVE:
    reserve(s, op);
    break;
  case OP_PARTS_UNRESERVE:
    unreserve(s, op);
    break;
  case OP_PARTS_APPLY:
    apply(s, op);
    break;
  default:
    cancel(s, op);
  }
}
