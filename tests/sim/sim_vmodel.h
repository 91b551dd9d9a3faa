/* sim_vmodel.h - what volumes must say. Knows nothing of stores or disks. One thread.
 *
 * Data is written to some windows of the address space alone, the same in all volumes; their blocks
 * of 4 KiB are the cells. The bytes of a sector follow from a stamp, the number of the write that
 * made them, and from where it lies, so what is read is decoded to stamps. Stamp 0: zeros.
 *
 *   cell      the states that a block may have been in: each from its birth on, until it is dead
 *             because a write that it lacks has completed
 *   content   all cells of a disk; its own after a clone, a snapshot, a roll back
 *   node      a volume for as long as it has its id; a row of versions, one for each change that a
 *             call has made: there or not, its name, its size, its content
 *
 * What may be found: by a read of what lives, the states that died after it was submitted; after a
 * power cut, the states and versions that died after what is covered. */
#ifndef TESTS_SIM_VMODEL_H
#define TESTS_SIM_VMODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "shards/base/base.h"
#include "tests/sim/sim_random.h"

#define CELLS_MAX     96u
#define CELL_SECTORS  8u
#define CELL_SECTOR   512u
#define WINDOWS       3u
#define NODES_MAX     96u
#define VOPS_MAX      16u /* in flight */
#define CELL_VOPS_MAX 3u  /* ... in one cell */
#define CELL_STATES   40u /* no more writes to a cell with so many: a flush is due */
#define VNAME_BYTES   24u
#define NEVER         UINT64_MAX

struct cell_state {
  uint32_t stamp[CELL_SECTORS];
  uint32_t applied; /* writes in flight that are in it; a bit each */
  bool gone;        /* not found after a power cut: what it lacks is durable */
  uint64_t last;    /* the newest of them; 0: none is in flight */
  uint64_t born, died;
};
struct cell {
  struct cell_state *states;
  uint32_t count, room;
  uint32_t pending; /* writes in flight; a bit each */
};
struct content {
  uint32_t refs;
  uint64_t covered; /* what died up to then is not found after a power cut */
  struct cell cells[CELLS_MAX];
};
struct vversion {
  bool there;
  char name[VNAME_BYTES];
  uint64_t size_bytes;
  struct content *content;
  uint64_t born, died;
};
struct vnode {
  bool used, sealed, striped;
  uint64_t id; /* 0: not known yet */
  uint32_t block_bytes;
  struct vversion *versions;
  uint32_t version_count;
  uint64_t covered, made; /* made: when the call that made it was over */
  struct vnode *origin;   /* of a snapshot: what it was made of */
};
enum vkind { V_WRITE, V_ZEROES, V_DISCARD, V_READ, V_SYNC, V_FLUSH, V_KINDS };
struct vop { /* a write of any kind */
  struct vnode *node;
  struct content *content;
  enum vkind kind;
  uint64_t offset, bytes, number;
  uint32_t stamp;
};
struct vmodel {
  uint64_t seed, clock;
  uint64_t covered;     /* by a flush of the store */
  uint64_t killed;      /* when the process was, and what had completed is there; else 0 */
  uint64_t oldest_read; /* when the oldest read in flight was submitted; NEVER: none */
  uint64_t changes;     /* of what may be expected */
  uint32_t stamp;
  bool torn_blocks; /* the disks tear at 512 bytes, not at 4 KiB: sectors are on their own */
  uint64_t window_block[WINDOWS];
  uint32_t window_first[WINDOWS + 1]; /* its first cell */
  uint32_t cell_count;
  struct vop ops[VOPS_MAX];
  struct vnode nodes[NODES_MAX];
};

void vmodel_create(struct vmodel *m, uint64_t seed, struct random *r);
void vmodel_destroy(struct vmodel *m);

/* ---- Bytes ----------------------------------------------------------------------------------- */

uint64_t vmodel_cell_block(const struct vmodel *m, uint32_t cell);
/* Fills [offset, offset + bytes) of a disk, of sectors in windows. */
void vmodel_fill(const struct vmodel *m, uint32_t stamp, uint64_t offset, void *buf,
                 uint64_t bytes);
