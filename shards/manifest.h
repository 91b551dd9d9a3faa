/* manifest.h - a shard's own record of what it holds: the index and the free space in memory,
 * and on disk the log of every change plus rolling checkpoints of the index.
 *
 * Single-threaded, owned by the shard's core. All I/O is asynchronous through the device,
 * except manifest_recover(). Layout and crash argument: docs/format.md.
 *
 * Changes are applied to the index at once and appended to a staging frame in memory. Full
 * frames are written early ("nothing points at them"); they count after a root (store-wide
 * flush) or a commit frame covers them, or once a flush has, if checksums in them tell of all their
 * data. docs/format.md says what a frame carries.
 *
 *   put, delete -> staging -> frame write in flight -> written -> flush -> covered
 */
#ifndef SHARDS_MANIFEST_H
#define SHARDS_MANIFEST_H

#include "shards/damage.h"
#include "shards/format.h"
#include "shards/index.h"
#include "shards/map.h"
#include "shards/records.h"
#include "shards/region.h"
#include "shards/space.h"

struct manifest;
struct survivor;

struct manifest_config {
  struct region *region;
  struct device *device; /* NULL: recovery only, for offline tools */
  uint8_t uuid[16];
  uint64_t hash_key[2];
  uint32_t shard, shard_count;
  uint64_t incarnation; /* of this open: the root's + 1 */
  struct clock clock;
  struct logger logger;
  bool read_only;
  uint32_t frame_target_bytes;     /* a frame with so many is written; 0: the default */
  uint32_t checkpoint_group_bytes; /* partitions are joined until a checkpoint has so many; default
                                      64 KiB */
  enum damaged_mode damaged;       /* other than refuse: read_only is set */
  bool root_lost; /* damaged: other shards show that the root is not the newest there was */
  struct damage_sink damage;
  /* Of a process that was killed: what it had completed and not made durable, to be taken over as
   * if it had been done here. NULL: nothing is known of it. Its frames behind what counts without
   * it count then as well, as far as they are whole. */
  const struct survivor *survived;
  struct survivor *survivor; /* zeroed; where to keep the same of this one; NULL: nowhere */
};

/* Loads the checkpoints that the root names, replays the log up to the committed tail (the
 * root's, or as far as what lies behind it counts), rebuilds the free space. Synchronous; many
 * shards may do it in parallel on their own threads. What is on disk stays what it is: at most the
 * same bytes are written again (recover_tail.c). 0; -EBADMSG (why names the place: shard, log
 * position or block); -ENOMEM; -EIO. */
int manifest_recover(struct manifest **m, const struct manifest_config *config,
                     const struct root *root, char *why, size_t why_bytes);
/* Any thread. -ENOENT; -EBADMSG: nobody knows, since what would tell was damaged
 * (manifest_config.damaged). */
int manifest_absent(const struct manifest *m, uint64_t hash);
/* The same of a blob that is there: true if it may be older than the last one put. */
bool manifest_is_old(const struct manifest *m, uint64_t hash, struct blob_id id);
/* Recovered in spite of damage, and changes or checkpoints are missing: of clusters and records
 * some may be missing or old. */
bool manifest_has_losses(const struct manifest *m);
/* Drops everything in memory; no I/O may be in flight (manifest_idle()). */
void manifest_destroy(struct manifest *m);
bool manifest_idle(const struct manifest *m);

struct index *manifest_index(struct manifest *m);
struct space *manifest_space(struct manifest *m);

/* Reserves memory in the index and room in the log for one put (or, with 0, 0, one delete).
 * Every reservation is consumed by exactly one manifest_put/_delete/_cancel.
 * -EAGAIN: the log has no room until checkpoints have advanced its head: wait for
 * a later tick. -ENOMEM. -EIO: writing has stopped after a failed flush. -EROFS. */
int manifest_reserve(struct manifest *m, uint64_t hash, uint32_t extents, uint32_t granules);
void manifest_cancel(struct manifest *m, uint32_t extents, uint32_t granules);
/* Reserves log room for several changes that are made in one go, without anything else in between:
 * they need fewer frames than as many single ones. No memory in the index. As manifest_reserve();
 * -ENOSPC: the log is too small for it, ever. */
struct manifest_group {
  uint32_t count, large; /* changes; those with large entries among them */
  bool puts;             /* not deletes alone */
  uint64_t small_bytes, large_bytes;
};
void manifest_group_add(struct manifest_group *g, uint32_t extents, uint32_t granules);
int manifest_reserve_group(struct manifest *m, const struct manifest_group *g);
void manifest_cancel_group(struct manifest *m, const struct manifest_group *g);
/* Begins the use: g->count single reservations follow from it, to be consumed before this call's
 * caller returns. */
