/* sim_vcalls.c - calls that change volumes; see sim_vclient.h. They wait, and step the store
 * meanwhile: the power may fail inside, and then what they return means nothing. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shards/shard_internal.h"
#include "tests/sim/sim_vclient.h"

#define NAMES_POOL 14u

static void unexpected(const char *call, const char *name, int r) {
  sim_violation("%s of volume %s: %s", call, name, strerror(-r));
}

/* True: it is done. */
static bool settled(struct vclient *c, const char *call, const char *name, int r) {
  sim_trace("%llu: %s %s: %d%s\n", (unsigned long long)c->model->clock, call, name, r,
            c->tolerance->dead ? ", the power is gone" : "");
  if (c->tolerance->dead) return false;
  if (r && r != -ENOSPC && !(r == -EIO && c->tolerance->io_errors)) unexpected(call, name, r);
  c->refused += r == -ENOSPC;
  return r == 0;
}

/* ---- Choosing ----------------------------------------------------------------------------------
 */

enum want { W_ANY, W_CLOSED = 1, W_OPEN = 2, W_SEALED = 4, W_LIVE = 8, W_QUIET = 16 };

static bool is_wanted(const struct vclient *c, uint32_t i, uint32_t want) {
  const struct vnode *n = &c->model->nodes[i];
  const struct vhandle *h = &c->handles[i];
  if (!vnode_there(n)) return false;
  if (want & W_CLOSED && h->block) return false;
  if (want & W_OPEN && !h->block) return false;
  if (want & W_SEALED && !n->sealed) return false;
  if (want & W_LIVE && n->sealed) return false;
  return !(want & W_QUIET && h->in_flight);
}

static struct vnode *choose(struct vclient *c, uint32_t want) {
  uint32_t from = (uint32_t)random_up_to(&c->random, NODES_MAX);
  for (uint32_t k = 0; k < NODES_MAX; k++)
    if (is_wanted(c, (from + k) % NODES_MAX, want)) return &c->model->nodes[(from + k) % NODES_MAX];
  return NULL;
}

static uint32_t count_there(const struct vmodel *m) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < NODES_MAX; i++) n += vnode_there(&m->nodes[i]);
  return n;
}

/* One that nobody has; NULL: too many volumes. */
static const char *new_name(struct vclient *c) {
  static char name[VNAME_BYTES];
  if (count_there(c->model) >= c->habits.volumes_max) return NULL;
  uint32_t k = (uint32_t)random_up_to(&c->random, c->habits.names);
  do snprintf(name, sizeof name, "v%u", k++ % c->habits.names);
  while (vmodel_find(c->model, name));
  return name;
}

/* Mostly all windows are inside, or cut one. */
static uint64_t choose_size(struct vclient *c) {
  const struct vmodel *m = c->model;
  uint64_t end = m->window_block[2] + m->window_first[3] - m->window_first[2];
  uint64_t blocks = end + random_up_to(&c->random, 300);
  if (random_percent(&c->random, 40)) blocks = random_in(&c->random, 1, end);
  return blocks << BLOCK_SHIFT;
}

static void learn_id(struct vclient *c, struct vnode *n) {
  struct sr_volume_info info;
  const char *name = vnode_last(n)->name;
  int r = sr_volume_stat(c->port, name, &info);
  if (c->tolerance->dead) return;
  if (r) unexpected("stat", name, r);
  n->id = info.id;
  n->block_bytes = info.block_bytes;
  if (info.size_bytes != vnode_last(n)->size_bytes || info.snapshot != n->sealed)
    sim_violation("volume %s: stat says it has %llu bytes", name,
                  (unsigned long long)info.size_bytes);
}

static struct vversion *begin_new(struct vclient *c, struct vnode *n, const char *name,
                                  uint64_t size) {
  struct vversion *v = vmodel_change(c->model, n);
  v->there = true;
  v->size_bytes = size;
  snprintf(v->name, sizeof v->name, "%s", name);
  return v;
}

