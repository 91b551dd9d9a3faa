/* map.h - where the clusters of a shard's volumes lie: one tree for each layer, all in memory.
 *
 * Single-threaded, owned by a shard. A layer is what was written between two snapshots. Its address
 * space is cut into clusters of 16 blocks (64 KiB), and clusters into leaves of 64 (4 MiB). A
 * cluster has one place, 16 blocks in a row, and two bits for each of its blocks:
 *
 *   valid  the layer has the block's bytes, at place + number
 *   zero   the layer says that the block is zeros, whatever layers below have. Never with `valid`
 *   none   the layer below decides; if there is none the block is zeros
 *
 * A place may be held with no valid bit: an allocation whose write is under way.
 *
 * Leaves are 512 bytes of entries and a small header in a slab; above them nodes of 128 references,
 * only as many levels as the layer's highest leaf needs. An empty layer has no node and takes about
 * 100 bytes. RAM for 1 TiB that is fully written: below 160 MiB, all included. A leaf is there from
 * its first pin until nothing pins it and all its clusters are empty. Reads are the owner's too:
 * they remember the leaf that they found last.
 *
 * Every leaf belongs to one of INDEX_PARTITIONS partitions by a hash of layer and number, which the
 * checkpoints are made of. Nothing here writes to disk or knows free space: manifest.h does. */
#ifndef SHARDS_MAP_H
#define SHARDS_MAP_H

#include "shards/block_sums.h"
#include "shards/index.h"

#define CLUSTER_BLOCKS      16u
#define CLUSTER_BLOCK_SHIFT 4u
#define CLUSTER_SHIFT       16u /* bytes */
#define LEAF_CLUSTERS       64u
#define LEAF_CLUSTER_SHIFT  6u
#define LEAF_BLOCKS         1024u
#define LEAF_BLOCK_SHIFT    10u
#define LEAF_SHIFT          22u                 /* bytes */
#define MAP_LEAVES_MAX      (UINT64_C(1) << 24) /* of a layer: 64 TiB */
/* Clusters end at or before this region block, so that RESOLVED_ZERO is nobody's place. */
#define MAP_PLACES_MAX ((UINT64_C(1) << 32) - 16)

/* One cluster. All zeros: nothing is said of it. */
struct cluster {
  uint32_t place; /* region block; 0: none */
  uint16_t valid, zero;
};
_Static_assert(sizeof(struct cluster) == 8, "a leaf is 512 bytes");
static inline bool cluster_is_empty(struct cluster c) { return !c.place && !c.zero; }
/* The bits of blocks [first, first + count) of a cluster; count 1 to 16. */
static inline uint16_t cluster_bits(uint32_t first, uint32_t count) {
  return (uint16_t)(((1u << count) - 1) << first);
}

struct map;
struct layer; /* stays where it is until map_layer_remove() */

int map_create(struct map **map, const uint64_t key[2]); /* key: of the partitions' hash */
void map_destroy(struct map *map);

/* ---- Layers ------------------------------------------------------------------------------- */

/* ids: any but 0; unique in the whole store. NULL: unknown. */
struct layer *map_layer(const struct map *map, uint64_t id);
/* Finds, or makes an empty one. -ENOMEM. */
int map_layer_add(struct map *map, uint64_t id, struct layer **layer);
/* It must be empty. */
void map_layer_remove(struct map *map, struct layer *layer);
/* All of them, in no order: starts with NULL, ends with NULL. Removing the returned one is fine
 * once its successor is known. */
struct layer *map_layer_next(const struct map *map, const struct layer *before);
uint64_t layer_id(const struct layer *layer);

/* What lies below: a layer of the same shard, of another one, or nothing (id 0). Not checked here,
 * not on disk: the volumes' records say it, and whoever reads them sets it. */
struct layer_below {
  uint64_t id;
  uint32_t shard;
};
void layer_set_below(struct layer *layer, struct layer_below below);
struct layer_below layer_below(const struct layer *layer);
/* layer_set_below() was called: some record names it. */
bool layer_is_named(const struct layer *layer);

