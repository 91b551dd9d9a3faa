/* shard_stream.c - streams: a put whose bytes come piece by piece. Owned by the shard's thread.
 *
 * A stream owns its extents until commit. Whole blocks are written as they come, a part of a
 * block waits in `tail`. Ops of one stream run one after the other. Commit takes its turn among
 * the writes of the id as a put does (shard_write.c).
 *
 * The final size is not known, so checksums begin with 4 KiB granules and are combined into
 * larger ones when the blob outgrows the limit of a granule size: what is stored is exactly what
 * a plain put of the same bytes stores. The work of combining is spread: one group with each
 * granule, from half the limit on. */
#include "shards/shard_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GROW_BLOCKS_MIN ((1u << 20) / BLOCK_BYTES)
#define GROW_BLOCKS_MAX ((64u << 20) / BLOCK_BYTES)

struct stream {
  uint32_t slot;
  uint8_t flags;
  bool reserved; /* in the log, by commit */
  int error;     /* an I/O has failed: nothing but abort helps */
  struct blob_id id;
  uint64_t hash;
  uint64_t bytes, written; /* accepted; on the device, whole blocks */
  uint64_t blocks;         /* of the extents */
  struct extent *extents;
  uint32_t extent_count, extent_room;
  struct cursor at;
  struct sums sums;
  uint32_t sums_room;
  struct shard_op *busy;
  struct op_list queue;
  char *tail;
};

/* ---- Checksums of a blob that grows --------------------------------------------------------- */

static void fold_group(struct sums *x, uint8_t by) {
  uint32_t first = x->folded_count << by, crc = x->at[first];
  for (uint32_t i = 1; i < 1u << by; i++)
    crc = crc32c_combine(crc, x->at[first + i], UINT64_C(1) << x->shift);
  x->folded[x->folded_count++] = crc;
}

void sums_grow(struct sums *x) {
  uint64_t total = (uint64_t)x->count << x->shift;
  uint8_t next = blob_granule_shift(2 * total);
  if (next == x->shift || total == 0) return;
  uint8_t by = (uint8_t)(next - x->shift);
  bool over = blob_granule_shift(total + 1) > x->shift;
  if ((x->folded_count + 1) << by <= x->count) fold_group(x, by);
  if (!over) return;
  while ((x->folded_count + 1) << by <= x->count) fold_group(x, by);
  check(x->folded_count << by == x->count); /* limits are multiples of the next granule */
  memcpy(x->at, x->folded, x->folded_count * sizeof *x->at);
  x->count = x->folded_count;
  x->folded_count = 0;
  x->shift = next;
}

/* Room for the checksums of a blob of that size, and of what it was before it grew. */
static int sums_room(struct stream *st, uint64_t bytes) {
  uint64_t need = min_u64(max_u64((bytes >> 16) + 1, WORK_SUMS), BLOB_GRANULES_MAX);
  if (need <= st->sums_room || !st->sums.shift) return 0;
  need = min_u64(max_u64(need, 2 * (uint64_t)st->sums_room), BLOB_GRANULES_MAX);
  uint32_t *at = realloc(st->sums.at, need * sizeof *at);
  if (!at) return -ENOMEM;
  st->sums.at = at;
  st->sums_room = (uint32_t)need;
  return 0;
}

/* ---- Space ---------------------------------------------------------------------------------- */

static int extents_room(struct stream *st, uint32_t need) {
  if (need <= st->extent_room) return 0;
  uint32_t room = need < 16 ? 16 : 2 * need;
  struct extent *e = realloc(st->extents, room * sizeof *e);
  if (!e) return -ENOMEM;
  st->extents = e;
  st->extent_room = room;
  return 0;
}

static void add_extents(struct stream *st, const struct extent *from, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    struct extent *last = st->extent_count ? &st->extents[st->extent_count - 1] : NULL;
    st->blocks += from[i].blocks;
    if (last && last->block + last->blocks == from[i].block) {
      last->blocks += from[i].blocks;
    } else {
      st->extents[st->extent_count++] = from[i];
    }
  }
}

