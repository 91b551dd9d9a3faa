/* volume_write.c - writes, write-zeroes, discards and promotes of volumes, and their flush: which
 * clusters change, when the map and the log say so. Owned by the shard's thread.
 *
 * Short path: an overwrite in place, or a first write inside one cluster: one device write in the
 * op itself. Everything else goes by chunks of at most one leaf: prepare, data, apply.
 *
 * A new cluster is in the map from the moment it is allocated, without a valid bit: writes to other
 * blocks of it share it. It stays there if the write fails. Nobody gives a place up while a write
 * to it is under way (volume_cluster_is_written()). */
#include "shards/volume_internal.h"

#include <errno.h>
#include <string.h>

#include "shards/base/plant.h"

/* ---- The end --------------------------------------------------------------------------------- */

static void committed(struct manifest_waiter *waiter, int result) {
  struct shard_op *op = (struct shard_op *)waiter; /* op->io is its first member */
  volume_complete(volume_args(op)->volume->shard, op, result ? result : op->result);
}

static void commit(struct shard *s, struct shard_op *op, uint64_t sequence, int64_t result) {
  struct manifest_waiter *waiter = (struct manifest_waiter *)&op->io;
  *waiter = (struct manifest_waiter){.done = committed, .sequence = sequence};
  op->result = result;
  manifest_commit(s->manifest, waiter);
}

void write_finish(struct shard *s, struct shard_op *op, int64_t result) {
  struct volume *v = volume_args(op)->volume;
  if (result >= 0 && op->flags & OP_DURABLE && v->top)
    commit(s, op, v->sequence, result);
  else
    volume_complete(s, op, result);
}

/* ---- Space ----------------------------------------------------------------------------------- */

/* One cluster more for a layer: its place, or -EAGAIN, -ENOSPC. */
static int64_t allocate(struct shard *s, uint64_t clusters) {
  struct extent e;
  int n = shard_alloc_now(s, clusters * CLUSTER_BLOCKS, &e, 1, 0);
  if (n < 0 && clusters == 1) n = shard_alloc(s, CLUSTER_BLOCKS, &e, 1, 0);
  if (n < 0) return n;
  if (e.block + e.blocks <= MAP_PLACES_MAX) return (int64_t)e.block;
  space_cancel(s->space, &e, 1);
  return -ENOSPC;
}

/* ---- Short path ------------------------------------------------------------------------------ */

static void in_place_done(struct io *io) {
  struct shard_op *op = container_of(io, struct shard_op, io);
  struct volume *v = volume_args(op)->volume;
  struct shard *s = v->shard;
  if (v->top && !io->result) v->sequence = manifest_note_data(s->manifest);
  write_finish(s, op, io->result ? io->result : (int64_t)op->bytes);
}

static void live_in_place_done(struct io *io) {
  struct shard_op *op = container_of(io, struct shard_op, io);
  live_overwritten(volume_args(op)->volume, op, io->result == 0);
  in_place_done(io);
}

static void first_done(struct io *io) {
  struct shard_op *op = container_of(io, struct shard_op, io);
  struct volume *v = volume_args(op)->volume;
  struct shard *s = v->shard;
  struct map *map = manifest_map(s->manifest);
  uint64_t cluster = first_block(op) >> CLUSTER_BLOCK_SHIFT, leaf = cluster >> LEAF_CLUSTER_SHIFT;
  uint32_t slot = (uint32_t)cluster & (LEAF_CLUSTERS - 1);
  if (io->result) {
    manifest_cancel_map(s->manifest, 1);
  } else {
    struct cluster clusters[LEAF_CLUSTERS], c = layer_get(v->top, cluster);
    uint16_t bits = cluster_bits((uint32_t)first_block(op) & (CLUSTER_BLOCKS - 1),
                                 (uint32_t)(op->bytes >> BLOCK_SHIFT));
    c.valid |= bits;
    c.zero &= (uint16_t)~bits;
    clusters[slot] = c;
    v->sequence =
        manifest_set_clusters(s->manifest, v->top, leaf, UINT64_C(1) << slot, clusters, 1);
  }
  layer_unpin_leaf(map, v->top, leaf);
  write_finish(s, op, io->result ? io->result : (int64_t)op->bytes);
}

