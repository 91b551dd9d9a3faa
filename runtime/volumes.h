/* volumes.h - the catalog: all volumes of a store in memory, by name and by id, with who lies on
 * whom; and what changes them.
 *
 * Everything with a name is a volume. A snapshot is a volume that is sealed: its top layer never
 * changes again. A volume that lies on a snapshot (its parent) has a top layer of its own, and
 * below it the snapshot's. A snapshot is made by giving the volume a new layer: the snapshot keeps
 * the old one. A removed snapshot that something lies on stays without a name until its last child
 * has gone.
 *
 * On disk a volume is a record (volume_record.h) in its first shard; the shards' maps name layers
 * only. A layer that no record names is what a crash has left of a removal: dropped at open.
 *
 * Threads. Calls come from threads of ports that belong to no core; they take the catalog's lock
 * and run what concerns shards on their cores, waiting. Cores never take the lock. What takes long
 * (flatten, diff) holds `pins` instead. Ids, of volumes and layers from one counter, are never used
 * twice while the store is open, and never one that a shard still has something of.
 *
 *   volumes.c         the catalog itself: tree, table, loading
 *   volume_change.c   changes of records: room, the gate, epochs; jobs in the background
 *   volume_load.c     what fills it at open
 *   volume_damaged.c  what may be lost of it, after an open in spite of damage
 *   volume_life.c     create, clone, snapshot, remove, rename, roll back
 *   volume_size.c     resize, flatten
 *   volume_limits.c   limits
 *   volume_sums.c     checksums of what is sealed
 *   volume_open.c     handles of volumes and files
 *   volume_look.c     stat, list
 *   volume_merge.c    removed snapshots give back what nobody needs
 *   volume_names.c    names that were given up
 *   volume_walk.c     where blocks lie; diff */
#ifndef RUNTIME_VOLUMES_H
#define RUNTIME_VOLUMES_H

#include "runtime/block.h"
#include "runtime/core.h"
#include "runtime/volume_record.h"

struct vdisk_group { /* of limits; stays until the store closes */
  struct vdisk_group *next;
  uint64_t id; /* low half of its record's key; 0: it has none */
  uint32_t members;
  struct limit limit;
  char name[VOLUME_GROUP_MAX + 1];
};

struct vdisk_open; /* volume_open.c: the shards' parts and the handles */

/* A volume in the catalog. Nothing of it changes but under the lock. */
struct vdisk {
  struct vdisk *left, *right; /* the tree by name; nameless ones are not in it */
  struct vdisk *next;         /* the table by id */
  struct vdisk *parent;       /* the snapshot that it lies on */
  uint64_t id, layer, size_bytes;
  uint64_t epoch;         /* when it was made or changed (epoch_now()); 0: long ago */
  uint64_t foreign_epoch; /* the same of a change of what lies on it in other shards */
  uint64_t left_epoch;    /* when its name went, or what lay on it: before that others see its layer
                           */
  uint32_t shard, children, pins;
  uint8_t block_shift, stripe_shift;
  bool sealed;
  bool no_sums;   /* its layers get no checksums when they are sealed */
  bool live_sums; /* integrity=on: what is written to it gets checksums at once */
  bool unsummed;  /* while loading: its layer misses some */
  bool changing;  /* a long change is under way: no other one */
  bool merging;   /* its layer with the one above or below: others wait for that */
  struct vdisk_open *open;
  struct vdisk_group *group;
  struct limit *limit; /* NULL: none of its own, and no group */
  char *name;          /* NULL: nameless */
};
static inline bool vdisk_striped(const struct vdisk *d) { return d->stripe_shift != 0; }
/* Its layers lie in shards [vdisk_first(), vdisk_end()). */
static inline uint32_t vdisk_first(const struct vdisk *d) { return d->shard; }
static inline uint32_t vdisk_end(const struct vdisk *d, uint32_t shard_count) {
  return vdisk_striped(d) ? shard_count : d->shard + 1;
}

#define BLOCK_FILES_MAX 64u
struct block_file;

#define FREED_NAMES 64u
struct freed_name {
  uint64_t hash, epoch; /* 0: long ago */
  uint32_t shard;
};

