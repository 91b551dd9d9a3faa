/* shard.h - the storage engine of one shard: blobs in a region, under a manifest.
 *
 * Single-threaded: no threads, locks or globals. Its owner (a core, or a test) calls
 * shard_submit(), shard_tick() and device_poll() in any order from one thread.
 * An op is the caller's memory from shard_submit() until op->done() has begun; done() may be
 * called from within shard_submit(), shard_tick() or device_poll() and must only note the op
 * (it must not call back into the shard).
 *
 * Order: puts and deletes of one id take effect in the order of submission. */
#ifndef SHARDS_SHARD_H
#define SHARDS_SHARD_H

#include "shards/manifest.h"

enum shard_op_kind { /* as enum sr_op where both exist */
                     OP_GET = 1,
                     OP_PUT = 2,
                     OP_DELETE = 3,
                     OP_STAT = 4,
                     OP_APPEND = 6, /* work: the stream */
                     OP_NOP = 7,
                     OP_STREAM_BEGIN = 8,  /* bytes: size hint; id, flags: as of the put. On
                                              completion work: stream */
                     OP_STREAM_COMMIT = 9, /* work: stream; as a put */
                     OP_STREAM_ABORT = 10,
                     OP_LIST = 11, /* buf: struct shard_entry[bytes]; offset: cursor in, size:
                                      cursor out; result: entries */
                     OP_VACUUM =
                         12, /* buf: struct shard_vacuum_result: moved_bytes; see shard_punch() */
                     OP_CHECKPOINT = 13, /* completes when a checkpoint of all partitions is written
                                            (then flush) */
                     OP_PREPARE = 20,    /* a put of a batch: see struct shard_part */
                     OP_PARTS_RESERVE = 21,
                     OP_PARTS_UNRESERVE = 22,
                     OP_PARTS_APPLY = 23,
                     OP_PARTS_CANCEL = 24,
                     OP_READ = 32, /* volumes: see volume.h */
                     OP_WRITE = 33,
                     OP_WRITE_ZEROES = 34,
                     OP_DISCARD = 35,
                     OP_SYNC = 36,
                     OP_FREEZE = 40,
                     OP_THAW = 41,
                     OP_LAYER_DROP = 42,
                     OP_LAYER_MERGE = 43,
                     OP_PROMOTE = 44,
                     OP_RESOLVE = 45,
                     OP_VIEWS_DROP = 46,
                     OP_RECORD = 47,
                     OP_LAYER_SUM = 48,
                     OP_HURRY = 49,
};
enum shard_op_flag { /* as enum sr_flags */
                     OP_DURABLE = 1,
                     OP_IF_ABSENT = 2,
                     OP_NO_CHECKSUM = 4,
                     OP_RESERVE = 8,
                     OP_ROOT = 16,       /* flushes: done when a root names it all, not before */
                     OP_READ_ONLY = 128, /* volumes: came through a handle that may not write */
};

/* In three groups: in a request of the API each begins a cache line of its own, or nearly. What
 * does nothing but travel touches the last. */
struct shard_op {
  struct io io; /* of the first or only device I/O of the op: no allocation on the short path */
  struct blob_id id;
  void *buf;
  uint64_t offset, bytes;
  void *work;     /* the shard's while in flight; streams */
  uint64_t block; /* the shard's */

  struct shard_op *next;
  union {
    void (*done)(struct shard_op *op);
    struct shard_op *ahead; /* the runtime's, while it travels: an op further down the chain */
  };
  uint64_t hash; /* hash_id(id) */
  void *owner;   /* the runtime's */
  int64_t result;
  uint64_t size;       /* out: the blob's bytes */
  uint32_t checksum;   /* the shard's */
  uint16_t generation; /* the shard's: of the read */
  uint8_t pad;         /* the shard's: shift of the read's granules */
  uint8_t unused;
  uint8_t kind, flags, state;
  uint8_t core;  /* the runtime's: index of the core that serves it */
  uint32_t tick; /* the runtime's */
};
_Static_assert(sizeof(struct shard_op) <= 168, "fits the opaque part of struct sr_request");

/* Parts of an atomic batch. Nobody else may touch them in between; in this order:
 *
 *   OP_PREPARE        each put by itself: space is taken, the data are written. A failed one holds
 *                     nothing.
 *   OP_PARTS_RESERVE  all parts in a shard at once, by an op that is the first of them: makes sure
 *                     that applying cannot fail. -EAGAIN: no room in the log now; -ENOSPC: there
 *                     never will be; -EIO, -EROFS, -ENOMEM. From -EAGAIN or UNRESERVE on until the
 *                     next RESERVE or CANCEL no other change starts here: single ones would always
 *                     find room first.
 *   OP_PARTS_APPLY    all changes at once, in their order; each part's result: 0, or -ENOENT of a
 *                     delete
 *
 * or, instead of the last, OP_PARTS_UNRESERVE; then RESERVE again, or OP_PARTS_CANCEL, which gives
 * back what the prepares took. These two leave the results as they are.
 * The owner sees to it that no store-wide flush seals between the first RESERVE and the last APPLY
 * of a batch. */
