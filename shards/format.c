/* format.c - identity blocks and root records, to bytes and back. docs/format.md has the byte
 * tables. No state. */
#include "shards/format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shards/base/crc32c.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures are written as they lie");

/* ---- Identity ----------------------------------------------------------------------------- */

struct disk_segment {
  uint32_t shard, ordinal;
  uint64_t first_block, blocks;
};
_Static_assert(sizeof(struct disk_segment) == 24, "on disk");

struct disk_identity {
  char magic[8];
  uint32_t version;
  uint32_t checksum; /* of all FORMAT_IDENTITY_BLOCKS blocks, this field 0 */
  uint64_t incompatible, read_only_compatible;
  uint8_t uuid[16];
  uint64_t generation;
  uint64_t hash_key[2];
  uint32_t block_bytes, shard_count;
  uint32_t backing_index, backing_count;
  uint64_t backing_blocks, log_blocks;
  uint64_t root_block, root_slot_blocks;
  uint32_t segment_count, reserved;
  uint8_t reserved_too[128];
  struct disk_segment segments[FORMAT_SEGMENTS_MAX];
};
#define IDENTITY_BYTES (FORMAT_IDENTITY_BLOCKS * BLOCK_BYTES)
_Static_assert(offsetof(struct disk_identity, segments) == 256, "on disk");
_Static_assert(sizeof(struct disk_identity) <= IDENTITY_BYTES, "an identity fits its blocks");

static const char identity_magic[8] = "SHARDRNG";

static uint32_t checksum_without(const void *buf, size_t bytes, size_t at) {
  static const uint32_t zero = 0;
  uint32_t crc = crc32c(0, buf, at);
  crc = crc32c(crc, &zero, sizeof zero);
  return crc32c(crc, (const char *)buf + at + 4, bytes - at - 4);
}

void identity_encode(const struct identity *id, void *buf) {
  struct disk_identity *d = buf;
  memset(buf, 0, IDENTITY_BYTES);
  check(id->segment_count <= FORMAT_SEGMENTS_MAX);
  memcpy(d->magic, identity_magic, sizeof d->magic);
  d->version = id->version;
  d->incompatible = id->incompatible;
  d->read_only_compatible = id->read_only_compatible;
  memcpy(d->uuid, id->uuid, sizeof d->uuid);
  d->generation = id->generation;
  memcpy(d->hash_key, id->hash_key, sizeof d->hash_key);
  d->block_bytes = BLOCK_BYTES;
  d->shard_count = id->shard_count;
  d->backing_index = id->backing_index;
  d->backing_count = id->backing_count;
  d->backing_blocks = id->backing_blocks;
  d->log_blocks = id->log_blocks;
  d->root_block = id->root_block;
  d->root_slot_blocks = id->root_slot_blocks;
  d->segment_count = id->segment_count;
  for (uint32_t i = 0; i < id->segment_count; i++) {
    const struct format_segment *s = &id->segments[i];
    d->segments[i] = (struct disk_segment){s->shard, s->ordinal, s->first_block, s->blocks};
  }
  d->checksum = checksum_without(buf, IDENTITY_BYTES, offsetof(struct disk_identity, checksum));
}

#define REFUSE(error, ...)                                                                         \
  do {                                                                                             \
    snprintf(why, why_bytes, __VA_ARGS__);                                                         \
    return error;                                                                                  \
  } while (0)

static int check_segments(const struct disk_identity *d, char *why, size_t why_bytes) {
  if (d->segment_count > FORMAT_SEGMENTS_MAX)
    REFUSE(-EBADMSG, "%u segments: at most %u fit", d->segment_count, FORMAT_SEGMENTS_MAX);
  uint64_t end = d->backing_blocks - FORMAT_IDENTITY_BLOCKS;
  uint64_t root_end = d->root_block + FORMAT_ROOT_SLOTS * d->root_slot_blocks;
  for (uint32_t i = 0; i < d->segment_count; i++) {
    const struct disk_segment *s = &d->segments[i];
    if (s->shard >= d->shard_count || s->blocks == 0 || s->first_block < FORMAT_IDENTITY_BLOCKS ||
        s->first_block > end || s->blocks > end - s->first_block)
      REFUSE(-EBADMSG, "segment %u: out of range", i);
    if (d->backing_index == 0 && s->first_block < root_end &&
        d->root_block < s->first_block + s->blocks)
      REFUSE(-EBADMSG, "segment %u overlaps the root slots", i);
    for (uint32_t k = 0; k < i; k++) {
      const struct disk_segment *o = &d->segments[k];
      if (s->first_block < o->first_block + o->blocks &&
          o->first_block < s->first_block + s->blocks)
        REFUSE(-EBADMSG, "segments %u and %u overlap", k, i);
      if (s->shard == o->shard && s->ordinal == o->ordinal)
        REFUSE(-EBADMSG, "segments %u and %u claim one place", k, i);
    }
  }
  return 0;
}

