/* vrig.h - clusters of layers, records and data in place for the manifest's rig: changes of them, a
 * digest for its model, and all of it by chance. A cluster is known by what its first block holds,
 * not by its place: one that was given to others too early shows. */
#ifndef TESTS_VRIG_H
#define TESTS_VRIG_H

#include "tests/shards/manifest_rig.h"

/* Clusters of layer 99, leaf 7, whose block 5 is overwritten where it lies. */
#define IN_PLACE  4u
#define UNDER_WAY 6u

struct pending_write {
  uint64_t layer, leaf;
  uint32_t slot, place;
};
struct vrig {
  struct mrig m; /* first: r->extra gets it */
  uint64_t versions;
  struct pending_write pending[UNDER_WAY]; /* place 0: none */
  uint64_t latest[IN_PLACE], durable[IN_PLACE];
  struct mwaiter waiter;
  uint64_t waited[IN_PLACE];
  uint64_t sets, moves, refused, notes_covered;
};

void vrig_open(struct vrig *v, uint64_t blocks, uint64_t log_blocks, uint64_t seed);
/* As mrig_crash(); and data in place are as new as was promised. */
void vrig_crash(struct vrig *v);
/* What is on disk is what is in memory. */
void vrig_assert_recovers(struct vrig *v);
/* Checkpoints of everything, and a flush. */
void vrig_checkpoint_all(struct vrig *v);

/* What write_stamp() wrote; 0: something else. */
uint64_t vrig_stamp(struct mrig *r, uint64_t block);
void vrig_write_stamp(struct vrig *v, uint64_t block, uint64_t version);
/* Blocks for a cluster; 0: there are none. */
uint32_t vrig_take_place(struct vrig *v);
/* The leaf is there until unpinned. */
struct layer *vrig_pin(struct vrig *v, uint64_t id, uint64_t leaf);
void vrig_unpin(struct vrig *v, struct layer *layer, uint64_t leaf);
/* How the digest changes when the clusters of `which` become those; NULL: empty. */
uint64_t vrig_delta(struct vrig *v, struct layer *layer, uint64_t leaf, uint64_t which,
                    const struct cluster *clusters);
/* 0, or what the reservation says. */
int vrig_set(struct vrig *v, uint64_t id, uint64_t leaf, uint64_t which,
             const struct cluster *clusters, bool frees);
/* One with new data, which must be possible: its place. */
uint32_t vrig_set_one(struct vrig *v, uint64_t id, uint64_t number, uint16_t valid);
void vrig_drop_one(struct vrig *v, uint64_t id, uint64_t number);
struct cluster vrig_get(struct manifest *m, uint64_t id, uint64_t number);
/* Clusters of one leaf go over, as far as which_to has them; the rest is dropped. */
int vrig_move(struct vrig *v, uint64_t from_id, uint64_t to_id, uint64_t leaf, uint64_t which,
              uint64_t which_to);
struct blob_id vrig_key(uint32_t n);
int vrig_put_record(struct vrig *v, uint32_t n, uint32_t bytes);
uint64_t vrig_record_digest(struct blob_id key, const void *data, uint32_t bytes);
/* Overwrites a block where it lies: the ticket. */
uint64_t vrig_in_place(struct vrig *v, uint32_t i);

/* By chance: clusters of one leaf; anything, changes of blobs and the rest too. */
void vrig_random_set(struct vrig *v);
void vrig_random_step(struct vrig *v);

#endif
