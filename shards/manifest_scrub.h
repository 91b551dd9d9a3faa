/* manifest_scrub.h - reads again what a manifest has on disk and compares it with what it should
 * be: the directory, live checkpoints, committed frames between the log's head and its end, all to
 * the end of their last block. Owned by the shard's thread; asynchronous, one I/O at a time, one
 * buffer of its own.
 *
 *   manifest_scrub_begin -> manifest_scrub_next ... until `finished` -> manifest_scrub_finish
 *
 * Requests go on meanwhile: what was replaced since it was read is left alone. */
#ifndef SHARDS_MANIFEST_SCRUB_H
#define SHARDS_MANIFEST_SCRUB_H

#include "shards/manifest_internal.h"

#define SCRUB_META_BYTES (512u << 10)
#define SCRUB_IO_BYTES   (128u << 10)

enum manifest_scrub_step { SCRUB_DIRECTORY, SCRUB_CHECKPOINTS, SCRUB_LOG, SCRUB_FINISHED };

struct manifest_scrub {
  struct io io;
  struct manifest *m;
  char *buf;
  bool busy; /* I/O in flight */
  bool finished;
  enum manifest_scrub_step step;
  uint64_t read_bytes, damaged, unreadable;

  /* What is being read: want bytes of these extents. */
  struct extent extents[CHECKPOINT_EXTENTS];
  uint32_t extent_count, at;
  uint64_t in;         /* blocks done of extents[at] */
  uint64_t fill, want; /* bytes */
  int error;

  struct root_shard root; /* whose directory is being read */
  uint32_t partition;
  struct checkpoint checkpoint; /* a copy */
  uint64_t checked_bytes;       /* of it */
  uint32_t crc;
  const char *what;

  /* The log. */
  uint64_t position, sequence, end, end_sequence, incarnation;
  uint32_t chain, end_chain;
  bool chained, end_known;
  bool gap; /* from gap_from on frames are bad */
  uint64_t gap_from;
  int gap_error;
  uint64_t window_blocks, need_blocks;
};

/* Bytes that a pass will read now. */
uint64_t manifest_scrub_bytes(const struct manifest *m);
/* 0 or -ENOMEM. */
int manifest_scrub_begin(struct manifest_scrub *x, struct manifest *m);
/* Starts the next read, if none is in flight; its bytes, 0: none. */
uint64_t manifest_scrub_next(struct manifest_scrub *x);
/* Not busy. */
void manifest_scrub_finish(struct manifest_scrub *x);

#endif