static int check_identity(const struct disk_identity *d, char *why, size_t why_bytes) {
  if (d->block_bytes != BLOCK_BYTES) REFUSE(-EBADMSG, "block size %u", d->block_bytes);
  if (d->shard_count < 1 || d->shard_count > FORMAT_SHARDS_MAX)
    REFUSE(-EBADMSG, "%u shards", d->shard_count);
  if (d->backing_index >= d->backing_count)
    REFUSE(-EBADMSG, "part %u of %u", d->backing_index, d->backing_count);
  if (d->backing_blocks < 2 * FORMAT_IDENTITY_BLOCKS || d->backing_blocks > UINT64_C(1) << 50)
    REFUSE(-EBADMSG, "%llu blocks long", (unsigned long long)d->backing_blocks);
  if (d->log_blocks < 16 || d->log_blocks > UINT64_C(1) << 32)
    REFUSE(-EBADMSG, "a log of %llu blocks", (unsigned long long)d->log_blocks);
  uint64_t root_end = d->root_block + FORMAT_ROOT_SLOTS * d->root_slot_blocks;
  if (d->root_slot_blocks > 4096 || d->root_block > d->backing_blocks ||
      (d->backing_index == 0 &&
       (d->root_block < FORMAT_IDENTITY_BLOCKS || d->root_slot_blocks == 0 ||
        root_end > d->backing_blocks - FORMAT_IDENTITY_BLOCKS)))
    REFUSE(-EBADMSG, "root slots out of range");
  if (d->reserved) REFUSE(-EBADMSG, "reserved bytes are not zero");
  if (!bytes_are_zero(d->reserved_too, sizeof d->reserved_too))
    REFUSE(-EBADMSG, "reserved bytes are not zero");
  int r = check_segments(d, why, why_bytes);
  if (r) return r;
  size_t used = (size_t)((const char *)&d->segments[d->segment_count] - (const char *)d);
  if (!bytes_are_zero((const char *)d + used, IDENTITY_BYTES - used))
    REFUSE(-EBADMSG, "bytes behind the last segment are not zero");
  return 0;
}

int identity_decode(struct identity *id, const void *buf, char *why, size_t why_bytes) {
  const struct disk_identity *d = buf;
  if (memcmp(d->magic, identity_magic, sizeof d->magic) != 0)
    REFUSE(-EMEDIUMTYPE, "not a store (no magic)");
  if (d->checksum !=
      checksum_without(buf, IDENTITY_BYTES, offsetof(struct disk_identity, checksum)))
    REFUSE(-EBADMSG, "checksum mismatch");
  if (d->version != FORMAT_VERSION)
    REFUSE(-ENOTSUP, "format version %u, this library reads %u: use a newer library", d->version,
           FORMAT_VERSION);
  if (d->incompatible)
    REFUSE(-ENOTSUP, "unknown incompatible features %llx: use a newer library",
           (unsigned long long)d->incompatible);
  int r = check_identity(d, why, why_bytes);
  if (r) return r;
  memset(id, 0, sizeof *id);
  memcpy(id->uuid, d->uuid, sizeof id->uuid);
  id->version = d->version;
  id->incompatible = d->incompatible;
  id->read_only_compatible = d->read_only_compatible;
  id->generation = d->generation;
  memcpy(id->hash_key, d->hash_key, sizeof id->hash_key);
  id->shard_count = d->shard_count;
  id->backing_index = d->backing_index;
  id->backing_count = d->backing_count;
  id->backing_blocks = d->backing_blocks;
  id->log_blocks = d->log_blocks;
  id->root_block = d->root_block;
  id->root_slot_blocks = d->root_slot_blocks;
  id->segment_count = d->segment_count;
  for (uint32_t i = 0; i < d->segment_count; i++) {
    const struct disk_segment *s = &d->segments[i];
    id->segments[i] = (struct format_segment){s->shard, s->ordinal, s->first_block, s->blocks};
  }
  if (d->read_only_compatible)
    REFUSE(-EROFS, "unknown features %llx: only a read-only open is possible",
           (unsigned long long)d->read_only_compatible);
  return 0;
}

/* ---- Root ----------------------------------------------------------------------------------- */

