/* volume_size.c - changes of a volume that is there: resize, flatten. Under the catalog's lock;
 * what takes long lets go of it and keeps others away by `changing`. */
#include "runtime/volumes_internal.h"

/* ---- The tail
 * ------------------------------------------------------------------------------------
 *
 * What lies between a smaller and a larger size. Nobody may read or write there meanwhile, so the
 * parts have the smaller one, but for the moment in which an op of ours is submitted: a shard looks
 * at the size then, and never again. */

struct tail_op {
  struct shard_op op;
  struct volume *volume;
  uint64_t small, large; /* sizes of the part */
  uint8_t kind;
};

static void submit_tail_op(struct core *core, struct shard_op *op) {
  struct tail_op *t = container_of(op, struct tail_op, op);
  uint32_t shard = shard_of_hash(op->hash, core->shard_count);
  op->kind = t->kind;
  volume_args(op)->volume = t->volume;
  core_mark_busy(core, shard);
  shard_volume_resize(t->volume, t->large);
  shard_submit(core->shards[shard].shard, op);
  shard_volume_resize(t->volume, t->small);
}

static int run_tail_op(struct port *port, struct tail_op *t, uint32_t shard, uint64_t from,
                       uint64_t to, void *buf) {
  core_call_fn *fn = submit_tail_op;
  t->op = (struct shard_op){.kind = OP_CALL, .buf = buf, .offset = from, .bytes = to - from};
  memcpy(&t->op.work, &fn, sizeof fn);
  int64_t r = run_in_shard(port, shard, &t->op);
  return r < 0 ? (int)r : 0;
}

/* The first block of the tail, if the smaller size ends inside it: is there anything? */
static int read_edge(struct port *port, struct tail_op *t, uint32_t shard, bool *found) {
  uint64_t from = round_down(t->small, BLOCK_BYTES);
  uint64_t to = min_u64(from + BLOCK_BYTES, t->large);
  char *buf = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  if (!buf) return -ENOMEM;
  t->kind = OP_READ;
  int r = run_tail_op(port, t, shard, from, to, buf);
  for (uint64_t i = t->small - from; i < to - from && !r; i++) *found |= buf[i] != 0;
  free(buf);
  return r;
}

static bool has_data(const struct resolved *r, uint32_t first) {
  for (uint32_t i = first; i < LEAF_BLOCKS; i++)
    if (r->place[i] != RESOLVED_NOT && r->place[i] != RESOLVED_ZERO) return true;
  return false;
}

/* Leaf by leaf, where there is something: found != NULL: only looks. Else discards. */
static int walk_tail(struct port *port, struct tail_op *t, uint32_t shard, struct walk *w,
                     bool *found) {
  uint64_t at = round_up(t->small, BLOCK_BYTES);
  for (uint64_t leaf = at >> LEAF_SHIFT; leaf << LEAF_SHIFT < t->large; leaf = w->next) {
    uint64_t from = max_u64(at, leaf << LEAF_SHIFT);
    int r = walk_resolve(w, leaf);
    if (r) return r;
    if (has_data(&w->request.resolved, (from >> BLOCK_SHIFT) & (LEAF_BLOCKS - 1))) {
      if (found) {
        *found = true;
        return 0;
      }
      t->kind = OP_DISCARD;
      r = run_tail_op(port, t, shard, from, min_u64(t->large, (leaf + 1) << LEAF_SHIFT), NULL);
      if (r) return r;
    }
    if (w->next == UINT64_MAX) break;
  }
  return 0;
}

static int clear_edge(struct port *port, struct tail_op *t, uint32_t shard) {
  bool found = false;
  int r = read_edge(port, t, shard, &found);
  if (r || !found) return r;
  t->kind = OP_WRITE_ZEROES;
  return run_tail_op(port, t, shard, t->small, min_u64(round_up(t->small, BLOCK_BYTES), t->large),
                     NULL);
}

static int tail_of_part(struct port *port, struct vdisk *d, uint32_t part, uint64_t small,
                        uint64_t large, bool *found) {
  uint32_t count = vdisk_part_count(d, port->store->shard_count), shard = vdisk_first(d) + part;
  struct tail_op t = {.volume = d->open->parts[part],
                      .small = vdisk_part_bytes(d, count, part, small),
                      .large = vdisk_part_bytes(d, count, part, large)};
  if (t.small == t.large) return 0;
  struct walk *w = malloc(sizeof *w);
  int r = w ? walk_init(w, port, d, part, false) : -ENOMEM;
  bool edge = !is_aligned(t.small, BLOCK_BYTES);
  if (!r && edge) r = found ? read_edge(port, &t, shard, found) : clear_edge(port, &t, shard);
  if (!r && !(found && *found)) r = walk_tail(port, &t, shard, w, found);
  if (w) walk_finish(w);
  free(w);
  return r;
}

