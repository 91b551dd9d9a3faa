/* shard_read.c - get and stat. Owned by the shard's thread.
 *
 * Short path: one device I/O in the op itself, straight into the caller's buffer, whole
 * granules; nothing is allocated. Everything else goes through a work: pieces of whole blocks,
 * consumed in order of position, so that one running checksum verifies granules larger than any
 * piece; parts that the caller did not ask for, or whose place in the buffer is misaligned, pass
 * through bounce memory.
 *
 * Readers hold a generation of the space from index lookup to completion: what they read is not
 * reused. The index may change meanwhile, so checksums and extents are copied first. */
#include "shards/base/plant.h"
#include "shards/index_find.h"
#include "shards/shard_internal.h"

#include <errno.h>
#include <string.h>

/* ---- Short path ----------------------------------------------------------------------- */

/* Names the granule if the index still has what was read; cold. */
__attribute__((cold, noinline)) static void report_short(struct shard *s, struct shard_op *op) {
  struct blob b;
  uint64_t granule = op->offset >> op->pad, count = div_up((uint64_t)op->result, 1u << op->pad);
  if (count > 1 && index_find(s->index, op->hash, op->id, &b) == 0 && b.granule_shift == op->pad &&
      granule + count <= b.granule_count) {
    for (uint64_t i = 0; i < count; i++) {
      uint64_t at = i << op->pad, n = min_u64(1u << op->pad, (uint64_t)op->result - at);
      if (crc32c(0, (char *)op->buf + at, n) == b.checksums[granule + i]) continue;
      granule += i;
      op->block += at >> BLOCK_SHIFT;
      break;
    }
  }
  shard_checksum_error(s, op->id, granule, op->block, "get");
}

/* Several granules in one I/O: the op keeps the checksum of their checksums. */
static uint32_t sums_of(const char *buf, uint64_t bytes, uint8_t shift) {
  uint32_t all = 0;
  for (uint64_t at = 0; at < bytes; at += UINT64_C(1) << shift) {
    uint32_t one = crc32c(0, buf + at, min_u64(UINT64_C(1) << shift, bytes - at));
    all = crc32c(all, &one, sizeof one);
  }
  return all;
}

/* What short_done() leaves. */
static __attribute__((noinline)) void short_finish(struct shard_op *op) {
  struct shard *s = op->work;
  int64_t result = op->result;
  space_read_end(s->space, op->generation);
  if (unlikely(op->io.result != 0)) {
    result = op->io.result;
  } else if (op->pad) {
    uint32_t crc = (uint64_t)result <= UINT64_C(1) << op->pad
                       ? crc32c(0, op->buf, (size_t)result)
                       : sums_of(op->buf, (uint64_t)result, op->pad);
    if (unlikely(crc != op->checksum)) {
      report_short(s, op);
      result = -EBADMSG;
    }
  }
  op_complete(s, op, result);
}

/* A read without checksums that went well calls nothing but done(), at its end. */
static void short_done(struct io *io) {
  struct shard_op *op = container_of(io, struct shard_op, io);
  struct shard *s = op->work;
  if (unlikely(io->result | op->pad || !space_read_end_fast(s->space, op->generation))) {
    short_finish(op);
    return;
  }
  s->ops--;
  op->done(op);
}

/* Where a blob's block lies: the extent that holds it, and how far in. */
static const struct extent *find_extent(const struct blob *b, uint64_t block, uint64_t *in) {
  const struct extent *e = b->extents;
  while (block >= e->blocks) block -= e++->blocks;
  *in = block;
  return e;
}

/* Where the bytes that a get asks for lie, as far as the short path wants to know it. */
struct place {
  uint64_t blob_bytes;
  uint64_t block, blocks;    /* of the first byte's; how many follow in a row */
  const uint32_t *checksums; /* of the whole blob; NULL: none */
  uint8_t granule_shift;
};

/* One I/O into the caller's buffer; file and offset are set. shift: of the granules that
 * op->checksum is of, which lie at op->block; 0: none. */
static inline void send_short(struct shard *s, struct shard_op *op, uint64_t bytes,
                              uint64_t io_bytes, uint8_t shift) {
  s->ops++;
  op->work = s;
  op->result = (int64_t)bytes;
  op->generation = (uint16_t)space_read_begin(s->space);
  op->pad = shift;
  op->io.done = short_done;
  op->io.buf = op->buf;
  op->io.bytes = (uint32_t)io_bytes;
  device_submit(s->device, &op->io);
}