struct disk_root_shard {
  uint64_t log_head, log_tail, sequence;
  uint32_t chain, dir_checksum;
  uint64_t dir_block;
  uint32_t dir_bytes, reserved;
  uint64_t zeroed_blocks;
  uint64_t blobs;
};
_Static_assert(sizeof(struct disk_root_shard) == 64, "on disk");

struct disk_root {
  char magic[8];
  uint32_t checksum; /* of the whole copy, this field 0 */
  uint32_t shard_count;
  uint8_t uuid[16];
  uint64_t epoch, incarnation;
  uint8_t reserved[16];
  struct disk_root_shard shards[];
};
_Static_assert(sizeof(struct disk_root) == 64, "on disk");

static const char root_magic[8] = "SHRDROOT";
#define POSITION_MAX (UINT64_C(1) << 60) /* sums of positions do not overflow */

uint64_t root_copy_blocks(uint32_t shard_count) {
  return bytes_to_blocks(sizeof(struct disk_root) + shard_count * sizeof(struct disk_root_shard));
}

void root_encode(const struct root *root, const uint8_t uuid[16], void *slot_buf) {
  uint64_t bytes = root_copy_blocks(root->shard_count) << BLOCK_SHIFT;
  struct disk_root *d = slot_buf;
  memset(slot_buf, 0, bytes);
  memcpy(d->magic, root_magic, sizeof d->magic);
  memcpy(d->uuid, uuid, 16);
  d->shard_count = root->shard_count;
  d->epoch = root->epoch;
  d->incarnation = root->incarnation;
  for (uint32_t s = 0; s < root->shard_count; s++) {
    const struct root_shard *r = &root->shards[s];
    d->shards[s] = (struct disk_root_shard){.log_head = r->log_head,
                                            .log_tail = r->log_tail,
                                            .sequence = r->sequence,
                                            .chain = r->chain,
                                            .dir_checksum = r->dir_checksum,
                                            .dir_block = r->dir_block,
                                            .dir_bytes = r->dir_bytes,
                                            .zeroed_blocks = r->zeroed_blocks,
                                            .blobs = r->blobs};
  }
  d->checksum = checksum_without(slot_buf, bytes, offsetof(struct disk_root, checksum));
  memcpy((char *)slot_buf + bytes, slot_buf, bytes);
}

int root_decode(struct root *root, const uint8_t uuid[16], uint32_t shard_count, const void *copy,
                char *why, size_t why_bytes) {
  const struct disk_root *d = copy;
  uint64_t bytes = root_copy_blocks(shard_count) << BLOCK_SHIFT;
  if (bytes_are_zero(copy, bytes)) REFUSE(-ENODATA, "never written");
  if (memcmp(d->magic, root_magic, sizeof d->magic) != 0) REFUSE(-EBADMSG, "no root magic");
  if (d->checksum != checksum_without(copy, bytes, offsetof(struct disk_root, checksum)))
    REFUSE(-EBADMSG, "checksum mismatch");
  if (memcmp(d->uuid, uuid, 16) != 0) REFUSE(-EBADMSG, "a root of another store");
  if (d->shard_count != shard_count)
    REFUSE(-EBADMSG, "%u shards, the store has %u", d->shard_count, shard_count);
  size_t used = sizeof *d + shard_count * sizeof d->shards[0];
  if (!bytes_are_zero(d->reserved, sizeof d->reserved) ||
      !bytes_are_zero((const char *)copy + used, bytes - used))
    REFUSE(-EBADMSG, "reserved bytes are not zero");
  if (d->epoch > POSITION_MAX || d->incarnation > POSITION_MAX)
    REFUSE(-EBADMSG, "impossible epoch or incarnation"); /* the next one must be larger */
  memset(root, 0, sizeof *root);
  root->epoch = d->epoch;
  root->incarnation = d->incarnation;
  root->shard_count = shard_count;
  for (uint32_t s = 0; s < shard_count; s++) {
    const struct disk_root_shard *r = &d->shards[s];
    if (r->log_head > r->log_tail || r->log_tail > POSITION_MAX || r->sequence > POSITION_MAX ||
        r->reserved)
      REFUSE(-EBADMSG, "shard %u: impossible log positions", s);
    root->shards[s] = (struct root_shard){.log_head = r->log_head,
                                          .log_tail = r->log_tail,
                                          .sequence = r->sequence,
                                          .chain = r->chain,
                                          .dir_checksum = r->dir_checksum,
                                          .dir_block = r->dir_block,
                                          .dir_bytes = r->dir_bytes,
                                          .zeroed_blocks = r->zeroed_blocks,
                                          .blobs = r->blobs};
  }
  return 0;
}
