/* volume.h - a shard's part of a virtual disk: reads, writes, discards and flushes of blocks.
 *
 * Single-threaded, owned by the shard. A volume here is one of
 *   - the part of a volume of the store that lies in this shard: a top layer (map.h), and what
 *     lies below it. Striped volumes have a part in every shard, each with an address space of its
 * own
 *   - a file or device outside the store (`raw`): the same address is the same place. Its owner is
 * the one shard through which all its I/O goes Volumes are opened and closed by the runtime, which
 * knows their names and who lies below whom.
 *
 * Requests are ops with struct volume_args in op->id, submitted by shard_submit():
 *   OP_READ OP_WRITE OP_WRITE_ZEROES OP_DISCARD   [op->offset, op->offset + op->bytes)
 *   OP_SYNC      all writes that completed before it was submitted survive any crash
 * Results: bytes (OP_SYNC: 0), or -EINVAL beyond the end or not whole logical blocks; -EROFS;
 * -ENOSPC (this write changes nothing or some of its blocks, everything else goes on); -EIO;
 * -ENOMEM; -EBADMSG: data of a sealed layer is not what it was; the log says where.
 *
 * What overlaps. Writes (of all kinds) in flight that touch the same 4 KiB block take effect one
 * after the other. A read beside a write of the same block gets it as before or as after, block by
 * block.
 *
 * Space. The first write of a block takes a cluster if its layer has none there; its data is
 * written, then the map says so, then the op completes. An overwrite of a block that the top layer
 * has is in place: one device write, no metadata. Discarded clusters go to space_free(). */
#ifndef SHARDS_VOLUME_H
#define SHARDS_VOLUME_H

#include <sys/uio.h>

#include "shards/limit.h"
#include "shards/map.h"
#include "shards/shard.h"

struct volume;

/* In op->id of the five ops above. */
struct volume_args {
  struct volume *volume;
  uint32_t iov_count; /* 0: op->buf is the data. Else op->buf is a struct iovec[iov_count], */
  uint32_t iov_skip;  /* of which the first iov_skip bytes are not this op's */
};
_Static_assert(sizeof(struct volume_args) == sizeof(struct blob_id), "lies in op->id");
static inline struct volume_args *volume_args(struct shard_op *op) {
  return (struct volume_args *)&op->id;
}

struct volume_config {
  uint64_t layer;       /* the top one; 0: raw */
  uint16_t file;        /* raw: the device's slot */
  bool read_only;       /* so are sealed layers */
  bool live_sums;       /* what is written gets checksums at once (integrity=on) */
  uint64_t size_bytes;  /* of this part; whole logical blocks; raw: whole blocks of 4 KiB */
  uint32_t block_bytes; /* logical: 512 or 4096 */
};
/* The layer and those below it must be known (shard_layer_set()). -ENOMEM; -ENOENT. */
int shard_volume_open(struct shard *shard, const struct volume_config *config,
                      struct volume **volume);
/* -EBUSY: requests are in flight. */
int shard_volume_close(struct shard *shard, struct volume *volume);
/* More, or less: requests beyond the new end fail. The caller gives space back (OP_DISCARD before).
 */
void shard_volume_resize(struct volume *volume, uint64_t size_bytes);
/* While frozen and drained (OP_FREEZE): another top layer, with what lies below it. */
int shard_volume_set_layer(struct shard *shard, struct volume *volume, uint64_t layer,
                           bool read_only);

/* All that has changed in this shard so far, records included, is to be durable with the volume's
 * next flush. */
void shard_volume_note_changes(struct shard *shard, struct volume *volume);
/* Other threads may read the volume's part by direct_read() from now on, until it is closed, which
 * is -EBUSY while they do. Reads that come as ops tell them where blocks lie. -EOPNOTSUPP: files,
 * live_sums, memory. -ENOMEM. Once more is fine. */
struct direct;
int shard_volume_direct(struct shard *shard, struct volume *volume, struct direct **direct);
/* Reads that were done so in this shard, and their bytes, since it was opened. */
void shard_direct_stats(const struct shard *shard, uint64_t *reads, uint64_t *bytes);
/* From now on, until the next call; NULL: none. The old one is not in use any more on return. */
void shard_volume_set_limit(struct shard *shard, struct volume *volume, struct limit *limit);
/* The parameters of limits in use have changed: in every shard that has volumes under them. */
void shard_limits_changed(struct shard *shard);

/* ---- Layers, as the volumes' records say it ------------------------------------------------- */

/* Makes the layer if it is not there and says what lies below. At open for all of them, in any
 * order; later by whoever changes records. -ENOMEM. */
int shard_layer_set(struct shard *shard, uint64_t layer, struct layer_below below);
/* Blocks that the layer itself holds in this shard (valid), and clusters that it takes. */
void shard_layer_stats(const struct shard *shard, uint64_t layer, struct layer_stats *stats);
/* True for a layer that shard_layer_set() was never told of, since no record names it: what is left
 * of a removal that a crash has cut short. Next one after an id (0: first); 0: none. */
