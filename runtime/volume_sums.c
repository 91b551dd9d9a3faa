/* volume_sums.c - checksums of snapshots: has the shards make them (OP_LAYER_SUM) when a layer is
 * sealed, and at open where that was not done; of volumes with integrity=on at open those that a
 * crash has taken, and at the end it has them saved. Begun under the catalog's lock; from then on
 * on core 0's thread. Nobody waits for it but the end of the store.
 *
 * When a layer is through, other shards that read through it look again, so that they find the
 * checksums. Parts of striped volumes lie on parts in the same shard, which has done so itself. */
#include <inttypes.h>

#include "runtime/volumes_internal.h"

struct sum_job {
  struct catalog *catalog;
  uint64_t layer;
  uint32_t first, end, pending;
  bool live; /* the layer is written to */
  bool tell; /* others, when it is done */
  bool forgetting;
  struct shard_op ops[];
};

static void ask(struct sum_job *j, uint8_t kind, uint32_t first, uint32_t end, uint64_t offset) {
  struct catalog *c = j->catalog;
  j->pending = end - first;
  for (uint32_t s = first; s < end; s++) {
    struct shard_op *op = &j->ops[s - first];
    *op = (struct shard_op){.kind = kind,
                            .offset = offset,
                            .bytes = kind == OP_LAYER_SUM && j->live ? SUM_LIVE : 0,
                            .owner = &c->sums,
                            .hash = hash_of_shard(s, c->store->shard_count),
                            .core = (uint8_t)c->store->core_of_shard[s],
                            .buf = j};
    core_enter(&c->store->cores[0], op);
  }
}

static void note_failure(const struct sum_job *j, const struct shard_op *op) {
  const struct store *s = j->catalog->store;
  if (op->result >= 0 || op->result == -ECANCELED || j->forgetting) return;
  log_line(&s->logger, 1, "shard %u: layer %" PRIu64 ": not all blocks got checksums: %s",
           shard_of_hash(op->hash, s->shard_count), j->layer, strerror((int)-op->result));
}

/* peer.finished */
static void answered(struct peer *peer, struct shard_op *op) {
  struct catalog *c = container_of(peer, struct catalog, sums);
  struct sum_job *j = op->buf;
  note_failure(j, op);
  if (op->result == -ECANCELED) j->tell = false;
  if (--j->pending > 0) return;
  if (j->tell && !j->forgetting) {
    j->forgetting = true;
    ask(j, OP_VIEWS_DROP, 0, c->store->shard_count, 1);
    return;
  }
  c->jobs--;
  free(j);
}

static void start(struct core *core, struct shard_op *op) {
  struct sum_job *j = op->buf;
  struct catalog *c = j->catalog;
  if (!c->sums.finished) {
    c->sums = core->self;
    c->sums.finished = answered;
  }
  c->jobs++;
  ask(j, OP_LAYER_SUM, j->first, j->end, j->layer);
  core_complete(core, op);
}

static bool wants_sums(const struct vdisk *d) { return d->sealed ? !d->no_sums : d->live_sums; }

void sums_begin(struct port *port, const struct vdisk *d) {
  struct store *s = port->store;
  if (!wants_sums(d)) return;
  struct sum_job *j = calloc(1, sizeof *j + s->shard_count * sizeof j->ops[0]);
  if (!j) { /* the next open finds it */
    log_line(&s->logger, 1, "layer %" PRIu64 ": no memory for checksums now", d->layer);
    return;
  }
  *j = (struct sum_job){.catalog = &s->catalog,
                        .layer = d->layer,
                        .first = vdisk_first(d),
                        .end = vdisk_end(d, s->shard_count),
                        .live = !d->sealed,
                        .tell = d->sealed && !vdisk_striped(d) && s->shard_count > 1};
  struct shard_op op = {.kind = OP_CALL, .buf = j};
  core_call_fn *fn = start;
  memcpy(&op.work, &fn, sizeof fn);
  port_run(port, 0, &op);
}

/* ---- At open and at the end --------------------------------------------------------------------
 */

static int find_unsummed(struct core *core, uint32_t shard, void *arg) {
  const struct catalog *c = arg;
  const struct shard *s = core->shards[shard].shard;
  for (uint32_t i = 0; i < c->table_size; i++)
    for (struct vdisk *d = c->table[i]; d; d = d->next)
      if (wants_sums(d) && shard >= vdisk_first(d) && shard < vdisk_end(d, c->store->shard_count))
        d->unsummed |= shard_unsummed_blocks(s, d->layer) > 0;
  return 0;
}

void sums_resume(struct catalog *c, struct port *port) {
  call_shards(port, 0, c->store->shard_count, find_unsummed, c);
  for (uint32_t i = 0; i < c->table_size; i++)
    for (struct vdisk *d = c->table[i]; d; d = d->next) {
      if (d->unsummed) sums_begin(port, d);
      d->unsummed = false;
    }
}

static int stop(struct core *core, uint32_t shard, void *arg) {
  (void)arg;
  shard_sums_stop(core->shards[shard].shard);
  return 0;
}

void sums_stop(struct catalog *c, struct port *port) {
  call_shards(port, 0, c->store->shard_count, stop, NULL);
}

void sums_save(struct catalog *c, struct port *port) {
  bool any = false;
  for (uint32_t i = 0; i < c->table_size; i++)
    for (const struct vdisk *d = c->table[i]; d; d = d->next) any |= d->live_sums;
  for (uint32_t s = 0; any && s < c->store->shard_count; s++) {
    struct shard_op op = {.kind = OP_LAYER_SUM, .bytes = SUM_SAVE};
    int64_t r = run_in_shard(port, s, &op);
    if (r)
      log_line(&c->store->logger, 1, "shard %u: checksums are not saved: %s", s, strerror((int)-r));
  }
}
