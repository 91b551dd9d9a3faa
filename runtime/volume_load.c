/* volume_load.c - the catalog at open: all records of all shards, checked and put together. On the
 * thread that opens; no other thread knows the store yet. */
#include <inttypes.h>
#include <stdio.h>

#include "runtime/volumes_internal.h"

struct loading {
  struct catalog *catalog;
  uint64_t id_max;      /* of volumes and layers */
  struct vdisk **found; /* with the parent's id in .foreign_epoch, until they are linked */
  uint32_t count, room;
};

/* ---- Reading ----------------------------------------------------------------------------------
 */

/* With a store that is opened in spite of damage: left out. name: NULL if it is not known. */
static int bad_record(struct catalog *c, uint32_t shard, uint64_t id, const char *name,
                      const char *why) {
  char text[VOLUME_NAME_MAX + 160];
  bool skip = c->store->config.damaged != DAMAGED_REFUSE;
  log_line(&c->store->logger, 0, "shard %u: the record of volume %" PRIu64 ": wrong %s%s", shard,
           id, why, skip ? "; it is left out" : "");
  if (!skip) return -EBADMSG;
  snprintf(text, sizeof text, "volume %" PRIu64 "%s%s is left out: its record has a wrong %s", id,
           name ? ", " : "", name ? name : "", why);
  struct damage d = {.kind = DAMAGE_VOLUME,
                     .error = -EBADMSG,
                     .shard = shard,
                     .id = {VOLUME_KEY, id},
                     .what = text};
  damage_log_report(&c->store->damage, &d);
  return 0;
}

static int found_add(struct loading *l, struct vdisk *d) {
  if (l->count == l->room) {
    uint32_t room = l->room ? l->room * 2 : 64;
    struct vdisk **found = realloc(l->found, room * sizeof(struct vdisk *));
    if (!found) return -ENOMEM;
    l->found = found;
    l->room = room;
  }
  l->found[l->count++] = d;
  return 0;
}

static int set_limits(struct catalog *c, struct vdisk *d, const struct volume_record *r) {
  if (r->group[0] && !(d->group = catalog_group(c, r->group, true))) return -ENOMEM;
  if (!d->group && !volume_limits_any(&r->limits)) return 0;
  d->limit = calloc(1, sizeof *d->limit);
  if (!d->limit) return -ENOMEM;
  if (d->group) d->group->members++;
  limit_init(d->limit, volume_limits_any(&r->limits) ? &r->limits : NULL,
             d->group ? &d->group->limit : &c->limit, clock_now_ns(&c->store->clock));
  return 0;
}

static int load_volume(struct loading *l, const struct record *record, uint32_t shard) {
  struct catalog *c = l->catalog;
  struct volume_record r;
  const char *why;
  if (volume_record_decode(record->data, record->bytes, record->key.lo, shard,
                           c->store->shard_count, &r, &why))
    return bad_record(c, shard, record->key.lo, NULL, why);
  struct vdisk *d = vdisk_create(r.name[0] ? r.name : NULL);
  if (!d) return -ENOMEM;
  d->id = r.id;
  d->layer = r.layer;
  d->size_bytes = r.size_bytes;
  d->shard = r.shard;
  d->block_shift = r.block_shift;
  d->stripe_shift = r.stripe_shift;
  d->sealed = r.sealed;
  d->no_sums = r.no_sums;
  d->live_sums = r.live_sums;
  d->foreign_epoch = r.parent;
  l->id_max = max_u64(l->id_max, max_u64(d->id, d->layer));
  int result = set_limits(c, d, &r);
  if (!result) result = found_add(l, d);
  if (result) vdisk_destroy(d);
  return result;
}

static int load_limits(struct loading *l, const struct record *record, uint32_t shard) {
  struct catalog *c = l->catalog;
  struct limits_record r;
  const char *why = "shard";
  bool of_group = record->key.hi == GROUP_KEY;
  if (shard || limits_record_decode(record->data, record->bytes, of_group, &r, &why)) {
    log_line(&c->store->logger, 0, "shard %u: a record of limits: wrong %s", shard, why);
    return c->store->config.damaged == DAMAGED_REFUSE ? -EBADMSG : 0;
  }
  struct vdisk_group *g = of_group ? catalog_group(c, r.group, true) : NULL;
  if (of_group && !g) return -ENOMEM;
  if (g) g->id = record->key.lo;
  l->id_max = max_u64(l->id_max, record->key.lo);
  if (volume_limits_any(&r.limits))
    limit_set(g ? &g->limit : &c->limit, &r.limits, clock_now_ns(&c->store->clock));
  return 0;
}