struct layer_stats {
  uint64_t leaves /* with a cluster that is not empty */, clusters /* that have a place */;
  uint64_t valid_blocks, zero_blocks;
  uint64_t summed_blocks; /* that have a checksum */
};
void layer_stats(const struct layer *layer, struct layer_stats *stats); /* counted along: O(1) */

/* ---- Clusters ----------------------------------------------------------------------------- */

/* cluster: number in the layer; all zeros beyond its end. O(levels). */
struct cluster layer_get(const struct layer *layer, uint64_t cluster);
/* The 64 entries of a leaf, or NULL: it is not there. Valid until the next change of the map. */
const struct cluster *layer_leaf(const struct layer *layer, uint64_t leaf);
void layer_prefetch(const struct layer *layer, uint64_t cluster);
/* The first leaf at or after a number that is there; UINT64_MAX: none. */
uint64_t layer_next_leaf(const struct layer *layer, uint64_t leaf);
/* Makes the leaf exist, so that layer_set() in it cannot fail until layer_unpin_leaf(). Counts:
 * pins are few (changes under way). -ENOMEM. */
int layer_pin_leaf(struct map *map, struct layer *layer, uint64_t leaf);
/* Undoes one pin; a leaf without pins whose clusters are all empty goes away. */
void layer_unpin_leaf(struct map *map, struct layer *layer, uint64_t leaf);
/* The leaf must exist. An entry with valid & zero, or valid bits without a place, is a bug (check).
 * A leaf that becomes empty goes away unless it is pinned. */
void layer_set(struct map *map, struct layer *layer, uint64_t cluster, struct cluster c);
/* `changed` is told of each change of watched layers: after it, of what blocks have (a place that
 * is given to a cluster without valid bits is none), or of a leaf's checksums by layer_set_sums().
 */
typedef void map_changed_fn(void *arg, const struct layer *layer, uint64_t leaf);
void map_watch(struct map *map, map_changed_fn *changed, void *arg);
void layer_set_watched(struct layer *layer, bool watched);
/* The same for all entries of a leaf at once: less work than one by one, for loading. */
void layer_set_leaf(struct map *map, struct layer *layer, uint64_t leaf,
                    const struct cluster clusters[LEAF_CLUSTERS]);

/* Checksums of blocks. They go with the data: a change of a cluster takes those away whose block it
 * gives another place or none. The leaf must exist; sums of blocks without data are left out.
 * Replaces all that the leaf had. -ENOMEM: it has what it had. */
int layer_set_sums(struct map *map, struct layer *layer, uint64_t leaf,
                   const struct leaf_sums *sums);
/* NULL: none. Valid until the next change of the map. */
const struct block_sums *layer_sums(const struct layer *layer, uint64_t leaf);
/* Its blocks get checksums: it does not change any more, but for what a merge brings. Not on disk.
 * True also for layers that have some. */
void layer_set_summed(struct layer *layer);
bool layer_is_summed(const struct layer *layer);

/* Of a layer that is written to (live): the sums of a leaf are cold, log and checkpoints may have
 * them, or hot: they have none, so the blocks may be overwritten in place. Cold ones that are
 * packed are all in the log. Not on disk; who changes blocks keeps the state. */
void layer_set_live(struct layer *layer, bool live);
bool layer_is_live(const struct layer *layer);
/* Leaves of it that have sums which the log has not. */
uint64_t layer_unsaved_leaves(const struct layer *layer);
uint64_t map_unsaved_leaves(const struct map *map); /* of all layers */
/* NULL: the leaf's sums are packed, or it has none. Its owner may change voided, stamp and turn. */
struct live_sums *layer_live_sums(const struct layer *layer, uint64_t leaf);
/* It has one from now on. Where there were no sums at all they are hot. The leaf must exist. */
int layer_spread_sums(struct map *map, struct layer *layer, uint64_t leaf);
/* From now on they are hot. They must be spread. */
void layer_heat_sums(struct map *map, struct layer *layer, uint64_t leaf);
/* The blocks of the bits, which must have data, get sum[block]; NULL: they lose what they have.
 * They must be spread. */