/* Space for at least that many blocks in all: more than asked for if there is, so that a long
 * stream has few extents. 0, -EAGAIN (wait), -ENOSPC, -ENOMEM. */
static int grow(struct shard *s, struct stream *st, uint64_t blocks, bool exact) {
  if (blocks <= st->blocks) return 0;
  uint32_t max = BLOB_EXTENTS_MAX - st->extent_count;
  uint64_t need = blocks - st->blocks;
  uint64_t want = max_u64(need, max_u64(GROW_BLOCKS_MIN, min_u64(st->blocks, GROW_BLOCKS_MAX)));
  int n = -ENOSPC;
  if (max == 0) return n;
  if (!exact && want > need) n = shard_alloc_now(s, want, s->scratch, max, 0);
  if (n == -ENOSPC) n = shard_alloc(s, need, s->scratch, max, 0);
  if (n < 0) return n;
  if (extents_room(st, st->extent_count + (uint32_t)n) != 0) {
    space_cancel(s->space, s->scratch, (uint32_t)n);
    return -ENOMEM;
  }
  add_extents(st, s->scratch, (uint32_t)n);
  return 0;
}

/* Gives back what lies behind the blob's last block. */
static void trim(struct shard *s, struct stream *st, uint64_t blocks) {
  while (st->blocks > blocks) {
    struct extent *last = &st->extents[st->extent_count - 1], over;
    over.blocks = min_u64(st->blocks - blocks, last->blocks);
    over.block = last->block + last->blocks - over.blocks;
    space_cancel(s->space, &over, 1);
    last->blocks -= over.blocks;
    st->blocks -= over.blocks;
    if (last->blocks == 0) st->extent_count--;
  }
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void release(struct stream *st) {
  free(st->tail);
  free(st->extents);
  free(st->sums.at);
  free(st->sums.folded);
  free(st);
}

static struct stream *create(const struct shard_op *op) {
  struct stream *st = calloc(1, sizeof *st);
  if (!st) return NULL;
  st->id = op->id;
  st->hash = op->hash;
  st->flags = op->flags;
  st->sums.grows = true;
  st->tail = malloc(BLOCK_BYTES);
  bool plain = op->flags & OP_NO_CHECKSUM;
  if (!plain) {
    st->sums.shift = BLOCK_SHIFT;
    st->sums.folded = malloc(BLOB_GRANULES_MAX / 4 * sizeof(uint32_t));
  }
  if (st->tail && (plain || st->sums.folded) && sums_room(st, 1) == 0) return st;
  release(st);
  return NULL;
}

/* The stream and what it holds go away; ops queued behind are refused. */
static void destroy(struct shard *s, struct stream *st, bool cancel) {
  struct shard_op *op;
  struct blob_id id = st->id;
  uint64_t hash = st->hash;
  if (cancel) space_cancel(s->space, st->extents, st->extent_count);
  s->streams[st->slot] = NULL;
  while ((op = op_list_pop(&st->queue))) {
    if (op->kind == OP_STREAM_COMMIT) {
      write_fail(s, op, -EINVAL);
    } else {
      op_complete(s, op, -EINVAL);
    }
  }
  release(st);
  writes_advance(s, hash, id); /* whoever was behind a commit that was refused */
}

void streams_destroy(struct shard *s) {
  for (uint32_t i = 0; i < STREAMS_MAX; i++) {
    if (s->streams[i]) release(s->streams[i]);
  }
}

static enum start done(struct shard *s, struct stream *st, struct shard_op *op, int64_t result) {
  st->busy = NULL;
  op_complete(s, op, result);
  return STARTED;
}

static enum start begin_start(struct shard *s, struct shard_op *op) {
  uint32_t slot = 0;
  struct stream *st = NULL;
  struct blob b;
  int r = 0;
  while (slot < STREAMS_MAX && s->streams[slot]) slot++;
  if (op->flags & OP_IF_ABSENT && index_find(s->index, op->hash, op->id, &b) == 0) r = -EEXIST;
  if (!r && slot == STREAMS_MAX) r = -EAGAIN;
  if (!r && !(st = create(op))) r = -ENOMEM;
  if (!r) {
    r = grow(s, st, bytes_to_blocks(op->bytes), true);
    if (r) release(st);
    if (r == -EAGAIN) return WAIT_ROOM;
  }
  if (!r) {
    st->slot = slot;
    s->streams[slot] = st;
    op->work = st;
  }
  op_complete(s, op, r);
  return STARTED;
}

/* ---- Append ---------------------------------------------------------------------------------- */

static void append_finish(struct work *w) {
  struct shard *s = w->shard;
  struct shard_op *op = w->op;
  struct stream *st = w->stream;
  uint64_t rest = (w->tail_bytes + w->src_bytes) & (BLOCK_BYTES - 1);
  int64_t result = w->error ? w->error : (int64_t)op->bytes;
  st->at = w->from;
  st->written = w->pos;
  st->error = w->error;
  if (!w->error) {
    memcpy(st->tail, w->src + w->src_bytes - rest, rest);
    st->bytes += op->bytes;
  }
  work_free(w);
  done(s, st, op, result);
  streams_kick(s);
  shard_pump(s);
}

static void stream_write(struct work *w, struct stream *st, struct shard_op *op) {
  w->op = op;
  w->stream = st;
  w->plan = write_plan;
  w->piece_done = write_piece_done;
  w->base = w->pos = st->written;
  w->tail = st->tail;
  w->tail_bytes = st->bytes - st->written;
  w->extents = st->extents;
  w->extent_count = st->extent_count;
  w->from = st->at;
  w->feed = &st->sums;
}

static enum start append_start(struct shard *s, struct stream *st, struct shard_op *op) {
  uint64_t tail = st->bytes - st->written, end = st->bytes + op->bytes;
  int r = st->error;
  if (!r && op->bytes > BLOB_BYTES_MAX - st->bytes) r = -EFBIG;
  if (!r && !op->buf && op->bytes) r = -EINVAL;
  if (r) return done(s, st, op, r);
  if (tail + op->bytes < BLOCK_BYTES) {
    if (op->bytes) memcpy(st->tail + tail, op->buf, op->bytes);
    st->bytes = end;
    return done(s, st, op, (int64_t)op->bytes);
  }
  struct work *w = work_take(s, false);
  if (!w) return WAIT_WORK;
  r = sums_room(st, end);
  if (!r) r = grow(s, st, end >> BLOCK_SHIFT, false);
  if (r) {
    work_free(w);
    return r == -EAGAIN ? WAIT_ROOM : done(s, st, op, r);
  }
  stream_write(w, st, op);
  w->src = op->buf;
  w->src_bytes = op->bytes;
  w->end = round_down(end, BLOCK_BYTES);
  w->finish = append_finish;
  work_drive(w);
  return STARTED;
}

/* ---- Commit and abort ------------------------------------------------------------------------ */

static uint32_t granules_of(const struct stream *st) {
  return st->sums.shift ? blob_granule_count(st->bytes, blob_granule_shift(st->bytes)) : 0;
}

static enum start commit_failed(struct shard *s, struct stream *st, struct shard_op *op, int r) {
  write_fail(s, op, r);
  destroy(s, st, true);
  return STARTED;
}

static void commit_finish(struct work *w) {
  struct shard *s = w->shard;
  struct shard_op *op = w->op;
  int error = w->error;
  work_free(w);
  write_ready(s, op, error);
}

static enum start commit_start(struct shard *s, struct stream *st, struct shard_op *op) {
  bool tail = st->bytes != st->written;
  struct work *w = NULL;
  int r = st->error;
  if (!r && tail && !(w = work_take(s, false))) return WAIT_WORK;
  if (!r) r = sums_room(st, st->bytes);
  if (!r) r = grow(s, st, bytes_to_blocks(st->bytes), true);
  if (!r) {
    trim(s, st, bytes_to_blocks(st->bytes));
    r = manifest_reserve(s->manifest, st->hash, st->extent_count, granules_of(st));
  }
  if (r && w) work_free(w);
  if (r == -EAGAIN) return WAIT_ROOM;
  if (r) return commit_failed(s, st, op, r);
  op->result = 0;
  op->state = WRITE_READY;
  if (!tail) return STARTED;
  op->state = WRITE_STARTED;
  stream_write(w, st, op);
  w->end = w->pos + BLOCK_BYTES;
  w->finish = commit_finish;
  work_drive(w);
  return STARTED;
}

void stream_apply(struct shard *s, struct shard_op *op) {
  struct stream *st = op->work;
  struct blob b, old;
  int result = (int)op->result;
  uint64_t sequence = 0;
  if (!result && st->flags & OP_IF_ABSENT && index_find(s->index, op->hash, op->id, &old) == 0)
    result = -EEXIST;
  memset(&b, 0, sizeof b);
  b.id = st->id;
  b.bytes = st->bytes;
  b.granule_shift = blob_granule_shift(b.bytes);
  b.flags = st->sums.shift ? 0 : BLOB_NO_CHECKSUM;
  b.extents = st->extents;
  b.extent_count = st->extent_count;
  if (!result) result = index_reserve(s->index, st->hash, st->extent_count, granules_of(st));
  if (result == 0) {
    if (st->sums.shift) sums_end(&st->sums);
    b.checksums = st->sums.at;
    b.granule_count = st->sums.count;
    check(b.granule_count == granules_of(st));
    check(b.granule_count == 0 || st->sums.shift == b.granule_shift);
    sequence = manifest_put(s->manifest, st->hash, &b);
  } else {
    manifest_cancel(s->manifest, st->extent_count, granules_of(st));
  }
  op->flags |= st->flags & OP_DURABLE;
  destroy(s, st, result != 0);
  if (result) {
    op_complete(s, op, result);
  } else {
    write_complete(s, op, sequence);
  }
}

/* ---- Dispatch -------------------------------------------------------------------------------- */

enum start stream_start(struct shard *s, struct shard_op *op) {
  struct stream *st = op->work;
  if (room_is_awaited(s) && op->kind != OP_STREAM_ABORT) return WAIT_ROOM;
  if (op->kind == OP_STREAM_BEGIN) return begin_start(s, op);
  if (op->kind == OP_APPEND) return append_start(s, st, op);
  if (op->kind == OP_STREAM_COMMIT) return commit_start(s, st, op);
  destroy(s, st, true);
  op_complete(s, op, 0);
  return STARTED;
}

static void run(struct shard *s, struct stream *st, struct shard_op *op) {
  st->busy = op;
  if (op->kind == OP_STREAM_COMMIT) {
    writes_run(s, op);
  } else {
    shard_run(s, op);
  }
}

void streams_kick(struct shard *s) {
  for (uint32_t i = 0; i < STREAMS_MAX; i++) {
    struct stream *st;
    struct shard_op *op;
    while ((st = s->streams[i]) && !st->busy && (op = op_list_pop(&st->queue))) run(s, st, op);
  }
}

/* A handle that names no open stream is an error, not a crash. */
static struct stream *find(struct shard *s, const void *handle) {
  for (uint32_t i = 0; handle && i < STREAMS_MAX; i++) {
    if (s->streams[i] == handle) return s->streams[i];
  }
  return NULL;
}

void stream_submit(struct shard *s, struct shard_op *op) {
  struct stream *st = op->kind == OP_STREAM_BEGIN ? NULL : find(s, op->work);
  int r = 0;
  s->others++;
  if (s->read_only) r = -EROFS;
  if (!r && op->kind != OP_STREAM_BEGIN && !st) r = -EINVAL;
  if (!r && op->kind == OP_STREAM_BEGIN && op->bytes > BLOB_BYTES_MAX) r = -EFBIG;
  if (r) {
    op_complete(s, op, r);
    return;
  }
  if (!st) {
    shard_run(s, op);
    return;
  }
  if (op->kind == OP_STREAM_COMMIT) {
    op->id = st->id;
    op->hash = st->hash;
    writes_add(s, op);
  }
  if (st->busy) {
    op_list_push(&st->queue, op);
  } else {
    run(s, st, op);
  }
}
