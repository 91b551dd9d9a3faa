/* fuzz_root.c - root_decode(): what it accepts is in range and encodes to the same bytes.
 *
 * Input: one byte of flags (1: repair magic and checksum; 2: the root's own UUID and number of
 * shards are the store's), the number of shards (2 bytes), the store's UUID, then the copy's bytes.
 */
#include <errno.h>
#include <stdlib.h>

#include "shards/format.h"
#include "tests/fuzz/fuzz.h"

static void check_fields(const struct root *root, uint32_t shards) {
  check(root->shard_count == shards);
  for (uint32_t s = 0; s < shards; s++) {
    const struct root_shard *r = &root->shards[s];
    check(r->log_head <= r->log_tail);
    check(r->log_tail <= UINT64_C(1) << 60);
    check(r->sequence <= UINT64_C(1) << 60);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint8_t flags = feed_u8(&f), uuid[16];
  uint32_t shards = 1 + feed_u16(&f) % FORMAT_SHARDS_MAX;
  feed_bytes(&f, uuid, sizeof uuid);
  uint64_t blocks = root_copy_blocks(shards), bytes = blocks << BLOCK_SHIFT;
  char *buf = fuzz_blocks(blocks), *slot = fuzz_blocks(2 * blocks);
  struct root *root = fuzz_alloc(sizeof *root);
  char why[64] = "";
  feed_bytes(&f, buf, bytes);
  if (flags & 2) {
    memcpy(buf + 12, &shards, 4);
    memcpy(buf + 16, uuid, 16);
  }
  if (flags & 1) repair_root(buf, bytes);
  int r = root_decode(root, uuid, shards, buf, why, 1 + (flags >> 2));
  check(r == 0 || r == -EBADMSG || r == -ENODATA);
  check(strlen(why) <= flags >> 2);
  check(r == 0 || flags >> 2 == 0 || why[0]);
  if (r == 0) {
    check_fields(root, shards);
    root_encode(root, uuid, slot);
    check(memcmp(slot, buf, bytes) == 0);
    check(memcmp(slot + bytes, buf, bytes) == 0);
  }
  free(root);
  free(slot);
  free(buf);
  return 0;
}
