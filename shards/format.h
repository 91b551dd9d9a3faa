/* format.h - identity blocks and root records: bytes on disk to structures and back.
 *
 * docs/format.md is the page of record. Every backing (file or device) of a store carries an
 * identity in its first and its last 16 blocks. Backing 0 carries the root slots. Decoders take
 * hostile bytes: every field is checked, and *why names the first one that is wrong. */
#ifndef SHARDS_FORMAT_H
#define SHARDS_FORMAT_H

#include "shards/base/base.h"

#define FORMAT_VERSION         1u
#define FORMAT_SHARDS_MAX      1024u
#define FORMAT_ROOT_SLOTS      4u
#define FORMAT_SEGMENTS_MAX    2560u /* in one backing's identity */
#define FORMAT_IDENTITY_BLOCKS 16u   /* bytes of an identity: 64 KiB at the start and at the end */

struct format_segment {
  uint32_t shard;
  uint32_t ordinal;     /* place in the shard's region */
  uint64_t first_block; /* in this backing */
  uint64_t blocks;
};
struct identity {
  uint8_t uuid[16];
  uint32_t version;
  uint64_t incompatible, read_only_compatible; /* feature flags; none defined in version 1 */
  uint64_t generation;                         /* grows with every change of the layout */
  uint64_t hash_key[2];                        /* for hash_id() */
  uint32_t shard_count;
  uint32_t backing_index, backing_count;
  uint64_t backing_blocks; /* in use by the store; the second copy ends there */
  uint64_t log_blocks;     /* per shard */
  uint64_t root_block,
      root_slot_blocks; /* on backing 0: slots 0..3 follow each other; 0 elsewhere */
  uint32_t segment_count;
  struct format_segment segments[FORMAT_SEGMENTS_MAX];
};

/* What the root says of one shard. */
struct root_shard {
  uint64_t log_head; /* position (blocks since format, modulo log_blocks gives the place) where
                        replay begins */
  uint64_t log_tail; /* position after the last committed frame */
  uint64_t sequence; /* of the next log entry */
  uint32_t chain;    /* checksum of the last committed frame */
  uint32_t dir_checksum;
  uint64_t dir_block; /* checkpoint directory, region block; 0: no checkpoint yet */
  uint32_t dir_bytes;
  uint64_t zeroed_blocks; /* region blocks below were written at least once */
  uint64_t blobs;         /* a hint: recovery makes room for so many at once */
};
struct root {
  uint64_t epoch;
  uint64_t incarnation; /* counts writable opens; part of every log frame */
  uint32_t shard_count;
  struct root_shard shards[FORMAT_SHARDS_MAX];
};

/* buf: FORMAT_IDENTITY_BLOCKS blocks. */
void identity_encode(const struct identity *identity, void *buf);
/* 0; -EMEDIUMTYPE not a store; -ENOTSUP newer version or unknown incompatible flag;
 * -EROFS unknown read-only-compatible flag (identity filled: may be opened read-only);
 * -EBADMSG checksum or field. */
int identity_decode(struct identity *identity, const void *buf, char *why, size_t why_bytes);

/* Blocks of one copy of a root with that many shards. A slot holds two copies, one after the
 * other, written by one write. */
uint64_t root_copy_blocks(uint32_t shard_count);
void root_encode(const struct root *root, const uint8_t uuid[16], void *slot_buf);
/* One copy; -ENODATA: all zeros (never written); -EBADMSG. */
int root_decode(struct root *root, const uint8_t uuid[16], uint32_t shard_count, const void *copy,
                char *why, size_t why_bytes);
static inline uint32_t root_slot_of_epoch(uint64_t epoch) {
  return (uint32_t)(epoch % FORMAT_ROOT_SLOTS);
}
/* The slot that gets a second copy once the root is durable. With 4 slots the newest two roots are
 * in two slots each, and a root never overwrites the one before it. */
static inline uint32_t root_mirror_of_epoch(uint64_t epoch) {
  return root_slot_of_epoch(epoch + 2);
}
static inline bool root_belongs_in_slot(uint64_t epoch, uint32_t slot) {
  return slot == root_slot_of_epoch(epoch) || slot == root_mirror_of_epoch(epoch);
}

#endif
