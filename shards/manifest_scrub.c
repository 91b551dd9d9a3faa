/* manifest_scrub.c - see manifest_scrub.h. Owned by the shard's thread.
 *
 * A loop of reads: fill() reads until the buffer has what the step wants, then the step looks at it
 * and says what it wants next. A step first makes sure that what it has read is still in use:
 * blocks of a checkpoint, a directory or the log are written anew only after a durable root has let
 * go of them, and the manifest knows that at once. */
#include "shards/manifest_scrub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/crc32c.h"
#include "shards/recover.h"

static void want(struct manifest_scrub *x, uint64_t bytes) {
  x->fill = 0;
  x->want = bytes;
  x->error = 0;
}

static void report(struct manifest_scrub *x, enum damage_kind kind, uint64_t block, uint64_t blocks,
                   const char *what) {
  char text[160];
  struct damage d = {.kind = kind,
                     .error = x->error ? x->error : -EBADMSG,
                     .shard = x->m->config.shard,
                     .blocks = blocks,
                     .what = text};
  snprintf(text, sizeof text, "%s %s%s%s",
           kind == DAMAGE_DIRECTORY ? "checkpoint directory:" : "checkpoint:", what,
           x->error ? ": " : "", x->error ? strerror(-x->error) : "");
  damage_place(&d, x->m->config.region, block);
  x->damaged++;
  x->unreadable += x->error != 0;
  damage_report(&x->m->config.damage, &d);
}

/* ---- The directory ----------------------------------------------------------------------- */

static bool checkpoint_begin(struct manifest_scrub *x);

static void directory_begin(struct manifest_scrub *x) {
  const struct manifest *m = x->m;
  x->root = m->root;
  uint64_t blocks = bytes_to_blocks(x->root.dir_bytes), region = m->config.region->blocks;
  bool none = x->root.dir_block == 0 || x->root.dir_block >= region ||
              blocks > region - x->root.dir_block || blocks << BLOCK_SHIFT > SCRUB_META_BYTES;
  x->extents[0] = (struct extent){x->root.dir_block, blocks};
  x->extent_count = 1;
  x->at = 0;
  x->in = 0;
  want(x, none ? 0 : blocks << BLOCK_SHIFT);
}

static void directory_check(struct manifest_scrub *x) {
  const struct root_shard *r = &x->root;
  bool stale = x->m->root.dir_block != r->dir_block || x->m->root.dir_checksum != r->dir_checksum;
  if (x->want && !stale) {
    uint64_t blocks = bytes_to_blocks(r->dir_bytes);
    if (x->error)
      report(x, DAMAGE_DIRECTORY, r->dir_block, blocks, "cannot be read");
    else if (crc32c(0, x->buf, r->dir_bytes) != r->dir_checksum)
      report(x, DAMAGE_DIRECTORY, r->dir_block, blocks, "checksum mismatch");
    else if (!bytes_are_zero(x->buf + r->dir_bytes, x->want - r->dir_bytes))
      report(x, DAMAGE_DIRECTORY, r->dir_block, blocks, "bytes behind its end are not zero");
  }
  if (stale) { /* that of a newer root is the one that counts */
    directory_begin(x);
    return;
  }
  x->step = SCRUB_CHECKPOINTS;
  x->partition = 0;
  checkpoint_begin(x);
}

/* ---- Checkpoints ------------------------------------------------------------------------- */

static void log_begin(struct manifest_scrub *x);

static void checkpoint_want(struct manifest_scrub *x) {
  uint64_t left = round_up(x->checkpoint.bytes, BLOCK_BYTES) - x->checked_bytes;
  want(x, min_u64(left, SCRUB_META_BYTES));
}

/* The next one from partition on; false: there is none, the log follows. */
static bool checkpoint_begin(struct manifest_scrub *x) {
  const struct manifest *m = x->m;
  while (x->partition < INDEX_PARTITIONS &&
         (!checkpoint_is_first(m, x->partition) || m->of_partition[x->partition]->bytes == 0))
    x->partition++;
  if (x->partition == INDEX_PARTITIONS) {
    x->step = SCRUB_LOG;
    log_begin(x);
    return false;
  }
  x->checkpoint = *m->of_partition[x->partition];
  memcpy(x->extents, x->checkpoint.extents, sizeof x->extents);
  x->extent_count = x->checkpoint.extent_count;
  x->at = 0;
  x->in = 0;
  x->checked_bytes = 0;
  x->crc = 0;
  x->what = NULL;
  checkpoint_want(x);
  return true;
}

static bool checkpoint_in_use(const struct manifest_scrub *x) {
  const struct checkpoint *now = x->m->of_partition[x->partition];
  return now && now->sequence == x->checkpoint.sequence && now->bytes == x->checkpoint.bytes &&
         now->extents[0].block == x->checkpoint.extents[0].block;
}

