/* volume_life.c - how volumes come and go: create, clone, snapshot, remove, rename, roll back.
 * Under the catalog's lock; the order of each change and what a crash leaves of it is said there.
 */
#include "runtime/volumes_internal.h"
#include "shards/base/plant.h"

#define FREE_EVERY 64u /* placements, then the free space is read again */
#define LEAVES_AT_ONCE                                                                             \
  256u /* a removal waits for layers up to that; larger ones go by themselves */
#define BLOCK_BYTES_MIN  512u
#define STRIPE_BYTES_DEF (1u << 20)

/* ---- Where it lies ----------------------------------------------------------------------------
 */

static int read_free(struct core *core, uint32_t shard, void *arg) {
  struct catalog *c = arg;
  c->free_blocks[shard] =
      space_free_blocks(manifest_space(shard_manifest(core->shards[shard].shard)));
  return 0;
}

static int make_placement(struct catalog *c) {
  uint32_t n = c->store->shard_count;
  if (!c->placed) c->placed = calloc(n, sizeof *c->placed);
  if (!c->free_blocks) c->free_blocks = calloc(n, sizeof *c->free_blocks);
  return c->placed && c->free_blocks ? 0 : -ENOMEM;
}

/* The most free space for each volume that was placed there: clones of one base spread by that. */
static int choose_shard(struct port *port, uint32_t *shard) {
  struct catalog *c = &port->store->catalog;
  int r = make_placement(c);
  if (!r && c->placements++ % FREE_EVERY == 0)
    r = call_shards(port, 0, c->store->shard_count, read_free, c);
  if (r) return r;
  uint32_t best = 0;
  for (uint32_t s = 1; s < c->store->shard_count; s++) {
    double here = (double)c->free_blocks[s] / (1 + c->placed[s]);
    if (here > (double)c->free_blocks[best] / (1 + c->placed[best])) best = s;
  }
  c->placed[best]++;
  *shard = best;
  return 0;
}

static int place(struct port *port, struct vdisk *d, const struct volume_spec *spec) {
  d->shard = spec->on_shard ? spec->shard : 0;
  if (spec->on_shard && (spec->shard >= port->store->shard_count || vdisk_striped(d)))
    return -EINVAL;
  return spec->on_shard || vdisk_striped(d) ? 0 : choose_shard(port, &d->shard);
}

/* ---- Create and clone ---------------------------------------------------------------------------
 */

static bool size_valid(uint64_t size_bytes, uint8_t block_shift) {
  return size_bytes && size_bytes <= VOLUME_SIZE_MAX &&
         is_aligned(size_bytes, UINT64_C(1) << block_shift);
}

static int shape_of_spec(const struct volume_spec *spec, struct vdisk *d) {
  uint32_t block = spec->block_bytes ? spec->block_bytes : BLOCK_BYTES_MIN;
  uint32_t stripe = spec->stripe_bytes;
  if (block != BLOCK_BYTES_MIN && block != BLOCK_BYTES) return -EINVAL;
  if (stripe &&
      (stripe & (stripe - 1) || stripe < 1u << STRIPE_SHIFT_MIN || stripe > 1u << STRIPE_SHIFT_MAX))
    return -EINVAL;
  d->block_shift = (uint8_t)__builtin_ctz(block);
  d->stripe_shift = stripe ? (uint8_t)__builtin_ctz(stripe) : 0;
  d->size_bytes = spec->size_bytes;
  return size_valid(d->size_bytes, d->block_shift) ? 0 : -EINVAL;
}

static int shape_of_snapshot(const struct volume_spec *spec, const struct vdisk *s,
                             struct vdisk *d) {
  if (spec->block_bytes && spec->block_bytes != 1u << s->block_shift) return -EINVAL;
  if (spec->stripe_bytes && !s->stripe_shift) return -EINVAL;
  d->block_shift = s->block_shift;
  d->stripe_shift = s->stripe_shift;
  d->size_bytes = spec->size_bytes ? spec->size_bytes : s->size_bytes;
  if (d->size_bytes < s->size_bytes) return -EINVAL;
  return size_valid(d->size_bytes, d->block_shift) ? 0 : -EINVAL;
}