static void end_new(struct vclient *c, struct vnode *n, const char *call, int r) {
  char name[VNAME_BYTES];
  memcpy(name, vnode_last(n)->name, sizeof name);
  bool done = settled(c, call, name, r);
  if (c->tolerance->dead) return;
  vmodel_changed(c->model, n, done);
  if (!done) return;
  n->made = c->model->clock;
  learn_id(c, n);
}

static uint32_t choose_integrity(struct vclient *c) {
  if (random_percent(&c->random, c->habits.summed_percent)) return SR_INTEGRITY_ON;
  return random_percent(&c->random, 20) ? SR_INTEGRITY_OFF : SR_INTEGRITY_SEALED;
}

/* ---- Calls -------------------------------------------------------------------------------------
 */

static void call_create(struct vclient *c) {
  struct random *r = &c->random;
  const char *name = new_name(c);
  struct vnode *n = name ? vmodel_node(c->model) : NULL;
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  if (!n) return;
  o.size_bytes = choose_size(c);
  o.block_bytes = random_percent(r, 60) ? 512 : 4096;
  o.striped = n->striped = c->shards > 1 && random_percent(r, c->habits.striped_percent);
  if (o.striped) o.stripe_bytes = 64u << random_up_to(r, 2) << 10;
  o.on_shard = !o.striped && random_percent(r, 50);
  if (o.on_shard) o.shard = (uint32_t)random_up_to(r, c->shards);
  o.integrity = choose_integrity(c);
  n->block_bytes = o.block_bytes;
  struct vversion *v = begin_new(c, n, name, o.size_bytes);
  vversion_set_content(v, content_copy(c->model, NULL, 0));
  end_new(c, n, "create", sr_volume_create(c->port, name, &o));
}

static void call_clone(struct vclient *c) {
  struct random *r = &c->random;
  struct vnode *s = choose(c, W_SEALED);
  const char *name = s ? new_name(c) : NULL;
  struct vnode *n = name ? vmodel_node(c->model) : NULL;
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  if (!n) return;
  const struct vversion *base = vnode_last(s);
  uint64_t size = base->size_bytes, blocks = size >> BLOCK_SHIFT;
  if (random_percent(r, 30)) o.size_bytes = size += random_in(r, 1, 300) << BLOCK_SHIFT;
  n->striped = s->striped;
  n->block_bytes = s->block_bytes;
  o.on_shard = !s->striped && random_percent(r, 60);
  if (o.on_shard) o.shard = (uint32_t)random_up_to(r, c->shards);
  o.integrity = choose_integrity(c);
  struct vversion *v = begin_new(c, n, name, size);
  vversion_set_content(v, content_copy(c->model, base->content, blocks));
  sim_trace("clone of %s\n", base->name);
  end_new(c, n, "clone", sr_volume_clone(c->port, base->name, name, &o));
}

static void call_snapshot(struct vclient *c) {
  struct vnode *d = choose(c, W_LIVE);
  const char *name = d ? new_name(c) : NULL;
  struct vnode *n = name ? vmodel_node(c->model) : NULL;
  if (!n) return;
  const struct vversion *of = vnode_last(d);
  n->striped = d->striped;
  n->block_bytes = d->block_bytes;
  n->sealed = true;
  n->origin = d;
  struct vversion *v = begin_new(c, n, name, of->size_bytes);
  vversion_set_content(v, content_copy(c->model, of->content, UINT64_MAX));
  sim_trace("snapshot of %s\n", of->name);
  end_new(c, n, "snapshot", sr_volume_snapshot(c->port, of->name, name));
}

static void call_remove(struct vclient *c) {
  struct vnode *n = choose(c, W_CLOSED);
  char name[VNAME_BYTES];
  if (!n) return;
  memcpy(name, vnode_last(n)->name, sizeof name);
  vmodel_change(c->model, n)->there = false;
  bool done = settled(c, "remove", name, sr_volume_remove(c->port, name));
  if (!c->tolerance->dead) vmodel_changed(c->model, n, done);
}