static void checkpoint_check(struct manifest_scrub *x) {
  const struct checkpoint *c = &x->checkpoint;
  uint64_t data = min_u64(c->bytes - x->checked_bytes, x->want);
  if (!x->error && x->checked_bytes == 0) x->what = checkpoint_header(x->m, c, x->buf);
  if (!x->error) x->crc = crc32c(x->crc, x->buf, data);
  if (!x->what && !bytes_are_zero(x->buf + data, x->want - data))
    x->what = "bytes behind its end are not zero";
  x->checked_bytes += x->want;
  if (!x->error && x->checked_bytes < c->bytes) {
    checkpoint_want(x);
    return;
  }
  if (x->error)
    x->what = "cannot be read";
  else if (x->crc != c->checksum)
    x->what = "checksum mismatch";
  if (x->what && checkpoint_in_use(x))
    report(x, DAMAGE_CHECKPOINT, c->extents[0].block, c->extents[0].blocks, x->what);
  x->partition++;
  checkpoint_begin(x);
}

/* ---- The log ----------------------------------------------------------------------------- */

static void log_window(struct manifest_scrub *x) {
  const struct region *region = x->m->config.region;
  uint64_t place = log_place(x->position, region->log_blocks);
  uint64_t n = min_u64(max_u64(x->window_blocks, x->need_blocks), region->log_blocks - place);
  n = min_u64(n, x->end > x->position ? x->end - x->position : 0);
  x->extents[0] = (struct extent){place, n};
  x->extent_count = 1;
  x->at = 0;
  x->in = 0;
  want(x, n << BLOCK_SHIFT);
}

static void log_restart(struct manifest_scrub *x) {
  const struct manifest *m = x->m;
  x->position = m->durable_head;
  x->sequence = x->position == 0;
  x->chained = x->gap = false;
  x->incarnation = 0;
  x->need_blocks = 0;
  x->window_blocks = SCRUB_IO_BYTES >> BLOCK_SHIFT;
  log_window(x);
}

/* What is committed now: later frames are for the next pass. */
static void log_begin(struct manifest_scrub *x) {
  const struct manifest *m = x->m;
  bool root = !m->config.read_only && m->root.log_tail >= m->flushed_position;
  x->end_known = root || m->config.read_only;
  x->end = m->config.read_only ? m->position : root ? m->root.log_tail : m->flushed_position;
  x->end_sequence = root ? m->root.sequence : m->sequence;
  x->end_chain = root ? m->root.chain : m->chain;
  log_restart(x);
}

static void log_close_gap(struct manifest_scrub *x, uint64_t sequence, bool known) {
  bool counted = known && x->sequence > 0 && sequence >= x->sequence;
  x->damaged++;
  x->unreadable += x->gap_error != 0;
  recover_report_log(x->m, x->gap_from, x->position - x->gap_from,
                     counted ? sequence - x->sequence : DAMAGE_COUNT_UNKNOWN, x->gap_error,
                     x->what);
  x->gap = false;
}

static void log_bad(struct manifest_scrub *x, const char *what) {
  if (!x->gap) {
    x->gap = true;
    x->gap_from = x->position;
    x->gap_error = x->error;
    x->what = what;
  }
  x->chained = false;
  x->need_blocks = 0;
  x->position++;
}

/* Looks at the frame at x->position, of which `left` blocks are at buf. Moves on; false: more
 * blocks are needed. */
static bool log_frame(struct manifest_scrub *x, const char *buf, uint64_t left) {
  const struct manifest *m = x->m;
  uint64_t log = m->config.region->log_blocks;
  struct frame f;
  const char *what = "";
  if (frame_decode_header(&f, buf, &what)) return log_bad(x, what), true;
  if (f.store != m->store_key || f.shard != m->config.shard || f.position != x->position)
    return log_bad(x, "frame of another store, shard or place"), true;
  uint64_t blocks = frame_blocks(f.payload_bytes);
  if (blocks > log - log_place(x->position, log) || blocks > x->end - x->position)
    return log_bad(x, "frame is cut off"), true;
  if (blocks > left) {
    x->need_blocks = blocks;
    return false;
  }
  if (!frame_checksum_matches(buf, blocks)) return log_bad(x, "checksum mismatch"), true;
  if (x->chained && (f.chain != x->chain || f.sequence != x->sequence))
    return log_bad(x, "does not follow the frame before"), true;
  if (x->gap && (f.incarnation < x->incarnation || f.sequence < x->sequence))
    return log_bad(x, "a frame of an earlier open"), true;
  if (x->gap) log_close_gap(x, f.sequence, true);
  x->position = log_next(x->position, blocks, f.flags, log);
  x->sequence = f.sequence + f.entry_count;
  x->chain = f.checksum;
  x->incarnation = f.incarnation;
  x->chained = true;
  x->need_blocks = 0;
  return true;
}