/* found: whether there is data; NULL: discards it. */
static int tail(struct port *port, struct vdisk *d, uint64_t small, uint64_t large, bool *found) {
  uint32_t count = vdisk_part_count(d, port->store->shard_count);
  int r = 0;
  for (uint32_t i = 0; i < count && !r && !(found && *found); i++)
    r = tail_of_part(port, d, i, small, large, found);
  return r;
}

/* ---- Resize ---------------------------------------------------------------------------------- */

static int write_size(struct port *port, struct vdisk *d, uint64_t size_bytes) {
  struct change ch;
  struct volume_record record;
  vdisk_record(d, &record);
  record.size_bytes = size_bytes;
  change_init(&ch, port, d->shard, vdisk_striped(d) ? ALL_SHARDS : NO_SHARD);
  change_put(&ch, &record);
  return change_run(&ch);
}

/* What a shrink has left (a crash before its discards were durable) must not come back. */
static int grow(struct port *port, struct vdisk *d, uint64_t size_bytes) {
  int r = tail(port, d, d->size_bytes, size_bytes, NULL);
  if (!r) r = write_size(port, d, size_bytes);
  if (r) return r;
  d->size_bytes = size_bytes;
  vdisk_set_size(port, d, size_bytes);
  vdisk_show_size(d, size_bytes);
  return 0;
}

/* The record first: a crash in between leaves data that a later growth clears. Before it, what was
 * in flight beyond the new end is over. */
static int shrink(struct port *port, struct vdisk *d, uint64_t size_bytes, bool force) {
  uint64_t old = d->size_bytes;
  bool found = false;
  vdisk_show_size(d, size_bytes);
  vdisk_set_size(port, d, size_bytes);
  int r = vdisk_freeze(port, d);
  if (!r) vdisk_thaw(port, d);
  if (!r && !force) r = tail(port, d, size_bytes, old, &found);
  if (!r && found) r = -ENOTEMPTY;
  if (!r) r = write_size(port, d, size_bytes);
  if (r) {
    vdisk_set_size(port, d, old);
    vdisk_show_size(d, old);
    return r;
  }
  d->size_bytes = size_bytes;
  r = tail(port, d, size_bytes, old, NULL);
  if (r)
    log_line(&port->store->logger, 1, "%s: what lies beyond its new end is not given back: %s",
             d->name, strerror(-r));
  return 0;
}

static int resize(struct port *port, struct vdisk *d, uint64_t size_bytes, bool force) {
  if (size_bytes == d->size_bytes) return 0;
  int r = vdisk_hold(port, d);
  if (r) return r;
  r = size_bytes > d->size_bytes ? grow(port, d, size_bytes) : shrink(port, d, size_bytes, force);
  vdisk_note_changes(port, d);
  (void)vdisk_release(port, d);
  return r;
}

int catalog_resize(struct port *port, const char *name, uint64_t size_bytes, bool force) {
  struct catalog *c;
  struct vdisk *d;
  int r = catalog_enter(port, true, &c);
  if (r) return r;
  r = catalog_find_settled(c, name, &d);
  if (!r && d->sealed) r = -EROFS;
  if (!r && (d->changing || d->pins)) r = -EBUSY;
  if (!r && (!size_bytes || size_bytes > VOLUME_SIZE_MAX ||
             !is_aligned(size_bytes, UINT64_C(1) << d->block_shift)))
    r = -EINVAL;
  return catalog_leave(c, r ? r : resize(port, d, size_bytes, force));
}

/* ---- Flatten --------------------------------------------------------------------------------- */