/* A snapshot in another shard that a crash may still take: then the clone goes with it. A striped
 * volume has its record in one shard and data in all. */
static uint32_t needed_with(const struct store *s, const struct vdisk *d) {
  if (vdisk_striped(d)) return ALL_SHARDS;
  const struct vdisk *p = d->parent;
  if (PLANTED(clone_alone)) return NO_SHARD;
  return !p || p->shard == d->shard || epoch_durable(s, p->epoch) ? NO_SHARD : p->shard;
}

static int make_disk(struct port *port, struct vdisk *d) {
  struct catalog *c = &port->store->catalog;
  struct change ch;
  struct volume_record record;
  d->id = d->layer = c->next_id++;
  change_init(&ch, port, d->shard, needed_with(c->store, d));
  change_name(&ch, d->name);
  change_layer(&ch, d, d->layer, d->parent);
  vdisk_record(d, &record);
  change_put(&ch, &record);
  int r = change_run(&ch);
  if (r) return r;
  d->epoch = epoch_now(c->store);
  if (d->parent) d->parent->children++;
  catalog_add(c, d);
  return 0;
}

static int create(struct port *port, const char *name, const struct volume_spec *spec,
                  struct vdisk *parent) {
  struct catalog *c = &port->store->catalog;
  int r = catalog_check_name(c, name);
  if (!r) r = catalog_reserve(c, 1);
  struct vdisk *d = r ? NULL : vdisk_create(name);
  if (!r && !d) r = -ENOMEM;
  if (r) return r;
  d->parent = parent;
  d->no_sums = spec->no_sums;
  d->live_sums = spec->live_sums;
  r = parent ? shape_of_snapshot(spec, parent, d) : shape_of_spec(spec, d);
  if (!r) r = place(port, d, spec);
  if (!r) r = make_disk(port, d);
  if (r) vdisk_destroy(d);
  return r;
}

int catalog_create(struct port *port, const char *name, const struct volume_spec *spec) {
  struct catalog *c;
  int r = catalog_enter(port, true, &c);
  return r ? r : catalog_leave(c, create(port, name, spec, NULL));
}

static int clone_volume(struct port *port, const char *snapshot, const char *name,
                        const struct volume_spec *spec) {
  struct vdisk *s;
  int r = catalog_find(&port->store->catalog, snapshot, &s);
  if (!r && !s->sealed) r = -EINVAL;
  return r ? r : create(port, name, spec, s);
}

int catalog_clone(struct port *port, const char *snapshot, const char *name,
                  const struct volume_spec *spec) {
  struct catalog *c;
  int r = catalog_enter(port, true, &c);
  return r ? r : catalog_leave(c, clone_volume(port, snapshot, name, spec));
}

/* ---- Snapshot -------------------------------------------------------------------------------- */

/* The snapshot takes what d is now; d goes on with an empty layer upon it. */
static void snapshot_records(struct change *ch, const struct vdisk *d, const struct vdisk *s,
                             uint64_t layer) {
  struct volume_record of_d, of_s;
  vdisk_record(s, &of_s);
  vdisk_record(d, &of_d);
  of_d.layer = layer;
  of_d.parent = s->id;
  change_layer(ch, d, layer, s);
  change_put(ch, &of_s);
  change_put(ch, &of_d);
}

/* No request is in flight while it happens. A flush may be waited for before, not in between: what
 * is frozen may be what the flush needs to be done. */
static int seal(struct port *port, struct vdisk *d, struct change *ch) {
  int r = vdisk_freeze(port, d);
  if (!r) r = vdisk_set_layer(port, d, ch->layer);
  if (!r) change_apply(ch);
  if (!r) vdisk_note_changes(port, d);
  vdisk_thaw(port, d);
  return r;
}

