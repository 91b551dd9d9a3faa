/* index.h - a shard's index: blob id to place, size and checksums, all in memory.
 *
 * Single writer, the owning core, to whom all functions belong but index_look(), by which other
 * threads look up meanwhile. Partitioned by hash so that a checkpoint can write, and a growth can
 * move, one part at a time (a few partitions share a table). 40 bytes of RAM for a blob of one
 * extent and one granule, all included (entries of 32 bytes and a tag of one in open-addressing
 * tables at high load); 4 more for each further granule. Nothing is allocated by find; put may
 * grow a partition or the detail slab (index_reserve() does it ahead, so that the put that follows
 * cannot fail). */
#ifndef SHARDS_INDEX_H
#define SHARDS_INDEX_H

#include "shards/space.h"

#define BLOB_EXTENTS_MAX  4096u
#define BLOB_GRANULES_MAX 65536u

enum blob_flag {
  BLOB_NO_CHECKSUM = 1, /* no granule checksums are stored */
};
/* One blob as the index gives and takes it. */
struct blob {
  struct blob_id id;
  uint64_t bytes;
  uint8_t granule_shift;  /* of the checksums: see blob_granule_shift() */
  uint8_t flags;          /* enum blob_flag */
  uint32_t extent_count;  /* 0 for an empty blob */
  uint32_t granule_count; /* checksums: 0 with BLOB_NO_CHECKSUM or when empty */
  const struct extent
      *extents; /* on find: valid until the next change of the index; may point into this struct */
  const uint32_t *checksums; /* CRC32C of each granule's bytes (the last one may be short) */
  struct extent inline_extent;
  uint32_t inline_checksum;
};
/* 12 (4 KiB) up to 1 MiB, 16 up to 4 GiB, then by steps of 2 so that a blob has at most
 * BLOB_GRANULES_MAX granules. */
uint8_t blob_granule_shift(uint64_t bytes);
uint32_t blob_granule_count(uint64_t bytes, uint8_t granule_shift);

struct index;
/* key: of hash_id(); copied. */
int index_create(struct index **x, const uint64_t key[2]);
void index_destroy(struct index *x);

/* hash: hash_id(). 0 and *blob, or -ENOENT. */
int index_find(const struct index *x, uint64_t hash, struct blob_id id, struct blob *blob);
/* Room for one put of a blob with at most that many extents and granules: 0, or -ENOMEM. A blob of
 * one extent that is longer than its bytes need, or lies at INDEX_NEAR_BLOCKS or beyond, takes as
 * much as one of two: reserve for 2. */
#define INDEX_NEAR_BLOCKS (UINT64_C(1) << 40)
int index_reserve(struct index *x, uint64_t hash, uint32_t extents, uint32_t granules);
/* For loading: room at once for about so many blobs in a partition. Loading in the order of
 * index_partition_visit() needs it: blobs in order crowd together in a table that is too small, and
 * each put then moves many. Only a hint: index_reserve() is needed all the same. 0, or -ENOMEM. */
int index_reserve_partition(struct index *x, uint32_t partition, uint64_t count);
/* Inserts or replaces; cannot fail after index_reserve(), else -ENOMEM when there is no room.
 * granule_count must be what the size, granule_shift and flags say (check); pointers are copied
 * from. */
int index_put(struct index *x, uint64_t hash, const struct blob *blob);
/* 0 or -ENOENT. */
int index_delete(struct index *x, uint64_t hash, struct blob_id id);

uint64_t index_count(const struct index *x);
uint64_t index_live_bytes(const struct index *x);
uint64_t index_ram_bytes(const struct index *x);

/* ---- Other threads -----------------------------------------------------------------------------
 */

#define INDEX_READERS_MAX 72u
#define INDEX_LOOK_BYTES  (256u << 10)

/* What has to be read of a blob for a range of its bytes, and what that must be. */
struct index_look {
  uint64_t bytes;      /* of the blob */
  uint64_t start, end; /* bytes of the blob: whole granules, or blocks, around the range; both 0:
                          nothing is to be read */
  uint64_t block;      /* of start; the others follow in a row */
  uint8_t shift;       /* of the granules; 0: they have no checksums */
  uint32_t sums[INDEX_LOOK_BYTES >> 12];
};
/* What the index said of [offset, offset + bytes) of a blob at some moment during the call. Any
 * thread, beside the writer; of those that call at the same time each has a number of its own as
 * `reader`, below INDEX_READERS_MAX. Takes no lock and does not wait for the writer.
 * 0; -ENOENT; -EAGAIN: only the writer can say (the range is larger than INDEX_LOOK_BYTES with what
 * is around it, lies in several extents, or the index changes all the time). */
int index_look(struct index *x, uint32_t reader, uint64_t hash, struct blob_id id, uint64_t offset,
               uint64_t bytes, struct index_look *look);

/* Partitions, for checkpoints and iteration. A blob's partition depends on its hash alone and
 * never changes. */
#define INDEX_PARTITIONS 256u
static inline uint32_t index_partition_of(uint64_t hash) { return (uint32_t)hash >> 24; }
uint64_t index_partition_count(const struct index *x, uint32_t partition);
/* Calls visit for each blob of a partition; stops at non-zero and returns it. No change of the
 * index inside. */
int index_partition_visit(const struct index *x, uint32_t partition,
                          int (*visit)(void *arg, uint64_t hash, const struct blob *blob),
                          void *arg);

#endif
