/* make_log.c - corpus of the entry and frame targets. */
#include <stdio.h>
#include <stdlib.h>

#include "shards/log.h"
#include "tests/fuzz/make_corpus.h"

#define REGION 100000u

static struct blob make_blob(uint64_t bytes, uint32_t extents, uint8_t flags) {
  static struct extent places[64];
  static uint32_t sums[4096];
  uint64_t blocks = bytes_to_blocks(bytes), at = 1000;
  struct blob b = {.id = {0xfeed, bytes},
                   .bytes = bytes,
                   .granule_shift = blob_granule_shift(bytes),
                   .flags = flags,
                   .extent_count = extents,
                   .extents = places,
                   .checksums = sums};
  if (bytes && !(flags & BLOB_NO_CHECKSUM))
    b.granule_count = blob_granule_count(bytes, b.granule_shift);
  for (uint32_t i = 0; i < extents; i++) {
    places[i] = (struct extent){at, i + 1 < extents ? 1 : blocks - (extents - 1)};
    at += places[i].blocks + 3;
  }
  for (uint32_t i = 0; i < b.granule_count; i++) sums[i] = 0xc0ffee00 + i;
  return b;
}

static const struct {
  const char *name;
  uint64_t bytes;
  uint32_t extents;
  uint8_t flags;
} blobs[] = {
    {"small", 100, 1, 0},
    {"small_without_sum", 4096, 1, BLOB_NO_CHECKSUM},
    {"empty", 0, 0, 0},
    {"one_extent", 10000, 1, 0},
    {"extents", 70000, 9, 0},
    {"without_sums", 70000, 3, BLOB_NO_CHECKSUM},
    {"large_granules", 5 << 20, 2, 0},
};

static size_t all_entries(char *at) {
  char *from = at;
  for (size_t i = 0; i < array_size(blobs); i++) {
    struct blob b = make_blob(blobs[i].bytes, blobs[i].extents, blobs[i].flags);
    at += log_entry_put(at, &b);
  }
  at += log_entry_delete(at, (struct blob_id){0xfeed, 100});
  return (size_t)(at - from);
}

static void add_entries(void) {
  static struct draft d;
  char *buf = fuzz_blocks(4);
  for (size_t i = 0; i < array_size(blobs); i++) {
    struct blob b = make_blob(blobs[i].bytes, blobs[i].extents, blobs[i].flags);
    d.count = 0;
    draft_number(&d, REGION, 8);
    draft_bytes(&d, buf, log_entry_put(buf, &b));
    corpus_add("entry", blobs[i].name, d.bytes, d.count);
  }
  d.count = 0;
  draft_number(&d, REGION, 8);
  draft_bytes(&d, buf, log_entry_delete(buf, (struct blob_id){1, 2}));
  corpus_add("entry", "delete", d.bytes, d.count);
  d.count = 8;
  draft_bytes(&d, buf, all_entries(buf));
  corpus_add("entry", "all", d.bytes, d.count);
  free(buf);
}

static void add_entry(struct draft *d, const char *name, const char *buf, uint32_t bytes) {
  d->count = 0;
  draft_number(d, REGION, 8);
  draft_bytes(d, buf, bytes);
  corpus_add("entry", name, d->bytes, d->count);
}

static void add_volume_entries(void) {
  static struct draft d;
  struct cluster c[LEAF_CLUSTERS];
  char *buf = fuzz_blocks(1);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    c[i] = i % 7 == 3 ? (struct cluster){.zero = (uint16_t)i}
                      : (struct cluster){2000 + i * CLUSTER_BLOCKS, (uint16_t)(i + 1), 0x8000};
  add_entry(&d, "map", buf, log_entry_map(buf, 7, 12, false, 0x100c, c));
  add_entry(&d, "map_whole", buf, log_entry_map(buf, 7, MAP_LEAVES_MAX - 1, true, UINT64_MAX, c));
  add_entry(&d, "map_emptied", buf, log_entry_map(buf, 7, 12, true, 0, c));
  add_entry(&d, "move", buf, log_entry_move(buf, 7, 0xff, 8, 0x1f, 12, c));
  add_entry(&d, "move_nothing", buf, log_entry_move(buf, 7, 0xff, 8, 0, 12, c));
  add_entry(&d, "record", buf, log_entry_record(buf, (struct blob_id){1, 2}, "a record", 7));
  static struct leaf_sums sums;
  for (uint32_t i = 0; i < SUMS_BLOCKS; i += 1 + i % 40) leaf_sums_set(&sums, i, 0x1234567 * i);
  add_entry(&d, "sums", buf, log_entry_sums(buf, 7, 12, &sums));
  add_entry(&d, "record_removed", buf, log_entry_record(buf, (struct blob_id){1, 2}, NULL, 0));
  uint32_t n = log_entry_map(buf, 7, 12, false, 0x100c, c);
  n += log_entry_record(buf + n, (struct blob_id){1, 2}, "a record", 8);
  n += log_entry_move(buf + n, 7, 0x100c, 8, 0x1008, 12, c);
  add_entry(&d, "volumes", buf, n + log_entry_delete(buf + n, (struct blob_id){1, 2}));
  free(buf);
}

/* Sums of clusters that are there, of some that are not, and the clusters change below them. */
static void add_sums(void) {
  static struct draft d;
  static struct leaf_sums sums;
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  char *buf = fuzz_blocks(4);
  for (uint32_t i = 0; i < 3; i++)
    c[i] = (struct cluster){2000 + i * CLUSTER_BLOCKS, (uint16_t)(0x0f << i), 0x8000};
  for (uint32_t i = 0; i < 60; i += 1 + i % 3) leaf_sums_set(&sums, i, 0xabcd0000 + i);
  uint32_t n = log_entry_map(buf, 7, 12, false, 7, c);
  n += log_entry_sums(buf + n, 7, 12, &sums);
  c[1].place += 16 * CLUSTER_BLOCKS;
  n += log_entry_map(buf + n, 7, 12, false, 2, c);
  add_entry(&d, "sums_and_map", buf, n + log_entry_sums(buf + n, 7, 12, &sums));
  free(buf);
}

static void add_frame(const char *name, uint16_t flags, bool payload) {
  static struct draft d;
  char *buf = fuzz_blocks(FRAME_BLOCKS_MAX);
  struct frame f = {.store = 0x1234,
                    .shard = 2,
                    .incarnation = 3,
                    .epoch = 4,
                    .position = 77,
                    .sequence = 1000,
                    .chain = 0xabcdef,
                    .durable = flags & FRAME_COMMIT ? 77 : 70,
                    .flags = flags};
  if (payload) {
    f.payload_bytes = (uint32_t)all_entries(buf + FRAME_HEADER_BYTES);
    f.entry_count = (uint32_t)array_size(blobs) + 1;
  }
  frame_encode(&f, buf);
  d.count = 0;
  draft_number(&d, 1, 1);
  draft_bytes(&d, buf, bytes_used(buf, FRAME_BYTES_MAX));
  corpus_add("frame", name, d.bytes, d.count);
  free(buf);
}

void corpus_log(void) {
  add_entries();
  add_volume_entries();
  add_sums();
  add_frame("entries", 0, true);
  add_frame("verifiable", FRAME_VERIFIABLE, true);
  add_frame("empty", 0, false);
  add_frame("commit", FRAME_COMMIT, false);
  add_frame("skip", FRAME_SKIP, false);
}
