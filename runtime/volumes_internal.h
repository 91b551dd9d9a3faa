/* volumes_internal.h - what the files of the catalog share. Not for other modules. Under the
 * catalog's lock, on the thread of the port, unless said otherwise. */
#ifndef RUNTIME_VOLUMES_INTERNAL_H
#define RUNTIME_VOLUMES_INTERNAL_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/store.h"

/* ---- volumes.c --------------------------------------------------------------------------------
 */

/* Locks. -EROFS: writing, and the store is read-only. */
int catalog_enter(struct port *port, bool writing, struct catalog **c);
static inline int catalog_leave(struct catalog *c, int result) {
  pthread_mutex_unlock(&c->lock);
  return result;
}
/* By name or "#id"; -ENOENT, and what volume_name_check() says. */
/* volume_damaged.c: after a recovery in spite of damage, which volumes may be old. -ENOMEM. */
int catalog_report_losses(struct catalog *c, struct port *port);
int catalog_find(const struct catalog *c, const char *name, struct vdisk **disk);
/* The same, once no merge concerns it. Waits without the lock. */
int catalog_find_settled(struct catalog *c, const char *name, struct vdisk **disk);
struct vdisk *catalog_find_id(const struct catalog *c, uint64_t id);
/* A new name: well-formed and free. */
int catalog_check_name(const struct catalog *c, const char *name);
/* The first one after a name in alphabetical order. */
struct vdisk *catalog_after(const struct catalog *c, const char *name);
/* Memory for a volume with this name (NULL: none) that is not in the catalog yet. */
struct vdisk *vdisk_create(const char *name);
void vdisk_destroy(struct vdisk *d);
/* Into table and tree; -ENOMEM from the first call alone. */
int catalog_reserve(struct catalog *c, uint32_t more);
void catalog_add(struct catalog *c, struct vdisk *d);
void catalog_take(struct catalog *c, struct vdisk *d);
/* Under another name: name is a malloc'd string that is taken over, NULL: none from now on. */
void catalog_set_name(struct catalog *c, struct vdisk *d, char *name);
struct vdisk_group *catalog_group(struct catalog *c, const char *name, bool make);
/* What its record says. */
void vdisk_record(const struct vdisk *d, struct volume_record *r);

/* ---- volume_change.c: changes of records -------------------------------------------------------
 */

#define NO_SHARD   UINT32_MAX
#define ALL_SHARDS (UINT32_MAX - 1)

struct record_put {
  struct blob_id key;
  uint32_t bytes; /* 0: removal */
  uint8_t data[VOLUME_RECORD_MAX];
};
/* One or two records of one shard, `home`, that change together. `with`: a shard (ALL_SHARDS: every
 * one) that none of them must do without, after a crash: so the change is made inside the gate of
 * the batches (batch.h), and in all these shards counts by a root alone. They get a mark for that,
 * the removal of a record that is never there, since what a shard does not change is not
 * committed. */
struct change {
  struct port *port;
  uint32_t home, with;
  uint32_t put_count;
  struct record_put puts[2];
  /* Made before, if layer is not 0: in all shards of a striped volume, else in `home`. */
  uint64_t layer;
  struct layer_below below; /* shard: of a striped one each shard's own */
  bool striped;
};
void change_init(struct change *ch, struct port *port, uint32_t home, uint32_t with);
/* What changes takes this name: one that was given up in another shard needs that shard, too. */
void change_name(struct change *ch, const char *name);
/* A volume in the shard has it no more. */
void names_give_up(struct catalog *c, const char *name, uint32_t shard);
void change_put(struct change *ch, const struct volume_record *r);
void change_remove(struct change *ch, uint64_t id);
void change_layer(struct change *ch, const struct vdisk *of, uint64_t layer,
                  const struct vdisk *below);
/* Room for it, and the layer; then exactly one of the other two. Waits for flushes if the logs are
 * full. -ENOSPC, -EIO, -ENOMEM. */
int change_reserve(struct change *ch);
void change_apply(struct change *ch);
void change_cancel(struct change *ch);
/* Both. */
int change_run(struct change *ch);

/* When is now (after a change that it is to tell of); and whether what was changed then survives
 * any crash. 0: it does. */
uint64_t epoch_now(const struct store *s);
bool epoch_durable(const struct store *s, uint64_t epoch);

/* Drops a layer of shards [first, end) in the background; wait: until it is done. sealed: others
 * may have read through it. Failures are logged. */