/* Tries the short path: false if the range needs more than one I/O or a bounce. */
static bool get_short(struct shard *s, struct shard_op *op, const struct place *p, uint64_t bytes) {
  bool verify = p->checksums && !(op->flags & OP_NO_CHECKSUM) && !PLANTED(skip_data_checksum);
  uint64_t io_bytes = round_up(bytes, BLOCK_BYTES), end = op->offset + bytes;
  uint64_t mask = verify ? (UINT64_C(1) << p->granule_shift) - 1 : BLOCK_BYTES - 1;
  bool fits = ((((uintptr_t)op->buf & (BLOCK_BYTES - 1)) | (op->offset & mask)) == 0) &
              (((end & mask) == 0) | (end == p->blob_bytes));
  if (!fits || io_bytes > op->bytes || io_bytes > IO_BYTES_MAX) return false;
  uint64_t blocks = io_bytes >> BLOCK_SHIFT;
  if (p->blocks < blocks || region_map(s->region, p->block, blocks, &op->io) < blocks) return false;
  op->io.op = IO_READ;
  op->io.flags = 0;
  const struct segment *segment = region_segment(s->region, p->block);
  s->near.start = segment->region_block << BLOCK_SHIFT;
  s->near.end = (segment->region_block + segment->blocks) << BLOCK_SHIFT;
  s->near.offset = (segment->first_block - segment->region_block) << BLOCK_SHIFT;
  s->near.read = op->io.kind;
  if (verify) {
    op->block = p->block;
    const uint32_t *sums = p->checksums + (op->offset >> p->granule_shift);
    op->checksum = bytes <= mask + 1
                       ? *sums
                       : crc32c(0, sums, sizeof *sums * ((bytes + mask) >> p->granule_shift));
  }
  send_short(s, op, bytes, io_bytes, verify ? p->granule_shift : 0);
  return true;
}

static void get_complete(struct shard *s, struct shard_op *op, int64_t result) {
  s->ops++; /* it had none yet */
  op_complete(s, op, result);
}

/* Whatever shard_get() leaves. */
static __attribute__((noinline)) void get_other(struct shard *s, struct shard_op *op) {
  const struct index_slot *e = index_slot(s->index, op->hash, op->id);
  struct blob b;
  uint64_t in;
  op->size = 0;
  if ((!op->buf && op->bytes) || op->offset + op->bytes < op->offset) {
    get_complete(s, op, -EINVAL);
    return;
  }
  if (!e) {
    get_complete(s, op, manifest_absent(s->manifest, op->hash));
    return;
  }
  slot_decode(&s->index->slab, e, &b);
  op->size = b.bytes;
  if (op->offset >= b.bytes || op->bytes == 0) {
    get_complete(s, op, 0);
    return;
  }
  const struct extent *x = find_extent(&b, op->offset >> BLOCK_SHIFT, &in);
  struct place p = {.blob_bytes = b.bytes,
                    .block = x->block + in,
                    .blocks = x->blocks - in,
                    .checksums = b.granule_count ? b.checksums : NULL,
                    .granule_shift = b.granule_shift};
  if (get_short(s, op, &p, min_u64(op->bytes, b.bytes - op->offset))) return;
  s->ops++;
  shard_run(s, op);
}

/* Where the blob's bytes lie, if that is in the segment in which the get before found its own. */
static inline bool find_near(struct shard *s, struct shard_op *op, const struct index_slot *e,
                             uint64_t size) {
  uint64_t place = slot_place(e) + op->offset;
  if (unlikely(place < s->near.start || place + op->bytes > s->near.end)) return false;
  op->size = size;
  op->io.kind = s->near.read;
  op->io.offset = place + s->near.offset;
  return true;
}

