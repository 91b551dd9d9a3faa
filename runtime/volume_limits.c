/* volume_limits.c - limits of volumes, groups and the store: the records, and the nodes that the
 * shards take tokens from (limit.h). Under the catalog's lock.
 *
 *   the volume's node -> its group's -> the store's */
#include "runtime/volumes_internal.h"

static uint64_t now_ns(const struct store *s) { return clock_now_ns(&s->clock); }

static void set_params(struct store *s, struct limit *limit, const struct limit_params *params) {
  limit_set(limit, volume_limits_any(params) ? params : NULL, now_ns(s));
}

static int tell_changed(struct core *core, uint32_t shard, void *arg) {
  (void)arg;
  shard_limits_changed(core->shards[shard].shard);
  return 0;
}

struct telling {
  const struct vdisk *disk;
  struct limit *limit;
};

static int tell_part(struct core *core, uint32_t shard, void *arg) {
  const struct telling *t = arg;
  struct volume *part = t->disk->open->parts[shard - vdisk_first(t->disk)];
  shard_volume_set_limit(core->shards[shard].shard, part, t->limit);
  return 0;
}

static void tell_parts(struct port *port, const struct vdisk *d, struct limit *limit) {
  struct telling t = {d, limit};
  uint32_t end = vdisk_end(d, port->store->shard_count);
  if (d->open) call_shards(port, vdisk_first(d), end, tell_part, &t);
}

/* ---- Volumes ------------------------------------------------------------------------------------
 */

/* The node that is right for the group: the one it has, or a new one (*made), since a node's parent
 * does not change while it is in use. */
static int node_for(struct catalog *c, const struct vdisk *d, struct vdisk_group *g,
                    const struct limit_params *params, struct limit **node, bool *made) {
  bool any = volume_limits_any(params);
  *made = d->group != g || !d->limit;
  *node = d->limit;
  if (!*made) return 0;
  *node = calloc(1, sizeof **node);
  if (!*node) return -ENOMEM;
  limit_init(*node, any ? params : NULL, g ? &g->limit : &c->limit, now_ns(c->store));
  return 0;
}

static void move_to_group(struct vdisk *d, struct vdisk_group *g) {
  if (d->group) d->group->members--;
  if (g) g->members++;
  d->group = g;
}

static int limit_volume(struct port *port, struct vdisk *d, const struct limit_params *params,
                        struct vdisk_group *g) {
  struct catalog *c = &port->store->catalog;
  struct change ch;
  struct volume_record record;
  struct limit *node;
  bool made;
  int r = node_for(c, d, g, params, &node, &made);
  if (r) return r;
  vdisk_record(d, &record);
  record.limits = *params;
  memset(record.group, 0, sizeof record.group);
  if (g) memcpy(record.group, g->name, sizeof record.group);
  change_init(&ch, port, d->shard, NO_SHARD);
  change_put(&ch, &record);
  r = change_run(&ch);
  if (r) {
    if (made) free(node);
    return r;
  }
  vdisk_note_changes(port, d);
  move_to_group(d, g);
  if (made) {
    tell_parts(port, d, node);
    free(d->limit);
    d->limit = node;
  } else {
    set_params(c->store, node, params);
    call_shards(port, vdisk_first(d), vdisk_end(d, c->store->shard_count), tell_changed, NULL);
  }
  return 0;
}

int catalog_volume_limit(struct port *port, const char *name, const struct limit_params *params,
                         const char *group) {
  struct catalog *c;
  struct vdisk *d;
  struct vdisk_group *g = NULL;
  bool grouped = group && *group;
  int r = grouped ? volume_name_check(group, VOLUME_GROUP_MAX) : 0;
  if (!r) r = catalog_enter(port, true, &c);
  if (r) return r;
  r = catalog_find(c, name, &d);
  if (!r && grouped && !(g = catalog_group(c, group, true))) r = -ENOMEM;
  return catalog_leave(c, r ? r : limit_volume(port, d, params, g));
}

int catalog_volume_limits(struct port *port, const char *name, struct limit_params *params,
                          char group[VOLUME_GROUP_MAX + 1]) {
  struct catalog *c;
  struct vdisk *d;
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  r = catalog_find(c, name, &d);
  if (r) return catalog_leave(c, r);
  memset(params, 0, sizeof *params);
  memset(group, 0, VOLUME_GROUP_MAX + 1);
  if (d->limit) limit_params_get(d->limit, params);
  if (d->group) memcpy(group, d->group->name, VOLUME_GROUP_MAX + 1);
  return catalog_leave(c, 0);
}

/* ---- Groups and the store -------------------------------------------------------------------- */

/* g NULL: of the store. */
static int limit_all(struct port *port, struct vdisk_group *g, const struct limit_params *params) {
  struct store *s = port->store;
  struct limits_record record = {.limits = *params};
  struct change ch;
  if (g) memcpy(record.group, g->name, sizeof record.group);
  change_init(&ch, port, 0, NO_SHARD);
  ch.put_count = 1;
  uint64_t id = g ? g->id : 0;
  if (g && !id) id = s->catalog.next_id++;
  ch.puts[0].key = (struct blob_id){g ? GROUP_KEY : STORE_KEY, id};
  ch.puts[0].bytes = limits_record_encode(&record, ch.puts[0].data);
  if (!g && !volume_limits_any(params)) ch.puts[0].bytes = 0;
  int r = change_run(&ch);
  if (r) return r;
  if (g) g->id = id;
  set_params(s, g ? &g->limit : &s->catalog.limit, params);
  return call_shards(port, 0, s->shard_count, tell_changed, NULL);
}

int catalog_group_limit(struct port *port, const char *group, const struct limit_params *params) {
  struct catalog *c;
  struct vdisk_group *g;
  int r = volume_name_check(group, VOLUME_GROUP_MAX);
  if (!r) r = catalog_enter(port, true, &c);
  if (r) return r;
  g = catalog_group(c, group, true);
  return catalog_leave(c, g ? limit_all(port, g, params) : -ENOMEM);
}

int catalog_store_limit(struct port *port, const struct limit_params *params) {
  struct catalog *c;
  int r = catalog_enter(port, true, &c);
  return r ? r : catalog_leave(c, limit_all(port, NULL, params));
}

int catalog_group_limits(struct port *port, const char *group, struct limit_params *params) {
  struct catalog *c;
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  const struct vdisk_group *g = group ? catalog_group(c, group, false) : NULL;
  if (group && !g) return catalog_leave(c, -ENOENT);
  memset(params, 0, sizeof *params);
  limit_params_get(g ? &g->limit : &c->limit, params);
  return catalog_leave(c, 0);
}
