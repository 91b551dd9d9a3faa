/* make_format.c - corpus of the identity and root targets. */
#include <stdio.h>
#include <stdlib.h>

#include "shards/format.h"
#include "tests/fuzz/make_corpus.h"

static void add_identity(const char *name, const struct identity *id) {
  static struct draft d;
  char *buf = fuzz_blocks(FORMAT_IDENTITY_BLOCKS);
  d.count = 0;
  identity_encode(id, buf);
  draft_number(&d, 0xff, 1);
  draft_bytes(&d, buf, bytes_used(buf, FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT));
  corpus_add("identity", name, d.bytes, d.count);
  d.bytes[0] = 0xfe;
  d.bytes[1 + 72] ^= 1; /* and one with a wrong checksum */
  if (id->segment_count == 1) corpus_add("identity", "damaged", d.bytes, d.count);
  free(buf);
}

static struct identity *make_identity(uint32_t index, uint32_t segments) {
  struct identity *id = calloc(1, sizeof *id);
  check(id != NULL);
  *id = (struct identity){.uuid = "sixteen bytes id",
                          .version = FORMAT_VERSION,
                          .generation = 1,
                          .hash_key = {0x1122334455667788, 0x99aabbccddeeff00},
                          .shard_count = 4,
                          .backing_index = index,
                          .backing_count = 3,
                          .backing_blocks = 1 << 20,
                          .log_blocks = 256,
                          .root_block = index ? 0 : FORMAT_IDENTITY_BLOCKS,
                          .root_slot_blocks = index ? 0 : 2 * root_copy_blocks(4),
                          .segment_count = segments};
  for (uint32_t i = 0; i < segments; i++)
    id->segments[i] = (struct format_segment){
        .shard = i % 4, .ordinal = i / 4, .first_block = 64 + i * 2000, .blocks = 2000};
  return id;
}

static void add_identities(void) {
  static const uint32_t counts[] = {0, 1, 4, 40};
  for (uint32_t i = 0; i < array_size(counts); i++) {
    char name[32];
    struct identity *id = make_identity(i % 2, counts[i]);
    snprintf(name, sizeof name, "segments_%u", counts[i]);
    add_identity(name, id);
    free(id);
  }
  struct identity *id = make_identity(0, 2);
  id->read_only_compatible = 4;
  add_identity("read_only", id);
  id->incompatible = 1;
  add_identity("newer", id);
  free(id);
}

static void add_root(const char *name, uint32_t shards) {
  static const uint8_t uuid[16] = "sixteen bytes id";
  static struct draft d;
  struct root *root = calloc(1, sizeof *root);
  char *slot = fuzz_blocks(2 * root_copy_blocks(shards));
  check(root != NULL);
  *root = (struct root){.epoch = 5, .incarnation = 3, .shard_count = shards};
  for (uint32_t s = 0; s < shards; s++)
    root->shards[s] = (struct root_shard){.log_head = s * 10,
                                          .log_tail = s * 10 + 7,
                                          .sequence = 100 + s,
                                          .chain = 0xabcd,
                                          .dir_checksum = 0x1234,
                                          .dir_block = 300,
                                          .dir_bytes = 64,
                                          .zeroed_blocks = 1000,
                                          .blobs = 50};
  root_encode(root, uuid, slot);
  d.count = 0;
  draft_number(&d, 0xff, 1);
  draft_number(&d, shards - 1, 2);
  draft_bytes(&d, uuid, sizeof uuid);
  draft_bytes(&d, slot, bytes_used(slot, root_copy_blocks(shards) << BLOCK_SHIFT));
  corpus_add("root", name, d.bytes, d.count);
  free(slot);
  free(root);
}

void corpus_format(void) {
  add_identities();
  add_root("one", 1);
  add_root("three", 3);
  add_root("second_block", 70);
}