/* As shard_get() wants it, and one whole granule. */
static __attribute__((noinline)) void get_granule(struct shard *s, struct shard_op *op,
                                                  const struct index_slot *e) {
  uint8_t shift = slot_granule_shift(e);
  op->checksum = (uint32_t)e->rest;
  if (unlikely(op->bytes != UINT64_C(1) << shift || op->offset & (op->bytes - 1) ||
               !find_near(s, op, e, slot_bytes(e)))) {
    get_other(s, op);
    return;
  }
  op->block = (slot_place(e) + op->offset) >> BLOCK_SHIFT;
  if (slot_kind(e) == SLOT_SUMS) {
    const uint32_t *sums = slab_at(&s->index->slab, (uint32_t)e->rest);
    op->checksum = sums[op->offset >> shift];
  }
  send_short(s, op, op->bytes, op->bytes, shift);
}

/* As shard_get(), when nothing was noted of the id. */
static __attribute__((noinline)) void get_unnoted(struct shard *s, struct shard_op *op) {
  if (index_note(s->index, op->hash, op->id))
    shard_get(s, op);
  else
    get_other(s, op);
}

/* By far the most: whole blocks of a blob in one row, within one granule, where the one before lay.
 * Calls nothing but the device, at its end, so that no register need be saved. */
void shard_get(struct shard *s, struct shard_op *op) {
  const struct index_slot *e = index_noted(s->index, op->hash);
  uint64_t bytes = op->bytes;
  uint64_t low = ((uintptr_t)op->buf | op->offset | bytes) & (BLOCK_BYTES - 1);
  if (unlikely(low || bytes - 1 >= IO_BYTES_MAX)) goto other;
  if (unlikely(e->id.lo != op->id.lo || e->id.hi != op->id.hi)) {
    get_unnoted(s, op);
    return;
  }
  /* One without checksums, below 4 GiB, is told by one comparison. */
  bool bare = e->where >> SLOT_KIND_BIT == SLOT_BARE;
  uint64_t size = e->rest >> 32;
  if (!bare) size = slot_bytes(e);
  if (unlikely(size < bytes || op->offset > size - bytes)) goto other;
  if (!bare && slot_kind(e) != SLOT_BARE) {
    if (unlikely(slot_kind(e) == SLOT_MANY)) goto other;
    if (!(op->flags & OP_NO_CHECKSUM) && !PLANTED(skip_data_checksum)) {
      get_granule(s, op, e);
      return;
    }
  }
  if (unlikely(!find_near(s, op, e, size))) goto other;
  send_short(s, op, bytes, bytes, 0);
  return;
other:
  get_other(s, op);
}

/* ---- Pieces --------------------------------------------------------------------------- */

/* The next piece: straight into the buffer as far as whole blocks fit there, else bounced. */
static uint32_t get_plan(struct work *w, struct piece *p, uint32_t bytes_max) {
  const struct shard_op *op = w->op;
  uint64_t start = op->offset, stop = start + (uint64_t)op->result, bytes = bytes_max;
  uint64_t whole = round_up(stop, BLOCK_BYTES), next = round_up(start, BLOCK_BYTES);
  uintptr_t at = (uintptr_t)op->buf + (w->pos - start);
  /* What lies behind the range within its last block may be written only if the buffer holds it. */
  if (whole > start + op->bytes) whole = round_down(stop, BLOCK_BYTES);
  p->io.op = IO_READ;
  if (w->pos >= start && w->pos < whole && is_aligned(at, BLOCK_BYTES)) {
    p->io.buf = (void *)at;
    return (uint32_t)min_u64(bytes, whole - w->pos);
  }
  p->bounced = true;
  p->io.buf = p->bounce;
  bytes = min_u64(bytes, BOUNCE_BYTES);
  if (w->pos < start && is_aligned((uintptr_t)op->buf + (next - start), BLOCK_BYTES))
    bytes = min_u64(bytes, next - w->pos);
  return (uint32_t)bytes;
}

/* Copies the part of a bounced piece that the caller asked for. */
static void deliver(const struct shard_op *op, const struct piece *p) {
  uint64_t stop = op->offset + (uint64_t)op->result;
  uint64_t from = max_u64(p->pos, op->offset), to = min_u64(p->pos + p->io.bytes, stop);
  if (from >= to) return;
  memcpy((char *)op->buf + (from - op->offset), (char *)p->io.buf + (from - p->pos), to - from);
}

static uint64_t block_of(const struct work *w, uint64_t block) {
  const struct extent *e = w->extents;
  while (block >= e->blocks) block -= e++->blocks;
  return e->block + block;
}