static int take_snapshot(struct port *port, struct vdisk *d, struct vdisk *s) {
  struct catalog *c = &port->store->catalog;
  struct change ch;
  s->id = c->next_id++;
  s->layer = d->layer;
  s->size_bytes = d->size_bytes;
  s->shard = d->shard;
  s->block_shift = d->block_shift;
  s->stripe_shift = d->stripe_shift;
  s->parent = d->parent;
  s->sealed = true;
  s->no_sums = d->no_sums;
  s->live_sums = d->live_sums;
  change_init(&ch, port, d->shard, vdisk_striped(d) ? ALL_SHARDS : NO_SHARD);
  change_name(&ch, s->name);
  uint64_t layer = c->next_id++;
  snapshot_records(&ch, d, s, layer);
  int r = change_reserve(&ch);
  if (r) return r;
  r = seal(port, d, &ch);
  if (r) {
    change_cancel(&ch);
    return r;
  }
  s->children = 1;
  s->epoch = epoch_now(c->store);
  d->parent = s;
  d->layer = layer;
  catalog_add(c, s);
  sums_begin(port, s);
  return 0;
}

static int snapshot(struct port *port, const char *name, const char *snapshot) {
  struct catalog *c = &port->store->catalog;
  struct vdisk *d, *s = NULL;
  int r = catalog_find_settled(c, name, &d);
  if (!r && d->sealed) r = -EROFS;
  if (!r && d->changing) r = -EBUSY;
  if (!r) r = catalog_check_name(c, snapshot);
  if (!r) r = catalog_reserve(c, 1);
  if (!r && !(s = vdisk_create(snapshot))) r = -ENOMEM;
  if (!r) r = take_snapshot(port, d, s);
  if (r) vdisk_destroy(s);
  return r;
}

int catalog_snapshot(struct port *port, const char *name, const char *snapshot_name) {
  struct catalog *c;
  int r = catalog_enter(port, true, &c);
  return r ? r : catalog_leave(c, snapshot(port, name, snapshot_name));
}

/* ---- Remove ---------------------------------------------------------------------------------- */

static int count_leaves(struct core *core, uint32_t shard, void *arg) {
  uint64_t *sum = arg; /* [0]: layer, [1]: leaves */
  struct layer_stats stats;
  shard_layer_stats(core->shards[shard].shard, sum[0], &stats);
  sum[1] += stats.leaves;
  return 0;
}

static void drop_layer(struct port *port, const struct vdisk *d, uint64_t layer) {
  uint32_t first = vdisk_first(d), end = vdisk_end(d, port->store->shard_count);
  uint64_t sum[2] = {layer, 0};
  call_shards(port, first, end, count_leaves, sum);
  job_drop(port, layer, first, end, d->sealed, sum[1] <= LEAVES_AT_ONCE);
}

static void forget(struct catalog *c, struct vdisk *d) {
  catalog_take(c, d);
  if (d->group) d->group->members--;
  if (c->placed && c->placed[d->shard]) c->placed[d->shard]--;
  vdisk_destroy(d);
}

static void leave_parent(struct store *s, const struct vdisk *d) {
  struct vdisk *p = d->parent;
  if (!p) return;
  p->children--;
  p->left_epoch = epoch_now(s);
  s->catalog.merge_wanted |= !p->name && p->children == 1;
  if (!vdisk_striped(d) && p->shard != d->shard) p->foreign_epoch = epoch_now(s);
}

/* Nothing lies on it. First the record, then the layer: what a crash leaves in between is an orphan
 * that the next open drops. Striped, or if what lay on it in another shard went just now: the
 * record must not go before that. */
static int drop_disk(struct port *port, struct vdisk *d, struct vdisk **parent) {
  struct store *s = port->store;
  struct change ch;
  bool alone = !vdisk_striped(d) && epoch_durable(s, d->foreign_epoch);
  change_init(&ch, port, d->shard, alone ? NO_SHARD : ALL_SHARDS);
  change_remove(&ch, d->id);
  int r = change_run(&ch);
  if (r) return r;
  leave_parent(s, d);
  drop_layer(port, d, d->layer);
  if (parent) *parent = d->parent;
  forget(&s->catalog, d);
  return 0;
}

void drop_nameless(struct port *port, struct vdisk *d) {
  while (d && !d->name && !d->children && !d->pins && !d->merging) {
    int r = drop_disk(port, d, &d);
    if (!r) continue;
    log_line(&port->store->logger, 1, "volume %llu, removed before, stays until the next open: %s",
             (unsigned long long)d->id, strerror(-r));
    return;
  }
}

void release_parent(struct port *port, struct vdisk *d) {
  struct vdisk *parent = d->parent;
  leave_parent(port->store, d);
  drop_nameless(port, parent);
}