static void launch(struct shard *s, struct volume *v, struct shard_op *op, const struct place *p,
                   void (*done)(struct io *)) {
  uint32_t blocks = (uint32_t)(op->bytes >> BLOCK_SHIFT);
  op->io.offset = op->offset;
  check(volume_map_io(s, v, p, blocks, &op->io) == blocks);
  op->io.done = done;
  op->io.buf = op->buf;
  op->io.bytes = (uint32_t)op->bytes;
  op->io.op = IO_WRITE;
  op->io.flags = !v->top && op->flags & OP_DURABLE ? IO_FUA : 0;
  v->stats.device_writes++;
  device_submit(s->device, &op->io);
}

static bool fits_one_io(struct shard *s, struct volume *v, const struct place *p, uint32_t blocks) {
  struct io io;
  return volume_map_io(s, v, p, blocks, &io) == blocks;
}

/* Room in the log, the leaf, a place: 0, -EAGAIN, or why not. */
static int first_prepare(struct shard *s, struct volume *v, uint64_t cluster, struct place *p) {
  struct map *map = manifest_map(s->manifest);
  uint64_t leaf = cluster >> LEAF_CLUSTER_SHIFT;
  if (room_is_awaited(s)) return -EAGAIN;
  int r = manifest_reserve_map(s->manifest, 1, false);
  if (r) return r;
  r = layer_pin_leaf(map, v->top, leaf);
  if (r) {
    manifest_cancel_map(s->manifest, 1);
    return r;
  }
  struct cluster c = layer_get(v->top, cluster);
  int64_t place = c.place ? c.place : allocate(s, 1);
  if (place < 0) {
    layer_unpin_leaf(map, v->top, leaf);
    manifest_cancel_map(s->manifest, 1);
    return (int)place;
  }
  if (!c.place) {
    c.place = (uint32_t)place;
    layer_set(map, v->top, cluster, c);
  }
  *p = (struct place){c.place, (uint16_t)s->config.manifest.shard, PLACE_DATA, true};
  return 0;
}

static enum start first_start(struct shard *s, struct volume *v, struct shard_op *op) {
  struct place p;
  int r = first_prepare(s, v, first_block(op) >> CLUSTER_BLOCK_SHIFT, &p);
  if (r == -EAGAIN) return WAIT_ROOM;
  if (r) {
    volume_complete(s, op, r);
    return STARTED;
  }
  uint32_t blocks = (uint32_t)(op->bytes >> BLOCK_SHIFT);
  p.block += (uint32_t)first_block(op) & (CLUSTER_BLOCKS - 1);
  if (!fits_one_io(s, v, &p, blocks)) { /* it lies across segments of the region */
    manifest_cancel_map(s->manifest, 1);
    layer_unpin_leaf(manifest_map(s->manifest), v->top, first_block(op) >> LEAF_BLOCK_SHIFT);
    return vio_start(s, op);
  }
  v->stats.first_writes += blocks;
  launch(s, v, op, &p, first_done);
  return STARTED;
}

/* With checksums of what is written: only overwrites in place that wait for nothing are short. */
static enum start live_start(struct shard *s, struct volume *v, struct shard_op *op) {
  uint32_t blocks = (uint32_t)(op->bytes >> BLOCK_SHIFT);
  struct place p;
  if (volume_run_at(v, first_block(op), blocks, &p) < blocks || !p.own ||
      !fits_one_io(s, v, &p, blocks) || !live_overwrite(v, op))
    return vio_start(s, op);
  op->block = volume_data_crc(&(struct io){.buf = op->buf, .bytes = (uint32_t)op->bytes});
  launch(s, v, op, &p, live_in_place_done);
  return STARTED;
}

