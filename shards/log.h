/* log.h - what the manifest log and the checkpoints are made of: frames and entries, to bytes
 * and back. Codecs without state; docs/format.md has the byte tables. Decoders take hostile
 * bytes. */
#ifndef SHARDS_LOG_H
#define SHARDS_LOG_H

#include "shards/map.h"
#include "shards/records.h"
#include "shards/region.h"

/* ---- Entries: one change each --------------------------------------------------------------- */

enum entry_type {
  ENTRY_PUT = 1,
  ENTRY_PUT_SMALL = 2, /* one block, at most one granule: 32 bytes */
  ENTRY_DELETE = 3,
  ENTRY_MAP = 4,    /* clusters of one leaf of a layer */
  ENTRY_MOVE = 5,   /* clusters of one leaf go from layer to layer */
  ENTRY_RECORD = 6, /* a record, or without bytes its removal */
  ENTRY_SUMS = 7,   /* checksums of the blocks of one leaf of a layer */
};
#define ENTRY_SMALL_BYTES 32u
#define ENTRY_BYTES_MAX                                                                            \
  (48u + BLOB_EXTENTS_MAX * (uint32_t)sizeof(struct extent) + 4u * BLOB_GRANULES_MAX)

/* Bytes of a put with so many extents and granules, at most; a multiple of 8. */
static inline uint32_t entry_put_bytes(uint32_t extents, uint32_t granules) {
  if (extents <= 1 && granules <= 1) return 40 + 16 + 8;
  return (uint32_t)round_up(40 + extents * sizeof(struct extent) + granules * 4u, 8);
}
/* Bytes of a map entry, and at most of a move, with so many clusters; of a record. */
static inline uint32_t entry_map_bytes(uint32_t clusters) { return 24 + 8 * clusters; }
static inline uint32_t entry_move_bytes(uint32_t clusters) { return 40 + 8 * clusters; }
static inline uint32_t entry_record_bytes(uint32_t bytes) {
  return (uint32_t)round_up(24 + bytes, 8);
}
/* With so many sums. */
static inline uint32_t entry_sums_bytes(uint32_t count) {
  return (uint32_t)round_up(16 + 8 * SUMS_WORDS + 4 * count, 8);
}
/* All return the bytes that were written, a multiple of 8. */
uint32_t log_entry_put(void *buf, const struct blob *blob);
uint32_t log_entry_delete(void *buf, struct blob_id id);
/* The clusters of a leaf whose bits are in `which`; clusters: of the whole leaf, by slot. whole:
 * all others become empty. A place without valid bits is written as none: what is under way does
 * not survive. */
uint32_t log_entry_map(void *buf, uint64_t layer, uint64_t leaf, bool whole, uint64_t which,
                       const struct cluster clusters[LEAF_CLUSTERS]);
uint32_t log_entry_move(void *buf, uint64_t from, uint64_t which_from, uint64_t to,
                        uint64_t which_to, uint64_t leaf,
                        const struct cluster clusters[LEAF_CLUSTERS]);
uint32_t log_entry_record(void *buf, struct blob_id key, const void *data, uint32_t bytes);
uint32_t log_entry_sums(void *buf, uint64_t layer, uint64_t leaf, const struct leaf_sums *sums);

/* Those that have something to be written: not empty, and more than a place under way. */
static inline uint64_t clusters_lasting(const struct cluster clusters[LEAF_CLUSTERS]) {
  uint64_t which = 0;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    which |= (uint64_t)((clusters[i].valid | clusters[i].zero) != 0) << i;
  return which;
}

struct map_entry {
  uint64_t layer, which;     /* these become `clusters` */
  uint64_t from, which_from; /* move: these become empty */
  uint32_t leaf;
  bool whole;                     /* the leaf is emptied first */
  const struct cluster *clusters; /* in the buffer: one for each bit of `which`, lowest first */
};
struct sums_entry {
  uint64_t layer;
  uint32_t leaf;
  const uint64_t *has;  /* [SUMS_WORDS] */
  const uint32_t *sums; /* in the buffer: one for each bit, lowest first */
};
void log_unpack_sums(const struct sums_entry *e, struct leaf_sums *to);
struct record_entry {
  struct blob_id key;
  uint32_t bytes; /* 0: removed */
  const void *data;
};
struct entry {
  enum entry_type type;
  union {
    struct blob blob; /* delete: id only. Extents and checksums may point into the buffer. */
    struct map_entry map;
    struct record_entry record;
    struct sums_entry sums;
  };
};
static inline bool entry_is_blob(enum entry_type type) { return type <= ENTRY_DELETE; }
/* From its first byte alone. */
static inline bool log_entry_is_put(const void *buf) {
  uint8_t type = *(const uint8_t *)buf;
  return type == ENTRY_PUT || type == ENTRY_PUT_SMALL;
}
/* Bytes of the entry at buf, of at most `left` bytes; 0: not an entry, *why says what is wrong. */
uint32_t log_entry_decode(struct entry *entry, const void *buf, uint64_t left,
                          uint64_t region_blocks, const char **why);
/* The id of the entry at buf, without checks beyond `left`: to prefetch by. Of a map entry some
 * number. */
bool log_entry_peek(const void *buf, uint64_t left, struct blob_id *id, uint32_t *bytes);

/* ---- Frames: what is written at once ----------------------------------------------------- */

#define FRAME_HEADER_BYTES 72u
#define FRAME_BLOCKS_MAX   84u
#define FRAME_BYTES_MAX    (FRAME_BLOCKS_MAX * BLOCK_BYTES)
_Static_assert(FRAME_HEADER_BYTES + ENTRY_BYTES_MAX <= FRAME_BYTES_MAX, "any entry fits a frame");

enum frame_flag {
  FRAME_COMMIT = 1,     /* everything before it counts: `durable` is its own position */
  FRAME_SKIP = 2,       /* the ring ends before the next frame fits: goes on at its start */
  FRAME_VERIFIABLE = 4, /* all data that its entries name have checksums in them: if everything
                           before it counts and these match, it counts as well */
};
/* What follows the header of a commit frame. With zeros there, the sectors of an older frame behind
 * a torn write of its first sector alone can look like one wrong bit. */
#define COMMIT_FILL 0xc3
struct frame {
  uint64_t store; /* of log_store_key() */
  uint32_t shard;
  uint64_t incarnation, epoch;
  uint64_t position; /* in blocks since format */
  uint64_t sequence; /* of the first entry; of the next one where there is none */
  uint64_t durable;  /* when it was written, everything before this position counted for ever */
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
/* The checksum over all its blocks, of which buf has so many; its header has been decoded. False,
 * too, if by now it says that it has another number: a device may have been asked twice. */
bool frame_checksum_matches(const void *buf, uint64_t blocks);

/* Where a position lies in the ring, and where the position after a frame is. */
static inline uint64_t log_place(uint64_t position, uint64_t log_blocks) {
  return position % log_blocks;
}
static inline uint64_t log_next(uint64_t position, uint64_t blocks, uint16_t flags,
                                uint64_t log_blocks) {
  return flags & FRAME_SKIP ? (position / log_blocks + 1) * log_blocks : position + blocks;
}

#endif
