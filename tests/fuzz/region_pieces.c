/* region_pieces.c - see region_pieces.h. */
#include "tests/fuzz/region_pieces.h"

#include <stdlib.h>

#include "shards/base/crc32c.h"
#include "shards/log.h"

const uint8_t pieces_uuid[16] = "fuzzed store id";
const uint64_t pieces_hash_key[2] = {0x0123456789abcdef, 0xfedcba9876543210};

void pieces_open(struct pieces *p) {
  const uint64_t cut = PIECES_LOG_BLOCKS + PIECES_DATA_BLOCKS / 2;
  memset(p, 0, sizeof *p);
  p->sequence = p->root.sequence = 1;
  check(backing_open_memory(&p->backing, (PIECES_BLOCKS + 8) << BLOCK_SHIFT) == 0);
  p->region =
      (struct region){.segment_count = 2, .blocks = PIECES_BLOCKS, .log_blocks = PIECES_LOG_BLOCKS};
  p->region.segments[0] = (struct segment){.backing = p->backing, .first_block = 3, .blocks = cut};
  p->region.segments[1] = (struct segment){.backing = p->backing,
                                           .first_block = 5 + cut,
                                           .blocks = PIECES_BLOCKS - cut,
                                           .region_block = cut};
}

void pieces_close(struct pieces *p) { backing_close(p->backing); }

char *pieces_block(const struct pieces *p, uint64_t block) {
  struct io io = {0};
  region_map(&p->region, block, 1, &io);
  return (char *)p->backing->memory + io.offset;
}

/* As much as there is room for in the region. */
static void write_at(struct pieces *p, uint64_t block, const void *bytes, uint64_t count) {
  const char *from = bytes;
  for (; count > 0 && block < p->region.blocks; block++) {
    uint64_t n = min_u64(count, BLOCK_BYTES);
    memcpy(pieces_block(p, block), from, n);
    from += n;
    count -= n;
  }
}

static void put(char *buf, size_t at, uint64_t value, size_t bytes) {
  memcpy(buf + at, &value, bytes);
}
static uint64_t get(const char *buf, size_t at, size_t bytes) {
  uint64_t v = 0;
  memcpy(&v, buf + at, bytes);
  return v;
}

/* ---- Frames ------------------------------------------------------------------------------ */

static void repair_header(const struct pieces *p, char *buf, uint8_t repair, uint64_t position,
                          size_t length) {
  if (repair & REPAIR_OWNER) {
    put(buf, 8, log_store_key(pieces_uuid), 8);
    put(buf, 68, 0, 2);
  }
  if (repair & REPAIR_POSITION) put(buf, 16, position, 8);
  if (repair & REPAIR_CHAIN) {
    put(buf, 24, p->sequence, 8);
    put(buf, 56, p->chain, 4);
  }
  if (repair & REPAIR_INCARNATION) put(buf, 40, PIECES_INCARNATION, 8);
  if (repair & REPAIR_LENGTH && length > FRAME_HEADER_BYTES)
    put(buf, 60, (length - FRAME_HEADER_BYTES) & ~UINT64_C(7), 4);
  if (repair & REPAIR_CHECKSUM) repair_frame(buf);
}

static void take_frame(struct pieces *p, uint8_t repair, uint16_t place, const uint8_t *bytes,
                       size_t length) {
  char *buf = fuzz_blocks(FRAME_BLOCKS_MAX);
  uint64_t position = p->position;
  if (repair & PIECE_AT_PLACE) position += place;
  if (length) memcpy(buf, bytes, length);
  repair_header(p, buf, repair, position, length);
  uint64_t block = log_place(position, PIECES_LOG_BLOCKS);
  uint64_t blocks = max_u64(frame_bytes_of(buf) >> BLOCK_SHIFT, 1);
  write_at(p, block, buf, min_u64(blocks, PIECES_LOG_BLOCKS - block) << BLOCK_SHIFT);
  if (!(repair & PIECE_NO_STEP)) {
    p->position = log_next(position, blocks, (uint16_t)get(buf, 70, 2), PIECES_LOG_BLOCKS);
    p->sequence = get(buf, 24, 8) + get(buf, 64, 4);
    p->chain = (uint32_t)get(buf, 4, 4);
  }
  free(buf);
}

/* ---- Checkpoints and their directory ----------------------------------------------------- */

/* The checksum over a checkpoint's extents as they are now; false: they are out of range. */
static bool sum_extents(const struct pieces *p, const char *extents, uint32_t count, uint64_t bytes,
                        uint32_t *sum) {
  *sum = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t block = get(extents, i * 16u, 8), blocks = get(extents, i * 16u + 8, 8);
    for (; blocks > 0 && bytes > 0; blocks--, block++) {
      uint64_t n = min_u64(bytes, BLOCK_BYTES);
      if (block >= p->region.blocks) return false;
      *sum = crc32c(*sum, pieces_block(p, block), n);
      bytes -= n;
    }
  }
  return bytes == 0;
}

