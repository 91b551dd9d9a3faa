/* volume_pieces.c - transfers of volumes that take more than one device I/O: cut into pieces of
 * what lies in a row on disk. Owned by the shard's thread.
 *
 * A piece goes straight from or to the caller's memory where that is aligned, in however many rows
 * it lies there (IO_VECTORED), else through a bounce. Of blocks that are written in part the rest
 * is read first. Pieces and bounces are of a fixed number: a transfer that finds none is hungry,
 * and is fed in order. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/plant.h"

/* ---- Pools -------------------------------------------------------------------------------------
 */

int vpieces_create(struct volumes *vs) {
  vs->vios = calloc(VIOS_MAX, sizeof *vs->vios);
  vs->pieces = calloc(PIECES_MAX, sizeof *vs->pieces);
  vs->rows = calloc((size_t)PIECES_MAX * VECTOR_MAX, sizeof *vs->rows);
  vs->fetches = calloc(FETCHES_MAX, sizeof *vs->fetches);
  vs->bounces = aligned_alloc(BLOCK_BYTES, (size_t)BOUNCES_MAX * PIECE_BYTES);
  if (!vs->vios || !vs->pieces || !vs->rows || !vs->fetches || !vs->bounces) return -ENOMEM;
  for (uint32_t i = 0; i < VIOS_MAX; i++) {
    vs->vios[i].next = vs->free_vios;
    vs->free_vios = &vs->vios[i];
  }
  for (uint32_t i = 0; i < PIECES_MAX; i++) {
    vs->pieces[i].rows = vs->rows + (size_t)i * VECTOR_MAX;
    vs->pieces[i].next = vs->free_pieces;
    vs->free_pieces = &vs->pieces[i];
  }
  for (uint32_t i = 0; i < BOUNCES_MAX; i++)
    vs->free_bounces[vs->free_bounce_count++] = vs->bounces + (size_t)i * PIECE_BYTES;
  vs->hungry_last = &vs->hungry;
  return 0;
}

void vpieces_destroy(struct volumes *vs) {
  free(vs->vios);
  free(vs->pieces);
  free(vs->rows);
  free(vs->fetches);
  free(vs->bounces);
}

static struct vpiece *piece_take(struct vio *x, bool bounce) {
  struct volumes *vs = x->volume->shard->volumes;
  struct vpiece *p = vs->free_pieces;
  if (!p || (bounce && !vs->free_bounce_count)) return NULL;
  vs->free_pieces = p->next;
  p->vio = x;
  p->copy = p->verify = false;
  p->bounce = bounce ? vs->free_bounces[--vs->free_bounce_count] : NULL;
  return p;
}

static void vpiece_free(struct volumes *vs, struct vpiece *p) {
  if (p->bounce) vs->free_bounces[vs->free_bounce_count++] = p->bounce;
  p->next = vs->free_pieces;
  vs->free_pieces = p;
}

static void feed_hungry(struct shard *s) {
  struct volumes *vs = s->volumes;
  while (vs->hungry && vs->free_pieces && vs->free_bounce_count) {
    struct vio *x = vs->hungry;
    vs->hungry = x->next;
    if (!vs->hungry) vs->hungry_last = &vs->hungry;
    x->hungry = false;
    volume_run(s, x->op);
  }
}

static enum start go_hungry(struct vio *x) {
  struct volumes *vs = x->volume->shard->volumes;
  x->hungry = true;
  x->next = NULL;
  *vs->hungry_last = x;
  vs->hungry_last = &x->next;
  return STARTED;
}

/* ---- The caller's memory --------------------------------------------------------------------- */

/* What of it lies in a row, and what follows. */
struct row {
  char *memory;
  uint64_t bytes;
  const struct iovec *next;
};

/* From the op's byte `pos` on. */
static struct row row_at(struct shard_op *op, uint64_t pos) {
  const struct volume_args *a = volume_args(op);
  if (!a->iov_count) return (struct row){(char *)op->buf + pos, op->bytes - pos, NULL};
  const struct iovec *v = op->buf;
  for (pos += a->iov_skip; pos >= v->iov_len; v++) pos -= v->iov_len;
  return (struct row){(char *)v->iov_base + pos, v->iov_len - pos, v + 1};
}

static struct row row_after(const struct row *r) {
  const struct iovec *v = r->next;
  while (v->iov_len == 0) v++;
  return (struct row){v->iov_base, v->iov_len, v + 1};
}

static bool is_direct(const struct row *r, uint64_t bytes) {
  return is_aligned((uintptr_t)r->memory, BLOCK_BYTES) && min_u64(r->bytes, bytes) >= BLOCK_BYTES;
}