/* Also layers that no record names: their ids are not free either. */
static void note_layers(struct loading *l, struct manifest *m) {
  const struct map *map = manifest_map(m);
  const struct layer *layer = map ? map_layer_next(map, NULL) : NULL;
  for (; layer; layer = map_layer_next(map, layer)) l->id_max = max_u64(l->id_max, layer_id(layer));
}

static int load_shard(struct core *core, uint32_t shard, void *arg) {
  struct loading *l = arg;
  struct manifest *m = shard_manifest(core->shards[shard].shard);
  const struct records *records = manifest_records(m);
  int r = 0;
  for (const struct record *at = records_next(records, NULL); at && !r;
       at = records_next(records, at)) {
    if (at->key.hi == VOLUME_KEY) r = load_volume(l, at, shard);
    if (at->key.hi == GROUP_KEY || at->key.hi == STORE_KEY) r = load_limits(l, at, shard);
  }
  if (!r) note_layers(l, m);
  return r;
}

/* ---- Putting together --------------------------------------------------------------------------
 */

static int by_layer(const void *a, const void *b) {
  const struct vdisk *x = *(struct vdisk *const *)a, *y = *(struct vdisk *const *)b;
  return x->layer != y->layer ? (x->layer < y->layer ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

/* Ids, layers and names: each once. */
static const char *clash(const struct loading *l, const struct vdisk *d,
                         const struct vdisk *before) {
  struct vdisk *same;
  if (catalog_find_id(l->catalog, d->id)) return "id: another record has it";
  if (before && before->layer == d->layer) return "layer: another record has it";
  if (d->name && catalog_find(l->catalog, d->name, &same) == 0)
    return "name: another volume has it";
  return NULL;
}

static int add_all(struct loading *l) {
  int r = catalog_reserve(l->catalog, l->count);
  for (uint32_t i = 0; i < l->count && r; i++) vdisk_destroy(l->found[i]);
  if (r || !l->count) return r;
  qsort(l->found, l->count, sizeof(struct vdisk *), by_layer);
  struct vdisk *before = NULL;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < l->count; i++) {
    struct vdisk *d = l->found[i];
    const char *why = clash(l, d, before);
    if (!why) {
      catalog_add(l->catalog, d);
      l->found[kept++] = before = d;
      continue;
    }
    if (!r) r = bad_record(l->catalog, d->shard, d->id, d->name, why);
    vdisk_destroy(d);
  }
  l->count = kept;
  return r;
}

static const char *wrong_parent(const struct vdisk *d, const struct vdisk *parent) {
  if (!parent) return "parent: there is none";
  if (!parent->sealed) return "parent: it is no snapshot";
  return parent->stripe_shift != d->stripe_shift ? "parent: striped otherwise" : NULL;
}

static void leave_out(struct loading *l, uint32_t i) {
  struct vdisk *d = l->found[i];
  catalog_take(l->catalog, d);
  if (d->group) d->group->members--;
  vdisk_destroy(d);
  l->found[i] = NULL;
}

/* What is left out takes its children along, so: until nothing changes. Every chain of parents that
 * ends has no cycle: volumes are proved one after the other, from the bottom up. */
static int link_parents(struct loading *l) {
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t i = 0; i < l->count; i++) {
      struct vdisk *d = l->found[i];
      if (!d || !d->foreign_epoch || d->parent) continue;
      struct vdisk *parent = catalog_find_id(l->catalog, d->foreign_epoch);
      const char *why = wrong_parent(d, parent);
      if (why) {
        int r = bad_record(l->catalog, d->shard, d->id, d->name, why);
        if (r) return r;
        leave_out(l, i);
        for (uint32_t k = 0; k < l->count; k++)
          if (l->found[k]) l->found[k]->parent = NULL;
        changed = true;
        break;
      }
      d->parent = parent;
    }
  }
  return 0;
}

/* A walk of more steps than there are volumes goes round. `epoch` marks what is proved, `changing`
 * what goes round, until the end: whoever lies on the latter does so, too, and goes along. */
