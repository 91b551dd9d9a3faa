/* image_pieces.c - see image_pieces.h. */
#include "tests/fuzz/image_pieces.h"

#include <stdlib.h>

#include "shards/format.h"

void image_open(struct image *m, uint32_t count) {
  memset(m, 0, sizeof *m);
  m->count = count;
  for (uint32_t i = 0; i < count; i++)
    check(backing_open_memory(&m->backings[i], BACKING_BLOCKS << BLOCK_SHIFT) == 0);
}

/* As much as there is room for behind a block. */
static void write_at(struct image *m, uint32_t backing, uint64_t block, const void *from,
                     size_t bytes) {
  block %= BACKING_BLOCKS;
  bytes = min_u64(bytes, (BACKING_BLOCKS - block) << BLOCK_SHIFT);
  memcpy((char *)m->backings[backing]->memory + (block << BLOCK_SHIFT), from, bytes);
  for (uint64_t b = 0; b < bytes_to_blocks(bytes); b++) m->touched[backing][block + b] = true;
}

/* place: 0: the first copy, 1: the last, 2: both. */
static void take_identity(struct image *m, struct feed *own, uint8_t repair, uint32_t backing,
                          uint16_t place) {
  char *buf = fuzz_blocks(FORMAT_IDENTITY_BLOCKS);
  size_t bytes = FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT;
  feed_bytes(own, buf, bytes);
  if (repair & 1) repair_identity(buf);
  if (place % 3 != 1) write_at(m, backing, 0, buf, bytes);
  if (place % 3 != 0) write_at(m, backing, BACKING_BLOCKS - FORMAT_IDENTITY_BLOCKS, buf, bytes);
  free(buf);
}

/* A copy of one block, as any store of up to 63 shards has it. */
static void take_root(struct image *m, struct feed *own, uint8_t repair, uint32_t backing,
                      uint16_t place) {
  char *buf = fuzz_blocks(1);
  feed_bytes(own, buf, BLOCK_BYTES);
  if (repair & 1) repair_root(buf, BLOCK_BYTES);
  write_at(m, backing, place, buf, BLOCK_BYTES);
  free(buf);
}

static void take_raw(struct image *m, struct feed *own, uint8_t repair, uint32_t backing,
                     uint16_t place, bool frame) {
  char *buf = fuzz_blocks(16); /* as large as a length may be */
  size_t length = own->left;
  feed_bytes(own, buf, length);
  if (frame && repair & 1 && frame_bytes_of(buf) <= 16 << BLOCK_SHIFT) repair_frame(buf);
  if (frame) length = round_up(length, BLOCK_BYTES);
  write_at(m, backing, place, buf, length);
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

void image_take(struct image *m, struct feed *f) {
  while (f->left > 0) take_piece(m, f);
}