#define NO_STAMP UINT32_MAX
/* What a sector says that was read from there; NO_STAMP: bytes that nobody has written there. */
uint32_t vmodel_decode(const struct vmodel *m, uint64_t offset, const void *sector);

/* ---- Writes ---------------------------------------------------------------------------------- */

static inline struct vversion *vnode_last(const struct vnode *n) {
  return &n->versions[n->version_count - 1];
}
static inline bool vnode_there(const struct vnode *n) { return n->used && vnode_last(n)->there; }
/* The cells, and the sectors of them, that a range has. */
uint32_t vmodel_first_cell(const struct vmodel *m, uint64_t offset);
uint8_t vmodel_sectors(const struct vmodel *m, uint32_t cell, uint64_t offset, uint64_t bytes);
/* No cell has too many writes in flight, or states. */
bool vmodel_may_write(const struct vmodel *m, const struct vnode *n, uint64_t offset,
                      uint64_t bytes);
/* A write is submitted: m->ops[bit] is filled but for the number. */
void vmodel_begin(struct vmodel *m, uint32_t bit);
void vmodel_end(struct vmodel *m, uint32_t bit, bool done, bool durable);
/* A read, or a part of one: the stamps of the sectors in the mask. since: when it was submitted. */
bool vmodel_may_read(const struct vmodel *m, const struct content *c, uint32_t cell, uint8_t mask,
                     const uint32_t stamps[CELL_SECTORS], uint64_t since);
/* ... of what never changes: the others are out of the question from now on. */
void vmodel_settle(struct vmodel *m, struct content *c, uint32_t cell, uint8_t mask,
                   const uint32_t stamps[CELL_SECTORS]);
/* A flush that was submitted `at` has succeeded: of a volume, or (NULL) of the store. */
void vmodel_cover(struct vmodel *m, struct vnode *n, uint64_t at);

/* ---- Calls ----------------------------------------------------------------------------------- */

/* A free node with a version of not being there. NULL: all are taken. */
struct vnode *vmodel_node(struct vmodel *m);
/* A call begins that gives the node a new version, a copy of the last one to be changed: it takes
 * over its content, or gets one that is made of it. */
struct vversion *vmodel_change(struct vmodel *m, struct vnode *n);
void vmodel_changed(struct vmodel *m, struct vnode *n, bool done);
/* A copy of what c may be now; cells from `blocks` of the disk on become zeros. NULL: all zeros. */
struct content *content_copy(struct vmodel *m, const struct content *c, uint64_t blocks);
/* A call begins that makes the cells from `blocks` on zeros; and it is over. Until it is durable
 * they may come back. */
uint64_t content_trim(struct vmodel *m, struct content *c, uint64_t blocks);
void content_trimmed(struct vmodel *m, struct content *c, uint64_t blocks, uint64_t begun,
                     bool done);
struct content *content_ref(struct content *c);
void content_unref(struct content *c);
void vversion_set_content(struct vversion *v, struct content *c); /* takes over the reference */
struct vnode *vmodel_find(struct vmodel *m, const char *name);
/* Nodes that are gone for good. */
void vmodel_sweep(struct vmodel *m);

/* ---- After a power cut ------------------------------------------------------------------------
 */

bool vmodel_may_be(const struct vmodel *m, const struct vnode *n, const struct vversion *v);
bool vmodel_may_find(const struct vmodel *m, const struct content *c, uint32_t cell,
                     const uint32_t stamps[CELL_SECTORS]);
/* The node is v, with these stamps in its cells. v NULL: it is not there. survives: it was never
 * anything else; else the power did not fail, and what lay in its place may yet come back. */
void vmodel_collapse(struct vmodel *m, struct vnode *n, const struct vversion *v, uint64_t id,
                     const uint32_t (*stamps)[CELL_SECTORS], bool survives);
uint64_t vmodel_expectation(const struct vmodel *m);

#endif
