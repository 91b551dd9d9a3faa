/* shard_vacuum.c - moves blobs from the end of the region into free space below, and punches what
 * is free. Owned by the shard's thread.
 *
 *   vacuum_tick: candidate -> move_start: new space, log reserved -> pieces: read, verified,
 *   written to the new place -> move_finish: manifest_put if the blob is still the one that was
 *   read, else all is given back
 *
 * The old place is freed like that of any replaced blob: reused only after a flush and when its
 * readers have gone. The move itself is such a reader, so the extents that it read cannot come
 * back under another version of the blob: the same first block means the same version. */
#include "shards/shard_internal.h"

#include <errno.h>
#include <string.h>

#define PUNCH_BLOCKS_MIN (IO_BYTES_MAX / BLOCK_BYTES)

/* ---- One move ------------------------------------------------------------------------------ */

static void move_written(struct io *io) {
  struct piece *p = container_of(io, struct piece, io);
  struct work *w = p->work;
  if (io->result && !w->error) w->error = io->result;
  piece_free(p);
  work_drive(w);
}

/* Verifies a piece that was read, then writes it to its new place. */
static void move_piece(struct work *w, struct piece *p) {
  uint64_t data = min_u64(p->pos + p->io.bytes, w->blob_bytes) - p->pos;
  bool last = p->pos + p->io.bytes >= w->blob_bytes;
  if (!sums_check(w->feed, p->io.buf, data) || (last && !sums_check_end(w->feed))) {
    shard_checksum_error(w->shard, w->id, w->feed->count, w->old_block, "vacuum, blob from");
    w->error = -EBADMSG;
    piece_free(p);
    return;
  }
  /* Zeros behind the blob's end, whatever lay there: recovery and scrubs look at them. */
  memset((char *)p->io.buf + data, 0, p->io.bytes - data);
  p->io = p->to;
  p->io.op = IO_WRITE;
  p->io.done = move_written;
  device_submit(w->shard->device, &p->io);
}

static void move_read(struct piece *p) {
  struct work *w = p->work;
  p->done = true;
  if (p->io.result && !w->error) w->error = p->io.result;
  while ((p = work_pieces_pop(w))) {
    if (w->error) {
      piece_free(p);
    } else {
      move_piece(w, p);
    }
  }
  work_drive(w);
}

static uint32_t move_plan(struct work *w, struct piece *p, uint32_t bytes_max) {
  uint64_t block, run = cursor_run(w->to_extents, &w->to, &block);
  memset(&p->to, 0, sizeof p->to);
  run = region_map(w->shard->region, block, run, &p->to);
  uint64_t bytes = min_u64(min_u64(bytes_max, BOUNCE_BYTES), run << BLOCK_SHIFT);
  w->to.used += bytes >> BLOCK_SHIFT;
  p->io.op = IO_READ;
  p->io.buf = p->to.buf = p->bounce;
  p->to.bytes = (uint32_t)bytes;
  work_pieces_add(w, p);
  return (uint32_t)bytes;
}

static void move_finish(struct work *w) {
  struct shard *s = w->shard;
  struct vacuum *v = &s->vacuum;
  struct blob b;
  uint32_t granules = w->sums.shift ? blob_granule_count(w->blob_bytes, w->sums.shift) : 0;
  bool same = !w->error && index_find(s->index, w->hash, w->id, &b) == 0 && b.extent_count &&
              b.extents[0].block == w->old_block &&
              index_reserve(s->index, w->hash, w->to_count, granules) == 0;
  if (same) {
    b.extents = w->to_extents;
    b.extent_count = w->to_count;
    b.checksums = w->sums.at;
    check(b.granule_count == granules);
    (void)manifest_put(s->manifest, w->hash, &b);
    v->moved_bytes += w->blob_bytes;
  } else {
    space_cancel(s->space, w->to_extents, w->to_count);
    manifest_cancel(s->manifest, w->to_count, granules);
  }
  if (w->error && w->error != -EBADMSG && !v->error) v->error = w->error;
  space_read_end(s->space, w->generation);
  work_free(w);
  v->moves--;
  shard_pump(s);
}

static bool lies_high(struct shard *s, const struct blob *b) {
  for (uint32_t i = 0; i < b->extent_count; i++) {
    if (b->extents[i].block + b->extents[i].blocks > s->vacuum.below) return true;
  }
  return false;
}

static void move_fill(struct shard *s, struct work *w, const struct blob *b) {
  struct extent *from = w->detail ? w->detail->extents : w->inline_extents;
  w->plan = move_plan;
  w->piece_done = move_read;
  w->finish = move_finish;
  w->id = b->id;
  w->blob_bytes = b->bytes;
  w->end = round_up(b->bytes, BLOCK_BYTES);
  w->old_block = b->extents[0].block;
  w->extent_count = b->extent_count;
  memcpy(from, b->extents, b->extent_count * sizeof *from);
  w->sums.shift = b->granule_count ? b->granule_shift : 0;
  if (b->granule_count) memcpy(w->sums.at, b->checksums, b->granule_count * sizeof *w->sums.at);
  w->generation = space_read_begin(s->space);
}

