/* log.h - what the manifest log and the checkpoints are made of: frames and entries, to bytes
 * and back. Codecs without state; docs/format.md has the byte tables. Decoders take hostile
 * bytes. */
#ifndef SHARDS_LOG_H
#define SHARDS_LOG_H

#include "shards/index.h"
#include "shards/region.h"

/* ---- Entries: one change each --------------------------------------------------------------- */

enum entry_type {
  ENTRY_PUT = 1,
  ENTRY_PUT_SMALL = 2, /* one block, at most one granule: 32 bytes */
  ENTRY_DELETE = 3,
};
#define ENTRY_SMALL_BYTES 32u
#define ENTRY_BYTES_MAX                                                                            \
  (48u + BLOB_EXTENTS_MAX * (uint32_t)sizeof(struct extent) + 4u * BLOB_GRANULES_MAX)

/* Bytes of a put with so many extents and granules, at most; a multiple of 8. */
static inline uint32_t entry_put_bytes(uint32_t extents, uint32_t granules) {
  if (extents <= 1 && granules <= 1) return 40 + 16 + 8;
  return (uint32_t)round_up(40 + extents * sizeof(struct extent) + granules * 4u, 8);
}
/* Both return the bytes that were written, a multiple of 8. */
uint32_t log_entry_put(void *buf, const struct blob *blob);
uint32_t log_entry_delete(void *buf, struct blob_id id);

struct entry {
  enum entry_type type;
  struct blob blob; /* delete: id only. Extents and checksums may point into the buffer. */
};
/* Bytes of the entry at buf, of at most `left` bytes; 0: not an entry, *why says what is wrong. */
uint32_t log_entry_decode(struct entry *entry, const void *buf, uint64_t left,
                          uint64_t region_blocks, const char **why);
/* The id of the entry at buf, without checks beyond `left`: to prefetch by. */
bool log_entry_peek(const void *buf, uint64_t left, struct blob_id *id, uint32_t *bytes);

/* ---- Frames: what is written at once ----------------------------------------------------- */

#define FRAME_HEADER_BYTES 64u
#define FRAME_BLOCKS_MAX   84u
#define FRAME_BYTES_MAX    (FRAME_BLOCKS_MAX * BLOCK_BYTES)
_Static_assert(FRAME_HEADER_BYTES + ENTRY_BYTES_MAX <= FRAME_BYTES_MAX, "any entry fits a frame");

enum frame_flag {
  FRAME_COMMIT = 1, /* everything before it counts */
  FRAME_SKIP = 2,   /* the ring ends before the next frame fits: goes on at its start */
};
struct frame {
  uint64_t store; /* of log_store_key() */
  uint32_t shard;
  uint64_t incarnation, epoch;
  uint64_t position; /* in blocks since format */
  uint64_t sequence; /* of the first entry; of the next one where there is none */
  uint32_t chain;    /* checksum of the frame before */
  uint32_t payload_bytes, entry_count;
  uint16_t flags;
  uint32_t checksum; /* out */
};
/* Ties frames to their store. */
uint64_t log_store_key(const uint8_t uuid[16]);
static inline uint64_t frame_blocks(uint32_t payload_bytes) {
  return bytes_to_blocks(FRAME_HEADER_BYTES + (uint64_t)payload_bytes);
}
/* The payload stands at buf + FRAME_HEADER_BYTES; pads to blocks, fills the header and
 * frame->checksum. */
void frame_encode(struct frame *frame, void *buf);
/* Only the header's own plausibility: 0, or -EBADMSG with *why. */
int frame_decode_header(struct frame *frame, const void *buf, const char **why);
/* Of a frame of one block that has one wrong bit: corrects it. False: none or more than one. */
bool frame_correct_bit(void *buf);
/* The checksum over all its blocks. */
bool frame_checksum_matches(const void *buf);

/* Where a position lies in the ring, and where the position after a frame is. */
static inline uint64_t log_place(uint64_t position, uint64_t log_blocks) {
  return position % log_blocks;
}
static inline uint64_t log_next(uint64_t position, uint64_t blocks, uint16_t flags,
                                uint64_t log_blocks) {
  return flags & FRAME_SKIP ? (position / log_blocks + 1) * log_blocks : position + blocks;
}

#endif
