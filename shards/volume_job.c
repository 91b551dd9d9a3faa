/* volume_job.c - what is done to layers and records on behalf of the volumes' catalog: beside
 * requests, a little in each tick. Owned by the shard's thread.
 *
 * Layers are dropped and merged one after the other, leaf by leaf. Each leaf is one change in the
 * log, so a crash leaves some of it to be done again: which layers are superfluous follows from the
 * records. */
#include "shards/volume_internal.h"

#include <errno.h>

#define LEAVES_PER_TICK 8u

/* ---- Records ----------------------------------------------------------------------------------
 */

static void record_done(struct manifest_waiter *waiter, int result) {
  struct shard_op *op = (struct shard_op *)waiter; /* op->io is its first member */
  op_complete(op->work, op, result);
}

/* False: no room in the log now. */
static bool put_record(struct shard *s, struct shard_op *op) {
  struct manifest *m = s->manifest;
  int r = room_is_awaited(s) ? -EAGAIN : manifest_reserve_record(m, op->id, (uint32_t)op->bytes);
  if (r == -EAGAIN) return false;
  if (r) {
    op_complete(s, op, r);
    return true;
  }
  uint64_t ticket = manifest_put_record(m, op->id, op->buf, (uint32_t)op->bytes);
  if (op->offset) manifest_note_batch(m);
  if (!(op->flags & OP_DURABLE)) {
    op_complete(s, op, 0);
    return true;
  }
  struct manifest_waiter *waiter = (struct manifest_waiter *)&op->io;
  *waiter = (struct manifest_waiter){.done = record_done, .sequence = ticket};
  op->work = s;
  manifest_commit(m, waiter);
  return true;
}

static bool records_tick(struct shard *s) {
  struct op_list *l = &s->volumes->records;
  bool did = false;
  for (struct shard_op *op; (op = op_list_pop(l)); did = true) {
    if (put_record(s, op)) continue;
    op_list_unpop(l, op);
    break;
  }
  return did;
}

/* ---- Dropping a layer ------------------------------------------------------------------------ */

static uint64_t all_used(const struct cluster clusters[LEAF_CLUSTERS]) {
  uint64_t bits = 0;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    bits |= (uint64_t)!cluster_is_empty(clusters[i]) << i;
  return bits;
}

/* 0: one leaf less. -ENODATA: there is none. -EAGAIN; -EIO; -EROFS. */
static int drop_leaf(struct shard *s, struct layer *layer) {
  static const struct cluster nothing[LEAF_CLUSTERS];
  uint64_t leaf = layer_next_leaf(layer, 0);
  if (leaf == UINT64_MAX) return -ENODATA;
  uint64_t which = all_used(layer_leaf(layer, leaf));
  uint32_t count = (uint32_t)__builtin_popcountll(which);
  int r = manifest_reserve_map(s->manifest, count, true);
  if (!r) manifest_set_clusters(s->manifest, layer, leaf, which, nothing, count);
  return r;
}

static int drop_some(struct shard *s, struct shard_op *op) {
  struct map *map = manifest_map(s->manifest);
  struct layer *layer = map_layer(map, op->offset);
  if (!layer) return 0;
  for (uint32_t i = 0; i < LEAVES_PER_TICK; i++) {
    int r = drop_leaf(s, layer);
    if (r == -ENODATA) {
      map_layer_remove(map, layer);
      return 0;
    }
    if (r) return r;
  }
  return -EINPROGRESS;
}

/* ---- All ------------------------------------------------------------------------------------- */

void job_submit(struct shard *s, struct shard_op *op) {
  if (s->read_only) {
    op_complete(s, op, -EROFS);
    return;
  }
  if (op->kind == OP_RECORD) {
    if (s->volumes->records.first || !put_record(s, op)) op_list_push(&s->volumes->records, op);
  } else {
    op->block = op->checksum = 0;
    op_list_push(&s->volumes->jobs, op);
  }
}

bool jobs_tick(struct shard *s) {
  struct volumes *vs = s->volumes;
  bool did = records_tick(s);
  struct shard_op *op = vs->jobs.first;
  if (!op || s->holds) return did;
  int r = op->kind == OP_LAYER_DROP  ? drop_some(s, op)
          : op->kind == OP_LAYER_SUM ? sum_some(s, op)
                                     : merge_some(s, op);
  if (r == -EAGAIN) return did;
  if (r == -EINPROGRESS) return true;
  if (vs->jobs.first == op) op_list_pop(&vs->jobs);
  op_complete(s, op, r);
  return true;
}
