/* sums_rig.h - disks of two leaves in one shard, their snapshots, checksums and damage: for the
 * tests of checksums of volumes. */
#ifndef TESTS_SUMS_RIG_H
#define TESTS_SUMS_RIG_H

#include "shards/volume.h"
#include "tests/shards/shard_rig.h"

#define DISK_BLOCKS 2048u /* two leaves */
#define DISK_BYTES  ((uint64_t)DISK_BLOCKS << BLOCK_SHIFT)

struct disk {
  struct volume *volume;
  uint64_t layer;
  uint32_t tags[DISK_BLOCKS]; /* the write that a block has; 0: zeros */
};

static const struct layer_below nothing = {0};
struct layer_below here(uint64_t layer);
void fill_block(char *at, uint32_t tag, uint64_t block);
void disk_open(struct rig *r, struct disk *d, uint64_t layer, struct layer_below below,
               bool sealed);
void disk_close(struct rig *r, struct disk *d);
struct shard_op *volume_op(struct rig *r, struct disk *d, uint8_t kind, uint64_t offset,
                           uint64_t bytes, void *buf);
int64_t run(struct rig *r, struct disk *d, uint8_t kind, uint64_t offset, uint64_t bytes,
            void *buf);
void write_blocks(struct rig *r, struct disk *d, uint64_t first, uint64_t count, uint32_t tag);
/* tag counts writes. */
void write_some(struct rig *r, struct disk *d, uint32_t writes, uint32_t *tag);
/* d goes on in a new layer; s is what it was. */
void snapshot(struct rig *r, struct disk *d, struct disk *s, uint64_t layer);
int64_t sum_layer(struct rig *r, uint64_t layer);
int64_t drop_layer(struct rig *r, uint64_t layer);
struct layer_stats stats_of(struct rig *r, uint64_t layer);
void assert_all_summed(struct rig *r, uint64_t layer);
/* Reads all of it, in pieces of all sizes, so that all ways of reading are taken. */
void expect_disk(struct rig *r, struct disk *d);
/* Where a layer has a block; NULL: it has not. */
char *place_of(struct rig *r, uint64_t layer, uint64_t block);
/* One that the layer has. */
uint64_t random_block(struct rig *r, uint64_t layer);
void flip(struct rig *r, uint64_t layer, uint64_t block, uint64_t bit);
void reopen(struct rig *r);
/* A shard that can ask itself. */
void open_rig(struct rig *r, uint64_t seed);

#endif
