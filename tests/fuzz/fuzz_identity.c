/* fuzz_identity.c - identity_decode(): what it accepts is in range and encodes to the same bytes.
 *
 * Input: one byte of flags (1: repair magic, version and checksum), then the identity's bytes;
 * zeros behind them. */
#include <errno.h>
#include <stdlib.h>

#include "shards/format.h"
#include "tests/fuzz/fuzz.h"

#define BYTES (FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT)

static int by_place(const void *a, const void *b) {
  const struct format_segment *x = a, *y = b;
  return (x->first_block > y->first_block) - (x->first_block < y->first_block);
}

/* All that is on this backing, in order: it neither overlaps nor leaves it. */
static void check_places(const struct identity *id) {
  size_t count = id->segment_count;
  struct format_segment *all = fuzz_alloc((count + 1) * sizeof *all);
  memcpy(all, id->segments, count * sizeof *all);
  if (id->backing_index == 0)
    all[count++] = (struct format_segment){.first_block = id->root_block,
                                           .blocks = FORMAT_ROOT_SLOTS * id->root_slot_blocks};
  qsort(all, count, sizeof *all, by_place);
  uint64_t free_from = FORMAT_IDENTITY_BLOCKS;
  for (size_t i = 0; i < count; i++) {
    check(all[i].blocks > 0);
    check(all[i].first_block >= free_from);
    check(all[i].blocks <= id->backing_blocks - all[i].first_block);
    free_from = all[i].first_block + all[i].blocks;
  }
  check(free_from <= id->backing_blocks - FORMAT_IDENTITY_BLOCKS);
  free(all);
}

static void check_fields(const struct identity *id) {
  check(id->version == FORMAT_VERSION);
  check(id->incompatible == 0);
  check(id->shard_count >= 1 && id->shard_count <= FORMAT_SHARDS_MAX);
  check(id->backing_index < id->backing_count);
  check(id->backing_blocks >= 2 * FORMAT_IDENTITY_BLOCKS);
  check(id->log_blocks > 0 && id->log_blocks <= UINT64_C(1) << 32);
  check(id->segment_count <= FORMAT_SEGMENTS_MAX);
  for (uint32_t i = 0; i < id->segment_count; i++) check(id->segments[i].shard < id->shard_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint8_t flags = feed_u8(&f);
  char *buf = fuzz_blocks(FORMAT_IDENTITY_BLOCKS), *again = fuzz_blocks(FORMAT_IDENTITY_BLOCKS);
  struct identity *id = fuzz_alloc(sizeof *id);
  size_t why_bytes = 1 + flags / 2u;
  char *why = fuzz_alloc(why_bytes);
  why[0] = 0;
  feed_bytes(&f, buf, BYTES);
  if (flags & 1) repair_identity(buf);
  int r = identity_decode(id, buf, why, why_bytes);
  check(memchr(why, 0, why_bytes) != NULL);
  check(r == 0 || why_bytes == 1 || why[0]);
  check(r == 0 || r == -EROFS || r == -EBADMSG || r == -ENOTSUP || r == -EMEDIUMTYPE);
  if (flags & 1) check(r != -EMEDIUMTYPE);
  if (r == 0 || r == -EROFS) {
    check((r == -EROFS) == (id->read_only_compatible != 0));
    check_fields(id);
    check_places(id);
    identity_encode(id, again);
    check(memcmp(buf, again, BYTES) == 0);
  }
  free(why);
  free(id);
  free(again);
  free(buf);
  return 0;
}
