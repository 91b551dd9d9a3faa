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
#include "tests/fuzz/image_pieces.h"
#include "tests/fuzz/use_manifest.h"

#define SHARDS_TRIED 4u
#define ROOM         (UINT64_C(1) << 59)

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
  struct image m;
  struct layout *l = NULL;
  image_open(&m, 1 + feed_u8(&f) % BACKINGS_MAX);
  image_take(&m, &f);
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
