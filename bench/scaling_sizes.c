/* scaling_sizes.c - what bench/scaling cannot measure from outside: sizes of what grows with cores
 * and shards, and of the index, as JSON. The index is filled as a shard fills it, and asked. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/shardring.h"
#include "runtime/core.h"
#include "runtime/port.h"
#include "shards/format.h"
#include "shards/index.h"

#define BLOBS 400000u

/* Of the heap, by one ring of an inbox such as a core has. */
static size_t ring_bytes(uint32_t slots) {
  static struct inbox inbox;
  if (inbox_init(&inbox, PEERS_MAX)) exit(1);
  size_t before = mallinfo2().uordblks;
  for (uint32_t peer = 0; peer < 64; peer++)
    if (inbox_add_peer(&inbox, peer, slots)) exit(1);
  size_t bytes = (mallinfo2().uordblks - before) / 64;
  inbox_finish(&inbox);
  return bytes;
}

/* For a blob of one extent with so many checksums. */
static double index_bytes(uint64_t blob_bytes) {
  const uint64_t key[2] = {1, 2};
  static uint32_t sums[BLOB_GRANULES_MAX];
  struct index *x;
  if (index_create(&x, key)) exit(1);
  uint32_t blobs = blob_bytes > 65536 ? BLOBS / 20 : BLOBS;
  for (uint32_t i = 0; i < blobs; i++) {
    struct blob b = {.id = {1, i}, .bytes = blob_bytes, .extent_count = 1, .checksums = sums};
    b.granule_shift = blob_granule_shift(blob_bytes);
    b.granule_count = blob_granule_count(blob_bytes, b.granule_shift);
    uint64_t blocks = (blob_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
    b.inline_extent = (struct extent){.block = i * blocks, .blocks = blocks};
    b.extents = &b.inline_extent;
    uint64_t hash = hash_id(b.id, key);
    if (index_reserve(x, hash, 1, b.granule_count) || index_put(x, hash, &b)) exit(1);
  }
  double each = (double)index_ram_bytes(x) / blobs;
  index_destroy(x);
  return each;
}

int main(void) {
  static const uint32_t shards[] = {1, 2, 8, 32, 64, 256, 1024};
  printf(
      "{\"core\": %zu, \"inbox\": %zu, \"request\": %zu, \"mailbox_slots\": %u, \"ring\": %zu,\n",
      sizeof(struct core), sizeof(struct inbox), sizeof(struct sr_request), CORE_SLOTS,
      ring_bytes(CORE_SLOTS));
  printf(" \"ports_max\": %u, \"cores_max\": %u, \"shards_max\": %u, \"root_slots\": %u,\n",
         PORTS_MAX, CORES_MAX, SR_SHARDS_MAX, FORMAT_ROOT_SLOTS);
  printf(" \"root_bytes\": {");
  for (size_t i = 0; i < array_size(shards); i++)
    printf("%s\"%u\": %llu", i ? ", " : "", shards[i],
           (unsigned long long)(2 * root_copy_blocks(shards[i]) << BLOCK_SHIFT));
  printf("},\n \"index_bytes\": {");
  for (int i = 0; i < 4; i++)
    printf("%s\"%u\": %.2f", i ? ", " : "", 4096u << 4 * i, index_bytes(UINT64_C(4096) << 4 * i));
  printf("}}\n");
  return 0;
}
