/* region_pieces.h - a shard's region in memory, put together from an input piece by piece, with as
 * much repaired as each piece asks for: so that a fuzzer gets past magics, chains and checksums and
 * still may break every one of them.
 *
 * A piece: kind (1 byte), what to repair (1), place (2), length (2), then so many bytes. Frames
 * follow each other at a walker, which knows position, sequence and chain; a root piece takes its
 * end of the log from there. What the bytes are is as on disk (docs/format.md). */
#ifndef TESTS_FUZZ_REGION_PIECES_H
#define TESTS_FUZZ_REGION_PIECES_H

#include "shards/manifest.h"
#include "tests/fuzz/fuzz.h"

#define PIECES_LOG_BLOCKS  256u
#define PIECES_DATA_BLOCKS 512u
#define PIECES_BLOCKS      (PIECES_LOG_BLOCKS + PIECES_DATA_BLOCKS)
#define PIECES_INCARNATION 7u
extern const uint8_t pieces_uuid[16];
extern const uint64_t pieces_hash_key[2];

enum piece_kind {
  PIECE_FRAME,      /* header and payload, at the walker, or at a place in the ring */
  PIECE_CHECKPOINT, /* its bytes, at a place */
  PIECE_DIRECTORY,  /* its bytes, at a place; the root names it */
  PIECE_ROOT,       /* struct disk_root_shard, and the epoch (8 bytes) */
  PIECE_RAW,        /* bytes at a place, as they are */
  PIECE_WALKER,     /* position (8), sequence (8), chain (4) */
  PIECE_KINDS,
};
enum piece_repair {
  REPAIR_OWNER = 1,    /* magic, store, shard */
  REPAIR_CHECKSUM = 2, /* frame: its own; directory: those of the checkpoints that it names, and the
                          one in the root */
  REPAIR_CHAIN = 4,    /* frame: chain and sequence; root: the log's end */
  REPAIR_POSITION = 8, /* frame */
  REPAIR_INCARNATION = 16, /* frame */
  REPAIR_LENGTH = 32,      /* frame: payload bytes are what there is */
  PIECE_AT_PLACE = 64,     /* frame: not at the walker */
  PIECE_NO_STEP = 128,     /* frame: the walker stays */
};

struct pieces {
  struct backing *backing;
  struct region region;
  struct root_shard root;
  uint64_t epoch;
  /* The walker. */
  uint64_t position, sequence;
  uint32_t chain;
};

/* An empty region: two segments, with gaps around them, in one backing. */
void pieces_open(struct pieces *p);
void pieces_close(struct pieces *p);
/* Takes pieces until the input ends. */
void pieces_take(struct pieces *p, struct feed *f);
/* The root that they make up, through encoder and decoder; false: the decoder refuses it. */
bool pieces_root(const struct pieces *p, struct root *root);
/* Where a region block lies in memory. */
char *pieces_block(const struct pieces *p, uint64_t block);

#endif