/* Of n blocks from the row on: how many of them one I/O can move straight, and with it `to`: where
 * they lie. Of the row itself at least one. */
static uint32_t gather(struct row r, uint32_t n, struct iovec *to) {
  uint32_t blocks = 0, count = 0;
  char *end = NULL;
  for (;; r = row_after(&r)) {
    if (r.memory != end && (count == VECTOR_MAX || !is_direct(&r, BLOCK_BYTES))) break;
    uint32_t more = (uint32_t)min_u64(r.bytes >> BLOCK_SHIFT, n - blocks);
    if (r.memory != end) to[count++] = (struct iovec){r.memory, 0};
    to[count - 1].iov_len += (size_t)more << BLOCK_SHIFT;
    blocks += more;
    if (blocks == n || !is_aligned(r.bytes, BLOCK_BYTES)) break;
    end = r.memory + r.bytes;
  }
  return blocks;
}

enum direction { COPY_IN, COPY_OUT, CLEAR };

static void copy(struct shard_op *op, enum direction to, uint64_t pos, char *with, uint64_t bytes) {
  while (bytes > 0) {
    struct row r = row_at(op, pos);
    uint64_t n = min_u64(r.bytes, bytes);
    if (to == COPY_IN)
      memcpy(with, r.memory, n);
    else if (to == COPY_OUT)
      memcpy(r.memory, with, n);
    else
      memset(r.memory, 0, n);
    pos += n;
    with = with ? with + n : NULL;
    bytes -= n;
  }
}