struct shard_part {         /* in op->io, filled before the prepare */
  struct shard_op *sibling; /* the next part in the same shard */
  uint8_t kind;             /* OP_PUT or OP_DELETE */
  bool many_shards;         /* of the first part: the batch has parts in others, too */
  bool holds;               /* the shard's, of the first part: see OP_PARTS_RESERVE */
};

struct shard_entry {
  struct blob_id id;
  uint64_t bytes;
};
struct shard_vacuum_result {
  uint64_t moved_bytes, released_bytes;
};

struct shard;
struct shard_config {
  struct manifest_config manifest;
  bool background;       /* zero ahead of the allocator, checkpoint by itself */
  uint64_t live_save_ns; /* volumes with integrity=on: leaves that were not written for about so
                            long have their checksums logged; default 30 s */
  uint32_t works_max;    /* multi-piece operations and bounce buffers in flight; default 64 */
  /* Volumes whose base lies in other shards: all regions of the store, and how to send an op to
   * another shard. It comes back by shard_answered(), on this shard's thread. */
  const struct region *regions;
  void (*ask)(void *arg, struct shard_op *op, uint32_t shard);
  void *ask_arg;
};

/* Recovers (synchronous). why: as manifest_recover(). */
int shard_open(struct shard **shard, const struct shard_config *config, const struct root *root,
               char *why, size_t why_bytes);
/* Nothing may be in flight: shard_idle(). */
void shard_close(struct shard *shard);
bool shard_idle(const struct shard *shard);

/* Prefetches what submit will touch. Call for each op of a batch, then submit each. */
void shard_prefetch(const struct shard *shard, const struct shard_op *op);
void shard_submit(struct shard *shard, struct shard_op *op);
void shard_get(struct shard *shard, struct shard_op *op); /* of an OP_GET: the same, sooner */
/* Background work and ops that wait for room. True if there is more to do at once. */
bool shard_tick(struct shard *shard);
/* See shard_config.ask. */
void shard_answered(struct shard_op *op);
/* When a tick is due though nothing happens before; UINT64_MAX: never. */
uint64_t shard_wake_ns(const struct shard *shard);

/* Vacuum in three steps, by the runtime: OP_VACUUM moves blobs down; then a store-wide flush
 * (seal, root, manifest_root_durable), which makes the places that they left free; then, with no
 * seal of this shard outstanding, shard_punch() gives free runs of 1 MiB and more back to the file
 * system. What no durable root can name any more is all that is punched. A second round may move
 * more, into the room that the first one made. Synchronous: the core stands still meanwhile.
 * Adds to result->released_bytes. 0, -EROFS, or the error of the backing (-EOPNOTSUPP: it cannot);
 * regions on block devices are left alone. */
int shard_punch(struct shard *shard, struct shard_vacuum_result *result);

const struct index *shard_index(const struct shard *shard); /* to prefetch in */
struct manifest *shard_manifest(struct shard *shard);       /* seal, root_durable, dirty */

/* Scrub: reads again all that counts on disk and verifies it: the manifest's part, then every blob
 * to the end of its last block, every block of volumes that has a checksum. One pass at a time,
 * beside requests, with buffers of its own. Findings go to manifest_config.damage, one for each
 * place or blob. A blob that is replaced, moved or deleted meanwhile is no finding. */
struct shard_scrub_stats {
  bool running;
  uint64_t passes; /* that came to their end */
  /* Of the running or the last pass. */
  uint64_t done_bytes, total_bytes;
  uint64_t blobs, damaged_blobs, damaged_metadata, unreadable;
  uint64_t unverified_blobs;       /* put without checksums: only read */
  uint64_t blocks, damaged_blocks; /* of volumes' sealed layers, with checksums */
};
/* -EBUSY: a pass runs. -ENOMEM. */
int shard_scrub_start(struct shard *shard);
/* Starts reads of at most about so many bytes and returns how many; may look at some of the index
 * instead (*more). To be called again and again while stats say `running`. */
uint64_t shard_scrub_step(struct shard *shard, uint64_t bytes, bool *more);
uint64_t shard_scrub_bytes(const struct shard *shard); /* that a pass would read now */
/* Ends the pass; reads that are in flight come to their end first. */
void shard_scrub_stop(struct shard *shard);
void shard_scrub_stats(const struct shard *shard, struct shard_scrub_stats *stats);

struct shard_stats {
  uint64_t puts, deletes, others, write_bytes, checksum_errors;
  uint64_t blobs, live_bytes, index_ram_bytes;
  uint64_t layers, cluster_bytes, map_ram_bytes; /* of volumes: what they take, whole clusters */
  uint64_t total_blocks, free_blocks, pending_blocks, zeroed_blocks;
  struct manifest_stats manifest;
};
void shard_stats(const struct shard *shard, struct shard_stats *stats);

#endif