uint64_t shard_next_orphan(const struct shard *shard, uint64_t after);
/* Blocks that the layer has here without a checksum (OP_LAYER_SUM). */
uint64_t shard_unsummed_blocks(const struct shard *shard, uint64_t layer);
/* At open, of a layer that may have been in a merge into one that is written to when the power
 * went: what was written in places that were about to move is right, the checksums are those of
 * before. In memory; made again by the next OP_LAYER_SUM. */
void shard_forget_sums(struct shard *shard, uint64_t layer);
/* At open in spite of damage, of a layer that was written with live_sums: what changes that are
 * missing may have made void. */
void shard_forget_old_sums(struct shard *shard, uint64_t layer);
/* Before the end: OP_LAYER_SUM, running or to come, completes soon with -ECANCELED. */
void shard_sums_stop(struct shard *shard);

/* ---- Control ops (op->kind; submitted by shard_submit()) ------------------------------------ */

/* OP_FREEZE: of volume_args(op)->volume. Requests that come from now on wait; completes when none
 * is in flight. Until OP_THAW. Nests. */
/* OP_HURRY: of volume_args(op)->volume; op->offset: begin (1) or end (0), op->bytes: enum
 * gate_hurry, but NONE. While some have begun it hurries as the most urgent of them. Completes at
 * once. */
/* OP_LAYER_DROP: gives back everything that layer op->offset holds, leaf by leaf, beside
 * requests, then forgets the layer. No volume has it open, no layer lies on it. -EIO, -EROFS. */
/* OP_LAYER_MERGE: volume_args(op)->volume is the part of a volume whose top layer (sealed or not)
 * is the only one that lies on layer op->offset of this shard. What that has and the upper one has
 * not moves up, beside requests; its other space is given back. Afterwards it is empty, and the
 * owner says so in the records: freeze, shard_layer_set() of the upper one with what the merged one
 * lay on, shard_volume_set_layer(), thaw, then OP_LAYER_DROP of the empty one. A crash in between
 * leaves a merge to be done again. Meanwhile the volume must stay open. -EINVAL; -ENOSPC; -EIO;
 * -ECANCELED: the volume got another top layer meanwhile; what was done is done, the rest is to be
 * asked for anew through the volume whose top layer it is now. */
/* OP_LAYER_SUM: reads all blocks of layer op->offset that have no checksum yet and keeps one for
 * each, beside requests; from then on reads verify them. The layer is sealed and stays so. When a
 * merge adds to it later, it is to be asked again. Its owner tells the other shards to forget their
 * views (OP_VIEWS_DROP, offset 1), or they go on without. result: 0, or what could not be read or
 * kept; 0 as well where the layer is not there. */
/* op->bytes: */
enum sum_mode {
  SUM_SEALED = 0,
  SUM_LIVE = 1, /* the layer is written to (live_sums): leaves that are not at the moment */
  SUM_SAVE = 2, /* op->offset 0: of all such layers, what has sums that the log has not is logged as
                   it is, nothing is read, and of very many the rest is left. Before the end */
};
/* OP_PROMOTE: the blocks of [op->offset, +bytes) of volume_args(op)->volume that come from below
 * the top layer are copied into it, atomically beside writes; zeros are not. result: bytes copied
 */
/* OP_RESOLVE: buf: struct resolve_request, which stays the caller's. */
/* OP_VIEWS_DROP: forgets what this shard remembers of places below its top layers; completes when
 * no read that used it is in flight. offset 1: only so that checksums are found that were made
 * since; completes at once. */
/* OP_RECORD: buf: the record's bytes, op->bytes of them (0: remove), op->id: its key. Waits for
 * room in the log. flags OP_DURABLE as for puts. offset 1: with manifest_note_batch(). */
struct resolve_request {
  struct layer_below from; /* in: this shard's layer. out: where it goes on, id 0: nowhere */
  uint64_t leaf;
  uint64_t next_leaf;       /* out: the next one that any of the layers has, UINT64_MAX: none */
  struct resolved resolved; /* in: resolved_init(), or what the shards before have decided */
};

struct volume_stats {
  uint64_t reads, writes, zeroes, discards, syncs, read_bytes, write_bytes;
  uint64_t device_reads, device_writes; /* I/Os of data */
  uint64_t first_writes;                /* blocks that were new in the top layer */
  uint64_t waits;                       /* ops that waited for an overlapping one */
};
void shard_volume_stats(const struct volume *volume, struct volume_stats *stats);
/* How many requests waited at a limit since it was opened, and how long in all: see
 * gate_queue_waits(). Any thread, while it is open. */
struct limit_waits {
  uint64_t count, ns;
};
void shard_volume_limit_waits(const struct volume *volume, struct limit_waits *waits);

#endif