void layer_put_sums(struct map *map, struct layer *layer, uint64_t leaf,
                    const uint16_t bits[LEAF_CLUSTERS], const uint32_t *sum);
/* The same of one block. */
void layer_put_sum(struct map *map, struct layer *layer, uint64_t block, uint32_t sum);
/* What a checkpoint may have of them; NULL: nothing. */
const struct block_sums *layer_lasting_sums(const struct layer *layer, uint64_t leaf);
bool layer_is_pinned(const struct layer *layer, uint64_t leaf);

uint64_t map_ram_bytes(const struct map *map);

/* ---- Partitions --------------------------------------------------------------------------- */

uint64_t map_leaf_hash(const struct map *map, uint64_t layer_id, uint64_t leaf);
static inline uint32_t map_partition_of(uint64_t hash) { return index_partition_of(hash); }
/* As many as map_partition_visit() visits. */
uint64_t map_partition_leaves(const struct map *map, uint32_t partition);
/* Calls visit for each leaf of a partition that is not empty, in no order; stops at non-zero and
 * returns it. No change of the map inside. */
int map_partition_visit(const struct map *map, uint32_t partition,
                        int (*visit)(void *arg, struct layer *layer, uint64_t leaf,
                                     const struct cluster clusters[LEAF_CLUSTERS]),
                        void *arg);

/* ---- Resolving ------------------------------------------------------------------------------ */

/* Where each block of a leaf lies when all layers from one downwards are seen as one. Filled from
 * the top: what is decided stays. */
#define RESOLVED_NOT  0u /* not decided; at the end: zeros */
#define RESOLVED_ZERO UINT32_MAX
struct resolved {
  uint32_t place[LEAF_BLOCKS]; /* region block of a shard, or one of the above */
  uint16_t shard[LEAF_BLOCKS];
  uint32_t undecided; /* blocks that are RESOLVED_NOT */
  bool unsummed;      /* some with data have no checksum */
  struct leaf_sums sums;
};
void resolved_init(struct resolved *r);
/* Goes down from a layer through all that lie in this shard. What lies below the last one, if
 * something is undecided still, else id 0: ask that shard to go on. Layers that do not exist
 * here but are named by layer_below() with this shard's number count as empty ends. `shard`: this
 * one's number. Whoever reads the records sees to it that no layer lies below itself. */
struct layer_below layer_resolve(const struct map *map, struct layer_below from, uint32_t shard,
                                 uint64_t leaf, struct resolved *r);

/* A view: all layers from one downwards as one, leaf by leaf, in as little memory as that takes.
 * Belongs to whoever reads through it; knows nothing of the map that it was made from. */
struct view;
int view_create(struct view **view);
void view_destroy(struct view *view);
/* The longest run of blocks from `block` on, of at most `max` (1 or more), that lie in a row of one
 * shard or are all zeros. Returns its length, 0 if the leaf is not there: resolve it, and
 * view_add_leaf(). zeros: place 0, shard 0. Does not cross a leaf. */
uint32_t view_lookup(const struct view *view, uint64_t block, uint32_t max, uint32_t *place,
                     uint16_t *shard);
void view_prefetch(const struct view *view, uint64_t block);
/* Checksums of a leaf's blocks, as they were resolved; NULL: none. Valid until the next change. */
const struct block_sums *view_sums(const struct view *view, uint64_t leaf);
/* Replaces what was there; undecided blocks are zeros. A leaf of zeros alone is remembered as that,
 * in a few bytes. -ENOMEM: the leaf is not there, so what was there before is not read again. */
int view_add_leaf(struct view *view, uint64_t leaf, const struct resolved *r);
void view_drop_leaf(struct view *view, uint64_t leaf);
void view_drop_all(struct view *view);
uint64_t view_ram_bytes(const struct view *view);

#endif