/* Without the lock. */
static int promote_part(struct port *port, const struct vdisk *d, uint32_t part, struct walk *w) {
  uint32_t count = vdisk_part_count(d, port->store->shard_count);
  uint64_t end = round_up(vdisk_part_bytes(d, count, part, d->size_bytes), BLOCK_BYTES);
  for (uint64_t leaf = 0; leaf << LEAF_SHIFT < end; leaf = w->next) {
    struct shard_op op = {.kind = OP_PROMOTE, .offset = leaf << LEAF_SHIFT};
    int r = walk_resolve(w, leaf);
    if (r) return r;
    op.bytes = min_u64(end, (leaf + 1) << LEAF_SHIFT) - op.offset;
    volume_args(&op)->volume = d->open->parts[part];
    int64_t done =
        has_data(&w->request.resolved, 0) ? run_in_shard(port, vdisk_first(d) + part, &op) : 0;
    if (done < 0) return (int)done;
    if (w->next == UINT64_MAX) break;
  }
  return 0;
}

static int promote(struct port *port, const struct vdisk *d, struct walk *walks) {
  uint32_t count = vdisk_part_count(d, port->store->shard_count);
  int r = 0;
  for (uint32_t i = 0; i < count && !r; i++) r = promote_part(port, d, i, &walks[i]);
  return r;
}

struct moving {
  const struct vdisk *disk;
  struct layer_below below;
};

static int set_below(struct core *core, uint32_t shard, void *arg) {
  const struct moving *m = arg;
  struct layer_below below = m->below;
  if (below.id && vdisk_striped(m->disk)) below.shard = shard;
  return shard_layer_set(core->shards[shard].shard, m->disk->layer, below);
}

static void move_frozen(struct port *port, struct vdisk *d, const struct vdisk *below) {
  struct moving m = {.disk = d};
  uint32_t end = vdisk_end(d, port->store->shard_count);
  if (below) m.below = (struct layer_below){below->layer, below->shard};
  check(call_shards(port, vdisk_first(d), end, set_below, &m) == 0); /* they know the layer */
}

int vdisk_move(struct port *port, struct vdisk *d, const struct vdisk *below,
               const struct vdisk *gone) {
  struct change ch;
  struct volume_record record;
  const struct vdisk *was = d->parent;
  vdisk_record(d, &record);
  record.parent = below ? below->id : 0;
  change_init(&ch, port, d->shard, vdisk_striped(d) ? ALL_SHARDS : NO_SHARD);
  change_put(&ch, &record);
  if (gone) change_remove(&ch, gone->id);
  int r = change_reserve(&ch);
  if (r) return r;
  r = vdisk_freeze(port, d);
  if (r) {
    change_cancel(&ch);
    return r;
  }
  move_frozen(port, d, below);
  r = vdisk_set_layer(port, d, d->layer);
  if (r) {
    move_frozen(port, d, was);
    change_cancel(&ch);
  } else {
    change_apply(&ch);
    vdisk_note_changes(port, d);
  }
  vdisk_thaw(port, d);
  return r;
}

static struct walk *make_walks(struct port *port, const struct vdisk *d) {
  uint32_t count = vdisk_part_count(d, port->store->shard_count);
  struct walk *walks = calloc(count, sizeof *walks);
  int r = walks ? 0 : -ENOMEM;
  for (uint32_t i = 0; i < count && !r; i++) r = walk_init(&walks[i], port, d, i, true);
  for (uint32_t i = 0; i < count && r && walks; i++) walk_finish(&walks[i]);
  if (!r) return walks;
  free(walks);
  return NULL;
}

static int flatten(struct catalog *c, struct port *port, struct vdisk *d) {
  struct walk *walks = make_walks(port, d);
  int r = walks ? vdisk_hold(port, d) : -ENOMEM;
  if (r) {
    free(walks);
    return r;
  }
  d->changing = true;
  c->walks++;
  catalog_leave(c, 0);
  r = promote(port, d, walks);
  catalog_enter(port, false, &c);
  c->walks--;
  d->changing = false;
  for (uint32_t i = 0; i < vdisk_part_count(d, port->store->shard_count); i++)
    walk_finish(&walks[i]);
  free(walks);
  /* All that lay below is in its own layer. */
  if (!r) r = vdisk_move(port, d, NULL, NULL);
  if (!r) release_parent(port, d);
  if (!r) d->parent = NULL;
  (void)vdisk_release(port, d);
  return r;
}

int catalog_flatten(struct port *port, const char *name) {
  struct catalog *c;
  struct vdisk *d;
  int r = catalog_enter(port, true, &c);
  if (r) return r;
  r = catalog_find_settled(c, name, &d);
  if (!r && d->sealed) r = -EROFS;
  if (!r && (d->changing || d->pins)) r = -EBUSY;
  if (!r && d->parent) r = flatten(c, port, d);
  catalog_merge(c, port);
  return catalog_leave(c, r);
}