/* What a write puts at a place of the bounce. */
static void fill(struct shard_op *op, uint64_t at, char *to, uint64_t bytes) {
  if (op->kind == OP_WRITE_ZEROES)
    memset(to, 0, bytes);
  else
    copy(op, COPY_IN, at - op->offset, to, bytes);
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

static void piece_submit(struct vpiece *p, uint8_t kind, void (*done)(struct io *io)) {
  struct volume *v = p->vio->volume;
  p->io.op = kind;
  if (kind == IO_WRITE && !v->top && p->vio->op->flags & OP_DURABLE) p->io.flags |= IO_FUA;
  p->io.done = done;
  if (kind == IO_READ)
    v->stats.device_reads++;
  else
    v->stats.device_writes++;
  device_submit(v->shard->device, &p->io);
}

static void piece_end(struct vpiece *p) {
  struct vio *x = p->vio;
  struct shard *s = x->volume->shard;
  if (p->io.result && !x->error) x->error = p->io.result;
  x->in_flight--;
  vpiece_free(s->volumes, p);
  /* Who waits in a list goes on from there. */
  if (!x->hungry && !x->parked) volume_run(s, x->op);
  feed_hungry(s);
}

/* Fills in what is wrong with the data, if anything is. */
static void verify(struct vpiece *p, const char *what) {
  struct volume *v = p->vio->volume;
  struct io *io = &p->io;
  if (likely(!p->verify) || io->result || volume_data_fits(io, p->crc)) return;
  io->result = volume_mismatch(v->shard, p->vio->op, p->at >> BLOCK_SHIFT, io, p->crc, what);
}

static void vpiece_read(struct io *io) {
  struct vpiece *p = container_of(io, struct vpiece, io);
  struct shard_op *op = p->vio->op;
  verify(p, "read");
  if (io->result == -EAGAIN) {
    p->vio->again = true;
    io->result = 0;
  } else if (p->bounce && !io->result)
    copy(op, COPY_OUT, p->at - op->offset, p->bounce + (p->at & (BLOCK_BYTES - 1)), p->bytes);
  piece_end(p);
}

static void vpiece_written(struct io *io) {
  struct vpiece *p = container_of(io, struct vpiece, io);
  if (unlikely(p->vio->sums) && !io->result) live_written(p);
  piece_end(p);
}

/* What was read is in the bounce: changed, it is written. */
static void copy_on(struct vpiece *p) {
  if (p->bytes) fill(p->vio->op, p->at, p->bounce + (p->at & (BLOCK_BYTES - 1)), p->bytes);
  uint32_t bytes = p->io.bytes;
  p->io = p->to;
  p->io.buf = p->bounce;
  p->io.bytes = bytes;
  piece_submit(p, IO_WRITE, vpiece_written);
}

static void copy_read_done(struct io *io) {
  struct vpiece *p = container_of(io, struct vpiece, io);
  verify(p, "copy");
  /* Its blocks in the top layer are this op's, so what lies below them was not taken over. */
  if (io->result == -EAGAIN) io->result = -EBADMSG;
  if (io->result)
    piece_end(p);
  else
    copy_on(p);
}

static void piece_launch(struct vio *x, struct vpiece *p) {
  (void)p;
  x->in_flight++;
  x->streak = 0;
}

/* Why nothing was issued. */
enum issue { ISSUED, NO_PIECE, WAITING };

/* A leaf below is not known yet: the op waits, or the leaf is known now (ISSUED: look again). */
static enum issue learn(struct vio *x, uint64_t block) {
  struct volume *v = x->volume;
  int r = lower_learn(v->shard, v->lower, block >> LEAF_BLOCK_SHIFT, x->op);
  if (r && r != -EAGAIN) x->error = r;
  x->parked = r == -EAGAIN;
  return x->parked ? WAITING : ISSUED;
}

/* Where a place is and how many blocks of it one I/O may move. */
static uint32_t aim(struct vio *x, const struct place *place, uint64_t block, uint32_t blocks,
                    struct io *io) {
  *io = (struct io){.offset = block << BLOCK_SHIFT};
  return volume_map_io(x->volume->shard, x->volume, place, blocks, io);
}

/* Of n blocks that are going to be read: how many are verified alike, and how. */
static uint32_t expect(struct vpiece *p, const struct place *place, uint64_t block, uint32_t n) {
  struct expected e;
  if (likely(!place_may_have_sums(p->vio->volume, place))) return n;
  n = volume_expect(p->vio->volume, place, block, n, &e);
  p->verify = e.verify;
  p->crc = e.crc;
  return n;
}

/* What moves n blocks: the bounce, or what gather() has found and may be more than that. */
static void set_memory(struct vpiece *p, uint32_t n) {
  struct iovec *v = p->rows;
  size_t left = p->io.bytes = n << BLOCK_SHIFT;
  p->io.buf = p->bounce;
  if (p->bounce) return;
  for (; v->iov_len < left; v++) left -= v->iov_len;
  v->iov_len = left;
  p->io.buf = v == p->rows ? v->iov_base : p->rows;
  p->io.flags = v == p->rows ? 0 : IO_VECTORED;
}

static enum issue issue_read(struct vio *x) {
  struct volume *v = x->volume;
  struct shard_op *op = x->op;
  uint64_t block = x->at >> BLOCK_SHIFT, left = bytes_to_blocks(x->end) - block;
  struct place place;
  uint32_t n =
      volume_run_at(v, block, (uint32_t)min_u64(left, IO_BYTES_MAX >> BLOCK_SHIFT), &place);
  if (n == 0) return learn(x, block);
  uint64_t bytes = min_u64(x->end, (block + n) << BLOCK_SHIFT) - x->at;
  if (place.kind == PLACE_ZERO) {
    copy(op, CLEAR, x->at - op->offset, NULL, bytes);
    x->at += bytes;
    return ISSUED;
  }
  struct row r = row_at(op, x->at - op->offset);
  bool bounce = !is_aligned(x->at, BLOCK_BYTES) || !is_direct(&r, bytes) ||
                unlikely(op->state == VOLUME_LOCKED); /* nobody else has that memory */
  struct vpiece *p = piece_take(x, bounce);
  if (!p) return NO_PIECE;
  n = (uint32_t)(bounce ? min_u64(n, PIECE_BYTES >> BLOCK_SHIFT)
                        : gather(r, (uint32_t)(bytes >> BLOCK_SHIFT), p->rows));
  n = aim(x, &place, block, n, &p->io);
  n = expect(p, &place, block, n);
  set_memory(p, n);
  p->at = x->at;
  p->bytes = (uint32_t)(min_u64(x->end, (block + n) << BLOCK_SHIFT) - x->at);
  x->at += p->bytes;
  piece_launch(x, p);
  piece_submit(p, IO_READ, vpiece_read);
  return ISSUED;
}

/* Where a block that is being written goes, and how many follow there in a row. */
static uint32_t target_at(const struct volume *v, uint64_t block, uint32_t max, struct place *p) {
  if (!v->top) return volume_run_at(v, block, max, p);
  struct cluster c = layer_get(v->top, block >> CLUSTER_BLOCK_SHIFT);
  uint32_t i = (uint32_t)block & (CLUSTER_BLOCKS - 1), n = CLUSTER_BLOCKS - i;
  check(c.place != 0);
  *p = (struct place){c.place + i, (uint16_t)v->shard->config.manifest.shard, PLACE_DATA, true};
  while (n < max && layer_get(v->top, (block + n) >> CLUSTER_BLOCK_SHIFT).place == p->block + n)
    n += CLUSTER_BLOCKS;
  return (uint32_t)min_u64(n, max);
}

/* Blocks [block, block + n) are read from where they are, changed by the op's bytes at x->at, and
 * written to the top layer. */
static enum issue issue_copy(struct vio *x, uint64_t block, uint32_t n, uint32_t bytes) {
  struct volume *v = x->volume;
  struct place from, to;
  uint32_t have = volume_run_at(v, block, n, &from);
  if (have == 0) return learn(x, block);
  struct vpiece *p = piece_take(x, true);
  if (!p) return NO_PIECE;
  n = target_at(v, block, have, &to);
  n = aim(x, &to, block, n, &p->to);
  if (PLANTED(forget_lower_data) && !from.own) from.kind = PLACE_ZERO;
  if (from.kind != PLACE_ZERO) n = aim(x, &from, block, n, &p->io);
  n = expect(p, &from, block, n);
  p->copy = true;
  p->at = x->at;
  p->bytes = bytes;
  p->io.buf = p->bounce;
  p->io.bytes = n << BLOCK_SHIFT;
  x->at = bytes ? x->at + bytes : (block + n) << BLOCK_SHIFT;
  x->copied_bytes += (uint64_t)n << BLOCK_SHIFT;
  piece_launch(x, p);
  if (from.kind == PLACE_ZERO) {
    memset(p->bounce, 0, p->io.bytes);
    copy_on(p);
  } else {
    piece_submit(p, IO_READ, copy_read_done);
  }
  return ISSUED;
}

static enum issue issue_whole(struct vio *x, uint64_t block, uint32_t n) {
  struct shard_op *op = x->op;
  struct place place;
  struct row r = {0};
  if (op->kind == OP_WRITE) r = row_at(op, x->at - op->offset);
  bool bounce = !is_direct(&r, BLOCK_BYTES);
  n = target_at(x->volume, block, n, &place);
  struct vpiece *p = piece_take(x, bounce);
  if (!p) return NO_PIECE;
  n = bounce ? (uint32_t)min_u64(n, PIECE_BYTES >> BLOCK_SHIFT) : gather(r, n, p->rows);
  n = aim(x, &place, block, n, &p->io);
  set_memory(p, n);
  p->at = x->at;
  if (bounce)
    fill(op, x->at, p->bounce, p->io.bytes);
  else if (unlikely(x->sums))
    p->crc = volume_data_crc(&p->io);
  x->at += p->io.bytes;
  piece_launch(x, p);
  piece_submit(p, IO_WRITE, vpiece_written);
  return ISSUED;
}

/* The first run of blocks at or after one, before `end`, that get data. */
static uint32_t next_bits(const struct vio *x, uint64_t *block, uint64_t end) {
  for (; *block < end; ++*block) {
    uint32_t slot = (uint32_t)(*block >> CLUSTER_BLOCK_SHIFT) & (LEAF_CLUSTERS - 1);
    uint32_t i = (uint32_t)*block & (CLUSTER_BLOCKS - 1);
    uint32_t rest = x->bits[slot] >> i;
    if (rest & 1) return (uint32_t)min_u64((uint32_t)__builtin_ctz(~rest), end - *block);
    if (!rest) *block |= CLUSTER_BLOCKS - 1;
  }
  return 0;
}

static enum issue issue_write(struct vio *x) {
  struct shard_op *op = x->op;
  uint64_t block = x->at >> BLOCK_SHIFT, end = bytes_to_blocks(x->chunk_end);
  uint32_t n = (uint32_t)min_u64(end - block, IO_BYTES_MAX >> BLOCK_SHIFT);
  if (x->volume->top) {
    n = op->flags & OP_RESERVE ? 0 : next_bits(x, &block, end);
    while (n && n < end - block && n < IO_BYTES_MAX >> BLOCK_SHIFT && op->kind == OP_WRITE) {
      uint64_t next = block + n;
      uint32_t more = next_bits(x, &next, end);
      if (!more || next != block + n) break;
      n += more;
    }
    if (n == 0) {
      x->at = x->chunk_end;
      return ISSUED;
    }
    x->at = max_u64(x->at, block << BLOCK_SHIFT);
  }
  n = (uint32_t)min_u64(n, IO_BYTES_MAX >> BLOCK_SHIFT);
  if (op->kind == OP_PROMOTE) return issue_copy(x, block, (uint32_t)min_u64(n, CLUSTER_BLOCKS), 0);
  uint32_t in = (uint32_t)x->at & (BLOCK_BYTES - 1);
  uint64_t left = x->chunk_end - x->at;
  if (in || left < BLOCK_BYTES)
    return issue_copy(x, block, 1, (uint32_t)min_u64(left, BLOCK_BYTES - in));
  return issue_whole(x, block, (uint32_t)min_u64(n, left >> BLOCK_SHIFT));
}

/* ---- Driving --------------------------------------------------------------------------------- */

#define NO_TURN 2u

static void hold(struct vio *x) {
  struct shard *s = x->volume->shard;
  x->generation = space_read_begin(s->space);
  x->turn = lower_read_begin(s->volumes);
}

/* Who waits for room must not keep what was freed from coming back: he may wait for just that. No
 * piece is in flight then, and where things are is looked up anew. */
static void let_go(struct vio *x) {
  struct shard *s = x->volume->shard;
  uint8_t turn = x->turn;
  if (turn == NO_TURN) return;
  x->turn = NO_TURN;
  space_read_end(s->space, x->generation);
  lower_read_end(s, turn);
}

static void vio_free(struct vio *x) {
  struct shard *s = x->volume->shard;
  struct volumes *vs = s->volumes;
  let_go(x);
  x->next = vs->free_vios;
  vs->free_vios = x;
  struct shard_op *op = op_list_pop(&vs->vio_waiting);
  if (op) volume_run(s, op);
}

/* One that is to be alone may have to wait for that, and keeps nothing meanwhile. */
static enum start read_again(struct vio *x) {
  struct shard_op *op = x->op;
  struct shard *s = x->volume->shard;
  x->again = false;
  x->at = op->offset;
  if (op->state != VOLUME_ALONE) return vio_drive(x);
  op->work = NULL;
  vio_free(x);
  volume_run(s, op);
  return STARTED;
}

static enum start finish(struct vio *x) {
  struct shard_op *op = x->op;
  struct shard *s = x->volume->shard;
  if (unlikely(x->again) && !x->error) return read_again(x);
  bool read = op->kind == OP_READ;
  int64_t result = op->kind == OP_PROMOTE ? (int64_t)x->copied_bytes : (int64_t)op->bytes;
  if (x->error) result = x->error;
  write_cancel(x);
  op->work = NULL;
  vio_free(x);
  if (read)
    volume_complete(s, op, result);
  else
    write_finish(s, op, result);
  return STARTED;
}

/* What the chunk wrote counts from now on. Then the next one, if there is more. */
static int next_chunk(struct vio *x) {
  if (x->chunk_end > x->chunk_at) write_apply(x);
  x->chunk_at = x->chunk_end = x->at;
  if (x->at == x->end) return 0;
  if (++x->streak % 16 == 0) return -EAGAIN; /* others have their turn */
  return write_prepare(x);
}

enum start vio_drive(struct vio *x) {
  bool read = x->op->kind == OP_READ;
  if (x->turn == NO_TURN) hold(x);
  while (!x->error) {
    if (!read && x->at == x->chunk_end) {
      if (x->in_flight && !PLANTED(apply_before_data)) return STARTED;
      int r = next_chunk(x);
      x->parked = r == -EAGAIN || r == -EINPROGRESS;
      if (r == -EAGAIN && !PLANTED(wait_as_reader)) let_go(x);
      if (x->parked) return r == -EAGAIN ? WAIT_ROOM : STARTED;
      if (r) x->error = r;
    }
    if (x->error || (x->at == x->end && (read || x->chunk_at == x->end))) break;
    if (!read && x->at == x->chunk_end) continue; /* nothing was there to be changed */
    if (x->in_flight >= VIO_WINDOW) return STARTED;
    enum issue i = read ? issue_read(x) : issue_write(x);
    if (i == NO_PIECE) return go_hungry(x);
    if (i == WAITING) return STARTED;
  }
  return x->in_flight ? STARTED : finish(x);
}

void vio_fail(struct vio *x, int error) {
  if (!x->error) x->error = error;
  volume_run(x->volume->shard, x->op);
}

enum start vio_start(struct shard *s, struct shard_op *op) {
  struct volumes *vs = s->volumes;
  struct vio *x = vs->free_vios;
  if (!x) {
    op_list_push(&vs->vio_waiting, op);
    return STARTED;
  }
  vs->free_vios = x->next;
  memset(x, 0, offsetof(struct vio, changes));
  x->op = op;
  x->volume = volume_args(op)->volume;
  x->at = x->chunk_at = x->chunk_end = op->offset;
  x->end = op->offset + op->bytes;
  if (unlikely(x->volume->live)) {
    x->sums = live_sums_of(x);
    memset(x->torn, 0, sizeof x->torn);
  }
  hold(x);
  op->work = x;
  return vio_drive(x);
}