enum start volume_write_start(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  if (op->kind != OP_WRITE || !op_is_short(op) || op->flags & OP_RESERVE) return vio_start(s, op);
  if (unlikely(v->live)) return live_start(s, v, op);
  uint32_t blocks = (uint32_t)(op->bytes >> BLOCK_SHIFT);
  struct place p;
  uint32_t n = volume_run_at(v, first_block(op), blocks, &p);
  if (n == blocks && p.own && fits_one_io(s, v, &p, blocks)) {
    launch(s, v, op, &p, in_place_done);
    return STARTED;
  }
  uint32_t in = (uint32_t)first_block(op) & (CLUSTER_BLOCKS - 1);
  return in + blocks <= CLUSTER_BLOCKS ? first_start(s, v, op) : vio_start(s, op);
}

/* ---- Chunks: prepare ------------------------------------------------------------------------- */

/* What the chunk's blocks [first, end) mean for each cluster. Blocks that are written in part get
 * data in any case, but for discards, which leave them alone. */
static void mark_range(struct vio *x, uint64_t first, uint64_t end) {
  bool data = x->op->kind == OP_WRITE;
  for (uint64_t b = first; b < end;) {
    uint32_t slot = (uint32_t)(b >> CLUSTER_BLOCK_SHIFT) & (LEAF_CLUSTERS - 1);
    uint32_t i = (uint32_t)b & (CLUSTER_BLOCKS - 1);
    uint32_t n = (uint32_t)min_u64(CLUSTER_BLOCKS - i, end - b);
    if (data)
      x->bits[slot] |= cluster_bits(i, n);
    else
      x->zeros[slot] |= cluster_bits(i, n);
    b += n;
  }
}

static void mark_edge(struct vio *x, uint64_t at) {
  uint64_t block = at >> BLOCK_SHIFT;
  uint32_t slot = (uint32_t)(block >> CLUSTER_BLOCK_SHIFT) & (LEAF_CLUSTERS - 1);
  uint16_t bit = cluster_bits((uint32_t)block & (CLUSTER_BLOCKS - 1), 1);
  x->zeros[slot] &= (uint16_t)~bit;
  if (x->op->kind != OP_DISCARD) x->bits[slot] |= bit;
}

static void mark_write(struct vio *x) {
  mark_range(x, x->chunk_at >> BLOCK_SHIFT, bytes_to_blocks(x->chunk_end));
  if (x->chunk_at & (BLOCK_BYTES - 1)) mark_edge(x, x->chunk_at);
  if (x->chunk_end & (BLOCK_BYTES - 1)) mark_edge(x, x->chunk_end);
}

/* A promote's blocks: those that layers below have and the top layer says nothing of. */
static int mark_promote(struct vio *x) {
  struct volume *v = x->volume;
  uint64_t end = x->chunk_end >> BLOCK_SHIFT;
  for (uint64_t b = x->chunk_at >> BLOCK_SHIFT; b < end && v->lower;) {
    struct place p;
    uint32_t n = volume_run_at(v, b, (uint32_t)(end - b), &p);
    if (n == 0) {
      int r = lower_learn(v->shard, v->lower, b >> LEAF_BLOCK_SHIFT, x->op);
      if (r) return r == -EAGAIN ? -EINPROGRESS : r;
      continue;
    }
    if (p.kind == PLACE_DATA && !p.own)
      for (uint32_t i = 0; i < n; i++)
        x->bits[((b + i) >> CLUSTER_BLOCK_SHIFT) & (LEAF_CLUSTERS - 1)] |=
            cluster_bits((uint32_t)(b + i) & (CLUSTER_BLOCKS - 1), 1);
    b += n;
  }
  return 0;
}

/* What the cluster will be. */
static struct cluster changed(const struct vio *x, uint32_t slot, struct cluster c) {
  uint16_t bits = x->bits[slot], zeros = x->zeros[slot];
  c.valid = (uint16_t)((c.valid | bits) & ~zeros);
  c.zero &= (uint16_t)~bits;
  if (x->volume->lower && !PLANTED(forget_zeros))
    c.zero |= zeros;
  else
    c.zero &= (uint16_t)~zeros; /* nothing below that they would have to hide */
  return c;
}

