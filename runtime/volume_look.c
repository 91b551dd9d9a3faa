/* volume_look.c - stat and list. Under the catalog's lock. */
#include <stdio.h>

#include "runtime/volumes_internal.h"

#define LIST_AT_ONCE 64u

/* ---- Stat and list ------------------------------------------------------------------------------
 */

struct usage {
  uint64_t own, below; /* clusters */
  uint64_t unsummed;   /* blocks in sealed layers that are to get checksums */
};
struct usage_query {
  const struct vdisk **disks;
  struct usage *usage;
  uint32_t count;
};

static bool in_shard(const struct vdisk *d, uint32_t shard) {
  return vdisk_striped(d) || d->shard == shard;
}

static int add_usage(struct core *core, uint32_t shard, void *arg) {
  const struct usage_query *q = arg;
  for (uint32_t i = 0; i < q->count; i++)
    for (const struct vdisk *d = q->disks[i]; d; d = d->parent) {
      struct usage *u = &q->usage[i];
      struct layer_stats stats;
      if (!in_shard(d, shard)) continue;
      shard_layer_stats(core->shards[shard].shard, d->layer, &stats);
      *(d == q->disks[i] ? &u->own : &u->below) += stats.clusters;
      if (d->sealed && !d->no_sums) u->unsummed += stats.valid_blocks - stats.summed_blocks;
    }
  return 0;
}

static void fill_info(const struct vdisk *d, const struct usage *u, struct volume_info *info) {
  *info = (struct volume_info){.id = d->id,
                               .parent_id = d->parent ? d->parent->id : 0,
                               .size_bytes = d->size_bytes,
                               .used_bytes = u->own << CLUSTER_SHIFT,
                               .shared_bytes = u->below << CLUSTER_SHIFT,
                               .unsummed_bytes = u->unsummed << BLOCK_SHIFT,
                               .block_bytes = 1u << d->block_shift,
                               .stripe_bytes = d->stripe_shift ? 1u << d->stripe_shift : 0,
                               .shard = d->shard,
                               .children = d->children,
                               .sealed = d->sealed};
  for (const struct vdisk *p = d->parent; p; p = p->parent) info->depth++;
  for (const struct block *b = d->open ? d->open->handles : NULL; b; b = b->next) info->openers++;
  info->open_for_writing = d->open && d->open->writers;
  if (d->open && d->open->handles) info->limit_waits = block_limit_waits(d->open->handles);
  memcpy(info->name, d->name, strlen(d->name));
  if (d->group) memcpy(info->group, d->group->name, sizeof info->group);
}

static int read_usage(struct port *port, const struct vdisk **disks, uint32_t count,
                      struct usage *usage) {
  struct usage_query q = {disks, usage, count};
  memset(usage, 0, count * sizeof *usage);
  return call_shards(port, 0, port->store->shard_count, add_usage, &q);
}

int catalog_stat(struct port *port, const char *name, struct volume_info *info) {
  struct catalog *c;
  struct vdisk *d;
  struct usage usage;
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  r = catalog_find(c, name, &d);
  if (!r) r = read_usage(port, (const struct vdisk **)&d, 1, &usage);
  if (!r) fill_info(d, &usage, info);
  return catalog_leave(c, r);
}

int catalog_list(struct port *port, const char *after, uint32_t max,
                 void (*fn)(void *arg, uint32_t i, const struct volume_info *info), void *arg) {
  struct catalog *c;
  const struct vdisk *disks[LIST_AT_ONCE];
  struct usage usage[LIST_AT_ONCE];
  uint32_t done = 0, n;
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  const struct vdisk *d = catalog_after(c, after);
  do {
    for (n = 0; d && n < LIST_AT_ONCE && done + n < max; d = catalog_after(c, d->name))
      disks[n++] = d;
    r = n ? read_usage(port, disks, n, usage) : 0;
    for (uint32_t i = 0; i < n && !r; i++, done++) {
      struct volume_info info;
      fill_info(disks[i], &usage[i], &info);
      fn(arg, done, &info);
    }
  } while (!r && n && done < max);
  return catalog_leave(c, r ? r : (int)done);
}