void manifest_use_group(struct manifest *m, const struct manifest_group *g);
/* Ends it: after a crash all its changes are there, or none. */
void manifest_end_group(struct manifest *m);
/* The last changes belong to a batch with others in other shards: they, and all before them, count
 * only when a root names them. Until then no commit is made here, since it would make them count in
 * this shard alone; who waits for one waits for a store-wide flush, which is asked for. */
void manifest_note_batch(struct manifest *m);
/* The change, visible at once; cannot fail after manifest_reserve(). The replaced blob's extents
 * go to space_free(). Returns the change's sequence number. The blob's data must have been
 * written completely (its I/O completed). */
uint64_t manifest_put(struct manifest *m, uint64_t hash, const struct blob *blob);
/* The id must exist (check with index_find()). */
uint64_t manifest_delete(struct manifest *m, uint64_t hash, struct blob_id id);

/* ---- Volumes ------------------------------------------------------------------------------- */

/* Layers and their clusters. What is changed through layer_set() alone is in memory only: so may a
 * place be held for a write that is under way (no valid bit), which no log or checkpoint has. */
struct map *manifest_map(struct manifest *m);
/* Log room for one change of at most so many clusters (1 to 64) of one leaf, of layer to layer
 * moves too. frees: the change only gives back space (discard, drop): may use the part of the log
 * kept for deletes. Errors as manifest_reserve(). Every reservation is consumed by exactly one
 * manifest_set_clusters/_move_clusters/_cancel_map with the same count. */
int manifest_reserve_map(struct manifest *m, uint32_t clusters, bool frees);
void manifest_cancel_map(struct manifest *m, uint32_t clusters);
/* Sets the clusters of one leaf whose bits are in `which` to clusters[slot] (array of 64, indexed
 * by slot), visible at once, logged. The leaf must exist (layer_pin_leaf). A place that a cluster
 * had and does not keep goes to space_free(). popcount(which) <= reserved. The data must have been
 * written. Returns the change's sequence. */
uint64_t manifest_set_clusters(struct manifest *m, struct layer *layer, uint64_t leaf,
                               uint64_t which, const struct cluster clusters[LEAF_CLUSTERS],
                               uint32_t reserved);
/* One change, atomic: of `from` the clusters in which_from become empty, of `to` those in which_to
 * become clusters[slot]. Frees nothing: the caller gives back later what neither keeps
 * (space_free()), when nobody can read it any more. Both leaves must exist. */
uint64_t manifest_move_clusters(struct manifest *m, struct layer *from, uint64_t which_from,
                                struct layer *to, uint64_t which_to, uint64_t leaf,
                                const struct cluster clusters[LEAF_CLUSTERS], uint32_t reserved);
/* Checksums of the blocks of a leaf, instead of those that it had: as layer_set_sums(), logged. The
 * data was written before, and does not change until they are void again. Room in the log for any
 * number of them: errors as manifest_reserve(), each consumed by one
 * manifest_set_sums/_cancel_sums. */
int manifest_reserve_sums(struct manifest *m);
void manifest_cancel_sums(struct manifest *m);
/* 0; -ENOMEM: nothing has changed. */
int manifest_set_sums(struct manifest *m, struct layer *layer, uint64_t leaf,
                      const struct leaf_sums *sums);
/* The log has no sums of the leaf from now on, memory keeps them: layer_heat_sums(), logged. Blocks
 * may be overwritten when that is durable. Room for one of them as above; the change's sequence. */
int manifest_reserve_void(struct manifest *m);
uint64_t manifest_void_sums(struct manifest *m, struct layer *layer, uint64_t leaf);
/* What manifest_commit() would wait for has been. */
bool manifest_is_durable(const struct manifest *m, uint64_t sequence);
/* Recovered in spite of damage: changes of the leaf may be missing. */
bool manifest_leaf_is_old(const struct manifest *m, uint64_t layer, uint64_t leaf);
/* Data was overwritten in place: no change of the manifest, but a flush is needed. Makes the shard
 * dirty; returns what a waiter's `sequence` must be so that manifest_commit() covers it. */
