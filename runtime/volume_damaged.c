/* volume_damaged.c - which volumes may be old or incomplete after a recovery in spite of damage. On
 * the thread that opens; no other thread knows the store yet.
 *
 * A shard that has lost changes, or a checkpoint, may have lost parts of each of its layers, and
 * records: so each volume that has a layer there, of its own or below it, is reported by its name,
 * once. Which others there were nobody knows: from then on a name that is not found is -EBADMSG. */
#include <inttypes.h>
#include <stdio.h>

#include "runtime/volumes_internal.h"

struct losing {
  struct catalog *catalog;
  bool *lost; /* [shard_count] */
};

static int look_at_shard(struct core *core, uint32_t shard, void *arg) {
  struct losing *l = arg;
  l->lost[shard] = manifest_has_losses(shard_manifest(core->shards[shard].shard));
  l->catalog->lost |= l->lost[shard];
  return 0;
}

/* The first shard that has lost some of what the volume reads; UINT32_MAX: none. */
static uint32_t lost_shard(const struct losing *l, const struct vdisk *d) {
  uint32_t count = l->catalog->store->shard_count;
  for (; d; d = d->parent)
    for (uint32_t s = vdisk_first(d); s < vdisk_end(d, count); s++)
      if (l->lost[s]) return s;
  return UINT32_MAX;
}

static void report(struct catalog *c, const struct vdisk *d, uint32_t shard) {
  char text[VOLUME_NAME_MAX + 160];
  snprintf(text, sizeof text,
           "volume %s: changes are lost: parts of it may be missing or older than what was written "
           "last, or it was removed",
           d->name);
  struct damage damage = {.kind = DAMAGE_OLD_VOLUME,
                          .error = -EBADMSG,
                          .shard = shard,
                          .id = {VOLUME_KEY, d->id},
                          .what = text};
  damage_log_report(&c->store->damage, &damage);
}

int catalog_report_losses(struct catalog *c, struct port *port) {
  uint32_t count = c->store->shard_count;
  struct losing l = {c, calloc(count, sizeof(bool))};
  if (!l.lost) return -ENOMEM;
  int r = call_shards(port, 0, count, look_at_shard, &l);
  for (uint32_t i = 0; !r && c->lost && i < c->table_size; i++)
    for (const struct vdisk *d = c->table[i]; d; d = d->next) {
      uint32_t shard = d->name ? lost_shard(&l, d) : UINT32_MAX;
      if (shard != UINT32_MAX) report(c, d, shard);
    }
  free(l.lost);
  return r;
}
