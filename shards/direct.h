/* direct.h - reads of a volume on the reader's own thread, without a message to the core that owns
 * it: the core says in a table where blocks lie, and takes it back before that is no longer so.
 *
 * Two sides. The owner's functions belong to the shard's thread. direct_read() may be called by any
 * number of other threads meanwhile; it takes no lock and never waits for the owner.
 *
 * Why a read is right. The table says of 4 MiB of the volume (a leaf) where each block lies. A
 * reader looks there, reads the device, and looks again: only if the leaf says the same still, and
 * has never said anything else meanwhile, the data count. The owner takes a leaf back in the moment
 * in which its map changes: before the change is answered to whoever asked for it, and before the
 * space that it frees can be given to anybody else. So data that count were the block's own from
 * the beginning of the read to its end. An overwrite in place changes no map; a read beside it gets
 * the block as before or as after, as through the owner. With a checksum the data must have that;
 * data that have not are not returned: the owner is asked, who knows what it means.
 *
 * Nothing is there at first. The owner fills a leaf when a read comes to it the usual way
 * (direct_wants()), which is what callers do when direct_read() says no. After a leaf was taken
 * back some reads go by before it is filled again, so that volumes that are written to for the
 * first time all the time are not read twice.
 *
 * Memory: 672 bytes for each leaf of the volume, for at most DIRECT_LEAVES_MAX of them (those in
 * the same slot take turns); up to 12 KiB more for one with checksums or with clusters that are put
 * together from several layers. */
#ifndef SHARDS_DIRECT_H
#define SHARDS_DIRECT_H

#include "shards/map.h"
#include "shards/region.h"

#define DIRECT_LEAVES_MAX 2048u
#define DIRECT_BYTES_MAX  (64u << 10) /* of one read; more is no faster this way */

struct direct;

/* ---- The owner's side ------------------------------------------------------------------------ */

/* regions: of all shards, by number; they and their backings stay until direct_destroy(). bytes: of
 * the volume's part; may grow later. -EOPNOTSUPP: a backing cannot be read by other threads.
 * -ENOMEM. */
int direct_create(struct direct **direct, const struct region *regions, uint32_t region_count,
                  uint64_t bytes);
/* Nobody reads any more. NULL is fine. */
void direct_destroy(struct direct *d);
/* Reads are under way. */
bool direct_is_busy(const struct direct *d);

/* Where the leaf's blocks lie, or their checksums, are about to be others than before, or have just
 * become so. */
void direct_leaf_changed(struct direct *d, uint64_t leaf);
void direct_all_changed(struct direct *d);
/* False: everything is to go through the owner (limits). */
void direct_allow(struct direct *d, bool allowed);

/* True: a read has come that needed this leaf; direct_publish_begin() is to follow. */
bool direct_wants(struct direct *d, uint64_t leaf);

/* Where the blocks of a cluster lie. */
struct direct_cluster {
  uint32_t place[CLUSTER_BLOCKS]; /* region block; 0: zeros */
  uint16_t shard[CLUSTER_BLOCKS];
  uint32_t sum[CLUSTER_BLOCKS];
  uint16_t summed; /* which of them have a checksum */
};
/* Cluster by cluster, 0 to LEAF_CLUSTERS - 1 (NULL: it is not known where its blocks lie); then the
 * leaf counts. */
void direct_publish_begin(struct direct *d, uint64_t leaf);
void direct_publish_cluster(struct direct *d, uint32_t slot, const struct direct_cluster *c);
void direct_publish_end(struct direct *d);
/* What was not known of the leaf, if anything, is known now: it is to be filled again. */
void direct_leaf_incomplete(struct direct *d, uint64_t leaf);

struct direct_stats {
  uint64_t reads, bytes;
};
void direct_stats(const struct direct *d, struct direct_stats *stats);

/* ---- The readers' side ----------------------------------------------------------------------- */

/* [offset, offset + bytes) of the part into buf, any of them with any alignment; it is the caller
 * who knows that it lies within the volume. True: it is there. False: it must be read through the
 * owner; buf may have been written to. */
bool direct_read(struct direct *d, void *buf, uint64_t bytes, uint64_t offset);
/* One that takes several reads, of other parts too, counts as under way from the first to the last.
 * Gives what direct_leave() is to have. */
uint32_t direct_enter(struct direct *d);
void direct_leave(struct direct *d, uint32_t entered);

#endif