uint64_t manifest_note_data(struct manifest *m);
/* What a waiter's `sequence` must be to cover all that was changed until now. */
uint64_t manifest_last_change(const struct manifest *m);
/* Small values under a 128-bit key, kept whole in memory and in the log: the volumes' records. At
 * most RECORD_BYTES_MAX. A reservation is consumed by exactly one manifest_put_record() or
 * manifest_cancel_record() with the same number of bytes. bytes 0: removes. Errors as
 * manifest_reserve(). */
int manifest_reserve_record(struct manifest *m, struct blob_id key, uint32_t bytes);
void manifest_cancel_record(struct manifest *m, uint32_t bytes);
uint64_t manifest_put_record(struct manifest *m, struct blob_id key, const void *data,
                             uint32_t bytes);
const struct records *manifest_records(const struct manifest *m);

/* Calls done when everything up to the sequence survives any crash: writes the staged frames,
 * one flush of the region's files; then, if there is something in them that recovery could not
 * verify, one commit frame (FUA). Waiters share it (group commit). Or, after
 * manifest_note_batch(), when a root names it. */
struct manifest_waiter {
  void (*done)(struct manifest_waiter *waiter, int result);
  struct manifest_waiter *next; /* the manifest's */
  uint64_t sequence;
};
void manifest_commit(struct manifest *m, struct manifest_waiter *waiter);

/* One shard's part of a store-wide flush: closes epoch seal->epoch, writes the frames, then
 * (flush_files) flushes the region's files; done gets what the next root must say of this shard.
 * A shard with nothing to flush completes at once with dirty = false and the last root. One
 * seal at a time. New changes belong to the next epoch from the call on. */
struct manifest_seal {
  void (*done)(struct manifest_seal *seal);
  uint64_t epoch;
  bool flush_files; /* false: the caller flushes the device for all shards, after done */
  bool dirty;
  bool flushed;    /* durable commits have flushed all of it already: no file needs a flush */
  bool batched;    /* has changes of manifest_note_batch() that no root names yet: either all shards
                      that say so get into the next root, or none. Of a shard that stopped earlier:
                      only in its first seal since. */
  bool verifiable; /* flushed, it survives: recovery needs no root to see that it counts */
  bool directory;  /* has written one, which only a root names */
  int result;      /* 0 or -errno: then this shard stops writing (-EIO) until it is reopened */
  struct root_shard root;
};
void manifest_seal(struct manifest *m, struct manifest_seal *seal);
/* The root of an epoch, the newest there is, is durable (result 0): what this shard sealed for it
 * counts, freed space moves on, the log's head advances. Or the flush has failed (-errno): this
 * shard stops writing. */
void manifest_root_durable(struct manifest *m, uint64_t epoch, int result);
/* What was sealed, and is verifiable, is flushed: it is durable, before its root is. */
void manifest_seal_survives(struct manifest *m);
/* After that: no root is written for it, it belongs to the next epoch again. */
void manifest_root_skipped(struct manifest *m);

bool manifest_stopped(
    const struct manifest *m); /* after a failed write or flush: takes no change */
/* Until the first root has what survived: blocks that are free may still be named by the last one.
 */
bool manifest_unsettled(const struct manifest *m);
bool manifest_dirty(const struct manifest *m); /* something completed is not durable */
/* Background work: writes full frames, runs commits, takes a checkpoint step when the log is
 * more than half full. True if it did something. */
bool manifest_tick(struct manifest *m);
/* The log cannot go on for long without a store-wide flush: ask the coordinator for one. */
bool manifest_wants_flush(const struct manifest *m);
/* Makes it want one, because so many freed blocks wait for it. False: none are, or writing has
 * stopped: a flush would not help. */
bool manifest_ask_flush(struct manifest *m, uint64_t pending_blocks);
/* Asks for a checkpoint of all partitions; done by ticks; true when none is outstanding. */
void manifest_checkpoint_all(struct manifest *m);
bool manifest_checkpoint_done(const struct manifest *m);
/* How far the region was written once (zeroed ahead); goes into the next root. */
void manifest_set_zeroed_blocks(struct manifest *m, uint64_t blocks);
uint64_t manifest_zeroed_blocks(const struct manifest *m);
/* Stops writing from now on with -EIO (a failed data flush elsewhere). */
void manifest_stop(struct manifest *m);

struct manifest_stats {
  uint64_t log_blocks_used, log_blocks, log_frames, checkpoints, commits, commit_waiters;
  uint64_t checkpoint_blocks; /* space taken by live checkpoints and directories */
};
void manifest_stats(const struct manifest *m, struct manifest_stats *stats);

#endif
