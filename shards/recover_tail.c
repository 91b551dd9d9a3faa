/* recover_tail.c - which frames behind the root's tail count, by what can be read. Synchronous,
 * with the rest of recovery; what is on disk stays what it is.
 *
 *   tail of the root ........ proven ........ end of the chain
 *          count: a frame       count one after the other, as long as they are verifiable and the
 *          says so              data that they name match the checksums in them
 *
 * A frame says up to where everything counted when it was written. Whoever was told that something
 * is durable was told so after a flush that had covered the frames and the data, so both can be
 * read, and match. What does not match nobody was promised.
 *
 * What counts and is not proven is written once more, as it was read, before the flush of the first
 * root: it may be in the device's cache alone, and a flush that failed may have been why nobody was
 * told, after which another one says nothing of it. The same bytes at the same place: a crash in
 * between changes nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/plant.h"
#include "shards/recover.h"
#include "shards/sums.h"

int find_proven(struct log_reader *r, struct walk *w, uint64_t incarnation, uint64_t limit,
                uint64_t *proven) {
  while (w->position < limit) {
    struct frame f;
    const char *what;
    int error;
    struct walk next = *w;
    if (!next_in_chain(r, &next, &f, &what, &error)) return error == -EBADMSG ? 0 : error;
    if (f.incarnation != incarnation || next.position > limit) return 0;
    *w = next;
    *proven = max_u64(*proven, f.durable);
  }
  return 0;
}

/* ---- Verifying ---------------------------------------------------------------------------- */

#define READ_BLOCKS 256u

/* 1: the data are what the entry says, and zeros behind them. 0: they are not. -EIO: nobody knows.
 */
static int verify_blob(struct log_reader *r, const struct blob *b) {
  const struct region *region = r->m->config.region;
  struct sums sums = {.at = (uint32_t *)(uintptr_t)b->checksums, .shift = b->granule_shift};
  uint64_t left = b->bytes;
  if (b->flags & BLOB_NO_CHECKSUM || b->bytes > VERIFY_BYTES_MAX - r->verified_bytes) return 0;
  r->verified_bytes += b->bytes;
  for (uint32_t i = 0; i < b->extent_count && left > 0; i++) {
    struct extent e = b->extents[i];
    while (e.blocks > 0 && left > 0) {
      uint64_t blocks = min_u64(min_u64(e.blocks, READ_BLOCKS), bytes_to_blocks(left));
      uint64_t data = min_u64(blocks << BLOCK_SHIFT, left);
      int error = region_read(region, r->data, e.block, blocks);
      if (error) return error;
      if (!sums_check(&sums, r->data, data)) return 0;
      if (!bytes_are_zero(r->data + data, (blocks << BLOCK_SHIFT) - data)) return 0;
      left -= data;
      e.block += blocks;
      e.blocks -= blocks;
    }
  }
  return sums_check_end(&sums);
}

/* Calls fn for the blobs that a frame names, as long as it returns 1. */
static int each_blob(struct log_reader *r, const struct frame *f, const char *buf,
                     int (*fn)(struct log_reader *r, const struct blob *b)) {
  const char *payload = buf + FRAME_HEADER_BYTES, *what;
  uint64_t at = 0;
  int result = 1;
  for (uint32_t i = 0; result == 1 && i < f->entry_count; i++) {
    struct entry e;
    uint32_t n = log_entry_decode(&e, payload + at, f->payload_bytes - at,
                                  r->m->config.region->blocks, &what);
    if (!n || !entry_is_blob(e.type)) return 0;
    if (e.type != ENTRY_DELETE) result = fn(r, &e.blob);
    at += n;
  }
  return result;
}

/* 1, or an error. */
static int rewrite_blob(struct log_reader *r, const struct blob *b) {
  const struct region *region = r->m->config.region;
  uint64_t left = bytes_to_blocks(b->bytes);
  for (uint32_t i = 0; i < b->extent_count; i++) {
    struct extent e = b->extents[i];
    for (e.blocks = min_u64(e.blocks, left); e.blocks > 0;) {
      uint64_t blocks = min_u64(e.blocks, READ_BLOCKS);
      int error = region_read(region, r->data, e.block, blocks);
      if (!error) error = region_write(region, r->data, e.block, blocks);
      if (error) return error;
      e.block += blocks;
      e.blocks -= blocks;
      left -= blocks;
    }
  }
  return 1;
}

/* Data first: a frame is the proof of them. */
static int rewrite_frame(struct log_reader *r, const struct frame *f, const char *buf) {
  const struct region *region = r->m->config.region;
  uint64_t place = log_place(f->position, region->log_blocks);
  int result = f->flags & FRAME_VERIFIABLE ? each_blob(r, f, buf, rewrite_blob) : 1;
  if (result < 0) return result;
  return region_write(region, buf, place, frame_blocks(f->payload_bytes));
}

int counts_by_itself(struct log_reader *r, const struct walk *w, uint64_t incarnation,
                     uint64_t limit) {
  struct walk next = *w;
  struct frame f;
  const char *what;
  int error;
  const char *buf = w->position < limit ? next_in_chain(r, &next, &f, &what, &error) : NULL;
  r->mismatch = false;
  if (!buf || f.incarnation != incarnation || next.position > limit) return 0;
  int counts = 1;
  if (!r->data) r->data = aligned_alloc(BLOCK_BYTES, READ_BLOCKS << BLOCK_SHIFT);
  if (!r->data) return -ENOMEM;
  bool empty = f.flags & (FRAME_COMMIT | FRAME_SKIP); /* nothing could be missing */
  if (!empty && !(f.flags & FRAME_VERIFIABLE) && !PLANTED(replay_past_the_tail)) return 0;
  if (f.flags & FRAME_VERIFIABLE && !PLANTED(skip_verification))
    counts = each_blob(r, &f, buf, verify_blob);
  r->mismatch = counts == 0;
  if (counts == 1 && r->rewrites && (error = rewrite_frame(r, &f, buf))) return error;
  return counts;
}

/* ---- Damage ------------------------------------------------------------------------------- */

/* Behind its header a commit frame is all the same: that tells most blocks apart from one at once.
 */
static bool may_be_commit(const char *block) {
  uint32_t others = 0;
  for (uint32_t i = FRAME_HEADER_BYTES; i < BLOCK_BYTES && others < 2; i++)
    others += (uint8_t)block[i] != COMMIT_FILL;
  return others < 2;
}

bool is_damaged_commit(struct log_reader *r, const struct walk *w, uint64_t incarnation) {
  int error = 0;
  struct frame f;
  const char *what, *buf = reader_get(r, w->position, 1, &error);
  char *copy = buf && may_be_commit(buf) ? aligned_alloc(BLOCK_BYTES, BLOCK_BYTES) : NULL;
  if (!copy) return false;
  memcpy(copy, buf, BLOCK_BYTES);
  bool is = frame_correct_bit(copy) && !frame_decode_header(&f, copy, &what) &&
            f.flags & FRAME_COMMIT && f.store == r->m->store_key && f.shard == r->m->config.shard &&
            f.position == w->position && f.incarnation == incarnation && f.chain == w->chain &&
            f.sequence == w->sequence;
  free(copy);
  return is;
}