static void call_rename(struct vclient *c) {
  struct vnode *n = choose(c, W_ANY);
  const char *name = n ? new_name(c) : NULL;
  char old[VNAME_BYTES];
  if (!name) return;
  memcpy(old, vnode_last(n)->name, sizeof old);
  struct vversion *v = vmodel_change(c->model, n);
  snprintf(v->name, sizeof v->name, "%s", name);
  bool done = settled(c, "rename", old, sr_volume_rename(c->port, old, name));
  if (!c->tolerance->dead) vmodel_changed(c->model, n, done);
}

/* Which snapshots lie below it the library knows. */
static void call_rollback(struct vclient *c) {
  struct vnode *n = choose(c, W_LIVE | W_CLOSED), *s = NULL;
  for (uint32_t tries = 0; n && tries < 4; tries++) {
    s = choose(c, W_SEALED);
    if (s && s->origin == n) break;
  }
  if (!n || !s) return;
  const struct vversion *base = vnode_last(s);
  struct vversion *v = vmodel_change(c->model, n);
  v->size_bytes = base->size_bytes;
  vversion_set_content(v, content_copy(c->model, base->content, UINT64_MAX));
  int r = sr_volume_rollback(c->port, v->name, base->name);
  sim_trace("back to %s\n", base->name);
  bool done = r != -EXDEV && settled(c, "rollback", v->name, r);
  if (!c->tolerance->dead) vmodel_changed(c->model, n, done);
}

static void call_resize(struct vclient *c) {
  struct vnode *n = choose(c, W_LIVE | W_QUIET);
  if (!n) return;
  struct vversion *v = vmodel_change(c->model, n);
  uint64_t old = v->size_bytes, size = choose_size(c);
  bool force = random_percent(&c->random, 70);
  v->size_bytes = size;
  uint64_t end = min_u64(old, size) >> BLOCK_SHIFT;
  uint64_t begun = content_trim(c->model, v->content, end);
  int r = sr_volume_resize(c->port, v->name, size, force);
  bool full = r == -ENOTEMPTY && !force && size < old;
  bool done = !full && settled(c, "resize", v->name, r);
  if (c->tolerance->dead) return;
  content_trimmed(c->model, v->content, end, begun, done);
  vmodel_changed(c->model, n, done);
}

static void call_flatten(struct vclient *c) {
  struct vnode *n = choose(c, W_LIVE);
  if (!n) return;
  const char *name = vnode_last(n)->name;
  settled(c, "flatten", name, sr_volume_flatten(c->port, name));
}

static void call_limit(struct vclient *c) {
  struct random *r = &c->random;
  struct vnode *n = choose(c, W_ANY);
  struct sr_limits l = SR_LIMITS_INIT;
  if (!n) return;
  if (random_percent(r, 60)) l.ops = (struct sr_bucket){random_in(r, 5, 200), 0, 1};
  if (random_percent(r, 40))
    l.bytes = (struct sr_bucket){random_in(r, 100000, 4000000), random_up_to(r, 100000), 1};
  if (random_percent(r, 20)) l.group = "g";
  const char *name = vnode_last(n)->name;
  settled(c, "limit", name, sr_volume_limit(c->port, name, &l));
}

static void call_open(struct vclient *c) {
  struct vnode *n = choose(c, W_CLOSED);
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  if (!n) return;
  struct vhandle *h = &c->handles[n - c->model->nodes];
  o.read_only = h->read_only = n->sealed || random_percent(&c->random, 10);
  int r = sr_volume_open(c->port, vnode_last(n)->name, &o, &h->block);
  if (r) h->block = NULL;
  if (!c->tolerance->dead && r) unexpected("open", vnode_last(n)->name, r);
}