static void log_end(struct manifest_scrub *x) {
  if (x->gap) {
    x->position = min_u64(x->position, x->end);
    log_close_gap(x, x->end_sequence, x->end_known && !x->m->losses);
  } else if (x->chained && x->end_known && !x->m->losses &&
             (x->chain != x->end_chain || x->sequence != x->end_sequence)) {
    x->damaged++;
    recover_report_log(x->m, x->end, 0, DAMAGE_COUNT_UNKNOWN, 0,
                       "the log's end is not the one that the root names");
  }
  x->step = SCRUB_FINISHED;
  x->finished = true;
}

static void log_check(struct manifest_scrub *x) {
  const struct manifest *m = x->m;
  uint64_t first = x->position, blocks = x->want >> BLOCK_SHIFT;
  if (x->position < m->durable_head || (x->gap && x->gap_from < m->durable_head)) {
    log_restart(x); /* a checkpoint has freed it meanwhile */
    return;
  }
  if (x->error && blocks > max_u64(x->need_blocks, 1)) {
    x->window_blocks = max_u64(blocks / 4, 1); /* what is bad may lie further on */
    log_window(x);
    return;
  }
  if (x->error) {
    log_bad(x, "cannot be read");
    blocks = 1;
  }
  while (x->position < x->end && x->position - first < blocks) {
    uint64_t in = x->position - first;
    if (!log_frame(x, x->buf + (in << BLOCK_SHIFT), blocks - in)) break;
  }
  x->window_blocks = SCRUB_IO_BYTES >> BLOCK_SHIFT;
  if (x->position >= x->end)
    log_end(x);
  else
    log_window(x);
}

/* ---- Reading ----------------------------------------------------------------------------- */

static void was_read(struct io *io) {
  struct manifest_scrub *x = container_of(io, struct manifest_scrub, io);
  x->busy = false;
  if (io->result) {
    x->error = io->result;
    x->fill = x->want;
    return;
  }
  x->fill += io->bytes;
  x->in += io->bytes >> BLOCK_SHIFT;
}

/* Extents lie in the region: recovery and the manifest have seen to that. */
static uint64_t read_more(struct manifest_scrub *x) {
  if (x->in == x->extents[x->at].blocks) {
    x->at++;
    x->in = 0;
  }
  check(x->at < x->extent_count);
  const struct extent *e = &x->extents[x->at];
  uint64_t bytes = min_u64(x->want - x->fill, SCRUB_IO_BYTES);
  uint64_t blocks = min_u64(e->blocks - x->in, bytes >> BLOCK_SHIFT);
  x->io = (struct io){.done = was_read, .buf = x->buf + x->fill, .op = IO_READ};
  blocks = region_map(x->m->config.region, e->block + x->in, blocks, &x->io);
  x->io.bytes = (uint32_t)(blocks << BLOCK_SHIFT);
  x->busy = true;
  x->read_bytes += x->io.bytes;
  uint64_t started = x->io.bytes;
  device_submit(x->m->config.device, &x->io);
  return started;
}

uint64_t manifest_scrub_next(struct manifest_scrub *x) {
  while (!x->busy && !x->finished) {
    if (x->fill < x->want) return read_more(x);
    if (x->step == SCRUB_DIRECTORY)
      directory_check(x);
    else if (x->step == SCRUB_CHECKPOINTS)
      checkpoint_check(x);
    else
      log_check(x);
  }
  return 0;
}

uint64_t manifest_scrub_bytes(const struct manifest *m) {
  uint64_t end = m->config.read_only ? m->position : max_u64(m->root.log_tail, m->flushed_position);
  uint64_t blocks = bytes_to_blocks(m->root.dir_bytes) + end - m->durable_head;
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    if (checkpoint_is_first(m, p)) blocks += bytes_to_blocks(m->of_partition[p]->bytes);
  return blocks << BLOCK_SHIFT;
}

int manifest_scrub_begin(struct manifest_scrub *x, struct manifest *m) {
  memset(x, 0, sizeof *x);
  x->m = m;
  x->buf = aligned_alloc(BLOCK_BYTES, SCRUB_META_BYTES);
  if (!x->buf) return -ENOMEM;
  directory_begin(x);
  return 0;
}

void manifest_scrub_finish(struct manifest_scrub *x) {
  check(!x->busy);
  free(x->buf);
  x->buf = NULL;
}
