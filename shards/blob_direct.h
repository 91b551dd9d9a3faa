/* blob_direct.h - reads of blobs on the reader's own thread, without a message to the core that
 * owns them: bytes that cannot change need nobody's leave.
 *
 * Any number of threads, beside the shard's own; they take no lock and the shard does nothing for
 * them. A reader
 *
 *   notes how often freed space has become usable again   space_reuses()
 *   looks up where the bytes lie, and their checksums      index_look()
 *   reads the device
 *   looks again at the first                               the same? then the bytes count
 *
 * Why that is right. A blob's bytes are never overwritten: a put writes elsewhere, and what it
 * replaces is freed, as by a delete or a move. Freed space is written to only after it has become
 * usable again, which takes a durable root, and space_reuses() is another one before. So if it is
 * the same, the bytes were the blob's from the look-up on, whatever has become of the blob since:
 * the read took place in the moment of its look-up, and so after everything that had completed
 * before.
 *
 * What is not that simple is left to the owner: ranges in several extents or larger than one read,
 * errors of the device, checksums that do not match. */
#ifndef SHARDS_BLOB_DIRECT_H
#define SHARDS_BLOB_DIRECT_H

#include "shards/shard.h"

#define BLOB_DIRECT_BOUNCE (128u << 10) /* of a range or memory that is not aligned */

/* Of a shard, from its open to its close. */
struct blob_direct {
  struct index *index;
  const struct space *space;
  const struct region *region;
  const struct manifest *manifest; /* for manifest_absent() */
};
/* On the shard's thread. False: its region cannot be read by other threads. */
bool blob_direct_of(const struct shard *shard, struct blob_direct *d);

/* A thread's own. */
struct blob_reader {
  uint32_t number; /* see index_look() */
  char *bounce;    /* [BLOB_DIRECT_BOUNCE], aligned to blocks */
};

/* As an OP_GET: how many bytes were read, with their checksums verified; -ENOENT, or -EBADMSG, of
 * what is not there; -EAGAIN: ask the owner. buf may have been written to. */
int64_t blob_direct_read(const struct blob_direct *d, const struct blob_reader *r, uint64_t hash,
                         struct blob_id id, void *buf, uint64_t offset, uint64_t bytes);
/* The blob's bytes, or the same errors. */
int64_t blob_direct_stat(const struct blob_direct *d, const struct blob_reader *r, uint64_t hash,
                         struct blob_id id);

#endif
