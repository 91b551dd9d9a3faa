/* volume_verify.c - checksums of what is read from volumes: what a read must have, and what it
 * means when it has not. Owned by the shard's thread.
 *
 * A read takes what it expects when it learns where its blocks lie: one number, the checksum of the
 * blocks' checksums. Sealed data does not change, with one exception: a merge gives its place to a
 * live layer, which may overwrite it while an older read of it is in flight. So before data is
 * called damaged the same is asked again: only if the blocks still lie there, and the same is still
 * expected of them, they are. Else the read begins again.
 *
 * A layer with checksums of what is written (live) changes beside reads; and the memory is the
 * caller's, which may be a guest that changes it, or has given the same page twice. So a read whose
 * data does not fit begins again as if it were a write, through bounces: it waits for those that
 * overlap, and they for it, so data and checksums are of the same moment, and what is looked at is
 * what the device has given. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <string.h>

#include "shards/base/plant.h"

static const struct block_sums *sums_of_leaf(const struct volume *v, const struct place *p,
                                             uint64_t leaf) {
  return p->own ? layer_sums(v->top, leaf) : view_sums(v->lower->view, leaf);
}

uint32_t volume_expect(const struct volume *v, const struct place *p, uint64_t block, uint32_t n,
                       struct expected *e) {
  uint32_t done = 0;
  *e = (struct expected){0};
  while (done < n) {
    uint32_t at = (uint32_t)(block + done) % LEAF_BLOCKS;
    uint32_t max = (uint32_t)min_u64(n - done, LEAF_BLOCKS - at);
    const struct block_sums *sums = sums_of_leaf(v, p, (block + done) >> LEAF_BLOCK_SHIFT);
    bool has;
    uint32_t run = block_sums_run(sums, at, max, &has);
    if (done && has != e->verify) break;
    e->verify = has;
    for (uint32_t i = 0; has && i < run; i++) {
      uint32_t sum = block_sums_at(sums, at + i);
      e->crc = crc32c(e->crc, &sum, sizeof sum);
    }
    done += run;
    if (run < max) break;
  }
  return done;
}

uint32_t volume_data_crc(const struct io *io) {
  uint32_t all = 0;
  for (uint32_t at = 0, row; at < io->bytes; at += row) {
    const char *memory = io_memory(io, at, &row);
    for (uint32_t in = 0; in < row; in += BLOCK_BYTES) {
      uint32_t one = crc32c(0, memory + in, BLOCK_BYTES);
      all = crc32c(all, &one, sizeof one);
    }
  }
  return all;
}

bool volume_data_fits(const struct io *io, uint32_t crc) { return volume_data_crc(io) == crc; }

static void report(struct shard *s, const struct volume *v, const struct place *p, uint64_t block,
                   const char *what) {
  s->checksum_errors++;
  log_line(
      &s->config.manifest.logger, 0,
      "shard %u: volume: checksum mismatch in block %llu (leaf %llu) of layer %llu%s: %s shard "
      "%u region block %u",
      s->config.manifest.shard, (unsigned long long)block,
      (unsigned long long)(block >> LEAF_BLOCK_SHIFT),
      (unsigned long long)(p->own ? layer_id(v->top) : v->lower->from.id),
      p->own ? "" : " or below", what, p->shard, p->block);
}

/* The first block that is not what it should be. */
static void report_bad(struct shard *s, const struct volume *v, struct place p, uint64_t block,
                       const struct io *io, const char *what) {
  for (uint32_t i = 0, row; i < io->bytes >> BLOCK_SHIFT; i++, p.block++) {
    struct expected e;
    struct io one = {.buf = io_memory(io, i << BLOCK_SHIFT, &row), .bytes = BLOCK_BYTES};
    volume_expect(v, &p, block + i, 1, &e);
    if (volume_data_fits(&one, e.crc)) continue;
    report(s, v, &p, block + i, what);
    return;
  }
}

int volume_mismatch(struct shard *s, struct shard_op *op, uint64_t block, const struct io *io,
                    uint32_t crc, const char *what) {
  const struct volume *v = volume_args(op)->volume;
  uint32_t n = io->bytes >> BLOCK_SHIFT;
  if (op->kind == OP_READ && op->state == VOLUME_NEW && !PLANTED(believe_a_mismatch)) {
    op->state = VOLUME_ALONE;
    return -EAGAIN;
  }
  if (op->state == VOLUME_ALONE) return -EAGAIN; /* another piece of it has said so */
  struct place p;
  struct expected e;
  struct io now;
  if (volume_run_at(v, block, n, &p) < n || !place_may_have_sums(v, &p) ||
      volume_map_io(s, v, &p, n, &now) < n || now.file != io->file || now.offset != io->offset ||
      volume_expect(v, &p, block, n, &e) < n || !e.verify || e.crc != crc)
    return -EAGAIN;
  report_bad(s, v, p, block, io, what);
  return -EBADMSG;
}
