/* volume_read.c - reads of volumes, and where a block lies: in the top layer, in what lies below,
 * in a file outside, or nowhere. Owned by the shard's thread.
 *
 * Short path: one run, straight into the caller's memory, one device I/O in the op itself. A reader
 * holds a generation of the space, so that what it reads is not reused, and a turn of the views if
 * it uses one, so that what they remember stays true. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <string.h>

/* ---- Where ------------------------------------------------------------------------------------
 */

static inline uint32_t ones_from(uint32_t bits, uint32_t first) {
  return (uint32_t)__builtin_ctz(~(bits >> first)); /* bits has 16 */
}

/* What a cluster says of the blocks from i on; the run does not cross it. */
static inline uint32_t run_in_cluster(const struct volume *v, uint64_t block, uint32_t max,
                                      struct place *p) {
  struct cluster c = layer_get(v->top, block >> CLUSTER_BLOCK_SHIFT);
  uint32_t i = (uint32_t)block & (CLUSTER_BLOCKS - 1);
  if (c.valid >> i & 1) {
    *p = (struct place){c.place + i, (uint16_t)v->shard->config.manifest.shard, PLACE_DATA, true};
    return (uint32_t)min_u64(ones_from(c.valid, i), max);
  }
  *p = (struct place){.kind = PLACE_ZERO};
  if (c.zero >> i & 1) return (uint32_t)min_u64(ones_from(c.zero, i), max);
  uint32_t open = (uint16_t) ~(c.valid | c.zero);
  max = (uint32_t)min_u64(ones_from(open, i), max);
  if (!v->lower) return max;
  uint32_t n = view_lookup(v->lower->view, block, max, &p->block, &p->shard);
  p->kind = n == 0 ? PLACE_MISSING : p->block ? PLACE_DATA : PLACE_ZERO;
  return n;
}

static inline bool continues(const struct place *p, uint32_t n, const struct place *next) {
  if (p->kind != next->kind || p->own != next->own) return false;
  return p->kind == PLACE_ZERO || (p->block + n == next->block && p->shard == next->shard);
}

uint32_t volume_run_at(const struct volume *v, uint64_t block, uint32_t max, struct place *p) {
  if (!v->top) {
    *p = (struct place){.kind = PLACE_FILE, .own = true};
    return max;
  }
  uint32_t n = run_in_cluster(v, block, max, p);
  while (n && n < max) {
    struct place next;
    uint32_t more = run_in_cluster(v, block + n, max - n, &next);
    if (!more || !continues(p, n, &next)) break;
    n += more;
  }
  return n;
}

uint32_t volume_map_io(const struct shard *s, const struct volume *v, const struct place *p,
                       uint32_t blocks, struct io *io) {
  if (p->kind == PLACE_FILE) {
    io->file = v->file;
    return blocks; /* the caller sets the offset: the address itself */
  }
  const struct region *r =
      p->shard == s->config.manifest.shard ? s->region : &s->config.regions[p->shard];
  return (uint32_t)region_map(r, p->block, blocks, io);
}

/* ---- Short path --------------------------------------------------------------------------------
 */

static void read_done(struct io *io) {
  struct shard_op *op = container_of(io, struct shard_op, io);
  struct shard *s = volume_args(op)->volume->shard;
  space_read_end(s->space, op->generation);
  if (op->pad & 2) lower_read_end(s, op->pad & 1);
  if (unlikely(op->pad & 4) && !io->result && !volume_data_fits(io, (uint32_t)op->block)) {
    io->result = volume_mismatch(s, op, first_block(op), io, (uint32_t)op->block, "read");
    if (io->result == -EAGAIN) {
      volume_run(s, op);
      return;
    }
  }
  volume_complete(s, op, io->result ? io->result : (int64_t)op->bytes);
}

/* Starts it if it is one run. */
static bool read_short(struct shard *s, struct volume *v, struct shard_op *op) {
  uint32_t blocks = (uint32_t)(op->bytes >> BLOCK_SHIFT);
  struct place p;
  if (volume_run_at(v, op->offset >> BLOCK_SHIFT, blocks, &p) < blocks) return false;
  if (p.kind == PLACE_ZERO) {
    memset(op->buf, 0, op->bytes);
    volume_complete(s, op, (int64_t)op->bytes);
    return true;
  }
  op->io.offset = op->offset;
  if (volume_map_io(s, v, &p, blocks, &op->io) < blocks) return false;
  struct expected e = {0};
  if (unlikely(place_may_have_sums(v, &p))) {
    if (volume_expect(v, &p, op->offset >> BLOCK_SHIFT, blocks, &e) < blocks) return false;
    op->block = e.crc;
  }
  op->generation = (uint16_t)space_read_begin(s->space);
  op->pad = p.own ? 0 : 2 | lower_read_begin(s->volumes);
  op->pad |= e.verify << 2;
  op->io.done = read_done;
  op->io.buf = op->buf;
  op->io.bytes = (uint32_t)op->bytes;
  op->io.op = IO_READ;
  op->io.flags = 0;
  v->stats.device_reads++;
  device_submit(s->device, &op->io);
  return true;
}

enum start volume_read_start(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  if (unlikely(v->direct)) volume_direct_offer(v, op);
  if (likely(op_is_short(op) && op->state == VOLUME_NEW)) {
    if (likely(read_short(s, v, op))) return STARTED;
    struct place p;
    if (volume_run_at(v, first_block(op), 1, &p) == 0) {
      int r = lower_learn(s, v->lower, first_block(op) >> LEAF_BLOCK_SHIFT, op);
      if (r == -EAGAIN) return STARTED;
      if (r) {
        volume_complete(s, op, r);
        return STARTED;
      }
      if (read_short(s, v, op)) return STARTED;
    }
  }
  return vio_start(s, op);
}
