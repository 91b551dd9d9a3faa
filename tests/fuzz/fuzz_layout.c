/* fuzz_layout.c - a whole store: layout_open_backings() over backings in memory, then recovery of
 * its shards. What opens is in range, no block belongs to two, no segment is left out, and a shard
 * that recovers works on.
 *
 * Input: flags (1 byte; 1: read-only; 4 and 8: how far shard 0 is used), the number of backings
 * (1), then pieces: kind (1), what to repair (1), backing (1), place (2), length (2), so many
 * bytes. */
#include <errno.h>
#include <stdlib.h>

#include "runtime/layout_internal.h"
#include "tests/fuzz/use_manifest.h"

#define BACKINGS_MAX   3u
#define BACKING_BLOCKS 2048u
#define SHARDS_TRIED   4u
#define ROOM           (UINT64_C(1) << 59)

enum image_piece { IMAGE_IDENTITY, IMAGE_ROOT, IMAGE_RAW, IMAGE_FRAME, IMAGE_KINDS };

struct image {
  struct backing *backings[BACKINGS_MAX];
  uint32_t count;
};

static char *at(struct image *m, uint32_t backing, uint64_t block) {
  return (char *)m->backings[backing]->memory + ((block % BACKING_BLOCKS) << BLOCK_SHIFT);
}

/* What there is room for behind a block. */
static size_t fit(uint64_t block, size_t bytes) {
  return min_u64(bytes, (BACKING_BLOCKS - block % BACKING_BLOCKS) << BLOCK_SHIFT);
}

/* place: 0: the first copy, 1: the last, 2: both. */
static void take_identity(struct image *m, struct feed *own, uint8_t repair, uint32_t backing,
                          uint16_t place) {
  char *buf = fuzz_blocks(FORMAT_IDENTITY_BLOCKS);
  size_t bytes = FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT;
  feed_bytes(own, buf, bytes);
  if (repair & 1) repair_identity(buf);
  if (place % 3 != 1) memcpy(at(m, backing, 0), buf, bytes);
  if (place % 3 != 0) memcpy(at(m, backing, BACKING_BLOCKS - FORMAT_IDENTITY_BLOCKS), buf, bytes);
  free(buf);
}

/* A copy of one block, as any store of up to 63 shards has it. */
static void take_root(struct image *m, struct feed *own, uint8_t repair, uint32_t backing,
                      uint16_t place) {
  char *to = at(m, backing, place);
  feed_bytes(own, to, BLOCK_BYTES);
  if (repair & 1) repair_root(to, BLOCK_BYTES);
}

static void take_raw(struct image *m, struct feed *own, uint8_t repair, uint32_t backing,
                     uint16_t place, bool frame) {
  char *buf = fuzz_blocks(16); /* as large as a length may be */
  size_t length = own->left;
  feed_bytes(own, buf, length);
  if (frame && repair & 1 && frame_bytes_of(buf) <= 16 << BLOCK_SHIFT) repair_frame(buf);
  if (frame) length = round_up(length, BLOCK_BYTES);
  memcpy(at(m, backing, place), buf, fit(place, length));
  free(buf);
}

static void take_piece(struct image *m, struct feed *f) {
  uint8_t kind = feed_u8(f) % IMAGE_KINDS, repair = feed_u8(f);
  uint32_t backing = feed_u8(f) % m->count;
  uint16_t place = feed_u16(f);
  uint64_t length = feed_u16(f); /* taken before `left` is looked at */
  length = min_u64(length, f->left);
  struct feed own = {f->at, length};
  f->at += length;
  f->left -= length;
  if (kind == IMAGE_IDENTITY)
    take_identity(m, &own, repair, backing, place);
  else if (kind == IMAGE_ROOT)
    take_root(m, &own, repair, backing, place);
  else
    take_raw(m, &own, repair, backing, place, kind == IMAGE_FRAME);
}

/* ---- What must hold ------------------------------------------------------------------------ */

static void take_blocks(uint8_t *owned, uint64_t first, uint64_t blocks) {
  check(first <= BACKING_BLOCKS && blocks <= BACKING_BLOCKS - first);
  for (uint64_t b = first; b < first + blocks; b++) {
    check(!owned[b]);
    owned[b] = 1;
  }
}