static void call_close(struct vclient *c) {
  struct vnode *n = choose(c, W_OPEN | W_QUIET);
  if (!n) return;
  struct vhandle *h = &c->handles[n - c->model->nodes];
  int r = sr_block_close(c->port, h->block);
  if (!c->tolerance->dead && r) unexpected("close", vnode_last(n)->name, r);
  if (!r) h->block = NULL;
}

static void call_list(struct vclient *c) {
  static struct sr_volume_info infos[NAMES_POOL + 1];
  int n = sr_volume_list(c->port, "", infos, NAMES_POOL + 1);
  if (c->tolerance->dead) return;
  if (n != (int)count_there(c->model))
    sim_violation("%d volumes are listed, there are %u", n, count_there(c->model));
  for (int i = 0; i < n; i++) {
    const struct vnode *node = vmodel_find(c->model, infos[i].name);
    if (!node || vnode_last(node)->size_bytes != infos[i].size_bytes)
      sim_violation("volume %s is listed with %llu bytes", infos[i].name,
                    (unsigned long long)infos[i].size_bytes);
  }
}

/* How often which is made, and how often where trees of snapshots are tried. */
static const struct {
  void (*call)(struct vclient *c);
  uint32_t weight, in_trees;
} calls[] = {{call_open, 30, 25},  {call_create, 12, 4},  {call_snapshot, 14, 20},
             {call_clone, 12, 20}, {call_close, 8, 8},    {call_remove, 10, 24},
             {call_rename, 3, 4},  {call_rollback, 4, 4}, {call_resize, 4, 1},
             {call_flatten, 3, 1}, {call_limit, 3, 0},    {call_list, 3, 1}};

static uint32_t weight(const struct vclient *c, uint32_t k) {
  if (calls[k].call == call_limit && !c->habits.limits) return 0;
  return c->habits.tree ? calls[k].in_trees : calls[k].weight;
}

void vclient_call(struct vclient *c) {
  uint32_t sum = 0, k = 0;
  for (uint32_t i = 0; i < array_size(calls); i++) sum += weight(c, i);
  uint64_t dice = random_up_to(&c->random, sum);
  while (dice >= weight(c, k)) dice -= weight(c, k++);
  c->calls++;
  vmodel_sweep(c->model);
  calls[k].call(c);
}

/* ---- The end -----------------------------------------------------------------------------------
 */

static void check_empty(struct vclient *c) {
  struct store *s = store_of(c->store);
  for (uint32_t n = 0; n < s->shard_count; n++) {
    struct map *map = manifest_map(shard_manifest(s->cores[s->core_of_shard[n]].shards[n].shard));
    for (const struct layer *l = map_layer_next(map, NULL); l; l = map_layer_next(map, l)) {
      struct layer_stats stats;
      layer_stats(l, &stats);
      sim_violation("shard %u: all volumes are gone, and layer %llu has %llu clusters", n,
                    (unsigned long long)layer_id(l), (unsigned long long)stats.clusters);
    }
  }
}

void vclient_remove_all(struct vclient *c) {
  struct vnode *n;
  while ((n = choose(c, W_OPEN))) {
    struct vhandle *h = &c->handles[n - c->model->nodes];
    int r = sr_block_close(c->port, h->block);
    if (r) unexpected("close", vnode_last(n)->name, r);
    h->block = NULL;
  }
  while ((n = choose(c, W_ANY))) {
    vmodel_change(c->model, n)->there = false;
    int r = sr_volume_remove(c->port, vnode_last(n)->name);
    if (r) unexpected("remove", vnode_last(n)->name, r);
    vmodel_changed(c->model, n, true);
  }
  for (uint32_t i = 0; i < 2; i++) {
    uint64_t at = c->model->clock;
    int r = sr_flush(c->port);
    if (r) sim_violation("flush: %s", strerror(-r));
    vmodel_cover(c->model, NULL, at);
  }
  for (uint32_t turn = 0; turn < 10000 && store_step(store_of(c->store)); turn++) {
  }
  check_empty(c);
}