static int check_cycles(struct loading *l) {
  for (uint32_t i = 0; i < l->count; i++) {
    uint32_t steps = 0;
    struct vdisk *d = l->found[i], *last = d;
    for (; d && !d->epoch && steps <= l->count; d = d->parent) steps++;
    if (steps > l->count) {
      int r =
          bad_record(l->catalog, last->shard, last->id, last->name, "parent: it lies on itself");
      if (r) return r;
      last->changing = true;
    }
    for (d = last; d && !d->epoch && steps <= l->count; d = d->parent) d->epoch = 1;
  }
  for (uint32_t i = 0; i < l->count; i++)
    if (l->found[i]->changing) leave_out(l, i);
  return 0;
}

static void settle(struct loading *l) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < l->count; i++)
    if (l->found[i]) l->found[kept++] = l->found[i];
  l->count = kept;
}

/* ---- Telling the shards ------------------------------------------------------------------------
 */

static int tell_shard(struct core *core, uint32_t shard, void *arg) {
  const struct loading *l = arg;
  struct shard *s = core->shards[shard].shard;
  int r = 0;
  for (uint32_t i = 0; i < l->count && !r; i++) {
    const struct vdisk *d = l->found[i];
    if (!vdisk_striped(d) && d->shard != shard) continue;
    struct layer_below below = {0};
    if (d->parent)
      below = (struct layer_below){d->parent->layer, vdisk_striped(d) ? shard : d->parent->shard};
    r = shard_layer_set(s, d->layer, below);
    /* It may have been merged into a layer that was written to, and the crash has undone that. */
    if (!r && !d->name && d->children == 1) shard_forget_sums(s, d->layer);
    if (!r && d->live_sums) shard_forget_old_sums(s, d->layer);
  }
  return r;
}

struct orphan {
  uint64_t layer;
};
static int next_orphan(struct core *core, uint32_t shard, void *arg) {
  struct orphan *o = arg;
  o->layer = shard_next_orphan(core->shards[shard].shard, o->layer);
  return 0;
}

static void drop_orphans(struct catalog *c, struct port *port) {
  for (uint32_t s = 0; s < c->store->shard_count; s++) {
    struct orphan o = {0};
    while (call_shards(port, s, s + 1, next_orphan, &o) == 0 && o.layer)
      job_drop(port, o.layer, s, s + 1, false, false);
  }
}

static struct vdisk *find_forgotten(const struct catalog *c) {
  for (uint32_t i = 0; i < c->table_size; i++)
    for (struct vdisk *d = c->table[i]; d; d = d->next)
      if (!d->name && !d->children) return d;
  return NULL;
}

/* Snapshots that were removed, whose last child went just before a crash. */
static void drop_forgotten(struct catalog *c, struct port *port) {
  struct vdisk *d;
  for (uint32_t left = c->count; left-- > 0 && (d = find_forgotten(c));) {
    struct vdisk child = {.parent = d, .shard = d->shard, .stripe_shift = d->stripe_shift};
    d->children++;
    release_parent(port, &child);
  }
}

static int put_together(struct loading *l, struct port *port) {
  int r = add_all(l);
  if (!r) r = link_parents(l);
  if (!r) settle(l);
  if (!r) r = check_cycles(l);
  if (r) return r;
  settle(l);
  for (uint32_t i = 0; i < l->count; i++) {
    struct vdisk *d = l->found[i];
    d->epoch = d->foreign_epoch = 0;
    if (d->parent) d->parent->children++;
    l->catalog->merge_wanted |= !d->name; /* perhaps: of an earlier life */
  }
  return l->count ? call_shards(port, 0, l->catalog->store->shard_count, tell_shard, l) : 0;
}

int catalog_load(struct catalog *c, struct port *port) {
  struct loading l = {.catalog = c};
  int r = call_shards(port, 0, c->store->shard_count, load_shard, &l);
  c->next_id = l.id_max + 1;
  if (!r)
    r = put_together(&l, port);
  else
    for (uint32_t i = 0; i < l.count; i++) vdisk_destroy(l.found[i]);
  if (!r && c->store->config.damaged != DAMAGED_REFUSE) r = catalog_report_losses(c, port);
  if (!r && !c->store->config.read_only) {
    drop_forgotten(c, port);
    drop_orphans(c, port);
    sums_resume(c, port);
  }
  free(l.found);
  return r;
}