static uint64_t leaf_of(const struct vio *x) { return x->chunk_at >> LEAF_SHIFT; }

/* Which clusters change, and how many places are missing. */
static uint64_t find_changes(const struct vio *x, uint64_t *missing) {
  const struct volume *v = x->volume;
  const struct cluster *have = layer_leaf(v->top, leaf_of(x));
  uint64_t changes = 0;
  *missing = 0;
  for (uint32_t slot = 0; slot < LEAF_CLUSTERS; slot++) {
    if (!(x->bits[slot] | x->zeros[slot])) continue;
    struct cluster c = have ? have[slot] : (struct cluster){0}, next = changed(x, slot, c);
    if (c.valid != next.valid || c.zero != next.zero) changes |= UINT64_C(1) << slot;
    if (x->bits[slot] && !c.place) *missing |= UINT64_C(1) << slot;
  }
  return changes;
}

static int allocate_missing(struct vio *x, uint64_t missing) {
  struct volume *v = x->volume;
  struct shard *s = v->shard;
  uint32_t count = (uint32_t)__builtin_popcountll(missing);
  int64_t row = count > 1 ? allocate(s, count) : -ENOSPC; /* all in one row if it can be */
  for (; missing; missing &= missing - 1) {
    uint64_t cluster = (leaf_of(x) << LEAF_CLUSTER_SHIFT) + (uint32_t)__builtin_ctzll(missing);
    int64_t place = row >= 0 ? row : allocate(s, 1);
    if (place < 0) return (int)place;
    if (row >= 0) row += CLUSTER_BLOCKS;
    struct cluster c = layer_get(v->top, cluster);
    c.place = (uint32_t)place;
    layer_set(manifest_map(s->manifest), v->top, cluster, c);
  }
  return 0;
}

static bool only_frees(const struct shard_op *op) {
  return op->kind == OP_DISCARD || op->kind == OP_WRITE_ZEROES;
}

static int take_room(struct vio *x) {
  struct volume *v = x->volume;
  struct manifest *m = v->shard->manifest;
  uint64_t missing;
  x->changes = find_changes(x, &missing);
  int r = unlikely(x->sums) ? live_prepare(x) : 0;
  if (r || !x->changes) return r;
  uint32_t count = (uint32_t)__builtin_popcountll(x->changes);
  r = manifest_reserve_map(m, count, only_frees(x->op) && !missing);
  if (r) return r;
  r = layer_pin_leaf(manifest_map(m), v->top, leaf_of(x));
  if (r) {
    manifest_cancel_map(m, count);
    return r;
  }
  x->reserved = count;
  r = allocate_missing(x, missing);
  if (r) write_cancel(x);
  return r;
}

/* Where there is nothing, and nothing below, zeros need not be written: on to the next leaf. True
 * if x->at has moved; else *r says what is in the way, if anything. */
static bool skip_absent(struct vio *x, int *r) {
  struct volume *v = x->volume;
  uint64_t leaf = x->at >> LEAF_SHIFT, next = leaf + 1;
  *r = 0;
  if (!only_frees(x->op) || layer_leaf(v->top, leaf)) return false;
  if (v->lower) { /* a view remembers a leaf of zeros in a few bytes */
    struct place p;
    uint32_t n = volume_run_at(v, leaf << LEAF_BLOCK_SHIFT, LEAF_BLOCKS, &p);
    if (n == 0) {
      *r = lower_learn(v->shard, v->lower, leaf, x->op);
      if (*r) {
        if (*r == -EAGAIN) *r = -EINPROGRESS;
        return false;
      }
      n = volume_run_at(v, leaf << LEAF_BLOCK_SHIFT, LEAF_BLOCKS, &p);
    }
    if (n < LEAF_BLOCKS || p.kind != PLACE_ZERO) return false;
  } else {
    next = layer_next_leaf(v->top, leaf);
  }
  x->at = next >= MAP_LEAVES_MAX ? x->end : min_u64(x->end, next << LEAF_SHIFT);
  x->chunk_at = x->chunk_end = x->at;
  return true;
}