/* 0: moving, or nothing to do for this blob; -EAGAIN: not now; else the vacuum's end. */
static int move_start(struct shard *s, struct blob_id id) {
  struct vacuum *v = &s->vacuum;
  struct blob b;
  uint64_t hash = hash_id(id, s->config.manifest.hash_key);
  if (index_find(s->index, hash, id, &b) != 0 || !lies_high(s, &b)) return 0;
  bool detail = b.granule_count > WORK_SUMS || b.extent_count > WORK_EXTENTS;
  struct work *w = work_take(s, detail);
  if (!w) return -EAGAIN;
  int n = shard_alloc(s, bytes_to_blocks(b.bytes), w->to_extents, WORK_EXTENTS, v->below);
  int r = n < 0 ? n : manifest_reserve(s->manifest, hash, (uint32_t)n, b.granule_count);
  if (r) {
    if (n > 0) space_cancel(s->space, w->to_extents, (uint32_t)n);
    work_free(w);
    return r == -ENOSPC ? 0 : r; /* does not fit below: stays */
  }
  /* Reserving may have moved what the index handed out. */
  check(index_find(s->index, hash, id, &b) == 0);
  move_fill(s, w, &b);
  w->hash = hash;
  w->to_count = (uint32_t)n;
  v->moves++;
  work_drive(w);
  return 0;
}

/* ---- The sweep ------------------------------------------------------------------------------ */

static void begin(struct shard *s) {
  struct vacuum *v = &s->vacuum;
  v->active = true;
  v->swept = false;
  v->cursor = 0;
  v->moved_bytes = 0;
  v->error = 0;
  v->at = v->count = 0;
  /* Where all that is in use would end if it lay without gaps. */
  v->below =
      space_total_blocks(s->space) - space_free_blocks(s->space) - space_pending_blocks(s->space);
}

static void end(struct shard *s) {
  struct vacuum *v = &s->vacuum;
  struct shard_op *op = op_list_pop(&v->ops);
  struct shard_vacuum_result *result = op->buf;
  v->active = false;
  result->moved_bytes = v->moved_bytes;
  op_complete(s, op, v->error);
}

void vacuum_submit(struct shard *s, struct shard_op *op) {
  int r = op->buf ? 0 : -EINVAL;
  s->others++;
  if (!r && s->read_only) r = -EROFS;
  if (r) {
    op_complete(s, op, r);
  } else {
    op_list_push(&s->vacuum.ops, op);
  }
}

bool vacuum_tick(struct shard *s) {
  struct vacuum *v = &s->vacuum;
  if (!v->ops.first) return false;
  if (!v->active) begin(s);
  bool did = false;
  while (v->moves < MOVES_MAX && !v->error && v->at < v->count) {
    int r = move_start(s, v->candidates[v->at].id);
    if (r == -EAGAIN) return did;
    if (r) v->error = r;
    v->at++;
    did = true;
  }
  if (v->at < v->count && !v->error) return did;
  if (!v->swept && !v->error) {
    /* One partition a tick: a sweep must not hold up the core. */
    int n = list_next(s, &v->cursor, v->candidates, CANDIDATES_MAX, 1, lies_high);
    v->at = 0;
    v->count = n > 0 ? (uint32_t)n : 0;
    v->swept = v->cursor >= LIST_END || n < 0;
    return true;
  }
  if (v->moves == 0) end(s);
  return did;
}

/* ---- Punching -------------------------------------------------------------------------------- */

static int punch_run(struct shard *s, const struct extent *run, uint64_t *first,
                     struct shard_vacuum_result *result) {
  for (uint64_t at = 0; at < run->blocks;) {
    const struct segment *seg = region_segment(s->region, run->block + at);
    struct io io = {0};
    uint64_t n = region_map(s->region, run->block + at, run->blocks - at, &io);
    if (!seg->backing->is_block_device && n >= PUNCH_BLOCKS_MIN) {
      *first = min_u64(*first, run->block + at);
      int r = seg->backing->ops->punch(seg->backing, n << BLOCK_SHIFT, io.offset);
      if (r) return r;
      result->released_bytes += n << BLOCK_SHIFT;
    }
    at += n;
  }
  return 0;
}

int shard_punch(struct shard *s, struct shard_vacuum_result *result) {
  struct extent run;
  uint64_t first = UINT64_MAX;
  int r = 0;
  if (s->read_only) return -EROFS;
  for (uint64_t at = 0; !r && space_next_free(s->space, at, UINT64_MAX, &run);
       at = run.block + run.blocks)
    if (run.blocks >= PUNCH_BLOCKS_MIN) r = punch_run(s, &run, &first, result);
  if (first != UINT64_MAX) zeroer_punched(&s->zeroer, first);
  return r;
}