void job_drop(struct port *port, uint64_t layer, uint32_t first, uint32_t end, bool sealed,
              bool wait);

/* ---- Calls on cores -----------------------------------------------------------------------------
 */

/* Runs one op in a shard, and waits; its result. */
int64_t run_in_shard(struct port *port, uint32_t shard, struct shard_op *op);
/* Runs fn for each shard [first, end) on its core, until one fails. */
typedef int shard_call_fn(struct core *core, uint32_t shard, void *arg);
int call_shards(struct port *port, uint32_t first, uint32_t end, shard_call_fn *fn, void *arg);

/* ---- volume_open.c --------------------------------------------------------------------------- */

struct vdisk_open {
  uint32_t openers, writers;
  struct block *handles;
  struct volume *parts[]; /* one, or [shard_count] */
};
static inline uint32_t vdisk_part_count(const struct vdisk *d, uint32_t shard_count) {
  return vdisk_striped(d) ? shard_count : 1;
}
/* Opens the parts if they are not (counts as an opener that has no handle). */
int vdisk_hold(struct port *port, struct vdisk *d);
int vdisk_release(struct port *port, struct vdisk *d);
/* Closes all handles, as far as nothing is in flight. */
void catalog_abandon_blocks(struct catalog *c, struct port *port);
/* Of an open volume: OP_FREEZE on all parts or none; OP_THAW. Nothing if it is not open. */
int vdisk_freeze(struct port *port, struct vdisk *d);
void vdisk_thaw(struct port *port, struct vdisk *d);
/* The next flush of the open volume covers what its record's shard has now. */
void vdisk_note_changes(struct port *port, struct vdisk *d);
/* Bytes of a part of d if it is so large. */
uint64_t vdisk_part_bytes(const struct vdisk *d, uint32_t count, uint32_t part,
                          uint64_t size_bytes);
/* Of an open volume: what its parts take; what its handles say. */
void vdisk_set_size(struct port *port, struct vdisk *d, uint64_t size_bytes);
void vdisk_show_size(struct vdisk *d, uint64_t size_bytes);
/* Of a frozen volume: another top layer on all parts, or the old one on all. */
int vdisk_set_layer(struct port *port, struct vdisk *d, uint64_t layer);

/* ---- volume_walk.c --------------------------------------------------------------------------- */

/* What lies where in one part of a volume, all layers together. Keeps no lock: the volume must be
 * held by `pins` or `changing`, and layers by `walks`. */
struct walk {
  struct port *port;
  uint32_t count;                 /* 0: of a volume that is not there */
  struct layer_below *below;      /* one for each run of layers of one shard */
  uint64_t next;                  /* the leaf after the last one resolved; UINT64_MAX: none */
  struct resolve_request request; /* its result */
};
/* From d's own layer on, or (under) from its parent's. Under the lock. -ENOMEM. */
int walk_init(struct walk *w, struct port *port, const struct vdisk *d, uint32_t part, bool under);
void walk_finish(struct walk *w);
int walk_resolve(struct walk *w, uint64_t leaf);

/* ---- volume_sums.c --------------------------------------------------------------------------- */

/* The layer of a snapshot gets its checksums in the background, unless it is to have none. */
void sums_begin(struct port *port, const struct vdisk *d);
/* At open: those that were not done. */
void sums_resume(struct catalog *c, struct port *port);
/* Before the end: what is under way ends soon. */
void sums_stop(struct catalog *c, struct port *port);
/* Then: what only memory has of the checksums of volumes with integrity=on is logged, so that the
 * next open need not read their data. */
void sums_save(struct catalog *c, struct port *port);

/* ---- volume_life.c --------------------------------------------------------------------------- */

/* Merges what `merge_wanted` is about. Lets go of the lock meanwhile. */
void catalog_merge(struct catalog *c, struct port *port);
/* Removed snapshots that nothing lies on, from d on down. */
void drop_nameless(struct port *port, struct vdisk *d);
/* Of a held volume: its own layer has all that lay between it and `below` (NULL: nothing is to lie
 * below), and says so from now on. `gone`: its record goes in the same moment; NULL: none. Only the
 * record, the shards and the parts change, not the catalog. */
int vdisk_move(struct port *port, struct vdisk *d, const struct vdisk *below,
               const struct vdisk *gone);
/* d no longer lies on its parent: nameless ones that nothing lies on any more go, from there on
 * down. */
void release_parent(struct port *port, struct vdisk *d);

#endif