struct catalog {
  struct store *store;
  pthread_mutex_t lock;
  pthread_cond_t merged; /* a merge has come to its end */
  bool lost; /* opened in spite of damage: there may have been volumes that nobody knows of */
  bool merge_wanted; /* there may be removed snapshots on which a single volume lies */
  struct vdisk *tree, **table;
  uint32_t table_size; /* a power of two; 0: none yet */
  uint32_t count;
  struct freed_name freed[FREED_NAMES]; /* the last ones; volume_names.c */
  uint32_t freed_next;
  uint64_t freed_lost; /* of the newest one that had to make way */
  uint64_t next_id;
  struct vdisk_group *groups;
  struct limit limit; /* of the store */
  uint32_t *placed;   /* [shard_count], with the next: made with the first volume */
  uint64_t *free_blocks;
  uint32_t placements; /* since free_blocks was read */
  uint32_t walks;      /* that look at layers without the lock: none is merged */
  struct block_file *files[BLOCK_FILES_MAX];
  /* On core 0: */
  struct peer peer; /* owns the jobs */
  struct peer sums; /* owns those of volume_sums.c */
  uint32_t jobs;
};

/* ---- Life: by store.c. After recovery and the first root; before the last flush. ------------- */

void catalog_init(struct catalog *c, struct store *store);
/* Reads all records and tells the shards what they say. -EBADMSG; -ENOMEM. */
int catalog_load(struct catalog *c, struct port *port);
/* -EBUSY: blocks are open (give_up: closes them). Waits for jobs. */
int catalog_close(struct catalog *c, struct port *port, bool give_up);
void catalog_finish(struct catalog *c);

/* ---- Calls: errors as shardring.h says. --------------------------------------------------------
 */

struct volume_spec {
  uint64_t size_bytes;
  uint32_t block_bytes, stripe_bytes; /* stripe 0: on one shard */
  bool on_shard;
  uint32_t shard;
  bool no_sums, live_sums;
};
int catalog_create(struct port *port, const char *name, const struct volume_spec *spec);
int catalog_clone(struct port *port, const char *snapshot, const char *name,
                  const struct volume_spec *spec);
int catalog_snapshot(struct port *port, const char *name, const char *snapshot);
int catalog_remove(struct port *port, const char *name);
int catalog_rename(struct port *port, const char *name, const char *new_name);
int catalog_rollback(struct port *port, const char *name, const char *snapshot);
int catalog_resize(struct port *port, const char *name, uint64_t size_bytes, bool force);
int catalog_flatten(struct port *port, const char *name);

struct volume_info {
  uint64_t id, parent_id, size_bytes, used_bytes, shared_bytes, unsummed_bytes;
  uint32_t block_bytes, stripe_bytes, shard, depth, children, openers;
  bool sealed, open_for_writing;
  struct limit_waits limit_waits; /* since it was opened; zeros: it is not */
  char name[VOLUME_NAME_MAX + 1];
  char group[VOLUME_GROUP_MAX + 1];
};
int catalog_stat(struct port *port, const char *name, struct volume_info *info);
/* Up to max of them, each given to fn (which must not call back), from the first name after
 * `after`. How many. */
int catalog_list(struct port *port, const char *after, uint32_t max,
                 void (*fn)(void *arg, uint32_t i, const struct volume_info *info), void *arg);
struct volume_range {
  uint64_t offset_bytes, bytes;
  bool zeros;
};
/* window: NULL, or the part of `to` to look at (zeros does not matter); ranges are cut to it. */
int catalog_diff(struct port *port, const char *from, const char *to,
                 const struct volume_range *window,
                 int (*fn)(void *arg, const struct volume_range *range), void *arg);

/* group: NULL or "": of none. */
int catalog_volume_limit(struct port *port, const char *name, const struct limit_params *limits,
                         const char *group);
int catalog_group_limit(struct port *port, const char *group, const struct limit_params *limits);
int catalog_store_limit(struct port *port, const struct limit_params *limits);
int catalog_volume_limits(struct port *port, const char *name, struct limit_params *limits,
                          char group[VOLUME_GROUP_MAX + 1]);
/* group NULL: the store's. */
int catalog_group_limits(struct port *port, const char *group, struct limit_params *limits);

int catalog_open_volume(struct port *port, const char *name, bool read_only, bool share,
                        struct block **block);
/* The volume may be read past its cores from now on, where that can be. */
void catalog_open_direct(struct port *port, struct block *block);
/* shard: UINT32_MAX: any. */
int catalog_open_file(struct port *port, const char *file, bool read_only, uint32_t block_bytes,
                      uint32_t shard, struct block **block);
int catalog_close_block(struct port *port, struct block *block);

#endif