/* It stays for those that lie on it. */
static int make_nameless(struct port *port, struct vdisk *d) {
  struct change ch;
  struct volume_record record;
  vdisk_record(d, &record);
  memset(record.name, 0, sizeof record.name);
  change_init(&ch, port, d->shard, NO_SHARD);
  change_put(&ch, &record);
  int r = change_run(&ch);
  if (r) return r;
  catalog_set_name(&port->store->catalog, d, NULL);
  d->left_epoch = epoch_now(port->store);
  port->store->catalog.merge_wanted |= d->children == 1;
  return 0;
}

static int remove_volume(struct port *port, const char *name) {
  struct vdisk *d, *parent = NULL;
  int r = catalog_find_settled(&port->store->catalog, name, &d);
  if (r) return r;
  if (d->open || d->pins || d->changing) return -EBUSY;
  if (d->children) return make_nameless(port, d);
  r = drop_disk(port, d, &parent);
  if (!r) drop_nameless(port, parent);
  return r;
}

int catalog_remove(struct port *port, const char *name) {
  struct catalog *c;
  int r = catalog_enter(port, true, &c);
  if (r) return r;
  r = remove_volume(port, name);
  catalog_merge(c, port);
  return catalog_leave(c, r);
}

/* ---- Rename ---------------------------------------------------------------------------------- */

static int rename_volume(struct port *port, const char *name, const char *new_name) {
  struct catalog *c = &port->store->catalog;
  struct change ch;
  struct volume_record record;
  struct vdisk *d;
  int r = catalog_find(c, name, &d);
  if (!r) r = catalog_check_name(c, new_name);
  if (r) return r;
  char *copy = strdup(new_name);
  if (!copy) return -ENOMEM;
  vdisk_record(d, &record);
  memset(record.name, 0, sizeof record.name);
  memcpy(record.name, copy, strlen(copy));
  change_init(&ch, port, d->shard, NO_SHARD);
  change_name(&ch, new_name);
  change_put(&ch, &record);
  r = change_run(&ch);
  if (r)
    free(copy);
  else
    catalog_set_name(c, d, copy);
  if (!r) vdisk_note_changes(port, d);
  return r;
}

int catalog_rename(struct port *port, const char *name, const char *new_name) {
  struct catalog *c;
  int r = catalog_enter(port, true, &c);
  return r ? r : catalog_leave(c, rename_volume(port, name, new_name));
}

/* ---- Roll back ------------------------------------------------------------------------------- */

static bool lies_on(const struct vdisk *d, const struct vdisk *snapshot) {
  for (d = d->parent; d; d = d->parent)
    if (d == snapshot) return true;
  return false;
}

static int roll_back(struct port *port, struct vdisk *d, struct vdisk *s) {
  struct change ch;
  struct volume_record record;
  uint64_t layer = port->store->catalog.next_id++;
  vdisk_record(d, &record);
  record.layer = layer;
  record.parent = s->id;
  record.size_bytes = s->size_bytes;
  change_init(&ch, port, d->shard, vdisk_striped(d) ? ALL_SHARDS : NO_SHARD);
  change_layer(&ch, d, layer, s);
  change_put(&ch, &record);
  int r = change_run(&ch);
  if (r) return r;
  struct vdisk was = *d;
  d->layer = layer;
  d->size_bytes = s->size_bytes;
  d->parent = s;
  s->children++;
  drop_layer(port, d, was.layer);
  release_parent(port, &was);
  return 0;
}

int catalog_rollback(struct port *port, const char *name, const char *snapshot_name) {
  struct catalog *c;
  struct vdisk *d, *s;
  int r = catalog_enter(port, true, &c);
  if (r) return r;
  r = catalog_find_settled(c, name, &d);
  if (!r) r = catalog_find(c, snapshot_name, &s);
  if (!r && d->sealed) r = -EROFS;
  if (!r && (d->open || d->pins || d->changing)) r = -EBUSY;
  if (!r && !lies_on(d, s)) r = -EXDEV;
  if (!r) r = roll_back(port, d, s);
  catalog_merge(c, port);
  return catalog_leave(c, r);
}
