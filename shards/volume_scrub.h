/* volume_scrub.h - the volumes' part of a scrub: blocks of sealed layers that have checksums, read
 * again and verified. Owned by the shard's thread; used by shard_scrub.c alone. */
#ifndef SHARDS_VOLUME_SCRUB_H
#define SHARDS_VOLUME_SCRUB_H

#include "shards/manifest_scrub.h"
#include "shards/shard_internal.h"

#define VSCRUB_READS  8u
#define VSCRUB_BLOCKS (SCRUB_IO_BYTES / BLOCK_BYTES)

struct vscrub_read {
  struct io io;
  struct volume_scrub *of;
  bool busy;
  uint32_t generation, count; /* count: blocks with a checksum, in a row */
  uint64_t layer, block;      /* the first one, in the layer; */
  uint32_t place;             /* and in the region */
  uint32_t tries;
  uint32_t sums[VSCRUB_BLOCKS];
};

struct volume_scrub {
  struct shard *shard;
  uint64_t *layers; /* that had checksums when the pass came to them */
  uint32_t layer_count, at, busy;
  uint64_t next; /* of the layer at `at`: blocks before it are done */
  bool begun, finished;
  struct vscrub_read reads[VSCRUB_READS];
};

/* bufs: VSCRUB_READS times SCRUB_IO_BYTES, which stay the caller's. */
void volume_scrub_init(struct volume_scrub *v, struct shard *s, char *bufs);
void volume_scrub_finish(struct volume_scrub *v); /* nothing is in flight */
/* Starts reads of about so many bytes at most; how many. v->finished: all of them are through.
 * *more: it has looked at some of the map instead. */
uint64_t volume_scrub_step(struct volume_scrub *v, uint64_t bytes, bool *more);
/* That a pass would read now. */
uint64_t volume_scrub_bytes(const struct shard *s);

#endif
