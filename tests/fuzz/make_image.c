/* make_image.c - corpus of the layout and damaged targets: identities and roots of small stores,
 * and one with a shard that was worked on. */
#include <stdio.h>
#include <stdlib.h>

#include "shards/log.h"
#include "tests/fuzz/make_corpus.h"
#include "tests/fuzz/use_manifest.h"

#define BLOCKS     2048u /* of a backing: fuzz_layout.c */
#define LOG_BLOCKS 256u
#define ROOT_BLOCK 16u

static struct draft out;
static const uint8_t uuid[16] = "sixteen bytes id";
static const uint64_t key[2] = {5, 6};

enum { IDENTITY, ROOT, RAW, FRAME };
static void piece(uint8_t kind, uint8_t repair, uint8_t backing, uint64_t place, const void *bytes,
                  size_t count) {
  draft_number(&out, kind, 1);
  draft_number(&out, repair, 1);
  draft_number(&out, backing, 1);
  draft_number(&out, place, 2);
  draft_number(&out, count, 2);
  draft_bytes(&out, bytes, count);
}

/* Shards lie one after the other on the backings, in turn. */
static void add_identities(uint32_t backings, uint32_t shards, uint64_t generation) {
  struct identity *id = fuzz_alloc(sizeof *id);
  char *buf = fuzz_blocks(FORMAT_IDENTITY_BLOCKS);
  for (uint32_t b = 0; b < backings; b++) {
    memset(id, 0, sizeof *id);
    *id = (struct identity){.version = FORMAT_VERSION,
                            .generation = generation,
                            .hash_key = {key[0], key[1]},
                            .shard_count = shards,
                            .backing_index = b,
                            .backing_count = backings,
                            .backing_blocks = BLOCKS,
                            .log_blocks = LOG_BLOCKS,
                            .root_block = b ? 0 : ROOT_BLOCK,
                            .root_slot_blocks = b ? 0 : 2 * root_copy_blocks(shards)};
    memcpy(id->uuid, uuid, sizeof id->uuid);
    for (uint32_t s = b; s < shards; s += backings)
      id->segments[id->segment_count++] = (struct format_segment){
          .shard = s, .first_block = 64 + s / backings * 400, .blocks = 400};
    if (shards < 4) /* a second piece of shard 0, on the last backing */
      if (b + 1 == backings)
        id->segments[id->segment_count++] =
            (struct format_segment){.ordinal = 1, .first_block = 1700, .blocks = 200};
    identity_encode(id, buf);
    piece(IDENTITY, 1, (uint8_t)b, 2, buf, bytes_used(buf, FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT));
  }
  free(buf);
  free(id);
}

static void add_root(const struct root *root) {
  char *slot = fuzz_blocks(2 * root_copy_blocks(root->shard_count));
  root_encode(root, uuid, slot);
  uint64_t copy = root_copy_blocks(root->shard_count);
  piece(ROOT, 1, 0, ROOT_BLOCK + root_slot_of_epoch(root->epoch) * 2 * copy, slot,
        bytes_used(slot, copy << BLOCK_SHIFT));
  free(slot);
}

static struct root *new_root(uint32_t shards) {
  struct root *root = calloc(1, sizeof *root);
  check(root != NULL);
  root->epoch = root->incarnation = 1;
  root->shard_count = shards;
  for (uint32_t s = 0; s < shards; s++) root->shards[s].sequence = 1;
  return root;
}

static void add_empty(const char *name, uint8_t flags, uint32_t backings, uint32_t shards) {
  struct root *root = new_root(shards);
  out.count = 0;
  draft_number(&out, flags, 1);
  draft_number(&out, backings - 1, 1);
  add_identities(backings, shards, 1);
  add_root(root);
  corpus_add("layout", name, out.bytes, out.count);
  out.bytes[0] = (uint8_t)shards;
  corpus_add("damaged", name, out.bytes, out.count);
  free(root);
}