static void repair_directory(const struct pieces *p, char *buf, size_t length) {
  uint64_t left = get(buf, 16, 4);
  for (size_t at = 24; left > 0 && at + 40 <= length; left--) {
    uint64_t bytes = get(buf, at + 24, 8), count = get(buf, at + 36, 4);
    uint32_t sum;
    if (count > (length - at - 40) / 16) return;
    if (bytes && sum_extents(p, buf + at + 40, (uint32_t)count, bytes, &sum))
      put(buf, at + 32, sum, 4);
    at += 40 + count * 16;
  }
}

static void take_file(struct pieces *p, uint8_t repair, uint16_t place, const uint8_t *bytes,
                      size_t length, bool directory) {
  char *buf = fuzz_alloc(length + 32);
  uint64_t block = place % PIECES_BLOCKS;
  memset(buf + length, 0, 32);
  if (length) memcpy(buf, bytes, length);
  if (repair & REPAIR_OWNER) {
    memcpy(buf, directory ? "SHCD" : "SHCP", 4);
    put(buf, 4, 0, 4);
    put(buf, 8, log_store_key(pieces_uuid), 8);
  }
  if (directory && repair & REPAIR_CHECKSUM) repair_directory(p, buf, length);
  write_at(p, block, buf, length);
  if (directory) {
    p->root.dir_block = block;
    p->root.dir_bytes = (uint32_t)length;
    if (repair & REPAIR_CHECKSUM) p->root.dir_checksum = crc32c(0, buf, length);
  }
  free(buf);
}

/* ---- The rest ---------------------------------------------------------------------------- */

/* dir_* come from the directory piece, unless there was none. */
static void take_root(struct pieces *p, uint8_t repair, struct feed *f) {
  struct root_shard *r = &p->root;
  r->log_head = feed_number(f, 8);
  r->log_tail = feed_number(f, 8);
  r->sequence = feed_number(f, 8);
  r->chain = (uint32_t)feed_number(f, 4);
  uint32_t sum = (uint32_t)feed_number(f, 4), bytes;
  uint64_t block = feed_number(f, 8);
  bytes = (uint32_t)feed_number(f, 8);
  r->zeroed_blocks = feed_number(f, 8);
  r->blobs = feed_number(f, 8);
  p->epoch = feed_number(f, 8);
  if (!(repair & REPAIR_OWNER)) {
    r->dir_checksum = sum;
    r->dir_block = block;
    r->dir_bytes = bytes;
  }
  if (repair & REPAIR_CHAIN) {
    r->log_tail = p->position;
    r->sequence = p->sequence;
    r->chain = p->chain;
  }
}

static void take_piece(struct pieces *p, struct feed *f) {
  uint8_t kind = feed_u8(f) % PIECE_KINDS, repair = feed_u8(f);
  uint16_t place = feed_u16(f);
  uint64_t length = feed_u16(f); /* taken before `left` is looked at */
  length = min_u64(length, f->left);
  struct feed own = {f->at, length};
  f->at += length;
  f->left -= length;
  switch ((enum piece_kind)kind) {
  case PIECE_FRAME:
    take_frame(p, repair, place, own.at, length);
    break;
  case PIECE_CHECKPOINT:
  case PIECE_DIRECTORY:
    take_file(p, repair, place, own.at, length, kind == PIECE_DIRECTORY);
    break;
  case PIECE_ROOT:
    take_root(p, repair, &own);
    break;
  case PIECE_RAW:
    write_at(p, place % PIECES_BLOCKS, own.at, length);
    break;
  case PIECE_WALKER:
    p->position = feed_number(&own, 8);
    p->sequence = feed_number(&own, 8);
    p->chain = (uint32_t)feed_number(&own, 4);
    break;
  case PIECE_KINDS:
    break;
  }
}

void pieces_take(struct pieces *p, struct feed *f) {
  while (f->left > 0) take_piece(p, f);
}

bool pieces_root(const struct pieces *p, struct root *root) {
  char *slot = fuzz_blocks(2), why[100];
  memset(root, 0, sizeof *root);
  root->shard_count = 1;
  root->epoch = p->epoch;
  root->incarnation = PIECES_INCARNATION;
  root->shards[0] = p->root;
  root_encode(root, pieces_uuid, slot);
  int r = root_decode(root, pieces_uuid, 1, slot, why, sizeof why);
  free(slot);
  return r == 0;
}