/* segments: of all identities. */
static void check_layout(const struct layout *l, uint32_t segments) {
  uint8_t *owned = calloc(BACKINGS_MAX, BACKING_BLOCKS);
  check(owned != NULL);
  check(l->shard_count >= 1 && l->shard_count <= FORMAT_SHARDS_MAX);
  check(l->root->shard_count == l->shard_count);
  check(l->root_slot_blocks == 2 * root_copy_blocks(l->shard_count));
  for (uint32_t b = 0; b < l->backing_count; b++) {
    check(l->backings[b] != NULL);
    take_blocks(owned + b * BACKING_BLOCKS, 0, FORMAT_IDENTITY_BLOCKS);
  }
  take_blocks(owned, l->root_block, FORMAT_ROOT_SLOTS * l->root_slot_blocks);
  for (uint32_t s = 0; s < l->shard_count; s++) {
    const struct region *r = &l->regions[s];
    uint64_t blocks = 0;
    check(r->segment_count >= 1 && r->segment_count <= REGION_SEGMENTS_MAX);
    check(r->segments[0].blocks > r->log_blocks);
    for (uint32_t i = 0; i < r->segment_count; i++) {
      const struct segment *g = &r->segments[i];
      check(g->backing == l->backings[g->file]);
      check(g->region_block == blocks);
      take_blocks(owned + g->file * BACKING_BLOCKS, g->first_block, g->blocks);
      blocks += g->blocks;
    }
    check(blocks == r->blocks);
    check(segments >= r->segment_count);
    segments -= r->segment_count;
  }
  check(segments == 0); /* none is left out */
  free(owned);
}

static void try_shard(struct layout *l, uint32_t s, bool read_only, uint32_t steps) {
  struct manifest_config c = {.region = &l->regions[s],
                              .hash_key = {l->hash_key[0], l->hash_key[1]},
                              .shard = s,
                              .shard_count = l->shard_count,
                              .incarnation = l->root->incarnation + 1,
                              .clock = clock_monotonic,
                              .logger = fuzz_silent,
                              .read_only = read_only};
  struct manifest *m = NULL;
  struct root *root = fuzz_alloc(sizeof *root);
  char why[200] = "";
  memcpy(c.uuid, l->uuid, sizeof c.uuid);
  memcpy(root, l->root, sizeof *root);
  c.device = use_device(c.region);
  int r = manifest_recover(&m, &c, root, why, sizeof why);
  log_line(&fuzz_silent, 2, "shard %u: %d %s", s, r, why);
  check(r == 0 || r == -EBADMSG || (r == -EINVAL && l->log_blocks < 256));
  check(r == 0 || why[0]);
  if (r == 0) {
    const struct root_shard *w = &root->shards[s];
    manifest_verify(m);
    if (!read_only && w->log_tail < ROOM && w->sequence < ROOM && root->epoch < ROOM &&
        root->incarnation < ROOM)
      manifest_use(m, &c, root, steps);
  }
  manifest_destroy(m);
  c.device->ops->destroy(c.device);
  free(root);
}

/* Of all that the backings claim to have. */
static uint32_t count_segments(struct image *m) {
  struct identity *id = fuzz_alloc(sizeof *id);
  uint32_t n = 0;
  for (uint32_t i = 0; i < m->count; i++) {
    int r = layout_read_identity(m->backings[i], id, &fuzz_silent);
    if (r == 0 || r == -EROFS) n += id->segment_count;
  }
  free(id);
  return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint8_t flags = feed_u8(&f);
  struct image m = {.count = 1 + feed_u8(&f) % BACKINGS_MAX};
  struct layout *l = NULL;
  for (uint32_t i = 0; i < m.count; i++)
    check(backing_open_memory(&m.backings[i], BACKING_BLOCKS << BLOCK_SHIFT) == 0);
  while (f.left > 0) take_piece(&m, &f);
  uint32_t segments = count_segments(&m);
  int r = layout_open_backings(&l, m.backings, m.count, flags & 1, &fuzz_silent);
  check(r == 0 || r == -EBADMSG || r == -EMEDIUMTYPE || r == -ENOTSUP || r == -EROFS);
  if (r == 0) {
    check_layout(l, segments);
    for (uint32_t s = 0; s < l->shard_count && s < SHARDS_TRIED; s++)
      try_shard(l, s, flags & 1, s ? 0 : flags >> 2 & 3);
    layout_close(l);
  }
  return 0;
}