/* All blocks of the region that hold something, wherever they lie. */
static void add_region(const struct region *r) {
  for (uint64_t b = 0; b < r->blocks; b++) {
    struct io io = {0};
    region_map(r, b, 1, &io);
    const char *at = (const char *)r->segments[0].backing->memory + io.offset;
    size_t n = bytes_used(at, BLOCK_BYTES);
    if (n) piece(b < r->log_blocks ? FRAME : RAW, 0, 0, io.offset >> BLOCK_SHIFT, at, n);
  }
}

static void use_blobs(struct manifest *m, const struct manifest_config *c, struct root *root) {
  for (uint32_t i = 0; i < 8; i++) check(use_put(m, c, (struct blob_id){i, ~i}, i * 3000, 0) == 0);
  use_checkpoint(m, c, root);
  for (uint32_t i = 6; i < 10; i++) check(use_put(m, c, (struct blob_id){i, ~i}, 5000, 0) == 0);
  use_flush(m, c, root);
  use_delete(m, c, (struct blob_id){3, ~(uint32_t)3});
  use_commit(m, c);
}

/* Clusters, checksums and records in the checkpoint, the log, and behind its tail. */
static void use_volumes(struct manifest *m, const struct manifest_config *c, struct root *root) {
  use_clusters(m, 11, 0, 0, 5);
  use_clusters(m, 12, 3, 60, 4);
  use_sums(m, 11, 0);
  use_record(m, (struct blob_id){1, 1}, 40);
  use_record(m, (struct blob_id){1, 2}, 133);
  use_checkpoint(m, c, root);
  use_clusters(m, 13, 0, 2, 3);
  use_sums(m, 12, 3);
  use_move(m, 11, 13, 0, 3);
  use_record(m, (struct blob_id){1, 1}, 0);
  use_flush(m, c, root);
  use_move(m, 12, 14, 3, UINT64_C(3) << 61);
  use_record(m, (struct blob_id){1, 3}, 9);
  use_commit(m, c);
}

/* One shard on one backing, with a checkpoint, a log and a commit behind its tail. */
static void add_used(const char *name, const char *without_root,
                     void (*use)(struct manifest *m, const struct manifest_config *c,
                                 struct root *root)) {
  struct backing *b;
  struct manifest *m;
  struct root *root = new_root(1);
  char why[100];
  check(backing_open_memory(&b, BLOCKS << BLOCK_SHIFT) == 0);
  struct region r = {
      .segment_count = 2,
      .segments = {{.backing = b, .first_block = 64, .blocks = 400},
                   {.backing = b, .first_block = 1700, .blocks = 200, .region_block = 400}},
      .blocks = 600,
      .log_blocks = LOG_BLOCKS};
  struct manifest_config c = {.region = &r,
                              .device = use_device(&r),
                              .hash_key = {key[0], key[1]},
                              .shard_count = 1,
                              .incarnation = 1,
                              .clock = clock_monotonic,
                              .logger = fuzz_silent};
  memcpy(c.uuid, uuid, sizeof c.uuid);
  check(manifest_recover(&m, &c, root, why, sizeof why) == 0);
  use(m, &c, root);
  out.count = 0;
  draft_number(&out, 8, 1);
  draft_number(&out, 0, 1);
  add_identities(1, 1, 1);
  add_root(root);
  add_region(&r);
  corpus_add("layout", name, out.bytes, out.count);
  out.bytes[0] = 1;
  corpus_add("damaged", name, out.bytes, out.count);
  /* The same without a root: the logs are searched. */
  out.count = 2;
  add_identities(1, 1, 1);
  add_region(&r);
  corpus_add("damaged", without_root, out.bytes, out.count);
  manifest_destroy(m);
  c.device->ops->destroy(c.device);
  backing_close(b);
  free(root);
}

void corpus_image(void) {
  add_empty("one", 12, 1, 1);
  add_empty("two_shards", 1, 1, 2);
  add_empty("two_backings", 8, 2, 2);
  add_empty("three_backings", 0, 3, 5);
  add_used("used", "no_root", use_blobs);
  add_used("volumes", "volumes_no_root", use_volumes);
}