int write_prepare(struct vio *x) {
  struct volume *v = x->volume;
  if (!v->top) { /* a file: the place is the address */
    x->chunk_end = x->end;
    return 0;
  }
  if (room_is_awaited(v->shard)) return -EAGAIN;
  int r;
  if (skip_absent(x, &r)) return 0;
  if (r) return r;
  uint64_t end = min_u64(x->end, ((x->at >> LEAF_SHIFT) + 1) << LEAF_SHIFT);
  memset(x->bits, 0, sizeof x->bits);
  memset(x->zeros, 0, sizeof x->zeros);
  if (unlikely(x->any_torn)) memset(x->torn, 0, sizeof x->torn);
  x->any_torn = false;
  x->chunk_end = end;
  if (x->op->kind == OP_PROMOTE)
    r = mark_promote(x);
  else
    mark_write(x);
  if (!r) r = take_room(x);
  if (!r && unlikely(x->sums)) r = live_pin(x);
  if (r) x->chunk_end = x->chunk_at; /* not prepared */
  return r;
}

/* ---- Chunks: apply --------------------------------------------------------------------------- */

void write_cancel(struct vio *x) {
  struct volume *v = x->volume;
  if (unlikely(x->pinned)) live_cancel(x);
  if (!x->reserved) return;
  manifest_cancel_map(v->shard->manifest, x->reserved);
  layer_unpin_leaf(manifest_map(v->shard->manifest), v->top, leaf_of(x));
  x->reserved = 0;
}

/* Data, or zeros in a part of a block. */
static bool has_written_in_place(const struct vio *x) {
  bool part = ((x->chunk_at | x->chunk_end) & (BLOCK_BYTES - 1)) != 0;
  return x->op->kind == OP_WRITE || (x->op->kind == OP_WRITE_ZEROES && part);
}

void write_apply(struct vio *x) {
  struct volume *v = x->volume;
  struct shard *s = v->shard;
  if (!v->top) return;
  if (!x->reserved) {
    if (has_written_in_place(x)) v->sequence = manifest_note_data(s->manifest);
    if (unlikely(x->pinned)) live_apply(x);
    return;
  }
  struct cluster clusters[LEAF_CLUSTERS];
  const struct cluster *have = layer_leaf(v->top, leaf_of(x));
  for (uint64_t left = x->changes; left; left &= left - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(left);
    uint64_t cluster = (leaf_of(x) << LEAF_CLUSTER_SHIFT) + slot;
    struct cluster c = changed(x, slot, have[slot]);
    v->stats.first_writes += (uint32_t)__builtin_popcount(c.valid & ~have[slot].valid);
    if (!c.valid &&
        (PLANTED(give_up_busy_places) || !volume_cluster_is_written(s, v, cluster, x->op)))
      c.place = 0;
    clusters[slot] = c;
  }
  v->sequence =
      manifest_set_clusters(s->manifest, v->top, leaf_of(x), x->changes, clusters, x->reserved);
  if (unlikely(x->sums)) live_apply(x);
  layer_unpin_leaf(manifest_map(s->manifest), v->top, leaf_of(x));
  x->reserved = 0;
}

/* ---- Flush ----------------------------------------------------------------------------------- */

static void file_flushed(struct io *io) {
  struct shard_op *op = container_of(io, struct shard_op, io);
  struct volume *v = volume_args(op)->volume;
  if (io->result) v->failed = true;
  volume_complete(v->shard, op, v->failed ? -EIO : 0);
}

enum start volume_sync_start(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  if (v->top) {
    commit(s, op, v->sequence, 0);
    return STARTED;
  }
  op->io = (struct io){.done = file_flushed, .op = IO_FLUSH, .file = v->file};
  device_submit(s->device, &op->io);
  return STARTED;
}