static void consume(struct work *w, struct piece *p) {
  uint64_t data = min_u64(p->pos + p->io.bytes, w->blob_bytes) - p->pos;
  bool last = p->pos + p->io.bytes >= w->blob_bytes;
  if (!sums_check(w->feed, p->io.buf, data) || (last && !sums_check_end(w->feed))) {
    uint64_t granule = w->feed->count;
    shard_checksum_error(w->shard, w->op->id, granule + w->first_granule,
                         block_of(w, granule << (w->feed->shift - BLOCK_SHIFT)), "get");
    w->error = -EBADMSG;
  } else if (p->bounced) {
    deliver(w->op, p);
  }
}

static void get_piece_done(struct piece *p) {
  struct work *w = p->work;
  p->done = true;
  if (p->io.result && !w->error) w->error = p->io.result;
  while ((p = work_pieces_pop(w))) {
    if (!w->error) consume(w, p);
    piece_free(p);
  }
  work_drive(w);
}

static uint32_t get_plan_ordered(struct work *w, struct piece *p, uint32_t bytes_max) {
  work_pieces_add(w, p);
  return get_plan(w, p, bytes_max);
}

static void get_finish(struct work *w) {
  struct shard *s = w->shard;
  struct shard_op *op = w->op;
  int64_t result = w->error ? w->error : op->result;
  space_read_end(s->space, w->generation);
  work_free(w);
  op_complete(s, op, result);
  shard_pump(s);
}

/* ---- Start ------------------------------------------------------------------------------ */

/* The extents that hold the blob's blocks [first, end): copied if to is not NULL; their number,
 * and how far into the first one the range begins. */
static uint32_t copy_extents(const struct blob *b, uint64_t first, uint64_t end, struct extent *to,
                             uint64_t *in) {
  const struct extent *e = find_extent(b, first, in);
  uint64_t covered = first - *in;
  uint32_t n = 0;
  for (; covered < end; e++, n++) {
    if (to) to[n] = *e;
    covered += e->blocks;
  }
  return n;
}

enum start get_start(struct shard *s, struct shard_op *op) {
  struct blob b;
  uint64_t in;
  int r = index_find(s->index, op->hash, op->id, &b);
  if (r != 0 || op->offset >= b.bytes) { /* replaced while it waited */
    if (r == 0) op->size = b.bytes;
    op_complete(s, op, r);
    return STARTED;
  }
  uint64_t bytes = min_u64(op->bytes, b.bytes - op->offset);
  bool verify =
      b.granule_count != 0 && !(op->flags & OP_NO_CHECKSUM) && !PLANTED(skip_data_checksum);
  uint64_t unit = verify ? UINT64_C(1) << b.granule_shift : BLOCK_BYTES;
  uint64_t pos = round_down(op->offset, unit);
  uint64_t end = min_u64(round_up(op->offset + bytes, unit), round_up(b.bytes, BLOCK_BYTES));
  uint64_t granules = verify ? div_up(end - pos, unit) : 0;
  uint32_t extents = copy_extents(&b, pos >> BLOCK_SHIFT, end >> BLOCK_SHIFT, NULL, &in);
  bool detail = granules > WORK_SUMS || extents > WORK_EXTENTS;
  struct work *w = work_take(s, detail);
  if (!w) return detail ? WAIT_DETAIL : WAIT_WORK;
  op->size = b.bytes;
  op->result = (int64_t)bytes;
  w->op = op;
  w->plan = get_plan_ordered;
  w->piece_done = get_piece_done;
  w->finish = get_finish;
  w->pos = pos;
  w->end = end;
  w->blob_bytes = b.bytes;
  w->first_granule = verify ? (uint32_t)(pos >> b.granule_shift) : 0;
  struct extent *to = detail ? w->detail->extents : w->inline_extents;
  w->extent_count = copy_extents(&b, pos >> BLOCK_SHIFT, end >> BLOCK_SHIFT, to, &in);
  /* The first extent as if it began at the range: block_of() counts from pos. */
  to[0].block += in;
  to[0].blocks -= in;
  w->sums.shift = verify ? b.granule_shift : 0;
  if (verify) memcpy(w->sums.at, b.checksums + w->first_granule, granules * sizeof *w->sums.at);
  w->generation = space_read_begin(s->space);
  work_drive(w);
  return STARTED;
}
