/* volume_look.c - stat and list. Under the catalog's lock. */
#include <stdio.h>

#include "runtime/volumes_internal.h"

#define LIST_AT_ONCE 64u

/* ---- Stat and list ------------------------------------------------------------------------------
 */

struct usage {
  const struct vdisk **disks;
  uint64_t (*blocks)[2]; /* clusters of its own, valid blocks below */
  uint32_t count;
};

static bool in_shard(const struct vdisk *d, uint32_t shard) {
  return vdisk_striped(d) || d->shard == shard;
}

static int add_usage(struct core *core, uint32_t shard, void *arg) {
  const struct usage *u = arg;
  for (uint32_t i = 0; i < u->count; i++)
    for (const struct vdisk *d = u->disks[i]; d; d = d->parent) {
      struct layer_stats stats;
      if (!in_shard(d, shard)) continue;
      shard_layer_stats(core->shards[shard].shard, d->layer, &stats);
      u->blocks[i][d != u->disks[i]] += stats.clusters;
    }
  return 0;
}

static void fill_info(const struct vdisk *d, const uint64_t clusters[2], struct volume_info *info) {
  *info = (struct volume_info){.id = d->id,
                               .parent_id = d->parent ? d->parent->id : 0,
                               .size_bytes = d->size_bytes,
                               .used_bytes = clusters[0] << CLUSTER_SHIFT,
                               .shared_bytes = clusters[1] << CLUSTER_SHIFT,
                               .block_bytes = 1u << d->block_shift,
                               .stripe_bytes = d->stripe_shift ? 1u << d->stripe_shift : 0,
                               .shard = d->shard,
                               .children = d->children,
                               .sealed = d->sealed};
  for (const struct vdisk *p = d->parent; p; p = p->parent) info->depth++;
  for (const struct block *b = d->open ? d->open->handles : NULL; b; b = b->next) info->openers++;
  info->open_for_writing = d->open && d->open->writers;
  memcpy(info->name, d->name, strlen(d->name));
  if (d->group) memcpy(info->group, d->group->name, sizeof info->group);
}

static int read_usage(struct port *port, const struct vdisk **disks, uint32_t count,
                      uint64_t (*clusters)[2]) {
  struct usage u = {disks, clusters, count};
  memset(clusters, 0, count * sizeof clusters[0]);
  return call_shards(port, 0, port->store->shard_count, add_usage, &u);
}

int catalog_stat(struct port *port, const char *name, struct volume_info *info) {
  struct catalog *c;
  struct vdisk *d;
  uint64_t clusters[1][2];
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  r = catalog_find(c, name, &d);
  if (!r) r = read_usage(port, (const struct vdisk **)&d, 1, clusters);
  if (!r) fill_info(d, clusters[0], info);
  return catalog_leave(c, r);
}

int catalog_list(struct port *port, const char *after, uint32_t max,
                 void (*fn)(void *arg, uint32_t i, const struct volume_info *info), void *arg) {
  struct catalog *c;
  const struct vdisk *disks[LIST_AT_ONCE];
  uint64_t clusters[LIST_AT_ONCE][2];
  uint32_t done = 0, n;
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  const struct vdisk *d = catalog_after(c, after);
  do {
    for (n = 0; d && n < LIST_AT_ONCE && done + n < max; d = catalog_after(c, d->name))
      disks[n++] = d;
    r = n ? read_usage(port, disks, n, clusters) : 0;
    for (uint32_t i = 0; i < n && !r; i++, done++) {
      struct volume_info info;
      fill_info(disks[i], clusters[i], &info);
      fn(arg, done, &info);
    }
  } while (!r && n && done < max);
  return catalog_leave(c, r ? r : (int)done);
}
