/* volume_merge.c - removed snapshots on which a single volume still lies: their layer is merged
 * into that volume's, so that what only they had comes back. On the thread of the port.
 *
 *   [lock]    X lies on N alone, in the same shards; N has no name. X is held open, `merging`
 *   [unlock]  OP_LAYER_MERGE in each shard: beside requests; both together say the same at any time
 *   [lock]    freeze; the record of X names N's parent, that of N goes; thaw; N's layer, empty now,
 *             is dropped
 *
 * A crash leaves a merge to be done again; so does an error. The next removal tries again. */
#include <inttypes.h>

#include "runtime/volumes_internal.h"
#include "shards/base/plant.h"

static bool mergeable(const struct catalog *c, const struct vdisk *x) {
  const struct vdisk *n = x->parent;
  return n && !n->name && n->children == 1 && n->stripe_shift == x->stripe_shift &&
         n->shard == x->shard && !x->changing && !x->merging && !n->merging && !c->walks;
}

/* The one with the smallest id above `after`. */
static struct vdisk *next_mergeable(const struct catalog *c, uint64_t after) {
  struct vdisk *found = NULL;
  for (uint32_t i = 0; i < c->table_size; i++)
    for (struct vdisk *d = c->table[i]; d; d = d->next)
      if (d->id > after && (!found || d->id < found->id) && mergeable(c, d)) found = d;
  return found;
}

static int merge_layers(struct port *port, struct vdisk *x, uint64_t below) {
  uint32_t count = vdisk_part_count(x, port->store->shard_count);
  for (uint32_t i = 0; i < count; i++) {
    struct shard_op op = {.kind = OP_LAYER_MERGE, .offset = below};
    volume_args(&op)->volume = x->open->parts[i];
    int64_t r = run_in_shard(port, vdisk_first(x) + i, &op);
    if (r < 0) return (int)r;
  }
  return 0;
}

/* N is out of the catalog; its layer is empty. */
static void leave_out(struct port *port, struct vdisk *x, struct vdisk *n) {
  struct catalog *c = &port->store->catalog;
  x->parent = n->parent; /* which has as many children as before */
  job_drop(port, n->layer, vdisk_first(n), vdisk_end(n, port->store->shard_count), true, true);
  catalog_take(c, n);
  if (n->group) n->group->members--;
  vdisk_destroy(n);
}

/* What lay on N in another shard and went must not come back after a crash: it would find N empty.
 * Nor must N's name itself, if they are striped: it went in one shard, and any other one could be
 * durable sooner, with N's clusters gone. Nor must anybody else who saw N's layer, if X is written
 * to: what X overwrites in places that were N's is overwritten for them, too. */
static int make_sure(struct port *port, const struct vdisk *x, const struct vdisk *n) {
  bool in_order = x->sealed && !vdisk_striped(x); /* the log of one shard says it all */
  uint64_t epoch = max_u64(n->foreign_epoch, in_order ? 0 : n->left_epoch);
  int r = 0;
  /* Twice: a flush that was running, and then left out its root, counts as one before this epoch.
   */
  for (int i = 0; i < 2 && !r && !epoch_durable(port->store, epoch); i++) {
    struct shard_op flush = {.kind = OP_FLUSH, .flags = OP_ROOT};
    if (PLANTED(merge_at_once)) return 0;
    r = port_run(port, 0, &flush);
    if (!r) r = (int)flush.result;
  }
  return r ? r : epoch_durable(port->store, epoch) ? 0 : -EAGAIN;
}

static int merge(struct catalog *c, struct port *port, struct vdisk *x) {
  struct vdisk *n = x->parent;
  int r = make_sure(port, x, n);
  if (!r) r = vdisk_hold(port, x);
  if (r) return r;
  x->merging = n->merging = true;
  /* Whoever saw N's layer sees X's from now on. */
  x->left_epoch = max_u64(x->left_epoch, n->left_epoch);
  catalog_leave(c, 0);
  r = merge_layers(port, x, n->layer);
  catalog_enter(port, false, &c);
  if (!r) r = vdisk_move(port, x, n->parent, n);
  x->merging = n->merging = false;
  pthread_cond_broadcast(&c->merged);
  (void)vdisk_release(port, x);
  if (r)
    log_line(&port->store->logger, 2, "volume %" PRIu64 ", removed before, keeps its space: %s",
             n->id, strerror(-r));
  else
    leave_out(port, x, n);
  if (!r) sums_begin(port, x); /* what was copied has none */
  return r;
}

void catalog_merge(struct catalog *c, struct port *port) {
  struct vdisk *x;
  if (!c->merge_wanted) return;
  c->merge_wanted = false;
  for (uint64_t id = 0; (x = next_mergeable(c, id)) != NULL;) {
    id = x->id;
    int r = 0;
    while (!r && (x = catalog_find_id(c, id)) && mergeable(c, x)) r = merge(c, port, x);
    if (r) c->merge_wanted = true;
    if ((x = catalog_find_id(c, id))) drop_nameless(port, x); /* its last child went meanwhile */
  }
}

int catalog_find_settled(struct catalog *c, const char *name, struct vdisk **disk) {
  int r;
  while ((r = catalog_find(c, name, disk)) == 0 && (*disk)->merging)
    pthread_cond_wait(&c->merged, &c->lock);
  return r;
}
